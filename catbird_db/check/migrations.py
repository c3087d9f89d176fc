"""Migrations go up, down and up again, destroy nothing unasked, and make no idle index.

`migration`, `destructive` and `squawk` look at the files, and `migration` at what they do to an empty
database. `declared`, `index-unused` and `index-prefix` look at the schema that they make.
"""

import difflib
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, LiteralString, TypeAlias, cast

import pglast
import psycopg
from pglast import enums
from pglast.parser import parse_plpgsql_json

from ..catalog import schema_snapshot
from ..destructive import GUARD, SETTING
from ..errors import QueryError
from ..migrate import apply, rollback, status
from .database import Connection, connect, read_catalog
from .expressions import walk
from .fill import fill_tables
from .finding import Finding
from .subject import Catalog, Index, Table, shown
from .syntax import kind_of_node

RULES = ("migration", "declared", "destructive", "squawk", "index-unused", "index-prefix")
REFUSED = "PostgreSQL refuses this"

_BEGINNING = 30  # characters of a line, of what is longer
_OLDEST = "15"  # the oldest PostgreSQL that the migrations must run on


@dataclass(frozen=True)
class File:
    """A migration's file."""

    path: Path
    text: str

    @property
    def is_rollback(self) -> bool:
        return self.path.name.endswith(".rollback.sql")

    @property
    def is_python(self) -> bool:
        return self.path.suffix == ".py"

    @property
    def rollback(self) -> Path:
        """The file that rolls it back; a Python migration is its own."""
        return self.path if self.is_python else self.path.with_suffix(".rollback.sql")

    def at(self, offset: int, rule: str, message: str, mend: str, width: int = 0) -> Finding:
        """A finding at an offset of the text; as wide as the line's beginning, unless told."""
        offset = min(max(offset, 0), len(self.text))
        line = self.text.count("\n", 0, offset) + 1
        start = self.text.rfind("\n", 0, offset) + 1
        excerpt = self.text[start:].partition("\n")[0]
        column = offset - start + 1
        width = max(1, min(width or _BEGINNING, len(excerpt) - column + 1))
        return Finding(shown(self.path), line, column, rule, message, mend, excerpt, width)


def read(directories: Iterable[Path]) -> list[File]:
    """The forward migrations of folders, in the order in which they are applied."""
    paths = (
        path
        for folder in directories
        for path in sorted(folder.iterdir())
        if path.suffix in (".sql", ".py")
    )
    files = (File(path, path.read_text("utf-8")) for path in paths)
    return [file for file in files if not file.is_rollback]


def check(files: Sequence[File]) -> Iterator[Finding]:
    """What is wrong with the files themselves."""
    sql = [file for file in files if not file.is_python]
    for file in files:
        yield from _is_read(file) if file.is_python else _has_rollback(file)
    yield from _destructive(sql)
    yield from _squawk(sql)


# ---- migration: a way back, that leads back


_READ = re.compile(r"^# read:[ \t]*\S", re.MULTILINE)


def _is_read(file: File) -> Iterator[Finding]:
    if not _READ.search(file.text):
        message = "what a Python migration does to data is not proved here"
        yield file.at(0, "migration", message, "SQL, or '# read: who read it, and what it loses'")


_NO_ROLLBACK = re.compile(r"^--[ \t]*rollback:[ \t]*none\b[ \t]*(\(.*\S.*\))?", re.MULTILINE)


def _has_rollback(file: File) -> Iterator[Finding]:
    waived = _NO_ROLLBACK.search(file.text)
    if waived and not waived[1]:
        message = "this does not say why there is no way back"
        yield file.at(waived.start(), "migration", message, "-- rollback: none (the reason)")
    elif waived and file.rollback.exists():
        message = f"there is a way back: {file.rollback.name}"
        yield file.at(waived.start(), "migration", message, "the migration without this line")
    elif not waived and not file.rollback.exists():
        message = f"{file.path.name} has no way back"
        mend = f"{file.rollback.name}, or '-- rollback: none (the reason)' in it"
        yield file.at(0, "migration", message, mend)


