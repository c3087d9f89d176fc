"""Migrations that lose data: they ask, whoever runs them, and whatever goes wrong they do not."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import psycopg
import pytest
from test_migrate import ROOT, eventually, execute, snapshot, waits_for_a_lock

from catbird_db import migrate
from catbird_db.backup import list_backups
from catbird_db.destructive import find_unasked
from catbird_db.errors import (
    BackupError,
    DestructiveMigrationError,
    InvalidArgumentError,
    QueryError,
    TransactionConflictError,
)

SQL, PYTHON = "0002_drop_notes", "0003_drop_tags"


def guarded(migration: str, table: str, then: str) -> str:
    """A destructive migration as docs/operations.md has it."""
    return dedent(f"""\
        DO $$
        DECLARE
            lost bigint;
        BEGIN
            SET LOCAL row_security = off;
            LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
            SELECT count(*) INTO lost FROM {table};
            IF lost > 0 AND current_setting('catbird.allow_destructive', true) IS DISTINCT FROM '{migration}' THEN
                RAISE EXCEPTION '{table} with its % rows', lost;
            END IF;
            {then};
        END
        $$;
        """)


def python(
    migration: str,
    what: str,
    do: str,
    rollback: str = "None",
    asks_for: str | None = None,
    then: str = "",
) -> str:
    return dedent(f"""\
        # read: by this test
        from catbird_db.destructive import destructive_step

        def contract(connection):
            connection.execute({do!r})

        destructive_step(contract, {rollback}, migration="{asks_for or migration}", {what})
        {then}
        """)


@pytest.fixture
def url(catbird_empty_database_url: str) -> str:
    return catbird_empty_database_url


@pytest.fixture
def folder(tmp_path: Path, url: str) -> Path:
    """0001 is applied, and its tables are full; a batch of four is pending, two of which destroy."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_start.sql").write_text(
        "CREATE TABLE notes (id int, body text); CREATE TABLE tags (id int, old text, new text);"
    )
    migrate.apply(url, directory=folder)
    execute(
        url,
        "INSERT INTO notes SELECT g, 'x' FROM generate_series(1, 1234) AS g;"
        "INSERT INTO tags SELECT g, CASE WHEN g <= 77 THEN 'x' END FROM generate_series(1, 100) AS g",
    )
    (folder / "0001_z_harmless.sql").write_text("CREATE TABLE harmless ();")
    (folder / f"{SQL}.sql").write_text(guarded(SQL, "notes", "DROP TABLE notes"))
    (folder / f"{PYTHON}.py").write_text(
        python(PYTHON, "columns=['tags.old']", "ALTER TABLE tags DROP COLUMN old")
    )
    (folder / "0004_more.sql").write_text("CREATE TABLE more ();")
    return folder


def yoyo(
    url: str, folder: Path, *options: str, allow: str = ""
) -> subprocess.CompletedProcess[str]:
    database = url.replace("postgresql:", "postgresql+psycopg:")
    return subprocess.run(
        [
            *(sys.executable, "-m", "yoyo", "apply", "--no-config-file", "--batch"),
            *("--database", database, *options, folder),
        ],
        cwd=ROOT,
        env={**os.environ, "PGOPTIONS": f"-c catbird.allow_destructive={allow}"} if allow else None,
        capture_output=True,
        text=True,
        check=False,
    )


def applied(url: str, folder: Path) -> list[str]:
    return migrate.status(url, directory=folder).applied


# The operator.


def test_the_whole_batch_stops_before_its_first_and_says_all_that_would_be_lost(
    url: str, folder: Path
) -> None:
    before = snapshot(url)
    with pytest.raises(DestructiveMigrationError) as caught:
        migrate.apply(url, directory=folder)
    assert caught.value.losses == {
        SQL: "notes with its 1234 rows",
        PYTHON: "77 values of tags.old",
    }
    for part in (SQL, PYTHON, "1234 rows", "77 values of tags.old", f"--allow-destructive {SQL}"):
        assert part in str(caught.value)
    assert applied(url, folder) == ["0001_start"]
    assert snapshot(url) == before


