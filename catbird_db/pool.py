"""One asyncpg pool: open_pool, transaction, run_transaction.

Every function of this package takes an `Executor` first: a `Pool` (its statement is a
transaction of its own) or a `Connection` (it joins the transaction open there).
"""

# asyncpg is untyped, and Pool and Connection of this module know each other.
# pyright: reportUnknownMemberType=false, reportPrivateUsage=false

import asyncio
import math
import random
import re
import select
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, get_args

import asyncpg

from .config import Settings
from .errors import (
    BAD_URL,
    CONNECT_ERRORS,
    DRIVER_ERRORS,
    ESCAPE_AT,
    InvalidArgumentError,
    PoolTimeoutError,
    QueryError,
    TransactionConflictError,
    raise_translated,
)

__all__ = [
    "Connection",
    "Executor",
    "Observation",
    "Pool",
    "open_pool",
    "run_transaction",
    "transaction",
]

T = TypeVar("T")
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]

PING_TIMEOUT: Final = 5.0
"""Seconds that a connection has to answer before it counts as dead."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that a closing pool waits for the connections that tasks still hold."""

_TCP_OPTIONS: Final = {
    "TCP_KEEPIDLE": 30,  # seconds
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,  # milliseconds
}

_TWO_AT: Final = re.compile(r"[a-z]+://[^/?#]*@[^/?#]*@")

