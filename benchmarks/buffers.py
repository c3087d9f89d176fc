"""Buffers that a statement touches in a small and in a large table: cost must not grow with it.

Two databases, so that the indexes of the large one are higher. Each statement is prepared, planned
for its arguments (custom) and for any (generic), and run by EXPLAIN (ANALYZE, BUFFERS) EXECUTE.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import asyncpg
from uuid_utils.compat import uuid7

from catbird_db.embedded import EmbeddedServer

from .contenders import PAGE, statement
from .tables import (
    CIPHERTEXT,
    READER,
    SUITE,
    create_database,
    current_epoch,
    fill_background,
    fill_conversations,
    fill_key_packages,
    fill_messages,
    fill_vault,
)

__all__ = ["Buffers", "Burst", "Sizes", "Touched", "measure_buffers"]

Plan: TypeAlias = Literal["custom", "generic"]
Run: TypeAlias = Callable[[], str]

LARGE_CONVO, SMALL_CONVO = "large", "small"  # in the midst of other people's
LARGE_DID, SMALL_DID = "did:plc:large", "did:plc:small"
LARGE_USER, SMALL_USER = 2_000, 1_000
FOLDER = "/tree/folder 000005"
RUNS = 5
"""Of each statement; the median counts."""

APPENDS = 100
"""create_message calls of which the mean by relation is taken."""

VACUUM = "VACUUM (ANALYZE, INDEX_CLEANUP ON)"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of the small and of the large database; claims of a burst, without and with a snapshot."""

    messages: tuple[int, int] = (10_000, 1_000_000)
    packages: tuple[int, int] = (1_000, 1_000_000)
    files: tuple[int, int] = (1_000, 1_000_000)
    burst: tuple[int, ...] = (0, 10, 100, 1_000, 10_000)
    burst_under_snapshot: tuple[int, ...] = (0, 10, 100, 1_000)


@dataclass(frozen=True, slots=True)
class Touched:
    """Buffers of one statement and plan.

    Attributes:
        rows: of the small and of the large conversation, DID, or vault.
        small: in a database of the small one's size.
        small_beside_large: of the small one in the large database, whose indexes are higher.
        large: in the large database.
    """

    operation: str
    plan: Plan
    rows: tuple[int, int]
    small: int
    small_beside_large: int
    large: int


@dataclass(frozen=True, slots=True)
class Burst:
    """Buffers and milliseconds of the claim that follows so many others since the last vacuum."""

    claims: int
    under_snapshot: bool
    buffers: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Buffers:
    """All that was found.

    Attributes:
        touched: by statement and plan.
        by_relation: buffers of one create_message in the large database, foreign keys included.
        bursts: claims in the large database; the last one after a vacuum.
        fill_seconds: how long the two databases took to fill.
    """

    touched: list[Touched]
    by_relation: dict[str, float]
    bursts: list[Burst]
    fill_seconds: float


async def measure_buffers(server: EmbeddedServer, sizes: Sizes) -> Buffers:
    start = time.perf_counter()
    small, large = await asyncio.gather(
        _filled(server, "buffers_small", sizes, large=False),
        _filled(server, "buffers_large", sizes, large=True),
    )
    fill_seconds = time.perf_counter() - start
    async with _connected(small) as in_small, _connected(large) as in_large:
        touched = [
            await _touched(in_small, in_large, operation, plan, sizes)
            for operation in STATEMENT_OF
            for plan in ("custom", "generic")
        ]
        by_relation = await _by_relation(in_large, sizes)
        bursts = await _bursts(in_large, sizes, under_snapshot=False)
        async with _connected(large) as onlooker, onlooker.transaction(isolation="repeatable_read"):
            await onlooker.execute("SELECT FROM key_packages LIMIT 1")  # takes the snapshot
            bursts += await _bursts(in_large, sizes, under_snapshot=True)
    return Buffers(touched, by_relation, bursts, fill_seconds)


async def _filled(server: EmbeddedServer, name: str, sizes: Sizes, *, large: bool) -> str:
    """A database with a small conversation, DID and vault, and perhaps a large one of each."""
    url = await create_database(server, name)
    async with _connected(url) as one, _connected(url) as other:
        await fill_background(one)
        await fill_conversations(one, [SMALL_CONVO])
        await fill_messages(one, [SMALL_CONVO], sizes.messages[0])
        await fill_key_packages(one, [SMALL_DID], sizes.packages[0])
        await fill_vault(one, SMALL_USER, sizes.files[0])
        if large:
            await fill_conversations(one, [LARGE_CONVO])
            await asyncio.gather(
                fill_messages(one, [LARGE_CONVO], sizes.messages[1]),
                fill_key_packages(other, [LARGE_DID], sizes.packages[1]),
            )
            await fill_vault(one, LARGE_USER, sizes.files[1])
        await one.execute(VACUUM)
    return url


async def _touched(
    in_small: Any, in_large: Any, operation: str, plan: Plan, sizes: Sizes
) -> Touched:
    claims = operation == "consume_key_package"
    if claims:
        await in_small.execute(f"{VACUUM} key_packages")
        await in_large.execute(f"{VACUUM} key_packages")
    small, large = (
        _arguments(operation, sizes, large=False),
        _arguments(operation, sizes, large=True),
    )
    return Touched(
        operation,
        plan,
        _sizes_of(operation, sizes),
        small=await _median_buffers(in_small, operation, plan, small),
        small_beside_large=await _median_buffers(in_large, operation, plan, small),
        large=await _median_buffers(in_large, operation, plan, large),
    )


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


