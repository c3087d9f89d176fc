"""Random changes to statements, stubs and the schema, each of a kind that a tired person makes."""

import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from random import Random
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

import pglast
from pglast import ast, enums
from pglast.stream import RawStream
from pydantic import create_model

from catbird_db.check.expressions import walk
from catbird_db.query import Bound
from catbird_db.types import Row

Site = Callable[[], str]  # makes the change, and says what it was


@dataclass(frozen=True)
class Change:
    """``kind`` of change; ``what`` exactly; ``text``: the statement with its header."""

    kind: str
    what: str
    text: str


def change(random: Random, one: Bound) -> Change | None:
    """A statement, changed once; None where the kind that was drawn finds nothing to change."""
    header = header_of(one)
    if random.random() < 0.06:
        return _change_header(random, one, header)
    tree = pglast.parse_sql(one.statement.sql)[0].stmt
    sites = list(_sites(tree, random))
    if not sites:
        return None
    kinds = sorted({kind for kind, _ in sites})
    kind = random.choice(kinds)
    what = random.choice([make for name, make in sites if name == kind])()
    sql = RawStream()(tree)
    sql = re.sub(r"\$(\d+)", lambda found: f":{one.statement.parameters[int(found[1]) - 1]}", sql)
    return Change(kind, what, f"{header}{sql};\n")


# ---- stubs


def change_stub(random: Random, one: Bound) -> tuple[str, str, Bound] | None:
    """A statement whose row model has one field of another type; kind, what, and the statement."""
    returns, model = one.signature.returns, model_of(one)
    if model is None:
        return None
    fields: dict[str, Any] = {
        name: (info.annotation, ...) for name, info in model.model_fields.items()
    }
    name = random.choice(sorted(fields))
    old = fields[name][0]
    optional = type(None) in get_args(old)
    match random.choice(["field-type", "field-optional"]):
        case "field-type":
            others = {int, str, bytes, bool, datetime, UUID} - {old, *get_args(old)}
            kind, new = "field-type", random.choice(sorted(others, key=str))
            new = new | None if optional else new
        case _ if optional:
            kind, new = "field-not-optional", get_args(old)[0]
        case _:
            kind, new = "field-optional", old | None
    changed = create_model(model.__name__, __base__=Row, **{**fields, name: (new, ...)})
    signature = copy(one.signature)
    arguments = get_args(returns)
    signature.returns = changed if not arguments else _replaced(returns, model, changed)
    return kind, f"{name}: {old} -> {new}", Bound(signature, one.statement, one.guarded)


def model_of(one: Bound) -> Any:
    hints = (one.signature.returns, *get_args(one.signature.returns))
    return next((one for one in hints if isinstance(one, type) and issubclass(one, Row)), None)


def _replaced(returns: Any, model: Any, changed: Any) -> Any:
    origin = get_origin(returns)
    if origin in (Union, UnionType):
        return changed | None
    return origin[changed]


# ---- statements


def header_of(one: Bound) -> str:
    """Its name line and the comment lines under it."""
    lines = one.statement.path.read_text("utf-8").splitlines(keepends=True)
    found: list[str] = []
    for line in lines[one.statement.line - 1 :]:
        if not line.startswith("--"):
            break
        found.append(line)
    return "".join(found)


def _change_header(random: Random, one: Bound, header: str) -> Change | None:
    lines = [
        line for line in header.splitlines(keepends=True)[1:] if re.match(r"-- [a-z-]+: ", line)
    ]
    if not lines:
        return None
    line = random.choice(lines)
    return Change(
        "drop-header-line", line.strip(), header.replace(line, "", 1) + one.statement.source + ";\n"
    )


# ---- the sites of a tree


def _sites(tree: Any, random: Random) -> Iterator[tuple[str, Site]]:
    columns = [node for node in walk(tree) if _is_column(node)]
    parameters = sorted({node.number for node in walk(tree) if isinstance(node, ast.ParamRef)})
    for node in walk(tree):
        match node:
            case ast.BoolExpr() if node.boolop == enums.BoolExprType.AND_EXPR:
                yield "drop-predicate", _drop_argument(node, random)
                yield "and-to-or", _set(node, "boolop", enums.BoolExprType.OR_EXPR)
            case ast.A_Expr() if node.name[-1].sval in _OTHER and node.rexpr is not None:
                yield "change-operator", _operator(node)
            case ast.NullTest():
                yield "negate-null-test", _set(node, "nulltesttype", _other_null_test(node))
            case ast.JoinExpr() if node.jointype in _JOINS and node.quals is not None:
                yield "change-join", _set(node, "jointype", _JOINS[node.jointype])
            case ast.ParamRef() if len(parameters) > 1:
                yield "swap-parameter", _swap_parameter(node, parameters, random)
            case ast.ColumnRef() if _is_column(node):
                yield from _columns(node, columns, random)
            case ast.SelectStmt():
                yield from _select(node, random)
            case ast.UpdateStmt() | ast.DeleteStmt():
                if node.whereClause is not None:
                    yield "drop-where", _set(node, "whereClause", None)
                for call in walk((node.whereClause, getattr(node, "targetList", ()))):
                    if isinstance(call, ast.FuncCall):
                        name = (ast.String("clock_timestamp"),)
                        yield "volatile-function", _set(call, "funcname", name)
            case _:
                pass


