"""The generic plan of a statement, as PostgreSQL explains it, and the places where it reads tables.

Generic, because that is what a prepared statement comes to; of statements that are explained, not
run. The arguments are real ones all the same: which partitions remain is decided by them when the
plan starts, and a NULL would leave none.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pglast
import psycopg
from pglast import ast, enums

from .database import Connection
from .expressions import (
    column_of,
    conjuncts,
    is_a,
    operator,
    parse_expression,
    shape,
    walk,
    without_casts,
)
from .fill import FillError, sample
from .subject import Catalog, Described, Index

Methods = Literal["index", "all"]

# "index": what can be reached by an index, is; what is not, cannot. "all": what the planner takes
# in production, by the costs of a solid state disk (those of a spinning one prefer reading all).
_SETTINGS: dict[Methods, dict[str, str]] = {
    "index": {
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    },
    "all": {"random_page_cost": "1.1"},
}
_COMMON_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

# A LIMIT above these stops what is below them.
_STREAMING = (
    *("Limit", "LockRows", "Result", "Subquery Scan", "ProjectSet", "Append", "Merge Append"),
    *("Incremental Sort", "Nested Loop"),
)


@dataclass(frozen=True, slots=True)
class Access:
    """One index that a scan reads, and the condition that says which part of it."""

    index: str
    condition: Any  # a tree, or None: all of it


@dataclass(frozen=True, slots=True)
class Scan:
    """One place where a plan reads a table.

    Attributes:
        table: its name; of a partition, the table that it is a part of.
        alias: as the plan calls it: the statement's own, perhaps with a number appended.
        cte: the WITH query that it stands in, or "".
        accesses: the indexes; empty where all of the table is read. More than one: all of them.
        limited: a LIMIT stops it, as nothing between the two needs all rows.
        filtered: rows that it has read are dropped again, here or on the way to the LIMIT (not by
            the predicate of its index, which FOR UPDATE repeats).
        equated: columns of which the plan compares each with a value by equality, here or in a join.
    """

    table: str
    alias: str
    cte: str
    accesses: tuple[Access, ...]
    limited: bool
    filtered: bool
    equated: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement's plan: its scans, and the unique indexes that ON CONFLICT looks into."""

    scans: tuple[Scan, ...]
    arbiters: tuple[str, ...]


def generic_plan(
    connection: Connection, statement: str, described: Described, catalog: Catalog, methods: Methods
) -> Plan:
    """How a statement reads its tables; ``connection`` leads to filled ones."""
    with _prepared(connection, statement, described, catalog, methods) as execute:
        root = explained(connection, execute)
    return Plan(
        tuple(_scans(root, _Above(), _equated_by_joins(root), catalog)),
        tuple(
            catalog.partitions.get(name, name)
            for node in nodes(root)
            for name in node.get("Conflict Arbiter Indexes", ())
        ),
    )


def plan_alone(connection: Connection, statement: str) -> None:
    """Have PostgreSQL plan a statement, whatever its tables hold; before 16 it cannot.

    Raises:
        psycopg.Error: it does not, as where ON CONFLICT finds no unique index.
    """
    if connection.info.server_version < _EXPLAINS_PARAMETERS:
        return
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}".encode())
    except psycopg.errors.InsufficientPrivilege:
        pass  # asked once there is a plan


_EXPLAINS_PARAMETERS = 160000


def generic_plan_text(
    connection: Connection, statement: str, described: Described, catalog: Catalog
) -> str:
    """The plan that `generic_plan` gives for ``index``, as PostgreSQL prints it, without costs."""
    with _prepared(connection, statement, described, catalog, "index") as execute:
        lines = connection.execute(f"EXPLAIN (COSTS OFF) {execute}".encode())
        return "\n".join(line for (line,) in lines)


def _prepared(
    connection: Connection, statement: str, described: Described, catalog: Catalog, methods: Methods
) -> AbstractContextManager[str]:
    arguments = [_argument(one, catalog) for one in described.parameter_types]
    return prepared(connection, statement, arguments, _COMMON_SETTINGS | _SETTINGS[methods])


@contextmanager
def prepared(
    connection: Connection, statement: str, arguments: Sequence[str], settings: Mapping[str, str]
) -> Generator[str]:
    """Prepare a statement under settings, and give the EXECUTE of it; all is rolled back.

    Args:
        arguments: an SQL expression for each parameter.
    """
    execute = f"EXECUTE {_NAME} ({', '.join(arguments)})" if arguments else f"EXECUTE {_NAME}"
    set_all = "; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items())
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(set_all.encode())
            connection.execute(f"PREPARE {_NAME} AS {statement}".encode())
            yield execute
    finally:
        with connection.transaction():
            connection.execute("DEALLOCATE ALL")  # it outlives the rollback, if it came to be


_NAME = "catbird_check"


def _argument(type_name: str, catalog: Catalog) -> str:
    try:
        return sample(type_name, catalog)
    except FillError:
        return f"NULL::{type_name}"


# ---- what EXPLAIN says, read


def explained(connection: Connection, execute: str) -> dict[str, Any]:
    """The topmost node of the plan of a prepared statement."""
    found = connection.execute(f"EXPLAIN (FORMAT JSON) {execute}".encode()).fetchone()
    assert found is not None
    return found[0][0]["Plan"]


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan, and all below it."""
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


def _equated_by_joins(root: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """The columns, each with its alias, that joins compare by equality with another alias's."""
    found: set[tuple[str, str]] = set()
    for node in nodes(root):
        for key in ("Join Filter", "Hash Cond", "Merge Cond"):
            for one in conjuncts(_condition(node, key)):
                sides = (
                    (_qualified(one.lexpr), _qualified(one.rexpr)) if operator(one) == "=" else ()
                )
                found.update(side for side in sides if side)
    return frozenset(found)


