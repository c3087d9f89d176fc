"""What is known of a row: the conditions that hold, and what equalities follow from them.

`Facts` is closed under one inference. A condition that is true only where a column is not null says
that the column's relation has a row of its own there; then what `levels` promises of that relation
holds as well. So of ``LEFT JOIN conversations AS c ON c.id = r.convo_id``, where r is outer-joined
itself, it follows that where c has a row, r has one, and what r's own ON demands is true.

A *term* is a parameter or a column. Terms are *the same* where AND-ed equalities join them. A
parameter may be cast to a type that keeps its value; a column that is cast, or passed through a
function, is no term. Besides, a column of a sub-select or CTE is the same as a parameter that it is
in each branch, and a column of a row just written is the same as what was written to it.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from .functions import STRICT, STRICT_OPERATORS
from .levels import (
    Call,
    Cast,
    ColumnOf,
    Expression,
    Level,
    Logic,
    Membership,
    NewRow,
    NullTest,
    Operation,
    Parameter,
    Query,
    Relation,
    SubSelect,
    Term,
    Test,
    defined,
)

KEEPING_CASTS = frozenset(
    name + suffix
    for name in ("text", "varchar", "int2", "int4", "int8", "uuid", "bytea", "bool")
    for suffix in ("", "[]")
)
"""Types to which a parameter is cast only to say what it is."""

_Busy = frozenset[tuple[int, int]]


def term(expression: Expression) -> Term | None:
    """The term that an expression is, if it is one."""
    if isinstance(expression, ColumnOf):
        return expression
    while isinstance(expression, Cast) and expression.bare and expression.type in KEEPING_CASTS:
        expression = expression.arguments[0]
    return expression if isinstance(expression, Parameter) else None


class Facts:
    """What holds of a row.

    Attributes:
        conditions: what is true.
        present: the relations that have a row of their own.
    """

    def __init__(
        self,
        conditions: Iterable[Expression] = (),
        present: Iterable[Relation] = (),
        *,
        within: Level | None = None,
    ) -> None:
        """``within``: draw no inference on relations of other levels."""
        self.conditions: list[Expression] = []
        self.present: list[Relation] = []
        self._within = within
        self._joined = defaultdict[Term, list[Term]](list)
        self._add(conditions, present)

    def and_(self, conditions: Iterable[Expression], present: Iterable[Relation] = ()) -> "Facts":
        """These facts and more."""
        facts = Facts(within=self._within)
        facts._add([*self.conditions, *conditions], [*self.present, *present])
        return facts

    def needs(self, column: ColumnOf) -> bool:
        """Whether a condition is true only where the column is not null."""
        return any(column in needed(condition) for condition in self.conditions)

    def same(self, start: Term, busy: _Busy = frozenset()) -> set[Term]:
        """A term and all that are the same; ``busy``: columns of queries that are being judged."""
        found, waiting = {start}, [start]
        while waiting:
            one = waiting.pop()
            for other in (*self._joined[one], *_made_of(one, busy)):
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found

    def _add(self, conditions: Iterable[Expression], present: Iterable[Relation]) -> None:
        known = {id(one) for one in self.conditions}
        new = list(conditions)
        arriving = list(present)
        while new or arriving:
            while arriving:
                relation = arriving.pop()
                if relation not in self.present:
                    self.present.append(relation)
                    new += relation.conditions
                    arriving += relation.beside
            if new and id(condition := new.pop()) not in known:
                known.add(id(condition))
                self.conditions.append(condition)
                self._join(condition)
                needy = (column.relation for column in needed(condition))
                arriving += [one for one in needy if self._within in (None, one.level)]

    def _join(self, condition: Expression) -> None:
        if isinstance(condition, Operation) and condition.operator == "=":
            left, right = map(term, condition.arguments)
            if left is not None and right is not None:
                self._joined[left].append(right)
                self._joined[right].append(left)


@lru_cache(maxsize=512)
def of_rows(level: Level) -> Facts:
    """What holds of each row of a level."""
    return Facts(level.conditions, level.present)


@lru_cache(maxsize=512)
def of_rows_alone(level: Level) -> Facts:
    """What holds of each row of a level, by what is written in it."""
    return Facts(level.conditions, level.present, within=level)


def where_present(relation: Relation) -> Facts:
    """What holds of each row of a level in which one of its relations has a row of its own."""
    return Facts((), [relation])


# ---- nulls


def needed(condition: Expression) -> frozenset[ColumnOf]:
    """Columns that are not null where a condition is true."""
    match condition:
        case Logic(kind="and"):
            return _union(map(needed, condition.arguments))
        case Logic(kind="or"):
            branches = [needed(one) for one in condition.arguments]
            return branches[0].intersection(*branches[1:])
        case NullTest(is_null=False):
            return strict(condition.arguments[0])
        case Test(kind="is_true"):
            return needed(condition.arguments[0])
        case Test(kind="is_false" | "is_not_unknown"):
            return strict(condition.arguments[0])
        case Membership(every=False) | SubSelect(kind="any"):
            if condition.operator not in STRICT_OPERATORS:
                return frozenset()
            return _union(map(strict, condition.arguments))
        case _:
            return strict(condition)


def strict(expression: Expression) -> frozenset[ColumnOf]:
    """Columns without which, if one is null, an expression is null."""
    match expression:
        case ColumnOf():
            return frozenset([expression])
        case Cast() | Logic(kind="not"):
            return _union(map(strict, expression.inside))
        case Operation() if expression.operator in STRICT_OPERATORS:
            return _union(map(strict, expression.arguments))
        case Call() if expression.name in STRICT:
            return _union(map(strict, expression.arguments))
        case _:
            return frozenset()


def _union(sets: Iterable[frozenset[ColumnOf]]) -> frozenset[ColumnOf]:
    return frozenset[ColumnOf]().union(*sets)


# ---- what a column is made of


def _made_of(one: Term, busy: _Busy) -> Iterable[Term]:
    """Terms that a column is the same as, by where it comes from."""
    if not isinstance(one, ColumnOf):
        return ()
    source = one.relation.source
    if isinstance(source, NewRow):
        if one.name in source.values:
            value = term(source.values[one.name])
            return () if value is None else (value,)
        return () if source.before is None else (ColumnOf(one.location, source.before, one.name),)
    if isinstance(source, Query) and place_of_column(one) not in busy:
        return _parameters(one, busy)
    return ()


def _parameters(column: ColumnOf, busy: _Busy) -> frozenset[Parameter]:
    """The parameters that a column of a query is in each branch.

    A branch of a recursive CTE that hands on the column of the row before is left out: by
    induction it has what the others have.
    """
    busy |= {place_of_column(column)}
    found: list[frozenset[Parameter]] = []
    for level, expression in defined(column):
        value = term(expression)
        same = set[Term]() if value is None else of_rows_alone(level).same(value, busy)
        if busy.isdisjoint(place_of_column(one) for one in same if isinstance(one, ColumnOf)):
            found.append(frozenset(one for one in same if isinstance(one, Parameter)))
    return found[0].intersection(*found[1:]) if found else frozenset()


def place_of_column(column: ColumnOf) -> tuple[int, int]:
    """Which column of which source; the same for each use of a CTE."""
    columns = column.relation.columns
    return id(column.relation.source), columns.index(column.name) if column.name in columns else -1
