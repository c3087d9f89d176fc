"""Documents: one for each content, guarded statuses, retries that fire, and what a sync no longer meets."""

import asyncio
import random
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from corpus.shelf import collection, document, pieces, sha256, shelf, user
from scale import scaled

from catbird_db import (
    DOCUMENT_TRANSITIONS,
    Collection,
    ConflictError,
    CreatedDocument,
    InvalidArgumentError,
    NewDocument,
    NotFoundError,
    ObjectStore,
    Pool,
    Settings,
    StoredObject,
    collection_statistics,
    count_chunks,
    create_documents,
    delete_document,
    find_document_by_hash,
    find_document_by_path,
    find_document_by_uri,
    get_document,
    get_original,
    grant_collection_permission,
    list_documents,
    mark_unseen_stale,
    object_reference_count,
    open_store,
    put_object,
    replace_chunks,
    retry_failed_documents,
    set_document_status,
    update_collection,
)
from catbird_db.types import DocumentStatus

STATUSES = get_args(DocumentStatus)


def whose(one: Collection) -> dict[str, Any]:
    return {"collection_id": one.id, "user_id": one.owner_id}


def new(content: str) -> NewDocument:
    return NewDocument(file_name=content, file_size=1, content_hash=sha256(content))


async def sql(pool: Pool, statement: str, *arguments: object) -> Any:
    async with pool.connection() as connection:
        return await connection.fetchval(statement, *arguments)


async def test_a_content_is_there_once_in_a_collection_and_says_whether_it_is_new(
    catbird_pool: Pool,
) -> None:
    one, other = await collection(catbird_pool), await collection(catbird_pool)
    first = await document(catbird_pool, one, "a", uri="u1")
    again = await document(catbird_pool, one, "a", uri="u2")
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.id, again.uri) == (first.id, "u1")
    assert (await document(catbird_pool, other, "a")).is_new


async def test_of_many_who_create_one_content_one_is_new_and_all_get_the_same(
    pools: list[Pool],
) -> None:
    one = await collection(pools[0])
    for turn in range(scaled(10, 200)):
        made = await asyncio.gather(
            *(document(pools[number % 3], one, f"content {turn}") for number in range(24))
        )
        assert sum(each.is_new for each in made) == 1
        assert len({each.id for each in made}) == 1


async def test_batches_that_overlap_neither_deadlock_nor_store_twice(pools: list[Pool]) -> None:
    one = await collection(pools[0])
    contents = [f"content {number}" for number in range(60)]

    async def batch(number: int) -> list[CreatedDocument]:
        chosen = random.sample(contents, 40)
        made = await create_documents(
            pools[number % 3], **whose(one), documents=[new(content) for content in chosen]
        )
        assert [each.content_hash for each in made] == [sha256(content) for content in chosen]
        return made

    made = await asyncio.gather(*(batch(number) for number in range(scaled(30, 300))))
    fresh = Counter(each.content_hash for some in made for each in some if each.is_new)
    ids = {each.content_hash: each.id for some in made for each in some}
    assert set(fresh.values()) == {1}
    assert len(fresh) == len(ids) == await sql(pools[0], "SELECT count(*) FROM documents")


