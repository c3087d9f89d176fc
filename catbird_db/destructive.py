"""Migrations that lose data: each asks first, and runs only for who has named it.

A destructive step counts what it would lose, under a lock that lasts to the end of its migration. If
there is anything, it goes on only where the setting ``catbird.allow_destructive`` is the migration's
own id. In SQL that is a DO block (docs/operations.md has it), in Python it is `destructive_step`. Both
hold under plain ``yoyo apply``; `catbird_db.migrate.apply` asks them beforehand, too.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import DestructiveMigrationError, InvalidArgumentError, QueryError
from .sqlfile import Mistake, Token, tokens

if TYPE_CHECKING:
    import psycopg

__all__ = ["SETTING", "destructive_step"]

SETTING = "catbird.allow_destructive"
GUARD = re.compile(rf"\bcurrent_setting\s*\(\s*'{re.escape(SETTING)}'", re.IGNORECASE)

_RAISED = "P0001"  # by a RAISE EXCEPTION
_LOCK_TIMEOUT = "5s"


@dataclass(frozen=True)
class Loss:
    """What a migration in Python loses: all rows of tables, all values of columns."""

    migration: str
    tables: tuple[str, ...]
    columns: tuple[str, ...]


def destructive_step(
    apply: "Callable[[psycopg.Connection[Any]], None]",
    rollback: "Callable[[psycopg.Connection[Any]], None] | None" = None,
    *,
    migration: str,
    tables: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Any:
    """yoyo's ``step`` for what loses data: ``apply`` runs once the loss is counted and allowed.

    Args:
        apply: called with psycopg's connection, in the migration's transaction.
        rollback: the way back; may restore a backup.
        migration: the id of the migration in which this stands, which the operator has to name.
        tables: those whose rows are lost, as ``table`` or ``schema.table``.
        columns: those whose values are lost, as ``table.column``.

    Raises:
        InvalidArgumentError: neither a table nor a column is named.
    """
    from yoyo import step  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    if not tables and not columns:
        raise InvalidArgumentError(f"{migration}: say which tables or columns are lost")
    loss = Loss(migration, tuple(tables), tuple(columns))

    def ask_and_apply(connection: "psycopg.Connection[Any]") -> None:
        _refuse_without_transaction(connection, migration)
        lost = _count(connection, loss, "ACCESS EXCLUSIVE")
        if lost and _allowed(connection) != migration:
            raise refusal({migration: lost})
        apply(connection)

    ask_and_apply.loss = loss  # pyright: ignore[reportFunctionMemberAccess]
    return step(ask_and_apply, rollback)


def refusal(losses: dict[str, str]) -> DestructiveMigrationError:
    """The error that says what would be lost, and how to say that it may be."""
    told = "; ".join(f"{migration} would lose {lost}" for migration, lost in losses.items())
    options = " ".join(f"--allow-destructive {migration}" for migration in losses)
    return DestructiveMigrationError(
        f"{told}. Not applied. To lose it: catbird-db migrate {options}, or one by one: "
        f'PGOPTIONS="-c {SETTING}={next(iter(losses))}" yoyo apply',
        losses=losses,
        query=next(iter(losses)),
    )


def is_refusal(error: "psycopg.Error", statement: str) -> bool:
    """Whether a guard in SQL has refused."""
    return error.sqlstate == _RAISED and _asks(statement)


# What `migrate` does beforehand.


def refuse_guard_without_transaction(migration: Any) -> None:
    """A guard's lock has to last until the step that it guards is done."""
    if not migration.use_transactions and any(_guards(migration)):
        raise QueryError(
            f"{migration.id} asks before it destroys, and runs outside a transaction, where the "
            "lock of what it counted is gone: put what it destroys into a migration of its own"
        )


