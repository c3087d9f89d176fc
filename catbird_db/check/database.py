"""The database that `check` asks: a throwaway that it migrates itself, or an existing one, read only.

It prepares and explains, and reads the system catalogs; nothing here executes a statement under
examination.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import errors
from psycopg.rows import namedtuple_row

from ..embedded import start_server
from ..migrate import apply, migrations_dir
from ..query import Bound
from ..sqlfile import Statement
from .expressions import admitted_values
from .finding import Finding
from .subject import Catalog, Column, Described, Index, Mistake, Subject, Table

RULE = "prepare"

Connection = psycopg.Connection[Any]


@contextmanager
def throwaway(directories: Sequence[Path] = ()) -> Generator[str]:
    """The URL of a PostgreSQL that is deleted afterwards, migrated.

    Args:
        directories: the folders of migrations, in order; the shipped ones unless given.
    """
    with start_server() as server:
        for directory in directories or [migrations_dir()]:
            apply(server.url, directory=directory)
        yield server.url


@contextmanager
def connect(database_url: str) -> Generator[Connection]:
    """A connection to a throwaway."""
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@contextmanager
def connect_read_only(database_url: str) -> Generator[Connection]:
    """A connection to an existing database, which changes nothing there.

    Whatever is sent on it, is sent in a READ ONLY transaction: short ones where `read_catalog` and
    `describe` send it, so that no migration of that database waits for this.
    """
    with psycopg.connect(database_url, prepare_threshold=None) as connection:
        connection.read_only = True
        yield connection


def examine(connection: Connection, bound: Bound) -> tuple[Subject, Finding | None]:
    """A statement, with what PostgreSQL says of it; a finding where it does not prepare.

    Raises:
        psycopg.OperationalError: it is the database that cannot, not the statement.
    """
    try:
        return Subject(bound, describe(connection, bound.statement)), None
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        subject = Subject(bound, None)
        return subject, _refused(subject, error.diag)


def describe(connection: Connection, statement: Statement) -> Described:
    """Prepare a statement, execute nothing, and tell its types.

    Raises:
        psycopg.Error: it does not prepare; ``diag.statement_position`` is an offset of its ``sql``.
    """
    encoding = connection.info.encoding
    with connection.transaction():
        session = connection.pgconn
        prepared = session.prepare(b"", statement.sql.encode(encoding))
        if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(prepared, encoding)
        told = session.describe_prepared(b"")
        parameters = [(told.param_type(at), -1) for at in range(told.nparams)]
        columns = range(told.nfields)
        types = _type_names(
            connection, [*parameters, *((told.ftype(at), told.fmod(at)) for at in columns)]
        )
        return Described(
            parameter_types=tuple(types[: len(parameters)]),
            column_names=tuple((told.fname(at) or b"").decode(encoding) for at in columns),
            column_types=tuple(types[len(parameters) :]),
            column_origins=_origins(
                connection, [(told.ftable(at), told.ftablecol(at)) for at in columns]
            ),
        )


def _type_names(connection: Connection, types: Sequence[tuple[int, int]]) -> list[str]:
    found = connection.execute(
        "SELECT format_type(t.oid, t.modifier) FROM unnest(%s::oid[], %s::int[])"
        " WITH ORDINALITY AS t (oid, modifier, number) ORDER BY t.number",
        [[oid for oid, _ in types], [modifier for _, modifier in types]],
    )
    return [name for (name,) in found]


def _origins(
    connection: Connection, columns: Sequence[tuple[int, int]]
) -> tuple[tuple[str, str] | None, ...]:
    found = connection.execute(
        "SELECT a.attrelid::regclass::text, a.attname"
        "  FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS c (relation, number, place)"
        "  LEFT JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = c.number AND a.attnum > 0"
        " ORDER BY c.place",
        [[relation for relation, _ in columns], [number for _, number in columns]],
    )
    return tuple((table, name) if table else None for table, name in found)


def _refused(subject: Subject, diagnosis: errors.Diagnostic) -> Finding:
    says = diagnosis.message_primary or ""
    mend = diagnosis.message_hint or diagnosis.message_detail or _USUAL_MEND
    if untyped := re.search(r"could not determine data type of parameter \$(\d+)", says):
        name = subject.parameter(int(untyped[1]))
        says = f"nothing here tells the type of {name}"
        mend = f":{name}::text where it first stands, or the type that it has"
    message = f"PostgreSQL does not prepare this: {says}"
    if diagnosis.statement_position is None:
        return subject.at_header("name", RULE, message, mend)
    location = int(diagnosis.statement_position) - 1
    return subject.at(location, RULE, message, mend, _width(subject.statement.sql, location))


_USUAL_MEND = (
    "what the migrated schema has; 'catbird-db migrate' and docs/schema.md say what that is"
)
_TOKEN = re.compile(r"\w+(?:\.\w+)*|\$\d+|.")


def _width(sql: str, location: int) -> int:
    token = _TOKEN.match(sql, location)
    return len(token[0]) if token else 1


# ---- the catalog


def read_catalog(connection: Connection) -> Catalog:
    """The schema of a database, and what the comments on its tables declare."""
    with connection.transaction():
        columns = _by_table(_rows(connection, _COLUMNS))
        indexes = _by_table(_rows(connection, _INDEXES))
        checks = _by_table(_rows(connection, _CHECKS))
        rows = _rows(connection, _TABLES)
        named = {row.table: {column.name for column in columns[row.table]} for row in rows}
        tables = [
            _table(row, columns[row.table], indexes[row.table], checks[row.table]) for row in rows
        ]
        return Catalog(
            tables={table.name: table for table in tables},
            volatile=frozenset(row.name for row in _rows(connection, _VOLATILE)),
            enums={row.name: tuple(row.labels) for row in _rows(connection, _ENUMS)},
            partitions={row.name: row.root for row in _rows(connection, _PARTITIONS)},
            functions=frozenset(row.name for row in _rows(connection, _FUNCTIONS)),
            mistakes=tuple(
                mistake
                for row in rows
                if _small_of_itself(row.table) is None
                for mistake in _mistakes(row, named)
            ),
        )


def _rows(connection: Connection, query: LiteralString) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return list(cursor.execute(query))


def _by_table(rows: Iterable[Any]) -> Mapping[str, list[Any]]:
    found = defaultdict[str, list[Any]](list)
    for row in rows:
        found[row.table].append(row)
    return found


def _table(row: Any, columns: list[Any], indexes: list[Any], checks: list[Any]) -> Table:
    named = {
        column.name: Column(
            column.name, column.type, column.not_null, column.has_default, column.generated
        )
        for column in columns
    }
    declared = _declared(row.comment)
    return Table(
        name=row.table,
        columns=named,
        indexes=tuple(
            Index(
                index.name,
                row.table,
                tuple(index.columns),
                index.unique,
                index.predicate,
                index.method,
                tuple(index.options),
                index.more,
                index.constraint,
            )
            for index in indexes
        ),
        tenants=_listed("tenant", declared, named),
        actors=_listed("actor", declared, named),
        ended=_listed("ended", declared, named),
        public=_listed("public", declared, named),
        admits=_listed("admits", declared, named),
        admits_of=_admits_of(declared),
        small=declared.get("small") or _small_of_itself(row.table),
        partition_key=tuple(row.partition_key),
        checks={
            name: values
            for check in checks
            for name, values in admitted_values(check.expression).items()
        },
    )


_OF_COLUMNS = ("tenant", "actor", "admits", "ended", "public")
_DECLARATION = re.compile(r"^([a-z][a-z-]*):[ \t]+(.*?)[ \t]*$", re.MULTILINE)
_NONE = re.compile(r"none[ \t]+\(.*\S.*\)")


def _declared(comment: str) -> dict[str, str]:
    return dict(_DECLARATION.findall(comment))


def _listed(key: str, declared: Mapping[str, str], columns: Collection[str]) -> tuple[str, ...]:
    value = declared.get(key, "")
    if key == "admits":
        value, _, _ = value.partition(" of ")
    names = () if _NONE.fullmatch(value) else (name.strip() for name in value.split(","))
    return tuple(name for name in names if name in columns)


def _admits_of(declared: Mapping[str, str]) -> str | None:
    return declared.get("admits", "").partition(" of ")[2].strip() or None


def _mistakes(row: Any, tables: Mapping[str, Collection[str]]) -> Iterator[Mistake]:
    declared = _declared(row.comment)
    other = _admits_of(declared)
    if other is not None and other not in tables:
        says = f"its comment admits to rows of {other}, and there is no such table"
        yield Mistake(row.table, says, "a table whose rows have these columns")
    known = (*_OF_COLUMNS, "small")
    for key, value in declared.items():
        if key not in known:
            mend = f"one of {', '.join(known)}, or a capital if it is prose"
            yield Mistake(row.table, f"unknown key {key} in the comment", mend)
        elif key in _OF_COLUMNS and not _NONE.fullmatch(value):
            held = [row.table]
            if key == "admits" and other is not None:
                held += [other] if other in tables else []
            names = value.partition(" of ")[0] if key == "admits" else value
            for table, name in ((table, name) for table in held for name in names.split(",")):
                if name.strip() not in tables[table]:
                    says = f"its comment says '{key}: {value}', and there is no such column"
                    mend = f"a column of {table}, or '{key}: none (why)'"
                    yield Mistake(row.table, says, mend)
    if "admits" in declared and not {"actor", "public"} & declared.keys():
        says = "its comment says to what a row admits, and not whom"
        yield Mistake(row.table, says, "'actor: a column' that names them, as another line")
    if "tenant" not in declared:
        message = f"nothing says which column keeps the tenants of {row.table} apart"
        mend = "'tenant: a column' as a line of its comment, or 'tenant: none (why)'"
        yield Mistake(row.table, message, mend)


def _small_of_itself(table: str) -> str | None:
    """yoyo's tables come with yoyo, so no migration of ours says this of them."""
    return "yoyo's own: a row for each migration" if _YOYO.match(table) else None


