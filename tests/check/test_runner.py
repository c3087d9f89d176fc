"""`catbird-db check` as a whole, and as a command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from catbird_db import terminal
from catbird_db.catalog import schema_snapshot
from catbird_db.check.runner import RULES, run
from catbird_db.errors import InvalidArgumentError

COMMAND = """
import sys, typer
from catbird_db.check.command import register
app = typer.Typer(pretty_exceptions_enable=False)
register(app)
app(prog_name="catbird-db")
"""


def command(*arguments: str, before: str = "", cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, "-c", before + COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_nothing_is_found_in_the_project():
    steps: list[str] = []
    report = run(progress=lambda step, done=0, total=None, /: steps.append(step))
    assert not report.findings, "\n\n".join(map(str, report.findings))
    assert report.rules_run == RULES
    assert report.skipped == ()
    assert report.statements > 40
    assert "filling tables" in steps


def test_an_existing_database_is_only_read(catbird_database_url: str):
    before = state(catbird_database_url)
    report = run(database_url=catbird_database_url)
    assert state(catbird_database_url) == before
    skipped = [line.partition(":")[0] for line in report.skipped]
    assert skipped == ["index", "migration", "destructive", "index-unused"]
    assert not {"index", "index-unused"} & {*report.rules_run}
    assert not report.findings, "\n\n".join(map(str, report.findings))


def test_an_existing_database_is_asked_by_who_may_only_connect(catbird_database_url: str):
    with psycopg.connect(catbird_database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE check_reader LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO check_reader")
        try:
            as_reader = catbird_database_url.replace("postgres@", "check_reader@")
            assert as_reader != catbird_database_url
            assert run(database_url=as_reader, rules=["prepare"]).findings == ()
        finally:
            connection.execute("DROP OWNED BY check_reader; DROP ROLE check_reader")


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_what_is_skipped_is_said_in_every_format(catbird_database_url: str, form: str):
    rules = ("--rule", "destructive", "--rule", "migration", "--rule", "declared")
    done = command("check", *rules, "--format", form, "--database-url", catbird_database_url)
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "skipped  migration",
        "skipped  destructive",
    ]
    if form == "json":
        assert json.loads(done.stdout) == []
    if form == "github":
        migration, destructive = done.stdout.splitlines()
        assert migration.startswith("::notice title=catbird-db check: skipped::migration: up, down")
        assert destructive.startswith("::notice title=catbird-db check: skipped::destructive: ")


def state(url: str) -> tuple[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables ORDER BY 1"
        )
        return schema_snapshot(connection), rows.fetchall()


def test_a_rule_that_is_none_says_which_is_meant():
    with pytest.raises(InvalidArgumentError, match="no rule tenants; write tenant"):
        run(rules=["tenants"])


def test_the_command_says_what_it_found_and_fails(tmp_path: Path):
    home = tmp_path / "shop"
    (home / "sql").mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / "sql" / "things.sql").write_text("-- name: get_thing :maybe\nSELECT 1 AS id;\n")
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
    done = command("check", "--package", "shop", "--rule", "drift", before=before, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(
        "shop/sql/things.sql:1:1: drift: get_thing has no stub\n"
        "   |\n"
        " 1 | -- name: get_thing :maybe\n"
        "   | ^^^^^^^^^^^^^^^^^^^^^^^^^\n"
    )
    assert "\n1 finding: 0 statements, 1 rules, " in done.stdout
    form = ("--format", "json")
    again = command("check", "--package", "shop", "--rule", "drift", *form, before=before)
    assert [one["rule"] for one in json.loads(again.stdout)] == ["drift"]
    form = ("--format", "github")
    again = command("check", "--package", "shop", "--rule", "drift", *form, before=before)
    assert again.stdout.startswith("::error file=")


@pytest.mark.parametrize(("made", "says"), [("__init__.py", "in "), ("sql/x.txt", "__init__.py")])
def test_a_package_without_sql_is_not_proved(tmp_path: Path, made: str, says: str):
    path = tmp_path / "shop" / made
    path.parent.mkdir(parents=True)
    path.touch()
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
    done = command("check", "--package", "shop", before=before, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: shop has no .sql files")
    assert says in done.stderr and done.stderr.endswith("there is nothing to check\n")


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_a_parameter_between_colons_is_printed_as_it_is(tmp_path: Path, form: str):
    home = tmp_path / "shop"
    (home / "sql").mkdir(parents=True)
    (home / "__init__.py").touch()
    says = "-- tennant: u.email = :email::text OR [bold]:id:"
    (home / "sql" / "things.sql").write_text(
        f"-- name: get_thing :maybe\n{says}\nSELECT 1 AS id;\n"
    )
    given = ("--package", "shop", "--rule", "drift", "--format", form)
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
    done = command("check", *given, before=before, cwd=tmp_path)
    if form == "json":
        assert says in [one["excerpt"] for one in json.loads(done.stdout)]
    if form == "text":
        assert f"| {says}\n" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("name", ["out", "err"])
def test_a_terminal_makes_no_emoji_of_names(name: str):
    console = getattr(terminal, name)
    with console.capture() as told:
        console.print("no column :email::text and :id:")
    assert told.get() == "no column :email::text and :id:\n"


def test_what_is_not_installed_is_one_line():
    before = "import sys; sys.modules['pglast'] = None;"
    done = command("check", before=before)
    assert done.returncode == 1
    assert done.stderr == "error: no module pglast: pip install 'catbird-db[check]'\n"


def test_the_commands_load_no_parser_before_they_run():
    done = command(
        "--help", before="import atexit, sys; atexit.register(lambda: print(*sys.modules));"
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"pglast", "psycopg", "yoyo"}
    for name in ("check", "docs", "explain"):
        assert f"│ {name} " in done.stdout


def test_a_stale_document_fails(tmp_path: Path):
    path = tmp_path / "queries.md"
    assert command("docs", "--path", str(path)).returncode == 0
    assert command("docs", "--check", "--path", str(path)).returncode == 0
    path.write_text(path.read_text() + "more\n")
    done = command("docs", "--check", "--path", str(path))
    assert done.returncode == 1
    assert "is stale: run 'catbird-db docs'" in done.stderr
