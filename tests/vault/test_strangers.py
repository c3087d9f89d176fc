"""Every function of the vault, and of blobs, called as the wrong user: it shows and changes nothing.

The functions are those that the packages export; one that is not in THINGS fails the test.
"""

import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import NAMESPACE_DNS, UUID, uuid5

import pytest
from chat.actors import stored
from trees import add_user, an_object

import catbird_db
from catbird_db import (
    DatabaseError,
    NewLink,
    ObjectStore,
    Page,
    Pool,
    begin_publishing,
    create_conversation,
    delete_file,
    delete_folder,
    enqueue_processing,
    invalidate_published,
    publish_page,
    replace_links,
    set_frontmatter,
    store_blob,
    vault,
    write_file,
)
from catbird_db.chat import blobs

Function: TypeAlias = Callable[..., Any]

FOR_EVERYBODY = {"find_published", "list_all_stale_pages"}
"""What shows to everybody, or to the service, what users have published."""

FUNCTIONS: dict[str, Function] = {
    name: function
    for module in (vault, blobs)
    for name in module.__all__
    if name not in FOR_EVERYBODY
    if inspect.iscoroutinefunction(function := getattr(module, name))
    or inspect.isasyncgenfunction(inspect.unwrap(function))
}

WHO = {"user_id", "reader_did", "uploaded_by_did", "did"}
"""The parameters that say who calls."""


@dataclass
class World:
    """What one user has: paths that the other has too, with other content, and one of its own."""

    name: str
    user_id: int
    file_id: UUID
    cid: str
    secrets: list[str]

    @property
    def did(self) -> str:
        return f"did:plc:{self.name}"

    @property
    def token(self) -> UUID:
        return uuid5(NAMESPACE_DNS, self.name)

    @property
    def file(self) -> dict[str, Any]:
        return {"file_id": self.file_id}

    @property
    def lease(self) -> dict[str, Any]:
        return {"file_id": self.file_id, "lease_token": self.token, "changed": 1}


FAR = datetime(2099, 1, 1, tzinfo=UTC)

# What of a world a function is asked for; `own` and `both` are paths.
THINGS: dict[str, Callable[[World, str], dict[str, Any]]] = {
    "copy_file": lambda w, path: {"path": f"{path}/x.md", "to": "/copy.md"},
    "count_files": lambda w, path: {},
    "create_folder": lambda w, path: {"path": f"{path}/new"},
    "delete_file": lambda w, path: {"path": f"{path}/x.md"},
    "delete_folder": lambda w, path: {"path": path},
    "find_file_by_path": lambda w, path: {"path": f"{path}/x.md"},
    "get_file": lambda w, path: {"file_id": w.file_id},
    "get_folder": lambda w, path: {"path": path},
    "list_canvas_files": lambda w, path: {},
    "list_folder": lambda w, path: {"path": path},
    "list_markdown_files": lambda w, path: {},
    "list_tree": lambda w, path: {"path": path},
    "list_versions": lambda w, path: {"file_id": w.file_id},
    "lock_vault": lambda w, path: {},
    "move_file": lambda w, path: {"path": f"{path}/x.md", "to": "/moved.md"},
    "move_folder": lambda w, path: {"path": path, "to": "/moved"},
    "purge_deleted": lambda w, path: {"deleted_before": FAR},
    "read_file": lambda w, path: {"path": f"{path}/x.md"},
    "read_version": lambda w, path: {"file_id": w.file_id, "version": 1},
    "record_file": lambda w, path: {"path": f"{path}/x.md"},
    "restore_file": lambda w, path: {"path": f"{path}/deleted.md"},
    "restore_folder": lambda w, path: {"path": f"{path}/deleted"},
    "restore_version": lambda w, path: {"file_id": w.file_id, "version": 1},
    "vault_size": lambda w, path: {},
    "write_file": lambda w, path: {"path": f"{path}/x.md", "body": b"x"},
    # frontmatter, links, processing, publishing
    "begin_publishing": lambda w, path: w.file,
    "claim_processing": lambda w, path: {},
    "complete_processing": lambda w, path: w.lease,
    "enqueue_processing": lambda w, path: w.file,
    "fail_processing": lambda w, path: {**w.lease, "error": "e"},
    "find_files_by_tag": lambda w, path: {"tag": w.name},
    "get_frontmatter": lambda w, path: w.file,
    "invalidate_published": lambda w, path: {**w.file, "along_links": True},
    "list_backlinks": lambda w, path: w.file,
    "list_dead_processing": lambda w, path: {},
    "list_links": lambda w, path: w.file,
    "list_published": lambda w, path: {},
    "list_stale_pages": lambda w, path: {},
    "list_unresolved_links": lambda w, path: {},
    "publish_page": lambda w, path: {
        **w.file,
        "invalidation": 1,
        "permalink": "stolen",
        "html": "x",
    },
    "replace_links": lambda w, path: {
        **w.file,
        "links": [NewLink(target_name="x")],
    },
    "resolve_links": lambda w, path: {"names": [f"{w.name}/x", f"the {w.name}"]},
    "set_frontmatter": lambda w, path: {**w.file, "aliases": ["x"]},
    "unpublish_page": lambda w, path: w.file,
    # blobs
    "delete_blob": lambda w, path: {"cid": w.cid},
    "get_blob": lambda w, path: {"cid": w.cid},
    "get_user_storage_size": lambda w, path: {},
    "list_blobs_by_conversation": lambda w, path: {"convo_id": w.name},
    "refer_blob": lambda w, path: {"convo_id": w.name},
    "store_blob": lambda w, path: {"convo_id": w.name, "data": b"x"},
}
SAYS_NOTHING = {"lock_vault", "set_frontmatter"}
"""Functions that answer None to everybody."""

