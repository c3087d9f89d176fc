"""Files: written, read, moved, copied, deleted and restored; and each of their versions."""

from collections.abc import AsyncIterator
from contextlib import suppress
from io import BytesIO

import pytest
from chat.actors import stored
from trees import an_object, assert_sound, put, tree

from catbird_db import (
    ConflictError,
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    ObjectStore,
    Pool,
    StoredObject,
    copy_file,
    count_files,
    create_folder,
    delete_file,
    delete_folder,
    find_file_by_path,
    get_file,
    list_canvas_files,
    list_markdown_files,
    list_versions,
    move_file,
    object_reference_count,
    read_file,
    read_version,
    record_file,
    restore_file,
    restore_version,
    transaction,
    vault_size,
    write_file,
)
from catbird_db.storage.objects import OWNER_KEY


class Undo(Exception):
    pass


async def content(pool: Pool, store: ObjectStore, user_id: int, path: str) -> bytes:
    return b"".join([one async for one in read_file(pool, store, user_id=user_id, path=path)])


async def contents(pool: Pool, user_id: int, file_id: object) -> list[tuple[int, str]]:
    """Number and hash of each version, newest first."""
    rows = await stored(
        pool,
        "SELECT version, object_hash FROM file_versions WHERE user_id = $1 AND file_id = $2 ORDER BY 1 DESC",
        user_id,
        file_id,
    )
    return [(row["version"], row["object_hash"]) for row in rows]


# Writing and reading.


async def test_what_is_written_is_read_whole_in_parts_and_in_each_of_its_versions(
    catbird_store: ObjectStore, pool: Pool, alice: int
) -> None:
    bodies = [b"first", b"", b"x" * 3_000_000]
    files = [
        await write_file(pool, catbird_store, user_id=alice, path="/a/note.md", body=body)
        for body in bodies
    ]
    assert [one.version for one in files] == [1, 2, 3]
    assert {one.id for one in files} == {files[0].id}
    assert [one.size for one in files] == [len(body) for body in bodies]
    assert [one.created_at for one in files] == [files[0].created_at] * 3
    assert files[0].updated_at <= files[1].updated_at <= files[2].updated_at
    assert await find_file_by_path(pool, user_id=alice, path="/a/note.md") == files[2]
    assert await get_file(pool, user_id=alice, file_id=files[0].id) == files[2]
    assert await content(pool, catbird_store, alice, "/a/note.md") == bodies[2]
    part = read_file(pool, catbird_store, user_id=alice, path="/a/note.md", start=7, length=9)
    assert b"".join([one async for one in part]) == b"x" * 9
    for version, body in enumerate(bodies, start=1):
        chunks = read_version(
            pool, catbird_store, user_id=alice, file_id=files[0].id, version=version
        )
        assert b"".join([one async for one in chunks]) == body
    chunks = read_version(
        pool, catbird_store, user_id=alice, file_id=files[0].id, version=1, start=1, length=2
    )
    assert b"".join([one async for one in chunks]) == b"ir"
    with pytest.raises(NotFoundError):
        await content(pool, catbird_store, alice, "/a")
    with pytest.raises(NotFoundError):
        await anext(
            read_version(pool, catbird_store, user_id=alice, file_id=files[0].id, version=4)
        )


async def test_a_body_may_come_in_chunks(
    catbird_store: ObjectStore, pool: Pool, alice: int
) -> None:
    async def chunks():  # pyright: ignore
        for one in (b"a", b"", b"bc"):
            yield one

    await write_file(pool, catbird_store, user_id=alice, path="/x", body=chunks())
    assert await content(pool, catbird_store, alice, "/x") == b"abc"


async def test_bytes_that_were_damaged_are_not_served(
    catbird_store: ObjectStore, pool: Pool, alice: int
) -> None:
    await write_file(pool, catbird_store, user_id=alice, path="/x", body=b"right")
    [entry] = [one async for one in catbird_store.list() if one.key != OWNER_KEY]
    await catbird_store.delete(entry.key)
    await catbird_store.put(entry.key, BytesIO(b"wrong"), 5)
    with pytest.raises(IntegrityError):
        await content(pool, catbird_store, alice, "/x")


