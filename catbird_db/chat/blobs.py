"""Blobs: encrypted attachments, named by their CID, kept in the object store.

A blob is a reference from an uploader, and perhaps a conversation, to an object; the uploader and
the active members of the conversation read it. Its bytes stay as long as anything refers to them.
"""

import base64
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints
from uuid_utils.compat import uuid7

from ..errors import NotFoundError
from ..pagination import Page
from ..pool import Executor, Pool
from ..query import query
from ..signature import validated
from ..storage import ObjectStore, StoredObject, open_object, put_object
from ..storage.objects import require_owner, require_pool
from ..storage.store import Body
from ..types import ConvoId, Cursor, Did, Limit, MimeType, ObjectHash, Offset, Row
from .members import is_member
from .messages import not_a_member

__all__ = [
    "Blob",
    "delete_blob",
    "get_blob",
    "get_user_storage_size",
    "list_blobs_by_conversation",
    "refer_blob",
    "store_blob",
]

Cid = Annotated[str, StringConstraints(pattern=r"^b[a-z2-7]{58}$")]
"""A content identifier: CIDv1, raw (0x55), sha2-256 (0x12), in base32."""


class Blob(Row, frozen=True):
    """A reference to bytes: ``cid`` names them, ``size`` counts them."""

    id: UUID
    cid: str
    uploaded_by_did: str
    convo_id: str | None
    mime_type: str | None
    size: int
    created_at: datetime


class FoundBlob(Row, frozen=True):
    cid: str
    object_hash: str


@query
async def insert_own_blob(
    db: Executor,
    /,
    *,
    uploaded_by_did: Did,
    id: UUID,
    cid: Cid,
    mime_type: MimeType | None,
    size: Offset,
    object_hash: ObjectHash,
) -> Blob: ...


@query
async def insert_shared_blob(
    db: Executor,
    /,
    *,
    uploaded_by_did: Did,
    id: UUID,
    cid: Cid,
    convo_id: ConvoId,
    mime_type: MimeType | None,
    size: Offset,
    object_hash: ObjectHash,
) -> Blob | None: ...


@query
async def find_blob(db: Executor, /, *, cid: Cid, reader_did: Did) -> FoundBlob | None: ...


@query(refused=not_a_member)
async def list_blobs_by_conversation(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    reader_did: Did,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Blob]:
    """The blobs of a conversation, newest first; `get_blob` has the bytes.

    Raises:
        NotAMemberError: ``reader_did`` is not an active member.
    """
    ...


@query
async def delete_blob(db: Executor, /, *, cid: Cid, uploaded_by_did: Did) -> bool:
    """Take back what this uploader stored under a CID, in all conversations; False if nothing.

    The bytes go with a later `collect_garbage`, unless something else refers to them.
    """
    ...


@query
async def get_user_storage_size(db: Executor, /, *, did: Did) -> int:
    """Bytes of all blobs that a DID has uploaded; those in two conversations count twice."""
    ...


@validated
async def store_blob(
    pool: Pool,
    store: ObjectStore,
    /,
    *,
    data: Body,
    uploaded_by_did: Did,
    convo_id: ConvoId | None = None,
    mime_type: MimeType | None = None,
) -> Blob:
    """Store bytes and refer to them. The same bytes again, from the same uploader to the same
    conversation, are the same blob.

    The upload runs first, outside of any transaction: to make the reference part of one, call
    `put_object`, and `refer_blob` inside it.

    Args:
        data: bytes, a binary file, or an async iterable of bytes; encrypted by the client.
        uploaded_by_did: whose it is, and counts for.
        convo_id: whose active members may read it; without one only the uploader may.
        mime_type: what to call it when it is served.

    Raises:
        NotAMemberError: the uploader is not an active member of the conversation.
        StorageError: the store failed; there is no blob.
    """
    require_pool(pool)
    if convo_id and not await is_member(pool, convo_id=convo_id, member_did=uploaded_by_did):
        raise await not_a_member(pool, convo_id=convo_id)
    stored = await put_object(pool, store, body=data, owner=uploaded_by_did)
    return await refer_blob(
        pool,
        stored=stored,
        uploaded_by_did=uploaded_by_did,
        convo_id=convo_id,
        mime_type=mime_type,
    )


@validated
async def refer_blob(
    db: Executor,
    /,
    *,
    stored: StoredObject,
    uploaded_by_did: Did,
    convo_id: ConvoId | None = None,
    mime_type: MimeType | None = None,
) -> Blob:
    """Refer to bytes that `put_object` has stored, in the caller's transaction where there is one.

    Args:
        stored: what `put_object` returned, with ``owner=uploaded_by_did``; never what a client says.
        uploaded_by_did: as for `store_blob`, and so are the others.

    Raises:
        NotAMemberError: the uploader is not an active member of the conversation.
        NotFoundError: the object's lease had ended and it was collected; store it again.
        InvalidArgumentError: with OBJECT_DEDUPE=tenant, it was put for another owner.
    """
    require_owner(stored, owner=uploaded_by_did)
    made: dict[str, Any] = {
        "uploaded_by_did": uploaded_by_did,
        "id": uuid7(),
        "cid": cid_of(stored.sha256),
        "mime_type": mime_type,
        "size": stored.size,
        "object_hash": stored.hash,
    }
    if convo_id is None:
        return await insert_own_blob(db, **made)
    blob = await insert_shared_blob(db, **made, convo_id=convo_id)
    if blob is None:
        raise await not_a_member(db, convo_id=convo_id)
    return blob


@validated
async def get_blob(
    db: Executor,
    store: ObjectStore,
    /,
    *,
    cid: Cid,
    reader_did: Did,
    start: Offset = 0,
    length: Offset | None = None,
) -> AsyncIterator[bytes]:
    """The bytes of a blob in chunks, or a range of them, for its uploader and for active members.

    Args:
        cid: `Blob.cid`.
        reader_did: who asks.
        start: as for `open_object`, and so is ``length``.

    Raises:
        NotFoundError: there is no such blob, or not for this reader.
        IntegrityError, StorageError: as for `open_object`.
    """
    found = await find_blob(db, cid=cid, reader_did=reader_did)
    if found is None:
        raise NotFoundError("get_blob: there is no such blob for this reader")
    async for chunk in open_object(db, store, hash=found.object_hash, start=start, length=length):
        yield chunk


def cid_of(sha256: str) -> str:
    """Multibase base32 ("b") of version 1, codec raw, multihash sha2-256 of 32 bytes."""
    binary = bytes([0x01, 0x55, 0x12, 32]) + bytes.fromhex(sha256)
    return "b" + base64.b32encode(binary).decode().lower().rstrip("=")
