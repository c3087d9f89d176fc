"""Where the rows of a page come from: the tables that its key is a column of, branch by branch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, TypeAlias

from pglast import ast, enums

from .expressions import conjuncts, is_a, walk
from .sources import Column, alias_of_item, equalities, items_of, label, qualified
from .syntax import texts


@dataclass(frozen=True)
class Branch:
    """A SELECT that finds rows of a page in a table: where it names that, and its conditions."""

    relation: Any
    where: Any


Feed: TypeAlias = tuple[Branch, ...]
"""Branches that together feed a page: one, or those of a UNION."""

_MOST_FEEDS = 64


def feeds(tree: Any, column: str) -> list[Feed]:
    """The ways to read where a result column comes from, as ``c.id`` is also ``mine.id`` where
    the two are equal; none where it is made by what is not understood.
    """
    queries = {node.ctename: node for node in walk(tree) if is_a(node, ast.CommonTableExpr)}
    names = _output_names(tree)
    if column not in names:
        return []
    return list(islice(_of_query(tree, names.index(column), queries, ()), _MOST_FEEDS))


def _of_query(
    tree: Any, at: int, queries: Mapping[str, Any], inside: tuple[str, ...]
) -> Iterator[Feed]:
    """``inside``: WITH queries that this is part of; one that reads itself is not followed."""
    if not is_a(tree, ast.SelectStmt):
        return
    if tree.op != enums.SetOperation.SETOP_NONE:
        sides = [
            list(islice(_of_query(side, at, queries, inside), _MOST_FEEDS))
            for side in (tree.larg, tree.rarg)
        ]
        yield from (left + right for left, right in product(*sides))
    elif at < len(tree.targetList or ()):
        items = list(items_of(tree.fromClause))
        for alias, name in _same(qualified(tree.targetList[at].val), tree):
            for item in items:
                if alias_of_item(item) == alias:
                    yield from _of_item(item, name, tree, queries, inside)


def _of_item(
    item: Any, name: str, level: Any, queries: Mapping[str, Any], inside: tuple[str, ...]
) -> Iterator[Feed]:
    given = texts(item.alias.colnames) if item.alias else ()
    if is_a(item, ast.RangeSubselect):
        query = item.subquery
    elif is_a(item, ast.RangeVar) and item.relname in queries and not item.schemaname:
        if item.relname in inside:
            return
        inside = (*inside, item.relname)
        query = queries[item.relname].ctequery
        given = given or texts(queries[item.relname].aliascolnames)
    elif is_a(item, ast.RangeVar):
        yield (Branch(item, level.whereClause),)
        return
    else:
        return
    names = [*given, *_output_names(query)[len(given) :]]
    if name in names:
        yield from _of_query(query, names.index(name), queries, inside)


def _same(column: Column | None, level: Any) -> list[Column]:
    """A column of a level, and those that its conditions make equal to it."""
    if column is None:
        return []
    found = [column]
    joins = (node.quals for node in _joins(level.fromClause))
    conditions = [one for where in (level.whereClause, *joins) for one in conjuncts(where)]
    pairs = [
        (left, right)
        for one in conditions
        for a, b in equalities(one)
        if (left := qualified(a)) and (right := qualified(b))
    ]
    for one in found:
        for left, right in pairs:
            found += [
                other
                for same, other in ((left, right), (right, left))
                if same == one and other not in found
            ]
    return found


def _joins(items: Any) -> Iterator[Any]:
    for item in items or ():
        if is_a(item, ast.JoinExpr):
            yield item
            yield from _joins((item.larg, item.rarg))


def _output_names(tree: Any) -> list[str]:
    """Of a UNION, those of its first SELECT."""
    if not is_a(tree, ast.SelectStmt):
        return []
    if tree.op != enums.SetOperation.SETOP_NONE:
        return _output_names(tree.larg)
    return [target.name or label(target.val) for target in tree.targetList or ()]
