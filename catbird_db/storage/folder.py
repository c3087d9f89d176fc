"""Objects in a folder: written under another name, synced, renamed."""

import os
import secrets
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Literal

from ..config import Settings
from ..embedded import user_folder
from ..errors import InvalidArgumentError, StorageError
from .store import CHUNK, PREFIX, Seen, StoreEntry, in_thread

ATTEMPTS: Final = 100
"""How often a file is written whose folder somebody removes meanwhile, being empty."""


def folder_of(settings: Settings) -> Path:
    """OBJECT_FOLDER, or ``objects`` in the user's data folder.

    Raises:
        InvalidArgumentError: the user has no home.
    """
    try:
        if settings.object_folder is not None:
            return Path(settings.object_folder).expanduser().absolute()
        return user_folder("XDG_DATA_HOME", ".local/share") / "objects"
    except RuntimeError:
        raise InvalidArgumentError("OBJECT_FOLDER: this user has no home: set it") from None


async def open_folder_store(settings: Settings, threads: ThreadPoolExecutor) -> "FolderStore":
    store = FolderStore(settings, threads)
    with _storage_errors("the folder of OBJECT_FOLDER cannot be used"):
        await in_thread(threads, store.make_folder)
    return store


class FolderStore:
    """A store in ``OBJECT_FOLDER``, for one event loop. Made by `open_store`."""

    def __init__(self, settings: Settings, threads: ThreadPoolExecutor) -> None:
        self.dedupe: Literal["global", "tenant"] = settings.object_dedupe
        self.lease = settings.object_lease
        self.folder = folder_of(settings)
        self._threads = threads

    def make_folder(self) -> None:
        (self.folder / PREFIX).mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(self, key: str, body: BinaryIO, size: int, /) -> int:
        with _storage_errors("an object cannot be written"):
            return await in_thread(self._threads, _write_whole, self.folder / key, body, size)

    async def get(
        self, key: str, /, *, start: int, length: int, seen: Seen
    ) -> AsyncGenerator[bytes]:
        with _storage_errors("an object cannot be read", absence=True):
            file, chunk = await in_thread(
                self._threads, _open_at, self.folder / key, start, length, seen
            )
            with file:
                while chunk:
                    yield chunk
                    length -= len(chunk)
                    if not length:
                        break
                    chunk = await in_thread(self._threads, _read_some, file, length, seen)

    async def stat(self, key: str, /) -> int | None:
        with _storage_errors("an object cannot be looked up"):
            return await in_thread(self._threads, _size, self.folder / key)

    async def delete(self, key: str, /) -> None:
        with _storage_errors("an object cannot be deleted"):
            await in_thread(self._threads, _remove, self.folder / key)

    async def list(self) -> AsyncGenerator[StoreEntry]:
        entries = _entries(self.folder)
        with _storage_errors("the objects cannot be listed"):
            while some := await in_thread(self._threads, lambda: [*islice(entries, 1000)]):
                for entry in some:
                    yield entry


@contextmanager
def _storage_errors(says: str, *, absence: bool = False) -> Generator[None]:
    """An OSError becomes a StorageError; but for a FileNotFoundError where ``absence`` is an answer."""
    try:
        yield
    except OSError as error:
        if absence and isinstance(error, FileNotFoundError):
            raise
        raise StorageError(f"{says}: {error.strerror}") from error


def _write_whole(path: Path, body: BinaryIO, size: int) -> int:
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    file = _open_new(partial)
    try:
        with file:
            left = size
            while chunk := body.read(min(CHUNK, left)):
                left -= file.write(chunk)
            if left:
                raise StorageError(f"the body ended {left} bytes early")
            file.flush()
            os.fsync(file.fileno())
            kept = os.fstat(file.fileno()).st_size
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    with suppress(FileNotFoundError):  # removed already, by who may
        for folder in (path.parent, path.parent.parent):
            _sync(folder)
    return kept


def _open_new(path: Path) -> BinaryIO:
    """A new file, in a folder that others make and, when it is empty, remove meanwhile."""
    for _ in range(ATTEMPTS):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path.open("xb")
        except FileNotFoundError:  # removed since
            continue
        except FileExistsError:  # `mkdir` says so too when it is removed while it looks
            if path.parent.is_file():
                raise
    raise StorageError("the folder of an object is removed as fast as it is made")


def _sync(folder: Path) -> None:
    """Names are safe only when their folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_at(path: Path, start: int, length: int, seen: Seen) -> tuple[BinaryIO, bytes]:
    file = path.open("rb", buffering=0)
    try:
        file.seek(start)
        return file, _read_some(file, length, seen)
    except BaseException:
        file.close()
        raise


def _read_some(file: BinaryIO, left: int, seen: Seen) -> bytes:
    chunk = file.read(min(CHUNK, left))
    seen(chunk)
    return chunk


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):  # another generation is in it, or being written
        path.parent.rmdir()


def _entries(folder: Path, below: str = PREFIX) -> Iterator[StoreEntry]:
    with os.scandir(folder / below) as found:
        for one in found:
            with suppress(FileNotFoundError):
                if one.is_dir(follow_symlinks=False):
                    yield from _entries(folder, f"{below}{one.name}/")
                else:
                    size = one.stat(follow_symlinks=False).st_size
                    yield StoreEntry(f"{below}{one.name}", size)