def test_only_the_very_migrations_that_are_named_may_destroy(url: str, folder: Path) -> None:
    with pytest.raises(DestructiveMigrationError) as caught:
        migrate.apply(url, directory=folder, allow_destructive=[SQL])
    assert list(caught.value.losses) == [PYTHON]
    assert applied(url, folder) == ["0001_start"]
    done = migrate.apply(url, directory=folder, allow_destructive=[PYTHON, SQL])
    assert done == ["0001_z_harmless", SQL, PYTHON, "0004_more"]
    assert "table notes" not in snapshot(url) and "tags.old" not in snapshot(url)


def test_a_name_that_is_no_migration_is_a_mistake_and_one_that_is_applied_is_none(
    url: str, folder: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="no migration 0002_drop_note"):
        migrate.apply(url, directory=folder, allow_destructive=[SQL, "0002_drop_note"])
    assert applied(url, folder) == ["0001_start"]
    migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON])
    assert migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON]) == []


def test_where_there_is_nothing_to_lose_nobody_is_asked(url: str, folder: Path) -> None:
    execute(url, "TRUNCATE notes; UPDATE tags SET old = NULL")
    assert len(migrate.apply(url, directory=folder)) == 4


def test_a_new_database_gets_all_migrations(url: str, folder: Path, tmp_path: Path) -> None:
    execute(url, "DROP TABLE notes, tags, _yoyo_migration, _yoyo_log, _yoyo_version, yoyo_lock")
    assert len(migrate.apply(url, directory=folder)) == 5


def test_the_setting_of_the_session_names_a_migration_too(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", f"-c catbird.allow_destructive={SQL}")
    with pytest.raises(DestructiveMigrationError) as caught:
        migrate.apply(url, directory=folder)
    assert list(caught.value.losses) == [PYTHON]
    assert migrate.apply(url, directory=folder, allow_destructive=[PYTHON])[-1] == "0004_more"


def test_plain_yoyo_stops_before_each_migration_that_is_not_named(url: str, folder: Path) -> None:
    refused = yoyo(url, folder)
    assert refused.returncode != 0 and "notes with its 1234 rows" in refused.stderr
    assert applied(url, folder) == ["0001_start", "0001_z_harmless"]
    other = yoyo(url, folder, allow=PYTHON)
    assert other.returncode != 0 and "notes with its 1234 rows" in other.stderr
    first = yoyo(url, folder, allow=SQL)  # which does not name the next
    assert first.returncode != 0 and "77 values of tags.old" in first.stderr
    assert "DestructiveMigrationError" in first.stderr
    assert applied(url, folder)[-1] == SQL and "tags.old" in snapshot(url)
    assert yoyo(url, folder, allow=PYTHON).returncode == 0
    assert applied(url, folder)[-1] == "0004_more"


def test_not_even_force_destroys_what_is_not_named(url: str, folder: Path) -> None:
    """yoyo then goes on with the next statement; so the one that asks is the one that destroys."""
    yoyo(url, folder, "--force")
    assert "table notes" in snapshot(url) and "tags.old" in snapshot(url)


def test_a_guard_may_stand_above_what_it_guards(url: str, folder: Path) -> None:
    text = guarded(SQL, "notes", "PERFORM 1") + "DROP TABLE notes;"
    (folder / f"{SQL}.sql").write_text(text)
    with pytest.raises(DestructiveMigrationError, match="notes with its 1234 rows"):
        migrate.apply(url, directory=folder, allow_destructive=[PYTHON])
    assert yoyo(url, folder).returncode != 0
    assert "table notes" in snapshot(url)
    assert len(migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON])) == 3


# What is counted.


