"""`refused`: what PostgreSQL prepares, and must refuse whenever it is run, or never finds."""

from collections.abc import Iterator
from typing import Any

from pglast import ast

from .expressions import is_a, walk
from .finding import Finding
from .subject import Catalog, Subject
from .syntax import constant_value
from .uses import Meeting, constants

RULE = "refused"


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Rows without a column that they need, and constants that no row may have."""
    for node in walk(subject.tree):
        if is_a(node, ast.InsertStmt):
            yield from _lacking(subject, node, catalog)
    for one in constants(subject, catalog):
        if wrong := _impossible(one, catalog):
            yield subject.at(one.location, RULE, *wrong)


def _lacking(subject: Subject, insert: Any, catalog: Catalog) -> Iterator[Finding]:
    table = catalog.tables.get(insert.relation.relname)
    given = {one.name for one in insert.cols or ()}
    for column in table.columns.values() if table and given else ():
        if column.not_null and not (column.has_default or column.generated or column.name in given):
            yield subject.at(
                insert.relation.location,
                RULE,
                f"{column.name} of {insert.relation.relname} is NOT NULL, has no default, and is not given",
                f"{column.name} among the columns",
                len(insert.relation.relname),
            )


def _impossible(one: Meeting, catalog: Catalog) -> tuple[str, str] | None:
    column = f"{one.table.name}.{one.column.name}"
    if one.value.isnull:
        stored = one.how == "stored" and one.column.not_null
        return (f"{column} is NOT NULL", "a value") if stored else None
    admitted = one.table.checks.get(one.column.name) or catalog.enums.get(one.column.type, ())
    if not admitted or _text(one) in admitted:
        return None
    verb = "holds" if one.how == "compared" else "admits"
    return f"{column} never {verb} {_written(one)}", f"one of {', '.join(map(repr, admitted))}"


def _text(one: Meeting) -> str:
    return str(constant_value(one.value))


def _written(one: Meeting) -> str:
    return f"'{_text(one)}'" if is_a(one.value.val, ast.String) else _text(one)
