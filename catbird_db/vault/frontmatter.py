"""Frontmatter: what the head of a file says of it, with its tags and aliases.

Aliases are names by which links find the file, so writing them resolves links anew.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..errors import NotFoundError
from ..pagination import Page
from ..pool import Executor, transaction
from ..query import query
from ..signature import validated
from ..types import (
    Cursor,
    FileId,
    JsonObject,
    Limit,
    LinkName,
    Row,
    Tag,
    Title,
    UserId,
)
from .links import relink
from .paths import Permalink
from .vaults import lock_vault

__all__ = ["Frontmatter", "TaggedFile", "find_files_by_tag", "get_frontmatter", "set_frontmatter"]


def _parsed(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


class Frontmatter(Row, frozen=True):
    """What a file says of itself.

    ``publish`` is its author's wish; what is published, `list_published` tells. ``other`` holds
    every other key.
    """

    user_id: int
    file_id: FileId
    publish: bool
    permalink: str | None
    title: str | None
    tags: list[str]
    aliases: list[str]
    other: Annotated[dict[str, Any], BeforeValidator(_parsed)]
    updated_at: datetime


class TaggedFile(Row, frozen=True):
    """A file that has the tag asked for."""

    file_id: FileId
    path: str
    title: str | None


@query
async def store_frontmatter(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    publish: bool,
    permalink: Permalink | None,
    title: Title | None,
    tags: Sequence[str],
    aliases: Sequence[str],
    other: str,
) -> bool: ...


@query
async def get_frontmatter(
    db: Executor, /, *, user_id: UserId, file_id: FileId
) -> Frontmatter | None:
    """What a file says of itself; None where it says nothing, or there is no such file."""
    ...


@query
async def find_files_by_tag(
    db: Executor,
    /,
    *,
    user_id: UserId,
    tag: Tag,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[TaggedFile]:
    """The files with a tag, by their id; the tag exactly as it is written, but for a leading #."""
    ...


@validated
async def set_frontmatter(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    publish: bool = False,
    permalink: Permalink | None = None,
    title: Title | None = None,
    tags: Annotated[Sequence[Tag], Field(max_length=1000)] = (),
    aliases: Annotated[Sequence[LinkName], Field(max_length=1000)] = (),
    other: JsonObject | None = None,
) -> None:
    """Replace all that a file says of itself; links by its aliases, old and new, are resolved anew.

    Args:
        user_id: whose vault.
        file_id: which file.
        publish: whether its author wants it published; `publish_page` does it.
        permalink: where, below the user's name.
        title: its title.
        tags: at most 1000; repeats count once.
        aliases: other names that links may use, at most 1000; repeats count once.
        other: every other key of the head.

    Raises:
        NotFoundError: the user has no such file, or it is deleted.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        if not await store_frontmatter(
            tx,
            user_id=user_id,
            file_id=file_id,
            publish=publish,
            permalink=permalink,
            title=title,
            tags=list(dict.fromkeys(tags)),
            aliases=list(dict.fromkeys(aliases)),
            other=json.dumps(other or {}),
        ):
            raise NotFoundError("set_frontmatter: no such file")
        await relink(tx, user_id=user_id, file_ids=[file_id])