@pytest.mark.parametrize("kind", [SQL, PYTHON])
def test_rows_that_are_not_yet_committed_are_waited_for_and_counted(
    url: str, folder: Path, kind: str
) -> None:
    execute(url, "TRUNCATE notes, tags")
    table = "notes" if kind == SQL else "tags"
    refusals: list[DestructiveMigrationError] = []

    def attempt() -> None:
        with pytest.raises(DestructiveMigrationError) as caught:
            migrate.apply(url, directory=folder)
        refusals.append(caught.value)

    with psycopg.connect(url) as writer:
        writer.execute(f"INSERT INTO {table} VALUES (1, 'late'), (2, 'late')")  # type: ignore[arg-type]
        migrating = threading.Thread(target=attempt)
        migrating.start()
        assert eventually(lambda: waits_for_a_lock(url, table))
    migrating.join()
    assert list(refusals[0].losses) == [kind] and "2 " in refusals[0].losses[kind]


def test_rows_that_come_after_the_look_ahead_stop_their_migration(url: str, folder: Path) -> None:
    """Here those of an earlier migration of the same batch; and so those of anybody."""
    execute(url, "TRUNCATE notes; UPDATE tags SET old = NULL")
    (folder / "0001_z_harmless.sql").write_text("INSERT INTO notes VALUES (1, 'x');")
    with pytest.raises(DestructiveMigrationError, match="notes with its 1 rows"):
        migrate.apply(url, directory=folder)
    assert applied(url, folder) == ["0001_start", "0001_z_harmless"]
    (folder / f"{SQL}.sql").unlink()
    (folder / "0001_zz_more.sql").write_text("UPDATE tags SET old = 'x' WHERE id = 1;")
    with pytest.raises(DestructiveMigrationError, match=r"1 values of tags\.old"):
        migrate.apply(url, directory=folder)
    assert "tags.old" in snapshot(url)


def test_nothing_is_written_between_the_count_and_the_loss(url: str, folder: Path) -> None:
    for each in folder.glob("000[1234]_[dmz]*"):
        each.unlink()
    execute(url, "TRUNCATE notes, tags")
    (folder / "0005_python.py").write_text(
        python("0005_python", "tables=['tags']", "SELECT pg_sleep(0.5); DROP TABLE tags")
    )
    (folder / "0006_sql.sql").write_text(
        guarded("0006_sql", "notes", "PERFORM pg_sleep(0.5); DROP TABLE notes")
    )
    migrating = threading.Thread(target=lambda: migrate.apply(url, directory=folder))
    migrating.start()
    assert eventually(lambda: waits_to_write(url, "tags"))
    assert eventually(lambda: waits_to_write(url, "notes"))
    migrating.join()


def waits_to_write(url: str, table: str) -> bool:
    """A row that could be stored would be lost; one that meets the lock is refused with the table."""
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute("SET lock_timeout = 1500")
            locked = connection.execute(
                "SELECT count(*) FROM pg_locks WHERE relation = to_regclass(%s)"
                " AND mode = 'AccessExclusiveLock' AND granted",
                [table],
            ).fetchone()
            if not locked or not locked[0]:
                return False
            connection.execute(f"INSERT INTO {table} (id) VALUES (1)")  # type: ignore[arg-type]
        except psycopg.errors.UndefinedTable:
            return True
    return False


