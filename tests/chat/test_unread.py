"""Unread counts: derived, so that they equal a simple model whatever happens in whatever order."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from actors import converse, send, until_waiting
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from scale import scaled

from catbird_db import (
    NewMessage,
    NotAMemberError,
    NotFoundError,
    Pool,
    Settings,
    add_member,
    commit_group_change,
    create_message,
    create_messages,
    delete_conversation,
    delete_message,
    delete_messages_before,
    get_conversation,
    get_membership,
    get_message_count,
    list_conversations,
    mark_read,
    open_pool,
    remove_member,
    reset_unread_count,
    transaction,
    update_unread_count,
)

ALICE, BOB, CAROL = "did:plc:alice", "did:plc:bob", "did:plc:carol"
DIDS = (ALICE, BOB, CAROL)


async def unread(pool: Pool, did: str, convo_id: str) -> int | None:
    """What the member's list of conversations says; None where it is not in the list."""
    page = await list_conversations(pool, member_did=did, limit=500)
    return {one.id: one.unread_count for one in page.items}.get(convo_id)


# Against a model.


@dataclass
class Mark:
    """How far one member has read, counted in application messages; and whether it is active."""

    active: bool = True
    read: int = 0


@dataclass
class Model:
    """What a person would say who keeps a list on paper."""

    types: list[str] = field(default_factory=list[str])  # of message 1, 2, 3, ...
    ids: list[str] = field(default_factory=list[str])
    senders: list[str] = field(default_factory=list[str])
    gone: set[int] = field(default_factory=set[int])  # seqs that retention removed
    marks: dict[str, Mark] = field(default_factory=lambda: {did: Mark() for did in DIDS})
    epoch: int = 0

    def note(self, sender: str, messages: list[tuple[str, str]]) -> None:
        for id_, type_ in messages:
            self.ids.append(id_)
            self.types.append(type_)
            self.senders.append(sender)

    def stored_ids(self) -> set[str]:
        """The ids of those that retention has left."""
        return {id_ for seq, id_ in enumerate(self.ids, start=1) if seq not in self.gone}

    def sent(self) -> list[int]:
        """Of each message that is no commit, the seq, gone or not."""
        return [seq for seq, type_ in enumerate(self.types, start=1) if type_ != "commit"]

    def apps(self, seq: int | None = None) -> int:
        """Application messages up to a seq, or all."""
        return self.types[:seq].count("app")

    @property
    def floor(self) -> int:
        """Application messages that nobody can read any more."""
        return self.apps(max(self.gone, default=0))

    def unread(self, did: str) -> int:
        return self.apps() - max(self.marks[did].read, self.floor)

    def add_unread(self, did: str, increment: int) -> None:
        self.marks[did].read = min(
            max(max(self.marks[did].read, self.floor) - increment, self.floor), self.apps()
        )

    def trim(self, before: int, limit: int) -> int:
        doomed = [
            seq
            for seq, type_ in enumerate(self.types, start=1)
            if seq < before and seq not in self.gone and type_ != "commit"
        ]
        self.gone |= set(doomed[:limit])
        return len(doomed[:limit])


somebody = st.sampled_from(DIDS)
some_types = st.sampled_from(["app", "app", "proposal"])


