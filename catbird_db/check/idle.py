"""`idle`: what is said in vain, as it is always true, always false, or changes nothing.

Nobody writes that on purpose: behind it is a mistaken column, operator or kind of join.
"""

from collections.abc import Iterator
from typing import Any

from pglast import enums

from .expressions import walk
from .facts import Facts, of_rows, term
from .finding import Finding
from .levels import ColumnOf, Expression, Level, NullTest, Operation, Relation
from .scope import Unresolved, resolve
from .subject import Catalog, Subject, Table
from .syntax import beginning, kind_of_node

RULE = "idle"


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """What a statement could as well not say."""
    yield from _without_effect(subject)
    yield from _orders(subject)
    try:
        statement = resolve(subject.tree, catalog)
    except Unresolved:  # `tenant` says so
        return
    for level in statement.levels:
        facts = of_rows(level)
        for condition in facts.conditions:
            if why := _always(condition, facts):
                message, mend = why
                yield subject.at(_place(condition), RULE, message, mend)
        yield from _outer_joins(subject, level, facts)


def _always(condition: Expression, facts: Facts) -> tuple[str, str] | None:
    match condition:
        case NullTest(arguments=(ColumnOf() as column,)) if _is_never_null(column):
            truth = "false" if condition.is_null else "true"
            says = f"{_written(column)} is never null, so this is always {truth}"
            return says, "the column that may be null, or nothing"
        case NullTest(is_null=True, arguments=(ColumnOf() as column,)) if facts.needs(column):
            says = f"another condition here is true only where {_written(column)} is not null"
            return says, "one of the two"
        case Operation(operator="<>" | "<" | ">"):
            left, right = map(term, condition.arguments)
            if left is not None and right is not None and right in facts.same(left):
                return "the other conditions make both sides the same: this is never true", "="
        case Operation(operator="=" | "<=" | ">=", arguments=(left, right)) if left == right:
            return "this compares a thing with itself", "what it was to be compared with"
        case _:
            pass
    return None


def _is_never_null(column: ColumnOf) -> bool:
    relation = column.relation
    if not isinstance(relation.source, Table) or relation.nullable:
        return False
    found = relation.source.columns.get(column.name)
    return found is not None and found.not_null


def _outer_joins(subject: Subject, level: Level, facts: Facts) -> Iterator[Finding]:
    for relation in level.relations:
        if relation.nullable and relation in facts.present and not _inside(relation, level):
            yield subject.at(
                relation.location,
                RULE,
                f"a condition refuses the nulls that the outer join puts in place of {relation}",
                "JOIN, or that condition in its ON",
                relation.width,
            )


def _inside(relation: Relation, level: Level) -> bool:
    """A row that an INSERT or UPDATE makes is no side of a join."""
    return relation is level.target or relation is level.old


def _without_effect(subject: Subject) -> Iterator[Finding]:
    nodes = list(map(kind_of_node, walk(subject.tree)))
    effects = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "LockingClause", "FuncCall")
    if subject.statement.mode == "exec" and not any(one in nodes for one in effects):
        message = f"{subject.statement.name} gives nothing back, and neither writes nor locks"
        yield subject.at_header("name", RULE, message, "FOR UPDATE, or another mode")


def _orders(subject: Subject) -> Iterator[Finding]:
    """ORDER BY in a sub-select: but for INSERT and ARRAY (...), what reads that keeps no order.

    It may be the order of locks.
    """
    kept = [node.selectStmt for node in walk(subject.tree) if kind_of_node(node) == "InsertStmt"]
    kept += [
        node.subselect
        for node in walk(subject.tree)
        if kind_of_node(node) == "SubLink" and node.subLinkType == enums.SubLinkType.ARRAY_SUBLINK
    ]
    for node in walk(subject.tree):
        if kind_of_node(node) != "SelectStmt" or not node.sortClause:
            continue
        if node is subject.tree or node.limitCount is not None or node.distinctClause:
            continue
        if any(node is one for one in kept) or _waits(node):
            continue
        message = "this order is not kept: nothing takes the first of these rows"
        mend = "LIMIT behind it, or no ORDER BY here"
        yield subject.at(beginning(node.sortClause), RULE, message, mend)


def _waits(query: Any) -> bool:
    """Who waits for locks takes them in order; who skips those that are held, does not wait."""
    skips = enums.LockWaitPolicy.LockWaitSkip
    return any(one.waitPolicy != skips for one in query.lockingClause or ())


def _place(condition: Expression) -> int:
    inside = [_place(one) for one in condition.inside]
    return min((place for place in (condition.location, *inside) if place >= 0), default=0)


def _written(column: ColumnOf) -> str:
    return f"{column.relation.alias}.{column.name}"
