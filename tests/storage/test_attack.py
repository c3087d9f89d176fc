"""Nothing that is referred to is lost, and nothing is left over: processes that write, copy, restore,
delete and collect, whose tasks are cancelled and which are killed, all at once and on few objects."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from scale import scaled

from catbird_db import (
    ObjectStore,
    Pool,
    Settings,
    collect_garbage,
    open_object,
    reconcile,
)
from catbird_db.storage.objects import OWNER_KEY

LEASE = 0.4
TESTS = Path(__file__).parents[1]


async def attacker(url: str, settings: Settings, seconds: float) -> asyncio.subprocess.Process:
    given = {
        name: value
        for name, value in settings.model_dump().items()
        if name.startswith(("object_", "s3_")) and value is not None
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, TESTS / "storage" / "attacker.py", url, json.dumps(given), f"{seconds}"),
        env={**os.environ, "PYTHONPATH": f"{TESTS}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n", await process.communicate()
    return process


async def mortal(url: str, settings: Settings, until: float) -> int:
    """Processes one after another, each killed at a random moment; how many there were."""
    kills = 0
    while time.monotonic() < until:
        process = await attacker(url, settings, 0)
        await asyncio.sleep(random.uniform(0.3, 3))
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        _, says = await process.communicate()
        assert process.returncode == -signal.SIGKILL, says.decode()
        kills += 1
    return kills


async def rows(pool: Pool, sql: str) -> list[Any]:
    async with pool.connection() as connection:
        return await connection.fetch(sql)


async def assert_nothing_is_lost_or_left(pool: Pool, store: ObjectStore) -> None:
    referred = {row["object_hash"] for row in await rows(pool, "SELECT object_hash FROM blobs")}
    for hash in referred:
        assert b"".join([chunk async for chunk in open_object(pool, store, hash=hash)])
    for row in await rows(pool, "SELECT * FROM objects WHERE state = 'stored'"):
        key = f".hash/{row['hash']}/{row['generation']}"
        assert await store.stat(key) == row["size"], "stored, and no bytes"

    await asyncio.sleep(2 * LEASE)
    await collect_garbage(pool, store, limit=100_000)
    found = await reconcile(pool, store, mend=True)
    assert (found.missing, found.damaged, found.unknown) == ([], [], [])
    left = await reconcile(pool, store)
    assert left.strays == []
    objects = await rows(pool, "SELECT * FROM objects")
    assert {row["hash"] for row in objects} == referred
    assert {row["state"] for row in objects} <= {"stored"}
    kept = {entry.key async for entry in store.list() if not entry.key.startswith(OWNER_KEY)}
    assert kept == {f".hash/{row['hash']}/{row['generation']}" for row in objects}
    for hash in referred:
        assert b"".join([chunk async for chunk in open_object(pool, store, hash=hash)])


async def test_nothing_referred_to_is_lost_and_nothing_is_left_over(
    catbird_pool: Pool, catbird_database_url: str, store_settings: Settings, store: ObjectStore
) -> None:
    seconds = scaled(30, 600)
    settings = store_settings.model_copy(update={"object_lease": LEASE})
    until = time.monotonic() + seconds
    lasting = await attacker(catbird_database_url, settings, seconds)
    kills = await mortal(catbird_database_url, settings, until)
    told, says = await lasting.communicate()
    assert lasting.returncode == 0, says.decode()
    done: Counter[str] = Counter(json.loads(told))
    print(kills, done)
    assert kills >= 3
    for deed in ("write", "restore", "copy", "delete", "look", "objects collected"):
        assert done[deed] > 10, f"the attack did not happen: {done}"
    assert done["objects collected late"] > 0
    await assert_nothing_is_lost_or_left(catbird_pool, store)
