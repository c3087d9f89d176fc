"""What is provably not null. `nullability` says of what, and lists the proofs."""

from collections.abc import Container
from dataclasses import dataclass, field, replace

from .facts import Facts, of_rows, place_of_column, where_present
from .functions import GROUP_AGGREGATES, NEVER_NULL, NUMBERING, STRICT
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
    Operation,
    Parameter,
    Query,
    RowOf,
    Rows,
    SubSelect,
    Test,
    defined,
)
from .subject import Table

_JSON = ("json", "jsonb")
_RANGES = tuple(
    f"{of}{kind}"
    for of in ("int4", "int8", "num", "ts", "tstz", "date")
    for kind in ("range", "multirange")
)
_OF_ROWS_NOT_NULL = ("generate_series", "json_object_keys", "jsonb_object_keys")


@dataclass(frozen=True)
class Prover:
    """Proves of expressions that they are not null.

    Attributes:
        parameters: those that are never null, and whose elements are not.
        shown: what is true of a row of the result because it is shown at all.
    """

    parameters: frozenset[int]
    shown: tuple[Expression, ...] = ()
    trail: frozenset[tuple[int, int]] = field(default=frozenset())

    def result(self, level: Level, value: Expression) -> bool:
        """Whether a result column of the statement is not null in the rows of one of its levels."""
        return self.value(value, of_rows(level).and_(self.shown), level)

    def where_present(self, column: ColumnOf) -> bool:
        """Whether a column is not null wherever its relation has a row of its own."""
        return self._column(column, where_present(column.relation))

    def value(self, value: Expression, facts: Facts, level: Level) -> bool:
        """Whether an expression of a level is not null where ``facts`` hold."""
        match value:
            case Constant():
                return value.value is not None
            case Parameter():
                return value.number in self.parameters
            case ColumnOf():
                return self._column(value, facts)
            case NullTest() | Test() | RowOf() | ArrayOf():
                return True
            case Operation():
                return all(self._compared(one, facts, level) for one in value.arguments)
            case Logic() | Case():
                return all(self.value(one, facts, level) for one in value.arguments)
            case FirstNotNull():
                return any(self.value(one, facts, level) for one in value.arguments)
            case Cast():
                return self._cast(value, facts, level)
            case Membership():
                left = self._compared(value.left, facts, level)
                return left and self._elements(value.right, facts, level)
            case SubSelect():
                return self._sub_select(value, facts, level)
            case Call():
                return self._call(value, facts, level)
            case _:
                return False

    def _column(self, column: ColumnOf, facts: Facts) -> bool:
        if facts.needs(column):
            return True
        relation = column.relation
        if relation not in facts.present and relation not in of_rows(relation.level).present:
            return False
        match relation.source:
            case Table() as table:
                return column.name not in table.columns or table.columns[column.name].not_null
            case NewRow() as row:
                return row.table.columns[column.name].not_null or self._written(row, column, facts)
            case Query():
                return self._in_each_branch(column)
            case Rows() as rows:
                return self._from_function(rows, relation.columns.index(column.name), facts, column)

    def _written(self, row: NewRow, column: ColumnOf, facts: Facts) -> bool:
        if column.name in row.values:
            return self.value(row.values[column.name], facts, column.relation.level)
        if row.before is not None:
            return self._column(replace(column, relation=row.before), facts)
        return False

    def _in_each_branch(self, column: ColumnOf) -> bool:
        """A recursive branch may hand on what the row before had: by induction, not null."""
        place = place_of_column(column)
        if place in self.trail:
            return True
        prover = replace(self, shown=(), trail=self.trail | {place})
        return all(prover.result(level, value) for level, value in defined(column))

    def _from_function(self, rows: Rows, at: int, facts: Facts, column: ColumnOf) -> bool:
        if rows.ordinality and at == len(rows.columns) - 1:
            return True
        if (
            rows.call.name == "unnest" and len(rows.call.arguments) == 1
        ):  # more are padded with nulls
            return self._elements(rows.call.arguments[0], facts, column.relation.level)
        return rows.call.name in _OF_ROWS_NOT_NULL

    def _elements(self, array: Expression, facts: Facts, level: Level) -> bool:
        match array:
            case Parameter():
                return array.number in self.parameters
            case Cast():
                return self._elements(array.arguments[0], facts, level)
            case ArrayOf():
                return all(self._compared(one, facts, level) for one in array.arguments)
            case SubSelect(kind="array"):
                return self._of_query(array.query)
            case _:
                return False

    def _of_query(self, query: Query) -> bool:
        """Whether all that a query gives is not null."""
        prover = replace(self, shown=())
        return all(
            prover.result(level, output.expression)
            for level in query.branches
            for output in level.outputs
        )

    def _sub_select(self, select: SubSelect, facts: Facts, level: Level) -> bool:
        match select.kind:
            case "exists" | "array":
                return True
            case "any" | "all":
                tested = all(self.value(one, facts, level) for one in select.arguments)
                return tested and self._of_query(select.query)
            case "scalar":
                certain = all(one.never_empty for one in select.query.branches)
                return certain and self._of_query(select.query)

    def _compared(self, value: Expression, facts: Facts, level: Level) -> bool:
        """A row is not null itself, but makes a comparison null by a part that is."""
        parts = value.arguments if isinstance(value, RowOf) else (value,)
        return all(self.value(one, facts, level) for one in parts)

    def _cast(self, cast: Cast, facts: Facts, level: Level) -> bool:
        """A JSON null is not null, but becomes null when it is cast to another type."""
        inside = cast.arguments[0]
        becomes_null = _may_be(inside, _JSON) and cast.type not in (*_JSON, "text")
        return not becomes_null and self.value(inside, facts, level)

    def _call(self, call: Call, facts: Facts, level: Level) -> bool:
        if call.name in NEVER_NULL or call.name in NUMBERING or call.name == "count":
            return not call.variadic
        arguments = all(self.value(one, facts, level) for one in call.arguments)
        if call.name == "current_setting":
            return arguments and len(call.arguments) == 1  # with missing_ok it may be null
        if call.name in GROUP_AGGREGATES:
            return arguments and level.grouped and not (call.filtered or call.over)
        if call.name in ("lower", "upper") and _may_be(call.arguments[0], _RANGES):
            return False  # a range may have no bound there
        return arguments and call.name in STRICT


def _may_be(value: Expression, types: Container[str], trail: frozenset[int] = frozenset()) -> bool:
    """Whether an expression comes from a column, or a cast, of one of these types."""
    match value:
        case Cast():
            return value.type in types
        case ColumnOf():
            table = value.relation.table
            if table is not None and value.name in table.columns:
                return table.columns[value.name].type in types
            definitions = [] if id(value.relation.source) in trail else defined(value)
            trail |= {id(value.relation.source)}
            return any(_may_be(one, types, trail) for _, one in definitions)
        case Call(name="jsonb_set" | "jsonb_strip_nulls" | "to_jsonb"):
            return "jsonb" in types
        case FirstNotNull() | Case() | Call(name="any_value"):
            return any(_may_be(one, types, trail) for one in value.arguments)
        case SubSelect():
            outputs = [
                level.outputs[0].expression for level in value.query.branches if level.outputs
            ]
            return any(_may_be(one, types, trail) for one in outputs)
        case _:
            return False