async def test_a_batch_answers_in_its_order_and_repeats_are_not_new(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    await document(catbird_pool, one, "old")
    made = await create_documents(
        catbird_pool, **whose(one), documents=[new(c) for c in ("b", "old", "a", "b")]
    )
    assert [each.is_new for each in made] == [True, False, True, False]
    assert made[0].id == made[3].id


async def test_a_batch_is_all_or_none(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    nowhere = StoredObject(hash="0" * 64, size=1)
    gone = NewDocument(file_name="x", file_size=1, content_hash=sha256("x"), stored=nowhere)
    with pytest.raises(NotFoundError, match="object"):
        await create_documents(catbird_pool, **whose(one), documents=[new("a"), gone])
    assert await sql(catbird_pool, "SELECT count(*) FROM documents") == 0


async def test_a_document_is_found_by_hash_and_the_newest_by_uri_and_path(
    catbird_pool: Pool,
) -> None:
    one = await collection(catbird_pool)
    await document(catbird_pool, one, "v1", uri="u", file_path="/p")
    newest = await document(catbird_pool, one, "v2", uri="u", file_path="/p")
    by_hash = await find_document_by_hash(catbird_pool, **whose(one), content_hash=sha256("v2"))
    assert by_hash is not None
    assert by_hash.id == newest.id
    assert await find_document_by_uri(catbird_pool, **whose(one), uri="u") == by_hash
    assert await find_document_by_path(catbird_pool, **whose(one), file_path="/p") == by_hash
    assert await find_document_by_uri(catbird_pool, **whose(one), uri="other") is None
    assert await find_document_by_path(catbird_pool, **whose(one), file_path="/") is None
    assert (
        await find_document_by_hash(catbird_pool, **whose(one), content_hash=sha256("v3")) is None
    )


async def test_lists_page_newest_first_of_all_or_of_one_status(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    ids = [(await document(catbird_pool, one)).id for _ in range(7)]
    for id in ids[::2]:
        await set_document_status(catbird_pool, **whose(one), document_id=id, status="processing")
    for status, expected in ((None, ids), ("processing", ids[::2]), ("pending", ids[1::2])):
        found: list[UUID] = []
        cursor = None
        while True:
            page = await list_documents(
                catbird_pool, **whose(one), status=status, limit=2, cursor=cursor
            )
            found += [each.id for each in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert found == expected[::-1]
    assert (await list_documents(catbird_pool, **whose(one), status="failed")).items == []


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
async def test_a_status_becomes_what_the_table_allows_and_nothing_else(
    before: DocumentStatus, after: DocumentStatus, catbird_pool: Pool
) -> None:
    one = await collection(catbird_pool)
    made = await document(catbird_pool, one)
    ids = {**whose(one), "document_id": made.id}
    await sql(catbird_pool, "UPDATE documents SET status = $1", before)
    error = "broken" if after == "failed" else None
    if after in DOCUMENT_TRANSITIONS[before]:
        changed = await set_document_status(catbird_pool, **ids, status=after, error=error)
        assert (changed.status, changed.error) == (after, error)
    else:
        with pytest.raises(ConflictError, match=f"it is {before}, which does not become {after}"):
            await set_document_status(catbird_pool, **ids, status=after, error=error)
        assert (await get_document(catbird_pool, **ids)).status == before


async def test_of_many_who_move_a_status_one_does(pools: list[Pool]) -> None:
    one = await collection(pools[0])
    made = await document(pools[0], one)
    moved = await asyncio.gather(
        *(
            set_document_status(
                pools[number % 3], **whose(one), document_id=made.id, status="processing"
            )
            for number in range(24)
        ),
        return_exceptions=True,
    )
    assert Counter(isinstance(each, ConflictError) for each in moved) == {False: 1, True: 23}


async def test_an_error_goes_with_failed_alone_and_is_gone_with_it(catbird_pool: Pool) -> None:
    on = await shelf(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id, "document_id": on.failed_id}
    assert (await get_document(catbird_pool, **ids)).error == "no text in it"
    with pytest.raises(InvalidArgumentError, match="error"):
        await set_document_status(catbird_pool, **ids, status="processing", error="no")
    changed = await set_document_status(catbird_pool, **ids, status="processing")
    assert changed.error is None


async def test_a_retry_fires_as_often_as_it_may(catbird_pool: Pool) -> None:
    on = await shelf(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id}
    for turn in range(1, 4):
        assert await retry_failed_documents(catbird_pool, **ids, max_retries=3) == 1
        found = await get_document(catbird_pool, **ids, document_id=on.failed_id)
        assert (found.status, found.error, found.retry_count) == ("pending", None, turn)
        await set_document_status(
            catbird_pool, **ids, document_id=on.failed_id, status="failed", error="again"
        )
    assert await retry_failed_documents(catbird_pool, **ids, max_retries=3) == 0
    assert await retry_failed_documents(catbird_pool, **ids, max_retries=4) == 1


async def test_what_is_completed_may_be_retried_as_often_as_before(catbird_pool: Pool) -> None:
    on = await shelf(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id}
    assert await retry_failed_documents(catbird_pool, **ids, max_retries=1) == 1
    one = {**ids, "document_id": on.failed_id}
    working = await set_document_status(catbird_pool, **one, status="processing")
    done = await set_document_status(catbird_pool, **one, status="completed")
    assert (working.retry_count, done.retry_count) == (1, 0)
    await set_document_status(catbird_pool, **one, status="processing")
    await set_document_status(catbird_pool, **one, status="failed", error="again")
    assert await retry_failed_documents(catbird_pool, **ids, max_retries=1) == 1


async def test_many_who_retry_at_once_count_each_document_once(pools: list[Pool]) -> None:
    one = await collection(pools[0])
    made = await create_documents(
        pools[0], **whose(one), documents=[new(f"{number}") for number in range(200)]
    )
    await sql(pools[0], "UPDATE documents SET status = 'failed'")
    reset = await asyncio.gather(
        *(retry_failed_documents(pools[number % 3], **whose(one), limit=15) for number in range(24))
    )
    reset.append(await retry_failed_documents(pools[0], **whose(one)))
    assert sum(reset) == len(made)
    assert await sql(pools[0], "SELECT max(retry_count) FROM documents") == 1


async def test_what_a_sync_meets_no_more_is_stale_until_it_is_met_again(
    catbird_pool: Pool,
) -> None:
    one = await collection(catbird_pool)
    kept = await document(catbird_pool, one, "kept", source_path="/a")
    gone = await document(catbird_pool, one, "gone", source_path="/a")
    await document(catbird_pool, one, "elsewhere", source_path="/b")
    began = await sql(catbird_pool, "SELECT clock_timestamp()")
    await document(catbird_pool, one, "kept", source_path="/a")
    mark = {**whose(one), "seen_before": began, "source_path": "/a"}
    assert await mark_unseen_stale(catbird_pool, **mark) == 1
    assert await mark_unseen_stale(catbird_pool, **mark) == 0
    ids = whose(one)
    assert (await get_document(catbird_pool, **ids, document_id=kept.id)).stale_at is None
    assert (await get_document(catbird_pool, **ids, document_id=gone.id)).stale_at is not None
    again = await document(catbird_pool, one, "gone")
    assert (again.is_new, again.stale_at) == (False, None)
    everything = {**ids, "seen_before": await sql(catbird_pool, "SELECT clock_timestamp()")}
    counts = [await mark_unseen_stale(catbird_pool, **everything, limit=2) for _ in range(3)]
    assert counts == [2, 1, 0]


async def test_what_is_met_while_it_is_marked_is_not_stale(pools: list[Pool]) -> None:
    """Whichever comes first: who was met after the sync began ends fresh."""
    one = await collection(pools[0])
    for turn in range(scaled(30, 500)):
        await document(pools[0], one, f"{turn}")
        began = await sql(pools[0], "SELECT clock_timestamp()")
        await asyncio.gather(
            document(pools[1], one, f"{turn}"),
            mark_unseen_stale(pools[2], **whose(one), seen_before=began),
        )
        assert await sql(
            pools[0], "SELECT stale_at IS NULL FROM documents WHERE file_name = $1", f"{turn}"
        )


async def test_statistics_are_what_is_there(catbird_pool: Pool) -> None:
    on = await shelf(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id}
    found = await collection_statistics(catbird_pool, **ids)
    assert (found.document_count, found.pending_count, found.failed_count) == (2, 1, 1)
    assert (found.completed_count, found.processing_count, found.stale_count) == (0, 0, 0)
    assert found.chunk_count == await count_chunks(catbird_pool, **ids) == 2
    assert found.total_size == await sql(
        catbird_pool, "SELECT sum(file_size)::bigint FROM documents"
    )
    empty = await collection(catbird_pool)
    nothing = await collection_statistics(catbird_pool, **whose(empty))
    assert (nothing.document_count, nothing.chunk_count, nothing.total_size) == (0, 0, 0)
    assert nothing.last_document_at is None


async def test_a_document_goes_with_its_chunks(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    keep, gone = await document(catbird_pool, one), await document(catbird_pool, one)
    for made in (keep, gone):
        await replace_chunks(
            catbird_pool, **whose(one), document_id=made.id, chunks=pieces("a", "b")
        )
    await delete_document(catbird_pool, **whose(one), document_id=gone.id)
    assert await count_chunks(catbird_pool, **whose(one)) == 2
    with pytest.raises(NotFoundError):
        await delete_document(catbird_pool, **whose(one), document_id=gone.id)


async def test_an_original_is_kept_as_long_as_a_document_refers_to_it(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    one = await collection(catbird_pool)
    stored = await put_object(catbird_pool, catbird_store, body=b"the original")
    made = await document(catbird_pool, one, "a", stored=stored)
    assert made.has_original
    assert await object_reference_count(catbird_pool, hash=stored.hash) == 1
    await delete_document(catbird_pool, **whose(one), document_id=made.id)
    assert await object_reference_count(catbird_pool, hash=stored.hash) == 0


async def test_an_original_can_be_given_later_and_is_not_replaced(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    one = await collection(catbird_pool)
    first, second = [
        await put_object(catbird_pool, catbird_store, body=body) for body in (b"first", b"second")
    ]
    for content in ("a", "b"):
        assert not (await document(catbird_pool, one, content)).has_original
    later = await document(catbird_pool, one, "a", stored=first)
    (batch,) = await create_documents(
        catbird_pool, **whose(one), documents=[new("b").model_copy(update={"stored": first})]
    )
    for content, made in (("a", later), ("b", batch)):
        assert (made.is_new, made.has_original) == (False, True)
        again = await document(catbird_pool, one, content, stored=second)
        assert again.id == made.id
        assert (await document(catbird_pool, one, content)).has_original
    assert await object_reference_count(catbird_pool, hash=first.hash) == 2
    assert await object_reference_count(catbird_pool, hash=second.hash) == 0


async def test_with_dedupe_by_tenant_nobodys_document_gets_the_original_of_another(
    catbird_pool: Pool, tmp_path: Path
) -> None:
    one, other = await collection(catbird_pool), await collection(catbird_pool)
    async with open_store(
        Settings(object_folder=f"{tmp_path}", object_dedupe="tenant")
    ) as by_tenant:
        stored = await put_object(catbird_pool, by_tenant, body=b"the original", owner=one.owner_id)
    stolen = new("b").model_copy(update={"stored": stored})
    for theft in (
        document(catbird_pool, other, "a", stored=stored),
        create_documents(catbird_pool, **whose(other), documents=[new("c"), stolen]),
    ):
        with pytest.raises(InvalidArgumentError, match=r"stored: .*another owner"):
            await theft
    assert (await collection_statistics(catbird_pool, **whose(other))).document_count == 0
    assert (await document(catbird_pool, one, "a", stored=stored)).has_original
    (own,) = await create_documents(catbird_pool, **whose(one), documents=[stolen])
    assert own.has_original


async def original(pool: Pool, store: ObjectStore, **which: Any) -> bytes:
    return b"".join([chunk async for chunk in get_original(pool, store, **which)])


async def test_an_original_is_read_by_readers_and_by_nobody_else(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    one = await collection(catbird_pool)
    stored = await put_object(catbird_pool, catbird_store, body=b"the original")
    made = await document(catbird_pool, one, "a", stored=stored)
    bare = await document(catbird_pool, one, "b")
    this = {"collection_id": one.id, "document_id": made.id}
    reader, stranger = await user(catbird_pool), await user(catbird_pool)
    await grant_collection_permission(
        catbird_pool, **whose(one), grantee_id=reader, permission="READ"
    )
    for somebody in (one.owner_id, reader):
        assert (
            await original(catbird_pool, catbird_store, **this, user_id=somebody) == b"the original"
        )
    with pytest.raises(NotFoundError):
        await original(catbird_pool, catbird_store, **this, user_id=stranger)
    with pytest.raises(NotFoundError):
        await original(catbird_pool, catbird_store, **whose(one), document_id=bare.id)
    await update_collection(catbird_pool, **whose(one), is_public=True)
    assert await original(
        catbird_pool, catbird_store, **this, user_id=stranger, start=4, length=8
    ) == (b"original")


async def test_no_document_tells_which_object_it_refers_to(
    catbird_pool: Pool, catbird_store: ObjectStore
) -> None:
    one = await collection(catbird_pool, is_public=True)
    stored = await put_object(catbird_pool, catbird_store, body=b"the original")
    made = await document(catbird_pool, one, "a", stored=stored)
    for shown in (
        made,
        await get_document(catbird_pool, **whose(one), document_id=made.id),
        await find_document_by_hash(catbird_pool, **whose(one), content_hash=sha256("a")),
        *(await list_documents(catbird_pool, **whose(one))).items,
    ):
        assert shown is not None
        assert shown.has_original
        assert stored.hash not in str(shown.model_dump())