def round_trip(database_url: str, directories: Sequence[Path]) -> Iterator[Finding]:
    """Apply, roll back and apply migrations on an empty database, which has them all afterwards.

    Each rollback must leave what was there before its migration; each migration must then make the
    same once more.
    """
    for folder in directories:
        files = {file.path.stem: file for file in read([folder])}
        try:
            yield from _round_trip(database_url, folder, files)
        except QueryError as error:
            yield _refused(error, files)
            return


def _round_trip(database_url: str, folder: Path, files: Mapping[str, File]) -> Iterator[Finding]:
    before: dict[str, str] = {}
    known: Differences = {}  # those that a later migration's rollback has left behind

    def differences(migration: str, way: str, expected: str, left: str) -> Iterator[Finding]:
        found = _differences(expected, left)
        new = {name: how for name, how in found.items() if known.get(name) != how}
        if way == "back":  # an extension may stay: it is the whole database's
            new = {name: how for name, how in new.items() if not name.startswith("extension ")}
        known.update(found)
        if new:
            file = files[migration]
            path = file.rollback if way == "back" else file.path
            yield _different(File(path, path.read_text("utf-8")), way, new)

    def look_before(migration: str) -> None:
        before[migration] = schema_snapshot(connection)
        file = files[migration]
        if (guard := _guard(file)) is not None:
            with connect(database_url) as fresh:  # in which nothing was ever set
                unasked.extend(_does_not_ask(fresh, file, guard))

    unasked: list[Finding] = []
    with connect(database_url) as connection:
        try:
            applied = apply(
                database_url, directory=folder, on_step=look_before, allow_destructive=files
            )
        finally:
            yield from unasked
        after = schema_snapshot(connection)
        back = [*takewhile(lambda one: files[one].rollback.exists(), reversed(applied))]
        left: list[str] = []  # before the first of them is rolled back, and after each
        if back:
            rollback(
                database_url,
                count=len(back),
                directory=folder,
                on_step=lambda _: left.append(schema_snapshot(connection)),
            )
        left.append(schema_snapshot(connection))
        for migration, found in zip(back, left[1:], strict=True):
            yield from differences(migration, "back", before[migration], found)
        again = apply(database_url, directory=folder, allow_destructive=files)
        if again:
            yield from differences(again[-1], "again", after, schema_snapshot(connection))


def _does_not_ask(connection: Connection, file: File, guard: int) -> Iterator[Finding]:
    """What a guard does where there are rows to lose: run, and rolled back."""
    catalog = read_catalog(connection)
    outcomes: dict[str, str | None] = {}
    for named in ("", file.path.stem):
        with connection.transaction(force_rollback=True):
            fill_tables(connection, catalog)
            if named:
                connection.execute("SELECT set_config(%s, %s, true)", [SETTING, named])
            try:
                with connection.transaction():
                    connection.execute(file.text.encode())
                outcomes[named] = None
            except psycopg.Error as error:
                outcomes[named] = error.diag.message_primary or str(error)
    if outcomes[""] is None:
        message = "where there are rows, this goes on for who has not named this migration"
        mend = f"RAISE EXCEPTION unless current_setting('{SETTING}', true) is the name; unset is NULL: IS DISTINCT FROM"
        yield file.at(guard, "destructive", message, mend)
    if says := outcomes[file.path.stem]:
        message = f"where there are rows, who names this migration is refused too: {says}"
        yield file.at(guard, "destructive", message, "a guard that lets pass who names it")


Differences: TypeAlias = dict[str, str]
"""Objects, and how they are not what they were."""


def _differences(expected: str, found: str) -> Differences:
    changes = defaultdict[str, set[str]](set)
    for line in difflib.ndiff(expected.splitlines(), found.splitlines()):
        if line[0] in "+-":
            changes[line[2:].partition(":")[0]].add(line[0])
    words = {"+": "is there", "-": "is missing"}
    return {name: words.get("".join(how), "is different") for name, how in changes.items()}