def _qualified(node: Any) -> tuple[str, str] | None:
    node = without_casts(node)
    if is_a(node, ast.ColumnRef) and len(node.fields) == 2 and column_of(node):
        return node.fields[0].sval, node.fields[1].sval
    return None


@dataclass(frozen=True, slots=True)
class _Above:
    """What stands above a node: see `Scan`."""

    cte: str = ""
    limited: bool = False
    dropping: bool = False

    def below(self, node: dict[str, Any], child: dict[str, Any]) -> "_Above":
        name = child.get("Subplan Name", "")
        cte = name.removeprefix("CTE ") if name.startswith("CTE ") else self.cte
        kind = node["Node Type"]
        stops = kind == "Limit" or (self.limited and kind in _STREAMING)
        if not stops or child["Parent Relationship"] not in ("Outer", "Member", "Subquery"):
            return _Above(cte)
        drops = "Filter" in node or (kind == "Nested Loop" and node["Join Type"] != "Left")
        return _Above(cte, True, kind != "Limit" and (self.dropping or drops))


def _scans(
    node: dict[str, Any], above: _Above, joined: frozenset[tuple[str, str]], catalog: Catalog
) -> Iterator[Scan]:
    kind = node["Node Type"]
    if "Relation Name" in node and kind.endswith("Scan") and kind != "Tid Scan":
        accesses = tuple(_accesses(node, catalog))
        yield Scan(
            table=catalog.partitions.get(node["Relation Name"], node["Relation Name"]),
            alias=node["Alias"],
            cte=above.cte,
            accesses=accesses,
            limited=above.limited and kind != "Bitmap Heap Scan",  # a bitmap is made as a whole
            filtered=above.dropping or _drops_rows(node, accesses, catalog),
            equated=frozenset(column for alias, column in joined if alias == node["Alias"])
            .union(bound_columns(_condition(node, "Filter")))
            .union(*(bound_columns(access.condition) for access in accesses)),
        )
    for child in node.get("Plans", ()):
        yield from _scans(child, above.below(node, child), joined, catalog)


def _drops_rows(node: dict[str, Any], accesses: tuple[Access, ...], catalog: Catalog) -> bool:
    if "Filter" not in node:
        return False
    holds_anyway = [
        shape(condition)
        for table in catalog.tables.values()
        for index in table.indexes
        if index.predicate and index.name in {access.index for access in accesses}
        for condition in conjuncts(parse_expression(index.predicate))
    ]
    filter_ = _condition(node, "Filter")
    if filter_ is None:
        return True
    return not all(shape(condition) in holds_anyway for condition in conjuncts(filter_))


def _accesses(node: dict[str, Any], catalog: Catalog) -> Iterator[Access]:
    if node["Node Type"] == "Bitmap Heap Scan":
        for child in node["Plans"]:
            yield from _bitmap(child, catalog)
    elif "Index Name" in node:
        yield _access(node, catalog)


def _bitmap(node: dict[str, Any], catalog: Catalog) -> Iterator[Access]:
    """The indexes behind a bitmap; of those that BitmapAnd joins, the one that says most."""
    if node["Node Type"] == "Bitmap Index Scan":
        yield _access(node, catalog)
        return
    branches = [tuple(_bitmap(child, catalog)) for child in node["Plans"]]
    if node["Node Type"] == "BitmapOr":
        for branch in branches:
            yield from branch
    else:
        yield from max(branches, key=lambda branch: sum(map(_binds, branch)) / len(branch))


def _binds(access: Access) -> int:
    return len(bound_columns(access.condition))


def _access(node: dict[str, Any], catalog: Catalog) -> Access:
    name = node["Index Name"]
    return Access(catalog.partitions.get(name, name), _condition(node, "Index Cond"))


def _condition(node: dict[str, Any], key: str) -> Any:
    """A condition's tree; None where there is none, or none that can be read: it proves nothing."""
    try:
        return parse_expression(node[key]) if key in node else None
    except pglast.Error:
        return None


# ---- what an index condition says


def bound_columns(condition: Any) -> frozenset[str]:
    """The columns that an index condition binds by equality; an expression is ``""``."""
    found: set[str] = set()
    for one in conjuncts(condition):
        if operator(one) == "=":
            found.add(column_of(one.lexpr) or "")
        elif is_a(one, ast.NullTest) and one.nulltesttype == enums.NullTestType.IS_NULL:
            found.add(column_of(one.arg) or "")
    return frozenset(found)


def columns_in(condition: Any) -> frozenset[str]:
    """The columns that an index condition speaks of; an expression is ``""``."""
    found = (column_of(node) for node in walk(condition) if is_a(node, ast.ColumnRef))
    return frozenset(name for name in found if name) or frozenset(("",))


def parameters_in(condition: Any) -> frozenset[int]:
    """The numbers of the statement's parameters in an index condition."""
    return frozenset(node.number for node in walk(condition) if is_a(node, ast.ParamRef))


def binds_leading_column(access: Access, index: Index) -> bool:
    """Whether a scan reads one stretch of an index, however large the table grows.

    Only a B-tree has an order that a condition on other columns leaves in pieces.
    """
    if index.method != "btree":
        return access.condition is not None
    return index.columns[0] in bound_columns(access.condition)
