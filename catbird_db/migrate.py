"""Applying and rolling back the schema's migrations: yoyo's Python API on psycopg 3.

The files are yoyo's own (``NNNN_name.sql`` and ``NNNN_name.rollback.sql``) and so are its tables, so
that a plain ``yoyo apply`` does the same. Three things are stricter here: a migration and the
record that it was applied are one transaction, any number of processes may migrate at once, and a
migration without its rollback file is not rolled back by forgetting it.
"""

import getpass
import glob
import os
import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from . import destructive
from .errors import (
    ESCAPE_AT,
    DatabaseConnectionError,
    InvalidArgumentError,
    QueryError,
    TransactionConflictError,
    of_psycopg,
)

# psycopg and yoyo are loaded where they are used: whoever only lists migrations needs neither.
if TYPE_CHECKING:
    import psycopg

__all__ = [
    "MigrationStatus",
    "apply",
    "connection_parameters",
    "find_rollback_losses",
    "migrations_dir",
    "rollback",
    "shipped_migrations",
    "status",
]

_CONNECT_TIMEOUT = 10  # seconds
_YOYO_LOCK_TIMEOUT = 10.0  # seconds, as yoyo's own
_YOYO_LOCK_STALE_AFTER = 2.0  # seconds without a sign of the `yoyo` that wrote it
_CLOCKS_DIFFER_BY = timedelta(minutes=5)  # of two machines, at most
_POLL = 0.1  # seconds
_ADVISORY_LOCK = 4_849_320_175_511_873_121  # any number, but always this one


_Direction = Literal["apply", "rollback"]


class _Migration(Protocol):
    """What is used here of yoyo's migration; yoyo has no types of its own."""

    id: str
    path: str
    use_transactions: bool

    def load(self) -> None: ...
    def process_steps(self, backend: "_Backend", direction: _Direction) -> None: ...


class _Backend(Protocol):
    """What is used here of yoyo's backend: a connection in autocommit, and yoyo's tables."""

    lock_table: str

    @property
    def connection(self) -> "psycopg.Connection[Any]": ...
    def copy(self) -> AbstractContextManager["_Backend"]: ...
    def transaction(self) -> AbstractContextManager[Any]: ...
    def list_tables(self) -> list[str]: ...
    def create_lock_table(self) -> None: ...
    def break_lock(self) -> None: ...
    def to_apply(self, migrations: Iterable[_Migration]) -> Iterable[_Migration]: ...
    def to_rollback(self, migrations: Iterable[_Migration]) -> Iterable[_Migration]: ...
    def log_migration(self, migration: _Migration, operation: _Direction) -> None: ...
    def mark_one(self, migration: _Migration, *, log: bool) -> None: ...
    def unmark_one(self, migration: _Migration, *, log: bool) -> None: ...


@dataclass(frozen=True)
class MigrationStatus:
    """What a database has of the migrations in a folder, by id, in order."""

    applied: list[str]
    pending: list[str]
    """In the folder, not in the database."""
    unknown: list[str]
    """In the database, not in the folder: a newer version of this package migrated it."""


def migrations_dir() -> Path:
    """The folder of the migrations that this package ships."""
    return Path(__file__).parent / "migrations"


def shipped_migrations() -> list[str]:
    """The ids of the shipped migrations, in order; reads the folder's names only."""
    return _ids(migrations_dir())


def status(database_url: str, *, directory: Path | None = None) -> MigrationStatus:
    """Compare a database with the migrations of a folder; changes nothing.

    Raises:
        DatabaseConnectionError: the URL is wrong, or the server cannot be reached.
    """
    with _errors_translated(), closing(_connect(database_url)) as connection:
        in_database = _recorded(connection)
    in_folder = _ids(directory or migrations_dir())
    return MigrationStatus(
        applied=[id for id in in_folder if id in in_database],
        pending=[id for id in in_folder if id not in in_database],
        unknown=[id for id in in_database if id not in in_folder],
    )


def say_newer(unknown: Collection[str]) -> str:
    """What to tell of migrations that this version does not know."""
    return f"{len(unknown)} migrations are newer than this version: upgrade it"


