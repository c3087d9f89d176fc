"""The pool against real servers, real kills and a real network that goes silent."""

import asyncio
import random
import shutil
import socket
import ssl
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

import asyncpg
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from scale import scaled
from small_package import import_package

from catbird_db import (
    DatabaseConnectionError,
    DatabaseError,
    InvalidArgumentError,
    Observation,
    Pool,
    PoolTimeoutError,
    QueryError,
    Settings,
    TransactionConflictError,
    create_conversation,
    get_conversation,
    health_check,
    open_pool,
    transaction,
)
from catbird_db import pool as pool_module
from catbird_db.embedded import EmbeddedServer, start_server
from catbird_db.pool import statement_count


@contextmanager
def temporary_folder() -> Generator[Path]:
    """With a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="cbpool-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


STUBS = """\
@query
async def count_up(db: Executor, /, *, name: str) -> int: ...


@query
async def read_count(db: Executor, /, *, name: str) -> int: ...


@query
async def sleep(db: Executor, /, *, seconds: float) -> None: ...


@query
async def get_pid(db: Executor, /) -> int: ...
"""

SQL = """\
-- name: count_up :value
UPDATE counters AS c SET count = c.count + 1 WHERE c.name = :name RETURNING c.count;

-- name: read_count :value
SELECT c.count FROM counters AS c WHERE c.name = :name;

-- name: sleep :exec
SELECT pg_sleep(:seconds);

