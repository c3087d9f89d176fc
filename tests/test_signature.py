"""Stubs and SQL that disagree are refused at import; arguments that do not fit, before anything is sent."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import Field
from small_package import write_package

from catbird_db.chat.messages import list_new_messages
from catbird_db.errors import InvalidArgumentError
from catbird_db.signature import Signature, validated
from catbird_db.types import ConvoId, Limit, Seq, Timestamp

HERE = Path(__file__).parent
SNAPSHOT = HERE / "snapshots" / "stub_errors.txt"

THING = """\
class Thing(Row, frozen=True):
    id: int


"""
GET = """\
@query
async def get_thing(db: Executor, /, *, id: int) -> Thing | None: ...
"""
PAGE = """\
@query
async def list_things(
    db: Executor, /, *, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[Thing]: ...
"""
GET_SQL = """\
-- name: get_thing :maybe
-- One thing.
SELECT t.id FROM things AS t WHERE t.id = :id;
"""
PAGE_SQL = """\
-- name: list_things :page
-- key: id
SELECT t.id FROM things AS t WHERE t.id > coalesce(:cursor_id, 0) ORDER BY t.id LIMIT :limit;
"""


def mode(name: str, returns: str) -> tuple[str, str]:
    """A stub of ``get_thing`` that returns so, and its SQL of this mode."""
    stub = GET.replace("Thing | None", returns)
    return stub, GET_SQL.replace(":maybe", f":{name}")


# What is wrong, with the stubs (below the model Thing) and the SQL file that make it so.
WRONG: dict[str, tuple[str, str | None]] = {
    # the form of a stub
    "not async": (GET.replace("async def", "def"), GET_SQL),
    "no executor": ("@query\nasync def get_thing() -> Thing | None: ...\n", GET_SQL),
    "an executor that is not positional only": (GET.replace(" /,", ""), GET_SQL),
    "a parameter that is not keyword only": (GET.replace(" *,", ""), GET_SQL),
    "a parameter that takes any name": (GET.replace("*, id: int", "**rest: int"), GET_SQL),
    "a parameter without an annotation": (GET.replace("id: int", "id"), GET_SQL),
    "a return without an annotation": (GET.replace(" -> Thing | None", ""), GET_SQL),
    "an annotation that names nothing": (GET.replace("id: int", "id: 'Nothing'"), GET_SQL),
    "an annotation that is no type": (GET.replace("id: int", "id: object()"), GET_SQL),
    "an annotation that pydantic does not know": (
        GET.replace("id: int", "id: memoryview"),
        GET_SQL,
    ),
    "two stubs of one name": (f"{GET}\n\n{GET}", GET_SQL),
    # a stub and its SQL
    "no .sql file": (GET, None),
    "no statement of that name": (GET.replace("get_thing", "find_thing"), GET_SQL),
    "a statement without a stub": (GET, GET_SQL + GET_SQL.replace("get_thing", "find_thing")),
    "a file without stubs": ("", GET_SQL),
    "a placeholder that is no parameter": (GET, GET_SQL.replace(":id", ":thing_id AND :id > 0")),
    "a parameter that is no placeholder": (GET.replace("id: int", "id: int, owner: str"), GET_SQL),
    "neither": (GET.replace("id: int", "idd: int"), GET_SQL),
    "a parameter that may be unset or null, and no placeholder that tells": (
        GET.replace("id: int", "id: int | None | Unset"),
        GET_SQL,
    ),
    # mode and return annotation
    ":one of an optional": mode("one", "Thing | None"),
    ":one of a list": mode("one", "list[Thing]"),
    ":maybe of a model": mode("maybe", "Thing"),
    ":maybe of a number": mode("maybe", "int | None"),
    ":many of a page": mode("many", "Page[Thing]"),
    ":many of numbers": mode("many", "list[int]"),
    ":many of who knows what": mode("many", "list"),
    ":page of a list": (PAGE.replace("Page[Thing]", "list[Thing]"), PAGE_SQL),
    ":value of nothing": mode("value", "None"),
    ":rows of text": mode("rows", "str"),
    ":exec of a number": mode("exec", "int"),
    # pages
    "a page without a cursor": (
        PAGE.replace(", cursor: Cursor | None = None", ""),
        PAGE_SQL,
    ),
    "a page without a limit": (PAGE.replace("limit: Limit = 50, ", ""), PAGE_SQL),
    "a page whose SQL has no cursor": (PAGE, PAGE_SQL.replace("coalesce(:cursor_id, 0)", "0")),
    "a page whose SQL has no limit": (PAGE, PAGE_SQL.replace(" LIMIT :limit", "")),
    "a page by a column that it does not show": (PAGE, PAGE_SQL.replace("key: id", "key: name").replace("cursor_id", "cursor_name")),
    # refused=
    "refused= with :one": (
        mode("one", "Thing")[0].replace("@query", "@query(refused=refuse)"),
        mode("one", "Thing")[1],
    ),
    "refused= with :rows": (
        mode("rows", "int")[0].replace("@query", "@query(refused=refuse)"),
        mode("rows", "int")[1],
    ),
    # the .sql file; the other ways to get it wrong are in sqlfile_errors.txt
    "a header that cannot be read": (GET, GET_SQL.replace("-- One", "-- tenants: id\n-- One")),
}  # fmt: skip

REFUSE = """\
async def refuse(_db: Executor, /, **_: object) -> Exception:
    return PermissionError()


"""

# Imports each folder's package in a process of its own, as its users do, and reports the errors.
IMPORT_EACH = """
import json, os, sys
import catbird_db.query
errors = {}
for folder in sys.argv[1:]:
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with open(reading) as answer:
            errors[folder] = answer.read()
        os.wait()
        continue
    sys.path.insert(0, folder)
    try:
        import pkg.things
        catbird_db.query.verify("pkg")
        answer = "no error"
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    os.write(writing, answer.encode())
    os._exit(0)
print(json.dumps(errors))
"""


def test_each_disagreement_of_stub_and_sql_reads_as_in_the_snapshot(tmp_path: Path) -> None:
    """Run with UPDATE_SNAPSHOTS=1 to write the snapshot anew, and read what has changed."""
    folders = {wrong: tmp_path / str(number) for number, wrong in enumerate(WRONG)}
    for wrong, (stubs, sql) in WRONG.items():
        refuse = REFUSE if "refused=" in stubs else ""
        write_package(folders[wrong], "pkg", "things", THING + refuse + stubs, sql)
    errors = import_each(folders.values())
    found = "\n".join(
        f"# {wrong}\n{errors[folder].replace(f'{folder}/', '')}\n"
        for wrong, folder in folders.items()
    )
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == SNAPSHOT.read_text(encoding="utf-8")


def test_a_package_without_disagreement_is_imported(tmp_path: Path) -> None:
    write_package(tmp_path, "pkg", "things", THING + GET + "\n\n" + PAGE, GET_SQL + PAGE_SQL)
    assert import_each([tmp_path]) == {tmp_path: "no error"}


def import_each(folders: Iterable[Path]) -> dict[Path, str]:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH, *folders], capture_output=True, check=True, text=True
    )
    return {Path(folder): error for folder, error in json.loads(run.stdout).items()}


# ---- arguments


async def everything(
    _db: object,
    /,
    *,
    number: int = 0,
    limit: Limit = 50,
    flag: bool = False,
    text: str = "",
    convo_id: ConvoId = "c",
    data: bytes = b"",
    kind: Literal["app", "proposal"] = "app",
    id: UUID | None = None,
    at: Timestamp | None = None,
    texts: Sequence[str] = (),
    positions: Mapping[ConvoId, Seq] = {},
    few: Annotated[Sequence[int], Field(max_length=2)] = (),
) -> dict[str, Any]:
    return locals()


CHECKED = validated(everything)
SECRET = "s3cr3t"

REFUSED: list[tuple[str, object]] = [
    ("number", "1"),
    ("number", 1.0),
    ("number", True),
    ("number", None),
    ("limit", 0),
    ("limit", -1),
    ("limit", 501),
    ("limit", 2**70),
    ("flag", 1),
    ("flag", "true"),
    ("text", b"bytes"),
    ("text", 1),
    ("convo_id", "\ud800"),
    ("convo_id", ""),
    ("convo_id", "c" * 256),
    ("convo_id", "a\0b"),
    ("data", "text"),
    ("data", [1, 2]),
    ("kind", "commit"),
    ("kind", SECRET),
    ("id", "4f2a6c1e-7a39-4d5b-8f0e-0123456789ab"),
    ("at", "2026-01-01T00:00:00Z"),
    ("at", datetime(2026, 1, 1)),
    ("at", 0),
    ("texts", [SECRET, 1]),
    ("texts", SECRET),
    ("positions", {"c": -1}),
    ("positions", [("c", 1)]),
    ("few", [1, 2, 3]),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
async def test_an_argument_of_another_type_or_out_of_range_is_refused_by_name_and_not_shown(
    name: str, value: object
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await CHECKED(None, **{name: value})
    says = str(refused.value)
    assert f": {name}" in says
    assert SECRET not in says
    assert refused.value.__cause__ is None


async def test_what_fits_arrives_as_it_is() -> None:
    given = {
        "number": -(2**40),
        "limit": 500,
        "flag": True,
        "text": "é\n",
        "convo_id": "c" * 255,
        "data": b"\0\xff",
        "kind": "proposal",
        "id": UUID(int=7),
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "texts": ("a", "b"),
        "positions": {"c": 1},
        "few": [1, 2],
    }
    assert await CHECKED("db", **given) == {"_db": "db"} | given


async def test_a_missing_or_unknown_argument_is_the_ordinary_type_error() -> None:
    for call, says in [
        (lambda: list_new_messages(None, reader_did="did:a:b"), "missing a required.*'positions'"),
        (lambda: CHECKED(None, nothing=1), "unexpected keyword argument 'nothing'"),
        (lambda: CHECKED(None, limit=0, nothing=1), "unexpected keyword argument 'nothing'"),
    ]:
        with pytest.raises(TypeError, match=says):
            await call()


async def test_a_default_that_would_be_refused_is_refused_too() -> None:
    async def wrong(_db: object, /, *, limit: Limit = 0) -> None: ...

    with pytest.raises(InvalidArgumentError, match="limit"):
        await validated(wrong)(None)


async def test_a_key_of_a_mapping_is_not_shown() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await CHECKED(None, positions={SECRET: -1})
    assert SECRET not in str(refused.value)


def test_a_signature_knows_where_its_function_stands() -> None:
    signature = Signature(everything)
    assert signature.where == f"{__file__}:{everything.__code__.co_firstlineno}"
    assert signature.returns == dict[str, Any]
    assert asyncio.iscoroutinefunction(CHECKED)
    assert CHECKED.__name__ == "everything"
