"""Fills the tables of a throwaway, so that the planner sees what it sees in production.

From the catalog alone: a new table needs no code here. Each value is made of a number, its rank, by
its type, so that equal ranks are equal values in every table, and what a foreign key points at is
there as far as there are rows. A tenant's or actor's column has one hot rank and many small ones.

Only the statistics matter, so rows need not make sense: the CHECK constraints of the copy, which
relate columns in ways that no generator guesses (a ref is the SHA-256 of its bytes), are dropped,
and foreign keys are off. Unique keys hold: what they refuse is left out, and more is made instead.
"""

from collections.abc import Iterable
from zlib import crc32

import psycopg
from psycopg import sql

from .database import Connection
from .expressions import admitted_values
from .subject import Catalog, Column, Table

ROWS = 20_000  # ANALYZE reads them all (its sample is 30,000): the same plans on each machine
ENOUGH = 10_000  # where unique keys refuse some
SMALL = 100
_TENANTS = 2_000
_ROUNDS = 5


class FillError(Exception):
    """A table that cannot be filled."""


def fill(connection: Connection, catalog: Catalog) -> None:
    """Fill the empty tables of a database that nobody needs, and analyze them.

    Args:
        connection: a superuser's, in autocommit; the database loses its CHECK constraints.
        catalog: what `read_catalog` said of it before.

    Raises:
        FillError: a table has rows already, a type is unknown here, or unique keys leave no room.
    """
    tables = [table for table in catalog.tables.values() if not _is_yoyos(table)]
    for table in tables:
        if connection.execute(_sql("SELECT FROM {} LIMIT 1", table.name)).rowcount:
            raise FillError(f"{table.name} has rows: only an empty database is filled")
    # Only of what is committed to the disk does VACUUM say that everybody sees it.
    connection.execute("SET synchronous_commit = on")
    with connection.transaction():
        fill_tables(connection, catalog)
    # Now, and not by the autovacuum of some later minute: index-only scans depend on it.
    connection.execute(_sql("VACUUM (ANALYZE) {}", *(table.name for table in tables)))


def fill_tables(connection: Connection, catalog: Catalog) -> None:
    """Insert the rows, in the caller's transaction."""
    tables = [table for table in catalog.tables.values() if not _is_yoyos(table)]
    connection.execute("SET LOCAL session_replication_role = replica")
    _drop_checks(connection, tables)
    for table in tables:
        _fill_table(connection, table, catalog)
    connection.execute("SET LOCAL session_replication_role = origin")


def sample(type_name: str, catalog: Catalog) -> str:
    """An expression: a value of a type, as it stands in the filled tables, of the hot tenant."""
    return _value(type_name, "1", catalog)


def _is_yoyos(table: Table) -> bool:
    return table.small is not None and "yoyo" in table.name


def _sql(text: str, *names: str) -> bytes:
    """Names of the catalog are quoted already, where they have to be."""
    return text.format(", ".join(names)).encode()


def _drop_checks(connection: Connection, tables: Iterable[Table]) -> None:
    found = connection.execute(
        "SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', c.conrelid::regclass, c.conname)"
        "  FROM pg_constraint AS c"
        " WHERE c.contype = 'c' AND c.conislocal AND c.conrelid::regclass::text = ANY (%s)",
        [[table.name for table in tables]],
    )
    for (command,) in found.fetchall():
        connection.execute(command.encode())


def _fill_table(connection: Connection, table: Table, catalog: Catalog) -> None:
    wanted = SMALL if table.small else ROWS
    enough = 1 if table.small else ENOUGH
    rows = 0
    for round in range(_ROUNDS):
        command = _insert(table, catalog, wanted, round)
        try:
            rows += connection.execute(command.encode()).rowcount
        except psycopg.Error as error:
            raise FillError(f"{table.name} cannot be filled: {error}") from None
        if rows >= enough:
            return
    raise FillError(f"{table.name}: its unique keys leave room for {rows} rows only")


def _insert(table: Table, catalog: Catalog, rows: int, round: int) -> str:
    columns = [column for column in table.columns.values() if not column.generated]
    tenants = _TENANTS * 4**round
    values = [_column_value(table, column, catalog, tenants) for column in columns]
    names = ", ".join(sql.Identifier(column.name).as_string() for column in columns)
    return (
        f"INSERT INTO {table.name} ({names}) OVERRIDING SYSTEM VALUE\n"
        f"SELECT {', '.join(values)}\n"
        f"  FROM generate_series({rows * round + 1}::bigint, {rows * (round + 1)}) AS g (i)\n"
        f"    ON CONFLICT DO NOTHING"
    )


# ---- what a column holds


