"""Objects are kept once, refused to be referred to when they go, and lost never."""

import asyncio
import hashlib
import io
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from seaweed import Seaweed, seaweed
from storage.faulty import Fault, Faulty

from catbird_db import (
    CollectedGarbage,
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    ObjectStore,
    Pool,
    Settings,
    StorageError,
    StoredObject,
    collect_garbage,
    copy_file,
    create_user,
    delete_blob,
    object_reference_count,
    open_object,
    open_store,
    put_object,
    reconcile,
    record_file,
    refer_blob,
    transaction,
    write_file,
)
from catbird_db.storage import objects
from catbird_db.storage.objects import OWNER_KEY, lease_object, lock_objects, mark_deleting

ALICE, BOB = "did:plc:alice", "did:plc:bob"
BODY = b"the same bytes" * 100
HASH = hashlib.sha256(BODY).hexdigest()


async def rows(pool: Pool, sql: str = "SELECT * FROM objects ORDER BY hash") -> list[Any]:
    async with pool.connection() as connection:
        return await connection.fetch(sql)


async def end_leases(pool: Pool) -> None:
    await rows(pool, "UPDATE objects SET lease_until = now() - interval '1 s'")


async def got(pool: Pool, store: ObjectStore, hash: str = HASH, **rest: Any) -> bytes:
    return b"".join([chunk async for chunk in open_object(pool, store, hash=hash, **rest)])


async def keys(store: ObjectStore) -> list[str]:
    """Of objects, and what is foreign."""
    return [entry.key async for entry in store.list() if entry.key != OWNER_KEY]


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0)


