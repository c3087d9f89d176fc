"""The seven modes of a statement, on a real database, called through a small package of their own."""

import asyncio
import inspect
import itertools
import pydoc
import traceback
from pathlib import Path
from types import ModuleType

import pytest
from small_package import import_package

import catbird_db
from catbird_db import get_message, list_messages
from catbird_db.config import Settings
from catbird_db.errors import (
    DatabaseError,
    InvalidArgumentError,
    NotAMemberError,
    NotFoundError,
    QueryError,
    SerializationError,
)
from catbird_db.pool import Pool, open_pool, transaction
from catbird_db.sqlfile import load

STUBS = '''\
from typing import Literal

from catbird_db.errors import NotAMemberError
from catbird_db.types import UNSET, Text, Unset


class Thing(Row, frozen=True):
    id: int
    name: str


class Narrow(Row, frozen=True):
    id: int
    name: Literal["only this"]


async def not_yours(_db: Executor, /, *, owner: str, **_: object) -> NotAMemberError:
    return NotAMemberError(f"things of somebody else", convo_ids=(owner,))


@query
async def get_thing(db: Executor, /, *, id: int) -> Thing:
    """One thing.

    Raises:
        NotFoundError: there is none.
    """
    ...


@query
async def find_thing(db: Executor, /, *, id: int) -> Thing | None: ...


@query
async def list_things(db: Executor, /) -> list[Thing]:
    """All of them."""
    ...


@query
async def page_things(
    db: Executor, /, *, at_least: int, limit: Limit = 2, cursor: Cursor | None = None
) -> Page[Thing]: ...


@query
async def page_other_things(
    db: Executor, /, *, limit: Limit = 2, cursor: Cursor | None = None
) -> Page[Thing]: ...


@query
async def count_things(db: Executor, /) -> int: ...


@query
async def get_name(db: Executor, /, *, id: int) -> str: ...


@query
async def find_name(db: Executor, /, *, id: int) -> str | None: ...


@query
async def rename_things(db: Executor, /, *, name: str, ids: list[int]) -> int: ...


@query
async def delete_thing(db: Executor, /, *, id: int) -> bool: ...


@query
async def change_thing(
    db: Executor, /, *, id: int, name: str | Unset = UNSET, note: Text | None | Unset = UNSET
) -> bool: ...


@query
async def page_named(
    db: Executor, /, *, name: str | Unset = UNSET, limit: Limit = 2, cursor: Cursor | None = None
) -> Page[Thing]: ...


@query
async def add_thing(db: Executor, /, *, id: int, name: str) -> None: ...


@query
async def repeat_words(
    db: Executor, /, *, select: str, where: str, order: str, user: str, table: str, limit: str
) -> str: ...


@query
async def sleep(db: Executor, /, *, seconds: float) -> None: ...


@query
async def ask_wrongly(db: Executor, /, *, id: int) -> int: ...


@query
async def ask_at_the_start(db: Executor, /) -> int: ...


@query
async def list_narrow(db: Executor, /) -> list[Narrow]: ...


@query
async def get_narrow(db: Executor, /, *, id: int) -> Narrow: ...


@query
async def page_narrow(
    db: Executor, /, *, limit: Limit = 2, cursor: Cursor | None = None
) -> Page[Narrow]: ...


@query
async def count_wrongly(db: Executor, /) -> bool: ...


@query(refused=not_yours)
async def find_my_thing(db: Executor, /, *, owner: str, id: int) -> Thing | None: ...


@query(refused=not_yours)
async def list_my_things(db: Executor, /, *, owner: str) -> list[Thing]: ...


@query(refused=not_yours)
async def page_my_things(
    db: Executor, /, *, owner: str, limit: Limit = 2, cursor: Cursor | None = None
) -> Page[Thing]: ...
'''