-- name: get_pid :value
SELECT pg_backend_pid();
"""

COUNTERS = """
CREATE TABLE counters (name text PRIMARY KEY, count bigint NOT NULL DEFAULT 0);
INSERT INTO counters (name) VALUES ('a'), ('b'), ('c'), ('d')
"""


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return import_package(tmp_path_factory.mktemp("counters"), "counting", "counters", STUBS, SQL)


@pytest.fixture
def admin(catbird_database_url: str) -> Generator[psycopg.Connection[Any]]:
    """A connection outside the event loop: what it does, the loop has not yet seen."""
    with psycopg.connect(catbird_database_url, autocommit=True) as connection:
        connection.execute(COUNTERS)
        yield connection


@pytest.fixture
def settings(catbird_settings: Settings, admin: psycopg.Connection[Any]) -> Settings:
    return catbird_settings


def changed(settings: Settings, **changes: object) -> Settings:
    return Settings(**{**settings.model_dump(), **changes})


def kill_all_others(admin: psycopg.Connection[Any]) -> None:
    """End every other session of the database, and wait until all have said farewell."""
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert admin.execute(kill).rowcount
    while admin.execute(kill).rowcount:
        time.sleep(0.001)


def sessions(admin: psycopg.Connection[Any], condition: str = "true") -> int:
    return admin.execute(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() "  # type: ignore[arg-type]
        f"AND pid <> pg_backend_pid() AND {condition}"
    ).rowcount


async def eventually(condition: Any, within: float = 30) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


# ---- sizes and waiting


async def test_the_pool_opens_its_minimum_and_never_more_than_its_maximum(
    settings: Settings, admin: psycopg.Connection[Any], counters: ModuleType
) -> None:
    async with open_pool(changed(settings, db_pool_min_size=2, db_pool_max_size=4)) as pool:
        assert (pool.size, pool.idle, pool.max_size, pool.waiting) == (2, 2, 4, 0)
        assert sessions(admin) == 2
        calls = [asyncio.create_task(counters.sleep(pool, seconds=0.5)) for _ in range(10)]
        assert await eventually(lambda: sessions(admin, "wait_event = 'PgSleep'") == 4)
        assert (pool.size, pool.idle, pool.waiting) == (4, 0, 6)
        await asyncio.gather(*calls)
        assert (pool.size, pool.idle, pool.waiting) == (4, 4, 0)
        assert sessions(admin) == 4
    assert await eventually(lambda: sessions(admin) == 0)


async def test_an_exhausted_pool_says_so_with_its_limit_and_lends_again(
    settings: Settings, counters: ModuleType
) -> None:
    exhausted = changed(settings, db_pool_max_size=2, db_pool_timeout=1)
    async with open_pool(exhausted) as pool:
        async with pool.connection(), transaction(pool):
            for call in (counters.get_pid(pool), health_of(pool)):
                started = time.monotonic()
                with pytest.raises(PoolTimeoutError) as refused:
                    await asyncio.wait_for(call, 30)
                assert time.monotonic() - started >= 1
                assert str(refused.value) == (
                    "all 2 connections (DB_POOL_MAX_SIZE) stayed busy for 1 s (DB_POOL_TIMEOUT)"
                )
                assert pool.waiting == 0
        await asyncio.gather(*(counters.get_pid(pool) for _ in range(20)))
        assert pool.idle == pool.size == 2


async def health_of(pool: Pool) -> None:
    async with transaction(pool):
        pass


async def test_a_caller_that_is_cancelled_while_it_waits_takes_nothing_with_it(
    settings: Settings, counters: ModuleType
) -> None:
    async with open_pool(changed(settings, db_pool_max_size=1)) as pool:
        async with pool.connection():
            calls = [asyncio.create_task(counters.count_up(pool, name="a")) for _ in range(6)]
            await asyncio.sleep(0.05)
            assert pool.waiting == 6
            for call in calls[::2]:
                call.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert pool.waiting == 3
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, int] * 3
        assert await counters.read_count(pool, name="a") == 3
        assert (pool.idle, pool.waiting) == (1, 0)


async def test_waiting_callers_are_served_in_their_order(
    settings: Settings, counters: ModuleType
) -> None:
    async with open_pool(changed(settings, db_pool_max_size=1)) as pool:
        served: list[int] = []

        async def call(number: int) -> None:
            await counters.get_pid(pool)
            served.append(number)

        async with pool.connection():
            calls = [asyncio.create_task(call(number)) for number in range(20)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*calls)
        assert served == list(range(20))


async def test_another_event_loop_is_told_so(catbird_pool: Pool) -> None:
    told: list[DatabaseError] = []

    async def use_it() -> None:
        for use in (get_conversation(catbird_pool, convo_id="x"), health_of(catbird_pool)):
            try:
                await use
            except InvalidArgumentError as error:
                told.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(use_it()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert {str(error) for error in told} == {
        "this pool belongs to another event loop; open one with open_pool in this loop"
    }
    assert len(told) == 2
    assert await get_conversation(catbird_pool, convo_id="x") is None


async def test_a_closed_pool_says_so(catbird_settings: Settings) -> None:
    async with open_pool(catbird_settings) as pool:
        pass
    for use in (get_conversation(pool, convo_id="x"), health_of(pool)):
        with pytest.raises(DatabaseConnectionError, match="pool is closed"):
            await use
    assert pool.waiting == 0


async def test_closing_does_not_wait_for_ever_for_a_connection_that_a_task_holds(
    settings: Settings, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "CLOSE_TIMEOUT", 0.2)
    held = asyncio.Event()
    ended: list[BaseException] = []

    async def hold(pool: Pool) -> None:
        try:
            async with transaction(pool) as tx:
                held.set()
                await tx.execute("SELECT pg_sleep(60)")
        except DatabaseError as error:
            ended.append(error)

    started = time.monotonic()
    async with open_pool(settings) as pool:
        task = asyncio.create_task(hold(pool))
        await held.wait()
        await asyncio.sleep(0.05)
    assert time.monotonic() - started < 30
    await task
    assert [type(error) for error in ended] == [DatabaseConnectionError]


# ---- server settings


async def test_the_server_has_the_timeouts_and_the_name_of_the_settings(
    settings: Settings,
) -> None:
    async with open_pool(settings) as pool, pool.connection() as connection:
        await connection.execute("SET statement_timeout = 1; RESET ALL")
        assert await show(connection, *SERVER_SETTINGS) == ["30s", "10s", "1min", "catbird-db"]
    others = changed(
        settings,
        db_statement_timeout=1.5,
        db_lock_timeout=0,
        db_idle_in_transaction_timeout=0.25,
        db_application_name="it's mine",
    )
    async with open_pool(others) as pool, pool.connection() as connection:
        assert await show(connection, *SERVER_SETTINGS) == ["1500ms", "0", "250ms", "it's mine"]


SERVER_SETTINGS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "application_name",
)


async def show(connection: Any, *names: str) -> list[str]:
    return [await connection.fetchval(f"SHOW {name}") for name in names]


async def test_a_statement_that_runs_too_long_is_a_query_error(
    settings: Settings, counters: ModuleType
) -> None:
    async with open_pool(changed(settings, db_statement_timeout=0.5)) as pool:
        with pytest.raises(QueryError, match="statement_timeout") as refused:
            await counters.sleep(pool, seconds=30)
        assert refused.value.sqlstate == "57014"
        assert await counters.get_pid(pool)


async def test_a_lock_that_is_not_given_is_a_transaction_conflict(
    settings: Settings, counters: ModuleType
) -> None:
    async with open_pool(changed(settings, db_lock_timeout=0.1)) as pool:
        async with transaction(pool) as tx:
            await counters.count_up(tx, name="a")
            with pytest.raises(TransactionConflictError, match="lock_timeout") as refused:
                await counters.count_up(pool, name="a")
            assert refused.value.sqlstate == "55P03"
        assert await counters.count_up(pool, name="a") == 2


async def test_a_transaction_that_idles_too_long_is_ended_with_its_session(
    settings: Settings, counters: ModuleType
) -> None:
    async def idle(pool: Pool) -> None:
        async with transaction(pool) as tx:
            await counters.count_up(tx, name="a")
            await asyncio.sleep(0.4)
            await counters.count_up(tx, name="a")

    async with open_pool(changed(settings, db_idle_in_transaction_timeout=0.1)) as pool:
        with pytest.raises(DatabaseConnectionError):
            await idle(pool)
        assert await counters.read_count(pool, name="a") == 0


async def test_every_stub_and_a_hundred_more_statements_stay_prepared(settings: Settings) -> None:
    room = statement_count() + 100
    async with open_pool(settings) as pool, pool.connection() as connection:
        for number in range(room):
            await connection.fetchval(f"SELECT {number}, /* {'long' * 5000} */ $1::int", 1)
        assert await prepared(connection) == room


async def test_the_size_of_the_cache_can_be_set(settings: Settings) -> None:
    small = changed(settings, db_statement_cache_size=3)
    async with open_pool(small) as pool, pool.connection() as connection:
        for number in range(10):
            await connection.fetchval(f"SELECT {number}, $1::int", 1)
        assert await prepared(connection) <= 4


async def prepared(connection: Any) -> int:
    """Prepared statements of the session, by a simple query, which is none itself."""
    status = await connection.execute("SELECT FROM pg_prepared_statements")
    return int(status.split()[1])


async def test_for_pgbouncer_nothing_is_prepared_and_no_timeout_is_a_start_up_parameter(
    proxied: "Proxy", counters: ModuleType
) -> None:
    async with open_pool(changed(proxied.settings, db_statement_cache_size=0)) as pool:
        for _ in range(3):
            await counters.count_up(pool, name="a")
        async with pool.connection() as connection:
            assert await prepared(connection) == 0
            assert await show(connection, *SERVER_SETTINGS) == ["0", "0", "0", "catbird-db"]
    assert start_up(proxied.first_words[0]).keys() == {
        *("application_name", "client_encoding", "database", "user")  # all that PgBouncer takes
    }
    async with open_pool(proxied.settings):
        pass
    assert start_up(proxied.first_words[1])["statement_timeout"] == "30000"


def start_up(packet: bytes) -> dict[str, str]:
    """The parameters of a StartupMessage (PostgreSQL protocol, 54.7)."""
    words = packet[8:].decode().rstrip("\0").split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


# ---- ages


async def test_an_old_connection_is_replaced_when_it_is_next_taken(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any]
) -> None:
    async with open_pool(changed(settings, db_pool_recycle=1, db_pool_max_size=1)) as pool:
        first = await counters.get_pid(pool)
        assert await counters.get_pid(pool) == first
        await asyncio.sleep(1.1)
        assert await counters.get_pid(pool) != first
        assert await eventually(lambda: pool.size == sessions(admin) == 1)
    async with open_pool(changed(settings, db_pool_recycle=0, db_pool_max_size=1)) as pool:
        first = await counters.get_pid(pool)
        await asyncio.sleep(0.1)
        assert await counters.get_pid(pool) == first


async def test_idle_connections_above_the_minimum_are_closed(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any]
) -> None:
    async with open_pool(changed(settings, db_pool_idle_timeout=1)) as pool:
        await asyncio.gather(*(counters.sleep(pool, seconds=0.1) for _ in range(5)))
        assert pool.size == 5
        assert await eventually(lambda: pool.size == sessions(admin) == 1)
        await asyncio.sleep(1.1)
        assert pool.size == 1
        await asyncio.gather(*(counters.get_pid(pool) for _ in range(5)))


# ---- connections that die


@pytest.mark.parametrize("size", [1, 3])
async def test_a_call_after_its_idle_connection_was_killed_succeeds_and_writes_once(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any], size: int
) -> None:
    async with open_pool(changed(settings, db_pool_max_size=size)) as pool:
        await asyncio.gather(*(counters.sleep(pool, seconds=0.02) for _ in range(size)))
        for number in range(1, scaled(100, 2000) + 1):
            kill_all_others(admin)
            assert await counters.count_up(pool, name="a") == number
            kill_all_others(admin)
            assert await counters.read_count(pool, name="a") == number
        assert pool.idle == pool.size


async def test_a_transaction_after_its_idle_connection_was_killed_succeeds(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any]
) -> None:
    async with open_pool(settings) as pool:
        for number in range(1, 21):
            kill_all_others(admin)
            async with transaction(pool) as tx:
                await counters.count_up(tx, name="a")
            assert await counters.read_count(pool, name="a") == number


async def test_a_connection_killed_in_a_transaction_is_an_error_and_leaves_nothing(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any]
) -> None:
    async def write_and_die(pool: Pool, *, call_again: bool) -> None:
        async with transaction(pool) as tx:
            await counters.count_up(tx, name="a")
            kill_all_others(admin)
            if call_again:
                await counters.count_up(tx, name="a")

    async with open_pool(settings) as pool:
        for call_again in (True, False) * 5:
            with pytest.raises(DatabaseConnectionError):
                await write_and_die(pool, call_again=call_again)
        assert await counters.read_count(pool, name="a") == 0
        assert await eventually(lambda: pool.idle == pool.size)


async def test_a_statement_that_is_killed_while_it_runs_is_an_error_and_not_run_again(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any]
) -> None:
    async with open_pool(settings) as pool:
        call = asyncio.create_task(counters.sleep(pool, seconds=30))
        assert await eventually(lambda: sessions(admin, "wait_event = 'PgSleep'") == 1)
        kill_all_others(admin)
        with pytest.raises(DatabaseConnectionError) as refused:
            await call
        assert refused.value.sqlstate in ("57P01", "08003")
        assert await counters.get_pid(pool)


async def test_a_server_that_restarts_is_found_again_by_the_next_call() -> None:
    with temporary_folder() as folder:
        server = start_server(folder)
        settings = Settings(database_url=server.url, db_pool_max_size=3, db_pool_timeout=10)
        async with open_pool(settings) as pool:
            async with pool.connection() as connection:
                await connection.execute(COUNTERS)
            ids = await asyncio.gather(*(pid(pool) for _ in range(3)))
            assert len(set(ids)) == 3
            await asyncio.to_thread(server.stop)
            down = await asyncio.gather(*(pid(pool) for _ in range(6)), return_exceptions=True)
            assert {type(error) for error in down} == {DatabaseConnectionError}
            assert (await health_check(pool)).status == "unavailable"
            with await asyncio.to_thread(start_server, folder):
                assert await pid(pool)
                await asyncio.gather(*(pid(pool) for _ in range(6)))
                async with transaction(pool) as tx:
                    assert await tx.fetchval("SELECT count(*) FROM counters") == 4
                assert (pool.idle, pool.waiting) == (pool.size, 0)


async def pid(pool: Pool) -> int:
    async with pool.connection() as connection:
        await asyncio.sleep(0.02)
        return await connection.fetchval("SELECT pg_backend_pid()")


SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL protocol, 54.2.11


@dataclass
class Proxy:
    """A network between a pool and its server; it can go silent, as firewalls make them."""

    settings: Settings
    path: str
    tls: ssl.SSLContext | None = None
    tls_sessions: int = 0

    async def __aenter__(self) -> Self:
        self.first_words: list[bytes] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]
        name = urlsplit(self.settings.require_database_url()).path
        url = f"postgresql://postgres@127.0.0.1:{self.port}{name}?sslmode=disable"
        self.settings = changed(self.settings, database_url=url)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.go_silent()
        for writer in self._writers:
            writer.close()
        self._server.close()

    def go_silent(self) -> None:
        """Lose whatever comes on the connections of now, without a word to either end."""
        for pump in self._pumps:
            pump.cancel()
        self._pumps.clear()

    def say_farewell(self) -> None:
        """Tell each client, as a server does that ends a session, and keep the connection."""
        self.go_silent()
        fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"
        for to_client in self._writers[::2]:
            to_client.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self.path)
        self._writers += [to_client, to_server]
        first = await client.read(65536)
        if first == SSL_REQUEST:
            to_client.write(b"S" if self.tls else b"N")
            if self.tls:
                try:
                    await to_client.start_tls(self.tls)
                except (OSError, asyncio.IncompleteReadError):
                    return
                self.tls_sessions += 1
            first = await client.read(65536)
        self.first_words.append(first)
        to_server.write(first)
        for source, target in ((client, to_server), (server, to_client)):
            self._pumps.append(asyncio.create_task(self._pump(source, target)))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while some := await source.read(65536):
                target.write(some)
        target.close()


@pytest.fixture
async def proxied(settings: Settings, catbird_server: EmbeddedServer) -> AsyncGenerator[Proxy]:
    socket_path = f"{catbird_server.socket_dir}/.s.PGSQL.{catbird_server.port}"
    async with Proxy(settings, socket_path) as proxy:
        yield proxy


async def test_a_connection_that_went_silent_while_it_idled_is_tried_and_replaced(
    proxied: Proxy, counters: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "PING_TIMEOUT", 0.2)
    tried = changed(proxied.settings, db_pool_pre_ping=0.1, db_pool_max_size=2)
    async with open_pool(tried) as pool:
        first = await asyncio.gather(*(pid(pool) for _ in range(2)))
        proxied.go_silent()
        await asyncio.sleep(0.15)
        assert await asyncio.wait_for(counters.count_up(pool, name="a"), 30) == 1
        again = await asyncio.gather(*(pid(pool) for _ in range(2)))
        assert not set(first) & set(again)
        assert pool.idle == pool.size == 2


async def test_a_network_that_fails_is_noticed_while_an_answer_is_waited_for(
    proxied: Proxy,
) -> None:
    async with open_pool(proxied.settings) as pool, pool.connection() as connection:
        own = cast(Any, connection)._transport.get_extra_info("socket")
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


async def test_a_farewell_that_the_loop_has_read_before_the_connection_ended_is_no_error(
    proxied: Proxy, counters: ModuleType
) -> None:
    async with open_pool(proxied.settings) as pool:
        await counters.get_pid(pool)
        proxied.say_farewell()
        await asyncio.sleep(0.05)
        assert await counters.count_up(pool, name="a") == 1
        proxied.say_farewell()
        await asyncio.sleep(0.05)
        async with transaction(pool) as tx:
            assert await counters.count_up(tx, name="a") == 2


async def test_a_statement_that_was_sent_is_not_sent_again_whatever_the_driver_says(
    settings: Settings, counters: ModuleType
) -> None:
    async with open_pool(settings) as pool:
        for error in (
            asyncpg.InternalClientError("unknown error in protocol implementation"),
            asyncpg.InternalClientError("got result for unknown protocol state 5"),
            asyncpg.InterfaceError("anything"),
            asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
            ConnectionResetError(),
            TimeoutError(),
        ):
            written = await counters.read_count(pool, name="a")

            async def write_and_fail(
                connection: Any, _arguments: object, error: Exception = error
            ) -> None:
                await connection.execute("UPDATE counters SET count = count + 1 WHERE name = 'a'")
                raise error

            with pytest.raises(type(error)):
                await pool._call(write_and_fail, ())
            assert await counters.read_count(pool, name="a") == written + 1, error


async def test_a_connection_that_was_just_used_is_not_tried(
    settings: Settings, counters: ModuleType
) -> None:
    seen: list[str] = []
    tell = lambda told: seen.append(told.sql)  # noqa: E731
    async with open_pool(changed(settings, db_pool_pre_ping=1), observe=tell) as pool:
        for _ in range(5):
            await counters.get_pid(pool)
        await asyncio.sleep(1.1)
        await counters.get_pid(pool)
        await asyncio.sleep(0)
    assert [sql for sql in seen if "counters" not in sql] == ["SELECT 1"]


async def test_a_cancelled_call_on_a_connection_that_went_silent_returns_and_frees_its_place(
    proxied: Proxy, counters: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "PING_TIMEOUT", 0.2)
    monkeypatch.setattr(pool_module, "CLOSE_TIMEOUT", 0.2)
    async with open_pool(changed(proxied.settings, db_pool_max_size=1)) as pool:
        await counters.get_pid(pool)
        proxied.go_silent()
        call = asyncio.create_task(counters.get_pid(pool))
        await asyncio.sleep(0.05)
        call.cancel()
        done, _ = await asyncio.wait([call], timeout=20)
        proxied.go_silent()
        assert done == {call}
        assert await asyncio.wait_for(counters.count_up(pool, name="a"), 20) == 1


# ---- calls that are cancelled


async def test_calls_cancelled_at_random_leak_no_connection_setting_transaction_or_lock(
    settings: Settings, counters: ModuleType, admin: psycopg.Connection[Any]
) -> None:
    chance = random.Random(0)
    size, workers, calls = 8, 24, scaled(10_000, 200_000)
    busy = changed(
        settings,
        db_pool_max_size=size,
        db_pool_recycle=0.5,
        db_pool_pre_ping=0.001,
        db_pool_idle_timeout=0.3,
        db_lock_timeout=0,
    )
    outcomes = {"done": 0, "cancelled": 0}

    async def by_stub(pool: Pool) -> None:
        await counters.count_up(pool, name=chance.choice("abcd"))

    async def by_transaction(pool: Pool) -> None:
        async with transaction(pool) as tx:
            await counters.count_up(tx, name=chance.choice("abcd"))
            async with transaction(tx):
                await tx.execute("SELECT pg_advisory_xact_lock(1)")
            await tx.execute("SET work_mem = '5MB'")

    async def by_hand(pool: Pool) -> None:
        async with pool.connection() as connection:
            await connection.execute("SET statement_timeout = '7s'")
            await connection.execute("SET application_name = 'leaked'")
            await connection.execute("SELECT pg_advisory_lock(pg_backend_pid())")
            await connection.execute("LISTEN leaked")
            await connection.execute("BEGIN; SELECT 1")

    async def worker(pool: Pool) -> None:
        while sum(outcomes.values()) < calls:
            way = chance.choices([by_stub, by_transaction, by_hand], [80, 15, 5])[0]
            call = asyncio.create_task(way(pool))
            if chance.random() < 0.4:
                await asyncio.sleep(chance.choice([0, 0, chance.uniform(0, 0.004)]))
                call.cancel()
            await asyncio.wait([call])
            if call.cancelled():
                outcomes["cancelled"] += 1
            else:
                call.result()
                outcomes["done"] += 1

    silence_the_warning_of_open_transactions()
    async with open_pool(busy) as pool:
        await asyncio.gather(*(worker(pool) for _ in range(workers)))
        assert outcomes["cancelled"] > calls / 10
        assert await eventually(lambda: pool.idle == pool.size)
        assert pool.waiting == 0
        async with asyncio.timeout(60), hold_all(pool) as connections:
            assert len(connections) == size
            assert await eventually(lambda: sessions(admin) == size)  # one that is closed leaves
            for connection in connections:
                assert await show(connection, *SERVER_SETTINGS, "work_mem") == [
                    *("30s", "0", "1min", "catbird-db", "4MB")
                ]
                assert (
                    await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0
                )
            assert sessions(admin, "state <> 'idle'") == 0
            locks = "SELECT FROM pg_locks WHERE pid <> pg_backend_pid() AND database IS NOT NULL"
            assert admin.execute(f"{locks} AND locktype = 'advisory'").rowcount == 0
        assert pool.idle == pool.size


def silence_the_warning_of_open_transactions() -> None:
    """asyncpg reports a transaction that was begun by hand and left open when it rolls it back."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


