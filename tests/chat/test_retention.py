"""Retention removes the oldest messages, keeps commits, and no reader overlooks that it did."""

import asyncio
import random
from typing import Any

import pytest
from actors import converse, history, ids, send, stored, until_waiting
from scale import scaled

from catbird_db import (
    CatchUp,
    HistoryTrimmedError,
    Message,
    NewMessage,
    NotFoundError,
    Pool,
    add_member,
    commit_group_change,
    create_message,
    create_messages,
    delete_message,
    delete_messages_before,
    get_conversation,
    get_current_epoch,
    get_message,
    get_message_count,
    list_commits,
    list_conversations,
    list_messages,
    list_messages_since,
    list_new_messages,
    mark_read,
    transaction,
    update_unread_count,
)
from catbird_db.pool import Executor

ALICE, BOB = "did:plc:alice", "did:plc:bob"


async def commit(pool: Pool, did: str = ALICE) -> int:
    """Its seq."""
    epoch = await get_current_epoch(pool, convo_id="c")
    receipt = await commit_group_change(
        pool,
        convo_id="c",
        sender_did=did,
        message_id=f"commit {epoch}",
        expected_epoch=epoch,
        commit=b"commit",
    )
    return receipt.seq


async def talk(pool: Pool) -> None:
    """app 1, app 2, commit 3, proposal 4, app 5, commit 6, app 7 to app 10."""
    await converse(pool, "c", ALICE, BOB)
    await send(pool, "c", ALICE, "1", "2")
    await commit(pool)
    await create_messages(
        pool,
        convo_id="c",
        sender_did=ALICE,
        epoch=1,
        messages=[
            NewMessage(ciphertext=b"4", message_id="4", message_type="proposal"),
            NewMessage(ciphertext=b"5", message_id="5"),
        ],
    )
    await commit(pool)
    await send(pool, "c", ALICE, "7", "8", "9", "10", epoch=2)


async def trim(db: Executor, seq: int, limit: int = 1000) -> int:
    return await delete_messages_before(db, convo_id="c", seq=seq, limit=limit)


async def since(db: Executor, seq: int, **rest: Any) -> list[Message]:
    return await list_messages_since(db, convo_id="c", reader_did=BOB, after_seq=seq, **rest)


async def new(db: Executor, seq: int) -> CatchUp:
    [caught_up] = await list_new_messages(db, reader_did=BOB, positions={"c": seq})
    return caught_up


async def all_seqs(pool: Pool) -> list[int]:
    page = await list_messages(pool, convo_id="c", reader_did=BOB, limit=500)
    return [message.seq for message in page.items][::-1]


async def trimmed_seq(pool: Pool) -> int:
    conversation = await get_conversation(pool, convo_id="c")
    assert conversation is not None
    return conversation.trimmed_seq


async def unread(pool: Pool, did: str = BOB) -> int:
    [conversation] = (await list_conversations(pool, member_did=did)).items
    return conversation.unread_count


async def test_the_oldest_go_in_batches_and_commits_stay(catbird_pool: Pool) -> None:
    await talk(catbird_pool)
    for removed, seqs, mark in (
        (2, [3, 4, 5, 6, 7, 8, 9, 10], 2),
        (2, [3, 6, 7, 8, 9, 10], 5),
        (1, [3, 6, 8, 9, 10], 7),
        (0, [3, 6, 8, 9, 10], 7),
    ):
        assert await trim(catbird_pool, seq=8, limit=2) == removed
        assert await all_seqs(catbird_pool) == seqs
        assert await trimmed_seq(catbird_pool) == mark
        assert await get_message_count(catbird_pool, convo_id="c") == len(seqs)
    commits = await list_commits(catbird_pool, convo_id="c", reader_did=BOB, from_epoch=0)
    assert [(one.seq, one.epoch, one.ciphertext) for one in commits] == [
        (3, 0, b"commit"),
        (6, 1, b"commit"),
    ]
    assert await get_message(catbird_pool, convo_id="c", message_id="5", reader_did=BOB) is None
    for seq in (0, 1, 7, 8):
        assert await trim(catbird_pool, seq=seq) == 0
    assert await trim(catbird_pool, seq=2**63 - 1) == 3
    assert await all_seqs(catbird_pool) == [3, 6]
    assert await trimmed_seq(catbird_pool) == 10
    [message] = await send(catbird_pool, "c", ALICE, "11", epoch=2)
    assert message.seq == 11
    assert await get_message_count(catbird_pool, convo_id="c") == 3
    assert await trim(catbird_pool, seq=11) == 0
    assert await delete_messages_before(catbird_pool, convo_id="nowhere", seq=9) == 0


async def test_a_blanked_message_counts_until_it_is_removed(catbird_pool: Pool) -> None:
    await talk(catbird_pool)
    assert await delete_message(catbird_pool, convo_id="c", message_id="1")
    assert await get_message_count(catbird_pool, convo_id="c") == 10
    assert await trim(catbird_pool, seq=3) == 2
    assert await get_message_count(catbird_pool, convo_id="c") == 8
    with pytest.raises(NotFoundError):
        await get_message_count(catbird_pool, convo_id="nowhere")


