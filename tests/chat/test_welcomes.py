"""Welcomes wait for each device until it has joined, and for nobody else."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
from actors import Undo, at_once, converse, stored

from catbird_db import (
    NewWelcome,
    Page,
    Pool,
    Welcome,
    WelcomeRecipient,
    acknowledge_welcome,
    commit_group_change,
    get_current_epoch,
    list_pending_welcomes,
    remove_member,
    transaction,
)
from catbird_db.pool import Executor

ALICE, BOB, CAROL, DAVE = "did:plc:alice", "did:plc:bob", "did:plc:carol", "did:plc:dave"


async def add(
    db: Executor,
    convo_id: str,
    *welcomes: tuple[bytes, Sequence[tuple[str, bytes]]],
    remove: Sequence[str] = (),
) -> int:
    """Commit with Welcomes, each for devices of some DIDs; the new epoch."""
    epoch = await get_current_epoch(db, convo_id=convo_id)
    receipt = await commit_group_change(
        db,
        convo_id=convo_id,
        sender_did=ALICE,
        message_id=f"commit {epoch}",
        expected_epoch=epoch,
        commit=b"commit",
        remove_dids=remove,
        welcomes=[
            NewWelcome(
                data=data,
                recipients=[WelcomeRecipient(did=did, key_package_ref=ref) for did, ref in devices],
            )
            for data, devices in welcomes
        ],
    )
    return receipt.epoch


async def waiting(db: Executor, did: str) -> list[Welcome]:
    return (await list_pending_welcomes(db, recipient_did=did)).items


async def acknowledge(db: Executor, did: str, ref: bytes, convo_id: str = "c") -> bool:
    return await acknowledge_welcome(db, convo_id=convo_id, recipient_did=did, key_package_ref=ref)


def welcome(data: bytes, ref: bytes, epoch: int = 1, convo_id: str = "c") -> Welcome:
    return Welcome(convo_id=convo_id, epoch=epoch, data=data, key_package_ref=ref)


async def test_a_welcome_is_shown_to_each_device_until_that_device_acknowledges_it(
    catbird_pool: Pool,
) -> None:
    await converse(catbird_pool, "c", ALICE)
    await add(
        catbird_pool,
        "c",
        (b"for bob", [(BOB, b"phone"), (BOB, b"laptop")]),
        (b"for two", [(BOB, b"tablet"), (CAROL, b"phone")]),
    )
    of_bob = [
        welcome(b"for bob", b"laptop"),
        welcome(b"for bob", b"phone"),
        welcome(b"for two", b"tablet"),
    ]
    for _ in range(3):
        assert await waiting(catbird_pool, BOB) == of_bob
    assert await waiting(catbird_pool, CAROL) == [welcome(b"for two", b"phone")]

    assert await acknowledge(catbird_pool, BOB, b"phone") is True
    assert await waiting(catbird_pool, BOB) == [of_bob[0], of_bob[2]]
    assert await waiting(catbird_pool, CAROL) == [welcome(b"for two", b"phone")]
    assert await acknowledge(catbird_pool, BOB, b"phone") is False
    assert await acknowledge(catbird_pool, BOB, b"tablet") is True
    assert await waiting(catbird_pool, BOB) == [of_bob[0]]
    assert await waiting(catbird_pool, CAROL) == [welcome(b"for two", b"phone")]
    assert len(await stored(catbird_pool, "SELECT FROM welcomes")) == 2


async def test_nobody_but_its_recipient_sees_or_acknowledges_a_welcome(catbird_pool: Pool) -> None:
    await converse(catbird_pool, "c", ALICE, CAROL)
    await converse(catbird_pool, "d", ALICE)
    await add(catbird_pool, "c", (b"welcome", [(BOB, b"phone"), (DAVE, b"dave's")]))
    for other in (ALICE, CAROL, DAVE, "did:plc:stranger"):
        assert welcome(b"welcome", b"phone") not in await waiting(catbird_pool, other)
        assert await acknowledge(catbird_pool, other, b"phone") is False
    assert await acknowledge(catbird_pool, BOB, b"dave's") is False
    assert await acknowledge(catbird_pool, BOB, b"phone", "d") is False
    assert await acknowledge(catbird_pool, BOB, b"phon") is False
    assert await waiting(catbird_pool, BOB) == [welcome(b"welcome", b"phone")]
    assert await waiting(catbird_pool, DAVE) == [welcome(b"welcome", b"dave's")]
    assert await waiting(catbird_pool, ALICE) == []


async def test_of_those_who_acknowledge_at_once_one_is_told_that_it_did(pools: list[Pool]) -> None:
    await converse(pools[0], "c", ALICE)
    await add(pools[0], "c", (b"welcome", [(BOB, b"phone"), (BOB, b"laptop")]))
    answers, errors = await at_once(
        acknowledge(pools[number % 3], BOB, b"phone") for number in range(16)
    )
    assert sorted(answers) == [False] * 15 + [True]
    assert errors == []
    assert await waiting(pools[0], BOB) == [welcome(b"welcome", b"laptop")]


async def test_an_acknowledgement_that_is_rolled_back_leaves_the_welcome_waiting(
    catbird_pool: Pool,
) -> None:
    await converse(catbird_pool, "c", ALICE)
    await add(catbird_pool, "c", (b"welcome", [(BOB, b"phone")]))
    with suppress(Undo):
        async with transaction(catbird_pool) as tx:
            assert await acknowledge(tx, BOB, b"phone") is True
            assert await waiting(tx, BOB) == []
            raise Undo
    assert await waiting(catbird_pool, BOB) == [welcome(b"welcome", b"phone")]
    assert await acknowledge(catbird_pool, BOB, b"phone") is True


async def test_a_device_that_is_welcomed_again_is_shown_the_new_welcome(catbird_pool: Pool) -> None:
    await converse(catbird_pool, "c", ALICE)
    await add(catbird_pool, "c", (b"first", [(BOB, b"last resort")]))
    await acknowledge(catbird_pool, BOB, b"last resort")
    epoch = await add(catbird_pool, "c", (b"second", [(BOB, b"last resort")]))
    assert await waiting(catbird_pool, BOB) == [welcome(b"second", b"last resort", epoch)]
    third = await add(catbird_pool, "c", (b"third", [(BOB, b"last resort")]))
    assert [one.epoch for one in await waiting(catbird_pool, BOB)] == [epoch, third]
    assert await acknowledge(catbird_pool, BOB, b"last resort")  # it has joined: by either
    assert await waiting(catbird_pool, BOB) == []


@pytest.mark.parametrize("by_commit", [False, True])
async def test_a_removed_members_waiting_welcomes_go_with_it_and_no_others(
    catbird_pool: Pool, by_commit: bool
) -> None:
    for convo_id in ("c", "d"):
        await converse(catbird_pool, convo_id, ALICE, BOB, CAROL)
        await add(
            catbird_pool, convo_id, (b"welcome", [(BOB, b"phone"), (BOB, b"laptop"), (CAROL, b"c")])
        )
    assert await acknowledge(catbird_pool, BOB, b"phone")
    if by_commit:
        await add(catbird_pool, "c", remove=[BOB])
    else:
        assert await remove_member(catbird_pool, convo_id="c", member_did=BOB)
    assert {one.convo_id for one in await waiting(catbird_pool, BOB)} == {"d"}
    assert len(await waiting(catbird_pool, BOB)) == 2
    assert len(await waiting(catbird_pool, CAROL)) == 2
    left = await stored(
        catbird_pool,
        "SELECT key_package_ref FROM welcome_recipients WHERE convo_id = 'c' AND recipient_did = $1",
        BOB,
    )
    assert [row["key_package_ref"] for row in left] == [b"phone"]  # which it has joined by


async def test_who_has_no_welcome_gets_an_empty_page(catbird_pool: Pool) -> None:
    assert await list_pending_welcomes(catbird_pool, recipient_did=BOB) == Page([], None)
