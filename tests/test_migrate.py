"""Migrations against real databases, migrated, interrupted and raced by real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from catbird_db import migrate
from catbird_db.catalog import schema_snapshot
from catbird_db.embedded import EmbeddedServer
from catbird_db.errors import (
    DatabaseConnectionError,
    InvalidArgumentError,
    QueryError,
    TransactionConflictError,
)

ROOT = Path(__file__).parent.parent

Migrations = Callable[..., Path]


@pytest.fixture
def url(catbird_empty_database_url: str) -> str:
    return catbird_empty_database_url


@pytest.fixture
def migrations(tmp_path: Path) -> Migrations:
    """Write migrations by name: SQL, or a pair of SQL and its rollback."""

    def write(**files: str | tuple[str, str]) -> Path:
        folder = tmp_path / "migrations [of a test]"
        folder.mkdir(exist_ok=True)
        for name, sql in files.items():
            id = name.removeprefix("m")
            apply, rollback = sql if isinstance(sql, tuple) else (sql, None)
            (folder / f"{id}.sql").write_text(apply)
            if rollback is not None:
                (folder / f"{id}.rollback.sql").write_text(rollback)
        return folder

    return write


def snapshot(url: str) -> str:
    """The schema but for extensions: others may use them, so a rollback leaves them."""
    with psycopg.connect(url) as connection:
        lines = schema_snapshot(connection).splitlines()
    return "\n".join(line for line in lines if not line.startswith("extension "))


def execute(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)  # type: ignore[arg-type]


def database_of(url: str) -> str:
    return url.split("/")[3].split("?")[0]


def run_apply(url: str, folder: Path) -> subprocess.Popen[str]:
    script = (
        "import sys; from pathlib import Path; from catbird_db.migrate import apply;"
        "print(*apply(sys.argv[1], directory=Path(sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", script, url, str(folder)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run_yoyo(url: str, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "yoyo", "apply", "--no-config-file", "--batch"]
    database = url.replace("postgresql:", "postgresql+psycopg:")
    return subprocess.Popen(
        [*arguments, "--database", database, str(folder).replace("[", "[[]")],
        cwd=folder.parent,
        stdout=subprocess.DEVNULL,
    )


def eventually(condition: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def waits_for_a_lock(url: str, on: str) -> bool:
    with psycopg.connect(url) as connection:
        return bool(
            connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock' AND query LIKE %s",
                [f"%{on}%"],
            ).fetchone()[0]  # type: ignore[index]
        )


# What is shipped.


def test_up_down_up_gives_the_same_schema(url: str) -> None:
    shipped = migrate.shipped_migrations()
    assert shipped
    empty = snapshot(url)
    assert migrate.apply(url) == shipped
    up = snapshot(url)
    assert up != empty
    assert migrate.rollback(url, count=len(shipped)) == shipped[::-1]
    assert snapshot(url) == empty
    assert migrate.apply(url) == shipped
    assert snapshot(url) == up


def test_each_shipped_migration_is_undone_by_its_own_rollback(url: str) -> None:
    folder, ids = migrate.migrations_dir(), migrate.shipped_migrations()
    before: dict[str, str] = {}
    for id in ids:
        before[id] = snapshot(url)
        execute(url, (folder / f"{id}.sql").read_text())
    for id in reversed(ids):
        execute(url, (folder / f"{id}.rollback.sql").read_text())
        assert snapshot(url) == before[id]


def test_listing_migrations_loads_neither_yoyo_nor_psycopg() -> None:
    proof = (
        "import sys; from catbird_db import migrate; assert migrate.shipped_migrations();"
        "assert not {'yoyo', 'psycopg'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", proof], cwd=ROOT, check=True)


# Applying and rolling back.


def test_apply_says_what_it_applied_and_what_it_is_about_to(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(m0001_a="CREATE TABLE a ()", m0002_b="CREATE TABLE b ()")
    steps: list[str] = []
    assert migrate.apply(url, directory=folder, on_step=steps.append) == ["0001_a", "0002_b"]
    assert steps == ["0001_a", "0002_b"]
    assert migrate.apply(url, directory=folder, on_step=steps.append) == []
    assert len(steps) == 2


def test_status_compares_and_changes_nothing(url: str, migrations: Migrations) -> None:
    folder = migrations(m0001_a="CREATE TABLE a ()", m0002_b="CREATE TABLE b ()")
    assert migrate.status(url, directory=folder).pending == ["0001_a", "0002_b"]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('yoyo_lock')").fetchone() == (None,)
    migrate.apply(url, directory=folder)
    (folder / "0001_a.sql").rename(folder / "0003_c.sql")
    assert migrate.status(url, directory=folder) == migrate.MigrationStatus(
        applied=["0002_b"], pending=["0003_c"], unknown=["0001_a"]
    )


def test_rollback_goes_back_by_count_or_to_a_target(url: str, migrations: Migrations) -> None:
    folder = migrations(
        **{f"m000{n}_t": (f"CREATE TABLE t{n} ()", f"DROP TABLE t{n}") for n in range(1, 6)}
    )
    migrate.apply(url, directory=folder)
    assert migrate.rollback(url, directory=folder) == ["0005_t"]
    assert migrate.rollback(url, directory=folder, count=2) == ["0004_t", "0003_t"]
    assert migrate.rollback(url, directory=folder, target="0002_t") == []
    assert migrate.rollback(url, directory=folder, target="0001_t") == ["0002_t"]
    with pytest.raises(InvalidArgumentError, match="0002_t is not applied"):
        migrate.rollback(url, directory=folder, target="0002_t")
    with pytest.raises(InvalidArgumentError, match="count"):
        migrate.rollback(url, directory=folder, count=0)
    assert migrate.rollback(url, directory=folder, count=9) == ["0001_t"]


def test_a_rollback_runs_its_statements_in_the_order_of_its_file(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(
        m0001_a=(
            "CREATE TABLE a (id int PRIMARY KEY);",
            "ALTER TABLE a DROP CONSTRAINT a_pkey; ALTER TABLE a DROP COLUMN id; DROP TABLE a;",
        )
    )
    empty = snapshot(url)
    migrate.apply(url, directory=folder)
    migrate.rollback(url, directory=folder)
    assert snapshot(url) == empty


def test_what_cannot_be_undone_is_refused_before_anything_is(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(
        m0001_a=("CREATE TABLE a ()", "DROP TABLE a"),
        m0002_b="CREATE TABLE b ()",
        m0003_c=("CREATE TABLE c ()", "DROP TABLE c"),
    )
    migrate.apply(url, directory=folder)
    with pytest.raises(QueryError, match=r"0002_b has no 0002_b\.rollback\.sql"):
        migrate.rollback(url, directory=folder, count=3)
    (folder / "0003_c.sql").unlink()
    with pytest.raises(QueryError, match="0003_c was applied later, and is not in this folder"):
        migrate.rollback(url, directory=folder)
    assert migrate.status(url, directory=folder).applied == ["0001_a", "0002_b"]


def test_a_migration_may_run_outside_a_transaction(url: str, migrations: Migrations) -> None:
    folder = migrations(
        m0001_a="CREATE TABLE a (id int)",
        m0002_index=(
            "-- transactional: false\nCREATE INDEX CONCURRENTLY a_id_idx ON a (id)",
            "-- transactional: false\nDROP INDEX CONCURRENTLY a_id_idx",
        ),
    )
    migrate.apply(url, directory=folder)
    assert "index a_id_idx" in snapshot(url)
    migrate.rollback(url, directory=folder)
    assert "index a_id_idx" not in snapshot(url)


def test_a_folder_that_is_not_there_is_an_error_and_not_an_empty_list(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="/nowhere is not a folder"):
        migrate.apply(url, directory=Path("/nowhere"))


def test_a_hook_of_yoyo_is_no_migration_and_is_not_passed_over(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(m0001_a="CREATE TABLE a ()")
    (folder / "post-apply.sql").write_text("DELETE FROM a;")
    assert migrate.status(url, directory=folder).pending == ["0001_a"]
    with pytest.raises(QueryError, match=r"post-apply\.sql is not run here"):
        migrate.apply(url, directory=folder)


# Failing.


def test_a_failed_migration_says_where_and_leaves_the_database_as_it_was_before_it(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(
        m0001_a="CREATE TABLE a ()",
        m0002_b="-- The second.\n\nCREATE TABLE b ();\n\nCREATE TABLE c (\n  id integr\n);\n",
        m0003_d="CREATE TABLE d ()",
    )
    with pytest.raises(QueryError) as caught:
        migrate.apply(url, directory=folder)
    assert str(caught.value) == f'{folder}/0002_b.sql:6: type "integr" does not exist (42704)'
    assert caught.value.sqlstate == "42704"
    assert caught.value.query == "0002_b"
    assert migrate.status(url, directory=folder).applied == ["0001_a"]
    assert "table b" not in snapshot(url)
    migrations(m0002_b="CREATE TABLE b ()")
    assert migrate.apply(url, directory=folder) == ["0002_b", "0003_d"]


def test_a_failed_rollback_says_where_and_undoes_nothing(url: str, migrations: Migrations) -> None:
    folder = migrations(m0001_a=("CREATE TABLE a ()", "DROP TABLE a;\nDROP TABLE b;\n"))
    migrate.apply(url, directory=folder)
    before = snapshot(url)
    with pytest.raises(QueryError, match=r'0001_a\.rollback\.sql:2: table "b" does not exist'):
        migrate.rollback(url, directory=folder)
    assert snapshot(url) == before
    assert migrate.status(url, directory=folder).applied == ["0001_a"]


def test_an_error_of_a_migration_tells_no_row_values(url: str, migrations: Migrations) -> None:
    execute(url, "CREATE TABLE people (name text); INSERT INTO people VALUES ('alice'), ('alice')")
    unique = migrations(m0001_a="ALTER TABLE people ADD CONSTRAINT people_key UNIQUE (name)")
    with pytest.raises(QueryError, match="people_key") as caught:
        migrate.apply(url, directory=unique)
    assert caught.value.constraint == "people_key"
    cast = migrations(m0001_a="ALTER TABLE people ALTER name TYPE int USING name::int")
    with pytest.raises(QueryError, match="22P02") as caught_too:
        migrate.apply(url, directory=cast, allow_destructive=["0001_a"])
    for error in (caught.value, caught_too.value):
        assert "alice" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://me:s3cret@localhost/x", "write postgresql://"),
        ("host=localhost password=s3cret", "write postgresql://"),
        ("postgresql://me:s3cret%zz@localhost/x", "not a PostgreSQL URL"),
        ("postgresql://me:p@s3cret@localhost/x", "%40"),
        ("postgresql://me:s3cret@localhost/x?ssl=require", 'invalid URI query parameter: "ssl"'),
        ("postgresql://me:s3cret@127.0.0.1:1/x", "Connection refused"),
        ("postgresql+psycopg://me:s3cret@127.0.0.1:1/x", "Connection refused"),
        ("postgres://me:s3cret@no-such-host.invalid/x", "no-such-host.invalid"),
    ],
)
def test_a_url_that_leads_nowhere_is_an_error_without_the_password(url: str, says: str) -> None:
    for function in (migrate.apply, migrate.rollback, migrate.status):
        with pytest.raises(DatabaseConnectionError) as caught:
            function(url)
        assert says in str(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_database_is_an_error_that_says_so(catbird_server: EmbeddedServer) -> None:
    with pytest.raises(DatabaseConnectionError, match='database "absent" does not exist'):
        migrate.apply(catbird_server.database_url("absent"))


# Several at once, and killed.


def test_processes_that_migrate_at_once_apply_each_migration_once(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(
        **{f"m000{n}_t": f"CREATE TABLE t{n} (); SELECT pg_sleep(0.05)" for n in range(1, 6)}
    )
    ours = [run_apply(url, folder) for _ in range(3)]
    yoyos = [run_yoyo(url, folder) for _ in range(2)]
    applied = [id for process in ours for id in process.communicate()[0].splitlines()[-1].split()]
    assert [process.wait() for process in (*ours, *yoyos)] == [0] * 5
    assert len(applied) == len(set(applied))
    assert len(migrate.status(url, directory=folder).applied) == 5


def test_a_process_killed_before_it_recorded_its_migration_has_not_applied_it(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(m0001_a="CREATE TABLE a ()", m0002_b="CREATE TABLE b ()")
    migrations_before = migrations(m0001_a="CREATE TABLE a ()")
    (migrations_before / "0002_b.sql").rename(folder / "0002_b.later")
    migrate.apply(url, directory=folder)
    (folder / "0002_b.later").rename(folder / "0002_b.sql")
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE _yoyo_log")  # what is written after a migration
        killed = run_apply(url, folder)
        assert eventually(lambda: waits_for_a_lock(url, "_yoyo_log"))
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert migrate.apply(url, directory=folder) == ["0002_b"]


def test_waiting_for_ones_turn_is_not_cut_short_by_the_databases_time_limits(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(m0001_a="CREATE TABLE a ()")
    execute(url, f"ALTER DATABASE {database_of(url)} SET statement_timeout = 50")
    applied: list[str] = []
    with migrate._alone(url):  # pyright: ignore[reportPrivateUsage]
        waiting = threading.Thread(
            target=lambda: applied.extend(migrate.apply(url, directory=folder))
        )
        waiting.start()
        time.sleep(1)
        assert waiting.is_alive()
    waiting.join()
    assert applied == ["0001_a"]


def test_a_plain_yoyo_waits_while_this_module_migrates(url: str, migrations: Migrations) -> None:
    folder = migrations(m0001_a="CREATE TABLE a ()")
    yoyos: list[subprocess.Popen[bytes]] = []

    def start_yoyo(id: str) -> None:
        yoyos.append(run_yoyo(url, folder))
        assert eventually(lambda: waits_for_a_lock(url, "yoyo_lock"))

    assert migrate.apply(url, directory=folder, on_step=start_yoyo) == ["0001_a"]
    assert [yoyo.wait() for yoyo in yoyos] == [0]


INDEX = "-- transactional: false\nCREATE INDEX CONCURRENTLY a_id_idx ON a (id)"


def test_an_index_is_made_concurrently_while_others_wait_for_their_turn(
    url: str, migrations: Migrations
) -> None:
    """CREATE INDEX CONCURRENTLY waits for each snapshot: whoever waits must not hold one."""
    folder = migrations(m0001_a="CREATE TABLE a (id int)", m0002_index=INDEX)
    execute(
        url, f"ALTER DATABASE {database_of(url)} SET default_transaction_isolation = 'serializable'"
    )
    others: list[subprocess.Popen[str]] = []

    def let_another_wait(id: str) -> None:
        if id == "0002_index":
            before = sessions(url)
            others.append(run_apply(url, folder))
            assert eventually(lambda: sessions(url) >= before + 2)
            time.sleep(0.3)

    done = run_in_thread(lambda: migrate.apply(url, directory=folder, on_step=let_another_wait))
    assert not hangs(done, others)
    assert [other.wait() for other in others] == [0]
    assert migrate.status(url, directory=folder).applied == ["0001_a", "0002_index"]


def test_an_index_is_made_concurrently_while_a_plain_yoyo_waits_for_its_turn(
    url: str, migrations: Migrations
) -> None:
    folder = migrations(m0001_a="CREATE TABLE a (id int)", m0002_index=INDEX)
    yoyos: list[subprocess.Popen[bytes]] = []

    def let_a_yoyo_wait(id: str) -> None:
        if id == "0002_index":
            yoyos.append(run_yoyo(url, folder))
            assert eventually(lambda: waits_for_a_lock(url, "yoyo_lock"))

    done = run_in_thread(lambda: migrate.apply(url, directory=folder, on_step=let_a_yoyo_wait))
    assert not hangs(done, yoyos)
    assert [yoyo.wait() for yoyo in yoyos] == [0]
    assert not locks_of_yoyo(url)


def test_the_committed_lock_of_one_of_ours_that_was_killed_is_removed_at_once(
    url: str, migrations: Migrations
) -> None:
    slow = "-- transactional: false\nSELECT pg_sleep(60)"
    folder = migrations(m0001_a="CREATE TABLE a ()", m0002_slow=slow)
    killed = run_apply(url, folder)
    assert eventually(lambda: bool(locks_of_yoyo(url)))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert locks_of_yoyo(url)
    (folder / "0002_slow.sql").write_text("SELECT 1")
    started = time.monotonic()
    assert migrate.apply(url, directory=folder) == ["0002_slow"]
    assert time.monotonic() - started < 30  # the statement that it slept in takes 60
    assert not locks_of_yoyo(url)


def sessions(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        )
        return found.rowcount


def hangs(done: threading.Thread, others: Sequence[subprocess.Popen[Any]]) -> bool:
    """Whether it does not end beside those who wait for it; they are killed then, so that it does."""
    done.join(timeout=20)
    is_hanging = done.is_alive()
    for other in others:
        if is_hanging:
            other.kill()
        other.communicate()
    done.join()
    return is_hanging


def run_in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def locks_of_yoyo(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('yoyo_lock')").fetchone() == (None,):
            return []
        return connection.execute("SELECT * FROM yoyo_lock").fetchall()


def test_the_lock_of_a_plain_yoyo_that_was_killed_is_removed(
    url: str, migrations: Migrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_YOYO_LOCK_STALE_AFTER", 0.3)
    monkeypatch.setattr(migrate, "_YOYO_LOCK_TIMEOUT", 3)
    folder = migrations(m0001_a="CREATE TABLE a ()", m0002_b="CREATE TABLE b ()")
    migrate.apply(url, directory=folder)
    with psycopg.connect(url) as application:
        application.execute("SELECT count(*) FROM _yoyo_migration")  # is not a sign of yoyo
        execute(url, "INSERT INTO yoyo_lock VALUES (1, now(), 4711)")
        (folder / "0003_c.sql").write_text("CREATE TABLE c ()")
        with ThreadPoolExecutor() as threads:  # nor are two of us
            applied = [threads.submit(migrate.apply, url, directory=folder) for _ in range(2)]
        assert sorted(future.result() for future in applied) == [[], ["0003_c"]]


def test_the_lock_of_a_plain_yoyo_at_work_is_respected(
    url: str, migrations: Migrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_YOYO_LOCK_STALE_AFTER", 0.3)
    slow = "SELECT pg_sleep(0.8)"
    folder = migrations(m0001_a=slow, m0002_b=slow)
    yoyo = run_yoyo(url, folder)
    assert eventually(lambda: "0001_a" in migrate.status(url, directory=folder).applied)
    with monkeypatch.context() as impatient:
        impatient.setattr(migrate, "_YOYO_LOCK_TIMEOUT", 0)
        with pytest.raises(TransactionConflictError, match="yoyo break-lock"):
            migrate.apply(url, directory=folder)
    assert migrate.apply(url, directory=folder) == []
    assert yoyo.wait() == 0


@pytest.fixture
def roles(url: str) -> Iterator[tuple[str, str]]:
    """The database's URL as its owner, who is no superuser, and as a role that may do nothing there."""
    name = database_of(url)
    owner, stranger = f"owner_of_{name}", f"stranger_to_{name}"
    execute(url, f"CREATE ROLE {owner} LOGIN; CREATE ROLE {stranger} LOGIN")
    execute(url, f"ALTER DATABASE {name} OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}")
    yield url.replace("postgres@", f"{owner}@"), url.replace("postgres@", f"{stranger}@")
    execute(url, f"REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}, {stranger}")
    execute(url, f"DROP ROLE {owner}, {stranger}")


