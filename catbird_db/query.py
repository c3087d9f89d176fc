"""`@query`: a stub's signature, bound to the statement of the same name in its .sql file.

An untyped `Statement` (what the file says) and a `Signature` (what the stub says) become one
typed call. Whatever the two disagree on is an error at import, with the stub's file and line.
"""

import inspect
import re
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import wraps
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, overload

import asyncpg
from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import (
    CONNECT_ERRORS,
    DatabaseError,
    NotFoundError,
    SerializationError,
    raise_translated,
)
from .pagination import CursorCodec, Page
from .pool import Connection, Executor, Pool, count_statement
from .signature import Signature, StubError, may_be_unset, tells_unset_from_null
from .sqlfile import SqlFileError, Statement, load, salvage
from .types import UNSET, first_fault

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
Refusal: TypeAlias = Callable[..., Awaitable[DatabaseError]]
Run: TypeAlias = Callable[[Any, tuple[Any, ...]], Awaitable[Any]]
Order: TypeAlias = Callable[[dict[str, Any]], tuple[Any, ...]]


class Bound:
    """What `@query` knows of one stub: kept for `verify` and for `catbird-db check`.

    ``guarded``: it was given ``refused``, so a row of NULLs is the empty answer.
    """

    def __init__(self, signature: Signature, statement: Statement, guarded: bool = False) -> None:
        self.signature = signature
        self.statement = statement
        self.guarded = guarded


Drift: TypeAlias = StubError | SqlFileError

_files: dict[Path, dict[str, Statement]] = {}
_bound: dict[tuple[Path, str], Bound] = {}


def _is_check() -> bool:
    """`catbird-db check` imports what it is to report on, before a line of its own has run."""
    script, *arguments = sys.argv or [""]
    if Path(script).name != "catbird-db":
        *_, option, module = ["", "", *sys.orig_argv[: len(sys.orig_argv) - len(arguments)]]
        if (option, module) != ("-m", "catbird_db"):
            return False
    return arguments[:1] == ["check"]


_drift: list[Drift] | None = [] if _is_check() else None  # None: raise the first
_at_odds: set[tuple[Path, str]] = set()  # stubs that are there, and not bound
_unread: dict[Path, set[str]] = {}  # of files with mistakes, the names whose statements are lost


@contextmanager
def collecting_drift() -> Generator[list[Drift]]:
    """What is imported within it does not fail by a StubError or SqlFileError: they are listed."""
    global _drift
    before = _drift
    _drift = before if before is not None else []
    try:
        yield _drift
    finally:
        _drift = before


def _report(error: Drift) -> None:
    if _drift is None:
        raise error
    _drift.append(error)


class Refused(Exception):
    """The statement found no row of its actor's own."""


@overload
def query(stub: F, /) -> F: ...
@overload
def query(*, refused: Refusal) -> Callable[[F], F]: ...
def query(stub: Any = None, /, *, refused: Refusal | None = None) -> Any:
    """Make of ``async def name(db, /, *, ...) -> ...: ...`` a call of the SQL of that name.

    Args:
        stub: the function; its body is never run.
        refused: for a statement that begins with its actor's own row and outer-joins what it
            returns: a row of NULLs is then the empty answer, and no row at all means that the
            actor was refused. Called as the stub was, it gives the exception to raise.

    Raises:
        StubError: stub and SQL are at odds: where, what, and what to write instead.
        SqlFileError: the .sql file cannot be read.
    """
    if stub is not None:
        return _bind_or_report(stub, None)

    def bind(function: F) -> F:
        return _bind_or_report(function, refused)

    return bind


def _bind_or_report(stub: F, refused: Refusal | None) -> F:
    try:
        return _bind(stub, refused)
    except (StubError, SqlFileError) as error:
        package, _, module = stub.__module__.partition(".")
        path = _sql_path(package, module)
        if stub.__name__ not in _unread.get(path, ()):
            _report(error)
        _at_odds.add((path, stub.__name__))
        return stub