@asynccontextmanager
async def hold_all(pool: Pool) -> AsyncGenerator[list[Any]]:
    """All connections of a pool at the same time."""
    contexts = [pool.connection() for _ in range(pool.max_size)]
    yield await asyncio.gather(*(context.__aenter__() for context in contexts))
    for context in contexts:
        await context.__aexit__(None, None, None)


async def test_what_was_set_by_hand_is_reset_before_the_next_call(
    settings: Settings, counters: ModuleType
) -> None:
    async with open_pool(changed(settings, db_pool_max_size=1)) as pool:
        async with pool.connection() as connection:
            await connection.execute("SET work_mem = '5MB'; SELECT pg_advisory_lock(1)")
        await counters.get_pid(pool)
        async with pool.connection() as connection:
            assert await show(connection, "work_mem") == ["4MB"]
            assert (
                await connection.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'")
                == "SELECT 0"
            )


async def test_a_call_of_a_stub_is_one_round_trip_and_a_hand_held_connection_is_reset(
    settings: Settings, counters: ModuleType
) -> None:
    seen: list[Observation] = []
    async with open_pool(settings, observe=seen.append) as pool:
        await counters.get_pid(pool)
        await asyncio.sleep(0)
        assert [told.sql for told in seen] == ["SELECT /* counters.get_pid */ pg_backend_pid()"]
        async with pool.connection():
            pass
        await asyncio.sleep(0)
        assert len(seen) == 2
        assert "RESET ALL" in seen[1].sql


