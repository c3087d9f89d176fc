"""Expressions as PostgreSQL writes them back, in its catalogs and its plans, read into trees."""

import re
from collections.abc import Iterator
from typing import Any, cast

import pglast
from pglast import ast, enums

# In a plan, what a sub-select gives has no syntax: (InitPlan 1).col1, EXISTS(SubPlan 2),
# (ANY (a = (hashed SubPlan 3).col1)).
_SUBPLAN = re.compile(r"(EXISTS)?\((?:hashed |rescan )*(?:InitPlan|SubPlan) \d+\)(?:\.col\d+)?")
_OF_SUBPLAN = re.compile(r"(?<=\()(?:ANY|ALL)(?= \()")


def is_a(node: Any, *kinds: type[ast.Node]) -> bool:
    """As isinstance, but the node stays Any: what pglast may leave out, a given place has."""
    return isinstance(node, kinds)


def parse_expression(text: str) -> Any:
    """The tree of one boolean expression.

    Raises:
        pglast.Error: it is no SQL.
    """
    sql = _OF_SUBPLAN.sub("subplan", _SUBPLAN.sub("NULL", text))
    select: Any = pglast.parse_sql(f"SELECT WHERE {sql}")[0].stmt
    return select.whereClause


def walk(node: Any) -> Iterator[Any]:
    """A node, or each of a tuple of nodes, and all below it, in the order in which they are written."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple):
            waiting.extend(reversed(cast("tuple[Any, ...]", one)))
        elif is_a(one, ast.Node):
            yield one
            waiting.extend([getattr(one, attribute) for attribute in one][::-1])


Path = tuple[tuple[Any, str], ...]


def walk_paths(node: Any, path: Path = ()) -> Iterator[tuple[Any, Path]]:
    """As `walk`, each node with what it stands in: the nodes above it and their attributes."""
    for one in each(node):
        if is_a(one, ast.Node):
            yield one, path
            for attribute in one:
                yield from walk_paths(getattr(one, attribute), (*path, (one, attribute)))


def each(nodes: Any) -> tuple[Any, ...]:
    """Of a tuple of nodes all, and of a node itself; of a tuple in a tuple too."""
    if isinstance(nodes, tuple):
        return tuple(found for one in cast("tuple[Any, ...]", nodes) for found in each(one))
    return (nodes,)


def conjuncts(node: Any) -> Iterator[Any]:
    """The conditions that must all hold."""
    if is_a(node, ast.BoolExpr) and node.boolop == enums.BoolExprType.AND_EXPR:
        for one in node.args:
            yield from conjuncts(one)
    elif node is not None:
        yield node


def shape(node: Any) -> Any:
    """What two expressions have in common that differ in their tables' aliases only."""
    if is_a(node, ast.ColumnRef):
        return column_of(node)
    if is_a(node, ast.Node):
        parts = ((name, getattr(node, name)) for name in node if name != "location")
        return type(node).__name__, *((name, shape(part)) for name, part in parts)
    return tuple(map(shape, each(node))) if isinstance(node, tuple) else node


def without_casts(node: Any) -> Any:
    while is_a(node, ast.TypeCast, ast.CollateClause):
        node = node.arg
    return node


def column_of(node: Any) -> str | None:
    """The name of the column, without its table, if that is what a node is, perhaps cast."""
    node = without_casts(node)
    if is_a(node, ast.ColumnRef) and is_a(node.fields[-1], ast.String):
        return node.fields[-1].sval
    return None


def operator(node: Any) -> str:
    """``=`` of ``a = b`` and of ``a = ANY (b)``; "" if it is neither."""
    kinds = (enums.A_Expr_Kind.AEXPR_OP, enums.A_Expr_Kind.AEXPR_OP_ANY, enums.A_Expr_Kind.AEXPR_IN)
    return node.name[-1].sval if is_a(node, ast.A_Expr) and node.kind in kinds else ""


def admitted_values(text: str) -> dict[str, tuple[str, ...]]:
    """For each column that an expression limits to a list of values, those values.

    That is ``col IN ('a', 'b')`` and what says the same, alone or joined to others by AND.
    """
    found: dict[str, tuple[str, ...]] = {}
    for condition in conjuncts(parse_expression(text)):
        if limited := _limited(condition):
            found.setdefault(*limited)
    return found


def _limited(condition: Any) -> tuple[str, tuple[str, ...]] | None:
    if is_a(condition, ast.BoolExpr) and condition.boolop == enums.BoolExprType.OR_EXPR:
        return _limited_by_any(condition.args)
    if operator(condition) != "=":
        return None
    column, given = column_of(condition.lexpr), without_casts(condition.rexpr)
    values = [
        _constant(one) for one in (given.elements if is_a(given, ast.A_ArrayExpr) else [given])
    ]
    known = tuple(value for value in values if value is not None)
    return (column, known) if column and len(known) == len(values) else None


def _limited_by_any(conditions: tuple[Any, ...]) -> tuple[str, tuple[str, ...]] | None:
    columns: set[str | None] = set()
    values: list[str] = []
    for one in conditions:
        if is_a(one, ast.NullTest) and one.nulltesttype == enums.NullTestType.IS_NULL:
            columns.add(column_of(one.arg))
        elif limited := _limited(one):
            columns.add(limited[0])
            values += limited[1]
        else:
            return None
    column = columns.pop()
    return None if columns or column is None or not values else (column, tuple(values))


def _constant(node: Any) -> str | None:
    node = without_casts(node)
    if not is_a(node, ast.A_Const) or node.isnull:
        return None
    if is_a(node.val, ast.String):
        return node.val.sval
    return str(node.val.ival or 0) if is_a(node.val, ast.Integer) else None
