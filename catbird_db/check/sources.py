"""Sources that a query joins, and what its conditions say of their columns: for `rows`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pglast import ast, enums

from .expressions import operator, walk, without_casts
from .functions import AGGREGATES
from .syntax import constant_value, kind_of_node, texts

Column: TypeAlias = tuple[str, str]  # of a source, by its alias
Key: TypeAlias = frozenset[str]
ConditionalKey: TypeAlias = tuple[Key, str | None, frozenset[str]]
"""A key of the rows of which a predicate is true, and in which these columns are not null."""


@dataclass(frozen=True)
class Rows:
    """What is known of a query's rows.

    ``keys``: none is known if empty; the empty key means one row at most. ``constants``: columns that
    have one value, and which, as far as that is known. ``total``: the order that was asked about
    leaves no two rows equal; else ``undetermined`` are sources whose rows it does not tell apart.
    """

    columns: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    conditional_keys: tuple[ConditionalKey, ...] = ()
    constants: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    bounded: bool = False
    total: bool = False
    undetermined: tuple[str, ...] = ()
    number: int = 0  # of a WITH query
    needs: frozenset[int] = frozenset()  # WITH queries: where one is empty, so is this
    excludes: frozenset[int] = frozenset()  # and where one is not empty, this is

    @property
    def one_row(self) -> bool:
        return frozenset() in self.keys


@dataclass(frozen=True)
class Source:
    """One item of FROM. ``depends``: what a LATERAL one says of its rows, it says for these."""

    alias: str
    rows: Rows
    depends: frozenset[Column] = frozenset()


@dataclass
class Join:
    """The sources of a query, and which columns are equal in each of its rows."""

    sources: list[Source] = field(default_factory=list[Source])
    equal: list[tuple[Column, Column]] = field(default_factory=list[tuple[Column, Column]])
    constant: dict[Column, str | None] = field(default_factory=dict[Column, str | None])
    few: set[Column] = field(default_factory=set[Column])  # = ANY (an array)
    conditions: list[tuple[Any, frozenset[str]]] = field(
        default_factory=list[tuple[Any, frozenset[str]]]
    )  # and for which sources each holds; empty: for all
    needs: set[int] = field(default_factory=set[int])
    excludes: set[int] = field(default_factory=set[int])
    nullable: set[str] = field(default_factory=set[str])  # an outer join may put nulls there

    def known(self, given: Iterable[Column], bounded: bool = False) -> tuple[set[Column], set[str]]:
        """Columns, and sources, that follow; of which there are few if ``bounded``."""
        columns = {*given, *self.constant, *(self.few if bounded else ())}
        found: set[str] = set()
        before = -1
        while before != len(columns) + len(found):
            before = len(columns) + len(found)
            for one, other in self.equal:  # a column that is known makes the other known
                if one in columns:
                    columns.add(other)
            for source in self.sources:
                if not source.depends <= columns:
                    continue
                alias = source.alias
                columns |= {(alias, name) for name in source.rows.constants}
                if (bounded and source.rows.bounded) or any(
                    all((alias, name) in columns for name in key) for key in source.rows.keys
                ):
                    found.add(alias)
                    columns |= {(alias, name) for name in source.rows.columns}
        return columns, found

    def lacks(self, found: set[str]) -> tuple[str, ...]:
        return tuple(source.alias for source in self.sources if source.alias not in found)


# ---- expressions


def label(node: Any) -> str:
    """The name that PostgreSQL gives a result column, as far as it is a column's."""
    node = without_casts(node)
    if kind_of_node(node) == "ColumnRef" and kind_of_node(node.fields[-1]) == "String":
        return node.fields[-1].sval
    return function_name(node) if kind_of_node(node) == "FuncCall" else ""


def qualified(node: Any) -> Column | None:
    if (
        kind_of_node(node) == "ColumnRef"
        and len(node.fields) == 2
        and kind_of_node(node.fields[1]) == "String"
    ):
        return node.fields[0].sval, node.fields[1].sval
    return None


def column_in(node: Any, join: Join) -> Column | None:
    """The column of a source that a node is; a cast may fold values, and so is none."""
    while kind_of_node(node) == "CollateClause":
        node = node.arg
    aliases = {source.alias for source in join.sources}
    if (column := qualified(node)) and column[0] in aliases:
        return column
    if kind_of_node(node) == "ColumnRef" and len(node.fields) == 1 and len(aliases) == 1:
        name = node.fields[0]
        return (aliases.pop(), name.sval) if kind_of_node(name) == "String" else None
    return None


