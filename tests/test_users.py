"""Users: unique without regard to case, and no password but by authenticate_user."""

import asyncio
import re
import secrets
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import catbird_db
from catbird_db import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    Pool,
    User,
    authenticate_user,
    create_user,
    deactivate_user,
    delete_user,
    get_user,
    get_user_by_did,
    get_user_by_email,
    get_user_by_username,
    list_users,
    record_login,
    transaction,
    update_user,
)
from catbird_db.users import _nobodys_hash  # pyright: ignore[reportPrivateUsage]

PASSWORD = "correct horse battery staple"


async def make(pool: Pool, name: str = "Alice", **rest: Any) -> User:
    return await create_user(pool, **{"username": name, "email": f"{name}@Example.org", **rest})


async def rows(pool: Pool, sql: str = "SELECT * FROM users ORDER BY id") -> list[Any]:
    async with pool.connection() as connection:
        return await connection.fetch(sql)


def test_case_is_folded_as_in_c_whatever_the_locale_of_the_database() -> None:
    """tests/test_versions.py tries it on a Turkish database, where there is a server that has one."""
    files = (Path(catbird_db.__file__).parent / "sql").rglob("*.sql")
    folded = re.findall(r"\b(?:lower|upper)\(.*", "".join(one.read_text("utf-8") for one in files))
    assert folded
    assert all(re.match(r'\w+\(:\w+::text COLLATE "C"\)', one) for one in folded)


async def test_a_user_is_found_by_each_of_its_names_in_any_case(catbird_pool: Pool) -> None:
    alice = await make(catbird_pool, full_name="Alice Ünal", did="did:plc:alice")
    assert (alice.username, alice.email, alice.is_active) == ("Alice", "Alice@Example.org", True)
    assert alice.last_login is None
    for found in (
        await get_user(catbird_pool, user_id=alice.id),
        await get_user_by_username(catbird_pool, username="aLICE"),
        await get_user_by_email(catbird_pool, email="ALICE@example.ORG"),
        await get_user_by_did(catbird_pool, did="did:plc:alice"),
    ):
        assert found == alice
    for absent in (
        await get_user(catbird_pool, user_id=alice.id + 1),
        await get_user_by_username(catbird_pool, username="alic"),
        await get_user_by_email(catbird_pool, email="alice@example.com"),
        await get_user_by_did(catbird_pool, did="did:plc:ALICE"),
    ):
        assert absent is None


@pytest.mark.parametrize(
    ("taken", "constraint"),
    [
        ({"username": "ALICE"}, "users_username_key"),
        ({"email": "alice@EXAMPLE.org"}, "users_email_key"),
        ({"did": "did:plc:alice"}, "users_did_key"),
    ],
)
async def test_a_name_that_is_taken_in_any_case_is_a_conflict_that_says_which(
    catbird_pool: Pool, taken: dict[str, str], constraint: str
) -> None:
    await make(catbird_pool, did="did:plc:alice")
    with pytest.raises(ConflictError) as refused:
        await make(catbird_pool, "Bob", **taken)
    assert refused.value.constraint == constraint
    bob = await make(catbird_pool, "Bob")
    with pytest.raises(ConflictError) as refused:
        await update_user(catbird_pool, user_id=bob.id, **taken)  # pyright: ignore
    assert refused.value.constraint == constraint
    assert await get_user(catbird_pool, user_id=bob.id) == bob


async def test_of_many_who_want_one_name_one_gets_it(catbird_pool: Pool) -> None:
    names = ["alice", "Alice", "ALICE", "aLiCe"] * 4
    outcomes = await asyncio.gather(
        *(make(catbird_pool, name, email=f"{at}@x.y") for at, name in enumerate(names)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, User) for one in outcomes) == 1
    assert sum(isinstance(one, ConflictError) for one in outcomes) == len(names) - 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        ".a",
        "a b",
        "a/b",
        "é",
        "\N{CYRILLIC CAPITAL LETTER A}lice",
        "a" * 65,
        "a\n",
        "a@b",
    ],
)
async def test_a_username_is_of_ascii_that_stands_in_a_url(catbird_pool: Pool, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="username"):
        await make(catbird_pool, name, email="a@b")


