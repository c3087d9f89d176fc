"""Chunks: the pieces that documents are cut into, embedded, and searched for.

They lie in 16 partitions, by the hash of their collection: every function takes ``collection_id`` and
reads one of them.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field

from ..errors import InvalidArgumentError
from ..pagination import Page
from ..pool import Connection, Executor, transaction
from ..query import query
from ..signature import validated
from ..types import (
    INT8_MAX,
    ChunkContent,
    ChunkIndex,
    ChunksVersion,
    CollectionId,
    Cursor,
    DocumentId,
    EmbeddingId,
    Input,
    JsonColumn,
    JsonObject,
    Limit,
    Offset,
    Row,
    SearchText,
    UserId,
)
from .collections import collection_not_found
from .documents import document_not_found

__all__ = [
    "Chunk",
    "ChunkEmbedding",
    "ChunkMatch",
    "CollectionShare",
    "NewChunk",
    "Partition",
    "PartitionHealth",
    "count_chunks",
    "delete_chunks",
    "get_chunk",
    "get_chunks_by_document",
    "get_partition_health",
    "list_chunks",
    "list_chunks_without_embedding",
    "replace_chunks",
    "search_chunks",
    "set_embeddings",
]

MOST_CHUNKS: Final = 100_000
LARGEST: Final = 10
MANY_CHUNKS: Final = 100_000

TokenCount = Annotated[int, Field(ge=0, le=INT8_MAX)]
ChunkCount = Annotated[int, Field(ge=0, le=MOST_CHUNKS)]


class Chunk(Row, frozen=True):
    """A piece of a document, at ``chunk_index`` 0, 1, 2, ...

    Chunks of one document and one ``version`` were stored together. The offsets are characters in
    the document's text; ``embedding_id`` names the vector, once there is one.
    """

    collection_id: UUID
    document_id: UUID
    chunk_index: int
    version: int
    content: str
    token_count: int
    start_offset: int | None
    end_offset: int | None
    embedding_id: str | None
    metadata: JsonColumn
    created_at: datetime


class ChunkMatch(Chunk, frozen=True):
    """A chunk that a search has found; the greater its ``rank``, the better."""

    rank: float


class NewChunk(Input, frozen=True):
    """One chunk of a document: at most 100,000 characters, and where they stand in its text."""

    content: ChunkContent
    token_count: TokenCount
    start_offset: Offset | None = None
    end_offset: Offset | None = None
    embedding_id: EmbeddingId | None = None
    metadata: JsonObject = Field(default_factory=dict)


class ChunkEmbedding(Input, frozen=True):
    """Which vector a chunk has; ``version`` is that of the chunk that was embedded."""

    document_id: UUID
    chunk_index: ChunkIndex
    version: ChunksVersion
    embedding_id: EmbeddingId


class CollectionShare(Row, frozen=True):
    """What a collection holds of all chunks, as the planner's statistics have it."""

    collection_id: UUID
    partition: str
    row_count: int
    share: float


class Partition(Row, frozen=True):
    """One partition of the chunks: rows as ANALYZE left them, bytes with its indexes."""

    partition: str
    row_count: int
    is_analyzed: bool
    total_bytes: int
    share: float


class PartitionHealth(Row, frozen=True):
    """How the chunks are spread; ``messages`` say what an operator should know, and are few or none."""

    partitions: list[Partition]
    largest_collections: list[CollectionShare]
    row_count: int
    total_bytes: int
    messages: list[str]


class _Changed(Row, frozen=True):
    collection_id: UUID
    changed: int


class _Measured(Row, frozen=True):
    partition: str
    row_count: int
    is_analyzed: bool
    total_bytes: int
    collection_ids: list[UUID]
    shares: list[float]


