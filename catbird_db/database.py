"""open_database: a pool on whichever database DATABASE_TYPE chooses.

It is always a real PostgreSQL, so that what works on one works on all. One that is ours (embedded,
memory) is migrated when it is opened; one that somebody operates is only looked at.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from .config import Settings
from .embedded import EmbeddedServer, start_server, user_data_dir
from .errors import DatabaseConnectionError, QueryError
from .health import applied_migrations
from .migrate import apply, shipped_migrations
from .pool import Observation, Pool, open_pool

__all__ = ["open_database"]

T = TypeVar("T")


@asynccontextmanager
async def open_database(
    settings: Settings | None = None,
    *,
    observe: Callable[[Observation], None] | None = None,
) -> AsyncGenerator[Pool]:
    """Open a pool on the database that DATABASE_TYPE chooses, with the schema of this version.

    ``postgres`` is the server of DATABASE_URL. ``embedded`` is kept in the user's data folder: all
    processes of the user share one server, the first starts it and the last stops it. ``memory`` is
    a server of its own for each call, empty, and deleted with its data at the end of the block; what
    a killed process left behind, the next start deletes. Starting one takes 0.3 to 2 s.

    Args:
        settings: the environment's by default.
        observe: as for `open_pool`.

    Raises:
        InvalidArgumentError: DATABASE_TYPE is unknown, or DATABASE_URL is missing or malformed.
        DatabaseConnectionError: the server cannot be reached, or does not start.
        QueryError: the database is not migrated, or by a newer version than this.
        DestructiveMigrationError: an embedded database has a migration pending that loses data.
    """
    settings = settings or Settings()
    if settings.chosen_type == "postgres":
        async with _open_migrated(settings, observe) as pool:
            yield pool
        return
    directory = user_data_dir() if settings.chosen_type == "embedded" else None
    server = await _to_its_end(lambda: start_server(directory), undo=EmbeddedServer.stop)
    try:
        await _to_its_end(lambda: apply(server.url))
        ours = settings.model_copy(update={"database_url": server.url})
        async with _open_migrated(ours, observe) as pool:
            yield pool
    finally:
        await _to_its_end(server.stop)


@asynccontextmanager
async def _open_migrated(
    settings: Settings, observe: Callable[[Observation], None] | None
) -> AsyncGenerator[Pool]:
    settings.require_database_url()
    opened = False
    try:
        async with open_pool(settings, observe=observe) as pool:
            await _refuse_another_schema(pool)
            opened = True
            yield pool
    except DatabaseConnectionError as error:
        if opened:
            raise
        raise DatabaseConnectionError(
            f"{error}; start the server, or mend DATABASE_URL; "
            "without a server of your own: DATABASE_TYPE=embedded",
            sqlstate=error.sqlstate,
        ) from error


async def _refuse_another_schema(pool: Pool) -> None:
    applied, shipped = await applied_migrations(pool), shipped_migrations()
    if unknown := [one for one in applied if one not in shipped]:
        raise QueryError(
            f"the database is newer than this program, by {', '.join(unknown)}: upgrade catbird-db"
        )
    if pending := [one for one in shipped if one not in applied]:
        raise QueryError(
            f"the database lacks {len(pending)} of {len(shipped)} migrations, {pending[0]} first: "
            "run 'catbird-db migrate'"
        )


async def _to_its_end(work: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> T:
    """Run blocking work in a thread. Who is cancelled meanwhile waits for its end and undoes it."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        if undo and not working.exception():
            undo(working.result())
        raise