# What does not ask.


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE notes",
        "drop /* now */ table if exists notes",
        "DROP SCHEMA s CASCADE",
        "ALTER TABLE notes DROP COLUMN body",
        "ALTER TABLE ONLY notes ALTER id DROP NOT NULL, DROP body",
        "TRUNCATE notes",
        "TRUNCATE TABLE notes",
        "DELETE FROM notes",
        "DELETE FROM notes USING (SELECT 1 WHERE true) AS t -- WHERE",
        "WITH gone AS (DELETE FROM notes RETURNING id) SELECT FROM gone WHERE true",
        "DELETE FROM notes WHERE (true)",
        "WITH gone AS (DELETE FROM notes WHERE 1 = 1), n AS (SELECT 1) SELECT FROM n WHERE true",
        'DELETE FROM notes AS "where"',
        'DELETE FROM notes AS "a where b"',
        "MERGE INTO notes USING tags ON true WHEN MATCHED THEN DELETE",
        "UPDATE notes SET body = NULL",
        'UPDATE ONLY "public"."notes" AS n SET body = (SELECT new FROM tags WHERE id = 1)',
        "UPDATE notes SET body = '' WHERE true RETURNING id",
        "ALTER TABLE notes ALTER COLUMN body TYPE int USING 0",
        "ALTER TABLE notes ALTER id SET DATA TYPE numeric(10, 2) USING 0, ADD more int",
        "DROP TYPE mood CASCADE",
        "DROP DOMAIN IF EXISTS posint CASCADE",
        "DROP EXTENSION citext CASCADE",
        "DROP OWNED BY CURRENT_USER",
        "DO $$ BEGIN DROP TABLE notes; END $$",
        "DO $$ BEGIN UPDATE notes SET body = 'x'; END $$",
        "DO $$ BEGIN EXECUTE 'TRUNCATE notes'; END $$",
        "DO 'BEGIN DELETE FROM notes; END'",
    ],
)
@pytest.mark.parametrize("kind", ["sql", "py"])
def test_what_plainly_destroys_and_does_not_ask_is_refused_unless_it_is_named(
    url: str, folder: Path, statement: str, kind: str
) -> None:
    for other in (SQL + ".sql", PYTHON + ".py"):
        (folder / other).unlink()
    text = f"SELECT 1;\n{statement};" if kind == "sql" else f"step({statement!r}, 'SELECT 1')"
    imports = "" if kind == "sql" else "from yoyo import step\n"
    (folder / f"0005_plain.{kind}").write_text(imports + text)
    with pytest.raises(DestructiveMigrationError, match="nobody counts") as caught:
        migrate.apply(url, directory=folder)
    assert list(caught.value.losses) == ["0005_plain"]
    assert applied(url, folder) == ["0001_start"]


def test_a_new_database_and_who_names_it_may_run_what_does_not_ask(
    url: str, folder: Path, tmp_path: Path
) -> None:
    for other in (SQL + ".sql", PYTHON + ".py"):
        (folder / other).unlink()
    (folder / "0005_plain.sql").write_text("DROP TABLE notes;")
    assert (
        migrate.apply(url, directory=folder, allow_destructive=["0005_plain"])[-1] == "0005_plain"
    )
    execute(
        url, "DROP TABLE tags, harmless, more, _yoyo_migration, _yoyo_log, _yoyo_version, yoyo_lock"
    )
    assert len(migrate.apply(url, directory=folder)) == 4


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE tags ALTER id DROP NOT NULL",
        "ALTER TABLE tags DROP CONSTRAINT IF EXISTS c",
        'ALTER TABLE tags ADD COLUMN "drop" int',
        "DELETE FROM notes WHERE id = 1",
        "DELETE FROM notes USING tags WHERE tags.id = notes.id",
        "DELETE FROM notes WHERE true AND id = 1",
        "DELETE FROM notes WHERE id = id / 2",
        "UPDATE notes AS n SET body = 'y' WHERE n.id = 1",
        "UPDATE notes SET body = 'y' FROM tags WHERE (tags.id = notes.id)",
        "INSERT INTO k VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 1",
        "MERGE INTO notes USING tags ON notes.id = tags.id WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "SELECT id FROM notes FOR UPDATE",
        "GRANT UPDATE ON notes TO PUBLIC",
        "CREATE TABLE r (id int REFERENCES k ON UPDATE CASCADE ON DELETE SET NULL)",
        "ALTER TABLE k ALTER id TYPE bigint, ADD COLUMN type text, ADD EXCLUDE USING btree (id WITH =)",
        "CREATE TYPE t AS ENUM (); DROP TYPE t",
        "CREATE VIEW v AS SELECT 1; DROP VIEW v CASCADE",
        "COMMENT ON TABLE notes IS 'DROP TABLE notes; TRUNCATE notes'",
        "GRANT SELECT, TRUNCATE, DELETE ON notes TO PUBLIC",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ DELETE FROM notes $$",
        "SELECT 1 -- DROP TABLE notes",
        "CREATE TABLE r (id int REFERENCES k ON DELETE CASCADE)",
    ],
)
def test_what_destroys_little_or_nothing_is_not_asked_about(
    url: str, folder: Path, statement: str
) -> None:
    for other in (SQL + ".sql", PYTHON + ".py"):
        (folder / other).unlink()
    execute(url, "CREATE TABLE k (id int PRIMARY KEY)")
    (folder / "0005_plain.sql").write_text(f"{statement};")
    assert migrate.apply(url, directory=folder)[-1] == "0005_plain"