def apply(
    database_url: str,
    *,
    directory: Path | None = None,
    allow_destructive: Collection[str] = (),
    on_step: Callable[[str], None] | None = None,
) -> list[str]:
    """Apply what is pending and return the ids applied now.

    Each migration is one transaction (unless it says ``-- transactional: false``): one that fails,
    or is killed, leaves the database as it was before it. Waits while another process migrates.
    Before the first of them runs, all that ask before they destroy (`catbird_db.destructive`) are asked; one
    that plainly destroys (docs/operations.md lists how) and does not ask is refused.

    Args:
        database_url: a role that may create tables.
        directory: the migrations; the shipped ones by default.
        allow_destructive: ids of migrations that may lose data.
        on_step: called with each id before it is applied.

    Raises:
        DatabaseConnectionError: the URL is wrong, or the server cannot be reached.
        InvalidArgumentError: ``allow_destructive`` has an id that is none of the folder's.
        DestructiveMigrationError: one would lose data and is not named; nothing was applied.
        QueryError: a migration failed; says file, line and SQLSTATE. Those before it stay applied.
    """
    directory = directory or migrations_dir()
    applied: list[str] = []
    with _errors_translated(), _alone(database_url) as (backend, row):
        pending = list(backend.to_apply(_read(directory)))
        _look_ahead(backend, pending, allow_destructive, _ids(directory))
        for migration in pending:
            if on_step:
                on_step(migration.id)
            _run(backend, row, migration, "apply", may_destroy=migration.id in allow_destructive)
            applied.append(migration.id)
    return applied


def _look_ahead(
    backend: _Backend, pending: list[_Migration], allowed: Collection[str], known: list[str]
) -> None:
    if unknown := [id for id in allowed if id not in known]:
        raise InvalidArgumentError(f"allow_destructive: there is no migration {unknown[0]}")
    for migration in pending:
        destructive.refuse_guard_without_transaction(migration)
    connection = backend.connection
    unnamed = [migration for migration in pending if migration.id not in allowed]
    losses: dict[str, str] = {}
    if _has_tables(connection):
        for migration in unnamed:
            if lost := destructive.find_unasked(migration):
                losses[migration.id] = lost
    if _recorded(connection):  # else what the first ones make is not there yet; each still asks
        for migration in unnamed:
            if lost := destructive.find_losses(connection, migration):
                losses[migration.id] = lost
    if losses:
        raise destructive.refusal(dict(sorted(losses.items())))


def rollback(
    database_url: str,
    *,
    count: int = 1,
    target: str | None = None,
    directory: Path | None = None,
    on_step: Callable[[str], None] | None = None,
) -> list[str]:
    """Roll back the latest migrations, with the data they hold, and return their ids.

    Nothing is asked: what the rollback files drop is lost. `find_rollback_losses` tells it beforehand.

    Args:
        database_url: a role that owns the tables.
        count: how many; more than there are is all of them.
        target: instead of a count, the migration that is to be the last one applied.
        directory: the migrations; the shipped ones by default.
        on_step: called with each id before it is rolled back.

    Raises:
        DatabaseConnectionError: the URL is wrong, or the server cannot be reached.
        InvalidArgumentError: ``count`` is below 1, or ``target`` is not applied.
        QueryError: a migration has no rollback file, was applied from another folder, or failed.
    """
    if count < 1:
        raise InvalidArgumentError("count: at least 1")
    directory = directory or migrations_dir()
    rolled_back: list[str] = []
    with _errors_translated(), _alone(database_url) as (backend, row):
        latest_first = list(backend.to_rollback(_read(directory)))
        if target is None:
            chosen = latest_first[:count]
        elif any(migration.id == target for migration in latest_first):
            chosen = list(takewhile(lambda migration: migration.id != target, latest_first))
        else:
            raise InvalidArgumentError(f"{target} is not applied")
        _refuse_what_cannot_be_undone(backend.connection, chosen, latest_first)
        for migration in chosen:
            if on_step:
                on_step(migration.id)
            _run(backend, row, migration, "rollback")
            rolled_back.append(migration.id)
    return rolled_back


