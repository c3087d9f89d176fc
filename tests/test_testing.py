"""The plugin as a project built on this one uses it: in pytest runs of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CONFTEST = """
from pathlib import Path
import pytest
from catbird_db.migrate import migrations_dir

pytest_plugins = ["catbird_db.testing"]

@pytest.fixture(scope="session")
def catbird_migrations():
    return [migrations_dir(), Path(__file__).parent / "migrations"]
"""

TESTS = """
import psycopg
import pytest
from catbird_db.config import Settings
from catbird_db.pool import Pool

left_open = []

@pytest.mark.asyncio
@pytest.mark.parametrize("attempt", range(3))
async def test_each_test_has_empty_tables_of_both_projects(catbird_pool: Pool, attempt):
    async with catbird_pool.connection() as connection:
        await connection.execute("INSERT INTO notes (id) VALUES (1)")
        assert await connection.fetchval("SELECT count(*) FROM conversations") == 0

@pytest.mark.parametrize("attempt", range(2))
def test_a_test_may_be_sync_and_leave_a_session_open(catbird_database_url, attempt):
    left_open.append(psycopg.connect(catbird_database_url, autocommit=True))
    left_open[-1].execute("INSERT INTO notes (id) VALUES (1)")

def test_a_database_may_be_empty(catbird_empty_database_url):
    with psycopg.connect(catbird_empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('notes')").fetchone() == (None,)

def test_settings_lead_to_the_database_that_the_pool_is_on(catbird_settings, catbird_database_url):
    assert isinstance(catbird_settings, Settings)
    assert catbird_settings.database_url == catbird_database_url

def test_many_sessions_fit(catbird_database_url):
    sessions = [psycopg.connect(catbird_database_url) for _ in range(120)]
    for session in sessions:
        session.close()

def test_the_server_is_named_in_a_file(catbird_server, request):
    file = request.config.rootpath / f"server-{getattr(request.config, 'workerinput', {}).get('workerid')}"
    file.write_text(str(catbird_server.directory))
"""

INTERRUPTED = """
import time
def test_that_takes_long(catbird_server, catbird_database_url):
    print("in", catbird_server.directory, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_notes.sql").write_text(
        "CREATE TABLE notes (id int PRIMARY KEY)"
    )
    (tmp_path / "test_notes.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    return tmp_path


def run_pytest(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *("-p", "no:hypothesispytest", *arguments),  # costs a second
        ],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "asyncio_mode=strict", "-p", "no:xdist"],
        [
            *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
            *("-n2", "--dist=each", "-W", "error"),
        ],
    ],
    ids=["strict", "auto, two workers"],
)
def test_a_project_built_on_this_one_gets_what_the_plugin_promises(
    project: Path, arguments: list[str]
) -> None:
    run = run_pytest(project, *arguments)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    workers = 2 if "-n2" in arguments else 1
    assert f"{9 * workers} passed" in output
    servers = {Path(file.read_text()) for file in project.glob("server-*")}
    assert len(servers) == workers
    assert not any(server.exists() for server in servers)


def test_no_server_stays_behind_a_run_that_is_interrupted_or_killed(project: Path) -> None:
    (project / "test_notes.py").write_text(INTERRUPTED)
    runs = [
        (run_pytest(project, "-s"), sent)
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    ]
    for run, sent in runs:
        assert run.stdout is not None
        server = next(Path(line.split()[-1]) for line in run.stdout if " in " in line)
        assert server.exists()
        run.send_signal(sent)
        run.communicate()
        deadline = time.monotonic() + 60
        while server.exists():
            assert time.monotonic() < deadline, sent
            time.sleep(0.02)


def test_without_its_extra_the_plugin_names_the_command_that_installs_it() -> None:
    script = "import sys; sys.modules['pytest_postgresql'] = None; import catbird_db.testing"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode
    assert "pip install 'catbird-db[testing]'" in run.stderr
