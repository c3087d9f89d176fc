"""How many rows a statement gives, and what tells them apart: statements of their own, rule by rule."""

from pathlib import Path
from typing import Any

import pytest
from check.conftest import Filled
from check.mutants import made

from catbird_db.check import hygiene
from catbird_db.check.database import examine, read_catalog

FOUND = {
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
