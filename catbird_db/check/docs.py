"""docs/queries.md: what a DBA wants to know of each statement, told by PostgreSQL itself.

The same text each time, on each machine: no costs, and plans over tables that `fill` fills alike.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from ..query import Bound
from ..sqlfile import Mode, Statement
from .annotations import claims
from .database import Connection
from .plan import generic_plan_text
from .subject import Catalog, Described, Subject

_OF_SYSTEM_CATALOGS = re.compile(r" on pg_\w")

_PREAMBLE = """\
# Queries

Every statement that this package sends, in the order of `sql/`. Written by `catbird-db docs`: do
not edit it; CI fails when it is stale.

Each is sent as a prepared statement whose label, such as `/* chat.messages.list_messages */`, stands
after its first keyword: pg_stat_statements and pg_stat_activity show it. The plan is the generic one,
over tables of 20,000 skewed rows, with sequential and bitmap scans and hash and merge joins off: it
shows by which indexes each table can be reached. `catbird-db explain NAME` shows what it costs on a
database of yours.
"""

_RETURNS: dict[Mode, str] = {
    "one": "One row.",
    "maybe": "One row or none.",
    "many": "Rows.",
    "page": "A page of rows; `limit` is sent plus one, which says whether there is a next page.",
    "value": "One value.",
    "rows": "The number of rows that it changed.",
    "exec": "Nothing.",
}
_GUARDED = (
    " It begins with its actor's own row: no row means that the actor is refused, a row of nulls that"
    " there is nothing."
)


def queries_markdown(connection: Connection, subjects: Iterable[Subject], catalog: Catalog) -> str:
    """The text of docs/queries.md.

    Args:
        connection: to a database that `fill` has filled.
        subjects: the statements, in any order; one that does not prepare is left out.
    """
    parts = [_PREAMBLE]
    in_order = sorted(subjects, key=lambda one: (one.statement.path, one.statement.line))
    for _, of_one_file in groupby(in_order, key=lambda one: one.statement.path):
        described = [(one, one.described) for one in of_one_file if one.described is not None]
        if described:
            file = _file(described[0][0].statement)
            parts.append(f"## [{file}](../{file})\n")
        for subject, told in described:
            plan = generic_plan_text(connection, subject.statement.sql, told, catalog)
            if _OF_SYSTEM_CATALOGS.search(plan):
                plan = "(over the system catalogs, whose statistics differ from server to server)"
            parts.append("\n".join(_statement(subject.bound, told, plan)))
    return "\n".join(parts)


def _file(statement: Statement) -> str:
    module = statement.label.rpartition(".")[0]
    return f"sql/{module.replace('.', '/')}.sql"


def _statement(bound: Bound, described: Described, plan: str) -> Iterator[str]:
    statement = bound.statement
    yield f"### {statement.label}\n"
    if statement.comment:
        yield f"{statement.comment}\n"
    yield f"{_RETURNS[statement.mode]}{_GUARDED if bound.guarded else ''} {_keys(statement)}\n"
    if statement.parameters:
        yield from _table(("parameter", "type", "null"), _parameters(bound, described))
    if described.column_names:
        yield from _table(("column", "type", "null"), _columns(bound, described))
    yield f"```text\n{plan}\n```\n"


def _keys(statement: Statement) -> str:
    said = {
        "tenant": "Tenant key",
        "actor": "Actor",
        "key": "Ordered by",
        "index": "Indexes allowed",
    }
    header = statement.header
    lines = [f"{title}: {_code(header[key])}." for key, title in said.items() if key in header]
    return " ".join(lines)


def _code(value: str) -> str:
    """``a, b`` as code, the reason of an exemption as text."""
    names, parenthesis, reason = value.partition("(")
    coded = ", ".join(f"`{name.strip()}`" for name in names.split(","))
    return f"{coded} ({reason}" if parenthesis else coded


def _table(head: Sequence[str], rows: Iterable[tuple[str, str, bool]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for name, type_name, nullable in rows:
        yield f"| `{name}` | {type_name} | {'yes' if nullable else ''} |"
    yield ""


def _parameters(bound: Bound, described: Described) -> Iterator[tuple[str, str, bool]]:
    admitted = claims(bound)
    for name, type_name in zip(bound.statement.parameters, described.parameter_types, strict=True):
        claim = admitted[name]
        yield name, type_name, claim is not None and claim.optional


def _columns(bound: Bound, described: Described) -> Iterator[tuple[str, str, bool]]:
    """Whether a column may be null is what the row model says, which `not-null` proves."""
    optional = _optional_fields(bound)
    is_optional_value = bound.statement.mode == "value" and _is_optional(bound.signature.returns)
    for name, type_name in zip(described.column_names, described.column_types, strict=True):
        yield name, type_name, optional.get(name, is_optional_value)


def _optional_fields(bound: Bound) -> dict[str, bool]:
    returns = bound.signature.returns
    for model in (returns, *get_args(returns)):
        if isinstance(model, type) and issubclass(model, BaseModel):
            return {
                name: _is_optional(field.annotation) for name, field in model.model_fields.items()
            }
    return {}


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
