"""docs/check.md: an example for each rule, as it is printed. CATBIRD_UPDATE=1 writes them anew."""

import os
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from mutants import mutant, statement
from small_package import write_package
from test_mutations import FILES, INDEXES, STATEMENTS, Case, changed_migrations, found_of

import catbird_db
from catbird_db.check import drift, migrations
from catbird_db.check.database import read_catalog
from catbird_db.check.finding import Finding
from catbird_db.check.runner import RULES, Place, compared, used_indexes
from catbird_db.migrate import migrations_dir
from catbird_db.query import bound

DOCUMENT = Path(catbird_db.__file__).parent.parent / "docs" / "check.md"
_EXAMPLE = r"(### `{rule}`\n.*?```text\n)(.*?)(```\n)"


@pytest.fixture(scope="session")
def place(filled) -> Place:
    return compared(Place(filled.connection, filled.catalog, filled=True), bound())


def first(cases: list[Case], rule: str) -> Case:
    return next(one for one in cases if one.rule == rule)


def example(rule: str, place: Place, folder: Path) -> str:
    found = next(one for one in findings(rule, place, folder) if one.rule == rule)
    return f"{found}\n"


def findings(rule: str, place: Place, folder: Path) -> Iterator[Finding]:
    if rule == "drift":
        write_package(
            folder, "shop", "things", "", "-- name: get_thing :maybe\n-- tennant: id\nSELECT 1;\n"
        )
        with sys_path(folder):
            for finding in drift.check("shop"):
                yield replace(finding, path=Path("sql/things.sql"))
        return
    if rule in ("index-unused", "index-prefix"):
        with place.connection.transaction(force_rollback=True):
            one = first(INDEXES, rule)
            place.connection.execute(one.new.encode())
            altered = Place(place.connection, read_catalog(place.connection), filled=True)
            (folder / "0005_index.sql").write_text(f"{one.new};\n")
            files = [*migrations.read([migrations_dir()]), *migrations.read([folder])]
            used = used_indexes(altered, bound())
            found = [*migrations.check_indexes(altered.connection, altered.catalog, used, files)]
    elif rule == "declared":
        with place.connection.transaction(force_rollback=True):
            place.connection.execute("COMMENT ON TABLE messages IS 'Messages.\ntennant: convo_id'")
            altered = read_catalog(place.connection)
            found = [*migrations.check_declared(altered, migrations.read([migrations_dir()]))]
    elif rule in migrations.RULES:
        found = [
            *migrations.check(migrations.read([changed_migrations(folder, first(FILES, rule))]))
        ]
    else:
        yield from findings_of(first(STATEMENTS, rule), place, folder)
        return
    for finding in found:
        yield replace(finding, path=Path("migrations") / finding.path.name)


def findings_of(one: Case, place: Place, folder: Path) -> Iterator[Finding]:
    """As they would stand in the project's own file."""
    original = statement(one.name).statement
    path = original.path.relative_to(Path(catbird_db.__file__).parent)
    for finding in found_of(place, mutant(folder, one.name, (one.old, one.new))):
        yield replace(finding, path=path, line=finding.line + original.line - 1)


@contextmanager
def sys_path(folder: Path) -> Generator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("rule", RULES)
def test_the_example_of_a_rule_is_what_is_printed(rule: str, place: Place, tmp_path: Path):
    text = DOCUMENT.read_text("utf-8")
    found = re.search(_EXAMPLE.format(rule=rule), text, re.DOTALL)
    assert found, f"docs/check.md has no '### `{rule}`' with an example"
    expected = example(rule, place, tmp_path)
    if os.environ.get("CATBIRD_UPDATE"):
        text = text[: found.start(2)] + expected + text[found.end(2) :]
        DOCUMENT.write_text(text, encoding="utf-8")
        return
    assert found[2] == expected


def test_the_example_of_the_readme_is_what_is_printed(place: Place, tmp_path: Path):
    text = (DOCUMENT.parent.parent / "README.md").read_text("utf-8")
    found = re.search(r"Forget `([^`]+)`[^`]*```text\n(.*?\n)```\n", text, re.DOTALL)
    assert found
    forgotten = Case("actor", "list_messages_since", f" AND {found[1]}", "")
    assert "".join(f"{one}\n" for one in findings_of(forgotten, place, tmp_path)) == found[2]


def test_the_document_has_no_rule_that_is_none():
    assert set(re.findall(r"^### `([a-z-]+)`", DOCUMENT.read_text("utf-8"), re.MULTILINE)) == {
        *RULES
    }
