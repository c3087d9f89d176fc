"""Transactions on a real server: what is kept, what is undone, what is tried again."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, LiteralString

import psycopg
import pytest
from scale import scaled
from small_package import import_package

from catbird_db import (
    ConflictError,
    Connection,
    DatabaseConnectionError,
    DatabaseError,
    InvalidArgumentError,
    Pool,
    QueryError,
    Settings,
    TransactionConflictError,
    open_pool,
    run_transaction,
    transaction,
)
from catbird_db import pool as pool_module

STUBS = """\
class Pot(Row, frozen=True):
    name: str
    coins: int


@query
async def add_coins(db: Executor, /, *, name: str, coins: int) -> None: ...


@query
async def count_coins(db: Executor, /, *, name: str) -> int: ...


@query
async def put_coins(db: Executor, /, *, name: str, coins: int) -> None: ...


@query
async def insert_pot(db: Executor, /, *, name: str) -> None: ...


@query
async def get_pot(db: Executor, /, *, name: str) -> Pot: ...
"""

SQL = """\
-- name: add_coins :exec
UPDATE pots AS p SET coins = p.coins + :coins WHERE p.name = :name;

-- name: count_coins :value
SELECT p.coins FROM pots AS p WHERE p.name = :name;

-- name: put_coins :exec
UPDATE pots AS p SET coins = :coins WHERE p.name = :name;

-- name: insert_pot :exec
INSERT INTO pots (name) VALUES (:name);