_YOYO = re.compile(r"_yoyo_|yoyo_lock\Z")

# Tables of ours that are not partitions: those follow from their roots.
_OURS: LiteralString = r"""
WITH ours AS MATERIALIZED (
    SELECT c.oid, c.oid::regclass::text AS name
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
       AND NOT EXISTS (SELECT FROM pg_depend AS d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
"""

_TABLES: LiteralString = (
    _OURS
    + """
SELECT o.name AS table, coalesce(obj_description(o.oid, 'pg_class'), '') AS comment,
       ARRAY (SELECT a.attname::text
                FROM pg_partitioned_table AS p
               CROSS JOIN unnest(p.partattrs::smallint[]) WITH ORDINALITY AS k (number, place)
                JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = k.number
               WHERE p.partrelid = o.oid
               ORDER BY k.place) AS partition_key
  FROM ours AS o
 ORDER BY o.name
"""
)

_COLUMNS: LiteralString = (
    _OURS
    + """
SELECT o.name AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null, a.atthasdef OR a.attidentity <> '' AS has_default,
       a.attgenerated <> '' AS generated
  FROM ours AS o
  JOIN pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY o.name, a.attnum
"""
)

_INDEXES: LiteralString = (
    _OURS
    + """
SELECT o.name AS table, x.indexrelid::regclass::text AS name, x.indisunique AS unique,
       pg_get_expr(x.indpred, x.indrelid) AS predicate, m.amname AS method,
       ARRAY (SELECT coalesce(a.attname, '')::text
                FROM unnest(x.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
                LEFT JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number AND k.number > 0
               WHERE k.place <= x.indnkeyatts
               ORDER BY k.place) AS columns,
       ARRAY (SELECT concat_ws(' ', c.class, c.collated, c.option)
                FROM unnest(x.indclass::oid[], x.indcollation::oid[], x.indoption::smallint[])
                     WITH ORDINALITY AS c (class, collated, option, place)
               ORDER BY c.place) AS options,
       x.indnatts > x.indnkeyatts AS more,
       EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = x.indexrelid) AS constraint
  FROM ours AS o
  JOIN pg_index AS x ON x.indrelid = o.oid
  JOIN pg_class AS i ON i.oid = x.indexrelid
  JOIN pg_am AS m ON m.oid = i.relam
 ORDER BY o.name, x.indexrelid::regclass::text
"""
)

_CHECKS: LiteralString = (
    _OURS
    + """
SELECT o.name AS table, pg_get_expr(c.conbin, c.conrelid) AS expression
  FROM ours AS o
  JOIN pg_constraint AS c ON c.conrelid = o.oid AND c.contype = 'c'
 ORDER BY o.name, c.conname
"""
)

_VOLATILE: LiteralString = "SELECT DISTINCT proname AS name FROM pg_proc WHERE provolatile = 'v'"

_FUNCTIONS: LiteralString = """
SELECT DISTINCT p.proname AS name
  FROM pg_proc AS p
 WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""

_ENUMS: LiteralString = """
SELECT format_type(e.enumtypid, NULL) AS name, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) AS labels
  FROM pg_enum AS e
 GROUP BY e.enumtypid
"""

_PARTITIONS: LiteralString = """
SELECT c.oid::regclass::text AS name, pg_partition_root(c.oid)::text AS root
  FROM pg_class AS c
 WHERE c.relispartition
"""
