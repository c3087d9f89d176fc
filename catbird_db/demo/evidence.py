"""What the demo observes, and what it concludes: promises checked, bytes read back, statements run."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from ..pool import Observation


class Promise(StrEnum):
    """What the data layer promises, in the order of the table that the demo ends with."""

    NONE_MISSED = "A reader that pages by seq misses no message"
    GAPLESS = "seq has no gaps, whoever rolls back"
    ONE_COMMIT = "One commit wins an epoch; the others learn which epoch it is"
    ALL_OR_NOTHING = "Members, Welcomes and GroupInfo come with the winning commit only"
    ONE_RESULT = "A retried send stores one message and returns the first result"
    TAKEN_ID = "A taken id is refused, and tells a stranger nothing"
    REMOVED = "A removed member sends and reads nothing more"
    ONE_CLAIMANT = "A key package goes to one claimant"
    LAST_RESORT = "The last resort is served when nothing else is left, and stays"
    SPENT = "A spent key package never comes back"
    UNREAD = "Unread counts never drift"
    STRANGER = "A stranger reads and changes nothing"
    RETENTION = "Retention tells a stale reader, and keeps commits"
    SAME_SECRETS = "All devices of a group share its secrets, epoch after epoch"
    EVERY_BYTE = "Every byte stored is read back and opened by its receivers"


class Verdict:
    """What was observed for each promise. One without an observation is not kept."""

    def __init__(self) -> None:
        self._checks: dict[Promise, list[tuple[bool, str]]] = defaultdict(list)

    def check(self, promise: Promise, holds: bool, observed: str) -> bool:
        self._checks[promise].append((holds, observed))
        return holds

    def kept(self, promise: Promise) -> bool:
        checks = self._checks[promise]
        return bool(checks) and all(holds for holds, _ in checks)

    def refuted(self, promise: Promise) -> bool:
        """Whether it was seen broken, and not only never put to the test."""
        return any(not holds for holds, _ in self._checks[promise])

    def observed(self, promise: Promise) -> str:
        """What was seen; where the promise is broken, only what broke it."""
        kept = self.kept(promise)
        seen = [observed for holds, observed in self._checks[promise] if holds == kept]
        return "; ".join(dict.fromkeys(seen)) or "the story did not get there"

    @property
    def broken(self) -> list[Promise]:
        return [promise for promise in Promise if not self.kept(promise)]


@dataclass
class Deposit:
    """Bytes that were stored: who shall open them, and who has."""

    kind: str
    size: int
    receivers: set[str] = field(default_factory=set[str])
    """Empty where anybody who reads them will do."""


class Ledger:
    """Bytes that clients stored, and those that clients read and opened, by their SHA-256.

    Opened means: decrypted, or a signature verified and the content used. A client that cannot
    open what it read raises before it comes here.
    """

    def __init__(self) -> None:
        self.deposits: dict[bytes, Deposit] = {}
        self._opened: dict[bytes, set[str]] = defaultdict(set)

    def stored(self, kind: str, data: bytes, receivers: Iterable[str] = ()) -> None:
        self.deposits[sha256(data).digest()] = Deposit(kind, len(data), set(receivers))

    def opened(self, data: bytes, reader: str) -> None:
        self._opened[sha256(data).digest()].add(reader)

    def openings(self, digest: bytes) -> int:
        return len(self._opened[digest])

    def unopened(self) -> Iterator[tuple[bytes, Deposit]]:
        """Those that a receiver of theirs, or anybody, has yet to open."""
        for digest, deposit in self.deposits.items():
            if not self._opened[digest] or not deposit.receivers <= self._opened[digest]:
                yield digest, deposit


@dataclass
class Usage:
    """How often a statement ran, and for how long altogether (seconds, waits included)."""

    calls: int = 0
    seconds: float = 0.0
    failures: int = 0


class Meter:
    """The observer of a pool: what ran, by the name that each statement carries as a comment."""

    def __init__(self) -> None:
        self.by_statement: dict[str, Usage] = defaultdict(Usage)

    def __call__(self, observation: Observation) -> None:
        usage = self.by_statement[_statement_name(observation.sql)]
        usage.calls += 1
        usage.seconds += observation.seconds
        usage.failures += observation.failed

    @property
    def calls(self) -> int:
        return sum(usage.calls for usage in self.by_statement.values())

    @property
    def seconds(self) -> float:
        return sum(usage.seconds for usage in self.by_statement.values())


_LABEL = re.compile(r"/\* ([\w.]+) \*/")
_UNLABELLED = {
    "BEGIN, COMMIT, ROLLBACK": re.compile(r"\s*(BEGIN|COMMIT|ROLLBACK)\b"),
    "asyncpg: reset, types": re.compile(
        r"\s*SELECT pg_advisory_unlock_all|.*(typeinfo_tree|'jit')", re.DOTALL
    ),
}


def _statement_name(sql: str) -> str:
    if labelled := _LABEL.search(sql):
        return labelled[1]
    names = (name for name, pattern in _UNLABELLED.items() if pattern.match(sql))
    return next(names, "the demo's own questions")
