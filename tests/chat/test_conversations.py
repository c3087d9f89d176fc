"""Conversations: made once and whole, moved forward only, deleted with all that hangs on them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from actors import at_once, converse, send, stored, until_waiting
from scale import scaled

from catbird_db import (
    ConflictError,
    Conversation,
    NewWelcome,
    NotAMemberError,
    NotFoundError,
    Pool,
    StaleEpochError,
    WelcomeRecipient,
    acknowledge_welcome,
    add_member,
    commit_group_change,
    consume_key_package,
    create_conversation,
    create_conversation_with_members,
    create_message,
    delete_conversation,
    get_conversation,
    get_current_epoch,
    get_group_info,
    is_member,
    list_conversations,
    list_members,
    remove_member,
    store_key_package,
    transaction,
    update_conversation_epoch,
)

ALICE, BOB, CAROL = "did:plc:alice", "did:plc:bob", "did:plc:carol"


async def dids(pool: Pool, convo_id: str) -> list[str]:
    return [one.member_did for one in (await list_members(pool, convo_id=convo_id)).items]


async def mentions(pool: Pool, text: str) -> dict[str, int]:
    """How many rows of each table hold a text, in whichever column."""
    tables = await stored(
        pool,
        "SELECT table_name AS name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_name NOT LIKE '%yoyo%'",
    )
    found: dict[str, int] = {}
    for table in tables:
        rows = await stored(
            pool,
            f"SELECT FROM {table['name']} AS t WHERE strpos(to_jsonb(t)::text, $1) > 0",
            text,
        )
        found[table["name"]] = len(rows)
    return {name: rows for name, rows in found.items() if rows}


# Creating.


async def test_a_new_conversation_is_at_epoch_0_and_has_its_creator_as_only_member(
    catbird_pool: Pool,
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    made = await create_conversation(catbird_pool, creator_did=ALICE, convo_id="c", title="Climb")
    assert made == Conversation(
        id="c",
        creator_did=ALICE,
        title="Climb",
        current_epoch=0,
        last_seq=0,
        app_count=0,
        trimmed_seq=0,
        last_message_at=made.created_at,
        created_at=made.created_at,
        updated_at=made.created_at,
    )
    assert before < made.created_at < datetime.now(UTC) + timedelta(seconds=5)
    assert await get_conversation(catbird_pool, convo_id="c") == made
    assert await get_current_epoch(catbird_pool, convo_id="c") == 0
    [alice] = (await list_members(catbird_pool, convo_id="c")).items
    assert (alice.member_did, alice.left_at, alice.read_seq) == (ALICE, None, 0)
    assert alice.joined_at == made.created_at
    [listed] = (await list_conversations(catbird_pool, member_did=ALICE)).items
    assert listed.model_dump(exclude={"unread_count"}) == made.model_dump()
    assert listed.unread_count == 0


async def test_an_id_that_is_left_out_is_a_uuid_of_its_time(catbird_pool: Pool) -> None:
    made = [await create_conversation(catbird_pool, creator_did=ALICE) for _ in range(3)]
    ids = [one.id for one in made]
    assert ids == sorted(set(ids))
    assert {UUID(one).version for one in ids} == {7}
    assert [one.title for one in made] == [None] * 3


async def test_members_named_twice_count_once_and_the_creator_is_one(catbird_pool: Pool) -> None:
    made = await create_conversation_with_members(
        catbird_pool, creator_did=BOB, member_dids=[CAROL, ALICE, CAROL, BOB, ALICE], title=""
    )
    assert (made.creator_did, made.title) == (BOB, "")
    assert await dids(catbird_pool, made.id) == [ALICE, BOB, CAROL]
    many = [f"did:plc:{number:05}" for number in range(scaled(1000, 10_000))]
    made = await create_conversation_with_members(
        catbird_pool, creator_did=ALICE, member_dids=many, convo_id="many"
    )
    [row] = await stored(
        catbird_pool, "SELECT count(*) AS members FROM members WHERE convo_id = 'many'"
    )
    assert row["members"] == len(many) + 1


async def test_a_taken_id_is_a_conflict_that_changes_nothing_and_aborts_no_transaction(
    catbird_pool: Pool,
) -> None:
    made = await create_conversation(catbird_pool, creator_did=ALICE, convo_id="c", title="Climb")
    async with transaction(catbird_pool) as tx:
        await create_conversation(tx, creator_did=BOB, convo_id="d")
        for convo_id in ("c", "d"):
            with pytest.raises(ConflictError, match="convo_id"):
                await create_conversation(tx, creator_did=CAROL, convo_id=convo_id, title="Mine")
            with pytest.raises(ConflictError, match="convo_id"):
                await create_conversation_with_members(
                    tx, creator_did=CAROL, member_dids=[BOB], convo_id=convo_id
                )
        assert await get_conversation(tx, convo_id="c") == made
    assert await get_conversation(catbird_pool, convo_id="c") == made
    assert await dids(catbird_pool, "c") == [ALICE]
    assert await dids(catbird_pool, "d") == [BOB]
    assert await mentions(catbird_pool, CAROL) == {}


async def test_of_sixteen_who_create_one_id_at_once_one_does_and_brings_its_own_members(
    pools: list[Pool],
) -> None:
    async def create(number: int, round_: int) -> Conversation:
        creator = f"did:plc:{number}"
        async with transaction(pools[number % 3]) as tx:
            made = await create_conversation_with_members(
                tx,
                creator_did=creator,
                member_dids=[f"{creator}:{each}" for each in range(3)],
                convo_id=f"c{round_}",
            )
            assert await is_member(tx, convo_id=f"c{round_}", member_did=creator)
            return made

    for round_ in range(scaled(5, 100)):
        made, errors = await at_once(create(number, round_) for number in range(16))
        assert [type(error) for error in errors] == [ConflictError] * 15
        [winner] = made
        creator = winner.creator_did
        assert await dids(pools[0], winner.id) == [creator, *(f"{creator}:{n}" for n in range(3))]


# Listing.


async def test_the_list_has_those_one_is_active_in_latest_activity_first(
    catbird_pool: Pool,
) -> None:
    async def listed(did: str) -> list[str]:
        return [one.id for one in (await list_conversations(catbird_pool, member_did=did)).items]

    for convo_id in ("a", "b", "c"):
        await converse(catbird_pool, convo_id, ALICE, BOB)
    await converse(catbird_pool, "d", BOB)
    assert await listed(ALICE) == ["c", "b", "a"]
    await send(catbird_pool, "a", ALICE, "1")
    assert await listed(ALICE) == ["a", "c", "b"]
    assert await listed(BOB) == ["a", "d", "c", "b"]
    await commit_group_change(
        catbird_pool,
        convo_id="b",
        sender_did=BOB,
        message_id="commit",
        expected_epoch=0,
        commit=b"commit",
        remove_dids=[ALICE],
    )
    assert await listed(ALICE) == ["a", "c"]
    assert await listed(BOB) == ["b", "a", "d", "c"]
    await remove_member(catbird_pool, convo_id="a", member_did=ALICE)
    assert await listed(ALICE) == ["c"]
    await add_member(catbird_pool, convo_id="a", member_did=ALICE)
    assert await listed(ALICE) == ["a", "c"]
    assert await listed(CAROL) == []


async def test_a_retried_send_is_no_new_activity(catbird_pool: Pool) -> None:
    await converse(catbird_pool, "a", ALICE)
    for message_id in ("1", "2", "3"):
        await send(catbird_pool, "a", ALICE, message_id)
    before = await get_conversation(catbird_pool, convo_id="a")
    assert before is not None
    assert before.last_message_at > before.created_at
    for again in (["1"], ["3"], ["2", "1"]):
        await send(catbird_pool, "a", ALICE, *again)
        assert await get_conversation(catbird_pool, convo_id="a") == before


# The epoch.


async def test_the_epoch_moves_forward_only_and_from_where_the_caller_believes_it(
    catbird_pool: Pool,
) -> None:
    made = await create_conversation(catbird_pool, creator_did=ALICE, convo_id="c")
    moved = await update_conversation_epoch(
        catbird_pool, convo_id="c", expected_epoch=0, new_epoch=5
    )
    assert moved.updated_at > made.updated_at
    assert moved == made.model_copy(update={"current_epoch": 5, "updated_at": moved.updated_at})
    async with transaction(catbird_pool) as tx:
        for expected in (0, 4, 6, 2**62):
            with pytest.raises(StaleEpochError) as stale:
                await update_conversation_epoch(
                    tx, convo_id="c", expected_epoch=expected, new_epoch=2**63 - 2
                )
            assert stale.value.current_epoch == 5
        assert await get_conversation(tx, convo_id="c") == moved
    await update_conversation_epoch(
        catbird_pool, convo_id="c", expected_epoch=5, new_epoch=2**63 - 2
    )
    assert await get_current_epoch(catbird_pool, convo_id="c") == 2**63 - 2


async def test_of_sixteen_who_move_one_epoch_one_does(pools: list[Pool]) -> None:
    await create_conversation(pools[0], creator_did=ALICE, convo_id="c")
    for epoch in range(scaled(10, 500)):
        moved, errors = await at_once(
            update_conversation_epoch(
                pools[each % 3], convo_id="c", expected_epoch=epoch, new_epoch=epoch + 1
            )
            for each in range(16)
        )
        assert [one.current_epoch for one in moved] == [epoch + 1]
        stale = [error.current_epoch for error in errors if isinstance(error, StaleEpochError)]
        assert stale == [epoch + 1] * 15


# Deleting.


async def fill(pool: Pool, convo_id: str) -> None:
    """A row at least in each table of chat, and in most of them several."""
    await converse(pool, convo_id, ALICE, BOB)
    await send(pool, convo_id, ALICE, f"{convo_id}-1", f"{convo_id}-2")
    published: dict[str, Any] = {"did": CAROL, "cipher_suite": 1}
    for number in range(2):
        await store_key_package(
            pool,
            **published,
            key_data=f"{convo_id} {number}".encode(),
            expires_at=datetime(2099, 1, 1, tzinfo=UTC),
        )
    refs = []
    for _ in range(2):
        claimed = await consume_key_package(pool, **published, convo_id=convo_id)
        assert claimed is not None
        refs.append(claimed.ref)
    await commit_group_change(
        pool,
        convo_id=convo_id,
        sender_did=ALICE,
        message_id="commit",
        expected_epoch=0,
        commit=b"commit",
        add_dids=[CAROL],
        remove_dids=[BOB],
        welcomes=[
            NewWelcome(
                data=b"welcome",
                recipients=[WelcomeRecipient(did=CAROL, key_package_ref=ref) for ref in refs],
            )
        ],
        group_info=b"group info",
    )
    assert await acknowledge_welcome(
        pool, convo_id=convo_id, recipient_did=CAROL, key_package_ref=refs[0]
    )


async def test_a_deleted_conversation_leaves_nothing_in_any_table_and_no_other_is_touched(
    catbird_pool: Pool,
) -> None:
    await fill(catbird_pool, "doomed")
    await fill(catbird_pool, "spared")
    in_all_tables = await mentions(catbird_pool, "doomed")
    assert {*in_all_tables} == {
        "conversations",
        "members",
        "messages",
        "welcomes",
        "welcome_recipients",
        "group_infos",
        "key_packages",  # for which conversation a package was spent: nobody's to read
    }
    spared = await mentions(catbird_pool, "spared")
    assert await delete_conversation(catbird_pool, convo_id="doomed") is True
    left = await mentions(catbird_pool, "doomed")
    assert {*left} <= {"key_packages"}
    assert await mentions(catbird_pool, "spared") == spared
    assert await delete_conversation(catbird_pool, convo_id="doomed") is False
    assert await get_conversation(catbird_pool, convo_id="doomed") is None
    with pytest.raises(NotFoundError):
        await get_current_epoch(catbird_pool, convo_id="doomed")

    await create_conversation(catbird_pool, creator_did=CAROL, convo_id="doomed")  # anew
    assert await get_current_epoch(catbird_pool, convo_id="doomed") == 0
    assert await get_group_info(catbird_pool, convo_id="doomed") is None
    assert await dids(catbird_pool, "doomed") == [CAROL]


@pytest.mark.parametrize(
    "what", ["append_message", "append_messages", "add_member", "apply_commit"]
)
async def test_what_waited_for_the_delete_finds_no_conversation(pool: Pool, what: str) -> None:
    await converse(pool, "c", ALICE, BOB)
    await send(pool, "c", ALICE, "1")
    calls: dict[str, Any] = {
        "append_message": lambda: send(pool, "c", ALICE, "2"),
        "append_messages": lambda: send(pool, "c", ALICE, "2", "3"),
        "add_member": lambda: add_member(pool, convo_id="c", member_did=CAROL),
        "apply_commit": lambda: commit_group_change(
            pool,
            convo_id="c",
            sender_did=ALICE,
            message_id="commit",
            expected_epoch=0,
            commit=b"commit",
            add_dids=[CAROL],
            group_info=b"group info",
        ),
    }
    async with transaction(pool) as tx:
        assert await delete_conversation(tx, convo_id="c")
        waiting = asyncio.ensure_future(calls[what]())
        await until_waiting(pool, what)
    with pytest.raises(NotFoundError):
        await waiting
    assert await mentions(pool, '"c"') == {}


async def test_deleting_among_senders_leaves_nothing_behind(pools: list[Pool]) -> None:
    recipient = WelcomeRecipient(did=CAROL, key_package_ref=b"ref")
    for round_ in range(scaled(8, 300)):
        convo_id = await converse(pools[0], f"c{round_}", ALICE, BOB)

        async def say(number: int, convo_id: str = convo_id) -> None:
            for each in range(9):
                await create_message(
                    pools[number % 3],
                    convo_id=convo_id,
                    sender_did=(ALICE, BOB)[number % 2],
                    epoch=0,
                    epoch_window=9,
                    ciphertext=b"x",
                    message_id=f"{number} {each}",
                )

        async def commit(convo_id: str = convo_id) -> None:
            for epoch in range(9):
                await commit_group_change(
                    pools[0],
                    convo_id=convo_id,
                    sender_did=ALICE,
                    message_id=f"commit {epoch}",
                    expected_epoch=epoch,
                    commit=b"commit",
                    add_dids=[f"did:plc:{epoch}"],
                    welcomes=[NewWelcome(data=b"welcome", recipients=[recipient])],
                    group_info=b"group info",
                )

        async def delete(convo_id: str = convo_id) -> None:
            await asyncio.sleep(0.005)
            assert await delete_conversation(pools[2], convo_id=convo_id)

        _, errors = await at_once([*(say(number) for number in range(6)), commit(), delete()])
        assert {type(error) for error in errors} <= {NotFoundError, NotAMemberError}
        assert await mentions(pools[0], f'"{convo_id}"') == {}
