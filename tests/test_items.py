"""Items: trimmed, paged, counted on request, and changed where something is given."""

import asyncio
import json
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from catbird_db import (
    UNSET,
    ConstraintError,
    InvalidArgumentError,
    Item,
    NotFoundError,
    Observation,
    Pool,
    Settings,
    count_items,
    create_item,
    delete_item,
    get_item,
    list_items,
    open_pool,
    transaction,
    update_item,
)
from catbird_db.query import bound

NOBODY = UUID(int=1)


async def create_items(pool: Pool, number: int) -> list[Item]:
    return [await create_item(pool, name=f"item {each}") for each in range(number)]


async def test_an_item_is_what_was_given_trimmed(catbird_pool: Pool) -> None:
    item = await create_item(catbird_pool, name="  Rope\n", description="\t60 m  ")
    assert (item.name, item.description) == ("Rope", "60 m")
    assert item.created_at == item.updated_at
    assert await get_item(catbird_pool, item_id=item.id) == item
    for nothing in (None, "", " \u3000\n"):
        empty = await create_item(catbird_pool, name="Rope", description=nothing)
        assert empty.description is None


async def test_lengths_count_what_is_left_after_trimming(catbird_pool: Pool) -> None:
    item = await create_item(
        catbird_pool, name=" " * 300 + "é" * 255, description="é" * 1000 + " " * 9
    )
    assert (item.name, item.description) == ("é" * 255, "é" * 1000)
    for bad in ({"name": "é" * 256}, {"name": " "}, {"name": "x", "description": "é" * 1001}):
        with pytest.raises(InvalidArgumentError, match=list(bad)[-1]):
            await create_item(catbird_pool, **bad)
        with pytest.raises(InvalidArgumentError, match=list(bad)[-1]):
            await update_item(catbird_pool, item_id=item.id, **bad)
    assert await count_items(catbird_pool) == 1


async def test_the_table_refuses_what_the_functions_would(catbird_pool: Pool) -> None:
    for name, description in (("", None), ("x" * 256, None), ("x", ""), ("x", "x" * 1001)):
        with pytest.raises(ConstraintError):
            async with transaction(catbird_pool) as tx:
                await tx.execute(
                    "INSERT INTO items (id, name, description) VALUES ($1, $2, $3)",
                    uuid7(),
                    name,
                    description,
                )


async def test_what_is_left_out_stays_and_none_clears(catbird_pool: Pool) -> None:
    item = await create_item(catbird_pool, name="Rope", description="60 m")
    other = await create_item(catbird_pool, name="Rope", description="60 m")

    renamed = await update_item(catbird_pool, item_id=item.id, name=" Cord ")
    assert (renamed.name, renamed.description) == ("Cord", "60 m")
    assert renamed.updated_at > item.updated_at and renamed.created_at == item.created_at
    described = await update_item(catbird_pool, item_id=item.id, description="6 mm")
    assert (described.name, described.description) == ("Cord", "6 mm")
    untouched = await update_item(catbird_pool, item_id=item.id, name=UNSET, description=UNSET)
    assert (untouched.name, untouched.description) == ("Cord", "6 mm")
    for clears in (None, "", "  "):
        await update_item(catbird_pool, item_id=item.id, description="6 mm")
        cleared = await update_item(catbird_pool, item_id=item.id, description=clears)
        assert (cleared.name, cleared.description) == ("Cord", None)
    with pytest.raises(InvalidArgumentError, match="name"):
        await update_item(catbird_pool, item_id=item.id, name=None)  # type: ignore[arg-type]
    assert await get_item(catbird_pool, item_id=item.id) == cleared
    assert await get_item(catbird_pool, item_id=other.id) == other