def is_constant(node: Any, join: Join | None = None) -> bool:
    """Whether it has one value for all rows: made of parameters, literals and columns further out."""
    aliases = {source.alias for source in join.sources} if join else set[str]()
    for one in walk(node):
        if kind_of_node(one) in ("SubLink", "A_ArrayExpr", "ColumnRef"):
            column = qualified(one)
            if column is None or column[0] in aliases or join is None:
                return False
        if kind_of_node(one) == "FuncCall" and function_name(one) not in _STEADY:
            return False
    return node is not None


_STEADY = frozenset(
    [
        "statement_timestamp",
        "now",
        "transaction_timestamp",
        "sha256",
        "coalesce",
        "lower",
        "upper",
        "md5",
    ]
)


def literal(node: Any) -> str | None:
    text = constant(node)
    return None if text is None else f"{type(without_casts(node).val).__name__} {text}"


def constant(node: Any) -> str | None:
    """The text of a constant that is not null; casts are passed over."""
    node = without_casts(node)
    value = constant_value(node) if kind_of_node(node) == "A_Const" else None
    return None if value is None else str(value)


def equalities(condition: Any) -> Iterator[tuple[Any, Any]]:
    is_operator = (
        kind_of_node(condition) == "A_Expr" and condition.kind == enums.A_Expr_Kind.AEXPR_OP
    )
    if not is_operator or operator(condition) != "=":
        return
    left, right = condition.lexpr, condition.rexpr
    if kind_of_node(left) == "RowExpr" and kind_of_node(right) == "RowExpr":
        yield from zip(left.args, right.args, strict=False)
    else:
        yield left, right


def truth(condition: Any, join: Join) -> tuple[Column, str | None] | None:
    """``a.flag``, ``NOT a.flag``, ``a.column IS NULL``."""
    match kind_of_node(condition):
        case "BoolExpr" if condition.boolop == enums.BoolExprType.NOT_EXPR:
            column = column_in(condition.args[0], join)
            return (column, "False") if column else None
        case "NullTest" if condition.nulltesttype == enums.NullTestType.IS_NULL:
            column = column_in(condition.arg, join)
            return (column, None) if column else None
        case _:
            column = column_in(condition, join)
            return (column, "True") if column else None


def refuses_null(condition: Any, join: Join) -> Iterator[Column]:
    """Columns that are not null where a condition is true: compared, or IS NOT NULL."""
    kind, null = kind_of_node(condition), enums.NullTestType.IS_NULL
    sides: tuple[Any, ...] = ()
    if kind == "NullTest" and condition.nulltesttype != null:
        sides = (condition.arg,)
    elif kind == "A_Expr" and condition.kind in _REFUSING and operator(condition) in _COMPARISONS:
        sides = (condition.lexpr, condition.rexpr)
        sides += tuple(side for pair in equalities(condition) for side in pair)  # of rows
    yield from (column for side in sides if (column := column_in(side, join)))


_COMPARISONS = ("=", "<", ">", "<=", ">=", "<>")
_REFUSING = (
    enums.A_Expr_Kind.AEXPR_OP,
    enums.A_Expr_Kind.AEXPR_OP_ANY,
    enums.A_Expr_Kind.AEXPR_IN,
)


def existences(
    condition: Any, queries: Mapping[str, Rows]
) -> Iterator[tuple[bool, frozenset[int]]]:
    """``EXISTS (SELECT FROM query)``: true, and its number and what it needs; NOT EXISTS: false."""
    negated = kind_of_node(condition) == "BoolExpr" and (
        condition.boolop == enums.BoolExprType.NOT_EXPR
    )
    link = condition.args[0] if negated else condition
    if kind_of_node(link) != "SubLink" or link.subLinkType != enums.SubLinkType.EXISTS_SUBLINK:
        return
    inner = link.subselect
    plain = not inner.whereClause and not inner.limitCount and len(inner.fromClause or ()) == 1
    if plain and kind_of_node(inner.fromClause[0]) == "RangeVar":
        rows = queries.get(inner.fromClause[0].relname)
        if rows is not None:
            yield not negated, frozenset({rows.number} if negated else {rows.number, *rows.needs})


