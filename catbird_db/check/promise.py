"""What a stub promises its caller of a result: the columns it must have, and which may be null."""

import types
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue

from ..query import Bound


@dataclass(frozen=True, slots=True)
class Promised:
    """One column of the result, as the stub has it.

    ``name``: the field's; None for the one column of ``:value``, which may have any. ``of``: what to
    call it in a message. ``hint``: its type, without None; ``optional``: None is admitted.
    """

    name: str | None
    of: str
    hint: Any
    optional: bool


def promised(bound: Bound) -> tuple[Promised, ...]:
    """The columns that a stub promises, in order; none for ``:exec`` and ``:rows``."""
    match bound.statement.mode:
        case "exec" | "rows":
            return ()
        case "value":
            hint, optional = without_none(bound.signature.returns)
            return (Promised(None, "the value returned", hint, optional),)
        case _:
            model = row_model(bound.signature.returns)
            fields = {
                name: without_none(one.annotation) for name, one in model.model_fields.items()
            }
            return tuple(
                Promised(name, f"{model.__name__}.{name}", hint, optional)
                for name, (hint, optional) in fields.items()
            )


def row_model(returns: Any) -> type[BaseModel]:
    """The row model in ``Model``, ``Model | None``, ``list[Model]`` or ``Page[Model]``."""
    hint, _ = without_none(returns)
    return get_args(hint)[0] if get_args(hint) else hint


def without_none(hint: Any) -> tuple[Any, bool]:
    """A hint without None and metadata, and whether None is admitted."""
    if get_origin(hint) is Annotated:
        return without_none(get_args(hint)[0])
    if hint in (Any, object, JsonValue, types.NoneType):
        return hint, True
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    inside = [without_none(one) for one in get_args(hint)]
    rest = [one for one, _ in inside if one is not types.NoneType]
    return Union[tuple(rest)], any(optional for _, optional in inside)  # noqa: UP007
