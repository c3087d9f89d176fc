"""Folders of a vault, and whole trees of them.

Whatever changes structure (which paths there are) locks the vault first, so that it sees all that
was written before and a path is never two things. A tree is moved, deleted or restored by one
statement, however large it is; no bytes move. Deleting is soft until `purge_deleted`.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from ..errors import ConflictError, DatabaseError, InvalidArgumentError, NotFoundError
from ..pagination import Page
from ..pool import Connection, Executor, transaction
from ..query import query
from ..signature import validated
from ..types import BatchLimit, Cursor, Limit, Row, Timestamp, UserId
from .links import relink
from .paths import EntryPath, VaultPath, ancestry, is_below, parent_of
from .vaults import lock_vault

__all__ = [
    "Folder",
    "FolderEntry",
    "create_folder",
    "delete_folder",
    "get_folder",
    "list_folder",
    "list_tree",
    "move_folder",
    "purge_deleted",
    "restore_folder",
]


class Folder(Row, frozen=True):
    """A folder; ``parent_id`` is None in the root."""

    user_id: int
    id: UUID
    parent_id: UUID | None
    path: str
    created_at: datetime
    updated_at: datetime


class FolderEntry(Row, frozen=True):
    """A folder or a file in a list; what is said of content is None for a folder.

    ``size`` is in bytes; ``object_hash`` is what ``if_match`` takes.
    """

    kind: Literal["file", "folder"]
    id: UUID
    path: str
    object_hash: str | None
    size: int | None
    content_type: str | None
    created_at: datetime
    updated_at: datetime


class Occupant(Row, frozen=True):
    """What has a path."""

    kind: Literal["file", "folder"]
    id: UUID


class DeletedFolder(Row, frozen=True):
    """A folder that can be restored, with what has the same ``deletion_id``."""

    id: UUID
    deletion_id: UUID


async def no_such_folder(_db: Executor, /, **_: object) -> DatabaseError:
    return NotFoundError("path: there is no such folder")


@query
async def make_folders(
    db: Executor, /, *, user_id: UserId, paths: list[str], ids: list[UUID]
) -> UUID | None: ...


@query
async def get_folder(db: Executor, /, *, user_id: UserId, path: VaultPath) -> Folder | None:
    """The folder at a path, or None; also None where a file is there."""
    ...


@query
async def find_entry(db: Executor, /, *, user_id: UserId, path: VaultPath) -> Occupant | None: ...


@query(refused=no_such_folder)
async def list_folder(
    db: Executor,
    /,
    *,
    user_id: UserId,
    path: VaultPath = "/",
    limit: Limit = 100,
    cursor: Cursor | None = None,
) -> Page[FolderEntry]:
    """The folders and files directly in a folder, in the order of their paths, byte by byte.

    Raises:
        NotFoundError: there is no such folder.
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@query(refused=no_such_folder)
async def list_tree(
    db: Executor,
    /,
    *,
    user_id: UserId,
    path: VaultPath = "/",
    limit: Limit = 100,
    cursor: Cursor | None = None,
) -> Page[FolderEntry]:
    """All folders and files below a folder, in the order of their paths, byte by byte.

    Raises:
        NotFoundError: there is no such folder.
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@query
async def move_tree(
    db: Executor, /, *, user_id: UserId, path: VaultPath, to: VaultPath, parent_id: UUID | None
) -> Folder | None: ...


@query
async def delete_tree(
    db: Executor, /, *, user_id: UserId, path: VaultPath, deletion_id: UUID
) -> int: ...


@query
async def find_deleted_folder(
    db: Executor, /, *, user_id: UserId, path: VaultPath
) -> DeletedFolder | None: ...


@query
async def restore_tree(
    db: Executor,
    /,
    *,
    user_id: UserId,
    path: VaultPath,
    folder_id: UUID,
    deletion_id: UUID,
    parent_id: UUID | None,
) -> Folder | None: ...


@query
async def purge_trees(
    db: Executor, /, *, user_id: UserId, deleted_before: Timestamp, limit: BatchLimit
) -> int: ...


@validated
async def create_folder(db: Executor, /, *, user_id: UserId, path: EntryPath) -> Folder:
    """Make a folder, and those that it is in; one that is there already is returned as it is.

    Raises:
        NotFoundError: there is no such user.
        ConflictError: a file has this path, or that of a folder around it.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        await ensure_folder(tx, user_id=user_id, path=path)
        folder = await get_folder(tx, user_id=user_id, path=path)
        assert folder is not None
        return folder


