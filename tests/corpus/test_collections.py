"""Collections: names, changes, statuses, what others see of them, and syncs that are claimed."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from itertools import product
from typing import Any, get_args
from uuid import UUID

import pytest
from corpus.shelf import collection, document, everything, shelf, user
from scale import scaled

from catbird_db import (
    COLLECTION_TRANSITIONS,
    UNSET,
    Collection,
    ConflictError,
    DueSync,
    InvalidArgumentError,
    NotFoundError,
    Pool,
    claim_due_syncs,
    complete_sync,
    delete_collection,
    delete_user,
    get_collection,
    grant_collection_permission,
    list_audit_log,
    list_collection_permissions,
    list_collections,
    list_public_collections,
    pause_sync,
    rename_collection,
    renew_sync,
    resume_sync,
    set_collection_status,
    update_collection,
)
from catbird_db.types import CollectionStatus

STATUSES = get_args(CollectionStatus)
CONTINUOUS = {"sync_mode": "continuous", "sync_interval_minutes": 60}


def whose(one: Collection) -> dict[str, Any]:
    return {"collection_id": one.id, "user_id": one.owner_id}


async def sql(pool: Pool, statement: str, *arguments: object) -> None:
    async with pool.connection() as connection:
        await connection.execute(statement, *arguments)


# ---- names and changes


async def test_a_name_is_unique_among_the_owners_and_trimmed(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool, name="  Books\t")
    assert one.name == "Books"
    with pytest.raises(ConflictError, match="name"):
        await collection(catbird_pool, one.owner_id, name="Books")
    other = await collection(catbird_pool, one.owner_id, name="books")
    await collection(catbird_pool, name="Books")
    with pytest.raises(ConflictError, match="name"):
        await rename_collection(catbird_pool, **whose(other), name=" Books ")
    assert (await rename_collection(catbird_pool, **whose(other), name=" Old ")).name == "Old"


async def test_of_many_who_create_one_name_one_does(pools: list[Pool]) -> None:
    owner = await user(pools[0])
    made = await asyncio.gather(
        *(collection(pools[number % 3], owner, name="Books") for number in range(24)),
        return_exceptions=True,
    )
    assert Counter(type(one) for one in made) == {Collection: 1, ConflictError: 23}


async def test_the_log_keeps_that_a_collection_went_with_its_owner(catbird_pool: Pool) -> None:
    gone = [await collection(catbird_pool)]
    gone.append(await collection(catbird_pool, gone[0].owner_id))
    kept = await collection(catbird_pool)
    assert await delete_user(catbird_pool, user_id=gone[0].owner_id)
    async with catbird_pool.connection() as connection:
        logged = await connection.fetch(
            "SELECT a.collection_id, a.user_id, a.details ->> 'name' AS name FROM audit_log AS a"
            " WHERE a.action = 'delete_collection'"
        )
    assert {tuple(row.values()) for row in logged} == {
        (one.id, one.owner_id, one.name) for one in gone
    }
    assert await get_collection(catbird_pool, **whose(kept)) == kept
    assert not await delete_user(catbird_pool, user_id=gone[0].owner_id)


async def test_nobody_chooses_an_id_so_nobody_learns_which_are_taken(catbird_pool: Pool) -> None:
    taken = await collection(catbird_pool)
    assert taken.id.version == 7
    for id in (taken.id, UUID(int=1)):
        with pytest.raises(TypeError, match="collection_id"):
            await collection(catbird_pool, collection_id=id)


async def test_no_owner_no_collection(catbird_pool: Pool) -> None:
    with pytest.raises(NotFoundError, match="user"):
        await collection(catbird_pool, 735_301)


async def test_what_is_unset_stays_and_none_clears(catbird_pool: Pool) -> None:
    one = await collection(
        catbird_pool, description="of mine", vector_store_name="v", meta={"a": [1, None, "é"]}
    )
    assert one.meta == {"a": [1, None, "é"]}
    same = await update_collection(catbird_pool, **whose(one))
    assert same.model_dump(exclude={"updated_at"}) == one.model_dump(exclude={"updated_at"})
    changes: list[dict[str, Any]] = [
        {"description": None},
        {"vector_store_name": None},
        {"description": "again"},
        {"embedding_model": "other"},
        {"embedding_dimension": 768},
        {"is_public": True},
        {"meta": {}},
        {"is_public": False, "description": UNSET},
    ]
    for name in ("embedding_model", "sync_mode", "sync_interval_minutes", "is_public", "meta"):
        with pytest.raises(InvalidArgumentError, match=name):
            await update_collection(catbird_pool, **whose(one), **{name: None})
    now = one.model_dump(exclude={"updated_at"})
    for change in changes:
        changed = await update_collection(catbird_pool, **whose(one), **change)
        now |= {name: value for name, value in change.items() if value is not UNSET}
        assert changed.model_dump(exclude={"updated_at"}) == now
    assert await get_collection(catbird_pool, **whose(one)) == changed  # pyright: ignore


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
async def test_a_status_becomes_what_the_table_allows_and_nothing_else(
    before: CollectionStatus, after: CollectionStatus, catbird_pool: Pool
) -> None:
    one = await collection(catbird_pool)
    await sql(catbird_pool, "UPDATE collections SET status = $1, status_message = 'm'", before)
    if after in COLLECTION_TRANSITIONS[before]:
        changed = await set_collection_status(
            catbird_pool, **whose(one), status=after, status_message="why"
        )
        assert (changed.status, changed.status_message) == (after, "why")
    else:
        with pytest.raises(ConflictError, match=f"it is {before}, which does not become {after}"):
            await set_collection_status(catbird_pool, **whose(one), status=after)
        found = await get_collection(catbird_pool, **whose(one))
        assert (found.status, found.status_message) == (before, "m")


# ---- lists


async def test_a_user_lists_his_own_and_what_is_shared_with_him_newest_first(
    catbird_pool: Pool,
) -> None:
    me, other = await user(catbird_pool), await user(catbird_pool)
    expected: list[UUID] = []
    for number in range(11):
        one = await collection(catbird_pool, me if number % 3 else other, is_public=number % 2 == 0)
        if number % 3 or number in (3, 6):
            expected.append(one.id)
        if number in (3, 6):
            await grant_collection_permission(
                catbird_pool, **whose(one), grantee_id=me, permission="READ"
            )
    await sql(catbird_pool, "UPDATE collections SET status = 'ready' WHERE id = $1", expected[2])
    found: list[UUID] = []
    cursor = None
    while True:
        page = await list_collections(catbird_pool, user_id=me, limit=3, cursor=cursor)
        found += [one.id for one in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert found == expected[::-1]
    ready = await list_collections(catbird_pool, user_id=me, status="ready")
    assert [one.id for one in ready.items] == [expected[2]]
    public = await list_public_collections(catbird_pool, limit=500)
    assert len(public.items) == 6
    assert all(one.is_public for one in public.items)


async def test_permissions_are_listed_and_a_second_grant_takes_the_place_of_the_first(
    catbird_pool: Pool,
) -> None:
    one = await collection(catbird_pool)
    users = [await user(catbird_pool) for _ in range(3)]
    for permission in ("READ", "ADMIN"):
        for grantee in users:
            await grant_collection_permission(
                catbird_pool, **whose(one), grantee_id=grantee, permission=permission
            )
    first = await list_collection_permissions(catbird_pool, **whose(one), limit=2)
    rest = await list_collection_permissions(
        catbird_pool, **whose(one), limit=2, cursor=first.next_cursor
    )
    listed = [(each.user_id, each.permission) for each in [*first.items, *rest.items]]
    assert listed == [(grantee, "ADMIN") for grantee in users]
    with pytest.raises(InvalidArgumentError, match="owner"):
        await grant_collection_permission(
            catbird_pool, **whose(one), grantee_id=one.owner_id, permission="READ"
        )
    with pytest.raises(NotFoundError, match="user"):
        await grant_collection_permission(
            catbird_pool, **whose(one), grantee_id=735_301, permission="READ"
        )


async def test_the_audit_log_survives_its_collection_for_who_owned_it(catbird_pool: Pool) -> None:
    on = await shelf(catbird_pool)
    admin = await user(catbird_pool)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id}
    await grant_collection_permission(catbird_pool, **ids, grantee_id=admin, permission="ADMIN")
    await rename_collection(
        catbird_pool, collection_id=on.collection_id, user_id=admin, name="renamed"
    )
    await delete_collection(catbird_pool, **ids)
    left = await everything(catbird_pool, on.collection_id)
    assert {line.partition(":")[0] for line in left} == {"audit_log"}
    log = await list_audit_log(catbird_pool, **ids)
    assert [(one.action, one.user_id) for one in log.items] == [
        ("delete_collection", on.owner_id),
        ("rename_collection", admin),
        ("grant_collection_permission", on.owner_id),
        ("create_collection", on.owner_id),
    ]
    assert log.items[2].details == {"user_id": admin, "permission": "ADMIN"}
    gone = await list_audit_log(catbird_pool, collection_id=on.collection_id, user_id=admin)
    assert gone.items == []


# ---- syncs


async def make_due(pool: Pool, *ids: UUID) -> None:
    await sql(
        pool,
        "UPDATE collections SET next_sync_at = statement_timestamp() - interval '1 second'"
        " WHERE next_sync_at IS NOT NULL AND id = ANY ($1)",
        ids,
    )


async def test_interval_and_mode_go_together(catbird_pool: Pool) -> None:
    for wrong in ({"sync_mode": "continuous"}, {"sync_interval_minutes": 5}):
        with pytest.raises(InvalidArgumentError, match="sync_interval_minutes"):
            await collection(catbird_pool, **wrong)
    once = await collection(catbird_pool)
    for wrong in ({"sync_mode": "continuous"}, {"sync_interval_minutes": 5}):
        with pytest.raises(InvalidArgumentError, match="sync_interval_minutes"):
            await update_collection(catbird_pool, **whose(once), **wrong)
    again = await update_collection(catbird_pool, **whose(once), **CONTINUOUS)
    assert again.next_sync_at is not None
    never = await update_collection(catbird_pool, **whose(once), sync_mode="one_time")
    assert (never.sync_interval_minutes, never.next_sync_at) == (None, None)


async def test_a_due_sync_is_claimed_completed_and_due_again_an_interval_later(
    catbird_pool: Pool,
) -> None:
    one = await collection(catbird_pool, **CONTINUOUS)
    await collection(catbird_pool)
    (due,) = await claim_due_syncs(catbird_pool)
    assert due.collection_id == one.id
    assert await claim_due_syncs(catbird_pool) == []
    assert await complete_sync(catbird_pool, collection_id=one.id, sync_token=due.sync_token)
    assert not await complete_sync(catbird_pool, collection_id=one.id, sync_token=due.sync_token)
    done = await get_collection(catbird_pool, **whose(one))
    assert done.next_sync_at is not None
    assert done.last_synced_at is not None
    assert (done.next_sync_at - done.last_synced_at).total_seconds() == 3600
    shorter = await update_collection(catbird_pool, **whose(one), sync_interval_minutes=1)
    assert shorter.next_sync_at is not None
    assert shorter.next_sync_at < done.next_sync_at


async def test_who_lost_the_lease_of_a_sync_changes_nothing(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool, **CONTINUOUS)
    (first,) = await claim_due_syncs(catbird_pool)
    await make_due(catbird_pool, one.id)
    before = await get_collection(catbird_pool, **whose(one))
    lost = {"collection_id": one.id, "sync_token": first.sync_token}
    assert not await complete_sync(catbird_pool, **lost), "the lease has ended"
    (second,) = await claim_due_syncs(catbird_pool)
    assert not await complete_sync(catbird_pool, **lost), "another one has it"
    after = await get_collection(catbird_pool, **whose(one))
    assert (after.last_synced_at, before.last_synced_at) == (None, None)
    assert await complete_sync(catbird_pool, collection_id=one.id, sync_token=second.sync_token)


async def test_a_sync_that_is_renewed_is_not_claimed_by_another(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool, **CONTINUOUS)
    (first,) = await claim_due_syncs(catbird_pool, lease=timedelta(seconds=1))
    mine = {"collection_id": one.id, "sync_token": first.sync_token}
    assert await renew_sync(catbird_pool, **mine)
    held = await get_collection(catbird_pool, **whose(one))
    assert held.next_sync_at is not None
    assert held.next_sync_at > first.lease_until + timedelta(minutes=4)
    assert await renew_sync(catbird_pool, **mine, lease=timedelta(seconds=1))
    assert (await get_collection(catbird_pool, **whose(one))).next_sync_at == held.next_sync_at
    await asyncio.sleep(1.1)
    assert await claim_due_syncs(catbird_pool) == []
    await make_due(catbird_pool, one.id)
    assert not await renew_sync(catbird_pool, **mine), "the lease has ended"
    (second,) = await claim_due_syncs(catbird_pool)
    assert not await renew_sync(catbird_pool, **mine), "another one has it"
    theirs = {"collection_id": one.id, "sync_token": second.sync_token}
    assert await renew_sync(catbird_pool, **theirs)
    assert await complete_sync(catbird_pool, **theirs)
    assert not await renew_sync(catbird_pool, **theirs), "it is done"


async def test_a_paused_sync_is_not_due_and_a_resumed_one_is(catbird_pool: Pool) -> None:
    one = await collection(catbird_pool, **CONTINUOUS)
    assert await pause_sync(catbird_pool, **whose(one))
    assert not await pause_sync(catbird_pool, **whose(one))
    assert await claim_due_syncs(catbird_pool) == []
    assert await resume_sync(catbird_pool, **whose(one))
    assert not await resume_sync(catbird_pool, **whose(one))
    assert len(await claim_due_syncs(catbird_pool)) == 1
    once = await collection(catbird_pool)
    for function in (pause_sync, resume_sync):
        with pytest.raises(ConflictError, match="continuously"):
            await function(catbird_pool, **whose(once))


async def test_many_workers_claim_each_due_sync_once(pools: list[Pool]) -> None:
    owner = await user(pools[0])
    ids = {(await collection(pools[0], owner, **CONTINUOUS)).id for _ in range(scaled(60, 1000))}
    rounds = 3
    claims: Counter[UUID] = Counter()

    async def worker(number: int) -> None:
        pool = pools[number % 3]
        while due := await claim_due_syncs(pool, limit=random.randint(1, 5)):
            for one in due:
                claims[one.collection_id] += 1
                done = await complete_sync(
                    pool, collection_id=one.collection_id, sync_token=one.sync_token
                )
                assert done, "somebody else had it"

    for turn in range(rounds):
        await asyncio.gather(*(worker(number) for number in range(24)))
        assert claims == Counter(dict.fromkeys(ids, turn + 1))
        await make_due(pools[0], *ids)


async def test_documents_that_are_written_meanwhile_hide_no_sync(pools: list[Pool]) -> None:
    """Their foreign key holds a lock on the collection's row, which a claim must not skip."""
    one = await collection(pools[0], **CONTINUOUS)
    async with pools[0].connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM collections WHERE id = $1 FOR KEY SHARE", one.id)
        due: list[DueSync] = await claim_due_syncs(pools[1])
        assert [each.collection_id for each in due] == [one.id]
    await document(pools[0], one)
