"""Files of a vault: a path, and a reference to bytes in the object store.

A write uploads first and then refers: a new version of the file that is at the path, or of the one
last deleted there, or a new file. Writers to one path make one file, and each write is a version.
Moving and copying change references alone.
"""

import mimetypes
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ..errors import ConflictError, InvalidArgumentError, NotFoundError
from ..pagination import Page
from ..pool import Connection, Executor, Pool, transaction
from ..query import query
from ..signature import validated
from ..storage import ObjectStore, StoredObject, open_object, put_object
from ..storage.objects import require_owner
from ..storage.store import Body
from ..types import ContentType, Cursor, FileId, Limit, ObjectHash, Offset, Row, UserId
from ..users import get_user
from .folders import ensure_folder, find_replaced, get_folder
from .links import relink
from .paths import EntryPath, VaultPath, parent_of
from .vaults import lock_vault

__all__ = [
    "File",
    "copy_file",
    "count_files",
    "delete_file",
    "find_file_by_path",
    "get_file",
    "list_canvas_files",
    "list_markdown_files",
    "move_file",
    "read_file",
    "record_file",
    "restore_file",
    "vault_size",
    "write_file",
]

OTHER_CONTENT = "if_match: the file is not there, or has other content"

_TYPES = mimetypes.MimeTypes()  # of our own: not known to each platform
_TYPES.add_type("text/markdown", ".md")
_TYPES.add_type("application/json", ".canvas")


class File(Row, frozen=True):
    """A file and its newest version.

    ``folder_id`` is None in the root. ``size`` is in bytes. ``object_hash`` is what ``if_match``
    takes. ``updated_at`` is when the content was last written.
    """

    user_id: int
    id: UUID
    folder_id: UUID | None
    path: str
    version: int
    object_hash: str
    size: int
    content_type: str
    created_at: datetime
    updated_at: datetime


@query
async def overwrite_file(
    db: Executor,
    /,
    *,
    user_id: UserId,
    path: VaultPath,
    object_hash: ObjectHash,
    size: Offset,
    content_type: ContentType | None,
    if_match: ObjectHash | None,
) -> File | None: ...


@query
async def create_file(
    db: Executor,
    /,
    *,
    user_id: UserId,
    path: VaultPath,
    file_id: FileId,
    folder_id: UUID | None,
    object_hash: ObjectHash,
    size: Offset,
    content_type: ContentType,
) -> File | None: ...


@query
async def get_file(db: Executor, /, *, user_id: UserId, file_id: FileId) -> File | None:
    """One file by its id, which moving does not change, or None; None for a deleted one too."""
    ...


@query
async def find_file_by_path(db: Executor, /, *, user_id: UserId, path: VaultPath) -> File | None:
    """The file at a path, or None; also None where a folder is there."""
    ...


@query
async def rename_file(
    db: Executor, /, *, user_id: UserId, path: VaultPath, to: VaultPath, folder_id: UUID | None
) -> File | None: ...


@query
async def trash_file(
    db: Executor, /, *, user_id: UserId, path: VaultPath, deletion_id: UUID
) -> bool: ...


@query
async def untrash_file(
    db: Executor, /, *, user_id: UserId, path: VaultPath, folder_id: UUID | None
) -> File | None: ...


@query
async def count_files(db: Executor, /, *, user_id: UserId) -> int:
    """How many files the vault has, in all folders. It reads all of them in an index."""
    ...


@query
async def vault_size(db: Executor, /, *, user_id: UserId) -> int:
    """Bytes of the newest version of each file. It reads all files of the vault."""
    ...


