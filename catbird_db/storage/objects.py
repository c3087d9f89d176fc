"""Objects: bytes behind a hash, kept once, deleted only when nothing refers to them.

Storing is three steps: a row that says what is intended, with a lease; the upload, which holds no
connection; the row marked as stored. References point at stored objects alone, and PostgreSQL
refuses others. The collector marks what has neither lease nor reference, commits, deletes the
bytes, then the row. The bytes lie under a key that is used once (its generation), so that a delete
which comes late meets nothing.
"""

import asyncio
import hashlib
import io
import json
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Final, Literal
from uuid import UUID, uuid4
from weakref import WeakSet

from pydantic import Field, StringConstraints
from uuid_utils.compat import uuid7

from ..errors import (
    DatabaseError,
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    StorageError,
)
from ..pool import Connection, Executor, Pool, transaction
from ..query import query
from ..signature import validated
from ..types import BatchLimit, Input, Limit, ObjectHash, Offset, Row, UserId
from .store import PREFIX, Body, ObjectStore, Spool, StoreEntry, spooled

__all__ = [
    "CollectedGarbage",
    "Reconciliation",
    "StoredObject",
    "collect_garbage",
    "object_reference_count",
    "open_object",
    "put_object",
    "reconcile",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Owner = Annotated[str, StringConstraints(min_length=1, max_length=512)] | UserId
"""Who keeps bytes apart from others, with OBJECT_DEDUPE=tenant: a DID, or a user (of a vault)."""

LeaseSeconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]

PUT_ATTEMPTS: Final = 5
UPLOAD_LEASE: Final = 15.0
"""Seconds, at most, that a dead uploader holds up the next one; who lives renews it."""
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.5
"""Seconds between two looks whether somebody else has finished an upload."""
READ_ATTEMPTS: Final = 3
PAGE: Final = 500
"""Rows and keys that the collector and `reconcile` look at in one statement."""

OWNER_KEY: Final = f"{PREFIX}database"
"""Where a store says to which database it belongs."""

KEY: Final = re.compile(
    re.escape(PREFIX) + r"([0-9a-f]{64}(?:_[0-9a-f]{32})?)/([0-9a-f-]{36})(\.[\w.~+=-]{16,})?"
)


