"""Many who write, move, delete and restore at once: no write is lost, no path is two things."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from chat.actors import at_once, stored, until_waiting
from scale import scaled
from trees import add_user, an_object, assert_sound, put, tree

from catbird_db import (
    ConflictError,
    DatabaseConnectionError,
    DatabaseError,
    File,
    InvalidArgumentError,
    NotFoundError,
    Pool,
    TransactionConflictError,
    copy_file,
    create_folder,
    delete_file,
    delete_folder,
    find_file_by_path,
    get_file,
    get_folder,
    list_versions,
    lock_vault,
    move_file,
    move_folder,
    record_file,
    restore_file,
    restore_folder,
    restore_version,
    run_transaction,
    transaction,
)


class Undo(Exception):
    pass


async def versions(pool: Pool, user_id: int, file: File) -> dict[int, str]:
    page = await list_versions(pool, user_id=user_id, file_id=file.id, limit=500)
    return {one.version: one.object_hash for one in page.items}


# Writers of one path.


@pytest.mark.parametrize("there", ["nothing", "a file", "a deleted file"])
async def test_writers_of_one_path_make_one_file_and_a_version_each(
    pool: Pool, alice: int, there: str
) -> None:
    for round_ in range(scaled(6, 200)):
        path = f"/{round_}/deep/down/note.md"
        before = 0
        if there != "nothing":
            before = (await put(pool, alice, path, "before")).version
        if there == "a deleted file":
            await delete_folder(pool, user_id=alice, path=f"/{round_}")
        contents = [await an_object(pool, f"{number}") for number in range(16)]
        files, errors = await at_once(
            record_file(pool, user_id=alice, path=path, stored=one) for one in contents
        )
        assert errors == []
        assert len({file.id for file in files}) == 1
        assert sorted(file.version for file in files) == list(range(before + 1, before + 17))
        kept = await versions(pool, alice, files[0])
        for file, content in zip(files, contents, strict=True):
            assert kept[file.version] == file.object_hash == content.hash
        newest = await find_file_by_path(pool, user_id=alice, path=path)
        assert newest == max(files, key=lambda file: file.version)
    await assert_sound(pool)


async def test_of_writers_who_expect_the_same_content_one_wins(pool: Pool, alice: int) -> None:
    file = await put(pool, alice, "/x", "0")
    for round_ in range(scaled(10, 300)):
        contents = [await an_object(pool, f"{round_} {number}") for number in range(12)]
        files, errors = await at_once(
            record_file(pool, user_id=alice, path="/x", stored=one, if_match=file.object_hash)
            for one in contents
        )
        assert len(files) == 1
        assert {type(error) for error in errors} == {ConflictError}
        file = files[0]
    assert file.version == scaled(10, 300) + 1
    await assert_sound(pool)


async def test_a_version_restored_beside_writers_is_a_version_like_theirs(
    pool: Pool, alice: int
) -> None:
    file = await put(pool, alice, "/x", "0")
    contents = [await an_object(pool, f"{number}") for number in range(1, 9)]
    files, errors = await at_once(
        [
            *(record_file(pool, user_id=alice, path="/x", stored=one) for one in contents),
            *(restore_version(pool, user_id=alice, file_id=file.id, version=1) for _ in range(8)),
        ]
    )
    assert errors == []
    assert sorted(one.version for one in files) == list(range(2, 18))
    await assert_sound(pool)


async def test_a_write_that_rolls_back_leaves_no_gap(pool: Pool, alice: int) -> None:
    contents = [await an_object(pool, f"{number}") for number in range(40)]

    async def write(number: int) -> File | None:
        with suppress(Undo):
            async with transaction(pool) as tx:
                file = await record_file(tx, user_id=alice, path="/x", stored=contents[number])
                if number % 2:
                    raise Undo
                return file
        return None

    await put(pool, alice, "/x")
    files, errors = await at_once(write(number) for number in range(40))
    assert errors == []
    assert sorted(file.version for file in files if file) == list(range(2, 22))
    await assert_sound(pool)


# A write beside a move.


@pytest.mark.parametrize("path", ["/a/new.md", "/a/b/new/new.md", "/a/old.md"])
async def test_a_write_that_a_move_waits_for_lands_inside_the_moved_folder(
    pool: Pool, alice: int, path: str
) -> None:
    await put(pool, alice, "/a/old.md", "old")
    async with transaction(pool) as tx:
        file = await put(pool, alice, path, "new", db=tx)
        moving = asyncio.create_task(move_folder(pool, user_id=alice, path="/a", to="/z"))
        await until_waiting(pool, "lock_vault")
    await moving
    moved = await get_file(pool, user_id=alice, file_id=file.id)
    assert moved is not None and moved.path == path.replace("/a/", "/z/", 1)
    assert [one for one in await tree(pool, alice) if not one.startswith("/z/")] == []
    await assert_sound(pool)


@pytest.mark.parametrize("function", [delete_folder, delete_file])
async def test_a_write_that_a_deletion_waits_for_is_deleted_with_the_rest(
    pool: Pool, alice: int, function: Callable[..., Awaitable[Any]]
) -> None:
    await put(pool, alice, "/a/x", "old")
    path = "/a" if function is delete_folder else "/a/x"
    async with transaction(pool) as tx:
        file = await put(pool, alice, "/a/x", "new", db=tx)
        deleting = asyncio.create_task(function(pool, user_id=alice, path=path))
        await until_waiting(pool, "lock_vault")
    assert await deleting
    assert await find_file_by_path(pool, user_id=alice, path="/a/x") is None
    restored = await restore_file(pool, user_id=alice, path="/a/x")
    assert restored.object_hash == file.object_hash
    await assert_sound(pool)


async def test_a_write_that_waits_for_a_move_is_at_the_path_it_asked_for(
    pool: Pool, alice: int
) -> None:
    old = await put(pool, alice, "/a/x", "old")
    async with transaction(pool) as tx:
        await move_folder(tx, user_id=alice, path="/a", to="/z")
        writing = asyncio.create_task(put(pool, alice, "/a/x", "new"))
        await until_waiting(pool, "lock_vault")
    new = await writing
    assert new.id != old.id and new.version == 1
    moved = await find_file_by_path(pool, user_id=alice, path="/z/x")
    assert moved is not None and (moved.id, moved.version) == (old.id, 1)
    assert await tree(pool, alice) == ["/a/", "/a/x", "/z/", "/z/x"]
    await assert_sound(pool)


async def test_a_write_that_waits_for_another_file_to_move_there_is_a_version_of_that(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/x", "x")
    other = await put(pool, alice, "/y", "y")
    async with transaction(pool) as tx:
        await move_file(tx, user_id=alice, path="/y", to="/x", overwrite=True)
        writing = asyncio.create_task(put(pool, alice, "/x", "new"))
        await until_waiting(pool, "lock_vault")
    new = await writing
    assert (new.id, new.version) == (other.id, 2)
    await assert_sound(pool)


async def test_folders_that_move_into_each_other_make_no_circle_and_lose_nothing(
    pool: Pool, alice: int
) -> None:
    for round_ in range(scaled(10, 200)):
        a, b = f"/a{round_}", f"/b{round_}"
        await put(pool, alice, f"{a}/x")
        await put(pool, alice, f"{b}/x")
        _, errors = await at_once(
            [
                move_folder(pool, user_id=alice, path=a, to=f"{b}/in"),
                move_folder(pool, user_id=alice, path=b, to=f"{a}/in"),
            ]
        )
        assert errors == []
        winner = a if await get_folder(pool, user_id=alice, path=f"{a}/in/in") else b
        assert await tree(pool, alice, winner) == [
            f"{winner}/in/", f"{winner}/in/in/", f"{winner}/in/in/x", f"{winner}/in/x",
        ]  # fmt: skip
    await assert_sound(pool)


# A file and a folder.


async def test_a_file_and_a_folder_never_share_a_path(pool: Pool, alice: int) -> None:
    content = await an_object(pool, "x")
    kinds: Counter[str] = Counter()
    for round_ in range(scaled(25, 500)):
        path = f"/{round_}/x"
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda path=path: record_file(pool, user_id=alice, path=path, stored=content),
            lambda path=path: create_folder(pool, user_id=alice, path=path),
            lambda path=path: record_file(pool, user_id=alice, path=f"{path}/y", stored=content),
            lambda path=path: create_folder(pool, user_id=alice, path=f"{path}/y/z"),
        ]
        random.shuffle(calls)

        async def soon(call: Callable[[], Awaitable[Any]]) -> Any:
            await asyncio.sleep(random.random() * 0.05)  # a file asks once more before it locks
            return await call()

        done, errors = await at_once(soon(call) for call in calls)
        assert {type(error) for error in errors} <= {ConflictError}
        assert done
        file = await find_file_by_path(pool, user_id=alice, path=path)
        folder = await get_folder(pool, user_id=alice, path=path)
        assert (file is None) != (folder is None)
        kinds["file" if file else "folder"] += 1
    await assert_sound(pool)
    assert len(kinds) == 2, "one of them always won: the attack did not happen"


@pytest.mark.parametrize("how", ["moves", "is restored"])
async def test_a_file_is_not_written_where_a_folder_comes_meanwhile(
    pool: Pool, alice: int, how: str
) -> None:
    await put(pool, alice, "/a/x")
    await delete_folder(pool, user_id=alice, path="/a")
    await put(pool, alice, "/b/x")
    async with transaction(pool) as tx:
        if how == "moves":
            await move_folder(tx, user_id=alice, path="/b", to="/a")
        else:
            await restore_folder(tx, user_id=alice, path="/a")
        writing = asyncio.create_task(put(pool, alice, "/a", "file"))
        await until_waiting(pool, "lock_vault")
    with pytest.raises(ConflictError, match="a folder is there"):
        await writing
    await assert_sound(pool)


# Locks.


@pytest.mark.parametrize("path", ["/b", "/a/x"])
async def test_a_transaction_with_an_older_snapshot_is_refused_and_not_misled(
    pool: Pool, alice: int, path: str
) -> None:
    await put(pool, alice, "/a/x")

    async def write_too_late() -> None:
        async with transaction(pool, isolation="repeatable_read") as tx:
            assert await get_folder(tx, user_id=alice, path="/b") is None
            await move_folder(pool, user_id=alice, path="/a", to="/b")
            await put(pool, alice, path, "new", db=tx)

    with pytest.raises(TransactionConflictError):
        await write_too_late()
    assert await tree(pool, alice) == ["/b/", "/b/x"]
    await assert_sound(pool)


async def test_transactions_that_lock_first_never_deadlock(pool: Pool, alice: int) -> None:
    contents = [await an_object(pool, f"{number}") for number in range(12)]
    for path in "abcdef":
        await put(pool, alice, f"/{path}")

    async def write_some(number: int) -> None:
        async with transaction(pool) as tx:
            await lock_vault(tx, user_id=alice)
            for path in random.sample("abcdefghij", 6):
                await record_file(tx, user_id=alice, path=f"/{path}", stored=contents[number])

    for _ in range(scaled(5, 100)):
        _, errors = await at_once(write_some(number) for number in range(12))
        assert errors == []
    await assert_sound(pool)


async def test_a_vault_waits_for_no_other_users(pool: Pool, alice: int, bob: int) -> None:
    async with transaction(pool) as tx, asyncio.timeout(10):
        await create_folder(tx, user_id=alice, path="/a")
        await create_folder(pool, user_id=bob, path="/a")
        await put(pool, bob, "/a/x")
        await move_folder(pool, user_id=bob, path="/a", to="/b")


async def test_writers_of_different_files_do_not_wait_for_each_other(
    pool: Pool, alice: int
) -> None:
    await put(pool, alice, "/a")
    await put(pool, alice, "/b")
    async with transaction(pool) as tx, asyncio.timeout(10):
        await put(pool, alice, "/a", "new", db=tx)
        assert (await put(pool, alice, "/b", "new")).version == 2


async def test_a_move_whose_session_is_killed_has_moved_nothing(pool: Pool, alice: int) -> None:
    for name in "abc":
        await put(pool, alice, f"/a/{name}/x")
    before = await tree(pool, alice)
    async with transaction(pool) as tx:
        await tx.execute("SELECT FROM files WHERE path = '/a/b/x' FOR UPDATE")
        moving = asyncio.create_task(move_folder(pool, user_id=alice, path="/a", to="/new/z"))
        await until_waiting(pool, "move_tree")
        await stored(
            pool,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        with pytest.raises(DatabaseConnectionError):
            await moving
    assert await tree(pool, alice) == before
    await assert_sound(pool)


# All of it at once.

EXPECTED = (ConflictError, NotFoundError, InvalidArgumentError)
PLACES = [f"/{one}{two}" for one in ("a", "b", "c") for two in ("", "/d", "/d/e", "/f")]


class Storm:
    """Random calls on one vault, by many tasks; and what was answered for sure."""

    def __init__(self, pool: Pool, user_id: int, contents: list[Any]) -> None:
        self.pool, self.user_id, self.contents = pool, user_id, contents
        self.written: list[tuple[Any, int, str]] = []
        self.done: Counter[str] = Counter()

    async def step(self) -> None:
        pool, user = self.pool, {"user_id": self.user_id}
        path, to = random.sample(PLACES, 2)
        content = random.choice(self.contents)
        overwrite = random.random() < 0.3
        name, call = random.choice(
            [
                ("write", lambda: self.write(f"{path}/{random.randrange(3)}.md", content)),
                ("write", lambda: self.write(f"{path}/{random.randrange(3)}.md", content)),
                ("write", lambda: self.write(path, content)),
                ("make", lambda: create_folder(pool, **user, path=path)),
                ("move", lambda: move_folder(pool, **user, path=path, to=to, overwrite=overwrite)),
                ("move", lambda: move_folder(pool, **user, path=path, to=to, overwrite=overwrite)),
                ("rename", lambda: move_file(pool, **user, path=f"{path}/0.md", to=f"{to}/0.md", overwrite=overwrite)),
                ("copy", lambda: copy_file(pool, **user, path=f"{path}/1.md", to=f"{to}/1.md", overwrite=overwrite)),
                ("delete", lambda: delete_folder(pool, **user, path=path)),
                ("delete", lambda: delete_file(pool, **user, path=f"{path}/0.md")),
                ("delete", lambda: delete_file(pool, **user, path=path)),  # makes room for folders
                ("delete", lambda: delete_file(pool, **user, path=path)),
                ("restore", lambda: restore_folder(pool, **user, path=path)),
                ("restore", lambda: restore_file(pool, **user, path=f"{path}/0.md")),
                ("several", lambda: run_transaction(pool, self.several)),
            ]
        )  # fmt: skip
        with suppress(*EXPECTED):
            await call()
            self.done[name] += 1

    async def write(self, path: str, content: Any) -> None:
        file = await record_file(self.pool, user_id=self.user_id, path=path, stored=content)
        self.written.append((file.id, file.version, file.object_hash))

    async def several(self, tx: Any) -> None:
        """A caller's transaction of several calls, every other one rolled back."""
        await lock_vault(tx, user_id=self.user_id)
        path, to = random.sample(PLACES, 2)
        with suppress(*EXPECTED):
            await record_file(
                tx, user_id=self.user_id, path=f"{path}/2.md", stored=self.contents[0]
            )
            await move_folder(tx, user_id=self.user_id, path=path, to=to)
        if random.random() < 0.5:
            raise ConflictError("changed its mind")