def find_rollback_losses(
    database_url: str, migrations: Iterable[str], *, directory: Path | None = None
) -> list[str]:
    """The rows of the tables that these migrations' rollback files drop: ``12 rows of notes``.

    Of what a migration in Python does, and of columns, it knows nothing.
    """
    directory = directory or migrations_dir()
    files = [directory / f"{id}.rollback.sql" for id in migrations]
    names = [
        name
        for file in files
        if file.exists()
        for name in destructive.dropped_tables(file.read_text("utf-8"))
    ]
    with _errors_translated(), closing(_connect(database_url)) as connection:
        connection.read_only = True
        told = [destructive.count_rows(connection, name) for name in names]
    return [one for one in told if one is not None and not one.startswith("0 ")]


def _refuse_what_cannot_be_undone(
    connection: "psycopg.Connection[Any]", chosen: list[_Migration], known: list[_Migration]
) -> None:
    doomed, ours = ({migration.id for migration in some} for some in (chosen, known))
    since = dropwhile(lambda id: id not in doomed, _recorded(connection))
    if later := [id for id in since if id not in ours]:
        raise QueryError(
            f"{later[-1]} was applied later, and is not in this folder: "
            "roll back with the program that applied it"
        )
    for migration in chosen:
        if not _file(migration, "rollback").exists():
            raise QueryError(f"{migration.id} has no {migration.id}.rollback.sql")
        if _is_python(migration) and any(
            step._rollback is None for step in destructive.steps_of(migration)
        ):
            raise QueryError(f"{migration.id} has a step without a rollback")


# Files.


def _ids(directory: Path) -> list[str]:
    names = {file.stem for file in directory.iterdir() if file.suffix in (".sql", ".py")}
    return sorted(name for name in names if not name.endswith(".rollback") and not _is_hook(name))


def _is_hook(name: str) -> bool:
    """Whether yoyo would run it after each apply, and record nothing."""
    return name.startswith("post-apply")


def _refuse_hooks(directory: Path) -> None:
    """A hook would run unrecorded, and so outside of what is promised here."""
    if hooks := sorted(file.name for file in directory.iterdir() if _is_hook(file.name)):
        raise QueryError(f"{hooks[0]} is not run here: write a migration, or run it by hand")


def _file(migration: _Migration, direction: _Direction) -> Path:
    path = Path(str(migration.path))
    if direction == "apply" or _is_python(migration):
        return path
    return path.with_suffix(".rollback.sql")


def _is_python(migration: _Migration) -> bool:
    return Path(str(migration.path)).suffix == ".py"


def _read(directory: Path) -> Iterable[_Migration]:
    if not directory.is_dir():
        raise InvalidArgumentError(f"{directory} is not a folder of migrations")
    _refuse_hooks(directory)
    return _yoyo("migrations").read_migrations(glob.escape(str(directory)))


def _yoyo(module: str) -> Any:
    return import_module(f"yoyo.{module}")


# The database.


def _connect(database_url: str) -> "psycopg.Connection[Any]":
    import psycopg

    return psycopg.connect(**connection_parameters(database_url))


def connection_parameters(database_url: str) -> dict[str, Any]:
    """libpq's parameters of a URL; no message quotes the URL, which holds the password.

    Raises:
        DatabaseConnectionError: it is no PostgreSQL URL.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    scheme, separator, rest = database_url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise DatabaseConnectionError("write postgresql://user:password@host:port/database")
    try:
        parameters = conninfo_to_dict(f"postgresql://{rest}")
    except ProgrammingError as error:
        says = str(error).strip()
        if not says.startswith("invalid URI query parameter"):
            says = "not a PostgreSQL URL"
        raise DatabaseConnectionError(f"DATABASE_URL: {says}") from None
    if "@" in str(parameters.get("host", "")):
        raise DatabaseConnectionError(ESCAPE_AT)
    return {"connect_timeout": _CONNECT_TIMEOUT, **parameters}


def _has_tables(connection: "psycopg.Connection[Any]") -> bool:
    """Whether there is anything but yoyo's own tables."""
    found = connection.execute(
        "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname <> 'information_schema'"
        r" AND n.nspname NOT LIKE 'pg\_%' AND c.relname NOT LIKE '\_yoyo\_%'"
        " AND c.relname <> 'yoyo_lock' LIMIT 1"
    )
    return found.rowcount > 0


