"""`index`: the generic plan reaches each table by an index that the header allows.

An index reaches a table where its leading column is bound by equality, or where its order serves a
LIMIT and nothing that it reads is dropped again; and where a unique key is given, by that: not by
reading all rows of a tenant, which the planner takes for an average one. So the cost of a call does
not grow with the table, nor with its hottest tenant.

It is asked twice of tables that `fill` has filled. With sequential and bitmap scans and hash and
merge joins off: can each table be reached, and by which indexes? And with all of them on: does the
planner, left to itself, do so too?
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from pglast import ast

from .database import Connection
from .expressions import conjuncts, is_a, walk
from .finding import Finding
from .pages import Branch, Feed, feeds
from .plan import (
    Methods,
    Plan,
    Scan,
    binds_leading_column,
    bound_columns,
    columns_in,
    generic_plan,
    parameters_in,
)
from .sources import alias_of_item
from .subject import Catalog, Described, Index, Subject, Table
from .syntax import exempts

RULE = "index"

_REASON = re.compile(r"\(.+\)\s*$")


def check(connection: Connection, subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """What is wrong with the plan of a statement.

    Args:
        connection: to a database that `fill` has filled.
    """
    if subject.described is None or exempts(subject.statement.header.get("index", "")):
        return
    yield from _unknown_indexes(subject, catalog)
    plan = _plan(connection, subject, subject.described, catalog, "index")
    yield from _not_allowed(subject, plan, catalog)
    yield from _page_key(subject, plan)
    if _REASON.search(subject.statement.header.get("index", "")):
        return
    badly = list(_badly_reached(subject, plan.scans, catalog))
    yield from badly
    if not badly:
        natural = _plan(connection, subject, subject.described, catalog, "all")
        yield from _badly_planned(subject, natural.scans, catalog)


def _plan(
    connection: Connection,
    subject: Subject,
    described: Described,
    catalog: Catalog,
    methods: Methods,
) -> Plan:
    return generic_plan(connection, subject.statement.sql, described, catalog, methods)


# ---- does an index reach each table?


def _badly_reached(subject: Subject, scans: Iterable[Scan], catalog: Catalog) -> Iterator[Finding]:
    for scan in scans:
        table = catalog.tables.get(scan.table)
        if _is_exempt(scan.table, table):
            continue
        if not _is_reached(scan, table):
            yield _at_table(subject, scan, *_why_not(scan, table))
        elif table is not None and (key := _passed_by(scan, table)):
            yield _at_table(subject, scan, *_instead_of_key(scan, key))
    yield from _partitions(subject, scans, catalog)


def _is_exempt(name: str, table: Table | None) -> bool:
    return name.startswith("pg_") if table is None else table.small is not None


def _is_reached(scan: Scan, table: Table | None) -> bool:
    if table is None or not scan.accesses:
        return False
    if all(binds_leading_column(one, _index(table, one.index)) for one in scan.accesses):
        return True
    return scan.limited and not scan.filtered and not _skips(scan, table)


def _skips(scan: Scan, table: Table) -> bool:
    """Whether a walk from one entry of an index to the next passes over some by a later column."""
    (access,) = scan.accesses
    leading = _index(table, access.index).columns[0]
    return any(leading not in columns_in(one) for one in conjuncts(access.condition))


def _index(table: Table, name: str) -> Index:
    return next(index for index in table.indexes if index.name == name)


def _why_not(scan: Scan, table: Table | None) -> tuple[str, str]:
    if table is None or not scan.accesses:
        leading = sorted({index.columns[0] for index in table.indexes} - {""}) if table else []
        return (
            f"this reads all of {scan.table}: no index serves its conditions",
            f"a condition '{' = ... or '.join(leading) or 'column'} = ...' joined by AND, alone on its side, "
            "or an index of a new migration",
        )
    names = " and ".join(access.index for access in scan.accesses)
    leading = _index(table, scan.accesses[0].index).columns[0] or "the expression"
    if scan.limited:
        return (
            f"this walks along {names} and drops rows on the way: its LIMIT may be reached at the end of {scan.table}",
            f"'{leading} = ...' joined by AND, or what it drops them by in the predicate of a partial index",
        )
    return (
        f"this walks along {names} of {scan.table}: nothing binds its leading column {leading} by equality",
        f"'{leading} = ...' joined by AND, or an index that leads with a column that is bound",
    )


def _passed_by(scan: Scan, table: Table) -> Index | None:
    """A unique key all of which the statement gives, where the plan reads by less than a key.

    The planner takes a tenant for an average one, with a few rows to read and filter; the hot one
    has as many as a table.
    """
    keys = [index for index in table.indexes if index.unique and index.predicate is None]
    given = [key for key in keys if scan.equated.issuperset(key.columns)]
    bound = [bound_columns(access.condition) for access in scan.accesses]
    if any(columns.issuperset(key.columns) for columns in bound for key in given):
        return None
    return given[0] if given else None


def _instead_of_key(scan: Scan, key: Index) -> tuple[str, str]:
    access = scan.accesses[0]
    read = ", ".join(sorted(bound_columns(access.condition)))
    columns = ", ".join(key.columns)
    return (
        f"this reads by {access.index} all rows of {scan.table} of one {read}, and drops all but "
        f"what {columns} name",
        f"a sub-select that can do nothing but look by {columns}: LATERAL (... LIMIT 1), or a "
        "MATERIALIZED WITH query",
    )


def _partitions(subject: Subject, scans: Iterable[Scan], catalog: Catalog) -> Iterator[Finding]:
    """A statement that asks each partition, where one of them could have the rows."""
    asking: dict[tuple[str, str], list[Scan]] = {}
    for scan in scans:
        table = catalog.tables.get(scan.table)
        if table and table.partition_key and not _is_exempt(scan.table, table):
            asking.setdefault((_own_alias(scan.alias), scan.cte), []).append(scan)
    for parts in asking.values():
        key = set(catalog.tables[parts[0].table].partition_key)
        if len(parts) > 1 and not all(_binds(scan, key) for scan in parts):
            columns = ", ".join(sorted(key))
            yield _at_table(
                subject,
                parts[0],
                f"this asks {len(parts)} partitions of {parts[0].table}: nothing binds {columns}",
                f"'{columns} = ...' joined by AND, so that one partition is left",
            )


def _binds(scan: Scan, columns: set[str]) -> bool:
    return all(columns <= bound_columns(access.condition) for access in scan.accesses)


def _badly_planned(subject: Subject, scans: Iterable[Scan], catalog: Catalog) -> Iterator[Finding]:
    for scan in scans:
        table = catalog.tables.get(scan.table)
        if _is_exempt(scan.table, table):
            continue
        if not _is_reached(scan, table):
            how = scan.accesses[0].index if scan.accesses else "a sequential scan"
            yield _at_table(
                subject,
                scan,
                f"left to itself, PostgreSQL reads all of {scan.table} here, by {how}: "
                "it expects many rows to look for, and cannot know better",
                "what is looked for as arrays: FROM unnest(ARRAY (SELECT ...)) AS picked (...), "
                "of which it expects few; or a literal LIMIT",
            )
        elif table is not None and (key := _passed_by(scan, table)):
            message, mend = _instead_of_key(scan, key)
            yield _at_table(subject, scan, f"left to itself, {message}", mend)


# ---- by the indexes that the header allows?


def _unknown_indexes(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    known = [index.name for table in catalog.tables.values() for index in table.indexes]
    for name in subject.statement.index:
        if name not in known:
            like = get_close_matches(name, known, n=1)
            yield subject.at_header(
                "index",
                RULE,
                f"there is no index {name}",
                like[0] if like else f"the indexes that the schema has, without {name}",
            )


def _not_allowed(subject: Subject, plan: Plan, catalog: Catalog) -> Iterator[Finding]:
    exempt = {
        index.name
        for table in catalog.tables.values()
        if _is_exempt(table.name, table)
        for index in table.indexes
    }
    by_scans = (access.index for scan in plan.scans for access in scan.accesses)
    used = [name for name in dict.fromkeys((*by_scans, *plan.arbiters)) if name not in exempt]
    allowed = subject.statement.index
    unlisted = [name for name in used if name not in allowed]
    if not unlisted:
        return
    names = ", ".join(unlisted)
    if allowed:
        message = f"the plan uses {names}, which the header does not allow"
    else:
        message = f"no line of the header says which indexes the plan may use; it uses {names}"
    yield subject.at_header("index", RULE, message, f"-- index: {', '.join((*allowed, *unlisted))}")


# ---- does a page begin where its key says?


def _page_key(subject: Subject, plan: Plan) -> Iterator[Finding]:
    """Each branch that feeds a page begins at the cursor: one that does not shows its first rows again.

    A key with a reason says that no index serves it, and so no branch at all begins there.
    """
    statement = subject.statement
    if not statement.key:
        return
    cursor = {statement.parameters.index(f"cursor_{column}") + 1 for column in statement.key}
    begun = [scan for scan in plan.scans if scan.limited and _begins(scan, cursor)]
    columns = ", ".join(statement.key)
    extremes = ", ".join(f"coalesce(:cursor_{column}, ...)" for column in statement.key)
    left, right = (columns, extremes) if len(cursor) == 1 else (f"({columns})", f"({extremes})")
    mend = f"'{left} > {right}' with ORDER BY {columns} in the order of an index"
    if not begun:
        if not _REASON.search(statement.header["key"]):
            yield subject.at_header(
                "key",
                RULE,
                f"no index condition begins a page at its {columns}: each page reads all that it skips",
                f"{mend}, or '-- key: {columns} (why not)'",
            )
        return
    late = [_late(feed, plan, cursor) for feed in feeds(subject.tree, statement.key[0])]
    if late and all(late):
        relation = min(late, key=len)[0].relation
        yield subject.at(
            relation.location,
            RULE,
            f"no index condition begins this branch of a page at its {columns}, as one does another",
            mend,
            len(relation.relname),
        )


def _late(feed: Feed, plan: Plan, cursor: set[int]) -> list[Branch]:
    """The branches that do not begin at the cursor, or perhaps not: those that say nothing of it first."""
    found: list[Branch] = []
    for branch in feed:
        alike = [one for one in feed if _has_names_of(one.relation, branch.relation)]
        scans = [scan for scan in plan.scans if scan.limited and _names(branch.relation, scan)]
        begun = [scan for scan in scans if _begins(scan, cursor)]
        if len(begun) < max(len(scans), len(alike)):
            found.append(branch)
    return sorted(found, key=lambda branch: cursor <= parameters_in(branch.where))


def _begins(scan: Scan, cursor: set[int]) -> bool:
    return any(cursor <= parameters_in(access.condition) for access in scan.accesses)


def _has_names_of(one: Any, other: Any) -> bool:
    """Whether a plan calls both alike, but for a number."""
    return (one.relname, alias_of_item(one)) == (other.relname, alias_of_item(other))


# ---- where in the SQL?


def _at_table(subject: Subject, scan: Scan, message: str, mend: str) -> Finding:
    relation = _relation(subject, scan)
    if relation is None:  # by way of a view
        return subject.at_header("name", RULE, message, mend)
    name = relation.relname
    return subject.at(relation.location, RULE, message, mend, len(name))


def _relation(subject: Subject, scan: Scan) -> Any:
    """The place that names the table of a scan: in its WITH query, under its alias.

    A plan numbers an alias that the statement has several times: ``m``, ``m_1``, ``m_2``.
    """
    inside = [
        node
        for query in walk(subject.tree)
        if is_a(query, ast.CommonTableExpr) and query.ctename == scan.cte
        for node in walk(query.ctequery)
    ]
    for nodes in (inside, list(walk(subject.tree))):
        named = [node for node in nodes if _names(node, scan)]
        exact = [node for node in named if alias_of_item(node) == scan.alias]
        if exact or named:
            return (exact or named)[0]
    return None


def _names(node: Any, scan: Scan) -> bool:
    if not is_a(node, ast.RangeVar) or node.relname != scan.table.rpartition(".")[2]:
        return False
    return alias_of_item(node) in (scan.alias, _own_alias(scan.alias))


def _own_alias(alias: str) -> str:
    return re.sub(r"_\d+\Z", "", alias)
