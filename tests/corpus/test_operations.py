"""Operations: allowed transitions and no others, one worker at a time, and leases that fence."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import product
from typing import get_args
from uuid import UUID, uuid4

import pytest
from corpus.shelf import collection
from scale import scaled

from catbird_db import (
    OPERATION_TRANSITIONS,
    ClaimedOperation,
    Collection,
    ConflictError,
    InvalidArgumentError,
    Operation,
    Pool,
    cancel_operation,
    claim_operation,
    complete_operation,
    create_operation,
    fail_operation,
    get_operation,
    list_operations,
    renew_operation_lease,
    report_operation_progress,
)
from catbird_db.types import OperationStatus

STATUSES = get_args(OperationStatus)


async def ask(pool: Pool, on: Collection) -> Operation:
    return await create_operation(pool, collection_id=on.id, user_id=on.owner_id, type="index")


async def test_each_operation_is_listed_whatever_its_id(catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    whose = {"collection_id": on.id, "user_id": on.owner_id}
    for id in (UUID(int=0), UUID(int=2**128 - 2)):
        await create_operation(catbird_pool, **whose, type="index", operation_id=id)
    with pytest.raises(InvalidArgumentError, match="operation_id"):
        await create_operation(
            catbird_pool, **whose, type="index", operation_id=UUID(int=2**128 - 1)
        )
    listed = await list_operations(catbird_pool, **whose)
    assert [one.id.int for one in listed.items] == [2**128 - 2, 0]


async def end_leases(pool: Pool, *operation_ids: UUID) -> None:
    """As if the workers had been silent for too long."""
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE operations SET claimable_at = statement_timestamp() - interval '1 second'"
            " WHERE status = 'processing' AND id = ANY ($1)",
            operation_ids,
        )


async def put_first(pool: Pool, operation_id: UUID) -> None:
    """As if it had waited for a day, or been left by its worker a day ago."""
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE operations SET claimable_at = statement_timestamp() - interval '1 day' WHERE id = $1",
            operation_id,
        )


async def row(pool: Pool, operation: Operation) -> str:
    async with pool.connection() as connection:
        return await connection.fetchval(
            "SELECT o::text FROM operations AS o WHERE o.id = $1", operation.id
        )


def of(claimed: ClaimedOperation) -> dict[str, UUID]:
    return {
        "collection_id": claimed.collection_id,
        "operation_id": claimed.id,
        "lease_token": claimed.lease_token,
    }


WRITES: dict[str, Callable[[Pool, dict[str, UUID]], Awaitable[bool]]] = {
    "renew": lambda pool, who: renew_operation_lease(pool, **who),
    "report": lambda pool, who: report_operation_progress(pool, **who, progress=50),
    "complete": lambda pool, who: complete_operation(pool, **who),
    "fail": lambda pool, who: fail_operation(pool, **who, error_message="broken"),
}


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
async def test_a_status_becomes_what_the_table_allows_and_nothing_else(
    before: OperationStatus, after: OperationStatus, catbird_pool: Pool
) -> None:
    on = await collection(catbird_pool)
    operation = await ask(catbird_pool, on)
    whose = {"collection_id": on.id, "operation_id": operation.id, "user_id": on.owner_id}
    token = uuid4()

    async def make(status: OperationStatus) -> bool:
        nonlocal token
        worker = {"collection_id": on.id, "operation_id": operation.id, "lease_token": token}
        match status:
            case "pending":
                return False  # nothing makes it so again
            case "processing":
                claimed = await claim_operation(catbird_pool)
                token = claimed.lease_token if claimed else token
                return claimed is not None
            case "completed":
                return await complete_operation(catbird_pool, **worker)
            case "failed":
                return await fail_operation(catbird_pool, **worker, error_message="broken")
            case "cancelled":
                return await cancel_operation(catbird_pool, **whose)

    if before in ("completed", "failed"):
        assert await make("processing")
    assert before == "pending" or await make(before)
    if (before, after) == ("processing", "processing"):
        assert not await make(after), "its lease has not ended"
        await end_leases(catbird_pool, operation.id)
    held = await row(catbird_pool, operation)

    done = await make(after)

    assert done == (after in OPERATION_TRANSITIONS[before])
    found = await get_operation(catbird_pool, **whose)
    assert found.status == (after if done else before)
    if not done:
        assert await row(catbird_pool, operation) == held


async def test_an_operation_that_five_workers_died_of_is_failed_and_the_next_one_claimed(
    catbird_pool: Pool,
) -> None:
    on = await collection(catbird_pool)
    deadly, next_one = await ask(catbird_pool, on), await ask(catbird_pool, on)
    for attempt in range(1, 6):
        await put_first(catbird_pool, deadly.id)
        claimed = await claim_operation(catbird_pool)
        assert claimed is not None
        assert (claimed.id, claimed.attempts) == (deadly.id, attempt)
        assert await report_operation_progress(catbird_pool, **of(claimed), progress=70)
    await put_first(catbird_pool, deadly.id)
    claimed = await claim_operation(catbird_pool)
    assert claimed is not None
    assert claimed.id == next_one.id
    whose = {"collection_id": on.id, "operation_id": deadly.id, "user_id": on.owner_id}
    failed = await get_operation(catbird_pool, **whose)
    assert (failed.status, failed.attempts, failed.progress) == ("failed", 5, 70)
    assert failed.error_message == "its workers did not come back, 5 times"
    assert failed.finished_at is not None
    assert await claim_operation(catbird_pool) is None
    assert not await cancel_operation(catbird_pool, **whose)


async def test_many_workers_run_each_operation_once_and_never_two_one(pools: list[Pool]) -> None:
    pool = pools[0]
    some = [await collection(pool) for _ in range(5)]
    count = scaled(150, 3000)
    asked = [await ask(pool, random.choice(some)) for _ in range(count)]
    running: Counter[UUID] = Counter()
    ran: Counter[UUID] = Counter()

    async def worker(number: int) -> None:
        while claimed := await claim_operation(pools[number % 3]):
            running[claimed.id] += 1
            assert running[claimed.id] == 1, "two run it"
            assert await report_operation_progress(
                pools[number % 3], **of(claimed), progress=random.randrange(101)
            )
            running[claimed.id] -= 1
            ran[claimed.id] += 1
            if random.random() < 0.1:
                assert await fail_operation(
                    pools[number % 3], **of(claimed), error_message="broken"
                )
            else:
                assert await complete_operation(pools[number % 3], **of(claimed))

    await asyncio.gather(*(worker(number) for number in range(24)))
    assert ran == Counter({one.id: 1 for one in asked})


async def test_where_leases_end_under_workers_each_operation_is_completed_once(
    pools: list[Pool],
) -> None:
    """The newest claimant of an operation is the only one that is heard."""
    pool = pools[0]
    on = await collection(pool)
    asked = {(await ask(pool, on)).id for _ in range(scaled(60, 1000))}
    newest: dict[UUID, UUID] = {}
    completed: Counter[UUID] = Counter()
    refused = 0

    async def worker(number: int) -> None:
        nonlocal refused
        while len(completed) < len(asked):
            claimed = await claim_operation(pools[number % 3])
            if claimed is None:
                await asyncio.sleep(0.005)
                continue
            newest[claimed.id] = claimed.lease_token
            if claimed.attempts < 5 and random.random() < 0.5:
                await end_leases(pool, claimed.id)
                await asyncio.sleep(random.random() * 0.02)
            if await complete_operation(pools[number % 3], **of(claimed)):
                completed[claimed.id] += 1
                assert newest[claimed.id] == claimed.lease_token, "an older claimant was heard"
            else:
                refused += 1

    await asyncio.gather(*(worker(number) for number in range(16)))
    assert completed == Counter(dict.fromkeys(asked, 1))
    assert refused > 10, "the attack did not happen"
    listed = await list_operations(
        pool, collection_id=on.id, user_id=on.owner_id, status="completed", limit=500
    )
    assert {one.id for one in listed.items} <= asked
    assert max(one.attempts for one in listed.items) > 1


@pytest.mark.parametrize("write", WRITES)
async def test_a_worker_that_lost_its_lease_changes_nothing(write: str, catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    operation = await ask(catbird_pool, on)
    first = await claim_operation(catbird_pool)
    assert first is not None
    await end_leases(catbird_pool, operation.id)
    before = await row(catbird_pool, operation)
    assert await WRITES[write](catbird_pool, of(first)) is False, "its lease has ended"
    assert await row(catbird_pool, operation) == before

    second = await claim_operation(catbird_pool)
    assert second is not None
    assert (second.id, second.attempts) == (operation.id, 2)
    before = await row(catbird_pool, operation)
    assert await WRITES[write](catbird_pool, of(first)) is False, "another one has it"
    assert await row(catbird_pool, operation) == before
    assert await WRITES[write](catbird_pool, of(second)) is True


@pytest.mark.parametrize("write", WRITES)
async def test_a_token_is_good_for_its_own_operation_alone(write: str, catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    for _ in range(2):
        await ask(catbird_pool, on)
    one, other = await claim_operation(catbird_pool), await claim_operation(catbird_pool)
    assert one is not None
    assert other is not None
    before = await row(catbird_pool, other)
    assert not await WRITES[write](catbird_pool, {**of(other), "lease_token": one.lease_token})
    assert await row(catbird_pool, other) == before


async def test_a_heartbeat_extends_the_lease_and_never_shortens_it(catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    await ask(catbird_pool, on)
    claimed = await claim_operation(catbird_pool, lease=timedelta(hours=1))
    assert claimed is not None

    async def lease_until() -> object:
        async with catbird_pool.connection() as connection:
            return await connection.fetchval("SELECT claimable_at FROM operations")

    await renew_operation_lease(catbird_pool, **of(claimed), lease=timedelta(seconds=1))
    assert await lease_until() == claimed.lease_until
    await renew_operation_lease(catbird_pool, **of(claimed), lease=timedelta(hours=2))
    assert await lease_until() != claimed.lease_until


async def test_what_is_cancelled_is_never_claimed_again_nor_completed(pools: list[Pool]) -> None:
    on = await collection(pools[0])
    heard = 0
    for _ in range(scaled(60, 1000)):
        operation = await ask(pools[0], on)
        whose = {"collection_id": on.id, "operation_id": operation.id, "user_id": on.owner_id}
        claimed, cancelled = await asyncio.gather(
            claim_operation(pools[1]), cancel_operation(pools[2], **whose)
        )
        assert cancelled
        if claimed is not None:
            heard += 1
            assert not await complete_operation(pools[1], **of(claimed))
            await end_leases(pools[0], operation.id)
        assert await claim_operation(pools[1]) is None
        assert (await get_operation(pools[0], **whose)).status == "cancelled"
        assert not await cancel_operation(pools[2], **whose)
    assert heard > 0, "no race was run"


async def test_a_claim_that_is_rolled_back_leaves_the_operation_to_others(
    catbird_pool: Pool,
) -> None:
    await ask(catbird_pool, await collection(catbird_pool))
    async with catbird_pool.connection() as connection:
        begun = connection.transaction()
        await begun.start()
        assert await claim_operation(connection) is not None
        assert await claim_operation(catbird_pool) is None, "while it is held"
        await begun.rollback()
    claimed = await claim_operation(catbird_pool)
    assert claimed is not None
    assert claimed.attempts == 1


async def test_operations_are_claimed_in_the_order_of_their_waiting(catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    asked = [await ask(catbird_pool, on) for _ in range(5)]
    claimed = [await claim_operation(catbird_pool) for _ in range(6)]
    assert [one and one.id for one in claimed] == [*(one.id for one in asked), None]


async def test_lists_page_newest_first_of_all_or_of_one_status(catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    asked = [(await ask(catbird_pool, on)).id for _ in range(7)]
    whose = {"collection_id": on.id, "user_id": on.owner_id}
    for _ in range(3):
        await claim_operation(catbird_pool)
    for status, expected in ((None, asked), ("processing", asked[:3]), ("pending", asked[3:])):
        found: list[UUID] = []
        cursor = None
        while True:
            page = await list_operations(
                catbird_pool, **whose, status=status, limit=2, cursor=cursor
            )
            found += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == expected[::-1]


async def test_an_id_that_is_taken_is_a_conflict(catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    operation = await ask(catbird_pool, on)
    with pytest.raises(ConflictError, match="operation id"):
        await create_operation(
            catbird_pool,
            collection_id=on.id,
            user_id=on.owner_id,
            type="index",
            operation_id=operation.id,
        )


async def test_an_operation_does_not_show_the_token_of_its_worker(catbird_pool: Pool) -> None:
    on = await collection(catbird_pool)
    operation = await ask(catbird_pool, on)
    claimed = await claim_operation(catbird_pool)
    assert claimed is not None
    seen = await get_operation(
        catbird_pool, collection_id=on.id, operation_id=operation.id, user_id=on.owner_id
    )
    assert f"{claimed.lease_token}" not in seen.model_dump_json()
