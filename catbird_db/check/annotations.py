"""What an annotation of a stub's parameter admits, in terms that a database type can be held to."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import AwareDatetime, JsonValue
from pydantic.fields import FieldInfo

from ..pagination import Page
from ..query import Bound, given
from ..signature import tells_unset_from_null
from ..types import Unset


@dataclass(frozen=True, slots=True)
class Claim:
    """What a parameter admits.

    Attributes:
        python: the type of its values; of its elements, where it is a sequence.
        many: it is a sequence.
        optional: it may be None.
        low, high: bounds of an int; None where there is none on that side.
        values: those of a Literal or an Enum; empty: any.
    """

    python: type
    many: bool = False
    optional: bool = False
    low: int | None = None
    high: int | None = None
    values: tuple[Any, ...] = ()


_PLAIN = (bool, int, float, str, bytes, Decimal, UUID, datetime, date, time, timedelta)


def claims(bound: Bound) -> dict[str, Claim | None]:
    """For each placeholder of a statement, what is sent for it; None where that cannot be told."""
    hints = bound.signature.hints
    found = {name: claim(hint) for name, hint in hints.items()}
    found |= {
        given(name): Claim(bool) for name, hint in hints.items() if tells_unset_from_null(hint)
    }
    if bound.statement.key:
        for name, hint in _cursor_hints(bound).items():
            of_row = claim(hint)
            found[name] = of_row and replace(of_row, optional=True)  # the first page has none
    return {name: found[name] for name in bound.statement.parameters}


def _cursor_hints(bound: Bound) -> dict[str, Any]:
    """A page's cursor is sent as the key columns of the row that it stands for."""
    page = bound.signature.returns
    assert get_origin(page) is Page
    fields: Mapping[str, FieldInfo] = get_args(page)[0].model_fields
    names = {column: f"cursor_{column}" for column in bound.statement.key}
    return {
        name: Annotated[fields[column].annotation, fields[column]] for column, name in names.items()
    }


def claim(hint: Any) -> Claim | None:
    """What a type hint admits; None where it is none that a statement's parameter can have."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _narrowed(claim(arguments[0]), arguments[1:])
    if origin in (Union, types.UnionType):
        rest = [
            one for one in arguments if one not in (types.NoneType, Unset)
        ]  # both are sent as NULL
        found = claim(rest[0]) if len(rest) == 1 else None
        return found and replace(found, optional=len(rest) < len(arguments))
    if origin is Literal:
        kinds: set[type[Any]] = {type(value) for value in arguments}
        return Claim(kinds.pop(), values=arguments) if len(kinds) == 1 else None
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        element = claim(arguments[0])
        return replace(element, many=True) if element and not element.many else None
    if origin in (dict, Mapping) or hint in (dict, JsonValue):
        return Claim(dict)
    return _of_type(hint)


def _of_type(hint: Any) -> Claim | None:
    if hint is AwareDatetime:
        return Claim(datetime)
    if not isinstance(hint, type):
        return None
    if issubclass(hint, Enum):
        values = tuple(member.value for member in hint)
        plain = next((one for one in (int, str) if issubclass(hint, one)), None)
        return Claim(plain, values=values) if plain else None  # asyncpg sends no other
    return Claim(hint) if hint in _PLAIN else None


def _narrowed(found: Claim | None, metadata: Sequence[Any]) -> Claim | None:
    if found is None or found.many or found.python is not int:
        return found
    for one in metadata:
        if isinstance(one, FieldInfo):
            found = _narrowed(found, one.metadata)
            assert found is not None
        if isinstance(one, Ge | Interval) and isinstance(one.ge, int):
            found = replace(found, low=one.ge)
        if isinstance(one, Gt | Interval) and isinstance(one.gt, int):
            found = replace(found, low=one.gt + 1)
        if isinstance(one, Le | Interval) and isinstance(one.le, int):
            found = replace(found, high=one.le)
        if isinstance(one, Lt | Interval) and isinstance(one.lt, int):
            found = replace(found, high=one.lt - 1)
    return found
