"""Versions of a file: everything that was ever written to it, numbered 1, 2, 3, ..."""

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from ..errors import NotFoundError
from ..pagination import Page
from ..pool import Executor, transaction
from ..query import query
from ..signature import validated
from ..storage import ObjectStore, open_object
from ..types import Cursor, FileId, FileVersionNumber, Limit, Offset, Row, UserId
from .files import File
from .vaults import lock_vault

__all__ = ["FileVersion", "list_versions", "read_version", "restore_version"]


class FileVersion(Row, frozen=True):
    """One version of a file, the newest too; ``size`` is in bytes."""

    user_id: int
    file_id: UUID
    version: int
    object_hash: str
    size: int
    content_type: str
    created_at: datetime


@query
async def list_versions(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[FileVersion]:
    """The versions of a file, newest first; empty for an unknown file.

    A deleted file has its versions until it is purged.

    Raises:
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@query
async def get_version(
    db: Executor, /, *, user_id: UserId, file_id: FileId, version: FileVersionNumber
) -> FileVersion | None: ...


@query
async def rewrite_version(
    db: Executor, /, *, user_id: UserId, file_id: FileId, version: FileVersionNumber
) -> File | None: ...


@validated
async def restore_version(
    db: Executor, /, *, user_id: UserId, file_id: FileId, version: FileVersionNumber
) -> File:
    """Make the content of an old version the newest: a new version, which loses none.

    The file's page becomes stale, and those that embed it.

    Raises:
        NotFoundError: there is no such file, it is deleted, or it has no such version.
    """
    file = await rewrite_version(db, user_id=user_id, file_id=file_id, version=version)
    if file is None:
        async with transaction(db) as tx:
            await lock_vault(tx, user_id=user_id)
            file = await rewrite_version(tx, user_id=user_id, file_id=file_id, version=version)
    if file is None:
        raise NotFoundError("restore_version: there is no such file or version")
    return file


@validated
async def read_version(
    db: Executor,
    store: ObjectStore,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    version: FileVersionNumber,
    start: Offset = 0,
    length: Offset | None = None,
) -> AsyncIterator[bytes]:
    """The bytes of one version in chunks, verified as they come; of a deleted file's too.

    ``start`` and ``length`` as for `read_file`.

    Raises:
        NotFoundError: there is no such file or version.
        IntegrityError: at the end, where the bytes are not those that were stored.
        StorageError: the store failed.
    """
    found = await get_version(db, user_id=user_id, file_id=file_id, version=version)
    if found is None:
        raise NotFoundError("read_version: there is no such file or version")
    async for chunk in open_object(db, store, hash=found.object_hash, start=start, length=length):
        yield chunk
