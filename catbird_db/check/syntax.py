"""Reading pglast's nodes: names, places, constants. They are untyped: Any, here and in `scope`."""

import re
from typing import Any

from .expressions import walk
from .finding import Finding
from .subject import Subject


def kind_of_node(node: Any) -> str:
    """``SelectStmt``, ``ColumnRef``, ..."""
    return type(node).__name__


def texts(nodes: Any) -> tuple[str, ...]:
    """The names in a list of String nodes; other nodes are passed over."""
    return tuple(one.sval for one in nodes or () if kind_of_node(one) == "String")


def place_of(node: Any) -> int:
    """Its own place, or -1: some have none, as constants."""
    place = getattr(node, "location", None)
    return -1 if place is None else place


def beginning(node: Any) -> int:
    """Where it, or the first node below it, begins."""
    return min((place for one in walk(node) if (place := place_of(one)) >= 0), default=0)


def tables_named(tree: Any) -> dict[int, str]:
    """Where a tree names tables to read or write, and which. FOR UPDATE OF names aliases."""
    locked = {
        place_of(one)
        for clause in walk(tree)
        if kind_of_node(clause) == "LockingClause"
        for one in clause.lockedRels or ()
    }
    return {
        place_of(one): one.relname
        for one in walk(tree)
        if kind_of_node(one) == "RangeVar" and place_of(one) not in locked
    }


def alias_of(node: Any) -> str:
    return node.alias.aliasname if node.alias else node.relname


def renamed(columns: tuple[str, ...], alias: Any) -> tuple[str, ...]:
    """Columns, the first of them named anew where an Alias node says so."""
    given = texts(alias.colnames) if alias else ()
    return (*given, *columns[len(given) :])


def constant_value(node: Any) -> str | bool | None:
    """What an A_Const says; numbers as they are written."""
    if node.isnull:
        return None
    match kind_of_node(node.val):
        case "Boolean":
            return bool(node.val.boolval)
        case "Integer":
            return str(node.val.ival or 0)
        case "Float":
            return node.val.fval
        case "String":
            return node.val.sval
        case _:
            return node.val.bsval


def type_name(node: Any) -> str:
    """Of a TypeName: ``int4``, ``text[]``; without a modifier."""
    name = ".".join(one for one in texts(node.names) if one != "pg_catalog")
    return f"{name}[]" if node.arrayBounds else name


def keyword(member: Any, prefix: str = "", suffix: str = "") -> str:
    """A member of an enum, in lower case: ``and`` of AND_EXPR."""
    return member.name.removeprefix(prefix).removesuffix(suffix).lower()


def result_name(node: Any) -> str:
    """The name of a result column without AS, by PostgreSQL's rules (FigureColname)."""
    return _named(node) or _weakly_named(node)


def _named(node: Any) -> str:
    """The name that stands through a cast; "" if there is none."""
    match kind_of_node(node):
        case "ColumnRef":
            return texts(node.fields)[-1]
        case "FuncCall":
            return texts(node.funcname)[-1]
        case "A_Indirection":
            return texts(node.indirection)[-1] if texts(node.indirection) else _named(node.arg)
        case "TypeCast" | "CollateClause":
            return _named(node.arg)
        case "CaseExpr":
            return _named(node.defresult)
        case "CoalesceExpr":
            return "coalesce"
        case "MinMaxExpr":
            return keyword(node.op, "IS_")
        case "RowExpr":
            return "row"
        case "A_ArrayExpr":
            return "array"
        case "SQLValueFunction":
            return keyword(node.op, "SVFOP_", "_N")
        case "SubLink" if node.subLinkType.name == "EXPR_SUBLINK":
            return _name_of_first(node.subselect)
        case "SubLink":
            return keyword(node.subLinkType, "", "_SUBLINK")
        case "A_Expr" if node.kind.name == "AEXPR_NULLIF":
            return "nullif"
        case _:
            return ""


def _name_of_first(select: Any) -> str:
    while select.larg is not None:
        select = select.larg
    if not select.targetList:
        return "column1" if select.valuesLists else ""
    first = select.targetList[0]
    return first.name or _named(first.val)


def _weakly_named(node: Any) -> str:
    match kind_of_node(node):
        case "TypeCast":
            return texts(node.typeName.names)[-1]
        case "CollateClause" | "A_Indirection":
            return _weakly_named(node.arg)
        case "CaseExpr":
            return "case"
        case _:
            return "?column?"


# ---- headers and findings


def exempts(value: str) -> bool:
    """Whether a header's line says ``none (reason)``."""
    return value.partition("(")[0].strip() == "none"


_TOKEN = re.compile(r"\w+(?:\.\w+)*|\$(\d+)|.")


def at_token(subject: Subject, place: int, rule: str, message: str, mend: str) -> Finding:
    """A finding at a token of the SQL as sent, as wide as it is in the file."""
    token = _TOKEN.match(subject.statement.sql, place)
    written = token[0] if token else ""
    if token and token[1]:
        written = f":{subject.parameter(int(token[1]))}"
    return subject.at(place, rule, message, mend, len(written))