def find_losses(connection: "psycopg.Connection[Any]", migration: Any) -> str | None:
    """What a migration would lose if it ran now; None if nothing. Changes nothing.

    Where that cannot be told, it says so, which is no less a reason to stop.
    """
    import psycopg

    found: list[str] = []
    for guard in _guards(migration):
        if isinstance(guard, Loss) and guard.migration != migration.id:
            raise QueryError(
                f"{migration.id} asks for {guard.migration}: mend its destructive_step"
            )
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
                if isinstance(guard, Loss):
                    lost = _count(connection, guard, "SHARE")
                    found += [lost] if lost and _allowed(connection) != migration.id else []
                else:
                    connection.execute(guard)  # type: ignore[arg-type]
        except psycopg.Error as error:
            says = error.diag.message_primary or "the connection was lost"
            refused = isinstance(guard, str) and is_refusal(error, guard)
            found.append(says if refused else f"what cannot be told now ({says})")
        except QueryError as error:
            found.append(f"what cannot be told now ({error})")
    return ", ".join(found) or None


def find_unasked(migration: Any) -> str | None:
    """What of a migration plainly destroys, with no guard in it or above it; None if nothing.

    It looks at words alone: of what a function in Python does, or one in SQL, it knows nothing.
    """
    for step in steps_of(migration):
        apply = step._apply
        if isinstance(apply, str):
            if _asks(apply):
                return None
            if destroys := _destroys(apply):
                return f"what nobody counts, by {destroys} (write a guard: docs/operations.md)"
        elif hasattr(apply, "loss"):
            return None
    return None


def dropped_tables(sql: str) -> list[str]:
    """The names in its DROP TABLE statements."""
    names = (
        found[1].split(",") for part in _code(sql).split(";") if (found := _DROPPED.search(part))
    )
    return [one.strip() for some in names for one in some]


def count_rows(connection: "psycopg.Connection[Any]", name: str) -> str | None:
    """How many rows a table has, in words, up to a million; None where there is no such table."""
    table = _value(connection, "SELECT to_regclass(%s)::text", name)
    if table is None:
        return None
    rows = _value(connection, f"SELECT count(*) FROM (SELECT FROM {table} LIMIT 1000001) AS t")
    return f"{rows:,} rows of {table}" if rows <= 1_000_000 else f"over a million rows of {table}"


def steps_of(migration: Any) -> Iterator[Any]:
    """yoyo's steps, without what wraps and groups them."""
    migration.load()

    def inner(step: Any) -> Iterator[Any]:
        if hasattr(step, "step"):
            yield from inner(step.step)
        elif hasattr(step, "steps"):
            for one in step.steps:
                yield from inner(one)
        else:
            yield step

    for step in migration.steps:
        yield from inner(step)


def _guards(migration: Any) -> Iterator[Loss | str]:
    for step in steps_of(migration):
        apply = step._apply
        if isinstance(apply, str):
            if _asks(apply):
                yield apply
        elif loss := getattr(apply, "loss", None):
            yield loss


def _asks(statement: str) -> bool:
    return GUARD.search(statement) is not None


# Words that destroy.