async def test_in_a_storm_of_changes_no_write_is_lost_and_the_vault_stays_sound(
    pool: Pool,
) -> None:
    contents = [await an_object(pool, f"{number}") for number in range(50)]
    storms = [Storm(pool, await add_user(pool, name), contents) for name in ("one", "two")]
    unexpected: list[DatabaseError] = []
    began, seconds = time.monotonic(), scaled(6, 300)
    deeds = {"write", "make", "move", "rename", "copy", "delete", "restore", "several"}

    def goes_on() -> bool:
        """For that long, and on a busy machine until everything has happened."""
        passed = time.monotonic() - began
        return passed < seconds or (passed < 60 and any({*one.done} != deeds for one in storms))

    async def task(storm: Storm) -> None:
        while goes_on():
            try:
                await storm.step()
            except DatabaseError as error:
                unexpected.append(error)

    async def watcher() -> None:
        while goes_on():
            await assert_sound(pool)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for number in range(24):
            tasks.create_task(task(storms[number % 2]))
        tasks.create_task(watcher())

    assert [f"{type(one).__name__}: {one}" for one in unexpected[:5]] == []
    await assert_sound(pool)
    for storm in storms:
        assert {*storm.done} == deeds, "part of the attack did not happen"
        rows = await stored(
            pool,
            "SELECT file_id, version, object_hash FROM file_versions WHERE user_id = $1",
            storm.user_id,
        )
        kept = {(row["file_id"], row["version"], row["object_hash"]) for row in rows}
        assert [one for one in storm.written if one not in kept] == []
