"""A key package goes to one claimant, and nobody is told there is none while there is one."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from actors import Undo, stored
from scale import scaled

from catbird_db import (
    KeyPackage,
    NewKeyPackage,
    NewWelcome,
    Observation,
    Pool,
    Settings,
    WelcomeRecipient,
    acknowledge_welcome,
    commit_group_change,
    consume_key_package,
    consume_key_packages,
    count_key_packages,
    create_conversation,
    delete_expired_key_packages,
    delete_key_packages,
    get_key_package,
    list_pending_welcomes,
    open_pool,
    store_key_package,
    store_key_packages,
    transaction,
)

ALICE, BOB = "did:plc:alice", "did:plc:bob"
SUITE, OTHER_SUITE = 1, 2
SOON = datetime(2099, 1, 1, tzinfo=UTC)
PATIENCE = 30.0
"""Seconds after which a call that waits for a lock has waited in vain."""


@pytest.fixture
async def wide_pool(catbird_settings: Settings) -> AsyncGenerator[Pool]:
    """A connection for each of 40 tasks, so that they meet in the database and not before it."""
    settings = catbird_settings.model_copy(update={"db_pool_max_size": 40})
    async with open_pool(settings) as pool:
        yield pool


def package(data: str | bytes, /, **rest: Any) -> NewKeyPackage:
    key_data = data.encode() if isinstance(data, str) else data
    return NewKeyPackage(**{"cipher_suite": SUITE, "expires_at": SOON, **rest}, key_data=key_data)


def arguments(data: str, /, **rest: Any) -> dict[str, Any]:
    return {"did": ALICE, **dict(package(data, **rest))}


async def store(pool: Pool, data: str, /, **rest: Any) -> KeyPackage:
    return await store_key_package(pool, **arguments(data, **rest))


async def claim(pool: Any, /, **rest: Any) -> KeyPackage | None:
    return await consume_key_package(pool, **{"did": ALICE, "cipher_suite": SUITE, **rest})


async def claim_data(pool: Any, /, **rest: Any) -> str | None:
    claimed = await claim(pool, **rest)
    return claimed and claimed.key_data.decode()


async def rows(pool: Pool, condition: str = "true") -> list[Any]:
    return await stored(
        pool, f"SELECT * FROM key_packages WHERE {condition} ORDER BY created_at, id"
    )


async def age(pool: Pool, days: int, condition: str = "true") -> None:
    """Let it be so many days since these packages expired."""
    await stored(
        pool,
        f"UPDATE key_packages SET expires_at = now() - make_interval(days => $1) WHERE {condition}",
        days,
    )


# Many claimants at once.


@dataclass
class Hunt:
    """What many claimants saw, by the clock: when each package was taken or being taken."""

    devices: dict[bytes, str]
    taken: Counter[bytes] = field(default_factory=Counter[bytes])
    busy: dict[bytes, list[tuple[float, float]]] = field(default_factory=dict)
    empty_handed: list[tuple[float, float, str | None]] = field(default_factory=list)
    rolled_back: int = 0

    @property
    def is_over(self) -> bool:
        return len(self.taken) >= len(self.devices)

    def note_busy(self, data: bytes, since: float, until: float) -> None:
        self.busy.setdefault(data, []).append((since, until))

    def wrongly_refused(self) -> list[str]:
        """Who went away without a one-time package that was free from before the call to after it.

        A package counts as busy from the moment a call that gets it begins, and until the
        rollback has ended: so whatever is found here is beyond doubt.
        """
        return [
            f"{data!r} was free while a claim on {device or 'any device'} found nothing"
            for start, end, device in self.empty_handed
            for data, owner in self.devices.items()
            if device in (None, owner)
            and not any(since < end and until > start for since, until in self.busy.get(data, []))
        ]


async def hunt_alone(pool: Any, hunt: Hunt, kind: str) -> tuple[float, float, list[KeyPackage]]:
    """One claim of one of three kinds; what it did not get is noted, what it got is returned."""
    start = time.monotonic()
    wanted: list[str | None] = [None]
    if kind == "all":
        wanted = sorted(set(hunt.devices.values()))
        found = await consume_key_packages(pool, dids=[ALICE], cipher_suite=SUITE)
    else:
        if kind == "device":
            wanted = [random.choice(sorted(set(hunt.devices.values())))]
        one = await claim(pool, device_id=wanted[0])
        found = [] if one is None else [one]
    end = time.monotonic()
    got = [one for one in found if not one.last_resort]
    for device in wanted:
        if not any(device in (None, one.device_id) for one in got):
            hunt.empty_handed.append((start, end, device))
    return start, end, got


async def claimant(pool: Pool, hunt: Hunt, kind: str, *, wavers: bool) -> None:
    """Claim until all are taken; who wavers claims in a transaction, and may roll it back."""
    while not hunt.is_over:
        if not wavers:
            start, _, got = await hunt_alone(pool, hunt, kind)
            kept = True
        else:
            kept = random.random() < 0.5
            try:
                async with transaction(pool) as tx:
                    start, _, got = await hunt_alone(tx, hunt, kind)
                    await asyncio.sleep(random.random() * 0.005)
                    if not kept:
                        raise Undo
            except Undo:
                hunt.rolled_back += len(got)
        end = time.monotonic()
        for one in got:
            hunt.note_busy(one.key_data, start, float("inf") if kept else end)
            hunt.taken[one.key_data] += kept
        hunt.taken = +hunt.taken


async def test_each_of_500_packages_goes_to_one_claimant_and_nobody_leaves_empty_handed_before(
    wide_pool: Pool,
) -> None:
    count = scaled(500, 5000)
    batch = [package(f"{number}", device_id=f"phone-{number % 5}") for number in range(count)]
    for start in range(0, count, 1000):
        await store_key_packages(wide_pool, did=ALICE, packages=batch[start : start + 1000])
    last_resorts = {f"phone-{number}": f"last-{number}" for number in range(5)}
    for device, data in last_resorts.items():
        await store(wide_pool, data, device_id=device, last_resort=True)
    hunt = Hunt({one.key_data: one.device_id for one in batch})

    async def publisher() -> None:
        """A device that is not sure whether its packages arrived, and sends them again."""
        while not hunt.is_over:
            again = random.sample(batch, 20)
            async with transaction(wide_pool) as tx:
                await store_key_package(tx, did=ALICE, **dict(again[0]))
                await store_key_packages(tx, did=ALICE, packages=again)
                await asyncio.sleep(random.random() * 0.005)

    kinds = ["any"] * 18 + ["device"] * 8 + ["all"] * 6
    async with asyncio.timeout(scaled(60, 600)), asyncio.TaskGroup() as tasks:
        for number, kind in enumerate(kinds):
            tasks.create_task(claimant(wide_pool, hunt, kind, wavers=number % 4 == 0))
        for _ in range(4):
            tasks.create_task(publisher())

    assert [data for data, times in hunt.taken.items() if times > 1] == []
    assert len(hunt.taken) == count
    assert hunt.rolled_back > 0, "nobody wavered: the attack did not happen"
    assert hunt.wrongly_refused() == []

    assert await count_key_packages(wide_pool, did=ALICE, cipher_suite=SUITE) == 0
    served = await asyncio.gather(*(claim(wide_pool) for _ in range(32)))
    assert all(one and one.last_resort and one.consumed_at is None for one in served)
    of_all = await consume_key_packages(wide_pool, dids=[ALICE], cipher_suite=SUITE)
    assert {one.device_id: one.key_data.decode() for one in of_all} == last_resorts


async def test_as_many_claimants_as_packages_never_meet_the_last_resort(wide_pool: Pool) -> None:
    for round_ in range(scaled(5, 100)):
        did = f"{ALICE}{round_}"
        batch = [package(f"{number}") for number in range(32)]
        await store_key_packages(wide_pool, did=did, packages=batch)
        await store_key_package(wide_pool, did=did, **dict(package("last", last_resort=True)))
        claimed = await asyncio.gather(*(claim(wide_pool, did=did) for _ in batch))
        assert {one and one.key_data for one in claimed} == {one.key_data for one in batch}


async def test_callers_who_claim_for_whole_groups_at_once_never_share_a_one_time_package(
    wide_pool: Pool,
) -> None:
    dids = [f"did:plc:{name}" for name in "abc"]
    callers = 24
    for did in dids:
        batch = [
            package(f"{did} {device} {number}", device_id=device)
            for device in ("phone", "laptop")
            for number in range(callers)
        ]
        await store_key_packages(wide_pool, did=did, packages=batch)
        last = [package(f"{did} {one}", device_id=one, last_resort=True) for one in ("phone",)]
        await store_key_packages(wide_pool, did=did, packages=last)
    groups = await asyncio.gather(
        *(
            consume_key_packages(wide_pool, dids=random.sample(dids, len(dids)), cipher_suite=SUITE)
            for _ in range(callers)
        )
    )
    for group in groups:
        assert [(one.did, one.device_id) for one in group] == [
            (did, device) for did in dids for device in ("laptop", "phone")
        ]
        assert not any(one.last_resort for one in group)
    assert len({one.key_data for group in groups for one in group}) == callers * 6


@pytest.mark.parametrize("kind", ["any", "device", "all"])
async def test_a_claim_that_is_not_yet_committed_makes_nobody_wait_and_a_rollback_gives_it_back(
    catbird_pool: Pool, kind: str
) -> None:
    async def take(db: Any) -> str | None:
        if kind == "all":
            found = await consume_key_packages(db, dids=[ALICE], cipher_suite=SUITE)
            return found[0].key_data.decode() if found else None
        return await claim_data(db, device_id="" if kind == "device" else None)

    await store(catbird_pool, "first")
    await store(catbird_pool, "second")
    await store(catbird_pool, "last", last_resort=True)
    with suppress(Undo):
        async with transaction(catbird_pool) as tx:
            assert await take(tx) == "first"
            async with asyncio.timeout(PATIENCE):
                assert await take(catbird_pool) == "second"
                assert await take(catbird_pool) == "last"  # all others are claimed, or being so
            raise Undo
    async with transaction(catbird_pool) as tx:
        with suppress(Undo):
            async with transaction(tx) as savepoint:
                assert await take(savepoint) == "first"
                raise Undo
        assert await take(catbird_pool) == "first"  # given back, though the transaction is open
    assert await take(catbird_pool) == "last"


@pytest.mark.parametrize("in_batch", [False, True])
async def test_storing_a_package_again_does_not_hide_it_from_a_claimant(
    catbird_pool: Pool, in_batch: bool
) -> None:
    await store(catbird_pool, "first")
    await store(catbird_pool, "last", last_resort=True)
    async with transaction(catbird_pool) as tx, asyncio.timeout(PATIENCE):
        for data, last_resort in (("first", False), ("last", True)):
            again = package(data, last_resort=last_resort)
            if in_batch:
                assert await store_key_packages(tx, did=ALICE, packages=[again]) == 0
            else:
                await store_key_package(tx, did=ALICE, **dict(again))
        assert await claim_data(catbird_pool) == "first"
        assert await claim_data(catbird_pool) == "last"


# What a claim takes.


async def test_the_oldest_goes_first_and_get_key_package_shows_it_and_claims_nothing(
    catbird_pool: Pool,
) -> None:
    first = [await store(catbird_pool, f"{number}") for number in range(3)]
    await store_key_packages(
        catbird_pool, did=ALICE, packages=[package(f"{number}") for number in range(3, 9)]
    )
    await store(catbird_pool, "last", last_resort=True)
    shown, claimed = [], []
    for left in range(9, 0, -1):
        next_one = await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE)
        assert next_one == await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE)
        assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == left
        assert next_one is not None
        shown.append(next_one)
        got = await claim(catbird_pool)
        assert got is not None
        assert got.consumed_at is not None
        claimed.append(got.model_copy(update={"consumed_at": None}))
    assert shown[:3] == first
    assert [one.key_data.decode() for one in shown] == [f"{number}" for number in range(9)]
    assert claimed == shown
    assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == 0
    last = await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE)
    assert last is not None
    assert last.last_resort
    assert await claim(catbird_pool) == last == await claim(catbird_pool)


async def test_expired_packages_are_passed_over(catbird_pool: Pool) -> None:
    for data, last_resort in (("old", False), ("old last", True)):
        await store(catbird_pool, data, last_resort=last_resort)
        await store(catbird_pool, f"{data}, phone", last_resort=last_resort, device_id="phone")
    await age(catbird_pool, 0)
    assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == 0
    assert await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE) is None
    assert await claim(catbird_pool) is None
    assert await claim(catbird_pool, device_id="phone") is None
    assert await consume_key_packages(catbird_pool, dids=[ALICE], cipher_suite=SUITE) == []
    await store(catbird_pool, "new")
    await store(catbird_pool, "new last", last_resort=True)
    assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == 1
    assert await claim_data(catbird_pool) == "new"
    assert await claim_data(catbird_pool) == "new last"


async def test_a_claim_takes_only_of_its_did_suite_and_device(catbird_pool: Pool) -> None:
    await store(catbird_pool, "phone", device_id="phone")
    await store(catbird_pool, "laptop", device_id="laptop")
    await store(catbird_pool, "laptop last", device_id="laptop", last_resort=True)
    await store(catbird_pool, "other suite", cipher_suite=OTHER_SUITE)
    await store_key_package(catbird_pool, did=BOB, **dict(package("bob")))
    assert await claim(catbird_pool, device_id="tablet") is None
    assert await claim(catbird_pool, device_id="") is None
    assert await claim_data(catbird_pool, device_id="laptop") == "laptop"
    assert await claim_data(catbird_pool, device_id="laptop") == "laptop last"
    assert await claim_data(catbird_pool) == "phone"
    assert await claim_data(catbird_pool, device_id="phone") is None
    assert await claim_data(catbird_pool) == "laptop last"
    assert await claim(catbird_pool, cipher_suite=3) is None
    assert await claim_data(catbird_pool, cipher_suite=OTHER_SUITE) == "other suite"
    assert await claim_data(catbird_pool, did=BOB) == "bob"
    assert await claim(catbird_pool, did=BOB) is None


async def test_one_statement_claims_for_each_device_of_each_did(catbird_settings: Settings) -> None:
    seen: list[Observation] = []
    async with open_pool(catbird_settings, observe=seen.append) as pool:
        for did, device in ((ALICE, ""), (ALICE, "phone"), (BOB, "laptop"), (BOB, "phone")):
            batch = [package(f"{did} {device} {n}", device_id=device) for n in range(2)]
            await store_key_packages(pool, did=did, packages=batch)
        last = [
            package(f"{BOB} last {n}", device_id=n, last_resort=True) for n in ("phone", "tablet")
        ]
        await store_key_packages(pool, did=BOB, packages=last)
        old = package("expired", device_id="attic", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
        other = package("other", device_id="attic", cipher_suite=OTHER_SUITE)
        await store_key_packages(pool, did=BOB, packages=[old, other])
        await store_key_package(pool, did="did:plc:carol", **dict(package("carol")))

        async def claim_all() -> list[tuple[str, str, str, bool]]:
            seen.clear()
            found = await consume_key_packages(
                pool, dids=[BOB, ALICE, "did:plc:nobody", BOB], cipher_suite=SUITE, convo_id="c"
            )
            assert len(seen) == 1
            for one in found:
                assert (one.consumed_at is None) == one.last_resort
            return [
                (one.did, one.device_id, one.key_data.decode(), one.last_resort) for one in found
            ]

        for number in range(2):
            assert await claim_all() == [
                (ALICE, "", f"{ALICE}  {number}", False),
                (ALICE, "phone", f"{ALICE} phone {number}", False),
                (BOB, "laptop", f"{BOB} laptop {number}", False),
                (BOB, "phone", f"{BOB} phone {number}", False),
                (BOB, "tablet", f"{BOB} last tablet", True),
            ]
        for _ in range(2):
            assert await claim_all() == [
                (BOB, "phone", f"{BOB} last phone", True),
                (BOB, "tablet", f"{BOB} last tablet", True),
            ]
        seen.clear()
        assert (await claim(pool, did="did:plc:carol", convo_id="c")) is not None
        assert len(seen) == 1
        await store_key_package(pool, did="did:plc:carol", **dict(package("again")))
        seen.clear()
        assert (await claim(pool, did="did:plc:carol", convo_id="c", device_id="")) is not None
        assert len(seen) == 1
        kept = await rows(pool, "consumed_at IS NOT NULL")
        assert len(kept) == 10
        assert {row["consumed_for_convo_id"] for row in kept} == {"c"}


# A spent package stays spent.


async def test_a_consumed_row_keeps_its_digest_and_not_its_bytes(catbird_pool: Pool) -> None:
    one = await store(catbird_pool, "one")
    claimed = await claim(catbird_pool)
    assert claimed == one.model_copy(update={"consumed_at": claimed and claimed.consumed_at})
    await store(catbird_pool, "last", last_resort=True)
    await store(catbird_pool, "newer last", last_resort=True)
    spent = await rows(catbird_pool, "consumed_at IS NOT NULL")
    assert [(row["last_resort"], row["key_data"], len(row["ref"])) for row in spent] == [
        (False, None, 32),
        (True, None, 32),
    ]


@pytest.mark.parametrize("in_batch", [False, True])
async def test_storing_a_consumed_package_again_never_revives_it(
    catbird_pool: Pool, in_batch: bool
) -> None:
    async def try_to_revive(**changes: Any) -> None:
        for last_resort in (False, True):
            again = package("one", last_resort=last_resort, **changes)
            if in_batch:
                assert await store_key_packages(catbird_pool, did=ALICE, packages=[again] * 2) == 0
            else:
                answer = await store_key_package(catbird_pool, did=ALICE, **dict(again))
                assert answer.consumed_at == claimed.consumed_at
                assert (answer.id, answer.ref, answer.key_data) == (one.id, one.ref, b"one")
                assert not answer.last_resort
        assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == 0
        assert await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE) is None
        assert await claim(catbird_pool) is None
        assert await claim(catbird_pool, device_id="phone") is None
        assert await consume_key_packages(catbird_pool, dids=[ALICE], cipher_suite=SUITE) == []

    one = await store(catbird_pool, "one")
    claimed = await claim(catbird_pool)
    assert claimed is not None
    await try_to_revive()
    await try_to_revive(device_id="phone", expires_at=SOON + timedelta(days=1))
    assert await delete_key_packages(catbird_pool, did=ALICE, device_id="") == 0  # withdrawn, too
    await try_to_revive()
    for days in (0, 1, 179):
        await age(catbird_pool, days)
        await try_to_revive()
        assert await delete_expired_key_packages(catbird_pool) == 0
        await try_to_revive()
    await age(catbird_pool, 181)
    assert await delete_expired_key_packages(catbird_pool) == 1
    assert await rows(catbird_pool) == []


async def test_storing_again_returns_the_stored_one_and_changes_nothing(catbird_pool: Pool) -> None:
    one = await store(catbird_pool, "one", device_id="phone")
    before = await rows(catbird_pool)
    for changes in (
        {},
        {"device_id": "laptop"},
        {"last_resort": True},
        {"expires_at": SOON * 1} if False else {"expires_at": SOON + timedelta(days=9)},
    ):
        again = {"device_id": "phone", **changes}
        assert await store(catbird_pool, "one", **again) == one
        packages = [package("one", **again)]
        assert await store_key_packages(catbird_pool, did=ALICE, packages=packages) == 0
    assert await rows(catbird_pool) == before
    assert (await store(catbird_pool, "one", cipher_suite=OTHER_SUITE)).id != one.id
    assert (await store_key_package(catbird_pool, did=BOB, **dict(package("one")))).id != one.id


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_sixteen_tasks_that_store_one_package_store_one_row_and_get_equal_answers(
    wide_pool: Pool, in_transaction: bool
) -> None:
    async def one_of_many(data: str) -> KeyPackage:
        if not in_transaction:
            return await store(wide_pool, data)
        async with transaction(wide_pool) as tx:
            answer = await store_key_package(tx, **arguments(data))
            await asyncio.sleep(0.001)
            assert await count_key_packages(tx, did=ALICE, cipher_suite=SUITE) > 0
            return answer

    for round_ in range(scaled(10, 200)):
        answers = await asyncio.gather(*(one_of_many(f"{round_}") for _ in range(16)))
        assert answers == [answers[0]] * 16
        assert len(await rows(wide_pool)) == round_ + 1


async def test_a_batch_counts_what_is_new_of_it(catbird_pool: Pool) -> None:
    async def store_all(*data: str) -> int:
        return await store_key_packages(
            catbird_pool, did=ALICE, packages=[package(one) for one in data]
        )

    assert await store_all() == 0
    assert await store_all("1", "2", "1", "1") == 2
    assert await store_all("2", "3") == 1
    assert await store_all("1", "2", "3") == 0
    assert await claim_data(catbird_pool) == "1"
    assert await store_all("1", "4") == 1
    assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == 3


async def test_batches_that_overlap_in_another_order_store_each_package_once(
    wide_pool: Pool,
) -> None:
    batch = [package(f"{number}") for number in range(400)]
    for round_ in range(scaled(4, 50)):
        orders = [random.sample(batch, len(batch)) for _ in range(6)]
        counts = await asyncio.gather(
            *(store_key_packages(wide_pool, did=f"{ALICE}{round_}", packages=o) for o in orders)
        )
        assert sum(counts) == len(batch)


# The last resort.


@pytest.mark.parametrize("in_batch", [False, True])
async def test_a_new_last_resort_replaces_its_devices_old_one_and_no_other(
    catbird_pool: Pool, in_batch: bool
) -> None:
    async def publish(data: str, /, did: str = ALICE, **rest: Any) -> None:
        new = package(data, **{"last_resort": True, **rest})
        if in_batch:
            await store_key_packages(catbird_pool, did=did, packages=[new])
        else:
            await store_key_package(catbird_pool, did=did, **dict(new))

    await publish("old")
    await publish("phone", device_id="phone")
    await publish("suite", cipher_suite=OTHER_SUITE)
    await publish("bob", did=BOB)
    await publish("old")  # once more: nothing changes
    assert await claim_data(catbird_pool, device_id="") == "old"
    await publish("new")
    assert await claim_data(catbird_pool, device_id="") == "new"
    await publish("one-time", last_resort=False)  # replaces nothing
    assert await claim_data(catbird_pool, device_id="") == "one-time"
    assert await claim_data(catbird_pool, device_id="") == "new"
    old = await store(catbird_pool, "old", last_resort=True)  # its retry arrives late
    assert old.consumed_at is not None
    await publish("old")
    assert await claim_data(catbird_pool, device_id="") == "new"
    assert await claim_data(catbird_pool, device_id="phone") == "phone"
    assert await claim_data(catbird_pool, cipher_suite=OTHER_SUITE) == "suite"
    assert await claim_data(catbird_pool, did=BOB) == "bob"
    replaced = await rows(catbird_pool, "last_resort AND consumed_at IS NOT NULL")
    assert [row["ref"] for row in replaced] == [old.ref]
    assert await count_key_packages(catbird_pool, did=ALICE, cipher_suite=SUITE) == 0


async def test_of_last_resorts_published_at_once_everybody_gets_the_newest(
    catbird_pool: Pool,
) -> None:
    """Two that do not see each other both stay; the next one replaces both."""

    async def served() -> set[str]:
        packages = [
            await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE),
            await claim(catbird_pool),
            await claim(catbird_pool, device_id=""),
            *await consume_key_packages(catbird_pool, dids=[ALICE], cipher_suite=SUITE),
        ]
        return {one.key_data.decode() if one else "none" for one in packages}

    async with transaction(catbird_pool) as first, transaction(catbird_pool) as second:
        for tx, data in ((first, "older"), (second, "newer")):
            await store_key_package(tx, **arguments(data, last_resort=True))
    assert await served() == {"newer"}
    assert len(await rows(catbird_pool, "consumed_at IS NULL")) == 2
    await store(catbird_pool, "newest", last_resort=True)
    assert await served() == {"newest"}
    assert len(await rows(catbird_pool, "consumed_at IS NULL")) == 1


async def test_of_the_last_resorts_of_several_devices_the_newest_is_served(
    catbird_pool: Pool,
) -> None:
    for device in ("tablet", "phone", "laptop"):
        await store(catbird_pool, device, device_id=device, last_resort=True)
    shown = await get_key_package(catbird_pool, did=ALICE, cipher_suite=SUITE)
    assert shown is not None
    assert shown.device_id == "laptop" == await claim_data(catbird_pool)
    assert await claim_data(catbird_pool, device_id="tablet") == "tablet"


async def test_a_last_resort_that_expires_is_served_no_more(catbird_pool: Pool) -> None:
    await store(catbird_pool, "last", last_resort=True)
    await age(catbird_pool, 0)
    assert await claim(catbird_pool) is None


# Withdrawing and forgetting.


async def test_a_withdrawn_device_takes_its_packages_and_waiting_welcomes_along_and_nothing_else(
    catbird_pool: Pool,
) -> None:
    async def publish_and_claim(did: str, device: str) -> list[bytes]:
        """Refs of three claims: two one-time packages, then the last resort."""
        new = [package(f"{did} {device} {n}", device_id=device) for n in range(3)]
        last = package(f"{did} {device} last", device_id=device, last_resort=True)
        await store_key_packages(catbird_pool, did=did, packages=[*new[:2], last])
        claims = [await claim(catbird_pool, did=did, device_id=device) for _ in range(3)]
        await store_key_packages(catbird_pool, did=did, packages=new[2:])
        return [one.ref for one in claims if one]

    refs = {
        (did, device): await publish_and_claim(did, device)
        for did in (ALICE, BOB)
        for device in ("", "phone")
    }
    await create_conversation(catbird_pool, creator_did="did:plc:carol", convo_id="c")
    await commit_group_change(
        catbird_pool,
        convo_id="c",
        sender_did="did:plc:carol",
        message_id="m",
        expected_epoch=0,
        commit=b"commit",
        add_dids=[ALICE, BOB],
        welcomes=[
            NewWelcome(
                data=b"welcome",
                recipients=[
                    WelcomeRecipient(did=did, key_package_ref=ref)
                    for (did, _), device_refs in refs.items()
                    for ref in device_refs
                ],
            )
        ],
    )
    acknowledged = refs[ALICE, "phone"][0]
    assert await acknowledge_welcome(
        catbird_pool, convo_id="c", recipient_did=ALICE, key_package_ref=acknowledged
    )

    async def waiting(did: str) -> set[bytes]:
        page = await list_pending_welcomes(catbird_pool, recipient_did=did)
        return {welcome.key_package_ref for welcome in page.items}

    assert await waiting(ALICE) == {*refs[ALICE, ""], *refs[ALICE, "phone"][1:]}
    others = await rows(catbird_pool, f"did = '{BOB}' OR device_id = ''")
    spent = await rows(catbird_pool, "consumed_at IS NOT NULL")

    assert await delete_key_packages(catbird_pool, did=ALICE, device_id="phone") == 2
    assert await waiting(ALICE) == {*refs[ALICE, ""]}
    assert await waiting(BOB) == {*refs[BOB, ""], *refs[BOB, "phone"]}
    assert await rows(catbird_pool, f"did = '{BOB}' OR device_id = ''") == others
    assert await rows(catbird_pool, "consumed_at IS NOT NULL") == spent
    assert await claim(catbird_pool, device_id="phone") is None
    kept = await stored(
        catbird_pool,
        "SELECT key_package_ref FROM welcome_recipients WHERE acknowledged_at IS NOT NULL",
    )
    assert [row["key_package_ref"] for row in kept] == [acknowledged]
    assert await delete_key_packages(catbird_pool, did=ALICE, device_id="phone") == 0
    assert await delete_key_packages(catbird_pool, did="did:plc:nobody", device_id="") == 0


async def test_who_stores_and_withdraws_anothers_package_does_not_withdraw_their_welcome(
    catbird_pool: Pool,
) -> None:
    """Key packages are public: anybody may store a copy as its own."""
    one = await store(catbird_pool, "one")
    await store_key_package(catbird_pool, did=BOB, **dict(package("one")))
    await create_conversation(catbird_pool, creator_did="did:plc:carol", convo_id="c")
    recipient = WelcomeRecipient(did=ALICE, key_package_ref=one.ref)
    await commit_group_change(
        catbird_pool,
        convo_id="c",
        sender_did="did:plc:carol",
        message_id="m",
        expected_epoch=0,
        commit=b"commit",
        add_dids=[ALICE],
        welcomes=[NewWelcome(data=b"welcome", recipients=[recipient])],
    )
    assert await delete_key_packages(catbird_pool, did=BOB, device_id="") == 1
    assert len((await list_pending_welcomes(catbird_pool, recipient_did=ALICE)).items) == 1
    assert await claim_data(catbird_pool) == "one"


async def test_expired_packages_go_in_batches_and_spent_ones_half_a_year_later(
    catbird_pool: Pool,
) -> None:
    for state in ("spent", "unclaimed"):
        await store_key_packages(
            catbird_pool, did=ALICE, packages=[package(f"{state} {n}") for n in range(7)]
        )
        if state == "spent":
            await asyncio.gather(*(claim(catbird_pool) for _ in range(7)))
    await age(catbird_pool, 181, "consumed_at IS NOT NULL")  # 7 to be forgotten
    await age(catbird_pool, 1, "consumed_at IS NULL")  # 7 to be removed
    await store_key_packages(
        catbird_pool, did=BOB, packages=[package("keep"), package("keep last", last_resort=True)]
    )
    await store(catbird_pool, "remember")
    remembered = await claim(catbird_pool)
    assert remembered is not None
    await age(catbird_pool, 179, "consumed_at IS NOT NULL AND expires_at > now()")

    removed = [await delete_expired_key_packages(catbird_pool, limit=5) for _ in range(5)]
    assert removed == [5, 5, 4, 0, 0]
    left = {(row["did"], row["ref"]) for row in await rows(catbird_pool)}
    assert (ALICE, remembered.ref) in left
    assert len(left) == 3


async def test_sweepers_at_once_share_the_work_and_do_not_wait_for_each_other(
    wide_pool: Pool,
) -> None:
    count = scaled(200, 20_000)
    for start in range(0, count, 1000):
        batch = [package(f"{number}") for number in range(start, min(count, start + 1000))]
        await store_key_packages(wide_pool, did=ALICE, packages=batch)
    await age(wide_pool, 1)
    await store(wide_pool, "keep")

    async def sweep() -> list[int]:
        removed = [await delete_expired_key_packages(wide_pool, limit=10)]
        while removed[-1]:
            removed.append(await delete_expired_key_packages(wide_pool, limit=10))
        return removed

    async with AsyncExitStack() as stack:
        tx = await stack.enter_async_context(transaction(wide_pool))
        assert await delete_expired_key_packages(tx, limit=10) == 10
        async with asyncio.timeout(PATIENCE):
            removed = [
                n for each in await asyncio.gather(*(sweep() for _ in range(8))) for n in each
            ]
    assert max(removed) == 10
    assert sum(removed) == count - 10
    assert [row["ref"] for row in await rows(wide_pool)] == [(await store(wide_pool, "keep")).ref]
