"""Cases as text: files of SQL whose comments say what a rule must find in each statement.

A comment line of a statement begins with one of

    Finds: nothing
    Finds: [what the carets underline] a part of the message
    Takes: int | None               the type of every parameter; str | None unless given
    Row: id int, title str | None   the row model's fields; Returns: what :value returns
    Guarded: yes                    the stub has refused=
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import create_model

from catbird_db.check.finding import Finding
from catbird_db.pagination import Page
from catbird_db.query import Bound
from catbird_db.signature import Signature
from catbird_db.sqlfile import Statement, load
from catbird_db.types import Row

CASES = Path(__file__).parent / "cases"

_TYPES: dict[str, Any] = {
    "Any": Any,
    "Decimal": Decimal,
    "Literal": Literal,
    "UUID": UUID,
    "datetime": datetime,
    "Level": Literal["read", "write"],
    "MessageType": Literal["app", "commit"],
}


def statements(rule: str) -> list[Statement]:
    """The cases for a rule."""
    return list(load(CASES / f"{rule}.sql", module="cases").values())


def bound(statement: Statement) -> Bound:
    """A case, bound to a stub that fits what its comment says."""
    says = dict(_said(statement))
    takes = says.get("Takes", "str | None")
    names = [one for one in statement.parameters if not one.startswith("cursor_")]
    parameters = ", ".join(f"{name}: {takes}" for name in names)
    source = f"async def {statement.name}(db, /{', *, ' if names else ''}{parameters}): ..."
    scope = dict(_TYPES)
    exec(source, scope)
    function: Callable[..., Any] = scope[statement.name]
    function.__module__ = "cases"
    function.__annotations__["return"] = _returns(statement, says)
    return Bound(Signature(function), statement, "Guarded" in says)


def _returns(statement: Statement, says: dict[str, str]) -> Any:
    fields = dict(
        part.split(" ", 1) for part in re.split(r", (?=\w+ )", says.get("Row", "")) if part
    )
    types = {name: (eval(hint, dict(_TYPES)), ...) for name, hint in fields.items()}
    model = create_model("Item", __base__=Row, **types)  # type: ignore[call-overload]
    match statement.mode:
        case "one":
            return model
        case "maybe":
            return model | None
        case "many":
            return list[model]
        case "page":
            return Page[model]
        case "value":
            return eval(says.get("Returns", "int"), dict(_TYPES))
        case "rows":
            return int
        case "exec":
            return None


def _said(statement: Statement) -> Iterator[tuple[str, str]]:
    for line in statement.comment.splitlines():
        word, _, rest = line.partition(": ")
        yield word, rest


def differences(statement: Statement, findings: list[Finding]) -> list[str]:
    """What a case expects and did not get, and what it got and did not expect; empty if all is well."""
    expected = [rest for word, rest in _said(statement) if word == "Finds" and rest != "nothing"]
    assert expected or "Finds: nothing" in statement.comment, (
        f"{statement.name} expects nothing at all"
    )
    wrong: list[str] = []
    for finding in findings:
        under = finding.excerpt[finding.column - 1 :][: finding.width]
        found = f"[{under}] {finding.message}"
        match = next((one for one in expected if _is(one, under, finding)), None)
        if match is None:
            wrong.append(f"unexpected: {found}")
        else:
            expected.remove(match)
    return wrong + [f"missing: {one}" for one in expected]


def _is(expected: str, under: str, finding: Finding) -> bool:
    token, _, message = expected.removeprefix("[").partition("] ")
    return under == token and message in finding.message
