"""Members come, go and come back; and nobody sees what belongs to others."""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from actors import at_once, converse, send, stored, until_waiting
from functions import STORE, Function, functions, parameters
from scale import scaled

from catbird_db import (
    CollectedGarbage,
    ConflictError,
    DatabaseError,
    Member,
    NewKeyPackage,
    NewMessage,
    NewWelcome,
    NotAMemberError,
    NotFoundError,
    Page,
    Pool,
    StoredObject,
    WelcomeRecipient,
    add_member,
    commit_group_change,
    corpus,
    create_conversation_with_members,
    create_message,
    create_user,
    get_membership,
    get_message,
    is_member,
    items,
    list_commits,
    list_members,
    list_messages,
    list_messages_since,
    list_new_messages,
    mark_read,
    remove_member,
    store_blob,
    store_key_package,
    transaction,
    vault,
)
from catbird_db.chat.blobs import cid_of

ALICE, BOB, CAROL = "did:plc:alice", "did:plc:bob", "did:plc:carol"


async def dids(pool: Pool) -> list[str]:
    return [one.member_did for one in (await list_members(pool, convo_id="c")).items]


# Joining and leaving.


async def test_who_is_added_is_a_member_until_removed_and_again_when_added_again(
    catbird_pool: Pool,
) -> None:
    names = {"convo_id": "c", "member_did": BOB}
    await converse(catbird_pool, "c", ALICE)
    await send(catbird_pool, "c", ALICE, "1", "2")
    assert await is_member(catbird_pool, **names) is False
    assert await get_membership(catbird_pool, **names) is None

    joined = await add_member(catbird_pool, **names)
    assert joined == Member(**names, joined_at=joined.joined_at, left_at=None, read_seq=2)
    assert await get_membership(catbird_pool, **names) == joined
    assert await is_member(catbird_pool, **names) is True
    assert await dids(catbird_pool) == [ALICE, BOB]

    assert await remove_member(catbird_pool, **names) is True
    left = await get_membership(catbird_pool, **names)
    assert left is not None
    assert left.left_at is not None
    assert left == joined.model_copy(update={"left_at": left.left_at})
    assert left.left_at > left.joined_at
    assert await is_member(catbird_pool, **names) is False
    assert await dids(catbird_pool) == [ALICE]
    assert await remove_member(catbird_pool, **names) is False
    assert await get_membership(catbird_pool, **names) == left

    await send(catbird_pool, "c", ALICE, "3")
    again = await add_member(catbird_pool, **names)
    assert again == Member(**names, joined_at=again.joined_at, left_at=None, read_seq=3)
    assert again.joined_at > left.left_at
    assert await dids(catbird_pool) == [ALICE, BOB]


async def test_adding_an_active_member_changes_nothing(catbird_pool: Pool) -> None:
    names = {"convo_id": "c", "member_did": BOB}
    await converse(catbird_pool, "c", ALICE, BOB)
    await send(catbird_pool, "c", ALICE, "1", "2", "3")
    await mark_read(catbird_pool, **names, seq=1)
    before = await stored(catbird_pool, "SELECT * FROM members ORDER BY member_did")
    member = await get_membership(catbird_pool, **names)
    assert await add_member(catbird_pool, **names) == member
    assert await stored(catbird_pool, "SELECT * FROM members ORDER BY member_did") == before


async def test_a_commit_adds_and_removes_as_add_member_and_remove_member_do(
    catbird_pool: Pool,
) -> None:
    async def commit(epoch: int, **changes: Any) -> None:
        await commit_group_change(
            catbird_pool,
            convo_id="c",
            sender_did=ALICE,
            message_id=f"{epoch}",
            expected_epoch=epoch,
            commit=b"commit",
            **changes,
        )

    async def bob() -> Member | None:
        return await get_membership(catbird_pool, convo_id="c", member_did=BOB)

    await converse(catbird_pool, "c", ALICE)
    await commit(0, add_dids=[BOB])
    joined = await bob()
    assert joined is not None
    assert (joined.left_at, joined.read_seq) == (None, 1)
    await commit(1, add_dids=[BOB])  # is one: stays as it is
    assert await bob() == joined
    await commit(2, remove_dids=[BOB, "did:plc:nobody"])
    left = await bob()
    assert left is not None
    assert left.left_at is not None
    await commit(3, remove_dids=[BOB])
    assert await bob() == left
    await commit(4, add_dids=[BOB])
    again = await bob()
    assert again is not None
    assert (again.left_at, again.read_seq) == (None, 5)
    assert again.joined_at > left.left_at
    nobody = {"convo_id": "c", "member_did": "did:plc:nobody"}
    assert await get_membership(catbird_pool, **nobody) is None