def _bind(stub: F, refused: Refusal | None) -> F:
    signature = Signature(stub)
    statement = _statement(signature, stub)
    result = _Result(signature, statement)
    order = _ordering(result, signature, statement)
    run = _runner(result, statement, guarded=refused is not None)
    label = statement.label

    @wraps(stub)
    async def call(db: Executor, /, **given: Any) -> Any:
        arguments = order(signature.arguments(given))
        try:
            if isinstance(db, Pool):
                return await db._call(run, arguments)  # pyright: ignore[reportPrivateUsage]
            if isinstance(db, Connection):  # pyright: ignore[reportUnnecessaryIsInstance]
                return await run(db, arguments)
        except CONNECT_ERRORS as error:
            raise_translated(error, query=label, place=_place(statement, error))
        except ValidationError as error:
            says = f"{label}: a row does not fit its model: {first_fault(error)}"
            raise SerializationError(says, query=label) from None
        except Refused:
            assert refused is not None
            raise await refused(db, **given) from None
        raise TypeError(f"{label}: pass a Pool or its Connection, not {type(db).__name__}")

    texts = (inspect.cleandoc(stub.__doc__ or ""), statement.comment)
    call.__doc__ = "\n\n".join(text for text in texts if text)
    twin = _bound.setdefault(
        (statement.path, statement.name),
        Bound(signature, statement, guarded=refused is not None),
    )
    if twin.signature.where != signature.where:
        raise signature.wrong(f"is a second stub of this name; the first is {twin.signature.where}")
    count_statement(label)
    return cast(F, call)


def _statement(signature: Signature, stub: Callable[..., Any]) -> Statement:
    package, _, module = stub.__module__.partition(".")
    path = _sql_path(package, module)
    if path not in _files:
        if not path.exists():
            raise signature.wrong(f"its SQL file is missing; write {path}")
        _files[path] = _load(path, module)
    found = _files[path].get(stub.__name__)
    if found is None:
        raise signature.wrong(f"has no SQL; write '-- name: {stub.__name__} :<mode>' in {path}")
    return found


def _load(path: Path, module: str) -> dict[str, Statement]:
    if _drift is None:
        return load(path, module=module)
    statements, mistakes = salvage(path, module=module)
    _drift.extend(mistakes)
    if mistakes:
        named = re.findall(r"^--[ \t]*name:[ \t]*(\w+)", path.read_text("utf-8", "replace"), re.M)
        _unread[path] = set(named) - statements.keys()
    return statements


def _sql_path(package: str, module: str) -> Path:
    return _sql_folder(package) / f"{module.replace('.', '/')}.sql"


def _sql_folder(package: str) -> Path:
    return Path(sys.modules[package].__file__ or "").parent / "sql"


def _place(statement: Statement, error: BaseException) -> str | None:
    position: str | None = getattr(error, "position", None)
    if not isinstance(error, asyncpg.PostgresError) or not position:
        return None
    line, column = statement.locate(int(position))
    return f"{statement.path}:{line}:{column}"


class _Result:
    """What the return annotation says, and whether the statement's mode agrees."""

    def __init__(self, signature: Signature, statement: Statement) -> None:
        self.signature, self.statement = signature, statement
        self.returns, self.optional = _split_optional(signature.returns)
        origin, arguments = get_origin(self.returns), get_args(self.returns)
        match statement.mode:
            case "one":
                self._expect(not self.optional and _is_model(self.returns), "Model")
            case "maybe":
                self._expect(self.optional and _is_model(self.returns), "Model | None")
            case "many":
                self._expect(origin is list and _is_model(arguments[0]), "list[Model]")
            case "page":
                self._expect(origin is Page and _is_model(arguments[0]), "Page[Model]")
            case "value":
                self._expect(self.returns is not types.NoneType, "the type of its one column")
            case "rows":
                self._expect(self.returns in (int, bool), "int, or bool")
            case "exec":
                self._expect(signature.returns is types.NoneType, "None")

    @property
    def model(self) -> type[BaseModel]:
        """The row model of one, maybe, many, page."""
        return get_args(self.returns)[0] if get_args(self.returns) else self.returns

    def _expect(self, agrees: bool, expected: str) -> None:
        if not agrees:
            at = f"{self.statement.path}:{self.statement.line}"
            raise self.signature.wrong(
                f"its return annotation does not agree with :{self.statement.mode} of {at}; "
                f"write '-> {expected}', or another mode"
            )