def _different(file: File, way: str, differences: Differences) -> Finding:
    name, how = next(iter(differences.items()))
    more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
    if way == "back":
        message = f"rolled back, the schema is not what it was: {name} {how}{more}"
        mend = "what undoes each step of the migration, last step first"
    else:
        message = f"up, down and up again is not up: {name} {how}{more}"
        mend = "a migration that makes the same each time"
    return file.at(0, "migration", message, mend)


def _refused(error: QueryError, files: Mapping[str, File]) -> Finding:
    """``file:line: what PostgreSQL says``, as `apply` says it."""
    says = re.match(r"(?P<path>.*\.sql)(?::(?P<line>\d+))?: (?P<what>.*)", str(error), re.DOTALL)
    path = Path(says["path"]) if says else next(iter(files.values())).path
    file = File(path, path.read_text("utf-8"))
    line = int(says["line"] or 1) if says else 1
    offset = sum(len(one) for one in file.text.splitlines(keepends=True)[: line - 1])
    what = says["what"] if says else str(error)
    return file.at(offset, "migration", f"{REFUSED}: {what}", "what an empty database takes")


def is_migrated(database_url: str, directories: Sequence[Path]) -> bool:
    """Whether an existing database has all the migrations."""
    return not any(status(database_url, directory=folder).pending for folder in directories)


# ---- destructive


