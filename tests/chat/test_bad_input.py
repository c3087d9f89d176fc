"""Bad input for every public function: refused by name before anything is sent, and not repeated.

The table of functions is made of `catbird_db.__all__`, and that of values by the parameter's name:
a new function is attacked as soon as it is exported, and a parameter of a new name fails the test
until somebody says what is bad for it.
"""

import math
import random
import reprlib
import traceback
import typing
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from actors import converse, stored
from corpus.shelf import shelf, user
from functions import STORE, Function, functions, parameters

import catbird_db
from catbird_db import (
    ChunkEmbedding,
    ConflictError,
    InvalidArgumentError,
    NewChunk,
    NewDocument,
    NewKeyPackage,
    NewLink,
    NewMessage,
    NewWelcome,
    NotAMemberError,
    NotFoundError,
    Observation,
    Page,
    Pool,
    Settings,
    StorageError,
    StoredObject,
    WelcomeRecipient,
    acknowledge_welcome,
    begin_publishing,
    claim_processing,
    collect_garbage,
    commit_group_change,
    consume_key_package,
    consume_key_packages,
    create_conversation,
    create_folder,
    create_item,
    create_message,
    create_messages,
    create_user,
    delete_key_packages,
    enqueue_processing,
    fail_processing,
    find_files_by_tag,
    get_current_epoch,
    get_frontmatter,
    get_group_info,
    get_message,
    invalidate_published,
    list_all_stale_pages,
    list_backlinks,
    list_commits,
    list_conversations,
    list_dead_processing,
    list_folder,
    list_links,
    list_members,
    list_messages,
    list_new_messages,
    list_pending_welcomes,
    list_published,
    list_unresolved_links,
    list_versions,
    mark_read,
    open_pool,
    publish_page,
    reconcile,
    replace_links,
    resolve_links,
    set_frontmatter,
    store_blob,
    store_key_package,
    store_key_packages,
    update_conversation_epoch,
    update_unread_count,
    write_file,
)
from catbird_db.types import Input, Row

ALICE, BOB, CAROL = "did:plc:alice", "did:plc:bob", "did:plc:carol"
SOON = datetime(2099, 1, 1, tzinfo=UTC)

FUNCTIONS = functions()
MODELS: dict[str, type[Row]] = {
    name: value
    for name in catbird_db.__all__
    if isinstance(value := getattr(catbird_db, name), type) and issubclass(value, Row)
}
INPUTS = {name: model for name, model in MODELS.items() if issubclass(model, Input)}

# What is good and what is bad for each parameter, by its name.

INT8_MAX = 2**63 - 1
MAX_BYTES = 16 * 2**20
SECRET = "s3cr3t"
FIGURES = 735_301
"""As recognizable as SECRET, for numbers."""

BEYOND_INT8 = [INT8_MAX + 1, 2**64 + FIGURES, -INT8_MAX - 2, 10**40]
NO_TEXT = [FIGURES, True, 7.35301, SECRET.encode(), [SECRET], {SECRET: SECRET}, object]
NO_INT = [True, False, 7.35301, 1.0, math.inf, math.nan, Decimal(FIGURES), SECRET, "1", [FIGURES]]
NO_BYTES = [SECRET, bytearray(b"s3cr3t"), memoryview(b"s3cr3t"), [FIGURES], FIGURES, True, "", b""]
NO_BOOL = [0, 1, FIGURES, "true", SECRET, b"\x01", 1.0, [True]]
NO_LIST = [SECRET, SECRET.encode(), FIGURES, {SECRET: 1}, {SECRET}, iter([SECRET]), True, object()]
NO_TIME = [
    datetime(7353, 1, 1),
    date(7353, 1, 1),
    "7353-01-01T00:00:00Z",
    FIGURES,
    7.35301,
    timedelta(days=FIGURES),
    SECRET,
    True,
]


def text(longest: int) -> list[Any]:
    too_long = [SECRET * longest, SECRET.ljust(longest + 1, "é")]
    not_for_postgresql = [f"{SECRET}\0", f"\0{SECRET}", f"{SECRET}\ud800", f"\udfff{SECRET}"]
    return [*too_long, *not_for_postgresql, *NO_TEXT]


def number(least: int, most: int) -> list[Any]:
    return [least - 1, most + 1, least - FIGURES, most + FIGURES, *BEYOND_INT8, *NO_INT]


def list_of(good: Any, most: int, *bad: Any) -> list[Any]:
    one_is_bad = [[value] for value in (*bad, None)]
    return [*NO_LIST, [good] * (most + 1), *one_is_bad, [good, SECRET + "\0"]]


