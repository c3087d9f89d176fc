"""Backups of a table inside its database: for migrations that lose data, to be taken before they do.

The rows are copied into a table of the schema ``catbird_backup``; beside them stand their number, a
checksum that does not depend on their order, and the statements that make the table again, with its
partitions, constraints, indexes, foreign keys in both directions, comments and grants. That those
statements suffice is tried when the backup is taken: the table is dropped, made again and compared
by catalog, in a savepoint that is rolled back. What cannot be given back is not backed up, but refused.

Each function takes psycopg's connection, as a migration in Python gets it. None of the driver's errors
comes out: a lock that was not to be had is a `TransactionConflictError`, a lost connection a
`DatabaseConnectionError`, all else a `BackupError`.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .catalog import SNAPSHOT_SQL
from .definition import Definition, definition_of, names_in_full
from .destructive import limit_locks
from .errors import BackupError, InvalidArgumentError, QueryError, of_psycopg

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "Backup",
    "backup_table",
    "delete_expired_backups",
    "list_backups",
    "restore_backup",
    "verify_backup",
]

_MANIFEST = """
CREATE SCHEMA IF NOT EXISTS catbird_backup;
CREATE TABLE IF NOT EXISTS catbird_backup.manifest (
    name text COLLATE "C" NOT NULL,
    of_table text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    expires_at timestamptz NOT NULL,
    row_count bigint NOT NULL,
    checksum text NOT NULL,
    columns text[] NOT NULL,
    before_rows text[] NOT NULL,
    after_rows text[] NOT NULL,
    referring text[] NOT NULL,
    schema_lines text[] NOT NULL,
    left_out text[] NOT NULL DEFAULT '{}',
    CONSTRAINT manifest_pkey PRIMARY KEY (name)
);
"""

# Two halves of a SHA-256 of each row as it is sent, summed: order is nothing, a repeated row is.
# r.* is the row, whatever its columns are called; r would be a column of that name.
_CHECKSUM = """
SELECT count(*), format('%s:%s', coalesce(sum(h.high), 0), coalesce(sum(h.low), 0))
  FROM (SELECT ('x' || left(d.digest, 16))::bit(64)::bigint AS high,
               ('x' || substr(d.digest, 17, 16))::bit(64)::bigint AS low
          FROM (SELECT encode(sha256(record_send(r.*)), 'hex') AS digest FROM {table} AS r) AS d) AS h
