"""`drift`: stubs and SQL files that are at odds, all of them at once.

An import finds these by itself, and stops at the first. Here the package is imported once more, in a
mode in which `@query` and `verify` list what they find; `catbird-db check` is in it from its start, so
that it runs where nothing else of the package would.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidArgumentError
from ..query import Drift, collecting_drift, verify
from ..signature import StubError
from ..sqlfile import SqlFileError
from .finding import Finding
from .subject import shown

RULE = "drift"


def check(package: str = "catbird_db") -> Iterator[Finding]:
    """Import a package, and report what is at odds in it.

    Raises:
        InvalidArgumentError: it has no SQL.
    """
    with collecting_drift() as drift:
        try:
            home = _import(package)
            verify(package)
        except StubError as error:  # of a composed function: raised all the same
            drift.append(error)
            home = Path(_where(error)["path"]).parent
        found = list(drift)
    homes = {home, (home / "sql").resolve()}
    yield from sorted(
        {finding for finding, path in map(_finding, found) if any(map(path.is_relative_to, homes))}
    )


def _import(package: str) -> Path:
    """Import a package, and each of its modules that has an .sql file; gives its folder."""
    file = importlib.import_module(package).__file__
    home = Path(file or "").parent
    files = sorted((home / "sql").rglob("*.sql")) if file else []
    if not files:
        where = (
            f" in {shown(home / 'sql')}" if file else ", as it is no package with an __init__.py"
        )
        raise InvalidArgumentError(f"{package} has no .sql files{where}: there is nothing to check")
    for path in files:
        module = path.relative_to(home / "sql").with_suffix("")
        if (home / module).with_suffix(".py").exists():
            importlib.import_module(".".join((package, *module.parts)))
    return home


def _finding(error: Drift) -> tuple[Finding, Path]:
    if isinstance(error, SqlFileError):
        path, line, column, excerpt = error.path, error.line, error.column, error.excerpt
        message = error.message
    else:
        where = _where(error)
        path, line, column, message = Path(where["path"]), int(where["line"]), 1, where["what"]
        line, excerpt = _definition(path, line)
    what, mend = _split(message)
    width = len(excerpt) if column == 1 else 1
    return Finding(shown(path), line, column, RULE, what, mend, excerpt, width), path


def _where(error: StubError) -> re.Match[str]:
    found = re.match(r"(?P<path>.+?):(?P<line>\d+): (?P<what>.*)", str(error), re.DOTALL)
    assert found is not None, error
    return found


def _definition(path: Path, line: int) -> tuple[int, str]:
    """The ``def`` of a function; a function's first line is that of its decorator."""
    lines = path.read_text("utf-8").splitlines()
    for number in range(line, min(line + 10, len(lines)) + 1):
        if re.match(r"\s*(async )?def ", lines[number - 1]):
            return number, lines[number - 1]
    return line, lines[line - 1]


def _split(message: str) -> tuple[str, str]:
    """``what is wrong; write what to write``."""
    what, _, mend = message.partition("; ")
    return what, mend.removeprefix("write ") or "a stub and SQL that agree"
