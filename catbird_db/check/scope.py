"""What each name in a statement means: its syntax tree, resolved into the levels of `levels`.

It fails closed: a kind of node that it does not know, or a part of one that would change what is
said of it, raises `Unresolved`, with its name and its place. At the end it counts: each table that
the tree names stands in some level.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .expressions import each
from .functions import OPERATORS, kind_of
from .joins import Conditions, Item, Join, settle
from .levels import (
    ArrayOf,
    Call,
    Case,
    Cast,
    ColumnOf,
    Constant,
    Expression,
    FirstNotNull,
    Level,
    Logic,
    Membership,
    NewRow,
    NullTest,
    Opaque,
    Operation,
    Output,
    Parameter,
    Query,
    Relation,
    Resolved,
    RowOf,
    Rows,
    SubSelect,
    Test,
    conjuncts,
    walk,
)
from .subject import Catalog, Table
from .syntax import (
    alias_of,
    beginning,
    constant_value,
    keyword,
    kind_of_node,
    place_of,
    renamed,
    result_name,
    tables_named,
    texts,
    type_name,
)

SYSTEM_COLUMNS = ("tableoid", "ctid", "xmin", "xmax", "cmin", "cmax")


class Unresolved(Exception):
    """What `check` cannot read, and so does not believe: where it is, and what to write instead."""

    def __init__(self, location: int, what: str, mend: str) -> None:
        super().__init__(location, what, mend)
        self.location = location
        self.message = f"check cannot read {what}"
        self.mend = mend


def resolve(tree: Any, catalog: Catalog) -> Resolved:
    """The levels of a statement; most rules ask for them, one after another.

    Raises:
        Unresolved: it holds what this does not know.
    """
    global _latest
    if _latest is None or _latest[0] is not tree or _latest[1] is not catalog:
        try:
            _latest = tree, catalog, _resolve(tree, catalog)
        except Unresolved as problem:
            _latest = tree, catalog, problem
    if isinstance(_latest[2], Unresolved):
        raise _latest[2]
    return _latest[2]


_latest: tuple[Any, Catalog, Resolved | Unresolved] | None = None


def _resolve(tree: Any, catalog: Catalog) -> Resolved:
    resolver = _Resolver(catalog)
    query = resolver.query(tree, _Names())
    for place, name in tables_named(tree).items():
        if place not in resolver.seen:
            raise Unresolved(
                place, f"{name} where it stands here", "the statement in a simpler way"
            )
    return Resolved(query, tuple(resolver.levels), tuple(resolver.writes))


@dataclass
class _Names:
    """What names mean at one place: its relations, those of the levels around it, and CTEs."""

    relations: list[Relation] = field(default_factory=list[Relation])
    outer: "_Names | None" = None
    queries: Mapping[str, Query] = field(default_factory=dict[str, Query])

    def below(self, *relations: Relation) -> "_Names":
        return _Names(list(relations), self, self.queries)


class _Resolver:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.levels: list[Level] = []
        self.writes: list[Query] = []
        self.open: list[Query] = []  # those that are being read
        self.seen: set[int] = set()  # where the tables and CTEs are named that stand in a level

    # ---- queries

    def query(self, node: Any, around: _Names, into: Query | None = None) -> Query:
        """A statement, sub-select or CTE; ``into``: the query by which a recursive CTE is known."""
        query = into or Query()
        self.open.append(query)
        match kind_of_node(node):
            case "SelectStmt":
                self._select(node, self._with(node.withClause, around), query)
            case "InsertStmt":
                query.branches.append(self._insert(node, self._with(node.withClause, around)))
            case "UpdateStmt":
                query.branches.append(self._update(node, self._with(node.withClause, around)))
            case "DeleteStmt":
                query.branches.append(self._delete(node, self._with(node.withClause, around)))
            case _:
                raise _unknown(node)
        _name_columns(query)
        self.open.remove(query)
        if len({len(level.outputs) for level in query.branches}) > 1:
            raise Unresolved(
                beginning(node), "branches of more and fewer columns", "as many in each"
            )
        return query

    def _with(self, clause: Any, around: _Names) -> _Names:
        if clause is None:
            return around
        queries = dict(around.queries)
        names = _Names(around.relations, around.outer, queries)
        made = {one.ctename: Query(one.ctename, texts(one.aliascolnames)) for one in clause.ctes}
        if clause.recursive:
            queries.update(made)
        for one in clause.ctes:
            if one.search_clause or one.cycle_clause:
                raise Unresolved(place_of(one), "SEARCH and CYCLE", "the recursion without them")
            query = self.query(one.ctequery, names, made[one.ctename])
            queries[one.ctename] = query
            if query.branches[0].target is not None:
                self.writes.append(query)
        return names

    def _select(self, node: Any, around: _Names, into: Query) -> None:
        if node.intoClause is not None:
            raise Unresolved(beginning(node), "SELECT INTO", "INSERT INTO ... SELECT")
        if node.larg is not None:
            self._combine(node, around, into)
        elif node.valuesLists:
            into.branches += [self._values(row, around.below()) for row in node.valuesLists]
        else:
            into.branches.append(self._select_level(node, around.below()))

    def _combine(self, node: Any, around: _Names, into: Query) -> None:
        """UNION and its like; what stands in the ORDER BY and LIMIT of the whole goes to a branch."""
        for side in (node.larg, node.rarg):
            self._select(side, self._with(side.withClause, around), into)
            _name_columns(into)  # a recursive branch reads them
        last = into.branches[-1]
        self._keep_all(last, [node.limitCount, node.limitOffset], around.below())
        self._keep_sorting(last, node.sortClause, around.below(), into.columns)

    def _values(self, row: Any, here: _Names) -> Level:
        level = self._level("select")
        values = [self._keep(level, one, here) for one in row]
        level.outputs = tuple(
            Output(f"column{number}", value, value.location)
            for number, value in enumerate(values, start=1)
        )
        return level

    def _select_level(self, node: Any, here: _Names) -> Level:
        level = self._level("select")
        items = [self._from(item, here, level) for item in node.fromClause or ()]
        settle(level, items, self._conditions(level, node.whereClause, here))
        level.outputs = tuple(self._outputs(node.targetList, here, level))
        labels = [output.name for output in level.outputs]
        self._keep_unlabelled(level, node.groupClause, here, labels)
        self._keep_unlabelled(level, node.distinctClause, here, labels)
        self._keep_sorting(level, node.sortClause, here, labels)
        for window in node.windowClause or ():
            level.expressions += self._window(window, here)
        self._keep_all(level, [node.havingClause, node.limitCount, node.limitOffset], here)
        aggregates = [one for one in walk(level.expressions) if _may_aggregate(one)]
        for one in aggregates:
            _refuse_aggregate_of_outer(one, level)
        level.grouped = bool(node.groupClause)
        level.collapses = not level.grouped and bool(node.havingClause or aggregates)
        dropping = (node.havingClause, node.limitCount, node.limitOffset)
        kinds = [one.kind for one in walk(level.expressions) if isinstance(one, Call)]
        level.never_empty = (
            level.collapses
            and all(one is None for one in dropping)
            and not {"unknown", "rows"}.intersection(kinds)
        )
        return level

    def _level(self, verb: Literal["select", "insert", "update", "delete"]) -> Level:
        self.levels.append(Level(verb))
        return self.levels[-1]

    # ---- writes

    def _insert(self, node: Any, around: _Names) -> Level:
        level = self._level("insert")
        table = self._table(node.relation)
        values: dict[str, Expression] = {}
        if node.selectStmt is not None:
            values = self._inserted(level, node, table, around)
        proposed = self._row(node.relation, level, NewRow(table, values))
        level.target = returned = proposed
        clause = node.onConflictClause
        if clause is not None and clause.action.name == "ONCONFLICT_UPDATE":
            self._update_instead(level, node, proposed, around)
            known = {
                name: value
                for name, value in values.items()
                if name in level.conflict and name not in level.assigned
            }
            returned = self._row(node.relation, level, NewRow(table, known))
        level.present += (proposed, returned)
        level.outputs = self._returning(node, level, around.below(returned))
        return level

    def _inserted(
        self, level: Level, node: Any, table: Table, around: _Names
    ) -> dict[str, Expression]:
        """What an INSERT writes to each column: a column of the rows that it is given."""
        query = self.query(node.selectStmt, around)
        place = beginning(node.selectStmt)
        rows = self._relation(level, "", place, 1, query)
        rows.columns = tuple(f"{number}" for number in range(len(query.columns)))
        settle(level, [rows], ())
        names = [_whole_column(one) for one in node.cols] if node.cols else [*table.columns]
        return {
            name: ColumnOf(place, rows, column)
            for name, column in zip(names, rows.columns, strict=False)
        }

    def _update_instead(self, level: Level, node: Any, proposed: Relation, around: _Names) -> None:
        clause, table = node.onConflictClause, proposed.table
        assert table is not None
        old = self._relation(
            level, alias_of(node.relation), place_of(clause), len("ON CONFLICT"), table
        )
        level.old = old
        proposed.alias = "excluded"
        here = around.below(old, proposed)
        level.conflict = _conflict_target(clause.infer, table)
        self._assign(level, clause.targetList, here)
        place = place_of(clause)
        same = [
            (ColumnOf(place, old, name), ColumnOf(place, proposed, name)) for name in level.conflict
        ]
        where = self._conditions(level, clause.whereClause, here)
        old.conditions = (*(Operation(place, pair, "=") for pair in same), *where)
        old.beside = (*level.present, proposed)

    def _update(self, node: Any, around: _Names) -> Level:
        level = self._level("update")
        table = self._table(node.relation)
        target = level.target = self._row(node.relation, level, table)
        here = around.below(target)
        others = [self._from(item, here, level) for item in node.fromClause or ()]
        settle(level, [target, *others], self._conditions(level, node.whereClause, here))
        self._assign(level, node.targetList, here)
        values = {name: one.expression for name, one in level.assigned.items()}
        new = self._row(node.relation, level, NewRow(table, values, target))
        level.present += (new,)
        level.outputs = self._returning(node, level, around.below(new, *here.relations[1:]))
        return level

    def _delete(self, node: Any, around: _Names) -> Level:
        level = self._level("delete")
        target = level.target = self._row(node.relation, level, self._table(node.relation))
        here = around.below(target)
        others = [self._from(item, here, level) for item in node.usingClause or ()]
        settle(level, [target, *others], self._conditions(level, node.whereClause, here))
        level.outputs = self._returning(node, level, here)
        return level

    def _assign(self, level: Level, targets: Any, here: _Names) -> None:
        for one in targets:
            name, value = _whole_column(one), self._keep(level, one.val, here)
            level.assigned[name] = Output(name, value, place_of(one))

    def _returning(self, node: Any, level: Level, here: _Names) -> tuple[Output, ...]:
        clause = node.returningClause
        if clause is None:
            return ()
        if clause.options:
            raise Unresolved(beginning(clause.exprs), "RETURNING WITH", "RETURNING without it")
        return tuple(self._outputs(clause.exprs, here, level))

    # ---- FROM

    def _from(self, node: Any, here: _Names, level: Level) -> Item:
        match kind_of_node(node):
            case "RangeVar":
                found = self._named(node, here, level)
            case "RangeSubselect":
                around = here if node.lateral else _Names([], here.outer, here.queries)
                query = self.query(node.subquery, around)
                alias = node.alias.aliasname if node.alias else ""
                found = self._relation(level, alias, beginning(node.subquery), 1, query)
                found.columns = renamed(query.columns, node.alias)
            case "RangeFunction":
                found = self._function(node, here, level)
            case "JoinExpr":
                return self._join(node, here, level)
            case _:
                raise _unknown(node)
        here.relations.append(found)
        return found

    def _named(self, node: Any, here: _Names, level: Level) -> Relation:
        query = None if node.schemaname else here.queries.get(node.relname)
        if query is None:
            if node.alias and node.alias.colnames:
                raise Unresolved(place_of(node), "columns of a table named anew", "their own names")
            found = self._row(node, level, self._table(node))
        elif query.branches:
            self.seen.add(place_of(node))
            found = self._relation(level, alias_of(node), place_of(node), len(node.relname), query)
            found.recursive = query in self.open
            query.recursive |= found.recursive
        else:
            raise Unresolved(
                place_of(node), f"{query.name} above its rows", "the CTEs in their order"
            )
        found.columns = renamed(found.columns, node.alias)
        return found

    def _table(self, node: Any) -> Table:
        name = node.relname
        if node.schemaname not in (None, "public"):
            name = f"{node.schemaname}.{name}"
        table = self.catalog.tables.get(self.catalog.partitions.get(name, name))
        if table is None:
            raise Unresolved(place_of(node), f"{name}: it is no table", "a table of the schema")
        self.seen.add(place_of(node))
        return table

    def _row(self, node: Any, level: Level, source: Table | NewRow) -> Relation:
        """A relation on the table that ``node`` names."""
        return self._relation(level, alias_of(node), place_of(node), len(node.relname), source)

    def _relation(
        self,
        level: Level,
        alias: str,
        place: int,
        width: int,
        source: Table | NewRow | Query | Rows,
    ) -> Relation:
        match source:
            case NewRow():
                columns = tuple(source.table.columns)
            case _:
                columns = tuple(source.columns)
        level.relations.append(Relation(alias, place, width, level, source, columns))
        return level.relations[-1]

    def _function(self, node: Any, here: _Names, level: Level) -> Relation:
        if node.is_rowsfrom:
            raise Unresolved(beginning(node.functions), "ROWS FROM", "unnest of several arrays")
        function, described = node.functions[0]
        call = self._keep(level, function, here)
        if not isinstance(call, Call):
            raise Unresolved(beginning(function), kind_of_node(function), "a function in FROM")
        given = texts(node.alias.colnames) if node.alias else ()
        alias = node.alias.aliasname if node.alias else call.name
        if described := described or node.coldeflist:
            columns = tuple(one.colname for one in described)
        elif call.name == "unnest" and len(call.arguments) > 1:
            columns = (call.name,) * len(call.arguments)
        else:
            columns = given[: len(given) - node.ordinality] or (alias,)
        if node.ordinality:
            columns += ("ordinality",)
        rows = Rows(call, renamed(columns, node.alias), node.ordinality)
        return self._relation(level, alias, call.location, len(call.name), rows)

    def _join(self, node: Any, here: _Names, level: Level) -> Join:
        left, right = self._from(node.larg, here, level), self._from(node.rarg, here, level)
        unknown = {"NATURAL": node.isNatural, "USING": node.usingClause, "its alias": node.alias}
        for what, stands in unknown.items():
            if stands:
                raise Unresolved(beginning(node.rarg), f"this join, for {what}", "JOIN ... ON")
        kind = cast(Any, keyword(node.jointype, "JOIN_"))
        return Join(kind, left, right, self._conditions(level, node.quals, here))

    # ---- the expressions of a level

    def _keep(self, level: Level, node: Any, here: _Names) -> Expression:
        level.expressions.append(self._expression(node, here))
        return level.expressions[-1]

    def _keep_all(self, level: Level, nodes: Any, here: _Names) -> None:
        for node in nodes:
            if node is not None:
                self._keep(level, node, here)

    def _keep_sorting(self, level: Level, nodes: Any, here: _Names, labels: Iterable[str]) -> None:
        self._keep_unlabelled(level, [one.node for one in nodes or ()], here, labels)

    def _keep_unlabelled(
        self, level: Level, nodes: Any, here: _Names, labels: Iterable[str]
    ) -> None:
        """In ORDER BY and GROUP BY the bare name of a result column stands for that column."""
        bare = [(label,) for label in labels]
        self._keep_all(
            level,
            [
                node
                for node in nodes or ()
                if not (kind_of_node(node) == "ColumnRef" and texts(node.fields) in bare)
            ],
            here,
        )

    def _conditions(self, level: Level, node: Any, here: _Names) -> Conditions:
        return () if node is None else tuple(conjuncts(self._keep(level, node, here)))

    def _outputs(self, targets: Any, here: _Names, level: Level) -> Iterator[Output]:
        for one in targets or ():
            if (
                kind_of_node(one.val) == "ColumnRef"
                and kind_of_node(one.val.fields[-1]) == "A_Star"
            ):
                for column in _star(one.val, here):
                    yield Output(column.name, column, place_of(one))
            else:
                value = self._keep(level, one.val, here)
                yield Output(one.name or result_name(one.val), value, place_of(one))

    def _window(self, node: Any, here: _Names) -> tuple[Expression, ...]:
        sorting = [one.node for one in node.orderClause or ()]
        frame = [one for one in (node.startOffset, node.endOffset) if one is not None]
        return self._all([*(node.partitionClause or ()), *sorting, *frame], here)

    # ---- expressions

    def _all(self, nodes: Iterable[Any] | None, here: _Names) -> tuple[Expression, ...]:
        return tuple(self._expression(one, here) for one in nodes or ())

    def _expression(self, node: Any, here: _Names) -> Expression:
        place = place_of(node)
        match kind_of_node(node):
            case "ParamRef":
                return Parameter(place, node.number)
            case "ColumnRef":
                return _column(node, here)
            case "A_Const":
                return Constant(place, constant_value(node))
            case "A_Expr":
                return self._operation(node, here)
            case "BoolExpr":
                inside = self._all(node.args, here)
                kind = cast(Any, keyword(node.boolop, "", "_EXPR"))
                return Logic(_first(place, inside), inside, kind)
            case "NullTest":
                inside = self._all([node.arg], here)
                return NullTest(
                    _first(place, inside), inside, keyword(node.nulltesttype) == "is_null"
                )
            case "BooleanTest":
                inside = self._all([node.arg], here)
                return Test(_first(place, inside), inside, keyword(node.booltesttype))
            case "SubLink":
                return self._sub_select(node, here)
            case "FuncCall":
                return self._call(node, here)
            case "SQLValueFunction":
                return Call(place, (), keyword(node.op, "SVFOP_", "_N"), "scalar")
            case "TypeCast":
                inside = self._all([node.arg], here)
                bare = not node.typeName.typmods
                return Cast(_first(place, inside), inside, type_name(node.typeName), bare)
            case "CaseExpr":
                return self._case(node, here)
            case "CoalesceExpr":
                return FirstNotNull(place, self._all(node.args, here), "coalesce")
            case "MinMaxExpr":
                return FirstNotNull(place, self._all(node.args, here), keyword(node.op, "IS_"))
            case "RowExpr":
                return RowOf(place, self._all(node.args, here))
            case "A_ArrayExpr":
                return ArrayOf(place, self._all(node.elements, here))
            case "CollateClause":
                inside = self._all([node.arg], here)
                return Opaque(_first(place, inside), inside, "COLLATE")
            case "NamedArgExpr":
                return self._expression(node.arg, here)
            case "A_Indirection":
                return self._part(node, here)
            case "SetToDefault":
                return Opaque(place, (), "DEFAULT")
            case _:
                raise _unknown(node)

    def _operation(self, node: Any, here: _Names) -> Expression:
        kind, operator = keyword(node.kind, "AEXPR_"), ".".join(texts(node.name))
        left = self._all([node.lexpr] if node.lexpr is not None else [], here)
        right = self._all(each(node.rexpr), here)
        inside = left + right
        place = _first(place_of(node), inside)
        match kind:
            case "op" if operator == "=" and left and _rows_alike(left[0], right[0]):
                pairs = zip(left[0].inside, right[0].inside, strict=True)
                return Logic(place, tuple(Operation(place, pair, "=") for pair in pairs), "and")
            case "op" | "like" | "ilike" if operator in OPERATORS:
                return Operation(place, inside, operator)
            case "op_any" | "op_all":
                return Membership(place, inside, operator, kind == "op_all")
            case "in":
                values = ArrayOf(place, right)
                return Membership(place, (*left, values), operator, operator != "=")
            case "distinct" | "not_distinct":
                return Test(place, inside, kind)
            case "between" | "not_between":
                lower, upper = (left[0], right[0]), (left[0], right[1])
                bounds = (Operation(place, lower, ">="), Operation(place, upper, "<="))
                between = Logic(place, bounds, "and")
                return between if kind == "between" else Logic(place, (between,), "not")
            case _:
                return Opaque(place, inside, operator)

    def _case(self, node: Any, here: _Names) -> Case:
        subject = [] if node.arg is None else [node.arg]
        conditions = self._all([*subject, *(one.expr for one in node.args)], here)
        results = self._all([one.result for one in node.args], here)
        default = (
            (Constant(-1, None),) if node.defresult is None else self._all([node.defresult], here)
        )
        return Case(place_of(node), results + default, conditions)

    def _sub_select(self, node: Any, here: _Names) -> SubSelect:
        kind = keyword(node.subLinkType, "", "_SUBLINK").replace("expr", "scalar")
        if kind not in ("exists", "any", "all", "scalar", "array"):
            raise _unknown(node)
        tests = self._all([] if node.testexpr is None else [node.testexpr], here)
        if tests and isinstance(tests[0], RowOf):
            tests = tests[0].inside
        operator = ".".join(texts(node.operName)) or "="
        query = self.query(node.subselect, here)
        if kind != "exists" and len(query.columns) != max(1, len(tests)):
            raise Unresolved(
                beginning(node), "a sub-select of so many columns", "as many as it is for"
            )
        return SubSelect(_first(place_of(node), tests), tests, cast(Any, kind), query, operator)

    def _call(self, node: Any, here: _Names) -> Call:
        name = ".".join(texts(node.funcname)).removeprefix("pg_catalog.")
        aside = self._all([one.node for one in node.agg_order or ()], here)
        if node.agg_filter is not None:
            aside += self._all([node.agg_filter], here)
        if node.over is not None:
            aside += self._window(node.over, here)
        return Call(
            place_of(node),
            self._all(node.args, here),
            name,
            kind_of(name),
            over=node.over is not None,
            filtered=node.agg_filter is not None,
            variadic=node.func_variadic,
            aside=aside,
        )

    def _part(self, node: Any, here: _Names) -> Opaque:
        """``array[1]``, ``(composite).field``."""
        inside = self._all([node.arg], here)
        for one in node.indirection:
            if kind_of_node(one) == "A_Indices":
                bounds = (one.lidx, one.uidx)
                inside += self._all([bound for bound in bounds if bound is not None], here)
            elif kind_of_node(one) != "String":
                raise _unknown(one)
        return Opaque(inside[0].location, inside, "a part")


# ---- names


def _column(node: Any, here: _Names) -> ColumnOf:
    parts, place = [*texts(node.fields)], place_of(node)
    written = ".".join(parts)
    if len(parts) != len(node.fields) or len(parts) > 2:
        raise Unresolved(place, f"{written or 'a whole row'} here", "alias.column")
    found = _named_by(parts, here)
    if len(found) != 1:
        raise Unresolved(place, f"{written}: it names {len(found) or 'no'} columns", "alias.column")
    relation, name = found[0], parts[-1]
    if name not in relation.columns and (relation.table is None or name not in SYSTEM_COLUMNS):
        raise Unresolved(place, f"{written}: {relation} has no such column", "a column that it has")
    return ColumnOf(place, relation, name)


def _named_by(parts: list[str], here: _Names) -> list[Relation]:
    names: _Names | None = here
    while names is not None:
        if len(parts) == 2:
            found = [one for one in names.relations if one.alias == parts[0]]
        else:
            found = [one for one in names.relations if parts[0] in one.columns]
        if found:
            return found
        names = names.outer
    return []


def _star(node: Any, here: _Names) -> Iterator[ColumnOf]:
    of = texts(node.fields)
    for relation in here.relations:
        if not of or relation.alias == of[-1]:
            for name in relation.columns:
                yield ColumnOf(place_of(node), relation, name)


def _name_columns(query: Query) -> None:
    """The columns of a query are those of its first branch, but for what its CTE names anew."""
    if query.branches:
        own = tuple(output.name for output in query.branches[0].outputs)
        query.columns += own[len(query.columns) :]


def _conflict_target(infer: Any, table: Table) -> tuple[str, ...]:
    if infer.conname:
        columns = next((one.columns for one in table.indexes if one.name == infer.conname), ())
        return tuple(column for column in columns if column)
    plain = (one for one in infer.indexElems if not (one.collation or one.opclass))
    return tuple(one.name for one in plain if one.name)


def _whole_column(target: Any) -> str:
    if target.indirection or kind_of_node(target.val) == "MultiAssignRef":
        raise Unresolved(place_of(target), "this assignment", "column = value, one by one")
    return target.name


# ---- expressions


def _may_aggregate(expression: Expression) -> bool:
    if not isinstance(expression, Call) or expression.over:
        return False
    return expression.kind in ("aggregate", "unknown")


def _refuse_aggregate_of_outer(call: Expression, level: Level) -> None:
    """Where all its columns are of an outer level, an aggregate is of that level too."""
    columns = [one for one in walk([call]) if isinstance(one, ColumnOf)]
    if columns and all(one.relation.level is not level for one in columns):
        raise Unresolved(call.location, "an aggregate of an outer level", "it in that level")


def _rows_alike(left: Expression, right: Expression) -> bool:
    both = isinstance(left, RowOf) and isinstance(right, RowOf)
    return both and len(left.inside) == len(right.inside)


def _first(place: int, inside: Iterable[Expression]) -> int:
    """Where an expression begins: an operator's own place is behind its left side."""
    places = [at for at in (place, *(one.location for one in inside)) if at >= 0]
    return min(places, default=-1)


def _unknown(node: Any) -> Unresolved:
    mend = "it in another way, or teach catbird_db/check/scope.py to read it"
    return Unresolved(beginning(node), kind_of_node(node), mend)