def _recorded(connection: "psycopg.Connection[Any]") -> list[str]:
    """The ids of the applied migrations, in the order of their application."""
    found = connection.execute("SELECT to_regclass('_yoyo_migration')").fetchone()
    if found is None or found[0] is None:
        return []
    rows = connection.execute(
        "SELECT migration_id FROM _yoyo_migration ORDER BY applied_at_utc, migration_id"
    )
    return [id for (id,) in rows]


@contextmanager
def _alone(database_url: str) -> Generator[tuple[_Backend, "psycopg.Connection[Any]"]]:
    """A yoyo backend of which there is one at work on the database, and the session that keeps plain yoyos out.

    Each lock is a transaction that stays open: it ends with its process, however that ends. The advisory
    lock keeps out other processes of ours; the row of `_lock_out_yoyo`, any plain ``yoyo``.
    """
    yoyo_tables = _yoyo("internalmigrations")
    with closing(_connect(database_url)) as turn, closing(_connect(database_url)) as row:
        _take_turn(turn)
        parameters = connection_parameters(database_url)
        uri = _yoyo("connections").DatabaseURI(
            "", None, None, None, None, parameters.pop("dbname", None), parameters
        )
        backend: _Backend = _yoyo("backends.core.postgresql").PostgresqlPsycopgBackend(
            uri, _yoyo("migrations").default_migration_table
        )
        with closing(backend.connection):
            if backend.lock_table not in backend.list_tables():
                backend.create_lock_table()
            _lock_out_yoyo(row, backend)
            try:
                if yoyo_tables.needs_upgrading(backend):
                    yoyo_tables.upgrade(backend)
                yield backend, row
            finally:
                _let_yoyo_in(row)


def _take_turn(turn: "psycopg.Connection[Any]") -> None:
    """Wait for the advisory lock without a snapshot: CREATE INDEX CONCURRENTLY waits for all who have one."""
    # Without parameters: the portal of a query with some would keep its snapshot.
    attempt = f"SELECT pg_try_advisory_xact_lock({_ADVISORY_LOCK})"
    while True:
        _begin_without_limits(turn)
        if turn.execute(attempt).fetchone() == (True,):  # type: ignore[arg-type]
            return
        turn.rollback()
        time.sleep(_POLL)