DID = [
    "",
    *text(512),
    f"did:plc:{SECRET}\n",
    f"did:plc:{SECRET} ",
    f" did:plc:{SECRET}",
    f"did:plc:{SECRET}é",
    f"did:plc:{SECRET}\x7f",
]
ID = ["", *text(255)]
BYTES = [SECRET.encode() * (MAX_BYTES // 6 + 1), *NO_BYTES]
EPOCH = number(0, INT8_MAX - 1)
SEQ = number(0, INT8_MAX)
LIMIT = number(1, 500)
MESSAGE = NewMessage(ciphertext=b"x")
PACKAGE = NewKeyPackage(cipher_suite=1, key_data=b"x", expires_at=SOON)
RECIPIENT = WelcomeRecipient(did=BOB, key_package_ref=b"x")
WELCOME = NewWelcome(data=b"x", recipients=[RECIPIENT])

STORED = StoredObject(hash="0" * 64, size=1)
CID = "b" + "a" * 58
NO_BODY = [SECRET, [b"x"], FIGURES, True, object(), bytes]
FROM_0 = number(0, INT8_MAX)
FILE_ID = UUID(int=FIGURES)
PATH = [
    *("//", "/..", f"/{SECRET}/", f"/{SECRET}//x", f"/./{SECRET}", f"{SECRET}/../x"),
    *(f"/{SECRET}\n", f"/{SECRET}\x7f", f"/{SECRET}\x85", f"/{SECRET}" * 200),
    *text(1024),
]

NAME = ["", *text(1024), "é" * 513]
LINK = NewLink(target_name="x")
NO_UUID = [
    SECRET,
    f"{UUID(int=FIGURES)}",
    UUID(int=1).bytes,
    FIGURES,
    True,
    [UUID(int=1)],
    object(),
]
NO_JSON = [
    *(SECRET, [SECRET], FIGURES, True, b"{}"),
    *(
        {SECRET: value}
        for value in (f"{SECRET}\0", f"{SECRET}\ud800", math.nan, b"", object(), {1})
    ),
    *({FIGURES: SECRET}, {f"{SECRET}\0": 1}, {"x": SECRET * 200_000}),
]
NO_LEASE = [
    timedelta(0),
    timedelta(days=FIGURES),
    timedelta(milliseconds=7),
    FIGURES,
    7.35301,
    SECRET,
]
HASH = [b"", SECRET.encode(), SECRET.encode() * 6, b"x" * 33, SECRET * 6, "0" * 64, FIGURES]
CHUNK = NewChunk(content="x", token_count=1)
EMBEDDING = ChunkEmbedding(document_id=UUID(int=1), chunk_index=0, version=1, embedding_id="v")
DOCUMENT = NewDocument(file_name="x", file_size=1, content_hash=b"x" * 32)


def one_of(*others: Any) -> list[Any]:
    return ["", SECRET, "ready\0", "READY", *others, *NO_TEXT]


PARAMETERS: dict[str, tuple[Any, list[Any]]] = {
    **dict.fromkeys(["tag", "target_name", "permalink"], ("x", NAME)),
    **dict.fromkeys(["tags", "aliases", "names"], (["x"], list_of("x", 1000, *NAME))),
    **dict.fromkeys(["publish", "embed", "along_links"], (False, NO_BOOL)),
    "fragment": ("Head", text(1000)),
    "links": ([LINK], list_of(LINK, 10_000, MESSAGE, SECRET)),
    "other": ({"a": 1}, [*NO_JSON, *(one for one in NO_LIST if not isinstance(one, dict))]),
    "priority": (1, [-1, 3, FIGURES, *NO_INT]),
    "changed": (1, number(1, INT8_MAX)),
    "error": ("it broke", NO_TEXT),
    "invalidation": (0, FROM_0),
    "html": ("<p>", [SECRET * (MAX_BYTES // 6 + 1), f"{SECRET}\0", f"{SECRET}\ud800", *NO_TEXT]),
    **dict.fromkeys(["collection_id", "document_id", "operation_id"], (UUID(int=1), NO_UUID)),
    **dict.fromkeys(["lease_token", "sync_token"], (UUID(int=1), NO_UUID)),
    **dict.fromkeys(["owner_id", "grantee_id"], (1, number(1, INT8_MAX))),
    "name": ("Books", ["", " \t", *text(255)]),
    "description": ("of mine", text(10_000)),
    **dict.fromkeys(["vector_store_name", "embedding_model", "embedding_id"], ("v", ID)),
    "embedding_dimension": (3, number(1, 65_536)),
    "sync_mode": ("one_time", one_of("never")),
    "sync_interval_minutes": (None, number(1, 525_600)),
    "is_public": (False, NO_BOOL),
    **dict.fromkeys(["meta", "metadata", "config"], ({"a": [1]}, NO_JSON)),
    "status": ("processing", one_of("done")),
    "status_message": (None, text(10_000)),
    "error_message": ("broken", text(10_000)),
    "permission": ("READ", one_of("read")),
    "lease": (timedelta(minutes=1), NO_LEASE),
    "content_hash": (b"x" * 32, HASH),
    "file_name": ("x", ["", *text(1024)]),
    **dict.fromkeys(["file_path", "source_path", "uri"], ("/x", ["", *text(2048)])),
    **dict.fromkeys(["file_size", "token_count", "chunk_index"], (1, FROM_0)),
    **dict.fromkeys(["start_offset", "end_offset"], (1, FROM_0)),
    **dict.fromkeys(["version", "max_retries"], (1, number(1, INT8_MAX))),
    "documents": ([DOCUMENT], [[], *list_of(DOCUMENT, 1000, CHUNK, SECRET)]),
    "chunks": ([CHUNK], list_of(CHUNK, 100_000, DOCUMENT, SECRET)),
    "embeddings": ([EMBEDDING], list_of(EMBEDDING, 10_000, CHUNK, SECRET)),
    "seen_before": (SOON, NO_TIME),
    "content": ("x", text(100_000)),
    "text": ("cat", ["", *text(1000)]),
    "type": ("index", one_of("sync")),
    "progress": (50, number(0, 100)),
    "uploaded_by_did": (ALICE, DID),
    "cid": (CID, ["", CID.upper(), CID + "a", "Qm" + "a" * 44, f"{SECRET}\0", *NO_TEXT]),
    "mime_type": ("image/png", ["", *text(255)]),
    "stored": (STORED, [SECRET, {"hash": SECRET, "size": 1}, MESSAGE, FIGURES]),
    "hash": (STORED.hash, ["", SECRET, "0" * 63, "A" * 64, "0" * 64 + "\n", *NO_TEXT]),
    "sha256": (None, ["", SECRET, "0" * 63, "A" * 64, "0" * 64 + "_" + "0" * 32, *NO_TEXT]),
    "owner": (ALICE, ["", SECRET * 512, *(one for one in NO_TEXT if one != FIGURES), 0, -1]),
    "body": (b"x", NO_BODY),
    **dict.fromkeys(["start", "length", "size"], (0, FROM_0)),
    **dict.fromkeys(["mend", "verify"], (False, NO_BOOL)),
    "path": ("/a/x.md", PATH),
    "to": ("/b", ["", "/", *PATH]),
    "file_id": (FILE_ID, NO_UUID),
    "version": (1, number(1, INT8_MAX)),
    "content_type": ("text/plain", ["", SECRET, f"{SECRET}/", f"{SECRET}/x\n", *text(255)]),
    "if_match": (None, ["", SECRET, "0" * 63, "A" * 64, *NO_TEXT]),
    "overwrite": (False, NO_BOOL),
    "deleted_before": (SOON, NO_TIME),
    "user_id": (1, number(1, INT8_MAX)),
    "username": ("alice", ["", f"-{SECRET}", f"{SECRET} x", f"{SECRET}é", *text(64)]),
    "email": ("alice@example.org", ["", SECRET, f"{SECRET}@", f"{SECRET}@é", *text(254)]),
    "password": (SECRET[::-1], ["", *text(1024)]),
    "full_name": ("Alice", text(255)),
    "is_active": (True, NO_BOOL),
    **dict.fromkeys(["did", "creator_did", "sender_did", "reader_did"], (ALICE, DID)),
    **dict.fromkeys(["member_did", "recipient_did"], (ALICE, DID)),
    "add_dids": ([BOB], list_of(BOB, 10_000, *DID)),
    "remove_dids": ([CAROL], list_of(CAROL, 10_000, *DID)),
    "member_dids": ([BOB], list_of(BOB, 10_000, *DID)),
    "dids": ([BOB], list_of(BOB, 1000, *DID)),
    **dict.fromkeys(["convo_id", "message_id"], ("c", ID)),
    "device_id": ("phone", text(255)),
    "title": ("Climbing", text(1000)),
    **dict.fromkeys(["limit", "limit_per_conversation"], (10, LIMIT)),
    "cursor": (None, ["", *text(8192), SECRET, "czNjcjN0", "bnVsbA"]),
    "item_id": (UUID(int=FIGURES), [*NO_TEXT, SECRET, str(UUID(int=FIGURES))]),
    **dict.fromkeys(["epoch", "expected_epoch", "from_epoch"], (0, EPOCH)),
    "new_epoch": (1, EPOCH),
    "epoch_window": (0, SEQ),
    **dict.fromkeys(["seq", "after_seq"], (1, SEQ)),
    "increment": (1, number(-(2**62), 2**62)),
    "cipher_suite": (1, number(1, 0xFFFF)),
    **dict.fromkeys(["commit", "ciphertext", "group_info", "key_data", "data"], (b"x", BYTES)),
    "key_package_ref": (b"x", [SECRET.encode() * 11, *NO_BYTES]),
    "expires_at": (SOON, NO_TIME),
    **dict.fromkeys(["last_resort", "external", "with_total"], (False, NO_BOOL)),
    "message_type": ("app", ["commit", "", SECRET, "app\0", "\ud800", *NO_TEXT]),
    "messages": ([MESSAGE], [[], *list_of(MESSAGE, 1000, PACKAGE, SECRET)]),
    "packages": ([PACKAGE], list_of(PACKAGE, 1000, MESSAGE, SECRET)),
    "welcomes": ([], list_of(WELCOME, 10_000, RECIPIENT, SECRET)),
    "recipients": ([RECIPIENT], [[], *list_of(RECIPIENT, 10_000, WELCOME, SECRET)]),
    "positions": (
        {"c": 0},
        [
            *(value for value in NO_LIST if not isinstance(value, dict)),
            [("c", 1)],
            *({"c": value} for value in [*SEQ, None]),
            {f"c{each}": 0 for each in range(501)},
        ],
    ),
}
SPECIAL: dict[tuple[str, str], tuple[Any, list[Any]]] = {
    ("delete_messages_before", "limit"): (10, number(1, 100_000)),
    ("delete_expired_key_packages", "limit"): (10, number(1, 100_000)),
    ("collect_garbage", "limit"): (10, number(1, 100_000)),
    ("reconcile", "limit"): (10, number(1, 100_000)),
    ("reconcile", "on_progress"): (None, [SECRET, FIGURES, True, object()]),
    ("purge_deleted", "limit"): (10, number(1, 100_000)),
    ("retry_failed_documents", "limit"): (10, number(1, 100_000)),
    ("mark_unseen_stale", "limit"): (10, number(1, 100_000)),
    ("update_collection", "sync_interval_minutes"): (5, number(1, 525_600)),
    ("set_document_status", "error"): (None, text(10_000)),
    ("store_blob", "data"): (b"x", NO_BODY),
    ("find_published", "username"): ("alice", NO_TEXT),
    ("find_published", "permalink"): ("x", NO_TEXT),
    ("authenticate_user", "username"): ("alice", NO_TEXT),
    ("authenticate_user", "password"): (SECRET[::-1], NO_TEXT),
}


def attacks(attacked: Callable[..., Any]) -> Iterator[tuple[str, Any, list[Any]]]:
    """Each parameter or field with a good value and bad ones; None is bad unless it is typed."""
    owner = attacked.__name__
    hints = typing.get_type_hints(attacked)
    for name in parameters(attacked):
        assert (owner, name) in SPECIAL or name in PARAMETERS, (
            f"{owner}: say in PARAMETERS what is good and what is bad for {name}"
        )
        good, bad = SPECIAL.get((owner, name)) or PARAMETERS[name]
        yield name, good, bad if type(None) in typing.get_args(hints[name]) else [*bad, None]


def good_arguments(attacked: Callable[..., Any]) -> dict[str, Any]:
    return {name: good for name, good, _ in attacks(attacked)}


# What is wrong with a refusal.


def told(error: BaseException) -> str:
    """All that a log would show of it."""
    return f"{error!s}\n{error!r}\n{''.join(traceback.format_exception(error))}"


def fault_of(error: BaseException | None, name: str, value: Any) -> str | None:
    marks = [SECRET, SECRET.encode().hex(), f"{FIGURES}", "7.35301", "(7353", "7353-", "czNjcjN0"]
    if isinstance(value, int) and abs(value) > FIGURES:
        marks.append(str(value))
    if error is None:
        return "accepted"
    if not isinstance(error, InvalidArgumentError):
        return f"{type(error).__name__}: {error}"
    if error.sqlstate is not None:
        return f"PostgreSQL was asked: {error}"
    if name not in str(error):
        return f"does not name {name}: {error}"
    if shown := [mark for mark in marks if mark in told(error)]:
        return f"repeats {shown}: {error}"
    return None


@pytest.fixture
def seen() -> list[Observation]:
    return []


@pytest.fixture
async def watched(catbird_settings: Settings, seen: list[Observation]) -> AsyncGenerator[Pool]:
    """A pool; `seen` holds each statement that was sent on it."""
    async with open_pool(catbird_settings, observe=seen.append) as pool:
        await converse(pool, "c", ALICE, CAROL)
        seen.clear()
        yield pool


async def test_the_values_called_good_are_let_through_by_every_function(
    watched: Pool, seen: list[Observation]
) -> None:
    assert len(FUNCTIONS) >= 37
    for name, function in FUNCTIONS.items():
        seen.clear()
        with suppress(ConflictError, NotFoundError, NotAMemberError, StorageError):
            await function(watched, **good_arguments(function))
        assert seen, f"{name}: nothing was sent"


async def test_bad_input_is_refused_by_name_and_nothing_is_sent_or_repeated(
    watched: Pool, seen: list[Observation]
) -> None:
    faults: list[str] = []
    for owner, function in FUNCTIONS.items():
        good = good_arguments(function)
        for name, _, bad in attacks(function):
            for value in bad:
                error: BaseException | None = None
                try:
                    await function(watched, **{**good, name: value})
                except Exception as caught:
                    error = caught
                if fault := fault_of(error, name, value):
                    faults.append(f"{owner}({name}={reprlib.repr(value)}): {fault}")
    assert not faults, "\n".join(faults)
    assert seen == []


async def test_what_is_missing_unknown_or_not_by_keyword_is_a_type_error(
    watched: Pool, seen: list[Observation]
) -> None:
    for function in FUNCTIONS.values():
        good = good_arguments(function)
        for name, parameter in parameters(function).items():
            if parameter.default is parameter.empty:
                rest = {other: value for other, value in good.items() if other != name}
                with pytest.raises(TypeError, match=name):
                    await function(watched, **rest)
        with pytest.raises(TypeError, match="surprise") as unknown:
            await function(watched, **good, surprise=SECRET)
        assert SECRET not in told(unknown.value)
        with pytest.raises(TypeError):
            await function(watched, *(good.values() or [SECRET]))
        with pytest.raises(TypeError):
            await function(**good)
    assert seen == []


async def test_what_is_no_executor_is_a_type_error_that_says_what_to_pass(
    watched: Pool, seen: list[Observation]
) -> None:
    for function in FUNCTIONS.values():
        for executor in (SECRET, None, FIGURES, Pool, Settings(), object()):
            with pytest.raises(TypeError, match="Pool") as caught:
                await function(executor, **good_arguments(function))
            assert SECRET not in told(caught.value)
    assert seen == []


async def test_arguments_that_do_not_go_together_are_refused_by_name_and_nothing_is_sent(
    watched: Pool, seen: list[Observation]
) -> None:
    twice = NewMessage(ciphertext=b"x", message_id=SECRET)
    recipient = WelcomeRecipient(did=BOB, key_package_ref=SECRET.encode())
    welcome = NewWelcome(data=b"x", recipients=[recipient])
    cases: list[tuple[Function, str, dict[str, Any]]] = [
        (update_conversation_epoch, "new_epoch", {"expected_epoch": FIGURES, "new_epoch": FIGURES}),
        (update_conversation_epoch, "new_epoch", {"expected_epoch": FIGURES, "new_epoch": 7}),
        (create_messages, "messages", {"messages": [twice, MESSAGE, twice]}),
        (commit_group_change, "add_dids", {"add_dids": [f"did:{SECRET}"] * 2}),
        (commit_group_change, "remove_dids", {"remove_dids": [f"did:{SECRET}"] * 2}),
        (commit_group_change, "remove_dids", {"add_dids": [CAROL], "remove_dids": [CAROL]}),
        (commit_group_change, "remove_dids", {"remove_dids": [ALICE]}),
        (commit_group_change, "add_dids", {"external": True}),
        (commit_group_change, "external", {"external": True, "add_dids": []}),
        (commit_group_change, "welcomes", {"welcomes": [welcome, welcome]}),
        (
            commit_group_change,
            "welcomes",
            {"welcomes": [welcome], "add_dids": [], "remove_dids": [BOB]},
        ),
    ]
    for function, name, changes in cases:
        with pytest.raises(InvalidArgumentError, match=name) as caught:
            await function(watched, **{**good_arguments(function), **changes})
        assert fault_of(caught.value, name, None) is None, changes
    assert seen == []


# Models that callers build.


def test_a_bad_field_is_refused_by_name_and_not_repeated() -> None:
    assert {*INPUTS} >= {"NewMessage", "NewWelcome", "WelcomeRecipient", "NewKeyPackage"}
    faults: list[str] = []
    for owner, model in INPUTS.items():
        good = good_arguments(model)
        model(**good)
        for name, _, bad in attacks(model):
            for value in bad:
                error: BaseException | None = None
                try:
                    model(**{**good, name: value})
                except Exception as caught:
                    error = caught
                if fault := fault_of(error, name, value):
                    faults.append(f"{owner}({name}={reprlib.repr(value)}): {fault}")
            with pytest.raises(InvalidArgumentError, match="surprise") as unknown:
                model(**good, surprise=SECRET)
            assert SECRET not in told(unknown.value)
            if model.model_fields[name].is_required():
                with pytest.raises(InvalidArgumentError, match=name):
                    model(**{other: value for other, value in good.items() if other != name})
    assert not faults, "\n".join(faults)


def test_models_are_frozen_and_show_how_many_bytes_they_hold_not_which() -> None:
    recipient = WelcomeRecipient(did=BOB, key_package_ref=SECRET.encode())
    welcome = NewWelcome(data=SECRET.encode(), recipients=[recipient])
    for model in (
        recipient,
        welcome,
        NewMessage(ciphertext=SECRET.encode()),
        NewKeyPackage(cipher_suite=1, key_data=SECRET.encode(), expires_at=SOON),
    ):
        assert SECRET not in f"{model!r} {model!s} {[model]}"
        assert "<6 bytes>" in repr(model)
        for name in type(model).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(model, name, getattr(model, name))
            with pytest.raises(ValueError, match="frozen"):
                delattr(model, name)


async def rows_of_pages(pool: Pool, this: dict[str, Any]) -> list[Row]:
    """One row of each model of what hangs on the vault's files."""
    user = {"user_id": 1}
    await set_frontmatter(pool, **this, tags=["t"])
    links = [NewLink(target_name="x"), NewLink(target_name="nowhere")]
    await replace_links(pool, **this, links=links)
    rows: list[Row | None] = [
        await get_frontmatter(pool, **this),
        *(await find_files_by_tag(pool, **user, tag="t")).items,
        *(await list_links(pool, **this, limit=1)).items,
        *(await list_backlinks(pool, **this)).items,
        *(await list_unresolved_links(pool, **user)).items,
        *await resolve_links(pool, **user, names=["x"]),
    ]
    seen = await begin_publishing(pool, **this)
    page = {"invalidation": seen, "permalink": "x", "html": "x"}
    rows += [
        await publish_page(pool, **this, **page),
        *(await list_published(pool, **user)).items,
    ]
    await invalidate_published(pool, **this)
    rows += (await list_all_stale_pages(pool)).items
    for attempts in (0, 4):
        await enqueue_processing(pool, **this)
        await stored(
            pool,
            "UPDATE processing_queue SET ready_at = now(), waiting_since = NULL, attempts = $1",
            attempts,
        )
        [claimed] = await claim_processing(pool)
        lease = {"lease_token": claimed.lease_token, "changed": claimed.changed}
        failed = await fail_processing(pool, **this, **lease, error="e")
    rows += [claimed, failed, *(await list_dead_processing(pool, **user)).items]
    return [row for row in rows if row is not None]


async def rows_of_the_corpus(pool: Pool) -> list[Row]:
    on = await shelf(pool, sync_mode="continuous", sync_interval_minutes=5)
    ids = {"collection_id": on.collection_id, "user_id": on.owner_id}
    await catbird_db.grant_collection_permission(
        pool, **ids, grantee_id=await user(pool), permission="READ"
    )
    async with pool.connection() as connection:
        await connection.execute("ANALYZE chunks")
    health = await catbird_db.get_partition_health(pool)
    claimed = await catbird_db.claim_operation(pool)
    assert claimed is not None
    return [
        await catbird_db.get_collection(pool, **ids),
        *(await catbird_db.list_collection_permissions(pool, **ids)).items,
        *(await catbird_db.list_audit_log(pool, **ids)).items,
        *await catbird_db.claim_due_syncs(pool),
        await catbird_db.get_document(pool, **ids, document_id=on.document_id),
        await catbird_db.create_document(
            pool, **ids, file_name="x", file_size=1, content_hash=SECRET.encode().zfill(32)
        ),
        await catbird_db.collection_statistics(pool, **ids),
        *await catbird_db.get_chunks_by_document(pool, **ids, document_id=on.document_id),
        *await catbird_db.search_chunks(pool, **ids, text="cat"),
        health,
        health.partitions[0],
        *health.largest_collections,
        await catbird_db.get_operation(pool, **ids, operation_id=on.operation_id),
        claimed,
    ]


async def test_rows_are_frozen_closed_and_silent(catbird_pool: Pool) -> None:
    """One row of each model that is returned, with the secret in each field of bytes."""
    secret = SECRET.encode()
    recipient = WelcomeRecipient(did=BOB, key_package_ref=secret)
    conversation = await create_conversation(catbird_pool, creator_did=ALICE, convo_id="c")
    receipt = await commit_group_change(
        catbird_pool,
        convo_id="c",
        sender_did=ALICE,
        message_id="m",
        expected_epoch=0,
        commit=secret,
        add_dids=[BOB],
        welcomes=[NewWelcome(data=secret, recipients=[recipient])],
        group_info=secret,
    )
    published = {"did": ALICE, "cipher_suite": 1, "key_data": secret, "expires_at": SOON}
    rows: list[Row | None] = [
        conversation,
        receipt,
        await store_key_package(catbird_pool, **published),
        await get_group_info(catbird_pool, convo_id="c"),
        *(await list_conversations(catbird_pool, member_did=BOB)).items,
        *(await list_members(catbird_pool, convo_id="c", limit=1)).items,
        *(await list_pending_welcomes(catbird_pool, recipient_did=BOB)).items,
        await get_message(catbird_pool, convo_id="c", message_id="m", reader_did=BOB),
        *await list_new_messages(catbird_pool, reader_did=BOB, positions={"c": 0}),
        await store_blob(catbird_pool, STORE, data=b"x", uploaded_by_did=ALICE, convo_id="c"),
        await collect_garbage(catbird_pool, STORE),
        await reconcile(catbird_pool, STORE),
        await create_user(catbird_pool, username="alice", email="a@b", password=SECRET),
        await create_folder(catbird_pool, user_id=1, path="/a"),
        file := await write_file(catbird_pool, STORE, user_id=1, path="/a/x", body=secret),
        *(await list_folder(catbird_pool, user_id=1)).items,
        *(await list_versions(catbird_pool, user_id=1, file_id=file.id)).items,
        *await rows_of_pages(catbird_pool, {"user_id": 1, "file_id": file.id}),
        await create_item(catbird_pool, name="x"),
    ]
    rows += await rows_of_the_corpus(catbird_pool)
    returned = {model for model in MODELS.values() if not issubclass(model, Input)}
    health = catbird_db.Health if hasattr(catbird_db, "Health") else None
    assert {type(row) for row in rows} == returned - {health}
    for row in rows:
        assert row is not None
        assert SECRET not in f"{row!r} {row!s}"
        for name in type(row).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(row, name, getattr(row, name))
        values = {name: getattr(row, name) for name in type(row).model_fields}
        assert type(row).model_validate(values) == row
        for wrong in (
            {**values, "surprise": SECRET},
            {**values, "convo_id": [SECRET], "id": [SECRET], "collection_id": [SECRET]},
        ):
            with pytest.raises(ValueError, match="validation error") as caught:
                type(row).model_validate(wrong)
            assert SECRET not in told(caught.value)


# What is not there.

NOWHERE: dict[str, Any] = {
    "acknowledge_welcome": False,
    "add_member": NotFoundError,
    "commit_group_change": NotFoundError,
    "consume_key_package": None,  # the conversation is only remembered with the claim
    "consume_key_packages": [],
    "create_message": NotFoundError,
    "create_messages": NotFoundError,
    "delete_conversation": False,
    "delete_message": False,
    "delete_messages_before": 0,
    "get_conversation": None,
    "get_current_epoch": NotFoundError,
    "get_group_info": None,
    "get_membership": None,
    "get_message": NotAMemberError,
    "get_message_count": NotFoundError,
    "is_member": False,
    "list_blobs_by_conversation": NotAMemberError,
    "list_commits": NotAMemberError,
    "list_members": Page([], None),
    "list_messages": NotAMemberError,
    "list_messages_since": NotAMemberError,
    "list_new_messages": NotAMemberError,
    "mark_read": NotFoundError,
    "refer_blob": NotAMemberError,
    "remove_member": False,
    "reset_unread_count": NotFoundError,
    "store_blob": NotAMemberError,
    "update_conversation_epoch": NotFoundError,
    "update_unread_count": NotFoundError,
}


async def test_an_unknown_conversation_is_a_typed_error_or_a_neutral_answer(
    catbird_pool: Pool,
) -> None:
    """And its id, which may be another tenant's, is not repeated."""
    about_one = {
        name
        for name, function in FUNCTIONS.items()
        if {"convo_id", "positions"} & {*parameters(function)}
    } - {"create_conversation", "create_conversation_with_members"}
    assert about_one == {*NOWHERE}
    for name, expected in NOWHERE.items():
        function = FUNCTIONS[name]
        changes = {"convo_id": SECRET, "positions": {SECRET: 0}}
        given = {**good_arguments(function)}
        given |= {key: value for key, value in changes.items() if key in given}
        if not isinstance(expected, type):
            assert await function(catbird_pool, **given) == expected, name
            continue
        with pytest.raises(expected) as caught:
            await function(catbird_pool, **given)
        assert SECRET not in told(caught.value), name
    for table in ("conversations", "members", "messages", "welcomes", "group_infos"):
        assert await stored(catbird_pool, f"SELECT FROM {table}") == []


# The largest values that are good.


async def test_the_longest_ids_and_the_largest_numbers_work_wherever_they_are_taken(
    catbird_pool: Pool,
) -> None:
    """Of the characters that take most room, and of random ones, which an index cannot compress."""
    rng = random.Random(1)

    def longest_text(length: int) -> str:
        return "".join(chr(rng.randrange(0x10000, 0x110000)) for _ in range(length))

    def longest_did() -> str:
        return "".join(chr(rng.randrange(0x21, 0x7F)) for _ in range(512))

    convo_id, device_id, message_id = (longest_text(255) for _ in range(3))
    alice, bob = longest_did(), longest_did()
    ref = rng.randbytes(64)
    last = INT8_MAX - 1
    one = {"convo_id": convo_id, "sender_did": alice}
    await create_conversation(
        catbird_pool, convo_id=convo_id, creator_did=alice, title=longest_text(1000)
    )
    await update_conversation_epoch(
        catbird_pool, convo_id=convo_id, expected_epoch=0, new_epoch=last
    )
    sent = await create_message(
        catbird_pool,
        **one,
        epoch=0,
        epoch_window=INT8_MAX,
        ciphertext=b"x",
        message_id=message_id,
    )
    assert sent.id == message_id
    batch = [NewMessage(ciphertext=b"x", message_id=longest_text(255)) for _ in range(3)]
    await create_messages(catbird_pool, **one, epoch=last, messages=batch)
    receipt = await commit_group_change(
        catbird_pool,
        **one,
        message_id=longest_text(255),
        expected_epoch=last,
        commit=b"x",
        add_dids=[bob],
        welcomes=[
            NewWelcome(data=b"x", recipients=[WelcomeRecipient(did=bob, key_package_ref=ref)])
        ],
        group_info=b"x",
    )
    assert receipt.epoch == INT8_MAX == await get_current_epoch(catbird_pool, convo_id=convo_id)
    names = {"convo_id": convo_id, "member_did": bob}
    assert await mark_read(catbird_pool, **names, seq=INT8_MAX) == 0
    assert await update_unread_count(catbird_pool, **names, increment=2**62) == 4
    assert await update_unread_count(catbird_pool, **names, increment=-(2**62)) == 0
    reading = {"convo_id": convo_id, "reader_did": bob}
    assert len(await list_commits(catbird_pool, **reading, from_epoch=last)) == 1
    page = await list_messages(catbird_pool, **reading, limit=2)
    assert len((await list_messages(catbird_pool, **reading, cursor=page.next_cursor)).items) == 3
    members = await list_members(catbird_pool, convo_id=convo_id, limit=1)
    assert members.next_cursor is not None
    await list_members(catbird_pool, convo_id=convo_id, cursor=members.next_cursor)
    assert (await list_conversations(catbird_pool, member_did=bob)).items
    positions = {convo_id: INT8_MAX}
    assert await list_new_messages(catbird_pool, reader_did=bob, positions=positions)
    assert await acknowledge_welcome(
        catbird_pool, convo_id=convo_id, recipient_did=bob, key_package_ref=ref
    )
    packages = [
        NewKeyPackage(
            cipher_suite=0xFFFF,
            key_data=b"%d" % number,
            expires_at=datetime(9999, 12, 30, tzinfo=UTC),
            device_id=device_id,
            last_resort=number > 1,
        )
        for number in range(3)
    ]
    assert await store_key_packages(catbird_pool, did=bob, packages=packages) == 3
    claim = {"cipher_suite": 0xFFFF, "convo_id": convo_id}
    assert await consume_key_package(catbird_pool, did=bob, **claim, device_id=device_id)
    assert await consume_key_packages(catbird_pool, dids=[bob], **claim)
    assert await delete_key_packages(catbird_pool, did=bob, device_id=device_id) == 1


# What the tables above cannot say.


async def test_a_bad_position_is_refused_without_repeating_which_conversation_it_was(
    watched: Pool, seen: list[Observation]
) -> None:
    positions: list[Any] = [{f"{SECRET}\0": 1}, {SECRET: -1}, {SECRET: "1"}, {SECRET * 99: 1}]
    for bad in positions:
        with pytest.raises(InvalidArgumentError, match="positions") as caught:
            await list_new_messages(watched, reader_did=ALICE, positions=bad)
        assert fault_of(caught.value, "positions", None) is None
    assert seen == []


async def test_a_time_that_postgresql_would_not_give_back_is_refused_by_name(
    watched: Pool, seen: list[Observation]
) -> None:
    """asyncpg sends infinity for the first two, which comes back without a zone."""
    for moment in (
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ):
        good = {**good_arguments(store_key_package), "expires_at": moment}
        with pytest.raises(InvalidArgumentError, match="expires_at"):
            await store_key_package(watched, **good)
    assert seen == []


async def test_a_copy_of_a_model_with_bad_values_is_refused(catbird_pool: Pool) -> None:
    """`model_copy` does not validate: a commit must not get in beside its epoch."""
    await converse(catbird_pool, "c", ALICE)
    good = good_arguments(create_messages)
    updates: list[dict[str, Any]] = [
        {"message_type": "commit"},
        {"ciphertext": b""},
        {"message_id": "m\0"},
    ]
    for update in updates:
        bad = MESSAGE.model_copy(update=update)
        with pytest.raises(InvalidArgumentError, match="messages"):
            await create_messages(catbird_pool, **{**good, "messages": [bad]})
    assert await stored(catbird_pool, "SELECT FROM messages") == []