async def test_the_observer_is_told_of_each_statement_its_time_and_its_failure_and_no_argument(
    settings: Settings, counters: ModuleType
) -> None:
    seen: list[Observation] = []
    async with open_pool(settings, observe=seen.append) as pool:
        await counters.sleep(pool, seconds=0.05)
        with pytest.raises(InvalidArgumentError):
            await counters.read_count(pool, name="s3cr3t\0")
        await create_conversation(pool, creator_did="did:plc:s3cr3t")
        await asyncio.gather(*(counters.get_pid(pool) for _ in range(20)))
        await asyncio.sleep(0)
    slept, failed, created, *others = seen
    assert 0.05 <= slept.seconds < 30
    assert [told.failed for told in seen] == [False, True, False, *[False] * 20]
    assert slept.sql == "SELECT /* counters.sleep */ pg_sleep($1)"
    assert "/* counters.read_count */" in failed.sql
    assert "/* chat.conversations.insert_conversation */" in created.sql
    assert "s3cr3t" not in repr(seen)
    assert {told.sql for told in others} == {"SELECT /* counters.get_pid */ pg_backend_pid()"}


# ---- where the pool cannot connect, and TLS

PASSWORD = "pa55%word/s3cr3t"
QUOTED = quote(PASSWORD, safe="")


