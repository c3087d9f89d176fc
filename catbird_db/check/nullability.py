"""`not-null`: a field that is not Optional has a column that is never null.

**Provably not null** is

- a column that the catalog says is NOT NULL, of a relation that no outer join has put nulls for; one
  of the row that INSERT or UPDATE leaves behind, which RETURNING shows;
- a column without which a condition in AND position is not true: ``col IS NOT NULL``, ``col = $1``;
- a literal; a parameter whose annotation does not admit None; an element of a list of such;
- a column of a sub-select or CTE that is so in each branch; WITH ORDINALITY's;
- count, EXISTS, ARRAY (SELECT ...), IS NULL and the other tests, row_number and its like, and what
  `functions` says is never null; coalesce, greatest and least of which one is not null; CASE with an
  ELSE of which all are not; a sum, max or other aggregate under GROUP BY of what is not null;
- an operator, a cast or a strict function of what is not null (`functions` has the closed lists).

Anything else may be null. ``-- not-null: column (why)`` claims what cannot be proved; a claim that is
proved anyway, that nothing asks for, or whose column does not exist, is a finding too.

**Statements with refused=** begin with their actor's row and outer-join the rest; a row of NULLs is the
empty answer, told by its first column. So that column must be one that is null only there: a column of
what is outer-joined, not null in a row of its own. In rows that are shown it is not null, and so nor
are the other such columns of the same side.
"""

from collections.abc import Iterator

from .annotations import claims
from .finding import Finding
from .levels import ColumnOf, NullTest, Output, Query
from .nulls import Prover
from .promise import Promised, promised
from .scope import Unresolved, resolve
from .subject import Catalog, Subject
from .syntax import at_token

RULE = "not-null"


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Whether the columns of a statement are null no more often than its stub says."""
    columns, claimed = promised(subject.bound), _claimed(subject)
    if not columns and not claimed:
        return
    try:
        query = resolve(subject.tree, catalog).query
    except Unresolved as problem:
        if not all(one.optional or one.name in claimed for one in columns):
            yield at_token(subject, problem.location, RULE, problem.message, problem.mend)
        return
    prover = Prover(_never_null(subject))
    if subject.bound.guarded:
        first = _first_of_outer_side(query, prover)
        if first is None:
            yield _tells_nothing(subject, query)
            return
        prover = Prover(prover.parameters, (NullTest(first.location, (first,), is_null=False),))
    yield from _against(subject, query, columns, claimed, prover)


def _claimed(subject: Subject) -> list[str]:
    """The columns of the not-null lines."""
    lines = subject.statement.header.get("not-null", "").splitlines()
    return [line.partition("(")[0].strip() for line in lines]


def _never_null(subject: Subject) -> frozenset[int]:
    sent = claims(subject.bound)
    return frozenset(
        number
        for number, name in enumerate(subject.statement.parameters, start=1)
        if (claim := sent[name]) is not None and not claim.optional
    )


def _against(
    subject: Subject,
    query: Query,
    columns: tuple[Promised, ...],
    claimed: list[str],
    prover: Prover,
) -> Iterator[Finding]:
    for at, name in enumerate(query.columns):
        one = next((one for one in columns if one.name in (name, None)), None)
        unproved = _unproved(query, at, prover)
        if name in claimed and unproved is None:
            yield _claim(subject, f"{name} is provably not null")
        elif name in claimed and (one is None or one.optional):
            yield _claim(subject, f"nothing asks that {name} is not null")
        elif unproved is not None and not (one is None or one.optional or name in claimed):
            yield at_token(
                subject,
                unproved.location,
                RULE,
                f"{name} may be null, and {one.of} does not admit None",
                f"'| None' in the stub, a condition or a coalesce that excludes it, or "
                f"-- not-null: {name} (why)",
            )
    for name in claimed:
        if name not in query.columns:
            yield _claim(subject, f"there is no result column {name}")


def _unproved(query: Query, at: int, prover: Prover) -> Output | None:
    """The first branch's column that is not provably not null."""
    outputs = [(level, level.outputs[at]) for level in query.branches]
    return next((one for level, one in outputs if not prover.result(level, one.expression)), None)


def _claim(subject: Subject, message: str) -> Finding:
    return subject.at_header("not-null", RULE, message, "the header without this claim")


# ---- refused=


def _first_of_outer_side(query: Query, prover: Prover) -> ColumnOf | None:
    """The first result column, if it is null only where what is outer-joined has no row."""
    if len(query.branches) != 1 or not query.branches[0].outputs:
        return None
    level = query.branches[0]
    first = level.outputs[0].expression
    if not isinstance(first, ColumnOf) or prover.result(level, first):
        return None
    return first if prover.where_present(first) else None


def _tells_nothing(subject: Subject, query: Query) -> Finding:
    outputs = query.branches[0].outputs
    place = outputs[0].location if outputs else 0
    return at_token(
        subject,
        place,
        RULE,
        "with refused=, this first column must be null in the empty answer, and only there",
        "first a NOT NULL column of what is outer-joined to the actor's row",
    )
