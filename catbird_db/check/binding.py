"""Whether a value is *bound*: whether it can only be what the caller named, or belongs to that.

Bound are, in a row of which certain facts hold,

- a parameter, and what equals one;
- what is ``= ANY`` of an array parameter, or of an array of what is bound, or IN a list of it;
- a column of a sub-select or CTE that is bound in each of its branches, and what equals it, or is IN
  it or ``= ANY (ARRAY (SELECT it))``; a recursive branch may hand on the column of the row before;
- a column of ``unnest`` of an array parameter or of such an ARRAY;
- a tenant column of a row of a tenant's table of which another tenant column is bound.

Nothing else is: no literal, no column that is cast or passed through a function, none of a bound row
that is not a tenant column. A value that an outer join made null equals nothing, so it counts as what
it is where it is not null.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .facts import Facts, of_rows, place_of_column, term
from .levels import (
    ArrayOf,
    Cast,
    ColumnOf,
    Expression,
    Membership,
    NewRow,
    Operation,
    Parameter,
    Query,
    Rows,
    SubSelect,
    defined,
)

Accepts: TypeAlias = Callable[[Parameter, frozenset[str]], bool]
"""Whether a parameter counts, which binds through these tenant columns."""

_Trail: TypeAlias = frozenset[tuple[int, int]]


def bound(value: Expression, facts: Facts, accepts: Accepts) -> bool:
    """Whether a value is bound in a row of which ``facts`` hold, by a parameter that counts."""
    return _Judge(accepts, frozenset(), frozenset()).value(value, facts)


@dataclass(frozen=True)
class _Judge:
    """``through``: the tenant columns on the way here; ``trail``: the columns being judged."""

    accepts: Accepts
    through: frozenset[str]
    trail: _Trail

    def value(self, expression: Expression, facts: Facts) -> bool:
        one = term(expression)
        if one is None:
            return isinstance(expression, SubSelect) and self._result(expression)
        if isinstance(one, ColumnOf):
            facts = facts.and_((), [one.relation])
        same = facts.same(one)
        tenant_columns = {
            column.name
            for column in same
            if isinstance(column, ColumnOf) and column.name in _tenants(column)
        }
        judge = _Judge(self.accepts, self.through | tenant_columns, self.trail)
        for other in same:
            if isinstance(other, Parameter):
                if self.accepts(other, judge.through):
                    return True
            elif judge.column(other, facts):
                return True
        return False

    def column(self, column: ColumnOf, facts: Facts) -> bool:
        """Whether a column is bound by where it comes from, or by what it is a member of."""
        place = place_of_column(column)
        if place in self.trail:
            return column.relation.recursive
        judge = _Judge(self.accepts, self.through, self.trail | {place})
        return (
            judge._member(column, facts)
            or judge._by_source(column, facts)
            or any(
                judge.value(ColumnOf(column.location, column.relation, other), facts)
                for other in _tenants(column)
                if column.name in _tenants(column) and other != column.name
            )
        )

    def _by_source(self, column: ColumnOf, facts: Facts) -> bool:
        match column.relation.source:
            case Query():
                return self._all_branches(column)
            case Rows() as rows if rows.call.name == "unnest":
                at = column.relation.columns.index(column.name)
                arrays = rows.call.arguments
                return at < len(arrays) and self._array(arrays[at], facts)
            case NewRow() as row if column.name in row.values:
                value = row.values[column.name]
                return term(value) is None and self.value(value, facts)
            case _:
                return False

    def _all_branches(self, column: ColumnOf) -> bool:
        return all(self.value(value, of_rows(level)) for level, value in defined(column))

    def _member(self, column: ColumnOf, facts: Facts) -> bool:
        for condition in facts.conditions:
            match condition:
                case Membership(operator="=", every=False) if term(condition.left) == column:
                    found = self._array(condition.right, facts)
                case SubSelect(kind="any", operator="=") if column in map(
                    term, condition.arguments
                ):
                    at = [term(one) for one in condition.arguments].index(column)
                    found = self._result(condition, at)
                case Operation(operator="=") if column in map(term, condition.arguments):
                    found = any(
                        isinstance(one, SubSelect) and one.kind == "scalar" and self._result(one)
                        for one in condition.arguments
                    )
                case _:
                    found = False
            if found:
                return True
        return False

    def _array(self, array: Expression, facts: Facts) -> bool:
        while isinstance(array, Cast) and array.bare and term(array) is None:
            array = array.arguments[0]
        if isinstance(one := term(array), Parameter):
            return self.accepts(one, self.through)
        if isinstance(array, ArrayOf):
            return all(self.value(element, facts) for element in array.arguments)
        return isinstance(array, SubSelect) and array.kind == "array" and self._result(array)

    def _result(self, select: SubSelect, at: int = 0) -> bool:
        branches = select.query.branches
        return all(self.value(one.outputs[at].expression, of_rows(one)) for one in branches)


def _tenants(column: ColumnOf) -> tuple[str, ...]:
    table = column.relation.table
    return () if table is None else table.tenants
