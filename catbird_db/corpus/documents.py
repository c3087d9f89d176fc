"""Documents: what a collection was given, once for each content.

What a sync meets again is *seen*; what it no longer meets becomes *stale*. A file that changed is a
new document: its content is another one, and the old document becomes stale.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field
from uuid_utils.compat import uuid7

from ..errors import ConflictError, InvalidArgumentError, NotFoundError
from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..storage import ObjectStore, StoredObject, open_object
from ..storage.objects import require_owner
from ..types import (
    BatchLimit,
    CollectionId,
    ContentHash,
    Cursor,
    DocumentId,
    DocumentStatus,
    FileName,
    FilePath,
    Input,
    Limit,
    MimeType,
    ObjectHash,
    Offset,
    Retries,
    Row,
    Size,
    StatusText,
    Timestamp,
    Uri,
    UserId,
)
from .collections import collection_not_found

__all__ = [
    "DOCUMENT_TRANSITIONS",
    "CollectionStatistics",
    "CreatedDocument",
    "Document",
    "NewDocument",
    "collection_statistics",
    "create_document",
    "create_documents",
    "delete_document",
    "find_document_by_hash",
    "find_document_by_path",
    "find_document_by_uri",
    "get_document",
    "get_original",
    "list_documents",
    "mark_unseen_stale",
    "retry_failed_documents",
    "set_document_status",
]

DOCUMENT_TRANSITIONS: Final[Mapping[DocumentStatus, frozenset[DocumentStatus]]] = {
    "pending": frozenset({"processing", "failed"}),
    "processing": frozenset({"pending", "completed", "failed"}),
    "completed": frozenset({"pending", "processing"}),
    "failed": frozenset({"pending", "processing"}),
}
"""Which statuses a status may become."""


class Document(Row, frozen=True):
    """A document.

    ``content_hash`` is the SHA-256 of its content; `get_original` gives its bytes, where
    ``has_original``. ``last_seen_at`` is when a sync met it last, ``stale_at`` since when none does.
    """

    collection_id: UUID
    id: UUID
    file_name: str
    file_path: str | None
    file_size: int
    mime_type: str | None
    content_hash: bytes
    source_path: str | None
    uri: str | None
    status: DocumentStatus
    error: str | None
    retry_count: int
    chunk_count: int
    chunks_version: int
    has_original: bool
    last_seen_at: datetime
    stale_at: datetime | None
    created_at: datetime
    updated_at: datetime


class CreatedDocument(Document, frozen=True):
    """A document, and whether this call has added it."""

    is_new: bool


class CollectionStatistics(Row, frozen=True):
    """What is in a collection; sizes in bytes."""

    collection_id: UUID
    document_count: int
    pending_count: int
    processing_count: int
    completed_count: int
    failed_count: int
    stale_count: int
    chunk_count: int
    total_size: int
    last_document_at: datetime | None


class _Changed(Row, frozen=True):
    collection_id: UUID
    changed: int


class NewDocument(Input, frozen=True):
    """One document of a batch; the fields are the arguments of `create_document`."""

    file_name: FileName
    file_size: Size
    content_hash: ContentHash
    file_path: FilePath | None = None
    mime_type: MimeType | None = None
    source_path: FilePath | None = None
    uri: Uri | None = None
    stored: StoredObject | None = None


@query
async def insert_document(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    document_id: DocumentId,
    file_name: FileName,
    file_path: FilePath | None,
    file_size: Size,
    mime_type: MimeType | None,
    content_hash: ContentHash,
    source_path: FilePath | None,
    uri: Uri | None,
    object_hash: ObjectHash | None,
) -> CreatedDocument | None: ...


@query
async def insert_documents(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    document_ids: Sequence[UUID],
    file_names: Sequence[str],
    file_paths: Sequence[str | None],
    file_sizes: Sequence[int],
    mime_types: Sequence[str | None],
    content_hashes: Sequence[bytes],
    source_paths: Sequence[str | None],
    uris: Sequence[str | None],
    object_hashes: Sequence[str | None],
) -> list[CreatedDocument]: ...


@query
async def get_document(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> Document:
    """A document, for whoever may read its collection.

    Raises:
        NotFoundError: there is none in this collection, or this user may not read it.
    """
    ...


@query
async def find_original(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> str | None: ...


@query(refused=collection_not_found)
async def find_document_by_hash(
    db: Executor, /, *, collection_id: CollectionId, content_hash: ContentHash, user_id: UserId
) -> Document | None:
    """The document with this content, or None.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query(refused=collection_not_found)
async def find_document_by_uri(
    db: Executor, /, *, collection_id: CollectionId, uri: Uri, user_id: UserId
) -> Document | None:
    """The newest document from this URI, or None.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query(refused=collection_not_found)
async def find_document_by_path(
    db: Executor, /, *, collection_id: CollectionId, file_path: FilePath, user_id: UserId
) -> Document | None:
    """The newest document from this ``file_path``, or None.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@query(refused=collection_not_found)
