"""The corpus beside the layout that it comes from, a bare COPY, an ORM, and claims without SKIP LOCKED.

Two databases: one of 10,000 and one of 1,000,000 chunks, in documents of 20, half of them in one
collection and the others in 400.
"""

import asyncio
import itertools
import json
import statistics
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID, uuid5

import asyncpg
from sqlalchemy import BigInteger, DateTime, Text, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catbird_db import (
    NewChunk,
    Pool,
    Settings,
    claim_operation,
    complete_operation,
    get_chunks_by_document,
    open_pool,
    replace_chunks,
    transaction,
)
from catbird_db.corpus.chunks import lock_document, note_chunks, remove_chunks
from catbird_db.embedded import EmbeddedServer
from catbird_db.query import bound

from .measure import Measured, Pace, Turn, measure, turn_of
from .tables import create_database

__all__ = ["Corpus", "CorpusSizes", "Flat", "measure_corpus"]

OURS = "catbird_db"
BY_UNNEST = "the same, by unnest"
BARE_COPY = "bare COPY"
LIST_LAYOUT = "100 LIST partitions"
ORM = "SQLAlchemy 2, async ORM"
NAIVE = "SELECT, then UPDATE"

CONNECTIONS = 10
WORKERS = 16
CHUNKS_PER_DOCUMENT = 20
COLLECTIONS = 400
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "judge",
    "my",
    "vow",
    "of",
    "sphinx",
    "quartz",
]

# What the document that this comes from has: a key that a trigger computed, and queries without it.
LIST_TABLE = """
CREATE TABLE listed (
    partition_key bigint NOT NULL,
    collection_id uuid NOT NULL,
    document_id uuid NOT NULL,
    chunk_index bigint NOT NULL,
    content text NOT NULL,
    token_count bigint NOT NULL,
    start_offset bigint,
    end_offset bigint,
    embedding_id text,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (partition_key, collection_id, document_id, chunk_index)
) PARTITION BY LIST (partition_key);
CREATE INDEX ON listed (collection_id, document_id, chunk_index);
"""
FILL_LIST = """
INSERT INTO listed
SELECT abs(hashtext(collection_id::text)::bigint) % 100, collection_id, document_id, chunk_index, content, token_count,
       start_offset, end_offset, embedding_id, metadata, created_at
  FROM chunks
"""
READ_LIST = """
SELECT collection_id, document_id, chunk_index, content, token_count, start_offset, end_offset, embedding_id, metadata, created_at
  FROM listed
 WHERE collection_id = $1 AND document_id = $2
 ORDER BY chunk_index
"""

USER = "INSERT INTO users (username, email) VALUES ('reader', 'reader@example.org') RETURNING id"
COLLECTION = """
INSERT INTO collections (id, owner_id, name, embedding_model, embedding_dimension)
SELECT one.id, $2, one.id::text, 'm', 3 FROM unnest($1::uuid[]) AS one (id)
"""
DOCUMENTS = """
INSERT INTO documents (collection_id, id, file_name, file_size, content_hash, chunk_count, chunks_version)
SELECT one.collection_id, one.id, 'x', 1, sha256(uuid_send(one.id)), $3, 1
  FROM unnest($1::uuid[], $2::uuid[]) AS one (collection_id, id)
"""
CHUNKS = """
INSERT INTO chunks (collection_id, document_id, chunk_index, version, content, token_count)
SELECT one.collection_id, one.id, i, 1, 'chunk ' || i || ' of a document with some words in it, number ' || i % 97, 14
  FROM unnest($1::uuid[], $2::uuid[]) AS one (collection_id, id), generate_series(0, $3::bigint - 1) AS i
"""
UNNEST = """
INSERT INTO chunks (collection_id, document_id, chunk_index, version, content, token_count, start_offset, end_offset, embedding_id, metadata)
SELECT $1, $2, given.place - 1, $3, given.content, given.token_count, given.start_offset, given.end_offset, given.embedding_id, given.metadata
  FROM unnest($4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::jsonb[])
       WITH ORDINALITY AS given (content, token_count, start_offset, end_offset, embedding_id, metadata, place)
"""
OPERATIONS = """
INSERT INTO operations (collection_id, id, user_id, type)
SELECT $1, uuidv7(), 1, 'index' FROM generate_series(1, $2::bigint)
"""


