"""Users: who may log in; vault and corpus hang on them.

A password is kept as its Argon2id hash (RFC 9106), which no model and no error shows.
"""

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import Field, StringConstraints

from .errors import InvalidArgumentError, NotFoundError
from .pagination import Page
from .pool import Executor
from .query import query
from .signature import validated
from .types import UNSET, Cursor, Did, Limit, Row, Text, Unset, UserId

if TYPE_CHECKING:
    from argon2 import PasswordHasher

__all__ = [
    "User",
    "authenticate_user",
    "create_user",
    "deactivate_user",
    "delete_user",
    "get_user",
    "get_user_by_did",
    "get_user_by_email",
    "get_user_by_username",
    "list_users",
    "record_login",
    "update_user",
]

T = TypeVar("T")

Username = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""1 to 64 of A-Z a-z 0-9 . _ - : it stands in URLs, and nobody can look like somebody else."""

Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[!-~]+@[!-~]+$")]
"""Visible ASCII around an @; a domain of other letters in its xn-- form (RFC 5891)."""

Password = Annotated[Text, StringConstraints(min_length=1, max_length=1024)]
FullName = Annotated[Text, StringConstraints(max_length=255)]

HASHING_THREADS: Final = 2
"""Each hash takes 64 MiB and a core for some 50 ms: a flood of logins waits here, not in memory."""


class User(Row, frozen=True):
    """One user; ``did`` where it has one. Names and addresses keep the case they were given in."""

    id: int
    username: str
    email: str
    full_name: str | None
    is_active: bool
    did: str | None
    created_at: datetime
    updated_at: datetime
    last_login: datetime | None


class Credentials(User, frozen=True):
    password_hash: str | None = Field(repr=False)


@query
async def insert_user(
    db: Executor,
    /,
    *,
    username: Username,
    email: Email,
    password_hash: str | None,
    full_name: FullName | None,
    did: Did | None,
) -> User: ...


@query
async def get_user(db: Executor, /, *, user_id: UserId) -> User | None:
    """The user, or None."""
    ...


@query
async def get_user_by_username(db: Executor, /, *, username: Username) -> User | None:
    """The user of this name, in any case; or None."""
    ...


@query
async def get_user_by_email(db: Executor, /, *, email: Email) -> User | None:
    """The user of this address, in any case; or None."""
    ...


@query
async def get_user_by_did(db: Executor, /, *, did: Did) -> User | None:
    """The user of this DID, or None."""
    ...


@query
async def list_users(
    db: Executor, /, *, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[User]:
    """All users, oldest first, for administrators."""
    ...


@query
async def change_user(
    db: Executor,
    /,
    *,
    user_id: UserId,
    username: Username | Unset,
    email: Email | Unset,
    is_active: bool | Unset,
    password_hash: str | Unset | None,
    full_name: FullName | Unset | None,
    did: Did | Unset | None,
) -> User | None: ...


@query
async def deactivate_user(db: Executor, /, *, user_id: UserId) -> bool:
    """Let nobody log in as this user; False where it was so, or there is no such user."""
    ...


@query
async def delete_user(db: Executor, /, *, user_id: UserId) -> bool:
    """Delete a user and all that is the user's; False where there is none.

    The audit log stays, with an entry for each collection that goes.
    """
    ...


@query
async def find_credentials(db: Executor, /, *, username: Username) -> Credentials | None: ...


@query
async def replace_password_hash(
    db: Executor, /, *, user_id: UserId, old_hash: str, new_hash: str
) -> bool: ...


@query
async def record_login(db: Executor, /, *, user_id: UserId) -> bool:
    """Note that somebody logged in now; False where there is no such user."""
    ...


@validated
async def create_user(
    db: Executor,
    /,
    *,
    username: Username,
    email: Email,
    password: Password | None = None,
    full_name: FullName | None = None,
    did: Did | None = None,
) -> User:
    """Create a user. Names and addresses are unique without regard to case, and ASCII.

    Args:
        username: 1 to 64 letters, digits, dots, hyphens and underscores.
        email: where to write to; never written to here.
        password: hashed before it is sent; without one nobody logs in by password.
        full_name: what to show.
        did: the user's DID, where it has one.

    Raises:
        ConflictError: username, email or did is another user's; ``constraint`` says which.
    """
    password_hash = None if password is None else await _hash(password)
    return await insert_user(
        db,
        username=username,
        email=email,
        password_hash=password_hash,
        full_name=full_name,
        did=did,
    )


@validated
async def update_user(
    db: Executor,
    /,
    *,
    user_id: UserId,
    username: Username | Unset = UNSET,
    email: Email | Unset = UNSET,
    password: Password | Unset | None = UNSET,
    full_name: FullName | Unset | None = UNSET,
    did: Did | Unset | None = UNSET,
    is_active: bool | Unset = UNSET,
) -> User:
    """Change what is given; what is left out stays. None takes a password, full name or DID away.

    Raises:
        NotFoundError: there is no such user.
        ConflictError: username, email or did is another user's; ``constraint`` says which.
    """
    changed = await change_user(
        db,
        user_id=user_id,
        username=username,
        email=email,
        is_active=is_active,
        password_hash=await _hash(password) if isinstance(password, str) else password,
        full_name=full_name,
        did=did,
    )
    if changed is None:
        raise NotFoundError("update_user: there is no such user")
    return changed


@validated
async def authenticate_user(db: Executor, /, *, username: str, password: str) -> User | None:
    """The active user of this name, if this is the password; else None, whatever is wrong: also
    for a name or a password that nobody can have.

    Takes about as long for a name that nobody has: some 50 ms, in a thread. Call it on the pool, as
    a transaction would be idle meanwhile. It records nothing: see `record_login`.
    """
    try:
        return await _authenticate(db, username=username, password=password)
    except InvalidArgumentError:
        return None


@validated
async def _authenticate(db: Executor, /, *, username: Username, password: Password) -> User | None:
    found = await find_credentials(db, username=username)
    known = found.password_hash if found else None
    is_right = await _is_password(password, known)
    if found is None or known is None or not is_right or not found.is_active:
        return None
    if _hasher().check_needs_rehash(known):
        await replace_password_hash(
            db, user_id=found.id, old_hash=known, new_hash=await _hash(password)
        )
    return User(**found.model_dump(exclude={"password_hash"}))


async def _hash(password: str) -> str:
    return await _in_thread(lambda: _hasher().hash(password))


async def _is_password(password: str, known: str | None) -> bool:
    """Whether it is; against a hash that nobody has the password of where there is none."""
    return await _in_thread(lambda: _verify(known or _nobodys_hash(), password)) and bool(known)


def _verify(known: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(known, password)
    except (VerificationError, InvalidHashError):
        return False


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads(), work)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="catbird-argon2")


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # not loaded by who stores no passwords

    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    """Of no password, and verified as slowly as any; made without hashing, which would tell who came
    first with a name that nobody has."""
    ours = _hasher()
    salt, digest = (
        b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (ours.salt_len, ours.hash_len)
    )
    cost = f"m={ours.memory_cost},t={ours.time_cost},p={ours.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"
