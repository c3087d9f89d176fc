"""`actor`: what a statement returns or writes is the actor's to see or to write.

``-- actor: reader_did`` in a header names a parameter, and claims that the statement answers for it:
each row of a table that it returns, counts, tests or writes is *covered*. The claim is proved, for
each row that is read on the way to the result, and on the way to each write:

A row of a table with tenants is covered if it is the actor's own (see `guard`), or if one of its tenant
columns equals a key to which the actor is admitted where that row is used: in its own level, or in a
level around it, a CTE being used where it is named. That a row is the actor's own admits to no other, unless
its table says so (``admits: convo_id`` in its comment). A row of a table without tenants is covered where
a row of the actor's own stands beside it. Where an OR holds, each of its sides may cover in its own way.

The row that an INSERT writes is covered if it is the actor's own, or if a tenant column that is no
actor column is given such a key (or any, where all are actor columns): to write oneself into a
conversation is not to be in it. What an UPDATE assigns to a tenant column must be such a key too: who
gives a row away writes where they are not admitted.

What a level shows that aggregates without GROUP BY, and is not filtered by what it found (a sub-select
in its result), is shown even if it found nothing: its conditions cover only what it counts.

A row that is public (``public: is_public`` in its table's comment), and the rows of its tenant, are covered
where they are read; where they are written, they are not.

So the id that was asked for proves nothing by itself, nor does a membership elsewhere: the member's
row must be of the same tenant, by AND-ed equalities. Where an outer join hides what is not covered,
what is joined must be covered where it has a row: by its ON, or by what is on its other side.

``-- actor: sender_did unless external (reason)`` waives this where the parameter ``external`` is true: as
a side of an OR it lets others pass, for the reason given.

A statement that tells whether somebody is a member, for its caller to decide, is not covered as a whole:
``-- actor: none (reason)`` says so. So does no actor line, unless a parameter, tenants aside, has the name
of one that acts in another statement.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from .facts import Facts, term
from .finding import Finding
from .guard import Guard, tenants_of_all
from .levels import (
    ColumnOf,
    Expression,
    Level,
    Logic,
    Parameter,
    Query,
    Relation,
    Resolved,
    conjuncts,
)
from .scope import Unresolved, resolve
from .subject import Catalog, Subject, Table
from .syntax import at_token

RULE = "actor"


def acting(subjects: Iterable[Subject]) -> frozenset[str]:
    """The parameters that act in some statement of a package."""
    return frozenset(one.statement.actor[0] for one in subjects if one.statement.actor)


def check_silence(subject: Subject, acting: Collection[str]) -> Iterator[Finding]:
    """A header that does not say whether the statement answers for somebody who acts elsewhere."""
    statement = subject.statement
    if "actor" in statement.header or not statement.tenant:
        return
    for name in statement.parameters:
        if name in acting and name not in statement.tenant:
            yield subject.at_header(
                "name",
                RULE,
                f":{name} is the actor of other statements, and this header does not say whose act this is",
                f"-- actor: {name}; or -- actor: none (who decides that this may be done)",
            )


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Whether a statement keeps to what its header says of its actor."""
    if subject.statement.actor is None:
        return
    name, unless = subject.statement.actor
    parameters = subject.statement.parameters
    unknown = [one for one in (name, unless) if one is not None and one not in parameters]
    if unknown:
        yield subject.at_header(
            "actor",
            RULE,
            f"{unknown[0]} is no parameter of this statement",
            "-- actor: a parameter of it",
        )
        return
    try:
        statement = resolve(subject.tree, catalog)
    except Unresolved as problem:
        yield at_token(subject, problem.location, RULE, problem.message, problem.mend)
        return
    actor = Parameter(-1, parameters.index(name) + 1)
    passing = Parameter(-1, parameters.index(unless) + 1) if unless else None
    readers, writers = (Guard(actor, passing, reading=reading) for reading in (True, False))
    yield from _judge(subject, catalog, statement, _Cover(readers, writers), name)