def _split_optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    rest = [one for one in get_args(hint) if one is not types.NoneType]
    return (rest[0] if len(rest) == 1 else hint), len(rest) < len(get_args(hint))


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _ordering(result: _Result, signature: Signature, statement: Statement) -> Order:
    """From the arguments by name to the values of $1, $2, ..."""
    key = statement.key
    expected = {name for name in signature.parameters if not (key and name == "cursor")}
    expected |= {f"cursor_{column}" for column in key}
    expected |= {
        given(name) for name, hint in signature.hints.items() if tells_unset_from_null(hint)
    }
    if missing := sorted(expected - set(statement.parameters)):
        raise signature.wrong(
            f"{', '.join(missing)} is no placeholder of {statement.path}:{statement.line}; "
            f"write :{missing[0]} there, or drop the parameter"
        )
    if unknown := sorted(set(statement.parameters) - expected):
        raise signature.wrong(
            f":{unknown[0]} of {statement.path}:{statement.line} is no parameter; "
            f"add {unknown[0]} to the stub, or drop the placeholder"
        )
    order = _picking(statement.parameters)
    if key:
        order = _page_ordering(result, signature, statement)
    return _unset_as_null(order, signature)


def _unset_as_null(order: Order, signature: Signature) -> Order:
    unset = [name for name, hint in signature.hints.items() if may_be_unset(hint)]
    if not unset:
        return order

    def with_nulls(values: dict[str, Any]) -> tuple[Any, ...]:
        for name in unset:
            values[given(name)] = values[name] is not UNSET
            if values[name] is UNSET:
                values[name] = None
        return order(values)

    return with_nulls


def given(name: str) -> str:
    """The placeholder that says whether a parameter which may be null was given at all."""
    return f"{name}_given"


def _page_ordering(result: _Result, signature: Signature, statement: Statement) -> Order:
    if not {"cursor", "limit"} <= set(signature.parameters):
        raise signature.wrong("returns a page; add 'limit: Limit = 50, cursor: Cursor | None'")
    codec, names = _codec(result, signature, statement), [f"cursor_{c}" for c in statement.key]
    nothing: tuple[None, ...] = (None,) * len(names)
    pick = _picking(statement.parameters)

    def order(values: dict[str, Any]) -> tuple[Any, ...]:
        cursor = values.pop("cursor")
        key = codec.decode(cursor) if cursor is not None else nothing
        values["limit"] += 1  # one more row says whether there is a next page
        return pick({**values, **dict(zip(names, key, strict=True))})

    return order


def _codec(result: _Result, signature: Signature, statement: Statement) -> CursorCodec:
    fields = result.model.model_fields
    if unknown := [column for column in statement.key if column not in fields]:
        raise signature.wrong(
            f"key column {unknown[0]} of {statement.path}:{statement.line} is no field of "
            f"{result.model.__name__}; a page is continued from the last row it shows"
        )
    return CursorCodec(statement.label, [fields[column].annotation for column in statement.key])


def _picking(names: tuple[str, ...]) -> Order:
    if len(names) > 1:
        return itemgetter(*names)
    if not names:
        return lambda values: ()
    only = names[0]
    return lambda values: (values[only],)


def _runner(result: _Result, statement: Statement, *, guarded: bool) -> Run:
    if guarded and statement.mode not in ("maybe", "many", "page"):
        raise result.signature.wrong("refused= goes with :maybe, :many and :page")
    match statement.mode:
        case "one" | "maybe":
            return _run_row(result, statement, guarded)
        case "many":
            return _run_many(result, statement, guarded)
        case "page":
            return _run_page(result, statement, guarded)
        case "value":
            return _run_value(result, statement)
        case "rows":
            return _run_rows(result, statement)
        case "exec":
            return _run_exec(statement)


def _not_found(statement: Statement) -> NotFoundError:
    return NotFoundError(
        f"{statement.label}: nothing is there"
        + (f" for this {', '.join(statement.parameters)}" if statement.parameters else ""),
        query=statement.label,
    )


