"""The people of the demo, their devices, and what an application on a device does.

A `Device` is an MLS client and a position in each conversation. All that it knows of others it has
read from the database, and all that it reads it opens: what does not open raises.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .. import (
    CommitReceipt,
    KeyPackage,
    Message,
    NewKeyPackage,
    NewMessage,
    NewWelcome,
    WelcomeRecipient,
    acknowledge_welcome,
    commit_group_change,
    create_message,
    create_messages,
    list_commits,
    list_messages_since,
    list_pending_welcomes,
    store_key_packages,
)
from ..pool import Executor, Pool
from .evidence import Ledger
from .mls import CIPHER_SUITE, LIFETIME, Client, Commit, identity, read_key_package


class StoryError(Exception):
    """What was read is not what was written, or the other way round: the story cannot go on."""


class Recount:
    """Unread messages by the plainest rule: those above the mark, one by one."""

    def __init__(self) -> None:
        self._sent: dict[str, list[int]] = defaultdict(list)
        self._marks: dict[tuple[str, str], int] = defaultdict(int)
        self.trimmed: dict[str, int] = defaultdict(int)

    def sent(self, message: Message) -> None:
        if message.seq not in self._sent[message.convo_id]:
            self._sent[message.convo_id].append(message.seq)
        self.mark(message.convo_id, message.sender_did, message.seq)

    def mark(self, convo_id: str, did: str, seq: int) -> None:
        self._marks[convo_id, did] = max(self._marks[convo_id, did], seq)

    def of(self, convo_id: str, did: str) -> int:
        mark = max(self._marks[convo_id, did], self.trimmed[convo_id])
        seqs = sorted(self._sent[convo_id])
        return len(seqs) - bisect_right(seqs, mark)


@dataclass
class World:
    """What all devices have in common, and what the demo itself keeps count of."""

    pool: Pool
    ledger: Ledger = field(default_factory=Ledger)
    unread: Recount = field(default_factory=Recount)
    texts: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """What was sealed in each ciphertext."""
    removed: set[str] = field(default_factory=set[str])
    """DIDs that the server has removed, and whose leaves the MLS group still has."""


@dataclass(frozen=True)
class Opened:
    """One message as a device read it: who its sender is, and the text, by MLS."""

    message: Message
    sender: str
    text: str


@dataclass(frozen=True)
class Person:
    """Somebody with a DID. The server knows people; MLS knows devices."""

    name: str
    colour: str

    @property
    def did(self) -> str:
        return f"did:plc:{self.name.lower()}"

    def __str__(self) -> str:
        return f"[bold {self.colour}]{self.name}[/]"


class Device:
    """A client application: it publishes, joins, sends, reads, and opens what it reads."""

    def __init__(self, world: World, owner: Person, name: str) -> None:
        self.owner = owner
        self.name = name
        self.client = Client(owner.did, name)
        self.position: dict[str, int] = {}
        self._world = world
        self._sent: set[bytes] = set()

    def __str__(self) -> str:
        return f"{self.owner}[dim]/{self.name}[/]"

    @property
    def did(self) -> str:
        return self.owner.did

    def found(self, convo_id: str) -> None:
        """Found the MLS group of a conversation that its owner has created."""
        self.client.create_group(convo_id)
        self.position[convo_id] = 0

    async def publish(self, *, one_time: int, last_resort: bool) -> list[NewKeyPackage]:
        """Make key packages and store them; they are returned as they were stored."""
        expires_at = datetime.now(UTC) + LIFETIME
        kinds = [False] * one_time + [True] * last_resort
        packages = [
            NewKeyPackage(
                cipher_suite=CIPHER_SUITE,
                key_data=self.client.make_key_package(last_resort=last),
                expires_at=expires_at,
                device_id=self.name,
                last_resort=last,
            )
            for last in kinds
        ]
        stored = await store_key_packages(self._world.pool, did=self.did, packages=packages)
        if stored != len(packages):
            raise StoryError(f"{stored} key packages stored of {len(packages)}")
        for package in packages:
            self._world.ledger.stored("key packages", package.key_data)
        return packages

    def examine(self, packages: Iterable[KeyPackage]) -> list[KeyPackage]:
        """Verify key packages that were claimed, and that they are whose the server says."""
        examined = list(packages)
        for package in examined:
            view = read_key_package(package.key_data)
            said = (identity(package.did, package.device_id), package.last_resort)
            if (view.identity, view.last_resort) != said:
                raise StoryError(f"the server calls the key package of {view.identity} {said}")
            self._world.ledger.opened(package.key_data, self.client.identity)
        return examined

    def prepare(self, convo_id: str, packages: Sequence[KeyPackage]) -> Commit:
        """Make a commit that adds the devices of these key packages; nothing is sent yet."""
        commit = self.client.prepare_adds(convo_id, [package.key_data for package in packages])
        self._sent.add(commit.message)
        return commit

    async def submit(
        self, commit: Commit, packages: Sequence[KeyPackage], message_id: str
    ) -> CommitReceipt:
        """Send a commit with its Welcome and GroupInfo, and go on to its epoch if it wins."""
        receivers = self._others(commit.group_id)
        people = {one.partition("#")[0] for one in self.client.identities(commit.group_id)}
        receipt = await commit_group_change(
            self._world.pool,
            convo_id=commit.group_id,
            sender_did=self.did,
            message_id=message_id,
            expected_epoch=commit.epoch,
            commit=commit.message,
            add_dids=sorted({package.did for package in packages}),
            welcomes=[
                NewWelcome(
                    data=commit.welcome,
                    recipients=[
                        WelcomeRecipient(did=package.did, key_package_ref=package.ref)
                        for package in packages
                    ],
                )
            ],
            group_info=commit.group_info,
        )
        if self.client.epoch(commit.group_id) > commit.epoch:
            return receipt  # for one who asked again
        self.client.adopt(commit)
        joining = {identity(package.did, package.device_id) for package in packages}
        ledger = self._world.ledger
        ledger.stored("commits", commit.message, receivers | joining)
        ledger.stored("Welcomes", commit.welcome, joining)
        ledger.stored("GroupInfos", commit.group_info)
        for did in {package.did for package in packages} - people:
            self._world.unread.mark(commit.group_id, did, receipt.seq)
        return receipt

    async def join(self) -> list[str]:
        """Join from each Welcome that waits for this device; it reads on from where it came in."""
        pool, joined = self._world.pool, list[str]()
        waiting = await list_pending_welcomes(pool, recipient_did=self.did)
        for welcome in waiting.items:
            if not self.client.published(welcome.key_package_ref):
                continue  # for another device of the same person
            convo_id = self.client.join(welcome.data)
            self._world.ledger.opened(welcome.data, self.client.identity)
            if (convo_id, self.client.epoch(convo_id)) != (welcome.convo_id, welcome.epoch):
                raise StoryError("a Welcome leads to another group or epoch than the server says")
            await acknowledge_welcome(
                pool,
                convo_id=convo_id,
                recipient_did=self.did,
                key_package_ref=welcome.key_package_ref,
            )
            (commit,) = await list_commits(
                pool, convo_id=convo_id, reader_did=self.did, from_epoch=welcome.epoch - 1, limit=1
            )
            self.client.verify_entry(convo_id, commit.ciphertext)
            self._world.ledger.opened(commit.ciphertext, self.client.identity)
            self.position[convo_id] = commit.seq
            joined.append(convo_id)
        return joined

    async def send(
        self, convo_id: str, text: str, *, message_id: str | None = None, db: Executor | None = None
    ) -> Message:
        """Seal a text and store it."""
        return await self.store(convo_id, self.seal(convo_id, text), message_id=message_id, db=db)

    def seal(self, convo_id: str, text: str) -> bytes:
        sealed = self.client.seal(convo_id, text.encode())
        self._sent.add(sealed)
        self._world.texts[sealed] = text
        return sealed

    async def store(
        self,
        convo_id: str,
        sealed: bytes,
        *,
        message_id: str | None = None,
        db: Executor | None = None,
    ) -> Message:
        receivers = self._others(convo_id)
        message = await create_message(
            db or self._world.pool,
            convo_id=convo_id,
            sender_did=self.did,
            epoch=self.client.epoch(convo_id),
            ciphertext=sealed,
            message_id=message_id,
        )
        self._world.ledger.stored("messages", sealed, receivers)
        self._world.unread.sent(message)
        return message

    async def store_batch(self, convo_id: str, messages: Sequence[NewMessage]) -> list[Message]:
        receivers = self._others(convo_id)
        stored = await create_messages(
            self._world.pool,
            convo_id=convo_id,
            sender_did=self.did,
            epoch=self.client.epoch(convo_id),
            messages=messages,
        )
        for message in stored:
            self._world.ledger.stored("messages", message.ciphertext, receivers)
            self._world.unread.sent(message)
        return stored

    async def catch_up(self, convo_id: str, *, limit: int = 100) -> list[Opened]:
        """Read on from the position, oldest first, and open everything, until nothing comes."""
        opened: list[Opened] = []
        while messages := await list_messages_since(
            self._world.pool,
            convo_id=convo_id,
            reader_did=self.did,
            after_seq=self.position[convo_id],
            limit=limit,
        ):
            opened += self.take_in(messages)
        return opened

    async def catch_up_by_commits(self, convo_id: str) -> int:
        """Apply the commits of others since this device's epoch, and say how many there were."""
        commits = await list_commits(
            self._world.pool,
            convo_id=convo_id,
            reader_did=self.did,
            from_epoch=self.client.epoch(convo_id),
        )
        for commit in commits:
            self._open(commit)
        return len(commits)

    def take_in(self, messages: Iterable[Message]) -> list[Opened]:
        """Open messages in their order, and remember how far that was."""
        opened: list[Opened] = []
        for message in messages:
            text = self._open(message)
            if text is not None:
                opened.append(text)
            self.position[message.convo_id] = message.seq
        return opened

    def _open(self, message: Message) -> Opened | None:
        convo_id, client = message.convo_id, self.client
        if message.ciphertext in self._sent:
            return None  # by this device, and byte by byte what it sent
        if message.message_type == "commit":
            if message.epoch == client.epoch(convo_id):  # else caught up by list_commits before
                client.apply_commit(convo_id, message.ciphertext)
                self._world.ledger.opened(message.ciphertext, client.identity)
            return None
        sender, text = client.open(convo_id, message.ciphertext)
        if not sender.startswith(f"{message.sender_did}#"):
            raise StoryError(f"the server calls a message of {sender} one of {message.sender_did}")
        if text.decode() != self._world.texts[message.ciphertext]:
            raise StoryError(f"what {sender} sealed as seq {message.seq} opens as another text")
        self._world.ledger.opened(message.ciphertext, client.identity)
        return Opened(message, sender, text.decode())

    def _others(self, convo_id: str) -> set[str]:
        """Who shall open what this device sends now."""
        return {
            other
            for other in self.client.identities(convo_id) - {self.client.identity}
            if other.partition("#")[0] not in self._world.removed
        }
