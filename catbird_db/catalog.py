"""What a database's schema is, as text: two schemas are the same if their snapshots are equal.

One entry an object, sorted, with nothing that depends on the order in which objects were made
(oids, column numbers): the difference of two snapshots reads as the difference of two schemas.
"""

from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    import psycopg

__all__ = ["SNAPSHOT_SQL", "schema_snapshot"]

# yoyo's own tables, backups and what extensions bring are not part of the schema.
SNAPSHOT_SQL: LiteralString = r"""
WITH extension_member AS MATERIALIZED (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend AS d WHERE d.deptype = 'e'
),
schema_of_ours AS MATERIALIZED (
    SELECT n.oid, n.nspname, n.nspacl
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname NOT IN ('information_schema', 'catbird_backup') AND n.nspname NOT LIKE 'pg\_%'
       AND (n.tableoid, n.oid) NOT IN (SELECT e.classid, e.objid FROM extension_member AS e)
),
relation AS MATERIALIZED (
    SELECT c.*, c.oid::regclass::text AS name
      FROM pg_catalog.pg_class AS c
      JOIN schema_of_ours AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
       AND c.relname <> 'yoyo_lock' AND c.relname NOT LIKE '\_yoyo\_%'
       AND (c.tableoid, c.oid) NOT IN (SELECT e.classid, e.objid FROM extension_member AS e)
),
object (classid, objid, objsubid, kind, name, definition) AS (
    SELECT 'pg_namespace'::regclass, n.oid, 0, 'schema', n.nspname::text, n.nspacl::text
      FROM schema_of_ours AS n
     UNION ALL
    SELECT 'pg_extension'::regclass, e.oid, 0, 'extension', e.extname::text, e.extversion
      FROM pg_catalog.pg_extension AS e
     UNION ALL
    SELECT 'pg_class'::regclass, r.oid, 0,
           CASE r.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                WHEN 'c' THEN 'composite type' ELSE 'table' END,
           r.name,
           concat_ws(' ', CASE r.relpersistence WHEN 'u' THEN 'UNLOGGED' END,
               'PARTITION BY ' || pg_get_partkeydef(r.oid),
               (SELECT 'INHERITS ' || string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno)
                  FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = r.oid),
               pg_get_expr(r.relpartbound, r.oid),
               (SELECT 'USING ' || a.amname FROM pg_catalog.pg_am AS a WHERE a.oid = r.relam),
               (SELECT 'TABLESPACE ' || s.spcname FROM pg_catalog.pg_tablespace AS s WHERE s.oid = r.reltablespace),
               CASE WHEN r.reloftype <> 0 THEN 'OF ' || format_type(r.reloftype, NULL) END,
               'WITH ' || (SELECT array_agg(o ORDER BY o) FROM unnest(r.reloptions) AS o)::text,
               (SELECT 'TOAST ' || t.reloptions::text FROM pg_catalog.pg_class AS t WHERE t.oid = r.reltoastrelid),
               CASE WHEN r.relrowsecurity THEN 'ROW SECURITY' END,
               CASE WHEN r.relforcerowsecurity THEN 'FORCED' END,
               CASE WHEN r.relkind IN ('r', 'p') THEN 'REPLICA IDENTITY ' || nullif(r.relreplident, 'd')::text END,
               CASE WHEN r.relkind IN ('v', 'm') THEN pg_get_viewdef(r.oid) END,
               r.relacl::text)
      FROM relation AS r
     WHERE r.relkind <> 'S'
     UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, 'column', r.name || '.' || quote_ident(a.attname),
           concat_ws(' ', format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN 'NOT NULL' END,
               CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || a.attcollation::regcollation::text END,
               CASE a.attgenerated WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END,
               CASE a.attidentity WHEN 'a' THEN 'IDENTITY ALWAYS' WHEN 'd' THEN 'IDENTITY BY DEFAULT' END,
               'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
               CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || a.attstorage::text END,
               'COMPRESSION ' || nullif(a.attcompression, '')::text,
               'STATISTICS ' || nullif(a.attstattarget, -1)::text,
               CASE WHEN NOT a.attislocal THEN 'INHERITED' END,
               a.attoptions::text, a.attacl::text)
      FROM pg_catalog.pg_attribute AS a
      JOIN relation AS r ON r.oid = a.attrelid
      JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind <> 'S'
     UNION ALL
    SELECT 'pg_class'::regclass, r.oid, 0, 'sequence', r.name,
           concat_ws(' ', format_type(s.seqtypid, NULL), 'START', s.seqstart, 'BY', s.seqincrement,
               'FROM', s.seqmin, 'TO', s.seqmax, 'CACHE', s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' END,
               (SELECT 'OWNED BY ' || d.refobjid::regclass::text || '.' || quote_ident(a.attname)
                  FROM pg_catalog.pg_depend AS d
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')),
               r.relacl::text)
      FROM relation AS r
      JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = r.oid
     UNION ALL
    SELECT 'pg_constraint'::regclass, c.oid, 0, 'constraint',
           coalesce(r.name, format_type(c.contypid, NULL)) || '.' || quote_ident(c.conname),
           concat_ws(' ', pg_get_constraintdef(c.oid), CASE WHEN NOT c.convalidated THEN 'NOT VALIDATED' END)
      FROM pg_catalog.pg_constraint AS c
      JOIN schema_of_ours AS n ON n.oid = c.connamespace
      LEFT JOIN relation AS r ON r.oid = c.conrelid
     WHERE (r.oid IS NOT NULL OR c.conrelid = 0)
       AND (c.contypid = 0
            OR ('pg_type'::regclass, c.contypid) NOT IN (SELECT e.classid, e.objid FROM extension_member AS e))
     UNION ALL
    SELECT 'pg_class'::regclass, x.indexrelid, 0, 'index', x.indexrelid::regclass::text,
           concat_ws(' ', pg_get_indexdef(x.indexrelid),
               (SELECT 'TABLESPACE ' || s.spcname
                  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_tablespace AS s ON s.oid = c.reltablespace
                 WHERE c.oid = x.indexrelid),
               (SELECT 'STATISTICS ' || string_agg(a.attnum || ': ' || a.attstattarget, ', ' ORDER BY a.attnum)
                  FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = x.indexrelid AND a.attstattarget >= 0),
               CASE WHEN NOT x.indisvalid THEN 'INVALID' END,
               CASE WHEN x.indisclustered THEN 'CLUSTERED' END,
               CASE WHEN x.indisreplident THEN 'REPLICA IDENTITY' END)
      FROM pg_catalog.pg_index AS x
      JOIN relation AS r ON r.oid = x.indrelid
     UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, 0, 'statistics', format('%s.%I', s.stxnamespace::regnamespace, s.stxname),
           concat_ws(' ', pg_get_statisticsobjdef(s.oid), 'STATISTICS ' || nullif(s.stxstattarget, -1)::text)
      FROM pg_catalog.pg_statistic_ext AS s
      JOIN relation AS r ON r.oid = s.stxrelid
     UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, 0, 'trigger', r.name || '.' || quote_ident(t.tgname),
           concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
      FROM pg_catalog.pg_trigger AS t
      JOIN relation AS r ON r.oid = t.tgrelid
     WHERE NOT t.tgisinternal
     UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, 0, 'trigger of a constraint',
           concat_ws(' ', r.name || '.' || quote_ident(c.conname), t.tgfoid::regproc), t.tgenabled::text
      FROM pg_catalog.pg_trigger AS t
      JOIN relation AS r ON r.oid = t.tgrelid
      JOIN pg_catalog.pg_constraint AS c ON c.oid = t.tgconstraint
     WHERE t.tgisinternal AND t.tgenabled <> 'O'
     UNION ALL
    SELECT 'pg_publication_rel'::regclass, m.oid, 0, 'published table', p.pubname || ' ' || r.name,
           concat_ws(' ', pg_get_expr(m.prqual, m.prrelid),
               (SELECT string_agg(quote_ident(a.attname), ',' ORDER BY a.attname)
                  FROM pg_catalog.pg_attribute AS a
                 WHERE a.attrelid = m.prrelid AND a.attnum = ANY (m.prattrs::int2[])))
      FROM pg_catalog.pg_publication_rel AS m
      JOIN pg_catalog.pg_publication AS p ON p.oid = m.prpubid
      JOIN relation AS r ON r.oid = m.prrelid
     UNION ALL
    SELECT 'pg_rewrite'::regclass, w.oid, 0, 'rule', r.name || '.' || quote_ident(w.rulename),
           concat_ws(' ', pg_get_ruledef(w.oid), w.ev_enabled)
      FROM pg_catalog.pg_rewrite AS w
      JOIN relation AS r ON r.oid = w.ev_class
     WHERE w.rulename <> '_RETURN'
     UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 0, 'policy', r.name || '.' || quote_ident(p.polname),
           concat_ws(' ', p.polcmd, p.polpermissive, p.polroles::regrole[]::text,
               pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
      FROM pg_catalog.pg_policy AS p
      JOIN relation AS r ON r.oid = p.polrelid
     UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, 'function', p.oid::regprocedure::text,
           concat_ws(' ', CASE WHEN p.prokind = 'a' THEN 'AGGREGATE ' || a.aggtransfn::text
               ELSE pg_get_functiondef(p.oid) END, p.proacl::text)
      FROM pg_catalog.pg_proc AS p
      JOIN schema_of_ours AS n ON n.oid = p.pronamespace
      LEFT JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = p.oid
     WHERE (p.tableoid, p.oid) NOT IN (SELECT e.classid, e.objid FROM extension_member AS e)
     UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, 'type', format_type(t.oid, NULL),
           concat_ws(' ', t.typtype,
               (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder)::text
                  FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid),
               CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
               CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
               (SELECT 'OF ' || format_type(g.rngsubtype, NULL)
                  FROM pg_catalog.pg_range AS g WHERE g.rngtypid = t.oid),
               t.typacl::text)
      FROM pg_catalog.pg_type AS t
      JOIN schema_of_ours AS n ON n.oid = t.typnamespace
     WHERE t.typtype IN ('d', 'e', 'r')
       AND (t.tableoid, t.oid) NOT IN (SELECT e.classid, e.objid FROM extension_member AS e)
     UNION ALL
    SELECT 'pg_collation'::regclass, o.oid, 0, 'collation', o.oid::regcollation::text,
           concat_ws(' ', o.collprovider, o.collisdeterministic, o.collcollate)
      FROM pg_catalog.pg_collation AS o
      JOIN schema_of_ours AS n ON n.oid = o.collnamespace
)
SELECT concat_ws(' ', o.kind, o.name || ':', nullif(o.definition, ''), '-- ' || d.description) COLLATE "C" AS line
  FROM object AS o
  LEFT JOIN pg_catalog.pg_description AS d
    ON d.classoid = o.classid AND d.objoid = o.objid AND d.objsubid = o.objsubid
 ORDER BY line
"""


def schema_snapshot(connection: "psycopg.Connection[Any]") -> str:
    """The schema of a database: tables, columns, constraints, indexes, functions, types, comments."""
    with connection.cursor() as cursor:
        cursor.execute(SNAPSHOT_SQL)
        return "\n".join(line for (line,) in cursor.fetchall())