"""

_UNCHECKED = " NOT VALID"
_SHOWN_UNCHECKED = " NOT VALID NOT VALIDATED"  # in a schema snapshot
_OBJECT = re.compile(r'(?:"[^"]*"|[^":])+')  # in a line of one: its kind and name
_MAKE_ROOM = "back that table up and drop it, or move it to another schema (docs/operations.md)"


@dataclass(frozen=True)
class Backup:
    """One backup, by its name; ``table`` with its schema, as it was called.

    ``left_out`` are the statements for foreign keys that its restore could not make, as their other
    table is not there; the restore of that one makes them.
    """

    name: str
    table: str
    taken_at: datetime
    expires_at: datetime
    row_count: int
    left_out: tuple[str, ...] = ()


def backup_table(
    connection: "psycopg.Connection[Any]", table: str, *, keep_days: int = 30
) -> Backup:
    """Back a table up, with all rows and its definition, under a lock that keeps everybody out.

    Args:
        connection: in the transaction that goes on to change or drop the table.
        table: ``table`` or ``schema.table``; may be partitioned.
        keep_days: after how many days `delete_expired_backups` may delete it; 1 to 3650.

    Raises:
        BackupError: there is no such table, or it could not be given back as it is.
        InvalidArgumentError: ``keep_days``.
    """
    if not 1 <= keep_days <= 3650:
        raise InvalidArgumentError("keep_days: 1 to 3650")
    with _all_or_nothing(connection):
        oid, source = _locked(connection, table)
        definition = definition_of(connection, oid)
        if not definition.columns:
            raise BackupError(f"{source} cannot be backed up: it has no columns to fill")
        lines = _rehearse(connection, source, definition)
        connection.execute(_MANIFEST)
        name = _new_name(connection, oid)
        copy = f'catbird_backup."{name}"'
        connection.execute(f"CREATE TABLE {copy} AS SELECT * FROM {source}")  # type: ignore[arg-type]
        count, checksum = _measure(connection, source)
        connection.execute(
            "INSERT INTO catbird_backup.manifest (name, of_table, expires_at, row_count, checksum,"
            " columns, before_rows, after_rows, referring, schema_lines)"
            " VALUES (%s, %s, statement_timestamp() + %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                *(name, source, timedelta(days=keep_days), count, checksum),
                *(definition.columns, definition.before_rows, definition.after_rows),
                *(definition.referring, lines),
            ],
        )
        return verify_backup(connection, name)


def verify_backup(connection: "psycopg.Connection[Any]", name: str) -> Backup:
    """Compare a backup's rows, all of them, with what was counted and summed when it was taken.

    Raises:
        BackupError: there is no such backup, or a row was changed, removed or added.
    """
    with _all_or_nothing(connection):
        backup, checksum, *_ = _find(connection, name)
        copy = f'catbird_backup."{name}"'
        if connection.execute("SELECT to_regclass(%s)", [copy]).fetchone() == (None,):
            raise BackupError(f"backup {name}: its rows are gone")
        connection.execute(f"LOCK TABLE {copy} IN SHARE MODE")  # type: ignore[arg-type]
        count, found = _measure(connection, copy)
        if count != backup.row_count:
            raise BackupError(
                f"backup {name}: {count} rows, and {backup.row_count} were put into it"
            )
        if found != checksum:
            raise BackupError(f"backup {name}: its rows are not those that were put into it")
        return backup


def restore_backup(connection: "psycopg.Connection[Any]", name: str) -> Backup:
    """Make a table again as it was when it was backed up: equal in schema and rows, or not at all.

    Foreign keys with tables that are not there are left out: ``left_out`` of what comes back, and of
    `list_backups`, has them until the restore of the other table makes them.

    Raises:
        BackupError: the backup is not whole, something has the name of the table or of what belongs
            to it, a row elsewhere refers to none of these, or what came out differs.
    """
    with _all_or_nothing(connection):
        backup = verify_backup(connection, name)
        _, checksum, definition, lines = _find(connection, name)
        if connection.execute("SELECT to_regclass(%s)", [backup.table]).fetchone() != (None,):
            raise BackupError(f"{name}: {backup.table} exists; {_MAKE_ROOM}")
        before = _lines(connection)
        if there := _in_the_way(before, set(lines)):
            raise BackupError(f"{name}: {len(there)} in the way: {there[0]}; {_MAKE_ROOM}")
        _run(connection, definition.before_rows)
        _fill(connection, backup.table, definition, f'catbird_backup."{name}"')
        left_out = [
            statement
            for statement in definition.after_rows + definition.referring
            if not _runs_now(connection, statement)
        ]
        made, expected = _lines(connection) - before, set(lines)
        if left_out:
            made, expected = _without_foreign_keys(made), _without_foreign_keys(expected)
        if made != expected:
            raise BackupError(f"{name} gives another table: {_difference(expected, made)}")
        if _measure(connection, backup.table) != (backup.row_count, checksum):
            raise BackupError(f"{name} gives other rows")
        _make_left_out(connection, backup.table)
        connection.execute(
            "UPDATE catbird_backup.manifest AS m"
            "   SET left_out = CASE m.name WHEN %s THEN %s::text[] ELSE '{}' END"
            " WHERE m.of_table = %s",
            [name, left_out, backup.table],
        )
        return replace(backup, left_out=tuple(left_out))


def list_backups(connection: "psycopg.Connection[Any]") -> list[Backup]:
    """All backups, oldest first."""
    with _errors_told():
        manifest = connection.execute("SELECT to_regclass('catbird_backup.manifest')").fetchone()
        if manifest == (None,):
            return []
        rows = connection.execute(
            "SELECT m.name, m.of_table, m.taken_at, m.expires_at, m.row_count, m.left_out"
            "  FROM catbird_backup.manifest AS m ORDER BY m.taken_at, m.name"
        ).fetchall()
    return [Backup(*row, left_out=tuple(left_out)) for *row, left_out in rows]


def delete_expired_backups(connection: "psycopg.Connection[Any]") -> list[str]:
    """Delete the backups whose time is over, each in a transaction of its own.

    Args:
        connection: in no transaction; autocommit or not.

    Returns:
        The names of those deleted.

    Raises:
        BackupError: some could not be deleted, as while they are in use; the others are.
        InvalidArgumentError: ``connection`` is in a transaction; nothing is deleted.
    """
    import psycopg
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status not in (
        TransactionStatus.IDLE,
        TransactionStatus.UNKNOWN,
    ):
        raise InvalidArgumentError("connection: in a transaction; commit it or roll it back first")
    deleted: list[str] = []
    failed: list[str] = []
    # In a transaction: else the first statement begins one that nobody ends.
    with _errors_told(), connection.transaction():
        backups = list_backups(connection)
    for backup in backups:
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '5s'")
                expired = connection.execute(
                    "DELETE FROM catbird_backup.manifest AS m"
                    " WHERE m.name = %s AND m.expires_at < statement_timestamp()",
                    [backup.name],
                )
                if expired.rowcount:
                    connection.execute(f'DROP TABLE IF EXISTS catbird_backup."{backup.name}"')  # type: ignore[arg-type]
                    deleted.append(backup.name)
        except psycopg.Error as error:
            deleted = [name for name in deleted if name != backup.name]
            failed.append(f"{backup.name} ({of_psycopg(error)})")
    if failed:
        raise BackupError(f"not deleted: {', '.join(failed)}; deleted: {len(deleted)}")
    return deleted


# The steps.


@contextmanager
def _all_or_nothing(connection: "psycopg.Connection[Any]") -> Generator[None]:
    with _errors_told():
        connection.execute("SELECT 1")  # begins the caller's transaction, unless in autocommit
        with connection.transaction():
            # A policy that hides rows is an error, and not fewer rows.
            connection.execute("SET LOCAL row_security = off")
            yield


@contextmanager
def _errors_told(doing: str | None = None) -> Generator[None]:
    """A driver's error becomes one of ours, which holds no values of rows."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        told = of_psycopg(error, place=doing)
        if type(told) is QueryError:
            told = BackupError(str(told), sqlstate=told.sqlstate, constraint=told.constraint)
        raise told from None