class UnreadMachine(RuleBasedStateMachine):
    """Every step is done in the database and in the model, and the two are compared after it."""

    pool: Pool
    run: Callable[[Awaitable[Any]], Any]
    numbers = count()  # of conversations and of messages: no id is like another's seq

    @initialize()
    def converse(self) -> None:
        self.model = Model()
        self.convo_id = f"unread-{next(self.numbers)}"
        self.run(converse(self.pool, self.convo_id, *DIDS))

    def call(self, function: Callable[..., Awaitable[Any]], **rest: Any) -> Any:
        return self.run(function(self.pool, convo_id=self.convo_id, **rest))

    def refuses_who_left(self, function: Callable[..., Awaitable[Any]], **rest: Any) -> bool:
        """Whether this member has left, and is refused."""
        if self.model.marks[rest["member_did"]].active:
            return False
        with pytest.raises(NotFoundError):
            self.call(function, **rest)
        return True

    def active(self, did: str) -> str:
        """This one, or the next who is active."""
        return next(one for one in (did, *DIDS) if self.model.marks[one].active)

    def someone_is_active(self) -> bool:
        return any(mark.active for mark in self.model.marks.values())

    def store(self, sender: str, messages: list[tuple[str, str]]) -> None:
        """Send ids with their types, one alone or as a batch, and note those that are new."""
        names: dict[str, Any] = {"sender_did": sender, "epoch": self.model.epoch}
        if len(messages) == 1:
            [(id_, type_)] = messages
            one = {"message_id": id_, "message_type": type_, "ciphertext": b"x"}
            self.call(create_message, **names, **one)
        else:
            batch = [
                NewMessage(ciphertext=b"x", message_id=id_, message_type=type_)
                for id_, type_ in messages
            ]
            self.call(create_messages, **names, messages=batch)
        new = [one for one in messages if one[0] not in self.model.stored_ids()]
        if new:
            self.model.note(sender, new)
            self.model.marks[sender].read = self.model.apps()

    @precondition(someone_is_active)
    @rule(did=somebody, types=st.lists(some_types, min_size=1, max_size=4))
    def send(self, did: str, types: list[Any]) -> None:
        self.store(self.active(did), [(f"{next(self.numbers)}", type_) for type_ in types])

    @precondition(lambda self: self.model.sent())
    @rule(data=st.data(), more=st.lists(some_types, max_size=2))
    def send_again(self, data: st.DataObject, more: list[Any]) -> None:
        """A lost reply: the sender sends a message again, and perhaps new ones with it."""
        seq = data.draw(st.sampled_from(self.model.sent()))
        sender = self.model.senders[seq - 1]
        again = (self.model.ids[seq - 1], self.model.types[seq - 1])
        new = [(f"{next(self.numbers)}", type_) for type_ in more]
        if self.model.marks[sender].active:
            self.store(sender, [again, *new])
        else:
            with pytest.raises(NotAMemberError):
                self.store(sender, [again, *new])

    @precondition(someone_is_active)
    @rule(did=somebody, changes=st.sets(somebody))
    def commit(self, did: str, changes: set[str]) -> None:
        """Whom it names joins if it is not there, and leaves if it is."""
        sender = self.active(did)
        active = {one for one in changes if self.model.marks[one].active}
        self.last_commit = f"{next(self.numbers)}"
        self.call(
            commit_group_change,
            sender_did=sender,
            message_id=self.last_commit,
            expected_epoch=self.model.epoch,
            commit=b"commit",
            add_dids=sorted(changes - active),
            remove_dids=sorted(active - {sender}),
        )
        self.model.note(sender, [(self.last_commit, "commit")])
        self.model.epoch += 1
        for one in changes - active:
            self.model.marks[one] = Mark(read=self.model.apps())
        for one in active - {sender}:
            self.model.marks[one].active = False

    @rule(did=somebody, seq=st.integers(0, 40))
    def read(self, did: str, seq: int) -> None:
        if self.refuses_who_left(mark_read, member_did=did, seq=seq):
            return
        answer = self.call(mark_read, member_did=did, seq=seq)
        mark = self.model.marks[did]
        mark.read = max(mark.read, self.model.apps(seq))
        assert answer == self.model.unread(did)

    @rule(did=somebody, increment=st.integers(-4, 4) | st.sampled_from([-(2**62), 2**62]))
    def mark_unread(self, did: str, increment: int) -> None:
        if self.refuses_who_left(update_unread_count, member_did=did, increment=increment):
            return
        answer = self.call(update_unread_count, member_did=did, increment=increment)
        self.model.add_unread(did, increment)
        assert answer == self.model.unread(did)

    @rule(did=somebody)
    def reset(self, did: str) -> None:
        if self.refuses_who_left(reset_unread_count, member_did=did):
            return
        assert self.call(reset_unread_count, member_did=did) == 0
        self.model.marks[did].read = self.model.apps()

    @rule(did=somebody)
    def leave(self, did: str) -> None:
        assert self.call(remove_member, member_did=did) is self.model.marks[did].active
        self.model.marks[did].active = False

    @rule(did=somebody)
    def join(self, did: str) -> None:
        member = self.call(add_member, member_did=did)
        assert member.left_at is None
        if not self.model.marks[did].active:
            self.model.marks[did] = Mark(read=self.model.apps())
            assert member.read_seq == len(self.model.types)

    @rule(before=st.integers(0, 40), limit=st.integers(1, 4))
    def trim(self, before: int, limit: int) -> None:
        removed = self.call(delete_messages_before, seq=before, limit=limit)
        assert removed == self.model.trim(before, limit)

    @precondition(lambda self: self.model.types)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """A blanked message stays a message: who had not read it has still not read it."""
        seq = data.draw(st.integers(1, len(self.model.types)))
        deleted = self.call(delete_message, message_id=self.model.ids[seq - 1])
        assert not (deleted and self.model.types[seq - 1] == "commit")

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        for did in DIDS:
            is_active = self.model.marks[did].active
            expected = self.model.unread(did) if is_active else None
            assert self.run(unread(self.pool, did, self.convo_id)) == expected
        left = len(self.model.types) - len(self.model.gone)
        assert self.call(get_message_count) == left

    def teardown(self) -> None:
        assert self.call(delete_conversation)