class StoredObject(Input, frozen=True):
    """Bytes that are stored, and safe from collection for OBJECT_LEASE seconds: refer to them by then.

    ``hash`` names the object; ``size`` is in bytes. Take it from `put_object`, and never make it of
    what a client says: who refers to an object may read it, and its size is believed.
    """

    hash: ObjectHash
    size: Offset

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes, in hex: the hash, but for OBJECT_DEDUPE=tenant."""
        return self.hash[:64]


class CollectedGarbage(Row, frozen=True):
    """How many objects were collected, and how many bytes those held."""

    objects: int
    bytes: int


class Reconciliation(Row, frozen=True):
    """Where the store and the table differ.

    Attributes:
        strays: keys of bytes that no row knows: of uploads that were killed; nothing refers to them.
        undeleted: those of the strays that the store would not delete.
        missing: hashes of stored objects without bytes: restore these from a backup, or store the
            same bytes again.
        damaged: hashes of stored objects whose bytes are of another size, or, with ``verify``, of
            another hash: the same.
        unknown: keys below ``.hash/`` that no object has; never touched; as many as ``limit``.
        removed: how many of the strays were deleted.
        is_whole: it looked at everything; False where it stopped at ``limit``.
    """

    strays: list[str]
    undeleted: list[str]
    missing: list[str]
    damaged: list[str]
    unknown: list[str]
    removed: int
    is_whole: bool


class Database(Row, frozen=True):
    database_id: UUID


class ObjectRow(Row, frozen=True):
    hash: str
    generation: UUID
    size: int
    state: Literal["pending", "stored", "deleting"]
    is_damaged: bool

    @property
    def key(self) -> str:
        return f"{PREFIX}{self.hash}/{self.generation}"


class ListedObject(ObjectRow, frozen=True):
    is_garbage: bool


class LockedObject(Row, frozen=True):
    hash: str


class Generation(ObjectRow, frozen=True):
    is_leased: bool


@query
async def lease_object(
    db: Executor,
    /,
    *,
    hash: ObjectHash,
    generation: UUID,
    size: Offset,
    lease: LeaseSeconds,
    upload_lease: LeaseSeconds,
) -> ObjectRow | None: ...


@query
async def replace_object(
    db: Executor, /, *, hash: ObjectHash, generation: UUID, upload_lease: LeaseSeconds
) -> ObjectRow | None: ...


@query
async def extend_lease(
    db: Executor, /, *, hash: ObjectHash, generation: UUID, upload_lease: LeaseSeconds
) -> bool: ...


@query
async def release_lease(db: Executor, /, *, hash: ObjectHash, generation: UUID) -> bool: ...


@query
async def mark_stored(
    db: Executor, /, *, hash: ObjectHash, generation: UUID, lease: LeaseSeconds
) -> bool: ...


@query
async def mark_sound(
    db: Executor, /, *, hash: ObjectHash, generation: UUID, lease: LeaseSeconds
) -> bool: ...


@query
async def mark_damaged(db: Executor, /, *, hash: ObjectHash, generation: UUID) -> bool: ...


@query
async def find_object(db: Executor, /, *, hash: ObjectHash) -> ObjectRow | None: ...


@query
async def object_reference_count(db: Executor, /, *, hash: ObjectHash) -> int:
    """How many rows refer to an object, of all tenants: for operators, not for tenants to see."""
    ...


@query
async def list_objects(db: Executor, /, *, after_hash: str, limit: Limit) -> list[ListedObject]: ...


@query
async def lock_objects(db: Executor, /, *, hashes: Sequence[str]) -> list[LockedObject]: ...


@query
async def mark_deleting(
    db: Executor, /, *, hashes: Sequence[str], lease: LeaseSeconds
) -> list[ObjectRow]: ...


@query
async def remove_objects(
    db: Executor, /, *, hashes: Sequence[str], generations: Sequence[UUID]
) -> int: ...


@query
async def list_generations(db: Executor, /, *, hashes: Sequence[str]) -> list[Generation]: ...


@query
async def identify_database(db: Executor, /, *, database_id: UUID) -> Database: ...


@validated
async def put_object(
    pool: Pool,
    store: ObjectStore,
    /,
    *,
    body: Body,
    sha256: Sha256 | None = None,
    owner: Owner | None = None,
) -> StoredObject:
    """Store bytes, once; refer to the result before its lease ends (OBJECT_LEASE).

    Never inside a transaction: a lease that is not committed protects nothing.

    Args:
        body: bytes, a binary file (read from its position on), or an async iterable of bytes.
        sha256: in hex; what the body must be.
        owner: whose it is: a DID for blobs, a user's id for vaults, or any text that tells tenants
            apart; needed by OBJECT_DEDUPE=tenant.

    Raises:
        InvalidArgumentError: the body gives something else than bytes; an owner is needed.
        IntegrityError: the body is not what ``sha256`` says.
        StorageError: the store failed; nothing refers to what it may have kept.
    """
    require_pool(pool)
    if store.dedupe == "tenant" and owner is None:
        raise InvalidArgumentError("owner: OBJECT_DEDUPE=tenant needs to know whose the bytes are")
    async with spooled(body) as spool:
        if sha256 not in (None, spool.sha256):
            raise IntegrityError("put_object: the body is not what sha256 says")
        hash = spool.sha256
        if store.dedupe == "tenant" and owner is not None:
            hash = f"{hash}_{_owner_suffix(owner)}"
        for _ in range(PUT_ATTEMPTS):
            if await _put_once(pool, store, hash, spool):
                return StoredObject(hash=hash, size=spool.size)
    raise StorageError(
        f"put_object: {PUT_ATTEMPTS} times its lease had ended when the upload had: does this "
        "program pause for long, or is OBJECT_LEASE very short?"
    )


def require_owner(stored: StoredObject, *, owner: str | int) -> None:
    """Refuse what is another owner's; with OBJECT_DEDUPE=global an object is nobody's.

    Raises:
        InvalidArgumentError: it was stored for another ``owner``.
    """
    suffix = stored.hash[65:]
    if suffix and suffix != _owner_suffix(owner):
        raise InvalidArgumentError("stored: was put for another owner; see put_object's owner")


def _owner_suffix(owner: str | int) -> str:
    return hashlib.sha256(json.dumps(owner).encode()).hexdigest()[:32]  # 5 is not "5"


async def _put_once(pool: Pool, store: ObjectStore, hash: str, spool: Spool) -> bool:
    await _claim(pool, store)
    generation = uuid7()
    try:
        intended = await _intend(pool, store, hash, generation, spool.size)
        is_stored = intended.state == "stored"
        if is_stored and not intended.is_damaged and await store.stat(intended.key) == spool.size:
            return True
        async with _renewing(pool, intended, _upload_lease(store)):
            spool.file.seek(0)
            kept = await store.put(intended.key, spool.file, spool.size)
        if kept != spool.size:
            raise StorageError(f"put_object: the store kept {kept} of {spool.size} bytes")
        mark = mark_sound if is_stored else mark_stored
        return await mark(pool, hash=hash, generation=intended.generation, lease=store.lease)
    except BaseException:  # also where the answer of `_intend` did not come: its row may be there
        with suppress(DatabaseError):
            await release_lease(pool, hash=hash, generation=generation)
        raise


_claimed = WeakSet[ObjectStore]()


async def _claim(pool: Pool, store: ObjectStore) -> None:
    """A store that belongs to no database belongs to this one; looked at once in each process."""
    if store not in _claimed:
        if await _owner(store) is None:
            await _make_ours(store, await _database_id(pool))
        _claimed.add(store)


async def _require_ours(pool: Pool, store: ObjectStore) -> None:
    ours, owner = await _database_id(pool), await _owner(store)
    if owner is None:
        await _make_ours(store, ours)
    elif owner != ours:
        raise StorageError(
            "reconcile: this store belongs to another database, whose objects would be strays here: "
            "give this one a store of its own (OBJECT_FOLDER, S3_BUCKET). If that database is gone "
            f"for good, or this is its copy that takes over, delete {OWNER_KEY} from the store"
        )


async def _database_id(pool: Pool) -> bytes:
    return (await identify_database(pool, database_id=uuid4())).database_id.bytes


async def _owner(store: ObjectStore) -> bytes | None:
    chunks = list[bytes]()
    with suppress(FileNotFoundError):
        async for _ in store.get(OWNER_KEY, start=0, length=16, seen=chunks.append):
            pass
        return b"".join(chunks)
    return None


async def _make_ours(store: ObjectStore, database_id: bytes) -> None:
    await store.put(OWNER_KEY, io.BytesIO(database_id), len(database_id))


async def _intend(
    pool: Pool, store: ObjectStore, hash: str, generation: UUID, size: int
) -> ObjectRow:
    """A row that nobody else uploads for; waits while somebody does.

    So no two ever write the same key, and what is stored is written to no more.
    """
    lease, pause = _upload_lease(store), FIRST_PAUSE
    while True:
        intended = await lease_object(
            pool,
            hash=hash,
            generation=generation,
            size=size,
            lease=store.lease,
            upload_lease=lease,
        ) or await replace_object(pool, hash=hash, generation=generation, upload_lease=lease)
        if intended is not None:
            return intended
        await asyncio.sleep(random.uniform(pause / 2, pause))
        pause = min(2 * pause, LONGEST_PAUSE)


def _upload_lease(store: ObjectStore) -> float:
    return min(store.lease, UPLOAD_LEASE)


@asynccontextmanager
async def _renewing(pool: Pool, intended: ObjectRow, lease: float) -> AsyncGenerator[None]:
    """The lease goes on as long as the block does; `mark_stored` is the judge of whether it did."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(lease / 3)
            with suppress(DatabaseError):
                await extend_lease(
                    pool, hash=intended.hash, generation=intended.generation, upload_lease=lease
                )

    renewal = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewal.cancel()
        await asyncio.wait([renewal])


