"""Items: small named records, which belong to nobody in particular."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from .pagination import CursorCodec, Page
from .pool import Executor
from .query import query
from .signature import validated
from .types import UNSET, Cursor, ItemDescription, ItemName, Limit, Row, Unset

__all__ = [
    "Item",
    "ItemPage",
    "count_items",
    "create_item",
    "delete_item",
    "get_item",
    "list_items",
    "update_item",
]

_cursors = CursorCodec("items.list_items", [UUID])


class Item(Row, frozen=True):
    """One item; ``description`` is None where it has none."""

    id: UUID
    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ItemPage(Page[Item]):
    """One page of items.

    Attributes:
        total: how many items there are on all pages; None unless asked for.
    """

    total: int | None


class ItemRow(Row, frozen=True):
    total: int | None
    id: UUID | None
    name: str | None
    description: str | None
    created_at: datetime | None
    updated_at: datetime | None


@query
async def insert_item(
    db: Executor, /, *, item_id: UUID, name: ItemName, description: ItemDescription | None
) -> Item: ...


@query
async def get_item(db: Executor, /, *, item_id: UUID) -> Item:
    """One item.

    Raises:
        NotFoundError: there is no such item.
    """
    ...


@query
async def read_items(
    db: Executor, /, *, after_id: UUID | None, limit: Limit, with_total: bool
) -> list[ItemRow]: ...


@query
async def count_items(db: Executor, /) -> int:
    """How many items there are; it takes longer the more there are."""
    ...


@query
async def update_item(
    db: Executor,
    /,
    *,
    item_id: UUID,
    name: ItemName | Unset = UNSET,
    description: ItemDescription | Unset | None = UNSET,
) -> Item:
    """Change what is given of an item; what is left out stays as it is.

    Args:
        item_id: which.
        name: 1 to 255 characters, trimmed.
        description: at most 1000 characters, trimmed; None or nothing but spaces clears it.

    Returns:
        The item as it is now, with ``updated_at`` moved.

    Raises:
        NotFoundError: there is no such item.
    """
    ...


@query
async def delete_item(db: Executor, /, *, item_id: UUID) -> bool:
    """Delete an item; False where there was none."""
    ...


@validated
async def create_item(
    db: Executor, /, *, name: ItemName, description: ItemDescription | None = None
) -> Item:
    """Store a new item.

    Args:
        name: 1 to 255 characters, trimmed; several items may have the same.
        description: at most 1000 characters, trimmed; nothing but spaces is None.
    """
    return await insert_item(db, item_id=uuid7(), name=name, description=description)


@validated
async def list_items(
    db: Executor, /, *, limit: Limit = 50, cursor: Cursor | None = None, with_total: bool = False
) -> ItemPage:
    """Items in the order of their creation.

    Args:
        limit: at most so many, 1 to 500.
        cursor: ``next_cursor`` of the page before.
        with_total: also count all items, in the same statement.
    """
    after = None if cursor is None else _cursors.decode(cursor)[0]
    rows = await read_items(db, after_id=after, limit=limit, with_total=with_total)
    items = [_item(row) for row in rows if row.id is not None]
    more = len(items) > limit
    return ItemPage(
        items=items[:limit],
        next_cursor=_cursors.encode([items[limit - 1].id]) if more else None,
        total=rows[0].total,
    )


def _item(row: ItemRow) -> Item:
    return Item.model_validate(row.model_dump(exclude={"total"}))
