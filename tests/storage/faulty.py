"""A store that fails as stores do: before, during or after a write, by hanging, by keeping a part."""

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, TypeAlias, cast

from catbird_db import ObjectStore, StorageError, StoreEntry
from catbird_db.storage.objects import OWNER_KEY

Fault: TypeAlias = Literal["before", "during", "after", "hang", "truncate"]


class Breaking(io.RawIOBase):
    """A body whose second half cannot be read."""

    def __init__(self, body: BinaryIO, size: int) -> None:
        self._body, self._left = body, size // 2

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._left == 0:
            raise OSError("the disk is gone")
        chunk = self._body.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk


@dataclass(eq=False)
class Faulty:
    """Another store, with faults put between; ``faults`` are used up, one a write."""

    real: ObjectStore
    faults: list[Fault] = field(default_factory=list[Fault])
    after_put: Callable[[], Awaitable[None]] | None = None
    before_delete: Callable[[], Awaitable[None]] | None = None
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def dedupe(self) -> Literal["global", "tenant"]:
        return self.real.dedupe

    @property
    def lease(self) -> float:
        return self.real.lease

    async def put(self, key: str, body: BinaryIO, size: int, /) -> int:
        if key == OWNER_KEY:
            return await self.real.put(key, body, size)
        fault = self.faults.pop() if self.faults else None
        if fault == "before":
            raise StorageError("refused")
        if fault == "hang":
            self.hanging.set()
            await asyncio.Event().wait()
        if fault == "during":
            body = cast(BinaryIO, Breaking(body, size))
        kept = await self.real.put(key, body, size // 2 if fault == "truncate" else size)
        if self.after_put is not None:
            await self.after_put()
        if fault == "after":
            raise StorageError("no answer")
        return kept

    def get(
        self, key: str, /, *, start: int, length: int, seen: Callable[[bytes], object]
    ) -> AsyncGenerator[bytes]:
        return self.real.get(key, start=start, length=length, seen=seen)

    async def stat(self, key: str, /) -> int | None:
        return await self.real.stat(key)

    async def delete(self, key: str, /) -> None:
        if self.before_delete is not None:
            await self.before_delete()
        await self.real.delete(key)

    def list(self) -> AsyncGenerator[StoreEntry]:
        return self.real.list()
