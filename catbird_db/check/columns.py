"""`columns`: the result has the columns that the stub says, in name, order and type.

The columns of ``:one``, ``:maybe``, ``:many`` and ``:page`` are the fields of the row model, in their
order; ``:value`` has one, of the type that is returned; ``:exec`` and ``:rows`` have none. Types fit as
in `_FITTING`, arrays as list, tuple, Sequence or set of what fits their elements, json and jsonb as
dict, a model or a list. ``Any`` fits everything.

A Literal, or an Enum, fits where the column can hold nothing else: its type is an enum of PostgreSQL
with these labels, a CHECK (col IN (...)) of its table admits these values, or it is written in the
statement, in each branch that it comes from. NULL is the affair of `nullability`.
"""

import re
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, JsonValue

from .annotations import claims
from .finding import Finding
from .levels import (
    Case,
    Cast,
    ColumnOf,
    Constant,
    Expression,
    FirstNotNull,
    Parameter,
    Query,
    Rows,
    defined,
)
from .promise import Promised, promised, without_none
from .scope import Unresolved, resolve
from .subject import Catalog, Subject
from .syntax import at_token, beginning

RULE = "columns"

_FITTING: dict[Any, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("bigint", "integer", "smallint"),
    float: ("double precision", "real"),
    Decimal: ("numeric",),
    str: ("text", "character varying", "character", "name"),
    bytes: ("bytea",),
    UUID: ("uuid",),
    datetime: ("timestamp with time zone",),
    AwareDatetime: ("timestamp with time zone",),
    date: ("date",),
    time: ("time without time zone",),
    timedelta: ("interval",),
    dict: ("jsonb", "json"),
}
_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, Sequence, Collection)
_JSON = ("jsonb", "json")
_MODIFIER = re.compile(r"\([0-9, ]+\)")


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Whether the result of a statement is what its stub says."""
    if subject.described is None:
        return
    result = _Result(subject, catalog)
    columns = promised(subject.bound)
    match subject.statement.mode:
        case "exec" | "rows" if result.names:
            yield result.at(
                0,
                "nothing reads this result",
                "SELECT FROM ... (of a function: SELECT FROM f(...) AS done), or another mode",
            )
        case "exec" | "rows":
            pass
        case "value" if len(result.names) != 1:
            yield result.at(1, f":value has one column, here are {len(result.names)}", "one column")
        case "value":
            yield from result.misfit(0, columns[0])
        case _:
            yield from _against_model(result, columns)


def _against_model(result: "_Result", columns: tuple[Promised, ...]) -> Iterator[Finding]:
    model = columns[0].of.partition(".")[0] if columns else "the row model"
    fields = {str(one.name): one for one in columns}
    missing = [name for name in fields if name not in result.names]
    strange = [at for at, name in enumerate(result.names) if name not in fields]
    twice = [at for at, name in enumerate(result.names) if name in result.names[:at]]
    for at in strange:
        instead = missing.pop(0) if missing else None
        yield result.at(
            at,
            f"{result.names[at]} is no field of {model}",
            f"{result.names[at]} AS {instead}"
            if instead
            else "the result without it, or a field for it",
        )
    for at in twice:
        yield result.at(at, f"{result.names[at]} stands here twice", "each column once")
    for name in missing:
        at = len(result.names) - 1
        yield result.at(at, f"{model}.{name} has no column", f"{name} too, or {model} without it")
    if not (missing or strange or twice):
        for at, (name, field) in enumerate(zip(result.names, fields, strict=True)):
            if name != field:
                yield result.at(
                    at, f"{name} stands where {model} has {field}", "the order of its fields"
                )
                break
    for at, name in enumerate(result.names):
        if name in fields:
            yield from result.misfit(at, fields[name])


class _Result:
    """The columns of a statement's result, and where they stand."""

    def __init__(self, subject: Subject, catalog: Catalog) -> None:
        assert subject.described is not None
        self.subject, self.catalog = subject, catalog
        self.names = subject.described.column_names
        self.types = subject.described.column_types
        try:
            self.query = resolve(subject.tree, catalog).query
        except Unresolved:  # that is said by `tenancy` and `nullability`
            self.query = Query()

    def at(self, column: int, message: str, mend: str) -> Finding:
        outputs = [one for level in self.query.branches[:1] for one in level.outputs]
        place = beginning(self.subject.tree)
        if outputs:
            place = outputs[min(column, len(outputs) - 1)].location
        return at_token(self.subject, place, RULE, message, mend)

    def misfit(self, column: int, promise: Promised) -> Iterator[Finding]:
        name, type_name = self.names[column], _MODIFIER.sub("", self.types[column])
        hint = promise.hint
        if _fits(hint, type_name, self.catalog.enums):
            yield from self._strange_values(column, promise, type_name)
        else:
            fitting = [one.__name__ for one, names in _FITTING.items() if type_name in names]
            yield self.at(
                column,
                f"{name} is {type_name}, and {promise.of} is {_shown(hint)}",
                f"{fitting[0] if fitting else 'a type that fits'} in the stub, or a cast in the SQL",
            )

    def _strange_values(self, column: int, promise: Promised, type_name: str) -> Iterator[Finding]:
        admitted = _literals(promise.hint)
        if admitted is None:
            return
        labels = self.catalog.enums.get(type_name)
        held = frozenset(labels) if labels is not None else self._values_of_column(column)
        name = self.names[column]
        if held is None:
            yield self.at(
                column,
                f"{name} may hold anything, and {promise.of} is {_shown(promise.hint)}",
                f"CHECK ({name} IN (...)) in the migration, or another type in the stub",
            )
        elif strange := sorted(held - admitted):
            yield self.at(
                column,
                f"{name} may hold {strange[0]!r}, and {promise.of} is {_shown(promise.hint)}",
                f"Literal[{', '.join(map(repr, sorted(held)))}] in the stub",
            )

    def _values_of_column(self, column: int) -> frozenset[str] | None:
        values = _Values(self.subject, self.catalog)
        outputs = [level.outputs for level in self.query.branches]
        return _all_of([values.of(one[column].expression) for one in outputs if column < len(one)])


