"""A function's signature as a contract: what it admits, checked before the function runs."""

import inspect
import types
import typing
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator
from pydantic_core import core_schema as cs

from .errors import InvalidArgumentError
from .types import Unset, first_fault

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any] | AsyncIterator[Any]])


class StubError(TypeError):
    """A function's signature and its SQL, or its form, are at odds: found at import."""


class Signature:
    """The keyword parameters of ``async def f(db, /, *, ...)``, and what they admit.

    A composed function may take more by position than its executor: an object store.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.label = f"{function.__module__.partition('.')[2]}.{function.__name__}"
        code = inspect.unwrap(function).__code__
        self.where = f"{code.co_filename}:{code.co_firstlineno}"
        if not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function):
            raise self.wrong("is not async; write 'async def'")
        self._signature = inspect.signature(function)
        self.parameters = self._keyword_parameters()
        self.positional = len(self._signature.parameters) - len(self.parameters)
        hints = self._hints(function)
        for name in (*self.parameters, "return"):
            if name not in hints:
                raise self.wrong(f"{name} has no annotation; the signature is the whole contract")
        self.hints = {name: hints[name] for name in self.parameters}
        self.returns: Any = typing.get_type_hints(function)["return"]
        self._defaults = {
            name: parameter.default
            for name, parameter in self.parameters.items()
            if parameter.default is not parameter.empty
        }
        self._validate = SchemaValidator(
            cs.typed_dict_schema(
                {name: self._field(name, hint) for name, hint in self.hints.items()},
                extra_behavior="forbid",
                config=cs.CoreConfig(strict=True, hide_input_in_errors=True),
            )
        ).validate_python

    def wrong(self, message: str) -> StubError:
        return StubError(f"{self.where}: {self.label.rpartition('.')[2]}: {message}")

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """``given`` and the defaults, validated.

        Raises:
            InvalidArgumentError: names the parameter.
            TypeError: a parameter is missing or unknown, as for any function.
        """
        try:
            return self._validate(self._defaults | given)
        except ValidationError as error:
            fault = first_fault(error)
        except TypeError:  # from a mapping in the place of a model, whose keys are no names
            fault = "a model's fields have names"
        # What is missing or unknown is the ordinary TypeError.
        self._signature.bind(*[None] * self.positional, **given)
        raise InvalidArgumentError(f"{self.label}: {fault}", query=self.label)

    def _hints(self, function: Callable[..., Any]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError, SyntaxError) as error:
            raise self.wrong(
                f"an annotation cannot be read ({error}); import what it names"
            ) from None

    def _field(self, name: str, hint: Any) -> cs.TypedDictField:
        try:
            return cs.typed_dict_field(_schema(hint))
        except PydanticUserError:
            raise self.wrong(
                f"{name}: pydantic cannot check this annotation; use a type it knows"
            ) from None

    def _keyword_parameters(self) -> dict[str, inspect.Parameter]:
        all_parameters = list(self._signature.parameters.values())
        rest = [one for one in all_parameters if one.kind is not one.POSITIONAL_ONLY]
        if all_parameters[:1] == rest[:1]:
            raise self.wrong("the executor is not positional only; write 'db: Executor, /, *, ...'")
        for parameter in rest:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise self.wrong(
                    f"{parameter.name} is not keyword only; write 'db: Executor, /, *, ...'"
                )
        return {parameter.name: parameter for parameter in rest}


def may_be_unset(hint: Any) -> bool:
    return Unset in typing.get_args(hint)


def tells_unset_from_null(hint: Any) -> bool:
    """Whether UNSET and None are two things here: then a statement needs to be told which it is."""
    return {Unset, types.NoneType} <= {*typing.get_args(hint)}


_schemas: dict[Any, cs.CoreSchema] = {}


def _schema(hint: Any) -> cs.CoreSchema:
    """An alias is used by many signatures, and costs most of the time that a stub costs."""
    if hint not in _schemas:
        _schemas[hint] = TypeAdapter(hint).core_schema
    return _schemas[hint]


def validated(function: F) -> F:
    """A composed function whose arguments are checked strictly, as `@query` checks a stub's.

    Those of an async generator are checked when it is called.
    """
    signature, run = Signature(function), typing.cast(Callable[..., Any], function)

    @wraps(function)
    def stream(*db: Any, **given: Any) -> Any:
        return run(*db, **signature.arguments(given))

    @wraps(function)
    async def call(*db: Any, **given: Any) -> Any:
        return await run(*db, **signature.arguments(given))

    return typing.cast(F, stream if inspect.isasyncgenfunction(function) else call)