def one_of_few(condition: Any, join: Join) -> Column | None:
    """``a.column = ANY (array)``, ``IN (list)``, or ``IN (SELECT ...)`` of few rows."""
    kinds = (enums.A_Expr_Kind.AEXPR_OP_ANY, enums.A_Expr_Kind.AEXPR_IN)
    if kind_of_node(condition) != "A_Expr" or condition.kind not in kinds:
        return None
    if operator(condition) != "=" or any(
        qualified(one) for one in _outside_queries(condition.rexpr)
    ):
        return None
    return column_in(condition.lexpr, join)


def _outside_queries(node: Any) -> Iterator[Any]:
    if kind_of_node(node) != "SelectStmt":
        yield node
        for one in below(node):
            yield from _outside_queries(one)


FROM_ARRAYS = frozenset(
    [
        "json_array_elements",
        "json_array_elements_text",
        "json_each",
        "json_each_text",
        "json_object_keys",
        "json_populate_recordset",
        "json_to_recordset",
        "jsonb_array_elements",
        "jsonb_array_elements_text",
        "jsonb_each",
        "jsonb_each_text",
        "jsonb_object_keys",
        "jsonb_path_query",
        "jsonb_populate_recordset",
        "jsonb_to_recordset",
        "regexp_split_to_table",
        "string_to_table",
        "unnest",
    ]
)
SETS = FROM_ARRAYS | {"generate_series", "generate_subscripts", "regexp_matches"}
_OF_RECORDS = ("json_each", "jsonb_each")


def aggregates(targets: Any) -> bool:
    return any(
        kind_of_node(node) == "FuncCall" and node.over is None and function_name(node) in AGGREGATES
        for node in _outside_queries(targets or ())
    )


def set_returning(targets: Any) -> set[str]:
    calls = (one for one in _outside_queries(targets or ()) if kind_of_node(one) == "FuncCall")
    return {function_name(call) for call in calls} & SETS


def is_from_arrays(call: Any) -> bool:
    return kind_of_node(call) == "FuncCall" and function_name(call) in FROM_ARRAYS


def is_of_values(call: Any) -> bool:
    """Whether a function gives rows of one column, which its alias names."""
    if kind_of_node(call) != "FuncCall":
        return False
    name = function_name(call)
    if name == "unnest":
        return len(call.args) == 1
    return name in SETS and not name.startswith(_OF_RECORDS) and not name.endswith("_recordset")


def function_name(call: Any) -> str:
    return call.funcname[-1].sval


def items_of(clause: Any) -> Iterator[Any]:
    """What a FROM names, out of its joins."""
    for item in clause or ():
        if kind_of_node(item) == "JoinExpr":
            yield from items_of((item.larg, item.rarg))
        elif item is not None:
            yield item


def alias_of_item(item: Any) -> str:
    if getattr(item, "alias", None) is not None:
        return item.alias.aliasname
    return item.relname if kind_of_node(item) == "RangeVar" else ""


def is_one(limit: Any) -> bool:
    limit = without_casts(limit)
    return (
        kind_of_node(limit) == "A_Const"
        and kind_of_node(limit.val) == "Integer"
        and limit.val.ival == 1
    )


def is_all(limit: Any) -> bool:
    return kind_of_node(limit) == "A_Const" and bool(limit.isnull)


def spelled(node: Any, alias: str = "") -> str:
    """A condition in one spelling: without casts, and without the alias of its columns."""
    match kind_of_node(node):
        case "TypeCast" | "CollateClause":
            return spelled(node.arg, alias)
        case "ColumnRef":
            names = texts(node.fields)
            return ".".join(names[1:] if len(names) > 1 and names[0] == alias else names)
        case "String":
            return node.sval
        case "tuple":
            return f"[{', '.join(spelled(one, alias) for one in node)}]"
        case name if isinstance(node, ast.Node):
            said: list[tuple[str, Any]] = [
                (attribute, getattr(node, attribute))
                for attribute in node
                if attribute not in ("location", "rexpr_list_start", "rexpr_list_end")
            ]
            return f"{name}({', '.join(f'{key}={spelled(value, alias)}' for key, value in said)})"
        case _:
            return str(node)


def below(node: Any) -> Iterator[Any]:
    """What a node, or a list of nodes, directly consists of."""
    if isinstance(node, ast.Node):
        for attribute in node:
            yield getattr(node, attribute)
    elif type(node) in (list, tuple):
        yield from node