async def test_changes_of_different_fields_at_once_are_both_kept(catbird_pool: Pool) -> None:
    item = await create_item(catbird_pool, name="0", description="0")
    for each in range(1, 30):
        await asyncio.gather(
            update_item(catbird_pool, item_id=item.id, name=f"{each}"),
            update_item(catbird_pool, item_id=item.id, description=f"{each}"),
        )
        now = await get_item(catbird_pool, item_id=item.id)
        assert (now.name, now.description) == (f"{each}", f"{each}")


async def test_an_unknown_item_is_not_found(catbird_pool: Pool) -> None:
    for call in (
        get_item(catbird_pool, item_id=NOBODY),
        update_item(catbird_pool, item_id=NOBODY, name="x"),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await delete_item(catbird_pool, item_id=NOBODY) is False


async def test_a_deleted_item_is_gone_once(catbird_pool: Pool) -> None:
    item = await create_item(catbird_pool, name="Rope")
    assert await delete_item(catbird_pool, item_id=item.id) is True
    assert await delete_item(catbird_pool, item_id=item.id) is False
    with pytest.raises(NotFoundError):
        await get_item(catbird_pool, item_id=item.id)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_show_each_item_once_in_the_order_of_creation(
    catbird_pool: Pool, limit: int
) -> None:
    items = await create_items(catbird_pool, 7)
    seen: list[Item] = []
    cursor = None
    while True:
        page = await list_items(catbird_pool, limit=limit, cursor=cursor, with_total=True)
        assert page.total == 7 and 1 <= len(page.items) <= limit
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == items


async def test_a_page_goes_on_where_its_last_item_was_though_that_is_deleted(
    catbird_pool: Pool,
) -> None:
    items = await create_items(catbird_pool, 4)
    first = await list_items(catbird_pool, limit=2)
    await delete_item(catbird_pool, item_id=items[1].id)
    rest = await list_items(catbird_pool, limit=2, cursor=first.next_cursor)
    assert (rest.items, rest.next_cursor) == (items[2:], None)


async def test_the_total_is_there_on_request_alone_and_without_items_too(
    catbird_settings: Settings,
) -> None:
    seen: list[Observation] = []
    async with open_pool(catbird_settings, observe=seen.append) as pool:
        nothing = await list_items(pool, with_total=True)
        assert (nothing.items, nothing.next_cursor, nothing.total) == ([], None, 0)
        assert (await list_items(pool)).total is None
        item = await create_item(pool, name="Rope")
        seen.clear()
        page = await list_items(pool, with_total=True)
        assert (page.items, page.total, await count_items(pool)) == ([item], 1, 1)
        assert len(seen) == 2  # the page with its total is one statement


async def test_a_cursor_of_another_function_or_of_nobody_is_refused(catbird_pool: Pool) -> None:
    for cursor in ("x", "W10", "WyJpdGVtcy5saXN0X2l0ZW1zIiwgMV0"):
        with pytest.raises(InvalidArgumentError, match="not a cursor of this function"):
            await list_items(catbird_pool, cursor=cursor)


@pytest.mark.parametrize("plan_cache_mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_page_is_a_range_of_the_key_and_counts_nothing_unless_asked(
    catbird_pool: Pool, plan_cache_mode: str
) -> None:
    (statement,) = (one.statement for one in bound() if one.statement.label == "items.read_items")
    buffers: dict[bool, int] = {}
    async with catbird_pool.connection() as connection:
        await connection.execute(
            "INSERT INTO items (id, name) SELECT gen_random_uuid(), 'x'"
            " FROM generate_series(1, 20000)"
        )
        await connection.execute("ANALYZE items")
        await connection.execute(f"SET plan_cache_mode = {plan_cache_mode}")
        for with_total in (False, True):
            values = {"after_id": UUID(int=2**127), "limit": 50, "with_total": with_total}
            arguments = [values[name] for name in statement.parameters]
            text = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}", *arguments
            )
            (plan,) = json.loads(text)
            buffers[with_total] = plan["Plan"]["Shared Hit Blocks"]
            assert '"Index Cond": "(id > ' in text
    assert buffers[False] < 80 < buffers[True]
