"""A folder of many descendants moved: one statement, beside a row at a time."""

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from catbird_db import Pool, Settings, lock_vault, move_folder, open_pool, transaction
from catbird_db.embedded import EmbeddedServer

from .tables import create_database, fill_vault

__all__ = ["Moves", "measure_moves"]

USER = 1


@dataclass(frozen=True, slots=True)
class Moves:
    """Seconds for a folder of so many files to move, medians."""

    descendants: int
    one_statement: float
    row_by_row: float

    @property
    def ratio(self) -> float:
        return self.row_by_row / self.one_statement


async def measure_moves(server: EmbeddedServer, descendants: int, *, rounds: int) -> Moves:
    url = await create_database(server, "moves")
    connection = await asyncpg.connect(url)
    ways = {"one_statement": _one_statement, "row_by_row": _row_by_row}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    try:
        await fill_vault(connection, USER, descendants)
        async with open_pool(Settings(database_url=url)) as pool:
            for _ in range(rounds):
                for name, way in ways.items():
                    await connection.execute("VACUUM (ANALYZE)")
                    seconds[name].append(await _timed(pool, way, "/tree", "/moved"))
                    await connection.execute("VACUUM (ANALYZE)")
                    await move_folder(pool, user_id=USER, path="/moved", to="/tree")
    finally:
        await connection.close()
    return Moves(descendants, **{name: statistics.median(times) for name, times in seconds.items()})


async def _timed(
    pool: Pool, way: Callable[[Pool, str, str], Awaitable[None]], path: str, to: str
) -> float:
    start = time.perf_counter()
    await way(pool, path, to)
    return time.perf_counter() - start


async def _one_statement(pool: Pool, path: str, to: str) -> None:
    await move_folder(pool, user_id=USER, path=path, to=to)


async def _row_by_row(pool: Pool, path: str, to: str) -> None:
    """What a loop over the tree does: each row by its id, in the same transaction."""
    async with transaction(pool) as tx:
        await lock_vault(tx, user_id=USER)
        for table in ("folders", "files"):
            rows = await tx.fetch(
                f"SELECT id, path FROM {table} WHERE user_id = $1 AND deleted_at IS NULL", USER
            )
            update = await tx.prepare(
                f"UPDATE {table} SET path = $3 WHERE user_id = $1 AND id = $2"
            )
            for row in rows:
                await update.fetch(USER, row["id"], to + row["path"][len(path) :])