async def test_of_those_who_add_one_member_at_once_all_get_the_same_answer(
    pools: list[Pool],
) -> None:
    await converse(pools[0], "c", ALICE)
    for round_ in range(scaled(8, 300)):
        names = {"convo_id": "c", "member_did": f"did:plc:{round_ % 4}"}
        members, errors = await at_once(add_member(pools[n % 3], **names) for n in range(16))
        assert errors == []
        assert members == [members[0]] * 16
        removed, _ = await at_once(remove_member(pools[n % 3], **names) for n in range(16))
        assert sorted(removed) == [False] * 15 + [True]


async def test_who_left_neither_reads_nor_sends_until_added_again(catbird_pool: Pool) -> None:
    names = {"convo_id": "c", "member_did": BOB}
    reading = {"convo_id": "c", "reader_did": BOB}
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: get_message(catbird_pool, **reading, message_id="1"),
        lambda: list_messages(catbird_pool, **reading),
        lambda: list_messages_since(catbird_pool, **reading, after_seq=0),
        lambda: list_commits(catbird_pool, **reading, from_epoch=0),
        lambda: list_new_messages(catbird_pool, reader_did=BOB, positions={"d": 0, "c": 0}),
        lambda: send(catbird_pool, "c", BOB, "1"),
        lambda: send(catbird_pool, "c", BOB, "2"),
        lambda: send(catbird_pool, "c", BOB, "3", "4"),
    ]
    for convo_id in ("c", "d"):
        await converse(catbird_pool, convo_id, ALICE, BOB)
    await send(catbird_pool, "c", BOB, "1")
    await remove_member(catbird_pool, **names)
    for call in calls:
        with pytest.raises(NotAMemberError) as refused:
            await call()
        assert refused.value.convo_ids == ("c",)
    with pytest.raises(NotFoundError):
        await mark_read(catbird_pool, **names, seq=1)
    await add_member(catbird_pool, **names)
    for call in calls:
        await call()
    assert (await list_messages(catbird_pool, **reading)).items[0].seq == 4


async def test_a_member_added_in_a_transaction_that_rolls_back_is_none(catbird_pool: Pool) -> None:
    await converse(catbird_pool, "c", ALICE)
    async with transaction(catbird_pool) as tx:
        with pytest.raises(NotFoundError):
            await add_member(tx, convo_id="nowhere", member_did=BOB)
        with pytest.raises(ZeroDivisionError):
            await add_and_fail(tx)
        assert not await is_member(tx, convo_id="c", member_did=BOB)  # the transaction lives on
        await add_member(tx, convo_id="c", member_did=CAROL)
    assert await dids(catbird_pool) == [ALICE, CAROL]


async def add_and_fail(tx: Any) -> None:
    async with transaction(tx) as savepoint:
        await add_member(savepoint, convo_id="c", member_did=BOB)
        assert await is_member(savepoint, convo_id="c", member_did=BOB)
        raise ZeroDivisionError


async def test_who_joins_while_a_removal_is_under_way_is_a_member_afterwards(pool: Pool) -> None:
    names = {"convo_id": "c", "member_did": BOB}
    await converse(pool, "c", ALICE, BOB)
    async with transaction(pool) as tx:
        assert await remove_member(tx, **names)
        joining = asyncio.ensure_future(add_member(pool, **names))
        await until_waiting(pool, "add_member")
    joined = await joining
    assert joined.left_at is None
    assert await is_member(pool, **names)


# Nobody sees what belongs to others.
#
# Two worlds, whose members, conversations and Welcomes have nothing in common but the ids of some
# messages, of their devices, and their cipher suite. All content holds the name of its world in
# capitals: an answer that shows the name of a world the caller has no part in is a leak.

OURS, THEIRS, NOBODYS = "zebra", "quokka", "xylem"
SOON = datetime(2099, 1, 1, tzinfo=UTC)

ALL_SEEING = {"list_users", "open_object", "object_reference_count"}
"""For administrators, and for who holds a reference: whose it is is not asked there."""

FUNCTIONS = {
    name: one
    for name, one in functions().items()
    if name not in (*corpus.__all__, *items.__all__, *vault.__all__)
}
"""The others have tests of their own: tests/vault/test_strangers.py, tests/corpus/test_access.py.
Items belong to nobody."""

READS = [
    name
    for name in FUNCTIONS
    if name.startswith(("get_", "list_", "is_", "count_")) and name not in ALL_SEEING
]