_Covers: TypeAlias = Callable[[Facts], bool]


@dataclass(frozen=True)
class _Bare:
    """What is not covered, where it stands, what is known there, and what would cover it."""

    what: str
    location: int
    width: int
    facts: Facts
    covers: _Covers
    guard: Guard

    def is_covered(self, facts: Facts, opened: frozenset[int] = frozenset()) -> bool:
        """Whether it is, where these facts hold; ``opened``: ORs that are being looked into."""
        if self.covers(facts):
            return True
        ors = [one for one in facts.conditions if isinstance(one, Logic) and one.kind == "or"]
        inside = opened | {id(one) for one in ors}
        for one in ors:
            sides = self.guard.sides(one)
            if id(one) in opened or not sides:
                continue
            if all(self.is_covered(facts.and_(conjuncts(side)), inside) for side in sides):
                return True
        return False


def _judge(
    subject: Subject, catalog: Catalog, statement: Resolved, cover: "_Cover", name: str
) -> Iterator[Finding]:
    bare: dict[tuple[str, int], _Bare] = {}
    for query in (*statement.writes, statement.query):
        for one in cover.bare(query, Facts(), ()):
            bare.setdefault((one.what, one.location), one)
    sources = [relation.source for level in statement.levels for relation in level.relations]
    here = {source.name for source in sources if isinstance(source, Table)}

    def columns(*, admitting: bool) -> str:
        owned = [table for table in catalog.tables.values() if table.actors]
        admit = [table for table in owned if table.admits and table.admits_of is None]
        tables = admit if admitting else owned
        tables = [table for table in tables if table.name in here] or admit
        return " or ".join(f"{table.name}.{column}" for table in tables for column in table.actors)

    if cover.ended and (bare or not cover.admitting):
        relation, column = cover.ended
        yield subject.at(
            relation.location,
            RULE,
            f"{relation} names :{name}, but its {column} says whether that has ended",
            f"AND {relation.alias}.{column} IS NULL",
            relation.width,
        )
    elif not cover.admitting:
        yield subject.at_header(
            "actor",
            RULE,
            f":{name} stands in no equality with an owner, a member or a grantee",
            f"{columns(admitting=False) or 'a column that names an actor'} = :{name}, in AND position",
        )
    elif bare:
        where = columns(admitting=True)
        yield _uncovered(subject, cover, list(bare.values()), name, where)


def _uncovered(
    subject: Subject, cover: "_Cover", bare: list[_Bare], name: str, where: str
) -> Finding:
    first = min(bare, key=lambda one: one.location)
    others = f", nor are {len(bare) - 1} more" if len(bare) > 1 else ""
    message = f"{first.what} is not covered by what :{name} may see or write{others}"
    for one in bare:
        if side := cover.bypass(one):
            return at_token(
                subject,
                side.location,
                RULE,
                f"this side of the OR is true without :{name}: {message}",
                "the condition on the actor outside the OR, or in each of its sides",
            )
    return subject.at(
        first.location,
        RULE,
        message,
        f"{where or 'a column of what admits its actor'} = :{name} of the same tenant, in AND position;"
        " or -- actor: none (reason)",
        first.width,
    )