@contextmanager
def open_machine(catbird_settings: Settings) -> Generator[type[UnreadMachine]]:
    """The machine with a pool, and with the loop that runs its sync rules' async calls."""
    with asyncio.Runner() as runner:
        opened = open_pool(catbird_settings)
        pool = runner.run(opened.__aenter__())

        class Machine(UnreadMachine):
            run = staticmethod(runner.run)

        Machine.pool = pool
        try:
            yield Machine
        finally:
            runner.run(opened.__aexit__(None, None, None))


def test_unread_equals_a_simple_model_under_random_interleavings(
    catbird_settings: Settings,
) -> None:
    with open_machine(catbird_settings) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=scaled(40, 2000),
                stateful_step_count=scaled(30, 80),
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


# At once.


async def test_unread_can_be_derived_after_senders_readers_and_markers_at_once(pool: Pool) -> None:
    """Who only sends and reads has read up to the greatest of what it sent and marked.

    Dave's mark is moved to and fro meanwhile, and never shows more or less than there is.
    """
    dave = "did:plc:dave"
    convo_id = await converse(pool, "c", *DIDS, dave)
    rounds = scaled(100, 3000)
    stored = [0]  # seqs, which number the application messages: there are no others
    read_up_to = dict.fromkeys(DIDS, 0)
    running = {*DIDS}

    async def sender(did: str) -> None:
        for number in range(rounds):
            [message] = await send(pool, convo_id, did, f"{did} {number}")
            stored.append(message.seq)
            read_up_to[did] = max(read_up_to[did], message.seq)
        running.discard(did)

    async def reader(did: str) -> None:
        while running:
            seq = random.choice(stored)
            answer = await mark_read(pool, convo_id=convo_id, member_did=did, seq=seq)
            read_up_to[did] = max(read_up_to[did], seq)
            assert 0 <= answer <= rounds * len(DIDS)

    async def watcher(did: str) -> None:
        """A member's unread in its list is never negative, and never more than was sent."""
        while running:
            shown = await unread(pool, did, convo_id)
            assert shown is not None
            assert 0 <= shown <= rounds * len(DIDS)

    async def marker() -> None:
        while running:
            increment = random.randint(-9, 9)
            answer = await update_unread_count(
                pool, convo_id=convo_id, member_did=dave, increment=increment
            )
            assert 0 <= answer <= rounds * len(DIDS)
            if random.random() < 0.1:
                await reset_unread_count(pool, convo_id=convo_id, member_did=dave)

    async def trimmer() -> None:
        while running:
            seq = random.choice(stored)
            await delete_messages_before(pool, convo_id=convo_id, seq=seq // 2, limit=3)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(trimmer())
        for did in DIDS:
            tasks.create_task(sender(did))
            tasks.create_task(reader(did))
        tasks.create_task(marker())
        tasks.create_task(marker())
        tasks.create_task(watcher(ALICE))
        tasks.create_task(watcher(dave))

    sent = rounds * len(DIDS)
    assert len(stored) == sent + 1
    conversation = await get_conversation(pool, convo_id=convo_id)
    assert conversation is not None
    for did in DIDS:
        unseen = sent - max(read_up_to[did], conversation.trimmed_seq)
        assert await unread(pool, did, convo_id) == unseen
        member = await get_membership(pool, convo_id=convo_id, member_did=did)
        assert member is not None
        assert member.read_seq == read_up_to[did]
    assert await reset_unread_count(pool, convo_id=convo_id, member_did=dave) == 0
    assert await unread(pool, dave, convo_id) == 0


async def test_who_alone_sends_has_nothing_unread_whatever_its_devices_mark_meanwhile(
    pool: Pool,
) -> None:
    convo_id = await converse(pool, "c", ALICE, BOB)
    sent = 0
    sending = True

    async def devices() -> None:
        nonlocal sending, sent
        for _ in range(scaled(25, 1000)):
            batch = [send(pool, convo_id, ALICE, f"{sent + n}") for n in range(4)]
            await asyncio.gather(*batch)
            sent += 4
        sending = False

    async def marker() -> None:
        while sending:
            read = max(0, sent - 3)
            calls = [
                update_unread_count(pool, convo_id=convo_id, member_did=ALICE, increment=0),
                update_unread_count(pool, convo_id=convo_id, member_did=ALICE, increment=-1),
                mark_read(pool, convo_id=convo_id, member_did=ALICE, seq=read),
                reset_unread_count(pool, convo_id=convo_id, member_did=ALICE),
                unread(pool, ALICE, convo_id),
            ]
            assert await asyncio.gather(*calls) == [0] * len(calls)
            await add_member(pool, convo_id=convo_id, member_did=ALICE)  # is one: changes nothing
            assert await unread(pool, ALICE, convo_id) == 0

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(devices())
        for _ in range(6):
            tasks.create_task(marker())
    assert await unread(pool, ALICE, convo_id) == 0
    assert await unread(pool, BOB, convo_id) == sent


@pytest.mark.parametrize("name", ["update_unread_count", "mark_read", "reset_unread_count"])
async def test_a_mark_that_waited_for_the_members_own_send_does_not_undo_it(
    pool: Pool, name: str
) -> None:
    calls: dict[str, Callable[[], Awaitable[int]]] = {
        "update_unread_count": lambda: update_unread_count(
            pool, convo_id="c", member_did=ALICE, increment=0
        ),
        "mark_read": lambda: mark_read(pool, convo_id="c", member_did=ALICE, seq=1),
        "reset_unread_count": lambda: reset_unread_count(pool, convo_id="c", member_did=ALICE),
    }
    await converse(pool, "c", ALICE, BOB)
    await send(pool, "c", ALICE, "1")
    async with transaction(pool) as tx:
        await send(tx, "c", ALICE, "2")
        waiting = asyncio.ensure_future(calls[name]())
        await until_waiting(pool, name)
    assert await waiting == 0
    assert await unread(pool, ALICE, "c") == 0
    member = await get_membership(pool, convo_id="c", member_did=ALICE)
    assert member is not None
    assert member.read_seq == 2
    assert await unread(pool, BOB, "c") == 2


async def test_a_mark_beyond_the_newest_message_does_not_swallow_those_to_come(pool: Pool) -> None:
    await converse(pool, "c", ALICE, BOB)
    await send(pool, "c", ALICE, "1")
    assert await mark_read(pool, convo_id="c", member_did=BOB, seq=2**63 - 1) == 0
    assert await update_unread_count(pool, convo_id="c", member_did=BOB, increment=-(2**62)) == 0
    await send(pool, "c", ALICE, "2")
    assert await unread(pool, BOB, "c") == 1
    member = await get_membership(pool, convo_id="c", member_did=BOB)
    assert member is not None
    assert member.read_seq == 1
