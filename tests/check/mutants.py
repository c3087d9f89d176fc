"""The project's own statements, changed in one place: what a rule must catch, or must let pass."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import catbird_db  # noqa: F401 - binds every stub
from catbird_db.query import Bound, bound
from catbird_db.signature import Signature
from catbird_db.sqlfile import load


def statement(name: str) -> Bound:
    """The project's own."""
    return next(one for one in bound() if one.statement.name == name)


def mutant(folder: Path, name: str, *changes: tuple[str, str]) -> Bound:
    """A statement of the project in which each text is replaced by another, once.

    The stub is the project's; the file is written to ``folder``, with nothing else in it.
    """
    original = statement(name)
    text = _section(original)
    for old, new in changes:
        assert text.count(old) >= 1, f"{name} has no {old!r}"
        text = text.replace(old, new, 1)
    return written(folder, original, text)


def written(folder: Path, stub: Bound, text: str) -> Bound:
    """A stub of the project with another text under its name."""
    path = folder / f"{stub.statement.name}.sql"
    path.write_text(text, encoding="utf-8")
    module = stub.statement.label.rpartition(".")[0]
    return Bound(stub.signature, load(path, module=module)[stub.statement.name], stub.guarded)


def _section(one: Bound) -> str:
    """The lines of a statement's file from its name to the next one's."""
    lines = one.statement.path.read_text("utf-8").splitlines(keepends=True)
    first = one.statement.line - 1
    return "".join([lines[first], *_until_next_name(lines[first + 1 :])])


def _until_next_name(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if line.startswith("-- name:"):
            return
        yield line


def made(folder: Path, text: str, /, returns: Any = None, **hints: Any) -> Bound:
    """A statement of its own, with a stub whose keyword parameters have these annotations."""

    async def stub(db: object, /, **given: object) -> object: ...

    kind = inspect.Parameter.KEYWORD_ONLY
    stub.__annotations__ = {**hints, "return": returns}
    stub.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [
            inspect.Parameter("db", inspect.Parameter.POSITIONAL_ONLY),
            *(inspect.Parameter(name, kind, annotation=hint) for name, hint in hints.items()),
        ]
    )
    path = folder / "made.sql"
    path.write_text(text, encoding="utf-8")
    (one,) = load(path, module="made").values()
    return Bound(Signature(stub), one)