@dataclass(frozen=True, slots=True)
class CorpusSizes:
    """Chunks of the small and of the large database, and of one replaced document."""

    chunks: tuple[int, int] = (10_000, 1_000_000)
    replaced: int = 10_000


@dataclass(frozen=True, slots=True)
class Flat:
    """Buffers of a statement in the small and in the large database, by its generic plan."""

    statement: str
    small: int
    large: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """All that was found: times by operation, buffers, and how often a naive claim was in vain."""

    measured: Mapping[str, Measured]
    buffers: list[Flat]
    sizes: CorpusSizes
    vain: float


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


class Chunk(Base):
    __tablename__ = "chunks"

    collection_id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    chunk_index: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    content: Mapped[str]
    token_count: Mapped[int]
    start_offset: Mapped[int | None]
    end_offset: Mapped[int | None]
    embedding_id: Mapped[str | None]
    meta: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[datetime]


def _id(number: int) -> UUID:
    """Spread as UUIDs of version 4 are, and the same each time."""
    return uuid5(UUID(int=0), str(number))


def _documents(chunks: int) -> tuple[list[UUID], list[UUID]]:
    """Each document's collection, and its id; every other document is the first collection's."""
    numbers = range(max(1, chunks // CHUNKS_PER_DOCUMENT))
    collections = [_id(number % COLLECTIONS if number % 2 else 0) for number in numbers]
    return collections, [_id(10**6 + number) for number in numbers]


@asynccontextmanager
async def _filled(server: EmbeddedServer, name: str, chunks: int) -> AsyncGenerator[str]:
    url = await create_database(server, name)
    connection = await asyncpg.connect(url)
    try:
        owner = await connection.fetchval(USER)
        await connection.execute(COLLECTION, [_id(number) for number in range(COLLECTIONS)], owner)
        collections, documents = _documents(chunks)
        for start in range(0, len(documents), 5000):
            part = collections[start : start + 5000], documents[start : start + 5000]
            await connection.execute(DOCUMENTS, *part, CHUNKS_PER_DOCUMENT)
            await connection.execute(CHUNKS, *part, CHUNKS_PER_DOCUMENT)
        await connection.execute("VACUUM (ANALYZE, INDEX_CLEANUP ON)")
    finally:
        await connection.close()
    yield url


async def measure_corpus(server: EmbeddedServer, pace: Pace, sizes: CorpusSizes) -> Corpus:
    small, large = sizes.chunks
    measured: dict[str, Measured] = {}
    async with _filled(server, "corpus_small", small) as url:
        settings = Settings(database_url=url, db_pool_max_size=CONNECTIONS)
        async with (
            open_pool(settings) as pool,
            asyncpg.create_pool(url, min_size=1, max_size=CONNECTIONS) as stock,
        ):
            measured["replace_chunks"] = await _replacing(url, pool, pace, sizes.replaced)
            measured["claim_operation"], vain = await _claiming(pool, stock, pace)
        before = await _buffers(url, small)
    async with _filled(server, "corpus_large", large) as url:
        after = await _buffers(url, large)
        async with (
            open_pool(Settings(database_url=url, db_pool_max_size=CONNECTIONS)) as pool,
            asyncpg.create_pool(url, min_size=1, max_size=CONNECTIONS) as stock,
        ):
            measured["get_chunks_by_document"] = await _reading(url, pool, stock, pace, large)
    flat = [Flat(name, before[name], after[name]) for name in before]
    return Corpus(measured, flat, sizes, vain)


# ---- reading


async def _reading(url: str, pool: Pool, stock: Any, pace: Pace, chunks: int) -> Measured:
    await stock.execute(LIST_TABLE)
    for number in range(100):
        await stock.execute(
            f"CREATE TABLE listed_{number} PARTITION OF listed FOR VALUES IN ({number})"
        )
    await stock.execute(FILL_LIST)
    await stock.execute("VACUUM (ANALYZE) listed")
    pairs = itertools.cycle(list(zip(*_documents(chunks), strict=True)))

    async def ours(_task: int) -> None:
        collection_id, document_id = next(pairs)
        found = await get_chunks_by_document(
            pool, collection_id=collection_id, document_id=document_id, user_id=1
        )
        assert len(found) == CHUNKS_PER_DOCUMENT

    async def listed(_task: int) -> None:
        assert len(await stock.fetch(READ_LIST, *next(pairs))) == CHUNKS_PER_DOCUMENT

    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://"),
        pool_size=CONNECTIONS,
        max_overflow=0,
    )
    session_of = async_sessionmaker(engine, expire_on_commit=False)

    async def orm(_task: int) -> None:
        collection_id, document_id = next(pairs)
        this = (
            select(Chunk)
            .where(Chunk.collection_id == collection_id, Chunk.document_id == document_id)
            .order_by(Chunk.chunk_index)
        )
        async with session_of() as session:
            assert len((await session.scalars(this)).all()) == CHUNKS_PER_DOCUMENT

    try:
        turns: dict[str, Turn] = {
            OURS: turn_of(ours),
            LIST_LAYOUT: turn_of(listed),
            ORM: turn_of(orm),
        }
        return await measure(turns, pace=pace, tasks=1, units={})
    finally:
        await engine.dispose()


# ---- replacing


async def _replacing(url: str, pool: Pool, pace: Pace, count: int) -> Measured:
    """Each a document of its own that had as many chunks before; the bare COPY one that had none."""
    collection_id = _id(0)
    documents = [_id(2 * 10**6 + number) for number in range(3)]
    contents = [" ".join(WORDS[n * k % len(WORDS)] for k in range(1, 60)) for n in range(count)]
    chunks = [NewChunk(content=content, token_count=59) for content in contents]
    bare: Any = await asyncpg.connect(url)
    await bare.execute(DOCUMENTS, [collection_id] * 3, documents, 0)
    columns = [
        *("collection_id", "document_id", "chunk_index", "version", "content", "token_count"),
        *("start_offset", "end_offset", "embedding_id", "metadata"),
    ]

    def records(document_id: UUID, version: int) -> list[tuple[Any, ...]]:
        return [
            (collection_id, document_id, place, version, c.content, c.token_count, None, None, None, "{}")
            for place, c in enumerate(chunks)
        ]  # fmt: skip

    async def ours(_task: int) -> None:
        await replace_chunks(
            pool, collection_id=collection_id, document_id=documents[0], user_id=1, chunks=chunks
        )

    async def by_unnest(_task: int) -> None:
        ids = {"collection_id": collection_id, "document_id": documents[1]}
        async with transaction(pool) as tx:
            version = await lock_document(tx, **ids, user_id=1)
            assert version is not None
            await remove_chunks(tx, **ids)
            await tx.execute(
                UNNEST,
                *ids.values(),
                version,
                [one.content for one in chunks],
                [one.token_count for one in chunks],
                [one.start_offset for one in chunks],
                [one.end_offset for one in chunks],
                [one.embedding_id for one in chunks],
                ["{}" for _ in chunks],
            )
            await note_chunks(tx, **ids, chunk_count=count, version=version)

    async def bare_copy(_task: int) -> None:
        await bare.copy_records_to_table(
            "chunks", records=records(documents[2], 1), columns=columns
        )

    async def empty(_calls: Mapping[str, int]) -> None:
        await bare.execute(
            "DELETE FROM chunks WHERE collection_id = $1 AND document_id = $2",
            collection_id,
            documents[2],
        )
        await bare.execute("VACUUM chunks")

    turns = {OURS: _once(ours), BY_UNNEST: _once(by_unnest), BARE_COPY: _once(bare_copy)}
    rounds = min(9, pace.rounds)
    slow = Pace(rounds=rounds, seconds=0.001, longest=90, warm_ups=1)
    try:
        return await measure(turns, pace=slow, tasks=1, units={}, before_round=empty)
    finally:
        await bare.close()


def _once(call: Any) -> Turn:
    """One call a turn, however short a turn is to be."""
    turn = turn_of(call)

    async def once(calls: int, tasks: int) -> float:
        return await turn(1, tasks) * calls

    return once


# ---- claiming


async def _claiming(pool: Pool, stock: Any, pace: Pace) -> tuple[Measured, float]:
    tried: Counter[str] = Counter()

    async def ours(_task: int) -> None:
        claimed = await claim_operation(pool)
        assert claimed is not None
        await complete_operation(
            pool,
            collection_id=claimed.collection_id,
            operation_id=claimed.id,
            lease_token=claimed.lease_token,
        )

    async def naive(_task: int) -> None:
        while True:
            found = await stock.fetchrow(
                "SELECT collection_id, id FROM operations WHERE claimable_at IS NOT NULL"
                " AND claimable_at <= statement_timestamp() ORDER BY claimable_at LIMIT 1"
            )
            token = uuid5(UUID(int=1), str(tried["claims"]))
            done = await stock.execute(
                "UPDATE operations SET status = 'processing', lease_token = $3,"
                " claimable_at = statement_timestamp() + interval '1 minute'"
                " WHERE collection_id = $1 AND id = $2 AND status = 'pending'",
                *found,
                token,
            )
            tried["claims"] += 1
            if done == "UPDATE 1":
                break
            tried["in vain"] += 1
        await stock.execute(
            "UPDATE operations SET status = 'completed', lease_token = NULL, claimable_at = NULL,"
            " finished_at = statement_timestamp() WHERE collection_id = $1 AND id = $2",
            *found,
        )

    async def supply(calls: Mapping[str, int]) -> None:
        await stock.execute("TRUNCATE operations")
        await stock.execute(OPERATIONS, _id(0), sum(calls.values()) + 10 * WORKERS)
        await stock.execute("VACUUM (ANALYZE) operations")

    turns = {OURS: turn_of(ours), NAIVE: turn_of(naive)}
    measured = await measure(turns, pace=pace, tasks=WORKERS, units={}, before_round=supply)
    return measured, tried["in vain"] / max(1, tried["claims"])


# ---- buffers

STATEMENTS: dict[str, dict[str, str]] = {
    "get_chunks_by_document": {"document_id": "1"},
    "get_chunk": {"document_id": "1", "chunk_index": "7"},
    "list_chunks": {"limit": "51"},
    "list_chunks_without_embedding": {"limit": "51"},
    "count_document_chunks": {"document_id": "1"},
    "page_documents": {"limit": "51"},
    "find_document_by_hash": {"content_hash": "1"},
    "take_operation": {},
}


async def _buffers(url: str, chunks: int) -> dict[str, int]:
    """Of each statement's generic plan, in the largest collection; the median of five runs."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("TRUNCATE operations")
        await connection.execute(OPERATIONS, _id(0), chunks // 10)
        await connection.execute("VACUUM (ANALYZE) operations")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        document = _id(10**6)
        values: dict[str, Any] = {
            "collection_id": f"'{_id(0)}'",
            "document_id": f"'{document}'",
            "user_id": "1",
            "content_hash": f"sha256(uuid_send('{document}'))",
            "lease_token": f"'{_id(0)}'",
            "lease": "'1 minute'",
            "max_attempts": "5",
        }
        found: dict[str, int] = {}
        for name, given in STATEMENTS.items():
            what = next(one.statement for one in bound() if one.statement.name == name)
            await connection.execute(f"PREPARE {name} AS {what.sql}")
            arguments = ", ".join(
                values.get(each, given.get(each, "NULL")) for each in what.parameters
            )
            runs = [await _explained(connection, f"EXECUTE {name} ({arguments})") for _ in range(5)]
            found[name] = round(statistics.median(runs))
        return found
    finally:
        await connection.close()


async def _explained(connection: Any, execute: str) -> int:
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
    top = json.loads(text)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


if __name__ == "__main__":  # this part alone: python -m benchmarks.corpus
    from catbird_db.embedded import start_server

    with start_server() as one:
        quick = CorpusSizes((2_000, 100_000))
        print(asyncio.run(measure_corpus(one, Pace(rounds=9, seconds=0.03, warm_ups=2), quick)))