@query
async def list_markdown_files(
    db: Executor, /, *, user_id: UserId, limit: Limit = 100, cursor: Cursor | None = None
) -> Page[File]:
    """The Markdown files (``.md``, in any case) of the whole vault, by path.

    Raises:
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@query
async def list_canvas_files(
    db: Executor, /, *, user_id: UserId, limit: Limit = 100, cursor: Cursor | None = None
) -> Page[File]:
    """The canvases (``.canvas``, in any case) of the whole vault, by path.

    Raises:
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@validated
async def write_file(
    pool: Pool,
    store: ObjectStore,
    /,
    *,
    user_id: UserId,
    path: EntryPath,
    body: Body,
    content_type: ContentType | None = None,
    if_match: ObjectHash | None = None,
) -> File:
    """Store a body and make it the newest version of the file at a path.

    The bytes are uploaded first, outside of any transaction; `record_file` does the rest, also
    where a file was deleted at this path. To do more in one transaction, call `put_object` before it
    and `record_file` in it. A body that is not wanted (``if_match``, no such user, a folder at the path)
    is refused before the upload.

    Args:
        pool: not a connection: no upload runs inside a transaction.
        store: where the bytes go.
        user_id: whose vault.
        path: the file; the folders around it are made where they are missing.
        body: bytes, a binary file, or an async iterable of bytes.
        content_type: its media type; unless given, the file keeps its own, and a new one gets
            what its extension says.
        if_match: the ``object_hash`` that the file must have: else nothing changes.

    Raises:
        NotFoundError: there is no such user.
        ConflictError: ``if_match`` is given and the file is not there or was written meanwhile;
            or a folder has this path; or a file has that of a folder around it.
        StorageError: the upload failed.
    """
    there = await find_file_by_path(pool, user_id=user_id, path=path)
    if if_match is not None and (there is None or there.object_hash != if_match):
        raise ConflictError(OTHER_CONTENT)
    if there is None:
        if await get_user(pool, user_id=user_id) is None:
            raise NotFoundError("write_file: user_id: there is no such user")
        if await get_folder(pool, user_id=user_id, path=path) is not None:
            raise ConflictError("write_file: path: a folder is there")
    stored = await put_object(pool, store, body=body, owner=user_id)
    return await record_file(
        pool,
        user_id=user_id,
        path=path,
        stored=stored,
        content_type=content_type,
        if_match=if_match,
    )


@validated
async def record_file(
    db: Executor,
    /,
    *,
    user_id: UserId,
    path: EntryPath,
    stored: StoredObject,
    content_type: ContentType | None = None,
    if_match: ObjectHash | None = None,
) -> File:
    """Make a stored object the newest version of the file at a path; the half of `write_file`
    that joins a caller's transaction.

    The file's page becomes stale, and those that embed it. A file that was deleted there comes back
    as it was but for its content: with its id, ``created_at``, versions, tags, aliases, and what its
    frontmatter says of ``permalink`` and ``publish``; its page stays withdrawn until it is published
    again. Writers of one path queue, and each gets a version of its own. Where a write finds that the
    file was moved or deleted while it waited, it makes a new one at the path that was asked for.

    Args:
        db: a pool, or a transaction's connection.
        user_id: whose vault.
        path: the file; the folders around it are made where they are missing.
        stored: what `put_object` returned, with ``owner=user_id``; never what a client says.
        content_type: as for `write_file`.
        if_match: as for `write_file`.

    Raises:
        NotFoundError: there is no such user, or the object is stored no more.
        ConflictError: as for `write_file`.
        TransactionConflictError: in a caller's transaction that wrote here before, or that meets
            another: call `lock_vault` first.
        InvalidArgumentError: with OBJECT_DEDUPE=tenant, it was put for another owner.
    """
    require_owner(stored, owner=user_id)

    async def overwrite(executor: Executor) -> File | None:
        return await overwrite_file(
            executor,
            user_id=user_id,
            path=path,
            object_hash=stored.hash,
            size=stored.size,
            content_type=content_type,
            if_match=if_match,
        )

    file = await overwrite(db)
    if file is not None:
        return file
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        file = await overwrite(tx)
        if file is None and if_match is not None:
            raise ConflictError(OTHER_CONTENT)
        return file or await _create(
            tx,
            user_id=user_id,
            path=path,
            stored=stored,
            content_type=content_type or _guess_content_type(path),
        )


@validated
async def read_file(
    db: Executor,
    store: ObjectStore,
    /,
    *,
    user_id: UserId,
    path: EntryPath,
    start: Offset = 0,
    length: Offset | None = None,
) -> AsyncIterator[bytes]:
    """The bytes of a file in chunks, verified as they come.

    Args:
        db: a pool, or a connection.
        store: where the bytes are.
        user_id: whose vault.
        path: the file.
        start: the first byte to read, from 0.
        length: how many bytes at most; to the end unless given.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: at the end, where the bytes are not those that were stored.
        StorageError: the store failed.
    """
    file = await find_file_by_path(db, user_id=user_id, path=path)
    if file is None:
        raise NotFoundError("read_file: path: there is no such file")
    async for chunk in open_object(db, store, hash=file.object_hash, start=start, length=length):
        yield chunk