async def test_a_file_is_of_the_type_that_was_said_or_its_name_says_and_keeps_it(
    pool: Pool, alice: int
) -> None:
    for path, content_type in (
        ("/a.md", "text/markdown"),
        ("/a.MD", "text/markdown"),
        ("/a.canvas", "application/json"),
        ("/a.png", "image/png"),
        ("/a", "application/octet-stream"),
        ("/a.unheard-of", "application/octet-stream"),
    ):
        assert (await put(pool, alice, path)).content_type == content_type
    one = await an_object(pool, "1")
    said = await record_file(pool, user_id=alice, path="/a.md", stored=one, content_type="text/x")
    assert said.content_type == "text/x"
    assert (await put(pool, alice, "/a.md", "2")).content_type == "text/x"
    for nonsense in ("", "text", "text/", "/x", "text/\n", "te xt/x", "a/" + "x" * 300):
        with pytest.raises(InvalidArgumentError, match="content_type"):
            await record_file(pool, user_id=alice, path="/a", stored=one, content_type=nonsense)


async def test_a_write_that_expects_other_content_changes_nothing(pool: Pool, alice: int) -> None:
    one, two, three = [await an_object(pool, text) for text in "123"]
    where = {"user_id": alice, "path": "/a/x"}
    with pytest.raises(ConflictError, match="if_match"):
        await record_file(pool, **where, stored=one, if_match=one.hash)
    assert await tree(pool, alice) == []
    first = await record_file(pool, **where, stored=one)
    second = await record_file(pool, **where, stored=two, if_match=one.hash)
    assert second.version == 2
    for expected in (one.hash, three.hash):
        with pytest.raises(ConflictError, match="if_match"):
            await record_file(pool, **where, stored=three, if_match=expected)
    assert await find_file_by_path(pool, **where) == second
    await delete_file(pool, **where)
    with pytest.raises(ConflictError, match="if_match"):
        await record_file(pool, **where, stored=three, if_match=two.hash)
    assert await contents(pool, alice, first.id) == [(2, two.hash), (1, one.hash)]


async def test_a_reference_joins_the_callers_transaction(pool: Pool, alice: int) -> None:
    one = await an_object(pool, "1")
    with suppress(Undo):
        async with transaction(pool) as tx:
            file = await record_file(tx, user_id=alice, path="/a/x", stored=one)
            assert await get_file(tx, user_id=alice, file_id=file.id) == file
            assert await get_file(pool, user_id=alice, file_id=file.id) is None
            raise Undo
    assert await tree(pool, alice) == []
    async with transaction(pool) as tx:
        await create_folder(tx, user_id=alice, path="/b")
        with pytest.raises(ConflictError):
            await record_file(tx, user_id=alice, path="/b", stored=one)
        await record_file(tx, user_id=alice, path="/b/x", stored=one)  # the transaction goes on
    assert await tree(pool, alice) == ["/b/", "/b/x"]


async def test_what_is_not_stored_is_not_referred_to(pool: Pool, alice: int) -> None:
    unknown = StoredObject(hash="0" * 64, size=1)
    dying = await an_object(pool, "dying")
    await stored(pool, "UPDATE objects SET state = 'deleting'")
    for one in (unknown, dying):
        with pytest.raises(NotFoundError, match="object"):
            await record_file(pool, user_id=alice, path="/a/x", stored=one)
    await put(pool, alice, "/a/x", "good")
    for one in (unknown, dying):
        with pytest.raises(NotFoundError, match="object"):
            await record_file(pool, user_id=alice, path="/a/x", stored=one)
    file = await find_file_by_path(pool, user_id=alice, path="/a/x")
    assert file is not None and file.version == 1


async def test_each_version_of_a_file_keeps_its_object_and_a_purge_lets_go(
    pool: Pool, alice: int
) -> None:
    one, two = await an_object(pool, "1"), await an_object(pool, "2")
    for each in (one, two, one):
        await record_file(pool, user_id=alice, path="/x", stored=each)
    assert await object_reference_count(pool, hash=one.hash) == 3  # two versions, and the file
    assert await object_reference_count(pool, hash=two.hash) == 1
    await delete_file(pool, user_id=alice, path="/x")
    assert await object_reference_count(pool, hash=two.hash) == 1


# Versions.


