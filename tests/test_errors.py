"""Errors that a real server makes: their types, what they say, and what they must not say."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
from functions import functions
from small_package import import_package

import catbird_db
from catbird_db import (
    ChunkEmbedding,
    ConflictError,
    ConstraintError,
    DatabaseConnectionError,
    DatabaseError,
    HistoryTrimmedError,
    IntegrityError,
    InvalidArgumentError,
    NewChunk,
    NewDocument,
    NewKeyPackage,
    NewLink,
    NewMessage,
    NotAMemberError,
    NotFoundError,
    Pool,
    PoolTimeoutError,
    QueryError,
    SerializationError,
    Settings,
    StaleEpochError,
    StorageError,
    StoredObject,
    TransactionConflictError,
    health_check,
    open_pool,
    transaction,
)
from catbird_db.errors import BY_CONSTRAINT, BY_SQLSTATE

SECRET = "s3cr3t"

SCHEMA = f"""
CREATE TABLE owners (owner text CONSTRAINT owners_pkey PRIMARY KEY);
CREATE TABLE secrets (
    id text CONSTRAINT secrets_pkey PRIMARY KEY,
    owner text CONSTRAINT secrets_owner_fkey REFERENCES owners,
    level int NOT NULL DEFAULT 1 CONSTRAINT secrets_level_check CHECK (level > 0),
    span int4range,
    code varchar(3),
    CONSTRAINT secrets_span_excl EXCLUDE USING gist (span WITH &&)
);
INSERT INTO owners VALUES ('{SECRET}-owner');
INSERT INTO secrets (id, owner, span) VALUES ('{SECRET}-1', '{SECRET}-owner', '[1,5)'), ('{SECRET}-2', NULL, '[5,9)');
CREATE ROLE outsider_of_{{database}};
CREATE FUNCTION fail(code text, says text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'it failed' USING ERRCODE = code, DETAIL = says, TABLE = 'secrets';
END $$
"""

# label -> mode, SQL, Python parameters
STATEMENTS = {
    "insert_secret": (
        "exec",
        "INSERT INTO secrets (id, owner, level, code) VALUES (:id, :owner, :level, :code)",
        "id: str, owner: str | None = None, level: int | None = 1, code: str | None = None",
        "None",
    ),
    "insert_span": (
        "exec",
        "INSERT INTO secrets (id, span) VALUES (:id, int4range(1, :upper))",
        "id: str, upper: int",
        "None",
    ),
    "delete_owner": (
        "exec", "DELETE FROM owners AS o WHERE o.owner = :owner", "owner: str", "None"
    ),
    "update_level": (
        "exec", "UPDATE secrets AS s SET level = s.level + 1 WHERE s.id = :id", "id: str", "None"
    ),
    "lock_secret": (
        "exec", "SELECT FROM secrets AS s WHERE s.id = :id FOR UPDATE NOWAIT", "id: str", "None"
    ),
    "to_number": ("value", "SELECT :text::text::int", "text: str", "int"),
    "divide": ("value", "SELECT length(:text) / 0", "text: str", "int"),
    "one_of_many": (
        "value",
        "SELECT (SELECT s.level FROM secrets AS s WHERE s.id LIKE :text || '%')",
        "text: str",
        "int",
    ),
    "ask_nowhere": ("value", "SELECT n.id FROM nowhere AS n WHERE n.id = :text", "text: str", "str"),
    "ask_no_column": ("value", "SELECT s.nothing FROM secrets AS s", "", "str"),
    "misspell": ("value", "SELEKT 1", "", "int"),
    "ask_secret": (
        "value", "SELECT s.id FROM secrets AS s WHERE s.id = :id", "id: str", "str"
    ),
    "sleep": ("exec", "SELECT pg_sleep(:seconds)", "seconds: float", "None"),
    "end_session": ("exec", "SELECT pg_terminate_backend(pg_backend_pid())", "", "None"),
    "fail": ("exec", "SELECT fail(:code, :says)", "code: str, says: str", "None"),
}  # fmt: skip

SQL = "\n".join(f"-- name: {n} :{mode}\n{sql};\n" for n, (mode, sql, _, _) in STATEMENTS.items())
STUBS = "\n\n".join(
    f"@query\nasync def {name}(db: Executor, /{', *, ' if parameters else ''}{parameters}) -> {returns}: ...\n"
    for name, (_, _, parameters, returns) in STATEMENTS.items()
)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return import_package(tmp_path_factory.mktemp("ask"), "asking", "ask", STUBS, SQL)


@pytest.fixture
async def pool(catbird_settings: Settings) -> Any:
    """Each of its statements writes its arguments into the CONTEXT of an error."""
    async with open_pool(catbird_settings) as pool, pool.connection() as connection:
        database = await connection.fetchval("SELECT current_database()")
        await connection.execute(SCHEMA.format(database=database))
        await connection.execute(
            f"ALTER DATABASE {database} SET log_parameter_max_length_on_error = -1;"
            f"ALTER DATABASE {database} SET deadlock_timeout = '20ms'"
        )
    quick = {**catbird_settings.model_dump(), "db_statement_timeout": 1, "db_lock_timeout": 0.2}
    async with open_pool(Settings(**quick)) as pool:
        yield pool
    async with open_pool(catbird_settings) as pool, pool.connection() as connection:
        await connection.execute(f"DROP OWNED BY outsider_of_{database}")
        await connection.execute(f"DROP ROLE outsider_of_{database}")


async def error_of(call: Awaitable[object]) -> DatabaseError:
    """The error of a call, which shows no secret however it is looked at."""
    with pytest.raises(DatabaseError) as raised:
        await call
    assert_silent(raised.value)
    return raised.value


def assert_silent(error: BaseException) -> None:
    assert SECRET not in "".join(traceback.format_exception(error, chain=True))
    seen: BaseException | None = error
    while seen is not None:
        assert SECRET not in f"{seen!s} {seen!r} {seen.args} {vars(seen)}"
        seen = seen.__cause__
    record = logging.LogRecord("x", 40, "", 0, "", None, (type(error), error, error.__traceback__))
    assert SECRET not in logging.Formatter().format(record)


# ---- the tree


def test_the_tree_of_errors_is_the_one_of_the_design() -> None:
    assert {error.__name__ for error in DatabaseError.__subclasses__()} == {
        "ConflictError",
        "ConstraintError",
        "DatabaseConnectionError",
        "HistoryTrimmedError",
        "InvalidArgumentError",
        "NotAMemberError",
        "NotFoundError",
        "PoolTimeoutError",
        "QueryError",
        "SerializationError",
        "StaleEpochError",
        "TransactionConflictError",
    }
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(IntegrityError, StorageError)
    assert not issubclass(StorageError, DatabaseError)
    for error in (*DatabaseError.__subclasses__(), StorageError, IntegrityError, DatabaseError):
        assert getattr(catbird_db, error.__name__) is error
        assert error.__doc__


def test_no_error_is_one_of_the_drivers_or_of_the_systems() -> None:
    for error in (*DatabaseError.__subclasses__(), DatabaseError, StorageError, IntegrityError):
        assert not issubclass(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError))


def test_errors_carry_what_a_caller_decides_by() -> None:
    plain = QueryError("says")
    assert (plain.sqlstate, plain.constraint, plain.query) == (None, None, None)
    assert NotAMemberError("says", convo_ids=("a",)).convo_ids == ("a",)
    assert StaleEpochError("says", current_epoch=7).current_epoch == 7
    assert HistoryTrimmedError("says", trimmed_seq=9).trimmed_seq == 9


# ---- SQLSTATE by SQLSTATE, on a real server

EXPECTED: dict[str, tuple[str, dict[str, Any], type[DatabaseError], str, str | None]] = {
    "unique": ("insert_secret", {"id": f"{SECRET}-1"}, ConflictError, "23505", "secrets_pkey"),
    "foreign key": (
        "insert_secret", {"id": "3", "owner": f"{SECRET}-nobody"},
        ConstraintError, "23503", "secrets_owner_fkey",
    ),
    "foreign key, from the other side": (
        "delete_owner", {"owner": f"{SECRET}-owner"}, ConstraintError, "23503", "secrets_owner_fkey"
    ),
    "check": (
        "insert_secret", {"id": f"{SECRET}-3", "level": -1},
        ConstraintError, "23514", "secrets_level_check",
    ),
    "not null": (
        "insert_secret", {"id": f"{SECRET}-3", "level": None}, ConstraintError, "23502", None
    ),
    "exclusion": (
        "insert_span", {"id": f"{SECRET}-3", "upper": 3},
        ConstraintError, "23P01", "secrets_span_excl",
    ),
    "text that is no number": ("to_number", {"text": SECRET}, InvalidArgumentError, "22P02", None),
    "a number out of range": (
        "to_number", {"text": "99999999999"}, InvalidArgumentError, "22003", None
    ),
    "NUL in text": ("ask_secret", {"id": f"{SECRET}\0"}, InvalidArgumentError, "22021", None),
    "text too long": (
        "insert_secret", {"id": "3", "code": SECRET}, InvalidArgumentError, "22001", None
    ),
    "division by zero": ("divide", {"text": SECRET}, InvalidArgumentError, "22012", None),
    "more rows than one": ("one_of_many", {"text": SECRET}, QueryError, "21000", None),
    "no such table": ("ask_nowhere", {"text": SECRET}, QueryError, "42P01", None),
    "no such column": ("ask_no_column", {}, QueryError, "42703", None),
    "no such statement": ("misspell", {}, QueryError, "42601", None),
    "statement timeout": ("sleep", {"seconds": 60.0}, QueryError, "57014", None),
    "serialization failure": (
        "fail", {"code": "40001", "says": SECRET}, TransactionConflictError, "40001", None
    ),
    "an error of a function": ("fail", {"code": "P0001", "says": SECRET}, QueryError, "P0001", None),
    "a full disk": ("fail", {"code": "53100", "says": SECRET}, QueryError, "53100", None),
    "too many connections": (
        "fail", {"code": "53300", "says": SECRET}, DatabaseConnectionError, "53300", None
    ),
    "a lost connection": (
        "fail", {"code": "08006", "says": SECRET}, DatabaseConnectionError, "08006", None
    ),
    "a code that nobody knows": ("fail", {"code": "ZZ999", "says": SECRET}, QueryError, "ZZ999", None),
}  # fmt: skip


async def test_what_the_server_refuses_has_its_type_its_code_its_statement_and_no_value(
    ask: ModuleType, pool: Pool, subtests: pytest.Subtests
) -> None:
    for case, (name, arguments, kind, sqlstate, constraint) in EXPECTED.items():
        with subtests.test(case):
            error = await error_of(getattr(ask, name)(pool, **arguments))
            assert type(error) is kind
            assert (error.sqlstate, error.constraint) == (sqlstate, constraint)
            assert error.query == f"ask.{name}"
            says = str(error)
            assert says.startswith(f"ask.{name}: ")
            assert sqlstate in says
            assert constraint is None or constraint in says
            if kind is InvalidArgumentError:
                assert error.__cause__ is None
            else:
                assert isinstance(error.__cause__, asyncpg.PostgresError)
                assert error.__cause__.sqlstate == sqlstate
            assert await ask.ask_secret(pool, id=f"{SECRET}-1")  # and the pool is as before


async def test_a_session_that_the_server_ends_is_a_connection_error(
    ask: ModuleType, pool: Pool
) -> None:
    error = await error_of(ask.end_session(pool))
    assert type(error) is DatabaseConnectionError
    assert error.sqlstate in ("57P01", "08003")  # the farewell, or the silence that follows
    assert error.query == "ask.end_session"


async def test_errors_in_a_transaction_and_by_hand_say_no_more(ask: ModuleType, pool: Pool) -> None:
    async def by_hand(sql: str, *arguments: object) -> None:
        async with transaction(pool) as tx:
            await tx.execute(sql, *arguments)

    async def by_stub() -> None:
        async with transaction(pool) as tx:
            await ask.insert_secret(tx, id=f"{SECRET}-1")

    async def by_copy() -> None:
        async with pool.connection() as connection:
            records = [(f"{SECRET}-1", SECRET)]
            await connection.copy_records_to_table(
                "secrets", records=records, columns=["id", "code"]
            )

    insert = "INSERT INTO secrets (id) VALUES ($1)"
    for call, kind in (
        (by_hand(insert, f"{SECRET}-1"), ConflictError),
        (by_hand(insert, {SECRET: 1}), InvalidArgumentError),
        (by_hand("SELECT $1::int", SECRET), InvalidArgumentError),
        (by_hand("SELECT $1::text::int", SECRET), InvalidArgumentError),
        (by_hand("SELECT 1", SECRET), QueryError),
        (by_stub(), ConflictError),
        (by_copy(), InvalidArgumentError),
    ):
        assert type(await error_of(call)) is kind


async def test_a_row_that_somebody_else_changed_is_a_transaction_conflict(
    ask: ModuleType, pool: Pool
) -> None:
    async def late() -> None:
        async with transaction(pool, isolation="repeatable_read") as tx:
            await ask.ask_secret(tx, id=f"{SECRET}-1")
            await ask.update_level(pool, id=f"{SECRET}-1")
            await ask.update_level(tx, id=f"{SECRET}-1")

    error = await error_of(late())
    assert (type(error), error.sqlstate) == (TransactionConflictError, "40001")


async def test_a_lock_that_is_held_is_a_transaction_conflict(ask: ModuleType, pool: Pool) -> None:
    async with transaction(pool) as tx:
        await ask.update_level(tx, id=f"{SECRET}-1")
        for call in (
            ask.lock_secret(pool, id=f"{SECRET}-1"),  # NOWAIT
            ask.update_level(pool, id=f"{SECRET}-1"),  # lock_timeout
        ):
            error = await error_of(call)
            assert (type(error), error.sqlstate) == (TransactionConflictError, "55P03")


async def test_a_deadlock_is_a_transaction_conflict(ask: ModuleType, pool: Pool) -> None:
    holding = 0

    async def update(first: str, second: str) -> None:
        nonlocal holding
        async with transaction(pool) as tx:
            await tx.execute("SET LOCAL lock_timeout = 0")
            await ask.update_level(tx, id=f"{SECRET}-{first}")
            holding += 1
            while holding < 2:
                await asyncio.sleep(0.001)
            await ask.update_level(tx, id=f"{SECRET}-{second}")

    both = await asyncio.gather(update("1", "2"), update("2", "1"), return_exceptions=True)
    (error,) = [one for one in both if isinstance(one, DatabaseError)]
    assert_silent(error)
    assert (type(error), error.sqlstate) == (TransactionConflictError, "40P01")


async def test_a_missing_privilege_is_a_query_error(ask: ModuleType, pool: Pool) -> None:
    async with transaction(pool) as tx:
        database = await tx.fetchval("SELECT current_database()")
        await tx.execute(f"SET LOCAL ROLE outsider_of_{database}")

        async def ask_in_savepoint() -> None:
            async with transaction(tx):
                await ask.ask_secret(tx, id=SECRET)

        error = await error_of(ask_in_savepoint())
        assert (type(error), error.sqlstate) == (QueryError, "42501")
        assert "secrets" in str(error)


async def test_a_violated_constraint_of_ours_is_told_by_its_name(catbird_pool: Pool) -> None:
    async def violate(sql: str) -> None:
        async with transaction(catbird_pool) as tx:
            await tx.execute("INSERT INTO conversations (id, creator_did) VALUES ($1, '')", SECRET)
            await tx.execute(sql, SECRET if "conversations" in sql else f"{SECRET}-2")

    for sql, kind, constraint in [
        ("INSERT INTO conversations (id, creator_did) VALUES ($1, '')", ConflictError, "conversations_pkey"),
        ("INSERT INTO members (convo_id, member_did) VALUES ($1, '')", NotFoundError, "members_convo_id_fkey"),
        ("UPDATE conversations SET current_epoch = -length($1)", ConstraintError, "conversations_current_epoch_check"),
    ]:  # fmt: skip
        error = await error_of(violate(sql))
        assert (type(error), error.constraint) == (kind, constraint)


async def test_each_constraint_that_has_an_error_of_its_own_is_one_of_the_schema(
    catbird_pool: Pool,
) -> None:
    async with catbird_pool.connection() as connection:
        found = await connection.fetch(
            "SELECT c.conname::text AS name FROM pg_constraint AS c "
            "UNION SELECT i.indexrelid::regclass::text FROM pg_index AS i WHERE i.indisunique"
        )
    assert set(BY_CONSTRAINT) <= {row["name"] for row in found}


def test_each_code_that_has_an_error_of_its_own_is_one_of_postgresql() -> None:
    known = {getattr(error, "sqlstate", None) for error in vars(asyncpg).values()} - {None}
    for code in BY_SQLSTATE:
        assert any(one.startswith(code) for one in known), code


# ---- nothing of the driver reaches a caller of any public function

ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(["collection_id", "document_id", "operation_id"], UUID(int=1)),
    **dict.fromkeys(["lease_token", "sync_token"], UUID(int=1)),
    **dict.fromkeys(["owner_id", "grantee_id", "user_id", "embedding_dimension"], 1),
    **dict.fromkeys(["file_size", "chunk_index", "progress"], 1),
    **dict.fromkeys(["name", "embedding_model", "file_name", "file_path", "uri", "text"], "x"),
    "error_message": "x",
    "status": "processing",
    "permission": "READ",
    "type": "index",
    "content_hash": b"x" * 32,
    "documents": [NewDocument(file_name="x", file_size=1, content_hash=b"x" * 32)],
    "chunks": [NewChunk(content="x", token_count=1)],
    "embeddings": [
        ChunkEmbedding(document_id=UUID(int=1), chunk_index=0, version=1, embedding_id="x")
    ],
    "seen_before": datetime(2100, 1, 1, tzinfo=UTC),
    "add_dids": (),
    "body": b"body",
    "changed": 1,
    "cid": "b" + "a" * 58,
    "data": b"data",
    "deleted_before": datetime(2100, 1, 1, tzinfo=UTC),
    "email": "alice@example.org",
    "error": "it broke",
    "file_id": UUID(int=1),
    "hash": "0" * 64,
    "html": "<p>",
    "invalidation": 0,
    "lease_token": UUID(int=1),
    "links": [NewLink(target_name="today")],
    "names": ["today"],
    "password": "a password",
    "path": "/notes/today.md",
    "permalink": "today",
    "stored": StoredObject(hash="0" * 64, size=1),
    "tag": "plants",
    "to": "/elsewhere",
    "uploaded_by_did": "did:plc:alice",
    "user_id": 1,
    "username": "alice",
    "version": 1,
    "after_seq": 0,
    "cipher_suite": 1,
    "ciphertext": b"ciphertext",
    "commit": b"commit",
    "convo_id": "convo",
    "creator_did": "did:plc:alice",
    "device_id": "phone",
    "did": "did:plc:alice",
    "dids": ["did:plc:alice"],
    "epoch": 0,
    "expected_epoch": 0,
    "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
    "from_epoch": 0,
    "increment": 1,
    "item_id": UUID(int=1),
    "key_data": b"key package",
    "key_package_ref": b"ref",
    "member_did": "did:plc:alice",
    "member_dids": ["did:plc:bob"],
    "message_id": "message",
    "messages": [NewMessage(ciphertext=b"ciphertext")],
    "name": "item",
    "new_epoch": 1,
    "packages": [
        NewKeyPackage(cipher_suite=1, key_data=b"key", expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    ],
    "positions": {"convo": 0},
    "reader_did": "did:plc:alice",
    "recipient_did": "did:plc:alice",
    "sender_did": "did:plc:alice",
    "seq": 1,
}


def arguments_of(function: Callable[..., object]) -> dict[str, Any]:
    """For each parameter without a default; a new one belongs into ARGUMENTS."""
    return {
        name: ARGUMENTS[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }


async def test_every_function_says_that_the_server_cannot_be_reached() -> None:
    for url in (
        "postgresql://alice:s3cr3t@127.0.0.1:1/postgres",
        "postgresql://alice:s3cr3t@/postgres?host=/nowhere",
    ):
        async with open_pool(Settings(database_url=url, db_pool_min_size=0)) as pool:
            for name, function in functions().items():
                error = await error_of(function(pool, **arguments_of(function)))
                assert type(error) is DatabaseConnectionError, name
                assert "cannot be reached" in str(error)
            health = await health_check(pool)
            assert (health.status, len(health.problems)) == ("unavailable", 1)


async def test_every_function_says_that_the_tables_are_missing(
    catbird_empty_database_url: str,
) -> None:
    async with open_pool(Settings(database_url=catbird_empty_database_url)) as pool:
        for name, function in functions().items():
            error = await error_of(function(pool, **arguments_of(function)))
            assert (type(error), error.sqlstate) == (QueryError, "42P01"), name
            assert "apply the migrations" in str(error)
            assert ".sql:" in str(error)


async def test_every_function_says_that_all_connections_are_busy(
    catbird_settings: Settings,
) -> None:
    busy = {**catbird_settings.model_dump(), "db_pool_max_size": 1, "db_pool_timeout": 1}
    async with open_pool(Settings(**busy)) as pool, pool.connection():
        calls = [function(pool, **arguments_of(function)) for function in functions().values()]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {PoolTimeoutError}


async def test_every_function_says_that_its_connection_was_killed(
    catbird_settings: Settings, catbird_database_url: str
) -> None:
    """While it waits for a lock on every table: not idle, so the statement was sent."""
    all_functions = functions()
    tables = (
        "conversations, members, messages, key_packages, welcomes, welcome_recipients, group_infos, "
        "blobs, objects, users, vaults, folders, files, file_versions, frontmatter, file_tags, "
        "file_aliases, file_links, processing_queue, published_pages, "
        "collections, collection_permissions, audit_log, documents, chunks, operations, items"
    )
    many = {**catbird_settings.model_dump(), "db_pool_max_size": len(all_functions) + 1}
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with open_pool(Settings(**many)) as pool, transaction(pool) as tx:
        await tx.execute(f"LOCK TABLE {tables}")
        calls = [
            asyncio.create_task(function(pool, **arguments_of(function)))  # type: ignore[arg-type]
            for function in all_functions.values()
        ]
        with psycopg.connect(catbird_database_url, autocommit=True) as admin:
            async with asyncio.timeout(60):
                while not all(call.done() for call in calls):
                    admin.execute(kill)
                    await asyncio.sleep(0.01)
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {DatabaseConnectionError}


def test_there_are_functions_to_ask() -> None:
    assert len(functions()) > 35


async def test_a_row_model_shows_no_bytes_in_its_repr(catbird_pool: Pool) -> None:
    await catbird_db.create_conversation(catbird_pool, creator_did="did:plc:alice", convo_id="c")
    message = await catbird_db.create_message(
        catbird_pool, convo_id="c", sender_did="did:plc:alice", epoch=0, ciphertext=SECRET.encode()
    )
    assert SECRET not in f"{message!r} {message}"
    assert "ciphertext=<6 bytes>" in repr(message)


def test_a_serialization_error_is_no_transaction_conflict() -> None:
    assert not issubclass(SerializationError, TransactionConflictError)
