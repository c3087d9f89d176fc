"""The documentation runs: each Python example, from top to bottom, on a real database."""

import ast
import inspect
import os
import re
import subprocess
import sys
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
    page: Path,
    catbird_pool: catbird_db.Pool,
    catbird_store: catbird_db.ObjectStore,
    catbird_database_url: str,
    catbird_empty_database_url: str,
) -> None:
    given = {
        "pool": catbird_pool,
        "store": catbird_store,
        "database_url": catbird_database_url,
        "empty_database_url": catbird_empty_database_url,
    }
    await run_examples(page, given)


def test_the_usage_page_shows_every_public_function() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    functions = [name for name in catbird_db.__all__ if name.islower()]
    assert [name for name in functions if not re.search(rf"\b{name}\b", text)] == []


async def test_the_schema_page_names_every_index(catbird_pool: catbird_db.Pool) -> None:
    page = (ROOT / "docs" / "schema.md").read_text()
    async with catbird_pool.connection() as connection:
        found = await connection.fetch(
            "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
            "   AND tablename NOT LIKE '%yoyo%' AND tablename NOT LIKE 'chunks\\__'"
            "   AND tablename NOT LIKE 'chunks\\___'"
        )
    assert len(found) > 60
    assert [name for (name,) in found if f"`{name}" not in page] == []


def test_the_usage_page_says_which_functions_ask_nobody() -> None:
    section = (ROOT / "docs" / "usage.md").read_text().partition("### Who may call")[2]
    named = {*re.findall(r"`([a-z_]+)`", section.partition("\n## ")[0])}
    asking = {*["reader_did", "sender_did", "uploaded_by_did", "recipient_did", "user_id"]}
    asking |= {"creator_did", "owner_id", "did"}  # who makes it, or what is one's own
    for name in catbird_db.__all__:
        function = getattr(catbird_db, name)
        domain = getattr(function, "__module__", "").split(".")[1:2]
        if inspect.iscoroutinefunction(function) and domain[0] in ("chat", "vault", "corpus"):
            assert name in named or asking & {*inspect.signature(function).parameters}, name


def test_the_project_of_the_extending_page_passes_its_tests_and_the_check(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    files = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(files) == 7
    (proof,) = re.findall(r"nothing found: \d+ statements, \d+ rules", text)
    for name, content in files:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    for module, expected in (
        (["pytest", "-q", "--strict-markers", "--rootdir", tmp_path, tmp_path], "1 passed"),
        (["catbird_db", "check", "--package", "whiskers"], proof),
    ):
        run = subprocess.run(
            [sys.executable, "-m", *module],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0 and expected in run.stdout, run.stdout + run.stderr


def test_the_first_example_of_the_readme_runs_as_it_stands(catbird_database_url: str) -> None:
    (example,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    run = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "DATABASE_URL": catbird_database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "the group is at epoch 0"