@validated
async def open_object(
    db: Executor,
    store: ObjectStore,
    /,
    *,
    hash: ObjectHash,
    start: Offset = 0,
    length: Offset | None = None,
) -> AsyncIterator[bytes]:
    """The bytes of an object in chunks of at most 512 KiB, or a range of them.

    Who is given all bytes has been given the right ones: the hash is verified before the last chunk
    is. A range is verified by its length only. Which tenant may read is not asked here.

    Args:
        hash: `StoredObject.hash`.
        start: bytes to leave out.
        length: bytes to give; to the end unless given.

    Raises:
        NotFoundError: there is no such object.
        InvalidArgumentError: ``start`` is beyond the end.
        IntegrityError: the bytes are not those that were stored.
        StorageError: the store failed, or the bytes are missing.
    """
    for _ in range(READ_ATTEMPTS):
        found = await find_object(db, hash=hash)
        if found is None:
            raise NotFoundError("open_object: there is no such object")
        if start > found.size:
            raise InvalidArgumentError("start: is beyond the end of the object")
        end = found.size if length is None else min(found.size, start + length)
        if start == end:
            return
        with suppress(FileNotFoundError):  # collected, and perhaps stored anew, since it was found
            async for chunk in _verified(store, found, start, end):
                yield chunk
            return
    raise StorageError("open_object: the bytes are missing; reconcile tells of which objects")


