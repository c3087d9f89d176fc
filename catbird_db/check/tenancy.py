"""`tenant`: each mention of a tenant's table is bound to what the caller named.

Which tables are tenants', and by which columns, stands once: in the table's comment, as a line
``tenant: convo_id, member_did``.

**Bound.** A mention of such a table is bound if, in AND position (see `levels`), one of its tenant
columns is (see `binding`). The row that an INSERT writes is bound if all that it gives to them is; so
must be whatever an UPDATE assigns to one. The row that ON CONFLICT DO UPDATE may change is a
mention of its own: in it, the columns of the conflict target equal those of the row proposed.

An equality carries on only between columns and parameters as they are. What is cast, collated, put
through coalesce or a function, compared by another operator or by IS NOT DISTINCT FROM, negated, or
stands beside an OR, binds nothing; the ON of an outer join binds its outer side alone.

**The header.** ``-- tenant: a, b`` says by what: each name is that of a parameter of the statement or,
if it is none, of a tenant column. Every mention must be bound through one of the names, by that
parameter, or by any parameter through that column; and every name must bind something.
``-- tenant: none (reason)`` exempts the statement, if there is something to exempt.

A function that is not known (see `functions`) could read anything, so it is a finding as well.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .binding import Accepts, bound
from .facts import Facts, of_rows, where_present
from .finding import Finding
from .levels import Call, ColumnOf, Expression, Level, NewRow, Parameter, Relation, Resolved, walk
from .scope import Unresolved, resolve
from .subject import Catalog, Subject, Table
from .syntax import at_token, exempts

RULE = "tenant"

_WITHOUT = "the header without this line"


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Whether a statement keeps to what its header says of tenants."""
    exempt = exempts(subject.statement.header.get("tenant", ""))
    try:
        statement = resolve(subject.tree, catalog)
    except Unresolved as problem:
        if not exempt:
            yield at_token(subject, problem.location, RULE, problem.message, problem.mend)
        return
    mentions = list(_mentions(statement))
    unknown = list(_unknown_functions(statement, catalog))
    if exempt:
        if not unknown and not any(mention.loose for mention in mentions):
            yield _needless_exemption(subject, mentions)
        return
    for call in unknown:
        yield subject.at(
            call.location,
            RULE,
            f"{call.name}() is not known to check: it could read the rows of any tenant",
            "a built-in function that check knows (functions.py), or -- tenant: none (reason)",
            len(call.name),
        )
    yield from _against_header(subject, mentions)


def _against_header(subject: Subject, mentions: list["_Mention"]) -> Iterator[Finding]:
    header = subject.statement.header.get("tenant", "")
    names = subject.statement.tenant
    if mentions and not names:
        table = mentions[0].table
        yield subject.at_header(
            "tenant",
            RULE,
            f"{table.name} is a tenant's table, and the header does not say what binds it",
            f"-- tenant: {_binding(subject, mentions) or table.tenants[0]}",
        )
    wrong = False
    for mention in mentions:
        named = next((one for one in names if one in subject.statement.parameters), None)
        mend = mention.mend.format(by=f":{named or mention.table.tenants[0]}")
        if mention.loose:
            message = f"{mention.what} is bound to no tenant"
        elif names and not mention.bound(_named(subject, names)):
            by = _binding(subject, [mention])
            message = f"{mention.what} is bound by {by}, where the header says {header}"
            mend = f"{mend}; or -- tenant: {header}, {by}"
        else:
            continue
        wrong = True
        yield subject.at(mention.location, RULE, message, mend, mention.width)
    for name in names:
        if not wrong and not _counts(subject, name, names, mentions):
            yield subject.at_header(
                "tenant",
                RULE,
                f"{name} binds no tenant's table in this statement",
                f"-- tenant: {_binding(subject, mentions)}" if mentions else _WITHOUT,
            )


def _needless_exemption(subject: Subject, mentions: list["_Mention"]) -> Finding:
    found = "each tenant's table is bound" if mentions else "no tenant's table stands in it"
    mend = f"-- tenant: {_binding(subject, mentions)}" if mentions else _WITHOUT
    return subject.at_header("tenant", RULE, f"nothing is exempted: {found}", mend)


