"""Commits: one wins each epoch, with all that it brings; of the others nothing is left."""

import asyncio
import random
from contextlib import suppress
from typing import Any

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
    until_waiting,
)
from scale import scaled

from catbird_db import (
    CommitReceipt,
    ConflictError,
    InvalidArgumentError,
    NewWelcome,
    NotAMemberError,
    NotFoundError,
    Pool,
    StaleEpochError,
    TransactionConflictError,
    WelcomeRecipient,
    acknowledge_welcome,
    add_member,
    commit_group_change,
    get_conversation,
    get_current_epoch,
    get_group_info,
    get_membership,
    is_member,
    list_commits,
    list_conversations,
    list_pending_welcomes,
    remove_member,
    transaction,
    update_conversation_epoch,
)
from catbird_db.pool import Executor

ALICE, BOB, CAROL, MALLORY = (f"did:plc:{name}" for name in ("alice", "bob", "carol", "mallory"))


async def commit(
    db: Executor, convo_id: str, did: str, epoch: int, message_id: str = "", **change: Any
) -> CommitReceipt:
    """A commit whose text is its id."""
    message_id = message_id or f"commit-{epoch}"
    return await commit_group_change(
        db,
        convo_id=convo_id,
        sender_did=did,
        message_id=message_id,
        expected_epoch=epoch,
        commit=message_id.encode(),
        **change,
    )


def welcome(data: bytes, *recipients: tuple[str, bytes]) -> NewWelcome:
    return NewWelcome(
        data=data,
        recipients=[WelcomeRecipient(did=did, key_package_ref=ref) for did, ref in recipients],
    )


async def active(pool: Pool, convo_id: str) -> list[str]:
    rows = await stored(
        pool,
        "SELECT member_did FROM members WHERE convo_id = $1 AND left_at IS NULL ORDER BY 1",
        convo_id,
    )
    return [row["member_did"] for row in rows]


