"""The demo, as a stranger runs it; and with the data layer broken on purpose, once for each promise."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import psutil
import pytest
from rich.console import Console

from catbird_db import Settings
from catbird_db.demo import tell
from catbird_db.demo.evidence import Promise
from catbird_db.demo.mls import Client, read_group_info, read_key_package
from catbird_db.demo.stage import Stage
from catbird_db.pool import Connection

MARK = "CATBIRD_DEMO_TEST"
"""A variable of the environment, by which the processes of one demo are found."""

BROKEN: dict[Promise, tuple[str, str, str]] = {
    Promise.NONE_MISSED: (
        "list_messages_since",
        r"AND s\.seq > (\$\d+)::bigint",
        r"AND s.seq > \1::bigint AND s.seq % 10 <> 7",
    ),
    Promise.GAPLESS: ("append_message", r"locked\.last_seq \+ 1", "locked.last_seq + 2"),
    Promise.ONE_COMMIT: ("apply_commit", r"AND c\.current_epoch =", "AND c.current_epoch >="),
    Promise.ALL_OR_NOTHING: (
        "apply_commit",
        r"stored\.sent_at, stored\.seq, stored\.app_number\s+FROM stored\s+CROSS JOIN",
        "now(), 0, 0 FROM (SELECT) AS any_commit CROSS JOIN",
    ),
    Promise.ONE_RESULT: (
        "append_message",
        r"(SELECT \$\d+, locked\.last_seq \+ 1, \$\d+)",
        r"\1 || gen_random_uuid()",
    ),
    Promise.TAKEN_ID: (
        "append_message",
        r"WHERE s\.sender_did = excluded\.sender_did[^)]*\)",
        "",
    ),
    Promise.REMOVED: ("append_message", r"FOR NO KEY UPDATE OF c, m", "FOR NO KEY UPDATE OF c"),
    Promise.ONE_CLAIMANT: ("claim_key_package", r"FOR UPDATE SKIP LOCKED", ""),
    Promise.LAST_RESORT: ("claim_key_package", r"AND NOT kp\.last_resort", ""),
    Promise.SPENT: (
        "insert_key_package",
        r"DO NOTHING",
        "DO UPDATE SET consumed_at = NULL, key_data = excluded.key_data",
    ),
    Promise.UNREAD: ("mark_read", r"s\.seq <= ", "s.seq < "),
    Promise.STRANGER: (
        "get_message",
        r"AND r\.member_did = (\$\d+) AND r\.left_at IS NULL",
        r"AND \1::text IS NOT NULL",
    ),
    Promise.RETENTION: ("list_messages_since", r"AND c\.trimmed_seq <= \$\d+", ""),
    Promise.SAME_SECRETS: (
        "get_current_epoch",
        r"c\.current_epoch FROM",
        "c.current_epoch + 1 FROM",
    ),
    Promise.EVERY_BYTE: (
        "list_messages_since",
        r"page\.ciphertext",
        r"set_byte(page.ciphertext, 60, 0)",
    ),
}


async def test_the_demo_keeps_every_promise(catbird_settings: Settings):
    out = StringIO()
    verdict = await tell(catbird_settings, Stage(Console(file=out, width=80)))
    assert verdict.broken == [], out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


@pytest.mark.parametrize("promise", Promise, ids=lambda promise: promise.name.lower())
async def test_a_broken_statement_is_seen(
    promise: Promise, catbird_settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    done = break_statement(monkeypatch, *BROKEN[promise])
    out = StringIO()
    verdict = await tell(catbird_settings, Stage(Console(file=out, width=80)))
    assert done(), "the statement is not what it was: break it in another way"
    assert verdict.refuted(promise), out.getvalue()
    assert promise in verdict.broken


def break_statement(
    monkeypatch: pytest.MonkeyPatch, name: str, pattern: str, replacement: str
) -> Callable[[], bool]:
    """Send another SQL for a statement; call what is returned to hear whether that happened."""
    changed = 0

    def breaking(method: str) -> Any:
        original = getattr(Connection, method)

        async def call(self: Any, sql: str, *arguments: Any, **options: Any) -> Any:
            nonlocal changed
            if f".{name} */" in sql:
                sql, number = re.subn(pattern, replacement, sql)
                changed += number
            return await original(self, sql, *arguments, **options)

        return call

    for method in ("fetch", "fetchrow", "execute"):
        monkeypatch.setattr(Connection, method, breaking(method), raising=False)
    return lambda: changed > 0


class Demo:
    """`catbird-db demo` in a process of its own, its output in a pipe."""

    def __init__(self, *, before: str = "pass") -> None:
        self.mark = uuid.uuid4().hex
        script = f"import sys; sys.argv[1:] = ['demo']; {before}; from catbird_db.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, MARK: self.mark, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=120)
        return output

    def left_behind(self) -> list[str]:
        """Processes of this demo that still run: its server, or whatever it started."""
        return [" ".join(one.info["cmdline"] or ()) for one in self._processes()]

    def _processes(self) -> Iterator[psutil.Process]:
        for one in psutil.process_iter(["environ", "cmdline"]):
            if (one.info["environ"] or {}).get(MARK) == self.mark:
                yield one


def test_the_command_twice_in_a_row():
    for _ in range(2):
        demo = Demo()
        output = demo.finish()
        assert demo.process.returncode == 0, output
        promises = output.partition("Promises ─")[2]
        assert promises.count("✓") == len(Promise) + 1
        assert "✗" not in output
        assert "\x1b" not in output
        assert max(map(len, output.splitlines())) <= 80
        assert demo.left_behind() == []


def test_the_command_fails_if_a_promise_is_broken():
    demo = Demo(
        before="import catbird_db.demo.story as story; honest = story.get_message_count; "
        "story.get_message_count = lambda *args, **named: honest(*args, **{**named, 'convo_id': 'x'})"
    )
    output = demo.finish()
    assert demo.process.returncode == 1, output
    assert "the story breaks off: NotFoundError" in output
    assert demo.left_behind() == []


@pytest.mark.parametrize("chapter", ["starting", "5 ·"])
def test_an_interrupted_demo_leaves_no_server_behind(chapter: str):
    demo = Demo()
    assert demo.process.stdout is not None
    if chapter == "starting":
        deadline = time.monotonic() + 60
        while len(demo.left_behind()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    else:
        for line in demo.process.stdout:
            if line.startswith(chapter):
                break
    demo.process.send_signal(signal.SIGINT)
    output = demo.finish()
    assert demo.process.returncode == 130, output
    assert "Traceback" not in output
    deadline = time.monotonic() + 30
    while demo.left_behind() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert demo.left_behind() == []


def test_a_client_keeps_its_group_until_its_commit_is_adopted():
    alice, bob, carol = (Client(f"did:plc:{name}", "phone") for name in ("alice", "bob", "carol"))
    alice.create_group("g")
    first = alice.prepare_adds("g", [bob.make_key_package()])
    assert alice.epoch("g") == 0
    alice.adopt(first)
    assert bob.join(first.welcome) == "g"
    package = carol.make_key_package(last_resort=True)
    lost = alice.prepare_adds("g", [package])
    won = bob.prepare_adds("g", [package])
    bob.adopt(won)
    alice.apply_commit("g", won.message)
    with pytest.raises(ValueError, match="epoch 1, which is over"):
        alice.adopt(lost)
    carol.join(won.welcome)
    carol.verify_entry("g", won.message)
    assert len({client.authenticator("g") for client in (alice, bob, carol)}) == 1
    assert carol.open("g", alice.seal("g", b"hello")) == ("did:plc:alice#phone", b"hello")
    assert read_group_info(won.group_info).identities == alice.identities("g")


def test_a_client_refuses_what_was_tampered_with():
    alice, bob = Client("did:plc:alice", "phone"), Client("did:plc:bob", "phone")
    alice.create_group("g")
    package = bob.make_key_package()
    commit = alice.prepare_adds("g", [package])
    alice.adopt(commit)
    bob.join(commit.welcome)

    def altered(data: bytes) -> bytes:
        return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]

    with pytest.raises(Exception, match=r"."):
        read_key_package(altered(package))
    with pytest.raises(Exception, match=r"."):
        read_group_info(altered(commit.group_info))
    with pytest.raises(Exception, match=r"."):
        bob.open("g", altered(alice.seal("g", b"hello")))
    another = alice.prepare_adds("g", [Client("did:plc:carol", "phone").make_key_package()])
    with pytest.raises(Exception, match=r"."):
        bob.verify_entry("g", another.message)
