"""Hygiene: what a statement must not say, whatever it does.

`select-star`, `qualified`, `volatile`, `session-state` and `offset` read the syntax tree from top to
bottom; `one-row`, `unbounded` and `order` ask `rows` how many rows a query gives, and what tells them
apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pglast import enums
from pglast.parser import scan

from . import rows
from .expressions import column_of, operator, walk, without_casts
from .finding import Finding
from .sources import alias_of_item, below, constant, is_of_values, items_of
from .subject import Catalog, Subject
from .syntax import beginning, kind_of_node, place_of

RULES = (
    "select-star",
    "qualified",
    "volatile",
    "session-state",
    "offset",
    "unlocked",
    "one-row",
    "unbounded",
    "order",
)


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """What is unclean in a statement."""
    yield from _session_state(subject)
    yield from _volatile(subject, catalog)
    yield from _offset(subject)
    yield from _names(subject, subject.tree, ())
    if kind_of_node(subject.tree) in _QUERIES:
        yield from _unlocked(subject)
        yield from _one_row(subject, catalog)
        yield from _unbounded(subject, catalog)
        yield from _order(subject, catalog)


_QUERIES = ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt")


# ---- session-state: what outlives the statement in its session


_COMMANDS: dict[str, str] = {
    "VariableSetStmt": "SET and RESET change",
    "ListenStmt": "LISTEN changes",
    "UnlistenStmt": "UNLISTEN changes",
    "NotifyStmt": "NOTIFY needs",
    "PrepareStmt": "PREPARE changes",
    "ExecuteStmt": "EXECUTE needs",
    "DeallocateStmt": "DEALLOCATE changes",
    "DeclareCursorStmt": "a cursor outlives its statement and changes",
    "FetchStmt": "FETCH needs",
    "ClosePortalStmt": "CLOSE needs",
    "DiscardStmt": "DISCARD changes",
    "LoadStmt": "LOAD changes",
}
_SESSION_FUNCTIONS = {
    **dict.fromkeys(
        (
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
        ),
        "pg_advisory_xact_lock, or pg_try_advisory_xact_lock: they end with the transaction",
    ),
    **dict.fromkeys(
        ("pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"),
        "a lock that ends with its transaction, and so needs no unlocking",
    ),
    **dict.fromkeys(("currval", "lastval"), "INSERT ... RETURNING, which gives the value itself"),
    "pg_notify": "a notification from a connection of its own: pool.connection()",
    "setseed": "a number made in Python",
}
_ON_ITS_OWN = "the same on a connection of its own: pool.connection() resets it afterwards"


def _session_state(subject: Subject) -> Iterator[Finding]:
    tree = subject.tree
    for kind, what in _COMMANDS.items():
        if kind_of_node(tree) == kind:
            yield _at(
                subject,
                tree,
                "session-state",
                f"{what} its session, which the pool shares",
                _ON_ITS_OWN,
            )
            return
    if kind_of_node(tree) not in (*_QUERIES, "MergeStmt"):
        kind = type(tree).__name__.removesuffix("Stmt")
        message = f"{kind} is no query: it changes the schema or the session"
        yield _at(
            subject, tree, "session-state", message, "a migration, if it is to last; else nothing"
        )
        return
    for node in walk(tree):
        if kind_of_node(node) == "RangeVar" and _is_temporary(node):
            message = f"{node.relname} is a temporary table, which stays in the session"
            yield _at(subject, node, "session-state", message, "a WITH query")
        if kind_of_node(node) == "IntoClause":
            message = "SELECT INTO makes a table"
            yield _at(
                subject,
                node.rel,
                "session-state",
                message,
                "a WITH query, or INSERT INTO ... SELECT",
            )
        if kind_of_node(node) == "FuncCall":
            name = _function(node)
            if mend := _SESSION_FUNCTIONS.get(name):
                yield _at(
                    subject,
                    node,
                    "session-state",
                    f"{name}() leaves something in the session",
                    mend,
                    len(name),
                )
            elif name == "set_config" and not _is_local(node):
                message = "set_config() changes the setting for all who get this connection later"
                yield _at(
                    subject, node, "session-state", message, "true as its third argument", len(name)
                )


def _is_temporary(node: Any) -> bool:
    return node.relpersistence == "t" or (node.schemaname or "").startswith("pg_temp")


def _is_local(call: Any) -> bool:
    local: Any = without_casts(call.args[2]) if call.args and len(call.args) == 3 else None
    return (
        kind_of_node(local) == "A_Const"
        and kind_of_node(local.val) == "Boolean"
        and local.val.boolval is True
    )


# ---- volatile


_VOLATILE = frozenset(
    [
        "clock_timestamp",
        "gen_random_uuid",
        "nextval",
        "random",
        "setval",
        "timeofday",
        "uuidv4",
        "uuidv7",
    ]
)
_VOLATILE_MENDS = {
    "clock_timestamp": "statement_timestamp()",
    "timeofday": "statement_timestamp()",
    "gen_random_uuid": "a parameter: ids are made in Python",
    "uuidv4": "a parameter: ids are made in Python",
    "uuidv7": "a parameter: ids are made in Python",
}


def _volatile(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    volatile = catalog.volatile | _VOLATILE
    for verb, part in _changes(subject.tree):
        for node in walk(part):
            if kind_of_node(node) != "FuncCall" or _function(node) not in volatile:
                continue
            name = _function(node)
            yield _at(
                subject,
                node,
                "volatile",
                f"{name}() is VOLATILE, and stands in {verb}: each row, each node and each retry gets another value",
                _VOLATILE_MENDS.get(name, "a parameter, or a WITH query that calls it once"),
                len(name),
            )


def _changes(tree: Any) -> Iterator[tuple[str, Any]]:
    """What UPDATE and DELETE consist of, without the WITH queries above them."""
    for node in walk(tree):
        match kind_of_node(node):
            case "UpdateStmt":
                parts = (node.targetList, node.fromClause, node.whereClause, node.returningClause)
                yield "UPDATE", parts
            case "DeleteStmt":
                yield "DELETE", (node.usingClause, node.whereClause, node.returningClause)
            case "OnConflictClause":
                yield "ON CONFLICT DO UPDATE", (node.targetList, node.whereClause)
            case "MergeStmt":
                yield "MERGE", (node.joinCondition, node.mergeWhenClauses, node.returningClause)
            case _:
                pass


# ---- offset


def _offset(subject: Subject) -> Iterator[Finding]:
    for node in walk(subject.tree):
        if kind_of_node(node) == "SelectStmt" and node.limitOffset is not None:
            yield _at_keyword(
                subject,
                node,
                "OFFSET",
                "offset",
                "OFFSET reads all that it skips, and skips or repeats rows that moved meanwhile",
                "a page: '-- key: ...' and 'key > coalesce(:cursor_key, ...)'",
            )


# ---- unlocked: rows picked here, and changed there


def _unlocked(subject: Subject) -> Iterator[Finding]:
    """Who picks rows with a LIMIT and changes them holds a lock: else two callers pick the same."""
    nodes = list(walk(subject.tree))
    if any(kind_of_node(node) == "LockingClause" for node in nodes):
        return
    changed = {
        node.relation.relname
        for node in nodes
        if kind_of_node(node) in ("UpdateStmt", "DeleteStmt")
    }
    for node in nodes:
        if kind_of_node(node) != "SelectStmt" or node.limitCount is None:
            continue
        tables = (one for one in walk(node.fromClause) if kind_of_node(one) == "RangeVar")
        picked = [one.relname for one in tables if one.relname in changed]
        if picked:
            message = (
                f"two callers may pick the same rows of {picked[0]} here, and change them both"
            )
            yield _at_keyword(
                subject,
                node,
                "LIMIT",
                "unlocked",
                message,
                "FOR UPDATE SKIP LOCKED behind it, or a lock on the row that owns them, first",
            )


# ---- select-star, qualified: each name says whose column it is


@dataclass(frozen=True)
class _Level:
    """Relations whose columns can be named, here or in a level around."""

    aliases: tuple[str, ...]
    labels: frozenset[str] = frozenset()  # of result columns, as ORDER BY may say them
    values: frozenset[str] = frozenset()  # aliases of functions, which name their one column too


def _names(subject: Subject, tree: Any, around: tuple[_Level, ...]) -> Iterator[Finding]:
    """Findings in one query and all queries in it."""
    inside = around
    if kind_of_node(tree) == "MergeStmt":
        inside = (
            *around,
            _Level((alias_of_item(tree.relation), *_aliases((tree.sourceRelation,)))),
        )
    elif kind_of_node(tree) in _QUERIES:
        inside = (*around, _level(tree))
    for attribute in tree:
        part = getattr(tree, attribute)
        match attribute:
            case "withClause":
                yield from _parts(subject, part, around)
            case "fromClause" | "usingClause":
                yield from _parts(subject, part, inside)
            case "sortClause":
                yield from _parts(subject, _without_labels(part, inside), inside)
            case "selectStmt" | "larg" | "rarg":
                yield from _parts(subject, part, around)
            case "onConflictClause" if part is not None:
                target = _Level((alias_of_item(tree.relation), "excluded"))
                yield from _parts(subject, part.infer, inside)
                yield from _parts(subject, (part.targetList, part.whereClause), (*around, target))
            case _:
                yield from _parts(subject, part, inside)


def _parts(subject: Subject, node: Any, levels: tuple[_Level, ...]) -> Iterator[Finding]:
    """Findings in a node, each query in it in a level of its own."""
    if kind_of_node(node) in _QUERIES:
        yield from _names(subject, node, levels)
        return
    if kind_of_node(node) == "ColumnRef":
        yield from _name(subject, node, levels)
    if kind_of_node(node) == "JoinExpr" and (node.isNatural or node.usingClause):
        what = (
            "NATURAL JOIN joins by whatever names agree"
            if node.isNatural
            else "USING leaves a column that is of neither table"
        )
        yield _at(subject, node.rarg, "qualified", what, "ON a.column = b.column")
    for part in below(node):
        yield from _parts(subject, part, levels)


def _name(subject: Subject, node: Any, levels: tuple[_Level, ...]) -> Iterator[Finding]:
    relations = [alias for level in levels for alias in level.aliases]
    if kind_of_node(node.fields[-1]) == "A_Star":
        message = "the columns of * change with the table, and the row model does not"
        yield _at(
            subject, node, "select-star", message, "the names of the model's fields, in their order"
        )
        return
    name = node.fields[0].sval
    if len(node.fields) > 1:
        return
    of_value = next((name in level.values for level in levels[::-1] if name in level.aliases), None)
    if of_value:
        if not levels[-1].values.issuperset(levels[-1].aliases):
            message = f"{name} is a column of {name}, until a later migration makes one of another"
            yield _at(subject, node, "qualified", message, f"'{name}.{name}'", len(name))
    elif of_value is False:
        message = f"{name} is a whole row, which changes with the table"
        yield _at(
            subject,
            node,
            "select-star",
            message,
            f"the columns of {name} that are needed",
            len(name),
        )
    elif len(relations) > 1:
        choices = ", ".join(dict.fromkeys(relations))
        message = f"{name} could be a column of any of {choices}, now or after a later migration"
        yield _at(
            subject,
            node,
            "qualified",
            message,
            f"'{relations[-1]}.{name}', or whose else it is",
            len(name),
        )


def _level(tree: Any) -> _Level:
    match kind_of_node(tree):
        case "SelectStmt":
            labels = frozenset(one.name for one in tree.targetList or () if one.name)
            return _Level(
                tuple(_aliases(tree.fromClause)), labels, frozenset(_values(tree.fromClause))
            )
        case "InsertStmt":
            return _Level((alias_of_item(tree.relation),))
        case "UpdateStmt":
            return _Level((alias_of_item(tree.relation), *_aliases(tree.fromClause)))
        case _:
            return _Level((alias_of_item(tree.relation), *_aliases(tree.usingClause)))


def _values(items: Any) -> Iterator[str]:
    """Aliases of functions in FROM that give a value a row, where no list names their columns."""
    for item in items_of(items):
        if kind_of_node(item) == "RangeFunction" and item.alias and not item.alias.colnames:
            calls = [call for call, _ in item.functions]
            if len(calls) == 1 and is_of_values(calls[0]):
                yield item.alias.aliasname


def _aliases(items: Any) -> Iterator[str]:
    return (alias_of_item(item) for item in items_of(items))


def _without_labels(clause: Any, levels: tuple[_Level, ...]) -> tuple[Any, ...]:
    """What ORDER BY sorts by, without what is the name of a result column."""
    labels = levels[-1].labels
    return tuple(
        one.node
        for one in clause or ()
        if not (
            kind_of_node(one.node) == "ColumnRef"
            and len(one.node.fields) == 1
            and one.node.fields[0].sval in labels
        )
    )


# ---- one-row


def _one_row(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Of several rows, the first would be taken and the others never be seen."""
    statement = subject.statement
    if statement.mode in ("one", "maybe", "value") and not rows.of(subject.tree, catalog).one_row:
        yield subject.at_header(
            "name",
            "one-row",
            f"{statement.name} may find several rows, and :{statement.mode} takes the first of them",
            "a condition on each column of a unique key, an aggregate, or ORDER BY ... LIMIT 1",
        )


