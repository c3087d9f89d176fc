"""Where a statement's parameters meet columns, and where a None among them would go.

By names and shapes alone: an alias that means several things in one statement means nothing here,
and what is not understood gives no answer rather than a wrong one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from pglast import ast, enums

from .expressions import Path, conjuncts, each, is_a, walk, walk_paths, without_casts
from .sources import alias_of_item, equalities
from .subject import Catalog, Column, Subject, Table
from .syntax import beginning


@dataclass(frozen=True, slots=True)
class Meeting:
    """A parameter (or an element of one) or a constant, that is compared with a column or stored in it."""

    value: Any  # its node
    table: Table
    column: Column
    how: Literal["compared", "stored"]
    location: int  # of the value; of what is beside it, as constants do not know theirs

    @property
    def number(self) -> int:
        """Of a parameter."""
        return self.value.number


def meetings(subject: Subject, catalog: Catalog) -> Iterator[Meeting]:
    """Those of parameters."""
    return (one for one in _meetings(subject, catalog) if is_a(one.value, ast.ParamRef))


def constants(subject: Subject, catalog: Catalog) -> Iterator[Meeting]:
    """Those of constants."""
    return (one for one in _meetings(subject, catalog) if is_a(one.value, ast.A_Const))


def _meetings(subject: Subject, catalog: Catalog) -> Iterator[Meeting]:
    """All that can be told by names: also of what goes through unnest, WITH and sub-selects."""
    names = _Names(subject.tree, catalog)
    for node in walk(subject.tree):
        if is_a(node, ast.A_Expr) and node.kind in _COMPARING:
            yield from names.compared(node.lexpr, node.rexpr)
        elif is_a(node, ast.InsertStmt, ast.UpdateStmt):
            yield from names.stored(node)


_KIND = enums.A_Expr_Kind
_COMPARING = (
    *(_KIND.AEXPR_OP, _KIND.AEXPR_OP_ANY, _KIND.AEXPR_OP_ALL, _KIND.AEXPR_IN),
    *(_KIND.AEXPR_DISTINCT, _KIND.AEXPR_NOT_DISTINCT, _KIND.AEXPR_BETWEEN),
)


class _Names:
    """What the aliases of a statement stand for."""

    def __init__(self, tree: Any, catalog: Catalog) -> None:
        self._tables: dict[str, Table] = {}
        self._derived: dict[str, _Derived] = {}
        queries: dict[str, Any] = {}
        for node in walk(tree):
            if is_a(node, ast.CommonTableExpr):
                queries[node.ctename] = node
        for node, path in walk_paths(tree):
            if _is_derived(node):
                self._derived[node.alias.aliasname] = _derived(node)
            elif is_a(node, ast.RangeVar) and path[-1][1] != "lockedRels":  # FOR UPDATE OF alias
                alias = alias_of_item(node)
                if node.relname in queries:
                    self._derived[alias] = _derived(queries[node.relname])
                elif node.relname in catalog.tables:
                    self._tables[alias] = catalog.tables[node.relname]
        for alias, several in _meanings(tree).items():
            if len(several) > 1:
                self._tables.pop(alias, None)
                self._derived.pop(alias, None)

    def compared(self, left: Any, right: Any) -> Iterator[Meeting]:
        left, right = without_casts(left), without_casts(right)
        if is_a(left, ast.RowExpr) and is_a(right, ast.RowExpr):
            for one, other in zip(left.args, right.args, strict=False):
                yield from self.compared(one, other)
        else:
            for one, other in product(each(left), each(right)):
                for column, value in ((one, other), (other, one)):
                    if found := self._column(without_casts(column)):
                        yield from self._meet(found, value, "compared", beginning(column))

    def stored(self, statement: Any) -> Iterator[Meeting]:
        table = self._tables.get(alias_of_item(statement.relation))
        for name, value in assignments(statement, table):
            if table and name in table.columns:
                place = (table, table.columns[name])
                yield from self._meet(place, value, "stored", statement.relation.location)

    def _meet(
        self,
        place: tuple[Table, Column],
        value: Any,
        how: Literal["compared", "stored"],
        beside: int,
    ) -> Iterator[Meeting]:
        for one in self._values(value, seen=set()):
            yield Meeting(one, *place, how, getattr(one, "location", beside))

    def _values(self, value: Any, seen: set[tuple[str, str]]) -> Iterator[Any]:
        """The parameters and constants whose value, or an element of it, this may be."""
        value = without_casts(value)
        if is_a(value, ast.ParamRef, ast.A_Const):
            yield value
        elif is_a(value, ast.CoalesceExpr):
            for one in value.args:
                yield from self._values(one, seen)
        elif is_a(value, ast.A_ArrayExpr):
            for one in value.elements or ():
                yield from self._values(one, seen)
        elif is_a(value, ast.CaseExpr):
            for one in (*(when.result for when in value.args), value.defresult):
                yield from self._values(one, seen)
        elif is_a(value, ast.ColumnRef) and _qualified(value) not in seen:
            alias, name = _qualified(value)
            seen.add((alias, name))
            for source in self._derived.get(alias, {}).get(name, ()):
                yield from self._values(source, seen)

    def _column(self, node: Any) -> tuple[Table, Column] | None:
        if not is_a(node, ast.ColumnRef):
            return None
        alias, name = _qualified(node)
        tables = (
            [self._tables[alias]] if alias in self._tables else [] if alias else self._having(name)
        )
        found = [(table, table.columns[name]) for table in tables if name in table.columns]
        return found[0] if len(found) == 1 else None

    def _having(self, name: str) -> list[Table]:
        distinct = {table.name: table for table in self._tables.values() if name in table.columns}
        return list(distinct.values())


def _meanings(tree: Any) -> dict[str, set[str]]:
    """What each alias stands for, wherever in a statement it stands."""
    found: dict[str, set[str]] = {}
    for node, path in walk_paths(tree):
        if _is_derived(node):
            found.setdefault(node.alias.aliasname, set()).add(_meaning(node))
        elif is_a(node, ast.RangeVar) and path[-1][1] != "lockedRels":  # FOR UPDATE OF alias
            found.setdefault(alias_of_item(node), set()).add(_meaning(node))
    return found


def _meaning(relation: Any) -> str:
    """A name for it: that of a table or a WITH query; a sub-select is one of its own."""
    if is_a(relation, ast.CommonTableExpr):
        return relation.ctename
    return relation.relname if is_a(relation, ast.RangeVar) else f"{id(relation)}"


def _is_derived(node: Any) -> bool:
    return is_a(node, ast.RangeSubselect, ast.RangeFunction) and node.alias is not None


_Derived = dict[
    str, list[Any]
]  # what each column of a WITH query, a sub-select, an unnest is made of


def _derived(node: Any) -> _Derived:
    found: _Derived = {}
    if is_a(node, ast.RangeFunction):
        call = node.functions[0][0]
        if is_a(call, ast.FuncCall) and call.funcname[-1].sval == "unnest":
            names = [one.sval for one in node.alias.colnames or ()] or [node.alias.aliasname]
            found |= {name: [one] for name, one in zip(names, call.args, strict=False)}
        return found
    if is_a(node, ast.CommonTableExpr):
        query, given = node.ctequery, node.aliascolnames or ()
    else:
        query, given = node.subquery, node.alias.colnames or ()
    names = [one.sval for one in given]
    for select in _selects(query):
        targets = select.targetList or ()
        rows = select.valuesLists or (tuple(target.val for target in targets),)
        own = [_output_name(target) for target in targets] or [
            f"column{number}" for number in range(1, len(rows[0]) + 1)
        ]
        names += own[len(names) :]  # the first SELECT's
        for row in rows:
            for name, value in zip(names, row, strict=False):
                found.setdefault(name, []).append(value)
    return found


def assignments(statement: Any, table: Table | None) -> Iterator[tuple[str, Any]]:
    """Each column that a statement writes, with what it writes there."""
    if is_a(statement, ast.UpdateStmt):
        yield from _set(statement.targetList)
        return
    if statement.cols:
        names = [target.name for target in statement.cols]
    else:
        names = list(table.columns) if table else []
    for select in _selects(statement.selectStmt):
        for values in select.valuesLists or (
            tuple(target.val for target in select.targetList or ()),
        ):
            yield from zip(names, values, strict=False)
    if statement.onConflictClause:
        yield from _set(statement.onConflictClause.targetList)


def _set(targets: tuple[Any, ...] | None) -> Iterator[tuple[str, Any]]:
    for target in targets or ():
        yield target.name, target.val


def _selects(query: Any) -> Iterator[Any]:
    """The SELECTs whose rows a query gives: both sides of a UNION."""
    if is_a(query, ast.SelectStmt):
        if query.op == enums.SetOperation.SETOP_NONE:
            yield query
        else:
            yield from _selects(query.larg)
            yield from _selects(query.rarg)


def _qualified(node: Any) -> tuple[str, str]:
    names = [field.sval if is_a(field, ast.String) else "*" for field in node.fields]
    return (names[-2] if len(names) > 1 else ""), names[-1]


def _output_name(target: Any) -> str:
    if target.name:
        return target.name
    value = without_casts(target.val)
    return _qualified(value)[1] if is_a(value, ast.ColumnRef) else ""


# ---- None


@dataclass(frozen=True, slots=True)
class Dead:
    """Where a None makes a condition never true, a column refuse it, or a LIMIT vanish."""

    number: int
    location: int
    why: Literal["never true", "refused", "no limit"]
    column: str = ""


def deaths(subject: Subject, catalog: Catalog, numbers: frozenset[int]) -> Iterator[Dead]:
    """Where these parameters stand so that None cannot be what their caller means."""
    for node, path in walk_paths(subject.tree):
        if not is_a(node, ast.ParamRef) or node.number not in numbers:
            continue
        if found := _Flow(subject.tree, catalog, node.number, node.location).death(node, path):
            yield found


class _Flow:
    """Where the value of a parameter goes: outwards, and on through WITH queries and sub-selects."""

    def __init__(self, tree: Any, catalog: Catalog, number: int, location: int) -> None:
        self._tree = tree
        self._catalog = catalog
        self._number = number
        self._location = location
        self._columns: set[tuple[str, str]] = set()  # that have the value, under their aliases

    def death(self, value: Any, path: Path) -> Dead | None:
        """Follow what NULL does, outwards, to where it does harm or is taken care of.

        Of a column that has the parameter's value only what a table refuses is told: what a join
        makes of it may be meant.
        """
        child: Any = value
        for depth, (node, attribute) in reversed([*enumerate(path)]):
            if self._takes_care(node, attribute, child):
                return None
            if attribute in _CONDITIONS:
                return None if self._columns or self._guarded(path) else self._dead("never true")
            if attribute in ("limitCount", "limitOffset"):
                return None if self._columns else self._dead("no limit")
            if is_a(node, ast.ResTarget) or attribute == "valuesLists":
                return None if self._guarded(path) else self._shown(child, path[: depth + 1])
            child = node
        return None

    def _dead(self, why: Literal["never true", "refused", "no limit"], column: str = "") -> Dead:
        return Dead(self._number, self._location, why, column)

    def _shown(self, value: Any, path: Path) -> Dead | None:
        """Of what a SELECT, VALUES or SET gives: what takes it."""
        for depth, (node, _) in reversed([*enumerate(path)]):
            if is_a(node, ast.InsertStmt, ast.UpdateStmt):
                column = _column_written(node, value, self._catalog)
                refused = column is not None and column.not_null
                return self._dead("refused", column.name) if column and refused else None
            if is_a(node, ast.SubLink):
                scalar = node.subLinkType == enums.SubLinkType.EXPR_SUBLINK
                return self.death(node, path[:depth]) if scalar else None
            if is_a(node, ast.CommonTableExpr, ast.RangeSubselect):
                name = next((key for key, made in _derived(node).items() if _has(made, value)), "")
                return self._read(node, name)
        return None

    def _read(self, relation: Any, name: str) -> Dead | None:
        """Of a column of a WITH query or a sub-select: whoever reads it."""
        for alias, several in _meanings(self._tree).items():
            if several != {_meaning(relation)} or not name or (alias, name) in self._columns:
                continue
            self._columns.add((alias, name))
            for node, path in walk_paths(self._tree):
                is_it = is_a(node, ast.ColumnRef) and self._is_column(node, path, alias, name)
                if is_it and (found := self.death(node, path)):
                    return found
        return None

    def _is_column(self, node: Any, path: Path, alias: str, name: str) -> bool:
        """Also without its alias, where nothing else stands beside it."""
        if _qualified(node) == (alias, name):
            return True
        levels = (one for one, _ in reversed(path) if is_a(one, ast.SelectStmt))
        items = getattr(next(levels, None), "fromClause", None) or ()
        alone = [alias_of_item(one) for one in items] == [alias]
        return alone and _qualified(node) == ("", name)

    def _is_it(self, node: Any) -> bool:
        node = without_casts(node)
        if is_a(node, ast.ColumnRef):
            return _qualified(node) in self._columns
        return is_a(node, ast.ParamRef) and node.number == self._number

    def _takes_care(self, node: Any, attribute: str, child: Any) -> bool:
        """Whether a NULL below ``node`` is no longer one above it, or is looked for."""
        if is_a(node, ast.MinMaxExpr, ast.NullTest, ast.BooleanTest, ast.RangeFunction, ast.SortBy):
            return True
        if is_a(node, ast.CoalesceExpr):
            return node.args[-1] is not child
        if is_a(node, ast.A_Expr):
            return node.kind in (_KIND.AEXPR_DISTINCT, _KIND.AEXPR_NOT_DISTINCT)
        if is_a(node, ast.BoolExpr):
            return any(self._tests_null(one) for one in node.args)
        if is_a(node, ast.CaseWhen):
            return attribute == "expr"
        if is_a(node, ast.CaseExpr):
            return attribute == "arg" or any(self._tests_null(one) for one in walk(node))
        return is_a(node, ast.FuncCall) and node.funcname[-1].sval in _NULL_TOLERANT

    def _tests_null(self, node: Any) -> bool:
        return is_a(node, ast.NullTest) and self._is_it(node.arg)

    def _guarded(self, path: Path) -> bool:
        """Whether all this happens only ``WHERE :parameter IS NOT NULL``, or where a column that has
        its value is equal to something.
        """
        return any(self._refuses_null(one) for node, _ in path for one in _conditions(node))

    def _refuses_null(self, condition: Any) -> bool:
        if self._tests_null(condition):
            return condition.nulltesttype == enums.NullTestType.IS_NOT_NULL
        sides = (one for pair in equalities(condition) for one in pair)
        return any(is_a(side, ast.ColumnRef) and self._is_it(side) for side in sides)


_CONDITIONS = ("whereClause", "havingClause", "quals", "agg_filter")
_NULL_TOLERANT = (
    *(
        "concat",
        "concat_ws",
        "format",
        "num_nulls",
        "num_nonnulls",
        "array_append",
        "array_prepend",
    ),
    *("json_build_object", "jsonb_build_object", "json_build_array", "jsonb_build_array", "unnest"),
)


def _conditions(level: Any) -> Iterator[Any]:
    """What is true of each row of a level: WHERE, and ON of its inner joins."""
    yield from conjuncts(getattr(level, "whereClause", None))
    items = [*(getattr(level, "fromClause", None) or ())]
    while items:
        item = items.pop()
        if is_a(item, ast.JoinExpr) and item.jointype == enums.JoinType.JOIN_INNER:
            yield from conjuncts(item.quals)
            items += (item.larg, item.rarg)


def _column_written(statement: Any, value: Any, catalog: Catalog) -> Column | None:
    """The column of an INSERT or UPDATE that takes a value, if one does."""
    table = catalog.tables.get(statement.relation.relname)
    written = (name for name, one in assignments(statement, table) if one is value)
    return table.columns.get(next(written, "")) if table else None


def _has(values: list[Any], value: Any) -> bool:
    return any(one is value for one in values)


# ---- types that PostgreSQL had to guess


def is_guessed(subject: Subject, number: int) -> bool:
    """Whether nothing in a statement tells a parameter's type, so that it is taken for text."""
    return not any(
        _tells_type(path, node)
        for node, path in walk_paths(subject.tree)
        if is_a(node, ast.ParamRef) and node.number == number
    )


