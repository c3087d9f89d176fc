"""What the rules look at: a statement with its stub, its syntax tree, and what PostgreSQL says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pglast

from ..query import Bound
from ..sqlfile import Statement
from .finding import Finding


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, from the catalog. ``type`` is PostgreSQL's name, as format_type has it."""

    name: str
    type: str
    not_null: bool
    has_default: bool = False
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """An index; ``columns`` in order (an expression is ``""``), ``predicate`` of a partial one.

    ``options``: how each column is compared and ordered. ``more``: it has columns that are no key.
    ``constraint``: it is that of a constraint.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    unique: bool
    predicate: str | None
    method: str = "btree"
    options: tuple[str, ...] = ()
    more: bool = False
    constraint: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table, with what its comment declares.

    ``tenants``: columns any of which keeps its tenants apart (``tenant: a, b``); empty: no tenant
    table. ``actors``: columns that name whose row it is: an owner, a member, a grantee (``actor: c``).
    ``admits``: columns by which it admits them to other rows that are keyed by the same
    (``admits: f``); with ``admits_of``, only to the row of that table that equals it in all of them
    (``admits: f, g of t``). ``ended``: columns that are null while such a row counts, as of a member who
    has left (``ended: d``). ``public``: boolean columns; where one is true, anybody may read the row
    (``public: e``). ``small``: the reason why statements may reach it without an index (``small: reason``).
    ``checks``: for a column, the values that a CHECK (col IN (...)) admits.
    """

    name: str
    columns: Mapping[str, Column]
    indexes: tuple[Index, ...] = ()
    tenants: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    small: str | None = None
    partition_key: tuple[str, ...] = ()
    checks: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    ended: tuple[str, ...] = ()
    public: tuple[str, ...] = ()
    admits: tuple[str, ...] = ()
    admits_of: str | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """The migrated schema, but for partitions: ``tables`` has the tables that they are parts of.

    ``volatile``: names of functions that are VOLATILE. ``functions``: names of functions that are not
    PostgreSQL's own. ``partitions``: for each partition, and each index of one, the table or index that
    it is a part of. ``mistakes``: what is wrong with the comments of tables.
    """

    tables: Mapping[str, Table]
    volatile: frozenset[str] = frozenset()
    enums: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    partitions: Mapping[str, str] = field(default_factory=dict[str, str])
    functions: frozenset[str] = frozenset()
    mistakes: tuple["Mistake", ...] = ()


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with the comment of a table, and what to write instead."""

    table: str
    message: str
    mend: str


@dataclass(frozen=True, slots=True)
class Described:
    """What preparing a statement told: types as format_type has them, and columns' origins."""

    parameter_types: tuple[str, ...]
    column_names: tuple[str, ...]
    column_types: tuple[str, ...]
    column_origins: tuple[tuple[str, str] | None, ...]  # (table, column), where it is a column


@dataclass(frozen=True)
class Subject:
    """One statement under examination; ``described`` is None where it does not prepare."""

    bound: Bound
    described: Described | None

    @property
    def statement(self) -> Statement:
        return self.bound.statement

    @cached_property
    def tree(self) -> Any:
        """The statement's node (SelectStmt, ...), of the SQL as sent: parameters are ParamRefs.

        Locations in it are offsets into ``statement.sql``, in characters from 0.
        """
        return pglast.parse_sql(self.statement.sql)[0].stmt

    def parameter(self, number: int) -> str:
        """The name of ``$number``."""
        return self.statement.parameters[number - 1]

    def at(self, location: int, rule: str, message: str, mend: str, width: int = 1) -> Finding:
        """A finding at an offset of the SQL as sent (as the tree has them)."""
        line, column = self.statement.locate(location + 1)
        return self._finding(line, column, rule, message, mend, width)

    def at_header(self, key: str, rule: str, message: str, mend: str) -> Finding:
        """A finding at a key of the header, or at the name line where the key is missing."""
        line = self.statement.header_lines.get(key, self.statement.line)
        return self._finding(line, 1, rule, message, mend, len(self._excerpt(line)))

    def _finding(
        self, line: int, column: int, rule: str, message: str, mend: str, width: int
    ) -> Finding:
        excerpt = self._excerpt(line)
        width = max(1, min(width, len(excerpt) - column + 1))
        return Finding(
            shown(self.statement.path), line, column, rule, message, mend, excerpt, width
        )

    def _excerpt(self, line: int) -> str:
        lines = self.statement.path.read_text("utf-8").splitlines()
        return lines[line - 1] if line <= len(lines) else ""


def shown(path: Path) -> Path:
    """A path as a reader here would write it."""
    real = path.resolve()
    return real.relative_to(Path.cwd()) if real.is_relative_to(Path.cwd()) else real