def _select(node: Any, random: Random) -> Iterator[tuple[str, Site]]:
    if node.limitCount is not None:
        yield "drop-limit", _set(node, "limitCount", None)
    if node.sortClause:
        yield "drop-order", _set(node, "sortClause", None)
        last = node.sortClause[-1]
        yield "flip-order", _set(last, "sortby_dir", _other_direction(last))
        if len(node.sortClause) > 1:
            yield "shorten-order", _set(node, "sortClause", node.sortClause[:-1])
    if node.lockingClause:
        yield "drop-lock", _set(node, "lockingClause", None)
    if node.whereClause is not None:
        yield "drop-where", _set(node, "whereClause", None)
    if node.targetList and len(node.targetList) > 1:
        yield "drop-output", _drop_output(node, random)
        yield "swap-outputs", _swap_outputs(node, random)


def _columns(node: Any, columns: list[Any], random: Random) -> Iterator[tuple[str, Site]]:
    alias, name = (one.sval for one in node.fields)
    names = sorted({one.fields[1].sval for one in columns if one.fields[0].sval == alias} - {name})
    aliases = sorted({one.fields[0].sval for one in columns} - {alias, "excluded"})
    if names:
        yield "swap-column", _rename(node, lambda: (alias, random.choice(names)))
    if aliases:
        yield "swap-relation", _rename(node, lambda: (random.choice(aliases), name))
    if aliases:
        yield "unqualify", _rename(node, lambda: (name,))


# ---- the changes

_OTHER = {"=": "<>", "<>": "=", "<": ">", ">": "<", "<=": ">=", ">=": "<=", "+": "-", "-": "+"}
_JOINS = {
    enums.JoinType.JOIN_INNER: enums.JoinType.JOIN_LEFT,
    enums.JoinType.JOIN_LEFT: enums.JoinType.JOIN_INNER,
}


def _is_column(node: Any) -> bool:
    return (
        isinstance(node, ast.ColumnRef)
        and len(node.fields) == 2
        and all(isinstance(one, ast.String) for one in node.fields)
    )


def _set(node: Any, attribute: str, value: Any) -> Site:
    def make() -> str:
        before = getattr(node, attribute)
        setattr(node, attribute, value)
        return f"{attribute} {_shown(before)} -> {_shown(value)}"

    return make


def _shown(value: Any) -> str:
    try:
        return RawStream()(value) if isinstance(value, ast.Node | tuple) else str(value)
    except Exception:
        return type(value).__name__


def _drop_argument(node: Any, random: Random) -> Site:
    def make() -> str:
        dropped = random.randrange(len(node.args))
        said = _shown(node.args[dropped])
        node.args = tuple(one for at, one in enumerate(node.args) if at != dropped)
        if len(node.args) == 1:  # what is left of "a AND b"
            node.args = (node.args[0], ast.A_Const(isnull=False, val=ast.Boolean(boolval=True)))
        return f"without {said}"

    return make


def _operator(node: Any) -> Site:
    def make() -> str:
        before, said = node.name[-1].sval, _shown(node)
        node.name = (ast.String(_OTHER[before]),)
        return f"{said}: {_OTHER[before]}"

    return make


def _other_null_test(node: Any) -> Any:
    tests = enums.NullTestType
    return tests.IS_NOT_NULL if node.nulltesttype == tests.IS_NULL else tests.IS_NULL


def _other_direction(node: Any) -> Any:
    down = node.sortby_dir == enums.SortByDir.SORTBY_DESC
    return enums.SortByDir.SORTBY_ASC if down else enums.SortByDir.SORTBY_DESC


def _swap_parameter(node: Any, parameters: list[int], random: Random) -> Site:
    def make() -> str:
        before = node.number
        node.number = random.choice([one for one in parameters if one != before])
        return f"${before} -> ${node.number}"

    return make


def _rename(node: Any, choose: Callable[[], tuple[str, ...]]) -> Site:
    def make() -> str:
        before, names = _shown(node), choose()
        node.fields = tuple(ast.String(name) for name in names)
        return f"{before} -> {'.'.join(names)}"

    return make


def _drop_output(node: Any, random: Random) -> Site:
    def make() -> str:
        dropped = random.randrange(len(node.targetList))
        said = _shown(node.targetList[dropped])
        node.targetList = tuple(one for at, one in enumerate(node.targetList) if at != dropped)
        return f"without {said}"

    return make


def _swap_outputs(node: Any, random: Random) -> Site:
    def make() -> str:
        first, second = random.sample(range(len(node.targetList)), 2)
        outputs = list(node.targetList)
        outputs[first], outputs[second] = outputs[second], outputs[first]
        node.targetList = tuple(outputs)
        return f"{_shown(outputs[first])} <-> {_shown(outputs[second])}"

    return make