STRANGERS_OWN = {"create_folder", "record_file", "write_file", "lock_vault"}
"""What makes something of the stranger's own where a path of the other is named."""


async def build(pool: Pool, store: ObjectStore, name: str) -> World:
    user_id = await add_user(pool, name)
    secret = name.upper()

    async def write(path: str, body: str) -> Any:
        return await write_file(pool, store, user_id=user_id, path=path, body=body.encode())

    for folder in ("/both", f"/{name}"):
        for path in ("x.md", "x.canvas", "deleted.md", "deleted/x.md"):
            await write(f"{folder}/{path}", f"{secret} {folder} {path}")
        await delete_file(pool, user_id=user_id, path=f"{folder}/deleted.md")
        await delete_folder(pool, user_id=user_id, path=f"{folder}/deleted")
    await write("/both/same.md", "the same for both")
    file = await write(f"/{name}/x.md", f"{secret}, version 2")
    await publish_and_queue(pool, user_id, name, file.id)
    did = f"did:plc:{name}"
    await create_conversation(pool, creator_did=did, convo_id=name)
    blob = await store_blob(
        pool, store, data=f"{secret} blob".encode(), uploaded_by_did=did, convo_id=name
    )
    world = World(name, user_id, file.id, blob.cid, [secret, blob.cid])
    rows = await everything_of(pool, world)
    for table in ("files", "folders", "blobs"):
        world.secrets += [json.loads(row)["id"] for row in rows[table]]
    for row in rows["files"]:
        if "same.md" not in row:
            world.secrets.append(json.loads(row)["object_hash"])
    return world


async def publish_and_queue(pool: Pool, user_id: int, name: str, file_id: UUID) -> None:
    """A file with all that it says, one page that is stale, and the queue in each of its states."""
    this = {"user_id": user_id, "file_id": file_id}
    await set_frontmatter(
        pool, **this, title=name.upper(), tags=[name], aliases=[f"the {name}"], other={name: 1}
    )
    names = ["x", f"{name}/x", f"{name.upper()} is nowhere"]
    links = [NewLink(target_name=one, embed=True) for one in names]
    await replace_links(pool, **this, links=links)
    seen = await begin_publishing(pool, **this)
    await publish_page(pool, **this, invalidation=seen, permalink=name, html=name.upper())
    await invalidate_published(pool, **this)
    rows = await stored(
        pool, "SELECT id FROM files WHERE user_id = $1 AND deleted_at IS NULL AND id <> $2",
        user_id, file_id,
    )  # fmt: skip
    for one in (file_id, rows[0]["id"], rows[1]["id"]):
        await enqueue_processing(pool, user_id=user_id, file_id=one)
    await stored(
        pool,
        "UPDATE processing_queue SET ready_at = now() - interval '1 minute',"
        " lease_token = CASE WHEN file_id = $2 THEN $3::uuid END,"
        " dead_at = CASE WHEN file_id = $4 THEN now() END, error = $5"
        " WHERE user_id = $1",
        user_id,
        file_id,
        uuid5(NAMESPACE_DNS, name),
        rows[0]["id"],
        name.upper(),
    )


