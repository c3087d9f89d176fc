"""How many rows a query gives, and what tells them apart: for `unbounded` and `order`.

A query joins *sources*: tables, sub-selects, WITH queries, functions. Each has *keys*, sets of its
columns of which no two of its rows have the same values. From what is known of some columns follows
what is known of others: an equality carries it over, and who knows a key knows the row. So

- an order is total if the columns it names, with those that are constant, lead to every source;
- rows are bounded if those columns that have few values (of an array parameter, of a LIMITed
  sub-select) lead to every source.

What is not understood has no key and no bound, and so proves nothing.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from pglast import enums

from .expressions import conjuncts, parse_expression, walk
from .sources import (
    FROM_ARRAYS,
    SETS,
    Column,
    ConditionalKey,
    Join,
    Key,
    Rows,
    Source,
    aggregates,
    alias_of_item,
    below,
    column_in,
    constant,
    equalities,
    existences,
    function_name,
    is_all,
    is_constant,
    is_from_arrays,
    is_one,
    label,
    literal,
    one_of_few,
    qualified,
    refuses_null,
    set_returning,
    spelled,
    truth,
)
from .subject import Catalog
from .syntax import kind_of_node, texts

_ONE_ROW: tuple[Key, ...] = (frozenset(),)
_MOST_COMBINATIONS = 64


@dataclass(frozen=True)
class Limited:
    """A query with a LIMIT: whether its ORDER BY says which rows these are."""

    tree: Any
    one_row: bool
    total: bool
    undetermined: tuple[str, ...]


def of(tree: Any, catalog: Catalog) -> Rows:
    """What is known of the rows of a statement, and of its ORDER BY."""
    return _Reader(catalog).query(tree, {})


def limited(tree: Any, catalog: Catalog) -> Iterator[Limited]:
    """Each query of a statement that has a LIMIT."""
    reader = _Reader(catalog)
    reader.query(tree, {})
    yield from reader.limited.values()


class _Reader:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.limited: dict[int, Limited] = {}
        self.numbered = 0

    # ---- queries

    def query(self, tree: Any, queries: Mapping[str, Rows]) -> Rows:
        """``queries``: the WITH queries that it sees."""
        queries = self._with(tree, queries)
        match kind_of_node(tree):
            case "SelectStmt":
                found = self._select(tree, queries)
            case "InsertStmt":
                found = self._insert(tree, queries)
            case "UpdateStmt" | "DeleteStmt":
                found = self._change(tree, queries)
            case _:
                found = Rows()
        return found

    def _with(self, tree: Any, queries: Mapping[str, Rows]) -> Mapping[str, Rows]:
        clause = getattr(tree, "withClause", None)
        if clause is None:
            return queries
        seen = dict(queries)
        for one in clause.ctes:
            if clause.recursive:
                seen[one.ctename] = Rows()  # of itself, a query knows nothing
            rows = self.query(one.ctequery, seen)
            names = texts(one.aliascolnames)
            self.numbered += 1
            seen[one.ctename] = replace(_renamed(rows, names), number=self.numbered)
        return seen

    def _select(self, tree: Any, queries: Mapping[str, Rows]) -> Rows:
        if tree.op != enums.SetOperation.SETOP_NONE:
            found = self._combined(tree, queries)
        elif tree.valuesLists:
            found = Rows(
                tuple(f"column{n + 1}" for n in range(len(tree.valuesLists[0]))), bounded=True
            )
            if len(tree.valuesLists) == 1:
                found = replace(found, keys=_ONE_ROW)
        else:
            found = self._level(tree, queries)
        if tree.limitCount is None or is_all(tree.limitCount):
            return found
        if tree.limitOption == enums.LimitOption.LIMIT_OPTION_WITH_TIES:
            return found
        self.limited[id(tree)] = Limited(tree, found.one_row, found.total, found.undetermined)
        keys = _ONE_ROW if is_one(tree.limitCount) else found.keys
        return replace(found, keys=keys, bounded=True)

    def _combined(self, tree: Any, queries: Mapping[str, Rows]) -> Rows:
        left, right = self.query(tree.larg, queries), self.query(tree.rarg, queries)
        right = _renamed(right, left.columns)
        keys: tuple[Key, ...] = ()
        if not tree.all:
            keys = (frozenset(left.columns),)
        if tree.op != enums.SetOperation.SETOP_UNION:  # what is left of the left side
            keys += left.keys
            bounded = left.bounded
        else:
            bounded = left.bounded and right.bounded
            if left.needs & right.excludes or right.needs & left.excludes:
                keys += tuple(a | b for a in left.keys for b in right.keys)
            for name, value in left.constants.items():
                other = right.constants.get(name)
                if None not in (value, other) and value != other:
                    keys += tuple(a | b | {name} for a in left.keys for b in right.keys)
        constants = {
            name: value
            for name, value in left.constants.items()
            if value is not None and right.constants.get(name) == value
        }
        ordered = {_ordered_by_name(one.node, left.columns) for one in tree.sortClause or ()}
        total = any(key <= ordered | constants.keys() for key in keys)
        return Rows(
            columns=left.columns,
            keys=keys,
            constants=constants,
            bounded=bounded,
            total=total,
            undetermined=() if total else ("its branches",),
        )

    def _level(self, tree: Any, queries: Mapping[str, Rows]) -> Rows:
        join = self._join(tree.fromClause, tree.whereClause, queries)
        self._expressions((tree.targetList, tree.whereClause, tree.havingClause), queries)
        outputs = _outputs(tree.targetList, join)
        found = self._result(join, outputs)
        if made := set_returning(tree.targetList):
            return replace(found, keys=(), bounded=found.bounded and made <= FROM_ARRAYS)
        if aggregates(tree.targetList) and not tree.groupClause:
            nothing = frozenset[int]()  # it gives a row all the same
            found = replace(found, keys=_ONE_ROW, bounded=True, total=True, undetermined=())
            return replace(found, needs=nothing, excludes=nothing)

        shown = {
            name: outputs[name] or _place(target.val, join, ())
            for name, target in zip(outputs, tree.targetList or (), strict=True)
        }
        columns, sources = join.known(
            _place(one.node, join, tree.targetList) for one in tree.sortClause or ()
        )
        total = not join.lacks(sources)
        if not total and not tree.lockingClause:  # rows that look the same may be swapped
            total = all(place in columns for place in shown.values()) and bool(shown)
        if one_of_each := tree.groupClause or _distinct_on(tree):
            total, keys = self._one_of_each(tree, one_of_each, join, columns, shown)
        else:
            keys = found.keys + ((frozenset(outputs),) if tree.distinctClause else ())
        return replace(
            found, keys=keys, total=total, undetermined=() if total else join.lacks(sources)
        )

    def _one_of_each(
        self, tree: Any, nodes: Any, join: Join, ordered: set[Column], shown: Mapping[str, Column]
    ) -> tuple[bool, tuple[Key, ...]]:
        """GROUP BY and DISTINCT ON: whether the order tells the rows apart, and by what one could."""
        inputs = {name for source in join.sources for name in source.rows.columns}  # come first
        wanted = {
            _place(one, join, () if label(one) in inputs else tree.targetList) for one in nodes
        }
        named = {place: name for name, place in shown.items()}
        constant, _ = join.known(())
        differing = {one for one in wanted if one not in constant or one[0] in join.nullable}
        keys = (frozenset(named[one] for one in differing),) if differing <= named.keys() else ()
        return wanted <= ordered, keys

    def _result(self, join: Join, outputs: Mapping[str, Column | None]) -> Rows:
        constant, single = join.known(())
        _, few = join.known((), bounded=True)
        names = {name: column for name, column in outputs.items() if column}
        keys = _ONE_ROW if not join.lacks(single) else tuple(_keys(join, constant, single, names))
        return Rows(
            columns=tuple(outputs),
            keys=keys,
            constants={
                name: join.constant.get(column)
                for name, column in names.items()
                if column in constant and column[0] not in join.nullable
            },
            bounded=not join.lacks(few),
            needs=frozenset(join.needs),
            excludes=frozenset(join.excludes),
        )

    # ---- writes

    def _insert(self, tree: Any, queries: Mapping[str, Rows]) -> Rows:
        given = Rows(keys=_ONE_ROW, bounded=True)  # DEFAULT VALUES
        if tree.selectStmt:
            given = self.query(tree.selectStmt, queries)
        table = self._table(tree.relation)
        written = tuple(one.name for one in tree.cols or ())
        constants = dict(_renamed(given, written).constants)
        if (
            kind_of_node(tree.selectStmt) == "SelectStmt"
            and len(tree.selectStmt.valuesLists or ()) == 1
        ):
            values = dict(zip(written, tree.selectStmt.valuesLists[0], strict=False))
            constants = {name: literal(one) for name, one in values.items() if is_constant(one)}
        conflict = tree.onConflictClause
        if conflict and conflict.action == enums.OnConflictAction.ONCONFLICT_UPDATE:
            arbiter = {one.name for one in ((conflict.infer and conflict.infer.indexElems) or ())}
            constants = {name: one for name, one in constants.items() if name in arbiter}
            self._expressions((conflict.targetList, conflict.whereClause), queries)
        keys = _ONE_ROW if given.one_row else table.keys
        rows = replace(table, keys=keys, constants=constants, bounded=given.bounded)
        source = Source(alias_of_item(tree.relation), rows)
        join = Join([source], needs={*given.needs}, excludes={*given.excludes})
        return self._result(join, _outputs(_returning(tree), join))

    def _change(self, tree: Any, queries: Mapping[str, Rows]) -> Rows:
        """UPDATE and DELETE: each row of the table once at most, whatever it is joined to."""
        others = tree.fromClause if kind_of_node(tree) == "UpdateStmt" else tree.usingClause
        join = self._join((tree.relation, *(others or ())), tree.whereClause, queries)
        self._expressions((getattr(tree, "targetList", ()), tree.whereClause), queries)
        outputs = _outputs(_returning(tree), join)
        found = self._result(join, outputs)
        alias = alias_of_item(tree.relation)
        _, few = join.known((), bounded=True)
        constant, single = join.known(())
        changed = {one.name for one in getattr(tree, "targetList", ())}
        if alias in single:
            found = replace(found, keys=_ONE_ROW)
        else:
            others = {source.alias for source in join.sources} - {alias}
            named = {name: column for name, column in outputs.items() if column}
            keys = _keys(join, constant, others, named, but={(alias, name) for name in changed})
            found = replace(found, keys=tuple(keys))
        constants = {
            name: value
            for name, value in found.constants.items()
            if (outputs[name] or ("", ""))[1] not in changed
        }
        return replace(found, constants=constants, bounded=alias in few)

    # ---- sources

    def _join(self, items: Any, where: Any, queries: Mapping[str, Rows]) -> Join:
        join = Join()
        for item in items or ():
            self._item(item, join, queries)
        for condition in conjuncts(where):
            self._condition(condition, join)
            for sign, query in existences(condition, queries):
                (join.needs if sign else join.excludes).update(query)
        for source in join.sources:
            if source.alias not in join.nullable:
                join.needs |= {source.rows.number, *source.rows.needs} - {0}
                join.excludes |= source.rows.excludes
        self._conditional_keys(join)
        return join

    def _item(self, item: Any, join: Join, queries: Mapping[str, Rows]) -> None:
        match kind_of_node(item):
            case "JoinExpr":
                self._item(item.larg, join, queries)
                left = {source.alias for source in join.sources}
                self._item(item.rarg, join, queries)
                right = {source.alias for source in join.sources} - left
                self._expressions(item.quals, queries)
                if item.jointype != enums.JoinType.JOIN_INNER:
                    kept = {enums.JoinType.JOIN_LEFT: left, enums.JoinType.JOIN_RIGHT: right}
                    join.nullable |= (left | right) - kept.get(item.jointype, set())
                match item.jointype:
                    case enums.JoinType.JOIN_INNER:
                        for condition in conjuncts(item.quals):
                            self._condition(condition, join)
                    case enums.JoinType.JOIN_LEFT:
                        self._outer(item.quals, join, right)
                    case enums.JoinType.JOIN_RIGHT:
                        self._outer(item.quals, join, left)
                    case _:
                        pass
            case "RangeVar":
                rows = None if item.schemaname else queries.get(item.relname)
                columns = tuple(
                    one.sval for one in (item.alias.colnames if item.alias else ()) or ()
                )
                rows = _renamed(rows or self._table(item), columns)
                join.sources.append(Source(alias_of_item(item), rows))
            case "RangeSubselect":
                rows = self.query(item.subquery, queries)
                names = texts(item.alias.colnames) if item.alias else ()
                join.sources.append(self._lateral(item, _renamed(rows, names), join))
            case "RangeFunction":
                join.sources.append(self._lateral(item, self._function(item, queries), join))
            case _:
                join.sources.append(Source(alias_of_item(item), Rows()))

    def _lateral(self, item: Any, rows: Rows, join: Join) -> Source:
        beside = {source.alias for source in join.sources}
        named = {column for node in walk(item) if (column := qualified(node))}
        return Source(
            alias_of_item(item), rows, frozenset(one for one in named if one[0] in beside)
        )

    def _table(self, item: Any) -> Rows:
        name = f"{item.schemaname}.{item.relname}" if item.schemaname else item.relname
        table = self.catalog.tables.get(name) or self.catalog.tables.get(item.relname)
        if table is None:
            return Rows()
        unique = [index for index in table.indexes if index.unique and "" not in index.columns]
        keys: list[Key] = []
        conditional: list[ConditionalKey] = []
        for index in unique:
            nulls = {name for name in index.columns if not table.columns[name].not_null}
            if index.predicate or nulls:
                conditional.append((frozenset(index.columns), index.predicate, frozenset(nulls)))
            else:
                keys.append(frozenset(index.columns))
        return Rows(
            columns=tuple(table.columns),
            keys=tuple(keys),
            conditional_keys=tuple(conditional),
            bounded=table.small is not None,
        )

    def _function(self, item: Any, queries: Mapping[str, Rows]) -> Rows:
        calls = [call for call, _ in item.functions]
        names = texts(item.alias.colnames) if item.alias else ()
        if not names and item.alias:
            names = (item.alias.aliasname,)
        self._expressions(calls, queries)
        rows = Rows(names, bounded=all(is_from_arrays(call) for call in calls))
        if all(
            kind_of_node(call) == "FuncCall" and function_name(call) not in SETS for call in calls
        ):
            return replace(rows, bounded=False)
        if item.ordinality and len(calls) == 1 and len(names) == len(calls[0].args) + 1:
            return replace(rows, keys=(frozenset(names[-1:]),))
        return rows

    def _conditional_keys(self, join: Join) -> None:
        """Unique indexes with a predicate that the conditions say too, and on columns that may be
        null, as many rows may have it, where the conditions refuse that.
        """
        for at, source in enumerate(join.sources):
            if not source.rows.conditional_keys:
                continue
            conditions = [
                one
                for one, holds_for in join.conditions
                if not holds_for or source.alias in holds_for
            ]
            said = {spelled(one, alias) for one in conditions for alias in ("", source.alias)}
            refused = {column for one in conditions for column in refuses_null(one, join)}
            keys = [
                key
                for key, predicate, nulls in source.rows.conditional_keys
                if all((source.alias, name) in refused for name in nulls)
                and (
                    predicate is None
                    or all(spelled(one) in said for one in conjuncts(parse_expression(predicate)))
                )
            ]
            rows = replace(source.rows, keys=(*source.rows.keys, *keys))
            join.sources[at] = replace(source, rows=rows)

    def _expressions(self, node: Any, queries: Mapping[str, Rows]) -> None:
        """The queries in expressions: asked for their LIMIT alone."""
        if kind_of_node(node) == "SelectStmt":
            self.query(node, queries)
        else:
            for one in below(node):
                self._expressions(one, queries)

    # ---- conditions

    def _condition(self, condition: Any, join: Join) -> None:
        join.conditions.append((condition, frozenset()))
        for left, right in equalities(condition):
            one, other = column_in(left, join), column_in(right, join)
            if one and other:
                join.equal += [(one, other), (other, one)]
            elif one and is_constant(right, join):
                join.constant.setdefault(one, literal(right))
            elif other and is_constant(left, join):
                join.constant.setdefault(other, literal(left))
        if tested := truth(condition, join):
            join.constant.setdefault(*tested)
        if column := one_of_few(condition, join):
            join.few.add(column)

    def _outer(self, condition: Any, join: Join, nullable: set[str]) -> None:
        """ON of an outer join: what is known of one side makes the other known, never back."""
        for one in conjuncts(condition):
            join.conditions.append((one, frozenset(nullable)))
            for a, b in equalities(one):
                for left, right in ((column_in(a, join), b), (column_in(b, join), a)):
                    if left is None or left[0] not in nullable:
                        continue
                    other = column_in(right, join)
                    if other and other[0] not in nullable:
                        join.equal.append((other, left))
                    elif is_constant(right, join):
                        join.equal.append((_ALWAYS, left))
        join.constant.setdefault(_ALWAYS, None)


_ALWAYS: Column = ("", "")  # a column that is known: what hangs on it is known, or null


# ---- keys of a result


def _keys(
    join: Join,
    constant: set[Column],
    single: set[str],
    names: Mapping[str, Column],
    but: Set[Column] = frozenset(),
) -> Iterator[Key]:
    """Sets of result columns that tell the rows apart, made of keys that have no column of ``but``."""
    sources = [source for source in join.sources if source.alias not in single]
    choices = [[(source.alias, key) for key in source.rows.keys] for source in sources]
    for number, chosen in enumerate(product(*choices)):
        if number == _MOST_COMBINATIONS:
            return
        columns = {(alias, name) for alias, key in chosen for name in key}
        if columns & but:
            continue
        wanted = columns - constant
        shown = {column: _shown(column, join, names) for column in wanted}
        if all(shown.values()):
            yield frozenset(name for name in shown.values() if name)


def _place(node: Any, join: Join, targets: Any) -> Column:
    """What is sorted or grouped by: a column, also by the name or number of a result column; an
    expression is a column of its own.
    """
    for number, target in enumerate(targets or (), start=1):
        bare = kind_of_node(node) == "ColumnRef" and len(node.fields) == 1
        named = bare and label(node) == (target.name or label(target.val))
        if named or constant(node) == f"{number}":
            return _place(target.val, join, ())
    return column_in(node, join) or ("", spelled(node))


def _ordered_by_name(node: Any, columns: tuple[str, ...]) -> str:
    """Of a UNION, whose ORDER BY knows result columns alone."""
    number = constant(node) or ""
    at = int(number) if number.isdecimal() else 0
    return columns[at - 1] if 0 < at <= len(columns) else label(node)


def _distinct_on(tree: Any) -> Any:
    return () if tree.distinctClause == (None,) else tree.distinctClause


def _shown(column: Column, join: Join, names: Mapping[str, Column]) -> str | None:
    same = {
        column,
        *(other for one, other in join.equal if one == column and (other, one) in join.equal),
    }
    return next((name for name, one in names.items() if one in same), None)


def _renamed(rows: Rows, names: tuple[str, ...]) -> Rows:
    """With other names for its first columns."""
    if not names:
        return rows
    to = dict(zip(rows.columns, names, strict=False))
    return replace(
        rows,
        columns=(*names, *rows.columns[len(names) :]),
        keys=tuple(frozenset(to.get(name, name) for name in key) for key in rows.keys),
        constants={to.get(name, name): value for name, value in rows.constants.items()},
    )


def _outputs(targets: Any, join: Join) -> dict[str, Column | None]:
    found: dict[str, Column | None] = {}
    for number, target in enumerate(targets or ()):
        value = target.val
        column = column_in(value, join)
        name = target.name or label(value) or f"?{number}"
        name = f"?{number}" if name in found else name
        if column is None and is_constant(value, join):
            column = ("", f"={number}")
            join.constant.setdefault(column, literal(value))
        found[name] = column
    return found


def _returning(tree: Any) -> Any:
    clause = tree.returningClause
    return clause.exprs if clause is not None else ()
