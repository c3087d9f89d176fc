"""Folders: made with those around them, listed in pages, moved, deleted and restored as whole trees."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chat.actors import stored
from trees import an_object, assert_sound, put, tree

from catbird_db import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    Pool,
    create_folder,
    delete_file,
    delete_folder,
    find_file_by_path,
    get_file,
    get_folder,
    list_folder,
    list_tree,
    list_versions,
    move_folder,
    purge_deleted,
    record_file,
    restore_file,
    restore_folder,
)

NOBODY = 2**62


async def names(pool: Pool, user_id: int, path: str, limit: int = 500) -> list[str]:
    """What is directly in a folder, read in pages of so many."""
    found, cursor = [], None
    while True:
        page = await list_folder(pool, user_id=user_id, path=path, limit=limit, cursor=cursor)
        found += [one.path for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


# Making and looking.


async def test_a_folder_is_made_with_those_around_it_and_once(pool: Pool, alice: int) -> None:
    folder = await create_folder(pool, user_id=alice, path="/a/b/c")
    assert await create_folder(pool, user_id=alice, path="/a/b/c") == folder
    assert await get_folder(pool, user_id=alice, path="/a/b/c") == folder
    above = await get_folder(pool, user_id=alice, path="/a/b")
    assert above is not None and above.id == folder.parent_id
    assert await tree(pool, alice) == ["/a/", "/a/b/", "/a/b/c/"]
    await create_folder(pool, user_id=alice, path="/a/x")
    assert await tree(pool, alice) == ["/a/", "/a/b/", "/a/b/c/", "/a/x/"]
    await assert_sound(pool)


async def test_a_file_in_the_way_refuses_a_folder_and_nothing_of_it_is_made(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a/b")
    for path in ("/a/b", "/a/b/c", "/a/b/c/d"):
        with pytest.raises(ConflictError, match="a file"):
            await create_folder(pool, user_id=alice, path=path)
        with pytest.raises(ConflictError):
            await put(pool, alice, f"{path}/x")
    with pytest.raises(ConflictError, match="a folder is there"):
        await put(pool, alice, "/a")
    assert await tree(pool, alice) == ["/a/", "/a/b"]


async def test_the_root_is_there_for_everybody_and_nobody_changes_it(
    pool: Pool, alice: int
) -> None:
    for user_id in (alice, NOBODY):
        assert (await list_folder(pool, user_id=user_id)).items == []
        assert (await list_tree(pool, user_id=user_id)).items == []
        assert await get_folder(pool, user_id=user_id, path="/") is None
    calls: list[tuple[Any, dict[str, str]]] = [
        (create_folder, {"path": "/"}),
        (delete_folder, {"path": "/"}),
        (restore_folder, {"path": "/"}),
        (move_folder, {"path": "/", "to": "/a"}),
        (move_folder, {"path": "/a", "to": "/"}),
    ]
    for function, paths in calls:
        with pytest.raises(InvalidArgumentError, match="the root"):
            await function(pool, user_id=alice, **paths)


async def test_a_vault_needs_its_user(pool: Pool) -> None:
    content = await an_object(pool, "x")
    with pytest.raises(NotFoundError, match="no such user"):
        await create_folder(pool, user_id=NOBODY, path="/a")
    with pytest.raises(NotFoundError, match="no such user"):
        await record_file(pool, user_id=NOBODY, path="/a", stored=content)


async def test_a_page_of_a_folder_has_its_files_and_folders_and_nothing_deeper(
    pool: Pool, alice: int, bob: int
) -> None:
    inside = ["/a/1", "/a/2.md", "/a/b", "/a/b c", "/a/b.md", "/a/b0", "/a/z"]
    for path in (*inside, "/a/b c/x", "/a/z/x", "/a/z/y/x", "/a.md", "/a0", "/b/x"):
        if path not in ("/a/b c", "/a/z"):
            await put(pool, alice, path)
            await put(pool, bob, path)
    await put(pool, alice, "/a/deleted")
    await delete_file(pool, user_id=alice, path="/a/deleted")
    await put(pool, alice, "/a/gone/x")
    await delete_folder(pool, user_id=alice, path="/a/gone")
    for limit in (1, 2, 3, 6, 7, 8, 500):
        assert await names(pool, alice, "/a", limit) == inside
        assert await names(pool, alice, "/", limit) == ["/a", "/a.md", "/a0", "/b"]
    page = await list_folder(pool, user_id=alice, path="/a")
    assert [one.kind for one in page.items if one.path in ("/a/b c", "/a/z")] == ["folder"] * 2
    file = next(one for one in page.items if one.path == "/a/2.md")
    known = await find_file_by_path(pool, user_id=alice, path="/a/2.md")
    assert known is not None
    assert (file.id, file.size, file.object_hash) == (known.id, len("/a/2.md"), known.object_hash)
    for missing in ("/nowhere", "/a/2.md", "/a/gone"):
        with pytest.raises(NotFoundError):
            await list_folder(pool, user_id=alice, path=missing)
        with pytest.raises(NotFoundError):
            await list_tree(pool, user_id=alice, path=missing)


async def test_a_tree_is_read_in_pages_in_the_order_of_its_paths(pool: Pool, alice: int) -> None:
    for path in ("/a/b/1", "/a/b/2", "/a/c", "/a b/x", "/a.md", "/a0", "/b"):
        await put(pool, alice, path)
    below = ["/a/b", "/a/b/1", "/a/b/2", "/a/c"]
    whole = sorted([*below, "/a", "/a b", "/a b/x", "/a.md", "/a0", "/b"])
    for limit in (1, 2, 3, 4, 5, 100):
        for path, expected in (("/a", below), ("/", whole), ("/a/b", below[1:3])):
            found, cursor = [], None
            while True:
                page = await list_tree(pool, user_id=alice, path=path, limit=limit, cursor=cursor)
                found += [one.path for one in page.items]
                if (cursor := page.next_cursor) is None:
                    break
            assert found == expected


# Moving.


async def test_a_folder_moves_with_all_below_it_and_nothing_beside_it(
    pool: Pool, alice: int, bob: int
) -> None:
    mine = ["/a/1", "/a/b/2", "/a/b/c/3", "/a b/x", "/a.md", "/a-b/x", "/a0/x", "/aa", "/A/x"]
    before = {path: await put(pool, alice, path) for path in mine}
    for path in mine:
        await put(pool, bob, path)
    theirs = await tree(pool, bob)
    await create_folder(pool, user_id=alice, path="/a/empty")
    folder = await get_folder(pool, user_id=alice, path="/a")
    assert folder is not None

    moved = await move_folder(pool, user_id=alice, path="/a", to="/x/y")
    assert (moved.id, moved.path) == (folder.id, "/x/y")
    assert await tree(pool, alice, "/x") == [
        "/x/y/", "/x/y/1", "/x/y/b/", "/x/y/b/2", "/x/y/b/c/", "/x/y/b/c/3", "/x/y/empty/",
    ]  # fmt: skip
    for path, file in before.items():
        after = await get_file(pool, user_id=alice, file_id=file.id)
        new = path.replace("/a/", "/x/y/", 1) if path.startswith("/a/") else path
        assert after == file.model_copy(update={"path": new})
    assert await get_folder(pool, user_id=alice, path="/a") is None
    assert await tree(pool, bob) == theirs
    await assert_sound(pool)

    await move_folder(pool, user_id=alice, path="/x/y/b/c", to="/c")
    await move_folder(pool, user_id=alice, path="/x/y", to="/x/z")
    await move_folder(pool, user_id=alice, path="/x/z", to="/z")
    assert await tree(pool, alice, "/z") == ["/z/1", "/z/b/", "/z/b/2", "/z/empty/"]
    assert await tree(pool, alice, "/c") == ["/c/3"]
    await assert_sound(pool)


async def test_a_folder_moves_neither_into_itself_nor_over_what_it_is_in(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a/b/c/x")
    before = await tree(pool, alice)
    for path, to in (
        ("/a", "/a"),
        ("/a", "/a/b"),
        ("/a", "/a/b/c/d"),
        ("/a/b", "/a"),
        ("/a/b/c", "/a"),
    ):
        for overwrite in (False, True):
            with pytest.raises(InvalidArgumentError, match="to: "):
                await move_folder(pool, user_id=alice, path=path, to=to, overwrite=overwrite)
    assert await tree(pool, alice) == before
    await move_folder(pool, user_id=alice, path="/a", to="/ab")  # begins alike, is another
    await move_folder(pool, user_id=alice, path="/ab", to="/a")
    assert await tree(pool, alice) == before


async def test_a_folder_moves_over_another_only_when_told_and_the_other_can_be_restored(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a/x", "new")
    old = await put(pool, alice, "/b/x", "old")
    await put(pool, alice, "/b/y")
    await put(pool, alice, "/file")
    with pytest.raises(ConflictError, match="a folder is there"):
        await move_folder(pool, user_id=alice, path="/a", to="/b")
    for overwrite in (False, True):
        with pytest.raises(ConflictError, match="a file is there"):
            await move_folder(pool, user_id=alice, path="/a", to="/file", overwrite=overwrite)
        with pytest.raises(ConflictError, match="a file has"):
            await move_folder(pool, user_id=alice, path="/a", to="/file/b", overwrite=overwrite)
        with pytest.raises(NotFoundError):
            await move_folder(pool, user_id=alice, path="/file", to="/c", overwrite=overwrite)
    assert await tree(pool, alice) == ["/a/", "/a/x", "/b/", "/b/x", "/b/y", "/file"]

    await move_folder(pool, user_id=alice, path="/a", to="/b", overwrite=True)
    assert await tree(pool, alice) == ["/b/", "/b/x", "/file"]
    await move_folder(pool, user_id=alice, path="/b", to="/a")
    await restore_folder(pool, user_id=alice, path="/b")
    assert await tree(pool, alice) == ["/a/", "/a/x", "/b/", "/b/x", "/b/y", "/file"]
    assert await find_file_by_path(pool, user_id=alice, path="/b/x") == old
    await assert_sound(pool)


async def test_a_move_that_would_make_a_path_too_long_changes_nothing(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a/" + "x" * 1000)
    before = await tree(pool, alice)
    with pytest.raises(InvalidArgumentError, match="path"):
        await move_folder(pool, user_id=alice, path="/a", to="/" + "y" * 30)
    assert await tree(pool, alice) == before


# Deleting, restoring, purging.


async def test_a_deletion_comes_back_whole_and_without_what_was_deleted_before(
    pool: Pool, alice: int
) -> None:
    for path in ("/a/1", "/a/b/2", "/a/b/c/3", "/a/old", "/a/oldfolder/x", "/ab"):
        await put(pool, alice, path)
    await create_folder(pool, user_id=alice, path="/a/empty")
    await delete_file(pool, user_id=alice, path="/a/old")
    await delete_folder(pool, user_id=alice, path="/a/oldfolder")
    before = await tree(pool, alice)
    assert await delete_folder(pool, user_id=alice, path="/a") == 7
    assert await tree(pool, alice) == ["/ab"]
    assert await delete_folder(pool, user_id=alice, path="/a") == 0
    await restore_folder(pool, user_id=alice, path="/a")
    assert await tree(pool, alice) == before
    await restore_folder(pool, user_id=alice, path="/a/oldfolder")
    await restore_file(pool, user_id=alice, path="/a/old")
    assert {"/a/old", "/a/oldfolder/", "/a/oldfolder/x"} <= {*await tree(pool, alice)}
    await assert_sound(pool)
    for path in ("/a", "/nowhere", "/ab"):
        with pytest.raises(NotFoundError):
            await restore_folder(pool, user_id=alice, path=path)


async def test_a_part_of_a_deletion_comes_back_alone_with_folders_around_it(
    pool: Pool, alice: int
) -> None:
    for path in ("/a/1", "/a/b/2", "/a/b/c/3"):
        await put(pool, alice, path)
    await delete_folder(pool, user_id=alice, path="/a")
    await restore_folder(pool, user_id=alice, path="/a/b/c")
    assert await tree(pool, alice) == ["/a/", "/a/b/", "/a/b/c/", "/a/b/c/3"]
    await restore_file(pool, user_id=alice, path="/a/b/2")
    with pytest.raises(ConflictError, match="a folder is there"):
        await restore_folder(pool, user_id=alice, path="/a")
    await move_folder(pool, user_id=alice, path="/a", to="/new")
    await restore_folder(pool, user_id=alice, path="/a")
    assert await tree(pool, alice) == [
        "/a/", "/a/1", "/a/b/", "/new/", "/new/b/", "/new/b/2", "/new/b/c/", "/new/b/c/3",
    ]  # fmt: skip
    await assert_sound(pool)


async def test_of_two_folders_deleted_at_one_path_the_latest_comes_back_first(
    pool: Pool, alice: int
) -> None:
    for text in ("first", "second"):
        await put(pool, alice, f"/a/{text}")
        await delete_folder(pool, user_id=alice, path="/a")
    await restore_folder(pool, user_id=alice, path="/a")
    assert await tree(pool, alice) == ["/a/", "/a/second"]
    with pytest.raises(ConflictError):
        await restore_folder(pool, user_id=alice, path="/a")
    await move_folder(pool, user_id=alice, path="/a", to="/b")
    await restore_folder(pool, user_id=alice, path="/a")
    assert await tree(pool, alice) == ["/a/", "/a/first", "/b/", "/b/second"]


async def test_a_folder_is_not_restored_over_a_file_or_below_one(pool: Pool, alice: int) -> None:
    await put(pool, alice, "/a/b/x")
    await delete_folder(pool, user_id=alice, path="/a")
    await put(pool, alice, "/a")
    with pytest.raises(ConflictError, match="a file is there"):
        await restore_folder(pool, user_id=alice, path="/a")
    with pytest.raises(ConflictError, match="a file"):
        await restore_folder(pool, user_id=alice, path="/a/b")
    assert await tree(pool, alice) == ["/a"]


async def test_what_is_purged_is_gone_with_its_versions_and_nothing_else_is(
    pool: Pool, alice: int, bob: int
) -> None:
    for user_id in (alice, bob):
        for path in ("/a/1", "/a/b/2", "/a/b/3", "/keep/x", "/late/x"):
            await put(pool, user_id, path)
            await put(pool, user_id, path, "again")
        await delete_folder(pool, user_id=user_id, path="/a")
    await stored(
        pool, "UPDATE files SET deleted_at = now() - interval '2 days' WHERE deleted_at IS NOT NULL"
    )
    await stored(
        pool,
        "UPDATE folders SET deleted_at = now() - interval '2 days' WHERE deleted_at IS NOT NULL",
    )
    await delete_folder(pool, user_id=alice, path="/late")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    removed = [
        await purge_deleted(pool, user_id=alice, deleted_before=yesterday, limit=2)
        for _ in range(4)
    ]
    assert removed == [2, 2, 1, 0]
    counts = {
        table: [
            (await stored(pool, f"SELECT count(*) AS n FROM {table} WHERE user_id = $1", one))[0][
                "n"
            ]
            for one in (alice, bob)
        ]
        for table in ("files", "folders", "file_versions")
    }
    assert counts == {"files": [2, 5], "folders": [2, 4], "file_versions": [4, 10]}
    with pytest.raises(NotFoundError):
        await restore_folder(pool, user_id=alice, path="/a")
    await restore_folder(pool, user_id=alice, path="/late")
    await restore_folder(pool, user_id=bob, path="/a")
    await assert_sound(pool)


async def test_a_deletion_that_is_half_purged_comes_back_sound_as_far_as_it_is_there(
    pool: Pool, alice: int
) -> None:
    for path in ("/a/1", "/a/b/2", "/a/b/c/3", "/a/b/c/4"):
        await put(pool, alice, path)
    soon = datetime.now(UTC) + timedelta(days=1)
    for limit in range(1, 8):
        await delete_folder(pool, user_id=alice, path="/a")
        await purge_deleted(pool, user_id=alice, deleted_before=soon, limit=1)
        try:
            await restore_folder(pool, user_id=alice, path="/a")
        except NotFoundError:
            assert limit == 7
        await assert_sound(pool)
    assert await tree(pool, alice) == []


async def test_a_user_who_is_removed_takes_the_whole_vault_along(
    pool: Pool, alice: int, bob: int
) -> None:
    for user_id in (alice, bob):
        file = await put(pool, user_id, "/a/b/x")
        await put(pool, user_id, "/a/gone/x")
        await delete_folder(pool, user_id=user_id, path="/a/gone")
    await stored(pool, "DELETE FROM users WHERE id = $1", alice)
    for table in ("vaults", "folders", "files", "file_versions"):
        rows = await stored(pool, f"SELECT DISTINCT user_id FROM {table}")
        assert [row["user_id"] for row in rows] == [bob]
    assert len((await list_versions(pool, user_id=bob, file_id=file.id)).items) == 1