def _run_row(result: _Result, statement: Statement, guarded: bool) -> Run:
    sql, optional = statement.sql, result.optional
    to_model = result.model.__pydantic_validator__.validate_python

    async def run(connection: Any, arguments: tuple[Any, ...]) -> Any:
        row = await connection.fetchrow(sql, *arguments)
        if row is None:
            if guarded:
                raise Refused
            if optional:
                return None
            raise _not_found(statement)
        if guarded and row[0] is None:
            return None
        return to_model(dict(row))

    return run


def _run_many(result: _Result, statement: Statement, guarded: bool) -> Run:
    sql = statement.sql
    to_models = TypeAdapter(result.returns).validator.validate_python

    async def run(connection: Any, arguments: tuple[Any, ...]) -> Any:
        rows = await connection.fetch(sql, *arguments)
        if guarded:
            rows = _behind_guard(rows)
        return to_models(_dicts(rows))

    return run


def _run_page(result: _Result, statement: Statement, guarded: bool) -> Run:
    sql, key, at_limit = statement.sql, statement.key, statement.parameters.index("limit")
    to_models = TypeAdapter(list[result.model]).validator.validate_python  # pyright: ignore
    encode = _codec(result, result.signature, statement).encode

    async def run(connection: Any, arguments: tuple[Any, ...]) -> Any:
        rows = await connection.fetch(sql, *arguments)
        if guarded:
            rows = _behind_guard(rows)
        limit = arguments[at_limit] - 1
        items = to_models(_dicts(rows[:limit]))
        if len(rows) <= limit:
            return Page(items, None)
        return Page(items, encode([rows[limit - 1][column] for column in key]))

    return run


def _dicts(rows: list[Any]) -> list[dict[str, Any]]:
    """As ``dict(row)`` of each, in less time."""
    names = tuple(rows[0].keys()) if rows else ()
    return [dict(zip(names, row)) for row in rows]  # noqa: B905 - strict costs all that this saves


def _behind_guard(rows: list[Any]) -> list[Any]:
    if not rows:
        raise Refused
    return [] if rows[0][0] is None else rows


def _run_value(result: _Result, statement: Statement) -> Run:
    sql, optional = statement.sql, result.optional
    to_value = TypeAdapter(result.signature.returns).validator.validate_python

    async def run(connection: Any, arguments: tuple[Any, ...]) -> Any:
        row = await connection.fetchrow(sql, *arguments)
        if row is None:
            if optional:
                return None
            raise _not_found(statement)
        return to_value(row[0])

    return run


def _run_rows(result: _Result, statement: Statement) -> Run:
    sql, as_type = statement.sql, result.returns

    async def run(connection: Any, arguments: tuple[Any, ...]) -> Any:
        status: str = await connection.execute(sql, *arguments)
        return as_type(int(status.rpartition(" ")[2]))

    return run


def _run_exec(statement: Statement) -> Run:
    sql = statement.sql

    async def run(connection: Any, arguments: tuple[Any, ...]) -> Any:
        await connection.execute(sql, *arguments)

    return run


def bound(package: str = "catbird_db") -> list[Bound]:
    """Every stub of a package with its statement, in the order of import."""
    folder = _sql_folder(package)
    return [one for (path, _), one in _bound.items() if path.is_relative_to(folder)]


def verify(package: str = "catbird_db") -> None:
    """Find what lies in a package's ``sql/`` and has no stub; call it when all is imported.

    Raises:
        SqlFileError: the first statement without a stub, or file without a module.
    """
    folder = _sql_folder(package)
    for path in sorted(folder.rglob("*.sql")):
        module = f"{package}.{'.'.join(path.relative_to(folder).with_suffix('').parts)}"
        statements = _files.get(path)
        if statements is None:
            statements = _load(path, module.partition(".")[2])
        for statement in statements.values():
            if (path, statement.name) not in _bound and (path, statement.name) not in _at_odds:
                _report(
                    SqlFileError(
                        path,
                        statement.line,
                        1,
                        f"{statement.name} has no stub; write '@query async def {statement.name}"
                        f"(db: Executor, /, *, ...)' in {module}, or drop the statement",
                        f"-- name: {statement.name} :{statement.mode}",
                    )
                )