def _locked(connection: "psycopg.Connection[Any]", table: str) -> tuple[int, str]:
    found = connection.execute(
        "SELECT c.oid, format('%%I.%%I', n.nspname, c.relname)"
        "  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p')",
        [table],
    ).fetchone()
    if found is None:
        raise BackupError(f"there is no table {table}")
    limit_locks(connection)
    connection.execute(f"LOCK TABLE {found[1]} IN ACCESS EXCLUSIVE MODE")  # type: ignore[arg-type]
    return found


def _rehearse(
    connection: "psycopg.Connection[Any]", table: str, definition: Definition
) -> list[str]:
    """Drop the table and make it again; undo that. What of the schema goes with it.

    Without rows, so rows of others refer to some that are not there, which NOT VALID allows. Below
    PostgreSQL 18 a partitioned table's foreign key cannot be that: if one refers to it, with rows.
    """
    with_rows = connection.info.server_version < 180000 and _is_referred_to_by_partitions(
        connection, table
    )
    before = _lines(connection)
    with (
        _errors_told(f"{table} cannot be backed up"),
        connection.transaction(force_rollback=True),
    ):
        if with_rows:
            connection.execute(f"CREATE TEMPORARY TABLE copy AS SELECT * FROM {table}")  # type: ignore[arg-type]
        connection.execute(f"DROP TABLE {table} CASCADE")  # type: ignore[arg-type]
        without = _lines(connection)
        _run(connection, definition.before_rows)
        if with_rows:
            _fill(connection, table, definition, "pg_temp.copy")
        _run(connection, definition.after_rows)
        unchecked = [f"{key.removesuffix(_UNCHECKED)}{_UNCHECKED}" for key in definition.referring]
        _run(connection, definition.referring if with_rows else unchecked)
        after = _lines(connection)
    shown = {line for line in after - before if line.endswith(_SHOWN_UNCHECKED)}
    after = after - shown | {line.removesuffix(_SHOWN_UNCHECKED) for line in shown}
    if after != before:
        raise BackupError(f"{table} cannot be backed up: {_difference(before, after)}")
    return sorted(before - without)


def _is_referred_to_by_partitions(connection: "psycopg.Connection[Any]", table: str) -> bool:
    (found,) = _one(
        connection,
        "SELECT EXISTS (SELECT FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid"
        "                WHERE c.contype = 'f' AND c.confrelid = to_regclass(%s) AND r.relkind = 'p')",
        [table],
    )
    return found


def _fill(
    connection: "psycopg.Connection[Any]", table: str, definition: Definition, copy: str
) -> None:
    columns = ", ".join(definition.columns)
    connection.execute(
        f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {copy}"  # type: ignore[arg-type]
    )


