"""How many rows a statement gives, and what tells them apart: statements of their own, rule by rule."""

from pathlib import Path
from typing import Any

import pytest
from check.conftest import Filled
from check.mutants import made, mutant

from catbird_db.check import hygiene
from catbird_db.check.database import examine, read_catalog

FOUND = {
    "a group for each of several": (
        "one-row",
        "one",
        "SELECT m.member_did, count(*) AS n FROM members AS m WHERE m.convo_id = :t GROUP BY m.convo_id, m.member_did",
    ),
    "a group for what an outer join finds, and one for what it does not": (
        "one-row",
        "one",
        "SELECT s.convo_id, count(*) AS n FROM members AS m LEFT JOIN messages AS s ON s.convo_id = :t AND s.sender_did = m.member_did"
        " WHERE m.convo_id = :t GROUP BY s.convo_id",
    ),
    "the same, one level out": (
        "one-row",
        "one",
        "SELECT f.c, count(*) AS n FROM (SELECT s.convo_id AS c FROM members AS m LEFT JOIN messages AS s"
        " ON s.convo_id = :t AND s.sender_did = m.member_did WHERE m.convo_id = :t) AS f GROUP BY f.c",
    ),
    "an element of an aggregate for each row": (
        "one-row",
        "value",
        "SELECT unnest(array_agg(m.member_did)) AS n FROM members AS m WHERE m.convo_id = :t",
    ),
    "all elements of an aggregate": (
        "unbounded",
        "many",
        "SELECT unnest(array_agg(m.member_did)) AS n FROM members AS m WHERE m.convo_id = :t ORDER BY n",
    ),
    "what a JSON path finds": (
        "one-row",
        "value",
        "SELECT jsonb_path_query(:t::jsonb, '$.a[*]') AS n",
    ),
    "a whole row of a table": (
        "select-star",
        "many",
        "SELECT x AS n FROM users AS x ORDER BY x.id LIMIT 3",
    ),
    "a whole row of a function": (
        "select-star",
        "many",
        "SELECT x AS n FROM jsonb_each(:t::jsonb) AS x ORDER BY x.key",
    ),
    "a whole row of several arrays": (
        "select-star",
        "many",
        "SELECT x AS n FROM unnest(:t::text[], :t::text[]) AS x ORDER BY x",
    ),
    "a whole row of a sub-select around a function of that name": (
        "select-star",
        "many",
        "SELECT x AS n FROM (SELECT x.x, 1 FROM unnest(:t::text[]) AS x) AS x ORDER BY x",
    ),
    "an element that may be another's column one day": (
        "qualified",
        "many",
        "SELECT u.id FROM unnest(:t::text[]) AS x JOIN users AS u ON u.did = x ORDER BY u.id",
    ),
    "an element further out that may be another's column one day": (
        "qualified",
        "many",
        "SELECT x AS n FROM unnest(:t::text[]) AS x WHERE EXISTS (SELECT FROM users AS u WHERE u.did = x) ORDER BY x",
    ),
    "order by an expression of a key": (
        "order",
        "many",
        "SELECT u.id FROM users AS u ORDER BY lower(u.id::text) LIMIT 3",
    ),
    "order by the name of an expression, grouped by the column of that name": (
        "order",
        "many",
        "SELECT lower(c.title) AS title, count(*) AS n FROM conversations AS c GROUP BY title ORDER BY lower(c.title) LIMIT 3",
    ),
    "keys of an update that changes them": (
        "order",
        "many",
        "WITH u AS (UPDATE goods AS x SET n = y.n FROM goods AS y WHERE x.owner_id = y.owner_id AND x.n = :t::bigint AND x.code = y.code"
        " RETURNING x.owner_id, x.n) SELECT u.n FROM u ORDER BY u.owner_id LIMIT 3",
    ),
    "null is no key": ("one-row", "value", "SELECT u.id FROM users AS u WHERE u.did IS NULL"),
    "null is no key of two columns": (
        "one-row",
        "value",
        "SELECT x.n FROM goods AS x WHERE x.owner_id = :t AND x.code IS NULL",
    ),
    "a null is not few": (
        "unbounded",
        "many",
        "SELECT u.id FROM users AS u WHERE u.did IS NULL ORDER BY u.id",
    ),
    "nulls come in any order": (
        "order",
        "many",
        "SELECT u.id FROM users AS u ORDER BY u.did LIMIT :t::bigint",
    ),
    "nulls of the preserved side of a join": (
        "order",
        "many",
        "SELECT u.id FROM users AS u LEFT JOIN users AS v ON v.did = u.did ORDER BY u.did LIMIT :t::bigint",
    ),
    "nulls of a sub-select": (
        "order",
        "many",
        "SELECT s.id FROM (SELECT u.id, u.did FROM users AS u) AS s ORDER BY s.did LIMIT :t::bigint",
    ),
    "a unique index with a predicate, on a column that may be null": (
        "one-row",
        "value",
        "SELECT x.n FROM goods AS x WHERE x.alias IS NULL AND x.n = 0",
    ),
}
PASSES = {
    "the one group": (
        "one",
        "SELECT m.convo_id, count(*) AS n FROM members AS m WHERE m.convo_id = :t GROUP BY m.convo_id",
    ),
    "the one group of a key": (
        "one",
        "SELECT c.id, max(s.seq) AS n FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id"
        " WHERE c.id = :t GROUP BY c.id",
    ),
    "the one group of a row": (
        "one",
        "SELECT c.id, c.title, max(s.seq) AS n FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id"
        " WHERE c.id = :t GROUP BY c.id, c.title",
    ),
    "groups by the name, number or text of an expression": (
        "many",
        "SELECT lower(c.title) AS a, left(c.title, 2) AS b, c.title || '.' AS d, count(*) AS n FROM conversations AS c"
        " GROUP BY a, 2, c.title || '.' ORDER BY 1, b, c.title || '.' LIMIT 3",
    ),
    "one of each": (
        "many",
        "SELECT DISTINCT ON (c.title) c.title, c.id FROM conversations AS c ORDER BY c.title, c.created_at LIMIT 3",
    ),
    "each different expression": (
        "many",
        "SELECT DISTINCT lower(c.title) AS a, c.last_seq FROM conversations AS c ORDER BY a, c.last_seq LIMIT 3",
    ),
    "a UNION by its column's number": (
        "many",
        "SELECT u.id FROM users AS u WHERE u.did = :t UNION SELECT u.id FROM users AS u WHERE u.did = 'd' ORDER BY 1",
    ),
    "elements of an array": ("many", "SELECT x AS n FROM unnest(:t::text[]) AS x ORDER BY x"),
    "among the elements of an array": (
        "many",
        "SELECT u.id FROM users AS u WHERE u.did IN (SELECT x FROM unnest(:t::text[]) AS x) ORDER BY u.id LIMIT 3",
    ),
    "an element by the name of both": (
        "many",
        "SELECT u.id FROM unnest(:t::text[]) AS x JOIN users AS u ON u.did = x.x ORDER BY x.x, u.id",
    ),
    "elements of JSON": (
        "many",
        "SELECT x AS n FROM jsonb_array_elements_text(:t::jsonb) AS x ORDER BY x",
    ),
    "a key that may be null, given": (
        "value",
        "SELECT u.id FROM users AS u WHERE u.did = :t::text",
    ),
    "one of two columns may be null, and is given": (
        "value",
        "SELECT x.n FROM goods AS x WHERE x.owner_id = :t AND x.code = 'c'",
    ),
    "a few of a key that may be null": (
        "many",
        "SELECT u.id FROM users AS u WHERE u.did = ANY (:t::text[]) ORDER BY u.did",
    ),
    "in the order of a key that may be null, without nulls": (
        "many",
        "SELECT u.id FROM users AS u WHERE u.did IS NOT NULL ORDER BY u.did LIMIT :t::bigint",
    ),
    "above a value of it": (
        "many",
        "SELECT u.id FROM users AS u WHERE u.did > 'd' ORDER BY u.did LIMIT :t::bigint",
    ),
    "joined by it": (
        "value",
        "SELECT u.id FROM members AS m JOIN users AS u ON u.did = m.member_did WHERE m.convo_id = :t AND m.member_did = :t",
    ),
    "joined by it, if there is one": (
        "value",
        "SELECT u.id FROM members AS m LEFT JOIN users AS u ON u.did = m.member_did WHERE m.convo_id = :t AND m.member_did = :t",
    ),
    "a unique index with a predicate": (
        "value",
        "SELECT x.n FROM goods AS x WHERE x.alias = :t AND x.n = 0",
    ),
}
TABLES = """
CREATE TABLE goods (owner_id text NOT NULL, code text, alias text, n bigint NOT NULL, UNIQUE (owner_id, code));
CREATE UNIQUE INDEX goods_alias_key ON goods (alias) WHERE n = 0;
"""