def convo(world: str) -> str:
    return f"convo-{world}"


def alice(world: str) -> str:
    return f"did:{world}:alice"


def bob(world: str) -> str:
    return f"did:{world}:bob"


def ref(world: str) -> bytes:
    return f"ref-{world}".encode()


def content(world: str) -> bytes:
    return world.upper().encode()


def sha256_of(world: str) -> str:
    return hashlib.sha256(content(world)).hexdigest()


NAMES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(["did", "member_did", "recipient_did", "reader_did"], alice),
    "convo_id": convo,
    "message_id": lambda world: f"message-{world}",
    "positions": lambda world: {convo(world): 0},
    "cid": lambda world: cid_of(sha256_of(world)),
    "user_id": lambda world: {OURS: 1, THEIRS: 2, NOBODYS: 3}[world],
    "username": lambda world: world,
    "email": lambda world: f"{world}@example.org",
}
"""What names something of a world, by the parameter that takes it."""

PLAIN: dict[str, Any] = {
    "limit": 100,
    "limit_per_conversation": 100,
    "cursor": None,
    "after_seq": 0,
    "from_epoch": 0,
    "cipher_suite": 1,
    "start": 0,
    "length": None,
}


async def build(pool: Pool, world: str) -> None:
    """Something in each table."""
    one = {"convo_id": convo(world), "sender_did": alice(world)}
    await create_conversation_with_members(
        pool,
        convo_id=convo(world),
        creator_did=alice(world),
        member_dids=[bob(world)],
        title=world.upper(),
    )
    for message_id in ("message", f"message-{world}"):
        await create_message(pool, **one, epoch=0, ciphertext=content(world), message_id=message_id)
    recipients = [
        WelcomeRecipient(did=did, key_package_ref=ref(world)) for did in (alice(world), bob(world))
    ]
    await commit_group_change(
        pool,
        **one,
        message_id="commit",
        expected_epoch=0,
        commit=content(world),
        welcomes=[NewWelcome(data=content(world), recipients=recipients)],
        group_info=content(world),
    )
    for number in range(4):
        await store_key_package(
            pool,
            did=alice(world),
            cipher_suite=1,
            key_data=content(world) + b"%d" % number,
            expires_at=SOON,
            last_resort=number == 3,
        )
    await store_blob(
        pool,
        STORE,
        data=content(world),
        uploaded_by_did=alice(world),
        convo_id=convo(world),
        mime_type=world.upper(),
    )
    await create_user(
        pool,
        username=world,
        email=f"{world}@example.org",
        did=alice(world),
        full_name=world.upper(),
    )


async def everything_of(pool: Pool, world: str) -> dict[str, list[str]]:
    """All rows that are about a world, in whichever column."""
    tables = ("conversations", "members", "messages", "welcomes", "welcome_recipients")
    found: dict[str, list[str]] = {}
    for table in (*tables, "group_infos", "key_packages", "blobs", "users"):
        rows = await stored(
            pool,
            f"SELECT to_jsonb(t)::text AS row FROM {table} AS t"
            " WHERE strpos(to_jsonb(t)::text, $1) > 0 ORDER BY 1",
            world,
        )
        assert rows, f"nothing of {world} is in {table}"
        found[table] = [row["row"] for row in rows]
    return found


