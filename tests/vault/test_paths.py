"""One spelling for each path: what Python refuses, the database refuses too, and nothing else."""

import unicodedata
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scale import scaled
from trees import an_object, put, tree

from catbird_db import (
    DatabaseError,
    InvalidArgumentError,
    Pool,
    create_folder,
    get_folder,
    normalize_path,
    record_file,
    transaction,
)

MENDED = {
    "notes.md": "/notes.md",
    "a/b": "/a/b",
    "/": "",
    "": "",
    "/e\u0301.md": "/\u00e9.md",
    "/\u212b": "/\u00c5",  # the Ångström sign
    "/\u1100\u1161": "/\uac00",  # a Hangul syllable in its parts
    "/a\u0323\u0307": "/\u1ea1\u0307",
    "/\u0344": "/\u0308\u0301",  # composes to what NFC takes apart
}
KEPT = [
    "/a",
    "/a/b/c",
    "/.hidden",
    "/...",
    "/a..b",
    "/..a",
    "/a.",
    "/ ",
    "/ a ",
    "/a b",
    "/a\\b",
    "/a:b*c?\"<>|'",
    "/%2e%2e",
    "/%00",
    "/'; DROP TABLE files; --",
    "/%",
    "/_",
    "/~",
    "/CON",
    "/\u202egnp.exe",  # right to left: hostile to eyes, not to paths
    "/\u200b",
    "/\u2028",
    "/\ufeff",
    "/\uff0f",  # a full-width slash is no slash, and NFC leaves it alone
    "/\u2024\u2024",  # nor are two of these a '..'
    "/\u0301",
    "/\U0001f43e",
    "/\U0010ffff",
    "/" + "a" * 1023,
    "/" + "\u00e9" * 511,
    "/a" * 512,
]
REFUSED = [
    "//",
    "///",
    "//a",
    "/a//b",
    "/a/",
    "a/",
    "/.",
    ".",
    "..",
    "/..",
    "/../etc/passwd",
    "../a",
    "/a/../b",
    "/a/..",
    "/a/./b",
    "/a/.",
    "./a",
    "/\0",
    "/a\0b",
    "/a\nb",
    "/a\rb",
    "\n",
    "/a\n",
    "/\t",
    "/\x01",
    "/\x1f",
    "/\x7f",
    "/\x80",
    "/\x85",
    "/\x9f",
    "/" + "a" * 1024,
    "/" + "\u00e9" * 512,
    "/a" * 513,
    "/\ud800",
    "/\udfff\ud800",
    "/a/\ud83d",
]


@pytest.mark.parametrize("path", KEPT)
def test_a_path_that_is_spelled_well_is_kept_as_it_is(path: str) -> None:
    assert normalize_path(path) == path


@pytest.mark.parametrize(("path", "spelling"), MENDED.items())
def test_a_path_has_one_spelling(path: str, spelling: str) -> None:
    assert normalize_path(path) == normalize_path(spelling) == spelling


@pytest.mark.parametrize("path", REFUSED)
def test_a_hostile_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the path"):
        normalize_path(path)


class Undo(Exception):
    pass


INSERTS = {
    "folders": "INSERT INTO folders (user_id, id, path) VALUES ($1, gen_random_uuid(), $2)",
    "files": "INSERT INTO files (user_id, id, path, object_hash, size, content_type)"
    " SELECT $1, gen_random_uuid(), $2, o.hash, o.size, 'text/plain' FROM objects AS o",
}


async def refusal(pool: Pool, table: str, user_id: int, path: str) -> DatabaseError | None:
    """What the database says to a path as it is, past all functions; nothing is kept."""
    await an_object(pool, "x")
    try:
        async with transaction(pool) as tx:
            await tx.execute("INSERT INTO vaults VALUES ($1) ON CONFLICT DO NOTHING", user_id)
            await tx.execute(INSERTS[table], user_id, path)
            raise Undo
    except Undo:
        return None
    except DatabaseError as error:
        return error


async def assert_agreed(pool: Pool, table: str, user_id: int, path: str) -> None:
    refused = await refusal(pool, table, user_id, path)
    if is_spelled_well(path):
        assert refused is None, repr(path)
    else:
        assert isinstance(refused, InvalidArgumentError), repr(path)
        assert refused.constraint == f"{table}_path_check"


def is_spelled_well(path: str) -> bool:
    try:
        return normalize_path(path) == path != ""
    except InvalidArgumentError:
        return False


@pytest.mark.parametrize("table", ["folders", "files"])
async def test_the_database_takes_what_python_takes_and_nothing_else(
    pool: Pool, alice: int, table: str
) -> None:
    for path in (*KEPT, *MENDED, *MENDED.values(), *REFUSED):
        if "\0" not in path and not any("\ud800" <= one <= "\udfff" for one in path):
            await assert_agreed(pool, table, alice, path)


segments = st.text(
    st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\0"), max_size=6
) | st.sampled_from([".", "..", "", "a", "\u0301", "e\u0301", "\x7f", "\x85", "\n"])


@settings(
    max_examples=scaled(150, 5000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.tuples(st.sampled_from(["", "/"]), st.lists(segments, max_size=5)))
async def test_whatever_path_is_made_python_and_the_database_agree(
    pool: Pool, alice: int, path: tuple[str, list[str]]
) -> None:
    made = path[0] + "/".join(path[1])
    await assert_agreed(pool, "folders", alice, made)
    with suppress(InvalidArgumentError):
        spelling = normalize_path(made)
        assert normalize_path(spelling) == spelling
        assert unicodedata.is_normalized("NFC", spelling)


async def test_each_spelling_of_a_path_finds_the_same_file(pool: Pool, alice: int) -> None:
    first = await put(pool, alice, "cafe\u0301/menu.md")
    assert first.path == "/caf\u00e9/menu.md"
    second = await put(pool, alice, "/caf\u00e9/menu.md")
    assert (second.id, second.version) == (first.id, 2)
    folder = await get_folder(pool, user_id=alice, path="cafe\u0301")
    assert folder is not None and folder.id == first.folder_id
    assert await tree(pool, alice, "/cafe\u0301") == ["/caf\u00e9/menu.md"]


async def test_a_hostile_path_reaches_no_statement(pool: Pool, alice: int) -> None:
    content = await an_object(pool, "x")
    for path in REFUSED:
        with pytest.raises(InvalidArgumentError, match="path") as caught:
            await record_file(pool, user_id=alice, path=path, stored=content)
        assert caught.value.sqlstate is None
        with pytest.raises(InvalidArgumentError, match="path") as caught:
            await create_folder(pool, user_id=alice, path=path)
        assert caught.value.sqlstate is None
    assert await tree(pool, alice) == []
