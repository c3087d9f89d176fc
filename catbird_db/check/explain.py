"""`catbird-db explain`: one statement on a given database, with real arguments and its buffers."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from inspect import Parameter
from typing import Any

import psycopg
from psycopg import sql

from ..errors import InvalidArgumentError
from ..query import Bound, bound
from ..query import given as given_name
from ..types import UNSET
from .annotations import claims
from .database import Connection, describe
from .plan import explained, nodes, prepared

_WRITES = ("ModifyTable", "LockRows")


def find_statement(name: str) -> Bound:
    """The statement of a name such as ``get_message`` or ``chat.messages.get_message``.

    Raises:
        InvalidArgumentError: there is none; says which are like it.
    """
    by_label = {one.statement.label: one for one in bound()}
    found = [one for label, one in by_label.items() if name in (label, label.rpartition(".")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidArgumentError(
            f"several statements are named {name}: {', '.join(_labels(found))}"
        )
    names = {label.rpartition(".")[2]: label for label in by_label}
    like = get_close_matches(name.rpartition(".")[2], names, n=3)
    hint = f"; there is {', '.join(names[one] for one in like)}" if like else ""
    raise InvalidArgumentError(f"no statement is named {name}{hint}")


def _labels(statements: list[Bound]) -> Iterator[str]:
    return (one.statement.label for one in statements)


def missing_arguments(statement: Bound, given: Mapping[str, str]) -> list[str]:
    """The parameters that a caller must still give: without a default, and not Optional."""
    return [
        name
        for name in statement.statement.parameters
        if name not in given and _default(statement, name, given) is Parameter.empty
    ]


def explain(connection: Connection, statement: Bound, given: Mapping[str, str]) -> str:
    """Run a statement under EXPLAIN (ANALYZE, BUFFERS), roll it back, and tell its generic plan.

    Args:
        connection: to the database; a statement that only reads is run READ ONLY.
        given: each argument as text, as psql takes it; ``a,b`` for an array, or ``{a,b}``.

    Raises:
        InvalidArgumentError: an argument is missing, unknown, or not of its parameter's type.
        psycopg.Error: the statement fails with these arguments.
    """
    if unknown := sorted(set(given) - set(statement.statement.parameters)):
        parameters = ", ".join(statement.statement.parameters) or "none"
        raise InvalidArgumentError(f"{unknown[0]} is no parameter; there is {parameters}")
    if missing := missing_arguments(statement, given):
        raise InvalidArgumentError(f"{', '.join(missing)}: give a value by --arg {missing[0]}=...")
    described = describe(connection, statement.statement)
    arguments = dict(zip(statement.statement.parameters, described.parameter_types, strict=True))
    values = {
        name: _literal(connection, name, _text(statement, name, type_name, given), type_name)
        for name, type_name in arguments.items()
    }
    lines, writes = _analyzed(connection, statement, list(values.values()))
    head = [statement.statement.label, *(f"  {name} = {value}" for name, value in values.items())]
    if writes:
        head.append("It ran, with its locks, and was rolled back: nothing is changed.")
    return "\n".join([*head, "", *lines])


def _default(statement: Bound, name: str, given: Mapping[str, str]) -> Any:
    parameter = statement.signature.parameters.get(name)
    for one in statement.signature.parameters:
        if name == given_name(one):
            return one in given
    if parameter is not None and parameter.default is not Parameter.empty:
        return None if parameter.default is UNSET else parameter.default
    claim = claims(statement)[name]
    return None if claim and claim.optional else Parameter.empty


def _text(statement: Bound, name: str, type_name: str, given: Mapping[str, str]) -> str | None:
    if name not in given:
        default = _default(statement, name, given)
        return None if default is None else str(default)
    value = given[name]
    return f"{{{value}}}" if type_name.endswith("[]") and not value.startswith("{") else value


def _literal(connection: Connection, name: str, text: str | None, type_name: str) -> str:
    literal = f"{sql.Literal(text).as_string(connection)}::{type_name}"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"SELECT {literal}".encode())
    except psycopg.DataError as error:
        raise InvalidArgumentError(f"{name}: {error.diag.message_primary}") from None
    return literal


def _analyzed(
    connection: Connection, statement: Bound, values: list[str]
) -> tuple[list[str], bool]:
    settings = {"plan_cache_mode": "force_generic_plan"}
    with prepared(connection, statement.statement.sql, values, settings) as execute:
        writes = any(node["Node Type"] in _WRITES for node in nodes(explained(connection, execute)))
        if not writes:
            connection.execute("SET TRANSACTION READ ONLY")
        told = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {execute}".encode())
        return [line for (line,) in told], writes
