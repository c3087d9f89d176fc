"""Batches: all of it in the order given, or nothing; overlapping, retried and cut anew."""

import asyncio
import random
from contextlib import suppress
from itertools import pairwise

import pytest
from actors import (
    Undo,
    at_once,
    converse,
    everything_told,
    history,
    ids,
    send,
    stored,
    texts,
    until_waiting,
)
from scale import scaled

from catbird_db import (
    ConflictError,
    InvalidArgumentError,
    Message,
    NewMessage,
    Pool,
    StaleEpochError,
    create_messages,
    delete_message,
    get_conversation,
    list_conversations,
    transaction,
    update_conversation_epoch,
)
from catbird_db.pool import Executor

ALICE, BOB = "did:plc:alice", "did:plc:bob"


async def test_a_batch_is_stored_in_its_order_without_gaps(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await send(pool, convo_id, BOB, "before")
    names = [f"m{number}" for number in range(1000)]
    random.Random(0).shuffle(names)
    messages = await send(pool, convo_id, ALICE, *names)
    assert ids(messages) == names
    assert [message.seq for message in messages] == list(range(2, 1002))
    assert all(message.ciphertext == message.id.encode() for message in messages)
    assert (await history(pool, convo_id))[1:] == messages
    conversation = await get_conversation(pool, convo_id=convo_id)
    assert conversation is not None
    assert conversation.last_message_at == messages[-1].sent_at


async def test_a_batch_may_mix_types_and_leave_out_ids(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    types = random.Random(0).choices(["app", "proposal"], k=40)
    for _ in range(2):
        messages = await create_messages(
            pool,
            convo_id=convo_id,
            sender_did=ALICE,
            epoch=0,
            messages=[NewMessage(ciphertext=b"x", message_type=one) for one in types],
        )
        assert [message.message_type for message in messages] == types
    assert len(set(ids(await history(pool, convo_id)))) == 80
    page = await list_conversations(pool, member_did=BOB)
    assert [summary.unread_count for summary in page.items] == [2 * types.count("app")]
    page = await list_conversations(pool, member_did=ALICE)
    assert [summary.unread_count for summary in page.items] == [0]


# At the same time


@pytest.mark.parametrize("second_in_transaction", [False, True])
@pytest.mark.parametrize("ending", ["commits", "rolls back"])
async def test_a_batch_that_waits_behind_one_it_overlaps_stores_what_that_has_not(
    pools: list[Pool], second_in_transaction: bool, ending: str
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    first, second = ["a", "b", "c"], ["d", "c", "e", "a"]

    async def run_second() -> list[Message]:
        if not second_in_transaction:
            return await send(pools[1], convo_id, ALICE, *second)
        async with transaction(pools[1]) as tx:
            results = await send(tx, convo_id, ALICE, *second)
            await send(tx, convo_id, ALICE, "after")
            return results

    with suppress(Undo):
        async with transaction(pools[0]) as tx:
            results = await send(tx, convo_id, ALICE, *first)
            waiting = asyncio.create_task(run_second())
            await until_waiting(
                pools[2], "lock_conversation" if second_in_transaction else "append_messages"
            )
            if ending == "rolls back":
                raise Undo
    others = await waiting
    assert ids(others) == second
    messages = await history(pools[0], convo_id)
    after = ["after"] if second_in_transaction else []
    if ending == "commits":
        assert ids(messages) == ["a", "b", "c", "d", "e", *after]
        assert messages[:3] == results
        assert [one for one in others if one.id in "ac"] == [results[2], results[0]]
    else:
        assert ids(messages) == [*second, *after]
    assert [one for one in messages if one.id in second] == sorted(others, key=lambda one: one.seq)


async def test_two_overlapping_batches_at_once_are_all_stored_once_without_gaps(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    turns = scaled(60, 3000)
    for turn in range(turns):
        chance = random.Random(turn)
        names = [f"{turn}-{number}" for number in range(30)]
        first, second = names[:20], names[10:]
        chance.shuffle(first)
        chance.shuffle(second)
        results, errors = await at_once(
            send(pools[number], convo_id, ALICE, *batch)
            for number, batch in enumerate((first, second))
        )
        assert not errors
        assert list(map(ids, results)) == [first, second]
        stored_as = {one.id: one for one in results[0]}
        assert all(stored_as.get(one.id, one) == one for one in results[1])
    messages = await history(pools[0], convo_id)
    assert len(messages) == 30 * turns
    assert len(set(ids(messages))) == 30 * turns


async def test_many_overlapping_batches_and_single_sends_inside_and_outside_transactions(
    pools: list[Pool],
) -> None:
    """24 tasks with random parts of 60 messages, in random order; some of them roll back."""
    turns = scaled(8, 400)
    convo_id = await converse(pools[0], "c", ALICE)
    acknowledged: dict[str, Message] = {}
    for turn in range(turns):
        names = [f"{turn}-{number}" for number in range(60)]

        async def one(task: int, turn: int = turn, names: list[str] = names) -> list[Message]:
            chance = random.Random(f"{turn}-{task}")
            parts = [chance.sample(names, chance.choice((1, 2, 25, 40))) for _ in range(2)]
            results: list[Message] = []
            if task % 3 == 0:
                for part in parts:
                    answer = await send(pools[task % 3], convo_id, ALICE, *part)
                    assert ids(answer) == part
                    results += answer
                return results
            with suppress(Undo):
                async with transaction(pools[task % 3]) as tx:
                    for part in parts:
                        answer = await send(tx, convo_id, ALICE, *part)
                        assert ids(answer) == part
                        results += answer
                    if chance.random() < 0.3:
                        raise Undo
                return results
            return []

        results, errors = await at_once(one(task) for task in range(24))
        assert not errors
        for message in (message for answer in results for message in answer):
            assert acknowledged.setdefault(message.id, message) == message
    messages = await history(pools[0], convo_id)
    assert {message.id: message for message in messages} == acknowledged
    assert len(messages) == len(acknowledged)


async def test_a_connection_outside_a_transaction_sends_overlapping_batches_too(
    pools: list[Pool],
) -> None:
    """A connection taken by hand: the lock must not be given back before the batch is stored."""
    convo_id = await converse(pools[0], "c", ALICE)
    turns = scaled(30, 1000)
    for turn in range(turns):

        async def one(task: int, turn: int = turn) -> list[Message]:
            async with pools[task % 3].connection() as connection:
                return await send(
                    connection, convo_id, ALICE, *(f"{turn}-{number}" for number in range(5))
                )

        results, errors = await at_once(one(task) for task in range(8))
        assert not errors
        assert all(result == results[0] for result in results)
    assert len(await history(pools[0], convo_id)) == 5 * turns


async def test_a_batch_that_waits_while_its_twin_is_stored_and_the_epoch_moves_returns_the_twin(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    async with transaction(pools[0]) as tx:
        twins = await send(tx, convo_id, ALICE, "a", "b")
        await update_conversation_epoch(tx, convo_id=convo_id, expected_epoch=0, new_epoch=1)
        waiting = asyncio.create_task(send(pools[1], convo_id, ALICE, "a", "b"))
        await until_waiting(pools[2], "append_messages")
    assert await waiting == twins
    assert await history(pools[0], convo_id) == twins


# Nothing of it


async def refused(db: Executor, convo_id: str, *message_ids: str, epoch: int = 0) -> str:
    """What a batch of Alice's that conflicts is told."""
    with pytest.raises(ConflictError) as conflict:
        await send(db, convo_id, ALICE, *message_ids, epoch=epoch)
    return everything_told(conflict.value)


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_batch_with_a_foreign_id_stores_nothing(pool: Pool, position: int) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await send(pool, convo_id, BOB, "foreign")
    await send(pool, convo_id, ALICE, "own")
    before = await stored(pool, "SELECT * FROM messages, conversations ORDER BY seq")
    for batch in (["a", "b"], ["own", "b"], ["own"]):
        batch.insert(position, "foreign")
        told = await refused(pool, convo_id, *batch)
        assert BOB not in told
        assert "foreign" not in told
        async with transaction(pool) as tx:
            await refused(tx, convo_id, *batch)
            await refused(tx, convo_id, *batch, epoch=9)
    assert await stored(pool, "SELECT * FROM messages, conversations ORDER BY seq") == before
    assert ids(await send(pool, convo_id, ALICE, "a", "own", "b")) == ["a", "own", "b"]
    assert ids(await history(pool, convo_id)) == ["foreign", "own", "a", "b"]


async def test_a_batch_with_own_ids_of_other_bytes_or_type_stores_nothing(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await send(pool, convo_id, ALICE, "own")
    for changed in (
        NewMessage(ciphertext=b"other", message_id="own"),
        NewMessage(ciphertext=b"own", message_id="own", message_type="proposal"),
    ):
        with pytest.raises(ConflictError):
            await create_messages(
                pool,
                convo_id=convo_id,
                sender_did=ALICE,
                epoch=0,
                messages=[*texts("a"), changed, *texts("b")],
            )
    assert ids(await history(pool, convo_id)) == ["own"]


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_batch_one_of_whose_ids_another_takes_while_it_waits_stores_nothing(
    pools: list[Pool], in_transaction: bool
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)

    async def late() -> None:
        if not in_transaction:
            assert BOB not in await refused(pools[1], convo_id, "a", "m", "b")
            return
        async with transaction(pools[1]) as tx:
            await refused(tx, convo_id, "a", "m", "b")
            await send(tx, convo_id, ALICE, "after")  # the transaction goes on

    async with transaction(pools[0]) as tx:
        await send(tx, convo_id, BOB, "m")
        waiting = asyncio.create_task(late())
        await until_waiting(pools[2], "lock_conversation" if in_transaction else "append_messages")
    await waiting
    assert ids(await history(pools[0], convo_id)) == (["m", "after"] if in_transaction else ["m"])


async def test_a_batch_of_a_stale_epoch_stores_nothing(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await send(pool, convo_id, ALICE, "a", "b")
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=0, new_epoch=3)
    for epoch, batch in ((0, "cd"), (2, "cd"), (4, "cd"), (0, "abc"), (0, "cab")):
        with pytest.raises(StaleEpochError) as stale:
            await send(pool, convo_id, ALICE, *batch, epoch=epoch)
        assert stale.value.current_epoch == 3
    async with transaction(pool) as tx:
        with pytest.raises(StaleEpochError):
            await send(tx, convo_id, ALICE, *"abc")
        await send(tx, convo_id, ALICE, *"ef", epoch=3)
    assert ids(await history(pool, convo_id)) == ["a", "b", "e", "f"]


async def test_a_batch_with_an_id_twice_is_refused_before_anything_is_sent(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    async with transaction(pool, readonly=True) as tx:  # a statement would be refused otherwise
        with pytest.raises(InvalidArgumentError, match="twice"):
            await send(tx, convo_id, ALICE, "a", "b", "a")
        with pytest.raises(InvalidArgumentError, match="messages"):
            await create_messages(tx, convo_id=convo_id, sender_did=ALICE, epoch=0, messages=[])
        with pytest.raises(InvalidArgumentError, match="messages"):
            await send(tx, convo_id, ALICE, *map(str, range(1001)))
    assert not await history(pool, convo_id)


# Again


async def test_a_batch_retried_in_other_cuts_stores_only_what_is_new(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    names = [f"m{number:02}" for number in range(40)]
    done: dict[str, Message] = {}
    chance = random.Random(0)
    for end in (0, 5, 12, 13, 29, 40):
        for batch in (names[:end], names[end // 2 : end], chance.sample(names[:end], end)):
            if batch:
                results = await send(pool, convo_id, ALICE, *batch)
                assert ids(results) == batch
                for message in results:
                    assert done.setdefault(message.id, message) == message
    messages = await history(pool, convo_id)
    assert ids(messages) == names
    assert messages == [done[name] for name in names]
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=0, new_epoch=1)
    for batch in (names, names[7:9], names[::-1], names[3:4]):  # all stored: whatever the epoch
        assert ids(await send(pool, convo_id, ALICE, *batch)) == list(batch)
    assert await history(pool, convo_id) == messages


async def test_an_id_of_another_conversation_is_free(pool: Pool) -> None:
    first, second = await converse(pool, "c", ALICE, BOB), await converse(pool, "d", ALICE, BOB)
    for sender, names in ((ALICE, ("x", "y")), (BOB, ("z",))):
        await send(pool, first, sender, *names)
    assert ids(await send(pool, second, ALICE, "x", "y", "z")) == ["x", "y", "z"]
    assert {message.convo_id for message in await history(pool, second)} == {second}
    assert ids(await history(pool, first)) == ["x", "y", "z"]


async def test_new_messages_stand_in_the_order_of_the_batch_between_stored_ones(
    pool: Pool,
) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await send(pool, convo_id, ALICE, "x", "y")
    results = await send(pool, convo_id, ALICE, "b", "y", "a", "x", "c")
    assert [(one.id, one.seq) for one in results] == [
        ("b", 3),
        ("y", 2),
        ("a", 4),
        ("x", 1),
        ("c", 5),
    ]
    await history(pool, convo_id)


async def test_a_batch_retried_after_one_of_it_was_deleted_returns_it_with_deleted_at(
    pool: Pool,
) -> None:
    convo_id = await converse(pool, "c", ALICE)
    first = await send(pool, convo_id, ALICE, "a", "b", "c")
    await delete_message(pool, convo_id=convo_id, message_id="b")
    again = await send(pool, convo_id, ALICE, "a", "b", "c", "d")
    assert [again[0], again[2]] == [first[0], first[2]]
    assert again[1].deleted_at is not None
    assert again[1].ciphertext == b""
    assert ids(await history(pool, convo_id)) == ["a", "b", "c", "d"]


async def test_batches_in_one_transaction_follow_each_other(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    async with transaction(pool) as tx:
        answers = [
            await send(tx, convo_id, ALICE, *batch) for batch in ("ab", "c", "bcd", "a", "aebdcf")
        ]
    assert ["".join(ids(answer)) for answer in answers] == ["ab", "c", "bcd", "a", "aebdcf"]
    messages = await history(pool, convo_id)
    assert ids(messages) == list("abcdef")
    assert all(one.seq + 1 == other.seq for one, other in pairwise(messages))