def test_the_shipped_migrations_and_those_of_the_guide_destroy_nothing_without_asking() -> None:
    shipped = [
        file for file in migrate.migrations_dir().glob("*.sql") if ".rollback" not in file.name
    ]
    assert len(shipped) >= 15
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    guide = re.findall(
        r"^`migrations/[\w.]+`:\n\n```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    assert len(guide) == 4
    for text in (*(file.read_text("utf-8") for file in shipped), *guide):
        step = SimpleNamespace(_apply=text)
        assert find_unasked(SimpleNamespace(load=lambda: None, steps=[step])) is None


# What goes wrong.


@pytest.mark.parametrize(
    ("id", "text", "says"),
    [
        ("0005_a.py", python("0005_a", "tables=['gone']", "SELECT 1"), "no table gone"),
        ("0005_a.py", python("0005_a", "columns=['tags.gone']", "SELECT 1"), '"gone" does not'),
        ("0005_a.sql", guarded("0005_a", "gone", "PERFORM 1"), '"gone" does not exist'),
        ("0005_a.sql", guarded("0005_a", "notes", "DROP TABLE notes").replace("count(*)", "1/0"), "division by zero"),
    ],
)  # fmt: skip
def test_an_error_while_counting_stops_the_whole_batch(
    url: str, folder: Path, id: str, text: str, says: str
) -> None:
    (folder / id).write_text(text)
    before = snapshot(url)
    with pytest.raises(DestructiveMigrationError, match="cannot be told now") as caught:
        migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON])
    assert says in caught.value.losses["0005_a"]
    assert snapshot(url) == before
    for other in (SQL + ".sql", PYTHON + ".py"):
        (folder / other).unlink()
    for run in (
        lambda: yoyo(url, folder).check_returncode(),
        lambda: migrate.apply(url, directory=folder, allow_destructive=["0005_a"]),
    ):
        with pytest.raises((QueryError, InvalidArgumentError, subprocess.CalledProcessError)):
            run()  # also where it is named: what cannot be counted is not destroyed
        assert "0005_a" not in applied(url, folder)


