"""put_object and open_object beside the minio client called directly, on one SeaweedFS.

The client alone is what any program would call: its put_object and get_object, in threads, as many
as there are tasks, over a pooled HTTP client of that size. It does not check what it reads, as ours
does: reads stand beside the client with SHA-256 of what it read, too.
"""

import asyncio
import hashlib
import io
import itertools
import os
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import urllib3
from minio import Minio

from catbird_db import ObjectStore, Pool, open_object, open_pool, open_store, put_object
from tests.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed, seaweed

from .measure import Measured, Pace, Turn, measure, turn_of

__all__ = ["DIRECT", "HASHING", "KEPT", "TASKS", "Transfer", "measure_objects"]

TASKS = 16
KIB, MIB = 2**10, 2**20
KEPT = 32
"""Objects that are read, in turn."""

DIRECT, HASHING, OURS = "minio client", "minio client and SHA-256", "catbird_db"

Operation: TypeAlias = Literal["put_object", "open_object"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One operation on bodies of one size; the mark is our rate as a part of the client's."""

    operation: Operation
    size: int
    mark: float

    @property
    def title(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        return f"{self.operation}, {size}, {TASKS} tasks"


TRANSFERS = (
    Transfer("put_object", 4 * KIB, 0.4),
    Transfer("put_object", 4 * MIB, 0.85),
    Transfer("open_object", 4 * KIB, 0.85),
    Transfer("open_object", 4 * MIB, 0.85),
)


async def measure_objects(database_url: str, *, quick: bool) -> dict[Transfer, Measured]:
    """Measure all on a server of its own.

    Args:
        database_url: a migrated database.
        quick: a smoke run.
    """
    with seaweed() as server:
        settings = server.settings(database_url=database_url, db_pool_max_size=TASKS)
        async with (
            open_pool(settings) as pool,
            open_store(settings) as store,
            _direct(server) as (direct),
        ):
            return {
                one: await measure(
                    await _turns(one, pool, store, direct),
                    pace=_pace(one, quick=quick),
                    tasks=TASKS,
                    units={},
                    at_first=2 if one.size >= MIB else 10,
                )
                for one in TRANSFERS
            }


def _pace(transfer: Transfer, *, quick: bool) -> Pace:
    if quick:
        return Pace(rounds=2, seconds=0.01, warm_ups=1)
    if transfer.operation == "put_object" and transfer.size >= MIB:
        return Pace(rounds=9, seconds=0.2, warm_ups=1)  # 130 MiB a turn, at the least
    return Pace(rounds=21, seconds=0.25, warm_ups=3)


class _Direct:
    def __init__(self, server: Seaweed, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._client = Minio(
            server.url.partition("://")[2],
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(maxsize=TASKS),
        )

    async def put(self, key: str, body: bytes) -> None:
        await self._run(self._client.put_object, BUCKET, key, io.BytesIO(body), len(body))

    async def get(self, key: str) -> int:
        return len(await self._run(self._read, key))

    async def get_hashing(self, key: str) -> int:
        return await self._run(self._read_and_hash, key)

    def _read_and_hash(self, key: str) -> int:
        body = self._read(key)
        hashlib.sha256(body).hexdigest()
        return len(body)

    def _read(self, key: str) -> bytes:
        response = self._client.get_object(BUCKET, key)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    async def _run(self, request: Any, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, request, *arguments)


@asynccontextmanager
async def _direct(server: Seaweed) -> AsyncGenerator[_Direct]:
    with ThreadPoolExecutor(TASKS) as threads:
        yield _Direct(server, threads)


async def _turns(
    transfer: Transfer, pool: Pool, store: ObjectStore, direct: _Direct
) -> dict[str, Turn]:
    numbers = itertools.count()

    def new_body() -> bytes:
        return os.urandom(16) + bytes(transfer.size - 16)

    if transfer.operation == "put_object":

        async def put_direct(task: int) -> None:
            await direct.put(f"direct/{transfer.size}/{next(numbers)}", new_body())

        async def put_ours(task: int) -> None:
            await put_object(pool, store, body=new_body())

        return {DIRECT: turn_of(put_direct), OURS: turn_of(put_ours)}

    keys = [f"direct/kept/{transfer.size}/{number}" for number in range(KEPT)]
    for key in keys:
        await direct.put(key, new_body())
    hashes = [(await put_object(pool, store, body=new_body())).hash for _ in keys]

    async def get_direct(task: int) -> None:
        assert await direct.get(keys[next(numbers) % KEPT]) == transfer.size

    async def get_hashing(task: int) -> None:
        assert await direct.get_hashing(keys[next(numbers) % KEPT]) == transfer.size

    async def get_ours(task: int) -> None:
        size = 0
        async for chunk in open_object(pool, store, hash=hashes[next(numbers) % KEPT]):
            size += len(chunk)
        assert size == transfer.size

    return {
        DIRECT: turn_of(get_direct),
        HASHING: turn_of(get_hashing),
        OURS: turn_of(get_ours),
    }