_DROPS = {
    enums.ObjectType.OBJECT_TABLE: "TABLE",
    enums.ObjectType.OBJECT_MATVIEW: "MATERIALIZED VIEW",
    enums.ObjectType.OBJECT_FOREIGN_TABLE: "FOREIGN TABLE",
    enums.ObjectType.OBJECT_SCHEMA: "SCHEMA",
    enums.ObjectType.OBJECT_SEQUENCE: "SEQUENCE",
    enums.ObjectType.OBJECT_TYPE: "TYPE",
    enums.ObjectType.OBJECT_DOMAIN: "DOMAIN",
    enums.ObjectType.OBJECT_EXTENSION: "EXTENSION",
}
_TABLES = (enums.ObjectType.OBJECT_TABLE, enums.ObjectType.OBJECT_FOREIGN_TABLE)
_OPAQUE = re.compile(r"\b(?:drop|truncate|delete|update|alter|execute|merge)\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Loss:
    """What a statement loses, in words, and of which tables, where it names them.

    A table is its schema, empty where none is written, and its name, empty for all of a schema.
    """

    what: str
    tables: tuple[tuple[str, str], ...] = ()

    def uncounted(self, counted: Collection[tuple[str, str]]) -> list[str]:
        """Its tables that no guard counts, as they are written."""

        def is_it(one: tuple[str, str], other: tuple[str, str]) -> bool:
            same_name = one[1] in ("", other[1])
            return same_name and (one[0] == other[0] or (one[1] != "" and "" in (one[0], other[0])))

        lost = (one for one in self.tables if not any(is_it(one, other) for other in counted))
        return [".".join(filter(None, one)) for one in lost]


def _destructive(files: Sequence[File]) -> Iterator[Finding]:
    types: dict[tuple[str, str], Any] = {}
    for file in files:
        try:
            statements: Any = pglast.parse_sql(file.text)
        except pglast.Error as error:
            says, place, *_ = (*error.args, 0)
            yield file.at(place, "migration", f"no SQL: {says}", "what PostgreSQL can read")
            continue
        lasts = not _OWN_TRANSACTION.search(file.text)  # else no lock outlasts its statement
        guarded, counted = False, set[tuple[str, str]]()
        for raw in statements:
            asks, known = guarded, counted
            if is_guard := _is_guard(raw.stmt, file.path.stem):
                asks, known = True, counted | _counted(raw.stmt)
                guarded, counted = (lasts, known) if lasts else (False, counted)
            found = _inside(raw.stmt, types) if is_guard else _destroys(raw.stmt, types)
            for loss in found:
                if not asks or loss.uncounted(known):
                    yield _unasked(file, raw.stmt_location, loss, known if asks else None)
            _remember(raw.stmt, types)


def _unasked(
    file: File, location: int, loss: _Loss, counted: Collection[tuple[str, str]] | None
) -> Finding:
    """``counted``: by the guard; None: there is none."""
    start = _beginning(file.text, location)
    text = file.text[start:].partition("\n")[0]
    if counted is None:
        message = f"{loss.what}, and asks nobody"
        mend = (
            "a DO block around or above it, in the same transaction, that locks the table, counts"
            f" what would be lost, and raises unless current_setting('{SETTING}', true) is '{file.path.stem}'"
        )
    else:
        names = ", ".join(loss.uncounted(counted))
        message = f"{loss.what}, and the guard does not lock and count {names}"
        mend = f"LOCK TABLE {names} in the guard, and what count(*) says of it"
    return file.at(start, "destructive", message, mend, len(text))


def _guard(file: File) -> int | None:
    """Where the first guard of a migration stands; one in Python asks by other means."""
    if file.is_python:
        return None
    try:
        statements: Any = pglast.parse_sql(file.text)
    except pglast.Error:  # `_destructive` says so
        return None
    guards = (one for one in statements if _is_guard(one.stmt, file.path.stem))
    return next((_beginning(file.text, one.stmt_location) for one in guards), None)


def _beginning(text: str, offset: int) -> int:
    """Where a statement begins, behind the space and the comments that the parser counts to it."""
    found = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*", re.DOTALL).match(text, offset)
    return found.end() if found else offset


def _is_guard(statement: Any, migration: str) -> bool:
    """Whether it counts under a lock, and stops all but who named this very migration."""
    if kind_of_node(statement) != "DoStmt":
        return False
    body = _body(statement)
    asks = GUARD.search(body) is not None and f"'{migration}'" in body
    does = ("lock table", "count(", "raise exception")
    return asks and all(one in body.lower() for one in does)


def _body(statement: Any) -> str:
    return next(one.arg.sval for one in statement.args if one.defname == "as")


def _counted(guard: Any) -> set[tuple[str, str]]:
    """The tables that a guard locks, and of which it asks how much they hold."""
    locked, counted = set[tuple[str, str]](), set[tuple[str, str]]()
    statements, _ = _block(guard)
    for node in walk(tuple(statements)):
        if kind_of_node(node) == "LockStmt":
            locked.update(map(_name, node.relations))
        elif kind_of_node(node) == "SelectStmt" and any(map(_is_count, walk(node.targetList))):
            source, *others = node.fromClause or (None,)
            if kind_of_node(source) == "RangeVar" and not others:
                counted.add(_name(source))
    return locked & counted


def _is_count(node: Any) -> bool:
    return kind_of_node(node) == "FuncCall" and node.funcname[-1].sval == "count"


def _name(relation: Any) -> tuple[str, str]:
    return relation.schemaname or "", relation.relname


def _inside(block: Any, types: Mapping[tuple[str, str], Any]) -> Iterator[_Loss]:
    """What a DO block that asks destroys itself."""
    statements, executed = _block(block)
    for statement in statements:
        yield from _destroys(statement, types)
    yield from (_Loss("EXECUTE may lose anything", _named(text)) for text in executed)


def _block(block: Any) -> tuple[list[Any], list[str]]:
    """The statements of a DO block, and what it executes as text: all of it, where it is no PL/pgSQL."""
    body = _body(block)
    try:
        parsed = json.loads(parse_plpgsql_json(f"DO $check_body${body}$check_body$"))
        found = list(_expressions(parsed)) if _language(block) == "plpgsql" else []
        statements = [
            raw.stmt for sql, executed in found if not executed for raw in pglast.parse_sql(sql)
        ]
    except pglast.Error:
        found, statements = [], list[Any]()
    return statements, [sql for sql, executed in found if executed] if statements else [body]


def _expressions(node: Any, executed: bool = False) -> Iterator[tuple[str, bool]]:
    """Each piece of SQL in a parsed PL/pgSQL block; whether it gives a text that is executed."""
    if isinstance(node, list):
        for one in cast("list[Any]", node):
            yield from _expressions(one)
    elif isinstance(node, dict):
        for key, value in cast("dict[str, Any]", node).items():
            if key == "PLpgSQL_expr":
                sql, mode = value["query"], value["parseMode"]
                expression = sql.partition(":=")[2] if mode >= _ASSIGNMENT else sql
                yield (f"SELECT {expression}" if mode else sql), executed
            else:
                dynamic = key == "dynquery" or key.startswith("PLpgSQL_stmt_dyn")
                yield from _expressions(value, dynamic or (executed and key == "query"))


_ASSIGNMENT = (
    3  # PostgreSQL's RawParseMode: 0 is a statement, 2 an expression, from 3 on "x := ..."
)


def _language(block: Any) -> str:
    named = (one.arg.sval for one in block.args if one.defname == "language")
    return next(named, "plpgsql").lower()


_LOST = re.compile(
    r"""\b(?: drop \s+ (?:foreign\s+)? table | truncate (?:\s+table)? | delete \s+ from | update
         | alter \s+ (?:foreign\s+)? table | merge \s+ into ) \s+ (?:if\s+exists\s+)? (?:only\s+)?
        (?P<names> [\w.%"]+ (?: \s*,\s* [\w.%"]+ )* )""",
    re.IGNORECASE | re.VERBOSE,
)


def _named(text: str) -> tuple[tuple[str, str], ...]:
    """The tables that words of a text would lose."""
    names = (
        name.strip().replace('"', "")
        for found in _LOST.finditer(re.sub(r"--[^\n]*", "", text))
        for name in found["names"].split(",")
    )
    return tuple((schema, name) for schema, _, name in (one.rpartition(".") for one in names))


def _destroys(statement: Any, types: Mapping[tuple[str, str], Any]) -> Iterator[_Loss]:
    match kind_of_node(statement):
        case "DropStmt" if kind := _DROPS.get(statement.removeType):
            yield _Loss(f"DROP {kind} loses what it holds", _dropped(statement))
        case "DropStmt" if statement.behavior == enums.DropBehavior.DROP_CASCADE:
            yield _Loss("DROP ... CASCADE loses the columns that need it")
        case "DropOwnedStmt":
            yield _Loss("DROP OWNED loses what its tables hold")
        case "DropdbStmt":
            yield _Loss("DROP DATABASE loses all")
        case "TruncateStmt":
            yield _Loss("TRUNCATE loses all rows", tuple(map(_name, statement.relations)))
        case "AlterTableStmt":
            tables = (_name(statement.relation),)
            yield from (_Loss(what, tables) for what in _alters(statement, types))
        case "DoStmt" if found := _OPAQUE.search(_body(statement)):
            what = f"{found[0].upper()} in a DO block may lose anything"
            yield _Loss(what, _named(_body(statement)))
        case "CreateFunctionStmt" if found := _OPAQUE.search(_function_body(statement)):
            what = f"{found[0].upper()} in a function may lose anything, whoever calls it"
            yield _Loss(what, _named(_function_body(statement)))
        case _:
            pass
    for node in walk(statement):
        match kind_of_node(node):
            case "DeleteStmt" if _is_everything(node.whereClause):
                yield _Loss("DELETE of all rows loses them", (_name(node.relation),))
            case "UpdateStmt" if _is_everything(node.whereClause):
                yield _Loss("UPDATE of all rows loses what they held", (_name(node.relation),))
            case "MergeStmt":
                yield _Loss("MERGE may lose what rows held", (_name(node.relation),))
            case "InsertStmt" if _updates_on_conflict(node):
                what = "ON CONFLICT DO UPDATE loses what the rows held"
                yield _Loss(what, (_name(node.relation),))
            case _:
                pass


def _dropped(statement: Any) -> tuple[tuple[str, str], ...]:
    """The tables that a DROP names; none for what is no table, as nobody can count it."""
    if statement.removeType == enums.ObjectType.OBJECT_SCHEMA:
        return tuple((one.sval, "") for one in statement.objects)
    if statement.removeType not in _TABLES:
        return ()
    names = ([part.sval for part in one] for one in statement.objects)
    return tuple(((*rest, "")[0] if rest else "", name) for *rest, name in names)


def _updates_on_conflict(statement: Any) -> bool:
    clause = statement.onConflictClause
    return clause is not None and clause.action == enums.OnConflictAction.ONCONFLICT_UPDATE


def _is_everything(where: Any) -> bool:
    """No column is compared with something that is not of the same row, or an OR goes around it."""
    return not _narrows(where)


def _narrows(where: Any, negated: bool = False) -> bool:
    if kind_of_node(where) == "BoolExpr":
        if where.boolop == enums.BoolExprType.NOT_EXPR:
            return _narrows(where.args[0], not negated)
        needs_all = (where.boolop == enums.BoolExprType.OR_EXPR) != negated
        return (all if needs_all else any)(_narrows(one, negated) for one in where.args)
    return any(
        kind_of_node(node) == "A_Expr"
        and node.name[-1].sval not in _ARITHMETIC
        and _has_column(node.lexpr) != _has_column(node.rexpr)
        for node in walk(where)
    )


_ARITHMETIC = frozenset(
    ("+", "-", "*", "/", "%", "^", "||", "&", "|", "#", "<<", ">>", "->", "->>")
)


def _has_column(node: Any) -> bool:
    return any(kind_of_node(one) == "ColumnRef" for one in walk(node))


def _function_body(statement: Any) -> str:
    """The text of a function, or of its RETURN."""
    parts = next((one.arg for one in statement.options or () if one.defname == "as"), ())
    return " ".join(one.sval for one in parts)


def _alters(statement: Any, types: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    for command in statement.cmds:
        match command.subtype:
            case enums.AlterTableType.AT_DropColumn:
                yield f"DROP COLUMN {command.name} loses what it holds"
            case enums.AlterTableType.AT_SetUnLogged:
                yield "SET UNLOGGED loses all rows at a crash"
            case enums.AlterTableType.AT_AlterColumnType:
                old = types.get((statement.relation.relname, command.name))
                new = command.def_.typeName
                if command.def_.raw_default is not None:
                    yield f"TYPE ... USING may lose what {command.name} holds"
                elif old is None or not _widens(_type(old), _type(new)):
                    was = f" from {_written(old)}" if old is not None else ""
                    yield f"TYPE {_written(new)}{was} may lose what {command.name} holds"
            case _:
                pass


_Type = tuple[str, tuple[int, ...], bool]
_WIDER = {
    "int2": ("int4", "int8", "numeric"),
    "int4": ("int8", "numeric"),
    "int8": ("numeric",),
    "float4": ("float8",),
    "varchar": ("text",),
    "bpchar": ("text",),
    "citext": ("text",),
    "date": (),
    "json": (),
}


def _widens(old: _Type, new: _Type) -> bool:
    """Whether each value of the old type is one of the new, and the same."""
    (old_name, old_size, old_array), (new_name, new_size, new_array) = old, new
    if old_array != new_array:
        return False
    if new_name in _WIDER.get(old_name, ()):
        return not new_size
    if old_name != new_name:
        return False
    if not new_size or new_size == old_size:
        return True
    if old_name == "varchar" and old_size:
        return new_size[0] >= old_size[0]
    if old_name == "numeric" and len(old_size) == len(new_size) == 2:
        (digits, scale), (new_digits, new_scale) = old_size, new_size
        return new_scale >= scale and new_digits - new_scale >= digits - scale
    return False


def _type(node: Any) -> _Type:
    sizes = tuple(
        one.val.ival or 0
        for one in node.typmods or ()
        if kind_of_node(one) == "A_Const" and kind_of_node(one.val) == "Integer"
    )
    return node.names[-1].sval, sizes, bool(node.arrayBounds)


def _written(node: Any) -> str:
    name, sizes, array = _type(node)
    return name + (f"({', '.join(map(str, sizes))})" if sizes else "") + ("[]" if array else "")


def _remember(statement: Any, types: dict[tuple[str, str], Any]) -> None:
    match kind_of_node(statement):
        case "CreateStmt":
            for one in statement.tableElts or ():
                if kind_of_node(one) == "ColumnDef":
                    types[statement.relation.relname, one.colname] = one.typeName
        case "AlterTableStmt":
            for one in statement.cmds:
                if one.subtype == enums.AlterTableType.AT_AddColumn:
                    types[statement.relation.relname, one.def_.colname] = one.def_.typeName
                elif one.subtype == enums.AlterTableType.AT_AlterColumnType:
                    types[statement.relation.relname, one.name] = one.def_.typeName
        case _:
            pass


# ---- squawk


_WAIVER = re.compile(
    r"(?:--|/\*)[ \t]*(squawk-(?:ignore-file|ignore|disable-assume-in-transaction))\b(?P<rest>[^\n]*)"
)
_WAIVED = re.compile(r"[a-z]+(?:-[a-z]+)+")
_REASON = re.compile(r"[^\n]*?[ \t]--[ \t]*[^\s*][^\n]*")
_OWN_TRANSACTION = re.compile(r"^--[ \t]*transactional:[ \t]*false\b", re.MULTILINE | re.IGNORECASE)


def _squawk(files: Sequence[File]) -> Iterator[Finding]:
    for file in files:
        for waiver in _WAIVER.finditer(file.text):
            if not _REASON.fullmatch(waiver["rest"]):
                rules = waiver["rest"].strip(" \t*/") or "rule"
                message = "this waiver has no reason"
                mend = f"-- {waiver[1]} {rules} -- the reason"
                yield file.at(waiver.start(), "squawk", message, mend, len(waiver[0]))
    yield from _run_squawk({str(file.path): file for file in files})
    yield from _waived_in_vain(files)


def _waived_in_vain(files: Sequence[File]) -> Iterator[Finding]:
    """Waivers of rules that squawk would not break: asked of copies without any waiver."""
    waiving = [file for file in files if _WAIVER.search(file.text)]
    with TemporaryDirectory() as folder:
        named: dict[str, File] = {}
        for number, file in enumerate(waiving):
            copy = Path(folder) / f"{number}.sql"
            copy.write_text(_WAIVER.sub(_blank, file.text), encoding="utf-8")
            named[str(copy)] = file
        found = {(one.path, one.message.partition(":")[0]) for one in _run_squawk(named)}
    for file in waiving:
        for waiver in _WAIVER.finditer(file.text):
            for rule in _WAIVED.findall(waiver["rest"].partition("--")[0]):
                if (shown(file.path), rule) not in found:
                    message = f"squawk finds no {rule} in this file"
                    yield file.at(waiver.start(), "squawk", message, "the line without it")


def _blank(match: re.Match[str]) -> str:
    return match[0].replace("squawk", "      ", 1)


def _run_squawk(files: Mapping[str, File]) -> Iterator[Finding]:
    """``files``: by the path that squawk is to read."""
    for transactional in (True, False):
        chosen = {
            path: file
            for path, file in files.items()
            if transactional == (_OWN_TRANSACTION.search(_leading_comments(file.text)) is None)
        }
        if chosen:
            yield from _ask_squawk(chosen, transactional)


def _leading_comments(text: str) -> str:
    """Where yoyo looks for what a migration says of itself."""
    return text[: _beginning(text, 0)]


def _ask_squawk(named: Mapping[str, File], transactional: bool) -> Iterator[Finding]:
    transaction = f"--{'' if transactional else 'no-'}assume-in-transaction"
    # No configuration of the folder that this happens to run in, and none of the caller's.
    options = ["--config", "/dev/null", "--pg-version", _OLDEST, "--reporter", "json", transaction]
    ran = subprocess.run(
        [_find_squawk(), *options, *named], capture_output=True, text=True, check=False
    )
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"squawk ended with {ran.returncode}: {ran.stderr.strip()}")
    for one in json.loads(ran.stdout):
        file = named[one["file"]]
        lines = file.text.splitlines(keepends=True)
        offset = sum(map(len, lines[: one["line"]])) + one["column"]
        same_line = one["line_end"] == one["line"]
        yield file.at(
            offset,
            "squawk",
            f"{one['rule_name']}: {one['message']}",
            f"{_sentence(one['help'])}'-- squawk-ignore {one['rule_name']} -- the reason' above it",
            max(1, one["column_end"] - one["column"]) if same_line else 0,
        )


def _sentence(text: str | None) -> str:
    return f"{text.rstrip('.')}; or " if text else "what the rule asks for; or "


def _find_squawk() -> str:
    beside = Path(sys.executable).with_name("squawk")
    found = str(beside) if beside.exists() else shutil.which("squawk")
    if found is None:
        raise ImportError("no squawk: pip install 'catbird-db[check]'")
    return found


# ---- index-unused, index-prefix


_REASONS: LiteralString = r"""
SELECT x.indexrelid::regclass::text AS name,
       EXISTS (SELECT FROM pg_constraint AS c
                WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u', 'x'))
       OR EXISTS (SELECT FROM pg_constraint AS f
                   WHERE f.contype = 'f' AND f.conrelid = x.indrelid AND x.indpred IS NULL
                     AND f.conkey <@ (x.indkey::smallint[])[0:cardinality(f.conkey) - 1])
       OR coalesce(obj_description(x.indexrelid, 'pg_class'), '') ~ '(^|\n)kept: +\S' AS kept
  FROM pg_index AS x
"""


def check_declared(catalog: Catalog, files: Sequence[File]) -> Iterator[Finding]:
    """What the comments of tables say of tenants, or fail to say."""
    for mistake in catalog.mistakes:
        names = (mistake.table,)
        yield _where_made(files, names, "declared", mistake.message, mistake.mend)


def check_indexes(
    connection: Connection, catalog: Catalog, used: Collection[str] | None, files: Sequence[File]
) -> Iterator[Finding]:
    """Indexes that cost each write and serve nobody.

    Args:
        used: those that plans use; None: nobody knows, so none is called unused.
    """
    if used is not None:
        kept = {name for name, is_kept in connection.execute(_REASONS) if is_kept}
        for table, index in _indexes(catalog):
            if not (index.unique or index.name in kept or index.name in used):
                yield _at_index(
                    files,
                    index,
                    "index-unused",
                    f"no statement's plan uses {index.name}, and each write to {table.name} pays for it",
                    f"DROP INDEX {index.name}; or COMMENT ON INDEX {index.name} IS 'kept: the reason'",
                )
    for table, index in _indexes(catalog):
        if other := next((one for one in table.indexes if _is_prefix(index, one)), None):
            yield _at_index(
                files,
                index,
                "index-prefix",
                f"{other.name} begins with the columns of {index.name}, and serves all that it serves",
                f"DROP INDEX {index.name}",
            )


def _indexes(catalog: Catalog) -> Iterator[tuple[Table, Index]]:
    for table in catalog.tables.values():
        if table.small is None:
            yield from ((table, index) for index in table.indexes)


def _is_prefix(index: Index, other: Index) -> bool:
    if index is other or index.more or "" in index.columns or index.method != other.method:
        return False
    if index.predicate != other.predicate or index.method != "btree":
        return False
    size = len(index.columns)
    if (other.columns[:size], other.options[:size]) != (index.columns, index.options):
        return False
    if index.unique and not (other.unique and len(other.columns) == size):
        return False  # it is a promise besides
    are_equal = (index.columns, index.unique) == (other.columns, other.unique)
    if not are_equal:
        return True
    # Of two that are equal, one is too many: not that of a constraint.
    return (index.constraint, other.name) < (other.constraint, index.name)


def _at_index(files: Sequence[File], index: Index, rule: str, message: str, mend: str) -> Finding:
    return _where_made(files, (index.name, index.table), rule, message, mend)


def _where_made(
    files: Sequence[File], names: Iterable[str], rule: str, message: str, mend: str
) -> Finding:
    """Where a migration makes what has the first of these names, or else the next."""
    for name in names:
        for file in reversed(files):
            word = re.escape(name.rpartition(".")[2])
            if made := re.search(rf"\b(?:INDEX|TABLE|CONSTRAINT)\b[^;\n]*?\b({word})\b", file.text):
                return file.at(made.start(1), rule, message, mend, len(made[1]))
    return files[-1].at(0, rule, message, mend)
