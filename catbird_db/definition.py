"""The statements that make a table again: what `catbird_db.backup` records beside its rows.

They come from the catalog, in the order in which they have to run. Partitions are made as tables and
attached, and so are their indexes: each keeps its own name, its order of columns, its defaults.
What is not said here (policies, rules, inheritance that is not partitioning) a backup refuses, as it
tries the statements and compares.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    import psycopg

__all__ = ["Definition", "definition_of", "names_in_full"]


@dataclass(frozen=True)
class Definition:
    """How to make a table again.

    Attributes:
        columns: those that rows are given for; generated ones are not among them.
        before_rows: statements that make the table, to run before its rows are there.
        after_rows: statements for all that belongs to it.
        referring: statements that make the foreign keys of other tables which refer to it.
    """

    columns: list[str]
    before_rows: list[str]
    after_rows: list[str]
    referring: list[str]


_COLUMNS: LiteralString = """
SELECT quote_ident(a.attname)
  FROM pg_attribute AS a
 WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum
"""

# Each statement with its stage: up to 3 before the rows are there, 20 what others refer by.
_STATEMENTS: LiteralString = r"""
WITH RECURSIVE relation AS (
    SELECT c.oid, 0 AS depth, NULL::oid AS parent FROM pg_class AS c WHERE c.oid = %(table)s
     UNION ALL
    SELECT c.oid, r.depth + 1, r.oid
      FROM relation AS r
      JOIN pg_inherits AS i ON i.inhparent = r.oid
      JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relispartition
),
named AS MATERIALIZED (
    SELECT c.*, r.depth, r.parent, format('%%I.%%I', n.nspname, c.relname) AS name
      FROM relation AS r
      JOIN pg_class AS c ON c.oid = r.oid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
),
attribute AS MATERIALIZED (
    SELECT a.*, n.name, n.depth, n.relowner, quote_ident(a.attname) AS column_name, t.typcollation, t.typstorage,
           pg_get_expr(d.adbin, d.adrelid) AS expression
      FROM named AS n
      JOIN pg_attribute AS a ON a.attrelid = n.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type AS t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
),
owned AS MATERIALIZED ( -- sequences of serial ('a') and identity ('i') columns
    SELECT s.*, c.relowner, c.relacl, d.deptype, a.attrelid, a.attnum, a.name AS table_name, a.column_name,
           format('%%I.%%I', n.nspname, c.relname) AS name,
           format('START WITH %%s INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s CACHE %%s %%s', s.seqstart, s.seqincrement,
                  s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END) AS options
      FROM attribute AS a
      JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
           AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
      JOIN pg_sequence AS s ON s.seqrelid = d.objid
      JOIN pg_class AS c ON c.oid = s.seqrelid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
),
not_null AS ( -- named from PostgreSQL 18 on
    SELECT c.conrelid, c.oid, format('CONSTRAINT %%I %%s', c.conname, pg_get_constraintdef(c.oid)) AS element
      FROM pg_constraint AS c
     WHERE c.contype = 'n'
),
element AS (
    SELECT a.attrelid, a.attnum::bigint AS place,
           concat_ws(' ', a.column_name, format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attcollation <> a.typcollation THEN 'COLLATE ' || (
                   SELECT format('%%I.%%I', n.nspname, c.collname)
                     FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace
                    WHERE c.oid = a.attcollation) END,
               CASE WHEN a.attgenerated <> ''
                    THEN format('GENERATED ALWAYS AS (%%s) %%s', a.expression, CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END)
                    WHEN a.expression IS NOT NULL THEN 'DEFAULT ' || a.expression END,
               (SELECT format('GENERATED %%s AS IDENTITY (SEQUENCE NAME %%s %%s)',
                              CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, o.name, o.options)
                  FROM owned AS o WHERE o.attrelid = a.attrelid AND o.attnum = a.attnum AND o.deptype = 'i'),
               CASE WHEN a.attnotnull AND NOT EXISTS (SELECT FROM not_null AS x WHERE x.conrelid = a.attrelid)
                    THEN 'NOT NULL' END) AS text
      FROM attribute AS a
     UNION ALL
    SELECT x.conrelid, 10000 + x.oid::bigint, x.element FROM not_null AS x
),
statement (stage, depth, place, text) AS (
    SELECT 1, 0, o.seqrelid::bigint, format('CREATE SEQUENCE %%s AS %%s %%s', o.name, format_type(o.seqtypid, NULL), o.options)
      FROM owned AS o
     WHERE o.deptype = 'a'
     UNION ALL
    SELECT 2, n.depth, n.oid::bigint,
           concat_ws(' ', 'CREATE', CASE n.relpersistence WHEN 'u' THEN 'UNLOGGED' END, 'TABLE', n.name,
               '(' || coalesce((SELECT string_agg(e.text, ', ' ORDER BY e.place) FROM element AS e WHERE e.attrelid = n.oid), '') || ')',
               'PARTITION BY ' || pg_get_partkeydef(n.oid),
               (SELECT format('USING %%I', m.amname) FROM pg_am AS m WHERE m.oid = n.relam AND n.relkind = 'r'),
               'WITH (' || array_to_string(n.reloptions, ', ') || ')')
      FROM named AS n
     UNION ALL
    SELECT 3, n.depth, n.oid::bigint,
           format('ALTER TABLE %%s ATTACH PARTITION %%s %%s', p.name, n.name, pg_get_expr(n.relpartbound, n.oid))
      FROM named AS n
      JOIN named AS p ON p.oid = n.parent
     UNION ALL
    SELECT 3, a.depth, a.attnum,
           format('ALTER TABLE ONLY %%s ALTER COLUMN %%s %%s', a.name, a.column_name, change.text)
      FROM attribute AS a
     CROSS JOIN LATERAL (VALUES
           (CASE WHEN a.attstorage <> a.typstorage THEN 'SET STORAGE ' || CASE a.attstorage
                 WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END),
           (CASE a.attcompression WHEN 'p' THEN 'SET COMPRESSION pglz' WHEN 'l' THEN 'SET COMPRESSION lz4' END),
           (CASE WHEN a.attstattarget >= 0 THEN 'SET STATISTICS ' || a.attstattarget END),
           ('SET (' || array_to_string(a.attoptions, ', ') || ')')
         ) AS change (text)
     WHERE change.text IS NOT NULL
     UNION ALL
    SELECT 4, 0, o.seqrelid::bigint, format('ALTER SEQUENCE %%s OWNED BY %%s.%%s', o.name, o.table_name, o.column_name)
      FROM owned AS o
     WHERE o.deptype = 'a'
     UNION ALL
    SELECT 4, 1, o.seqrelid::bigint, format('SELECT setval(%%L, %%s)', o.name, pg_sequence_last_value(o.seqrelid))
      FROM owned AS o
     WHERE pg_sequence_last_value(o.seqrelid) IS NOT NULL
     UNION ALL
    SELECT CASE c.contype WHEN 'c' THEN 5 WHEN 'f' THEN 9 ELSE 6 END, n.depth, c.oid::bigint,
           concat_ws(' ', 'ALTER TABLE', CASE WHEN c.contype IN ('p', 'u', 'x') THEN 'ONLY' END, n.name,
                     format('ADD CONSTRAINT %%I', c.conname), pg_get_constraintdef(c.oid))
      FROM named AS n
      JOIN pg_constraint AS c ON c.conrelid = n.oid
     WHERE c.contype IN ('p', 'u', 'x')
        OR c.contype = 'c' AND c.conislocal
        OR c.contype = 'f' AND c.conparentid = 0
     UNION ALL
    SELECT 20, 0, c.oid::bigint,
           format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
      FROM pg_constraint AS c
     WHERE c.contype = 'f' AND c.conparentid = 0
       AND c.confrelid IN (SELECT n.oid FROM named AS n) AND c.conrelid NOT IN (SELECT n.oid FROM named AS n)
     UNION ALL
    SELECT 7, n.depth, x.indexrelid::bigint, pg_get_indexdef(x.indexrelid)
      FROM named AS n
      JOIN pg_index AS x ON x.indrelid = n.oid
     WHERE NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u', 'x'))
     UNION ALL
    SELECT 8, -n.depth, i.inhrelid::bigint,
           format('ALTER INDEX %%s ATTACH PARTITION %%s', i.inhparent::regclass, i.inhrelid::regclass)
      FROM named AS n
      JOIN pg_index AS x ON x.indrelid = n.oid
      JOIN pg_inherits AS i ON i.inhrelid = x.indexrelid
     UNION ALL
    SELECT 10, n.depth, s.oid::bigint, pg_get_statisticsobjdef(s.oid)
      FROM named AS n
      JOIN pg_statistic_ext AS s ON s.stxrelid = n.oid
     UNION ALL
    SELECT 10, n.depth, t.oid::bigint, pg_get_triggerdef(t.oid)
      FROM named AS n
      JOIN pg_trigger AS t ON t.tgrelid = n.oid AND NOT t.tgisinternal AND t.tgparentid = 0
     UNION ALL
    SELECT 11, 0, d.objsubid, format('COMMENT ON %%s IS %%L', thing.name, d.description)
      FROM named AS n
      JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = n.oid
      LEFT JOIN attribute AS a ON a.attrelid = n.oid AND a.attnum = d.objsubid
     CROSS JOIN LATERAL (SELECT coalesce('COLUMN ' || n.name || '.' || a.column_name, 'TABLE ' || n.name) AS name) AS thing
     UNION ALL
    SELECT 11, 1, d.objoid::bigint, format('COMMENT ON INDEX %%s IS %%L', d.objoid::regclass, d.description)
      FROM named AS n
      JOIN pg_index AS x ON x.indrelid = n.oid
      JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = x.indexrelid
     UNION ALL
    SELECT 11, 2, d.objoid::bigint, format('COMMENT ON CONSTRAINT %%I ON %%s IS %%L', c.conname, n.name, d.description)
      FROM named AS n
      JOIN pg_constraint AS c ON c.conrelid = n.oid
      JOIN pg_description AS d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = c.oid
     UNION ALL
    SELECT 12, granted.depth, g.place,
           format('GRANT %%s%%s ON %%s TO %%s%%s', g.privilege_type, ' (' || granted.column_name || ')', granted.name,
                  CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                  CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM (SELECT n.depth, n.name, NULL AS column_name, n.relowner, n.relacl FROM named AS n
             UNION ALL
            SELECT a.depth, a.name, a.column_name, a.relowner, a.attacl FROM attribute AS a
             UNION ALL
            SELECT 0, 'SEQUENCE ' || o.name, NULL, o.relowner, o.relacl FROM owned AS o) AS granted
     CROSS JOIN aclexplode(granted.relacl) WITH ORDINALITY AS g (grantor, grantee, privilege_type, is_grantable, place)
     WHERE g.grantee <> granted.relowner
     UNION ALL
    SELECT 13, n.depth, n.oid::bigint, format('ALTER TABLE %%s OWNER TO %%I', n.name, pg_get_userbyid(n.relowner))
      FROM named AS n
     WHERE pg_get_userbyid(n.relowner) <> current_user
)
SELECT s.stage, s.text FROM statement AS s ORDER BY s.stage, s.depth, s.place
"""


def definition_of(connection: "psycopg.Connection[Any]", table: int) -> Definition:
    """The definition of a table, by its oid."""
    with names_in_full(connection):
        columns = connection.execute(_COLUMNS, {"table": table}).fetchall()
        statements = connection.execute(_STATEMENTS, {"table": table}).fetchall()
    return Definition(
        columns=[name for (name,) in columns],
        before_rows=[text for stage, text in statements if stage <= 3],
        after_rows=[text for stage, text in statements if 3 < stage < 20],
        referring=[text for stage, text in statements if stage == 20],
    )


@contextmanager
def names_in_full(connection: "psycopg.Connection[Any]") -> Generator[None]:
    """Have PostgreSQL write each name with its schema: who reads it may have another search_path."""
    with connection.transaction(force_rollback=True):  # of the setting
        connection.execute("SET LOCAL search_path = ''")
        yield