# ---- unbounded


def _unbounded(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    statement = subject.statement
    exempt = "unbounded" in statement.header
    bounded = statement.mode not in ("many", "page") or rows.of(subject.tree, catalog).bounded
    if not bounded and not exempt:
        yield subject.at_header(
            "name",
            "unbounded",
            f"nothing bounds the rows of {statement.name}: no LIMIT, no unique key, no array parameter",
            "LIMIT :limit, or '-- unbounded: the reason why they stay few'",
        )
    if bounded and exempt:
        yield subject.at_header(
            "unbounded",
            "unbounded",
            f"the rows of {statement.name} are bounded: this line exempts nothing",
            "the statement without this line",
        )


# ---- order


def _order(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    for query in rows.limited(subject.tree, catalog):
        yield from _limited_order(subject, query)
    statement = subject.statement
    if statement.mode in ("many", "page"):
        yield from _order_of_list(subject, catalog)


def _limited_order(subject: Subject, query: rows.Limited) -> Iterator[Finding]:
    tree = query.tree
    if query.one_row:
        return
    if not tree.sortClause:
        message = "LIMIT without ORDER BY: which rows these are depends on the plan"
        mend = "ORDER BY columns that end in a unique key"
        yield _at_keyword(subject, tree, "LIMIT", "order", message, mend)
    elif not query.total and not _skips_locked(tree) and not _is_said_to_be_total(subject, tree):
        yield _not_total(subject, tree, query.undetermined)


def _not_total(subject: Subject, tree: Any, undetermined: tuple[str, ...]) -> Finding:
    last = tree.sortClause[-1].node
    names = ", ".join(undetermined) or "its rows"
    return _at(
        subject,
        last,
        "order",
        f"rows that are equal up to here come in any order: nothing tells those of {names} apart",
        "ORDER BY ... and then the columns of a unique key",
        _width(subject, last),
    )


def _is_said_to_be_total(subject: Subject, tree: Any) -> bool:
    """A key or an order with a reason: what no constraint says, as that two tables share no path."""
    statement = subject.statement
    ordered = tuple(column_of(one.node) for one in tree.sortClause)
    said = statement.key if "(" in statement.header.get("key", "") else statement.order
    return ordered == said


def _skips_locked(tree: Any) -> bool:
    """Who passes over what others hold takes any of the rows that are due."""
    skip = enums.LockWaitPolicy.LockWaitSkip
    return any(one.waitPolicy == skip for one in tree.lockingClause or ())


def _order_of_list(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    tree, statement = subject.tree, subject.statement
    found = rows.of(tree, catalog)
    if kind_of_node(tree) != "SelectStmt" or not tree.sortClause:
        if not found.one_row:
            yield subject.at_header(
                "name",
                "order",
                f"{statement.name} returns a list in no order of its own: that of a sub-select is not kept",
                "ORDER BY at the end of the statement",
            )
        return
    ordered = tuple(column_of(one.node) for one in tree.sortClause)
    if statement.mode == "page" and ordered != statement.key:
        yield subject.at_header(
            "key",
            "order",
            f"the page is continued by {', '.join(statement.key)}, but ordered by {', '.join(one or '...' for one in ordered)}",
            f"ORDER BY {', '.join(statement.key)}",
        )
        return
    total = found.total or found.one_row
    if not total and not _is_said_to_be_total(subject, tree) and tree.limitCount is None:
        yield _not_total(subject, tree, found.undetermined)
    if total and statement.order:
        yield subject.at_header(
            "order",
            "order",
            f"the order of {statement.name} leaves no two rows equal: this line exempts nothing",
            "the statement without this line",
        )
    if statement.mode == "page" and not _is_said_to_be_total(subject, tree):
        yield from _directions(subject, catalog)
        yield from _first_page(subject, tree)


def _directions(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Also the sub-select that has the LIMIT goes where its page goes."""
    tree = subject.tree
    yield from _direction(subject, tree)
    down = _is_down(tree.sortClause)
    for query in rows.limited(tree, catalog):
        inner = query.tree
        continues = _parameters(inner.whereClause) & _cursors(subject)
        if (
            inner is not tree
            and inner.sortClause
            and continues
            and _is_down(inner.sortClause) != down
        ):
            message = "the page goes the other way: this gives it rows from the wrong end"
            last = inner.sortClause[-1].node
            yield _at(subject, last, "order", message, "the direction of the page's own ORDER BY")


def _direction(subject: Subject, tree: Any) -> Iterator[Finding]:
    """A page that goes up continues above its cursor, one that goes down below."""
    order, down = tree.sortClause, _is_down(tree.sortClause)
    if any(_is_down((one,)) != down for one in order):
        message = "some columns go up and others down: no comparison with a cursor continues that"
        yield _at(subject, order[-1].node, "order", message, "all of them in one direction")
        return
    wanted, cursors = "<" if down else ">", _cursors(subject)
    for node in walk(tree):
        said = operator(node)
        if said not in ("<", ">", "<=", ">=", "=", "<>"):
            continue
        left, right = (_parameters(side) & cursors for side in (node.lexpr, node.rexpr))
        if left and not right:
            said = said.translate(str.maketrans("<>", "><"))
        if (left or right) and said != wanted:
            message = (
                f"a page in this order goes on where its key is {wanted} the cursor, not {said}"
            )
            yield _at(subject, node, "order", message, f"key {wanted} cursor")


def _first_page(subject: Subject, tree: Any) -> Iterator[Finding]:
    """Where there is no cursor yet, the page begins at the very end of what the key may be."""
    described = subject.described
    ends = _HIGHEST if _is_down(tree.sortClause) else _LOWEST
    cursors = _cursors(subject)
    behind = [one for row in walk(tree) if kind_of_node(row) == "RowExpr" for one in row.args[1:]]
    for node in walk(tree):
        if kind_of_node(node) != "CoalesceExpr" or len(node.args) != 2 or described is None:
            continue
        numbers = _parameters(node.args[0]) & cursors
        start = constant(node.args[1])
        type_name = described.parameter_types[min(numbers) - 1] if numbers else ""
        if start is None or type_name not in ends or ends[type_name](start):
            continue
        mend = "the end of its type"
        if ends is _HIGHEST and type_name in _ENDLESS:
            if any(one is node for one in behind):
                continue  # what comes first in the row decides
            mend = f"ORDER BY without DESC, or a column first that has a highest value: no {type_name} has"
        message = f"the first page begins at {start}, and does not show what lies before"
        yield _at(subject, node, "order", message, mend, len("coalesce"))


_ENDLESS = ("text", "bytea")  # what is longer comes after
_HIGHEST: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(_ENDLESS, lambda _start: False),
    "bigint": lambda start: int(start) == 2**63 - 1,
    "integer": lambda start: int(start) == 2**31 - 1,
    "smallint": lambda start: int(start) == 2**15 - 1,
    "timestamp with time zone": lambda start: start == "infinity",
    "uuid": lambda start: set(start) == {"f", "-"},
}
_LOWEST: dict[str, Callable[[str], bool]] = {
    "bytea": lambda start: start in ("", "\\x"),
    "bigint": lambda start: int(start) <= 0,
    "integer": lambda start: int(start) <= 0,
    "smallint": lambda start: int(start) <= 0,
    "text": lambda start: start == "",
    "timestamp with time zone": lambda start: start == "-infinity",
    "uuid": lambda start: set(start) == {"0", "-"},
}


def _is_down(order: Any) -> bool:
    return order[0].sortby_dir == enums.SortByDir.SORTBY_DESC


def _cursors(subject: Subject) -> set[int]:
    names = enumerate(subject.statement.parameters, start=1)
    return {number for number, name in names if name.startswith("cursor_")}


def _parameters(node: Any) -> set[int]:
    return {one.number for one in walk(node) if kind_of_node(one) == "ParamRef"}


# ---- places


def _function(call: Any) -> str:
    return call.funcname[-1].sval


def _at(subject: Subject, node: Any, rule: str, message: str, mend: str, width: int = 0) -> Finding:
    return subject.at(beginning(node), rule, message, mend, width or _width(subject, node))


def _at_keyword(
    subject: Subject, query: Any, keyword: str, rule: str, message: str, mend: str
) -> Finding:
    """At the LIMIT or OFFSET of a query: nodes of constants do not know where they stand."""
    above = (query.targetList, query.fromClause, query.whereClause, query.larg, query.rarg)
    behind = max((place_of(node) for node in walk((*above, query.sortClause))), default=0)
    sql = subject.statement.sql
    places = [token.start for token in scan(sql) if token.name == keyword and token.start > behind]
    return subject.at(min(places, default=behind), rule, message, mend, len(keyword))


def _width(subject: Subject, node: Any) -> int:
    """Of a name, as it is written."""
    if kind_of_node(node) == "ColumnRef":
        return len(
            ".".join("*" if kind_of_node(one) == "A_Star" else one.sval for one in node.fields)
        )
    if kind_of_node(node) == "RangeVar":
        return len(node.relname)
    return 1
