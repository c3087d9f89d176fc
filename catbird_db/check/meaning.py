"""`meaning`: a column is compared with parameters of one meaning, in the whole package.

To PostgreSQL a conversation's id and a member's DID are both text; `ConvoId` and `Did` say what they
are. Where most statements hold a column against the one, and this one against the other, two
parameters or two columns have changed places. The annotation's name is read from the stub's source:
two aliases may admit the same values. Plain types (``str``) mean nothing in particular.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .. import types
from .facts import of_rows, term, where_present
from .finding import Finding
from .levels import (
    ColumnOf,
    Expression,
    Level,
    Membership,
    NewRow,
    Operation,
    Parameter,
    Resolved,
    Rows,
    defined,
)
from .scope import Unresolved, resolve
from .subject import Catalog, Subject

RULE = "meaning"

Column = tuple[str, str]

_PLAIN = frozenset(("str", "int", "bytes", "bool", "float", "UUID", "datetime", "Any", "object"))


@dataclass(frozen=True)
class Use:
    """A column, held against a parameter, or given its value."""

    column: Column
    meaning: str
    location: int
    parameter: str


class Meanings:
    """What the statements of a package hold each column against."""

    def __init__(self, subjects: Iterable[Subject], catalog: Catalog) -> None:
        self._catalog = catalog
        self._counts = defaultdict[Column, Counter[str]](Counter)
        for subject in subjects:
            for use in _uses(subject, catalog):
                self._counts[use.column][use.meaning] += 1

    def check(self, subject: Subject) -> Iterator[Finding]:
        """Where a statement stands against the others."""
        uses = _uses(subject, self._catalog)
        own = Counter((use.column, use.meaning) for use in uses)
        for use in uses:
            counts = self._counts[use.column]
            usual, number = counts.most_common(1)[0] if counts else (use.meaning, 0)
            if usual != use.meaning and number > own[use.column, use.meaning]:
                table, column = use.column
                yield subject.at(
                    use.location,
                    RULE,
                    f"{use.parameter} is a {use.meaning}, and {table}.{column} is held against "
                    f"a {usual} in {number} other place{'s' if number > 1 else ''}",
                    f"the parameter that is a {usual}, or the column that takes a {use.meaning}",
                )


def _uses(subject: Subject, catalog: Catalog) -> list[Use]:
    meanings = _annotations(subject)
    try:
        statement = resolve(subject.tree, catalog)
    except Unresolved:
        return []
    found: dict[Use, None] = {}
    for column, parameter in _pairs(statement):
        table = column.relation.table
        name = subject.parameter(parameter.number)
        meaning = meanings.get(name)
        if table is not None and meaning is not None:
            place = parameter.location if parameter.location >= 0 else column.location
            found[Use((table.name, column.name), meaning, place, name)] = None
    return list(found)


def _pairs(statement: Resolved) -> Iterator[tuple[ColumnOf, Parameter]]:
    for level in statement.levels:
        for condition in _conditions(level):
            match condition:
                case Operation(operator="="):
                    left, right = condition.arguments
                case Membership(operator="=", every=False):
                    left, right = condition.left, condition.right
                case _:
                    continue
            for one, other in ((left, right), (right, left)):
                parameter = _parameter(other)
                if isinstance(one, ColumnOf) and parameter is not None:
                    yield one, parameter
        target = level.target
        if target is not None and isinstance(target.source, NewRow):
            for name, value in target.source.values.items():
                if (parameter := _parameter(value)) is not None:
                    yield ColumnOf(value.location, target, name), parameter


def _conditions(level: Level) -> Iterator[Expression]:
    """What is true of its rows, and of those that an outer join may leave out."""
    yield from of_rows(level).conditions
    for relation in level.relations:
        if relation.nullable:
            yield from where_present(relation).conditions


def _parameter(expression: Expression) -> Parameter | None:
    """The parameter that an expression is, or is an element of."""
    found = term(expression)
    if isinstance(found, ColumnOf) and isinstance(found.relation.source, Rows):
        rows = found.relation.source
        at = found.relation.columns.index(found.name)
        arguments = rows.call.arguments if rows.call.name == "unnest" else ()
        return _parameter(arguments[at]) if at < len(arguments) else None
    if isinstance(found, ColumnOf) and len(made := defined(found)) == 1:
        return _parameter(made[0][1])
    return found if isinstance(found, Parameter) else None


# ---- what the stub's source calls the types


def _annotations(subject: Subject) -> dict[str, str]:
    path, _, line = subject.bound.signature.where.rpartition(":")
    return _of_file(Path(path)).get(int(line), {})


@lru_cache(maxsize=256)
def _of_file(path: Path) -> dict[int, dict[str, str]]:
    """By the line where a function begins, with its decorator: its parameters' annotations."""
    try:
        trees = [ast.parse(one.read_bytes()) for one in (Path(types.__file__), path)]
    except (OSError, SyntaxError):
        return {}
    aliases = {
        one.targets[0].id: one.value
        for tree in trees
        for one in tree.body
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)
    }
    return {
        min([node.lineno, *(one.lineno for one in node.decorator_list)]): {
            one.arg: meaning
            for one in node.args.kwonlyargs
            if (meaning := _meaning(one.annotation, aliases)) is not None
        }
        for node in ast.walk(trees[-1])
        if isinstance(node, ast.AsyncFunctionDef)
    }


def _meaning(node: ast.expr | None, aliases: Mapping[str, ast.expr]) -> str | None:
    match node:
        case ast.Name(id=name) if name not in _PLAIN:
            listed = _element(aliases.get(name))
            return name if listed is None else _meaning(listed, aliases)
        case ast.BinOp(left=left, right=ast.Constant(value=None) | ast.Name(id="Unset")):
            return _meaning(left, aliases)
        case ast.Subscript():
            return _meaning(_element(node), aliases)
        case _:
            return None


def _element(node: ast.expr | None) -> ast.expr | None:
    """What a list is of: ``list[Did]``, ``Annotated[Sequence[Did], ...]``."""
    match node:
        case ast.Subscript(value=ast.Name(id="list" | "Sequence"), slice=element):
            return element
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _element(first)
        case _:
            return None