async def test_a_stale_reader_is_told_and_reads_on_from_where_history_begins(
    catbird_pool: Pool,
) -> None:
    await talk(catbird_pool)
    assert await trim(catbird_pool, seq=6) == 4
    for seq in range(5):
        with pytest.raises(HistoryTrimmedError) as trimmed:
            await since(catbird_pool, seq)
        assert trimmed.value.trimmed_seq == 5
        caught_up = await new(catbird_pool, seq)
        assert caught_up.trimmed
        assert [one.seq for one in caught_up.messages] == [
            one for one in (3, 6, 7, 8, 9, 10) if one > seq
        ]
    for seq in range(5, 12):
        messages = await since(catbird_pool, seq)
        assert [one.seq for one in messages] == [*range(max(6, seq + 1), 11)]
        caught_up = await new(catbird_pool, seq)
        assert not caught_up.trimmed
        assert caught_up.messages == messages
    assert await trim(catbird_pool, seq=11) == 4
    assert await since(catbird_pool, 10) == []
    with pytest.raises(HistoryTrimmedError) as trimmed:
        await since(catbird_pool, 9)
    assert trimmed.value.trimmed_seq == 10


async def test_where_only_commits_were_passed_over_nobody_is_told_of_a_gap(
    catbird_pool: Pool,
) -> None:
    """History is trimmed up to the last message removed, not up to the commits behind it."""
    await converse(catbird_pool, "c", ALICE, BOB)
    await send(catbird_pool, "c", ALICE, "1")
    await commit(catbird_pool)
    await commit(catbird_pool)
    assert await trim(catbird_pool, seq=4) == 1
    assert [one.seq for one in await since(catbird_pool, 1)] == [2, 3]
    assert not (await new(catbird_pool, 1)).trimmed
    assert await trim(catbird_pool, seq=4) == 0


async def test_unread_never_counts_what_was_removed(catbird_pool: Pool) -> None:
    await talk(catbird_pool)  # 7 application messages
    assert await unread(catbird_pool) == 7
    assert await mark_read(catbird_pool, convo_id="c", member_did=BOB, seq=1) == 6
    assert await trim(catbird_pool, seq=6) == 4  # 3 of them application messages
    assert await unread(catbird_pool) == 4
    assert await mark_read(catbird_pool, convo_id="c", member_did=BOB, seq=4) == 4
    names = {"convo_id": "c", "member_did": BOB}
    assert await update_unread_count(catbird_pool, **names, increment=-1) == 3
    assert await update_unread_count(catbird_pool, **names, increment=0) == 3
    assert await update_unread_count(catbird_pool, **names, increment=100) == 4
    assert await mark_read(catbird_pool, convo_id="c", member_did=BOB, seq=7) == 3
    assert await update_unread_count(catbird_pool, **names, increment=2) == 4
    assert await trim(catbird_pool, seq=100) == 4
    assert await unread(catbird_pool) == 0
    assert await update_unread_count(catbird_pool, **names, increment=1) == 0
    await send(catbird_pool, "c", ALICE, "11", epoch=2)
    assert await unread(catbird_pool) == 1
    carol = "did:plc:carol"
    await add_member(catbird_pool, convo_id="c", member_did=carol)
    assert await unread(catbird_pool, carol) == 0


async def test_the_id_of_a_removed_message_is_free_again(catbird_pool: Pool) -> None:
    await talk(catbird_pool)
    assert await trim(catbird_pool, seq=3) == 2
    again = await create_message(
        catbird_pool, convo_id="c", sender_did=BOB, epoch=2, ciphertext=b"other", message_id="1"
    )
    assert again.seq == 11
    [kept] = await send(catbird_pool, "c", ALICE, "7", epoch=2)
    assert kept.seq == 7


async def test_what_is_trimmed_in_a_transaction_that_rolls_back_is_there_again(
    catbird_pool: Pool,
) -> None:
    await talk(catbird_pool)
    before = await history(catbird_pool, "c")
    with pytest.raises(ZeroDivisionError):
        await trim_and_fail(catbird_pool)
    assert await history(catbird_pool, "c") == before
    assert await trimmed_seq(catbird_pool) == 0
    assert ids(await since(catbird_pool, 0)) == ids(before)


async def trim_and_fail(pool: Pool) -> None:
    async with transaction(pool) as tx:
        assert await trim(tx, seq=9) == 6
        with pytest.raises(HistoryTrimmedError):
            await since(tx, 0)
        raise ZeroDivisionError


# At once.


async def test_a_trimmer_that_waited_for_another_goes_on_where_that_one_stopped(
    pool: Pool,
) -> None:
    await talk(pool)
    async with transaction(pool) as tx:
        assert await trim(tx, seq=9, limit=3) == 3
        waiting = asyncio.ensure_future(trim(pool, seq=9, limit=2))
        await until_waiting(pool, "delete_messages_before")
    assert await waiting == 2
    assert await trimmed_seq(pool) == 7
    assert await get_message_count(pool, convo_id="c") == 5
    assert await all_seqs(pool) == [3, 6, 8, 9, 10]


