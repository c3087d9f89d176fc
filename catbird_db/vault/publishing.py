"""Published pages: a file as it was rendered, for everybody, below its user's name.

A page's ``invalidation`` counts what made its renderings stale. Who renders asks for it before
reading anything (`begin_publishing`) and publishes with it: what changed since then is not lost,
and the page stays stale. The order is: `replace_links`, `begin_publishing`, read, render,
`publish_page`.
"""

from collections.abc import Sequence
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from ..errors import NotFoundError
from ..pagination import Page
from ..pool import Executor, transaction
from ..query import query
from ..signature import validated
from ..types import Cursor, FileId, Html, Invalidation, Limit, Row, Title, UserId
from ..users import Username
from .paths import Permalink
from .vaults import lock_vault

__all__ = [
    "PublishedPage",
    "PublishedSummary",
    "StalePage",
    "begin_publishing",
    "find_published",
    "invalidate_published",
    "list_all_stale_pages",
    "list_published",
    "list_stale_pages",
    "publish_page",
    "unpublish_page",
]

_ADDRESS = TypeAdapter(tuple[Username, Permalink])


class PublishedSummary(Row, frozen=True):
    """A published page, without its text; ``is_stale``: it is to be rendered again."""

    file_id: FileId
    permalink: str
    title: str | None
    published_at: datetime
    is_stale: bool


class PublishedPage(Row, frozen=True):
    """A published page; ``published_at`` is when this rendering of it was."""

    user_id: int
    file_id: FileId
    permalink: str
    title: str | None
    html: str
    published_at: datetime
    is_stale: bool


class StalePage(PublishedSummary, frozen=True):
    """A published page that is to be rendered again, and whose it is."""

    user_id: int


@query
async def get_invalidation(db: Executor, /, *, user_id: UserId, file_id: FileId) -> int | None: ...


@query
async def insert_page(db: Executor, /, *, user_id: UserId, file_id: FileId) -> int | None: ...


@query
async def store_page(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    invalidation: Invalidation,
    permalink: Permalink,
    title: Title | None,
    html: Html,
) -> PublishedPage | None: ...


@query
async def withdraw_page(db: Executor, /, *, user_id: UserId, file_id: FileId) -> bool: ...


@query
async def invalidate_pages(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_ids: Sequence[FileId],
    gone_ids: Sequence[FileId],
    along_links: bool,
) -> int: ...


@query
async def find_page(
    db: Executor, /, *, username: Username, permalink: Permalink
) -> PublishedPage | None: ...


@query
async def list_published(
    db: Executor, /, *, user_id: UserId, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[PublishedSummary]:
    """The published pages of a user, by permalink."""
    ...


@query
async def list_stale_pages(
    db: Executor, /, *, user_id: UserId, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[PublishedSummary]:
    """The published pages of a user that are to be rendered again, by file."""
    ...


@query
async def list_all_stale_pages(
    db: Executor, /, *, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[StalePage]:
    """The published pages of all users that are to be rendered again, by user and file: for the
    service's own workers.

    Raises:
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@validated
async def find_published(db: Executor, /, *, username: str, permalink: str) -> PublishedPage | None:
    """A page of an active user, for anybody; the user's name in upper or lower case.

    Both may come from a URL as they are: what no user or page can be called is not found.
    """
    try:
        username, permalink = _ADDRESS.validate_python((username, permalink))
    except ValidationError:
        return None
    return await find_page(db, username=username, permalink=permalink)


@validated
async def begin_publishing(db: Executor, /, *, user_id: UserId, file_id: FileId) -> int:
    """The page's invalidation counter: for `publish_page`, asked for before anything is read.

    Raises:
        NotFoundError: the user has no such file, or it is deleted.
    """
    invalidation = await get_invalidation(db, user_id=user_id, file_id=file_id)
    if invalidation is None:
        async with transaction(db) as tx:
            await lock_vault(tx, user_id=user_id)  # whoever changes a file sees this row, or waits
            invalidation = await insert_page(tx, user_id=user_id, file_id=file_id)
    if invalidation is None:
        raise NotFoundError("begin_publishing: no such file")
    return invalidation


@validated
async def publish_page(
    db: Executor,
    /,
    *,
    user_id: UserId,
    file_id: FileId,
    invalidation: Invalidation,
    permalink: Permalink,
    html: Html,
    title: Title | None = None,
) -> PublishedPage | None:
    """Publish a rendering. Where the permalink is new, what links to the page becomes stale.

    Args:
        user_id, file_id: whose file, and which.
        invalidation: what `begin_publishing` gave when the rendering began.
        permalink: where it is read, below the user's name.
        html: the rendering, up to 16 MiB of text.
        title: its title.

    Returns:
        The page, ``is_stale`` if something has changed since the rendering began; or None where
        it comes too late: a newer rendering stands, or the page was unpublished.

    Raises:
        ConflictError: another page of the user has this permalink.
        NotFoundError: no rendering was begun, or the file is deleted.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        page = await store_page(
            tx,
            user_id=user_id,
            file_id=file_id,
            invalidation=invalidation,
            permalink=permalink,
            title=title,
            html=html,
        )
        if page is None and await get_invalidation(tx, user_id=user_id, file_id=file_id) is None:
            raise NotFoundError("publish_page: no such page; begin with begin_publishing")
    return page


@validated
async def unpublish_page(db: Executor, /, *, user_id: UserId, file_id: FileId) -> bool:
    """Withdraw a page at once; a rendering of it that has begun before is refused.

    Returns:
        Whether it was published.

    Raises:
        NotFoundError: there is no such user.
    """
    async with transaction(db) as tx:
        await lock_vault(tx, user_id=user_id)
        return await withdraw_page(tx, user_id=user_id, file_id=file_id)


@validated
async def invalidate_published(
    db: Executor, /, *, user_id: UserId, file_id: FileId, along_links: bool = False
) -> int:
    """A file changed: its page is stale, those that embed it, and those that embed them.

    Whatever changes its content does so itself. Call it after `replace_links`, where a file embeds
    others than when it was written, or where its title changes; in that transaction, or after it.
    `list_stale_pages` tells which pages there are to render.

    Args:
        user_id: whose vault.
        file_id: what changed.
        along_links: those that link to it are stale too, as after a change of its title. A change
            of its permalink, `publish_page` and `unpublish_page` see to themselves.

    Returns:
        How many pages are stale by it, with those that are not published but being rendered.
    """
    return await invalidate_pages(
        db, user_id=user_id, file_ids=[file_id], gone_ids=[], along_links=along_links
    )