@query
async def lock_document(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> int | None: ...


@query
async def remove_chunks(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId
) -> int: ...


@query
async def note_chunks(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    document_id: DocumentId,
    chunk_count: ChunkCount,
    version: ChunksVersion,
) -> bool: ...


@query(refused=collection_not_found)
async def get_chunks_by_document(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> list[Chunk]:
    """All chunks of a document, by their place; of one version. Empty where it has none.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query(refused=collection_not_found)
async def list_chunks(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Chunk]:
    """The chunks of a collection, by document and place.

    Each page sees its own moment: of a document that is replaced between two pages, the second has
    chunks of another ``version``.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query
async def get_chunk(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    document_id: DocumentId,
    chunk_index: ChunkIndex,
    user_id: UserId,
) -> Chunk:
    """One chunk.

    Raises:
        NotFoundError: there is none, or this user may not read its collection.
    """
    ...


@query
async def write_embeddings(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    document_ids: Sequence[UUID],
    chunk_indexes: Sequence[int],
    versions: Sequence[int],
    embedding_ids: Sequence[str],
) -> _Changed | None: ...


@query(refused=collection_not_found)
async def list_chunks_without_embedding(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Chunk]:
    """The chunks that have no vector yet, by document and place: an index holds no others.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query
async def count_collection_chunks(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId
) -> int: ...


@query
async def count_document_chunks(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> int: ...


@query(refused=collection_not_found)
async def search_chunks(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    text: SearchText,
    limit: Limit = 20,
) -> list[ChunkMatch]:
    """The chunks of a collection that a text is found in, best first.

    Words are found by their English stems, each of them; ``or``, ``-word`` and ``"a phrase"`` mean
    what they mean to a search engine; other hyphens, as of ``--flag`` or a line of them, mean
    nothing. A text without any word, such as ``the``, finds nothing.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query
async def measure_partitions(db: Executor, /) -> list[_Measured]: ...


@validated
async def replace_chunks(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    document_id: DocumentId,
    user_id: UserId,
    chunks: Annotated[list[NewChunk], Field(max_length=MOST_CHUNKS)],
) -> int:
    """Give a document these chunks instead of those it has; for whoever may write.

    In one transaction: readers see the chunks before or those after. Of two callers at once, one
    waits for the other, and the document has the chunks of the later.

    Args:
        collection_id: of which collection.
        document_id: of which document.
        user_id: who does it.
        chunks: at most 100,000, in their order.

    Returns:
        The version of the new chunks.

    Raises:
        InvalidArgumentError: a chunk ends before it starts.
        NotFoundError: there is no such document, or this user may not write to its collection.
    """
    for place, chunk in enumerate(chunks):
        if (chunk.end_offset or 0) < (chunk.start_offset or 0):
            raise InvalidArgumentError(
                f"replace_chunks: chunks.{place}.end_offset: is before start_offset, or not given"
            )
    async with transaction(db) as tx:
        version = await _begin_replacing(tx, collection_id, document_id, user_id)
        await remove_chunks(tx, collection_id=collection_id, document_id=document_id)
        await _copy_chunks(tx, collection_id, document_id, version, chunks)
        await note_chunks(
            tx,
            collection_id=collection_id,
            document_id=document_id,
            chunk_count=len(chunks),
            version=version,
        )
    return version


@validated
async def delete_chunks(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> int:
    """Delete the chunks of a document, and leave the document; for whoever may write.

    Returns:
        How many it had.

    Raises:
        NotFoundError: there is no such document, or this user may not write to its collection.
    """
    async with transaction(db) as tx:
        version = await _begin_replacing(tx, collection_id, document_id, user_id)
        removed = await remove_chunks(tx, collection_id=collection_id, document_id=document_id)
        await note_chunks(
            tx,
            collection_id=collection_id,
            document_id=document_id,
            chunk_count=0,
            version=version,
        )
    return removed


@validated
async def set_embeddings(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    embeddings: Annotated[Sequence[ChunkEmbedding], Field(max_length=10_000)],
) -> int:
    """Say which vectors chunks have, in one statement; for whoever may write.

    A chunk that was replaced since it was embedded gets none: its ``version`` is another one.

    Args:
        collection_id: of which collection.
        user_id: who does it.
        embeddings: at most 10,000; the last one of several for a chunk counts.

    Returns:
        How many chunks have theirs now.

    Raises:
        NotFoundError: there is no such collection, or this user may not write to it.
    """
    last = {(one.document_id, one.chunk_index, one.version): one for one in embeddings}
    written = await write_embeddings(
        db,
        collection_id=collection_id,
        user_id=user_id,
        document_ids=[one.document_id for one in last.values()],
        chunk_indexes=[one.chunk_index for one in last.values()],
        versions=[one.version for one in last.values()],
        embedding_ids=[one.embedding_id for one in last.values()],
    )
    if written is None:
        raise await collection_not_found(db)
    return written.changed


@validated
async def count_chunks(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    document_id: DocumentId | None = None,
) -> int:
    """How many chunks a collection has, or one document of it; counted one by one in an index.

    `collection_statistics` tells it faster, by what each document says of itself.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    if document_id is None:
        return await count_collection_chunks(db, collection_id=collection_id, user_id=user_id)
    return await count_document_chunks(
        db, collection_id=collection_id, document_id=document_id, user_id=user_id
    )


@validated
async def get_partition_health(db: Executor, /) -> PartitionHealth:
    """How the chunks are spread over their partitions; for operators. Reads the catalog, and no chunk.

    Rows and shares are what ANALYZE, which autovacuum runs, saw last. ``messages`` says so where a
    partition was never analyzed, and where one collection has more chunks than all others together, and
    100,000 of them or more. A role that may not SELECT from the chunks is shown no largest collections.
    """
    measured = await measure_partitions(db)
    total = sum(one.row_count for one in measured)
    largest = sorted(
        (
            CollectionShare(
                collection_id=collection_id,
                partition=one.partition,
                row_count=round(one.row_count * share),
                share=one.row_count * share / max(total, 1),
            )
            for one in measured
            for collection_id, share in zip(one.collection_ids, one.shares, strict=True)
        ),
        key=lambda one: one.row_count,
        reverse=True,
    )[:LARGEST]
    return PartitionHealth(
        partitions=[
            Partition(
                partition=one.partition,
                row_count=one.row_count,
                is_analyzed=one.is_analyzed,
                total_bytes=one.total_bytes,
                share=one.row_count / max(total, 1),
            )
            for one in measured
        ],
        largest_collections=largest,
        row_count=total,
        total_bytes=sum(one.total_bytes for one in measured),
        messages=list(_worries(measured, largest)),
    )


def _worries(measured: list[_Measured], largest: list[CollectionShare]) -> Iterator[str]:
    unknown = [one.partition for one in measured if not one.is_analyzed]
    if unknown:
        yield (
            f"{len(unknown)} of {len(measured)} partitions were never analyzed ({unknown[0]}, ...), "
            "so their rows are not known here; run ANALYZE chunks"
        )
    if largest and largest[0].share > 0.5 and largest[0].row_count >= MANY_CHUNKS:
        one = largest[0]
        yield (
            f"collection {one.collection_id} has more chunks than all others together: about "
            f"{one.row_count:,}, {one.share:.0%} of all, in {one.partition}. More partitions would not "
            "divide it, as a collection is in one; split it into several, or give it a database of its own"
        )


async def _begin_replacing(
    tx: Connection, collection_id: UUID, document_id: UUID, user_id: int
) -> int:
    """Lock a document, and say which version its chunks will be."""
    version = await lock_document(
        tx, collection_id=collection_id, document_id=document_id, user_id=user_id
    )
    if version is None:
        raise document_not_found()
    return version


_COPIED: Final = (
    *("collection_id", "document_id", "chunk_index", "version", "content", "token_count"),
    *("start_offset", "end_offset", "embedding_id", "metadata"),
)


async def _copy_chunks(
    tx: Connection, collection_id: UUID, document_id: UUID, version: int, chunks: Sequence[NewChunk]
) -> None:
    """COPY: the document is not held as six arrays in one message (docs/decisions.md)."""
    records = (
        (
            *(collection_id, document_id, place, version, chunk.content, chunk.token_count),
            *(chunk.start_offset, chunk.end_offset, chunk.embedding_id),
            json.dumps(chunk.metadata) if chunk.metadata else "{}",
        )
        for place, chunk in enumerate(chunks)
    )
    await tx.copy_records_to_table(  # pyright: ignore[reportUnknownMemberType]
        "chunks", records=records, columns=_COPIED
    )
