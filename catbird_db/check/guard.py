"""To which tenants a row's conditions prove the actor admitted.

An *actor's row* is a row of a table with actor columns (owner, member, grantee: ``actor:`` in the
table's comment) of which one equals the actor's parameter, and whose ``ended`` columns IS NULL. It is
the actor's own, and that is all that follows from this: what an owner wrote or was sent may outlive
a membership.

It admits to other rows only where its table's comment says by which of its columns: ``admits: convo_id``
makes convo_id a *key*, and rows that are keyed by the same are covered. ``admits: convo_id, epoch of welcomes``
makes no key; it admits to reading the row of welcomes that equals it in these columns.

The row that an INSERT writes is the actor's if each of its tenant columns is an actor column, given the
actor, or is unique by itself, so that no such tenant was there before; else nobody admits themselves. Where
ON CONFLICT DO UPDATE may keep an old row instead, it admits to nothing.

A row whose ``public`` column is true admits everybody to the same keys, to read there and not to write.

A row has the *keys* to which the actor is admitted wherever it exists:

- from each actor's row that stands in it, and what equals its keys;
- from each sub-select or CTE that stands in it: those that each of its rows has, in every branch of a
  UNION, as far as they are parameters or result columns;
- from EXISTS (...), IN (...), = ANY (...) and a scalar sub-select in AND position: the same, and keys
  that are columns of the outer row (a correlation);
- from an OR in AND position: those that each of its sides has; the side that is just the parameter
  after ``unless`` in the header is left out, as its reason says why it may pass.

A level that aggregates without GROUP BY has a row even where it finds none: it has no keys. What is
outer-joined has its keys where it has a row. A recursive CTE has the keys that its first branch has and
its recursive branch keeps.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias, TypeVar

from .facts import Facts, of_rows_alone, term
from .functions import STRICT_OPERATORS
from .levels import (
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
    conjuncts,
)
from .subject import Table

_T = TypeVar("_T")

Keys: TypeAlias = frozenset[Term] | None
"""The terms to which the actor is admitted; None: no actor's row stands behind this at all.