SQL = """\
-- What the tests ask.

-- name: get_thing :one
-- A thing by its number.
-- Two lines of it.
-- tenant: id
SELECT t.id, t.name FROM things AS t WHERE t.id = :id;

-- name: find_thing :maybe
SELECT t.id, t.name FROM things AS t WHERE t.id = :id;

-- name: list_things :many
-- In the order of their numbers.
SELECT t.id, t.name FROM things AS t ORDER BY t.id;

-- name: page_things :page
-- key: name, id
SELECT t.id, t.name
  FROM things AS t
 WHERE t.id >= :at_least
   AND (t.name, t.id) > (coalesce(:cursor_name::text, ''), coalesce(:cursor_id::int, 0))
 ORDER BY t.name, t.id
 LIMIT :limit;

-- name: page_other_things :page
-- key: name, id
SELECT t.id, t.name
  FROM things AS t
 WHERE (t.name, t.id) > (coalesce(:cursor_name::text, ''), coalesce(:cursor_id::int, 0))
 ORDER BY t.name, t.id
 LIMIT :limit;

-- name: count_things :value
SELECT count(*) FROM things;

-- name: get_name :value
SELECT nullif(t.name, 'null') FROM things AS t WHERE t.id = :id;

-- name: find_name :value
SELECT nullif(t.name, 'null') FROM things AS t WHERE t.id = :id;

-- name: rename_things :rows
UPDATE things AS t SET name = :name WHERE t.id = ANY (:ids::int[]);

-- name: delete_thing :rows
DELETE FROM things AS t WHERE t.id = :id;

-- name: change_thing :rows
UPDATE things AS t
   SET name = coalesce(:name, t.name), note = CASE WHEN :note_given THEN :note::text ELSE t.note END
 WHERE t.id = :id;

-- name: page_named :page
-- key: id
SELECT t.id, t.name
  FROM things AS t
 WHERE t.name = coalesce(:name, t.name) AND t.id > coalesce(:cursor_id::int, 0)
 ORDER BY t.id
 LIMIT :limit;

-- name: add_thing :exec
INSERT INTO things (id, name) VALUES (:id, :name);

-- name: repeat_words :value
SELECT concat_ws(' ', :select::text, :where::text, :order::text, :user::text, :table::text, :limit::text);

-- name: sleep :exec
SELECT pg_sleep(:seconds);

-- name: ask_wrongly :value
SELECT 'é', /* two
  lines */  :id::int,
  t.nonsense FROM things AS t;

-- name: ask_at_the_start :value
SELEKT 1;

-- name: list_narrow :many
SELECT t.id, t.name FROM things AS t ORDER BY t.id;

-- name: get_narrow :one
SELECT t.id, t.name FROM things AS t WHERE t.id = :id;

-- name: page_narrow :page
-- key: id
SELECT t.id, t.name FROM things AS t WHERE t.id > coalesce(:cursor_id::int, 0) ORDER BY t.id LIMIT :limit;

-- name: count_wrongly :value
SELECT t.name FROM things AS t;

-- name: find_my_thing :maybe
SELECT t.id, t.name
  FROM owners AS o
  LEFT JOIN things AS t ON t.id = :id AND t.id = ANY (o.ids)
 WHERE o.owner = :owner;

-- name: list_my_things :many
SELECT t.id, t.name
  FROM owners AS o
  LEFT JOIN things AS t ON t.id = ANY (o.ids)
 WHERE o.owner = :owner
 ORDER BY t.id;

-- name: page_my_things :page
-- key: id
SELECT t.id, t.name
  FROM owners AS o
  LEFT JOIN things AS t ON t.id = ANY (o.ids) AND t.id > coalesce(:cursor_id::int, 0)
 WHERE o.owner = :owner
 ORDER BY t.id
 LIMIT :limit;
"""

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return import_package(tmp_path_factory.mktemp("modes"), "asked", "modes", STUBS, SQL)


@pytest.fixture
async def pool(catbird_pool: Pool) -> Pool:
    async with catbird_pool.connection() as connection:
        await connection.execute(
            f"""
            CREATE TABLE things (id int PRIMARY KEY, name text NOT NULL, note text);
            INSERT INTO things VALUES (1, 'one'), (2, 'two'), (3, '{SECRET}'), (4, 'null'), (5, 'one');
            CREATE TABLE owners (owner text PRIMARY KEY, ids int[]);
            INSERT INTO owners VALUES ('some', '{{1,2,3}}'), ('none', '{{}}')
            """
        )
    return catbird_pool


