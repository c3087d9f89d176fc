"""What both kinds of store promise, each on the real thing."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

import psutil
import pytest
from seaweed import Seaweed
from storage.faulty import Breaking

from catbird_db import InvalidArgumentError, ObjectStore, Settings, StorageError, open_store
from catbird_db.storage import s3
from catbird_db.storage.folder import folder_of
from catbird_db.storage.s3 import PART

KEY = ".hash/" + "a" * 64 + "/01999999-9999-7999-8999-999999999999"
OTHER = ".hash/" + "b" * 64 + "/01999999-9999-7999-8999-999999999999"
SIZES = [0, 1, 65_537, 2**20, PART, PART + 1, 2 * PART + 12_345]


async def put(store: ObjectStore, key: str, body: bytes) -> None:
    await store.put(key, io.BytesIO(body), len(body))


async def got(store: ObjectStore, key: str, start: int, length: int) -> bytes:
    seen = list[bytes]()
    chunks = store.get(key, start=start, length=length, seen=seen.append)
    given = [chunk async for chunk in chunks]
    assert given == seen
    return b"".join(given)


async def keys(store: ObjectStore) -> dict[str, int]:
    return {entry.key: entry.size async for entry in store.list()}


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_comes_back_whole_and_in_parts(store: ObjectStore, size: int) -> None:
    body = os.urandom(size)
    await put(store, KEY, body)
    assert await store.stat(KEY) == size
    assert await keys(store) == {KEY: size}
    if not size:
        return
    assert await got(store, KEY, 0, size) == body
    middle = size // 2
    for start, length in ((0, 1), (size - 1, 1), (middle, size - middle), (middle, 1)):
        assert await got(store, KEY, start, length) == body[start : start + length]


async def test_what_is_not_there_is_no_error_but_to_read(store: ObjectStore) -> None:
    await put(store, OTHER, b"other")
    assert await store.stat(KEY) is None
    await store.delete(KEY)
    with pytest.raises(FileNotFoundError):
        await got(store, KEY, 0, 1)
    assert await keys(store) == {OTHER: 5}
    await store.delete(OTHER)
    assert await store.stat(OTHER) is None
    assert await keys(store) == {}


async def test_a_list_goes_on_past_a_thousand(store: ObjectStore) -> None:
    expected = {f".hash/{number:064x}/{KEY.rpartition('/')[2]}": 1 for number in range(1_050)}
    await asyncio.gather(*(put(store, key, b"x") for key in expected))
    assert await keys(store) == expected
    await asyncio.gather(*(store.delete(key) for key in expected))
    assert await keys(store) == {}


@pytest.mark.parametrize("size", [100, PART * 2])
async def test_a_write_that_breaks_leaves_nothing_and_what_was_there_stays(
    store: ObjectStore, size: int
) -> None:
    broken = cast(BinaryIO, Breaking(io.BytesIO(bytes(size)), size))
    with pytest.raises(StorageError):
        await store.put(KEY, broken, size)
    assert await keys(store) == {}
    await put(store, KEY, b"whole")
    broken = cast(BinaryIO, Breaking(io.BytesIO(bytes(size)), size))
    with pytest.raises(StorageError):
        await store.put(KEY, broken, size)
    assert await keys(store) == {KEY: 5}
    assert await got(store, KEY, 0, 5) == b"whole"


async def test_writers_and_removers_of_one_key_at_once_leave_it_whole_or_away(
    store: ObjectStore,
) -> None:
    body = os.urandom(100_000)

    async def write() -> None:
        for _ in range(10):
            await put(store, KEY, body)

    async def remove() -> None:
        for _ in range(10):
            await store.delete(KEY)

    await asyncio.gather(write(), remove(), write(), remove())
    assert await store.stat(KEY) in (None, len(body))
    await put(store, KEY, body)
    assert await got(store, KEY, 0, len(body)) == body
    assert await keys(store) == {KEY: len(body)}


async def test_who_stops_reading_holds_nothing(store: ObjectStore) -> None:
    """More readers that leave early than there are connections, and then one that does not."""
    body = os.urandom(9 * 2**20)
    await put(store, KEY, body)
    for _ in range(40):
        chunks = store.get(KEY, start=0, length=len(body), seen=len)
        await anext(chunks)
        await chunks.aclose()
    assert await got(store, KEY, 0, len(body)) == body


async def test_a_cancelled_write_gives_its_thread_back(store_settings: Settings) -> None:
    """Its file is closed under it, as `put_object` does."""
    one = store_settings.model_copy(update={"object_connections": 1})
    async with open_store(one) as store:
        with io.BytesIO(bytes(PART * 8)) as body:
            task = asyncio.create_task(store.put(KEY, body, PART * 8))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
        async with asyncio.timeout(20):
            await put(store, OTHER, b"next")
        await store.delete(KEY)
        await store.delete(OTHER)


async def test_a_store_that_is_closed_is_a_storage_error(store_settings: Settings) -> None:
    """After its block; and for who waits for a turn when it ends."""
    one = store_settings.model_copy(update={"object_connections": 1})
    async with open_store(one) as store:
        body = bytes(PART)
        tasks = [asyncio.create_task(put(store, KEY, body)) for _ in range(3)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[1:]] == [asyncio.CancelledError, StorageError]
    with pytest.raises(StorageError, match="open_store"):
        await store.stat(KEY)
    async with open_store(store_settings) as store:
        await store.delete(KEY)


# A folder.


async def test_a_folder_that_cannot_be_used_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = Settings(object_store="folder", object_folder=f"{tmp_path / 'file'}")
    with pytest.raises(StorageError, match="OBJECT_FOLDER"):
        async with open_store(settings):
            pass


async def test_a_folder_that_is_removed_while_it_is_made_is_made_again(tmp_path: Path) -> None:
    """Whoever deletes an object removes the folder that it leaves empty."""
    settings = Settings(object_store="folder", object_folder=f"{tmp_path}")
    async with open_store(settings) as store, asyncio.TaskGroup() as group:

        async def remove() -> None:
            while True:
                await store.delete(KEY)

        async def write() -> None:
            for _ in range(200):
                await put(store, KEY, b"x")

        removers = [group.create_task(remove()) for _ in range(3)]
        await asyncio.gather(*(write() for _ in range(3)))
        for remover in removers:
            remover.cancel()


async def test_the_default_folder_lies_in_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OBJECT_FOLDER", raising=False)
    monkeypatch.delenv("OBJECT_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", f"{tmp_path}")
    async with open_store() as store:
        await put(store, KEY, b"here")
    assert (tmp_path / "catbird-db" / "objects" / KEY).read_bytes() == b"here"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # to be ignored, as the standard says
    assert folder_of(Settings()) == Path.home() / ".local/share/catbird-db/objects"


async def test_files_that_lie_elsewhere_are_listed_and_folders_are_not(tmp_path: Path) -> None:
    async with open_store(Settings(object_store="folder", object_folder=f"{tmp_path}")) as store:
        await put(store, KEY, b"here")
        (tmp_path / ".hash" / "a" / "b" / "c" / "d").mkdir(parents=True)
        (tmp_path / ".hash" / "a" / "b" / "c" / "deep").write_text("deep")
        (tmp_path / ".hash" / "flat").write_text("flat!")
        (tmp_path / ".hash" / "a" / "nowhere").symlink_to(tmp_path / "not there")
        listed = await keys(store)
    assert listed.pop(".hash/a/nowhere")
    assert listed == {KEY: 4, ".hash/a/b/c/deep": 4, ".hash/flat": 5}


# S3.


@pytest.mark.parametrize("name", ["s3_url", "s3_bucket", "s3_access_key", "s3_secret_key"])
async def test_a_setting_that_s3_needs_is_missed_by_name(name: str) -> None:
    given: dict[str, str | None] = {
        "s3_url": "http://127.0.0.1:1",
        "s3_bucket": "bucket",
        "s3_access_key": "key",
        "s3_secret_key": "s3cr3t",
        name: None,
    }
    with pytest.raises(InvalidArgumentError, match=f"^{name.upper()} is not set"):
        async with open_store(Settings(object_store="s3", **given)):
            pass


async def test_a_bucket_that_is_not_there_or_not_ours_is_a_storage_error(
    s3_server: Seaweed,
) -> None:
    with pytest.raises(StorageError, match="S3_BUCKET"):
        async with open_store(s3_server.settings("nobodys")):
            pass
    wrong = s3_server.settings().model_copy(update={"s3_secret_key": "wr0ng-s3cr3t"})
    with pytest.raises(StorageError) as refused:
        async with open_store(wrong):
            pass
    assert "wr0ng" not in f"{refused.value!r} {refused.value.__cause__!r}"


async def test_nobody_listening_is_a_storage_error_after_some_tries(s3_server: Seaweed) -> None:
    nowhere = s3_server.settings().model_copy(update={"s3_url": "http://127.0.0.1:9"})
    async with asyncio.timeout(30):
        with pytest.raises(StorageError, match="S3"):
            async with open_store(nowhere):
                pass


async def test_a_server_that_asks_to_wait_for_hours_is_waited_for_shortly(
    s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = (
        b"HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(busy)
        writer.close()

    monkeypatch.setattr(s3, "LONGEST_RETRY_AFTER", 0.1)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = s3_server.settings().model_copy(update={"s3_url": url})
        async with asyncio.timeout(10):
            with pytest.raises(StorageError, match="S3"):
                async with open_store(settings):
                    pass


def test_the_server_of_the_tests_dies_with_whoever_started_it() -> None:
    code = "from seaweed import seaweed; import time\nwith seaweed() as s: print(s.folder, flush=True); time.sleep(99)"
    tests = Path(__file__).parents[1]
    user = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tests, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    folder = Path(user.stdout.readline().strip())
    served = [one for one in psutil.process_iter(["cmdline"]) if f"{folder}" in f"{one.info}"]
    assert served
    user.send_signal(signal.SIGKILL)
    user.communicate()
    gone, alive = psutil.wait_procs(served, timeout=20)
    assert gone
    assert not alive
    assert not folder.exists()
