"""The rules that read the syntax tree: cases as text, each prepared by PostgreSQL, and the project."""

from collections.abc import Generator
from typing import Any

import pytest
from tree_cases import CASES, bound, differences, statements

import catbird_db  # noqa: F401 - its statements are bound when it is imported
from catbird_db.check import actor, columns, nullability, tenancy
from catbird_db.check.database import Connection, connect, describe, read_catalog
from catbird_db.check.subject import Catalog, Subject
from catbird_db.embedded import EmbeddedServer
from catbird_db.query import bound as project_statements
from catbird_db.sqlfile import Statement

RULES: dict[str, Any] = {
    "tenant": tenancy,
    "actor": actor,
    "not-null": nullability,
    "columns": columns,
}
EVERY_CASE = [
    pytest.param(rule, one, id=f"{rule}-{one.name}") for rule in RULES for one in statements(rule)
]


@pytest.fixture(scope="module")
def schema(catbird_server: EmbeddedServer) -> Generator[tuple[Connection, Catalog]]:
    """The tables of cases/schema.sql, in a database of their own."""
    with connect(catbird_server.url) as admin:
        admin.execute("CREATE DATABASE check_cases")
        with connect(catbird_server.database_url("check_cases")) as connection:
            connection.execute((CASES / "schema.sql").read_bytes())
            yield connection, read_catalog(connection)
        admin.execute("DROP DATABASE check_cases WITH (FORCE)")


@pytest.mark.parametrize(("rule", "case"), EVERY_CASE)
def test_a_rule_finds_what_its_case_says_and_nothing_else(
    schema: tuple[Connection, Catalog], rule: str, case: Statement
):
    connection, catalog = schema
    subject = Subject(bound(case), describe(connection, case))
    assert differences(case, list(RULES[rule].check(subject, catalog))) == []


def test_nothing_is_found_in_the_project(catbird_server: EmbeddedServer, catbird_template: str):
    with connect(catbird_server.url) as admin:
        admin.execute(f"CREATE DATABASE check_project TEMPLATE {catbird_template}".encode())
        with connect(catbird_server.database_url("check_project")) as connection:
            catalog = read_catalog(connection)
            found = {
                (one.statement.label, finding.rule)
                for one in project_statements()
                for rule in RULES.values()
                for finding in rule.check(
                    Subject(one, describe(connection, one.statement)), catalog
                )
            }
        admin.execute("DROP DATABASE check_project WITH (FORCE)")
    assert found == set()
