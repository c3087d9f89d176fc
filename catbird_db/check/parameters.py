"""`parameter`: what a stub's annotations admit is what the statement's parameters take."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from pglast import ast

from .annotations import Claim, claims
from .expressions import is_a, walk
from .finding import Finding
from .subject import Catalog, Subject
from .uses import Dead, Meeting, deaths, is_guessed, meetings

RULE = "parameter"

_TEXTS = ("text", "character varying", "character", "name", "citext", "json", "jsonb")
_TAKEN_BY: dict[type, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("bigint", "integer", "smallint", "numeric"),
    float: ("double precision", "real"),
    str: _TEXTS,
    bytes: ("bytea",),
    dict: ("jsonb", "json"),
    Decimal: ("numeric",),
    UUID: ("uuid",),
    datetime: ("timestamp with time zone",),
    date: ("date",),
    time: ("time without time zone",),
    timedelta: ("interval",),
}
_RANGES = {
    "smallint": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "bigint": (-(2**63), 2**63 - 1),
}


def check(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """What is wrong with the parameters of a statement."""
    if subject.described is None:
        return
    found = claims(subject.bound)
    for number, type_name in enumerate(subject.described.parameter_types, 1):
        claim = found[subject.parameter(number)]
        if _is_as_its_column(subject, number):
            continue  # what a cursor holds was in a row
        if wrong := _misfit(claim, type_name, catalog):
            yield _at_parameter(subject, number, *wrong)
    by_number = {number: found[name] for number, name in enumerate(subject.statement.parameters, 1)}
    yield from _columns(subject, catalog, by_number)
    optional = frozenset(number for number, claim in by_number.items() if claim and claim.optional)
    for dead in deaths(subject, catalog, optional):
        yield _at(subject, dead.number, dead.location, *_without_value(subject, dead))
    for number in sorted(optional):
        if subject.described.parameter_types[number - 1] == "text" and is_guessed(subject, number):
            name = subject.parameter(number)
            yield _at_parameter(
                subject,
                number,
                f"nothing here tells the type of {name}, so PostgreSQL takes it for text",
                f":{name}::text, or the type that it has",
            )


def _is_as_its_column(subject: Subject, number: int) -> bool:
    described, column = subject.described, subject.parameter(number).removeprefix("cursor_")
    if described is None or column not in subject.statement.key:
        return False
    types = dict(zip(described.column_names, described.column_types, strict=True))
    return types.get(column) == described.parameter_types[number - 1]


# ---- types


def _misfit(claim: Claim | None, type_name: str, catalog: Catalog) -> tuple[str, str] | None:
    """What is wrong, and the mend."""
    if claim is None:
        return (
            f"its annotation does not say what is sent as {type_name}",
            f"one of {', '.join(one.__name__ for one in _TAKEN_BY)}, a Literal, or a Sequence of one",
        )
    element = type_name.removesuffix("[]")
    if claim.many and element == type_name and element not in ("json", "jsonb"):
        return f"a sequence is sent as {type_name}", f"{type_name}[] in the cast, or no Sequence"
    if not claim.many and element != type_name:
        return f"a single value is sent as {type_name}", f"{element} in the cast, or a Sequence"
    if labels := catalog.enums.get(element):
        return _not_labels(claim, element, labels)
    if element not in _TAKEN_BY[claim.python]:
        fitting = " or ".join(
            python.__name__ for python, names in _TAKEN_BY.items() if element in names
        )
        return (
            f"{claim.python.__name__} is sent as {element}",
            f"{fitting or 'another type'} in the stub, or {_TAKEN_BY[claim.python][0]} in the cast",
        )
    return _out_of_range(claim, element)


def _not_labels(claim: Claim, name: str, labels: tuple[str, ...]) -> tuple[str, str] | None:
    literal = f"Literal[{', '.join(repr(label) for label in labels)}]"
    if claim.python is not str:
        return f"{claim.python.__name__} is sent as {name}, which is an enum", literal
    if not claim.values:
        return f"any str is sent as {name}, which has {len(labels)} labels", literal
    unknown = [value for value in claim.values if value not in labels]
    return (f"{name} has no label {unknown[0]!r}", literal) if unknown else None


def _out_of_range(claim: Claim, type_name: str) -> tuple[str, str] | None:
    if type_name not in _RANGES or claim.values or _is_within(claim, type_name):
        return None
    if type_name == "bigint" and claim.low is None and claim.high is None:
        return None  # a plain int: larger ones are refused when they are sent
    low, high = _RANGES[type_name]
    bounds = (_shown(claim.low), _shown(claim.high))
    admitted = "any int" if set(bounds) == {"any"} else " to ".join(bounds)
    wider = next((name for name in ("integer", "bigint") if _is_within(claim, name)), None)
    mend = f"bounds within {low} to {high}" + (f", or {wider}" if wider else "")
    return f"{admitted} is admitted, and {type_name} takes {low} to {high}", mend


def _is_within(claim: Claim, type_name: str) -> bool:
    low, high = _RANGES[type_name]
    if claim.low is None or claim.high is None:
        return False
    return low <= claim.low <= claim.high <= high


def _shown(bound: int | None) -> str:
    return "any" if bound is None else str(bound)


# ---- columns


def _columns(
    subject: Subject, catalog: Catalog, claims: dict[int, Claim | None]
) -> Iterator[Finding]:
    said: set[tuple[int, str, str]] = set()
    for meeting in meetings(subject, catalog):
        claim = claims[meeting.number]
        key = (meeting.number, meeting.table.name, meeting.column.name)
        wrong = claim and _misfit_of_column(claim, meeting, subject)
        if wrong and key not in said:
            said.add(key)
            yield _at(subject, meeting.number, meeting.location, *wrong)


def _misfit_of_column(claim: Claim, meeting: Meeting, subject: Subject) -> tuple[str, str] | None:
    column = f"{meeting.table.name}.{meeting.column.name}"
    admitted = meeting.table.checks.get(meeting.column.name, ())
    strange = [value for value in claim.values if admitted and str(value) not in admitted]
    if strange:
        verb = "holds" if meeting.how == "compared" else "admits"
        return (
            f"{strange[0]!r} is admitted, and {column} never {verb} it",
            f"Literal of {', '.join(map(repr, admitted))}, or some of them",
        )
    if meeting.how == "compared" or claim.python is not int:
        return None
    assert subject.described is not None
    sent = subject.described.parameter_types[meeting.number - 1].removesuffix("[]")
    if sent == meeting.column.type or (wrong := _out_of_range(claim, meeting.column.type)) is None:
        return None  # the parameter's own type was judged already
    return f"{column}: {wrong[0]}", wrong[1]


def _without_value(subject: Subject, dead: Dead) -> tuple[str, str]:
    name = subject.parameter(dead.number)
    match dead.why:
        case "never true":
            return (
                f"{name} may be None, and then this is never true",
                f"IS NOT DISTINCT FROM :{name}, coalesce(:{name}, ...), or a stub without '| None'",
            )
        case "refused":
            return (
                f"{name} may be None, and {dead.column} is NOT NULL",
                f"coalesce(:{name}, ...), or a stub without '| None'",
            )
        case "no limit":
            return f"{name} may be None, and then there is no limit", "a stub without '| None'"


# ---- where


def _at_parameter(subject: Subject, number: int, message: str, mend: str) -> Finding:
    first = next(
        node.location
        for node in walk(subject.tree)
        if is_a(node, ast.ParamRef) and node.number == number
    )
    return _at(subject, number, first, f"{subject.parameter(number)}: {message}", mend)


def _at(subject: Subject, number: int, location: int, message: str, mend: str) -> Finding:
    width = len(subject.parameter(number)) + 1  # with its colon
    return subject.at(location, RULE, message, mend, width)