@pytest.fixture(scope="module")
def guarded() -> Generator[EmbeddedServer]:
    """A server of its own that asks alice for her password and gives her five connections."""
    with start_server() as server, psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE alice LOGIN CONNECTION LIMIT 5 PASSWORD '{PASSWORD}'")  # type: ignore[arg-type]
        connection.execute("CREATE ROLE nobody NOLOGIN")
        hba = server.directory / "data" / "pg_hba.conf"
        hba.write_text(f"local all alice scram-sha-256\n{hba.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
        yield server


def url_of(
    server: EmbeddedServer,
    user: str = "alice",
    password: str = QUOTED,
    database: str = "postgres",
    more: str = "",
) -> str:
    return f"postgresql://{user}:{password}@/{database}?host={server.socket_dir}{more}"


async def refusal_of(url: str, **changes: object) -> DatabaseError:
    """The error of using a pool there, which shows the password nowhere."""

    async def use() -> None:
        async with open_pool(Settings(database_url=url, **changes)) as pool:
            await get_conversation(pool, convo_id="x")

    with pytest.raises(DatabaseError) as refused:
        await use()
    trace = "".join(traceback.format_exception(refused.value))
    assert "s3cr3t" not in trace
    return refused.value


async def test_where_the_server_refuses_or_is_not_there_it_is_a_connection_error(
    guarded: EmbeddedServer,
) -> None:
    for url, sqlstate in [
        (url_of(guarded, password="wr0ng-s3cr3t"), "28P01"),
        (url_of(guarded, user="stranger"), "28000"),
        (url_of(guarded, user="nobody"), "28000"),
        (url_of(guarded, database="nowhere"), "3D000"),
        (f"postgresql://alice:{QUOTED}@127.0.0.1:1/postgres", None),
        (f"postgresql://alice:{QUOTED}@host.invalid/postgres", None),
        (f"postgresql://alice:{QUOTED}@/postgres?host=/nowhere", None),
    ]:
        error = await refusal_of(url)
        assert type(error) is DatabaseConnectionError, url
        assert error.sqlstate == sqlstate, url
    async with open_pool(Settings(database_url=url_of(guarded))) as pool:
        assert await pid(pool)


async def test_a_server_that_does_not_answer_is_a_connection_error_in_time() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        started = time.monotonic()
        url = f"postgresql://alice:{QUOTED}@127.0.0.1:{mute.getsockname()[1]}/postgres"
        error = await refusal_of(url, db_pool_timeout=1)
        assert type(error) is DatabaseConnectionError
        assert 1 <= time.monotonic() - started < 20


async def test_a_server_that_has_no_connection_left_is_a_connection_error(
    guarded: EmbeddedServer,
) -> None:
    full = Settings(database_url=url_of(guarded), db_pool_min_size=0, db_pool_max_size=20)
    async with open_pool(full) as pool:
        ids = await asyncio.gather(*(pid(pool) for _ in range(20)), return_exceptions=True)
        errors = [error for error in ids if isinstance(error, DatabaseError)]
        assert errors
        assert {(type(error), error.sqlstate) for error in errors} == {
            (DatabaseConnectionError, "53300")
        }
        assert len(ids) - len(errors) >= 5
        assert await pid(pool)


MALFORMED = [
    "postgresql://alice:{}@localhost:port/postgres",
    "postgresql://alice:{}@localhost:99999/postgres",
    "postgresql://alice:{}@[::1/postgres",
    "postgresql://alice:{}@localhost/postgres?sslmode=perhaps",
    "postgresql://alice:{}@localhost/postgres?sslmode=verify-full",  # without a sslrootcert
    "mysql://alice:{}@localhost/postgres",
    "alice:{}@localhost/postgres",
    "{}",
]


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("min_size", [1, 0])
async def test_a_malformed_url_is_an_invalid_argument_that_names_the_variable(
    url: str, min_size: int
) -> None:
    error = await refusal_of(url.format(QUOTED), db_pool_min_size=min_size)
    assert type(error) is InvalidArgumentError
    assert str(error).startswith("DATABASE_URL")


async def test_a_parameter_of_the_url_that_the_server_does_not_know_is_named(
    guarded: EmbeddedServer,
) -> None:
    error = await refusal_of(url_of(guarded, more="&nonsense=1"))
    assert "nonsense" in str(error)


@dataclass
class Certificate:
    """Of ``localhost``, signed by itself."""

    pem: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(folder: Path) -> Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem, key = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return Certificate(pem, context)


@pytest.fixture
async def secure(
    catbird_settings: Settings, catbird_server: EmbeddedServer, certificate: Certificate
) -> AsyncGenerator[Proxy]:
    """A server behind TLS. (The embedded PostgreSQL is built without it.)"""
    socket_path = f"{catbird_server.socket_dir}/.s.PGSQL.{catbird_server.port}"
    async with Proxy(catbird_settings, socket_path, certificate.context) as proxy:
        yield proxy


def tls_url(secure: Proxy, mode: str, *, host: str = "localhost", root: Path | None = None) -> str:
    url = secure.settings.require_database_url().partition("?")[0].replace("127.0.0.1", host)
    return f"{url}?sslmode={mode}{f'&sslrootcert={root}' if root else ''}"


async def test_tls_is_used_as_the_sslmode_of_the_url_says(
    secure: Proxy, certificate: Certificate
) -> None:
    for mode, root, used in [
        ("disable", None, 0),
        ("prefer", None, 1),
        ("require", None, 1),
        ("verify-ca", certificate.pem, 1),
        ("verify-full", certificate.pem, 1),
    ]:
        secure.tls_sessions = 0
        url = tls_url(secure, mode, root=root)
        async with open_pool(Settings(database_url=url)) as pool:
            for _ in range(3):
                assert await get_conversation(pool, convo_id="x") is None
            assert pool.size == 1
        assert secure.tls_sessions == used, mode


async def test_a_server_without_the_certificate_that_the_url_asks_for_is_refused(
    secure: Proxy, certificate: Certificate, tmp_path: Path
) -> None:
    another = make_certificate(tmp_path)
    for url in (
        tls_url(secure, "verify-ca", root=another.pem),
        tls_url(secure, "verify-full", root=another.pem),
        tls_url(secure, "verify-full", root=certificate.pem, host="127.0.0.1"),
    ):
        error = await refusal_of(url)
        assert type(error) is DatabaseConnectionError
        assert "certificate" in str(error)
    secure.tls = None
    assert type(await refusal_of(tls_url(secure, "require"))) is DatabaseConnectionError


async def test_an_observer_that_fails_harms_no_call(
    settings: Settings, counters: ModuleType
) -> None:
    failed: list[object] = []

    def fail(_told: Observation) -> None:
        raise ZeroDivisionError

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
    async with open_pool(settings, observe=fail) as pool:
        for number in range(1, 4):
            assert await counters.count_up(pool, name="a") == number
        await asyncio.sleep(0)
    assert [type(error) for error in failed] == [ZeroDivisionError] * 3
