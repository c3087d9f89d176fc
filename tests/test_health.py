"""What an operator's probe is told of a database that is well, behind, ahead, busy or away."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from catbird_db import Health, Pool, Settings, health_check, open_pool
from catbird_db.embedded import EmbeddedServer
from catbird_db.migrate import apply, migrations_dir, rollback, shipped_migrations


async def test_a_migrated_database_is_ok_with_its_facts(
    catbird_pool: Pool, catbird_server: EmbeddedServer
) -> None:
    health = await health_check(catbird_pool)
    assert (health.status, health.problems) == ("ok", [])
    assert health.applied == shipped_migrations() != []
    assert (health.pending, health.unknown, health.read_only) == ([], [], False)
    assert (health.pool_size, health.pool_idle) == (1, 1)
    assert (health.pool_max, health.pool_waiting) == (10, 0)
    assert health.latency_seconds is not None
    assert 0 < health.latency_seconds < 30
    with psycopg.connect(catbird_server.url) as connection:
        shown = connection.execute("SHOW server_version").fetchone()
    assert shown == (health.server_version,)


async def test_pending_migrations_are_named_until_they_are_applied(
    catbird_pool: Pool, catbird_database_url: str
) -> None:
    last = shipped_migrations()[-1]
    await asyncio.to_thread(rollback, catbird_database_url)
    health = await health_check(catbird_pool)
    assert (health.status, health.pending) == ("degraded", [last])
    assert health.applied == shipped_migrations()[:-1]
    assert [problem.partition(":")[0] for problem in health.problems] == [
        "1 migrations are not applied"
    ]
    await asyncio.to_thread(apply, catbird_database_url)
    assert (await health_check(catbird_pool)).status == "ok"


async def test_migrations_may_be_those_of_the_project_that_asks(catbird_pool: Pool) -> None:
    health = await health_check(catbird_pool, migrations=[*shipped_migrations(), "9999_theirs"])
    assert (health.status, health.pending, health.unknown) == ("degraded", ["9999_theirs"], [])


async def test_migrations_that_may_not_be_read_are_not_told_to_be_pending(
    catbird_pool: Pool, catbird_database_url: str
) -> None:
    role = f"outsider_of_{urlsplit(catbird_database_url).path[1:]}"
    with psycopg.connect(catbird_database_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")  # type: ignore[arg-type]
        try:
            outside = Settings(database_url=catbird_database_url.replace("postgres@", f"{role}@"))
            async with open_pool(outside) as pool:
                health = await health_check(pool)
        finally:
            admin.execute(f"DROP ROLE {role}")  # type: ignore[arg-type]
    assert (health.status, health.pending) == ("degraded", [])
    assert len(health.problems) == 1
    assert "privilege" in health.problems[0]


async def test_an_empty_database_is_degraded_and_all_is_pending(
    catbird_empty_database_url: str,
) -> None:
    async with open_pool(Settings(database_url=catbird_empty_database_url)) as pool:
        health = await health_check(pool)
    assert health.status == "degraded"
    assert (health.applied, health.pending) == ([], shipped_migrations())
    assert health.server_version


async def test_migrations_of_a_newer_version_are_named(
    catbird_pool: Pool, catbird_database_url: str, tmp_path: Path
) -> None:
    newer = tmp_path / "9999_newer.sql"
    newer.write_text("CREATE TABLE newer (id int)")
    for file in migrations_dir().iterdir():
        (tmp_path / file.name).symlink_to(file.resolve())
    await asyncio.to_thread(apply, catbird_database_url, directory=tmp_path)
    health = await health_check(catbird_pool)
    assert (health.status, health.unknown) == ("degraded", ["9999_newer"])
    assert health.problems == ["1 migrations are newer than this version: upgrade it"]


async def test_callers_that_wait_for_a_connection_are_a_problem(
    catbird_settings: Settings,
) -> None:
    small = Settings(**{**catbird_settings.model_dump(), "db_pool_max_size": 1})
    async with open_pool(small) as pool:
        async with pool.connection():
            checks = [asyncio.create_task(health_check(pool)) for _ in range(3)]
            await asyncio.sleep(0.05)
        first, second, third = await asyncio.gather(*checks)
        assert [one.pool_waiting for one in (first, second, third)] == [0, 1, 2]
        assert [one.status for one in (first, second, third)] == ["ok", "degraded", "degraded"]
        assert third.problems == [
            "2 callers wait for a connection: look for slow statements, then raise DB_POOL_MAX_SIZE"
        ]
        assert (await health_check(pool)).status == "ok"


async def test_an_exhausted_pool_is_told_in_time_and_not_raised(
    catbird_settings: Settings,
) -> None:
    busy = {**catbird_settings.model_dump(), "db_pool_max_size": 1, "db_pool_timeout": 1}
    async with open_pool(Settings(**busy)) as pool, pool.connection():
        health = await health_check(pool)
    assert health.status == "unavailable"
    assert health.problems[0].startswith("PoolTimeoutError: all 1 connections")


async def test_a_server_that_is_away_is_unavailable_and_its_password_not_shown() -> None:
    away = Settings(database_url="postgresql://a:s3cr3t@127.0.0.1:1/x", db_pool_min_size=0)
    async with open_pool(away) as pool:
        health = await health_check(pool)
    assert_unavailable(health)
    assert "s3cr3t" not in repr(health)


async def test_a_database_that_goes_away_is_unavailable_until_it_is_back(
    catbird_pool: Pool, catbird_server: EmbeddedServer, catbird_database_url: str
) -> None:
    name = urlsplit(catbird_database_url).path[1:]
    kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(catbird_server.url, autocommit=True) as admin:
        admin.execute(kill, [name])
        admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")  # type: ignore[arg-type]
        assert_unavailable(await health_check(catbird_pool))
        admin.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")  # type: ignore[arg-type]
    assert (await health_check(catbird_pool)).status == "ok"


def assert_unavailable(health: Health) -> None:
    assert health.status == "unavailable"
    assert [problem.partition(":")[0] for problem in health.problems] == ["DatabaseConnectionError"]
    assert (health.server_version, health.latency_seconds, health.read_only) == (None, None, None)
    assert (health.applied, health.pending, health.unknown) == ([], [], [])


async def test_a_closed_pool_is_unavailable(catbird_settings: Settings) -> None:
    async with open_pool(catbird_settings) as pool:
        pass
    assert_unavailable(await health_check(pool))