-- name: get_pot :one
SELECT p.name, p.coins FROM pots AS p WHERE p.name = :name;
"""

POTS = """
CREATE TABLE pots (name text PRIMARY KEY, coins int NOT NULL DEFAULT 0);
INSERT INTO pots (name) VALUES ('a'), ('b')
"""


@pytest.fixture(scope="module")
def pots(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return import_package(tmp_path_factory.mktemp("pots"), "savings", "pots", STUBS, SQL)


@pytest.fixture
async def pool(catbird_pool: Pool) -> Pool:
    async with catbird_pool.connection() as connection:
        await connection.execute(POTS)
    return catbird_pool


async def coins(pool: Pool) -> dict[str, int]:
    async with pool.connection() as connection:
        rows = await connection.fetch("SELECT p.name, p.coins FROM pots AS p")
    return {row["name"]: row["coins"] for row in rows}


class Regret(Exception):
    """What a caller raises to undo its transaction."""


# ---- commit, rollback, savepoints


async def test_a_block_that_ends_is_kept_and_one_that_raises_is_undone(
    pots: ModuleType, pool: Pool
) -> None:
    async def regret() -> None:
        async with transaction(pool) as tx:
            await pots.add_coins(tx, name="a", coins=100)
            raise Regret

    async with transaction(pool) as tx:
        assert isinstance(tx, Connection)
        await pots.add_coins(tx, name="a", coins=1)
    with pytest.raises(Regret):
        await regret()
    assert await coins(pool) == {"a": 1, "b": 0}


async def test_a_cancelled_transaction_is_undone(pots: ModuleType, pool: Pool) -> None:
    written = asyncio.Event()

    async def write_and_wait() -> None:
        async with transaction(pool) as tx:
            await pots.add_coins(tx, name="a", coins=100)
            written.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write_and_wait())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await coins(pool) == {"a": 0, "b": 0}
    assert pool.idle == pool.size


async def test_a_savepoint_that_raises_is_undone_alone(pots: ModuleType, pool: Pool) -> None:
    async def regret(tx: Connection) -> None:
        async with transaction(tx) as inner:
            assert inner is tx
            await pots.add_coins(inner, name="a", coins=100)
            async with transaction(inner) as innermost:
                await pots.add_coins(innermost, name="a", coins=1000)
            raise Regret

    async with transaction(pool) as tx:
        await pots.add_coins(tx, name="a", coins=1)
        with pytest.raises(Regret):
            await regret(tx)
        with pytest.raises(ConflictError):
            await conflict_in_savepoint(pots, tx)
        await pots.add_coins(tx, name="b", coins=2)
    assert await coins(pool) == {"a": 1, "b": 2}


async def conflict_in_savepoint(pots: ModuleType, tx: Connection) -> None:
    async with transaction(tx):
        await pots.insert_pot(tx, name="a")


async def test_after_an_error_the_transaction_takes_no_more_statements(
    pots: ModuleType, pool: Pool
) -> None:
    async def go_on() -> None:
        async with transaction(pool) as tx:
            await pots.add_coins(tx, name="a", coins=1)
            with pytest.raises(ConflictError):
                await pots.insert_pot(tx, name="a")
            await pots.add_coins(tx, name="b", coins=2)

    with pytest.raises(QueryError) as refused:
        await go_on()
    assert refused.value.sqlstate == "25P02"
    assert await coins(pool) == {"a": 0, "b": 0}


async def test_a_block_that_swallows_a_database_error_is_not_taken_for_committed(
    pots: ModuleType, pool: Pool
) -> None:
    async def swallow(db: Pool | Connection) -> None:
        async with transaction(db) as tx:
            await pots.add_coins(tx, name="a", coins=1)
            with pytest.raises(ConflictError):
                await pots.insert_pot(tx, name="a")

    async def swallow_in_a_savepoint() -> None:
        async with transaction(pool) as tx:
            await swallow(tx)

    async with pool.connection() as connection:
        for call in (swallow(pool), swallow(connection), swallow_in_a_savepoint()):
            with pytest.raises(QueryError):
                await call
    with pytest.raises(QueryError):
        await run_transaction(pool, swallow)
    assert await coins(pool) == {"a": 0, "b": 0}


async def test_savepoints_by_hand_do_not_make_a_commit_look_like_a_rollback(
    pots: ModuleType, pool: Pool
) -> None:
    async with transaction(pool) as tx:
        await pots.add_coins(tx, name="a", coins=1)
        await tx.execute("SAVEPOINT here")
        await pots.add_coins(tx, name="a", coins=100)
        await tx.execute("ROLLBACK TO here")
    assert (await coins(pool))["a"] == 1


async def test_a_connection_of_the_pool_can_begin_a_transaction_of_its_own(
    pots: ModuleType, pool: Pool
) -> None:
    async with pool.connection() as connection:
        async with transaction(connection, isolation="serializable", readonly=True) as tx:
            assert tx is connection
            assert await tx.fetchval("SHOW transaction_isolation") == "serializable"
        assert not connection.is_in_transaction()
        async with transaction(connection) as tx:
            await pots.add_coins(tx, name="a", coins=1)
    assert (await coins(pool))["a"] == 1


# ---- isolation and readonly


@pytest.mark.parametrize("isolation", [None, "read_committed", "repeatable_read", "serializable"])
async def test_a_transaction_has_the_isolation_that_it_asks_for(pool: Pool, isolation: Any) -> None:
    async with transaction(pool, isolation=isolation) as tx:
        shown = await tx.fetchval("SHOW transaction_isolation")
    assert shown == (isolation or "read_committed").replace("_", " ")


async def test_repeatable_read_sees_one_state(pots: ModuleType, pool: Pool) -> None:
    async with transaction(pool, isolation="repeatable_read") as tx:
        assert await pots.count_coins(tx, name="a") == 0
        await pots.add_coins(pool, name="a", coins=1)
        assert await pots.count_coins(tx, name="a") == 0
    async with transaction(pool) as tx:
        assert await pots.count_coins(tx, name="a") == 1
        await pots.add_coins(pool, name="a", coins=1)
        assert await pots.count_coins(tx, name="a") == 2


async def test_a_readonly_transaction_reads_and_writes_nothing(
    pots: ModuleType, pool: Pool
) -> None:
    async def write() -> None:
        async with transaction(pool, readonly=True) as tx:
            assert await pots.count_coins(tx, name="a") == 0
            await pots.add_coins(tx, name="a", coins=1)

    with pytest.raises(QueryError) as refused:
        await write()
    assert refused.value.sqlstate == "25006"
    assert await coins(pool) == {"a": 0, "b": 0}
    await pots.add_coins(pool, name="a", coins=1)  # and the connection is as before


@pytest.mark.parametrize(
    "options", [{"isolation": "serializable"}, {"isolation": "read_committed"}, {"readonly": True}]
)
async def test_isolation_and_readonly_are_refused_on_a_savepoint(
    pots: ModuleType, pool: Pool, options: dict[str, Any]
) -> None:
    async with transaction(pool) as tx:
        with pytest.raises(InvalidArgumentError, match="outermost transaction"):
            async with transaction(tx, **options):
                pass
        await pots.add_coins(tx, name="a", coins=1)
    assert (await coins(pool))["a"] == 1


async def test_an_unknown_isolation_is_refused_and_leaves_nothing(pool: Pool) -> None:
    with pytest.raises(ValueError, match="chaos"):
        async with transaction(pool, isolation="chaos"):  # type: ignore[arg-type]
            pass
    assert pool.idle == pool.size


# ---- one connection, one task


async def test_two_tasks_on_one_connection_are_told_so(pots: ModuleType, pool: Pool) -> None:
    async with pool.connection() as connection:
        both = [pots.count_coins(connection, name="a"), pots.count_coins(connection, name="b")]
        results = await asyncio.gather(*both, return_exceptions=True)
        assert results[0] == 0
        assert type(results[1]) is QueryError
        assert str(results[1]) == (
            "pots.count_coins: this connection is busy with another task's statement; "
            "give each task its own transaction, or pass the pool"
        )
        assert await pots.count_coins(connection, name="a") == 0


async def test_a_connection_that_was_given_back_is_of_no_more_use(
    pots: ModuleType, pool: Pool
) -> None:
    async with transaction(pool) as tx:
        pass
    with pytest.raises(DatabaseError, match="released"):
        await pots.count_coins(tx, name="a")


# ---- run_transaction


async def test_counters_that_collide_under_serializable_lose_no_increment(
    pots: ModuleType, pool: Pool
) -> None:
    tried = 0

    async def increment(tx: Connection) -> int:
        nonlocal tried
        tried += 1
        count = await pots.count_coins(tx, name="a")
        await asyncio.sleep(0)
        await pots.put_coins(tx, name="a", coins=count + 1)
        return count + 1

    async def count(times: int) -> list[int]:
        return [
            await run_transaction(pool, increment, attempts=100, isolation="serializable")
            for _ in range(times)
        ]

    times = scaled(50, 1000)
    seen = await asyncio.gather(*(count(times) for _ in range(4)))
    assert sorted(itertools.chain(*seen)) == list(range(1, 4 * times + 1))
    assert (await coins(pool))["a"] == 4 * times
    assert tried > 4 * times


async def test_a_deadlock_is_tried_again(
    pots: ModuleType, pool: Pool, quick_to_see_deadlocks: Settings
) -> None:
    tried = 0

    def move(source: str, target: str) -> Callable[[Connection], Awaitable[None]]:
        async def body(tx: Connection) -> None:
            nonlocal tried
            await pots.add_coins(tx, name=source, coins=-1)
            tried += 1
            while tried < 2:  # until both hold a lock that the other will want
                await asyncio.sleep(0.001)
            await pots.add_coins(tx, name=target, coins=1)

        return body

    async with open_pool(quick_to_see_deadlocks) as quick:
        await asyncio.gather(
            run_transaction(quick, move("a", "b")), run_transaction(quick, move("b", "a"))
        )
    assert tried == 3
    assert await coins(pool) == {"a": 0, "b": 0}


@pytest.fixture
def quick_to_see_deadlocks(catbird_database_url: str) -> Settings:
    """Whose sessions look for deadlocks after 20 ms; by default it is a second."""
    url = f"{catbird_database_url}&options=-c%20deadlock_timeout%3D20ms"
    return Settings(database_url=url)


async def test_what_is_given_up_is_the_last_conflict(pool: Pool) -> None:
    tried = 0

    async def conflict(tx: Connection) -> None:
        nonlocal tried
        tried += 1
        await tx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    for attempts in (1, 3):
        tried = 0
        with pytest.raises(TransactionConflictError) as given_up:
            await run_transaction(pool, conflict, attempts=attempts)
        assert (tried, given_up.value.sqlstate) == (attempts, "40001")


async def test_attempts_wait_longer_each_time_and_not_all_equally_long(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    async def conflict(_tx: Connection) -> None:
        raise TransactionConflictError("again")

    monkeypatch.setattr(pool_module.asyncio, "sleep", note)
    with pytest.raises(TransactionConflictError):
        await run_transaction(pool, conflict, attempts=100)
    assert len(waited) == 99
    assert all(0 <= seconds <= 0.01 * 2**n for n, seconds in enumerate(waited))
    assert 0.5 < max(waited) <= 1
    assert len(set(waited)) == 99


async def test_other_errors_are_not_tried_again(pots: ModuleType, pool: Pool) -> None:
    tried = 0

    async def fail(tx: Connection) -> None:
        nonlocal tried
        tried += 1
        await pots.insert_pot(tx, name="a")

    async def regret(_tx: Connection) -> None:
        nonlocal tried
        tried += 1
        raise Regret

    async def end_session(tx: Connection) -> None:
        nonlocal tried
        tried += 1
        await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    for body, error in (
        (fail, ConflictError),
        (regret, Regret),
        (end_session, DatabaseConnectionError),
    ):
        tried = 0
        with pytest.raises(error):
            await run_transaction(pool, body)
        assert tried == 1


async def test_inside_an_outer_transaction_it_refuses(pots: ModuleType, pool: Pool) -> None:
    async def body(tx: Connection) -> None:
        raise AssertionError

    async with transaction(pool) as tx:
        with pytest.raises(InvalidArgumentError, match="inside a transaction"):
            await run_transaction(tx, body)
        await pots.add_coins(tx, name="a", coins=1)
    async with pool.connection() as connection:
        await run_transaction(connection, lambda tx: pots.add_coins(tx, name="a", coins=1))
    assert (await coins(pool))["a"] == 2


@pytest.mark.parametrize("attempts", [0, -1, 101])
async def test_the_number_of_attempts_has_bounds(pool: Pool, attempts: int) -> None:
    async def body(tx: Connection) -> None:
        raise AssertionError

    with pytest.raises(InvalidArgumentError, match=r"attempts: must be 1 to 100"):
        await run_transaction(pool, body, attempts=attempts)


async def test_a_conflict_that_shows_at_commit_is_tried_again(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            """
            CREATE SEQUENCE commits;
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('commits') < 3 THEN RAISE SQLSTATE '40001'; END IF;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON pots
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
            """
        )
    tried = 0

    async def insert(tx: Connection) -> int:
        nonlocal tried
        tried += 1
        await tx.execute("INSERT INTO pots (name) VALUES ('c')")
        return tried

    assert await run_transaction(pool, insert) == 3
    assert set(await coins(pool)) == {"a", "b", "c"}


# ---- migrations while the pool is in use

MIGRATIONS: dict[str, LiteralString] = {
    "add a column": "ALTER TABLE pots ADD COLUMN owner text",
    "change a type": "ALTER TABLE pots ALTER COLUMN coins TYPE bigint",
    "change it back": "ALTER TABLE pots ALTER COLUMN coins TYPE int",
    "drop and add a column": (
        "ALTER TABLE pots DROP COLUMN coins; ALTER TABLE pots ADD COLUMN coins int DEFAULT 0"
    ),
}


@pytest.fixture
def migrate(catbird_database_url: str) -> Callable[[str], None]:
    """Run one of MIGRATIONS from outside the pool."""

    def run(migration: str) -> None:
        with psycopg.connect(catbird_database_url, autocommit=True) as connection:
            connection.execute(MIGRATIONS[migration])

    return run


async def use_all_connections(pots: ModuleType, pool: Pool) -> None:
    """Twice, so that every connection has the statements prepared."""

    async def use() -> None:
        async with transaction(pool) as tx:
            await pots.get_pot(tx, name="a")
            await asyncio.sleep(0.01)
            await pots.add_coins(tx, name="a", coins=0)

    for _ in range(2):
        await asyncio.gather(*(use() for _ in range(3)))
    assert pool.size >= 3


@pytest.mark.parametrize("migration", MIGRATIONS)
async def test_the_next_calls_work_after_a_migration(
    pots: ModuleType, pool: Pool, migrate: Callable[[str], None], migration: str
) -> None:
    await use_all_connections(pots, pool)
    migrate(migration)
    for found in await asyncio.gather(*(pots.get_pot(pool, name="a") for _ in range(6))):
        assert found.coins == 0
    await use_all_connections(pots, pool)


async def test_a_transaction_after_a_migration_is_a_conflict_once_and_works_when_run_again(
    pots: ModuleType, pool: Pool, migrate: Callable[[str], None]
) -> None:
    async def write_and_read(tx: Connection) -> int:
        await pots.add_coins(tx, name="a", coins=1)
        return (await pots.get_pot(tx, name="a")).coins

    async def in_a_transaction() -> int:
        async with transaction(pool) as tx:
            return await write_and_read(tx)

    await use_all_connections(pots, pool)
    migrate("change a type")
    with pytest.raises(TransactionConflictError) as conflict:
        await in_a_transaction()
    assert conflict.value.sqlstate == "0A000"
    assert conflict.value.query == "pots.get_pot"
    assert await in_a_transaction() == 1
    migrate("change it back")
    assert await run_transaction(pool, write_and_read) == 2
