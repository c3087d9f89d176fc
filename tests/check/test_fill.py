"""The fill: enough rows, skewed, in every table of a schema that it has never seen."""

import pytest
from check.conftest import Filled

from catbird_db.check.database import Connection, read_catalog
from catbird_db.check.fill import ENOUGH, FillError, fill


def one(connection: Connection, query: str) -> tuple[object, ...]:
    found = connection.execute(query.encode()).fetchone()
    assert found is not None
    return found


def count(connection: Connection, table: str, condition: str = "true") -> int:
    (found,) = one(connection, f"SELECT count(*) FROM {table} WHERE {condition}")
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("schema", ["filled", "varied"])
def test_every_table_has_enough_rows(schema: str, request: pytest.FixtureRequest) -> None:
    database: Filled = request.getfixturevalue(schema)
    rows = {
        name: count(database.connection, name)
        for name, table in database.catalog.tables.items()
        if not table.small
    }
    assert len(rows) >= 3
    assert all(number >= ENOUGH for number in rows.values()), rows


def test_a_small_table_stays_small(varied: Filled) -> None:
    assert count(varied.connection, "kinds") == 100
    assert count(varied.connection, "site") == 1


@pytest.mark.parametrize(
    ("table", "tenant"),
    [("members", "convo_id"), ("messages", "convo_id"), ("key_packages", "did")],
)
def test_one_tenant_is_hot_and_many_are_small(filled: Filled, table: str, tenant: str) -> None:
    sizes = filled.connection.execute(
        f"SELECT count(*) FROM {table} GROUP BY {tenant} ORDER BY 1 DESC".encode()
    ).fetchall()
    (hottest,), (median,) = sizes[0], sizes[len(sizes) // 2]
    assert hottest > 0.05 * sum(size for (size,) in sizes)
    assert len(sizes) > 1000
    assert hottest > 50 * median


@pytest.mark.parametrize("schema", ["filled", "varied"])
def test_the_predicate_of_a_partial_index_holds_for_some_rows_and_not_for_others(
    schema: str, request: pytest.FixtureRequest
) -> None:
    database: Filled = request.getfixturevalue(schema)
    partial = [
        index
        for table in database.catalog.tables.values()
        for index in table.indexes
        if index.predicate
    ]
    assert partial
    for index in partial:
        total = count(database.connection, index.table)
        holds = count(database.connection, index.table, index.predicate or "")
        assert 0.05 * total < holds < 0.95 * total, (index, holds, total)


def test_times_lie_before_and_after_now(filled: Filled) -> None:
    total = count(filled.connection, "key_packages")
    future = count(filled.connection, "key_packages", "expires_at > now()")
    assert 0.1 * total < future < 0.5 * total
    assert count(filled.connection, "messages", "sent_at > now()") == 0


def test_equal_ranks_are_equal_values_so_joins_find_rows(varied: Filled) -> None:
    joined = one(
        varied.connection, "SELECT count(*) FROM things AS t JOIN owners AS o ON o.id = t.owner_id"
    )
    assert joined == (count(varied.connection, "things"),)


def test_statistics_are_there_and_pages_are_all_visible(filled: Filled) -> None:
    stale = filled.connection.execute(
        "SELECT c.relname FROM pg_class AS c"
        " WHERE c.relname = ANY (%s) AND (c.reltuples < %s OR c.relallvisible < c.relpages)",
        [[name for name, table in filled.catalog.tables.items() if not table.small], ENOUGH],
    ).fetchall()
    assert stale == []


def test_two_fills_make_the_same_rows(filled: Filled, catbird_database_url: str) -> None:
    digest = (
        "SELECT count(*), sum(hashtextextended(concat(k.did, k.id, k.device_id, k.last_resort,"
        " k.consumed_at IS NULL, k.ref), 0)) FROM key_packages AS k"
    )
    from catbird_db.check.database import connect

    with connect(catbird_database_url) as other:
        fill(other, read_catalog(other))
        assert one(other, digest) == one(filled.connection, digest)


def test_a_database_with_rows_is_left_alone(filled: Filled) -> None:
    before = count(filled.connection, "members")
    with pytest.raises(FillError, match="has rows: only an empty database is filled"):
        fill(filled.connection, filled.catalog)
    assert count(filled.connection, "members") == before


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("CREATE TABLE shapes (outline polygon NOT NULL)", "no values of type polygon are known"),
        ("CREATE TABLE flags (a boolean, b boolean, UNIQUE NULLS NOT DISTINCT (a, b))", "room for"),
        ("CREATE TABLE narrow (amount numeric(2) NOT NULL)", "narrow cannot be filled"),
    ],
)
def test_a_table_that_cannot_be_filled_is_named(
    catbird_empty_database_url: str, table: str, says: str
) -> None:
    from catbird_db.check.database import connect

    with connect(catbird_empty_database_url) as connection:
        connection.execute(table.encode())
        with pytest.raises(FillError, match=says):
            fill(connection, read_catalog(connection))
