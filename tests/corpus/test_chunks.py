"""Chunks: replaced as a whole, embedded by the version that was read, searched within one collection."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest
from corpus.shelf import collection, document, pieces, shelf
from scale import scaled

from catbird_db import (
    Chunk,
    ChunkEmbedding,
    Collection,
    InvalidArgumentError,
    NewChunk,
    NotFoundError,
    Page,
    Pool,
    collection_statistics,
    count_chunks,
    delete_chunks,
    delete_document,
    get_chunk,
    get_chunks_by_document,
    get_document,
    list_chunks,
    list_chunks_without_embedding,
    replace_chunks,
    search_chunks,
    set_embeddings,
    transaction,
)


def whose(one: Collection) -> dict[str, Any]:
    return {"collection_id": one.id, "user_id": one.owner_id}


async def all_pages(function: Any, pool: Pool, **arguments: Any) -> AsyncGenerator[Page[Chunk]]:
    cursor = None
    while True:
        page = await function(pool, **arguments, cursor=cursor)
        yield page
        if (cursor := page.next_cursor) is None:
            return


def set_of(name: str, count: int) -> list[NewChunk]:
    return pieces(*(f"{name} {number}" for number in range(count)))


async def test_what_is_stored_is_what_comes_back(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    made = await document(catbird_pool, one)
    given = [
        NewChunk(content="", token_count=0),
        NewChunk(
            content="é\n\t'\\ {}\x01",
            token_count=2**40,
            start_offset=0,
            end_offset=2**40,
            embedding_id="v1",
            metadata={"page": 3, "path": ["a", None, 1.5, "{}"], "": {}},
        ),
        NewChunk(content="x" * 100_000, token_count=1, start_offset=7, end_offset=7),
    ]
    ids = {**whose(one), "document_id": made.id}
    assert await replace_chunks(catbird_pool, **ids, chunks=given) == 1
    found = await get_chunks_by_document(catbird_pool, **ids)
    assert [one.chunk_index for one in found] == [0, 1, 2]
    for chunk, new in zip(found, given, strict=True):
        assert chunk.model_dump(include=set(NewChunk.model_fields)) == new.model_dump()
        assert await get_chunk(catbird_pool, **ids, chunk_index=chunk.chunk_index) == chunk


async def test_the_largest_chunk_of_distinct_words_can_be_indexed(catbird_pool: Pool) -> None:
    """PostgreSQL refuses what has more than 1 MiB of words: 100,000 characters never have."""
    one = await collection(catbird_pool)
    made = await document(catbird_pool, one)
    words = (chr(0x4E00 + number % 20_000) + chr(0x20000 + number) for number in range(40_000))
    for content in (" ".join(words)[:100_000], "\U00020000" * 100_000, "a b " * 25_000):
        await replace_chunks(
            catbird_pool,
            **whose(one),
            document_id=made.id,
            chunks=[NewChunk(content=content, token_count=1)],
        )


async def test_readers_see_the_old_chunks_or_the_new_and_never_a_mix(pools: list[Pool]) -> None:
    one = await collection(pools[0])
    made = await document(pools[0], one)
    ids = {**whose(one), "document_id": made.id}
    await replace_chunks(pools[0], **ids, chunks=set_of("set 0", 10))
    done = False
    reads = 0

    async def replace(name: int) -> None:
        for turn in range(scaled(15, 300)):
            count = random.choice([0, 1, 40, 200])
            await replace_chunks(
                pools[1], **ids, chunks=set_of(f"set {name}.{turn} of {count}", count)
            )

    async def read(number: int) -> None:
        nonlocal reads
        seen = 0
        while not done:
            found = await get_chunks_by_document(pools[number % 3], **ids)
            reads += 1
            assert len({chunk.version for chunk in found}) <= 1, "a mix"
            assert [chunk.chunk_index for chunk in found] == list(range(len(found)))
            assert len({chunk.content.rpartition(" ")[0] for chunk in found}) <= 1, "a mix"
            if found:
                assert found[0].version >= seen, "it went back"
                seen = found[0].version
                name = found[0].content.rpartition(" ")[0]
                assert name == "set 0" or name.endswith(f"of {len(found)}"), "a part"

    readers = asyncio.gather(*(read(number) for number in range(6)))
    await asyncio.gather(*(replace(name) for name in range(1, 5)))
    done = True
    await readers
    assert reads > 20
    last = await get_document(pools[0], **ids)
    assert last.chunks_version == 1 + 4 * scaled(15, 300), "a replacement was lost"
    assert last.chunk_count == len(await get_chunks_by_document(pools[0], **ids))
    assert last.chunk_count == await count_chunks(pools[0], **ids)


async def test_whoever_replaces_deletes_and_removes_at_once_leaves_counts_that_agree(
    pools: list[Pool],
) -> None:
    one = await collection(pools[0])
    documents = [(await document(pools[0], one)).id for _ in range(8)]

    async def work(number: int) -> None:
        for _ in range(scaled(10, 200)):
            ids = {**whose(one), "document_id": random.choice(documents)}
            try:
                match random.randrange(10):
                    case 0:
                        await delete_document(pools[number % 3], **ids)
                    case 1 | 2:
                        await delete_chunks(pools[number % 3], **ids)
                    case _:
                        await replace_chunks(
                            pools[number % 3], **ids, chunks=set_of("x", random.randrange(30))
                        )
            except NotFoundError:
                pass

    await asyncio.gather(*(work(number) for number in range(16)))
    told = await collection_statistics(pools[0], **whose(one))
    assert told.chunk_count == await count_chunks(pools[0], **whose(one))
    async with pools[0].connection() as connection:
        wrong = await connection.fetch(
            "SELECT FROM documents AS d WHERE d.chunk_count <> (SELECT count(*) FROM chunks AS c"
            " WHERE c.collection_id = d.collection_id AND c.document_id = d.id)"
        )
    assert wrong == []


async def test_what_is_rolled_back_leaves_the_old_chunks(catbird_pool: Pool) -> None:
    on = await shelf(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id, "document_id": on.document_id}
    before = await get_chunks_by_document(catbird_pool, **ids)

    class Stop(Exception):
        pass

    async def replace_and_stop() -> None:
        async with transaction(catbird_pool) as tx:
            await replace_chunks(tx, **ids, chunks=set_of("new", 5))
            assert len(await get_chunks_by_document(tx, **ids)) == 5
            assert await get_chunks_by_document(catbird_pool, **ids) == before
            raise Stop

    with pytest.raises(Stop):
        await replace_and_stop()
    assert await get_chunks_by_document(catbird_pool, **ids) == before


async def test_what_is_wrong_with_a_chunk_is_said_before_anything_is_written(
    catbird_pool: Pool,
) -> None:
    on = await shelf(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id, "document_id": on.document_id}
    before = await get_chunks_by_document(catbird_pool, **ids)
    for start, end in ((5, 4), (5, None)):
        bad = NewChunk(content="x", token_count=1, start_offset=start, end_offset=end)
        with pytest.raises(InvalidArgumentError, match=r"chunks\.1\.end_offset"):
            await replace_chunks(catbird_pool, **ids, chunks=[*pieces("fine"), bad])
    assert await get_chunks_by_document(catbird_pool, **ids) == before


# ---- embeddings


async def test_chunks_without_embedding_are_paged_until_none_is_left(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    for _ in range(3):
        made = await document(catbird_pool, one)
        await replace_chunks(catbird_pool, **whose(one), document_id=made.id, chunks=set_of("x", 7))
    seen: list[tuple[UUID, int]] = []
    async for page in all_pages(list_chunks_without_embedding, catbird_pool, **whose(one), limit=4):
        seen += [(chunk.document_id, chunk.chunk_index) for chunk in page.items]
        written = await set_embeddings(
            catbird_pool,
            **whose(one),
            embeddings=[embedded(chunk, f"v{chunk.chunk_index}") for chunk in page.items],
        )
        assert written == len(page.items)
    assert len(seen) == len(set(seen)) == 21
    assert seen == sorted(seen)
    listed = [
        chunk
        async for page in all_pages(list_chunks, catbird_pool, **whose(one), limit=5)
        for chunk in page.items
    ]
    assert [(chunk.document_id, chunk.chunk_index) for chunk in listed] == seen
    assert all(chunk.embedding_id == f"v{chunk.chunk_index}" for chunk in listed)


def embedded(chunk: Chunk, embedding_id: str) -> ChunkEmbedding:
    return ChunkEmbedding(
        document_id=chunk.document_id,
        chunk_index=chunk.chunk_index,
        version=chunk.version,
        embedding_id=embedding_id,
    )


async def test_a_chunk_that_was_replaced_since_gets_no_embedding_of_the_old_text(
    pools: list[Pool],
) -> None:
    one = await collection(pools[0])
    made = await document(pools[0], one)
    ids = {**whose(one), "document_id": made.id}
    done = False

    async def replace() -> None:
        nonlocal done
        for turn in range(scaled(40, 500)):
            await replace_chunks(pools[0], **ids, chunks=set_of(f"set {turn}", 5))
            await asyncio.sleep(random.random() * 0.02)
            found = await get_chunks_by_document(pools[0], **ids)
            assert all(chunk.embedding_id in (None, chunk.content) for chunk in found)
        done = True

    async def embed(number: int) -> None:
        while not done:
            page = await list_chunks_without_embedding(pools[number % 3], **whose(one))
            await asyncio.sleep(random.random() * 0.01)
            await set_embeddings(
                pools[number % 3],
                **whose(one),
                embeddings=[embedded(chunk, chunk.content) for chunk in page.items],
            )

    await asyncio.gather(replace(), *(embed(number) for number in range(6)))


async def test_who_writes_embeddings_waits_for_the_document_and_not_for_its_chunks(
    pools: list[Pool],
) -> None:
    one = await collection(pools[0])
    made = await document(pools[0], one)
    ids = {**whose(one), "document_id": made.id}
    await replace_chunks(pools[0], **ids, chunks=set_of("a", 3))
    given = [embedded(chunk, "v") for chunk in await get_chunks_by_document(pools[0], **ids)]
    async with transaction(pools[0]) as tx:
        await replace_chunks(tx, **ids, chunks=set_of("b", 3))
        late = asyncio.create_task(set_embeddings(pools[1], **whose(one), embeddings=given))
        assert not (await asyncio.wait([late], timeout=0.2))[0]
        held = await tx.fetchval(
            "SELECT count(*) FROM pg_locks AS l"
            " WHERE l.relation = 'documents'::regclass AND l.locktype = 'tuple' AND l.granted"
        )
        assert held == 1, "the one that waits has queued for the document"
    assert await late == 0


# ---- search


async def test_a_search_finds_within_its_collection_best_first(catbird_pool: Pool) -> None:
    one, other = await collection(catbird_pool), await collection(catbird_pool)
    for each in (one, other):
        made = await document(catbird_pool, each)
        await replace_chunks(
            catbird_pool,
            **whose(each),
            document_id=made.id,
            chunks=pieces(
                "nothing of this",
                "a cat among many other words that tell of other things altogether",
                "cats and cats, and running cats",
                "the dogs run",
            ),
        )
    found = await search_chunks(catbird_pool, **whose(one), text="cat")
    assert [chunk.chunk_index for chunk in found] == [2, 1]
    assert {chunk.collection_id for chunk in found} == {one.id}
    assert found[0].rank > found[1].rank > 0
    for text, expected in {
        "run": [2, 3],
        "run -cat": [3],
        '"other words"': [1],
        "dog or altogether": [1, 3],
        "the": [],
        "nobody": [],
        "'; DROP TABLE chunks; --": [],
        "(((": [],
    }.items():
        indexes = [
            c.chunk_index for c in await search_chunks(catbird_pool, **whose(one), text=text)
        ]
        assert sorted(indexes) == expected, text
    assert len(await search_chunks(catbird_pool, **whose(one), text="cat", limit=1)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "--cat",
        "cat\n" + "-" * 40 + "\nfeeds",
        "- cat\n- feeds",
        "- " * 100 + "cat",
        "-(" * 100 + "cat",
        "-<-!" * 100 + "cat",
        "cat " + '-"' * 400,
        "cat " + "-'" * 400,
        "cat " + "<->" * 300,
        "cat " + ":*" * 400,
        "cat or " * 140,
        "cat-feed" + "-" * 900,
        "(cat & | ! <-> \\ :*",
        "'cat' -dog --",
    ],
)
async def test_whatever_is_typed_is_searched_for(catbird_pool: Pool, text: str) -> None:
    one = await collection(catbird_pool)
    made = await document(catbird_pool, one)
    chunks = pieces("who feeds a cat feeds cats: cat-feed", "a dog")
    await replace_chunks(catbird_pool, **whose(one), document_id=made.id, chunks=chunks)
    found = await search_chunks(catbird_pool, **whose(one), text=text)
    assert [chunk.chunk_index for chunk in found] == [0]


async def test_a_search_for_anything_at_all_is_no_error(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool)
    made = await document(catbird_pool, one)
    await replace_chunks(catbird_pool, **whose(one), document_id=made.id, chunks=pieces("a cat"))
    chance = random.Random(7)
    for _ in range(scaled(500, 20_000)):
        parts = chance.sample("-!&|()<>:*\"'\\.a字 \n\u2003", 4)
        text = "".join(chance.choices(["-", *parts], k=chance.randint(1, 1000)))
        await search_chunks(catbird_pool, **whose(one), text=text)
    for word in ("字" * 1000, "😀" * 1000, "cat" * 333):
        await search_chunks(catbird_pool, **whose(one), text=word)