@pytest.mark.parametrize("email", ["", "a", "@b", "a@", "a b@c", "ä@b", "a@b\n", "a@" + "b" * 253])
async def test_an_email_has_an_at_and_is_of_ascii(catbird_pool: Pool, email: str) -> None:
    with pytest.raises(InvalidArgumentError, match="email"):
        await make(catbird_pool, email=email)


async def test_update_changes_what_is_given_and_none_takes_away(catbird_pool: Pool) -> None:
    alice = await make(catbird_pool, full_name="Alice", did="did:plc:alice", password=PASSWORD)
    same = await update_user(catbird_pool, user_id=alice.id)
    assert same == alice.model_copy(update={"updated_at": same.updated_at})
    assert same.updated_at > alice.updated_at
    renamed = await update_user(
        catbird_pool, user_id=alice.id, username="ALICE", email="a@b", full_name=None
    )
    assert (renamed.username, renamed.email) == ("ALICE", "a@b")
    assert (renamed.full_name, renamed.did) == (None, "did:plc:alice")
    assert await authenticate_user(catbird_pool, username="alice", password=PASSWORD)
    changed = await update_user(
        catbird_pool, user_id=alice.id, did=None, password="another", is_active=True
    )
    assert changed.did is None
    assert not await authenticate_user(catbird_pool, username="alice", password=PASSWORD)
    assert await authenticate_user(catbird_pool, username="alice", password="another")
    await update_user(catbird_pool, user_id=alice.id, password=None)
    assert not await authenticate_user(catbird_pool, username="alice", password="another")
    with pytest.raises(NotFoundError):
        await update_user(catbird_pool, user_id=alice.id + 1, username="x")


async def test_users_are_listed_in_pages_and_deleted(catbird_pool: Pool) -> None:
    users = [await make(catbird_pool, f"user{number}") for number in range(5)]
    seen, cursor = list[User](), None
    while True:
        page = await list_users(catbird_pool, limit=2, cursor=cursor)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == users
    assert await delete_user(catbird_pool, user_id=users[0].id) is True
    assert await delete_user(catbird_pool, user_id=users[0].id) is False
    assert (await list_users(catbird_pool)).items == users[1:]
    assert (await make(catbird_pool, "user0")).id not in {one.id for one in users}


# Logging in.


async def test_who_knows_the_password_gets_the_user_and_nobody_else_anything(
    catbird_pool: Pool,
) -> None:
    alice = await make(catbird_pool, password=PASSWORD)
    await make(catbird_pool, "Nopassword")
    assert await authenticate_user(catbird_pool, username="ALICE", password=PASSWORD) == alice
    for username, password in (
        ("alice", PASSWORD.upper()),
        ("alice", PASSWORD + " "),
        ("nobody", PASSWORD),
        ("nopassword", PASSWORD),
        ("nopassword", "None"),
    ):
        assert await authenticate_user(catbird_pool, username=username, password=password) is None
    assert await deactivate_user(catbird_pool, user_id=alice.id) is True
    assert await deactivate_user(catbird_pool, user_id=alice.id) is False
    assert await authenticate_user(catbird_pool, username="alice", password=PASSWORD) is None
    await update_user(catbird_pool, user_id=alice.id, is_active=True)
    assert await authenticate_user(catbird_pool, username="alice", password=PASSWORD)


@pytest.mark.parametrize(
    ("username", "password"),
    [
        *(
            (name, PASSWORD)
            for name in ("a@b.c", "", " ", "alice ", "alice\0", "x" * 65, "é", "\ud800")
        ),
        *(("alice", word) for word in ("", "x" * 1025, "x" * 10**7, f"{PASSWORD}\0", "\ud800")),
    ],
)
async def test_a_name_or_a_password_that_nobody_can_have_is_no_error(
    catbird_pool: Pool, username: str, password: str
) -> None:
    await make(catbird_pool, password=PASSWORD)
    assert await authenticate_user(catbird_pool, username=username, password=password) is None


