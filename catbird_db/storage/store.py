"""Where the bytes of objects are: what a store can do, which one is used, and bodies on their way in."""

import asyncio
import hashlib
import inspect
import io
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Final, Literal, Protocol, TypeAlias, TypeVar, cast

from pydantic import GetPydanticSchema
from pydantic_core import core_schema as cs

from ..config import Settings
from ..errors import InvalidArgumentError, StorageError

__all__ = ["ObjectStore", "StoreEntry", "open_store"]

T = TypeVar("T")

CHUNK: Final = 2**19
"""Bytes read, hashed or written at a time; so many stay with each thread that ever read some."""

SPOOL_IN_MEMORY: Final = 2**20
"""A body of unknown length stays in memory up to so many bytes, and goes to a file beyond."""

PREFIX: Final = ".hash/"
"""What all keys begin with."""


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One file or object in a store.

    Attributes:
        key: its name.
        size: bytes.
    """

    key: str
    size: int


Seen: TypeAlias = Callable[[bytes], object]


class ObjectStore(Protocol):
    """Bytes by key: a folder, a bucket, or what a test puts around one.

    One can be put in a set: by what it is, not by what it holds. What fails raises StorageError. A key is written with the same bytes or not at all, so each
    of these may be done again.

    Attributes:
        dedupe: whether equal bytes are kept once for all, or once a tenant (OBJECT_DEDUPE).
        lease: seconds for which an object without a reference is safe from collection (OBJECT_LEASE).
    """

    @property
    def dedupe(self) -> Literal["global", "tenant"]: ...
    @property
    def lease(self) -> float: ...

    async def put(self, key: str, body: BinaryIO, size: int, /) -> int:
        """Write ``size`` bytes from a file's position on, whole or not at all; how many were kept."""
        ...

    def get(self, key: str, /, *, start: int, length: int, seen: Seen) -> AsyncGenerator[bytes]:
        """So many bytes (1 at least) in chunks, or less where there are less.

        Each chunk is first shown to ``seen``, in the thread that read it: that is where hashing costs
        least. FileNotFoundError where there is nothing under this key."""
        ...

    async def stat(self, key: str, /) -> int | None:
        """How many bytes there are; None where there are none."""
        ...

    async def delete(self, key: str, /) -> None:
        """Remove the bytes, if there are any."""
        ...

    def list(self) -> AsyncGenerator[StoreEntry]:
        """All that is there, in any order; also what an interrupted write left, as its key, a dot, and
        something of its own."""
        ...


@asynccontextmanager
async def open_store(settings: Settings | None = None) -> AsyncGenerator[ObjectStore]:
    """Open the object store of ``settings`` (default: the environment's): a folder or S3.

    Raises:
        InvalidArgumentError: a setting is missing; names it.
        StorageError: the folder cannot be used; the bucket cannot be reached or does not exist.
    """
    settings = settings or Settings()
    threads = ThreadPoolExecutor(settings.object_connections, thread_name_prefix="catbird-store")
    try:
        if settings.object_store == "s3":
            from .s3 import open_s3_store  # imports minio

            yield await open_s3_store(settings, threads)
        else:
            from .folder import open_folder_store

            yield await open_folder_store(settings, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


async def in_thread(threads: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
    """Run this in one of the store's threads.

    Raises:
        StorageError: the store is closed, or was before this had its turn.
    """
    try:
        turn = asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
    except RuntimeError as error:
        raise StorageError(f"the store is used outside of its open_store block: {error}") from error
    try:
        return await turn
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if turn.cancelled() and task is not None and not task.cancelling():
            raise StorageError("the store was closed while this waited for its turn") from None
        raise


# Bodies.


def _check_body(value: object) -> object:
    read = None if isinstance(value, io.TextIOBase | type) else getattr(value, "read", None)
    is_file = read is not None and not inspect.iscoroutinefunction(read)
    if isinstance(value, bytes | bytearray | memoryview | AsyncIterable) or is_file:
        return cast(object, value)
    raise ValueError("must be bytes, a binary file, or an async iterable of bytes")


def _body_schema(source: Any, handler: Any) -> cs.CoreSchema:
    return cs.no_info_plain_validator_function(_check_body)


Body = Annotated[
    bytes | bytearray | memoryview | BinaryIO | AsyncIterable[bytes],
    GetPydanticSchema(_body_schema),
]
"""What is to be stored: bytes, a file opened for reading bytes, or chunks as they come."""


@dataclass(frozen=True, slots=True)
class Spool:
    """A whole body: a file that can be read again, its size in bytes, and its SHA-256 in hex."""

    file: BinaryIO
    size: int
    sha256: str


@asynccontextmanager
async def spooled(body: Body) -> AsyncGenerator[Spool]:
    """Read a body to its end: its hash, which is its name, is known only then.

    Bytes stay where they are; all else goes to a temporary file, as it may change or not come twice.
    Closing that file ends an upload whose caller was cancelled, and whose thread goes on.

    Raises:
        InvalidArgumentError: a chunk is not bytes.
        StorageError: there is no room for the temporary file.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        body = bytes(body)  # as they are now
        with io.BytesIO(body) as file:
            yield Spool(file, len(body), (await _updated(hashlib.sha256(), body)).hexdigest())
        return
    with _temporary_file() as file:
        digest, size = hashlib.sha256(), 0
        async for chunk in _large_chunks(body):
            await _updated(digest, chunk)
            await _spool(file.write, chunk)
            size += len(chunk)
        await _spool(file.flush)
        yield Spool(file, size, digest.hexdigest())


@contextmanager
def _temporary_file() -> Generator[BinaryIO]:
    spool = tempfile.SpooledTemporaryFile(SPOOL_IN_MEMORY)  # noqa: SIM115
    file = cast(BinaryIO, spool)
    try:
        yield file
    finally:
        with suppress(OSError):  # what there was no room for before, it writes again
            file.close()


async def _updated(digest: Any, chunk: bytes) -> Any:
    """The digest with this in it; not on the event loop where that takes long."""
    if len(chunk) < CHUNK // 8:
        digest.update(chunk)
    else:
        await asyncio.to_thread(digest.update, chunk)
    return digest


async def _spool(write: Callable[..., object], *chunk: bytes) -> None:
    try:
        await asyncio.to_thread(write, *chunk)
    except OSError as error:
        raise StorageError(f"the body cannot be spooled: {error.strerror}") from error


async def _large_chunks(body: BinaryIO | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The chunks of a body, small ones joined: each costs two threads a turn."""
    if not isinstance(body, AsyncIterable):
        while chunk := _bytes_only(await asyncio.to_thread(body.read, CHUNK)):
            yield chunk
        return
    waiting, size = list[bytes](), 0
    async for chunk in body:
        waiting.append(_bytes_only(chunk))
        size += len(chunk)
        if size >= CHUNK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _bytes_only(chunk: object) -> bytes:
    if isinstance(chunk, bytearray | memoryview):
        return bytes(cast(bytearray, chunk))
    if not isinstance(chunk, bytes):
        raise InvalidArgumentError(f"body: gives {type(chunk).__name__} where it should give bytes")
    return chunk