async def _verified(
    store: ObjectStore, found: ObjectRow, start: int, end: int
) -> AsyncIterator[bytes]:
    digest, left = hashlib.sha256(), end - start
    expected = found.hash[:64] if left == found.size else None
    async for chunk in store.get(found.key, start=start, length=left, seen=digest.update):
        left -= len(chunk)
        if left < 0 or (left == 0 and expected not in (None, digest.hexdigest())):
            raise IntegrityError("open_object: the bytes are not those that were stored")
        yield chunk
    if left:
        raise IntegrityError(f"open_object: the bytes end {left} too early")


@validated
async def collect_garbage(
    pool: Pool, store: ObjectStore, /, *, limit: BatchLimit = 1000
) -> CollectedGarbage:
    """Delete objects that nothing refers to and no lease protects, at most ``limit``.

    Looks through the whole table, 500 rows at a time; what is being referred to just now is left for
    the next time. Any number may run at once. Call it until it collects less than ``limit``.

    Raises:
        StorageError: some bytes could not be deleted; raised at the end, when all else is collected.
            They are tried again after the lease.
    """
    require_pool(pool)
    objects, size, after, failures = 0, 0, "", list[BaseException]()
    while objects + len(failures) < limit:
        page = await list_objects(pool, after_hash=after, limit=PAGE)
        if not page:
            break
        after = page[-1].hash
        garbage = [one.hash for one in page if one.is_garbage]
        candidates = garbage[: limit - objects - len(failures)]
        collected, failed = await _collect(pool, store, candidates) if garbage else ([], [])
        failures += failed
        objects += len(collected)
        size += sum(one.size for one in collected)
    if failures:
        raise failures[0]
    return CollectedGarbage(objects=objects, bytes=size)


async def _collect(
    pool: Pool, store: ObjectStore, hashes: list[str]
) -> tuple[list[ObjectRow], list[BaseException]]:
    """What was collected, and why other bytes could not be deleted."""
    async with transaction(pool) as tx:
        locked = await lock_objects(tx, hashes=hashes)
        doomed = await mark_deleting(tx, hashes=[one.hash for one in locked], lease=store.lease)
    outcomes = await asyncio.gather(
        *(store.delete(one.key) for one in doomed), return_exceptions=True
    )
    gone = [one for one, outcome in zip(doomed, outcomes, strict=True) if outcome is None]
    await remove_objects(
        pool,
        hashes=[one.hash for one in gone],
        generations=[one.generation for one in gone],
    )
    return gone, [outcome for outcome in outcomes if outcome is not None]