def _lines(connection: "psycopg.Connection[Any]") -> set[str]:
    """What the schema is, but for parentheses: PostgreSQL writes others where it has read its own."""
    with names_in_full(connection):
        return {re.sub("[()]", "", line) for (line,) in connection.execute(SNAPSHOT_SQL)}


def _without_foreign_keys(lines: set[str]) -> set[str]:
    return {line for line in lines if not re.match("constraint .*: FOREIGN KEY ", line)}


def _in_the_way(found: set[str], expected: set[str]) -> list[str]:
    """What has the name of something that is to be made, as the index of a table that was renamed."""
    names = {_name(line) for line in expected}
    return sorted(line for line in found if _name(line) in names)


def _name(line: str) -> str:
    found = _OBJECT.match(line)
    return found[0] if found else line


def _difference(expected: set[str], found: set[str]) -> str:
    lost, gained = sorted(expected - found), sorted(found - expected)
    first = f"without {lost[0]}" if lost else f"with {gained[0]}"
    return f"it would come back {first} ({len(lost) + len(gained)} differences)"


def _run(connection: "psycopg.Connection[Any]", statements: list[str]) -> None:
    for statement in statements:
        connection.execute(statement)  # type: ignore[arg-type]


def _runs_now(connection: "psycopg.Connection[Any]", statement: str) -> bool:
    """Run it, unless it is a foreign key with a table that is not there."""
    from psycopg.errors import InvalidSchemaName, UndefinedTable

    try:
        with connection.transaction():
            _run(connection, [statement])
    except (InvalidSchemaName, UndefinedTable):
        if " FOREIGN KEY " not in statement:
            raise
        return False
    return True


def _make_left_out(connection: "psycopg.Connection[Any]", table: str) -> None:
    """The foreign keys that restores of other tables have left out for want of this one."""
    from psycopg.errors import DuplicateObject

    left_out = connection.execute(
        "SELECT m.name, l.statement"
        "  FROM catbird_backup.manifest AS m CROSS JOIN unnest(m.left_out) AS l (statement)"
        " WHERE m.of_table <> %s",
        [table],
    ).fetchall()
    for name, statement in left_out:
        if f" {table} ADD " not in statement and f" REFERENCES {table}(" not in statement:
            continue
        try:
            made = _runs_now(connection, statement)
        except DuplicateObject:  # the other table's backup has it, too
            made = True
        if made:
            connection.execute(
                "UPDATE catbird_backup.manifest AS m SET left_out = array_remove(m.left_out, %s)"
                " WHERE m.name = %s",
                [statement, name],
            )


def _measure(connection: "psycopg.Connection[Any]", table: str) -> tuple[int, str]:
    count, checksum = _one(connection, _CHECKSUM.format(table=table))
    return count, checksum


def _new_name(connection: "psycopg.Connection[Any]", oid: int) -> str:
    """``table_20261120T214500_123456``: what it is of, and when it was taken (UTC)."""
    name, now = _one(
        connection,
        "SELECT replace(c.relname, '\"', ''), clock_timestamp() AT TIME ZONE 'UTC'"
        "  FROM pg_class AS c WHERE c.oid = %s",
        [oid],
    )
    beginning = name.encode()[:38].decode(errors="ignore")  # of the 63 bytes that a name may have
    return f"{beginning}_{now:%Y%m%dT%H%M%S_%f}"


def _one(
    connection: "psycopg.Connection[Any]", query: str, values: Sequence[object] | None = None
) -> Any:
    row = connection.execute(query, values).fetchone()  # type: ignore[arg-type]
    if row is None:
        raise BackupError("a question for one row gave none")
    return row


def _find(
    connection: "psycopg.Connection[Any]", name: str
) -> tuple[Backup, str, Definition, list[str]]:
    row = None
    if any(backup.name == name for backup in list_backups(connection)):
        row = connection.execute(
            "SELECT m.name, m.of_table, m.taken_at, m.expires_at, m.row_count,"
            "       m.checksum, m.columns, m.before_rows, m.after_rows, m.referring,"
            "       m.schema_lines, m.left_out"
            "  FROM catbird_backup.manifest AS m WHERE m.name = %s",
            [name],
        ).fetchone()
    if row is None:
        raise BackupError(f"there is no backup {name}")
    return Backup(*row[:5], left_out=tuple(row[11])), row[5], Definition(*row[6:10]), row[10]
