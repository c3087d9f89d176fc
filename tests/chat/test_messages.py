"""Sending, by many at once: nothing is missed, doubled or out of turn, and nobody learns too much."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from itertools import count

import pytest
from actors import (
    Undo,
    at_once,
    converse,
    everything_told,
    history,
    ids,
    insist,
    send,
    stored,
    texts,
    until_waiting,
)
from scale import scaled

from catbird_db import (
    ConflictError,
    DatabaseConnectionError,
    DatabaseError,
    InvalidArgumentError,
    Message,
    NewMessage,
    NotAMemberError,
    NotFoundError,
    Pool,
    Settings,
    StaleEpochError,
    TransactionConflictError,
    add_member,
    commit_group_change,
    create_conversation,
    create_message,
    create_messages,
    delete_conversation,
    delete_message,
    get_conversation,
    get_current_epoch,
    get_message_count,
    list_conversations,
    list_messages_since,
    list_new_messages,
    open_pool,
    remove_member,
    run_transaction,
    transaction,
    update_conversation_epoch,
)
from catbird_db.pool import Executor

ALICE, BOB, MALLORY = "did:plc:alice", "did:plc:bob", "did:plc:mallory"


# A reader misses nothing


WRITERS, CONVERSATIONS, MESSAGES = 8, 4, scaled(20_000, 400_000)


async def write_and_roll_back(
    pool: Pool, did: str, convo_ids: list[str], kept: dict[str, list[str]], chance: random.Random
) -> None:
    """Send into any of the conversations until there are enough; note what must be kept."""
    numbers = count(1)

    async def some(db: Executor, convo_id: str) -> list[str]:
        many = chance.choice((1, 1, 1, 12, 40))
        return ids(await send(db, convo_id, did, *(f"{did}-{next(numbers)}" for _ in range(many))))

    while sum(map(len, kept.values())) < MESSAGES:
        convo_id = chance.choice(convo_ids)
        if chance.random() < 0.3:
            kept[convo_id] += await some(pool, convo_id)
            continue
        with suppress(Undo):
            async with transaction(pool) as tx:
                done = await some(tx, convo_id)
                if chance.random() < 0.2:
                    raise Undo
                with suppress(Undo):
                    async with transaction(tx) as savepoint:
                        inner = await some(savepoint, convo_id)
                        if chance.random() < 0.3:
                            raise Undo
                        done += inner
                done += await some(tx, convo_id)
                if chance.random() < 0.3:
                    raise Undo
            kept[convo_id] += done


async def tail(pool: Pool, convo_id: str, done: asyncio.Event) -> list[Message]:
    """What a client sees that asks, again and again, for what is above the last it saw."""
    seen: list[Message] = []
    while True:
        last_turn = done.is_set()
        fresh = await list_messages_since(
            pool,
            convo_id=convo_id,
            reader_did="did:plc:reader",
            after_seq=seen[-1].seq if seen else 0,
            limit=500,
        )
        seen += fresh
        if not fresh:
            if last_turn:
                return seen
            await asyncio.sleep(0.002)


async def follow(pool: Pool, convo_ids: list[str], done: asyncio.Event) -> dict[str, list[Message]]:
    """The same by one call for all conversations."""
    seen: dict[str, list[Message]] = {convo_id: [] for convo_id in convo_ids}
    while True:
        last_turn = done.is_set()
        caught_up = await list_new_messages(
            pool,
            reader_did="did:plc:reader",
            positions={one: messages[-1].seq if messages else 0 for one, messages in seen.items()},
            limit_per_conversation=200,
        )
        for news in caught_up:
            seen[news.convo_id] += news.messages
        if last_turn and not any(news.messages or news.more for news in caught_up):
            return seen
        await asyncio.sleep(0.01)


async def test_a_tailing_reader_misses_nothing_while_writers_roll_back(pools: list[Pool]) -> None:
    writers = [f"did:plc:writer{number}" for number in range(WRITERS)]
    convo_ids = [
        await converse(pools[0], f"c{number}", "did:plc:reader", *writers)
        for number in range(CONVERSATIONS)
    ]
    kept: dict[str, list[str]] = {convo_id: [] for convo_id in convo_ids}
    done = asyncio.Event()
    async with asyncio.TaskGroup() as readers:
        tails = [readers.create_task(tail(pools[2], one, done)) for one in convo_ids]
        follower = readers.create_task(follow(pools[2], convo_ids, done))
        async with asyncio.TaskGroup() as group:
            for number, did in enumerate(writers):
                group.create_task(
                    write_and_roll_back(
                        pools[number % 2], did, convo_ids, kept, random.Random(number)
                    )
                )
        done.set()
    assert sum(map(len, kept.values())) >= MESSAGES
    for convo_id, task in zip(convo_ids, tails, strict=True):
        seen = task.result()
        assert [message.seq for message in seen] == list(range(1, len(kept[convo_id]) + 1))
        assert sorted(ids(seen)) == sorted(kept[convo_id])
        assert all(message.ciphertext == message.id.encode() for message in seen)
        assert follower.result()[convo_id] == seen == await history(pools[0], convo_id)


# A retry stores nothing


async def test_the_same_message_id_from_32_tasks_at_once_is_one_row_and_32_equal_results(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    for turn in range(scaled(20, 1000)):
        results, errors = await at_once(
            send(pools[task % 3], convo_id, ALICE, f"m{turn}") for task in range(32)
        )
        assert not errors
        assert len(results) == 32
        assert all(result == results[0] for result in results)
        assert results[0][0].seq == turn + 1
        assert (await history(pools[0], convo_id))[-1:] == results[0]


@pytest.mark.parametrize("position", ["first", "between"])
async def test_the_same_message_id_inside_32_transactions_leaves_no_gap_and_aborts_none(
    pools: list[Pool], position: str
) -> None:
    """Each transaction writes elsewhere too, every fourth rolls back; the others all commit."""
    convo_id = await converse(pools[0], "c", ALICE)
    turns = scaled(5, 200)
    own: list[str] = []

    async def one(turn: int, task: int) -> Message | None:
        mine = f"own-{turn}-{task}"
        with suppress(Undo):
            async with transaction(pools[task % 3]) as tx:
                if position == "between":
                    await create_conversation(tx, creator_did=ALICE, convo_id=mine)
                    await send(tx, mine, ALICE, "elsewhere")
                [twin] = await send(tx, convo_id, ALICE, f"shared-{turn}")
                await send(tx, convo_id, ALICE, mine)
                if task % 4 == 3:
                    raise Undo
            own.append(mine)
            return twin
        return None

    for turn in range(turns):
        results, errors = await at_once(one(turn, task) for task in range(32))
        assert not errors
        twins = [result for result in results if result]
        assert len(twins) == 24
        assert all(twin == twins[0] for twin in twins)
    shared = [f"shared-{turn}" for turn in range(turns)]
    assert sorted(ids(await history(pools[0], convo_id))) == sorted([*shared, *own])
    if position == "between":
        for mine in own:
            assert ids(await history(pools[0], mine)) == ["elsewhere"]


async def test_a_retry_that_waited_for_a_rollback_is_the_first(pools: list[Pool]) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    with suppress(Undo):
        async with transaction(pools[0]) as tx:
            await send(
                tx,
                convo_id,
                ALICE,
                "m",
            )
            retry = asyncio.create_task(send(pools[1], convo_id, ALICE, "m"))
            await until_waiting(pools[2], "append_message")
            raise Undo
    [message] = await retry
    assert message.seq == 1
    assert await history(pools[0], convo_id) == [message]


async def test_a_retry_after_the_epoch_moved_on_returns_the_first_row(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    first = await send(pool, convo_id, ALICE, "m")
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=0, new_epoch=7)
    assert await send(pool, convo_id, ALICE, "m") == first
    assert await send(pool, convo_id, ALICE, "m", epoch=7) == first
    assert await send(pool, convo_id, ALICE, "m", epoch=99) == first
    async with transaction(pool) as tx:
        assert await send(tx, convo_id, ALICE, "m") == first
        [second] = await send(tx, convo_id, ALICE, "n", epoch=7)
    assert await history(pool, convo_id) == [*first, second]


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_retry_that_waits_while_its_twin_is_stored_and_the_epoch_moves_returns_the_twin(
    pools: list[Pool], in_transaction: bool
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)

    async def retry() -> list[Message]:
        if not in_transaction:
            return await send(pools[1], convo_id, ALICE, "m")
        async with transaction(pools[1]) as tx:
            return await send(tx, convo_id, ALICE, "m")

    async with transaction(pools[0]) as tx:
        twin = await send(tx, convo_id, ALICE, "m")
        await update_conversation_epoch(tx, convo_id=convo_id, expected_epoch=0, new_epoch=1)
        waiting = asyncio.create_task(retry())
        await until_waiting(pools[2], "append_message")
    assert await waiting == twin
    assert await history(pools[0], convo_id) == twin


async def test_a_retry_of_a_deleted_message_returns_it_with_deleted_at(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    [first] = await send(pool, convo_id, ALICE, "m")
    assert await delete_message(pool, convo_id=convo_id, message_id="m")
    for epoch in (0, 5):  # of the current epoch, and of another
        [again] = await send(pool, convo_id, ALICE, "m", epoch=epoch)
        assert again.deleted_at is not None
        assert again == first.model_copy(update={"ciphertext": b"", "deleted_at": again.deleted_at})
    assert await history(pool, convo_id) == [again]


async def test_a_message_id_is_taken_in_its_own_conversation_only(pool: Pool) -> None:
    for convo_id, sender in (("c1", ALICE), ("c2", ALICE), ("c3", BOB)):
        await converse(pool, convo_id, sender)
        await send(pool, convo_id, sender, "m1")
        await send(pool, convo_id, sender, "m2", "m3")
        assert ids(await history(pool, convo_id)) == ["m1", "m2", "m3"]


# A taken id tells nobody anything


SECRETS = [ALICE, "alice", "secret", "kept close", b"kept close".hex(), "proposal", "2026", "seq"]


@pytest.fixture
async def taken(pool: Pool) -> AsyncGenerator[str]:
    """A conversation of Alice and Bob in which Alice has sent a message of the id "known"."""
    convo_id = await converse(pool, "c", ALICE, BOB)
    await create_message(
        pool,
        convo_id=convo_id,
        sender_did=ALICE,
        epoch=0,
        ciphertext=b"kept close",
        message_id="known",
        message_type="proposal",
    )
    before = (
        await stored(pool, "SELECT * FROM messages"),
        await stored(pool, "SELECT * FROM conversations"),
    )
    yield convo_id
    after = (
        await stored(pool, "SELECT * FROM messages"),
        await stored(pool, "SELECT * FROM conversations"),
    )
    assert after == before


async def attempts(db: Executor, convo_id: str, did: str, message_id: str) -> list[DatabaseError]:
    """Whatever refuses this sender with this id: by each function that takes one, with Alice's
    bytes and with others, in the current epoch and in another."""
    refusals: list[DatabaseError] = []
    for epoch in (0, 9):
        known = NewMessage(ciphertext=b"kept close", message_id=message_id, message_type="proposal")
        for call in (
            create_message(
                db,
                convo_id=convo_id,
                sender_did=did,
                epoch=epoch,
                ciphertext=b"kept close",
                message_id=message_id,
                message_type="proposal",
            ),
            create_messages(
                db,
                convo_id=convo_id,
                sender_did=did,
                epoch=epoch,
                messages=[*texts(["mine"]), known],
            ),
            send(db, convo_id, did, message_id, epoch=epoch),
            send(db, convo_id, did, "mine", message_id, epoch=epoch),
            commit_group_change(
                db,
                convo_id=convo_id,
                sender_did=did,
                message_id=message_id,
                expected_epoch=epoch,
                commit=b"kept close",
            ),
        ):
            with pytest.raises(DatabaseError) as refused:
                await call
            refusals.append(refused.value)
    return refusals


@pytest.mark.parametrize("did", [MALLORY, "did:plc:gone"])
async def test_a_stranger_with_a_known_id_is_told_what_it_is_told_for_an_unknown_one(
    pool: Pool, taken: str, did: str
) -> None:
    await add_member(pool, convo_id=taken, member_did="did:plc:gone")
    await remove_member(pool, convo_id=taken, member_did="did:plc:gone")
    known = await attempts(pool, taken, did, "known")
    assert [type(error) for error in known] == [NotAMemberError] * 10
    unknown = await attempts(pool, taken, did, "unknown")
    assert list(map(everything_told, known)) == list(map(everything_told, unknown))
    assert not [word for word in SECRETS if word in "".join(map(everything_told, known))]


async def test_a_sender_removed_since_gets_nothing_for_its_retry(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await send(pool, convo_id, BOB, "m1", "m2")
    await commit_group_change(
        pool, convo_id=convo_id, sender_did=BOB, message_id="m3", expected_epoch=0, commit=b"m3"
    )
    await remove_member(pool, convo_id=convo_id, member_did=BOB)
    for epoch in (0, 1):
        for late in (
            send(pool, convo_id, BOB, "m1", epoch=epoch),
            send(pool, convo_id, BOB, "m1", "m2", epoch=epoch),
            commit_group_change(
                pool,
                convo_id=convo_id,
                sender_did=BOB,
                message_id="m3",
                expected_epoch=epoch,
                commit=b"m3",
            ),
        ):
            with pytest.raises(NotAMemberError):
                await late
    assert ids(await history(pool, convo_id)) == ["m1", "m2", "m3"]


async def test_another_member_with_a_known_id_learns_only_that_it_is_taken(
    pool: Pool, taken: str
) -> None:
    errors = await attempts(pool, taken, BOB, "known")
    assert [type(error) for error in errors] == [ConflictError] * 10
    assert not [word for word in SECRETS if word in "".join(map(everything_told, errors))]


async def test_another_member_with_a_known_id_goes_on_in_its_transaction(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await send(pool, convo_id, ALICE, "known")
    async with transaction(pool) as tx:
        await send(tx, convo_id, BOB, "before")
        for did in (BOB, MALLORY):
            assert len(await attempts(tx, convo_id, did, "known")) == 10
        await send(tx, convo_id, BOB, "after")
    assert ids(await history(pool, convo_id)) == ["known", "before", "after"]


async def test_a_known_id_with_other_bytes_or_type_is_a_conflict_for_its_own_sender(
    pool: Pool, taken: str
) -> None:
    for epoch, ciphertext, message_type in (
        (0, b"other", "proposal"),
        (0, b"kept close", "app"),
        (9, b"other", "proposal"),  # and also where the epoch is not the current one
        (9, b"kept close", "app"),
    ):
        with pytest.raises(ConflictError) as refused:
            await create_message(
                pool,
                convo_id=taken,
                sender_did=ALICE,
                epoch=epoch,
                ciphertext=ciphertext,
                message_id="known",
                message_type=message_type,
            )
        assert not [word for word in SECRETS if word in everything_told(refused.value)]
    with pytest.raises(ConflictError):
        await commit_group_change(
            pool,
            convo_id=taken,
            sender_did=ALICE,
            message_id="known",
            expected_epoch=0,
            commit=b"kept close",
        )


@pytest.mark.parametrize("winner", [ALICE, BOB])
async def test_two_senders_of_one_id_at_once_are_one_row_and_one_conflict(
    pools: list[Pool], winner: str
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    loser = BOB if winner == ALICE else ALICE
    async with transaction(pools[0]) as tx:
        first = await send(tx, convo_id, winner, "m")
        second = asyncio.create_task(send(pools[1], convo_id, loser, "m"))
        await until_waiting(pools[2], "append_message")
    with pytest.raises(ConflictError):
        await second
    assert await history(pools[0], convo_id) == first


# A member whose removal has committed sends nothing more


async def send_alone(db: Executor, convo_id: str) -> object:
    """With an epoch window, so that only the membership can refuse it."""
    return await create_message(
        db, convo_id=convo_id, sender_did=BOB, epoch=0, ciphertext=b"late", epoch_window=1
    )


async def send_batch(db: Executor, convo_id: str) -> object:
    return await send(db, convo_id, BOB, "late1", "late2")


async def send_commit(db: Executor, convo_id: str) -> object:
    return await commit_group_change(
        db,
        convo_id=convo_id,
        sender_did=BOB,
        message_id="late",
        expected_epoch=0,
        commit=b"late",
        add_dids=[MALLORY],
    )


async def remove_by_commit(tx: Executor, convo_id: str) -> object:
    return await commit_group_change(
        tx,
        convo_id=convo_id,
        sender_did=ALICE,
        message_id="removal",
        expected_epoch=0,
        commit=b"removal",
        remove_dids=[BOB],
    )


async def remove_directly(tx: Executor, convo_id: str) -> object:
    return await remove_member(tx, convo_id=convo_id, member_did=BOB)


Act = Callable[[Executor, str], Awaitable[object]]

SENDS = pytest.mark.parametrize("late", [send_alone, send_batch, send_commit])
REMOVALS = pytest.mark.parametrize("remove", [remove_by_commit, remove_directly])


async def waits_for_a_lock(pool: Pool) -> None:
    async with asyncio.timeout(8):
        while not await stored(
            pool,
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0",
        ):
            await asyncio.sleep(0.003)


@SENDS
@REMOVALS
@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_send_that_waits_behind_the_removal_of_its_sender_is_refused(
    pools: list[Pool], late: Act, remove: Act, in_transaction: bool
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    other = await converse(pools[0], "elsewhere", BOB)

    async def refused_on_the_pool() -> None:
        with pytest.raises(NotAMemberError):
            await late(pools[1], convo_id)

    async def refused_in_a_transaction() -> None:
        async with transaction(pools[1]) as tx:
            await send(tx, other, BOB, "before")
            with pytest.raises(NotAMemberError):
                await late(tx, convo_id)
            await send(tx, other, BOB, "after")  # the transaction goes on

    refused = refused_in_a_transaction if in_transaction else refused_on_the_pool
    async with transaction(pools[0]) as tx:
        await remove(tx, convo_id)
        waiting = asyncio.create_task(refused())
        await waits_for_a_lock(pools[2])
        assert not waiting.done()
    await waiting
    assert [message.sender_did for message in await history(pools[0], convo_id)] == (
        [ALICE] if remove is remove_by_commit else []
    )
    assert len(await history(pools[0], other)) == (2 if in_transaction else 0)
    assert not await stored(pools[0], "SELECT FROM members WHERE member_did = $1", MALLORY)


@SENDS
@REMOVALS
async def test_a_send_that_waits_behind_a_removal_that_rolls_back_succeeds(
    pools: list[Pool], late: Act, remove: Act
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    with suppress(Undo):
        async with transaction(pools[0]) as tx:
            await remove(tx, convo_id)
            waiting = asyncio.create_task(late(pools[1], convo_id))
            await waits_for_a_lock(pools[2])
            raise Undo
    await waiting
    assert {message.sender_did for message in await history(pools[0], convo_id)} == {BOB}


@SENDS
async def test_a_removal_that_waits_behind_a_send_comes_after_it(
    pools: list[Pool], late: Act
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await late(tx, convo_id)
        removal = asyncio.create_task(remove_directly(pools[1], convo_id))
        await waits_for_a_lock(pools[2])
    assert await removal
    with pytest.raises(NotAMemberError):
        await send_alone(pools[1], convo_id)
    assert {message.sender_did for message in await history(pools[0], convo_id)} == {BOB}


async def test_members_that_come_and_go_send_only_while_they_are_members(
    pools: list[Pool],
) -> None:
    """After each removal has committed, the count of the sender's messages stands still."""
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    done = asyncio.Event()
    refusals = 0

    async def keep_sending(pool: Pool) -> None:
        nonlocal refusals
        while not done.is_set():
            try:
                await create_message(
                    pool, convo_id=convo_id, sender_did=BOB, epoch=0, ciphertext=b"x"
                )
            except NotAMemberError:
                refusals += 1
            except TransactionConflictError:
                pass  # it came and went while it was asked why

    async def remove_and_count() -> None:
        for _ in range(scaled(60, 3000)):
            await remove_member(pools[1], convo_id=convo_id, member_did=BOB)
            removed_at = await get_message_count(pools[1], convo_id=convo_id)
            await asyncio.sleep(random.uniform(0, 0.005))
            assert await get_message_count(pools[1], convo_id=convo_id) == removed_at
            await add_member(pools[1], convo_id=convo_id, member_did=BOB)
            await asyncio.sleep(random.uniform(0, 0.005))
        done.set()

    async with asyncio.TaskGroup() as group:
        for task in range(8):
            group.create_task(keep_sending(pools[task % 3]))
        group.create_task(remove_and_count())
    assert refusals
    assert await history(pools[0], convo_id)