async def test_one_is_a_model_or_not_found(modes: ModuleType, pool: Pool) -> None:
    assert await modes.get_thing(pool, id=1) == modes.Thing(id=1, name="one")
    with pytest.raises(NotFoundError) as missing:
        await modes.get_thing(pool, id=99)
    assert str(missing.value) == "modes.get_thing: nothing is there for this id"
    assert missing.value.query == "modes.get_thing"


async def test_maybe_is_a_model_or_none(modes: ModuleType, pool: Pool) -> None:
    assert await modes.find_thing(pool, id=2) == modes.Thing(id=2, name="two")
    assert await modes.find_thing(pool, id=99) is None


async def test_many_is_a_list_that_may_be_empty(modes: ModuleType, pool: Pool) -> None:
    things = await modes.list_things(pool)
    assert [thing.id for thing in things] == [1, 2, 3, 4, 5]
    assert {type(thing) for thing in things} == {modes.Thing}
    await modes.rename_things(pool, name="gone", ids=[])
    for id in range(1, 6):
        await modes.delete_thing(pool, id=id)
    assert await modes.list_things(pool) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
async def test_pages_concatenate_to_the_whole_and_the_last_has_no_cursor(
    modes: ModuleType, pool: Pool, limit: int
) -> None:
    pages = []
    cursor = None
    while not pages or cursor:
        page = await modes.page_things(pool, at_least=1, limit=limit, cursor=cursor)
        cursor = page.next_cursor
        pages.append([thing.id for thing in page.items])
    assert list(itertools.chain(*pages)) == [4, 1, 5, 3, 2]  # by name, then id
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


async def test_an_empty_page_has_no_cursor(modes: ModuleType, pool: Pool) -> None:
    page = await modes.page_things(pool, at_least=100)
    assert (page.items, page.next_cursor) == ([], None)


async def test_a_cursor_fits_no_other_function_and_no_other_text(
    modes: ModuleType, pool: Pool
) -> None:
    cursor = (await modes.page_things(pool, at_least=1)).next_cursor
    for wrong in (cursor, cursor[:-4], cursor[1:], "x", "%", "é", "=" * 8, "A" * 8192):
        with pytest.raises(InvalidArgumentError, match=r"^modes.page_other_things: cursor: not a"):
            await modes.page_other_things(pool, cursor=wrong)
    for size in ("", "A" * 8193):
        with pytest.raises(InvalidArgumentError, match=r"^modes.page_things: cursor: "):
            await modes.page_things(pool, at_least=1, cursor=size)


async def test_a_value_is_the_one_column(modes: ModuleType, pool: Pool) -> None:
    assert await modes.count_things(pool) == 5
    assert await modes.get_name(pool, id=1) == "one"
    with pytest.raises(NotFoundError, match=r"^modes.get_name: nothing is there for this id$"):
        await modes.get_name(pool, id=99)


async def test_an_optional_value_is_none_for_no_row_and_for_null(
    modes: ModuleType, pool: Pool
) -> None:
    assert await modes.find_name(pool, id=1) == "one"
    assert await modes.find_name(pool, id=99) is None
    assert await modes.find_name(pool, id=4) is None


async def test_a_null_where_a_value_was_promised_is_a_serialization_error(
    modes: ModuleType, pool: Pool
) -> None:
    with pytest.raises(SerializationError) as refused:
        await modes.get_name(pool, id=4)
    assert refused.value.query == "modes.get_name"


async def test_rows_is_how_many_or_whether(modes: ModuleType, pool: Pool) -> None:
    for ids, changed in [([1, 2], 2), ([99], 0), ([], 0)]:
        count = await modes.rename_things(pool, name="new", ids=ids)
        assert (count, type(count)) == (changed, int)
    assert await modes.delete_thing(pool, id=1) is True
    assert await modes.delete_thing(pool, id=1) is False