@validated
async def move_folder(
    db: Executor, /, *, user_id: UserId, path: EntryPath, to: EntryPath, overwrite: bool = False
) -> Folder:
    """Move a folder with all that is in it, by one statement; its ids and versions stay.

    What was written before the move is moved along, also where the move waited for that write.

    Args:
        user_id: whose vault.
        path: the folder.
        to: its new path; the folders around that are made where they are missing.
        overwrite: delete the folder that is at ``to``; `restore_folder` brings it back.

    Raises:
        NotFoundError: there is no such folder.
        ConflictError: something is at ``to``, and it is a file or ``overwrite`` is not given.
        InvalidArgumentError: ``to`` is the folder itself, in it, or around it; or a path in it
            would become too long.
    """
    if to == path or is_below(to, path):
        raise InvalidArgumentError("move_folder: to: is the folder itself, or in it")
    if is_below(path, to):
        raise InvalidArgumentError("move_folder: to: is a folder that this one is in")
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        if await get_folder(tx, user_id=user_id, path=path) is None:
            raise NotFoundError("move_folder: path: there is no such folder")
        if await find_replaced(
            tx, "move_folder", user_id=user_id, path=to, kind="folder", overwrite=overwrite
        ):
            await delete_tree(tx, user_id=user_id, path=to, deletion_id=uuid7())
        parent_id = await ensure_folder(tx, user_id=user_id, path=parent_of(to))
        moved = await move_tree(tx, user_id=user_id, path=path, to=to, parent_id=parent_id)
        assert moved is not None
        await relink(tx, user_id=user_id, paths=[to])
        return moved


@validated
async def delete_folder(db: Executor, /, *, user_id: UserId, path: EntryPath) -> int:
    """Delete a folder with all that is in it; `restore_folder` brings it back until it is purged.

    Returns:
        How many folders and files that were: 0 where there is no such folder.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        deleted = await delete_tree(tx, user_id=user_id, path=path, deletion_id=uuid7())
        await relink(tx, user_id=user_id, paths=[path])
        return deleted


@validated
async def restore_folder(db: Executor, /, *, user_id: UserId, path: EntryPath) -> Folder:
    """Bring back the folder that was last deleted at a path, with what was deleted together with it.

    A folder that went with one around it may be brought back alone. Folders around it are made
    where they are missing.

    Raises:
        NotFoundError: no folder was deleted there, or it has been purged.
        ConflictError: something is at this path now: move it away first.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        deleted = await find_deleted_folder(tx, user_id=user_id, path=path)
        if deleted is None:
            raise NotFoundError("restore_folder: path: no folder was deleted there")
        there = await find_entry(tx, user_id=user_id, path=path)
        if there is not None:
            raise ConflictError(f"restore_folder: path: a {there.kind} is there")
        parent_id = await ensure_folder(tx, user_id=user_id, path=parent_of(path))
        restored = await restore_tree(
            tx,
            user_id=user_id,
            path=path,
            folder_id=deleted.id,
            deletion_id=deleted.deletion_id,
            parent_id=parent_id,
        )
        assert restored is not None
        await relink(tx, user_id=user_id, paths=[path])
        return restored


@validated
async def purge_deleted(
    db: Executor, /, *, user_id: UserId, deleted_before: Timestamp, limit: BatchLimit = 1000
) -> int:
    """Remove for good what was deleted before a time, at most ``limit`` files and folders.

    A file goes with all its versions; its bytes are then for `collect_garbage` to find.
    Call it until it returns 0.

    Returns:
        How many files and folders were removed.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        return await purge_trees(tx, user_id=user_id, deleted_before=deleted_before, limit=limit)


async def find_replaced(
    tx: Connection,
    caller: str,
    /,
    *,
    user_id: UserId,
    path: VaultPath,
    kind: Literal["folder", "file"],
    overwrite: bool,
) -> Occupant | None:
    """Under the vault's lock: what a move or a copy finds at its target and may replace.

    Raises:
        ConflictError: it is of the other kind, or ``overwrite`` is not given.
    """
    there = await find_entry(tx, user_id=user_id, path=path)
    if there is not None and (there.kind != kind or not overwrite):
        raise ConflictError(f"{caller}: to: a {there.kind} is there")
    return there


async def ensure_folder(tx: Connection, /, *, user_id: UserId, path: VaultPath) -> UUID | None:
    """Under the vault's lock: the id of a folder, made if need be, or None for the root.

    Raises:
        ConflictError: a file is in the way.
    """
    paths = ancestry(path)
    if not paths:
        return None
    ids = [uuid7() for _ in paths]
    folder_id = await make_folders(tx, user_id=user_id, paths=paths, ids=ids)
    if folder_id is None:
        raise ConflictError("path: a file has this path, or that of a folder around it")
    return folder_id