class _Cover:
    """Looks for what is not covered.

    ``admitting``: it met an actor's row. ``ended``: one that may have ended, and by which column.
    """

    def __init__(self, readers: Guard, writers: Guard) -> None:
        self.readers = readers
        self.writers = writers
        self.admitting = False
        self.ended: tuple[Relation, str] | None = None

    def bare(self, query: Query, around: Facts, inside: tuple[Query, ...]) -> Iterator[_Bare]:
        """What is not covered in a query, where ``around`` holds of the rows that use it."""
        if query in inside:
            return
        for level in query.branches:
            here = around.and_(level.conditions, level.present)
            for relation in level.relations:
                yield from self._relation(relation, around, (*inside, query))
            filtering = level.filtering
            for one in level.sub_selects:
                found_first = not level.collapses or one in filtering
                yield from self.bare(one.query, here if found_first else around, (*inside, query))
            target = level.target
            if target is not None and target.table is not None:
                if level.verb == "insert":
                    yield from self._inserted(target, target.table, here)
                yield from self._assigned(level, target.table, here)

    def _relation(
        self, relation: Relation, around: Facts, inside: tuple[Query, ...]
    ) -> Iterator[_Bare]:
        source = relation.source
        if isinstance(source, Query):
            yield from self.bare(source, around.and_((), [relation]), inside)
        elif isinstance(source, Table):
            facts = around.and_((), [relation])
            is_written = relation in (relation.level.target, relation.level.old)
            guard = self.writers if is_written else self.readers
            is_actors = guard.is_actors(relation, facts)
            self.admitting |= is_actors or any(
                guard.is_actors(relation, facts.and_(conjuncts(side))) for side in _sides(facts)
            )
            if column := guard.may_have_ended(relation, facts):
                self.ended = self.ended or (relation, column)
            what = str(relation)
            if relation is relation.level.old:
                what = f"the row of {source.name} that is updated instead"
            values = _tenant_columns(relation, source)

            def covers(facts: Facts) -> bool:
                return (
                    guard.is_actors(relation, facts)
                    or guard.is_public(relation, facts)
                    or _is_keyed(values, facts, guard)
                    or guard.is_beside(relation, facts)
                )

            bare = _Bare(what, relation.location, relation.width, facts, covers, guard)
            if not bare.is_covered(facts):
                yield bare

    def _inserted(self, row: Relation, table: Table, facts: Facts) -> Iterator[_Bare]:
        values = tuple(ColumnOf(row.location, row, name) for name in tenants_of_all(table))
        self.admitting |= self.writers.is_actors(row, facts)

        def covers(facts: Facts) -> bool:
            return self.writers.is_actors(row, facts) or _is_keyed(values, facts, self.writers)

        what = f"the row inserted into {table.name}"
        bare = _Bare(what, row.location, row.width, facts, covers, self.writers)
        if not bare.is_covered(facts):
            yield bare

    def _assigned(self, level: Level, table: Table, facts: Facts) -> Iterator[_Bare]:
        for name, one in level.assigned.items():
            value = (one.expression,)
            covers = partial(_is_keyed, value, guard=self.writers)
            what = f"what {table.name}.{name} is set to"
            bare = _Bare(what, one.location, len(name), facts, covers, self.writers)
            if name in table.tenants and not bare.is_covered(facts):
                yield bare

    def bypass(self, bare: _Bare) -> Expression | None:
        """A side of an OR that lets others pass, where another side would cover."""
        for condition in bare.facts.conditions:
            if isinstance(condition, Logic) and condition.kind == "or":
                sides = [
                    (side, bare.is_covered(bare.facts.and_(conjuncts(side))))
                    for side in condition.arguments
                ]
                open_sides = [side for side, covered in sides if not covered]
                if open_sides and len(open_sides) < len(sides):
                    return open_sides[0]
        return None


def _is_keyed(values: tuple[Expression, ...], facts: Facts, guard: Guard) -> bool:
    keys = guard.keys(facts)
    if keys is None:
        return False
    terms = [one for one in map(term, values) if one is not None]
    return not values or any(not facts.same(one).isdisjoint(keys) for one in terms)


def _sides(facts: Facts) -> Iterator[Expression]:
    """Of each OR that holds, its sides."""
    for condition in facts.conditions:
        if isinstance(condition, Logic) and condition.kind == "or":
            yield from condition.arguments


def _tenant_columns(relation: Relation, table: Table) -> tuple[Expression, ...]:
    return tuple(ColumnOf(relation.location, relation, name) for name in table.tenants)
