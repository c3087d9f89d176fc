"""One spelling for each path: what Python refuses, the database refuses too, and nothing else."""

import unicodedata
from contextlib import suppress

import pytest
from chat.actors import stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scale import scaled
from trees import an_object, put, tree

from catbird_db import (
    DatabaseError,
    InvalidArgumentError,
    Pool,
    begin_publishing,
    create_folder,
    get_folder,
    normalize_path,
    normalize_permalink,
    publish_page,
    record_file,
    set_frontmatter,
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


PERMALINKS = {
    "notes": "notes",
    "/notes/": "notes",
    "///notes//": "notes",
    "notes/my plan.md": "notes/my plan.md",
    "e\u0301": "\u00e9",
    "\u037e": ";",  # the Greek question mark
    "...": "...",
    "a..b/.c": "a..b/.c",
    "a:b*c\"<>|'&=+,;@!$()~_-": "a:b*c\"<>|'&=+,;@!$()~_-",
    "\u0646\u0645\u06cc\u200c\u0634\u0648\u062f": "\u0646\u0645\u06cc\u200c\u0634\u0648\u062f",  # Persian
    "\U0001f469\u200d\U0001f692": "\U0001f469\u200d\U0001f692",
    "a" * 1024: "a" * 1024,
}
NO_PERMALINKS = [
    *("", "/", "//", "a//b", "/a//b/", ".", "..", "/../", "../../admin", "a/./b", "a/../b", "a/.."),
    *("a?b", "a#b", "a?b#c", "a%2fb", "%2e%2e", "%2e%2e/admin", "%", "a\\b", "..\\admin", "\\"),
    *(" ", "  ", " a", "a ", "a/ /b", "a /b", "a/ b", "/ /"),
    *("\0", "a\0b", "a\nb", "a\n", "\r", "a\tb", "\x1f", "\x7f", "\x80", "\x85", "\x9f"),
    *("\u202e", "gpj.\u202eexe", "\u202a", "\u2066a\u2069", "\u200e", "\u200f", "\u061c"),
    *("\u00a0", "\u00ad", "\u1680", "\u180e", "\u2000", "\u2009", "\u200b", "\u2028", "\u2029"),
    *("\u202f", "\u205f", "\u2060", "\u2064", "\u206f", "\u3000", "\ufeff", "\ufff9", "\U000e0041"),
    *("a" * 1025, "\u00e9" * 513, "a/" * 512 + "a", "\ud800", "a/\udfff"),
]


@pytest.mark.parametrize(("permalink", "spelling"), PERMALINKS.items())
def test_a_permalink_has_one_spelling(permalink: str, spelling: str) -> None:
    assert normalize_permalink(permalink) == normalize_permalink(spelling) == spelling


@pytest.mark.parametrize("permalink", NO_PERMALINKS)
def test_a_hostile_permalink_is_refused(permalink: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the permalink"):
        normalize_permalink(permalink)


def is_a_good_permalink(permalink: str) -> bool:
    try:
        return normalize_permalink(permalink) == permalink
    except InvalidArgumentError:
        return False


def can_be_sent(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


async def test_the_database_takes_the_same_permalinks_and_nothing_else(
    pool: Pool, alice: int
) -> None:
    """Asked of the constraint itself, for thousands at once: hostile ones, and each character."""
    [constraint] = await stored(
        pool,
        "SELECT substr(pg_get_constraintdef(oid), 6) AS condition FROM pg_constraint"
        " WHERE conname = 'published_pages_permalink_check'",
    )
    assigned = [one for one in map(chr, range(1, 0x110000)) if unicodedata.category(one) != "Cn"]
    given = [*NO_PERMALINKS, *PERMALINKS, *PERMALINKS.values()]
    given += [f"a{one}b" for one in assigned] + [f"a/{one}" for one in assigned]
    given = [one for one in given if can_be_sent(one)]
    rows = await stored(
        pool,
        f'SELECT permalink FROM unnest($1::text[] COLLATE "C") AS permalink WHERE {constraint["condition"]}',
        given,
    )
    taken = {row["permalink"] for row in rows}
    assert taken ^ {one for one in given if is_a_good_permalink(one)} == set()


async def test_a_hostile_permalink_reaches_no_statement(pool: Pool, alice: int) -> None:
    file = await put(pool, alice, "/a.md")
    this = {"user_id": alice, "file_id": file.id}
    seen = await begin_publishing(pool, **this)
    for permalink in NO_PERMALINKS:
        with pytest.raises(InvalidArgumentError, match="permalink") as caught:
            await publish_page(pool, **this, invalidation=seen, permalink=permalink, html="x")
        assert caught.value.sqlstate is None
        with pytest.raises(InvalidArgumentError, match="permalink") as caught:
            await set_frontmatter(pool, **this, permalink=permalink)
        assert caught.value.sqlstate is None
        if can_be_sent(permalink):
            with pytest.raises(InvalidArgumentError) as caught:
                await stored(
                    pool,
                    "UPDATE published_pages SET permalink = $1, html = '', published_at = now()",
                    permalink,
                )
            assert caught.value.constraint == "published_pages_permalink_check"


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