def rules(database: Filled, folder: Path, mode: str, sql: str) -> dict[str, str]:
    hints: dict[str, Any] = {"t": Any} if ":t" in sql else {}
    one = made(
        folder, f"-- name: made :{mode}\n{sql};\n", list[Any] if mode == "many" else Any, **hints
    )
    with database.connection.transaction(force_rollback=True):
        database.connection.execute(TABLES.encode())
        catalog = read_catalog(database.connection)
        subject, refused = examine(database.connection, one)
    assert refused is None, str(refused)
    return {finding.rule: str(finding) for finding in hygiene.check(subject, catalog)}


@pytest.mark.parametrize(("rule", "mode", "sql"), FOUND.values(), ids=FOUND)
def test_a_statement_that_may_give_more_or_otherwise_is_found(
    filled: Filled, tmp_path: Path, rule: str, mode: str, sql: str
):
    assert rule in rules(filled, tmp_path, mode, sql)


@pytest.mark.parametrize(("mode", "sql"), PASSES.values(), ids=PASSES)
def test_a_statement_that_nearly_does_passes(filled: Filled, tmp_path: Path, mode: str, sql: str):
    assert not rules(filled, tmp_path, mode, sql)


def test_behind_a_column_that_has_a_highest_value_text_begins_anywhere(
    filled: Filled, tmp_path: Path
):
    reason = " (the order changes with each message; bounded by what the member is in)"
    for old, new, found in (
        ("", "", set[str]()),
        ("'infinity'", "'2026-01-01'", {"order"}),
    ):
        one = mutant(tmp_path, "list_conversations", (reason, ""), (old, new))
        subject, _ = examine(filled.connection, one)
        assert {finding.rule for finding in hygiene.check(subject, filled.catalog)} == found