def _begin_without_limits(connection: "psycopg.Connection[Any]") -> None:
    """The role's or database's time limits are for statements, not for whoever keeps a lock."""
    from psycopg import IsolationLevel

    connection.isolation_level = IsolationLevel.READ_COMMITTED  # others keep a snapshot
    connection.execute(
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN ('lock_timeout',"
        " 'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')"
    )


def _lock_out_yoyo(row: "psycopg.Connection[Any]", backend: _Backend) -> None:
    """Insert the row that yoyo takes as a lock, uncommitted: a plain ``yoyo`` waits until we are gone.

    A committed row with a pid below zero is of one of ours that was killed. Another is a plain ``yoyo``'s
    at work, or one's that was killed: remove it if nobody works.
    """
    from psycopg.errors import UniqueViolation

    started = seen = time.monotonic()
    backend.connection.execute("DELETE FROM yoyo_lock WHERE pid < 0")
    _begin_without_limits(row)
    while True:
        with suppress(UniqueViolation), row.transaction():
            row.execute(
                "INSERT INTO yoyo_lock (locked, ctime, pid) "
                "VALUES (1, statement_timestamp() AT TIME ZONE 'UTC', -pg_backend_pid())"
            )
            return
        now = time.monotonic()
        if _yoyo_is_at_work(backend):
            seen = now
        if now > seen + _YOYO_LOCK_STALE_AFTER:
            backend.break_lock()
        elif now > started + _YOYO_LOCK_TIMEOUT:
            raise TransactionConflictError(
                "a `yoyo` holds the migration lock: wait for it, or run `yoyo break-lock` if there is none"
            )
        time.sleep(_POLL)


def _let_yoyo_in(row: "psycopg.Connection[Any]") -> None:
    """Remove the row where it was committed; what was not goes with its session."""
    import psycopg
    from psycopg.pq import TransactionStatus

    with suppress(psycopg.Error):  # else the next of ours removes it
        if row.info.transaction_status == TransactionStatus.IDLE:
            row.execute("DELETE FROM yoyo_lock WHERE pid < 0")
            row.commit()


def _yoyo_is_at_work(backend: _Backend) -> bool:
    """Whether a session's last statement, as far as we may see it, may be that of the ``yoyo`` that has the lock.

    While a migration runs in another session, the one that holds yoyo's lock has last looked at
    yoyo's tables (whose names yoyo quotes, and a health check does not) or committed the one before. It
    is older than its row, whose time is by the clock of its machine. Of other roles' sessions we may see
    no more than the role: one that could have written the row is taken for a ``yoyo``.
    """
    other_sessions = backend.connection.execute(
        "SELECT FROM pg_stat_activity AS a, yoyo_lock AS l"
        " WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()"
        " AND has_table_privilege(a.usesysid, 'yoyo_lock', 'INSERT')"
        " AND (a.backend_type = 'client backend' OR a.backend_type IS NULL)"
        " AND (a.backend_start IS NULL OR a.backend_start <= l.ctime AT TIME ZONE 'UTC' + %s)"
        """ AND (a.query LIKE '%%"_yoyo%%' OR a.query LIKE '%%"yoyo%%' OR a.query = 'COMMIT'"""
        " OR a.query = '<insufficient privilege>')",
        [_CLOCKS_DIFFER_BY],
    )
    return other_sessions.rowcount > 0


def _run(
    backend: _Backend,
    row: "psycopg.Connection[Any]",
    migration: _Migration,
    direction: _Direction,
    *,
    may_destroy: bool = False,
) -> None:
    """Run a migration and record it, in one transaction, in a session of its own.

    Outside a transaction, CREATE INDEX CONCURRENTLY would wait for a ``yoyo`` that waits for the row of
    `_lock_out_yoyo`: the row is committed before, and a ``yoyo`` then tries for 10 s and gives up.
    """
    import psycopg

    _ensure_a_user_name()
    failed: list[str] = []
    migration.load()
    with backend.copy() as session:
        session.connection.cursor_factory = _cursor_that_tells(failed)
        if may_destroy:
            session.connection.execute(
                "SELECT set_config(%s, %s, false)", [destructive.SETTING, migration.id]
            )
        try:
            if migration.use_transactions:
                with session.transaction():
                    migration.process_steps(session, direction)
                    _record(session, migration, direction)
            else:
                row.commit()
                migration.process_steps(session, direction)
                with session.transaction():
                    _record(session, migration, direction)
        except psycopg.Error as error:
            if failed and destructive.is_refusal(error, failed[0]):
                lost = error.diag.message_primary or "data"
                raise destructive.refusal({migration.id: lost}) from None
            file = _file(migration, direction)
            place = _place(file, failed, error)
            raise of_psycopg(error, query=migration.id, place=place) from None


def _record(session: _Backend, migration: _Migration, direction: _Direction) -> None:
    session.log_migration(migration, direction)
    if direction == "apply":
        session.mark_one(migration, log=False)
    else:
        session.unmark_one(migration, log=False)


def _ensure_a_user_name() -> None:
    """yoyo logs who migrated, and a container's user often has no name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid {os.getuid()}"


def _cursor_that_tells(failed: list[str]) -> "type[psycopg.Cursor[Any]]":
    import psycopg

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            try:
                return super().execute(query, params, **options)
            except psycopg.Error:
                failed.append(str(query))
                raise

    return Cursor


# Errors.


@contextmanager
def _errors_translated() -> Generator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise of_psycopg(error) from None
    except _yoyo("exceptions").BadMigration as error:
        raise QueryError(str(error)) from None


def _place(file: Path, failed: list[str], error: "psycopg.Error") -> str:
    """``file:line`` of the error's position, or of the statement's start, where it is in the file."""
    source = file.read_text(encoding="utf-8")
    start = source.find(failed[0]) if failed else -1
    if start < 0:
        return str(file)
    position = error.diag.statement_position
    offset = start + (int(position) - 1 if position else 0)
    return f"{file}:{source.count(chr(10), 0, offset) + 1}"
