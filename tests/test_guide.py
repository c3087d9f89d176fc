"""docs/operations.md: its role, and "Changes without downtime": its files, run while programs write."""

import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from scale import scaled
from test_migrate import ROOT
from uuid_utils.compat import uuid7

from catbird_db import migrate
from catbird_db.check import migrations as rules
from catbird_db.errors import DestructiveMigrationError, TransactionConflictError

# What each version of the program says: to make an item, to change its text, its name; to read it.
PROGRAMS = {
    "old": (
        "INSERT INTO items (id, name, description) VALUES (%(id)s, 'x', %(text)s)",
        "UPDATE items SET description = %(text)s WHERE id = %(id)s",
        "UPDATE items SET name = 'y' WHERE id = %(id)s",
        "SELECT description FROM items WHERE id = %(id)s",
    ),
    "both": (
        "INSERT INTO items (id, name, description, notes) VALUES (%(id)s, 'x', %(text)s, coalesce(%(text)s, ''))",
        "UPDATE items SET description = %(text)s, notes = coalesce(%(text)s, '') WHERE id = %(id)s",
        "UPDATE items SET name = 'y' WHERE id = %(id)s",
        "SELECT description FROM items WHERE id = %(id)s",
    ),
    "new": (
        "INSERT INTO items (id, name, notes) VALUES (%(id)s, 'x', coalesce(%(text)s, ''))",
        "UPDATE items SET notes = coalesce(%(text)s, '') WHERE id = %(id)s",
        "UPDATE items SET name = 'y' WHERE id = %(id)s",
        "SELECT notes FROM items WHERE id = %(id)s",
    ),
}


class Process(threading.Thread):
    """A process of the program that writes and reads items until it is stopped."""

    def __init__(self, url: str, version: str) -> None:
        super().__init__(daemon=True)
        self.url, self.version = url, version
        self.stopped = threading.Event()
        self.error: Exception | None = None
        self.calls, self.slowest = 0, 0.0
        self.start()

    def run(self) -> None:
        insert, change, rename, read = PROGRAMS[self.version]
        chance = random.Random()
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                ids = [id for (id,) in connection.execute("SELECT id FROM items LIMIT 1000")]
                while not self.stopped.wait(0.002):
                    sql = chance.choice([insert, change, rename, read])
                    id = uuid7() if sql == insert else chance.choice(ids)
                    text = chance.choice([None, f"text {chance.random()}"])
                    begun = time.perf_counter()
                    connection.execute(sql, {"id": id, "text": text})  # type: ignore[arg-type]
                    self.slowest = max(self.slowest, time.perf_counter() - begun)
                    self.calls += 1
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self.stopped.set()
        self.join()
        assert self.error is None, f"a program that writes {self.version}: {self.error}"
        assert self.calls > 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = (ROOT / "docs" / "operations.md").read_text()
    files = re.findall(
        r"^`migrations/([\w.]+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    assert len(files) == 5
    for name, content in files:
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_role_of_the_application_has_rows_and_no_more(catbird_database_url: str) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("### A role for the application")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```sql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    role = f"app_{uuid7().hex}"
    with psycopg.connect(catbird_database_url, autocommit=True) as connection:
        connection.execute(example.replace("catbird_app", role))
        found = connection.execute(
            "SELECT c.relname, array_agg(p.name ORDER BY p.name)"
            "  FROM pg_class AS c, pg_namespace AS n,"
            "       unnest(ARRAY['DELETE', 'INSERT', 'SELECT', 'TRIGGER', 'TRUNCATE', 'UPDATE']) AS p (name)"
            " WHERE n.oid = c.relnamespace AND n.nspname = 'public' AND c.relkind IN ('r', 'p')"
            "   AND has_table_privilege(%s, c.oid, p.name) GROUP BY c.relname",
            [role],
        ).fetchall()
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")  # type: ignore[arg-type]
    special = {name: held for name, held in found if len(held) != 4}
    assert len(found) > 30
    assert special.pop("audit_log") == ["INSERT", "SELECT"]
    assert {*special} == {"_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock"}
    assert [*special.values()] == [["SELECT"]] * 4


@pytest.mark.parametrize("kind", ["sql", "py"])
def test_the_examples_that_lose_data_ask_first(
    catbird_empty_database_url: str, tmp_path: Path, kind: str
) -> None:
    url, drop = catbird_empty_database_url, "0042_drop_notes"
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("## Migrations that lose data")[2].partition("### Backups")[0]
    (example,) = re.findall(rf"^```{kind}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "0041_last_of_notes.sql").write_text("CREATE TABLE notes (id int PRIMARY KEY);")
    migrate.apply(url, directory=tmp_path)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO notes SELECT generate_series(1, 1234)")
    (tmp_path / f"{drop}.{kind}").write_text(example)
    with pytest.raises(DestructiveMigrationError) as caught:
        migrate.apply(url, directory=tmp_path)
    assert re.search(r"notes with its 1234 rows|1,234 rows of notes", caught.value.losses[drop])
    for _ in range(2 if kind == "py" else 1):  # with a backup there is a way back
        assert migrate.apply(url, directory=tmp_path, allow_destructive=[drop]) == [drop]
        if kind == "py":
            assert migrate.rollback(url, directory=tmp_path) == [drop]
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1234,)