FIRST_RETRY_DELAY: Final = 0.01
LONGEST_RETRY_DELAY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One statement that ran, as told to the observer of a pool.

    Attributes:
        sql: the text that was sent; never its arguments.
        seconds: from sending to the last row.
        failed: PostgreSQL or the connection refused it.
    """

    sql: str
    seconds: float
    failed: bool


def _notice_a_silent_network(own: Any) -> None:
    """A peer that a failed network hides is given up after about a minute, also while it is waited for."""
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):  # as this system calls them
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connection(asyncpg.Connection):  # pyright: ignore[reportMissingTypeArgument]
    """One connection of a `Pool`. Raw SQL goes through asyncpg's own methods."""

    __slots__ = ("_born", "_poll", "_resets", "_returned", "_status")

    def __init__(self, protocol: Any, transport: Any, loop: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, loop, *rest)  # pyright: ignore[reportArgumentType]
        self._born = self._returned = loop.time()
        self._resets = True
        self._status = ""
        own = transport.get_extra_info("socket")
        self._poll = select.poll()
        self._poll.register(own.fileno(), select.POLLIN | select.POLLHUP)
        if own.family != socket.AF_UNIX:
            _notice_a_silent_network(own)

    async def execute(
        self,
        query: str,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> str:
        """As asyncpg's: run a statement, or several without arguments; its status is returned."""
        self._status = await super().execute(query, *args, timeout=timeout)
        return self._status

    def get_reset_query(self) -> str:
        """What asyncpg sends when the connection is given back: nothing after `@query` calls,
        which cannot leave session state."""
        return super().get_reset_query() if self._resets else ""

    def _doubtful(self, now: float, pre_ping: float) -> bool:
        """Idle for long, or the server has said something that nobody asked for (a farewell)."""
        return bool((pre_ping and now - self._returned > pre_ping) or self._poll.poll(0))


class Pool:
    """Connections to one database, for one event loop. Made by `open_pool`, closed by leaving it."""

    __slots__ = ("_asyncpg", "_loop", "_pre_ping", "_recycle", "_size", "_taken", "_timeout")

    def __init__(self, pool: Any, settings: Settings) -> None:
        self._asyncpg = pool
        self._loop = asyncio.get_running_loop()
        self._size = settings.db_pool_max_size
        self._timeout = settings.db_pool_timeout
        self._recycle = settings.db_pool_recycle
        self._pre_ping = settings.db_pool_pre_ping
        self._taken = 0  # taken or waited for

    @property
    def max_size(self) -> int:
        """Connections at most."""
        return self._size

    @property
    def size(self) -> int:
        """Connections open now."""
        return self._asyncpg.get_size()

    @property
    def idle(self) -> int:
        """Connections open and free now."""
        return self._asyncpg.get_idle_size()

    @property
    def waiting(self) -> int:
        """Callers that wait for a connection now."""
        return max(0, self._taken - self._size)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection for raw SQL, reset when it is given back.

        Raises:
            PoolTimeoutError: none became free for DB_POOL_TIMEOUT seconds.
            DatabaseConnectionError: the server cannot be reached.
            DatabaseError: what a driver's exception that leaves the block becomes.
        """
        connection = await self._take(resets=True)
        try:
            with _translated():
                yield connection
        finally:
            await self._give(connection, patience=PING_TIMEOUT)

    async def _call(
        self,
        run: Callable[[Any, tuple[Any, ...]], Awaitable[T]],
        arguments: tuple[Any, ...],
    ) -> T:
        """Run one statement on a free connection.

        Once more where the connection turns out to be closed before the statement was sent.
        """
        connection = await self._take(resets=False)
        try:
            result = await run(connection, arguments)
        except BaseException as error:
            unsent = _was_not_sent(connection, error)
            await self._give(connection, patience=PING_TIMEOUT)
            if not unsent:
                raise
        else:
            if not self._give_at_once(connection):
                await self._give(connection, patience=PING_TIMEOUT)
            return result
        connection = await self._take(resets=False, tried=True)
        try:
            return await run(connection, arguments)
        finally:
            await self._give(connection, patience=PING_TIMEOUT)

    async def _begin(self, isolation: Isolation | None, readonly: bool) -> tuple[Connection, Any]:
        """A connection with a transaction begun on it.

        Once more where the connection turns out to be dead: BEGIN alone has done nothing.
        """
        for last in (False, True):
            connection = await self._take(resets=True, tried=last)
            try:
                begun = connection.transaction(isolation=isolation, readonly=readonly)
                await begun.__aenter__()
            except BaseException as error:
                if not _is_closed(connection):
                    _raw(connection).terminate()
                await self._give(connection, patience=PING_TIMEOUT)
                if isinstance(error, DRIVER_ERRORS) and last:
                    raise_translated(error)
                if not isinstance(error, DRIVER_ERRORS):
                    raise
            else:
                return connection, begun
        raise AssertionError

    async def _take(self, *, resets: bool, tried: bool = False) -> Connection:
        """Take a connection: ``resets`` when it is given back, ``tried`` whatever its age."""
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidArgumentError(
                "this pool belongs to another event loop; open one with open_pool in this loop"
            )
        self._taken += 1
        try:
            if self._taken <= self._size:  # one is free: nothing to wait for but a connect
                connection = await self._take_live(tried)
            else:
                connection = await self._take_in_time(tried)
        except BaseException as error:
            self._taken -= 1
            if isinstance(error, CONNECT_ERRORS):
                raise_translated(error, connecting=True)
            if isinstance(error, ValueError | OverflowError):  # asyncpg quotes the URL
                raise InvalidArgumentError(BAD_URL) from None
            raise
        _raw(connection)._resets = resets  # now: a dead connection has left its proxy by release
        return connection

    async def _take_in_time(self, tried: bool) -> Connection:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                return await self._take_live(tried)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PoolTimeoutError(
                f"all {self._size} connections (DB_POOL_MAX_SIZE) stayed busy for "
                f"{self._timeout:g} s (DB_POOL_TIMEOUT)"
            ) from None

    async def _take_live(self, tried: bool) -> Connection:
        """A connection that is neither too old nor known to be dead."""
        while True:
            connection = cast(Connection, await self._asyncpg.acquire())
            raw, now = _raw(connection), self._loop.time()
            try:
                if self._recycle and now - raw._born > self._recycle:
                    await raw.close(timeout=PING_TIMEOUT)  # and asyncpg takes it from the pool
                elif not (tried or raw._doubtful(now, self._pre_ping)) or await _answers(raw):
                    return connection
            except CONNECT_ERRORS:
                raw.terminate()
            except BaseException:
                raw.terminate()
                raise

    def _give_at_once(self, connection: Connection) -> bool:
        """Give back a connection that is in order, as asyncpg's release would in a task of its own.

        That task costs more than all else that this package does for a call. False where there is
        something to wait for, or to close.
        """
        raw, holder = _raw(connection), cast(Any, connection)._holder
        if not raw or raw.is_closed() or raw._resets:
            return False
        if raw._listeners or raw._log_listeners or raw._query_loggers:
            return False
        protocol = cast(Any, raw._protocol)
        if (
            protocol._is_cancelling()
            or protocol.is_in_transaction()
            or protocol.queries_count >= holder._max_queries
            or holder._generation != self._asyncpg._generation
        ):
            return False
        raw._returned = self._loop.time()
        raw._on_release()
        holder._release()
        holder._setup_inactive_callback()
        self._taken -= 1
        return True

    async def _give(self, connection: Connection, *, patience: float) -> None:
        """Give a connection back; it has ``patience`` seconds to end what it does."""
        try:
            if not _is_closed(connection):
                _raw(connection)._returned = self._loop.time()
            await self._asyncpg.release(connection, timeout=patience)
        except CONNECT_ERRORS:
            pass  # it died while being reset: asyncpg has discarded it
        finally:
            self._taken -= 1


Executor: TypeAlias = Pool | Connection
"""What a function runs on: the pool, or a connection in a transaction."""


def _raw(connection: Connection) -> Connection:
    """The connection behind asyncpg's proxy, which takes no attributes; None once it died."""
    return cast(Any, connection)._con


def _is_closed(connection: Connection) -> bool:
    raw = _raw(connection)
    return not raw or raw.is_closed()


def _was_not_sent(connection: Connection, error: BaseException) -> bool:
    """Whether the connection ended before the statement was sent on it."""
    if isinstance(error, asyncpg.InternalClientError) and str(error).startswith("cannot switch"):
        _raw(connection).terminate()  # it had read the server's farewell, and not yet the end
        return True
    return isinstance(error, asyncpg.InterfaceError) and _is_closed(connection)


async def _answers(connection: Connection) -> bool:
    try:
        await connection.execute("SELECT 1", timeout=PING_TIMEOUT)
    except CONNECT_ERRORS:
        connection.terminate()
        return False
    return True


@asynccontextmanager
async def open_pool(
    settings: Settings | None = None,
    *,
    observe: Callable[[Observation], None] | None = None,
) -> AsyncGenerator[Pool]:
    """Open a pool on the DATABASE_URL of ``settings`` (default: the environment's).

    Whatever DATABASE_TYPE says: that is for `open_database`.

    Args:
        settings: where the database is, and the pool's sizes and times.
        observe: told of each statement that ran, for metrics; costs about 2 us a statement.

    Raises:
        InvalidArgumentError: DATABASE_URL is not set or malformed.
        DatabaseConnectionError: the server cannot be reached or refuses the login.
    """
    settings = settings or Settings()
    arguments = _connect_arguments(settings)
    try:
        pool = await asyncpg.create_pool(**arguments, init=_observer(observe))
    except CONNECT_ERRORS as error:
        raise_translated(error, connecting=True)
    except (ValueError, OverflowError):  # asyncpg quotes the URL, password and all
        raise InvalidArgumentError(BAD_URL) from None
    try:
        yield Pool(pool, settings)
    finally:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await pool.close()
        except CONNECT_ERRORS:
            pool.terminate()  # a task still holds a connection


def _connect_arguments(settings: Settings) -> dict[str, Any]:
    url = settings.require_database_url()
    if _TWO_AT.match(url):
        raise InvalidArgumentError(ESCAPE_AT)
    cache = settings.db_statement_cache_size
    server_settings = {"application_name": settings.db_application_name}
    if cache != 0:  # PgBouncer refuses these as start-up parameters
        server_settings |= {
            "jit": "off",  # statements are short: compiling one costs more than running it
            "plan_cache_mode": settings.db_plan_cache_mode,
            "statement_timeout": _milliseconds(settings.db_statement_timeout),
            "lock_timeout": _milliseconds(settings.db_lock_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.db_idle_in_transaction_timeout
            ),
        }
    return {
        "dsn": url,
        "min_size": settings.db_pool_min_size,
        "max_size": settings.db_pool_max_size,
        "max_queries": math.inf,  # age alone replaces a connection
        "max_inactive_connection_lifetime": settings.db_pool_idle_timeout,
        "timeout": settings.db_pool_timeout,
        "connection_class": Connection,
        "statement_cache_size": statement_count() + 100 if cache is None else cache,
        "max_cached_statement_lifetime": 0,
        "max_cacheable_statement_size": 0,
        "server_settings": server_settings,
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


_statements: set[str] = set()


def count_statement(label: str) -> None:
    """Told of each statement at import, so that no connection's cache is too small for all."""
    _statements.add(label)


def statement_count() -> int:
    return len(_statements)


def _observer(
    observe: Callable[[Observation], None] | None,
) -> Callable[[Any], Awaitable[None]] | None:
    if observe is None:
        return None

    def tell(record: Any) -> None:
        observe(Observation(record.query, record.elapsed, record.exception is not None))

    async def watch(connection: Any) -> None:
        connection.add_query_logger(tell)

    return watch


@contextmanager
def _translated():
    """What a driver raises in the block leaves it as one of ours."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise_translated(error)


@asynccontextmanager
async def transaction(
    db: Executor, /, *, isolation: Isolation | None = None, readonly: bool = False
) -> AsyncGenerator[Connection]:
    """A transaction: committed when the block is left, rolled back when it raises.

    On a pool it takes a connection for as long as the block lasts; inside a transaction it is a
    savepoint. Pass what it yields to every function that shall be part of it.

    Args:
        db: a pool, or the connection of an outer transaction.
        isolation: the server's default (read committed) unless given; not on a savepoint.
        readonly: PostgreSQL refuses writes; not on a savepoint.

    Raises:
        InvalidArgumentError: isolation or readonly on a savepoint.
        TransactionConflictError: also at commit; use `run_transaction` to try again.
        PoolTimeoutError, DatabaseConnectionError: as for any call.
    """
    if isolation not in (None, *get_args(Isolation)):
        raise InvalidArgumentError(
            f"isolation: {isolation!r} is none; write one of {', '.join(get_args(Isolation))}"
        )
    if isinstance(db, Pool):
        connection, begun = await db._begin(isolation, readonly)
        try:
            with _translated():
                async with AsyncExitStack() as block:
                    block.push_async_exit(begun)
                    yield connection
            _refuse_silent_rollback(connection)
        finally:
            await db._give(connection, patience=PING_TIMEOUT)
        return
    if not isinstance(db, Connection):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"transaction: pass a Pool or its Connection, not {type(db).__name__}")
    if db.is_in_transaction() and (isolation or readonly):
        raise InvalidArgumentError(
            "isolation and readonly belong to the outermost transaction, not to a savepoint"
        )
    outermost = not db.is_in_transaction()
    with _translated():
        async with db.transaction(isolation=isolation, readonly=readonly):
            yield db
    if outermost:
        _refuse_silent_rollback(db)


def _refuse_silent_rollback(connection: Connection) -> None:
    """PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK, and no error."""
    raw = _raw(connection)
    if raw and raw._status == "ROLLBACK":
        raise QueryError(
            "nothing was committed: a statement of this transaction failed, and its error was "
            "caught inside; let it leave the block, or use a savepoint: transaction(tx)"
        )


async def run_transaction(
    db: Executor,
    body: Callable[[Connection], Awaitable[T]],
    /,
    *,
    attempts: int = 5,
    isolation: Isolation | None = None,
    readonly: bool = False,
) -> T:
    """Run ``body`` in a transaction, again from its start where another one was in the way.

    Waits between attempts for a random time, longer each time (10 ms doubling up to 1 s).

    Args:
        db: a pool, or a connection that is in no transaction.
        body: called with the transaction's connection; must not do what cannot be done twice.
        attempts: how often at most, 1 to 100.
        isolation: as for `transaction`.
        readonly: as for `transaction`.

    Raises:
        InvalidArgumentError: inside an outer transaction, which alone could be tried again.
        TransactionConflictError: the last attempt failed too.
    """
    if not 1 <= attempts <= 100:
        raise InvalidArgumentError("attempts: must be 1 to 100")
    if not isinstance(db, Pool) and db.is_in_transaction():
        raise InvalidArgumentError(
            "run_transaction inside a transaction cannot retry it; call it on the pool"
        )
    for attempt in range(attempts):
        try:
            async with transaction(db, isolation=isolation, readonly=readonly) as tx:
                return await body(tx)
        except TransactionConflictError:
            if attempt == attempts - 1:
                raise
        longest = min(LONGEST_RETRY_DELAY, FIRST_RETRY_DELAY * 2**attempt)
        await asyncio.sleep(random.uniform(0, longest))
    raise QueryError("unreachable")