async def everything_of(pool: Pool, world: World) -> dict[str, list[str]]:
    """Each row that is a user's or a DID's, in whichever table the catalog knows."""
    owned = await stored(
        pool,
        "SELECT c.table_name, c.column_name FROM information_schema.columns AS c"
        " WHERE c.table_schema = 'public' AND c.column_name IN ('user_id', 'uploaded_by_did')",
    )
    found: dict[str, list[str]] = {}
    for table, column in owned:
        who = world.user_id if column == "user_id" else world.did
        rows = await stored(
            pool,
            f"SELECT to_jsonb(t)::text AS row FROM {table} AS t WHERE {column} = $1 ORDER BY 1",
            who,
        )
        found[table] = [row["row"] for row in rows]
    assert {
        *("vaults", "folders", "files", "file_versions", "blobs", "frontmatter", "file_links"),
        *("file_tags", "file_aliases", "processing_queue", "published_pages"),
    } <= found.keys()
    return found


async def ask(
    pool: Pool, store: ObjectStore, name: str, caller: World, world: World, path: str
) -> Any:
    """What a function answers to a caller who names things of a world; its error, if that is it."""
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    given = THINGS[name](world, path)
    if "stored" in parameters:
        given["stored"] = await an_object(pool, f"by {caller.name}")
    for who in WHO & parameters.keys():
        given[who] = caller.user_id if who == "user_id" else caller.did
    executors = [one for one in parameters.values() if one.kind is one.POSITIONAL_ONLY]
    try:
        answer = function(*[pool, store][: len(executors)], **given)
        if isinstance(answer, Awaitable):
            return await answer
        return b"".join([chunk async for chunk in answer])
    except DatabaseError as error:
        return error


def shown(answer: Any) -> str:
    items: list[Any] = answer.items if isinstance(answer, Page) else [answer]
    return " ".join(f"{one!r} {one!s}" for one in items)


def is_nothing(answer: Any) -> bool:
    if isinstance(answer, DatabaseError):
        return isinstance(answer, catbird_db.NotFoundError | catbird_db.NotAMemberError)
    return answer in (None, False, 0, b"", [], Page([], None))


def test_every_function_of_the_vault_and_of_blobs_is_in_the_table() -> None:
    assert sorted(THINGS) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
async def test_who_calls_as_the_wrong_user_sees_and_changes_nothing(
    pool: Pool, catbird_store: ObjectStore, name: str
) -> None:
    assert name in THINGS, f"say in THINGS how {name} is called"
    zebra, quokka = [await build(pool, catbird_store, one) for one in ("zebra", "quokka")]
    nobody = World("nobody", 2**40, UUID(int=0), "", [])
    before = await everything_of(pool, zebra)
    takes_path = "path" in THINGS[name](zebra, "/both")
    for caller in (quokka, nobody):
        for path in ("/zebra", "/both") if takes_path else ("",):
            answer = await ask(pool, catbird_store, name, caller, zebra, path)
            leaks = [one for one in zebra.secrets if one in shown(answer)]
            assert leaks == [], f"{name} shows {caller.name}: {answer!r}"
            assert await everything_of(pool, zebra) == before, f"{name} by {caller.name}"
            named = path == "/zebra" or THINGS[name](zebra, "") != THINGS[name](quokka, "")
            if (caller is nobody or named) and name not in STRANGERS_OWN:
                assert is_nothing(answer), f"{name} answers {caller.name}: {answer!r}"

    answer = await ask(pool, catbird_store, name, zebra, zebra, "/zebra")
    assert name in SAYS_NOTHING or not is_nothing(answer), f"not even to its owner: {answer!r}"
    assert not isinstance(answer, DatabaseError)