async def test_an_old_version_comes_back_as_the_newest_and_none_is_lost(
    pool: Pool, alice: int
) -> None:
    files = [await put(pool, alice, "/a/x", text) for text in ("1", "22", "333")]
    file_id = files[0].id
    back = await restore_version(pool, user_id=alice, file_id=file_id, version=2)
    assert (back.version, back.object_hash, back.size) == (4, files[1].object_hash, 2)
    hashes = [one.object_hash for one in (files[1], files[2], files[1], files[0])]
    found, cursor = [], None
    while True:
        page = await list_versions(pool, user_id=alice, file_id=file_id, limit=3, cursor=cursor)
        found += [(one.version, one.object_hash) for one in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert found == list(zip((4, 3, 2, 1), hashes, strict=True))
    for version in (5, 2**62):
        with pytest.raises(NotFoundError):
            await restore_version(pool, user_id=alice, file_id=file_id, version=version)
    await delete_file(pool, user_id=alice, path="/a/x")
    with pytest.raises(NotFoundError):
        await restore_version(pool, user_id=alice, file_id=file_id, version=1)
    assert len((await list_versions(pool, user_id=alice, file_id=file_id)).items) == 4
    await assert_sound(pool)


# Moving and copying.


async def test_a_file_moves_with_its_versions_and_makes_the_folders_it_needs(
    pool: Pool, alice: int
) -> None:
    file = await put(pool, alice, "/a/x", "1")
    await put(pool, alice, "/a/x", "2")
    moved = await move_file(pool, user_id=alice, path="/a/x", to="/b/c/y.md")
    assert (moved.id, moved.version, moved.path) == (file.id, 2, "/b/c/y.md")
    assert await tree(pool, alice) == ["/a/", "/b/", "/b/c/", "/b/c/y.md"]
    assert len((await list_versions(pool, user_id=alice, file_id=file.id)).items) == 2
    assert [one.id for one in (await list_markdown_files(pool, user_id=alice)).items] == [file.id]
    moved = await move_file(pool, user_id=alice, path="/b/c/y.md", to="/y")
    assert moved.folder_id is None
    await assert_sound(pool)


async def test_a_file_moves_over_another_only_when_told_and_never_over_a_folder(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a", "a")
    old = await put(pool, alice, "/b", "b")
    await put(pool, alice, "/folder/x")
    for function in (move_file, copy_file):
        with pytest.raises(ConflictError, match="a file is there"):
            await function(pool, user_id=alice, path="/a", to="/b")
        with pytest.raises(ConflictError, match="a folder is there"):
            await function(pool, user_id=alice, path="/a", to="/folder", overwrite=True)
        with pytest.raises(ConflictError, match="a file has"):
            await function(pool, user_id=alice, path="/a", to="/b/c", overwrite=True)
        with pytest.raises(InvalidArgumentError, match="to: is the file itself"):
            await function(pool, user_id=alice, path="/a", to="a", overwrite=True)
        for missing in ("/nowhere", "/folder"):
            with pytest.raises(NotFoundError):
                await function(pool, user_id=alice, path=missing, to="/c")
    with pytest.raises(ConflictError, match="a file has"):
        await move_file(pool, user_id=alice, path="/a", to="/a/c")
    assert await tree(pool, alice) == ["/a", "/b", "/folder/", "/folder/x"]
    await move_file(pool, user_id=alice, path="/a", to="/b", overwrite=True)
    assert await tree(pool, alice) == ["/b", "/folder/", "/folder/x"]
    await move_file(pool, user_id=alice, path="/b", to="/a")
    assert await restore_file(pool, user_id=alice, path="/b") == old
    await assert_sound(pool)


async def test_a_copy_is_a_file_of_its_own_and_moves_no_bytes(
    catbird_store: ObjectStore, pool: Pool, alice: int
) -> None:
    body = b"bytes"
    first = await write_file(
        pool, catbird_store, user_id=alice, path="/a/x", body=body, content_type="text/x"
    )
    copy = await copy_file(pool, user_id=alice, path="/a/x", to="/b/y.md")
    assert (copy.version, copy.object_hash, copy.content_type) == (1, first.object_hash, "text/x")
    assert copy.id != first.id
    assert len([one async for one in catbird_store.list() if one.key != OWNER_KEY]) == 1
    await write_file(pool, catbird_store, user_id=alice, path="/a/x", body=b"other")
    await delete_file(pool, user_id=alice, path="/a/x")
    assert await content(pool, catbird_store, alice, "/b/y.md") == body
    await put(pool, alice, "/c")
    over = await copy_file(pool, user_id=alice, path="/b/y.md", to="/c", overwrite=True)
    assert (over.version, over.object_hash) == (2, first.object_hash)
    await assert_sound(pool)


# Deleting and restoring.


async def test_a_deleted_file_comes_back_by_name_or_by_a_write_and_keeps_its_versions(
    pool: Pool, alice: int
) -> None:
    where = {"user_id": alice, "path": "/a/x"}
    file = await put(pool, alice, "/a/x", "1")
    assert await delete_file(pool, **where) is True
    assert await delete_file(pool, **where) is False
    assert await find_file_by_path(pool, **where) is None
    assert await get_file(pool, user_id=alice, file_id=file.id) is None
    assert await tree(pool, alice) == ["/a/"]
    assert await restore_file(pool, **where) == file
    with pytest.raises(NotFoundError):
        await restore_file(pool, **where)
    await delete_folder(pool, user_id=alice, path="/a")
    again = await put(pool, alice, "/a/x", "2")
    assert (again.id, again.version) == (file.id, 2)
    assert again.folder_id != file.folder_id
    await delete_file(pool, **where)
    with pytest.raises(NotFoundError):
        await restore_file(pool, user_id=alice, path="/a")
    await assert_sound(pool)


async def test_of_files_deleted_at_one_path_the_latest_comes_back(pool: Pool, alice: int) -> None:
    where = {"user_id": alice, "path": "/x"}
    older = await put(pool, alice, "/x", "older")
    await move_file(pool, user_id=alice, path="/x", to="/y")
    newer = await put(pool, alice, "/x", "newer")
    await delete_file(pool, **where)
    await move_file(pool, user_id=alice, path="/y", to="/x")
    await delete_file(pool, **where)
    assert (await restore_file(pool, **where)).id == older.id
    await move_file(pool, user_id=alice, path="/x", to="/y")
    assert (await put(pool, alice, "/x", "3")).id == newer.id
    await assert_sound(pool)


async def test_a_file_is_not_restored_where_a_folder_is_or_below_a_file(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a/x")
    await delete_folder(pool, user_id=alice, path="/a")
    await create_folder(pool, user_id=alice, path="/a/x")
    with pytest.raises(ConflictError, match="a folder is there"):
        await restore_file(pool, user_id=alice, path="/a/x")
    with pytest.raises(ConflictError, match="a folder is there"):
        await put(pool, alice, "/a/x")
    await delete_folder(pool, user_id=alice, path="/a")
    await put(pool, alice, "/a")
    with pytest.raises(ConflictError, match="a file"):
        await restore_file(pool, user_id=alice, path="/a/x")
    await assert_sound(pool)


# Counting and listing.


async def test_a_vault_counts_lists_and_measures_what_is_there(
    pool: Pool, alice: int, bob: int
) -> None:
    sizes = {"/a.md": "1", "/b/c.MD": "22", "/b/d.canvas": "333", "/e.md.txt": "4444", "/md": "5"}
    for user_id in (alice, bob):
        for path, text in sizes.items():
            await put(pool, user_id, path, "older " * 9)
            await put(pool, user_id, path, text)
        await put(pool, user_id, "/gone.md", "666666")
        await delete_file(pool, user_id=user_id, path="/gone.md")
    await delete_folder(pool, user_id=bob, path="/b")
    assert await count_files(pool, user_id=alice) == 5
    assert await count_files(pool, user_id=bob) == 3
    assert await vault_size(pool, user_id=alice) == 11
    assert await vault_size(pool, user_id=bob) == 6
    assert await vault_size(pool, user_id=2**40) == await count_files(pool, user_id=2**40) == 0

    async def all_of(ask: object, user_id: int) -> list[str]:
        found, cursor = [], None
        while True:
            page = await ask(pool, user_id=user_id, limit=1, cursor=cursor)  # pyright: ignore
            found += [one.path for one in page.items]
            if (cursor := page.next_cursor) is None:
                return found

    assert await all_of(list_markdown_files, alice) == ["/a.md", "/b/c.MD"]
    assert await all_of(list_canvas_files, alice) == ["/b/d.canvas"]
    assert await all_of(list_markdown_files, bob) == ["/a.md"]
    assert await all_of(list_canvas_files, bob) == []


async def test_a_write_that_is_refused_anyway_uploads_nothing(
    pool: Pool, catbird_store: ObjectStore, alice: int
) -> None:
    where = {"user_id": alice, "path": "/x"}
    first = await write_file(pool, catbird_store, **where, body=b"1")

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("it is read")
        yield b""

    for refused in ({"if_match": "0" * 64}, {"path": "/y", "if_match": first.object_hash}):
        with pytest.raises(ConflictError, match="if_match"):
            await write_file(pool, catbird_store, **{**where, **refused}, body=body())
    with pytest.raises(NotFoundError, match="no such user"):
        await write_file(pool, catbird_store, user_id=alice + 999, path="/x", body=body())
    await create_folder(pool, user_id=alice, path="/folder")
    with pytest.raises(ConflictError, match="a folder is there"):
        await write_file(pool, catbird_store, user_id=alice, path="/folder", body=body())
    assert await find_file_by_path(pool, **where) == first

    async def overtaken() -> AsyncIterator[bytes]:
        await write_file(pool, catbird_store, **where, body=b"2")
        yield b"3"

    with pytest.raises(ConflictError, match="if_match"):
        await write_file(pool, catbird_store, **where, body=overtaken(), if_match=first.object_hash)
    last = await find_file_by_path(pool, **where)
    assert last is not None and last.version == 2