async def read_into(given: list[bytes], chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        given.append(chunk)


async def damage(store: ObjectStore, bytes_now: bytes) -> None:
    [key] = await keys(store)
    await store.put(key, io.BytesIO(bytes_now), len(bytes_now))


class AsyncFile:
    async def read(self, size: int = -1) -> bytes:
        return b"never awaited"


class Undeleting(Faulty):
    """What has this in its key cannot be deleted."""

    def __init__(self, real: ObjectStore, kept: str) -> None:
        super().__init__(real)
        self.kept = kept

    async def delete(self, key: str, /) -> None:
        if self.kept in key:
            raise StorageError("not this one")
        await self.real.delete(key)


# Storing.


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 3 * 2**20 + 7, 20 * 2**20])
async def test_bytes_a_file_and_chunks_of_the_same_bytes_are_one_object(
    catbird_pool: Pool, store: ObjectStore, size: int, tmp_path: Path
) -> None:
    body = os.urandom(size)
    (tmp_path / "body").write_bytes(b"left out" + body)
    stored = await put_object(catbird_pool, store, body=body)
    assert stored == StoredObject(hash=hashlib.sha256(body).hexdigest(), size=size)
    assert stored.sha256 == stored.hash
    with (tmp_path / "body").open("rb") as file:
        file.seek(8)
        assert await put_object(catbird_pool, store, body=file) == stored
    for chunk_size in (100_000, 2**22):
        chunks = in_chunks(body, chunk_size)
        again = await put_object(catbird_pool, store, body=chunks, sha256=stored.hash)
        assert again == stored
    assert len(await keys(store)) == 1
    assert await got(catbird_pool, store, stored.hash) == body
    for start, length in ((0, 0), (0, 1), (size // 2, None), (size // 2, 2), (size, None)):
        expected = body[start : None if length is None else start + length]
        assert await got(catbird_pool, store, stored.hash, start=start, length=length) == expected


async def test_what_can_be_changed_is_stored_as_it_was_given(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    async def chunks() -> AsyncIterator[Any]:
        chunk = bytearray(1)
        for one in BODY:
            chunk[0] = one
            yield chunk

    for body in (bytearray(BODY), memoryview(BODY), memoryview(bytes(reversed(BODY)))[::-1]):
        stored = await put_object(catbird_pool, catbird_store, body=body)
        assert stored.hash == HASH
    assert (await put_object(catbird_pool, catbird_store, body=chunks())).hash == HASH


async def test_many_uploads_of_the_same_bytes_at_once_are_one_object(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    stored = await asyncio.gather(*(put_object(catbird_pool, store, body=BODY) for _ in range(20)))
    assert {*stored} == {StoredObject(hash=HASH, size=len(BODY))}
    assert len(await keys(store)) == 1
    [row] = await rows(catbird_pool)
    assert (row["state"], row["size"]) == ("stored", len(BODY))


async def test_of_many_that_intend_the_same_at_once_one_does_and_none_fails(
    catbird_pool: Pool,
) -> None:
    async def intend(hash: str) -> object:
        return await lease_object(
            catbird_pool, hash=hash, generation=uuid4(), size=1, lease=9.0, upload_lease=9.0
        )

    for number in range(300):
        made = await asyncio.gather(*(intend(f"{number:064x}") for _ in range(8)))
        assert sum(one is not None for one in made) == 1


async def test_an_upload_does_not_wait_for_who_is_about_to_refer_to_the_same_bytes(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, catbird_store, body=BODY)
    async with transaction(catbird_pool) as tx, asyncio.timeout(8):
        await refer_blob(tx, stored=stored, uploaded_by_did=ALICE)
        assert await put_object(catbird_pool, catbird_store, body=BODY) == stored


async def test_what_is_not_what_its_hash_says_is_not_stored(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    for body in (BODY + b"x", io.BytesIO(b"other"), in_chunks(b"other", 2)):
        with pytest.raises(IntegrityError, match="sha256"):
            await put_object(catbird_pool, catbird_store, body=body, sha256=HASH)
    assert await rows(catbird_pool) == []
    assert await keys(catbird_store) == []


async def test_a_body_that_gives_no_bytes_or_fails_is_told_and_nothing_is_stored(
    catbird_pool: Pool, catbird_store: ObjectStore, tmp_path: Path
) -> None:
    async def text() -> AsyncIterator[Any]:
        yield b"some"
        yield "text"

    async def failing() -> AsyncIterator[bytes]:
        yield b"some"
        raise KeyError("the caller's own")

    (tmp_path / "text").write_text("text")
    with (tmp_path / "text").open() as file:
        for body in ("text", None, 7, [b"x"], file, bytes, io.BytesIO, AsyncFile()):
            with pytest.raises(InvalidArgumentError, match="body"):
                await put_object(catbird_pool, catbird_store, body=cast(Any, body))
    with pytest.raises(InvalidArgumentError, match="body: gives str"):
        await put_object(catbird_pool, catbird_store, body=text())
    with pytest.raises(KeyError, match="own"):
        await put_object(catbird_pool, catbird_store, body=failing())
    assert await rows(catbird_pool) == []


async def test_no_upload_and_no_collection_runs_on_a_connection(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    async with transaction(catbird_pool) as tx:
        for function, given in (
            (put_object, {"body": b""}),
            (collect_garbage, {}),
            (reconcile, {}),
        ):
            with pytest.raises(InvalidArgumentError, match="Pool"):
                await cast(Any, function)(tx, catbird_store, **given)


async def test_with_dedupe_by_tenant_equal_bytes_are_kept_once_for_each_owner(
    catbird_pool: Pool, tmp_path: Path
) -> None:
    settings = Settings(object_folder=f"{tmp_path}", object_dedupe="tenant")
    async with open_store(settings) as store:
        with pytest.raises(InvalidArgumentError, match="owner"):
            await put_object(catbird_pool, store, body=BODY)
        alices = [await put_object(catbird_pool, store, body=BODY, owner=ALICE) for _ in "12"]
        bobs = await put_object(catbird_pool, store, body=BODY, owner=BOB)
        assert alices[0] == alices[1] != bobs
        assert alices[0].sha256 == bobs.sha256 == HASH
        assert len(await keys(store)) == 2
        assert await got(catbird_pool, store, bobs.hash) == BODY
        await refer_blob(catbird_pool, stored=bobs, uploaded_by_did=BOB)
        await end_leases(catbird_pool)
        assert (await collect_garbage(catbird_pool, store)).objects == 1
        assert await got(catbird_pool, store, bobs.hash) == BODY
        assert (await reconcile(catbird_pool, store)).unknown == []


async def test_with_dedupe_by_tenant_nobody_refers_to_what_is_anothers(
    catbird_pool: Pool, tmp_path: Path
) -> None:
    user = await create_user(catbird_pool, username="ann", email="ann@example.org")
    settings = Settings(object_folder=f"{tmp_path}", object_dedupe="tenant")
    mine, path = {"user_id": user.id}, "/a.md"
    async with open_store(settings) as store:
        anns = await put_object(catbird_pool, store, body=BODY, owner=user.id)
        did = f"{user.id}"
        dids = await put_object(catbird_pool, store, body=BODY, owner=did)
        assert anns != dids
        with pytest.raises(InvalidArgumentError, match=r"stored: .*another owner"):
            await refer_blob(catbird_pool, stored=anns, uploaded_by_did=did)
        for stored in (dids, anns.model_copy(update={"hash": f"{HASH}_{'0' * 32}"})):
            with pytest.raises(InvalidArgumentError, match=r"stored: .*another owner"):
                await record_file(catbird_pool, **mine, path=path, stored=stored)
        await refer_blob(catbird_pool, stored=dids, uploaded_by_did=did)
        written = await record_file(catbird_pool, **mine, path=path, stored=anns)
        copied = await copy_file(catbird_pool, **mine, path=path, to="/b.md")
        again = await write_file(catbird_pool, store, **mine, path=path, body=BODY)
        assert {written.object_hash, copied.object_hash, again.object_hash} == {anns.hash}


# A store that fails.


@pytest.mark.parametrize("fault", ["before", "during", "after", "truncate"])
async def test_a_write_that_fails_stores_nothing_and_the_next_one_stores_all(
    catbird_pool: Pool, store: ObjectStore, fault: Fault
) -> None:
    faulty = Faulty(store, [fault])
    with pytest.raises(StorageError):
        await put_object(catbird_pool, faulty, body=BODY)
    with pytest.raises(NotFoundError):
        await got(catbird_pool, store)
    with pytest.raises(NotFoundError, match="store it again"):
        await refer_blob(
            catbird_pool, stored=StoredObject(hash=HASH, size=1), uploaded_by_did=ALICE
        )
    stored = await put_object(catbird_pool, faulty, body=BODY)
    assert await got(catbird_pool, store) == BODY
    await refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE)
    await end_leases(catbird_pool)
    assert await collect_garbage(catbird_pool, store) == CollectedGarbage(objects=0, bytes=0)
    strays = (await reconcile(catbird_pool, store, mend=True)).strays
    assert len(strays) == (fault in ("after", "truncate"))  # the bytes of the failed write
    assert await got(catbird_pool, store) == BODY


async def test_who_uploads_what_another_uploads_waits_and_takes_over_under_a_key_of_its_own(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    faulty = Faulty(catbird_store, ["hang"])
    first = asyncio.create_task(put_object(catbird_pool, faulty, body=BODY))
    await faulty.hanging.wait()
    [before] = await rows(catbird_pool)
    second = asyncio.create_task(put_object(catbird_pool, catbird_store, body=BODY))
    await asyncio.sleep(0.3)
    assert not second.done()
    assert catbird_pool.idle == catbird_pool.size
    first.cancel()
    await asyncio.wait_for(second, 5)
    [after] = await rows(catbird_pool)
    assert (before["state"], after["state"]) == ("pending", "stored")
    assert before["generation"] != after["generation"]
    assert await got(catbird_pool, catbird_store) == BODY


async def test_an_upload_that_hangs_holds_no_connection_and_its_rest_is_collected(
    catbird_settings: Settings, catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    faulty = Faulty(catbird_store, ["hang"])
    task = asyncio.create_task(put_object(catbird_pool, faulty, body=BODY))
    await faulty.hanging.wait()
    assert catbird_pool.idle == catbird_pool.size
    task.cancel()
    await asyncio.wait([task])
    assert [row["state"] for row in await rows(catbird_pool)] == ["pending"]
    assert (await collect_garbage(catbird_pool, catbird_store)).objects == 1
    assert await rows(catbird_pool) == []


async def test_a_long_upload_renews_its_lease(catbird_pool: Pool, tmp_path: Path) -> None:
    settings = Settings(object_folder=f"{tmp_path}", object_lease=0.3)

    async with open_store(settings) as store:

        async def dawdle() -> None:
            for _ in range(10):
                await asyncio.sleep(0.1)
                await collect_garbage(catbird_pool, store)

        await put_object(catbird_pool, Faulty(store, after_put=dawdle), body=BODY)
        [row] = await rows(catbird_pool)
        assert row["state"] == "stored"
        assert await got(catbird_pool, store) == BODY


async def test_an_upload_that_lost_its_object_meanwhile_starts_again(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    losses = 2

    async def lose() -> None:
        nonlocal losses
        if losses:
            losses -= 1
            await end_leases(catbird_pool)
            assert (await collect_garbage(catbird_pool, catbird_store)).objects

    faulty = Faulty(catbird_store, after_put=lose)
    await put_object(catbird_pool, faulty, body=BODY)
    assert losses == 0
    assert await got(catbird_pool, catbird_store) == BODY
    losses = 100
    with pytest.raises(StorageError, match="OBJECT_LEASE"):
        await put_object(catbird_pool, faulty, body=b"other")


async def test_bytes_that_got_lost_come_back_when_they_are_stored_again(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, store, body=BODY)
    await refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE)
    await store.delete((await keys(store))[0])
    with pytest.raises(StorageError, match="missing"):
        await got(catbird_pool, store)
    assert (await reconcile(catbird_pool, store, mend=True)).missing == [HASH]
    assert await put_object(catbird_pool, store, body=BODY) == stored
    assert await got(catbird_pool, store) == BODY
    assert (await reconcile(catbird_pool, store)).missing == []


async def test_bytes_that_rotted_are_found_by_reading_and_come_back_when_they_are_stored_again(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, store, body=BODY)
    await refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE)
    await put_object(catbird_pool, store, body=b"other bytes")
    await put_object(catbird_pool, store, body=b"")
    [key] = [one for one in await keys(store) if stored.hash in one]
    await store.put(key, io.BytesIO(BODY[::-1]), len(BODY))
    assert (await reconcile(catbird_pool, store)).damaged == []
    assert (await reconcile(catbird_pool, store, verify=True)).damaged == [HASH]
    await put_object(catbird_pool, store, body=BODY)  # nobody has noted it
    with pytest.raises(IntegrityError):
        await got(catbird_pool, store)
    assert (await reconcile(catbird_pool, store, verify=True, mend=True)).damaged == [HASH]
    assert [*await asyncio.gather(*(put_object(catbird_pool, store, body=BODY) for _ in "123"))]
    assert await got(catbird_pool, store) == BODY
    assert (await reconcile(catbird_pool, store, verify=True)).damaged == []
    assert not any(row["is_damaged"] for row in await rows(catbird_pool))
    faulty = Faulty(store, ["before"])
    assert await put_object(catbird_pool, faulty, body=BODY) == stored  # written no more


async def test_bytes_that_were_read_wrong_once_are_not_damaged(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    class Flipping(Faulty):
        def get(self, key: str, /, **rest: Any) -> Any:
            if self.faults and key != OWNER_KEY:
                self.faults.pop()
                rest["length"] -= 1
            return self.real.get(key, **rest)

    await put_object(catbird_pool, catbird_store, body=BODY)
    flipping = Flipping(catbird_store, ["during"])
    assert (await reconcile(catbird_pool, flipping, verify=True)).damaged == []
    assert flipping.faults == []


async def test_who_gives_an_upload_up_and_tries_again_need_not_wait(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    """Cancelled anywhere: also while PostgreSQL has committed the lease, and not answered yet."""
    await put_object(catbird_pool, catbird_store, body=BODY)
    chance = random.Random(0)

    async def give_up_and_try_again(number: int) -> None:
        body = b"%d" % number
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.05):
                await put_object(catbird_pool, catbird_store, body=body)
        async with asyncio.timeout(objects.UPLOAD_LEASE * 2 / 3):
            await put_object(catbird_pool, catbird_store, body=body)

    for number in range(0, 60, 20):
        await asyncio.gather(*(give_up_and_try_again(one) for one in range(number, number + 20)))


# Reading.


async def test_bytes_that_changed_are_told_before_the_last_of_them_is_given(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    body = os.urandom(9 * 2**20)
    stored = await put_object(catbird_pool, store, body=body)
    for other in (bytes([body[0] ^ 1]) + body[1:], body[:-1] + b"?", b"", body[:-1]):
        await damage(store, other)
        given = list[bytes]()
        with pytest.raises(IntegrityError):
            await read_into(given, open_object(catbird_pool, store, hash=stored.hash))
        assert sum(map(len, given)) < len(body)
    with pytest.raises(IntegrityError, match="too early"):
        await got(catbird_pool, store, stored.hash, start=10)
    assert (await reconcile(catbird_pool, store)).damaged == [stored.hash]


async def test_what_is_not_stored_is_not_found_and_a_start_beyond_the_end_is_refused(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    with pytest.raises(NotFoundError):
        await got(catbird_pool, catbird_store)
    await put_object(catbird_pool, catbird_store, body=BODY)
    with pytest.raises(InvalidArgumentError, match="start"):
        await got(catbird_pool, catbird_store, start=len(BODY) + 1)
    for bad in ({"start": -1}, {"length": -1}, {"start": "0"}):
        with pytest.raises(InvalidArgumentError):
            await got(catbird_pool, catbird_store, **bad)
    for hash in ("", HASH.upper(), HASH[1:], HASH + "_", f"../{HASH[3:]}"):
        with pytest.raises(InvalidArgumentError, match="hash"):
            await got(catbird_pool, catbird_store, hash)


async def test_a_reader_follows_bytes_that_were_collected_and_stored_anew(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    class Replaced(Faulty):
        def get(self, key: str, /, **rest: Any) -> Any:
            async def chunks() -> AsyncIterator[bytes]:
                if self.faults:
                    self.faults.pop()
                    await end_leases(catbird_pool)
                    await collect_garbage(catbird_pool, self.real)
                    await put_object(catbird_pool, self.real, body=BODY)
                async for chunk in self.real.get(key, **rest):
                    yield chunk

            return chunks()

    await put_object(catbird_pool, catbird_store, body=BODY)
    assert await got(catbird_pool, Replaced(catbird_store, ["before"])) == BODY


# References and collection.


async def test_references_are_counted_and_hold_an_object_as_long_as_one_is_left(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, store, body=BODY)
    for did in (ALICE, BOB):
        blob = await refer_blob(catbird_pool, stored=stored, uploaded_by_did=did)
    await end_leases(catbird_pool)
    for did, left in ((ALICE, 1), (BOB, 0)):
        assert (await collect_garbage(catbird_pool, store)).objects == 0
        assert await delete_blob(catbird_pool, cid=blob.cid, uploaded_by_did=did)
        assert await object_reference_count(catbird_pool, hash=HASH) == left
    collected = await collect_garbage(catbird_pool, store)
    assert collected == CollectedGarbage(objects=1, bytes=len(BODY))
    assert await rows(catbird_pool) == []
    assert await keys(store) == []
    with pytest.raises(NotFoundError, match="store it again"):
        await refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE)


async def test_what_is_referred_to_just_now_is_left_by_the_collector_who_does_not_wait(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, catbird_store, body=BODY)
    await end_leases(catbird_pool)
    async with transaction(catbird_pool) as tx, asyncio.timeout(8):
        await refer_blob(tx, stored=stored, uploaded_by_did=ALICE)
        assert (await collect_garbage(catbird_pool, catbird_store)).objects == 0
    assert (await collect_garbage(catbird_pool, catbird_store)).objects == 0
    assert await got(catbird_pool, catbird_store) == BODY


async def test_a_reference_waits_for_the_collector_and_is_refused(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, catbird_store, body=BODY)
    await end_leases(catbird_pool)
    async with transaction(catbird_pool) as tx:
        assert await lock_objects(tx, hashes=[HASH])
        late = asyncio.create_task(refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE))
        await asyncio.sleep(0.2)
        assert not late.done()
        assert await mark_deleting(tx, hashes=[HASH], lease=9.0)
    with pytest.raises(NotFoundError):
        await late


async def test_a_reference_that_came_before_the_lock_is_seen_by_the_second_look(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, catbird_store, body=BODY)
    await end_leases(catbird_pool)
    async with transaction(catbird_pool) as tx:
        await refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE)
        locked = await lock_objects(tx, hashes=[HASH])
        assert [one.hash for one in locked] == [HASH]
        assert await mark_deleting(tx, hashes=[HASH], lease=9.0) == []


async def test_a_delete_that_comes_late_meets_nothing(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    """The collector stalls between its mark and its delete; the bytes are stored anew meanwhile."""
    go_on, stalled = asyncio.Event(), asyncio.Event()

    async def stall() -> None:
        stalled.set()
        await go_on.wait()

    await put_object(catbird_pool, store, body=BODY)
    await end_leases(catbird_pool)
    late = asyncio.create_task(collect_garbage(catbird_pool, Faulty(store, before_delete=stall)))
    await stalled.wait()
    stored = await put_object(catbird_pool, store, body=BODY)  # does not wait for the collector
    await refer_blob(catbird_pool, stored=stored, uploaded_by_did=ALICE)
    go_on.set()
    await late
    assert await got(catbird_pool, store) == BODY
    assert len(await keys(store)) == 1


async def test_a_collector_that_died_is_followed_by_another(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    async def die() -> None:
        raise StorageError("the store is away")

    bodies = [b"1", b"2", b"3"]
    for body in bodies:
        await put_object(catbird_pool, catbird_store, body=body)
    await end_leases(catbird_pool)
    with pytest.raises(StorageError, match="away"):
        await collect_garbage(catbird_pool, Faulty(catbird_store, before_delete=die))
    assert {row["state"] for row in await rows(catbird_pool)} == {"deleting"}
    assert (await collect_garbage(catbird_pool, catbird_store)).objects == 0  # it may yet live
    await end_leases(catbird_pool)
    assert (await collect_garbage(catbird_pool, catbird_store, limit=2)).objects == 2
    assert (await collect_garbage(catbird_pool, catbird_store, limit=2)).objects == 1
    assert await keys(catbird_store) == []


async def test_what_cannot_be_deleted_holds_up_no_other_and_is_told_at_the_end(
    catbird_pool: Pool, catbird_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 2)
    for number in range(7):
        await put_object(catbird_pool, catbird_store, body=b"%d" % number)
    first = (await rows(catbird_pool))[0]["hash"]
    for _ in "12":
        await end_leases(catbird_pool)
        with pytest.raises(StorageError, match="not this one"):
            await collect_garbage(catbird_pool, Undeleting(catbird_store, first))
        assert [row["hash"] for row in await rows(catbird_pool)] == [first]
    await end_leases(catbird_pool)
    assert (await collect_garbage(catbird_pool, catbird_store)).objects == 1
    assert await rows(catbird_pool) == []


async def test_many_collectors_collect_each_object_once(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    for number in range(100):
        await put_object(catbird_pool, catbird_store, body=b"%d" % number)
    await end_leases(catbird_pool)
    found = await asyncio.gather(*(collect_garbage(catbird_pool, catbird_store) for _ in range(5)))
    assert sum(one.objects for one in found) == 100
    assert await rows(catbird_pool) == []


async def test_a_mapping_is_no_stored_object_where_its_keys_are_no_names(
    catbird_pool: Pool,
) -> None:
    with pytest.raises(InvalidArgumentError, match="names"):
        await record_file(catbird_pool, user_id=1, path="/x", stored=cast(Any, {1: 2}))


# Reconciliation.


async def test_bytes_without_a_row_are_found_and_removed_and_nothing_else_is(
    catbird_pool: Pool, store: ObjectStore
) -> None:
    stored = await put_object(catbird_pool, store, body=BODY)
    [key] = await keys(store)
    old = key[:-12] + "0" * 12  # of a generation that is over
    other = f".hash/{'0' * 64}/{key.rpartition('/')[2]}"
    left = f"{key}.0123456789abcdef"  # of a write that was killed
    strange = ".hash/readme/first"
    for name in (old, other, left, strange):
        await store.put(name, io.BytesIO(b"bytes"), 5)
    found = await reconcile(catbird_pool, store)
    assert {*found.strays} == {old, other}
    assert (found.unknown, found.missing, found.damaged, found.removed) == ([strange], [], [], 0)
    await end_leases(catbird_pool)
    found = await reconcile(catbird_pool, store, mend=True)
    assert {*found.strays} == {old, other, left}
    assert (found.removed, found.undeleted) == (3, [])
    assert {*await keys(store)} == {key, strange}
    assert await got(catbird_pool, store, stored.hash) == BODY
    await store.delete(strange)


KILLED = """
import asyncio, os, sys
from minio import Minio
from catbird_db import Settings, open_pool, open_store, put_object

upload_part, parts = Minio._upload_part, [1, 2]

def part_or_death(*arguments, **rest):
    if not parts:
        os.kill(os.getpid(), 9)
    parts.pop()
    return upload_part(*arguments, **rest)

async def main():
    Minio._upload_part = part_or_death
    async with open_pool(Settings()) as pool, open_store() as store:
        await put_object(pool, store, body=os.urandom(20 * 2**20))

asyncio.run(main())
"""


async def test_the_parts_of_an_upload_that_was_killed_are_found_and_removed(
    catbird_pool: Pool, catbird_database_url: str, s3_server: Seaweed
) -> None:
    settings = s3_server.settings()
    environment = {
        **os.environ,
        "DATABASE_URL": catbird_database_url,
        **{
            name.upper(): f"{value}"
            for name, value in settings.model_dump().items()
            if "s3" in name
        },
        "OBJECT_STORE": "s3",
    }
    async with open_store(settings) as store:
        for entry in [entry async for entry in store.list()]:
            await store.delete(entry.key)
        run = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", KILLED], env=environment, check=False
        )
        assert run.returncode == -9
        [row] = await rows(catbird_pool, "SELECT * FROM objects")
        [left] = await keys(store)
        assert left.startswith(f".hash/{row['hash']}/{row['generation']}.")
        assert (await reconcile(catbird_pool, store, mend=True)).strays == []  # it may go on
        await end_leases(catbird_pool)
        await collect_garbage(catbird_pool, store)
        found = await reconcile(catbird_pool, store, mend=True)
        assert (found.strays, found.removed, found.unknown) == ([left], 1, [])
        assert await keys(store) == []


async def test_reconciliation_stops_at_its_limit_and_says_so(
    catbird_pool: Pool, catbird_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 2)
    for number in range(7):
        await put_object(catbird_pool, catbird_store, body=b"%d" % number)
    assert (await reconcile(catbird_pool, catbird_store)).is_whole
    await rows(catbird_pool, "DELETE FROM objects")
    found = await reconcile(catbird_pool, catbird_store, limit=3)
    assert len(found.strays) in (3, 4)  # with the rest of the batch that it was looking at
    assert (found.removed, found.is_whole) == (0, False)
    found = await reconcile(catbird_pool, catbird_store, limit=3, mend=True)
    assert (found.removed in (3, 4), found.is_whole) == (True, False)
    left = await reconcile(catbird_pool, catbird_store, mend=True)
    assert (left.removed, left.is_whole) == (7 - found.removed, True)
    assert await keys(catbird_store) == []


async def test_what_is_foreign_or_cannot_be_deleted_hides_no_stray_and_no_loss(
    catbird_pool: Pool, catbird_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 2)
    for number in range(5):
        await put_object(catbird_pool, catbird_store, body=b"%d" % number)
    [lost, *_] = await keys(catbird_store)
    await catbird_store.delete(lost)
    stray = f".hash/{'0' * 64}/{lost.rpartition('/')[2]}"
    fast = f".hash/{'1' * 64}/{lost.rpartition('/')[2]}"
    foreign = [f".hash/{number}" for number in range(4)]
    for key in (*foreign, stray, fast):
        await catbird_store.put(key, io.BytesIO(b"bytes"), 5)
    kept = Undeleting(catbird_store, fast)
    found = await reconcile(catbird_pool, kept, mend=True, limit=2)
    assert ({*found.strays}, found.undeleted, found.removed) == ({stray, fast}, [fast], 1)
    assert found.missing == [lost.split("/")[1]]
    assert len(found.unknown) == 2
    assert {*foreign} < {*await keys(catbird_store)}


@pytest.mark.parametrize("first", ["put_object", "reconcile"])
async def test_a_store_belongs_to_the_database_that_used_it_first(
    catbird_pool: Pool, store: ObjectStore, store_settings: Settings, first: str
) -> None:
    half = f"{OWNER_KEY}.0123456789abcdef"  # as a folder writes it
    await store.put(half, io.BytesIO(b"half"), 4)
    if first == "reconcile":
        assert (await reconcile(catbird_pool, store)).unknown == []
    await store.delete(half)
    await put_object(catbird_pool, store, body=BODY)
    before = await rows(catbird_pool, "SELECT * FROM object_stores")
    await rows(catbird_pool, "UPDATE object_stores SET database_id = gen_random_uuid()")
    await rows(catbird_pool, "DELETE FROM objects")  # as seen from a database of its own
    for mend in (False, True):
        with pytest.raises(StorageError, match=f"another database.* delete {OWNER_KEY}"):
            await reconcile(catbird_pool, store, mend=mend)
    assert len(await keys(store)) == 1
    async with open_store(store_settings) as again:
        await put_object(catbird_pool, again, body=b"which harms nobody")
    await rows(catbird_pool, f"UPDATE object_stores SET database_id = '{before[0]['database_id']}'")
    assert len((await reconcile(catbird_pool, store)).strays) == 1
    await store.delete(OWNER_KEY)
    await rows(catbird_pool, "DELETE FROM object_stores")
    assert (await reconcile(catbird_pool, store, mend=True)).removed == 1
    assert (await reconcile(catbird_pool, store)).unknown == []


# A disk that is full, memory, and a server that goes away.

FULL = """
import asyncio, resource
from catbird_db import StorageError
from catbird_db.storage.store import spooled

MIB = 2**20

async def body(size):
    for start in range(0, size, MIB):
        yield bytes(min(MIB, size - start))

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, 3 * MIB))
    for size in (3 * MIB + 1, 4 * MIB, 5 * MIB):
        try:
            async with spooled(body(size)):
                print("spooled")
        except StorageError as error:
            print(error)

asyncio.run(main())
"""


def test_a_disk_that_is_full_for_the_last_byte_too_is_a_storage_error() -> None:
    run = subprocess.run([sys.executable, "-c", FULL], capture_output=True, check=False, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "the body cannot be spooled: File too large\n" * 3
    assert run.stderr == ""


LARGE = """
import asyncio
from contextlib import suppress
from pathlib import Path
from catbird_db import Settings, open_object, open_pool, open_store, put_object

MIB = 2**20

async def body():
    chunk = bytearray(MIB)
    for number in range(1024):
        chunk[:4] = number.to_bytes(4, "big")
        yield bytes(chunk)

def peak():  # getrusage would tell of the parent too
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

async def main():
    settings = Settings()
    async with open_pool(settings) as pool, open_store(settings) as store:
        small = await put_object(pool, store, body=b"x" * MIB)
        async for _ in open_object(pool, store, hash=small.hash):
            pass
        before = peak()
        stored = await put_object(pool, store, body=body())
        after_put = peak() - before
        size = 0
        async for chunk in open_object(pool, store, hash=stored.hash):
            size += len(chunk)
        assert size == stored.size == 1024 * MIB
        print(after_put / MIB, (peak() - before) / MIB)

asyncio.run(main())
"""


def test_a_body_of_1_gib_goes_in_and_out_in_less_than_32_mib_of_memory(
    catbird_database_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    environment = {
        name.upper(): f"{value}"
        for name, value in store_settings.model_dump().items()
        if name.startswith(("object_", "s3_")) and value is not None
    }
    environment |= {"DATABASE_URL": catbird_database_url, "TMPDIR": f"{tmp_path / 'spool'}"}
    run = subprocess.run(
        [sys.executable, "-c", LARGE],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    after_put, after_get = map(float, run.stdout.split())
    print(after_put, after_get)
    assert after_put <= after_get < 32
    assert [*(tmp_path / "spool").iterdir()] == []


async def test_an_s3_server_that_goes_away_mid_upload_and_comes_back(catbird_pool: Pool) -> None:
    with seaweed() as server:
        settings = server.settings(object_timeout=5.0)
        async with open_store(settings) as store:
            before = await put_object(catbird_pool, store, body=BODY)
            await interrupted(catbird_pool, store, server)
            with pytest.raises(StorageError):
                await got(catbird_pool, store)
            with pytest.raises(StorageError):
                await put_object(catbird_pool, store, body=b"while it is away")
            assert [row["state"] for row in await rows(catbird_pool)].count("stored") == 1
            await asyncio.to_thread(server.come_back)
            assert await eventually_got(catbird_pool, store) == BODY
            large = os.urandom(64 * 2**20)
            stored = await put_object(catbird_pool, store, body=large)
            assert await got(catbird_pool, store, stored.hash) == large
            assert await put_object(catbird_pool, store, body=BODY) == before
            await end_leases(catbird_pool)
            await collect_garbage(catbird_pool, store)
            await reconcile(catbird_pool, store, mend=True)
            assert await keys(store) == []


async def interrupted(pool: Pool, store: ObjectStore, server: Seaweed) -> None:
    """Kill the server when some parts of an upload have arrived and others have not."""
    upload = asyncio.create_task(put_object(pool, store, body=os.urandom(256 * 2**20)))
    while len(await rows(pool)) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert not upload.done()
    await asyncio.to_thread(server.go_away)
    with pytest.raises(StorageError):
        await upload


async def eventually_got(pool: Pool, store: ObjectStore) -> bytes:
    """It answers before it can read."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await got(pool, store)
        except StorageError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