def _column_value(table: Table, column: Column, catalog: Catalog, tenants: int) -> str:
    chance = _chance(table, column)
    if listed := _listed(table, column, catalog):
        literals = ", ".join(sql.Literal(value).as_string() for value in listed)
        value = f"(ARRAY[{literals}])[{_mostly_first(chance, len(listed))}]::{column.type}"
    else:
        value = _value(column.type, _rank(table, column, chance, tenants), catalog)
        if _is_payload(table, column):
            value = f"{value} || convert_to(repeat('x', 200), 'UTF8')"
    if column.not_null:
        return value
    return f"CASE WHEN {_chance(table, column, 'null')} % 3 = 0 THEN {value} END"


def _chance(table: Table, column: Column, purpose: str = "") -> str:
    """A number of 0 to 2^62 that depends on the row, and for each column in another way."""
    seed = crc32(f"{table.name}.{column.name}.{purpose}".encode())
    return f"(hashint8extended(g.i, {seed}) & {2**62 - 1})"


def _mostly_first(chance: str, choices: int) -> str:
    return f"CASE WHEN {chance} % 4 = 0 THEN 1 + {chance} / 4 % {choices} ELSE 1 END"


def _rank(table: Table, column: Column, chance: str, tenants: int) -> str:
    uniques = [index.columns for index in table.indexes if index.unique]
    if (column.name,) in uniques:
        return "g.i"
    if column.type.startswith(("timestamp", "date")):
        return _moment(column, chance)
    if _is_owner(table, column):
        return f"CASE WHEN {chance} % 4 = 0 THEN 1 ELSE 1 + {chance} / 4 % {tenants} END"
    if any(columns[-1] == column.name for columns in uniques):
        return "g.i"
    indexed = any(column.name in index.columns for index in table.indexes)
    if not indexed and _has_generated_key(table):  # which may be made of this column
        return "g.i"
    if indexed:
        return _mostly_first(chance, 8)
    return f"{chance} % {_TENANTS}"


def _has_generated_key(table: Table) -> bool:
    return any(
        table.columns[name].generated
        for index in table.indexes
        if index.unique
        for name in index.columns
        if name
    )


def _moment(column: Column, chance: str) -> str:
    """In the past, and rising, where it says when the row was made; in the past where it may be
    null and says what happened; in the past or, one in four, in the future where it is a term."""
    if column.has_default:
        return f"(g.i % {ROWS} * 3 / 4)"
    return f"({chance} % {ROWS}{'' if column.not_null else ' * 3 / 4'})"


def _is_owner(table: Table, column: Column) -> bool:
    leads = any(index.columns[0] == column.name for index in table.indexes)
    return leads or column.name in (*table.tenants, *table.actors)


def _is_payload(table: Table, column: Column) -> bool:
    return column.type == "bytea" and not any(
        column.name in index.columns for index in table.indexes
    )


def _listed(table: Table, column: Column, catalog: Catalog) -> tuple[str, ...]:
    """The values of a column that has a list of them, or that partial indexes ask for by name."""
    if found := table.checks.get(column.name) or catalog.enums.get(column.type):
        return found
    asked = {
        value: None
        for index in table.indexes
        if index.predicate
        for name, values in admitted_values(index.predicate).items()
        if name == column.name
        for value in values
    }
    return (*asked, *("1", "2")) if asked else ()


# ---- a value of a rank

_MOMENT = f"now() + interval '400 days' * (({{rank}}) / {ROWS}.0 - 0.75)"
_VALUES = {
    "text": "({rank})::text",
    "character varying": "({rank})::text",
    "character": "({rank})::text",
    "smallint": "({rank}) % 32768",
    "integer": "({rank})",
    "bigint": "({rank})",
    "numeric": "({rank})",
    "real": "({rank})",
    "double precision": "({rank})",
    "boolean": "(({rank}) % 5 = 0)",
    "bytea": "int8send({rank})",
    "uuid": "lpad(to_hex({rank}), 32, '0')",
    "timestamp with time zone": _MOMENT,
    "timestamp without time zone": _MOMENT,
    "date": _MOMENT,
    "interval": "make_interval(secs => {rank})",
    "jsonb": "jsonb_build_object('rank', {rank})",
    "json": "json_build_object('rank', {rank})",
    "inet": "'::'::inet + ({rank})",
    "tsvector": "to_tsvector('simple', ({rank})::text)",
}


def _value(type_name: str, rank: str, catalog: Catalog) -> str:
    if type_name.endswith("[]"):
        return f"ARRAY[{_value(type_name.removesuffix('[]'), rank, catalog)}]::{type_name}"
    if labels := catalog.enums.get(type_name):
        return f"{sql.Literal(labels[0]).as_string()}::{type_name}"
    known = _VALUES.get(_without_modifier(type_name))
    if known is None:
        raise FillError(f"no values of type {type_name} are known; add them to check/fill.py")
    return f"({known.format(rank=rank)})::{type_name}"


def _without_modifier(type_name: str) -> str:
    """``character varying(255)`` is ``character varying``, ``timestamp(3) with time zone`` likewise."""
    before, _, rest = type_name.partition("(")
    return before + rest.partition(")")[2]