def test_a_lock_that_is_not_to_be_had_stops_the_batch(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catbird_db.destructive._LOCK_TIMEOUT", "100ms")
    with psycopg.connect(url) as writer:
        writer.execute("INSERT INTO notes VALUES (1); INSERT INTO tags VALUES (1)")
        with pytest.raises(DestructiveMigrationError) as caught:
            migrate.apply(url, directory=folder)
    assert all("lock timeout" in lost for lost in caught.value.losses.values())
    assert applied(url, folder) == ["0001_start"]


@pytest.mark.parametrize("do", ["DROP TABLE tags", "backup"])
def test_a_step_that_cannot_have_its_lock_gives_up_rather_than_queue_all_traffic(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, do: str
) -> None:
    step = python(PYTHON, "columns=['tags.old']", do)
    if do == "backup":
        step = BACKED_UP.replace('    connection.execute("DROP TABLE tags")\n', "").replace(
            'destructive_step(contract, expand, migration="0003_drop_tags", tables=["tags"])',
            "from yoyo import step; step(contract)",
        )
    (folder / f"{PYTHON}.py").write_text(step)
    (folder / f"{SQL}.sql").unlink()
    monkeypatch.setattr("catbird_db.destructive._LOCK_TIMEOUT", "100ms")
    started = time.monotonic()
    with psycopg.connect(url) as reader:
        reader.execute("SELECT count(*) FROM tags")
        with pytest.raises((DestructiveMigrationError, QueryError, TransactionConflictError)):
            migrate.apply(url, directory=folder, allow_destructive=[PYTHON])
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("kind", [SQL, PYTHON])
def test_rows_that_a_policy_hides_are_not_taken_for_none(url: str, folder: Path, kind: str) -> None:
    role = "policed_" + url.split("/")[3].split("?")[0]
    execute(
        url,
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}",
    )
    for table in ("notes", "tags", "_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock"):
        execute(url, f"ALTER TABLE {table} OWNER TO {role}")
    for table in ("notes", "tags"):
        execute(url, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        execute(url, f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    other = next(folder.glob(f"{PYTHON if kind == SQL else SQL}.*"))
    other.unlink()
    with pytest.raises(DestructiveMigrationError, match="row-level security") as caught:
        migrate.apply(url.replace("postgres@", f"{role}@"), directory=folder)
    assert list(caught.value.losses) == [kind]
    with pytest.raises(QueryError, match="row-level security"):
        migrate.apply(
            url.replace("postgres@", f"{role}@"), directory=folder, allow_destructive=[kind]
        )
    execute(url, f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_guard_is_known_however_it_is_spaced(url: str, folder: Path) -> None:
    (folder / f"{PYTHON}.py").unlink()
    text = guarded(SQL, "notes", "DROP TABLE notes")
    text = text.replace("current_setting('", "CURRENT_SETTING (\n  '")
    (folder / f"{SQL}.sql").write_text(text)
    with pytest.raises(DestructiveMigrationError, match="notes with its 1234 rows"):
        migrate.apply(url, directory=folder)
    assert applied(url, folder) == ["0001_start"]


def test_outside_a_transaction_nothing_is_destroyed(url: str, folder: Path) -> None:
    """There the lock would be gone before what was counted is."""
    for id, text in (
        (SQL, "-- transactional: false\n" + guarded(SQL, "notes", "DROP TABLE notes")),
        (
            PYTHON,
            python(PYTHON, "tables=['tags']", "DROP TABLE tags", then="__transactional__ = False"),
        ),
    ):
        (path,) = folder.glob(f"{id}.*")
        good = path.read_text()
        path.write_text(text)
        with pytest.raises(QueryError, match=f"{id} asks .* outside a transaction"):
            migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON])
        assert applied(url, folder) == ["0001_start"]
        if id == SQL:
            path.write_text(good)
    (folder / f"{SQL}.sql").unlink()
    refused = yoyo(url, folder, allow=PYTHON)
    assert refused.returncode != 0 and "drop __transactional__" in refused.stderr
    assert "table tags" in snapshot(url)


def test_a_step_that_asks_for_another_migration_is_refused(url: str, folder: Path) -> None:
    (folder / f"{PYTHON}.py").write_text(
        python(PYTHON, "tables=['tags']", "DROP TABLE tags", asks_for=SQL)
    )
    with pytest.raises(QueryError, match=f"{PYTHON} asks for {SQL}"):
        migrate.apply(url, directory=folder)
    with pytest.raises(DestructiveMigrationError):
        migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON])
    assert "table tags" in snapshot(url)


def test_a_step_that_says_nothing_of_what_it_loses_is_refused(url: str, folder: Path) -> None:
    (folder / f"{PYTHON}.py").write_text(python(PYTHON, "", "DROP TABLE tags"))
    with pytest.raises(QueryError, match="say which tables or columns"):
        migrate.apply(url, directory=folder)


def test_a_failing_step_keeps_what_it_was_to_destroy(url: str, folder: Path) -> None:
    (folder / f"{PYTHON}.py").write_text(
        python(PYTHON, "tables=['tags']", "DROP TABLE tags; SELECT 1/0")
    )
    with pytest.raises(QueryError, match=rf"{PYTHON}\.py:5: .*22012"):
        migrate.apply(url, directory=folder, allow_destructive=[SQL, PYTHON])
    assert "table tags" in snapshot(url)
    assert applied(url, folder)[-1] == SQL


# With a backup.

BACKED_UP = """
# read: by this test; it loses all tags, and keeps a backup of them for 30 days
from catbird_db.backup import backup_table, list_backups, restore_backup
from catbird_db.destructive import destructive_step

def contract(connection):
    backup_table(connection, "tags")
    connection.execute("DROP TABLE tags")

def expand(connection):
    restore_backup(connection, list_backups(connection)[-1].name)

destructive_step(contract, expand, migration="0003_drop_tags", tables=["tags"])
"""


