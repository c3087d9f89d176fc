"""What the rules `tenant` and `actor` pass, run in two worlds that differ in what must not matter.

Statements are changed at random, as in test_fuzz. One that both rules still pass is run twice: what
it returns must not tell the worlds apart, and the rows in which they differ must stay as they are.

`tenant`: alice asks for her conversation, and the worlds differ in another one. `actor`: strangers, a
member of another conversation and one who has left ask for alice's, in which the worlds differ.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from mutagen import change
from mutants import mutant, written
from scale import scaled

import catbird_db  # noqa: F401 - its statements are bound when it is imported
from catbird_db.check import actor, tenancy
from catbird_db.check.database import Connection, connect, describe, read_catalog
from catbird_db.check.subject import Catalog, Subject
from catbird_db.embedded import EmbeddedServer
from catbird_db.query import Bound, bound
from catbird_db.sqlfile import SqlFileError

CHANGES = scaled(150, 4000)
SEED = 20_26
PEOPLE = {"hers": ("alice", "bob"), "theirs": ("carol", "erin")}
OUTSIDERS = ("mallory", "carol", "dave")  # a stranger, a member of theirs, one who has left both
KEYS = {
    "conversations": "id",
    "members": "convo_id",
    "messages": "convo_id",
    "welcomes": "convo_id",
    "welcome_recipients": "convo_id",
    "group_infos": "convo_id",
}


@dataclasses.dataclass(frozen=True)
class Worlds:
    """For each conversation two databases that differ in it alone."""

    catalog: Catalog
    differing: dict[str, tuple[Connection, Connection]]


@pytest.fixture(scope="module")
def worlds(catbird_server: EmbeddedServer, catbird_template: str) -> Generator[Worlds]:
    with connect(catbird_server.url) as admin:
        names = {convo: (f"interference_{convo}_1", f"interference_{convo}_2") for convo in PEOPLE}
        opened: dict[str, tuple[Connection, Connection]] = {}
        for convo, pair in names.items():
            for name in pair:
                admin.execute(f"CREATE DATABASE {name} TEMPLATE {catbird_template}".encode())
            one, other = (psycopg.connect(catbird_server.database_url(name)) for name in pair)
            opened[convo] = (one, other)
            for variant, connection in enumerate(opened[convo]):
                for each in PEOPLE:
                    fill(connection, each, variant if each == convo else 0)
                connection.execute("SET statement_timeout = '5s'")
                connection.commit()
        catalog = read_catalog(opened["hers"][0])
        yield Worlds(catalog, opened)
        for pair in opened.values():
            for connection in pair:
                connection.close()
        for pair in names.values():
            for name in pair:
                admin.execute(f"DROP DATABASE {name}".encode())


def fill(connection: Connection, convo: str, variant: int) -> None:
    """One conversation and what its members own; another ``variant`` has other rows."""
    size = 6 - 3 * variant
    first, second = PEOPLE[convo]
    connection.execute(
        "INSERT INTO conversations (id, creator_did, title, current_epoch, last_seq, app_count, trimmed_seq)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [convo, first, f"title {variant}", 2 - variant, size, size - 1, 1 - variant],
    )
    connection.execute(
        "INSERT INTO members (convo_id, member_did, left_at, read_seq) SELECT %s, did, left_at, %s"
        "  FROM (VALUES (%s, NULL), (%s, NULL), ('dave', now())) AS m (did, left_at)",
        [convo, 1 + variant, first, second],
    )
    connection.execute(
        "INSERT INTO messages (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, app_number)"
        " SELECT %s, n, 'm' || n + %s, CASE n %% 2 WHEN 0 THEN %s ELSE %s END,"
        "        CASE n WHEN 2 THEN 'commit' ELSE 'app' END, %s, 'x', n - 1"
        "   FROM generate_series(1, %s) AS n",
        [convo, variant, first, second, variant, size],
    )
    connection.execute(
        "INSERT INTO objects (hash, generation, size, state, lease_until)"
        " VALUES (%s, gen_random_uuid(), 1, 'stored', now()) ON CONFLICT DO NOTHING",
        ["0" * 64],
    )
    connection.execute(  # what dave has left behind
        "INSERT INTO blobs (uploaded_by_did, id, cid, convo_id, size, object_hash)"
        " VALUES ('dave', %s, 'b', %s, 1, %s)",
        [UUID(int=[*PEOPLE].index(convo)), convo, "0" * 64],
    )
    connection.execute("INSERT INTO welcomes VALUES (%s, 1, 1, %s)", [convo, b"%d" % variant])
    connection.execute(
        "INSERT INTO welcome_recipients SELECT %s, 1, 1, did, 'ref' FROM unnest(%s::text[]) AS did",
        [convo, [first, second]],
    )
    connection.execute("INSERT INTO group_infos VALUES (%s, 1, %s)", [convo, b"%d" % variant])
    connection.execute(
        "INSERT INTO key_packages (did, id, device_id, cipher_suite, key_data, ref, last_resort, expires_at)"
        " SELECT did, uuid, 'd', 1, uuid::text::bytea, sha256(uuid::text::bytea), false, now() + '1 day'"
        "   FROM unnest(%s::text[]) AS did CROSS JOIN unnest(%s::uuid[]) AS uuid",
        [[first, second], [UUID(int=n + 9 * variant) for n in range(3)]],
    )


def test_what_the_rules_pass_neither_shows_nor_changes_what_is_not_the_callers(
    worlds: Worlds, tmp_path: Path, capsys: Any
):
    random = Random(SEED)
    statements = [one for one in bound() if one.statement.label.startswith("chat.")]
    passed = Counter[str]()
    for _ in range(CHANGES):
        subject = changed(random, random.choice(statements), worlds, tmp_path)
        if subject is None or list(tenancy.check(subject, worlds.catalog)):
            continue
        header = subject.statement.header
        if not header.get("tenant", "none").startswith("none"):
            passed["tenant"] += 1
            values = arguments(random, subject, {})
            assert interference(subject, values, worlds.differing["theirs"], "theirs") is None
        if subject.statement.actor and not list(actor.check(subject, worlds.catalog)):
            passed["actor"] += 1
            name, unless = subject.statement.actor
            for outsider in OUTSIDERS:
                values = arguments(random, subject, {name: outsider})
                if unless is not None:
                    values[unless] = False
                assert interference(subject, values, worlds.differing["hers"], "hers") is None
    with capsys.disabled():
        print(f"\n{CHANGES} random changes; run, as these rules passed them: {dict(passed)}")
    assert passed["tenant"] > CHANGES / 4 and passed["actor"] > CHANGES / 20


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("get_conversation", "c.id = :convo_id", "c.id <> :convo_id"),
        ("delete_message", "s.convo_id = :convo_id AND s.id", "s.id"),
        ("get_message_count", "c.id = :convo_id", "c.id = :convo_id OR true"),
    ],
)
def test_the_worlds_tell_apart_what_is_not_bound(
    worlds: Worlds, tmp_path: Path, name: str, old: str, new: str
):
    """Else the test above would prove nothing."""
    one = mutant(tmp_path, name, (old, new))
    subject = Subject(one, describe(worlds.differing["hers"][0], one.statement))
    values = arguments(Random(SEED), subject, {}) | {"message_id": "m3"}
    values = {key: value for key, value in values.items() if key in subject.statement.parameters}
    assert list(tenancy.check(subject, worlds.catalog)) != []
    assert interference(subject, values, worlds.differing["theirs"], "theirs") is not None


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("list_messages", " AND r.left_at IS NULL", ""),
        ("list_messages", "AND r.member_did = :reader_did", "AND r.member_did <> :reader_did"),
        ("get_trimmed_seq", "c.id = r.convo_id\n WHERE r.convo_id = :convo_id AND", "true\n WHERE"),
        (
            "get_trimmed_seq",
            "members AS r\n  JOIN conversations AS c ON c.id = r.convo_id\n"
            " WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL",
            "blobs AS r\n  JOIN conversations AS c ON c.id = r.convo_id\n"
            " WHERE r.convo_id = :convo_id AND r.uploaded_by_did = :reader_did",
        ),
    ],
)
def test_the_worlds_tell_apart_what_is_not_covered(
    worlds: Worlds, tmp_path: Path, name: str, old: str, new: str
):
    one = mutant(tmp_path, name, (old, new))
    subject = Subject(one, describe(worlds.differing["hers"][0], one.statement))
    assert list(actor.check(subject, worlds.catalog)) != []
    found = [
        interference(
            subject,
            arguments(Random(SEED), subject, {one.statement.header["actor"]: outsider}),
            worlds.differing["hers"],
            "hers",
        )
        for outsider in OUTSIDERS
    ]
    assert any(found)


def changed(random: Random, one: Bound, worlds: Worlds, folder: Path) -> Subject | None:
    """A statement changed once to three times; None where it does not prepare."""
    made = one
    for _ in range(random.choice([1, 1, 2, 3])):
        try:
            drawn = change(random, made)
            made = written(folder, one, drawn.text) if drawn else made
        except SqlFileError:
            return None
    try:
        return Subject(made, describe(worlds.differing["hers"][0], made.statement))
    except psycopg.Error:
        return None


def arguments(random: Random, subject: Subject, given: dict[str, str]) -> dict[str, Any]:
    """What alice would pass, but for what is given."""
    assert subject.described is not None
    found: dict[str, Any] = {}
    types = subject.described.parameter_types
    for name, type_name in zip(subject.statement.parameters, types, strict=True):
        match type_name.removesuffix("[]"):
            case "text" if "convo" in name:
                value = "hers"
            case "text" if "did" in name:
                value = given.get(name, "alice")
            case "text":
                value = random.choice(["m1", "m2", "m3", "app", "d"])
            case "bytea":
                value = random.choice([b"x", b"ref", b"1"])
            case "uuid":
                value = UUID(int=random.randrange(12))
            case "boolean":
                value = random.choice([True, False])
            case "timestamp with time zone":
                value = datetime(2099, 1, 1, tzinfo=UTC)
            case _:
                value = random.choice([0, 1, 1, 2, 3, 100])
        found[name] = None if name.startswith("cursor_") else value
        if type_name.endswith("[]"):
            found[name] = [value]
    return found


def interference(
    subject: Subject, values: dict[str, Any], pair: tuple[Connection, Connection], convo: str
) -> str | None:
    """How a statement tells two worlds apart, or what it changes where they differ."""
    told: list[Any] = []
    for connection in pair:
        with undone(connection):
            before = rows_of(connection, convo)
            told.append(answer(connection, subject, values))
            if rows_of(connection, convo) != before:
                return f"{subject.statement.sql}\nwith {values} changes rows of {convo}"
    if told[0] != told[1]:
        return f"{subject.statement.sql}\nwith {values} tells\n{told[0]}\nor\n{told[1]}"
    return None


@contextmanager
def undone(connection: Connection) -> Generator[None]:
    with connection.transaction(force_rollback=True):
        yield


def answer(connection: Connection, subject: Subject, values: dict[str, Any]) -> Any:
    assert subject.described is not None
    types = subject.described.parameter_types
    sql = re.sub(
        r"\$(\d+)",
        lambda found: f"%({subject.parameter(int(found[1]))})s::{types[int(found[1]) - 1]}",
        subject.statement.sql.replace("%", "%%"),
    )
    try:
        with connection.transaction():
            cursor = connection.execute(sql.encode(), values)
            if not cursor.description:
                return cursor.rowcount
            return sorted(re.sub(r"datetime\.datetime\(.*?utc\)", "", str(row)) for row in cursor)
    except psycopg.Error as error:
        return error.sqlstate


def rows_of(connection: Connection, convo: str) -> list[Any]:
    found = [
        connection.execute(
            f"SELECT t::text FROM {table} AS t WHERE t.{key} = %s ORDER BY 1".encode(), [convo]
        ).fetchall()
        for table, key in KEYS.items()
    ]
    owned = "SELECT k::text FROM key_packages AS k WHERE k.did = ANY (%s) ORDER BY 1"
    return [*found, connection.execute(owned, [list(PEOPLE[convo])]).fetchall()]
