"""One partition a statement: by its plan, by its locks, and whatever the number of executions."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from corpus.shelf import collection, document, pieces

from catbird_db import (
    ChunkEmbedding,
    Connection,
    Pool,
    Settings,
    count_chunks,
    get_chunks_by_document,
    get_partition_health,
    list_chunks,
    open_pool,
    replace_chunks,
    search_chunks,
    set_embeddings,
    transaction,
)
from catbird_db.check.database import connect, describe, read_catalog
from catbird_db.check.fill import sample
from catbird_db.check.plan import explained, nodes, prepared
from catbird_db.corpus import chunks
from catbird_db.query import Bound, bound

TOUCHING = [
    one
    for one in bound()
    if one.statement.label.startswith("corpus.chunks.") and " chunks " in one.statement.sql
]
PARTITION = re.compile(r"chunks_\d\d$")


def test_every_statement_on_chunks_is_looked_at() -> None:
    names = {one.statement.name for one in TOUCHING}
    assert names >= {
        *("remove_chunks", "get_chunks_by_document", "list_chunks", "get_chunk"),
        *("write_embeddings", "list_chunks_without_embedding", "count_collection_chunks"),
        *("count_document_chunks", "search_chunks"),
    }
    elsewhere = [
        one.statement.label
        for one in bound()
        if re.search(r"\bchunks (AS|\()", one.statement.sql) and one not in TOUCHING
    ]
    assert elsewhere == []


@pytest.fixture
def connection(catbird_database_url: str) -> Generator[psycopg.Connection[Any]]:
    with connect(catbird_database_url) as connection:
        yield connection


def arguments(connection: psycopg.Connection[Any], one: Bound) -> list[str]:
    catalog = read_catalog(connection)
    types = describe(connection, one.statement).parameter_types
    return [sample(each, catalog) for each in types]


def partitions_of(plan: dict[str, Any]) -> set[str]:
    names = {node.get("Relation Name", "") for node in nodes(plan)}
    return {name for name in names if PARTITION.match(name)}


@pytest.mark.parametrize("one", TOUCHING, ids=lambda one: one.statement.name)
def test_a_custom_plan_has_one_partition_and_locks_one(
    one: Bound, connection: psycopg.Connection[Any]
) -> None:
    given = arguments(connection, one)
    custom = {"plan_cache_mode": "force_custom_plan"}
    with prepared(connection, one.statement.sql, given, custom) as execute:
        plan = explained(connection, execute)
        assert len(partitions_of(plan)) == 1
        locked = connection.execute(
            "SELECT DISTINCT l.relation::regclass::text FROM pg_locks AS l"
            "  JOIN pg_class AS c ON c.oid = l.relation"
            " WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND l.relation::regclass::text ~ '^chunks'"
        ).fetchall()
        assert [name for (name,) in locked] == [*partitions_of(plan)]


@pytest.mark.parametrize("one", TOUCHING, ids=lambda one: one.statement.name)
def test_a_generic_plan_leaves_one_partition_when_it_starts(
    one: Bound, connection: psycopg.Connection[Any]
) -> None:
    given = arguments(connection, one)
    generic = {"plan_cache_mode": "force_generic_plan"}
    with prepared(connection, one.statement.sql, given, generic) as execute:
        plan = explained(connection, execute)
        removed = [node["Subplans Removed"] for node in nodes(plan) if "Subplans Removed" in node]
        assert removed
        assert {*removed} == {15}
        assert len(partitions_of(plan)) == 1
        text = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {execute}".encode()))
        assert text.count("Subplans Removed: 15") == len(removed)


CALLS: dict[str, Callable[[Connection, dict[str, Any], UUID], Awaitable[Any]]] = {
    "get_chunks_by_document": lambda tx, on, id: get_chunks_by_document(tx, **on, document_id=id),
    "list_chunks": lambda tx, on, _: list_chunks(tx, **on),
    "count_chunks": lambda tx, on, _: count_chunks(tx, **on),
    "search_chunks": lambda tx, on, _: search_chunks(tx, **on, text="cat"),
    "replace_chunks": lambda tx, on, id: replace_chunks(
        tx, **on, document_id=id, chunks=pieces("cat")
    ),
    "set_embeddings": lambda tx, on, id: set_embeddings(
        tx,
        **on,
        embeddings=[ChunkEmbedding(document_id=id, chunk_index=0, version=1, embedding_id="v")],
    ),
}
LOCKED = """
SELECT count(*) AS relations, count(DISTINCT l.relation) FILTER (WHERE c.relname ~ '^chunks_\\d\\d$') AS partitions
  FROM pg_locks AS l
  JOIN pg_class AS c ON c.oid = l.relation
 WHERE l.pid = pg_backend_pid() AND c.relname !~ '^pg_'
