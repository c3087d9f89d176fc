"""A link leads to what its name stands for at present, whoever makes, moves and deletes meanwhile."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from chat.actors import Undo, stored, until_waiting
from scale import scaled
from trees import add_user, assert_sound, put

from catbird_db import (
    ConflictError,
    InvalidArgumentError,
    NewLink,
    NotFoundError,
    Pool,
    copy_file,
    delete_file,
    delete_folder,
    get_frontmatter,
    list_backlinks,
    list_links,
    list_unresolved_links,
    lock_vault,
    move_file,
    move_folder,
    purge_deleted,
    replace_links,
    resolve_links,
    restore_file,
    restore_folder,
    set_frontmatter,
    transaction,
)
from catbird_db.pool import Executor


async def link(db: Executor, user_id: int, source: UUID, *names: str) -> int:
    links = [NewLink(target_name=name) for name in names]
    return await replace_links(db, user_id=user_id, file_id=source, links=links)


async def targets(pool: Pool, user_id: int, source: UUID) -> dict[str, str | None]:
    """What the links in a file name, and the paths that they lead to."""
    page = await list_links(pool, user_id=user_id, file_id=source, limit=500)
    return {one.target_name: one.target_path for one in page.items}


async def name_file(pool: Pool, user_id: int, file_id: UUID, *aliases: str) -> None:
    await set_frontmatter(pool, user_id=user_id, file_id=file_id, aliases=aliases)


# What a name stands for.

PATHS = ["/note.md", "/b/note.md", "/a/deep/plan.md", "/b/plan.md", "/a/plan.md", "/pic.png"]
PATHS += ["/b/pic.md", "/x.md.md", "/c/x.md", "/d/aliased.md", "/e/aliased.md", "/B/Note.md"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("note", "/note.md"),
        ("note.md", "/note.md"),
        ("/note", "/note.md"),
        ("b/note", "/b/note.md"),
        ("/b/note.md", "/b/note.md"),
        ("plan", "/a/plan.md"),
        ("a/deep/plan", "/a/deep/plan.md"),
        ("deep/plan", None),
        ("pic", "/b/pic.md"),
        ("pic.png", "/pic.png"),
        ("x", "/c/x.md"),
        ("x.md", "/x.md.md"),
        ("Note", "/B/Note.md"),
        ("NOTE", None),
        ("nick", "/e/aliased.md"),
        ("plan B", "/d/aliased.md"),
        ("deep/nick", "/d/aliased.md"),
        ("cafe\u0301", "/d/aliased.md"),
        ("%", None),
        ("' OR true --", None),
    ],
)
async def test_a_name_stands_for_a_path_else_a_file_name_else_an_alias(
    pool: Pool, alice: int, name: str, path: str | None
) -> None:
    files = {one: (await put(pool, alice, one)).id for one in PATHS}
    aliases = ("nick", "plan", "plan B", "deep/nick", "caf\u00e9")
    await name_file(pool, alice, files["/d/aliased.md"], *aliases)
    await name_file(pool, alice, files["/e/aliased.md"], "nick")
    await move_file(pool, user_id=alice, path="/e/aliased.md", to="/e.md")
    await move_file(pool, user_id=alice, path="/e.md", to="/e/aliased.md")
    if name == "nick":  # equally long: the first in order
        path = "/d/aliased.md"
    found = await resolve_links(pool, user_id=alice, names=[name])
    assert [one.path for one in found] == ([path] if path else [])
    await link(pool, alice, files["/note.md"], name)
    assert list((await targets(pool, alice, files["/note.md"])).values()) == [path]


async def test_links_follow_a_target_that_appears_moves_goes_and_comes_back(
    pool: Pool, alice: int
) -> None:
    source = (await put(pool, alice, "/source.md")).id
    assert await link(pool, alice, source, "t", "a/t", "z/t", "nick") == 0
    nothing = dict.fromkeys(["t", "a/t", "z/t", "nick"])
    assert await targets(pool, alice, source) == nothing

    far = (await put(pool, alice, "/far/away/t.md")).id
    assert await targets(pool, alice, source) == nothing | {"t": "/far/away/t.md"}
    await put(pool, alice, "/a/t.md")
    both = nothing | {"t": "/a/t.md", "a/t": "/a/t.md"}
    assert await targets(pool, alice, source) == both
    await name_file(pool, alice, far, "nick")
    assert await targets(pool, alice, source) == both | {"nick": "/far/away/t.md"}
    await name_file(pool, alice, far)
    assert await targets(pool, alice, source) == both

    await move_folder(pool, user_id=alice, path="/a", to="/z")
    assert await targets(pool, alice, source) == nothing | {"t": "/z/t.md", "z/t": "/z/t.md"}
    await move_folder(pool, user_id=alice, path="/z", to="/very/far/away/indeed")
    assert await targets(pool, alice, source) == nothing | {"t": "/far/away/t.md"}
    await delete_file(pool, user_id=alice, path="/far/away/t.md")
    assert await targets(pool, alice, source) == nothing | {"t": "/very/far/away/indeed/t.md"}
    await delete_folder(pool, user_id=alice, path="/very")
    assert await targets(pool, alice, source) == nothing
    await restore_folder(pool, user_id=alice, path="/very")
    await restore_file(pool, user_id=alice, path="/far/away/t.md")
    await copy_file(pool, user_id=alice, path="/far/away/t.md", to="/a/t.md")
    assert await targets(pool, alice, source) == both


async def test_what_is_moved_over_leads_to_what_is_there_now(pool: Pool, alice: int) -> None:
    source = (await put(pool, alice, "/source.md")).id
    await put(pool, alice, "/old/t.md")
    await put(pool, alice, "/new/t.md")
    await link(pool, alice, source, "old/t", "new/t")
    await move_file(pool, user_id=alice, path="/new/t.md", to="/old/t.md", overwrite=True)
    assert await targets(pool, alice, source) == {"old/t": "/old/t.md", "new/t": None}


async def test_purging_a_target_leaves_the_link(pool: Pool, alice: int) -> None:
    source = (await put(pool, alice, "/source.md")).id
    await put(pool, alice, "/t.md")
    await link(pool, alice, source, "t", "source")
    await delete_file(pool, user_id=alice, path="/t.md")
    [now] = await stored(pool, "SELECT now() AS now")
    await purge_deleted(pool, user_id=alice, deleted_before=now["now"])
    assert await targets(pool, alice, source) == {"t": None, "source": "/source.md"}


# The links of a file, and back.


async def test_links_are_replaced_as_a_whole_and_keep_their_order(pool: Pool, alice: int) -> None:
    source, other = [(await put(pool, alice, path)).id for path in ("/s.md", "/o.md")]
    links = [
        NewLink(target_name="o", embed=True, fragment="Head"),
        NewLink(target_name="nowhere"),
        NewLink(target_name="o"),
    ]
    assert await replace_links(pool, user_id=alice, file_id=source, links=links) == 2
    page = await list_links(pool, user_id=alice, file_id=source)
    found = [(one.position, one.target_name, one.embed, one.fragment) for one in page.items]
    assert found == [(1, "o", True, "Head"), (2, "nowhere", False, None), (3, "o", False, None)]
    assert [one.target_file_id for one in page.items] == [other, None, other]
    assert await link(pool, alice, source, "s") == 1
    assert await targets(pool, alice, source) == {"s": "/s.md"}
    assert await link(pool, alice, source) == 0
    assert await targets(pool, alice, source) == {}
    with pytest.raises(NotFoundError):
        await link(pool, alice, UUID(int=0), "s")
    await delete_file(pool, user_id=alice, path="/s.md")
    with pytest.raises(NotFoundError):
        await link(pool, alice, source, "o")


async def test_backlinks_and_unresolved_links_are_paged_and_leave_out_deleted_sources(
    pool: Pool, alice: int
) -> None:
    target = (await put(pool, alice, "/t.md")).id
    for number in range(7):
        source = (await put(pool, alice, f"/s{number}.md")).id
        await link(pool, alice, source, "t", "ghost", "t", f"ghost{number % 2}")
    await delete_file(pool, user_id=alice, path="/s3.md")
    paths = [f"/s{number}.md" for number in (0, 1, 2, 4, 5, 6)]

    async def all_of(function: Callable[..., Awaitable[Any]], **where: Any) -> list[Any]:
        found, cursor = [], None
        while True:
            page = await function(pool, user_id=alice, limit=4, cursor=cursor, **where)
            found += page.items
            if (cursor := page.next_cursor) is None:
                return found

    back = await all_of(list_backlinks, file_id=target)
    assert Counter((one.source_path, one.position) for one in back) == Counter(
        (path, position) for path in paths for position in (1, 3)
    )
    unresolved = await all_of(list_unresolved_links)
    assert Counter((one.source_path, one.target_name) for one in unresolved) == Counter(
        (path, name) for path in paths for name in ("ghost", f"ghost{int(path[2]) % 2}")
    )
    assert [one.target_name for one in unresolved] == sorted(one.target_name for one in unresolved)


@pytest.mark.parametrize("name", ["", "/", "a\0", "é" * 513, "a" * 1025])
async def test_a_name_that_no_file_can_have_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="target_name"):
        NewLink(target_name=name)


# Tenants.


async def test_two_users_with_the_same_names_and_tags_see_nothing_of_each_other(
    pool: Pool, alice: int, bob: int
) -> None:
    for user_id in (alice, bob):
        await put(pool, user_id, "/s.md")
    mine, theirs = [(await put(pool, user_id, "/s.md")).id for user_id in (alice, bob)]
    bobs = (await put(pool, bob, "/only/bobs.md")).id
    await name_file(pool, bob, bobs, "secret")
    assert await link(pool, alice, mine, "bobs", "only/bobs", "secret", "s") == 1
    assert (await targets(pool, alice, mine))["s"] == "/s.md"
    assert await resolve_links(pool, user_id=alice, names=["bobs", "secret"]) == []
    with pytest.raises(NotFoundError):
        await link(pool, alice, theirs, "s")
    with pytest.raises(NotFoundError):
        await name_file(pool, alice, theirs, "mine")
    for function in (list_links, list_backlinks):
        assert (await function(pool, user_id=bob, file_id=mine)).items == []
    assert (await list_unresolved_links(pool, user_id=bob)).items == []
    assert await get_frontmatter(pool, user_id=alice, file_id=bobs) is None
    await put(pool, bob, "/bobs.md")
    await delete_folder(pool, user_id=bob, path="/only")
    assert (await targets(pool, alice, mine))["bobs"] is None


# Together with others.


async def test_a_link_stored_while_its_target_is_being_made_is_resolved(
    pool: Pool, alice: int
) -> None:
    source = (await put(pool, alice, "/s.md")).id
    async with transaction(pool) as making:
        await put(pool, alice, "/t.md", db=making)
        linking = asyncio.create_task(link(pool, alice, source, "t"))
        await until_waiting(pool, "lock_vault")
    assert await linking == 1
    assert await targets(pool, alice, source) == {"t": "/t.md"}


async def test_a_target_made_while_a_link_to_it_is_being_stored_is_linked_to(
    pool: Pool, alice: int
) -> None:
    source = (await put(pool, alice, "/s.md")).id
    async with transaction(pool) as linking:
        assert await link(linking, alice, source, "t") == 0
        making = asyncio.create_task(put(pool, alice, "/t.md"))
        await until_waiting(pool, "lock_vault")
    await making
    assert await targets(pool, alice, source) == {"t": "/t.md"}


async def test_a_target_whose_making_is_rolled_back_is_not_linked_to(
    pool: Pool, alice: int
) -> None:
    source = (await put(pool, alice, "/s.md")).id
    with suppress(Undo):
        async with transaction(pool) as making:
            await put(pool, alice, "/t.md", db=making)
            linking = asyncio.create_task(link(pool, alice, source, "t"))
            await until_waiting(pool, "lock_vault")
            raise Undo
    assert await linking == 0
    assert await targets(pool, alice, source) == {"t": None}


def meaning(name: str, files: dict[str, UUID], aliases: dict[UUID, set[str]]) -> UUID | None:
    """The rule, said once more: path, name, alias; as written, else with .md; the shortest path."""
    forms = [name, f"{name}.md"]
    for form in forms:
        if f"/{form}" in files:
            return files[f"/{form}"]
    for form in forms:
        if named := [path for path in files if path.rpartition("/")[2] == form]:
            return files[min(named, key=lambda path: (len(path), path))]
    known = [path for path, file_id in files.items() if name in aliases.get(file_id, ())]
    return files[min(known, key=lambda path: (len(path), path))] if known else None


async def test_whoever_makes_moves_deletes_restores_and_renames_at_once_each_link_is_right(
    pool: Pool, alice: int
) -> None:
    """32 tasks on a small vault, some in transactions that are rolled back."""
    names = ["n", "m", "n.md", "a/n", "b/m", "a/b/n", "nick", "nack"]
    folders = ["", "/a", "/b", "/a/b", "/c"]
    sources = [(await put(pool, alice, f"/source{number}.md")).id for number in range(4)]
    done = Counter[str]()

    def a_path() -> str:
        return random.choice(folders) + random.choice(["/n.md", "/m.md", "/n"])

    async def some_file() -> UUID | None:
        found = await stored(
            pool,
            "SELECT id FROM files WHERE user_id = $1 AND deleted_at IS NULL ORDER BY random() LIMIT 1",
            alice,
        )
        return found[0]["id"]

    async def act(db: Executor) -> None:
        kind = random.choice(
            [
                "make",
                "make",
                "move",
                "delete",
                "restore",
                "moves",
                "deletes",
                "alias",
                "link",
                "link",
            ]
        )
        match kind:
            case "make":
                await put(pool, alice, a_path(), db=db)
            case "move":
                await move_file(db, user_id=alice, path=a_path(), to=a_path(), overwrite=True)
            case "delete":
                await delete_file(db, user_id=alice, path=a_path())
            case "restore":
                await restore_file(db, user_id=alice, path=a_path())
            case "moves":
                here, there = random.sample(folders[1:], 2)
                await move_folder(db, user_id=alice, path=here, to=there, overwrite=True)
            case "deletes":
                await delete_folder(db, user_id=alice, path=random.choice(folders[1:]))
            case "alias":
                some = await some_file()
                aliases = random.sample(["nick", "nack", "n"], random.randrange(3))
                await set_frontmatter(db, user_id=alice, file_id=some, aliases=aliases)
            case _:
                await link(db, alice, random.choice(sources), *random.choices(names, k=4))
        done[kind] += 1

    async def actor(number: int) -> None:
        for _ in range(scaled(12, 300)):
            try:
                if number % 3:
                    await act(pool)
                    continue
                async with transaction(pool) as tx:
                    await lock_vault(tx, user_id=alice)
                    await act(tx)
                    if random.random() < 0.3:
                        raise Undo
            except (Undo, ConflictError, NotFoundError, InvalidArgumentError):
                continue

    await asyncio.gather(*(actor(number) for number in range(32)))

    assert min(done.values()) > 0 and len(done) == 8, done
    await assert_sound(pool)
    live = await stored(pool, "SELECT path, id FROM files WHERE deleted_at IS NULL")
    files = {row["path"]: row["id"] for row in live}
    aliases: dict[UUID, set[str]] = {}
    for row in await stored(pool, "SELECT file_id, alias FROM file_aliases"):
        aliases.setdefault(row["file_id"], set()).add(row["alias"])
    links = await stored(pool, "SELECT target_name, target_file_id FROM file_links")
    wrong = [
        (one["target_name"], one["target_file_id"])
        for one in links
        if one["target_file_id"] != meaning(one["target_name"], files, aliases)
    ]
    assert links and wrong == []


async def test_links_of_two_users_are_written_at_once_without_waiting(
    pool: Pool, alice: int
) -> None:
    carol = await add_user(pool, "carol")
    theirs = (await put(pool, carol, "/s.md")).id
    async with transaction(pool) as tx:
        await put(pool, alice, "/s.md", db=tx)
        assert await asyncio.wait_for(link(pool, carol, theirs, "s"), 5) == 1
