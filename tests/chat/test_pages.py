"""Pages concatenate to the whole, in both directions, whatever comes in between two of them."""

import base64
import inspect
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from actors import converse, send, stored
from corpus.shelf import collection, shelf, user
from functions import STORE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scale import scaled

import catbird_db
from catbird_db import (
    Connection,
    InvalidArgumentError,
    Message,
    NewLink,
    NewWelcome,
    Page,
    Pool,
    QueryError,
    WelcomeRecipient,
    acknowledge_welcome,
    add_member,
    commit_group_change,
    create_conversation,
    create_conversation_with_members,
    create_item,
    create_operation,
    create_user,
    delete_message,
    find_files_by_tag,
    get_conversation,
    grant_collection_permission,
    list_all_stale_pages,
    list_audit_log,
    list_backlinks,
    list_blobs_by_conversation,
    list_canvas_files,
    list_chunks,
    list_chunks_without_embedding,
    list_collection_permissions,
    list_collections,
    list_conversations,
    list_dead_processing,
    list_documents,
    list_folder,
    list_items,
    list_links,
    list_markdown_files,
    list_members,
    list_messages,
    list_messages_since,
    list_new_messages,
    list_operations,
    list_pending_welcomes,
    list_public_collections,
    list_published,
    list_stale_pages,
    list_tree,
    list_unresolved_links,
    list_users,
    list_versions,
    lock_vault,
    put_object,
    remove_member,
    replace_links,
    set_frontmatter,
    store_blob,
    transaction,
    update_conversation_epoch,
    write_file,
)
from catbird_db.vault.files import create_file

ALICE, BOB = "did:plc:alice", "did:plc:bob"

MOST_PAGES = 100

Ask: TypeAlias = Callable[..., Awaitable[Page[Any]]]
Between: TypeAlias = Callable[[], Awaitable[Any]]