def _binding(subject: Subject, mentions: list["_Mention"]) -> str:
    """The parameters that bind these mentions."""
    names = subject.statement.parameters
    return ", ".join(name for name in names if _counts(subject, name, names, mentions))


def _counts(
    subject: Subject, name: str, names: Iterable[str], mentions: Iterable["_Mention"]
) -> bool:
    """Whether a name binds a mention, alone or as one that cannot be spared among ``names``."""
    alone, together = _named(subject, [name]), _named(subject, names)
    spared = _named(subject, [one for one in names if one != name])
    return any(
        one.bound(alone) or (one.bound(together) and not one.bound(spared)) for one in mentions
    )


def _any(_parameter: Parameter, _through: frozenset[str]) -> bool:
    return True


def _named(subject: Subject, names: Iterable[str]) -> Accepts:
    """What the names of a header accept."""
    parameters = set(names).intersection(subject.statement.parameters)
    columns = set(names) - parameters

    def accepts(parameter: Parameter, through: frozenset[str]) -> bool:
        named = subject.parameter(parameter.number) in parameters
        return named or not columns.isdisjoint(through)

    return accepts


# ---- what must be bound


@dataclass(frozen=True)
class _Mention:
    """One of ``values`` must be bound, or each if ``every``, where ``facts`` hold.

    ``mend``: ``{by}`` in it stands for the parameter that the header names.
    """

    what: str
    table: Table
    values: tuple[Expression, ...]
    facts: Facts
    location: int
    width: int
    mend: str
    every: bool = False

    def bound(self, accepts: Accepts) -> bool:
        """Whether one of them is, by what ``accepts`` takes."""
        return any(bound(value, self.facts, accepts) for value in self.values)

    @property
    def loose(self) -> bool:
        found = [bound(value, self.facts, _any) for value in self.values]
        return not (any(found) and (all(found) or not self.every))


def _mentions(statement: Resolved) -> Iterator[_Mention]:
    for level in statement.levels:
        for relation in level.relations:
            if isinstance(relation.source, Table) and relation.source.tenants:
                yield _stored(level, relation, relation.source)
        target = level.target
        if target is not None and target.table is not None and target.table.tenants:
            if level.verb == "insert":
                yield _proposed(level, target, target.table)
            yield from _assigned(level, target.table)


def _stored(level: Level, relation: Relation, table: Table) -> _Mention:
    column = f"{relation.alias}.{table.tenants[0]}"
    is_old = relation is level.old
    return _Mention(
        f"the row of {table.name} that is updated instead" if is_old else str(relation),
        table,
        _tenant_columns(relation, table),
        where_present(relation),
        relation.location,
        relation.width,
        f"a conflict target with {table.tenants[0]}, or WHERE {column} = excluded.{table.tenants[0]}"
        if is_old
        else f"AND {column} = {{by}}, or = a column of what is bound",
    )


def _proposed(level: Level, target: Relation, table: Table) -> _Mention:
    assert isinstance(target.source, NewRow)
    given = target.source.values
    return _Mention(
        f"the row inserted into {table.name}",
        table,
        tuple(given[name] for name in table.tenants if name in given),
        of_rows(level),
        target.location,
        target.width,
        f"a parameter for its {' and '.join(table.tenants)}, or a column of what is bound",
        every=True,
    )


def _assigned(level: Level, table: Table) -> Iterator[_Mention]:
    facts = of_rows(level) if level.old is None else where_present(level.old)
    for name, one in level.assigned.items():
        if name in table.tenants:
            yield _Mention(
                f"what {table.name}.{name} is set to",
                table,
                (one.expression,),
                facts,
                one.location,
                len(name),
                f"{name} = a parameter, or a column of what is bound",
            )


def _tenant_columns(relation: Relation, table: Table) -> tuple[Expression, ...]:
    return tuple(ColumnOf(relation.location, relation, name) for name in table.tenants)


def _unknown_functions(statement: Resolved, catalog: Catalog) -> Iterator[Call]:
    """Also those of which somebody made another of the same name."""
    for level in statement.levels:
        for one in walk(level.expressions):
            if isinstance(one, Call) and (one.kind == "unknown" or one.name in catalog.functions):
                yield one
