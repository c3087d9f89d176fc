"""Objects in a bucket of an S3 server, by the minio client in threads."""

from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError

from ..config import Settings
from ..errors import InvalidArgumentError, StorageError
from .store import CHUNK, PREFIX, Seen, StoreEntry, in_thread

T = TypeVar("T")

PART: Final = 5 * 2**20
"""Bytes sent in one request, the least that S3 takes: each upload holds them in memory, twice at times."""

MOST_PARTS: Final = 10_000
RETRIES: Final = 4
LONGEST_RETRY_AFTER: Final = 5
"""Seconds, however many the server asks for: a caller waits."""

FAILURES: Final = (
    S3Error,
    ServerError,
    InvalidResponseError,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)


async def open_s3_store(settings: Settings, threads: ThreadPoolExecutor) -> "S3Store":
    store = S3Store(settings, threads)
    await store.require_bucket()
    return store


class S3Store:
    """A store in ``S3_BUCKET``, for one event loop. Made by `open_store`."""

    def __init__(self, settings: Settings, threads: ThreadPoolExecutor) -> None:
        self.dedupe: Literal["global", "tenant"] = settings.object_dedupe
        self.lease = settings.object_lease
        self._threads = threads
        self._bucket = _required(settings, "s3_bucket")
        url = urlsplit(_required(settings, "s3_url"))
        self._client = Minio(
            url.netloc,
            access_key=_required(settings, "s3_access_key"),
            secret_key=_required(settings, "s3_secret_key"),
            secure=url.scheme == "https",
            region=settings.s3_region,
            http_client=_http_client(settings),
        )

    async def require_bucket(self) -> None:
        if not await self._run(self._client.bucket_exists, self._bucket):
            raise StorageError("S3_BUCKET: there is no such bucket")

    async def put(self, key: str, body: BinaryIO, size: int, /) -> int:
        await self._run(self._put, key, body, size)
        return size  # the server has checked length and checksum of each request

    def _put(self, key: str, body: BinaryIO, size: int) -> None:
        part = max(PART, -(-size // MOST_PARTS))
        self._client.put_object(
            self._bucket, key, body, size, part_size=part, num_parallel_uploads=1
        )

    async def get(
        self, key: str, /, *, start: int, length: int, seen: Seen
    ) -> AsyncGenerator[bytes]:
        response, chunk = await self._run(self._open, key, start, length, seen)
        try:
            while chunk:
                yield chunk
                length -= len(chunk)
                if not length:
                    break
                chunk = await self._run(_read_some, response, length, seen)
            response.release_conn()
        finally:
            response.close()

    def _open(self, key: str, start: int, length: int, seen: Seen) -> tuple[Any, bytes]:
        try:
            response: Any = self._client.get_object(self._bucket, key, start, length)
        except S3Error as error:
            if error.code != "InvalidRange":  # there are no bytes from start on
                raise
            return urllib3.HTTPResponse(), b""
        return response, _read_some(response, length, seen)

    async def stat(self, key: str, /) -> int | None:
        try:
            return (await self._run(self._client.stat_object, self._bucket, key)).size
        except FileNotFoundError:
            return None

    async def delete(self, key: str, /) -> None:
        folder, _, name = key.rpartition("/")
        name, _, upload = name.partition(".")
        if upload:
            with suppress(FileNotFoundError):
                await self._run(
                    self._client._abort_multipart_upload,  # pyright: ignore[reportPrivateUsage]
                    *(self._bucket, f"{folder}/{name}", upload),
                )
        await self._run(self._client.remove_object, self._bucket, key)

    async def list(self) -> AsyncGenerator[StoreEntry]:
        """An upload in parts that has not ended is there as its key, a dot, and its id."""
        for entries in (self._objects(), self._uploads()):
            while some := await self._run(lambda: [*islice(entries, 1000)]):  # noqa: B023
                for one in some:
                    yield one

    def _objects(self) -> Iterator[StoreEntry]:
        for one in self._client.list_objects(self._bucket, PREFIX, recursive=True):
            yield StoreEntry(one.object_name or "", one.size or 0)

    def _uploads(self) -> Iterator[StoreEntry]:
        key: str | None = None
        upload: str | None = None
        while True:
            page = self._client._list_multipart_uploads(  # pyright: ignore[reportPrivateUsage]
                self._bucket, prefix=PREFIX, key_marker=key, upload_id_marker=upload
            )
            for one in page.uploads:
                yield StoreEntry(f"{one.object_name}.{one.upload_id}", 0)
            key, upload = page.next_key_marker, page.next_upload_id_marker
            if not page.is_truncated:
                return

    async def _run(self, request: Callable[..., T], *arguments: Any) -> T:
        try:
            return await in_thread(self._threads, request, *arguments)
        except FAILURES as error:
            if isinstance(error, S3Error) and error.code in ("NoSuchKey", "NoSuchUpload"):
                raise FileNotFoundError from None
            raise StorageError(f"S3: {_said(error)}") from error


def _read_some(response: Any, left: int, seen: Seen) -> bytes:
    chunk = response.read(min(CHUNK, left), decode_content=False)
    seen(chunk)
    return chunk


def _required(settings: Settings, name: str) -> str:
    value: str | None = getattr(settings, name)
    if value is None:
        raise InvalidArgumentError(f"{name.upper()} is not set, and OBJECT_STORE=s3 needs it")
    return value


def _http_client(settings: Settings) -> urllib3.PoolManager:
    """A connection for each thread; what fails for a moment is tried again, at no fixed times."""
    return urllib3.PoolManager(
        maxsize=settings.object_connections,
        timeout=urllib3.Timeout(settings.object_timeout),
        retries=urllib3.Retry(
            RETRIES,
            allowed_methods=None,
            status_forcelist=(500, 502, 503, 504),
            backoff_factor=0.1,
            backoff_jitter=0.3,
            retry_after_max=LONGEST_RETRY_AFTER,
        ),
    )


def _said(error: Exception) -> str:
    """What went wrong, without the URL, which is signed."""
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    reason = getattr(error, "reason", None) or error
    return type(reason).__name__
