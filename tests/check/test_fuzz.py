"""Statements changed at random: how many of the changes `check` finds, and which it cannot.

Each change that nothing is found of survives, in the class of its kind; docs/check.md explains each
class, and a survivor of any other class fails.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from mutagen import Change, change, change_stub
from mutants import written
from scale import scaled
from stub_mutants import drift_of

import catbird_db
from catbird_db.check.database import read_catalog
from catbird_db.check.finding import Finding
from catbird_db.check.runner import Place, check_statement, compared
from catbird_db.query import Bound, bound
from catbird_db.sqlfile import SqlFileError

CHANGES = scaled(300, 5000)
SEED = 20_26

_SURVIVORS = re.compile(r"`([a-z-]+)`(?=[`a-z, -]*:)")


@pytest.fixture(scope="session")
def place(filled) -> Place:
    return compared(Place(filled.connection, filled.catalog, filled=True), bound())


Survivor = tuple[str, str, str]  # kind of change, statement, what was changed


def test_changes_at_random_are_found_or_explained(place: Place, tmp_path: Path, capsys):
    random = Random(SEED)
    statements = sorted(bound(), key=lambda one: one.statement.label)
    before = {one.statement.label: {*map(said, check_statement(place, one))} for one in statements}
    tried, caught, by_rule = Counter[str](), Counter[str](), Counter[str]()
    survivors: list[Survivor] = []
    while tried.total() < CHANGES:
        one = random.choice(statements)
        known = before[one.statement.label]
        changed = change_anything(random, place, tmp_path, one)
        if changed is None:
            continue
        kind, what, findings = changed
        rules = {rule for rule, message in findings - known}
        tried[kind] += 1
        by_rule.update(rules)
        if rules:
            caught[kind] += 1
        else:
            survivors.append((kind, one.statement.label, what))
    with capsys.disabled():
        report(tried, caught, by_rule, survivors)
    assert {kind for kind, _, _ in survivors} <= {*_SURVIVORS.findall(document())}
    assert caught.total() / tried.total() > 0.7


def said(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.message


def change_anything(
    random: Random, place: Place, folder: Path, one: Bound
) -> tuple[str, str, set[tuple[str, str]]] | None:
    """Change a statement, its stub or an index: the kind, what exactly, and what is found."""
    drawn = random.random()
    if drawn < 0.12:
        changed = change_stub(random, one)
        if changed is None:
            return None
        kind, what, mutant = changed
        return kind, what, {*map(said, check_statement(place, mutant))}
    if drawn < 0.16:
        name = random.choice(one.statement.index or ("",))
        return ("drop-index", name, without_index(place, one, name)) if name else None
    changed = change(random, one)
    return (changed.kind, changed.what, found(place, folder, one, changed)) if changed else None


def found(place: Place, folder: Path, one: Bound, changed: Change) -> set[tuple[str, str]]:
    try:
        mutant = written(folder, one, changed.text)
    except SqlFileError as error:
        return {("drift", error.message)}
    if says := drift_of(mutant):
        return {("drift", says)}
    return {*map(said, check_statement(place, mutant))}


def without_index(place: Place, one: Bound, name: str) -> set[tuple[str, str]]:
    tables = place.catalog.tables.values()
    table = next(table.name for table in tables for index in table.indexes if index.name == name)
    with place.connection.transaction(force_rollback=True):
        drop = (
            f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name} CASCADE;"
            f" DROP INDEX IF EXISTS {name}"
        )
        place.connection.execute(drop.encode())
        altered = replace(place, catalog=read_catalog(place.connection))
        return {*map(said, check_statement(altered, one))}


def document() -> str:
    """What docs/check.md says of survivors."""
    path = Path(catbird_db.__file__).parent.parent / "docs" / "check.md"
    return path.read_text("utf-8").partition("## What survives")[2]


def report(
    tried: Counter[str],
    caught: Counter[str],
    by_rule: Counter[str],
    survivors: list[Survivor],
) -> None:
    rate = caught.total() / tried.total()
    print(f"\n{caught.total()} of {tried.total()} random changes are found: {rate:.0%}")
    for kind, number in sorted(tried.items()):
        print(f"  {kind:18} {caught[kind]:4} of {number}")
    print("  " + ", ".join(f"{rule} {number}" for rule, number in by_rule.most_common()))
    for kind, label, what in sorted(survivors):
        print(f"  survives: {kind}: {label}: {what[:150]}")
