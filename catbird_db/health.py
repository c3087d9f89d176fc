"""health_check: what an operator asks first."""

import time
from collections.abc import Sequence
from typing import Literal

from .errors import DatabaseError, QueryError
from .migrate import say_newer, shipped_migrations
from .pool import Executor, Pool
from .query import query
from .types import Row

__all__ = ["Health", "health_check"]


class ServerState(Row, frozen=True):
    server_version: str
    in_recovery: bool


class AppliedMigration(Row, frozen=True):
    migration_id: str


class Health(Row, frozen=True):
    """The state of a pool and its database.

    Attributes:
        status: ``ok``; ``degraded`` where it answers, but not all is as it should be (migrations
            pending or unknown, read only, callers waiting for connections); ``unavailable``.
        problems: what is not as it should be, in words; never a value or a password.
        server_version: PostgreSQL's, such as ``18.6``; None where it does not answer.
        latency_seconds: one round trip, the wait for a connection included.
        read_only: the server is a standby.
        pool_size, pool_idle, pool_max, pool_waiting: connections open, free, at most, waited for.
        applied: migrations applied there.
        pending: migrations shipped with this version and not applied there.
        unknown: migrations applied there and not known to this version: it is older.
    """

    status: Literal["ok", "degraded", "unavailable"]
    problems: list[str]
    server_version: str | None
    latency_seconds: float | None
    read_only: bool | None
    pool_size: int
    pool_idle: int
    pool_max: int
    pool_waiting: int
    applied: list[str]
    pending: list[str]
    unknown: list[str]


@query
async def get_server_state(db: Executor, /) -> ServerState: ...


@query
async def list_applied_migrations(db: Executor, /) -> list[AppliedMigration]: ...


async def health_check(pool: Pool, /, *, migrations: Sequence[str] | None = None) -> Health:
    """Ask the database how it is. Never raises for a database that is ill or away.

    Args:
        pool: the pool to ask through.
        migrations: the ids that shall be applied; those shipped with this package unless given.

    Returns:
        `Health`; a probe looks at ``status``.
    """
    problems: list[str] = []
    state: ServerState | None = None
    latency: float | None = None
    applied: list[str] | None = None
    waiting = pool.waiting
    start = time.perf_counter()
    try:
        state = await get_server_state(pool)
        latency = time.perf_counter() - start
        applied = await applied_migrations(pool)
    except DatabaseError as error:
        problems.append(f"{type(error).__name__}: {error}")
    shipped = shipped_migrations() if migrations is None else migrations
    pending = [] if applied is None else [one for one in shipped if one not in applied]
    unknown = [one for one in applied or () if one not in shipped]
    if pending:
        problems.append(f"{len(pending)} migrations are not applied: run 'catbird-db migrate'")
    if unknown:
        problems.append(say_newer(unknown))
    if state and state.in_recovery:
        problems.append("the server is a standby: it takes no writes")
    if waiting:
        do = "look for slow statements, then raise DB_POOL_MAX_SIZE"
        problems.append(f"{waiting} callers wait for a connection: {do}")
    return Health(
        status="unavailable" if state is None else "degraded" if problems else "ok",
        problems=problems,
        server_version=state.server_version if state else None,
        latency_seconds=latency,
        read_only=state.in_recovery if state else None,
        pool_size=pool.size,
        pool_idle=pool.idle,
        pool_max=pool.max_size,
        pool_waiting=waiting,
        applied=applied or [],
        pending=pending,
        unknown=unknown,
    )


async def applied_migrations(pool: Pool) -> list[str]:
    """The ids of the migrations that the database has; none where it never had one."""
    try:
        return [row.migration_id for row in await list_applied_migrations(pool)]
    except QueryError as error:
        if error.sqlstate == "42P01":  # yoyo has never been here
            return []
        raise