@validated
async def move_file(
    db: Executor, /, *, user_id: UserId, path: EntryPath, to: EntryPath, overwrite: bool = False
) -> File:
    """Give a file another path; its id, versions and bytes stay.

    Args:
        user_id: whose vault.
        path: the file.
        to: its new path; the folders around that are made where they are missing.
        overwrite: delete the file that is at ``to``.

    Raises:
        NotFoundError: there is no such file.
        ConflictError: something is at ``to``, and it is a folder or ``overwrite`` is not given;
            or a file has the path of a folder around ``to``.
        InvalidArgumentError: ``to`` is the file itself.
    """
    if to == path:
        raise InvalidArgumentError("move_file: to: is the file itself")
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        if await find_file_by_path(tx, user_id=user_id, path=path) is None:
            raise NotFoundError("move_file: path: there is no such file")
        if await find_replaced(
            tx, "move_file", user_id=user_id, path=to, kind="file", overwrite=overwrite
        ):
            await trash_file(tx, user_id=user_id, path=to, deletion_id=uuid7())
        folder_id = await ensure_folder(tx, user_id=user_id, path=parent_of(to))
        moved = await rename_file(tx, user_id=user_id, path=path, to=to, folder_id=folder_id)
        assert moved is not None
        await relink(tx, user_id=user_id, paths=[to])
        return moved


@validated
async def copy_file(
    db: Executor, /, *, user_id: UserId, path: EntryPath, to: EntryPath, overwrite: bool = False
) -> File:
    """Make a file at ``to`` with the content of the one at ``path``; no bytes move.

    Args:
        user_id: whose vault.
        path: the file; its newest version is what is copied.
        to: the copy; the folders around it are made where they are missing.
        overwrite: where a file is at ``to``, make this its newest version.

    Raises:
        NotFoundError: there is no such file.
        ConflictError: as for `move_file`.
        InvalidArgumentError: ``to`` is the file itself.
    """
    if to == path:
        raise InvalidArgumentError("copy_file: to: is the file itself")
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        source = await find_file_by_path(tx, user_id=user_id, path=path)
        if source is None:
            raise NotFoundError("copy_file: path: there is no such file")
        await find_replaced(
            tx, "copy_file", user_id=user_id, path=to, kind="file", overwrite=overwrite
        )
        return await record_file(
            tx,
            user_id=user_id,
            path=to,
            stored=StoredObject(hash=source.object_hash, size=source.size),
            content_type=source.content_type,
        )


@validated
async def delete_file(db: Executor, /, *, user_id: UserId, path: EntryPath) -> bool:
    """Delete a file; `restore_file`, or a write to its path, brings it back until it is purged.

    Returns:
        Whether there was one.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        deleted = await trash_file(tx, user_id=user_id, path=path, deletion_id=uuid7())
        await relink(tx, user_id=user_id, paths=[path])
        return deleted


@validated
async def restore_file(db: Executor, /, *, user_id: UserId, path: EntryPath) -> File:
    """Bring back the file that was last deleted at a path, alone or with a folder around it.

    Folders around it are made where they are missing.

    Raises:
        NotFoundError: no file was deleted there, or it has been purged.
        ConflictError: something is at this path now.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        folder_id = await ensure_folder(tx, user_id=user_id, path=parent_of(path))
        file = await untrash_file(tx, user_id=user_id, path=path, folder_id=folder_id)
        if file is None:
            raise NotFoundError("restore_file: path: no file was deleted there")
        if await get_folder(tx, user_id=user_id, path=path) is not None:
            raise ConflictError("restore_file: path: a folder is there")
        await relink(tx, user_id=user_id, paths=[path])
        return file


async def _create(
    tx: Connection, *, user_id: int, path: str, stored: StoredObject, content_type: str
) -> File:
    folder_id = await ensure_folder(tx, user_id=user_id, path=parent_of(path))
    file = await create_file(
        tx,
        user_id=user_id,
        path=path,
        file_id=uuid7(),
        folder_id=folder_id,
        object_hash=stored.hash,
        size=stored.size,
        content_type=content_type,
    )
    if file is None:
        raise ConflictError("path: a folder is there")
    await relink(tx, user_id=user_id, paths=[path])
    return file


def _guess_content_type(path: str) -> str:
    return _TYPES.guess_type(path)[0] or "application/octet-stream"
