"""Who may do what: each function of the corpus, called by everybody there is."""

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from corpus.shelf import Shelf, everything, pieces, sha256, shelf, user

import catbird_db
from catbird_db import (
    ChunkEmbedding,
    NewDocument,
    NotFoundError,
    Page,
    Pool,
    corpus,
    get_collection,
    grant_collection_permission,
)

ROLES = ("owner", "ADMIN", "WRITE", "READ", "public", "stranger")
MAY: dict[str, tuple[str, ...]] = {
    "read": ("owner", "ADMIN", "WRITE", "READ", "public"),
    "granted": ("owner", "ADMIN", "WRITE", "READ"),
    "write": ("owner", "ADMIN", "WRITE"),
    "administer": ("owner", "ADMIN"),
    "own": ("owner",),
}
Need = Literal["read", "granted", "write", "administer", "own"]
Arguments = Callable[[Shelf], dict[str, Any]]


def nothing(_: Shelf) -> dict[str, Any]:
    return {}


def the_document(on: Shelf) -> dict[str, Any]:
    return {"document_id": on.document_id}


def the_operation(on: Shelf) -> dict[str, Any]:
    return {"operation_id": on.operation_id}


NEW = {"file_name": "new", "file_size": 3, "content_hash": sha256("new")}

# What each needs, and its arguments beside collection_id and user_id.
TABLE: dict[str, tuple[Need, Arguments]] = {
    "get_collection": ("read", nothing),
    "rename_collection": ("administer", lambda on: {"name": "new name"}),
    "update_collection": ("administer", lambda on: {"description": "new", "is_public": True}),
    "set_collection_status": ("write", lambda on: {"status": "processing"}),
    "delete_collection": ("own", nothing),
    "grant_collection_permission": (
        "administer",
        lambda on: {"grantee_id": 1, "permission": "ADMIN"},
    ),
    "revoke_collection_permission": ("administer", lambda on: {"grantee_id": 1}),
    "list_collection_permissions": ("administer", nothing),
    "list_audit_log": ("administer", nothing),
    "pause_sync": ("administer", nothing),
    "resume_sync": ("administer", nothing),
    "create_document": ("write", lambda on: NEW),
    "create_documents": ("write", lambda on: {"documents": [NewDocument(**NEW)]}),
    "get_document": ("read", the_document),
    "find_document_by_hash": ("read", lambda on: {"content_hash": sha256("new")}),
    "find_document_by_path": ("read", lambda on: {"file_path": "/a"}),
    "find_document_by_uri": ("read", lambda on: {"uri": "https://example.org/a"}),
    "list_documents": ("read", nothing),
    "set_document_status": ("write", lambda on: {**the_document(on), "status": "processing"}),
    "retry_failed_documents": ("write", nothing),
    "mark_unseen_stale": ("write", lambda on: {"seen_before": datetime(2099, 1, 1, tzinfo=UTC)}),
    "delete_document": ("write", the_document),
    "collection_statistics": ("read", nothing),
    "replace_chunks": ("write", lambda on: {**the_document(on), "chunks": pieces("new")}),
    "get_chunks_by_document": ("read", the_document),
    "list_chunks": ("read", nothing),
    "get_chunk": ("read", lambda on: {**the_document(on), "chunk_index": 1}),
    "set_embeddings": (
        "write",
        lambda on: {
            "embeddings": [
                ChunkEmbedding(
                    document_id=on.document_id, chunk_index=0, version=1, embedding_id="v"
                )
            ]
        },
    ),
    "list_chunks_without_embedding": ("read", nothing),
    "count_chunks": ("read", nothing),
    "delete_chunks": ("write", the_document),
    "search_chunks": ("read", lambda on: {"text": "cat"}),
    "create_operation": ("write", lambda on: {"type": "append"}),
    "get_operation": ("granted", the_operation),
    "list_operations": ("granted", nothing),
    "cancel_operation": ("write", the_operation),
}

# What names no actor on a collection that is there, and why; each has tests of its own.
BESIDE = {
    "create_collection": "makes one",
    "list_collections": "shows a user's own",
    "list_public_collections": "shows what is everybody's",
    "claim_due_syncs": "for workers",
    "renew_sync": "for the worker with the token",
    "complete_sync": "for the worker with the token",
    "claim_operation": "for workers",
    "renew_operation_lease": "for the worker with the token",
    "report_operation_progress": "for the worker with the token",
    "complete_operation": "for the worker with the token",
    "fail_operation": "for the worker with the token",
    "get_partition_health": "for operators",
}

READS = [name for name, (need, _) in TABLE.items() if need in ("read", "granted")]


def test_every_function_of_the_corpus_stands_in_one_of_the_tables() -> None:
    functions = {
        name for name in corpus.__all__ if inspect.iscoroutinefunction(getattr(corpus, name))
    }
    assert functions == {*TABLE} | {*BESIDE}
    assert not {*TABLE} & {*BESIDE}


