"""Reading: only members do, each read is one statement, and nothing there is not "not a member"."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
from actors import converse, everything_told, history, ids, send, stored

from catbird_db import (
    CatchUp,
    CommitReceipt,
    HistoryTrimmedError,
    InvalidArgumentError,
    NewWelcome,
    NotAMemberError,
    Observation,
    Page,
    Pool,
    Settings,
    WelcomeRecipient,
    add_member,
    commit_group_change,
    create_message,
    delete_message,
    delete_messages_before,
    get_current_epoch,
    get_message,
    list_commits,
    list_messages,
    list_messages_since,
    list_new_messages,
    open_pool,
    remove_member,
    transaction,
)
from catbird_db.embedded import EmbeddedServer
from catbird_db.pool import Executor

ALICE, BOB, MALLORY = "did:plc:alice", "did:plc:bob", "did:plc:mallory"

Read = Callable[[Executor, str, str], Awaitable[object]]


async def read_one(db: Executor, convo_id: str, did: str) -> object:
    return await get_message(db, convo_id=convo_id, message_id="m1", reader_did=did)


async def read_newest(db: Executor, convo_id: str, did: str) -> object:
    return await list_messages(db, convo_id=convo_id, reader_did=did)


async def read_since(db: Executor, convo_id: str, did: str) -> object:
    return await list_messages_since(db, convo_id=convo_id, reader_did=did, after_seq=0)


async def read_new(db: Executor, convo_id: str, did: str) -> object:
    return await list_new_messages(db, reader_did=did, positions={convo_id: 0})


async def read_commits(db: Executor, convo_id: str, did: str) -> object:
    return await list_commits(db, convo_id=convo_id, reader_did=did, from_epoch=0)


READS = [read_one, read_newest, read_since, read_new, read_commits]
EACH_READ = pytest.mark.parametrize("read", READS)


async def commit(pool: Pool, convo_id: str, epoch: int = 0) -> CommitReceipt:
    return await commit_group_change(
        pool,
        convo_id=convo_id,
        sender_did=ALICE,
        message_id=f"commit-{epoch}",
        expected_epoch=epoch,
        commit=b"x",
        group_info=b"x",
        welcomes=[
            NewWelcome(data=b"x", recipients=[WelcomeRecipient(did=BOB, key_package_ref=b"x")])
        ],
    )


@pytest.fixture
async def observed(catbird_settings: Settings) -> AsyncGenerator[tuple[Pool, list[str]]]:
    """A pool, warm, and the statements that it sends."""
    sent: list[str] = []

    def note(observation: Observation) -> None:
        sent.append(observation.sql)

    async with open_pool(catbird_settings, observe=note) as pool:
        await converse(pool, "c", ALICE, BOB)
        await send(pool, "c", ALICE, "m1", "m2")
        # A new connection asks about array types that it has not met.
        await list_new_messages(pool, reader_did=ALICE, positions={"c": 0})
        await commit(pool, await converse(pool, "warm", ALICE))
        sent.clear()
        yield pool, sent


# Who reads


@EACH_READ
async def test_only_an_active_member_reads(pool: Pool, read: Read) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await send(pool, convo_id, ALICE, "m1", "m2")
    await commit(pool, convo_id)
    assert await read(pool, convo_id, BOB)
    await remove_member(pool, convo_id=convo_id, member_did=BOB)
    for did in (BOB, MALLORY, ALICE.upper(), ALICE + "2", "%"):
        with pytest.raises(NotAMemberError) as refused:
            await read(pool, convo_id, did)
        assert refused.value.convo_ids == (convo_id,)
        assert ALICE not in everything_told(refused.value)
    await add_member(pool, convo_id=convo_id, member_did=BOB)
    assert await read(pool, convo_id, BOB)


@EACH_READ
async def test_a_stranger_cannot_tell_an_unknown_conversation_from_one_of_others(
    pool: Pool, read: Read
) -> None:
    await converse(pool, "known", ALICE)
    told: list[str] = []
    for convo_id in ("known", "unknown"):
        with pytest.raises(NotAMemberError) as refused:
            await read(pool, convo_id, MALLORY)
        told.append(everything_told(refused.value).replace("unknown", "known"))
    assert told[0] == told[1]


@EACH_READ
async def test_a_refused_reader_goes_on_in_its_transaction(pool: Pool, read: Read) -> None:
    await converse(pool, "c", ALICE)
    await converse(pool, "own", MALLORY)
    async with transaction(pool) as tx:
        with pytest.raises(NotAMemberError):
            await read(tx, "c", MALLORY)
        await send(tx, "own", MALLORY, "m1")
    assert ids(await history(pool, "own")) == ["m1"]


@EACH_READ
async def test_a_reader_sees_nothing_of_a_conversation_it_did_not_name(
    pool: Pool, read: Read
) -> None:
    for convo_id in ("c1", "c2"):
        await converse(pool, convo_id, ALICE)
    await send(pool, "c2", ALICE, "m1", "m2")
    await commit(pool, "c2")
    empty = await read(pool, "c1", ALICE)
    assert empty in (
        None,
        Page(items=[], next_cursor=None),
        [],
        [CatchUp(convo_id="c1", messages=[], more=False, trimmed=False)],
    )


async def test_an_empty_conversation_gives_empty_answers(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    assert await read_one(pool, convo_id, ALICE) is None
    assert await read_newest(pool, convo_id, ALICE) == Page(items=[], next_cursor=None)
    assert await read_since(pool, convo_id, ALICE) == []
    assert await read_commits(pool, convo_id, ALICE) == []
    assert await read_new(pool, convo_id, ALICE) == [
        CatchUp(convo_id="c", messages=[], more=False, trimmed=False)
    ]


async def test_each_read_shows_the_messages_as_stored(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    first = await send(pool, convo_id, ALICE, "m1", "m2", "m3")
    await delete_message(pool, convo_id=convo_id, message_id="m2")
    await commit(pool, convo_id)
    messages = await history(pool, convo_id)
    assert messages[0] == first[0]
    assert (messages[1].ciphertext, messages[1].deleted_at is None) == (b"", False)
    assert await read_one(pool, convo_id, BOB) == messages[0]
    assert await read_newest(pool, convo_id, BOB) == Page(messages[::-1], None)
    assert await read_since(pool, convo_id, BOB) == messages
    assert await read_commits(pool, convo_id, BOB) == messages[3:]
    assert await read_new(pool, convo_id, BOB) == [
        CatchUp(convo_id="c", messages=messages, more=False, trimmed=False)
    ]


# Catching up


async def test_list_messages_since_gives_the_next_ones_up_to_its_limit(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    names = [f"m{number}" for number in range(1, 11)]
    await send(pool, convo_id, ALICE, *names)
    for after_seq in (0, 1, 5, 9, 10, 11, 2**63 - 1):
        for limit in (1, 3, 500):
            messages = await list_messages_since(
                pool, convo_id=convo_id, reader_did=ALICE, after_seq=after_seq, limit=limit
            )
            assert ids(messages) == names[after_seq : after_seq + limit]


async def test_new_messages_of_many_conversations_come_in_the_order_asked_for(
    pool: Pool,
) -> None:
    counts = {"b": 0, "a": 3, "d": 5, "c": 4}
    for convo_id, count in counts.items():
        await converse(pool, convo_id, ALICE)
        if count:
            await send(pool, convo_id, ALICE, *(f"{convo_id}{n}" for n in range(1, count + 1)))

    async def news(limit: int = 50, **positions: int) -> list[tuple[str, list[str], bool]]:
        found = await list_new_messages(
            pool, reader_did=ALICE, positions=positions, limit_per_conversation=limit
        )
        assert not any(one.trimmed for one in found)
        return [(one.convo_id, ids(one.messages), one.more) for one in found]

    assert await news() == []
    assert await news(d=3) == [("d", ["d4", "d5"], False)]
    assert await news(d=0, b=0, a=0) == [
        ("d", ["d1", "d2", "d3", "d4", "d5"], False),
        ("b", [], False),
        ("a", ["a1", "a2", "a3"], False),
    ]
    assert await news(limit=3, a=0, b=0, c=0, d=3) == [
        ("a", ["a1", "a2", "a3"], False),  # exactly as many as asked for: no more
        ("b", [], False),
        ("c", ["c1", "c2", "c3"], True),
        ("d", ["d4", "d5"], False),
    ]
    assert await news(limit=1, c=2, a=2, d=5, b=7) == [
        ("c", ["c3"], True),
        ("a", ["a3"], False),
        ("d", [], False),
        ("b", [], False),
    ]


async def test_new_messages_of_500_conversations_are_one_answer(pool: Pool) -> None:
    convo_ids = [f"c{number:03}" for number in range(500)]
    await stored(
        pool, "INSERT INTO conversations SELECT c, $2 FROM unnest($1::text[]) c", convo_ids, ALICE
    )
    await stored(
        pool, "INSERT INTO members SELECT c, $2 FROM unnest($1::text[]) c", convo_ids, ALICE
    )
    for convo_id in convo_ids[::50]:
        await send(pool, convo_id, ALICE, "m1")
    positions = dict.fromkeys(reversed(convo_ids), 0)
    found = await list_new_messages(pool, reader_did=ALICE, positions=positions)
    assert [one.convo_id for one in found] == convo_ids[::-1]
    assert [one.convo_id for one in found if one.messages] == convo_ids[::50][::-1]
    with pytest.raises(InvalidArgumentError, match="positions"):
        await list_new_messages(pool, reader_did=ALICE, positions=positions | {"one more": 0})


async def test_new_messages_of_strange_conversations_are_refused_with_their_names(
    pool: Pool,
) -> None:
    for convo_id in ("own1", "own2"):
        await converse(pool, convo_id, ALICE)
    await converse(pool, "foreign", BOB)
    await converse(pool, "left", BOB, ALICE)
    await send(pool, "foreign", BOB, "m1")
    await remove_member(pool, convo_id="left", member_did=ALICE)
    with pytest.raises(NotAMemberError) as refused:
        await list_new_messages(
            pool,
            reader_did=ALICE,
            positions=dict.fromkeys(("own1", "left", "own2", "unknown", "foreign"), 0),
        )
    assert refused.value.convo_ids == ("left", "unknown", "foreign")


async def test_a_reader_that_retention_has_passed_is_told_so_in_the_same_statement(
    observed: tuple[Pool, list[str]],
) -> None:
    pool, sent = observed
    await commit(pool, "c")
    await send(pool, "c", ALICE, "m4", "m5", epoch=1)
    assert await delete_messages_before(pool, convo_id="c", seq=5) == 3  # m1, m2, m4
    for after_seq in (0, 1, 3):
        with pytest.raises(HistoryTrimmedError) as trimmed:
            await list_messages_since(pool, convo_id="c", reader_did=BOB, after_seq=after_seq)
        assert trimmed.value.trimmed_seq == 4
    with pytest.raises(NotAMemberError):
        await list_messages_since(pool, convo_id="c", reader_did=MALLORY, after_seq=0)
    sent.clear()
    messages = await list_messages_since(pool, convo_id="c", reader_did=BOB, after_seq=4)
    assert ids(messages) == ["m5"]
    [catch_up] = await list_new_messages(pool, reader_did=BOB, positions={"c": 0})
    assert (ids(catch_up.messages), catch_up.trimmed) == (["commit-0", "m5"], True)
    [catch_up] = await list_new_messages(pool, reader_did=BOB, positions={"c": 4})
    assert (ids(catch_up.messages), catch_up.trimmed) == (["m5"], False)
    assert len(sent) == 3


# One statement, one round trip


@EACH_READ
async def test_each_read_is_one_statement_whatever_there_is_to_see(
    observed: tuple[Pool, list[str]], read: Read
) -> None:
    pool, sent = observed
    await converse(pool, "empty", ALICE)
    sent.clear()
    await read(pool, "c", ALICE)
    await read(pool, "empty", ALICE)
    assert len(sent) == 2
    async with transaction(pool) as tx:
        await tx.execute("SELECT 1")  # begins it
        sent.clear()
        await read(tx, "c", ALICE)
        assert len(sent) == 1
    for convo_id in ("c", "unknown"):
        sent.clear()
        with pytest.raises(NotAMemberError):
            await read(pool, convo_id, MALLORY)
        assert len(sent) <= 2  # one more may say why


async def test_each_write_is_one_statement_on_a_pool(
    observed: tuple[Pool, list[str]],
) -> None:
    pool, sent = observed

    for call in (
        lambda: send(pool, "c", ALICE, "alone"),
        lambda: send(pool, "c", ALICE, "alone"),  # a retry too
        lambda: send(pool, "c", BOB, "a", "b", "c"),
        lambda: send(pool, "c", BOB, "b", "c", "d"),
        lambda: commit(pool, "c"),
    ):
        sent.clear()
        await call()
        assert len(sent) == 1


@pytest.fixture
async def counted(
    catbird_server: EmbeddedServer, catbird_database_url: str
) -> AsyncGenerator[tuple[Pool, Callable[[], int]]]:
    """A pool of one connection through a proxy, and how many answers the server has completed."""
    folder = Path(tempfile.mkdtemp(prefix="cb-proxy-", dir="/tmp"))  # a socket's path must be short
    name = f".s.PGSQL.{catbird_server.port}"
    answers = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def forward_messages(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        while header := await reader.read(1):
            length = await reader.readexactly(4)
            writer.write(header + length + await reader.readexactly(int.from_bytes(length) - 4))
            answers += header == b"Z"  # ReadyForQuery
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(
            catbird_server.socket_dir / name
        )
        await asyncio.gather(forward(reader, to_server), forward_messages(from_server, writer))

    url = catbird_database_url.replace(str(catbird_server.socket_dir), str(folder))
    settings = Settings(database_url=url, db_pool_max_size=1)
    try:
        async with (
            await asyncio.start_unix_server(serve, folder / name),
            open_pool(settings) as pool,
        ):
            yield pool, lambda: answers
    finally:
        shutil.rmtree(folder)


async def test_a_send_and_each_read_are_one_round_trip(
    counted: tuple[Pool, Callable[[], int]],
) -> None:
    pool, answers = counted
    await converse(pool, "c", ALICE)

    async def create() -> object:
        return await create_message(pool, convo_id="c", sender_did=ALICE, epoch=0, ciphertext=b"x")

    async def batch() -> object:
        return await send(pool, "c", ALICE, "a", "b")

    calls = [create, batch, *(lambda read=read: read(pool, "c", ALICE) for read in READS)]
    for call in calls:
        await call()  # prepares the statement
    assert await get_current_epoch(pool, convo_id="c") == 0
    for call in calls:
        before = answers()
        await call()
        assert answers() - before == 1