"""


@pytest.mark.parametrize("name", CALLS)
async def test_a_kept_plan_of_the_pool_locks_all_partitions_and_no_more_than_there_are_fast_slots(
    name: str, catbird_database_url: str
) -> None:
    """As docs/decisions.md has it: 64 of them on PostgreSQL 18, which the first call, that plans, exceeds."""
    settings = Settings(database_url=catbird_database_url, db_pool_min_size=1, db_pool_max_size=1)
    async with open_pool(settings) as pool:
        one = await collection(pool)
        made = await document(pool, one)
        on = {"collection_id": one.id, "user_id": one.owner_id}
        locked: list[tuple[int, int]] = []
        for _ in range(3):
            async with transaction(pool) as tx:
                await CALLS[name](tx, on, made.id)
                row = await tx.fetchrow(LOCKED)
                assert row is not None
                locked.append((row["relations"], row["partitions"]))
    (planned, _), *kept = locked
    assert planned > 64
    assert {partitions for _, partitions in kept} == {16}
    assert max(relations for relations, _ in kept) <= 42


async def test_chunks_of_a_collection_are_in_one_partition_and_many_are_spread(
    catbird_pool: Pool,
) -> None:
    for _ in range(60):
        one = await collection(catbird_pool)
        made = [await document(catbird_pool, one) for _ in range(2)]
        for each in made:
            await replace_chunks(
                catbird_pool,
                collection_id=one.id,
                user_id=one.owner_id,
                document_id=each.id,
                chunks=pieces("a", "b"),
            )
    async with catbird_pool.connection() as connection:
        found = await connection.fetch(
            "SELECT DISTINCT collection_id, tableoid::regclass::text AS partition FROM chunks"
        )
    assert len(found) == 60
    assert len(Counter(row["partition"] for row in found)) > 10


# ---- health


async def fill(pool: Pool, sizes: list[int]) -> list[Any]:
    """Collections of so many chunks each, analyzed."""
    made = [await collection(pool) for _ in sizes]
    async with pool.connection() as connection:
        for one, size in zip(made, sizes, strict=True):
            id = uuid4()
            await connection.execute(
                "INSERT INTO documents (collection_id, id, file_name, file_size, content_hash)"
                " VALUES ($1, $2, 'x', 1, sha256(uuid_send($2)))",
                one.id,
                id,
            )
            await connection.execute(
                "INSERT INTO chunks (collection_id, document_id, chunk_index, version, content, token_count)"
                " SELECT $1, $2, i, 1, 'x', 1 FROM generate_series(1, $3::bigint) AS i",
                one.id,
                id,
                size,
            )
        await connection.execute("ANALYZE chunks")
    return [one.id for one in made]


async def test_health_names_a_collection_that_outweighs_all_others(
    catbird_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MANY_CHUNKS", 4000)
    ids = await fill(catbird_pool, [5000, 1500, 1500, 1500])
    health = await get_partition_health(catbird_pool)
    assert len(health.partitions) == 16
    assert sum(one.row_count for one in health.partitions) == health.row_count == 9500
    assert abs(sum(one.share for one in health.partitions) - 1) < 1e-9
    first = health.largest_collections[0]
    assert first.collection_id == ids[0]
    assert abs(first.row_count - 5000) < 500
    (message,) = health.messages
    assert f"{ids[0]}" in message
    assert "more chunks than all others together" in message
    assert first.partition in message
    assert health.total_bytes == sum(one.total_bytes for one in health.partitions) > 0


async def test_health_does_not_mind_a_few_chunks_in_one_collection(catbird_pool: Pool) -> None:
    await fill(catbird_pool, [5000])
    assert (await get_partition_health(catbird_pool)).messages == []
    assert chunks.MANY_CHUNKS == 100_000


async def test_health_has_nothing_to_say_where_all_is_well(catbird_pool: Pool) -> None:
    ids = await fill(catbird_pool, [1000] * 12)
    health = await get_partition_health(catbird_pool)
    assert health.messages == []
    assert {one.collection_id for one in health.largest_collections} <= {*ids}
    assert len(health.largest_collections) == 10


async def test_health_says_what_it_cannot_know(catbird_pool: Pool) -> None:
    health = await get_partition_health(catbird_pool)
    assert health.row_count == 0
    (message,) = health.messages
    assert "16 of 16 partitions were never analyzed" in message
    assert "ANALYZE chunks" in message


def test_health_reads_the_catalog_and_no_chunk(connection: psycopg.Connection[Any]) -> None:
    statement = next(one for one in bound() if one.statement.name == "measure_partitions")
    with prepared(connection, statement.statement.sql, [], {}) as execute:
        read = {node.get("Relation Name") for node in nodes(explained(connection, execute))}
    assert read - {None} <= {
        "pg_inherits",
        "pg_class",
        "pg_namespace",
        "pg_statistic",
        "pg_attribute",
    }
