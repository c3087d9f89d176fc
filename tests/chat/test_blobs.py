"""Blobs are named by their CID, read by whom they are for, and gone with the last reference."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from actors import Undo, converse, stored

from catbird_db import (
    Blob,
    NotAMemberError,
    NotFoundError,
    ObjectStore,
    Pool,
    StorageError,
    StoredObject,
    add_member,
    collect_garbage,
    delete_blob,
    delete_conversation,
    get_blob,
    get_user_storage_size,
    list_blobs_by_conversation,
    put_object,
    refer_blob,
    remove_member,
    store_blob,
    transaction,
)
from catbird_db.chat.blobs import cid_of
from catbird_db.storage.objects import OWNER_KEY

ALICE, BOB, MALLORY = "did:plc:alice", "did:plc:bob", "did:plc:mallory"
DATA = b"encrypted by the client"

PUBLISHED = [
    # the zero-length block of go-car's readers; what `ipfs add --cid-version=1` prints for a small
    # file; the example of PyPI's ipfs-cid
    (b"", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
    (b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
    (b"Hello world", "bafkreide5semuafsnds3ugrvm6fbwuyw2ijpj43gwjdxemstjkfozi37hq"),
]


@pytest.fixture
async def pool(catbird_pool: Pool) -> Pool:
    await converse(catbird_pool, "c", ALICE, BOB)
    return catbird_pool


async def keep(pool: Pool, store: ObjectStore, /, **rest: Any) -> Blob:
    given = {"data": DATA, "uploaded_by_did": ALICE, "convo_id": "c", **rest}
    return await store_blob(pool, store, **given)


async def read(pool: Any, store: ObjectStore, blob: Blob, did: str, **rest: Any) -> bytes:
    chunks = get_blob(pool, store, cid=blob.cid, reader_did=did, **rest)
    return b"".join([chunk async for chunk in chunks])


async def sweep(pool: Pool, store: ObjectStore) -> int:
    await stored(pool, "UPDATE objects SET lease_until = now() - interval '1 s'")
    return (await collect_garbage(pool, store)).objects


@pytest.mark.parametrize(("data", "cid"), PUBLISHED)
def test_a_cid_is_the_published_one(data: bytes, cid: str) -> None:
    assert cid_of(hashlib.sha256(data).hexdigest()) == cid


async def test_what_was_stored_comes_back_to_uploader_and_members(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    blob = await keep(pool, catbird_store, mime_type="image/png")
    assert blob.cid == cid_of(hashlib.sha256(DATA).hexdigest())
    assert (blob.size, blob.mime_type, blob.convo_id) == (len(DATA), "image/png", "c")
    for did in (ALICE, BOB):
        assert await read(pool, catbird_store, blob, did) == DATA
        assert await read(pool, catbird_store, blob, did, start=3, length=4) == DATA[3:7]


async def test_a_file_and_chunks_are_stored_as_bytes_are(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in DATA:
            yield bytes([byte])

    blob = await keep(pool, catbird_store)
    for data in (io.BytesIO(DATA), chunks(), DATA):
        assert await keep(pool, catbird_store, data=data) == blob


async def test_the_same_bytes_again_are_the_same_blob_for_one_uploader_and_conversation(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    await converse(pool, "d", ALICE)
    places: list[dict[str, Any]] = [
        {},
        {"convo_id": "d"},
        {"convo_id": None},
        {"uploaded_by_did": BOB},
        {"uploaded_by_did": BOB, "convo_id": None},
    ]
    first = [await keep(pool, catbird_store, **place) for place in places]
    assert len({blob.id for blob in first}) == len(places)
    assert len({blob.cid for blob in first}) == 1
    again = await asyncio.gather(
        *(keep(pool, catbird_store, **place, mime_type="other") for place in places * 5)
    )
    assert again == first * 5
    assert len(await stored(pool, "SELECT FROM objects")) == 1


async def test_only_the_uploader_and_active_members_read(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    shared = await keep(pool, catbird_store)
    own = await keep(pool, catbird_store, data=b"own", convo_id=None)
    assert await read(pool, catbird_store, own, ALICE) == b"own"
    for blob, did in ((shared, MALLORY), (own, BOB), (own, MALLORY)):
        with pytest.raises(NotFoundError):
            await read(pool, catbird_store, blob, did)
    await remove_member(pool, convo_id="c", member_did=BOB)
    with pytest.raises(NotFoundError):
        await read(pool, catbird_store, shared, BOB)
    with pytest.raises(NotAMemberError):
        await list_blobs_by_conversation(pool, convo_id="c", reader_did=BOB)
    await add_member(pool, convo_id="c", member_did=BOB)
    assert await read(pool, catbird_store, shared, BOB) == DATA
    await remove_member(pool, convo_id="c", member_did=ALICE)
    assert await read(pool, catbird_store, shared, ALICE) == DATA  # it is hers


async def test_a_stranger_stores_nothing_into_a_conversation(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    for convo_id in ("c", "unknown"):
        with pytest.raises(NotAMemberError):
            await keep(pool, catbird_store, uploaded_by_did=MALLORY, convo_id=convo_id)
    assert [one async for one in catbird_store.list()] == []  # not even the bytes
    object = await put_object(pool, catbird_store, body=DATA)
    with pytest.raises(NotAMemberError):
        await refer_blob(pool, stored=object, uploaded_by_did=MALLORY, convo_id="c")


async def test_who_has_a_blob_of_the_same_bytes_learns_of_no_other(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    """Also not by deleting theirs."""
    blob = await keep(pool, catbird_store)
    mallorys = await keep(pool, catbird_store, uploaded_by_did=MALLORY, convo_id=None)
    assert mallorys.cid == blob.cid
    assert await read(pool, catbird_store, blob, MALLORY) == DATA
    assert await delete_blob(pool, cid=blob.cid, uploaded_by_did=MALLORY) is True
    with pytest.raises(NotFoundError):
        await read(pool, catbird_store, blob, MALLORY)
    assert await delete_blob(pool, cid=blob.cid, uploaded_by_did=MALLORY) is False
    assert await sweep(pool, catbird_store) == 0
    assert await read(pool, catbird_store, blob, BOB) == DATA


async def test_the_list_of_a_conversation_is_newest_first_in_pages_and_has_no_bytes(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    blobs = [await keep(pool, catbird_store, data=b"%d" % number) for number in range(5)]
    await keep(pool, catbird_store, data=b"own", convo_id=None)
    seen, cursor = list[Blob](), None
    while True:
        page = await list_blobs_by_conversation(
            pool, convo_id="c", reader_did=BOB, limit=2, cursor=cursor
        )
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == blobs[::-1]
    assert not any(isinstance(value, bytes) for blob in seen for _, value in blob)
    await converse(pool, "empty", ALICE)
    page = await list_blobs_by_conversation(pool, convo_id="empty", reader_did=ALICE)
    assert page.items == []


async def test_sizes_add_up_by_uploader(pool: Pool, catbird_store: ObjectStore) -> None:
    assert await get_user_storage_size(pool, did=ALICE) == 0
    blob = await keep(pool, catbird_store)
    await keep(pool, catbird_store, convo_id=None)
    await keep(pool, catbird_store, data=b"", convo_id=None)
    await keep(pool, catbird_store, uploaded_by_did=BOB)
    assert await get_user_storage_size(pool, did=ALICE) == 2 * len(DATA)
    assert await get_user_storage_size(pool, did=BOB) == len(DATA)
    await delete_blob(pool, cid=blob.cid, uploaded_by_did=ALICE)
    assert await get_user_storage_size(pool, did=ALICE) == 0


async def test_deleting_a_conversation_drops_its_references_and_no_others(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    await converse(pool, "d", ALICE)
    only = await keep(pool, catbird_store, data=b"only here")
    shared = await keep(pool, catbird_store)
    await keep(pool, catbird_store, convo_id="d")
    await delete_conversation(pool, convo_id="c")
    with pytest.raises(NotFoundError):
        await read(pool, catbird_store, only, ALICE)
    assert await sweep(pool, catbird_store) == 1
    assert await read(pool, catbird_store, shared, ALICE) == DATA
    await delete_conversation(pool, convo_id="d")
    assert await sweep(pool, catbird_store) == 1
    assert [one.key async for one in catbird_store.list()] == [OWNER_KEY]


async def test_a_reference_in_a_transaction_that_fails_was_never_there(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    object = await put_object(pool, catbird_store, body=DATA)
    with suppress(Undo):
        async with transaction(pool) as tx:
            blob = await refer_blob(tx, stored=object, uploaded_by_did=ALICE)
            assert await read(tx, catbird_store, blob, ALICE) == DATA
            raise Undo
    assert await stored(pool, "SELECT FROM blobs") == []
    await sweep(pool, catbird_store)
    gone = StoredObject(hash=object.hash, size=object.size)
    with pytest.raises(NotFoundError, match="store it again"):
        await refer_blob(pool, stored=gone, uploaded_by_did=ALICE)


async def test_a_blob_whose_bytes_cannot_be_stored_is_no_blob(
    pool: Pool, catbird_store: ObjectStore
) -> None:
    from storage.faulty import Faulty

    with pytest.raises(StorageError):
        await keep(pool, Faulty(catbird_store, ["during"]))
    assert await stored(pool, "SELECT FROM blobs") == []
    assert (await list_blobs_by_conversation(pool, convo_id="c", reader_did=BOB)).items == []