def test_the_guides_files_pass_the_check(folder: Path) -> None:
    found = [str(one) for one in rules.check(rules.read([folder])) if "no way back" not in str(one)]
    assert not found, "\n".join(found)


def test_the_guides_change_runs_while_old_and_new_programs_write(
    catbird_database_url: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = catbird_database_url
    rows = scaled(20_000, 1_000_000)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO items (id, name, description)"
            " SELECT gen_random_uuid(), 'x', CASE WHEN g %% 3 > 0 THEN 'd' || g END"
            " FROM generate_series(1, %s) AS g",
            [rows],
        )
    so_far = tmp_path_factory.mktemp("deployed")
    processes = [Process(url, "old") for _ in range(4)]
    ended: list[Process] = []

    def deploy(version: str) -> None:
        """One process after the other, as a rolling deployment does."""
        for place, process in enumerate(processes):
            process.stop()
            ended.append(process)
            processes[place] = Process(url, version)
            time.sleep(0.1)

    def run(number: str, apply: Callable[[], list[str]] = lambda: migrate.apply(url, directory=so_far)) -> None:  # fmt: skip
        (file,) = folder.glob(f"{number}_*")
        (so_far / file.name).write_text(file.read_text())
        for _ in range(5):  # who does not get a lock in time tries again, as the page says
            with suppress(TransactionConflictError):
                assert apply() == [file.stem]
                break
        assert file.stem in migrate.status(url, directory=so_far).applied
        time.sleep(0.2)

    def wrong() -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM items WHERE notes IS DISTINCT FROM coalesce(description, '')"
            ).fetchone()
            return row[0] if row else -1

    run("0101")
    deploy("both")
    assert wrong() > rows / 2
    run("0102")
    assert wrong() == 0
    run("0103")
    run("0104")
    assert wrong() == 0
    deploy("new")
    with pytest.raises(DestructiveMigrationError, match=r"\d+ values of items.description"):
        run("0105")
    contract = "0105_items_description_contract"
    run("0105", lambda: migrate.apply(url, directory=so_far, allow_destructive=[contract]))
    for process in processes:
        process.stop()
    slowest = max(process.slowest for process in (*processes, *ended))
    calls = sum(process.calls for process in (*processes, *ended))
    print(f"{calls} calls, the slowest {slowest * 1000:.0f} ms")
    assert slowest < 2  # what a lock_timeout of the guide lets anybody wait, at most
    with psycopg.connect(url) as connection:
        assert connection.execute(
            "SELECT attname, attnotnull FROM pg_attribute"
            " WHERE attrelid = 'items'::regclass AND attname IN ('description', 'notes')"
        ).fetchall() == [("notes", True)]


def test_without_the_first_deployment_the_backfill_would_leave_rows_behind(
    catbird_database_url: str, folder: Path
) -> None:
    """What the guide says of old processes is so: the order of its table is not a taste."""
    for file in folder.glob("010[345]*"):
        file.unlink()
    with psycopg.connect(catbird_database_url) as connection:
        connection.execute(
            "INSERT INTO items (id, name) SELECT gen_random_uuid(), 'x' FROM generate_series(1, 3000)"
        )
    old = Process(catbird_database_url, "old")
    migrate.apply(catbird_database_url, directory=folder)
    time.sleep(0.3)
    old.stop()
    with psycopg.connect(catbird_database_url) as connection:
        row = connection.execute("SELECT count(*) FROM items WHERE notes IS NULL").fetchone()
        assert row is not None and row[0] > 0
