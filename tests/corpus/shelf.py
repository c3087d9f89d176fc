"""A collection with something of everything in it, and users around it."""

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from catbird_db import (
    Collection,
    CreatedDocument,
    NewChunk,
    Pool,
    create_collection,
    create_document,
    create_operation,
    create_user,
    replace_chunks,
    set_document_status,
)

_numbers = itertools.count(1)

TABLES = (
    ("collections", "id"),
    ("collection_permissions", "collection_id"),
    ("documents", "collection_id"),
    ("chunks", "collection_id"),
    ("operations", "collection_id"),
    ("audit_log", "collection_id"),
)


@dataclass(frozen=True)
class Shelf:
    """``owner_id`` owns the collection; ``failed_id`` is a document that failed."""

    owner_id: int
    collection_id: UUID
    document_id: UUID
    failed_id: UUID
    operation_id: UUID


async def user(pool: Pool) -> int:
    number = next(_numbers)
    made = await create_user(pool, username=f"user{number}", email=f"user{number}@example.org")
    return made.id


async def collection(pool: Pool, owner_id: int | None = None, **rest: Any) -> Collection:
    arguments = {
        "owner_id": owner_id or await user(pool),
        "name": f"collection {next(_numbers)}",
        "embedding_model": "test",
        "embedding_dimension": 3,
    }
    return await create_collection(pool, **{**arguments, **rest})


async def document(pool: Pool, of: Collection, content: str = "", **rest: Any) -> CreatedDocument:
    content = content or f"document {next(_numbers)}"
    return await create_document(
        pool,
        collection_id=of.id,
        user_id=of.owner_id,
        file_name=content,
        file_size=len(content),
        content_hash=sha256(content),
        **rest,
    )


def sha256(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()


def pieces(*contents: str) -> list[NewChunk]:
    return [NewChunk(content=content, token_count=len(content.split())) for content in contents]


async def shelf(pool: Pool, **rest: Any) -> Shelf:
    """A collection with a document of two chunks, a failed one, and a pending operation."""
    made = await collection(pool, **rest)
    whose = {"collection_id": made.id, "user_id": made.owner_id}
    good = await document(pool, made, uri="https://example.org/a", file_path="/a")
    failed = await document(pool, made)
    chunks = pieces("the cat purrs", "a dog barks")
    await replace_chunks(pool, **whose, document_id=good.id, chunks=chunks)
    await set_document_status(
        pool, **whose, document_id=failed.id, status="failed", error="no text in it"
    )
    operation = await create_operation(pool, **whose, type="index")
    return Shelf(made.owner_id, made.id, good.id, failed.id, operation.id)


async def everything(pool: Pool, collection_id: UUID) -> list[str]:
    """All rows of a collection, as text."""
    found: list[str] = []
    async with pool.connection() as connection:
        for table, column in TABLES:
            rows = await connection.fetch(
                f"SELECT t::text AS row FROM {table} AS t WHERE t.{column} = $1 ORDER BY 1",
                collection_id,
            )
            found += [f"{table}: {row['row']}" for row in rows]
    return found
