"""The processing queue: which files have changed, for workers that parse, index and publish them.

A file that changes is ready once it is quiet for 5 s, and after 60 s at the longest. A worker takes
it for a lease; each change is processed at least once, and at most one lease on a file is valid.
"""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import AfterValidator

from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..types import Changed, Cursor, FileId, Lease, Limit, Priority, Row, UserId

__all__ = [
    "ClaimedFile",
    "DeadFile",
    "FailedFile",
    "claim_processing",
    "complete_processing",
    "enqueue_processing",
    "fail_processing",
    "list_dead_processing",
]

ATTEMPTS = 5

LONGEST_ERROR = 10_000


def _storable(error: str) -> str:
    return error[:LONGEST_ERROR].replace("\0", "").encode(errors="replace").decode()


Failure = Annotated[str, AfterValidator(_storable)]
"""What went wrong, whatever it is: cut to 10,000 characters, without what PostgreSQL cannot hold."""


class TakenFile(Row, frozen=True):
    """A file that was ready; without a lease it was given up."""

    user_id: int
    file_id: FileId
    priority: int
    changed: int
    attempts: int
    lease_token: UUID | None
    lease_until: datetime


class ClaimedFile(TakenFile, frozen=True):
    """A file to process before ``lease_until``, up to its change number ``changed``."""

    lease_token: UUID


class FailedFile(Row, frozen=True):
    """A file that was not processed: tried again at ``ready_at``, or given up since ``dead_at``."""

    file_id: FileId
    changed: int
    attempts: int
    error: str | None
    ready_at: datetime
    dead_at: datetime | None


class DeadFile(FailedFile, frozen=True):
    """A file that was given up, until it changes again."""

    dead_at: datetime


@query
async def enqueue_processing(
    db: Executor, /, *, user_id: UserId, file_id: FileId, priority: Priority = 1
) -> int:
    """Note that a file changed or was deleted; call it in the transaction that changed it.

    Revives what was given up. The higher of two priorities stays.

    Returns:
        How many changes are noted that nobody has processed.

    Raises:
        NotFoundError: the user has no such file.
    """
    ...


@query
async def claim_any_processing(
    db: Executor, /, *, limit: Limit, lease_token: UUID, lease: Lease, max_attempts: int
) -> list[TakenFile]: ...


@query
async def claim_user_processing(
    db: Executor,
    /,
    *,
    user_id: UserId,
    limit: Limit,
    lease_token: UUID,
    lease: Lease,
    max_attempts: int,
) -> list[TakenFile]: ...


@query
async def complete_processing(
    db: Executor, /, *, user_id: UserId, file_id: FileId, lease_token: UUID, changed: Changed
) -> bool:
    """Say that a claimed file is processed, as far as its change number ``changed``.

    Returns:
        True: nothing is left to do. False: it will be processed again, as it changed meanwhile,
        or as the lease ended and somebody else has taken it.
    """
    ...


@query
async def release_failed(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    lease_token: UUID,
    changed: Changed,
    error: Failure,
    max_attempts: int,
) -> FailedFile | None: ...


@query
async def list_dead_processing(
    db: Executor, /, *, user_id: UserId, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[DeadFile]:
    """The files of a user that were given up, the oldest first; `enqueue_processing` revives one."""
    ...


@validated
async def claim_processing(
    db: Executor,
    /,
    *,
    user_id: UserId | None = None,
    limit: Limit = 10,
    lease: Lease = timedelta(seconds=60),
) -> list[ClaimedFile]:
    """Take files that are ready, those of high priority first, then those that are ready longest.

    Claim outside a transaction, or commit before the work begins: others pass over what is locked.
    A lease that ends is taken again by the next claim; after 5 attempts without an answer the file
    is given up.

    Args:
        user_id: of one user; None is of all, for the service's own workers.
        limit: at most so many.
        lease: 1 s to 1 day; how long the work may take.

    Returns:
        What is to be processed; empty only where nothing is ready.
    """
    token = uuid4()
    while True:
        if user_id is None:
            taken = await claim_any_processing(
                db, limit=limit, lease_token=token, lease=lease, max_attempts=ATTEMPTS
            )
        else:
            taken = await claim_user_processing(
                db,
                user_id=user_id,
                limit=limit,
                lease_token=token,
                lease=lease,
                max_attempts=ATTEMPTS,
            )
        claimed = [ClaimedFile(**dict(one)) for one in taken if one.lease_token]
        if claimed or not taken:
            return claimed


@validated
async def fail_processing(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    lease_token: UUID,
    changed: Changed,
    error: Failure,
) -> FailedFile | None:
    """Give a claimed file back: it is tried again after 10, 20, 40, 80 s, and given up at the 5th.

    If it changed meanwhile, it is tried anew, as after any change.

    Args:
        user_id, file_id, lease_token, changed: as claimed.
        error: what went wrong; of that, the first 10,000 characters are kept for
            `list_dead_processing`, without NUL.

    Returns:
        What becomes of it, or None where the lease ended and somebody else has taken it.
    """
    return await release_failed(
        db,
        user_id=user_id,
        file_id=file_id,
        lease_token=lease_token,
        changed=changed,
        error=error,
        max_attempts=ATTEMPTS,
    )
