"""Links between files, by file name, path or alias, and back.

A name stands for the file at that path (from the root, with or without a leading slash), else for a
file of that name, else for one with that alias; ``.md`` may be left out; upper and lower case are
different. Of several files the one with the shortest path is meant, then the first by path. What a
name stands for changes as files come, move and go: links follow in the same transaction.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ..errors import NotFoundError
from ..pagination import Page
from ..pool import Connection, Executor, transaction
from ..query import query
from ..signature import validated
from ..types import Cursor, FileId, Input, Limit, LinkName, Row, Title, UserId
from .publishing import invalidate_pages
from .vaults import lock_vault

__all__ = [
    "Backlink",
    "Link",
    "NewLink",
    "ResolvedName",
    "UnresolvedLink",
    "list_backlinks",
    "list_links",
    "list_unresolved_links",
    "replace_links",
    "resolve_links",
]


class NewLink(Input, frozen=True):
    """A link as it stands in a file; ``embed``: its target is shown there, not only linked to."""

    target_name: LinkName
    embed: bool = False
    fragment: Title | None = None


class Link(Row, frozen=True):
    """A link in a file: ``position`` counts 1, 2, ...; it leads nowhere where the target is None."""

    position: int
    target_name: str
    embed: bool
    fragment: str | None
    target_file_id: FileId | None
    target_path: str | None


class Backlink(Row, frozen=True):
    """A link that leads to the file asked for."""

    source_file_id: FileId
    position: int
    source_path: str
    target_name: str
    embed: bool
    fragment: str | None


class UnresolvedLink(Row, frozen=True):
    """A link whose name stands for no file."""

    target_name: str
    source_file_id: FileId
    position: int
    source_path: str
    embed: bool
    fragment: str | None


class ResolvedName(Row, frozen=True):
    """The file that a name stands for."""

    name: str
    file_id: FileId
    path: str


class Retargeted(Row, frozen=True):
    """Files whose links lead elsewhere than before, and files that are deleted."""

    changed: list[FileId]
    gone: list[FileId]


@query
async def store_links(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    target_names: Sequence[str],
    embeds: Sequence[bool],
    fragments: Sequence[str | None],
) -> int | None: ...


@query
async def resolve_links(
    db: Executor,
    /,
    *,
    user_id: UserId,
    names: Annotated[Sequence[LinkName], Field(max_length=1000)],
) -> list[ResolvedName]:
    """What names stand for at present, at most 1000, in their order; those of no file are left out.

    Each comes with its name as it was looked up: in NFC, without a slash before it.
    """
    ...


@query
async def update_targets(
    db: Executor, /, *, user_id: UserId, file_ids: Sequence[FileId], paths: Sequence[str]
) -> Retargeted: ...


@query
async def list_links(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Link]:
    """The links in a file, in their order."""
    ...


@query
async def list_backlinks(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Backlink]:
    """The links that lead to a file, by the file that they stand in."""
    ...


@query
async def list_unresolved_links(
    db: Executor, /, *, user_id: UserId, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[UnresolvedLink]:
    """The links that lead nowhere, by what they name."""
    ...


@validated
async def replace_links(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    links: Annotated[Sequence[NewLink], Field(max_length=10_000)],
) -> int:
    """Make these the links of a file, in their order: each is resolved as it is stored.

    A target that another transaction makes at the same time is found, whichever comes first.

    Args:
        user_id: whose vault.
        file_id: the file that they stand in.
        links: at most 10,000.

    Returns:
        How many of them lead somewhere.

    Raises:
        NotFoundError: the user has no such file, or it is deleted.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        resolved = await store_links(
            tx,
            user_id=user_id,
            file_id=file_id,
            target_names=[link.target_name for link in links],
            embeds=[link.embed for link in links],
            fragments=[link.fragment for link in links],
        )
    if resolved is None:
        raise NotFoundError("replace_links: no such file")
    return resolved


async def relink(
    tx: Connection,
    /,
    *,
    user_id: UserId,
    paths: Sequence[str] = (),
    file_ids: Sequence[FileId] = (),
) -> None:
    """Let links and pages follow what has just become of files, with the vault's lock held.

    Call it after the change and in its transaction. Pages of deleted files are withdrawn.

    Args:
        tx: the transaction that holds the lock.
        user_id: whose vault.
        paths: of files, or of folders with all that is in them: where something was made or
            restored, where it was moved to, where it was deleted.
        file_ids: files that have other aliases.
    """
    found = await update_targets(tx, user_id=user_id, file_ids=file_ids, paths=paths)
    if found.changed or found.gone:
        await invalidate_pages(
            tx, user_id=user_id, file_ids=found.changed, gone_ids=found.gone, along_links=False
        )