async def page_documents(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    limit: Limit,
    cursor: Cursor | None,
) -> Page[Document]: ...


@query(refused=collection_not_found)
async def page_documents_by_status(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    status: DocumentStatus,
    limit: Limit,
    cursor: Cursor | None,
) -> Page[Document]: ...


@query
async def move_document_status(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    document_id: DocumentId,
    user_id: UserId,
    status: DocumentStatus,
    error: StatusText | None,
    allowed: list[DocumentStatus],
) -> Document | None: ...


@query
async def find_writable_document(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> Document | None: ...


@query
async def reset_failed_documents(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    max_retries: Retries,
    limit: BatchLimit,
) -> _Changed | None: ...


@query
async def mark_stale(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    seen_before: Timestamp,
    source_path: FilePath | None,
    limit: BatchLimit,
) -> _Changed | None: ...


@query
async def remove_document(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> int: ...


@query
async def collection_statistics(
    db: Executor, /, *, collection_id: CollectionId, user_id: UserId
) -> CollectionStatistics:
    """How many documents and chunks a collection has, and how large they are; counted, one statement.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    ...


@validated
async def create_document(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    file_name: FileName,
    file_size: Size,
    content_hash: ContentHash,
    file_path: FilePath | None = None,
    mime_type: MimeType | None = None,
    source_path: FilePath | None = None,
    uri: Uri | None = None,
    stored: StoredObject | None = None,
) -> CreatedDocument:
    """Add a document, or see again the one that has this content.

    Args:
        collection_id: to which collection.
        user_id: who adds it: whoever may write.
        file_name: what people call it.
        file_size: bytes.
        content_hash: SHA-256 of its content, 32 bytes; a collection has each content once.
        file_path: where it was found.
        mime_type: such as ``application/pdf``.
        source_path: the root of the source that it was found under.
        uri: where it came from.
        stored: its original, as `put_object` returned it; with OBJECT_DEDUPE=tenant for this user.

    Returns:
        The document. ``is_new`` is False where its content was there already: then nothing is
        changed but ``last_seen_at``, it is not stale, and ``stored`` is its original if it had none.

    Raises:
        NotFoundError: there is no such collection, or this user may not write to it; or no such object.
        InvalidArgumentError: with OBJECT_DEDUPE=tenant, ``stored`` was put for another owner.
    """
    if stored:
        require_owner(stored, owner=user_id)
    document = await insert_document(
        db,
        collection_id=collection_id,
        user_id=user_id,
        document_id=uuid7(),
        file_name=file_name,
        file_path=file_path,
        file_size=file_size,
        mime_type=mime_type,
        content_hash=content_hash,
        source_path=source_path,
        uri=uri,
        object_hash=stored.hash if stored else None,
    )
    if document is None:
        raise await collection_not_found(db)
    return document


@validated
async def create_documents(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    documents: Annotated[Sequence[NewDocument], Field(min_length=1, max_length=1000)],
) -> list[CreatedDocument]:
    """As `create_document`, for 1 to 1000 in one statement: all or none.

    Returns:
        One for each given, in their order. Of several with one content the first is added, and the
        others are that one again, not new.

    Raises:
        NotFoundError: as for `create_document`.
        InvalidArgumentError: as for `create_document`.
    """
    for one in documents:
        if one.stored:
            require_owner(one.stored, owner=user_id)
    first = {one.content_hash: one for one in reversed(documents)}
    distinct = list(first.values())
    inserted = await insert_documents(
        db,
        collection_id=collection_id,
        user_id=user_id,
        document_ids=[uuid7() for _ in distinct],
        file_names=[one.file_name for one in distinct],
        file_paths=[one.file_path for one in distinct],
        file_sizes=[one.file_size for one in distinct],
        mime_types=[one.mime_type for one in distinct],
        content_hashes=[one.content_hash for one in distinct],
        source_paths=[one.source_path for one in distinct],
        uris=[one.uri for one in distinct],
        object_hashes=[one.stored.hash if one.stored else None for one in distinct],
    )
    if not inserted:
        raise await collection_not_found(db)
    found = {one.content_hash: one for one in inserted}
    return [
        found[one.content_hash]
        if one is first[one.content_hash]
        else found[one.content_hash].model_copy(update={"is_new": False})
        for one in documents
    ]


@validated
async def list_documents(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    status: DocumentStatus | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Document]:
    """The documents of a collection, newest first; of one status, if that is given.

    A cursor goes on with the same ``status`` that it came from.

    Raises:
        NotFoundError: there is no such collection, or this user may not read it.
    """
    if status is None:
        return await page_documents(
            db, collection_id=collection_id, user_id=user_id, limit=limit, cursor=cursor
        )
    return await page_documents_by_status(
        db, collection_id=collection_id, user_id=user_id, status=status, limit=limit, cursor=cursor
    )


@validated
async def set_document_status(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    document_id: DocumentId,
    user_id: UserId,
    status: DocumentStatus,
    error: StatusText | None = None,
) -> Document:
    """Change the status, as `DOCUMENT_TRANSITIONS` allows; for whoever may write.

    What is ``completed`` has a ``retry_count`` of 0 again.

    Args:
        collection_id: of which collection.
        document_id: which document.
        user_id: who does it.
        status: what it becomes.
        error: what went wrong, of ``failed`` alone.

    Raises:
        InvalidArgumentError: an error, and not failed.
        NotFoundError: there is no such document, or this user may not write to its collection.
        ConflictError: its status may not become this one.
    """
    if error is not None and status != "failed":
        raise InvalidArgumentError("error: goes with status='failed' alone")
    allowed: list[DocumentStatus] = [
        before for before, after in DOCUMENT_TRANSITIONS.items() if status in after
    ]
    changed = await move_document_status(
        db,
        collection_id=collection_id,
        document_id=document_id,
        user_id=user_id,
        status=status,
        error=error,
        allowed=allowed,
    )
    if changed is not None:
        return changed
    document = await find_writable_document(
        db, collection_id=collection_id, document_id=document_id, user_id=user_id
    )
    if document is None:
        raise document_not_found()
    raise ConflictError(
        f"set_document_status: it is {document.status}, which does not become {status}"
    )


@validated
async def retry_failed_documents(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    max_retries: Retries = 3,
    limit: BatchLimit = 1000,
) -> int:
    """Make failed documents pending again, oldest first, and count the retry; for whoever may write.

    What another transaction has locked is left for a later call.

    Args:
        collection_id: of which collection.
        user_id: who does it.
        max_retries: documents that were retried so often are left as they are.
        limit: how many at most; call it until it returns less.

    Returns:
        How many are pending again.

    Raises:
        NotFoundError: there is no such collection, or this user may not write to it.
    """
    reset = await reset_failed_documents(
        db, collection_id=collection_id, user_id=user_id, max_retries=max_retries, limit=limit
    )
    if reset is None:
        raise await collection_not_found(db)
    return reset.changed


@validated
async def mark_unseen_stale(
    db: Executor,
    /,
    *,
    collection_id: CollectionId,
    user_id: UserId,
    seen_before: Timestamp,
    source_path: FilePath | None = None,
    limit: BatchLimit = 1000,
) -> int:
    """Mark what no sync has met since a time as stale, longest unseen first; for whoever may write.

    What another transaction has locked is left for a later call, such as that of the next sync.

    Args:
        collection_id: of which collection.
        user_id: who does it.
        seen_before: when the sync began, by the server's clock: an operation's ``started_at``.
        source_path: only what was found under this root.
        limit: how many at most; call it until it returns less.

    Returns:
        How many became stale.

    Raises:
        NotFoundError: there is no such collection, or this user may not write to it.
    """
    marked = await mark_stale(
        db,
        collection_id=collection_id,
        user_id=user_id,
        seen_before=seen_before,
        source_path=source_path,
        limit=limit,
    )
    if marked is None:
        raise await collection_not_found(db)
    return marked.changed


@validated
async def get_original(
    db: Executor,
    store: ObjectStore,
    /,
    *,
    collection_id: CollectionId,
    document_id: DocumentId,
    user_id: UserId,
    start: Offset = 0,
    length: Offset | None = None,
) -> AsyncIterator[bytes]:
    """The bytes of a document's original in chunks, or a range of them, for whoever may read it.

    Args:
        db: a pool, or a connection.
        store: where the bytes are.
        collection_id: of which collection.
        document_id: of which document.
        user_id: who asks.
        start: as for `open_object`, and so is ``length``.

    Raises:
        NotFoundError: there is no such document, it has no original, or this user may not read it.
        IntegrityError, StorageError: as for `open_object`.
    """
    hash = await find_original(
        db, collection_id=collection_id, document_id=document_id, user_id=user_id
    )
    if hash is None:
        raise document_not_found()
    async for chunk in open_object(db, store, hash=hash, start=start, length=length):
        yield chunk


@validated
async def delete_document(
    db: Executor, /, *, collection_id: CollectionId, document_id: DocumentId, user_id: UserId
) -> None:
    """Delete a document with its chunks; for whoever may write.

    Raises:
        NotFoundError: there is no such document, or this user may not write to its collection.
    """
    if not await remove_document(
        db, collection_id=collection_id, document_id=document_id, user_id=user_id
    ):
        raise document_not_found()


def document_not_found() -> NotFoundError:
    return NotFoundError("no such document, or this user may not do that with it")