class _Values:
    """Which values an expression can have, where that is known."""

    def __init__(self, subject: Subject, catalog: Catalog) -> None:
        self.subject, self.catalog = subject, catalog
        self._claims = claims(subject.bound)
        self._asked: set[tuple[int, str]] = set()

    def of(self, value: Expression) -> frozenset[str] | None:
        match value:
            case Constant():
                return frozenset() if value.value is None else frozenset([str(value.value)])
            case Parameter():
                claim = self._claims[self.subject.parameter(value.number)]
                return frozenset(map(str, claim.values)) if claim and claim.values else None
            case Cast():
                return self.of(value.arguments[0])
            case Case() | FirstNotNull():
                return _all_of([self.of(one) for one in value.arguments])
            case ColumnOf():
                return self._of_column(value)
            case _:
                return None

    def _of_column(self, column: ColumnOf) -> frozenset[str] | None:
        table, source = column.relation.table, column.relation.source
        if table is not None:
            known = table.checks.get(column.name)
            if known is None and column.name in table.columns:
                known = self.catalog.enums.get(table.columns[column.name].type)
            return None if known is None else frozenset(known)
        if isinstance(source, Rows):
            arrays = source.call.arguments
            at = column.relation.columns.index(column.name)
            return (
                self.of(arrays[at]) if source.call.name == "unnest" and at < len(arrays) else None
            )
        key = (id(source), column.name)
        if key in self._asked:  # a recursive CTE hands on what its other branches have
            return frozenset()
        self._asked.add(key)
        found = _all_of([self.of(value) for _, value in defined(column)])
        self._asked.discard(key)
        return found


def _all_of(values: list[frozenset[str] | None]) -> frozenset[str] | None:
    known = [one for one in values if one is not None]
    return frozenset[str]().union(*known) if known and len(known) == len(values) else None


# ---- types


def _fits(hint: Any, type_name: str, enums: Mapping[str, tuple[str, ...]]) -> bool:
    hint, _ = without_none(getattr(hint, "__supertype__", hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(one, type_name, enums) for one in arguments)
    if type_name in _JSON:
        return _is_json(hint)
    if hint in _LISTS or origin in _LISTS:
        of = arguments[0] if arguments else Any
        return type_name.endswith("[]") and _fits(of, type_name.removesuffix("[]"), enums)
    if values := _literal_values(hint):
        if type_name in enums:
            return all(isinstance(value, str) for value in values)
        return all(type_name in _FITTING.get(type(value), ()) for value in values)
    return type_name in _FITTING.get(hint, ()) or (hint is str and type_name in enums)


def _is_json(hint: Any) -> bool:
    containers: tuple[Any, ...] = (dict, Mapping, *_LISTS)
    return (
        hint is JsonValue
        or (get_origin(hint) or hint) in containers
        or (isinstance(hint, type) and issubclass(hint, BaseModel))
    )


def _literal_values(hint: Any) -> tuple[Any, ...]:
    """Those of a Literal or an Enum; empty for any other type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return tuple(member.value for member in hint)
    return ()


def _literals(hint: Any) -> frozenset[str] | None:
    values = _literal_values(hint)
    return frozenset(map(str, values)) if values else None


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