async def test_a_login_is_recorded_when_it_is_said(catbird_pool: Pool) -> None:
    alice = await make(catbird_pool, password=PASSWORD)
    await authenticate_user(catbird_pool, username="alice", password=PASSWORD)
    assert await get_user(catbird_pool, user_id=alice.id) == alice
    assert await record_login(catbird_pool, user_id=alice.id) is True
    assert await record_login(catbird_pool, user_id=alice.id + 1) is False
    after = await get_user(catbird_pool, user_id=alice.id)
    assert after
    assert after.last_login
    assert after.last_login > alice.created_at


async def test_an_unknown_name_takes_as_long_as_a_wrong_password(catbird_pool: Pool) -> None:
    """Measured in turns, on a machine that does other things too: a factor, not a difference."""
    await make(catbird_pool, password=PASSWORD)
    await make(catbird_pool, "Nopassword")
    names = ["alice", "nobody", "nopassword"]
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(9):
        _nobodys_hash.cache_clear()  # as in a process that has seen nobody yet
        for name in names:
            start = time.perf_counter()
            assert not await authenticate_user(catbird_pool, username=name, password="wrong")
            times[name].append(time.perf_counter() - start)
    medians = [statistics.median(one) for one in times.values()]
    assert min(medians) > 0.005, "no hash was computed"
    assert max(medians) < 2 * min(medians)


async def test_a_hash_of_yesterdays_parameters_is_replaced_at_the_next_login(
    catbird_pool: Pool,
) -> None:
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await make(catbird_pool)
    await rows(catbird_pool, f"UPDATE users SET password_hash = '{weak}'")
    for _ in range(2):
        assert await authenticate_user(catbird_pool, username="alice", password=PASSWORD)
        [row] = await rows(catbird_pool)
        assert row["password_hash"] != weak
        weak = row["password_hash"] + " "
    await rows(catbird_pool, "UPDATE users SET password_hash = 'no hash at all'")
    assert not await authenticate_user(catbird_pool, username="alice", password=PASSWORD)


async def test_hashing_does_not_hold_up_the_event_loop_or_a_connection(catbird_pool: Pool) -> None:
    await make(catbird_pool, password=PASSWORD)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    logins = [
        asyncio.create_task(authenticate_user(catbird_pool, username="alice", password="x"))
        for _ in range(20)
    ]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        while catbird_pool.waiting or catbird_pool.idle < catbird_pool.size:
            await asyncio.sleep(0.001)
    assert not all(login.done() for login in logins)
    assert await asyncio.gather(*logins) == [None] * 20
    ticking.cancel()
    assert ticks > 20


# Nobody sees a hash.


async def test_no_model_and_no_error_has_the_password_or_its_hash(catbird_pool: Pool) -> None:
    password = secrets.token_hex()
    users = [
        await make(catbird_pool, password=password),
        await get_user_by_username(catbird_pool, username="alice"),
        *(await list_users(catbird_pool)).items,
        await authenticate_user(catbird_pool, username="alice", password=password),
    ]
    [row] = await rows(catbird_pool)
    assert row["password_hash"].startswith("$argon2id$")
    for user in users:
        assert user
        assert "password_hash" not in type(user).model_fields
        assert "argon2" not in f"{user!r} {user.model_dump()}"
    with pytest.raises(ConflictError) as refused:
        await make(catbird_pool, password=password)
    told = f"{refused.value!r} {vars(refused.value)} {refused.value.__cause__!r}"
    assert password not in told
    assert "argon2" not in told
    with pytest.raises(InvalidArgumentError, match="password") as short:
        await authenticate_user(catbird_pool, username="alice", password=password.encode())  # pyright: ignore
    assert password not in f"{short.value!r}"


async def test_a_user_made_in_a_transaction_that_fails_was_never_there(catbird_pool: Pool) -> None:
    with suppress(KeyError):
        async with transaction(catbird_pool) as tx:
            await create_user(tx, username="alice", email="a@b", password=PASSWORD)
            raise KeyError
    assert await rows(catbird_pool) == []


def test_argon2_is_loaded_by_who_hashes_and_not_by_the_import() -> None:
    code = "import sys, catbird_db; print([name for name in sys.modules if 'argon2' in name])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout == "[]\n"