# Explaining.


async def _median_buffers(
    connection: Any, operation: str, plan: Plan, arguments: dict[str, object]
) -> int:
    execute = await _prepare(connection, operation, plan, arguments)
    runs = [(await _explain(connection, execute()))[0] for _ in range(RUNS)]
    return round(statistics.median(runs))


def _sizes_of(operation: str, sizes: Sizes) -> tuple[int, int]:
    match operation:
        case "consume_key_package":
            return sizes.packages
        case "list_folder" | "find_file_by_path":
            return sizes.files
        case _:
            return sizes.messages


STATEMENT_OF = {
    "list_messages": "messages.list_messages",
    "list_messages_since": "messages.list_messages_since",
    "create_message": "messages.append_message",
    "consume_key_package": "key_packages.claim_key_package",
    "list_folder": "vault.folders.list_folder",
    "find_file_by_path": "vault.files.find_file_by_path",
}

_numbers = itertools.count(1)


async def _prepare(
    connection: Any, operation: str, plan: Plan, arguments: dict[str, object]
) -> Run:
    """Prepare a statement, and return what makes an EXECUTE of it; each has a new message_id."""
    what = statement(STATEMENT_OF[operation])
    name = f"{operation}_{next(_numbers)}"
    await connection.execute(f"SET plan_cache_mode = force_{plan}_plan")
    await connection.execute(f"PREPARE {name} AS {what.sql}")

    def execute() -> str:
        given = {**arguments, "message_id": str(uuid7())}
        return f"EXECUTE {name} ({', '.join(_literal(given[one]) for one in what.parameters)})"

    return execute


def _arguments(operation: str, sizes: Sizes, *, large: bool) -> dict[str, object]:
    messages = sizes.messages[large]
    convo_id = LARGE_CONVO if large else SMALL_CONVO
    reading: dict[str, object] = {"convo_id": convo_id, "reader_did": READER}
    match operation:
        case "list_messages":
            return {**reading, "limit": PAGE + 1, "cursor_seq": None}
        case "list_messages_since":
            return {**reading, "limit": PAGE, "after_seq": messages // 2}
        case "create_message":
            return {
                "convo_id": convo_id,
                "sender_did": READER,
                "epoch": current_epoch(messages),
                "epoch_window": 0,
                "message_type": "app",
                "ciphertext": CIPHERTEXT,
            }
        case "list_folder":
            user_id = LARGE_USER if large else SMALL_USER
            return {"user_id": user_id, "path": FOLDER, "limit": PAGE + 1, "cursor_path": None}
        case "find_file_by_path":
            user_id = LARGE_USER if large else SMALL_USER
            return {"user_id": user_id, "path": f"{FOLDER}/note 050.md"}
        case _:
            did = LARGE_DID if large else SMALL_DID
            return {"did": did, "cipher_suite": SUITE, "convo_id": None}


def _literal(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bytes():
            return rf"'\x{value.hex()}'"
        case str():
            return f"'{value}'"
        case _:
            return str(value)


async def _explain(connection: Any, execute: str) -> tuple[int, float]:
    """Shared buffers hit and read by a statement, and its milliseconds."""
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
    [explained] = json.loads(text)
    return _buffers(explained["Plan"]), explained["Execution Time"]


def _buffers(top: dict[str, Any]) -> int:
    """The top node's, and those of the CTEs that nothing reads: they run after it, and are not in it."""
    read = {node["CTE Name"] for node in _nodes(top) if "CTE Name" in node}
    after = [
        node
        for node in top.get("Plans", [])
        if node.get("Subplan Name", "").startswith("CTE ") and node["Subplan Name"][4:] not in read
    ]
    return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in (top, *after))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


# What EXPLAIN does not show: which relation, and the check of the foreign key.

TOUCHED_SO_FAR = """
SELECT relname AS relation, heap_blks_hit + heap_blks_read AS buffers FROM pg_statio_user_tables
 UNION ALL
SELECT indexrelname, idx_blks_hit + idx_blks_read FROM pg_statio_user_indexes
"""


async def _by_relation(connection: Any, sizes: Sizes) -> dict[str, float]:
    arguments = _arguments("create_message", sizes, large=True)
    execute = await _prepare(connection, "create_message", "generic", arguments)
    await connection.execute(execute())
    before = await _touched_so_far(connection)
    for _ in range(APPENDS):
        await connection.execute(execute())
    after = await _touched_so_far(connection)
    return {
        relation: (after[relation] - before[relation]) / APPENDS
        for relation in sorted(after)
        if after[relation] > before[relation]
    }


async def _touched_so_far(connection: Any) -> dict[str, int]:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    return {row["relation"]: row["buffers"] for row in await connection.fetch(TOUCHED_SO_FAR)}


# Claims without vacuum: each leaves a dead entry at the head of the index that the next one reads.


async def _bursts(connection: Any, sizes: Sizes, *, under_snapshot: bool) -> list[Burst]:
    await connection.execute(f"{VACUUM} key_packages")
    arguments = _arguments("consume_key_package", sizes, large=True)
    execute = await _prepare(connection, "consume_key_package", "generic", arguments)
    bursts: list[Burst] = []
    done = 0
    for claims in sizes.burst_under_snapshot if under_snapshot else sizes.burst:
        for _ in range(claims - done):
            await connection.execute(execute())
        buffers, milliseconds = await _explain(connection, execute())
        bursts.append(Burst(claims, under_snapshot, buffers, milliseconds))
        done = claims + 1
    return bursts
