"""A statement as the rules read it, with its names resolved; `scope` makes it of the syntax tree.

A *query* is one level, or several under UNION, INTERSECT, EXCEPT or VALUES. A *level* is one SELECT,
INSERT, UPDATE, DELETE, or one row of VALUES: it joins *relations* and keeps the rows of which its
conditions are true. A relation is a table, a query (a sub-select, or one use of a CTE), what a
function in FROM returns, or the row that an INSERT or UPDATE leaves behind.

Two things are said of each level and of each of its relations, and the rules build on nothing else:

``conditions``
    of a level: what is true of each of its rows. Of a relation: what is true of each row of the
    level in which the relation has a row of its own, that is, in which no outer join has put nulls
    in its place.
``present``, ``beside``
    the relations that have a row in each row of the level, or in each such row.

So WHERE holds for every relation; the ON of an inner join for both its sides, and for what is joined
to them by inner joins; the ON of a left join for its right side alone; of a full join for neither.
Conditions stand in AND position: what OR or NOT joins is one condition.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .functions import Kind
from .subject import Table

# ---- expressions


@dataclass(frozen=True, slots=True)
class Expression:
    """What has a value. ``location``: its offset in the SQL as sent; it does not tell two apart."""

    location: int = field(compare=False)

    @property
    def inside(self) -> "tuple[Expression, ...]":
        """The expressions that this one is made of."""
        return ()


@dataclass(frozen=True, slots=True)
class Compound(Expression):
    """What is made of other expressions."""

    arguments: tuple[Expression, ...]

    @property
    def inside(self) -> tuple[Expression, ...]:
        return self.arguments


@dataclass(frozen=True, slots=True)
class Parameter(Expression):
    number: int


@dataclass(frozen=True, slots=True)
class ColumnOf(Expression):
    relation: "Relation"
    name: str


Term: TypeAlias = Parameter | ColumnOf
"""What an equality can carry on from one relation to another."""


@dataclass(frozen=True, slots=True)
class Constant(Expression):
    value: str | bool | None  # numbers as they are written


@dataclass(frozen=True, slots=True)
class Operation(Compound):
    """A built-in operator of `functions.OPERATORS`."""

    operator: str


@dataclass(frozen=True, slots=True)
class Logic(Compound):
    kind: Literal["and", "or", "not"]


@dataclass(frozen=True, slots=True)
class Membership(Compound):
    """``left operator ANY (right)``, or ALL if ``every``; also IN and NOT IN a list of values."""

    operator: str
    every: bool

    @property
    def left(self) -> Expression:
        return self.arguments[0]

    @property
    def right(self) -> Expression:
        return self.arguments[1]


@dataclass(frozen=True, slots=True)
class NullTest(Compound):
    """``argument IS NULL``, or IS NOT NULL."""

    is_null: bool


@dataclass(frozen=True, slots=True)
class Test(Compound):
    """What is true or false, never null: IS TRUE, IS NOT UNKNOWN, IS DISTINCT FROM, ..."""

    kind: str


@dataclass(frozen=True, slots=True)
class Call(Compound):
    """A function. ``aside``: its FILTER, ORDER BY and OVER."""

    name: str
    kind: Kind
    over: bool = False
    filtered: bool = False
    variadic: bool = False
    aside: tuple[Expression, ...] = ()

    @property
    def inside(self) -> tuple[Expression, ...]:
        return self.arguments + self.aside


@dataclass(frozen=True, slots=True)
class Case(Compound):
    """``arguments`` are its results, ELSE last, which is NULL where it is not written."""

    conditions: tuple[Expression, ...]

    @property
    def inside(self) -> tuple[Expression, ...]:
        return self.arguments + self.conditions


@dataclass(frozen=True, slots=True)
class FirstNotNull(Compound):
    """coalesce, greatest and least: not null where one of them is not."""

    name: str


@dataclass(frozen=True, slots=True)
class Cast(Compound):
    """``type`` as in the SQL; ``bare``: it has no modifier, as ``varchar(3)`` has."""

    type: str
    bare: bool


@dataclass(frozen=True, slots=True)
class RowOf(Compound):
    pass


@dataclass(frozen=True, slots=True)
class ArrayOf(Compound):
    pass


@dataclass(frozen=True, slots=True)
class SubSelect(Compound):
    """A query in an expression. ``arguments operator ANY (query)``, IN too, has kind ``any``."""

    kind: Literal["exists", "any", "all", "scalar", "array"]
    query: "Query"
    operator: str = ""


@dataclass(frozen=True, slots=True)
class Opaque(Compound):
    """What is known, and proves nothing: ``what`` says what it is."""

    what: str


def walk(expressions: Iterable[Expression]) -> Iterator[Expression]:
    """Expressions and all that they are made of; queries in them are not entered."""
    for expression in expressions:
        yield expression
        yield from walk(expression.inside)


def conjuncts(expression: Expression) -> Iterator[Expression]:
    """What must be true for ``expression`` to be true, by AND alone."""
    if isinstance(expression, Logic) and expression.kind == "and":
        for one in expression.inside:
            yield from conjuncts(one)
    else:
        yield expression


# ---- relations, levels, queries


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a function in FROM returns: ``columns`` are the names of its columns, in order.

    ``unnest(a, b)`` has a column for each argument; WITH ORDINALITY adds one.
    """

    call: Call
    columns: tuple[str, ...]
    ordinality: bool


