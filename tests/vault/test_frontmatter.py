"""What a file says of itself is stored as a whole, found by its tags, and seen by its user alone."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from chat.actors import stored
from trees import put

from catbird_db import (
    Frontmatter,
    InvalidArgumentError,
    NotFoundError,
    Pool,
    delete_file,
    find_files_by_tag,
    get_frontmatter,
    move_file,
    restore_file,
    set_frontmatter,
    transaction,
)

EVERYTHING: dict[str, Any] = {
    "publish": True,
    "permalink": "/notes/plan/",
    "title": "The plan",
    "tags": ["work", "#café", "work", "a/b"],
    "aliases": ["Plan B", "/the plan", "Plan B"],
    "other": {"rating": 4.5, "nested": {"list": [1, None, "ü"], "on": True}, "big": 2**80},
}


async def tagged(pool: Pool, user_id: int, tag: str) -> list[str]:
    page = await find_files_by_tag(pool, user_id=user_id, tag=tag, limit=500)
    return sorted(one.path for one in page.items)


async def test_what_is_set_is_got_in_its_order_and_repeats_count_once(
    pool: Pool, alice: int
) -> None:
    file = await put(pool, alice, "/plan.md")
    this = {"user_id": alice, "file_id": file.id}
    assert await get_frontmatter(pool, **this) is None
    await set_frontmatter(pool, **this, **EVERYTHING)
    found = await get_frontmatter(pool, **this)
    assert found == Frontmatter.model_construct(
        **this,
        publish=True,
        permalink="notes/plan",
        title="The plan",
        tags=["work", "café", "a/b"],
        aliases=["Plan B", "the plan"],
        other=EVERYTHING["other"],
        updated_at=found and found.updated_at,
    )


async def test_setting_again_replaces_all_of_it(pool: Pool, alice: int) -> None:
    file = await put(pool, alice, "/plan.md")
    this = {"user_id": alice, "file_id": file.id}
    await set_frontmatter(pool, **this, **EVERYTHING)
    await set_frontmatter(pool, **this, tags=["b", "work"], aliases=["z", "Plan B"])
    found = await get_frontmatter(pool, **this)
    assert found is not None
    assert (found.publish, found.permalink, found.title) == (False, None, None)
    assert (found.tags, found.aliases, found.other) == (["b", "work"], ["z", "Plan B"], {})
    await set_frontmatter(pool, **this)
    found = await get_frontmatter(pool, **this)
    assert found is not None and (found.tags, found.aliases) == ([], [])
    assert await tagged(pool, alice, "work") == []


async def test_files_are_found_by_tag_while_they_live_wherever_they_are(
    pool: Pool, alice: int
) -> None:
    for name in "abcde":
        file = await put(pool, alice, f"/{name}.md")
        tags = ["all", "even" if name in "bd" else "odd"]
        await set_frontmatter(pool, user_id=alice, file_id=file.id, tags=tags, title=name)
    assert await tagged(pool, alice, "#even") == ["/b.md", "/d.md"]
    assert await tagged(pool, alice, "Even") == []
    await move_file(pool, user_id=alice, path="/b.md", to="/x/b.md")
    await delete_file(pool, user_id=alice, path="/d.md")
    assert await tagged(pool, alice, "even") == ["/x/b.md"]
    await restore_file(pool, user_id=alice, path="/d.md")
    seen, cursor = [], None
    while True:
        page = await find_files_by_tag(pool, user_id=alice, tag="all", limit=2, cursor=cursor)
        seen += [(one.path, one.title) for one in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(seen) == [
        ("/a.md", "a"),
        ("/c.md", "c"),
        ("/d.md", "d"),
        ("/e.md", "e"),
        ("/x/b.md", "b"),
    ]


async def test_a_file_that_is_deleted_unknown_or_anothers_says_nothing_and_is_told_nothing(
    pool: Pool, alice: int, bob: int
) -> None:
    mine, theirs = await put(pool, alice, "/a.md"), await put(pool, bob, "/a.md")
    for user_id, file_id in ((alice, mine.id), (bob, theirs.id)):
        await set_frontmatter(
            pool, user_id=user_id, file_id=file_id, tags=["t"], title=f"{user_id}"
        )
    for file_id in (theirs.id, UUID(int=7)):
        assert await get_frontmatter(pool, user_id=alice, file_id=file_id) is None
        with pytest.raises(NotFoundError):
            await set_frontmatter(pool, user_id=alice, file_id=file_id, title="mine now")
    page = await find_files_by_tag(pool, user_id=alice, tag="t")
    assert [one.file_id for one in page.items] == [mine.id]
    await delete_file(pool, user_id=alice, path="/a.md")
    assert await get_frontmatter(pool, user_id=alice, file_id=mine.id) is None
    with pytest.raises(NotFoundError):
        await set_frontmatter(pool, user_id=alice, file_id=mine.id)
    with pytest.raises(NotFoundError, match="no such user"):
        await set_frontmatter(pool, user_id=10**9, file_id=mine.id)
    found = await get_frontmatter(pool, user_id=bob, file_id=theirs.id)
    assert found is not None and found.title == f"{bob}"


async def test_writers_of_one_file_leave_one_of_their_writings_whole(
    pool: Pool, alice: int
) -> None:
    file = await put(pool, alice, "/a.md")

    async def write(number: int) -> None:
        words = [f"{number}-{each}" for each in range(5)]
        async with transaction(pool) as tx:
            await set_frontmatter(
                tx, user_id=alice, file_id=file.id, title=f"{number}", tags=words, aliases=words
            )

    await asyncio.gather(*(write(number) for number in range(30)))
    found = await get_frontmatter(pool, user_id=alice, file_id=file.id)
    assert found is not None
    assert found.tags == found.aliases == [f"{found.title}-{each}" for each in range(5)]
    assert len(await stored(pool, "SELECT FROM file_tags")) == 5


class Odd:
    pass


@pytest.mark.parametrize(
    "other",
    [
        {"a": "nul \0"},
        {"nul \0": 1},
        {"a": "\ud800"},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": Odd()},
        {1: "a"},
        {"a": "x" * 2**20},
        ["a"],
        "{}",
    ],
    ids=lambda other: f"{other!r:.30}",
)
async def test_what_jsonb_cannot_hold_is_refused_by_name(
    pool: Pool, alice: int, other: Any
) -> None:
    file = await put(pool, alice, "/a.md")
    with pytest.raises(InvalidArgumentError, match="other"):
        await set_frontmatter(pool, user_id=alice, file_id=file.id, other=other)


async def test_nesting_too_deep_for_jsonb_is_refused_and_text_that_only_looks_like_nul_is_not(
    pool: Pool, alice: int
) -> None:
    file = await put(pool, alice, "/a.md")
    this = {"user_id": alice, "file_id": file.id}
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidArgumentError, match="other"):
        await set_frontmatter(pool, **this, other={"deep": deep})
    await set_frontmatter(pool, **this, other={"path": r"C:\u0000 \\u0000"})
    found = await get_frontmatter(pool, **this)
    assert found is not None and found.other == {"path": r"C:\u0000 \\u0000"}