_PLAINLY_DESTROYS = re.compile(
    r"""\b (?: drop \s+ (?: table | schema | owned | foreign \s+ table ) \b
          | drop \s+ (?: type | domain | extension | collation | server ) \b .* \b cascade \b
          | alter \s+ (?: foreign \s+ )? table \b .* \b (?:
                drop \s+ (?! (?: constraint | not \s+ null | default | expression | identity ) \b )
              | type \s (?: [^,(] | \( [^)]* \) )* \b using \b )
          | truncate \s+ (?! (?: on | or ) \b ) \w
          | merge \s+ into \b .* \b then \s+ delete \b )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_DROPPED = re.compile(
    r"\bdrop\s+table\s+(?:if\s+exists\s+)?(.*?)(?:\s+(?:cascade|restrict))?\s*$",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES_ROWS = re.compile(
    r"""\b (?: delete \s+ from
          | update [\s(]+ (?: only [\s(]+ )? [\w$]+ (?: \s* \. \s* [\w$]+ )* [\s)*]+ (?: (?: as \s+ )? \w+ \s+ )? set ) \b""",
    re.IGNORECASE | re.VERBOSE,
)
_WHERE = re.compile(r"\bwhere\b", re.IGNORECASE)
_WHERE_TRUE = re.compile(
    r"""\b where [\s(]+ (?: true | not \s+ false | ([\w.]+) \s* = \s* \1 ) \b
        (?! [\s)]* (?: and \b | [^\w\s),] ) )""",
    re.IGNORECASE | re.VERBOSE,
)
_QUOTED_NAME = re.compile(r'"[^";]*"')
_DO = re.compile(r"\s*do\b", re.IGNORECASE)


def _destroys(sql: str) -> str | None:
    """The beginning of a statement that loses whole tables, columns or all rows."""
    code = _code(sql)
    start = 0
    for statement in _QUOTED_NAME.sub(lambda name: "x" * len(name[0]), code).split(";"):
        if found := next(_losses(statement), None):
            words = " ".join(code[start + found.start() : start + len(statement)].split())
            return words if len(words) <= 60 else f"{words[:57]}..."
        start += len(statement) + 1
    return None


def _losses(statement: str) -> Iterator[re.Match[str]]:
    if found := _PLAINLY_DESTROYS.search(statement):
        yield found
    for found in _CHANGES_ROWS.finditer(statement):
        rest = _WHERE_TRUE.sub("", statement[found.end() :])
        if not _WHERE.search(_outside_parentheses(rest)):
            yield found


def _code(sql: str, *, with_strings: bool = False) -> str:
    """SQL without comments, and without strings, but for those of a DO block, which it runs."""
    try:
        found = [token for token in tokens(sql) if token.kind not in ("line", "block")]
    except Mistake:
        return sql
    with_strings = with_strings or any(_DO.match(token.text) for token in found[:1])
    return " ".join(_in_code(token, with_strings) for token in found)


def _in_code(token: Token, with_strings: bool) -> str:
    if token.kind != "string":
        return token.text
    if not with_strings:
        return "''"
    quote = token.text.index("$", 1) + 1 if token.text[0] == "$" else 1
    return _code(token.text[quote:-quote], with_strings=True)


def _outside_parentheses(text: str) -> str:
    """What of a text is no deeper than its beginning, and before a parenthesis that closes what is around it."""
    depth, outside = 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
        outside += character if depth == 0 else ""
    return outside


# Counting.


def _refuse_without_transaction(connection: "psycopg.Connection[Any]", migration: str) -> None:
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status != TransactionStatus.INTRANS:
        raise QueryError(f"{migration} destroys data outside a transaction: drop __transactional__")


def _allowed(connection: "psycopg.Connection[Any]") -> str | None:
    return _value(connection, "SELECT current_setting(%s, true)", SETTING)


def _count(connection: "psycopg.Connection[Any]", loss: Loss, mode: str) -> str | None:
    """What is there to lose, in words, under a lock of what is counted; None: nothing."""
    limit_locks(connection)
    # A policy that hides rows is an error, and not fewer rows.
    connection.execute("SET LOCAL row_security = off")
    found: list[str] = []
    for name in loss.tables:
        table = _locked(connection, name, mode)
        if rows := _value(connection, f"SELECT count(*) FROM {table}"):
            found.append(f"{rows:,} rows of {table}")
    for name in loss.columns:
        of, _, column = name.rpartition(".")
        table = _locked(connection, of, mode)
        column = _value(connection, "SELECT quote_ident(%s)", column)
        if values := _value(connection, f"SELECT count({column}) FROM {table}"):
            found.append(f"{values:,} values of {table}.{column}")
    return " and ".join(found) or None


def limit_locks(connection: "psycopg.Connection[Any]") -> None:
    """Give up a lock that is not to be had, rather than queue all traffic; where nobody has set a limit."""
    connection.execute(
        "SELECT set_config('lock_timeout', %s, true) WHERE current_setting('lock_timeout') = '0'",
        [_LOCK_TIMEOUT],
    )


def _locked(connection: "psycopg.Connection[Any]", name: str, mode: str) -> str:
    table = _value(connection, "SELECT to_regclass(%s)::text", name)
    if table is None:
        raise QueryError(f"there is no table {name}: what would be lost cannot be counted")
    connection.execute(f"LOCK TABLE {table} IN {mode} MODE")  # type: ignore[arg-type]
    return table


def _value(connection: "psycopg.Connection[Any]", query: str, *values: str) -> Any:
    row = connection.execute(query, values).fetchone()  # type: ignore[arg-type]
    if row is None:
        raise QueryError("a question for one value gave no row")
    return row[0]