async def everything(pool: Pool) -> list[list[Any]]:
    """All that the chat tables hold of conversations."""
    tables = [
        "conversations",
        "members",
        "messages",
        "welcomes",
        "welcome_recipients",
        "group_infos",
    ]
    return [await stored(pool, f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]


# One winner


async def test_of_16_racers_for_each_of_200_epochs_one_wins_and_nothing_of_a_loser_exists(
    pools: list[Pool],
) -> None:
    """Each racer adds somebody, removes somebody (who has a Welcome waiting), and brings a Welcome
    and a GroupInfo; every fourth comes from outside."""
    racers, epochs = 16, scaled(200, 3000)
    convo_id = await converse(pools[0], "c", *(f"did:racer:{racer}" for racer in range(racers)))
    victims = [f"did:victim:{epoch}:{racer}" for epoch in range(epochs) for racer in range(racers)]
    await stored(
        pools[0],
        "INSERT INTO members SELECT $1, did FROM unnest($2::text[]) did",
        convo_id,
        victims,
    )
    await stored(pools[0], "INSERT INTO welcomes VALUES ($1, 1, 99, 'waits')", convo_id)
    await stored(
        pools[0],
        "INSERT INTO welcome_recipients SELECT $1, 1, 99, did, 'ref' FROM unnest($2::text[]) did",
        convo_id,
        victims,
    )

    async def race(epoch: int, racer: int) -> tuple[int, CommitReceipt]:
        name, new = f"{epoch}:{racer}", f"did:new:{epoch}:{racer}"
        external = racer % 4 == 3
        receipt = await commit(
            pools[racer % 3],
            convo_id,
            new if external else f"did:racer:{racer}",
            epoch,
            name,
            add_dids=[new],
            remove_dids=[f"did:victim:{name}"],
            welcomes=[welcome(name.encode(), (new, b"device1"), (new, b"device2"))],
            group_info=name.encode(),
            external=external,
        )
        return racer, receipt

    winners: list[str] = []
    for epoch in range(epochs):
        order = random.Random(epoch).sample(range(racers), racers)
        won, lost = await at_once(race(epoch, racer) for racer in order)
        [(winner, receipt)] = won
        assert receipt == CommitReceipt(convo_id=convo_id, seq=epoch + 1, epoch=epoch + 1)
        assert len(lost) == racers - 1
        for error in lost:
            assert type(error) is StaleEpochError
            assert error.current_epoch == epoch + 1
        winners.append(f"{epoch}:{winner}")

    messages = await history(pools[0], convo_id)
    assert ids(messages) == winners
    assert [message.epoch for message in messages] == list(range(epochs))
    assert len({name.split(":")[1] for name in winners}) > 4  # it was a race
    removed = {f"did:victim:{name}" for name in winners}
    added = {f"did:new:{name}" for name in winners}
    founders = {f"did:racer:{racer}" for racer in range(racers)}
    assert set(await active(pools[0], convo_id)) == founders | added | set(victims) - removed
    assert len(await stored(pools[0], "SELECT FROM members")) == len(founders) + len(added) + len(
        victims
    )
    welcomes = await stored(
        pools[0], "SELECT data, epoch FROM welcomes WHERE ordinal < 99 ORDER BY epoch"
    )
    assert [tuple(row) for row in welcomes] == [
        (name.encode(), number) for number, name in enumerate(winners, start=1)
    ]
    recipients = await stored(
        pools[0],
        "SELECT recipient_did, epoch FROM welcome_recipients WHERE ordinal < 99 ORDER BY epoch",
    )
    assert [tuple(row) for row in recipients] == [
        (f"did:new:{name}", number) for number, name in enumerate(winners, start=1) for _ in "12"
    ]
    waiting = await stored(
        pools[0], "SELECT recipient_did FROM welcome_recipients WHERE ordinal = 99"
    )
    assert {row["recipient_did"] for row in waiting} == set(victims) - removed
    info = await get_group_info(pools[0], convo_id=convo_id)
    assert info is not None
    assert (info.epoch, info.data) == (epochs, winners[-1].encode())


async def test_commits_and_sends_at_once_leave_each_message_in_its_epoch(
    pools: list[Pool],
) -> None:
    """A message of an epoch stands after the commit that opened it and before the one that ends it."""
    committers, senders = [f"did:c:{i}" for i in range(4)], [f"did:s:{i}" for i in range(6)]
    convo_id = await converse(pools[0], "c", *committers, *senders)
    each = scaled(40, 2000)
    stale = 0

    async def keep_committing(number: int) -> None:
        nonlocal stale
        epoch = 0
        for turn in range(each):
            while True:
                try:
                    receipt = await commit(
                        pools[number % 3], convo_id, committers[number], epoch, f"{number}-{turn}"
                    )
                    epoch = receipt.epoch
                    break
                except StaleEpochError as error:
                    stale += 1
                    epoch = error.current_epoch
            await asyncio.sleep(0.003)

    async def keep_sending(number: int) -> None:
        nonlocal stale
        epoch = 0
        for turn in range(each):
            message_ids = [f"s{number}-{turn}-{one}" for one in range(random.choice((1, 1, 5)))]
            while True:
                try:
                    await send(
                        pools[number % 3], convo_id, senders[number], *message_ids, epoch=epoch
                    )
                    break
                except StaleEpochError as error:
                    stale += 1
                    epoch = error.current_epoch

    await asyncio.gather(
        *(keep_committing(number) for number in range(4)),
        *(keep_sending(number) for number in range(6)),
    )
    assert stale
    epoch = 0
    for message in await history(pools[0], convo_id):
        assert message.epoch == epoch
        epoch += message.message_type == "commit"
    assert epoch == 4 * each == await get_current_epoch(pools[0], convo_id=convo_id)


async def test_of_16_who_move_the_epoch_at_once_one_does(pools: list[Pool]) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    epoch = 0
    for turn in range(scaled(20, 1000)):
        jumps = random.Random(turn).sample(range(1, 100), 16)
        won, lost = await at_once(
            update_conversation_epoch(
                pools[racer % 3],
                convo_id=convo_id,
                expected_epoch=epoch,
                new_epoch=epoch + jump,
            )
            for racer, jump in enumerate(jumps)
        )
        [conversation] = won
        assert len(lost) == 15
        for error in lost:
            assert type(error) is StaleEpochError
            assert error.current_epoch == conversation.current_epoch
        epoch = conversation.current_epoch
    assert await get_current_epoch(pools[0], convo_id=convo_id) == epoch


async def test_the_epoch_never_moves_back(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=0, new_epoch=5)
    for expected, new in ((5, 5), (5, 4), (7, 6)):
        with pytest.raises(InvalidArgumentError, match="new_epoch"):
            await update_conversation_epoch(
                pool, convo_id=convo_id, expected_epoch=expected, new_epoch=new
            )
    with pytest.raises(StaleEpochError) as stale:
        await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=6, new_epoch=7)
    assert stale.value.current_epoch == 5
    with pytest.raises(NotFoundError):
        await update_conversation_epoch(pool, convo_id="nowhere", expected_epoch=0, new_epoch=1)
    assert await get_current_epoch(pool, convo_id=convo_id) == 5


