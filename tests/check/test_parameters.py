"""Annotations that do not fit what the statement takes, and some that nearly do not."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from check.conftest import Filled
from check.mutants import made
from pydantic import Field

from catbird_db.check import parameters
from catbird_db.check.database import examine
from catbird_db.check.finding import Finding
from catbird_db.query import Bound, bound
from catbird_db.types import (
    CipherSuite,
    ConvoId,
    Did,
    Epoch,
    MessageType,
    SentType,
    Timestamp,
    Title,
    Unset,
)

SMALL = Annotated[int, Field(ge=0, le=32767)]


def judged(database: Filled, one: Bound) -> list[Finding]:
    subject, refused = examine(database.connection, one)
    assert refused is None, str(refused)
    return list(parameters.check(subject, database.catalog))


def underlined(finding: Finding) -> str:
    return finding.excerpt[finding.column - 1 : finding.column - 1 + finding.width]


@pytest.mark.parametrize("one", bound(), ids=lambda one: one.statement.label)
def test_the_project_sends_what_its_statements_take(filled: Filled, one: Bound) -> None:
    found = judged(filled, one)
    assert found == [], "\n\n".join(map(str, found))


class Mood(StrEnum):
    CALM = "calm"
    CROSS = "cross"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Plain(Enum):
    ONE = "one"


# what it is, the SQL, the annotation of :x, what the finding says
TYPES = [
    ("an alias wider than smallint", "SELECT :x::smallint", CipherSuite, "1 to 65535 is admitted"),
    ("an alias without an upper bound", "SELECT :x::bigint", Annotated[int, Field(ge=0)], "0 to any"),
    ("a bound beyond bigint", "SELECT :x::bigint", Annotated[int, Field(gt=0, le=2**63)], "is admitted"),
    (
        "a stored int that its column cannot hold",
        "INSERT INTO welcomes AS w (convo_id, epoch, ordinal, data) VALUES ('c', 1, :x::bigint, '')",
        Epoch,
        "welcomes.ordinal: 0 to 9223372036854775806 is admitted, and integer takes",
    ),
    ("text for a number", "SELECT FROM conversations AS c WHERE c.last_seq = :x", str, "str is sent as bigint"),
    ("bytes for text", "SELECT FROM conversations AS c WHERE c.id = :x", bytes, "bytes is sent as text"),
    ("text for a uuid", "SELECT FROM key_packages AS k WHERE k.id = :x", str, "str is sent as uuid"),
    ("text for bytes", "SELECT FROM messages AS m WHERE m.ciphertext = :x", Did, "str is sent as bytea"),
    ("an int for a bool", "SELECT FROM key_packages AS k WHERE k.last_resort = :x", int, "int is sent as boolean"),
    ("a bool for an int", "SELECT :x::bigint", bool, "bool is sent as bigint"),
    ("a float for numeric", "SELECT :x::numeric", float, "float is sent as numeric"),
    ("a time without its zone", "SELECT :x::timestamp", Timestamp, "datetime is sent as timestamp without time zone"),
    ("a date for a time", "SELECT FROM messages AS m WHERE m.sent_at > :x", date, "date is sent as timestamp with"),
    ("a dict for text", "SELECT :x::text", dict[str, Any], "dict is sent as text"),
    ("a sequence for one", "SELECT FROM conversations AS c WHERE c.id = :x", Sequence[ConvoId], "a sequence is sent as text"),
    ("one for a sequence", "SELECT FROM conversations AS c WHERE c.id = ANY (:x)", ConvoId, "a single value is sent as text[]"),
    ("the wrong elements", "SELECT unnest(:x::bigint[])", Sequence[str], "str is sent as bigint"),
    ("elements out of range", "SELECT unnest(:x::smallint[])", list[CipherSuite], "and smallint takes"),
    ("one of two types", "SELECT :x::text", str | int, "does not say what is sent"),
    ("anything", "SELECT :x::text", Any, "does not say what is sent"),
    (
        "unset for a column that is never null",
        "UPDATE conversations AS c SET last_seq = :x WHERE c.id = 'c'",
        Epoch | Unset,
        "last_seq is NOT NULL",
    ),
    (
        "an alias wider than smallint, or unset",
        "SELECT coalesce(:x::smallint, 1)",
        CipherSuite | Unset | None,
        "1 to 65535 is admitted",
    ),
    (
        "a smaller column, by CASE",
        "UPDATE key_packages AS k SET cipher_suite = CASE WHEN k.last_resort THEN :x::bigint ELSE 1 END WHERE k.did = 'd'",
        Epoch,
        "key_packages.cipher_suite: 0 to 9223372036854775806 is admitted",
    ),
    ("an Enum that the driver does not send", "SELECT :x::text", Plain, "does not say what is sent"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "hint", "says"), [case[1:] for case in TYPES], ids=[case[0] for case in TYPES]
)
def test_a_type_that_does_not_fit_is_caught(
    filled: Filled, tmp_path: Path, sql: str, hint: Any, says: str
) -> None:
    (found,) = judged(filled, made(tmp_path, f"-- name: made :exec\n{sql};", x=hint))
    assert says in found.message
    assert underlined(found) == ":x"


FITTING = [
    ("an alias as wide as its column", "SELECT :x::integer", CipherSuite),
    ("bounds within smallint", "SELECT :x::smallint", SMALL),
    ("an int without bounds", "SELECT :x::bigint", int),
    ("a smaller int, compared", "SELECT FROM key_packages AS k WHERE k.cipher_suite = :x::bigint", Epoch),
    ("an int that is numeric", "SELECT :x::numeric", int),
    ("Decimal", "SELECT :x::numeric(5, 2)", Decimal),
    ("float", "SELECT :x::double precision", float),
    ("varchar", "SELECT :x::varchar(10)", str),
    ("uuid", "SELECT FROM key_packages AS k WHERE k.id = :x", UUID),
    ("uuids", "SELECT FROM key_packages AS k WHERE k.id = ANY (:x)", Sequence[UUID]),
    ("bytes", "SELECT unnest(:x::bytea[])", tuple[bytes, ...]),
    ("a time", "SELECT FROM messages AS m WHERE m.sent_at > :x", datetime),
    ("times", "SELECT unnest(:x::timestamptz[])", Sequence[Timestamp]),
    ("a duration", "SELECT statement_timestamp() + :x::interval", timedelta),
    ("jsonb", "SELECT :x::jsonb", dict[str, Any]),
    ("jsonb as text", "SELECT :x::jsonb", str),
    ("an IntEnum", "SELECT :x::bigint", Size),
    (
        "what is unset or null",
        "UPDATE conversations AS c SET title = CASE WHEN :x_given THEN :x::text ELSE c.title END WHERE c.id = 'c'",
        Title | Unset | None,
    ),
    (
        "what is unset and never null",
        "UPDATE conversations AS c SET last_seq = coalesce(:x, c.last_seq) WHERE c.id = 'c'",
        Epoch | Unset,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "hint"), [case[1:] for case in FITTING], ids=[case[0] for case in FITTING]
)
def test_a_type_that_fits_passes(filled: Filled, tmp_path: Path, sql: str, hint: Any) -> None:
    found = judged(filled, made(tmp_path, f"-- name: made :exec\n{sql};", x=hint))
    assert found == [], "\n\n".join(map(str, found))


INSERT_MESSAGE = """INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, app_number)
SELECT 'c', 1, 'm', 'd', {}, 1, '', 1"""

VALUES = [
    ("compared", "SELECT FROM messages AS m WHERE m.message_type = :x", Literal["app", "welcome"], "never holds"),
    ("compared in a list", "SELECT FROM messages AS m WHERE m.message_type IN ('app', :x)", Literal["x"], "never holds"),
    ("in an array", "SELECT FROM messages AS m WHERE m.message_type = ANY (:x)", Sequence[Literal["app", "x"]], "never holds"),
    ("without a qualifier", "SELECT FROM messages WHERE message_type <> :x", Literal["x"], "never holds"),
    ("stored", INSERT_MESSAGE.format(":x"), Literal["app", "welcome"], "never admits"),
    ("set", "UPDATE messages AS m SET message_type = :x WHERE m.convo_id = 'c'", Literal["x"], "never admits"),
    (
        "stored by way of unnest and WITH",
        "WITH given AS (SELECT g.kind FROM unnest(:x::text[]) AS g (kind)) "
        + INSERT_MESSAGE.format("given.kind")
        + " FROM given",
        Sequence[Literal["app", "x"]],
        "never admits",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "hint", "says"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES]
)
def test_a_literal_that_its_column_refuses_is_caught(
    filled: Filled, tmp_path: Path, sql: str, hint: Any, says: str
) -> None:
    (found,) = judged(filled, made(tmp_path, f"-- name: made :exec\n{sql};", x=hint))
    assert says in found.message
    assert "messages.message_type" in found.message
    assert found.mend == "Literal of 'app', 'commit', 'proposal', or some of them"
    assert underlined(found) == ":x"


@pytest.mark.parametrize("hint", [MessageType, SentType, Literal["commit"]])
@pytest.mark.parametrize(
    "sql", [case[1] for case in VALUES if "unnest" not in case[1] and "ANY" not in case[1]]
)
def test_a_literal_of_some_values_of_its_column_passes(
    filled: Filled, tmp_path: Path, sql: str, hint: Any
) -> None:
    assert judged(filled, made(tmp_path, f"-- name: made :exec\n{sql};", x=hint)) == []


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (Literal["calm", "glad"], "mood has no label 'glad'"),
        (str, "any str is sent as mood, which has 2 labels"),
        (int, "int is sent as mood, which is an enum"),
        (Size, "int is sent as mood, which is an enum"),
    ],
)
def test_what_is_no_label_of_an_enum_is_caught(
    varied: Filled, tmp_path: Path, hint: Any, says: str
) -> None:
    text = "-- name: made :exec\nSELECT FROM owners AS o WHERE o.mood = :x;"
    (found,) = judged(varied, made(tmp_path, text, x=hint))
    assert says in found.message
    assert found.mend == "Literal['calm', 'cross']"


@pytest.mark.parametrize("hint", [Literal["calm"], Mood, Literal["cross", "calm"]])
def test_labels_of_an_enum_pass(varied: Filled, tmp_path: Path, hint: Any) -> None:
    text = "-- name: made :exec\nSELECT FROM owners AS o WHERE o.mood = :x;"
    assert judged(varied, made(tmp_path, text, x=hint)) == []


# Optional

INSERT_CONVERSATION = "INSERT INTO conversations AS c (id, creator_did, title)"

NEVER_TRUE = "and then this is never true"
DEAD = [
    ("compared", "SELECT FROM conversations AS c WHERE c.title = :x::text", NEVER_TRUE),
    ("compared, the other way", "SELECT FROM conversations AS c WHERE :x::text <> c.title", NEVER_TRUE),
    ("in an expression", "SELECT FROM conversations AS c WHERE lower(c.title) = lower(:x) || 'a'", NEVER_TRUE),
    ("in a row", "SELECT FROM conversations AS c WHERE (c.id, c.title) > ('a', :x)", NEVER_TRUE),
    ("in a list", "SELECT FROM conversations AS c WHERE c.title IN ('a', :x)", NEVER_TRUE),
    ("under NOT", "SELECT FROM conversations AS c WHERE NOT c.title = :x", NEVER_TRUE),
    ("under OR", "SELECT FROM conversations AS c WHERE c.id = 'a' OR c.title = :x", NEVER_TRUE),
    (
        "in ON",
        "SELECT FROM members AS m LEFT JOIN conversations AS c ON c.id = m.convo_id AND c.title = :x",
        NEVER_TRUE,
    ),
    ("in HAVING", "SELECT c.title FROM conversations AS c GROUP BY c.title HAVING max(c.id) > :x", NEVER_TRUE),
    (
        "in a sub-select",
        "SELECT FROM members AS m WHERE EXISTS (SELECT FROM conversations AS c WHERE c.id = m.convo_id AND c.title = :x)",
        NEVER_TRUE,
    ),
    ("in UPDATE", "UPDATE members AS m SET left_at = NULL WHERE m.convo_id = 'c' AND m.member_did = :x", NEVER_TRUE),
    ("in DELETE", "DELETE FROM members AS m WHERE m.convo_id = 'c' AND m.member_did = :x", NEVER_TRUE),
    ("last in coalesce", "SELECT FROM conversations AS c WHERE c.id = coalesce(c.title, :x)", NEVER_TRUE),
    ("another is tested", "SELECT FROM conversations AS c WHERE c.id IS NULL OR c.title = :x", NEVER_TRUE),
    ("stored by VALUES", f"{INSERT_CONVERSATION} VALUES ('c', :x, 't')", "creator_did is NOT NULL"),
    ("stored by SELECT", f"{INSERT_CONVERSATION} SELECT 'c', :x::text, m.convo_id FROM members AS m", "creator_did is NOT NULL"),
    ("set", "UPDATE conversations AS c SET creator_did = :x WHERE c.id = 'c'", "creator_did is NOT NULL"),
    (
        "set on conflict",
        f"{INSERT_CONVERSATION} VALUES ('c', 'd', 't') ON CONFLICT (id) DO UPDATE SET creator_did = :x",
        "creator_did is NOT NULL",
    ),
    ("through WITH", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} SELECT 'c', g.t, 't' FROM g", "creator_did is NOT NULL"),
    ("by a name of the WITH query", f"WITH g (t) AS (SELECT :x::text) {INSERT_CONVERSATION} SELECT 'c', a.t, 't' FROM g AS a", "creator_did is NOT NULL"),
    ("without its alias", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} SELECT 'c', t, 't' FROM g", "creator_did is NOT NULL"),
    ("through two", f"WITH g AS (SELECT :x::text AS t), h AS (SELECT lower(g.t) AS u FROM g) {INSERT_CONVERSATION} SELECT 'c', h.u, 't' FROM h", "creator_did is NOT NULL"),
    ("through a sub-select", f"{INSERT_CONVERSATION} SELECT 'c', s.t, 't' FROM (SELECT :x::text AS t) AS s", "creator_did is NOT NULL"),
    ("through one side of a UNION", f"{INSERT_CONVERSATION} SELECT 'c', s.t, 't' FROM (SELECT 'd' AS t UNION ALL SELECT :x::text) AS s", "creator_did is NOT NULL"),
    ("through VALUES", f"{INSERT_CONVERSATION} SELECT 'c', v.t, 't' FROM (VALUES (1, 'd'), (2, :x)) AS v (n, t)", "creator_did is NOT NULL"),
    ("through a value's sub-select", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} VALUES ('c', (SELECT g.t FROM g), 't')", "creator_did is NOT NULL"),
    ("set from WITH", "WITH g AS (SELECT :x::text AS t) UPDATE conversations AS c SET creator_did = g.t FROM g WHERE c.id = 'c'", "creator_did is NOT NULL"),
    ("set in WITH", "WITH g AS (SELECT :x::text AS t), u AS (UPDATE conversations AS c SET creator_did = g.t FROM g WHERE c.id = 'c') SELECT 1", "creator_did is NOT NULL"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "says"), [case[1:] for case in DEAD], ids=[case[0] for case in DEAD]
)
def test_a_none_that_means_nothing_is_caught(
    filled: Filled, tmp_path: Path, sql: str, says: str
) -> None:
    text = f"-- name: made :exec\n{sql};"
    (found,) = judged(filled, made(tmp_path, text, x=str | None))
    assert found.message.startswith("x may be None, ")
    assert says in found.message
    assert underlined(found) == ":x"
    assert judged(filled, made(tmp_path, text, x=str)) == []


def test_a_limit_that_may_vanish_is_caught(filled: Filled, tmp_path: Path) -> None:
    text = "-- name: made :exec\nSELECT FROM conversations AS c LIMIT :x;"
    (found,) = judged(filled, made(tmp_path, text, x=int | None))
    assert found.message == "x may be None, and then there is no limit"


ALIVE = [
    ("coalesce", "SELECT FROM conversations AS c WHERE c.title > coalesce(:x::text, '')"),
    ("coalesce around an expression", "SELECT FROM conversations AS c WHERE c.title > coalesce(lower(:x), c.id)"),
    ("not distinct", "SELECT FROM conversations AS c WHERE c.title IS NOT DISTINCT FROM :x"),
    ("tested before", "SELECT FROM conversations AS c WHERE :x::text IS NULL OR c.title = :x"),
    ("tested before, with AND", "SELECT FROM conversations AS c WHERE :x::text IS NOT NULL AND c.title = :x"),
    ("CASE", "SELECT FROM conversations AS c WHERE CASE WHEN :x::text IS NULL THEN true ELSE c.title = :x END"),
    ("the greatest", "SELECT FROM conversations AS c WHERE c.title > greatest(:x::text, 'a')"),
    ("stored in a nullable column", f"{INSERT_CONVERSATION} VALUES ('c', 'd', :x)"),
    ("selected into one", f"{INSERT_CONVERSATION} SELECT 'c', 'd', :x::text FROM members AS m"),
    ("set", "UPDATE conversations AS c SET title = :x WHERE c.id = 'c'"),
    ("kept where it is not given", "UPDATE conversations AS c SET creator_did = coalesce(:x, c.creator_did) WHERE c.id = 'c'"),
    ("stored only if it is given", f"{INSERT_CONVERSATION} SELECT 'c', :x::text, 't' FROM members AS m WHERE :x IS NOT NULL"),
    ("shown", "SELECT :x::text AS title"),
    ("through WITH, into a nullable column", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} SELECT 'c', 'd', g.t FROM g"),
    ("through WITH, into another column", f"WITH g AS (SELECT :x::text AS t, 'd' AS u) {INSERT_CONVERSATION} SELECT 'c', g.u, g.t FROM g"),
    ("through WITH, if it is given", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} SELECT 'c', g.t, 't' FROM g WHERE g.t IS NOT NULL"),
    ("through WITH, if it is given to that", f"WITH g AS (SELECT :x::text AS t WHERE :x IS NOT NULL) {INSERT_CONVERSATION} SELECT 'c', g.t, 't' FROM g"),
    ("through WITH, replaced", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} SELECT 'c', coalesce(g.t, 'd'), 't' FROM g"),
    ("through WITH, replaced in that", f"WITH g AS (SELECT coalesce(:x::text, 'd') AS t) {INSERT_CONVERSATION} SELECT 'c', g.t, 't' FROM g"),
    ("through WITH, that of a member", f"WITH g AS (SELECT :x::text AS t) {INSERT_CONVERSATION} SELECT 'c', g.t, 't' FROM g JOIN members AS m ON m.member_did = g.t"),
    ("through WITH, in an outer join", "WITH g AS (SELECT :x::text AS t) SELECT c.id FROM g LEFT JOIN conversations AS c ON c.id = g.t"),
    ("of another sub-select under that name", f"{INSERT_CONVERSATION} SELECT 'c', s.t, (SELECT s.t FROM (SELECT :x::text AS t) AS s) FROM (SELECT 'd' AS t) AS s"),
    ("a function that takes it", "SELECT FROM conversations AS c WHERE c.title = concat('a', :x::text)"),
]  # fmt: skip


@pytest.mark.parametrize("sql", [case[1] for case in ALIVE], ids=[case[0] for case in ALIVE])
def test_a_none_that_means_something_passes(filled: Filled, tmp_path: Path, sql: str) -> None:
    found = judged(filled, made(tmp_path, f"-- name: made :exec\n{sql};", x=str | None))
    assert found == [], "\n\n".join(map(str, found))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT FROM conversations AS c WHERE c.title > coalesce(:x, '')",
        "SELECT FROM conversations AS c WHERE (c.id, c.title) > ('', coalesce(:x, ''))",
        "SELECT :x AS title",
        "WITH given AS (SELECT :x AS title) UPDATE conversations AS c SET title = given.title FROM given",
        "SELECT coalesce(CASE WHEN true THEN :x END, 'a')",
    ],
)
def test_a_type_that_postgresql_guessed_is_caught(filled: Filled, tmp_path: Path, sql: str) -> None:
    (found,) = judged(filled, made(tmp_path, f"-- name: made :exec\n{sql};", x=str | None))
    assert found.message == "x: nothing here tells the type of x, so PostgreSQL takes it for text"
    assert found.mend == ":x::text, or the type that it has"
    assert underlined(found) == ":x"
    cast = sql.replace(":x", ":x::text", 1)
    assert judged(filled, made(tmp_path, f"-- name: made :exec\n{cast};", x=str | None)) == []


def test_a_position_counts_characters_not_bytes(filled: Filled, tmp_path: Path) -> None:
    text = "-- name: made :exec\nSELECT 'žluťoučký' /* ü */, :x::smallint;"
    (found,) = judged(filled, made(tmp_path, text, x=CipherSuite))
    assert underlined(found) == ":x"
