"""The project's own stubs, changed in one place; and what `@query` says of a stub and a statement."""

from typing import Any

from mutants import statement

from catbird_db import query as binding
from catbird_db.query import Bound
from catbird_db.signature import Signature, StubError


def stub_mutant(name: str, *changes: tuple[str, str]) -> Bound:
    """A statement of the project with a stub from its module's text, changed."""
    original = statement(name)
    path = original.statement.path
    folder, package = path.parent, path.parent
    while package.name != "sql":
        package = package.parent
    module = package.parent / folder.relative_to(package) / f"{path.stem}.py"
    text = module.read_text("utf-8")
    for old, new in changes:
        assert old in text, f"{module} has no {old!r}"
        text = text.replace(old, new)
    label = f"catbird_db.{original.statement.label.rpartition('.')[0]}"
    text = text.replace("from ..query import query", "").replace("from .query import query", "")
    stubs: dict[str, Signature] = {}
    names = {"__name__": label, "__package__": label.rpartition(".")[0], "query": _recorder(stubs)}
    exec(compile(text, str(module), "exec"), names)
    return Bound(stubs[name], original.statement, original.guarded)


def _recorder(stubs: dict[str, Signature]) -> Any:
    def query(stub: Any = None, /, **options: Any) -> Any:
        if stub is None:
            return query
        stubs[stub.__name__] = Signature(stub)
        return stub

    return query


def drift_of(one: Bound) -> str | None:
    """What `@query` would say of a stub and a statement at import."""
    try:
        result = binding._Result(one.signature, one.statement)
        binding._ordering(result, one.signature, one.statement)
        binding._runner(result, one.statement, guarded=one.guarded)
    except StubError as error:
        return str(error)
    return None