numbers = count()
sizes = given(
    size=st.integers(0, 13),
    limit=st.integers(1, 15),
    inserts=st.lists(st.integers(0, 3), max_size=20),
)
attack = settings(
    max_examples=scaled(40, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


async def read_pages(ask: Ask, limit: int, between: Between | None = None) -> list[Any]:
    """All pages, one after the other; each but the last is full, and says that it is not the last."""
    items: list[Any] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await ask(limit=limit, cursor=cursor)
        items += page.items
        if page.next_cursor is None:
            assert len(page.items) <= limit
            assert page.items or cursor is None or between, "a page too many"
            return items
        assert len(page.items) == limit
        cursor = page.next_cursor
        if between is not None:
            await between()
    raise AssertionError(f"there is no end to these pages: {items[-9:]}")


def asking(function: Callable[..., Awaitable[Page[Any]]], db: Any, /, **names: str) -> Ask:
    async def ask(**rest: Any) -> Page[Any]:
        return await function(db, **names, **rest)

    return ask


def happening(amounts: Sequence[int], action: Callable[[int], Awaitable[Any]]) -> Between:
    """Between two pages, so much of an action; nothing once the amounts are used up."""
    left = iter(amounts)

    async def between() -> None:
        if amount := next(left, 0):
            await action(amount)

    return between


# Messages.


async def talk(pool: Pool, size: int) -> tuple[str, Callable[[int], Awaitable[list[Message]]]]:
    """A conversation with so many messages, and a way to send more."""
    convo_id = await converse(pool, f"c{next(numbers)}", ALICE, BOB)
    ids = count(1)

    async def say(amount: int) -> list[Message]:
        names = [f"{next(ids)}" for _ in range(amount)]
        return await send(pool, convo_id, random.choice([ALICE, BOB]), *names) if names else []

    await say(size)
    return convo_id, say


@attack
@sizes
async def test_messages_newest_first_are_those_that_were_there_whatever_is_sent_between_pages(
    catbird_pool: Pool, size: int, limit: int, inserts: list[int]
) -> None:
    convo_id, say = await talk(catbird_pool, size)
    ask = asking(list_messages, catbird_pool, convo_id=convo_id, reader_did=BOB)
    messages = await read_pages(ask, limit, happening(inserts, say))
    assert [message.seq for message in messages] == [*range(size, 0, -1)]
    assert [message.id for message in messages] == [f"{seq}" for seq in range(size, 0, -1)]


@attack
@sizes
async def test_messages_oldest_first_are_all_of_them_with_what_is_sent_between_pages(
    catbird_pool: Pool, size: int, limit: int, inserts: list[int]
) -> None:
    convo_id, say = await talk(catbird_pool, size)
    between = happening(inserts, say)
    messages: list[Message] = []
    caught_up: list[Message] = []
    for _ in range(MOST_PAGES):
        after_seq = messages[-1].seq if messages else 0
        page = await list_messages_since(
            catbird_pool, convo_id=convo_id, reader_did=BOB, after_seq=after_seq, limit=limit
        )
        [new] = await list_new_messages(
            catbird_pool,
            reader_did=BOB,
            positions={convo_id: after_seq},
            limit_per_conversation=limit,
        )
        assert new.messages == page
        assert len(page) <= limit
        conversation = await get_conversation(catbird_pool, convo_id=convo_id)
        assert conversation is not None
        assert new.more is (conversation.last_seq > after_seq + len(page))
        messages += page
        caught_up += new.messages
        if not page:
            break
        await between()
    newest_first = await read_pages(
        asking(list_messages, catbird_pool, convo_id=convo_id, reader_did=BOB), 15
    )
    assert messages == caught_up == newest_first[::-1]
    assert [message.seq for message in messages] == [*range(1, len(messages) + 1)]
    assert len(messages) >= size


async def test_each_limit_gives_the_same_messages_in_both_directions(catbird_pool: Pool) -> None:
    convo_id, _ = await talk(catbird_pool, 5)
    await commit_group_change(
        catbird_pool,
        convo_id=convo_id,
        sender_did=ALICE,
        message_id="commit",
        expected_epoch=0,
        commit=b"commit",
    )
    await update_conversation_epoch(
        catbird_pool, convo_id=convo_id, expected_epoch=1, new_epoch=2**62
    )
    await send(catbird_pool, convo_id, ALICE, "late", epoch=2**62)
    await delete_message(catbird_pool, convo_id=convo_id, message_id="3")
    ask = asking(list_messages, catbird_pool, convo_id=convo_id, reader_did=BOB)
    everything = (await ask(limit=500)).items
    assert [message.seq for message in everything] == [7, 6, 5, 4, 3, 2, 1]
    for limit in range(1, 9):
        assert await read_pages(ask, limit) == everything
        ascending: list[Message] = []
        while len(ascending) < len(everything):
            page = await list_messages_since(
                catbird_pool,
                convo_id=convo_id,
                reader_did=BOB,
                after_seq=ascending[-1].seq if ascending else 0,
                limit=limit,
            )
            assert len(page) == min(limit, 7 - len(ascending))
            ascending += page
        assert ascending == everything[::-1]


# Conversations.


async def belong_to_many(pool: Pool, did: str, size: int) -> list[str]:
    """So many conversations, most of them of the same moment: the id decides their order."""
    names = [f"{did}-{number}" for number in range(size)]
    random.shuffle(names)
    async with transaction(pool) as tx:
        for name in names[: size * 2 // 3]:
            await create_conversation(tx, creator_did=did, convo_id=name)
    for name in names[size * 2 // 3 :]:
        await create_conversation(pool, creator_did=did, convo_id=name)
    return names


async def test_each_limit_gives_the_same_conversations_latest_activity_first(
    catbird_pool: Pool,
) -> None:
    size = 9
    names = await belong_to_many(catbird_pool, ALICE, size)
    for name in random.sample(names, 3):
        await send(catbird_pool, name, ALICE, "hello")
    ask = asking(list_conversations, catbird_pool, member_did=ALICE)
    everything = (await ask(limit=500)).items
    assert {one.id for one in everything} == {*names}
    order = [(one.last_message_at, one.id) for one in everything]
    assert order == sorted(order, reverse=True)
    for limit in range(1, size + 2):
        assert await read_pages(ask, limit) == everything


@attack
@sizes
async def test_conversations_that_do_not_move_are_listed_once_and_those_that_do_are_at_the_head(
    catbird_pool: Pool, size: int, limit: int, inserts: list[int]
) -> None:
    did = f"did:plc:{next(numbers)}"
    names = await belong_to_many(catbird_pool, did, size)
    moved: set[str] = set()

    async def move(amount: int) -> None:
        """Some get a message, one is new, and one is left."""
        for name in random.sample(names, min(amount, len(names))):
            moved.add(name)
            await send(catbird_pool, name, did, f"{next(numbers)}")
        new = await create_conversation(catbird_pool, creator_did=did)
        moved.add(new.id)
        if names and amount > 2:
            left = names.pop()
            moved.add(left)
            await remove_member(catbird_pool, convo_id=left, member_did=did)

    ask = asking(list_conversations, catbird_pool, member_did=did)
    before = [one.id for one in (await ask(limit=500)).items]
    listed = [one.id for one in await read_pages(ask, limit, happening(inserts, move))]
    assert [name for name in listed if name not in moved] == [
        name for name in before if name not in moved
    ]
    refreshed = {one.id for one in (await ask(limit=500)).items[: len(moved)]}
    assert {*listed} | refreshed >= {*names}


# Members and Welcomes.


@attack
@sizes
async def test_members_who_stay_are_listed_once_by_did_whoever_comes_and_goes_between_pages(
    catbird_pool: Pool, size: int, limit: int, inserts: list[int]
) -> None:
    dids = [f"did:plc:{number:02}" for number in random.sample(range(100), size + 1)]
    conversation = await create_conversation_with_members(
        catbird_pool, creator_did=dids[0], member_dids=dids
    )
    names = {"convo_id": conversation.id}
    stayed = {*dids}

    async def come_and_go(amount: int) -> None:
        for did in random.sample(dids, min(amount, len(dids))):
            stayed.discard(did)
            await remove_member(catbird_pool, **names, member_did=did)
        for _ in range(amount):
            did = f"did:plc:{random.randrange(100):02}x"
            await add_member(catbird_pool, **names, member_did=did)

    ask = asking(list_members, catbird_pool, **names)
    before = [one.member_did for one in (await ask(limit=500)).items]
    assert before == sorted(dids)
    listed = [
        one.member_did for one in await read_pages(ask, limit, happening(inserts, come_and_go))
    ]
    assert listed == sorted(set(listed))
    assert stayed <= {*listed}
    assert {did for did in listed if not did.endswith("x")} <= {*dids}


async def test_each_limit_gives_the_same_members(catbird_pool: Pool) -> None:
    dids = [f"did:plc:{letter}" for letter in "zAbYc-~!"]
    await create_conversation_with_members(
        catbird_pool, creator_did=dids[0], member_dids=dids, convo_id="c"
    )
    ask = asking(list_members, catbird_pool, convo_id="c")
    for limit in range(1, len(dids) + 2):
        members = await read_pages(ask, limit)
        assert [one.member_did for one in members] == sorted(dids)  # byte by byte


async def welcome(pool: Pool, did: str, convo_id: str, epoch: int, refs: Sequence[bytes]) -> None:
    """Two Welcomes of one commit, for the devices of one DID, and for others."""
    recipients = [WelcomeRecipient(did=did, key_package_ref=ref) for ref in refs]
    others = [WelcomeRecipient(did="did:plc:other", key_package_ref=ref) for ref in refs]
    await commit_group_change(
        pool,
        convo_id=convo_id,
        sender_did=ALICE,
        message_id=f"{epoch}",
        expected_epoch=epoch,
        commit=b"commit",
        welcomes=[
            NewWelcome(data=b"even %d" % epoch, recipients=[*recipients[::2], *others]),
            *(
                [NewWelcome(data=b"odd %d" % epoch, recipients=odd)]
                if (odd := recipients[1::2])
                else []
            ),
        ],
    )


@attack
@sizes
async def test_welcomes_that_wait_are_listed_once_whatever_is_acknowledged_or_added_between_pages(
    catbird_pool: Pool, size: int, limit: int, inserts: list[int]
) -> None:
    did = f"did:plc:{next(numbers)}"
    convo_ids = [await converse(catbird_pool, f"{did}-{n}", ALICE) for n in range(3)]
    epochs = dict.fromkeys(convo_ids, 0)

    async def add(amount: int) -> None:
        for _ in range(amount):
            convo_id = random.choice(convo_ids)
            refs = [b"\x00%d" % next(numbers) for _ in range(random.randint(1, 3))]
            await welcome(catbird_pool, did, convo_id, epochs[convo_id], refs)
            epochs[convo_id] += 1

    def key(one: Any) -> tuple[str, int, bytes]:
        return one.convo_id, one.epoch, one.key_package_ref

    await add(size)
    ask = asking(list_pending_welcomes, catbird_pool, recipient_did=did)
    before = [key(one) for one in (await ask(limit=500)).items]
    assert before == sorted(before)
    answered: set[Any] = set()

    async def answer(amount: int) -> None:
        for one in random.sample(before, min(amount, len(before))):
            answered.add(one)
            await acknowledge_welcome(
                catbird_pool, convo_id=one[0], recipient_did=did, key_package_ref=one[2]
            )
        await add(amount)

    listed = [key(one) for one in await read_pages(ask, limit, happening(inserts, answer))]
    assert listed == sorted(set(listed))
    assert {*before} - answered <= {*listed}
    left = [key(one) for one in (await ask(limit=500)).items]
    assert not answered & {*left}


async def test_each_limit_gives_the_same_welcomes_at_epochs_as_large_as_they_come(
    catbird_pool: Pool,
) -> None:
    for convo_id in ("a", "b"):
        await converse(catbird_pool, convo_id, ALICE)
        await welcome(catbird_pool, BOB, convo_id, 0, [b"1", b"2", b"3"])
        await update_conversation_epoch(
            catbird_pool, convo_id=convo_id, expected_epoch=1, new_epoch=2**63 - 3
        )
        await welcome(catbird_pool, BOB, convo_id, 2**63 - 3, [b"\xff", b"\x00", b"\x01"])
    ask = asking(list_pending_welcomes, catbird_pool, recipient_did=BOB)
    everything = (await ask(limit=500)).items
    assert [(one.convo_id, one.epoch, one.key_package_ref) for one in everything] == [
        (convo_id, epoch, ref)
        for convo_id in ("a", "b")
        for epoch, refs in (
            (1, (b"1", b"2", b"3")),
            (2**63 - 2, (b"\x00", b"\x01", b"\xff")),
        )
        for ref in refs
    ]
    for limit in range(1, len(everything) + 2):
        assert await read_pages(ask, limit) == everything


# Cursors that nobody gave out.

FILE_ID = UUID(int=1)

SHELF: dict[str, Any] = {}  # a collection, and its owner
OF_A_COLLECTION = [
    *(list_audit_log, list_chunks, list_chunks_without_embedding, list_collection_permissions),
    *(list_documents, list_operations),
]

PAGED = [
    name
    for name in catbird_db.__all__
    if "cursor" in getattr(inspect.unwrap(getattr(catbird_db, name)), "__annotations__", {})
]


async def prepare(pool: Pool) -> None:
    """Something that has two pages at least, for each function that returns pages."""
    for convo_id in ("a", "b", "c"):
        await converse(pool, convo_id, ALICE, BOB)
        await send(pool, convo_id, ALICE, "1", "2", "3")
        await welcome(pool, BOB, convo_id, 0, [b"1", b"2"])
    for data in (b"1", b"2"):
        await store_blob(pool, STORE, data=data, uploaded_by_did=ALICE, convo_id="a")
    for name in ("alice", "bob"):
        await create_user(pool, username=name, email=f"{name}@example.org")
    await lock_vault(pool, user_id=1)
    stored_object = await put_object(pool, STORE, body=b"1")
    await create_file(
        pool,
        user_id=1,
        path="/1.md",
        file_id=FILE_ID,
        folder_id=None,
        object_hash=stored_object.hash,
        size=1,
        content_type="text/markdown",
    )
    for path in ("/1.md", "/2.md", "/1.canvas", "/2.canvas"):
        file = await write_file(pool, STORE, user_id=1, path=path, body=b"2")
        await set_frontmatter(pool, user_id=1, file_id=file.id, tags=["tag"])
        links = [NewLink(target_name=name) for name in ("1", "gone", "lost")]
        await replace_links(pool, user_id=1, file_id=file.id, links=links)
    made = await shelf(pool, owner_id=1, is_public=True)
    await collection(pool, owner_id=1, is_public=True)
    SHELF.update(collection_id=made.collection_id, user_id=1)
    await create_operation(pool, **SHELF, type="index")
    for _ in range(2):
        await create_item(pool, name="item")
        grantee = await user(pool)
        await grant_collection_permission(pool, **SHELF, grantee_id=grantee, permission="READ")
    await stored(
        pool,
        "INSERT INTO processing_queue (user_id, file_id, ready_at, dead_at)"
        " SELECT 1, id, now(), now() FROM files",
    )
    await stored(
        pool,
        "INSERT INTO published_pages (user_id, file_id, permalink, html, published_at, invalidation)"
        " SELECT 1, id, substr(path, 2), '', now(), 1 FROM files",
    )


def askers(db: Any) -> dict[str, Ask]:
    ready = {
        "list_messages": asking(list_messages, db, convo_id="a", reader_did=ALICE),
        "list_conversations": asking(list_conversations, db, member_did=ALICE),
        "list_members": asking(list_members, db, convo_id="a"),
        "list_blobs_by_conversation": asking(
            list_blobs_by_conversation, db, convo_id="a", reader_did=ALICE
        ),
        "list_users": asking(list_users, db),
        "list_folder": asking(list_folder, db, user_id=1),
        "list_tree": asking(list_tree, db, user_id=1),
        "list_markdown_files": asking(list_markdown_files, db, user_id=1),
        "list_canvas_files": asking(list_canvas_files, db, user_id=1),
        "list_versions": asking(list_versions, db, user_id=1, file_id=FILE_ID),
        "find_files_by_tag": asking(find_files_by_tag, db, user_id=1, tag="tag"),
        "list_collections": asking(list_collections, db, user_id=1),
        "list_public_collections": asking(list_public_collections, db),
        "list_items": asking(list_items, db),
        **{one.__name__: asking(one, db, **SHELF) for one in OF_A_COLLECTION},
        "list_links": asking(list_links, db, user_id=1, file_id=FILE_ID),
        "list_backlinks": asking(list_backlinks, db, user_id=1, file_id=FILE_ID),
        "list_unresolved_links": asking(list_unresolved_links, db, user_id=1),
        "list_dead_processing": asking(list_dead_processing, db, user_id=1),
        "list_all_stale_pages": asking(list_all_stale_pages, db),
        "list_published": asking(list_published, db, user_id=1),
        "list_stale_pages": asking(list_stale_pages, db, user_id=1),
        "list_pending_welcomes": asking(list_pending_welcomes, db, recipient_did=BOB),
    }
    assert sorted(ready) == sorted(PAGED), "a function that returns pages is not in this table"
    return ready


async def genuine(ask: Ask) -> str:
    page = await ask(limit=1)
    assert page.next_cursor is not None
    return page.next_cursor


def opened(cursor: str) -> list[Any]:
    return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def sealed(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_the_cursor_of_one_function_is_refused_by_every_other(catbird_pool: Pool) -> None:
    await prepare(catbird_pool)
    ready = askers(catbird_pool)
    cursors = {name: await genuine(ask) for name, ask in ready.items()}
    for name, ask in ready.items():
        for owner, cursor in cursors.items():
            if owner == name:
                assert (await ask(limit=1, cursor=cursor)).items
            else:
                with pytest.raises(InvalidArgumentError, match="cursor"):
                    await ask(limit=1, cursor=cursor)


def forgeries(cursor: str) -> dict[str, str]:
    """What no function ever gave out, made of a cursor that one did."""
    label, *key = opened(cursor)
    forged = {
        "no base64": "secret!",
        "not ASCII": "sécret",
        "a line more": f"{cursor}\n",
        "half of it": cursor[: len(cursor) // 2],
        "all but its end": cursor[:-3],
        "twice": cursor + cursor,
        "other base64": sealed(b"secret"),
        "not UTF-8": sealed(b"\xff\xfe"),
        "an object": sealed({"secret": 1}),
        "a number": sealed(1),
        "null": sealed(None),
        "an empty list": sealed([]),
        "deep": sealed(b"[" * 4000),
        "only its name": sealed([label]),
        "too much": sealed([label, *key, "secret"]),
        "too little": sealed([label, *key[:-1]]),
        "of nobody": sealed(["secret", *key]),
        "NaN": sealed(b'["%s",NaN]' % label.encode()),
    }
    wrong: list[Any] = [None, True, 1.5, {}, [], "secret\0", "\ud800", 2**63, -(2**63) - 1]
    for place, right in enumerate(key, start=1):
        is_time = isinstance(right, str) and right[4:5] == "-"
        for value in [*wrong, *(["0001-01-01T00:00:00+14:00"] if is_time else [])]:
            changed = [*key[: place - 1], value, *key[place:]]
            forged[f"{value!r} in place {place}"] = sealed([label, *changed])
        changed = json.dumps([label, *key[: place - 1], "here", *key[place:]])
        digits = changed.replace('"here"', "9" * 4000).encode()
        forged[f"4000 digits in place {place}"] = sealed(digits)
    return forged


async def wrong_answer(ask: Ask, cursor: str) -> str | None:
    """What is wrong with the answer to a forged cursor, if something is."""
    try:
        page = await ask(limit=1, cursor=cursor)
    except InvalidArgumentError as error:
        if error.sqlstate:
            return f"PostgreSQL was asked: {error}"
        return f"tells it: {error}" if "secret" in f"{error!s}{error!r}" else None
    return f"answered: {page}"


async def test_a_forged_cursor_is_refused_and_nothing_is_sent(catbird_pool: Pool) -> None:
    await prepare(catbird_pool)
    faults: list[str] = []
    for name, ask in askers(catbird_pool).items():
        for what, forged in forgeries(await genuine(ask)).items():
            if fault := await wrong_answer(ask, forged):
                faults.append(f"{name}: {what}: {fault}")
    assert not faults, "\n".join(faults)


async def test_a_forged_cursor_does_not_abort_the_transaction(catbird_pool: Pool) -> None:
    await prepare(catbird_pool)
    faults: list[str] = []
    for name, ask in askers(catbird_pool).items():
        for what, forged in forgeries(await genuine(ask)).items():
            async with transaction(catbird_pool) as tx:
                await wrong_answer(askers(tx)[name], forged)
                if await aborted(tx):
                    faults.append(f"{name}: {what}")
    assert not faults, "\n".join(faults)


async def aborted(tx: Connection) -> bool:
    try:
        await get_conversation(tx, convo_id="a")
    except QueryError:
        return True
    return False


@settings(attack, max_examples=scaled(60, 5000))
@given(
    st.text()
    | st.binary().map(sealed)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    ).map(sealed)
)
async def test_whatever_stands_in_a_cursor_it_is_refused(catbird_pool: Pool, cursor: str) -> None:
    for function, names in (
        (list_messages, {"convo_id": "a", "reader_did": ALICE}),
        (list_conversations, {"member_did": ALICE}),
        (list_members, {"convo_id": "a"}),
        (list_pending_welcomes, {"recipient_did": BOB}),
    ):
        with pytest.raises(InvalidArgumentError, match="cursor"):
            await function(catbird_pool, **names, cursor=cursor)
    assert await stored(catbird_pool, "SELECT FROM conversations") == []
