"""Operations: long work on a collection. Users ask for it, workers claim it and hold it by a lease.

A worker that is silent for longer than its lease loses it, and the operation goes to another; with
the lease it loses every right to write, so that of two workers that both believe to have an
operation, one is heard. What has been done twice in between must bear that.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from ..errors import InvalidArgumentError, NotFoundError
from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..types import (
    CollectionId,
    Cursor,
    JsonColumn,
    JsonObject,
    Lease,
    LeaseToken,
    Limit,
    OperationId,
    OperationStatus,
    OperationType,
    Percent,
    Row,
    StatusText,
    UserId,
)
from .collections import collection_not_found

__all__ = [
    "OPERATION_TRANSITIONS",
    "ClaimedOperation",
    "Operation",
    "cancel_operation",
    "claim_operation",
    "complete_operation",
    "create_operation",
    "fail_operation",
    "get_operation",
    "list_operations",
    "renew_operation_lease",
    "report_operation_progress",
]

OPERATION_TRANSITIONS: Final[Mapping[OperationStatus, frozenset[OperationStatus]]] = {
    "pending": frozenset({"processing", "cancelled"}),
    "processing": frozenset({"processing", "completed", "failed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Which statuses a status may become, each by the function of its name; `claim_operation` makes what
is pending, or was left by its worker, processing."""

LEASE: Final = timedelta(minutes=1)
ATTEMPTS: Final = 5
BEHIND_ALL: Final = UUID(int=2**128 - 1)
"""Where the first page begins: an operation of this id would be on none."""


class Operation(Row, frozen=True):
    """An operation; ``progress`` is 0 to 100, ``attempts`` how often a worker began it."""

    collection_id: UUID
    id: UUID
    user_id: int
    type: OperationType
    status: OperationStatus
    progress: int
    config: JsonColumn
    error_message: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ClaimedOperation(Operation, frozen=True):
    """An operation for its worker: until ``lease_until``, who has ``lease_token`` may write to it."""

    lease_token: UUID
    lease_until: datetime


class _Taken(Operation, frozen=True):
    lease_token: UUID | None
    lease_until: datetime | None


class _Cancelled(Row, frozen=True):
    id: UUID
    is_cancelled: bool


@query
async def insert_operation(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    operation_id: OperationId,
    type: OperationType,
    config: str,
) -> Operation | None: ...


@query
async def get_operation(
    db: Executor, /, *, collection_id: CollectionId, operation_id: OperationId, user_id: UserId
) -> Operation:
    """An operation, for the owner of its collection and whoever has a permission.

    Raises:
        NotFoundError: there is none, or this user may not know of it, as where it is just public.
    """
    ...


@query(refused=collection_not_found)
async def page_operations(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    limit: Limit,
    cursor: Cursor | None,
) -> Page[Operation]: ...


@query(refused=collection_not_found)
async def page_operations_by_status(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    status: OperationStatus,
    limit: Limit,
    cursor: Cursor | None,
) -> Page[Operation]: ...


@query
async def take_operation(
    db: Executor, /, *, lease_token: LeaseToken, lease: Lease, max_attempts: int
) -> _Taken | None: ...


@query
async def renew_operation_lease(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    operation_id: OperationId,
    lease_token: LeaseToken,
    lease: Lease = LEASE,
) -> bool:
    """A worker's heartbeat: ``lease`` from now nobody else gets the operation.

    Returns:
        False where nothing was changed: the lease has ended, or the operation was cancelled. Stop.
    """
    ...


@query
async def report_operation_progress(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    operation_id: OperationId,
    lease_token: LeaseToken,
    progress: Percent,
    lease: Lease = LEASE,
) -> bool:
    """Say how far a worker is, 0 to 100; its heartbeat too, as `renew_operation_lease`.

    Returns:
        False where nothing was changed: the lease has ended, or the operation was cancelled. Stop.
    """
    ...


@query
async def complete_operation(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    operation_id: OperationId,
    lease_token: LeaseToken,
) -> bool:
    """A worker has done an operation.

    Returns:
        False where nothing was changed: the lease has ended, or the operation was cancelled.
    """
    ...


@query
async def fail_operation(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    operation_id: OperationId,
    lease_token: LeaseToken,
    error_message: StatusText,
) -> bool:
    """A worker could not do an operation; it is not tried again.

    Returns:
        False where nothing was changed: the lease has ended, or the operation was cancelled.
    """
    ...


@query
async def end_operation(
    db: Executor, /, *, collection_id: CollectionId, operation_id: OperationId, user_id: UserId
) -> _Cancelled | None: ...


@validated
async def create_operation(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    type: OperationType,
    config: JsonObject | None = None,
    operation_id: OperationId | None = None,
) -> Operation:
    """Ask for an operation, to be claimed by a worker; for whoever may write.

    Args:
        collection_id: on which collection.
        user_id: who asks, and for whom the worker acts.
        type: what is to be done.
        config: how; for the worker alone to understand, at most 1 MiB.
        operation_id: a UUIDv7 unless given.

    Raises:
        InvalidArgumentError: ``operation_id`` is the greatest of all.
        NotFoundError: there is no such collection, or this user may not write to it.
        ConflictError: ``operation_id`` is taken.
    """
    if operation_id == BEHIND_ALL:
        raise InvalidArgumentError("operation_id: is the greatest of all; take a UUIDv7")
    operation = await insert_operation(
        db,
        collection_id=collection_id,
        user_id=user_id,
        operation_id=operation_id or uuid7(),
        type=type,
        config=json.dumps(config or {}),
    )
    if operation is None:
        raise await collection_not_found(db)
    return operation


@validated
async def list_operations(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    status: OperationStatus | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Operation]:
    """The operations on a collection, newest first; of one status, if that is given.

    A cursor goes on with the same ``status`` that it came from.

    Raises:
        NotFoundError: there is no such collection, or this user has no permission for it.
    """
    if status is None:
        return await page_operations(
            db, collection_id=collection_id, user_id=user_id, limit=limit, cursor=cursor
        )
    return await page_operations_by_status(
        db, collection_id=collection_id, user_id=user_id, status=status, limit=limit, cursor=cursor
    )


@validated
async def claim_operation(db: Executor, /, *, lease: Lease = LEASE) -> ClaimedOperation | None:
    """Claim the operation that has waited longest, of any collection; no two workers get the same.

    An operation whose worker's lease has ended is claimed as well: ``attempts`` tells how often. After
    5 attempts without an answer it is failed, with an ``error_message`` that says so: it may be what
    its workers died of.

    Args:
        lease: how long the worker may be silent, 1 s to a day: `report_operation_progress` and
            `renew_operation_lease` extend it.

    Returns:
        The operation, or None where there is nothing to do.
    """
    token = uuid7()
    while True:
        taken = await take_operation(db, lease_token=token, lease=lease, max_attempts=ATTEMPTS)
        if taken is None:
            return None
        if taken.status == "processing":
            return ClaimedOperation(**taken.model_dump())


@validated
async def cancel_operation(
    db: Executor, /, *, collection_id: CollectionId, operation_id: OperationId, user_id: UserId
) -> bool:
    """Cancel an operation; for whoever may write. Its worker's next report says that it is over.

    Returns:
        False where it had ended already.

    Raises:
        NotFoundError: there is no such operation, or this user may not write to its collection.
    """
    cancelled = await end_operation(
        db, collection_id=collection_id, operation_id=operation_id, user_id=user_id
    )
    if cancelled is None:
        raise NotFoundError("no such operation, or this user may not do that with it")
    return cancelled.is_cancelled