async def test_what_is_unset_stays_and_what_is_null_is_cleared(
    modes: ModuleType, pool: Pool
) -> None:
    async def note() -> str | None:
        async with pool.connection() as connection:
            return await connection.fetchval("SELECT t.note FROM things AS t WHERE t.id = 1")

    assert await modes.change_thing(pool, id=1, note="noted") is True
    assert (await modes.get_thing(pool, id=1)).name == "one"
    assert await note() == "noted"
    await modes.change_thing(pool, id=1, name="first")
    assert (await modes.get_thing(pool, id=1)).name == "first"
    assert await note() == "noted"
    await modes.change_thing(pool, id=1, note=None)
    assert await note() is None
    with pytest.raises(InvalidArgumentError, match="name"):
        await modes.change_thing(pool, id=1, name=None)
    with pytest.raises(InvalidArgumentError, match="note"):
        await modes.change_thing(pool, id=1, note="\0")


async def test_a_page_may_be_narrowed_by_what_may_be_unset(modes: ModuleType, pool: Pool) -> None:
    first = await modes.page_named(pool, name="one", limit=1)
    assert [thing.id for thing in first.items] == [1]
    rest = await modes.page_named(pool, name="one", limit=5, cursor=first.next_cursor)
    assert [thing.id for thing in rest.items] == [5]
    assert len((await modes.page_named(pool, limit=500)).items) == 5


def test_unset_reads_well_in_a_signature_and_is_false(modes: ModuleType) -> None:
    parameter = inspect.signature(modes.change_thing).parameters["note"]
    assert str(parameter).endswith(" = UNSET")
    assert not catbird_db.UNSET


async def test_exec_returns_none(modes: ModuleType, pool: Pool) -> None:
    assert await modes.add_thing(pool, id=6, name="six") is None
    assert await modes.get_name(pool, id=6) == "six"


async def test_parameters_may_be_called_like_sql_keywords(modes: ModuleType, pool: Pool) -> None:
    words = {name: name for name in ("select", "where", "order", "user", "table", "limit")}
    assert await modes.repeat_words(pool, **words) == "select where order user table limit"


async def test_a_call_joins_the_transaction_of_its_connection(
    modes: ModuleType, pool: Pool
) -> None:
    async def add_and_fail() -> None:
        async with transaction(pool) as tx:
            await modes.add_thing(tx, id=6, name="six")
            assert await modes.count_things(tx) == 6
            assert await modes.count_things(pool) == 5
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await add_and_fail()
    assert await modes.count_things(pool) == 5


async def test_who_is_not_the_actor_is_refused_and_who_is_may_have_nothing(
    modes: ModuleType, pool: Pool
) -> None:
    assert (await modes.find_my_thing(pool, owner="some", id=3)).id == 3
    assert await modes.find_my_thing(pool, owner="some", id=4) is None
    assert [thing.id for thing in await modes.list_my_things(pool, owner="some")] == [1, 2, 3]
    assert await modes.list_my_things(pool, owner="none") == []
    first = await modes.page_my_things(pool, owner="some")
    second = await modes.page_my_things(pool, owner="some", cursor=first.next_cursor)
    assert [thing.id for thing in first.items + second.items] == [1, 2, 3]
    assert second.next_cursor is None
    assert (await modes.page_my_things(pool, owner="none")).items == []

    for call in (
        modes.find_my_thing(pool, owner="stranger", id=1),
        modes.list_my_things(pool, owner="stranger"),
        modes.page_my_things(pool, owner="stranger"),
    ):
        with pytest.raises(NotAMemberError) as refused:
            await call
        assert refused.value.convo_ids == ("stranger",)
        assert refused.value.__suppress_context__


async def test_pg_stat_activity_names_the_caller(modes: ModuleType, pool: Pool) -> None:
    sleeping = asyncio.create_task(modes.sleep(pool, seconds=5))
    async with pool.connection() as connection:
        running = None
        while running is None:
            running = await connection.fetchval(
                "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database() AND wait_event = 'PgSleep'"
            )
    assert running == "SELECT /* modes.sleep */ pg_sleep($1)"
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping


