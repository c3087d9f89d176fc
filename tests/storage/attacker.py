"""One process of the attack: writers, copiers, restorers, deleters and collectors, until it is killed.

    python attacker.py <database URL> <settings of the store, as JSON> <seconds, or 0: until killed>

Ends with 1, and says why, as soon as a reference leads to no bytes.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from storage.faulty import Faulty

from catbird_db import (
    NotFoundError,
    ObjectStore,
    Pool,
    Settings,
    StorageError,
    StoredObject,
    TransactionConflictError,
    collect_garbage,
    delete_blob,
    open_object,
    open_pool,
    open_store,
    put_object,
    reconcile,
    refer_blob,
    store_blob,
    transaction,
)

DIDS = [f"did:plc:{number}" for number in range(6)]
BODIES = [
    random.Random(number).randbytes(6 * 2**20 if number % 40 == 39 else 100 * 3 ** (number % 7))
    for number in range(160)
]
HOT = 16
"""So many bodies are written at a time; which ones moves on, so that all have quiet times."""

STALL = 2.0
"""Seconds for which a stalled collector sleeps before it deletes: many leases."""

Deed = Callable[[Pool, ObjectStore], Awaitable[None]]
done: Counter[str] = Counter()
remembered: list[StoredObject] = []
"""What was stored some time ago: a restorer refers to it again, if it is still there."""


class Undo(Exception):
    """Leaves a transaction, which rolls back."""


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 5_000):
        yield body[start : start + 5_000]


def body_of_the_moment() -> bytes:
    first = int(time.time() * HOT)
    return BODIES[(first + random.randrange(HOT)) % len(BODIES)]


async def write(pool: Pool, store: ObjectStore) -> None:
    body = body_of_the_moment()
    data = random.choice([body, chunks(body)])
    await store_blob(pool, store, data=data, uploaded_by_did=random.choice(DIDS))


async def write_and_refer_later(pool: Pool, store: ObjectStore) -> None:
    stored = await put_object(pool, store, body=body_of_the_moment())
    remembered.append(stored)
    del remembered[:-20]
    await asyncio.sleep(random.random() * 2 * store.lease)
    with suppress(Undo):
        async with transaction(pool) as tx:
            await refer_blob(tx, stored=stored, uploaded_by_did=random.choice(DIDS))
            await asyncio.sleep(random.random() * 0.05)
            if random.random() < 0.3:
                raise Undo


async def restore(pool: Pool, store: ObjectStore) -> None:
    if remembered:
        stored = random.choice(remembered)
        await refer_blob(pool, stored=stored, uploaded_by_did=random.choice(DIDS))


async def copy(pool: Pool, store: ObjectStore) -> None:
    """A reference made of a reference, which may be deleted at this moment."""
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO blobs (uploaded_by_did, id, cid, size, object_hash)"
            " SELECT $1, gen_random_uuid(), b.cid, b.size, b.object_hash"
            "   FROM blobs AS b ORDER BY random() LIMIT 3 ON CONFLICT DO NOTHING",
            random.choice(DIDS),
        )


async def delete(pool: Pool, store: ObjectStore) -> None:
    async with pool.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM blobs ORDER BY random() LIMIT 1")
    for did in random.sample(DIDS, len(DIDS)) if row else ():
        await delete_blob(pool, cid=row["cid"], uploaded_by_did=did)


async def collect(pool: Pool, store: ObjectStore) -> None:
    done["objects collected"] += (await collect_garbage(pool, store)).objects


async def collect_late(pool: Pool, store: ObjectStore) -> None:
    async def stall() -> None:
        await asyncio.sleep(STALL)

    late = Faulty(store, before_delete=stall)
    done["objects collected late"] += (await collect_garbage(pool, late)).objects


async def reconcile_beside(pool: Pool, store: ObjectStore) -> None:
    """What is being written is no stray, and what is stored is there."""
    found = await reconcile(pool, store, mend=True, verify=True)
    assert (found.missing, found.damaged, found.unknown) == ([], [], []), found
    done["strays removed"] += found.removed


async def look(pool: Pool, store: ObjectStore) -> None:
    """What a reference leads to can be read; unless the reference has gone while it was read."""
    async with pool.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM blobs ORDER BY random() LIMIT 1")
        if row is None:
            return
        try:
            async for _ in open_object(pool, store, hash=row["object_hash"]):
                pass
        except (NotFoundError, StorageError) as error:
            left = await connection.fetchval(
                "SELECT count(*) FROM blobs WHERE uploaded_by_did = $1 AND cid = $2 AND id = $3",
                row["uploaded_by_did"],
                row["cid"],
                row["id"],
            )
            if left:
                raise AssertionError(f"a reference leads nowhere: {error}") from error


DEEDS: list[Deed] = [*[write] * 5, *[write_and_refer_later] * 3, *[restore] * 2, *[copy] * 2]
DEEDS += [*[delete] * 4, *[collect] * 2, collect_late, look, look, reconcile_beside]


async def repeat(deed: Deed, pool: Pool, store: ObjectStore) -> None:
    """Again and again; cancelled at a random moment every now and then."""
    while True:
        faults: Any = random.choices(
            [None, "before", "during", "after", "truncate", "hang"], [20, 1, 1, 1, 1, 1]
        )
        unsteady = Faulty(store, faults if faults[0] else [])
        patience = random.choice([0.05, 0.2, 5.0])
        with suppress(TimeoutError, NotFoundError, StorageError, TransactionConflictError):
            async with asyncio.timeout(patience):
                await deed(pool, unsteady)
                done[deed.__name__] += 1
        await asyncio.sleep(random.random() * 0.02)


async def main(database_url: str, store_settings: dict[str, Any], seconds: float) -> None:
    settings = Settings(database_url=database_url, db_pool_max_size=12, db_statement_timeout=20)
    async with open_pool(settings) as pool, open_store(Settings(**store_settings)) as store:
        print("ready", flush=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds or None), asyncio.TaskGroup() as tasks:
                for deed in DEEDS:
                    tasks.create_task(repeat(deed, pool, store))
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])))