def test_the_lock_of_a_yoyo_of_another_role_is_respected(
    url: str, roles: tuple[str, str], migrations: Migrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_YOYO_LOCK_STALE_AFTER", 0.3)
    owner, _ = roles
    folder = migrations(m0001_a="CREATE TABLE a (id int)")
    migrate.apply(owner, directory=folder)
    migrations(m0002_b="-- transactional: false\nINSERT INTO a SELECT 1 FROM pg_sleep(2)")
    yoyo = run_yoyo(url, folder)
    assert eventually(lambda: bool(locks_of_yoyo(url)))
    assert migrate.apply(owner, directory=folder) == []
    assert yoyo.wait() == 0
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT * FROM a").fetchall() == [(1,)]


def test_a_session_that_is_younger_than_the_lock_or_may_not_lock_is_no_yoyo(
    url: str, roles: tuple[str, str], migrations: Migrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_YOYO_LOCK_STALE_AFTER", 0.3)
    monkeypatch.setattr(migrate, "_YOYO_LOCK_TIMEOUT", 1)
    owner, stranger = roles
    folder = migrations(m0001_a="CREATE TABLE a (id int)")
    migrate.apply(owner, directory=folder)
    migrations(m0002_b="CREATE TABLE b ()")
    with psycopg.connect(owner) as own, psycopg.connect(stranger) as other:
        for application in (own, other):
            application.execute("SELECT 1")
            application.commit()
        execute(url, "INSERT INTO yoyo_lock VALUES (1, now() AT TIME ZONE 'UTC', 4711)")
        with pytest.raises(TransactionConflictError, match="yoyo break-lock"):
            migrate.apply(owner, directory=folder)
        execute(url, "UPDATE yoyo_lock SET ctime = ctime - interval '1 hour'")
        assert migrate.apply(owner, directory=folder) == ["0002_b"]


# Plain yoyo.


def yoyo_environment(tmp_path: Path, url: str) -> dict[str, str]:
    """The environment of a shell in which this package is installed as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = tmp_path / "site" / "catbird_db-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: catbird-db\nVersion: 0\n")
    backends = project["entry-points"]["yoyo.backends"]
    lines = ["[yoyo.backends]", *(f"{scheme} = {place}" for scheme, place in backends.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    path = f"{installed.parent}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "DATABASE_URL": url}


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_plain_yoyo_and_this_module_do_the_same(url: str, tmp_path: Path, scheme: str) -> None:
    environment = yoyo_environment(tmp_path, url.replace("postgresql", scheme, 1))

    def yoyo(*arguments: str) -> None:
        command = [sys.executable, "-m", "yoyo", *arguments, "-b"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)

    empty = snapshot(url)
    yoyo("apply")
    assert migrate.status(url).pending == []
    assert migrate.apply(url) == []
    by_yoyo = snapshot(url)
    migrate.rollback(url, count=1)
    yoyo("apply")
    yoyo("rollback", "--all")
    assert snapshot(url) == empty
    migrate.apply(url)
    assert snapshot(url) == by_yoyo


# The snapshot itself.

DIFFERENT_SCHEMAS = """
ALTER TABLE t ADD COLUMN more int
ALTER TABLE t ALTER id TYPE bigint
ALTER TABLE t ALTER id DROP NOT NULL
ALTER TABLE t ALTER name SET DEFAULT 'x'
ALTER TABLE t ALTER name TYPE text COLLATE "C"
ALTER TABLE t ALTER name SET STORAGE EXTERNAL
ALTER TABLE t ALTER name SET STATISTICS 17
ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY
ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED
ALTER TABLE t RENAME CONSTRAINT t_check TO other
ALTER TABLE t DROP CONSTRAINT t_check
ALTER TABLE t ADD CONSTRAINT later CHECK (id > 1) NOT VALID
ALTER TABLE t SET (fillfactor = 70)
ALTER TABLE t SET (toast.autovacuum_enabled = off)
ALTER TABLE t SET UNLOGGED
ALTER TABLE t ENABLE ROW LEVEL SECURITY
ALTER TABLE t REPLICA IDENTITY FULL
ALTER INDEX t_name_idx SET (fillfactor = 70)
ALTER SEQUENCE numbers MAXVALUE 10
ALTER SEQUENCE numbers OWNED BY t.id
ALTER TYPE mood ADD VALUE 'sad'
ALTER DOMAIN positive SET NOT NULL
ALTER FUNCTION one() STRICT
COMMENT ON TABLE t IS 'tenant: id'
COMMENT ON COLUMN t.id IS 'x'
COMMENT ON CONSTRAINT t_check ON t IS 'x'
COMMENT ON INDEX t_name_idx IS 'x'
COMMENT ON FUNCTION one() IS 'x'
CREATE INDEX ON t (name) WHERE id > 1
CREATE VIEW v AS SELECT 1 AS one
CREATE SCHEMA apart
CREATE EXTENSION pg_trgm
CREATE STATISTICS s ON id, name FROM t
ALTER STATISTICS kept SET STATISTICS 17
ALTER TABLE refers DISABLE TRIGGER ALL
CREATE PUBLICATION p FOR TABLE t
ALTER PUBLICATION kept_p SET TABLE refers (one)
ALTER PUBLICATION kept_p SET TABLE refers WHERE (one > 1)
CREATE TRIGGER stop BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()
CREATE POLICY p ON t USING (id > 1)
CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING
CREATE TABLE part_2 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1)
CREATE AGGREGATE added (int) (SFUNC = int4pl, STYPE = int)
CREATE COLLATION c FROM "C"
GRANT SELECT ON t TO PUBLIC
GRANT SELECT (name) ON t TO PUBLIC
DROP TABLE part_1
"""


def test_a_snapshot_shows_each_difference_of_two_schemas(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """
            CREATE TABLE t (id int NOT NULL CONSTRAINT t_check CHECK (id > 0), name text);
            CREATE INDEX t_name_idx ON t (name);
            CREATE TABLE parted (id int) PARTITION BY HASH (id);
            CREATE TABLE part_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE STATISTICS kept ON id, name FROM t;
            CREATE TABLE refers (one int PRIMARY KEY, other int REFERENCES refers);
            CREATE PUBLICATION kept_p FOR TABLE refers;
            CREATE SEQUENCE numbers;
            CREATE TYPE mood AS ENUM ('glad');
            CREATE DOMAIN positive AS int CHECK (VALUE > 0);
            CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
            """
        )
        before = schema_snapshot(connection)
        for change in DIFFERENT_SCHEMAS.strip().splitlines():
            with connection.transaction(force_rollback=True):
                connection.execute(change)  # type: ignore[arg-type]
                assert schema_snapshot(connection) != before, change
        assert schema_snapshot(connection) == before


def test_a_snapshot_does_not_depend_on_the_order_in_which_things_were_made(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        snapshots: list[str] = []
        for first, second in (("a", "b"), ("b", "a")):
            with connection.transaction(force_rollback=True):
                connection.execute(
                    f"CREATE TABLE {first} ({first} int, {second} text);"  # type: ignore[arg-type]
                    f"CREATE TABLE {second} ({second} int);"
                    f"DROP TABLE {first}; CREATE TABLE {first} ({first} int);"
                )
                snapshots.append(schema_snapshot(connection))
    assert snapshots[0] == snapshots[1]