@validated
async def reconcile(
    pool: Pool,
    store: ObjectStore,
    /,
    *,
    mend: bool = False,
    verify: bool = False,
    limit: BatchLimit = 1000,
    on_progress: Callable[[int], None] | None = None,
) -> Reconciliation:
    """Compare what the store holds with what the table says; may run at any time.

    Lists the whole store, and asks it for the size of each stored object.

    Args:
        mend: delete the strays; with ``verify``, note which objects are damaged, so that who stores
            the same bytes again writes them anew (else they are kept once, and so as they are).
        verify: read all bytes of all stored objects, one after another, and compare their hashes;
            what is found damaged is read twice.
        limit: of each kind of finding, so many; what is over is found by the next call once these
            are mended.
        on_progress: called with how many keys of the store and rows of the table are compared.

    Raises:
        StorageError: the store belongs to another database, or failed to list or to look up.
    """
    require_pool(pool)
    await _require_ours(pool, store)
    strays, undeleted, unknown, is_whole = list[str](), list[str](), list[str](), True
    compared = 0
    async for entries in _in_batches(store.list()):
        some_strays, some_unknown = await _sorted_out(pool, entries)
        strays += some_strays
        unknown += some_unknown[: limit - len(unknown)]
        if mend:
            undeleted += await _undeleted(store, some_strays)
        compared += len(entries)
        if on_progress:
            on_progress(compared)
        if len(strays) - len(undeleted) >= limit:
            is_whole = False
            break
    missing, damaged, after = list[str](), list[str](), ""
    while page := await list_objects(pool, after_hash=after, limit=PAGE):
        if max(len(missing), len(damaged)) >= limit:
            is_whole = False
            break
        after = page[-1].hash
        for one, size in await _sized(store, page):
            is_wrong = size != one.size or (verify and not await _is_sound(store, one))
            if is_wrong and await _is_still_stored(pool, one):
                (missing if size is None else damaged).append(one.hash)
                if mend and size == one.size:
                    await mark_damaged(pool, hash=one.hash, generation=one.generation)
        compared += len(page)
        if on_progress:
            on_progress(compared)
    return Reconciliation(
        strays=strays,
        undeleted=undeleted,
        missing=missing,
        damaged=damaged,
        unknown=unknown,
        removed=len(strays) - len(undeleted) if mend else 0,
        is_whole=is_whole,
    )


async def _undeleted(store: ObjectStore, keys: list[str]) -> list[str]:
    """Delete these; which of them are still there."""
    outcomes = await asyncio.gather(*map(store.delete, keys), return_exceptions=True)
    return [key for key, outcome in zip(keys, outcomes, strict=True) if outcome is not None]


async def _in_batches(entries: AsyncIterator[StoreEntry]) -> AsyncIterator[list[StoreEntry]]:
    batch = list[StoreEntry]()
    async for entry in entries:
        batch.append(entry)
        if len(batch) == PAGE:
            yield batch
            batch = []
    yield batch


async def _sorted_out(pool: Pool, entries: list[StoreEntry]) -> tuple[list[str], list[str]]:
    """The keys that no row knows, and those that are no object's at all.

    A key's row is written before its bytes, and its generation never comes again: a row that is not
    there now will not be there later. What has a further ending is a write under way, or left over.
    """
    keys = {
        entry.key: KEY.fullmatch(entry.key)
        for entry in entries
        if entry.key != OWNER_KEY and not entry.key.startswith(f"{OWNER_KEY}.")
    }
    hashes = {match[1] for match in keys.values() if match}
    rows = {one.key: one for one in await list_generations(pool, hashes=[*hashes])}
    strays = list[str]()
    for key, match in keys.items():
        if match:
            row = rows.get(f"{PREFIX}{match[1]}/{match[2]}")
            if row is None or (match[3] and not row.is_leased):
                strays.append(key)
    return strays, [key for key, match in keys.items() if not match]


async def _sized(
    store: ObjectStore, page: Sequence[ObjectRow]
) -> list[tuple[ObjectRow, int | None]]:
    stored = [one for one in page if one.state == "stored"]
    sizes = await asyncio.gather(*(store.stat(one.key) for one in stored))
    return [*zip(stored, sizes, strict=True)]


async def _is_sound(store: ObjectStore, one: ObjectRow) -> bool:
    """Whether its bytes, as many as they should be, are the right ones; not when wrong twice."""
    return await _digest(store, one) == one.hash[:64] or await _digest(store, one) == one.hash[:64]


async def _digest(store: ObjectStore, one: ObjectRow) -> str:
    digest = hashlib.sha256()
    if one.size:
        with suppress(FileNotFoundError):
            async for _ in store.get(one.key, start=0, length=one.size, seen=digest.update):
                pass
    return digest.hexdigest()


async def _is_still_stored(pool: Pool, one: ObjectRow) -> bool:
    found = await find_object(pool, hash=one.hash)
    return found is not None and found.generation == one.generation


def require_pool(pool: Pool) -> None:
    """Refuse a connection: uploads and deletions run between transactions, not inside one.

    Raises:
        InvalidArgumentError: it is a connection.
        TypeError: it is something else.
    """
    if isinstance(pool, Connection):
        raise InvalidArgumentError("pass the Pool: the store is not used inside a transaction")
    if not isinstance(pool, Pool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"pass a Pool, not {type(pool).__name__}")