def _tells_type(path: Path, parameter: Any) -> bool:
    child: Any = parameter
    places: list[int] = []  # in the rows that stand around it
    for node, attribute in reversed(path):
        if is_a(node, ast.RowExpr):
            places.append(next(at for at, one in enumerate(node.args) if one is child))
        elif is_a(node, ast.A_Expr):
            return _has_type(_counterpart(node, attribute, places))
        elif is_a(node, ast.CoalesceExpr, ast.MinMaxExpr):
            return any(_has_type(one) for one in node.args if one is not child)
        elif is_a(node, ast.A_ArrayExpr):
            return any(_has_type(one) for one in node.elements if one is not child)
        elif is_a(node, ast.CaseWhen, ast.CaseExpr, ast.NullTest):
            return False
        elif is_a(node, ast.ResTarget):
            return _is_written(path)
        else:  # a cast, an argument of a function, a condition, a LIMIT, VALUES
            return True
        child = node
    return True


def _counterpart(comparison: Any, attribute: str, places: list[int]) -> Any:
    other = comparison.rexpr if attribute == "lexpr" else comparison.lexpr
    for place in reversed(places):
        if not is_a(other, ast.RowExpr) or place >= len(other.args):
            return None
        other = other.args[place]
    return other


def _has_type(node: Any) -> bool:
    if is_a(node, ast.A_Const):
        return not node.isnull and not is_a(node.val, ast.String)
    if is_a(node, ast.CoalesceExpr, ast.MinMaxExpr):
        return any(_has_type(one) for one in node.args)
    return node is not None and not is_a(node, ast.ParamRef)


def _is_written(path: Path) -> bool:
    """Whether the SELECT list, or the SET, that ends ``path`` is what an INSERT or UPDATE writes."""
    for node, attribute in reversed(path):
        if is_a(node, ast.UpdateStmt, ast.OnConflictClause):
            return attribute == "targetList"
        if is_a(node, ast.InsertStmt):
            return True
        if is_a(node, ast.CommonTableExpr, ast.RangeSubselect, ast.SubLink):
            return False
    return False