@pytest.mark.parametrize("by", ["yoyo", "catbird-db"])
def test_a_migration_backs_up_what_it_drops_and_its_rollback_brings_it_back(
    url: str, folder: Path, by: str
) -> None:
    def tags() -> list[tuple[object, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT * FROM tags ORDER BY id").fetchall()

    for each in [*folder.glob("000[14]_[mz]*"), folder / f"{SQL}.sql"]:
        each.unlink()
    (folder / f"{PYTHON}.py").write_text(BACKED_UP)
    schema, before = snapshot(url), tags()
    if by == "yoyo":
        assert yoyo(url, folder).returncode != 0
        assert "table tags" in snapshot(url)
        assert yoyo(url, folder, allow=PYTHON).returncode == 0
    else:
        migrate.apply(url, directory=folder, allow_destructive=[PYTHON])
    assert "table tags" not in snapshot(url)
    migrate.rollback(url, directory=folder)
    assert snapshot(url) == schema and tags() == before


def test_a_backup_that_fails_keeps_the_table(url: str, folder: Path) -> None:
    (folder / f"{SQL}.sql").unlink()
    (folder / f"{PYTHON}.py").write_text(BACKED_UP)
    execute(url, "CREATE VIEW newest AS SELECT max(id) FROM tags")
    with pytest.raises(BackupError, match="cannot be backed up"):
        migrate.apply(url, directory=folder, allow_destructive=[PYTHON])
    assert "table tags" in snapshot(url)
    refused = yoyo(url, folder, allow=PYTHON)
    assert refused.returncode != 0 and "cannot be backed up" in refused.stderr
    assert "table tags" in snapshot(url) and PYTHON not in applied(url, folder)


def test_a_migrator_that_is_killed_has_lost_nothing(url: str, folder: Path) -> None:
    (folder / f"{SQL}.sql").unlink()
    path = folder / f"{PYTHON}.py"
    slowly = "connection.execute('DROP TABLE tags'); connection.execute('SELECT pg_sleep(60)')"
    path.write_text(BACKED_UP.replace('connection.execute("DROP TABLE tags")', slowly))
    script = (
        "import sys; from pathlib import Path; from catbird_db.migrate import apply;"
        f"apply(sys.argv[1], directory=Path(sys.argv[2]), allow_destructive=[{PYTHON!r}])"
    )
    killed = subprocess.Popen([sys.executable, "-c", script, url, folder], cwd=ROOT)
    sleeping = (
        "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        count = f"SELECT count(*) {sleeping}"
        assert eventually(lambda: connection.execute(count).fetchone() == (1,))  # type: ignore[arg-type]
        killed.kill()
        killed.wait()
        connection.execute(f"SELECT pg_terminate_backend(pid) {sleeping}")  # type: ignore[arg-type]
        assert connection.execute("SELECT count(*) FROM tags").fetchone() == (100,)
        assert list_backups(connection) == []
    assert PYTHON not in applied(url, folder)
    path.write_text(BACKED_UP)
    assert PYTHON in migrate.apply(url, directory=folder, allow_destructive=[PYTHON])


# Python migrations are migrations.


def test_a_python_migration_is_listed_applied_and_rolled_back(url: str, tmp_path: Path) -> None:
    back: Callable[[str], str] = lambda do: python(  # noqa: E731
        "0002_b", "tables=['a']", "DROP TABLE a", rollback=do
    )
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (id int);")
    (tmp_path / "0001_a.rollback.sql").write_text("DROP TABLE a;")
    (tmp_path / "0002_b.py").write_text(back("None"))
    assert migrate.status(url, directory=tmp_path).pending == ["0001_a", "0002_b"]
    migrate.apply(url, directory=tmp_path)
    with pytest.raises(QueryError, match="0002_b has a step without a rollback"):
        migrate.rollback(url, directory=tmp_path)
    (tmp_path / "0002_b.py").write_text(
        back("lambda connection: connection.execute('CREATE TABLE a (id int)')")
    )
    assert migrate.rollback(url, directory=tmp_path, count=2) == ["0002_b", "0001_a"]
