"""Every public function about data, called as ``function(db, **arguments)``: for the generated tests.

A function that takes an object store by position gets one in memory; one that streams gives all
its bytes at once.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import wraps
from typing import Any, BinaryIO, Literal, TypeAlias

import catbird_db
from catbird_db import StoreEntry
from catbird_db.storage.objects import OWNER_KEY

Function: TypeAlias = Callable[..., Awaitable[Any]]

ABOUT_THE_POOL = {
    "health_check",
    "open_database",
    "open_pool",
    "open_store",
    "run_transaction",
    "transaction",
}
"""Asynchronous functions that run no statement of their own on an executor."""


class MemoryStore:
    """An object store of a test's own: no promise of the real ones is tested by it."""

    dedupe: Literal["global", "tenant"] = "global"
    lease = 900.0

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, key: str, body: BinaryIO, size: int, /) -> int:
        self.kept[key] = body.read(size)
        return len(self.kept[key])

    async def get(
        self, key: str, /, *, start: int, length: int, seen: Callable[[bytes], object]
    ) -> AsyncGenerator[bytes]:
        if key not in self.kept:
            raise FileNotFoundError
        chunk = self.kept[key][start : start + length]
        seen(chunk)
        yield chunk

    async def stat(self, key: str, /) -> int | None:
        return len(self.kept[key]) if key in self.kept else None

    async def delete(self, key: str, /) -> None:
        self.kept.pop(key, None)

    async def list(self) -> AsyncGenerator[StoreEntry]:
        for key, value in [*self.kept.items()]:
            yield StoreEntry(key, len(value))


STORE = MemoryStore()


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Those that are given by name; the fields of a model."""
    found = inspect.signature(function).parameters
    return {name: one for name, one in found.items() if one.kind is one.KEYWORD_ONLY}


def functions() -> dict[str, Function]:
    """By name."""
    found: dict[str, Function] = {}
    for name in catbird_db.__all__:
        function = getattr(catbird_db, name)
        own = inspect.unwrap(function) if inspect.isfunction(function) else None
        is_async = inspect.iscoroutinefunction(own) or inspect.isasyncgenfunction(own)
        if is_async and name not in ABOUT_THE_POOL:
            found[name] = _on_executor(function)
    return found


def _on_executor(function: Callable[..., Any]) -> Function:
    signature = inspect.signature(function).parameters.values()
    stores = sum(one.kind is one.POSITIONAL_ONLY for one in signature) - 1

    @wraps(function)
    async def call(db: Any, /, **given: Any) -> Any:
        STORE.kept.pop(OWNER_KEY, None)  # each test has a database of its own
        answer = function(db, *[STORE] * stores, **given)
        if inspect.isawaitable(answer):
            return await answer
        return b"".join([chunk async for chunk in answer])

    return call
