"""What is published is what was rendered, and what changed meanwhile makes it stale."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from chat.actors import Undo, at_once, stored, until_waiting
from scale import scaled
from trees import an_object, put

from catbird_db import (
    ConflictError,
    InvalidArgumentError,
    NewLink,
    NotFoundError,
    Pool,
    PublishedPage,
    begin_publishing,
    copy_file,
    delete_file,
    delete_folder,
    delete_user,
    enqueue_processing,
    find_published,
    get_file,
    invalidate_published,
    list_all_stale_pages,
    list_links,
    list_published,
    list_stale_pages,
    move_file,
    move_folder,
    publish_page,
    record_file,
    replace_links,
    restore_file,
    restore_version,
    set_frontmatter,
    transaction,
    unpublish_page,
)
from catbird_db.pool import Executor
from catbird_db.query import bound


async def begin(pool: Pool, user_id: int, file_id: UUID) -> int:
    return await begin_publishing(pool, user_id=user_id, file_id=file_id)


async def publish(
    pool: Executor, user_id: int, file_id: UUID, seen: int, permalink: str, html: str = "<p>"
) -> PublishedPage | None:
    return await publish_page(
        pool, user_id=user_id, file_id=file_id, invalidation=seen, permalink=permalink, html=html
    )


async def page(pool: Pool, user_id: int, path: str, html: str = "<p>") -> UUID:
    """A file, and its page at the same permalink."""
    file_id = (await put(pool, user_id, path)).id
    seen = await begin(pool, user_id, file_id)
    assert await publish(pool, user_id, file_id, seen, path, html)
    return file_id


async def connect(pool: Executor, user_id: int, source: UUID, *names: str) -> None:
    """Let a file link to names; those with a ! are embedded."""
    links = [
        NewLink(target_name=name.removeprefix("!"), embed=name.startswith("!")) for name in names
    ]
    await replace_links(pool, user_id=user_id, file_id=source, links=links)


async def stale(pool: Pool, user_id: int) -> set[str]:
    found = await list_stale_pages(pool, user_id=user_id, limit=500)
    assert all(one.is_stale for one in found.items)
    return {one.permalink for one in found.items}


async def read(pool: Pool, username: str, permalink: str) -> str | None:
    found = await find_published(pool, username=username, permalink=permalink)
    return found and found.html


async def refresh(pool: Pool, user_id: int) -> None:
    """Publish every page again as it is."""
    for one in (await list_published(pool, user_id=user_id, limit=500)).items:
        seen = await begin(pool, user_id, one.file_id)
        assert await publish(pool, user_id, one.file_id, seen, one.permalink)


# Publishing and reading.


async def test_a_page_is_read_by_anybody_by_its_users_name_and_permalink(
    pool: Pool, alice: int
) -> None:
    file = await put(pool, alice, "/plan.md")
    seen = await begin(pool, alice, file.id)
    assert seen == 0
    this = {"user_id": alice, "file_id": file.id}
    done = await publish_page(
        pool, **this, invalidation=seen, permalink="/notes/plan/", html="<h1>", title="Plan"
    )
    assert done is not None and not done.is_stale
    assert await find_published(pool, username="alice", permalink="notes/plan") == done
    assert await find_published(pool, username="ALICE", permalink="/notes/plan") == done
    assert (done.permalink, done.title, done.html) == ("notes/plan", "Plan", "<h1>")
    assert await find_published(pool, username="alice", permalink="notes") is None
    assert await find_published(pool, username="bob", permalink="notes/plan") is None
    await stored(pool, "UPDATE users SET is_active = false WHERE id = $1", alice)
    assert await find_published(pool, username="alice", permalink="notes/plan") is None


async def test_pages_are_listed_by_permalink_page_by_page(pool: Pool, alice: int) -> None:
    for name in "cabed":
        await page(pool, alice, f"/{name}")
    seen: list[str] = []
    cursor = None
    while True:
        found = await list_published(pool, user_id=alice, limit=2, cursor=cursor)
        seen += [one.permalink for one in found.items]
        if (cursor := found.next_cursor) is None:
            break
    assert seen == ["a", "b", "c", "d", "e"]


async def test_a_permalink_has_one_page_a_user_and_racers_for_it_leave_one(
    pool: Pool, alice: int, bob: int
) -> None:
    files = [(await put(pool, alice, f"/{number}.md")).id for number in range(8)]
    seen = [await begin(pool, alice, one) for one in files]
    won, lost = await at_once(
        publish(pool, alice, one, number, "home") for one, number in zip(files, seen, strict=True)
    )
    assert len(won) == 1 and len(lost) == 7
    assert all(isinstance(error, ConflictError) for error in lost)
    theirs = (await put(pool, bob, "/home.md")).id
    assert await publish(pool, bob, theirs, await begin(pool, bob, theirs), "home", "bob's")
    assert (await read(pool, "alice", "home"), await read(pool, "bob", "home")) == ("<p>", "bob's")


async def test_what_was_not_begun_is_deleted_or_is_anothers_is_not_published(
    pool: Pool, alice: int, bob: int
) -> None:
    file, theirs = await put(pool, alice, "/a.md"), await page(pool, bob, "/b.md", "bob's")
    with pytest.raises(NotFoundError, match="begin_publishing"):
        await publish(pool, alice, file.id, 0, "a")
    with pytest.raises(NotFoundError):
        await begin(pool, alice, theirs)
    with pytest.raises(NotFoundError):
        await publish(pool, alice, theirs, 0, "b.md", "mine")
    assert await unpublish_page(pool, user_id=alice, file_id=theirs) is False
    assert await invalidate_published(pool, user_id=alice, file_id=theirs) == 0
    assert await stale(pool, bob) == set()
    assert await read(pool, "bob", "b.md") == "bob's"
    seen = await begin(pool, alice, file.id)
    await delete_file(pool, user_id=alice, path="/a.md")
    with pytest.raises(NotFoundError):
        await publish(pool, alice, file.id, seen, "a")
    with pytest.raises(NotFoundError):
        await begin(pool, alice, file.id)


@pytest.mark.parametrize("permalink", ["", "/", "//", "a\0", "é" * 600])
async def test_no_permalink_is_refused_by_name(pool: Pool, alice: int, permalink: str) -> None:
    file = await put(pool, alice, "/a.md")
    with pytest.raises(InvalidArgumentError, match="permalink"):
        await publish(pool, alice, file.id, 0, permalink)


@pytest.mark.parametrize(
    ("username", "permalink"),
    [
        *(("alice", one) for one in ("", "/", "..", "a//b", "a\0", "a?b", "\ud800", "x" * 9999)),
        *((one, "a") for one in ("", "a b", "é", "a/b", "a\0", "\ud800", "x" * 9999)),
    ],
)
async def test_no_page_is_found_where_none_can_be(
    pool: Pool, alice: int, username: str, permalink: str
) -> None:
    await page(pool, alice, "/a")
    assert await find_published(pool, username=username, permalink=permalink) is None
    assert await find_published(pool, username="alice", permalink="a") is not None


async def test_the_stale_pages_of_all_users_are_listed_by_user_and_file(
    pool: Pool, alice: int, bob: int
) -> None:
    expected: list[tuple[int, UUID]] = []
    for user_id in (alice, bob):
        files = [await page(pool, user_id, f"/{name}") for name in "abcd"]
        for file_id in files[:3]:
            await invalidate_published(pool, user_id=user_id, file_id=file_id)
            expected.append((user_id, file_id))
    await delete_file(pool, user_id=alice, path="/c")
    expected.remove(expected[2])
    seen: list[tuple[int, UUID]] = []
    cursor = None
    while True:
        found = await list_all_stale_pages(pool, limit=2, cursor=cursor)
        assert all(one.is_stale for one in found.items)
        seen += [(one.user_id, one.file_id) for one in found.items]
        if (cursor := found.next_cursor) is None:
            break
    assert seen == sorted(expected)


# Withdrawing.


async def test_an_unpublished_page_is_gone_at_once_and_no_rendering_begun_before_brings_it_back(
    pool: Pool, alice: int
) -> None:
    file_id = await page(pool, alice, "/a.md")
    late = await begin(pool, alice, file_id)
    assert await unpublish_page(pool, user_id=alice, file_id=file_id) is True
    assert await unpublish_page(pool, user_id=alice, file_id=file_id) is False
    assert await read(pool, "alice", "a.md") is None
    assert await publish(pool, alice, file_id, late, "a.md", "late") is None
    assert await read(pool, "alice", "a.md") is None
    seen = await begin(pool, alice, file_id)
    done = await publish(pool, alice, file_id, seen, "a.md", "anew")
    assert done is not None and not done.is_stale
    assert await read(pool, "alice", "a.md") == "anew"


async def test_unpublishing_during_the_first_rendering_refuses_it(pool: Pool, alice: int) -> None:
    file = await put(pool, alice, "/a.md")
    seen = await begin(pool, alice, file.id)
    assert await unpublish_page(pool, user_id=alice, file_id=file.id) is False
    assert await publish(pool, alice, file.id, seen, "a") is None


async def test_deleting_a_file_or_a_folder_around_it_withdraws_the_page_and_frees_its_permalink(
    pool: Pool, alice: int
) -> None:
    one, two = await page(pool, alice, "/x/one.md"), await page(pool, alice, "/y/z/two.md")
    late = [await begin(pool, alice, file_id) for file_id in (one, two)]
    await delete_file(pool, user_id=alice, path="/x/one.md")
    await delete_folder(pool, user_id=alice, path="/y")
    assert (await list_published(pool, user_id=alice)).items == []
    new = await put(pool, alice, "/x/new.md")
    assert await publish(pool, alice, new.id, await begin(pool, alice, new.id), "x/one.md")
    await restore_file(pool, user_id=alice, path="/x/one.md")
    await restore_file(pool, user_id=alice, path="/y/z/two.md")
    assert await publish(pool, alice, one, late[0], "late one") is None
    assert await publish(pool, alice, two, late[1], "late two") is None
    found = (await list_published(pool, user_id=alice)).items
    assert [each.file_id for each in found] == [new.id]


async def test_an_older_rendering_does_not_replace_a_newer_one(pool: Pool, alice: int) -> None:
    file_id = await page(pool, alice, "/a.md")
    old = await begin(pool, alice, file_id)
    await invalidate_published(pool, user_id=alice, file_id=file_id)
    new = await begin(pool, alice, file_id)
    assert await publish(pool, alice, file_id, new, "a.md", "new")
    assert await publish(pool, alice, file_id, old, "a.md", "old") is None
    assert await publish(pool, alice, file_id, new + 7, "a.md", "made up") is None
    assert await read(pool, "alice", "a.md") == "new"


# Invalidation.


async def test_what_changes_while_a_page_is_rendered_leaves_it_stale(
    pool: Pool, alice: int
) -> None:
    for path, first in (("/new.md", True), ("/old.md", False)):
        file_id = (await put(pool, alice, path)).id if first else await page(pool, alice, path)
        await begin(pool, alice, file_id)
        seen = await begin(pool, alice, file_id)
        assert await invalidate_published(pool, user_id=alice, file_id=file_id) == 1
        done = await publish(pool, alice, file_id, seen, path)
        assert done is not None and done.is_stale
        assert await stale(pool, alice) == {path.removeprefix("/")}
        again = await publish(pool, alice, file_id, await begin(pool, alice, file_id), path)
        assert again is not None and not again.is_stale
        assert await stale(pool, alice) == set()


async def test_embedding_pages_are_stale_transitively_and_in_circles_but_linking_ones_are_not(
    pool: Pool, alice: int
) -> None:
    files = {name: await page(pool, alice, f"/{name}.md") for name in "abcdef"}
    await connect(pool, alice, files["a"], "!b", "f")
    await connect(pool, alice, files["b"], "!c")
    await connect(pool, alice, files["c"], "!a", "!c")
    await connect(pool, alice, files["d"], "c")
    await connect(pool, alice, files["e"], "!d")
    assert await stale(pool, alice) == set()

    changed = {"user_id": alice, "file_id": files["c"]}
    assert await invalidate_published(pool, **changed) == 3
    assert await stale(pool, alice) == {"a.md", "b.md", "c.md"}
    await refresh(pool, alice)
    assert await stale(pool, alice) == set()
    assert await invalidate_published(pool, **changed, along_links=True) == 5
    assert await stale(pool, alice) == {"a.md", "b.md", "c.md", "d.md", "e.md"}
    await refresh(pool, alice)
    assert await invalidate_published(pool, user_id=alice, file_id=files["f"]) == 1


async def test_a_file_that_is_no_page_still_carries_the_change_to_those_that_embed_it(
    pool: Pool, alice: int
) -> None:
    top = await page(pool, alice, "/top.md")
    between = await put(pool, alice, "/between.md")
    deep = await put(pool, alice, "/deep.md")
    await connect(pool, alice, top, "!between")
    await connect(pool, alice, between.id, "!deep")
    assert await invalidate_published(pool, user_id=alice, file_id=deep.id) == 1
    assert await stale(pool, alice) == {"top.md"}


async def restore_first(pool: Pool, user_id: int, file_id: UUID) -> Any:
    return await restore_version(pool, user_id=user_id, file_id=file_id, version=1)


async def in_a_transaction(pool: Pool, user_id: int, _: UUID) -> Any:
    async with transaction(pool) as tx:
        await put(pool, user_id, "/deep.md", "new", db=tx)


CHANGES: dict[str, Callable[[Pool, int, UUID], Awaitable[Any]]] = {
    "write": lambda pool, user_id, _: put(pool, user_id, "/deep.md", "new"),
    "write in a transaction": in_a_transaction,
    "restore a version": restore_first,
    "copy over it": lambda pool, user_id, _: copy_file(
        pool, user_id=user_id, path="/other.md", to="/deep.md", overwrite=True
    ),
    "move over it": lambda pool, user_id, _: move_file(
        pool, user_id=user_id, path="/other.md", to="/deep.md", overwrite=True
    ),
    "move it away": lambda pool, user_id, _: move_file(
        pool, user_id=user_id, path="/deep.md", to="/else.md"
    ),
    "move its folder over": lambda pool, user_id, _: move_folder(
        pool, user_id=user_id, path="/x", to="/deep"
    ),
    "delete": lambda pool, user_id, _: delete_file(pool, user_id=user_id, path="/deep.md"),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_whatever_changes_an_embedded_file_makes_the_pages_that_embed_it_stale(
    pool: Pool, alice: int, bob: int, kind: str
) -> None:
    for user_id in (bob, alice):
        top, linking = [await page(pool, user_id, path) for path in ("/top.md", "/linking.md")]
        between, deep = [await put(pool, user_id, path) for path in ("/between.md", "/deep.md")]
        for path in ("/other.md", "/x/y.md"):
            await put(pool, user_id, path)
        await connect(pool, user_id, top, "!between")
        await connect(pool, user_id, between.id, "!deep.md", "!deep/y")
        await connect(pool, user_id, linking, "top")
        await refresh(pool, user_id)
    assert await stale(pool, alice) == set()
    await CHANGES[kind](pool, alice, deep.id)
    assert await stale(pool, alice) == {"top.md"}
    await refresh(pool, alice)
    if kind == "delete":
        await restore_file(pool, user_id=alice, path="/deep.md")
        assert await stale(pool, alice) == {"top.md"}
        await delete_file(pool, user_id=alice, path="/deep.md")
        await refresh(pool, alice)
        await put(pool, alice, "/deep.md", "anew")
        assert await stale(pool, alice) == {"top.md"}
    assert await stale(pool, bob) == set()


async def test_a_published_file_that_is_written_is_stale_and_what_is_rolled_back_is_not(
    pool: Pool, alice: int
) -> None:
    await page(pool, alice, "/a.md")
    with suppress(Undo):
        async with transaction(pool) as tx:
            await put(pool, alice, "/a.md", "new", db=tx)
            raise Undo
    content = await an_object(pool, "new")
    with pytest.raises(ConflictError):
        await record_file(pool, user_id=alice, path="/a.md", stored=content, if_match="0" * 64)
    assert await stale(pool, alice) == set()
    await put(pool, alice, "/a.md", "new")
    assert await stale(pool, alice) == {"a.md"}


@pytest.mark.parametrize("kind", ["write", "restore a version"])
async def test_a_change_that_waits_for_a_new_link_and_page_sees_them(
    pool: Pool, alice: int, kind: str
) -> None:
    top, deep = await page(pool, alice, "/top.md"), await put(pool, alice, "/deep.md")
    async with transaction(pool) as linking:
        await connect(linking, alice, top, "!deep")
        changing = asyncio.create_task(CHANGES[kind](pool, alice, deep.id))
        await until_waiting(pool, "lock_vault")
    await changing
    assert await stale(pool, alice) == {"top.md"}


@pytest.mark.parametrize(
    ("label", "slept"),
    [("files.overwrite_file", "AND EXISTS"), ("versions.rewrite_version", "FOR SHARE OF v")],
)
async def test_a_change_whose_snapshot_is_older_than_a_link_writes_nothing(
    pool: Pool, alice: int, label: str, slept: str
) -> None:
    """Between its snapshot and its lock, which is a moment, and here half a second."""
    top, deep = await page(pool, alice, "/top.md"), await put(pool, alice, "/deep.md")
    statement = next(one.statement for one in bound() if one.statement.label == f"vault.{label}")
    slow = statement.sql.replace(slept, f"AND pg_sleep(0.5) IS NOT NULL {slept}", 1)
    assert slow != statement.sql
    given = {
        "user_id": alice,
        "path": "/deep.md",
        "object_hash": deep.object_hash,
        "size": deep.size,
        "content_type": None,
        "if_match": None,
        "file_id": deep.id,
        "version": 1,
    }
    changing = asyncio.create_task(
        stored(pool, slow, *(given[one] for one in statement.parameters))
    )
    await asyncio.sleep(0.2)
    await connect(pool, alice, top, "!deep")
    assert not changing.done()
    assert await changing == []
    assert (await get_file(pool, user_id=alice, file_id=deep.id)) == deep


async def test_a_chain_of_a_thousand_embeds_that_bites_its_tail_ends(
    pool: Pool, alice: int
) -> None:
    length = 1000
    first = await put(pool, alice, "/0.md")
    await stored(
        pool,
        "INSERT INTO files (user_id, id, path, object_hash, size, content_type)"
        " SELECT user_id, gen_random_uuid(), '/' || n || '.md', object_hash, size, content_type"
        " FROM files, generate_series(1, $2::int - 1) AS n WHERE id = $1",
        first.id,
        length,
    )
    await stored(
        pool,
        "INSERT INTO file_links (user_id, source_file_id, position, target_name, target_file_id, embed)"
        " SELECT s.user_id, s.id, 1, 'x', t.id, true FROM files AS s JOIN files AS t"
        " ON t.path = '/' || (substring(s.path from '\\d+')::int + 1) % $1::int || '.md'",
        length,
    )
    await stored(
        pool, "INSERT INTO published_pages (user_id, file_id) SELECT user_id, id FROM files"
    )
    assert await invalidate_published(pool, user_id=alice, file_id=first.id) == length


async def test_pages_are_stale_when_a_target_of_theirs_appears_goes_or_is_another(
    pool: Pool, alice: int
) -> None:
    top, below = await page(pool, alice, "/top.md"), await page(pool, alice, "/below.md")
    await connect(pool, alice, top, "!below")
    await connect(pool, alice, below, "t", "nick")

    async def is_stale() -> bool:
        found = await stale(pool, alice)
        assert found in (set(), {"top.md", "below.md"})
        await refresh(pool, alice)
        return bool(found)

    target = await put(pool, alice, "/far/t.md")
    assert await is_stale()
    await put(pool, alice, "/unrelated.md")
    assert not await is_stale()
    await move_file(pool, user_id=alice, path="/far/t.md", to="/further/away/t.md")
    assert not await is_stale()
    await put(pool, alice, "/t.md")
    assert await is_stale()
    await delete_file(pool, user_id=alice, path="/t.md")
    assert await is_stale()
    await set_frontmatter(pool, user_id=alice, file_id=target.id, aliases=["nick"])
    assert await is_stale()
    await move_file(pool, user_id=alice, path="/further/away/t.md", to="/u.md")
    assert await is_stale()


async def test_pages_are_stale_when_a_target_is_published_moves_its_permalink_or_is_unpublished(
    pool: Pool, alice: int
) -> None:
    top, linking = await page(pool, alice, "/top.md"), await page(pool, alice, "/linking.md")
    target = (await put(pool, alice, "/t.md")).id
    await connect(pool, alice, linking, "t")
    await connect(pool, alice, top, "!linking")
    await connect(pool, alice, target, "linking", "t")
    for permalink, expected in (("one", True), ("one", False), ("two", True)):
        seen = await begin(pool, alice, target)
        done = await publish(pool, alice, target, seen, permalink)
        assert done is not None and not done.is_stale
        assert await stale(pool, alice) == ({"top.md", "linking.md"} if expected else set())
        for file_id, path in ((top, "top.md"), (linking, "linking.md")):
            assert await publish(pool, alice, file_id, await begin(pool, alice, file_id), path)
    await unpublish_page(pool, user_id=alice, file_id=target)
    assert await stale(pool, alice) == {"top.md", "linking.md"}


async def test_two_users_with_the_same_names_and_pages_invalidate_nothing_of_each_other(
    pool: Pool, alice: int, bob: int
) -> None:
    for user_id in (alice, bob):
        top = await page(pool, user_id, "/top.md", f"{user_id}")
        await page(pool, user_id, "/t.md")
        await connect(pool, user_id, top, "!t")
    [mine] = [
        one.file_id
        for one in (await list_published(pool, user_id=alice)).items
        if one.permalink == "t.md"
    ]
    assert await invalidate_published(pool, user_id=alice, file_id=mine, along_links=True) == 2
    assert (await stale(pool, alice), await stale(pool, bob)) == ({"top.md", "t.md"}, set())
    assert await invalidate_published(pool, user_id=bob, file_id=mine, along_links=True) == 0
    assert await read(pool, "alice", "top.md") == f"{alice}"
    assert await read(pool, "bob", "top.md") == f"{bob}"


# Together with others.


async def test_a_first_rendering_that_begins_beside_a_change_waits_for_it(
    pool: Pool, alice: int
) -> None:
    """Else it would read the old content, and the change would find no page to make stale."""
    top, below = await put(pool, alice, "/top.md"), await put(pool, alice, "/below.md")
    await connect(pool, alice, top.id, "!below")
    async with transaction(pool) as writing:
        await put(pool, alice, "/below.md", "new", db=writing)
        assert await invalidate_published(writing, user_id=alice, file_id=below.id) == 0
        beginning = asyncio.create_task(begin(pool, alice, top.id))
        await until_waiting(pool, "lock_vault")
    seen = await beginning
    now = await get_file(pool, user_id=alice, file_id=below.id)
    assert now is not None and now.version == 2
    done = await publish(pool, alice, top.id, seen, "top")
    assert done is not None and not done.is_stale


async def test_a_rendering_that_is_published_beside_a_change_waits_and_is_stale(
    pool: Pool, alice: int
) -> None:
    top = await page(pool, alice, "/top.md")
    below = await put(pool, alice, "/below.md")
    await connect(pool, alice, top, "!below")
    seen = await begin(pool, alice, top)
    async with transaction(pool) as writing:
        await put(pool, alice, "/below.md", "new", db=writing)
        await invalidate_published(writing, user_id=alice, file_id=below.id)
        publishing = asyncio.create_task(publish(pool, alice, top, seen, "top"))
        await until_waiting(pool, "lock_vault")
    done = await publishing
    assert done is not None and done.is_stale


async def render(pool: Pool, user_id: int, file_id: UUID) -> str:
    """What is in a file, and in whatever it embeds, read bit by bit."""
    waiting, seen = [file_id], dict[UUID, str]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        file = await get_file(pool, user_id=user_id, file_id=one)
        assert file is not None
        seen[one] = file.object_hash
        await asyncio.sleep(random.random() * 0.002)
        found = await list_links(pool, user_id=user_id, file_id=one)
        waiting += [
            link.target_file_id for link in found.items if link.target_file_id and link.embed
        ]
    return "".join(f"{one}: {seen[one]}\n" for one in sorted(seen))


async def test_however_many_write_link_and_render_at_once_no_page_is_old_without_being_stale(
    pool: Pool, alice: int
) -> None:
    names = [f"f{number}" for number in range(8)]
    files = {name: (await put(pool, alice, f"/{name}.md")).id for name in names}
    numbers, kinds, writing = count(), Counter[str](), 0

    async def writer() -> None:
        nonlocal writing
        writing += 1
        for _ in range(scaled(40, 600)):
            name = random.choice(names)
            this = {"user_id": alice, "file_id": files[name]}
            kind = random.choice(["write", "write", "link", "undone"])
            kinds[kind] += 1
            try:
                async with transaction(pool) as tx:
                    if kind == "link":
                        embedded = [f"!{one}" for one in random.sample(names, 2)]
                        await connect(tx, alice, files[name], *embedded)
                        await invalidate_published(tx, **this)
                    else:
                        await put(pool, alice, f"/{name}.md", f"text {next(numbers)}", db=tx)
                    await asyncio.sleep(random.random() * 0.003)
                    if kind == "undone":
                        raise Undo
            except Undo:
                pass
        writing -= 1

    async def render_page(name: str) -> None:
        seen = await begin(pool, alice, files[name])
        html = await render(pool, alice, files[name])
        done = await publish(pool, alice, files[name], seen, name, html)
        kinds["late" if done is None else "stale" if done.is_stale else "fresh"] += 1

    async def renderer() -> None:
        while writing:
            await render_page(random.choice(names))

    async with asyncio.timeout(scaled(60, 600)), asyncio.TaskGroup() as tasks:
        for _ in range(6):
            tasks.create_task(writer())
        await asyncio.sleep(0)
        for _ in range(10):
            tasks.create_task(renderer())

    while left := await stale(pool, alice):
        await render_page(left.pop())
    pages = (await list_published(pool, user_id=alice)).items
    for one in pages:
        assert await read(pool, "alice", one.permalink) == await render(pool, alice, one.file_id)
    assert len(pages) == len(names) and kinds["stale"] > 0 and kinds["fresh"] > 0, kinds


async def test_publishers_of_pages_that_link_to_each_other_do_not_deadlock(
    pool: Pool, alice: int
) -> None:
    names = [f"f{number}" for number in range(6)]
    files = {name: (await put(pool, alice, f"/{name}.md")).id for name in names}
    for file_id in files.values():
        await connect(pool, alice, file_id, *(f"!{one}" for one in names))
    seen = {name: await begin(pool, alice, file_id) for name, file_id in files.items()}

    async def churn(name: str, number: int) -> Any:
        this = {"user_id": alice, "file_id": files[name]}
        match number % 3:
            case 0:
                return await publish(pool, alice, files[name], seen[name], f"{name}-{number}")
            case 1:
                return await invalidate_published(pool, **this)
            case _:
                return await unpublish_page(pool, **this)

    done, errors = await at_once(churn(name, number) for number in range(12) for name in names)
    assert errors == [] and len(done) == 72


async def test_publishing_beside_deleting_and_restoring_does_not_deadlock(
    pool: Pool, alice: int
) -> None:
    names = ["a", "b", "x", "y"]
    files = {name: (await put(pool, alice, f"/{name}.md")).id for name in names}
    for name, file_id in files.items():
        await connect(pool, alice, file_id, *(f"!{one}" for one in names if one != name))
    done, number, deleting = Counter[str](), count(), 0

    async def publisher(name: str) -> None:
        while deleting:
            with suppress(NotFoundError):
                seen = await begin(pool, alice, files[name])
                await publish(pool, alice, files[name], seen, f"{name}{next(number)}")
                done["published"] += 1

    async def deleter(name: str) -> None:
        nonlocal deleting
        deleting += 1
        for _ in range(scaled(60, 1500)):
            await delete_file(pool, user_id=alice, path=f"/{name}.md")
            await restore_file(pool, user_id=alice, path=f"/{name}.md")
            done["deleted"] += 1
        deleting -= 1

    async with asyncio.timeout(scaled(60, 600)), asyncio.TaskGroup() as tasks:
        for name in "ax":
            tasks.create_task(deleter(name))
        await asyncio.sleep(0)
        for name in names * 2:
            tasks.create_task(publisher(name))
    assert done["published"] > 10, done


async def test_a_deleted_user_takes_links_queue_and_pages_along(
    pool: Pool, alice: int, bob: int
) -> None:
    for user_id in (alice, bob):
        top, below = [await page(pool, user_id, path) for path in ("/top.md", "/below.md")]
        await connect(pool, user_id, top, "!below", "top", "nowhere")
        await connect(pool, user_id, below, "top")
        await set_frontmatter(pool, user_id=user_id, file_id=top, tags=["t"], aliases=["a"])
        await enqueue_processing(pool, user_id=user_id, file_id=top)
    assert await delete_user(pool, user_id=alice) is True
    for table in ("frontmatter", "file_tags", "file_links", "processing_queue", "published_pages"):
        rows = await stored(pool, f"SELECT DISTINCT user_id FROM {table}")
        assert [row["user_id"] for row in rows] == [bob], table