async def test_the_position_of_an_error_points_into_the_file(modes: ModuleType, pool: Pool) -> None:
    path = Path(modes.__file__).parent / "sql" / "modes.sql"
    lines = path.read_text(encoding="utf-8").splitlines()
    for call, wrong, sqlstate in [
        (modes.ask_wrongly(pool, id=1), "t.nonsense", "42703"),
        (modes.ask_at_the_start(pool), "SELEKT", "42601"),
    ]:
        with pytest.raises(QueryError) as refused:
            await call
        line = next(number for number, text in enumerate(lines, 1) if wrong in text)
        place = f"{path}:{line}:{lines[line - 1].index(wrong) + 1}"
        assert str(refused.value).endswith(f"({sqlstate}, {place})")
        assert refused.value.sqlstate == sqlstate


async def test_a_row_that_does_not_fit_its_model_is_told_by_field_and_not_shown(
    modes: ModuleType, pool: Pool
) -> None:
    for call, field in [
        (modes.get_narrow(pool, id=3), "name"),
        (modes.list_narrow(pool), "0.name"),
        (modes.page_narrow(pool), "0.name"),
        (modes.count_wrongly(pool), ""),
    ]:
        with pytest.raises(SerializationError) as refused:
            await call
        assert f"a row does not fit its model: {field}: " in str(refused.value)
        trace = "".join(traceback.format_exception(refused.value))
        assert SECRET not in trace
        assert "ValidationError" not in trace


async def test_what_is_no_executor_is_a_type_error(
    modes: ModuleType, pool: Pool, catbird_settings: Settings
) -> None:
    for wrong in (None, catbird_settings, "postgresql://", modes):
        with pytest.raises(TypeError, match=r"^modes.count_things: pass a Pool or its Connection"):
            await modes.count_things(wrong)


async def test_arguments_are_checked_before_a_connection_is_taken(
    modes: ModuleType, catbird_settings: Settings
) -> None:
    async with open_pool(catbird_settings) as pool:
        pass
    with pytest.raises(InvalidArgumentError):
        await modes.get_thing(pool, id="1")
    with pytest.raises(DatabaseError, match="closed"):
        await modes.get_thing(pool, id=1)


def test_help_shows_the_docstring_then_the_comment_of_the_sql(modes: ModuleType) -> None:
    assert not inspect.getdoc(modes.find_thing)
    assert inspect.getdoc(modes.list_things) == "All of them.\n\nIn the order of their numbers."
    path = Path(catbird_db.__file__).parent / "sql" / "chat" / "messages.sql"
    comment = load(path, module="chat.messages")["get_message"].comment
    shown = pydoc.render_doc(get_message, renderer=pydoc.plaintext)
    for part in (
        "get_message(db: ",
        "One message, by the id that its sender chose, or None.",
        "NotAMemberError: ``reader_did`` is not an active member.",
        comment,
    ):
        assert part in shown
        shown = shown[shown.index(part) + 1 :]


def test_the_docstring_in_help_is_not_indented_deeper_than_the_comment(modes: ModuleType) -> None:
    assert inspect.getdoc(modes.get_thing) == (
        "One thing.\n\nRaises:\n    NotFoundError: there is none.\n\n"
        "A thing by its number.\nTwo lines of it."
    )


def test_a_bound_stub_keeps_its_name_module_and_signature(modes: ModuleType) -> None:
    assert (list_messages.__name__, list_messages.__module__) == (
        "list_messages",
        "catbird_db.chat.messages",
    )
    parameters = inspect.signature(list_messages).parameters
    assert parameters["limit"].default == 50
    assert parameters["db"].kind is inspect.Parameter.POSITIONAL_ONLY
    assert asyncio.iscoroutinefunction(list_messages)


async def test_a_downstream_module_may_be_called_like_one_of_ours(
    tmp_path: Path, pool: Pool
) -> None:
    stub = "@query\nasync def count_things(db: Executor, /) -> int: ...\n"
    sql = "-- name: count_things :value\nSELECT count(*) FROM things;\n"
    theirs = import_package(tmp_path, "downstream", "health", stub, sql)
    assert await theirs.count_things(pool) == 5