async def test_trimmers_and_senders_at_once_leave_marks_that_fit_what_is_left(
    pools: list[Pool],
) -> None:
    await converse(pools[0], "c", ALICE, BOB)
    sending = 4
    removed: list[int] = []

    async def sender(number: int) -> None:
        nonlocal sending
        for each in range(scaled(60, 4000)):
            pool = pools[number % 3]
            name = f"{number}-{each}"
            if each % 15 == number:
                await send(pool, "c", BOB, name, f"{name}-b", f"{name}-c", epoch=0)
            else:
                await create_message(
                    pool,
                    convo_id="c",
                    sender_did=BOB,
                    epoch=0,
                    ciphertext=b"x",
                    message_id=name,
                    message_type="proposal" if each % 7 == 0 else "app",
                )
        sending -= 1

    async def trimmer(number: int) -> None:
        while sending:
            seq = random.choice(await all_seqs(pools[0]) or [1])
            removed.append(await trim(pools[number % 3], seq=seq, limit=random.randint(1, 20)))

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(sender(number))
            tasks.create_task(trimmer(number))

    [marks] = await stored(pools[0], "SELECT * FROM conversations")
    left = await stored(pools[0], "SELECT seq, message_type FROM messages ORDER BY seq")
    assert sum(removed) == marks["trimmed_count"] > 0
    assert [row["seq"] for row in left] == [*range(marks["trimmed_seq"] + 1, marks["last_seq"] + 1)]
    assert await get_message_count(pools[0], convo_id="c") == len(left)
    apps = sum(row["message_type"] == "app" for row in left)
    assert marks["app_count"] - marks["trimmed_app_count"] == apps
    assert await unread(pools[0], ALICE) == apps
    assert await unread(pools[0], BOB) == 0
    positions = {"c": marks["trimmed_seq"]}
    [caught_up] = await list_new_messages(pools[0], reader_did=ALICE, positions=positions)
    assert not caught_up.trimmed


async def test_a_tailing_reader_sees_everything_or_is_told_that_history_was_trimmed(
    pools: list[Pool],
) -> None:
    """Senders, committers, trimmers hard on the readers' heels, and readers of both kinds."""
    await converse(pools[0], "c", ALICE, BOB)
    rounds = scaled(120, 6000)
    sending = 2
    told: list[tuple[int, int]] = []
    heads: list[int] = []

    async def sender(number: int) -> None:
        nonlocal sending
        for each in range(rounds):
            if number == 0 and each % 10 == 0:
                await commit(pools[0])
            else:
                await create_message(
                    pools[number],
                    convo_id="c",
                    sender_did=ALICE,
                    epoch=0,
                    epoch_window=rounds,
                    ciphertext=b"x",
                )
        sending -= 1

    async def trimmer() -> None:
        while sending:
            conversation = await get_conversation(pools[2], convo_id="c")
            assert conversation is not None
            await trim(pools[2], seq=max(0, conversation.last_seq - random.randint(0, 12)), limit=5)

    def expect_no_gap(messages: list[Message], after_seq: int) -> int:
        """All that there was, from the next one on: commits and everything else."""
        seqs = [message.seq for message in messages]
        assert seqs == [*range(after_seq + 1, after_seq + 1 + len(seqs))]
        return after_seq + len(seqs)

    async def tail(number: int) -> None:
        seq = 0
        while number == 3 and not await trimmed_seq(pools[0]):
            await asyncio.sleep(0.001)  # this one comes too late for the first messages
        while True:
            is_last = not sending
            try:
                messages = await since(pools[number % 3], seq, limit=7)
            except HistoryTrimmedError as error:
                told.append((seq, error.trimmed_seq))
                seq = error.trimmed_seq
                continue
            seq = expect_no_gap(messages, seq)
            if is_last and not messages:
                break
        heads.append(seq)

    async def tail_many(number: int) -> None:
        seq = 0
        while True:
            is_last = not sending
            caught_up = await new(pools[number % 3], seq)
            if caught_up.trimmed:
                told.append((seq, await trimmed_seq(pools[0])))
                seq = told[-1][1]
                continue
            seq = expect_no_gap(caught_up.messages, seq)
            if is_last and not caught_up.messages:
                break
        heads.append(seq)

    async with asyncio.timeout(scaled(60, 1200)), asyncio.TaskGroup() as tasks:
        for number in range(2):
            tasks.create_task(sender(number))
        for number in range(4):
            tasks.create_task(tail(number))
        tasks.create_task(tail_many(0))
        tasks.create_task(tail_many(1))
        tasks.create_task(trimmer())

    assert told, "retention never overtook a reader: the attack did not happen"
    assert all(stood_at < trimmed for stood_at, trimmed in told)
    assert heads == [2 * rounds] * 6
