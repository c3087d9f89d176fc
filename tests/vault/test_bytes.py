"""Writers, copiers, restorers and purgers beside collectors: no version ever loses its bytes."""

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chat.actors import stored
from scale import scaled
from trees import assert_sound

from catbird_db import (
    ConflictError,
    NotFoundError,
    ObjectStore,
    Pool,
    Settings,
    collect_garbage,
    copy_file,
    delete_file,
    delete_folder,
    move_folder,
    open_store,
    purge_deleted,
    put_object,
    read_version,
    reconcile,
    record_file,
    restore_file,
    restore_version,
    write_file,
)
from catbird_db.storage.objects import OWNER_KEY

BODIES = [f"body {number}".encode() * 100 for number in range(200)]
"""Few enough to be stored anew while they are collected; enough for their leases to end."""

FAR = datetime(2099, 1, 1, tzinfo=UTC)


async def versions(pool: Pool, user_id: int) -> list[Any]:
    return await stored(
        pool, "SELECT file_id, version, object_hash FROM file_versions WHERE user_id = $1", user_id
    )


async def read(pool: Pool, store: ObjectStore, user_id: int, row: Any) -> bytes:
    chunks = read_version(
        pool, store, user_id=user_id, file_id=row["file_id"], version=row["version"]
    )
    return b"".join([chunk async for chunk in chunks])


async def test_beside_collectors_no_version_loses_its_bytes_and_in_the_end_none_are_left_over(
    pool: Pool, alice: int, tmp_path: Path
) -> None:
    settings = Settings(object_folder=f"{tmp_path}", object_lease=0.1)
    done: Counter[str] = Counter()
    mine = {"user_id": alice}
    began, seconds = time.monotonic(), scaled(5, 300)

    def goes_on() -> bool:
        """For that long, and on a busy machine until everything has happened."""
        passed = time.monotonic() - began
        return passed < seconds or (passed < 60 and {*done} != {*calls, "read"})

    async with open_store(settings) as store:

        def path() -> str:
            return f"/{random.choice('ab')}/{random.randrange(4)}"

        async def restore_some() -> None:
            row = random.choice(await versions(pool, alice))
            await restore_version(pool, **mine, file_id=row["file_id"], version=row["version"])

        async def write_late() -> None:
            content = await put_object(pool, store, body=random.choice(BODIES))
            await asyncio.sleep(random.random() * 0.3)  # its lease may end
            await record_file(pool, **mine, path=path(), stored=content)

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "write": lambda: write_file(
                pool, store, **mine, path=path(), body=random.choice(BODIES)
            ),
            "write late": write_late,
            "copy": lambda: copy_file(pool, **mine, path=path(), to=path(), overwrite=True),
            "restore": restore_some,
            "undelete": lambda: restore_file(pool, **mine, path=path()),
            "delete": lambda: delete_file(pool, **mine, path=path()),
            "delete all": lambda: delete_folder(pool, **mine, path="/a"),
            "move": lambda: move_folder(pool, **mine, path="/b", to="/a", overwrite=True),
            "purge": lambda: purge_deleted(pool, **mine, deleted_before=FAR, limit=5),
            "collect": lambda: collect_garbage(pool, store),
        }
        weights = [4, 6, 5, 3, 1, 3, 1, 1, 4, 4]

        async def user() -> None:
            while goes_on():
                [name] = random.choices([*calls], weights)
                # Errors of the kind that a caller expects: who writes slower than the lease
                # lasts is told so, a copy of oneself is refused, an empty vault has no versions.
                expected = (ConflictError, NotFoundError, ValueError, IndexError)
                with suppress(*(() if name == "collect" else expected)):
                    await calls[name]()
                    done[name] += 1

        async def reader() -> None:
            while goes_on():
                for row in await versions(pool, alice):
                    with suppress(NotFoundError):  # purged meanwhile
                        body = await read(pool, store, alice, row)
                        assert hashlib.sha256(body).hexdigest() == row["object_hash"]
                        done["read"] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(12):
                tasks.create_task(user())
            tasks.create_task(reader())

        assert {*done} == {*calls, "read"}, "part of the attack did not happen"
        await assert_sound(pool)
        for row in await versions(pool, alice):
            body = await read(pool, store, alice, row)
            assert hashlib.sha256(body).hexdigest() == row["object_hash"]

        for folder in ("/a", "/b"):
            await delete_folder(pool, **mine, path=folder)
        while await purge_deleted(pool, **mine, deleted_before=FAR):
            pass
        await asyncio.sleep(0.5)
        await collect_garbage(pool, store)
        assert await stored(pool, "SELECT FROM objects") == []
        await reconcile(pool, store, mend=True)  # an upload may have been slower than its lease
        assert [entry.key async for entry in store.list()] == [OWNER_KEY]
