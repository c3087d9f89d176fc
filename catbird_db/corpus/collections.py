"""Collections: what documents are gathered in, who may read and write it, and when it is synced.

Its owner may do everything. Others may what a permission lets them: READ, WRITE (reads too), ADMIN
(writes too, changes the collection, grants). Anybody may read what is public, and write nothing for
that. To whoever may not read a collection, it is not there.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from ..errors import ConflictError, InvalidArgumentError, NotFoundError
from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..types import (
    UNSET,
    CollectionId,
    CollectionName,
    CollectionStatus,
    Cursor,
    Description,
    Dimension,
    JsonColumn,
    JsonObject,
    Lease,
    LeaseToken,
    Limit,
    Minutes,
    ModelName,
    Permission,
    Row,
    StatusText,
    StoreName,
    SyncMode,
    Unset,
    UserId,
)

__all__ = [
    "COLLECTION_TRANSITIONS",
    "AuditEntry",
    "Collection",
    "CollectionPermission",
    "DueSync",
    "claim_due_syncs",
    "complete_sync",
    "create_collection",
    "delete_collection",
    "get_collection",
    "grant_collection_permission",
    "list_audit_log",
    "list_collection_permissions",
    "list_collections",
    "list_public_collections",
    "pause_sync",
    "rename_collection",
    "renew_sync",
    "resume_sync",
    "revoke_collection_permission",
    "set_collection_status",
    "update_collection",
]

COLLECTION_TRANSITIONS: Final[Mapping[CollectionStatus, frozenset[CollectionStatus]]] = {
    "pending": frozenset({"processing", "ready", "error"}),
    "processing": frozenset({"ready", "degraded", "error"}),
    "ready": frozenset({"processing", "degraded", "error"}),
    "degraded": frozenset({"processing", "ready", "error"}),
    "error": frozenset({"pending", "processing"}),
}
"""Which statuses a status may become."""

SYNC_LEASE: Final = timedelta(minutes=5)


class Collection(Row, frozen=True):
    """A collection. How much is in it, `collection_statistics` counts.

    ``next_sync_at`` is when its sync is due; while a worker has it, when the worker's lease ends.
    """

    id: UUID
    owner_id: int
    name: str
    description: str | None
    status: CollectionStatus
    status_message: str | None
    vector_store_name: str | None
    embedding_model: str
    embedding_dimension: int
    sync_mode: SyncMode
    sync_interval_minutes: int | None
    next_sync_at: datetime | None
    sync_paused_at: datetime | None
    last_synced_at: datetime | None
    is_public: bool
    meta: JsonColumn
    created_at: datetime
    updated_at: datetime


class CollectionPermission(Row, frozen=True):
    """What somebody who does not own a collection may do with it."""

    collection_id: UUID
    user_id: int
    permission: Permission
    granted_at: datetime


class AuditEntry(Row, frozen=True):
    """What ``user_id`` did to a collection."""

    collection_id: UUID
    id: int
    user_id: int
    action: str
    details: JsonColumn
    created_at: datetime


class DueSync(Row, frozen=True):
    """A claimed sync: until ``lease_until`` nobody else gets it, and ``sync_token`` completes it."""

    collection_id: UUID
    owner_id: int
    name: str
    vector_store_name: str | None
    embedding_model: str
    embedding_dimension: int
    sync_interval_minutes: int
    last_synced_at: datetime | None
    meta: JsonColumn
    sync_token: UUID
    lease_until: datetime


class _Revoked(Row, frozen=True):
    collection_id: UUID
    is_revoked: bool


class _Paused(Row, frozen=True):
    collection_id: UUID
    is_continuous: bool
    is_changed: bool


async def collection_not_found(_db: Executor, /, **_: object) -> NotFoundError:
    """What is raised where a collection is not there, or not for this user: who cannot tell which."""
    return NotFoundError("no such collection, or this user may not do that with it")


@query
async def insert_collection(
    db: Executor,
    /,
    *,
    owner_id: UserId,
    collection_id: CollectionId,
    name: CollectionName,
    description: Description | None,
    vector_store_name: StoreName | None,
    embedding_model: ModelName,
    embedding_dimension: Dimension,
    sync_mode: SyncMode,
    sync_interval_minutes: Minutes | None,
    is_public: bool,
    meta: str,
) -> Collection | None: ...


@query
async def get_collection(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId
) -> Collection:
    """A collection, for its owner, for whoever has a permission, for anybody where it is public.

    Raises:
        NotFoundError: there is none, or this user may not read it.
    """
    ...


@query
async def list_collections(
    db: Executor,
    /,
    *,
    user_id: UserId,
    status: CollectionStatus | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Collection]:
    """A user's own collections and those that others share with them, newest first.

    What is public and no more than that stands in `list_public_collections`.
    """
    ...


@query
async def list_public_collections(
    db: Executor, /, *, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[Collection]:
    """What anybody may read, newest first."""
    ...


@query
async def change_collection_name(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId, name: CollectionName
) -> Collection | None: ...


@query
async def change_collection(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    description: Description | Unset | None,
    vector_store_name: StoreName | Unset | None,
    embedding_model: ModelName | Unset,
    embedding_dimension: Dimension | Unset,
    sync_mode: SyncMode | Unset,
    sync_interval_minutes: Minutes | Unset,
    is_public: bool | Unset,
    meta: str | Unset,
    fields: list[str],
) -> Collection | None: ...


@query
async def move_collection_status(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    status: CollectionStatus,
    status_message: StatusText | None,
    allowed: list[CollectionStatus],
) -> Collection | None: ...


@query
async def find_writable_collection(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId
) -> Collection | None: ...


@query
async def remove_collection(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId
) -> int: ...


@query
async def upsert_collection_permission(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    grantee_id: UserId,
    permission: Permission,
) -> CollectionPermission | None: ...


@query
async def remove_collection_permission(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId, grantee_id: UserId
) -> _Revoked | None: ...


@query(refused=collection_not_found)
async def list_collection_permissions(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[CollectionPermission]:
    """Who else may do what, by user id; for the owner and ADMINs.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it.
    """
    ...


@query
async def list_audit_log(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[AuditEntry]:
    """What was done to a collection, newest first; for ADMINs, and for its owner also once it is gone.

    Empty for everybody else.
    """
    ...


@query
async def take_due_syncs(
    db: Executor, /, *, token: LeaseToken, limit: Limit, lease: Lease
) -> list[DueSync]: ...


@query
async def renew_sync(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    sync_token: LeaseToken,
    lease: Lease = SYNC_LEASE,
) -> bool:
    """A worker's heartbeat: ``lease`` from now nobody else gets the sync.

    Returns:
        False where nothing was changed: the lease has ended, or the collection is gone or is no longer
        synced. Stop.
    """
    ...


@query
async def complete_sync(
    db: Executor, /, *, collection_id: CollectionId, sync_token: LeaseToken
) -> bool:
    """A claimed sync is done; the next one is due its interval from now.

    Returns:
        False where nothing was changed: the lease has ended, or another worker has it, or the
        collection is gone or is no longer synced.
    """
    ...


@query
async def move_sync_pause(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId, pause: bool
) -> _Paused | None: ...


@validated
async def create_collection(
    db: Executor,
    /,
    *,
    owner_id: UserId,
    name: CollectionName,
    embedding_model: ModelName,
    embedding_dimension: Dimension,
    description: Description | None = None,
    vector_store_name: StoreName | None = None,
    sync_mode: SyncMode = "one_time",
    sync_interval_minutes: Minutes | None = None,
    is_public: bool = False,
    meta: JsonObject | None = None,
) -> Collection:
    """Create a collection. Its id is made here, a UUIDv7: of a chosen one it would tell if it is taken.

    Args:
        owner_id: whose it is.
        name: 1 to 255 characters, blanks around them left out; unique among the owner's.
        embedding_model: what its chunks are embedded by.
        embedding_dimension: how many numbers that gives, 1 to 65,536.
        description: for people to read.
        vector_store_name: where its vectors are.
        sync_mode: ``continuous`` is due at once, and every ``sync_interval_minutes`` from then on.
        sync_interval_minutes: 1 to 525,600; of a continuous sync, and of no other.
        is_public: whether anybody may read it.
        meta: what else is to be known of it, at most 1 MiB.

    Raises:
        InvalidArgumentError: interval and mode do not go together.
        NotFoundError: there is no such user.
        ConflictError: the owner has a collection of this name.
    """
    if (sync_mode == "continuous") != (sync_interval_minutes is not None):
        raise InvalidArgumentError(
            "sync_interval_minutes: a continuous sync needs it, and a one-time sync has none"
        )
    collection = await insert_collection(
        db,
        owner_id=owner_id,
        collection_id=uuid7(),
        name=name,
        description=description,
        vector_store_name=vector_store_name,
        embedding_model=embedding_model,
        embedding_dimension=embedding_dimension,
        sync_mode=sync_mode,
        sync_interval_minutes=sync_interval_minutes,
        is_public=is_public,
        meta=json.dumps(meta or {}),
    )
    if collection is None:
        raise ConflictError("create_collection: this owner has a collection of this name")
    return collection


@validated
async def rename_collection(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId, name: CollectionName
) -> Collection:
    """Give a collection another name; for its owner and ADMINs.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it.
        ConflictError: the owner has another collection of this name.
    """
    renamed = await change_collection_name(
        db, collection_id=collection_id, user_id=user_id, name=name
    )
    if renamed is None:
        raise await collection_not_found(db)
    return renamed


@validated
async def update_collection(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    description: Description | Unset | None = UNSET,
    vector_store_name: StoreName | Unset | None = UNSET,
    embedding_model: ModelName | Unset = UNSET,
    embedding_dimension: Dimension | Unset = UNSET,
    sync_mode: SyncMode | Unset = UNSET,
    sync_interval_minutes: Minutes | Unset = UNSET,
    is_public: bool | Unset = UNSET,
    meta: JsonObject | Unset = UNSET,
) -> Collection:
    """Change what is given of a collection, for its owner and ADMINs.

    None clears the description and the vector store's name; nothing else can be none. An interval goes
    with ``sync_mode="one_time"``, and ``meta={}`` leaves nothing in it.

    A sync that becomes continuous is due at once, and one that becomes one-time never again. Of an
    interval that becomes shorter, the next sync is one such interval away at most.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it.
        InvalidArgumentError: it would be synced continuously without an interval, or once with one.
    """
    given = {
        "description": description,
        "vector_store_name": vector_store_name,
        "embedding_model": embedding_model,
        "embedding_dimension": embedding_dimension,
        "sync_mode": sync_mode,
        "sync_interval_minutes": sync_interval_minutes,
        "is_public": is_public,
        "meta": meta,
    }
    changed = await change_collection(
        db,
        collection_id=collection_id,
        user_id=user_id,
        description=description,
        vector_store_name=vector_store_name,
        embedding_model=embedding_model,
        embedding_dimension=embedding_dimension,
        sync_mode=sync_mode,
        sync_interval_minutes=sync_interval_minutes,
        is_public=is_public,
        meta=UNSET if meta is UNSET else json.dumps(meta),
        fields=[name for name, value in given.items() if value is not UNSET],
    )
    if changed is None:
        raise await collection_not_found(db)
    return changed


@validated
async def set_collection_status(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    status: CollectionStatus,
    status_message: StatusText | None = None,
) -> Collection:
    """Change the status, as `COLLECTION_TRANSITIONS` allows; for whoever may write.

    Args:
        collection_id: of which collection.
        user_id: who does it.
        status: what it becomes.
        status_message: why, instead of the message before.

    Raises:
        NotFoundError: there is no such collection, or this user may not write to it.
        ConflictError: its status may not become this one.
    """
    allowed: list[CollectionStatus] = [
        before for before, after in COLLECTION_TRANSITIONS.items() if status in after
    ]
    changed = await move_collection_status(
        db,
        collection_id=collection_id,
        user_id=user_id,
        status=status,
        status_message=status_message,
        allowed=allowed,
    )
    if changed is not None:
        return changed
    collection = await find_writable_collection(db, collection_id=collection_id, user_id=user_id)
    if collection is None:
        raise await collection_not_found(db)
    raise ConflictError(
        f"set_collection_status: it is {collection.status}, which does not become {status}"
    )


@validated
async def delete_collection(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId
) -> None:
    """Delete a collection with its documents, chunks, operations and permissions; for its owner.

    The audit log stays. The vectors in the vector store are its caller's to delete.

    Raises:
        NotFoundError: there is no such collection, or it is not this user's own.
    """
    if not await remove_collection(db, collection_id=collection_id, user_id=user_id):
        raise await collection_not_found(db)


@validated
async def grant_collection_permission(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    grantee_id: UserId,
    permission: Permission,
) -> CollectionPermission:
    """Let somebody read, write or administer a collection, instead of what was granted before.

    Args:
        collection_id: which collection.
        user_id: who grants: its owner or an ADMIN.
        grantee_id: to whom.
        permission: ``READ``; ``WRITE``, which reads too; ``ADMIN``, which does all but delete it.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it; or no such
            grantee.
        InvalidArgumentError: the grantee owns it, and needs no permission.
    """
    granted = await upsert_collection_permission(
        db,
        collection_id=collection_id,
        user_id=user_id,
        grantee_id=grantee_id,
        permission=permission,
    )
    if granted is not None:
        return granted
    collection = await find_writable_collection(db, collection_id=collection_id, user_id=user_id)
    if collection is not None and collection.owner_id == grantee_id:
        raise InvalidArgumentError(
            "grantee_id: the owner may do everything, and is granted nothing"
        )
    raise await collection_not_found(db)


@validated
async def revoke_collection_permission(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId, grantee_id: UserId
) -> bool:
    """Take back what somebody was granted; for the owner, ADMINs, and the grantee himself.

    Returns:
        False where nothing had been granted.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it.
    """
    revoked = await remove_collection_permission(
        db, collection_id=collection_id, user_id=user_id, grantee_id=grantee_id
    )
    if revoked is None:
        raise await collection_not_found(db)
    return revoked.is_revoked


@validated
async def claim_due_syncs(
    db: Executor, /, *, limit: Limit = 10, lease: Lease = SYNC_LEASE
) -> list[DueSync]:
    """Claim collections whose sync is due; nobody else gets them until the lease ends.

    A worker creates the operations that the sync consists of, then calls `complete_sync`. What takes
    longer than the lease is renewed by `renew_sync`, or it is due again.

    Args:
        limit: how many at most, longest due first.
        lease: how long the worker has, 1 s to a day.
    """
    return await take_due_syncs(db, token=uuid7(), limit=limit, lease=lease)


@validated
async def pause_sync(db: Executor, /, *, collection_id: CollectionId, user_id: UserId) -> bool:
    """Let a continuous sync rest until `resume_sync`; for the owner and ADMINs.

    Returns:
        False where it rested already.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it.
        ConflictError: it is not synced continuously.
    """
    return await _set_pause(db, collection_id=collection_id, user_id=user_id, pause=True)


@validated
async def resume_sync(db: Executor, /, *, collection_id: CollectionId, user_id: UserId) -> bool:
    """Go on with a sync that was paused, at once if it is due; for the owner and ADMINs.

    Returns:
        False where it was not paused.

    Raises:
        NotFoundError: there is no such collection, or this user does not administer it.
        ConflictError: it is not synced continuously.
    """
    return await _set_pause(db, collection_id=collection_id, user_id=user_id, pause=False)


async def _set_pause(db: Executor, *, collection_id: UUID, user_id: int, pause: bool) -> bool:
    paused = await move_sync_pause(db, collection_id=collection_id, user_id=user_id, pause=pause)
    if paused is None:
        raise await collection_not_found(db)
    if not paused.is_continuous:
        raise ConflictError("this collection is not synced continuously")
    return paused.is_changed
