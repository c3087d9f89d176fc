"""The scene of the story: who is there, and what every chapter does with all of them."""

from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from hashlib import sha256
from typing import Any

from .. import (
    ConversationSummary,
    DatabaseError,
    GroupInfo,
    Message,
    get_current_epoch,
    get_group_info,
    list_conversations,
    list_messages_since,
)
from ..pool import Pool
from .cast import Device, Opened, Person, StoryError, World
from .evidence import Promise, Verdict
from .mls import GroupInfoView, identity, read_group_info
from .stage import Stage, count, hex_of


class Scene:
    """The cast on a migrated, empty database, the stage, and what was concluded so far."""

    def __init__(self, pool: Pool, stage: Stage, verdict: Verdict) -> None:
        self.pool = pool
        self.stage = stage
        self.check = verdict.check
        self.world = World(pool)
        self.away: set[Device] = set()
        self.devices: list[Device] = []
        self.unread_compared = 0
        self.unread_wrong: list[str] = []

        alice, bob, carol = Person("Alice", "cyan"), Person("Bob", "green"), Person("Carol", "magenta")  # fmt: skip
        dave, erin = Person("Dave", "yellow"), Person("Erin", "blue")
        frank, grace = Person("Frank", "red"), Person("Grace", "bright_magenta")
        self.mallory = Person("Mallory", "bright_red")
        self.alice, self.alice_laptop = self._join(alice, "phone"), self._join(alice, "laptop")
        self.bob, self.bob_tablet = self._join(bob, "phone"), self._join(bob, "tablet")
        self.carol = self._join(carol, "phone")
        self.dave, self.dave_laptop = self._join(dave, "phone"), self._join(dave, "laptop")
        self.erin = self._join(erin, "phone")
        self.frank = self._join(frank, "phone")
        self.grace = self._join(grace, "phone")

    def _join(self, owner: Person, name: str) -> Device:
        device = Device(self.world, owner, name)
        self.devices.append(device)
        return device

    def present(self, convo_id: str) -> list[Device]:
        """The devices that are in the group and online."""
        return [
            device
            for device in self.devices
            if convo_id in device.position and device not in self.away
        ]

    async def all_read(self, convo_id: str, *, show: bool = True) -> None:
        """Every device that is online reads on; new messages are shown as one of them read them."""
        seen: dict[int, Opened] = {}
        for device in self.present(convo_id):
            for opened in await device.catch_up(convo_id):
                seen.setdefault(opened.message.seq, opened)
        if not show:
            return
        senders = {device.client.identity: device for device in self.devices}
        for seq, opened in sorted(seen.items()):
            data = opened.message.ciphertext
            openings = self.world.ledger.openings(sha256(data).digest())
            self.stage.chat(seq, str(senders[opened.sender]), opened.text, len(data), openings)

    async def read_all(self, convo_id: str, did: str, *, after_seq: int = 0) -> list[Message]:
        """A conversation as the server tells it, oldest first."""
        everything: list[Message] = []
        while messages := await list_messages_since(
            self.pool, convo_id=convo_id, reader_did=did, after_seq=after_seq
        ):
            everything += messages
            after_seq = messages[-1].seq
        return everything

    async def look_from_outside(self, convo_id: str) -> tuple[GroupInfo, GroupInfoView]:
        """The GroupInfo as the server has it, and as one outside the group verifies it."""
        info = await get_group_info(self.pool, convo_id=convo_id)
        if info is None:
            raise StoryError(f"there is no GroupInfo of {convo_id}")
        view = read_group_info(info.data)
        self.world.ledger.opened(info.data, identity(self.mallory.did, "phone"))
        return info, view

    async def agree(self, convo_id: str, *, show: bool = True) -> None:
        """All devices that are online are at the server's epoch, and have the same secrets."""
        epoch = await get_current_epoch(self.pool, convo_id=convo_id)
        info, view = await self.look_from_outside(convo_id)
        devices = self.present(convo_id)
        secrets = {device.client.authenticator(convo_id) for device in devices}
        epochs = {device.client.epoch(convo_id) for device in devices}
        epochs |= {epoch, info.epoch, view.epoch}
        trees = {device.client.identities(convo_id) for device in devices} | {view.identities}
        holds = self.check(
            Promise.SAME_SECRETS,
            len(secrets) == len(epochs) == len(trees) == 1,
            f"{convo_id} epoch {epoch}: {len(devices)} devices",
        )
        if show:
            self.stage.step(
                "get_current_epoch",
                f"{convo_id}: epoch {epoch}. {count(len(devices), 'device')}, "
                f"{count(len(secrets), 'epoch authenticator')}: "
                f"{', '.join(sorted(map(hex_of, secrets)))}",
                holds,
            )

    async def summaries(self, did: str) -> dict[str, ConversationSummary]:
        page = await list_conversations(self.pool, member_did=did)
        return {summary.id: summary for summary in page.items}

    async def compare_unread(self) -> None:
        """Every unread count of everybody, against a recount."""
        for did in sorted({device.did for device in self.devices}):
            for convo_id, summary in (await self.summaries(did)).items():
                self.unread_compared += 1
                recount = self.world.unread.of(convo_id, did)
                if summary.unread_count != recount:
                    wrong = f"{did} in {convo_id}: {summary.unread_count}, not {recount}"
                    self.unread_wrong.append(wrong)

    async def ask(self, sql: str, *arguments: object) -> list[Any]:
        """A question of the demo's own, which no function of the package answers."""
        async with self.pool.connection() as connection:
            raw: Any = connection
            return await raw.fetch(sql, *arguments)


async def refusal(call: Awaitable[object]) -> DatabaseError | None:
    """What a call was refused with, or None if it was not."""
    try:
        await call
    except DatabaseError as error:
        return error
    return None


def named(error: DatabaseError | None) -> str:
    return f"[red]{type(error).__name__}[/]" if error else "[bold]no error[/]"


def outcomes(errors: Iterable[DatabaseError | None]) -> str:
    """``8 times NotAMemberError``"""
    counted = Counter(map(named, errors))
    return ", ".join(f"{number} times {name}" for name, number in counted.items())


def listed(things: Sequence[object]) -> str:
    """``one, two and three``"""
    *rest, last = map(str, things) if things else ["nobody"]
    return f"{', '.join(rest)} and {last}" if rest else last
