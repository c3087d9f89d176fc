"""What pyright, and so the editor, sees of the public functions: types revealed, misuse refused.

In the files of typing_cases/ a line's comment says what pyright is to say about it:
``reveal_type(x)  # int`` or ``f(x)  # error: reportCallIssue``.
"""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import catbird_db

HERE = Path(__file__).parent
CASES = HERE / "typing_cases"
EVERY_FUNCTION = CASES / "every_function.py"

REVEAL = re.compile(r" *reveal_type\(.*\)(?:  # (?P<type>.*))?")
ERROR = re.compile(r".*  # error: (?P<rules>[\w, ]+)")


@pytest.fixture(scope="module")
def said() -> dict[str, dict[int, list[str]]]:
    """What pyright says: by file and line, a revealed type or ``error: rule``."""
    run = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, CASES],
        cwd=HERE.parent,
        capture_output=True,
        check=False,
        text=True,
    )
    found: dict[str, dict[int, list[str]]] = {}
    for diagnostic in json.loads(run.stdout)["generalDiagnostics"]:
        lines = found.setdefault(Path(diagnostic["file"]).name, {})
        lines.setdefault(diagnostic["range"]["start"]["line"], []).append(as_comment(diagnostic))
    return found


def as_comment(diagnostic: dict[str, Any]) -> str:
    revealed = re.fullmatch(r'Type of ".*" is "(.*)"', diagnostic["message"], re.DOTALL)
    return revealed[1] if revealed else f"error: {diagnostic['rule']}"


def expected(file: Path) -> dict[int, list[str]]:
    comments: dict[int, list[str]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        if revealed := REVEAL.fullmatch(line):
            comments[number] = [revealed["type"]]
        elif error := ERROR.fullmatch(line):
            comments[number] = [f"error: {rule}" for rule in error["rules"].split(", ")]
    return comments


@pytest.mark.parametrize("name", ["modes.py", "refused.py"])
def test_pyright_reveals_and_refuses_what_the_comments_say(
    said: dict[str, dict[int, list[str]]], name: str
) -> None:
    assert len(expected(CASES / name)) > 15
    assert said[name] == expected(CASES / name)


def test_pyright_sees_the_real_signature_of_every_public_function(
    said: dict[str, dict[int, list[str]]],
) -> None:
    """Run with UPDATE_SNAPSHOTS=1 to write the file anew (once more where functions are new)."""
    functions = sorted(
        name for name in catbird_db.__all__ if inspect.isfunction(getattr(catbird_db, name))
    )
    head, _, _ = EVERY_FUNCTION.read_text(encoding="utf-8").partition("reveal_type(")
    start = head.count("\n")
    found = said["every_function.py"]
    lines = [
        f"reveal_type({name})  # {' '.join(found.get(start + number, []))}\n"
        for number, name in enumerate(functions)
    ]
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        EVERY_FUNCTION.write_text(head + "".join(lines), encoding="utf-8")
    assert EVERY_FUNCTION.read_text(encoding="utf-8") == head + "".join(lines)
    assert found == expected(EVERY_FUNCTION)


def test_each_signature_that_pyright_sees_is_the_one_that_is_called(
    said: dict[str, dict[int, list[str]]],
) -> None:
    """Names, kinds and defaults of parameters: the decorators change none of them."""
    for line in EVERY_FUNCTION.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"reveal_type\((\w+)\)  # \((.*)\) -> .*", line):
            parameters = inspect.signature(getattr(catbird_db, match[1])).parameters
            names = re.findall(r"(?:^|, )(\w+): ", re.sub(r"\[[^\]]*\]", "", match[2]))
            assert names == list(parameters)
            required = [name for name in names if not re.search(rf"\b{name}: [^:]* = ", match[2])]
            assert required == [
                name for name, one in parameters.items() if one.default is one.empty
            ]
