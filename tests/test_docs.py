"""The documentation runs: each Python example, from top to bottom, on a real database."""

import ast
import re
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Any

import pytest

import catbird_db

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / "usage.md"]


async def run_examples(page: Path, namespace: dict[str, Any]) -> None:
    text = page.read_text()
    for example in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, example.start(1))
        source = "\n" * line + example.group(1)
        code = compile(source, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)  # what the page says, and nothing else
        if code.co_flags & CO_COROUTINE:
            await result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_every_example_does_what_the_page_says(
    page: Path, catbird_pool: catbird_db.Pool, catbird_database_url: str
) -> None:
    await run_examples(page, {"pool": catbird_pool, "database_url": catbird_database_url})


def test_the_usage_page_shows_every_public_function() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    functions = [name for name in catbird_db.__all__ if name.islower()]
    assert [name for name in functions if not re.search(rf"\b{name}\b", text)] == []