@dataclass(frozen=True, slots=True, eq=False)
class NewRow:
    """The row of ``table`` that an INSERT or UPDATE leaves behind, or proposes (``excluded``).

    ``values``: what is written to its columns. The others keep what they have in ``before``. Where
    there is no such row, nothing is known of them: they have their defaults, or, where ON CONFLICT
    DO UPDATE may have kept an old row, what that had.
    """

    table: Table
    values: Mapping[str, Expression]
    before: "Relation | None" = None


@dataclass(slots=True, eq=False)
class Relation:
    """One relation of one level; each mention in the SQL is one of its own.

    ``columns``: their names here, in the order of the source. ``width``: of its name in the SQL.
    ``recursive``: it stands in the CTE whose rows it is.
    """

    alias: str
    location: int
    width: int
    level: "Level"
    source: "Table | Query | Rows | NewRow"
    columns: tuple[str, ...]
    recursive: bool = False
    conditions: tuple[Expression, ...] = ()
    beside: "tuple[Relation, ...]" = ()

    @property
    def table(self) -> Table | None:
        """The table that its rows are rows of, stored or about to be."""
        if isinstance(self.source, NewRow):
            return self.source.table
        return self.source if isinstance(self.source, Table) else None

    @property
    def nullable(self) -> bool:
        """Whether an outer join may put nulls in its place."""
        return self not in self.level.present

    def __str__(self) -> str:
        if self.table is None or self.table.name == self.alias:
            return self.alias
        return f"{self.table.name} AS {self.alias}"


@dataclass(frozen=True, slots=True)
class Output:
    """A column, and what is shown of it, or assigned to it."""

    name: str
    expression: Expression
    location: int


@dataclass(slots=True, eq=False)
class Level:
    """One level.

    Attributes:
        verb: what it does.
        relations: all that stand in it, not those of queries in it.
        outputs: its result columns; of a write, those of RETURNING.
        collapses: it gives a row even where it finds none: it aggregates without GROUP BY.
        grouped: it has GROUP BY.
        never_empty: it has exactly one row, whatever it finds: count(*) without GROUP BY or HAVING.
        expressions: every expression in it, wherever it stands.
        target: where it writes: of UPDATE and DELETE the table, of INSERT the row it proposes.
        old: of an INSERT ... ON CONFLICT DO UPDATE, the row that is updated instead.
        conflict: of such an INSERT, the columns of its conflict target.
        assigned: what UPDATE, or DO UPDATE, sets.
    """

    verb: Literal["select", "insert", "update", "delete"]
    relations: list[Relation] = field(default_factory=list[Relation])
    conditions: tuple[Expression, ...] = ()
    present: tuple[Relation, ...] = ()
    outputs: tuple[Output, ...] = ()
    collapses: bool = False
    grouped: bool = False
    never_empty: bool = False
    expressions: list[Expression] = field(default_factory=list[Expression])
    target: Relation | None = None
    old: Relation | None = None
    conflict: tuple[str, ...] = ()
    assigned: dict[str, Output] = field(default_factory=dict[str, Output])

    @property
    def sub_selects(self) -> "Iterator[SubSelect]":
        """The queries in its expressions."""
        return (one for one in walk(self.expressions) if isinstance(one, SubSelect))

    @property
    def filtering(self) -> "set[SubSelect]":
        """Those of them that stand in the conditions by which it finds its rows."""
        of_relations = (one for relation in self.relations for one in relation.conditions)
        found = walk([*self.conditions, *of_relations])
        return {one for one in found if isinstance(one, SubSelect)}


@dataclass(slots=True, eq=False)
class Query:
    """Levels whose rows together are one result. ``name``: of a CTE; ``recursive``: it reads itself."""

    name: str = ""
    columns: tuple[str, ...] = ()
    recursive: bool = False
    branches: list[Level] = field(default_factory=list[Level])


@dataclass(frozen=True, slots=True)
class Resolved:
    """A statement: its query, every level in it, and the CTEs that write."""

    query: Query
    levels: tuple[Level, ...]
    writes: tuple[Query, ...]


def defined(column: ColumnOf) -> list[tuple[Level, Expression]]:
    """What a column of a query is, in each branch; of another relation, nothing."""
    relation = column.relation
    if not isinstance(relation.source, Query):
        return []
    at = relation.columns.index(column.name)
    return [(level, level.outputs[at].expression) for level in relation.source.branches]