async def answer_of(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except DatabaseError as error:
        return error


def shown(answer: Any) -> str:
    """All that is in an answer, bytes too."""
    if isinstance(answer, BaseException):
        return f"{answer!r} {answer!s} {answer.__cause__!r} {answer.__context__!r}"
    if isinstance(answer, Page | list):
        items: list[Any] = answer.items if isinstance(answer, Page) else answer
        return " ".join(shown(one) for one in items)
    return repr(answer.model_dump()) if hasattr(answer, "model_dump") else repr(answer)


def is_nothing(answer: Any) -> bool:
    """The typed refusal, or an answer that says no more than that nothing is there."""
    if isinstance(answer, DatabaseError):
        return isinstance(answer, NotAMemberError | NotFoundError)
    return answer in (None, False, [], Page([], None))


def mixtures(function: Function) -> Iterator[tuple[set[str], dict[str, Any]]]:
    """Calls with each name from each world, and which worlds those are."""
    for name in parameters(function):
        assert name in NAMES or name in PLAIN, f"{function.__name__}: say whose {name} is"
    names = [name for name in parameters(function) if name in NAMES]
    plain = {name: PLAIN[name] for name in parameters(function) if name in PLAIN}
    for worlds in itertools.product((OURS, THEIRS, NOBODYS), repeat=len(names)):
        named = {name: NAMES[name](world) for name, world in zip(names, worlds, strict=True)}
        yield {*worlds}, {**named, **plain}
    if "positions" in names:
        both = {convo(OURS): 0, convo(THEIRS): 0}
        yield {OURS, THEIRS}, {**plain, "reader_did": alice(OURS), "positions": both}


async def test_no_read_shows_anything_to_who_has_no_part_in_it(catbird_pool: Pool) -> None:
    assert len(READS) >= 16
    await build(catbird_pool, OURS)
    await build(catbird_pool, THEIRS)
    before = await everything_of(catbird_pool, THEIRS), await everything_of(catbird_pool, OURS)
    of_use: set[str] = set()
    leaks: list[str] = []
    for name in READS:
        for worlds, given in mixtures(FUNCTIONS[name]):
            answer = await answer_of(FUNCTIONS[name](catbird_pool, **given))
            seen = {world for world in (OURS, THEIRS) if world.upper() in shown(answer)}
            if len(worlds) > 1 and not is_nothing(answer):
                leaks.append(f"{name}({given}): {shown(answer)}")
            if not seen <= worlds or (seen and len(worlds) > 1):
                leaks.append(f"{name}({given}) shows {seen}: {shown(answer)}")
            if seen:
                of_use.add(name)
    assert not leaks, "\n".join(leaks)
    assert before == (
        await everything_of(catbird_pool, THEIRS),
        await everything_of(catbird_pool, OURS),
    )
    without_content = {"count_key_packages", "get_current_epoch", "get_membership"}
    without_content |= {"get_message_count", "is_member", "list_members", "get_user_storage_size"}
    assert of_use == {*READS} - without_content, "the attack saw no content where there should be"


SENT = {"epoch": 1, "ciphertext": b"x"}
BATCH = {"epoch": 1, "messages": [NewMessage(ciphertext=b"x")]}
COMMIT = {"message_id": "new", "expected_epoch": 1, "commit": b"x", "group_info": b"x"}
THEIR_COMMIT = {"message_id": "commit", "expected_epoch": 0, "commit": content(THEIRS)}
THEIR_PACKAGE = {"cipher_suite": 1, "key_data": content(THEIRS) + b"0", "expires_at": SOON}


def in_(world: str, **rest: Any) -> dict[str, Any]:
    return {"convo_id": convo(world), **rest}


SENDING = in_(THEIRS, sender_did=alice(OURS))
MARKING = [
    (in_(THEIRS, member_did=alice(OURS)), NotFoundError),
    (in_(OURS, member_did=alice(THEIRS)), NotFoundError),
]

WRITES: dict[str, list[tuple[dict[str, Any], Any]]] = {
    "create_conversation": [(in_(THEIRS, creator_did=alice(OURS)), ConflictError)],
    "create_conversation_with_members": [
        (in_(THEIRS, creator_did=alice(OURS), member_dids=[bob(OURS)]), ConflictError)
    ],
    "create_message": [
        ({**SENDING, **SENT}, NotAMemberError),
        ({**SENDING, **SENT, "message_id": "message"}, NotAMemberError),
        ({**SENDING, **SENT, "message_id": "message", "epoch": 0}, NotAMemberError),
        (
            {**SENDING, "message_id": "message", "epoch": 0, "ciphertext": content(THEIRS)},
            NotAMemberError,
        ),
    ],
    "create_messages": [
        ({**SENDING, **BATCH}, NotAMemberError),
        (
            {
                **SENDING,
                "epoch": 1,
                "messages": [NewMessage(ciphertext=content(THEIRS), message_id="message")],
            },
            NotAMemberError,
        ),
    ],
    "commit_group_change": [
        ({**SENDING, **COMMIT}, NotAMemberError),
        ({**SENDING, **COMMIT, "add_dids": [bob(OURS)]}, NotAMemberError),
        ({**SENDING, **COMMIT, "remove_dids": [alice(THEIRS)]}, NotAMemberError),
        ({**SENDING, **THEIR_COMMIT}, NotAMemberError),
        ({**SENDING, **THEIR_COMMIT, "expected_epoch": 1}, NotAMemberError),
    ],
    "delete_message": [(in_(OURS, message_id=f"message-{THEIRS}"), False)],
    "mark_read": [({**given, "seq": 1}, error) for given, error in MARKING],
    "reset_unread_count": MARKING,
    "update_unread_count": [({**given, "increment": 1}, error) for given, error in MARKING],
    "remove_member": [
        (in_(THEIRS, member_did=alice(OURS)), False),
        (in_(OURS, member_did=alice(THEIRS)), False),
    ],
    "acknowledge_welcome": [
        (in_(convo_, recipient_did=alice(did), key_package_ref=ref(of)), False)
        for convo_, did, of in itertools.product((OURS, THEIRS), repeat=3)
        if did == OURS and {convo_, of} != {OURS}
    ],
    # The same bytes, stored by another, are another package.
    "store_key_package": [({"did": alice(OURS), **THEIR_PACKAGE}, ...)],
    "store_key_packages": [
        ({"did": alice(OURS), "packages": [NewKeyPackage(**THEIR_PACKAGE, last_resort=True)]}, 0),
        ({"did": bob(OURS), "packages": [NewKeyPackage(**THEIR_PACKAGE, last_resort=True)]}, 1),
    ],
    "consume_key_package": [
        ({"did": alice(OURS), "cipher_suite": 1, "convo_id": convo(OURS)}, ...),
        ({"did": alice(OURS), "cipher_suite": 1, "device_id": ""}, ...),
    ],
    "consume_key_packages": [({"dids": [alice(OURS), bob(NOBODYS)], "cipher_suite": 1}, ...)],
    "delete_key_packages": [({"did": alice(OURS), "device_id": ""}, 2)],
    "store_blob": [
        (
            {"data": b"x", "uploaded_by_did": alice(OURS), "convo_id": convo(THEIRS)},
            NotAMemberError,
        ),
        ({"data": content(THEIRS), "uploaded_by_did": alice(OURS)}, ...),
    ],
    "refer_blob": [
        (
            {"stored": stored_object, "uploaded_by_did": alice(OURS), "convo_id": convo(THEIRS)},
            NotAMemberError,
        )
        for stored_object in (StoredObject(hash=sha256_of(THEIRS), size=len(THEIRS)),)
    ],
    "delete_blob": [({"cid": NAMES["cid"](THEIRS), "uploaded_by_did": bob(THEIRS)}, False)],
    # What names its user by id, and storage, whose objects are named by those who hold references.
    "create_user": [
        ({"username": THEIRS.upper(), "email": "x@y"}, ConflictError),
        ({"username": "x", "email": "x@y", "did": alice(THEIRS)}, ConflictError),
    ],
    "update_user": [({"user_id": 1, "username": THEIRS.upper()}, ConflictError)],
    "record_login": [({"user_id": 1}, True)],
    "authenticate_user": [({"username": THEIRS, "password": "x"}, None)],
    "deactivate_user": [({"user_id": 1}, True)],
    "delete_user": [({"user_id": 1}, True)],
    "put_object": [({"body": content(THEIRS)}, ...)],
    "collect_garbage": [({}, CollectedGarbage(objects=0, bytes=0))],
    "reconcile": [({"mend": True}, ...)],
    # These take the id of a conversation and nothing else: it is the authority.
    "add_member": [(in_(OURS, member_did="did:plc:new"), ...)],
    "update_conversation_epoch": [(in_(OURS, expected_epoch=1, new_epoch=9), ...)],
    "delete_messages_before": [(in_(OURS, seq=9), 2)],
    "delete_expired_key_packages": [({}, 0)],
    "delete_conversation": [(in_(OURS), True)],
}


async def test_no_write_touches_what_the_caller_has_no_part_in(catbird_pool: Pool) -> None:
    """In this order: what destroys our own world comes last."""
    assert {*WRITES} == {*FUNCTIONS} - {*READS} - ALL_SEEING, "say in WRITES who must not do what"
    await build(catbird_pool, OURS)
    await build(catbird_pool, THEIRS)
    before = await everything_of(catbird_pool, THEIRS)
    faults: list[str] = []
    for name, calls in WRITES.items():
        for given, expected in calls:
            answer = await answer_of(FUNCTIONS[name](catbird_pool, **given))
            as_expected = (
                isinstance(answer, expected)
                if isinstance(expected, type)
                else answer == expected
                if expected is not ...
                else not isinstance(answer, DatabaseError)
            )
            mine = "key_data" in given or "packages" in given
            if not as_expected or (THEIRS.upper() in shown(answer) and not mine):
                faults.append(f"{name}({given}): {shown(answer)}")
            if await everything_of(catbird_pool, THEIRS) != before:
                faults.append(f"{name}({given}) changed their world")
                before = await everything_of(catbird_pool, THEIRS)
    assert not faults, "\n".join(faults)
