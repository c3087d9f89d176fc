"""Each change of a file is processed at least once, by one worker at a time, when it is quiet."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from chat.actors import Undo, stored, until_waiting
from scale import scaled
from trees import put

from catbird_db import (
    ClaimedFile,
    FailedFile,
    InvalidArgumentError,
    NotFoundError,
    Pool,
    claim_processing,
    complete_processing,
    delete_file,
    enqueue_processing,
    fail_processing,
    list_dead_processing,
    purge_deleted,
    transaction,
)
from catbird_db.pool import Executor

TIMES = ("changed_at", "waiting_since", "ready_at", "dead_at")


async def pass_time(pool: Pool, seconds: float) -> None:
    """Let it be so much later, for everything that is in the queue."""
    shifted = ", ".join(f"{name} = {name} - make_interval(secs => $1)" for name in TIMES)
    await stored(pool, f"UPDATE processing_queue SET {shifted}", seconds)


async def change(db: Executor, user_id: int, file_id: UUID, priority: Any = 1) -> int:
    return await enqueue_processing(db, user_id=user_id, file_id=file_id, priority=priority)


async def claim(pool: Executor, /, **rest: Any) -> list[ClaimedFile]:
    return await claim_processing(pool, **rest)


async def complete(pool: Executor, claimed: ClaimedFile) -> bool:
    return await complete_processing(
        pool,
        user_id=claimed.user_id,
        file_id=claimed.file_id,
        lease_token=claimed.lease_token,
        changed=claimed.changed,
    )


async def fail(pool: Executor, claimed: ClaimedFile, error: str = "it broke") -> FailedFile | None:
    return await fail_processing(
        pool,
        user_id=claimed.user_id,
        file_id=claimed.file_id,
        lease_token=claimed.lease_token,
        changed=claimed.changed,
        error=error,
    )


async def queue(pool: Pool) -> list[Any]:
    return await stored(pool, "SELECT * FROM processing_queue ORDER BY user_id, file_id")


@pytest.fixture
async def file_id(pool: Pool, alice: int) -> UUID:
    return (await put(pool, alice, "/a.md")).id


# When a file is ready.


async def test_a_file_is_ready_after_five_quiet_seconds(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    assert await change(pool, alice, file_id) == 1
    assert await claim(pool) == []
    await pass_time(pool, 4)
    assert await change(pool, alice, file_id) == 2
    await pass_time(pool, 4)
    assert await claim(pool) == []
    await pass_time(pool, 1.1)
    [one] = await claim(pool)
    assert (one.user_id, one.file_id, one.changed, one.attempts) == (alice, file_id, 2, 1)
    assert await claim(pool) == []
    assert await complete(pool, one) is True
    assert await queue(pool) == []


async def test_a_file_that_never_rests_is_ready_after_sixty_seconds(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    for _ in range(15):
        await change(pool, alice, file_id)
        await pass_time(pool, 3.9)
        assert await claim(pool) == []
    await change(pool, alice, file_id)
    await pass_time(pool, 1.6)
    [one] = await claim(pool)
    assert one.changed == 16


async def test_high_priority_comes_first_then_what_is_ready_longest_and_the_higher_stays(
    pool: Pool, alice: int
) -> None:
    names = ["usual", "late", "urgent", "usual too", "promoted"]
    files = [(await put(pool, alice, f"/{name}.md")).id for name in names]
    for file_id, priority in zip(files, [1, 0, 2, 1, 2], strict=True):
        await change(pool, alice, file_id, priority)
        await pass_time(pool, 6)
    await change(pool, alice, files[4], 0)
    await pass_time(pool, 6)
    order: list[UUID] = []
    for limit in (1, 2, 9):
        order += [one.file_id for one in await claim(pool, limit=limit)]
    assert order[:1] == [files[2]]
    assert set(order[1:3]) == {files[4], files[0]}
    assert set(order[3:]) == {files[3], files[1]}


async def test_a_worker_of_one_user_takes_nothing_of_another(
    pool: Pool, alice: int, bob: int, file_id: UUID
) -> None:
    bobs = (await put(pool, bob, "/a.md")).id
    await change(pool, alice, file_id)
    await change(pool, bob, bobs)
    await pass_time(pool, 6)
    [one] = await claim(pool, user_id=bob)
    assert (one.user_id, one.file_id) == (bob, bobs)
    stolen = one.model_copy(update={"user_id": alice})
    assert await complete(pool, stolen) is False
    assert await fail(pool, stolen) is None
    with pytest.raises(NotFoundError):
        await change(pool, alice, bobs)
    assert len(await queue(pool)) == 2
    assert [claimed.file_id for claimed in await claim(pool)] == [file_id]
    assert (await list_dead_processing(pool, user_id=alice)).items == []


# Leases.


async def test_a_change_that_comes_during_the_work_is_processed_again_when_quiet(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    assert await change(pool, alice, file_id) == 2
    assert await complete(pool, one) is False
    assert await claim(pool) == []
    await pass_time(pool, 6)
    [again] = await claim(pool)
    assert (again.changed, again.attempts) == (2, 1)
    assert await complete(pool, again) is True


async def test_a_change_whose_commit_the_worker_waits_for_is_not_taken_for_done(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    async with transaction(pool) as writing:
        await change(writing, alice, file_id)
        completing = asyncio.create_task(complete(pool, one))
        await until_waiting(pool, "complete_processing")
    assert await completing is False
    [row] = await queue(pool)
    assert (row["changed"], row["lease_token"], row["attempts"]) == (2, None, 0)


async def test_a_change_whose_writer_waits_for_the_completion_is_queued_anew(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    async with transaction(pool) as completing:
        assert await complete(completing, one) is True
        writing = asyncio.create_task(change(pool, alice, file_id))
        await until_waiting(pool, "enqueue_processing")
    assert await writing == 1
    await pass_time(pool, 6)
    assert len(await claim(pool)) == 1


async def test_a_lease_that_ended_is_taken_by_another_and_the_first_worker_decides_no_more(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [first] = await claim(pool, lease=timedelta(seconds=30))
    await pass_time(pool, 29)
    assert await claim(pool) == []
    await pass_time(pool, 2)
    [second] = await claim(pool)
    assert second.lease_token != first.lease_token and second.attempts == 2
    assert await complete(pool, first) is False
    assert await fail(pool, first) is None
    assert await complete(pool, second) is True


async def test_a_lease_that_ended_and_nobody_took_may_still_be_completed(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    await pass_time(pool, 3600)
    assert await complete(pool, one) is True


async def test_a_change_over_a_lease_that_ended_waits_until_the_file_is_quiet(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool, lease=timedelta(seconds=30))
    await pass_time(pool, 31)
    await change(pool, alice, file_id)
    assert await claim(pool) == []
    assert await complete(pool, one) is False  # there is a change more
    await pass_time(pool, 6)
    [again] = await claim(pool)
    assert await complete(pool, again) is True


async def test_a_claim_that_is_rolled_back_leaves_the_file_ready(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    try:
        async with transaction(pool) as tx:
            assert len(await claim(tx)) == 1
            assert await claim(pool) == []
            raise Undo
    except Undo:
        assert len(await claim(pool)) == 1


# Failures.


async def test_a_failure_backs_off_longer_each_time_and_the_fifth_is_the_last(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    for attempt, pause in enumerate((10, 20, 40, 80), start=1):
        [one] = await claim(pool)
        failed = await fail(pool, one, f"broken {attempt}")
        assert failed is not None
        assert (failed.attempts, failed.error, failed.dead_at) == (
            attempt,
            f"broken {attempt}",
            None,
        )
        await pass_time(pool, pause - 1)
        assert await claim(pool) == []
        await pass_time(pool, 1.1)
    [one] = await claim(pool)
    failed = await fail(pool, one, "for good")
    assert failed is not None and failed.dead_at is not None
    await pass_time(pool, 10**6)
    assert await claim(pool) == []
    [dead] = (await list_dead_processing(pool, user_id=alice)).items
    assert (dead.file_id, dead.attempts, dead.error) == (file_id, 5, "for good")


@pytest.mark.parametrize(
    ("error", "kept"),
    [("", ""), ("é" * 20_000, "é" * 10_000), ("a\0b\0", "ab"), ("a\ud800b", "a?b")],
)
async def test_whatever_a_worker_says_of_its_failure_is_kept_as_far_as_it_can_be(
    pool: Pool, alice: int, file_id: UUID, error: str, kept: str
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    failed = await fail(pool, one, error)
    assert failed is not None and failed.error == kept


async def test_a_dead_letter_is_revived_by_a_change_and_begins_anew(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await stored(pool, "UPDATE processing_queue SET dead_at = now(), attempts = 5, error = 'e'")
    await change(pool, alice, file_id)
    assert (await list_dead_processing(pool, user_id=alice)).items == []
    await pass_time(pool, 6)
    [one] = await claim(pool)
    assert (one.changed, one.attempts) == (2, 1)


async def test_a_failure_of_old_content_does_not_count_against_the_new(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    await change(pool, alice, file_id)
    failed = await fail(pool, one)
    assert failed is not None
    assert (failed.attempts, failed.error, failed.dead_at, failed.changed) == (0, None, None, 2)
    await pass_time(pool, 6)
    [again] = await claim(pool)
    assert again.attempts == 1


async def test_a_change_while_a_failure_backs_off_is_tried_when_quiet(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    for _ in range(4):
        await pass_time(pool, 100)
        [one] = await claim(pool)
        await fail(pool, one)
    await change(pool, alice, file_id)
    assert await claim(pool) == []
    await pass_time(pool, 6)
    [one] = await claim(pool)
    assert one.attempts == 1


async def test_a_file_whose_workers_never_come_back_is_given_up(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await change(pool, alice, file_id)
    for attempt in range(1, 6):
        await pass_time(pool, 100)
        [one] = await claim(pool)
        assert one.attempts == attempt
    await pass_time(pool, 100)
    assert await claim(pool) == []
    [dead] = (await list_dead_processing(pool, user_id=alice)).items
    assert (dead.attempts, dead.error) == (5, "its workers did not come back")
    assert await complete(pool, one) is False


@pytest.mark.parametrize("of_one_user", [True, False])
async def test_a_change_during_a_lease_that_expires_is_a_first_attempt(
    pool: Pool, alice: int, file_id: UUID, of_one_user: bool
) -> None:
    only = {"user_id": alice} if of_one_user else {}
    await change(pool, alice, file_id)
    for attempt in range(1, 6):
        await pass_time(pool, 100)
        [one] = await claim(pool, **only)
        assert one.attempts == attempt
    assert await change(pool, alice, file_id) == 2
    for attempt in range(1, 6):
        await pass_time(pool, 100)
        [one] = await claim(pool, **only)
        assert (one.changed, one.attempts) == (2, attempt)
    await pass_time(pool, 100)
    assert await claim(pool, **only) == []
    assert len((await list_dead_processing(pool, user_id=alice)).items) == 1


@pytest.mark.parametrize("of_one_user", [True, False])
async def test_no_claim_is_empty_while_work_is_ready_behind_what_is_given_up(
    pool: Pool, alice: int, of_one_user: bool
) -> None:
    only = {"user_id": alice} if of_one_user else {}
    files = [(await put(pool, alice, f"/{number}.md")).id for number in range(7)]
    for one in files:
        await change(pool, alice, one)
        await pass_time(pool, 10)
    await stored(
        pool,
        "UPDATE processing_queue SET attempts = 5, waiting_since = NULL, lease_token = gen_random_uuid()"
        " WHERE file_id = ANY ($1)",
        files[:5],
    )
    claimed = await claim(pool, limit=2, **only) + await claim(pool, limit=2, **only)
    assert {one.file_id for one in claimed} == set(files[5:])
    assert await claim(pool, limit=2, **only) == []
    assert len((await list_dead_processing(pool, user_id=alice)).items) == 5


async def test_dead_letters_are_paged_the_oldest_first(pool: Pool, alice: int) -> None:
    files = [(await put(pool, alice, f"/{number}.md")).id for number in range(5)]
    for number, one in enumerate(files):
        await change(pool, alice, one)
        await stored(
            pool,
            "UPDATE processing_queue SET dead_at = now() - make_interval(days => $2) WHERE file_id = $1",
            one,
            number // 2,
        )
    seen: list[UUID] = []
    cursor = None
    while True:
        page = await list_dead_processing(pool, user_id=alice, limit=2, cursor=cursor)
        seen += [one.file_id for one in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [files[4], files[2], files[3], files[0], files[1]]


async def test_a_deleted_file_may_be_processed_and_a_purged_one_leaves_the_queue(
    pool: Pool, alice: int, file_id: UUID
) -> None:
    await delete_file(pool, user_id=alice, path="/a.md")
    await change(pool, alice, file_id)
    [now] = await stored(pool, "SELECT now() AS now")
    await purge_deleted(pool, user_id=alice, deleted_before=now["now"])
    assert await queue(pool) == []
    with pytest.raises(NotFoundError):
        await change(pool, alice, file_id)


@pytest.mark.parametrize("lease", [timedelta(0), timedelta(days=2), timedelta(seconds=-5), 60])
async def test_a_lease_of_no_length_or_of_days_is_refused(pool: Pool, lease: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="lease"):
        await claim_processing(pool, lease=lease)


# Many workers.


@dataclass
class Work:
    """What many writers and workers saw.

    ``begun``: for each file the changes committed before a completed work on it was claimed.
    """

    committed: Counter[UUID] = field(default_factory=Counter[UUID])
    processed: Counter[UUID] = field(default_factory=Counter[UUID])
    busy: dict[UUID, UUID] = field(default_factory=dict)
    overlaps: list[UUID] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter[str])
    writing: int = 0


async def test_however_many_write_work_fail_and_vanish_each_change_is_processed_by_one_at_a_time(
    pool: Pool, alice: int
) -> None:
    """The content of a file is a number in its title; each change adds one, and a worker reads it.

    A worker that completes has read a number: at the end it is that of the last change.
    """
    files = [(await put(pool, alice, f"/{number}.md")).id for number in range(12)]
    await stored(
        pool,
        "INSERT INTO frontmatter (user_id, file_id, title) SELECT $1, unnest($2::uuid[]), '0'",
        alice,
        files,
    )
    work = Work()

    async def writer() -> None:
        work.writing += 1
        for _ in range(scaled(60, 600)):
            file_id, kept = random.choice(files), random.random() < 0.8
            try:
                async with transaction(pool) as tx:
                    await tx.execute(
                        "UPDATE frontmatter SET title = (title::int + 1)::text WHERE file_id = $1",
                        file_id,
                    )
                    await change(tx, alice, file_id, random.randrange(3))
                    await asyncio.sleep(random.random() * 0.004)
                    if not kept:
                        raise Undo
                work.committed[file_id] += 1
            except Undo:
                pass
        work.writing -= 1

    async def worker(number: int) -> None:
        whose = {"user_id": alice} if number % 2 else {}
        while work.writing or await queue(pool):
            claimed = await claim(
                pool, limit=random.choice([1, 3]), lease=timedelta(days=1), **whose
            )
            for one in claimed:
                if one.file_id in work.busy:
                    work.overlaps.append(one.file_id)
                work.busy[one.file_id] = one.lease_token
            for one in claimed:
                [row] = await stored(
                    pool, "SELECT title FROM frontmatter WHERE file_id = $1", one.file_id
                )
                await asyncio.sleep(random.random() * 0.004)
                kind = random.choice(["complete"] * 5 + ["fail", "vanish"])
                work.kinds[kind] += 1
                del work.busy[one.file_id]
                if kind == "complete":
                    done = await complete(pool, one)
                    work.kinds["again"] += not done
                    work.processed[one.file_id] = max(
                        work.processed[one.file_id], int(row["title"])
                    )
                elif kind == "fail":
                    await fail(pool, one)
                else:  # its lease ends
                    await stored(
                        pool,
                        "UPDATE processing_queue SET ready_at = now() WHERE file_id = $1 AND lease_token = $2",
                        one.file_id,
                        one.lease_token,
                    )
            await asyncio.sleep(0.002)

    async def clock() -> None:
        """A minute passes, for what is not leased; and nothing is given up."""
        while work.writing or await queue(pool):
            await stored(
                pool,
                "UPDATE processing_queue SET attempts = least(attempts, 1), dead_at = NULL,"
                " ready_at = CASE WHEN lease_token IS NULL THEN now() ELSE ready_at END",
            )
            await asyncio.sleep(0.02)

    async with asyncio.timeout(scaled(60, 600)), asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(writer())
        await asyncio.sleep(0)
        for number in range(16):
            tasks.create_task(worker(number))
        tasks.create_task(clock())

    assert work.overlaps == []
    assert min(work.kinds[kind] for kind in ("complete", "fail", "vanish", "again")) > 0, work.kinds
    assert work.processed == work.committed


async def test_many_claimants_share_what_is_ready_without_meeting(pool: Pool, alice: int) -> None:
    files = [(await put(pool, alice, f"/{number}.md")).id for number in range(60)]
    for file_id in files:
        await change(pool, alice, file_id, random.randrange(3))
    await pass_time(pool, 6)
    taken: Counter[UUID] = Counter()

    async def worker() -> None:
        for _ in range(20):
            taken.update(one.file_id for one in await claim(pool, limit=2))

    await asyncio.gather(*(worker() for _ in range(20)))
    assert taken == Counter(files)


async def test_a_made_up_token_completes_nothing(pool: Pool, alice: int, file_id: UUID) -> None:
    await change(pool, alice, file_id)
    await pass_time(pool, 6)
    [one] = await claim(pool)
    assert await complete(pool, one.model_copy(update={"lease_token": uuid4()})) is False
    assert len(await queue(pool)) == 1