Empty: one does, and admits to nothing that is keyed.
"""

_Exported: TypeAlias = frozenset[Term | int] | None
"""Keys of a query: parameters, columns of outer levels, and the numbers of its own columns."""


class Guard:
    """What admits one actor, to write or only to read.

    ``unless``: the parameter that, where it is true, lets others pass.
    """

    def __init__(self, actor: Parameter, unless: Parameter | None, *, reading: bool) -> None:
        self.actor = actor
        self.unless = unless
        self.reading = reading
        self._exports: dict[Query, _Exported] = {}

    def is_actors(self, relation: Relation, facts: Facts) -> bool:
        """Whether a relation's row is the actor's own, by the facts that hold of it."""
        if isinstance(relation.source, Table):
            names_actor = self._names_actor(relation, relation.source, facts)
            return names_actor and self.may_have_ended(relation, facts) is None
        if isinstance(relation.source, NewRow) and relation is relation.level.target:
            return self._is_made_for(relation, relation.source.table, facts)
        return False

    def may_have_ended(self, relation: Relation, facts: Facts) -> str | None:
        """The column by which a row that names the actor may have ended, if there is one."""
        table = relation.source
        if not isinstance(table, Table) or not self._names_actor(relation, table, facts):
            return None
        null = _tested(facts, is_null=True)
        open_ended = (one for one in table.ended if ColumnOf(-1, relation, one) not in null)
        return next(open_ended, None)

    def _has_ended(self, relation: Relation, facts: Facts) -> bool:
        column = self.may_have_ended(relation, facts)
        return column is not None and (
            ColumnOf(-1, relation, column) in _tested(facts, is_null=False)
        )

    def is_public(self, relation: Relation, facts: Facts) -> bool:
        """Whether anybody may read a relation's row."""
        table = relation.source
        if not self.reading or not isinstance(table, Table):
            return False
        return any(ColumnOf(-1, relation, name) in facts.conditions for name in table.public)

    def is_beside(self, relation: Relation, facts: Facts) -> bool:
        """Whether a row is the actor's to read by an own row that stands beside it.

        It is what the own row admits to by a list of columns, or it names the actor too, is said to
        have ended (IS NOT NULL), and is of the own row's tenant: whoever has left may know that.
        """
        table = relation.source
        if not self.reading or not isinstance(table, Table):
            return False

        def equal(own: Relation, names: Iterable[str]) -> bool:
            return all(
                ColumnOf(-1, relation, name) in facts.same(ColumnOf(-1, own, name))
                for name in names
            )

        for own in facts.present:
            if not isinstance(own.source, Table) or not self.is_actors(own, facts):
                continue
            if own.source.admits_of == table.name and equal(own, own.source.admits):
                return True
            shared = set(tenants_of_all(table)) & set(tenants_of_all(own.source))
            if self._has_ended(relation, facts) and shared and equal(own, shared):
                return True
        return False

    def _names_actor(self, relation: Relation, table: Table, facts: Facts) -> bool:
        return any(self._is_actor(relation, name, facts) for name in table.actors)

    def _is_made_for(self, row: Relation, table: Table, facts: Facts) -> bool:
        unique = {one.columns for one in table.indexes if one.unique and one.predicate is None}
        named = [
            name
            for name in table.tenants
            if name in table.actors and self._is_actor(row, name, facts)
        ]
        rest = [name for name in table.tenants if name not in named]
        return bool(named) and all((name,) in unique for name in rest)

    def _is_actor(self, relation: Relation, column: str, facts: Facts) -> bool:
        return self.actor in facts.same(ColumnOf(-1, relation, column))

    def keys(self, facts: Facts, opened: frozenset[int] = frozenset()) -> Keys:
        """The keys of a row of which ``facts`` hold; ``opened``: ORs that are being looked into."""
        found: Keys = None
        for relation in facts.present:
            found = _both(found, self._of_relation(relation, facts))
        for condition in facts.conditions:
            if isinstance(condition, Logic) and condition.kind == "or":
                found = _both(found, self._of_or(condition, facts, opened))
            for query, tests in _queries_that_found(condition):
                found = _both(found, self._of_query(query, tests))
        if found is None:
            return None
        return frozenset(same for key in found for same in facts.same(key))

    def _of_relation(self, relation: Relation, facts: Facts) -> Keys:
        source = relation.source
        if isinstance(source, Query):
            columns = [ColumnOf(relation.location, relation, name) for name in relation.columns]
            return self._of_query(source, columns)
        if relation.table is None:
            return None
        if not self.is_actors(relation, facts) and not self.is_public(relation, facts):
            return None
        if isinstance(source, NewRow) and relation.level.old is not None:
            return None  # it may be an old row that is kept
        names = relation.table.admits if relation.table.admits_of is None else ()
        return frozenset(ColumnOf(relation.location, relation, name) for name in names)

    def _of_or(self, condition: Logic, facts: Facts, opened: frozenset[int]) -> Keys:
        ors = {id(one) for one in facts.conditions if isinstance(one, Logic) and one.kind == "or"}
        if id(condition) in opened:
            return None
        sides = [
            self.keys(facts.and_(conjuncts(side)), opened | ors) for side in self.sides(condition)
        ]
        return _meet(sides)

    def sides(self, condition: Logic) -> list[Expression]:
        """Those of an OR, but for the one that the header lets pass."""
        return [
            side for side in condition.arguments if self.unless is None or term(side) != self.unless
        ]

    def _of_query(self, query: Query, columns: Iterable[Expression]) -> Keys:
        exported = self._exported(query)
        if exported is None:
            return None
        numbered = [term(column) for column in columns]
        outside = (
            key if not isinstance(key, int) else numbered[key] if key < len(numbered) else None
            for key in exported
        )
        return frozenset(key for key in outside if key is not None)

    def _exported(self, query: Query) -> _Exported:
        if query in self._exports:
            return self._exports[query]
        if not query.recursive:
            self._exports[query] = _meet(self._exported_by(one) for one in query.branches)
            return self._exports[query]
        self._exports[query] = None
        assumed = self._exported_by(query.branches[0])
        while True:  # each round keeps fewer keys, or the same
            known = dict(self._exports)
            self._exports[query] = assumed
            found = _meet(self._exported_by(one) for one in query.branches)
            self._exports = known | {query: found}
            if found == assumed:
                return found
            assumed = found

    def _exported_by(self, level: Level) -> _Exported:
        facts = of_rows_alone(level)
        keys = None if level.collapses else self.keys(facts)
        if keys is None:
            return None
        lasting = {
            key for key in keys if isinstance(key, Parameter) or key.relation.level is not level
        }
        shown = {
            number
            for number, output in enumerate(level.outputs)
            if (one := term(output.expression)) is not None and not facts.same(one).isdisjoint(keys)
        }
        return frozenset[Term | int](lasting | shown)


def _tested(facts: Facts, *, is_null: bool) -> set[Expression]:
    """What is said to be null, or not to be."""
    tests = (one for one in facts.conditions if isinstance(one, NullTest))
    return {one.arguments[0] for one in tests if one.is_null is is_null}


def tenants_of_all(table: Table) -> tuple[str, ...]:
    """The columns that say of which tenant a row is, whoever's it is; where there are none, whose."""
    return tuple(name for name in table.tenants if name not in table.actors) or table.tenants


def _queries_that_found(condition: Expression) -> Iterator[tuple[Query, tuple[Expression, ...]]]:
    """Queries that must have a row where a condition is true, and what equals the columns of that row."""
    match condition:
        case SubSelect(kind="exists"):
            yield condition.query, ()
        case SubSelect(kind="any"):
            yield condition.query, condition.arguments if condition.operator == "=" else ()
        case Membership(every=False):
            if isinstance(condition.right, SubSelect) and condition.right.kind == "array":
                yield condition.right.query, (condition.left,) if condition.operator == "=" else ()
        case Operation() if condition.operator in STRICT_OPERATORS:
            for at, one in enumerate(condition.arguments):
                if isinstance(one, SubSelect) and one.kind == "scalar":
                    others = condition.arguments[:at] + condition.arguments[at + 1 :]
                    yield one.query, others if condition.operator == "=" else ()
        case _:
            pass


def _both(left: Keys, right: Keys) -> Keys:
    """The keys of either, where both hold."""
    return right if left is None else left if right is None else left | right


def _meet(sides: Iterable[frozenset[_T] | None]) -> frozenset[_T] | None:
    """The keys that each side has."""
    found = list(sides)
    known = [side for side in found if side is not None]
    return known[0].intersection(*known[1:]) if known and len(known) == len(found) else None