async def one_as(pool: Pool, role: str) -> tuple[Shelf, int]:
    """A shelf, and the id of somebody in this role."""
    on = await shelf(
        pool, is_public=role == "public", sync_mode="continuous", sync_interval_minutes=5
    )
    if role == "owner":
        return on, on.owner_id
    somebody = await user(pool)
    if role in ("READ", "WRITE", "ADMIN"):
        await grant_collection_permission(
            pool,
            collection_id=on.collection_id,
            user_id=on.owner_id,
            grantee_id=somebody,
            permission=role,
        )
    return on, somebody


@pytest.mark.parametrize("name", TABLE)
async def test_only_who_may_can_and_nothing_is_changed_for_the_others(
    name: str, catbird_pool: Pool
) -> None:
    await user(catbird_pool)  # whose id is 1
    need, arguments = TABLE[name]
    for role in ROLES:
        on, somebody = await one_as(catbird_pool, role)
        before = await everything(catbird_pool, on.collection_id)
        given = {"collection_id": on.collection_id, "user_id": somebody, **arguments(on)}
        call = getattr(catbird_db, name)(catbird_pool, **given)
        if role in MAY[need]:
            await call
        elif name == "list_audit_log":
            assert await call == Page([], None)
        else:
            with pytest.raises(NotFoundError) as refused:
                await call
            with pytest.raises(NotFoundError) as missing:
                await getattr(catbird_db, name)(
                    catbird_pool, **{**given, "collection_id": on.document_id}
                )
            assert str(refused.value) == str(missing.value), "it tells that there is something"
        if name in READS or role not in MAY[need]:
            assert await everything(catbird_pool, on.collection_id) == before, role


async def test_a_permission_counts_for_its_own_collection_alone(catbird_pool: Pool) -> None:
    on, somebody = await one_as(catbird_pool, "ADMIN")
    other = await shelf(catbird_pool)
    for name, (_, arguments) in TABLE.items():
        if name == "list_audit_log":
            continue
        with pytest.raises(NotFoundError):
            await getattr(catbird_db, name)(
                catbird_pool,
                **{"collection_id": other.collection_id, "user_id": somebody, **arguments(other)},
            )
    # nor does a document or an operation of another collection come with this one
    for name in ("get_document", "delete_document", "replace_chunks", "get_operation", "get_chunk"):
        with pytest.raises(NotFoundError):
            await getattr(catbird_db, name)(
                catbird_pool,
                **{
                    "collection_id": on.collection_id,
                    "user_id": somebody,
                    **TABLE[name][1](other),
                },
            )


async def test_what_was_granted_is_gone_with_the_permission(catbird_pool: Pool) -> None:
    on, somebody = await one_as(catbird_pool, "WRITE")
    whose = {"collection_id": on.collection_id, "grantee_id": somebody}
    await get_collection(catbird_pool, collection_id=on.collection_id, user_id=somebody)
    assert await catbird_db.revoke_collection_permission(catbird_pool, **whose, user_id=on.owner_id)
    with pytest.raises(NotFoundError):
        await get_collection(catbird_pool, collection_id=on.collection_id, user_id=somebody)
    assert not await catbird_db.revoke_collection_permission(
        catbird_pool, **whose, user_id=on.owner_id
    )


async def test_a_grantee_may_give_up_what_he_was_granted_and_no_more(catbird_pool: Pool) -> None:
    on, somebody = await one_as(catbird_pool, "READ")
    _, other = await one_as(catbird_pool, "READ")
    given = {"collection_id": on.collection_id, "user_id": somebody}
    with pytest.raises(NotFoundError):
        await catbird_db.revoke_collection_permission(catbird_pool, **given, grantee_id=other)
    assert await catbird_db.revoke_collection_permission(catbird_pool, **given, grantee_id=somebody)


async def test_the_log_of_a_deleted_collection_is_not_for_admins_of_another_with_its_id(
    catbird_pool: Pool,
) -> None:
    on = await shelf(catbird_pool)
    thief, friend = await user(catbird_pool), await user(catbird_pool)
    the = {"collection_id": on.collection_id}
    await catbird_db.delete_collection(catbird_pool, **the, user_id=on.owner_id)
    async with catbird_pool.connection() as connection:
        await connection.execute(
            "INSERT INTO collections (id, owner_id, name, embedding_model, embedding_dimension)"
            " VALUES ($1, $2, 'mine', 'm', 3)",
            on.collection_id,
            thief,
        )
    await grant_collection_permission(
        catbird_pool, **the, user_id=thief, grantee_id=friend, permission="ADMIN"
    )
    for somebody in (thief, friend):
        seen = await catbird_db.list_audit_log(catbird_pool, **the, user_id=somebody)
        assert [entry.action for entry in seen.items] == ["grant_collection_permission"]
    owners = await catbird_db.list_audit_log(catbird_pool, **the, user_id=on.owner_id)
    assert owners.items[0].action == "delete_collection"
    assert owners.items[-1].action == "create_collection"
