"""Stubs and SQL that are at odds: all of them at once, also where the package does not import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_package import write_package

import catbird_db
from catbird_db.check import drift
from catbird_db.query import collecting_drift
from catbird_db.signature import StubError
from catbird_db.sqlfile import SqlFileError

STUBS = """
class Thing(Row, frozen=True):
    id: int


@query
async def unreadable(db: Executor, /, *, id: int) -> Thing: ...


@query
async def without_sql(db: Executor, /, *, id: int) -> Thing: ...


@query
async def misnamed(db: Executor, /, *, idd: int) -> Thing: ...


@query
async def good(db: Executor, /, *, id: int) -> Thing | None: ...


@query
async def page(db: Executor, /, *, limit: Limit, cursor: Cursor | None = None) -> Page[Thing]: ...
"""

SQL = """\
-- name: unreadable :one
-- tennant: x
SELECT 1 AS id WHERE :id = 1;

-- name: misnamed :one
SELECT 1 AS id WHERE :id = 1;

-- name: good :maybe
SELECT 1 AS id WHERE :id = 1;

-- name: page :page
-- key: id
SELECT 1 AS id WHERE :cursor_id = 1;

-- name: without_stub :maybe
SELECT 1 AS id WHERE :id = 1;

-- name: unclosed :maybe
SELECT 'a AS id WHERE :id = 1;
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"drifting_{abs(hash(request.node.name))}"
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, name, "things", STUBS, SQL)
    return name


def test_all_of_it_is_reported_at_once(package: str):
    found = {(one.path.name, one.line): one.message for one in drift.check(package)}
    assert sorted(found) == [
        ("things.py", 17),
        ("things.py", 21),
        ("things.py", 29),
        ("things.sql", 2),
        ("things.sql", 15),
        ("things.sql", 19),
    ]
    assert found["things.sql", 2] == "unknown key tennant"
    assert found["things.sql", 15] == "without_stub has no stub"
    assert found["things.py", 29] == (
        f"page: limit is no placeholder of {Path(sys.path[0]) / package}/sql/things.sql:11"
    )


def test_outside_of_check_the_first_is_raised(package: str):
    with pytest.raises((StubError, SqlFileError), match="unknown key tennant"):
        __import__(f"{package}.things")


def test_collecting_ends(package: str):
    with collecting_drift():
        pass
    with pytest.raises((StubError, SqlFileError)):
        __import__(f"{package}.things")


def test_the_project_has_none():
    assert list(drift.check()) == []


RUN = """
import sys, typer
sys.argv = ["catbird-db", "check", "--rule", "drift", "--format", "json"]
import catbird_db
from catbird_db.check.command import register
app = typer.Typer()
register(app)
app.callback()(lambda: None)
app()
"""


def test_the_command_runs_where_the_package_does_not_import(tmp_path: Path):
    copy(tmp_path)
    sql = tmp_path / "sql" / "health.sql"
    text = sql.read_text("utf-8").replace("-- name: get_server_state :one", "-- name: renamed :one")
    sql.write_text(text, encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    broken = subprocess.run(
        [sys.executable, "-c", "import catbird_db"], env=environment, cwd=tmp_path, check=False
    )
    assert broken.returncode != 0
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [(one["path"], one["message"]) for one in found] == [
        ("catbird_db/health.py", "get_server_state: has no SQL"),
        ("sql/health.sql", "renamed has no stub"),
    ]


def copy(folder: Path) -> None:
    """The package, its sql and its migrations, as a clone has them."""
    root = Path(catbird_db.__file__).parent.parent
    for name in ("catbird_db", "sql", "migrations"):
        subprocess.run(["cp", "-R", str(root / name), str(folder)], check=True)