async def test_a_commit_in_the_future_or_the_past_is_stale(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=0, new_epoch=5)
    before = await everything(pool)
    for epoch in (0, 4, 6, 2**63 - 2):
        with pytest.raises(StaleEpochError) as stale:
            await commit(pool, convo_id, ALICE, epoch, "x", add_dids=[BOB], group_info=b"x")
        assert stale.value.current_epoch == 5
    assert await everything(pool) == before
    with pytest.raises(NotFoundError):
        await commit(pool, "nowhere", ALICE, 0)


# A retry


async def test_the_same_commit_from_32_tasks_at_once_is_one_row_and_32_equal_receipts(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    for epoch in range(scaled(10, 500)):
        receipts, errors = await at_once(
            commit(
                pools[task % 3],
                convo_id,
                ALICE,
                epoch,
                add_dids=[f"did:{epoch}"],
                welcomes=[welcome(b"w", (f"did:{epoch}", b"ref"))],
                group_info=b"g",
            )
            for task in range(32)
        )
        assert not errors
        assert receipts == [CommitReceipt(convo_id=convo_id, seq=epoch + 1, epoch=epoch + 1)] * 32
        assert len(await history(pools[0], convo_id)) == epoch + 1
        assert len(await stored(pools[0], "SELECT FROM welcome_recipients")) == epoch + 1


@pytest.mark.parametrize("position", ["first", "between"])
async def test_the_same_commit_inside_32_transactions_leaves_no_gap_and_aborts_none(
    pools: list[Pool], position: str
) -> None:
    """Every fourth rolls back, also the one that came first; the others all commit."""
    convo_id = await converse(pools[0], "c", ALICE)
    epochs = scaled(4, 200)
    own: list[str] = []

    async def one(epoch: int, task: int) -> CommitReceipt | None:
        mine = f"own-{epoch}-{task}"
        with suppress(Undo):
            async with transaction(pools[task % 3]) as tx:
                if position == "between":
                    await converse(tx, mine, ALICE)  # pyright: ignore[reportArgumentType]
                receipt = await commit(tx, convo_id, ALICE, epoch, add_dids=[f"did:{epoch}"])
                await send(tx, convo_id, ALICE, mine, epoch=epoch + 1)
                if task % 4 == 0:
                    raise Undo
            own.append(mine)
            return receipt
        return None

    for epoch in range(epochs):
        results, errors = await at_once(one(epoch, task) for task in range(32))
        assert not errors
        receipts = [result for result in results if result]
        assert len(receipts) == 24
        assert set(map(repr, receipts)) == {repr(receipts[0])}
        assert receipts[0].epoch == epoch + 1
    commits = [f"commit-{epoch}" for epoch in range(epochs)]
    assert sorted(ids(await history(pools[0], convo_id))) == sorted([*commits, *own])


async def test_a_retry_of_a_commit_brings_nothing_again(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, CAROL)
    change = {
        "add_dids": [BOB],
        "remove_dids": [CAROL],
        "welcomes": [welcome(b"w", (BOB, b"ref"))],
        "group_info": b"g1",
    }
    first = await commit(pool, convo_id, ALICE, 0, "retried", **change)
    await acknowledge_welcome(pool, convo_id=convo_id, recipient_did=BOB, key_package_ref=b"ref")
    await commit(pool, convo_id, ALICE, 1, add_dids=[CAROL], remove_dids=[BOB], group_info=b"g2")
    before = await everything(pool)
    for epoch in (0, 1, 2, 50):  # whatever epoch the retry names
        assert await commit(pool, convo_id, ALICE, epoch, "retried", **change) == first
    assert await everything(pool) == before


async def test_a_commit_that_waits_while_its_twin_is_stored_gets_the_receipt_of_the_twin(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    async with transaction(pools[0]) as tx:
        twin = await commit(tx, convo_id, ALICE, 0)
        await commit(tx, convo_id, ALICE, 1)
        waiting = asyncio.create_task(commit(pools[1], convo_id, ALICE, 0))
        await until_waiting(pools[2], "apply_commit")
    assert await waiting == twin
    assert len(await history(pools[0], convo_id)) == 2


async def test_a_commit_that_waits_behind_one_that_rolls_back_wins(pools: list[Pool]) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    with suppress(Undo):
        async with transaction(pools[0]) as tx:
            await commit(tx, convo_id, ALICE, 0, "first", add_dids=[CAROL])
            waiting = asyncio.create_task(commit(pools[1], convo_id, BOB, 0, "second"))
            await until_waiting(pools[2], "apply_commit")
            raise Undo
    assert await waiting == CommitReceipt(convo_id=convo_id, seq=1, epoch=1)
    assert await active(pools[0], convo_id) == [ALICE, BOB]


# What a commit brings


async def test_a_welcome_is_stored_once_and_listed_for_each_device_until_acknowledged(
    pool: Pool,
) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await commit(
        pool,
        convo_id,
        ALICE,
        0,
        add_dids=[BOB, CAROL],
        welcomes=[
            welcome(b"one", (BOB, b"phone"), (BOB, b"laptop"), (CAROL, b"phone")),
            welcome(b"two", (CAROL, b"tablet"), (ALICE, b"new device")),
        ],
    )
    rows = await stored(pool, "SELECT data, epoch, ordinal FROM welcomes ORDER BY ordinal")
    assert [tuple(row) for row in rows] == [(b"one", 1, 1), (b"two", 1, 2)]

    async def pending(did: str) -> list[tuple[bytes, bytes, int]]:
        page = await list_pending_welcomes(pool, recipient_did=did)
        return sorted((one.key_package_ref, one.data, one.epoch) for one in page.items)

    assert await pending(BOB) == [(b"laptop", b"one", 1), (b"phone", b"one", 1)]
    assert await pending(BOB) == [(b"laptop", b"one", 1), (b"phone", b"one", 1)]
    assert await pending(CAROL) == [(b"phone", b"one", 1), (b"tablet", b"two", 1)]
    assert await pending(ALICE) == [(b"new device", b"two", 1)]

    async def acknowledge(did: str, ref: bytes) -> bool:
        return await acknowledge_welcome(
            pool, convo_id=convo_id, recipient_did=did, key_package_ref=ref
        )

    assert not await acknowledge(MALLORY, b"phone")
    assert not await acknowledge(BOB, b"tablet")
    assert await acknowledge(BOB, b"phone")
    assert not await acknowledge(BOB, b"phone")
    assert await pending(BOB) == [(b"laptop", b"one", 1)]
    assert await pending(CAROL) == [(b"phone", b"one", 1), (b"tablet", b"two", 1)]


async def test_members_join_leave_and_rejoin_with_the_commit(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await send(pool, convo_id, ALICE, "m1", "m2")
    joined_before = await get_membership(pool, convo_id=convo_id, member_did=BOB)
    await commit(pool, convo_id, ALICE, 0, add_dids=[BOB, CAROL])
    assert await get_membership(pool, convo_id=convo_id, member_did=BOB) == joined_before
    carol = await get_membership(pool, convo_id=convo_id, member_did=CAROL)
    assert carol is not None
    assert (carol.left_at, carol.read_seq) == (None, 3)
    await commit(pool, convo_id, ALICE, 1, remove_dids=[CAROL, BOB, MALLORY])
    assert await active(pool, convo_id) == [ALICE]
    assert await get_membership(pool, convo_id=convo_id, member_did=MALLORY) is None
    gone = await get_membership(pool, convo_id=convo_id, member_did=CAROL)
    assert gone is not None
    assert gone.left_at is not None
    assert gone.joined_at == carol.joined_at
    await send(pool, convo_id, ALICE, "m3", "m4", "m5", epoch=2)
    await commit(pool, convo_id, ALICE, 2, add_dids=[CAROL])
    again = await get_membership(pool, convo_id=convo_id, member_did=CAROL)
    assert again is not None
    assert again.left_at is None
    assert again.joined_at > carol.joined_at
    page = await list_conversations(pool, member_did=CAROL)
    assert [summary.unread_count for summary in page.items] == [0]


async def test_a_removal_withdraws_the_welcomes_that_wait_for_the_removed(pool: Pool) -> None:
    for convo_id in ("c", "other"):
        await converse(pool, convo_id, ALICE)
        await commit(
            pool,
            convo_id,
            ALICE,
            0,
            add_dids=[BOB, CAROL],
            welcomes=[welcome(b"w", (BOB, b"phone"), (BOB, b"laptop"), (CAROL, b"phone"))],
        )
    await acknowledge_welcome(pool, convo_id="c", recipient_did=BOB, key_package_ref=b"phone")
    with pytest.raises(StaleEpochError):  # a loser withdraws nothing
        await commit(pool, "c", CAROL, 0, "loser", remove_dids=[BOB])
    assert len((await list_pending_welcomes(pool, recipient_did=BOB)).items) == 3
    await commit(pool, "c", ALICE, 1, remove_dids=[BOB])
    left = await stored(
        pool,
        "SELECT convo_id, recipient_did, key_package_ref FROM welcome_recipients ORDER BY 1, 2, 3",
    )
    assert [tuple(row) for row in left] == [
        ("c", BOB, b"phone"),  # acknowledged: a fact
        ("c", CAROL, b"phone"),
        ("other", BOB, b"laptop"),
        ("other", BOB, b"phone"),
        ("other", CAROL, b"phone"),
    ]


async def test_a_removal_that_waits_behind_a_commit_withdraws_the_welcome_that_it_brought(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await commit(tx, convo_id, ALICE, 0, welcomes=[welcome(b"w", (BOB, b"new device"))])
        waiting = asyncio.create_task(remove_member(pools[1], convo_id=convo_id, member_did=BOB))
        await until_waiting(pools[2], "remove_member")
    assert await waiting
    assert not (await list_pending_welcomes(pools[0], recipient_did=BOB)).items


async def test_group_info_only_moves_forward(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)

    async def info() -> tuple[int, bytes] | None:
        found = await get_group_info(pool, convo_id=convo_id)
        return found and (found.epoch, found.data)

    assert await info() is None
    await commit(pool, convo_id, ALICE, 0)
    assert await info() is None
    await commit(pool, convo_id, ALICE, 1, group_info=b"two")
    assert await info() == (2, b"two")
    await commit(pool, convo_id, ALICE, 2)
    assert await info() == (2, b"two")  # none was brought: the last one stays
    with pytest.raises(StaleEpochError):
        await commit(pool, convo_id, ALICE, 2, "loser", group_info=b"loser")
    assert await info() == (2, b"two")
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=3, new_epoch=10)
    assert await info() == (2, b"two")
    await commit(pool, convo_id, ALICE, 10, group_info=b"eleven")
    assert await info() == (11, b"eleven")
    await stored(pool, "UPDATE group_infos SET epoch = 12")
    await commit(pool, convo_id, ALICE, 11, group_info=b"not newer")
    assert await info() == (12, b"eleven")
    await commit(pool, convo_id, ALICE, 12, group_info=b"thirteen")
    assert await info() == (13, b"thirteen")


async def test_a_commit_in_a_transaction_that_rolls_back_leaves_nothing(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await commit(pool, convo_id, ALICE, 0, welcomes=[welcome(b"w", (BOB, b"ref"))], group_info=b"1")
    before = await everything(pool)
    change = {
        "add_dids": [CAROL],
        "remove_dids": [BOB],
        "welcomes": [welcome(b"w", (CAROL, b"ref"))],
        "group_info": b"2",
    }
    with suppress(Undo):
        async with transaction(pool) as tx:
            await commit(tx, convo_id, ALICE, 1, **change)
            raise Undo
    assert await everything(pool) == before
    async with transaction(pool) as tx:
        with suppress(Undo):
            async with transaction(tx) as savepoint:
                await commit(savepoint, convo_id, ALICE, 1, **change)
                raise Undo
        await commit(tx, convo_id, ALICE, 1, "kept")
    assert await active(pool, convo_id) == [ALICE, BOB]
    assert ids(await history(pool, convo_id)) == ["commit-0", "kept"]


@pytest.mark.parametrize("owner", [ALICE, BOB])
@pytest.mark.parametrize("text", [b"taken", b"other"])
async def test_a_taken_message_id_refuses_a_commit_which_leaves_nothing(
    pool: Pool, owner: str, text: bytes
) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB, CAROL)
    await send(pool, convo_id, owner, "taken")
    await commit(pool, convo_id, BOB, 0, "taken too")
    before = await everything(pool)
    async with transaction(pool) as tx:
        for message_id in ("taken", "taken too"):
            with pytest.raises(ConflictError) as refused:
                await commit_group_change(
                    tx,
                    convo_id=convo_id,
                    sender_did=ALICE,
                    message_id=message_id,
                    expected_epoch=1,
                    commit=text,
                    add_dids=[MALLORY],
                    remove_dids=[CAROL],
                    welcomes=[welcome(b"w", (MALLORY, b"ref"))],
                    group_info=b"g",
                )
            assert "did:plc" not in everything_told(refused.value)
            assert "taken too" not in everything_told(refused.value)
        assert await everything(pool) == before
        await commit(tx, convo_id, ALICE, 1, "free")  # the transaction goes on
    assert ids(await history(pool, convo_id)) == ["taken", "taken too", "free"]


async def test_a_commit_whose_id_a_send_takes_while_it_waits_is_refused(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await send(tx, convo_id, BOB, "m")
        waiting = asyncio.create_task(commit(pools[1], convo_id, ALICE, 0, "m", add_dids=[CAROL]))
        await until_waiting(pools[2], "apply_commit")
    with pytest.raises(ConflictError):
        await waiting
    assert ids(await history(pools[0], convo_id)) == ["m"]
    assert await active(pools[0], convo_id) == [ALICE, BOB]
    assert await get_current_epoch(pools[0], convo_id=convo_id) == 0


async def test_the_id_of_a_commit_is_taken_for_messages(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await commit(pool, convo_id, ALICE, 0, "m")
    for message_ids in (["m"], ["m", "n"]):
        with pytest.raises(ConflictError):
            await send(pool, convo_id, ALICE, *message_ids, epoch=1)
    assert ids(await history(pool, convo_id)) == ["m"]


# Who may commit


async def test_who_is_not_a_member_commits_nothing(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await remove_member(pool, convo_id=convo_id, member_did=BOB)
    before = await everything(pool)
    for did in (BOB, MALLORY):
        for change in ({}, {"add_dids": [did]}, {"add_dids": [CAROL], "remove_dids": [ALICE]}):
            for epoch in (0, 3):
                with pytest.raises(NotAMemberError):
                    await commit(pool, convo_id, did, epoch, **change)
    assert await everything(pool) == before


async def test_an_external_commit_lets_its_sender_in(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    receipt = await commit(pool, convo_id, CAROL, 0, "x", add_dids=[CAROL], external=True)
    assert receipt == CommitReceipt(convo_id=convo_id, seq=1, epoch=1)
    assert await commit(pool, convo_id, CAROL, 0, "x", add_dids=[CAROL], external=True) == receipt
    await send(pool, convo_id, CAROL, "m", epoch=1)
    await commit(pool, convo_id, ALICE, 1, remove_dids=[CAROL])
    await commit(pool, convo_id, CAROL, 2, add_dids=[CAROL], external=True)  # back again
    await commit(pool, convo_id, ALICE, 3, add_dids=[ALICE], external=True)  # a lost device, say
    assert await active(pool, convo_id) == [ALICE, BOB, CAROL]
    assert len(await history(pool, convo_id)) == 5


async def test_external_commits_and_those_of_members_race_for_the_epoch(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await commit(tx, convo_id, ALICE, 0)
        waiting = asyncio.create_task(
            commit(pools[1], convo_id, CAROL, 0, "x", add_dids=[CAROL], external=True)
        )
        await until_waiting(pools[2], "apply_commit")
    with pytest.raises(StaleEpochError) as stale:
        await waiting
    assert stale.value.current_epoch == 1
    async with transaction(pools[0]) as tx:
        await commit(tx, convo_id, CAROL, 1, "y", add_dids=[CAROL], external=True)
        waiting = asyncio.create_task(commit(pools[1], convo_id, BOB, 1, "z"))
        await until_waiting(pools[2], "apply_commit")
    with pytest.raises(StaleEpochError) as stale:
        await waiting
    assert stale.value.current_epoch == 2
    assert ids(await history(pools[0], convo_id)) == ["commit-0", "y"]


async def test_an_external_commit_of_an_unknown_conversation_is_not_found(pool: Pool) -> None:
    with pytest.raises(NotFoundError):
        await commit(pool, "nowhere", CAROL, 0, add_dids=[CAROL], external=True)


async def test_a_retry_of_an_external_commit_by_one_removed_since_is_refused(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE)
    await commit(pool, convo_id, CAROL, 0, "x", add_dids=[CAROL], external=True)
    await commit(pool, convo_id, ALICE, 1, remove_dids=[CAROL])
    with pytest.raises(NotAMemberError):
        await commit(pool, convo_id, CAROL, 0, "x", add_dids=[CAROL], external=True)
    assert await active(pool, convo_id) == [ALICE]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"external": True}, "external"),
        ({"external": True, "add_dids": [CAROL]}, "external"),
        ({"add_dids": [CAROL, CAROL]}, "distinct"),
        ({"remove_dids": [BOB, BOB]}, "distinct"),
        ({"add_dids": [BOB], "remove_dids": [BOB]}, "disjoint"),
        ({"remove_dids": [ALICE]}, "itself"),
        ({"welcomes": [welcome(b"w", (CAROL, b"r"), (CAROL, b"r"))]}, "twice"),
        ({"welcomes": [welcome(b"w", (CAROL, b"r")), welcome(b"x", (CAROL, b"r"))]}, "twice"),
        ({"add_dids": [""]}, "add_dids"),
        ({"remove_dids": "did:plc:bob"}, "remove_dids"),
        ({"group_info": b""}, "group_info"),
    ],
)
async def test_a_contradictory_commit_is_refused_before_anything_is_sent(
    pool: Pool, change: dict[str, Any], says: str
) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    before = await everything(pool)
    async with transaction(pool, readonly=True) as tx:  # a statement would be refused otherwise
        with pytest.raises(InvalidArgumentError, match=says) as refused:
            await commit(tx, convo_id, ALICE, 0, **change)
    assert isinstance(refused.value, ValueError)
    assert await everything(pool) == before


async def test_a_loser_goes_on_in_its_transaction(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    await commit(pool, convo_id, BOB, 0)
    async with transaction(pool) as tx:
        with pytest.raises(StaleEpochError) as stale:
            await commit(tx, convo_id, ALICE, 0, "late", add_dids=[CAROL])
        with pytest.raises(NotAMemberError):
            await commit(tx, convo_id, MALLORY, stale.value.current_epoch, "stranger")
        await commit(tx, convo_id, ALICE, stale.value.current_epoch, "again", add_dids=[CAROL])
    assert ids(await history(pool, convo_id)) == ["commit-0", "again"]


# Members that change by other means at the same time


async def test_a_commit_and_remove_member_of_the_same_member_never_deadlock(
    pools: list[Pool],
) -> None:
    """Held up at the Welcome that both withdraw, the commit first."""
    convo_id = await converse(pools[0], "c", ALICE)
    await commit(
        pools[0], convo_id, ALICE, 0, add_dids=[BOB], welcomes=[welcome(b"w", (BOB, b"ref"))]
    )
    with suppress(Undo):
        async with transaction(pools[0]) as tx:
            await acknowledge_welcome(
                tx, convo_id=convo_id, recipient_did=BOB, key_package_ref=b"ref"
            )
            first = asyncio.create_task(commit(pools[1], convo_id, ALICE, 1, remove_dids=[BOB]))
            await until_waiting(pools[2], "apply_commit")
            second = asyncio.create_task(remove_member(pools[1], convo_id=convo_id, member_did=BOB))
            await until_waiting(pools[2], "apply_commit", "remove_member")
            raise Undo
    _, errors = await at_once([first, second])  # type: ignore[list-item]
    assert not errors
    assert await active(pools[0], convo_id) == [ALICE]


async def test_removals_and_commits_of_the_same_members_at_random_never_deadlock(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE)
    dids = [f"did:{number}" for number in range(4)]
    epoch = 0
    for turn in range(scaled(40, 2000)):
        receipt = await commit(
            pools[0],
            convo_id,
            ALICE,
            epoch,
            add_dids=dids,
            welcomes=[welcome(b"w", *((did, f"{turn}{n}".encode()) for did in dids for n in "ab"))],
        )
        calls: list[Any] = [
            commit(pools[1], convo_id, ALICE, receipt.epoch, remove_dids=dids),
            *(remove_member(pools[2], convo_id=convo_id, member_did=did) for did in dids),
            *(
                acknowledge_welcome(
                    pools[0],
                    convo_id=convo_id,
                    recipient_did=did,
                    key_package_ref=f"{turn}a".encode(),
                )
                for did in dids
            ),
        ]
        random.Random(turn).shuffle(calls)
        _, errors = await at_once(calls)
        assert not errors
        assert await active(pools[0], convo_id) == [ALICE]
        epoch = receipt.epoch + 1


async def test_adding_a_member_and_then_sending_never_deadlocks_with_a_commit_that_adds_it(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await add_member(tx, convo_id=convo_id, member_did=CAROL)
        waiting = asyncio.create_task(commit(pools[1], convo_id, BOB, 0, add_dids=[CAROL]))
        await until_waiting(pools[2], "apply_commit")
        await send(tx, convo_id, ALICE, "carol is here")
    await waiting
    assert ids(await history(pools[0], convo_id)) == ["carol is here", "commit-0"]


async def test_removing_a_member_and_then_sending_never_deadlocks_with_its_own_send(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await remove_member(tx, convo_id=convo_id, member_did=BOB)
        waiting = asyncio.create_task(send(pools[1], convo_id, BOB, "late"))
        await until_waiting(pools[2], "append_message")
        await send(tx, convo_id, ALICE, "bob has left")
    with pytest.raises(NotAMemberError):
        await waiting
    assert ids(await history(pools[0], convo_id)) == ["bob has left"]


async def test_a_commit_that_waits_adds_also_one_who_left_while_it_waited(
    pools: list[Pool],
) -> None:
    convo_id = await converse(pools[0], "c", ALICE, BOB)
    async with transaction(pools[0]) as tx:
        await send(tx, convo_id, ALICE, "m")
        await remove_member(tx, convo_id=convo_id, member_did=BOB)
        waiting = asyncio.create_task(commit(pools[1], convo_id, ALICE, 0, add_dids=[BOB]))
        await until_waiting(pools[2], "apply_commit")
    await waiting
    assert await is_member(pools[0], convo_id=convo_id, member_did=BOB)


async def test_a_welcome_for_one_whom_the_same_commit_removes_is_refused(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    with pytest.raises(InvalidArgumentError):
        await commit(
            pool, convo_id, ALICE, 0, remove_dids=[BOB], welcomes=[welcome(b"w", (BOB, b"ref"))]
        )


# Reading them


async def test_list_commits_gives_those_from_an_epoch_on_oldest_first(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    for epoch in (0, 1, 2):
        await commit(pool, convo_id, ALICE, epoch)
        await send(pool, convo_id, ALICE, f"m{epoch}", epoch=epoch + 1)
    await update_conversation_epoch(pool, convo_id=convo_id, expected_epoch=3, new_epoch=20)
    await commit(pool, convo_id, BOB, 20)
    messages = await history(pool, convo_id)

    async def found(from_epoch: int, limit: int = 100) -> list[str]:
        commits = await list_commits(
            pool, convo_id=convo_id, reader_did=BOB, from_epoch=from_epoch, limit=limit
        )
        assert all(one in messages and one.message_type == "commit" for one in commits)
        return ids(commits)

    assert await found(0) == ["commit-0", "commit-1", "commit-2", "commit-20"]
    assert await found(2) == ["commit-2", "commit-20"]
    assert await found(3) == ["commit-20"]
    assert await found(21) == []
    assert await found(2**63 - 2) == []
    assert await found(1, limit=2) == ["commit-1", "commit-2"]


async def test_a_loser_that_catches_up_by_list_commits_gets_in_at_the_next_epoch(
    pools: list[Pool],
) -> None:
    """What the error tells a client to do: 8 clients that each want one commit in, and get it."""
    dids = [f"did:{number}" for number in range(8)]
    convo_id = await converse(pools[0], "c", *dids)

    async def client(number: int) -> None:
        epoch, known = 0, list[str]()

        async def once() -> CommitReceipt:
            nonlocal epoch
            try:
                return await commit(pools[number % 3], convo_id, dids[number], epoch, f"c{number}")
            except StaleEpochError:
                news = await list_commits(
                    pools[number % 3], convo_id=convo_id, reader_did=dids[number], from_epoch=epoch
                )
                assert [one.epoch for one in news] == list(range(epoch, epoch + len(news)))
                known.extend(ids(news))
                epoch += len(news)
                raise

        receipt = await insist(once, StaleEpochError)
        assert receipt.epoch == len(known) + 1

    await asyncio.gather(*(client(number) for number in range(8)))
    assert sorted(ids(await history(pools[0], convo_id))) == [f"c{number}" for number in range(8)]
    conversation = await get_conversation(pools[0], convo_id=convo_id)
    assert conversation is not None
    assert conversation.current_epoch == 8


async def test_a_commit_under_an_older_snapshot_conflicts_and_leaves_nothing(pool: Pool) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    async with pool.connection() as tx:
        await tx.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert await get_current_epoch(tx, convo_id=convo_id) == 0
        await commit(pool, convo_id, BOB, 0, "first")
        with pytest.raises(TransactionConflictError):
            await commit(tx, convo_id, ALICE, 0, "second", add_dids=[CAROL])
        await tx.execute("ROLLBACK")
    assert ids(await history(pool, convo_id)) == ["first"]
    assert await active(pool, convo_id) == [ALICE, BOB]