# Epochs


async def test_a_send_is_let_in_from_the_current_epoch_back_to_its_window(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=0, new_epoch=10)
    for epoch, window, accepted in (
        (10, 0, True),
        (9, 0, False),
        (11, 0, False),
        (9, 1, True),
        (8, 1, False),
        (11, 3, False),
        (0, 10, True),
        (0, 2**63 - 1, True),
        (2**63 - 2, 2**63 - 1, False),
    ):
        results, errors = await at_once(
            [
                create_message(
                    pool,
                    convo_id=convo_id,
                    sender_did=ALICE,
                    epoch=epoch,
                    ciphertext=b"x",
                    epoch_window=window,
                )
            ]
        )
        assert [message.epoch for message in results] == ([epoch] if accepted else [])
        if not accepted:
            assert [type(error) for error in errors] == [StaleEpochError]
            assert errors[0].current_epoch == 10  # pyright: ignore[reportAttributeAccessIssue]
    assert len(await history(pool, convo_id)) == 4


async def test_a_send_that_waits_behind_a_commit_is_stale_and_told_the_new_epoch(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await commit_group_change(
            tx,
            convo_id=convo_id,
            sender_did=ALICE,
            message_id="commit",
            expected_epoch=0,
            commit=b"x",
        )
        alone = asyncio.create_task(send(pools[1], convo_id, BOB, "late"))
        batch = asyncio.create_task(send(pools[1], convo_id, BOB, "late1", "late2"))
        await until_waiting(pools[2], "append_message", "append_messages")
    for waiting in (alone, batch):
        with pytest.raises(StaleEpochError) as stale:
            await waiting
        assert stale.value.current_epoch == 1
    assert ids(await history(pools[0], convo_id)) == ["commit"]


# What else may be in the way


async def test_a_send_to_an_unknown_conversation_is_not_found(pool: Pool) -> None:
    for message_ids in (["m"], ["m", "n"]):
        with pytest.raises(NotFoundError):
            await send(pool, "nowhere", ALICE, *message_ids)


async def test_a_send_that_waits_behind_the_conversations_deletion_is_not_found(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        assert await delete_conversation(tx, convo_id=convo_id)
        late = [
            asyncio.create_task(act(pools[1], convo_id))
            for act in (send_alone, send_batch, send_commit)
        ]
        await until_waiting(pools[2], "append_message", "append_messages", "apply_commit")
    for one in late:
        with pytest.raises(NotFoundError):
            await one
    assert not await stored(pools[0], "SELECT FROM messages")


async def test_a_deletion_that_waits_behind_a_send_takes_its_message_too(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    async with transaction(pools[0]) as tx:
        await send(tx, convo_id, ALICE, "m")
        deletion = asyncio.create_task(delete_conversation(pools[1], convo_id=convo_id))
        await until_waiting(pools[2], "delete_conversation")
    assert await deletion
    assert not await stored(pools[0], "SELECT FROM messages")


async def test_a_send_that_waits_longer_than_lock_timeout_is_told_to_try_again(
    pools: list[Pool], catbird_database_url: str
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    hasty = Settings(database_url=catbird_database_url, db_lock_timeout=0.05)
    async with open_pool(hasty) as hasty_pool:
        async with transaction(pools[0]) as tx:
            await send(tx, convo_id, ALICE, "first")
            for message_ids in (["m"], ["m", "n"]):
                with pytest.raises(TransactionConflictError) as late:
                    await send(hasty_pool, convo_id, ALICE, *message_ids)
                assert late.value.sqlstate == "55P03"
        await send(hasty_pool, convo_id, ALICE, "m", "n")
    assert ids(await history(pools[0], convo_id)) == ["first", "m", "n"]


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
@SENDS
async def test_a_snapshot_older_than_another_send_conflicts_and_run_transaction_gets_through(
    pools: list[Pool], isolation: str, late: Act
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    tries = 0

    async def body(tx: Executor) -> object:
        nonlocal tries
        tries += 1
        await get_current_epoch(tx, convo_id=convo_id)  # takes the snapshot
        if tries <= 2:
            await send(pools[1], convo_id, ALICE, f"between{tries}")
        return await late(tx, convo_id)

    with pytest.raises(TransactionConflictError):
        async with transaction(pools[0], isolation=isolation) as tx:
            await body(tx)
    assert ids(await history(pools[0], convo_id)) == ["between1"]
    await run_transaction(pools[0], body, isolation=isolation)
    assert tries == 3
    senders = [message.sender_did for message in await history(pools[0], convo_id)]
    assert senders[:2] == [ALICE, ALICE]
    assert set(senders[2:]) == {BOB}


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_many_strict_transactions_on_one_conversation_all_get_through(
    pools: list[Pool], isolation: str
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    each = scaled(5, 100)

    async def one(task: int) -> None:
        for number in range(each):

            async def body(tx: Executor, number: int = number) -> None:
                epoch = await get_current_epoch(tx, convo_id=convo_id)
                await send(tx, convo_id, ALICE, f"{task}-{number}", epoch=epoch)
                await send(tx, convo_id, ALICE, f"{task}-{number}-x", f"{task}-{number}-y")

            await run_transaction(pools[task % 3], body, attempts=100, isolation=isolation)

    await asyncio.gather(*(one(task) for task in range(6)))
    assert len(await history(pools[0], convo_id)) == 6 * each * 3


async def test_a_commit_cannot_be_sent_as_a_message(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    with pytest.raises(InvalidArgumentError, match="message_type"):
        await create_message(
            pool,
            convo_id=convo_id,
            sender_did=ALICE,
            epoch=0,
            ciphertext=b"x",
            message_type="commit",  # pyright: ignore[reportArgumentType]
        )


async def test_a_message_without_an_id_gets_a_new_one_each_time(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    for _ in range(3):
        await create_message(pool, convo_id=convo_id, sender_did=ALICE, epoch=0, ciphertext=b"x")
    assert len(set(ids(await history(pool, convo_id)))) == 3


async def test_a_retry_of_an_older_message_does_not_turn_the_numbers_back(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    for message_id in ("m1", "m2", "m3", "m1", "m2"):
        await send(pool, convo_id, ALICE, message_id)
    await send(pool, convo_id, ALICE, "m4")
    assert ids(await history(pool, convo_id)) == ["m1", "m2", "m3", "m4"]


async def test_proposals_are_numbered_and_not_counted_as_unread(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    types = ("app", "proposal", "proposal", "app", "proposal")
    for message_type in types:
        await create_message(
            pool,
            convo_id=convo_id,
            sender_did=ALICE,
            epoch=0,
            ciphertext=b"x",
            message_type=message_type,
        )
    assert tuple(one.message_type for one in await history(pool, convo_id)) == types
    for did, unread in ((ALICE, 0), (BOB, 2)):
        page = await list_conversations(pool, member_did=did)
        assert [summary.unread_count for summary in page.items] == [unread]


@pytest.mark.parametrize("last", [["third"], ["third", "fourth"]])
async def test_sent_at_and_last_message_at_never_move_back(
    pools: list[Pool], last: list[str]
) -> None:
    """The last send began to wait, and so had its time, before the second was sent."""
    convo_id = await converse(pools[0], "c", ALICE)
    async with transaction(pools[0]) as tx:
        await send(tx, convo_id, ALICE, "first")
        waiting = asyncio.create_task(send(pools[1], convo_id, ALICE, *last))
        await until_waiting(pools[2], "append_messages" if last[1:] else "append_message")
        await send(tx, convo_id, ALICE, "second")
    await waiting
    messages = await history(pools[0], convo_id)
    assert ids(messages) == ["first", "second", *last]
    conversation = await get_conversation(pools[0], convo_id=convo_id)
    assert conversation is not None
    assert conversation.last_message_at == messages[-1].sent_at


# Connections that die


async def test_what_was_acknowledged_is_stored_once_though_backends_are_killed_at_random(
    pool: Pool, catbird_database_url: str
) -> None:
    """Writers repeat with the same ids until they are answered, as a client does."""
    convo_ids = [await converse(pool, f"c{number}", ALICE, BOB) for number in range(2)]
    acknowledged: dict[str, dict[str, Message]] = {convo_id: {} for convo_id in convo_ids}
    receipts: dict[str, list[tuple[str, int, int]]] = {convo_id: [] for convo_id in convo_ids}
    done = asyncio.Event()
    kills = answers = lost_replies = 0

    async def kill(chance: random.Random) -> None:
        nonlocal kills
        while not done.is_set():
            await asyncio.sleep(chance.uniform(0, 0.015))
            if answers < kills:  # on a slow machine, nothing would ever get through
                continue
            killed = await stored(
                pool,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'victim'"
                "   AND (state <> 'idle' OR random() < 0.1)"
                " ORDER BY random() LIMIT 1",
            )
            kills += len(killed)

    async def answered(call: Callable[[], Awaitable[list[Message]]]) -> None:
        async def counted() -> list[Message]:
            nonlocal answers, lost_replies
            try:
                answer = await call()
                answers += 1
                return answer
            except DatabaseConnectionError:
                lost_replies += 1
                raise

        for message in await insist(counted, DatabaseConnectionError):
            assert message.id not in acknowledged[message.convo_id]
            acknowledged[message.convo_id][message.id] = message

    async def write(victims: Pool, name: str, chance: random.Random) -> None:
        for number in range(scaled(50, 4000)):
            convo_id = chance.choice(convo_ids)

            def new(many: int, start: str = f"{name}-{number}-") -> list[str]:
                return [f"{start}{many}-{one}" for one in range(many)]

            async def alone(db: Executor = victims, convo_id: str = convo_id) -> list[Message]:
                return [
                    await create_message(
                        db,
                        convo_id=convo_id,
                        sender_did=ALICE,
                        epoch=0,
                        epoch_window=10**6,
                        ciphertext=new(1)[0].encode(),
                        message_id=new(1)[0],
                    )
                ]

            async def batch(db: Executor = victims, convo_id: str = convo_id) -> list[Message]:
                async def at_current_epoch() -> list[Message]:
                    epoch = await get_current_epoch(db, convo_id=convo_id)
                    return await send(db, convo_id, ALICE, *new(15), epoch=epoch)

                return await insist(at_current_epoch, StaleEpochError)

            async def both() -> list[Message]:
                async with transaction(victims) as tx:
                    return [*await alone(tx), *await batch(tx)]

            await answered(chance.choice([alone, batch, both]))

    async def commit(victims: Pool, convo_id: str) -> None:
        for epoch in range(scaled(50, 4000)):

            async def once(epoch: int = epoch) -> tuple[str, int, int]:
                receipt = await commit_group_change(
                    victims,
                    convo_id=convo_id,
                    sender_did=BOB,
                    message_id=f"commit-{epoch}",
                    expected_epoch=epoch,
                    commit=b"x",
                )
                return f"commit-{epoch}", receipt.seq, receipt.epoch

            receipts[convo_id].append(await insist(once, DatabaseConnectionError))

    settings = Settings(
        database_url=catbird_database_url, db_pool_max_size=5, db_application_name="victim"
    )
    async with open_pool(settings) as first, open_pool(settings) as second:
        killer = asyncio.create_task(kill(random.Random(0)))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    victims = (first, second)[number % 2]
                    group.create_task(write(victims, f"w{number}", random.Random(number)))
                for convo_id in convo_ids:
                    group.create_task(commit(first, convo_id))
        finally:
            done.set()
            await killer
        assert kills > 20
        assert lost_replies > 10
        for convo_id in convo_ids:
            messages = await history(pool, convo_id)
            apps = {one.id: one for one in messages if one.message_type == "app"}
            assert apps == acknowledged[convo_id]
            commits = [one for one in messages if one.message_type == "commit"]
            assert [(one.id, one.seq, one.epoch + 1) for one in commits] == receipts[convo_id]
        for victims in (first, second):  # and the pools go on working, with all connections
            _, errors = await at_once(
                get_current_epoch(victims, convo_id=convo_ids[0]) for _ in range(50)
            )
            assert not errors
            assert victims.waiting == 0
            async with asyncio.TaskGroup() as group, asyncio.timeout(5):
                together = asyncio.Barrier(victims.max_size)

                async def take(victims: Pool = victims, together: asyncio.Barrier = together):
                    async with transaction(victims):
                        await together.wait()

                for _ in range(victims.max_size):
                    group.create_task(take())


async def test_sends_cancelled_at_random_points_are_stored_once_when_repeated(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    cancelled = 0

    async def write(task: int) -> list[Message]:
        nonlocal cancelled
        chance, results = random.Random(task), list[Message]()
        for number in range(scaled(20, 2000)):
            message_ids = [f"{task}-{number}-{one}" for one in range(chance.choice((1, 1, 8)))]
            for tries in count(1):
                try:
                    async with asyncio.timeout(chance.uniform(0, 0.005 * tries)):
                        if chance.random() < 0.5:
                            answer = await send(pools[task % 3], convo_id, ALICE, *message_ids)
                        else:
                            async with transaction(pools[task % 3]) as tx:
                                answer = await send(tx, convo_id, ALICE, *message_ids)
                    break
                except TimeoutError:
                    cancelled += 1
            results += answer
        return results

    results, errors = await at_once(write(task) for task in range(8))
    assert not errors
    assert cancelled > 20
    everything = sorted((one for many in results for one in many), key=lambda one: one.seq)
    assert everything == await history(pools[0], convo_id)
