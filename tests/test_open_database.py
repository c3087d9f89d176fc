"""open_database: each kind of database, and everything that may be wrong with it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_embedded import end, eventually, postmaster_of, processes_of, short_folder

from catbird_db import (
    DatabaseConnectionError,
    InvalidArgumentError,
    Pool,
    QueryError,
    Settings,
    create_conversation,
    get_conversation,
    health_check,
    open_database,
)
from catbird_db.embedded import user_data_dir

ROOT = Path(__file__).parent.parent
ALICE = "did:plc:alice"
MEMORY = Settings(database_type="memory")
EMBEDDED = Settings(database_type="embedded")

USER = """
import asyncio, sys, time
from catbird_db import *
async def main():
    async with open_database(Settings(database_type=sys.argv[1])) as pool, pool.connection() as con:
        print(await con.fetchval("SHOW data_directory"), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def nobody_chose_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_TYPE", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's data folder, short and empty."""
    with short_folder() as folder:
        monkeypatch.setenv("XDG_DATA_HOME", str(folder))
        yield folder / "catbird-db"
        assert eventually(lambda: not processes_of(folder))


def run_user(kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, kind], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def data_of(user: subprocess.Popen[str]) -> Path:
    assert user.stdout is not None
    return Path(user.stdout.readline().strip())


async def data_directory(pool: Pool) -> Path:
    async with pool.connection() as connection:
        return Path(await connection.fetchval("SHOW data_directory"))


# memory


async def test_memory_is_migrated_empty_and_gone_at_the_end() -> None:
    async with open_database(MEMORY) as pool, open_database(MEMORY) as other:
        assert (await health_check(pool)).status == "ok"
        conversation = await create_conversation(pool, creator_did=ALICE)
        assert await get_conversation(other, convo_id=conversation.id) is None
        directories = [await data_directory(pool), await data_directory(other)]
        assert all(directory.is_dir() for directory in directories)
    assert not any(directory.parent.exists() for directory in directories)


async def test_memory_starts_in_under_two_seconds() -> None:
    took: list[float] = []
    for _ in range(3):  # the first may have to make what later ones copy; others use this machine
        begun = time.perf_counter()
        async with open_database(MEMORY):
            took.append(time.perf_counter() - begun)
    assert min(took) < 2, took


@pytest.mark.parametrize("damage", ["truncated", "rubbish", "not to be written"])
async def test_memory_starts_though_what_it_would_copy_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if damage == "not to be written":
        (tmp_path / "catbird-db").touch()
    else:
        async with open_database(MEMORY):
            (cached,) = (tmp_path / "catbird-db").iterdir()
        whole = cached.read_bytes()
        cached.write_bytes(b"rubbish" if damage == "rubbish" else whole[: len(whole) // 2])
    async with open_database(MEMORY) as pool:
        assert (await health_check(pool)).status == "ok"
    if damage != "not to be written":
        assert [file.name for file in cached.parent.iterdir()] == [cached.name]
        assert len(cached.read_bytes()) == len(whole)


async def test_memory_is_thrown_away_after_a_kill() -> None:
    user = run_user("memory")
    home = data_of(user).parent
    assert home.is_dir()
    end(user, signal.SIGKILL)
    assert eventually(lambda: not home.exists() and not processes_of(home))


async def test_memory_whose_keeper_was_killed_too_is_cleaned_up_by_the_next_start() -> None:
    user = run_user("memory")
    home = data_of(user).parent
    (keeper,) = processes_of(home, "embedded.py")
    keeper.kill()
    end(user, signal.SIGKILL)
    assert home.exists() and processes_of(home)
    async with open_database(MEMORY):
        assert not home.exists()
    assert not processes_of(home)


async def test_a_start_that_is_cancelled_leaves_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Path] = []

    def mkdtemp(**options: Any) -> str:
        made.append(Path(tempfile_mkdtemp(**options)))
        return str(made[-1])

    tempfile_mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)

    async def start() -> None:
        async with open_database(MEMORY):
            raise AssertionError("was cancelled before")

    for after in (0.01, 0.3):
        starting = asyncio.create_task(start())
        await asyncio.sleep(after)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert made
    assert not [folder for folder in made if processes_of(folder)]


# embedded


async def test_embedded_is_what_there_is_without_a_word_and_keeps_its_data(home: Path) -> None:
    assert user_data_dir() == home
    async with open_database() as pool:
        conversation = await create_conversation(pool, creator_did=ALICE)
        assert await data_directory(pool) == home / "data"
    assert not processes_of(home)
    async with open_database(EMBEDDED) as pool:
        assert await get_conversation(pool, convo_id=conversation.id) == conversation


async def test_processes_of_one_user_share_one_server_until_the_last_ends(home: Path) -> None:
    users = [run_user("embedded") for _ in range(3)]  # all at once, on an empty folder
    assert {data_of(user) for user in users} == {home / "data"}
    postmaster = postmaster_of(home)
    end(users[0], signal.SIGKILL)
    end(users[1], signal.SIGINT)
    assert postmaster.is_running()
    async with open_database(EMBEDDED) as pool:
        assert (await health_check(pool)).status == "ok"
        assert postmaster_of(home) == postmaster
        end(users[2], signal.SIGKILL)
        assert (await health_check(pool)).status == "ok"
    assert eventually(lambda: not processes_of(home))


async def test_an_embedded_database_that_is_newer_says_so(home: Path) -> None:
    async with open_database(EMBEDDED) as pool, pool.connection() as connection:
        await connection.execute(
            "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('x', '9999_later')"
        )
    with pytest.raises(QueryError, match=r"newer than this program, by 9999_later: upgrade"):
        async with open_database(EMBEDDED):
            pass
    assert eventually(lambda: not processes_of(home))


async def test_embedded_data_of_another_postgresql_say_so(home: Path) -> None:
    async with open_database(EMBEDDED):
        pass
    (home / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(DatabaseConnectionError, match="initialized by PostgreSQL version 15"):
        async with open_database(EMBEDDED):
            pass


async def test_a_data_folder_that_cannot_be_made_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(DatabaseConnectionError, match="Not a directory"):
        async with open_database(EMBEDDED):
            pass


def test_the_users_data_folder_is_where_the_system_keeps_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    for given in ("", "relative"):  # which the standard says to ignore
        monkeypatch.setenv("XDG_DATA_HOME", given)
        assert user_data_dir() == Path("/home/alice/.local/share/catbird-db")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(DatabaseConnectionError, match="set XDG_DATA_HOME"):
        user_data_dir()


# postgres


async def test_postgres_is_the_database_of_the_url(catbird_database_url: str) -> None:
    for settings in (
        Settings(database_url=catbird_database_url),
        Settings(database_type="postgres", database_url=catbird_database_url),
    ):
        async with open_database(settings) as pool, pool.connection() as connection:
            name = await connection.fetchval("SELECT current_database()")
            assert f"/{name}?" in catbird_database_url


async def test_a_missing_url_says_how_to_set_it() -> None:
    with pytest.raises(InvalidArgumentError, match="DATABASE_URL is not set: export DATABASE_URL="):
        async with open_database(Settings(database_type="postgres")):
            pass


async def test_an_at_in_the_password_is_told_of_and_not_taken_for_a_host() -> None:
    url = "postgresql://alice:p@s3cr3t@127.0.0.1:1/postgres"
    with pytest.raises(InvalidArgumentError, match="password's @ as %40") as caught:
        async with open_database(Settings(database_url=url)):
            pass
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("minimum", [0, 1])
async def test_a_server_that_is_away_says_what_to_do(minimum: int) -> None:
    url = "postgresql://alice:s3cr3t@127.0.0.1:1/postgres"
    with pytest.raises(DatabaseConnectionError, match="start the server, or mend") as caught:
        async with open_database(Settings(database_url=url, db_pool_min_size=minimum)):
            pass
    assert "127.0.0.1" in str(caught.value) and "s3cr3t" not in str(caught.value)


async def test_a_connection_lost_later_is_not_told_as_a_server_that_was_away(
    catbird_database_url: str,
) -> None:
    with pytest.raises(DatabaseConnectionError, match=r"^mine$"):
        async with open_database(Settings(database_url=catbird_database_url)):
            raise DatabaseConnectionError("mine")


async def test_an_unmigrated_database_is_left_alone_and_says_what_to_run(
    catbird_empty_database_url: str,
) -> None:
    with pytest.raises(QueryError, match=r"0001_conversations first: run 'catbird-db migrate'"):
        async with open_database(Settings(database_url=catbird_empty_database_url)):
            pass
    with psycopg.connect(catbird_empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('conversations')").fetchone() == (None,)


async def test_a_database_that_lacks_the_last_migration_or_has_one_more_says_which(
    catbird_database_url: str,
) -> None:
    def execute(sql: str) -> None:
        with psycopg.connect(catbird_database_url) as connection:
            connection.execute(sql)  # type: ignore[arg-type]

    execute("DELETE FROM _yoyo_migration WHERE migration_id = '0004_key_packages'")
    with pytest.raises(QueryError, match=r"lacks 1 of \d+ migrations, 0004_key_packages first"):
        async with open_database(Settings(database_url=catbird_database_url)):
            pass
    execute("UPDATE _yoyo_migration SET migration_id = '0099_x' WHERE migration_id LIKE '0003%'")
    with pytest.raises(QueryError, match="newer than this program, by 0099_x"):
        async with open_database(Settings(database_url=catbird_database_url)):
            pass
