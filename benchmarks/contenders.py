"""The same work, as catbird_db and as everyone else would do it.

A contender's methods are operations; they take the number of the calling task. All but those that
hold a connection for each task have ten of them at most. All but the ORM send the text of sql/.
"""

import asyncio
import itertools
import re
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

import asyncpg
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import BigInteger, DateTime, ForeignKey, Select, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

import catbird_db
from catbird_db import (
    NewMessage,
    Settings,
    consume_key_package,
    create_message,
    create_messages,
    get_message,
    list_messages,
    open_pool,
)
from catbird_db.embedded import EmbeddedServer
from catbird_db.sqlfile import Statement, load

from .measure import Turn, turn_of
from .tables import BATCH, CIPHERTEXT, READER, SUITE

__all__ = [
    "CONTENDERS",
    "PAGE",
    "READ_CONVO",
    "READ_MESSAGES",
    "TASKS",
    "Contender",
    "statement",
]

CONNECTIONS = 10
TASKS = 16
PAGE = 50
READ_CONVO = "1"
READ_MESSAGES = 10_000  # whose ids are "1", "2", ..., as `fill_messages` numbers them

STATEMENT_OF = {
    "get_message": "messages.get_message",
    "list_messages": "messages.list_messages",
    "create_message": "messages.append_message",
    "create_message_hot": "messages.append_message",
    "create_messages": "messages.append_messages",
    "consume_key_package": "key_packages.claim_key_package",
}
"""Each operation's statement in sql/chat/."""


def statement(name: str) -> Statement:
    """``messages.get_message``: that statement of sql/chat/; ``vault.files.get_file``: of sql/vault/."""
    *domain, module, function = f"chat.{name}".split(".")[-3:]
    path = Path(catbird_db.__file__).parent / "sql" / domain[0] / f"{module}.sql"
    return load(path, module=f"{domain[0]}.{module}")[function]


class Contender:
    """One way to do the work, with conversations and a DID of its own: nobody waits for another's locks.

    Attributes:
        name: in the report.
        operations: the methods that contend.
        longer: how many times longer than asked for its turns are.
        did: whose key packages it claims.
        convo_ids: one for each task, and a hot one for all: numbers, since pgbench joins no texts.
    """

    name: str
    operations: tuple[str, ...] = tuple(STATEMENT_OF)
    longer = 1

    def __init__(self, server: EmbeddedServer, database: str) -> None:
        self.server = server
        self.database = database
        self.did = f"did:plc:{type(self).__name__}"
        self._first = 1000 * (1 + CONTENDERS.index(type(self)))
        self.convo_ids = [str(self._first + number) for number in range(TASKS + 1)]
        self._read_ids = itertools.cycle(str(1 + 7919 * n % READ_MESSAGES) for n in range(1000))

    @property
    def url(self) -> str:
        return self.server.database_url(self.database)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        yield self

    def turn(self, operation: str) -> Turn:
        return turn_of(getattr(self, operation))

    async def create_message(self, task: int) -> None:
        await self.append(task, self.convo_ids[task])

    async def create_message_hot(self, task: int) -> None:
        await self.append(task, self.convo_ids[TASKS])

    async def append(self, task: int, convo_id: str) -> None:
        raise NotImplementedError


class Ours(Contender):
    name = "catbird_db"

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        settings = Settings(database_url=self.url, db_pool_max_size=CONNECTIONS)
        async with open_pool(settings) as self._pool:
            yield self

    async def get_message(self, _task: int) -> None:
        assert await get_message(
            self._pool, convo_id=READ_CONVO, message_id=next(self._read_ids), reader_did=READER
        )

    async def list_messages(self, _task: int) -> None:
        page = await list_messages(self._pool, convo_id=READ_CONVO, reader_did=READER, limit=PAGE)
        assert len(page.items) == PAGE
        assert page.next_cursor

    async def append(self, _task: int, convo_id: str) -> None:
        await create_message(
            self._pool, convo_id=convo_id, sender_did=READER, epoch=0, ciphertext=CIPHERTEXT
        )

    async def create_messages(self, task: int) -> None:
        batch = [NewMessage(ciphertext=CIPHERTEXT) for _ in range(BATCH)]
        await create_messages(
            self._pool, convo_id=self.convo_ids[task], sender_did=READER, epoch=0, messages=batch
        )

    async def consume_key_package(self, _task: int) -> None:
        assert await consume_key_package(self._pool, did=self.did, cipher_suite=SUITE)


class SameStatements(Contender):
    """Sends the statements of sql/ some other way; rows stay what the driver makes of them."""

    def __init__(self, server: EmbeddedServer, database: str) -> None:
        super().__init__(server, database)
        self._statements = {name: statement(STATEMENT_OF[name]) for name in STATEMENT_OF}

    async def one(self, task: int, what: Statement, arguments: dict[str, Any]) -> Any:
        raise NotImplementedError

    async def many(self, task: int, what: Statement, arguments: dict[str, Any]) -> Sequence[Any]:
        raise NotImplementedError

    async def get_message(self, task: int) -> None:
        message_id = next(self._read_ids)
        arguments = {"convo_id": READ_CONVO, "message_id": message_id, "reader_did": READER}
        assert await self.one(task, self._statements["get_message"], arguments)

    async def list_messages(self, task: int) -> None:
        arguments = {"convo_id": READ_CONVO, "reader_did": READER, "limit": PAGE + 1}
        assert (
            len(
                await self.many(
                    task, self._statements["list_messages"], arguments | {"cursor_seq": None}
                )
            )
            == PAGE + 1
        )

    async def append(self, task: int, convo_id: str) -> None:
        assert await self.one(task, self._statements["create_message"], _one_message(convo_id))

    async def create_messages(self, task: int) -> None:
        arguments = {
            "convo_id": self.convo_ids[task],
            "sender_did": READER,
            "epoch": 0,
            "message_ids": [str(uuid7()) for _ in range(BATCH)],
            "message_types": ["app"] * BATCH,
            "ciphertexts": [CIPHERTEXT] * BATCH,
        }
        assert len(await self.many(task, self._statements["create_messages"], arguments)) == BATCH

    async def consume_key_package(self, task: int) -> None:
        arguments = {"did": self.did, "cipher_suite": SUITE, "convo_id": None}
        assert await self.one(task, self._statements["consume_key_package"], arguments)


def _one_message(convo_id: str) -> dict[str, Any]:
    return {
        "convo_id": convo_id,
        "sender_did": READER,
        "epoch": 0,
        "epoch_window": 0,
        "message_id": str(uuid7()),
        "message_type": "app",
        "ciphertext": CIPHERTEXT,
    }


class AsyncpgPool(SameStatements):
    name = "asyncpg, stock pool"

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        async with asyncpg.create_pool(self.url, min_size=1, max_size=CONNECTIONS) as self._pool:
            yield self

    async def one(self, task: int, what: Statement, arguments: dict[str, Any]) -> Any:
        return await self._pool.fetchrow(what.sql, *[arguments[n] for n in what.parameters])

    async def many(self, task: int, what: Statement, arguments: dict[str, Any]) -> Sequence[Any]:
        return await self._pool.fetch(what.sql, *[arguments[n] for n in what.parameters])


class AsyncpgHeld(SameStatements):
    """A connection for each task, taken once and kept."""

    name = "asyncpg, held connection"

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        async with AsyncExitStack() as stack:
            self._held = [await asyncpg.connect(self.url) for _ in range(TASKS)]
            for connection in self._held:
                stack.push_async_callback(connection.close)
            yield self

    async def one(self, task: int, what: Statement, arguments: dict[str, Any]) -> Any:
        return await self._held[task].fetchrow(what.sql, *[arguments[n] for n in what.parameters])

    async def many(self, task: int, what: Statement, arguments: dict[str, Any]) -> Sequence[Any]:
        return await self._held[task].fetch(what.sql, *[arguments[n] for n in what.parameters])


class FourStatements(AsyncpgPool):
    """create_message without data-modifying CTEs: lock, insert and two updates in a transaction."""

    name = "asyncpg, four statements"
    operations = ("create_message", "create_message_hot")

    LOCK = """
        SELECT c.last_seq, c.app_count
          FROM conversations AS c
          JOIN members AS m ON m.convo_id = c.id
         WHERE c.id = $1 AND c.current_epoch = $2
           AND m.convo_id = $1 AND m.member_did = $3 AND m.left_at IS NULL
           FOR NO KEY UPDATE OF c, m"""
    INSERT = """
        INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, sent_at, app_number)
        VALUES ($1, $2, $3, $4, $5, $6, $7, statement_timestamp(), $8)
            ON CONFLICT (convo_id, id) DO UPDATE SET id = excluded.id
         WHERE s.sender_did = excluded.sender_did
     RETURNING s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at"""
    ADVANCE = """
        UPDATE conversations SET last_seq = $2, app_count = $3, last_message_at = $4 WHERE id = $1"""
    READ = """
        UPDATE members SET read_seq = $3, read_app_count = $4 WHERE convo_id = $1 AND member_did = $2"""

    async def append(self, _task: int, convo_id: str) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            locked = await connection.fetchrow(self.LOCK, convo_id, 0, READER)
            seq, app_count = locked["last_seq"] + 1, locked["app_count"] + 1
            stored = await connection.fetchrow(
                self.INSERT, convo_id, seq, str(uuid7()), READER, "app", 0, CIPHERTEXT, app_count
            )
            await connection.execute(self.ADVANCE, convo_id, seq, app_count, stored["sent_at"])
            await connection.execute(self.READ, convo_id, READER, seq, app_count)


class Psycopg(SameStatements):
    """In autocommit: a single statement needs no BEGIN and COMMIT around it."""

    name = "psycopg 3, pool"

    def __init__(self, server: EmbeddedServer, database: str) -> None:
        super().__init__(server, database)
        every = self._statements.values()
        self._texts = {what.label: _with_psycopg_placeholders(what) for what in every}

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        pool = AsyncConnectionPool(
            self.url, min_size=1, max_size=CONNECTIONS, kwargs={"autocommit": True}, open=False
        )
        async with pool as self._pool:
            yield self

    async def one(self, task: int, what: Statement, arguments: dict[str, Any]) -> Any:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(self._texts[what.label], arguments)
            return await cursor.fetchone()

    async def many(self, task: int, what: Statement, arguments: dict[str, Any]) -> Sequence[Any]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(self._texts[what.label], arguments)
            return await cursor.fetchall()


def _with_psycopg_placeholders(what: Statement) -> Any:
    def placeholder(number: re.Match[str]) -> str:
        return f"%({what.parameters[int(number[1]) - 1]})s"

    return re.sub(r"\$(\d+)", placeholder, what.sql.replace("%", "%%"))


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
    }


class Conversation(Base):
    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(primary_key=True)
    current_epoch: Mapped[int]
    last_seq: Mapped[int]
    app_count: Mapped[int]
    last_message_at: Mapped[datetime]


class Member(Base):
    __tablename__ = "members"

    convo_id: Mapped[str] = mapped_column(ForeignKey("conversations.id"), primary_key=True)
    member_did: Mapped[str] = mapped_column(primary_key=True)
    left_at: Mapped[datetime | None]
    read_seq: Mapped[int]
    read_app_count: Mapped[int]


class Message(Base):
    __tablename__ = "messages"

    convo_id: Mapped[str] = mapped_column(ForeignKey("conversations.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str]
    sender_did: Mapped[str]
    message_type: Mapped[str]
    epoch: Mapped[int]
    ciphertext: Mapped[bytes]
    sent_at: Mapped[datetime] = mapped_column(server_default=func.now())
    app_number: Mapped[int]
    deleted_at: Mapped[datetime | None]


class KeyPackage(Base):
    __tablename__ = "key_packages"

    did: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    cipher_suite: Mapped[int]
    key_data: Mapped[bytes | None]
    ref: Mapped[bytes]
    last_resort: Mapped[bool]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    consumed_at: Mapped[datetime | None]


class SqlAlchemy(Contender):
    """As its documentation shows: a session for each operation, entities in and out."""

    name = "SQLAlchemy 2, async ORM"

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        url = self.url.replace("postgresql://", "postgresql+asyncpg://")
        engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        self._session = async_sessionmaker(engine, expire_on_commit=False)
        try:
            yield self
        finally:
            await engine.dispose()

    async def get_message(self, _task: int) -> None:
        this = _readable().where(Message.id == next(self._read_ids))
        async with self._session() as session:
            assert await session.scalar(this)

    async def list_messages(self, _task: int) -> None:
        newest = _readable().order_by(Message.seq.desc()).limit(PAGE + 1)
        async with self._session() as session:
            assert len((await session.scalars(newest)).all()) == PAGE + 1

    async def append(self, _task: int, convo_id: str) -> None:
        await self._append(convo_id, 1)

    async def create_messages(self, task: int) -> None:
        await self._append(self.convo_ids[task], BATCH)

    async def _append(self, convo_id: str, count: int) -> None:
        async with self._session.begin() as session:
            conversation, member = await _locked(session, convo_id)
            messages = [
                Message(
                    convo_id=convo_id,
                    seq=conversation.last_seq + number,
                    id=str(uuid7()),
                    sender_did=READER,
                    message_type="app",
                    epoch=0,
                    ciphertext=CIPHERTEXT,
                    app_number=conversation.app_count + number,
                )
                for number in range(1, count + 1)
            ]
            session.add_all(messages)
            await session.flush()
            conversation.last_seq = member.read_seq = messages[-1].seq
            conversation.app_count = member.read_app_count = messages[-1].app_number
            conversation.last_message_at = messages[-1].sent_at

    async def consume_key_package(self, _task: int) -> None:
        oldest = (
            select(KeyPackage)
            .where(
                KeyPackage.did == self.did,
                KeyPackage.cipher_suite == SUITE,
                KeyPackage.last_resort.is_(False),
                KeyPackage.consumed_at.is_(None),
                KeyPackage.expires_at > func.now(),
            )
            .order_by(KeyPackage.created_at, KeyPackage.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with self._session.begin() as session:
            package = await session.scalar(oldest)
            assert package
            package.consumed_at = func.now()
            package.key_data = None


def _readable() -> Select[tuple[Message]]:
    """The messages of the conversation that is read, for its reader."""
    return (
        select(Message)
        .join(Member, Member.convo_id == Message.convo_id)
        .where(
            Message.convo_id == READ_CONVO,
            Member.member_did == READER,
            Member.left_at.is_(None),
        )
    )


async def _locked(session: AsyncSession, convo_id: str) -> tuple[Conversation, Member]:
    both = (
        select(Conversation, Member)
        .join(Member, Member.convo_id == Conversation.id)
        .where(
            Conversation.id == convo_id,
            Conversation.current_epoch == 0,
            Member.member_did == READER,
            Member.left_at.is_(None),
        )
        .with_for_update(key_share=True)
    )
    conversation, member = (await session.execute(both)).one()
    return conversation, member


class Pgbench(Contender):
    """The same statements and no Python: the floor. Holds a connection for each task.

    Its turns are longer, since each begins with new sessions that know no catalog and no plan.
    """

    name = "pgbench"
    longer = 5

    def __init__(self, server: EmbeddedServer, database: str) -> None:
        super().__init__(server, database)
        self._turns = itertools.count(1)

    def turn(self, operation: str) -> Turn:
        script, variables = self._script(operation)

        async def turn(calls: int, tasks: int) -> float:
            return calls / await self._rate(script, variables, self.longer * calls // tasks, tasks)

        return turn

    def _script(self, operation: str) -> tuple[str, dict[str, object]]:
        """A script and its variables. What pgbench cannot hold in a variable is SQL in the script."""
        source = statement(STATEMENT_OF[operation]).source
        hot = operation == "create_message_hot"
        own = rf"\set convo_id {self.convo_ids[TASKS] if hot else f'{self._first} + :client_id'}"
        match operation:
            case "get_message":
                before = rf"\set message_id random(1, {READ_MESSAGES})"
                variables = {"convo_id": READ_CONVO, "reader_did": READER}
            case "list_messages":
                before = ""
                variables = {"convo_id": READ_CONVO, "reader_did": READER, "limit": PAGE + 1}
                source = _replaced(source, cursor_seq="NULL")
            case "create_message" | "create_message_hot":
                # Ids ascend, as those of UUIDv7 do: by turn, client and message.
                number = r"\set message_id :turn * 1000000000000 + :client_id * 10000000000 + :n"
                before = f"{own}\n\\set n :n + 1\n{number}"
                variables = _one_message("") | {"n": 0, "ciphertext": rf"\x{CIPHERTEXT.hex()}"}
                del variables["convo_id"], variables["message_id"]
            case "create_messages":
                before = own
                variables = {
                    "sender_did": READER,
                    "epoch": 0,
                    "ciphertext": rf"\x{CIPHERTEXT.hex()}",
                }
                source = _replaced(
                    source,
                    message_ids=_array_of("uuidv7()::text"),
                    message_types=_array_of("'app'::text"),
                    ciphertexts=_array_of(":ciphertext::bytea"),
                )
            case _:
                before = ""
                variables = {"did": self.did, "cipher_suite": SUITE}
                source = _replaced(source, convo_id="NULL")
        return f"{before}\n{source};\n", variables

    async def _rate(
        self, script: str, variables: dict[str, object], calls: int, clients: int
    ) -> float:
        """Calls a second of all clients together, without the time that connecting takes."""
        variables = {**variables, "turn": next(self._turns)}
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            process = await asyncio.create_subprocess_exec(
                self.server.bin_dir / "pgbench",
                *("-n", "-M", "prepared", "-f", file.name),
                *("-c", str(clients), "-t", str(calls)),
                *(f"-D{name}={value}" for name, value in variables.items()),
                *("-h", self.server.socket_dir, "-p", str(self.server.port), "-U", "postgres"),
                self.database,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, errors = await process.communicate()
        rate = re.search(rb"tps = ([\d.]+)", out)
        if rate is None or f"processed: {calls * clients}/".encode() not in out:
            raise RuntimeError(f"pgbench: {errors.decode()}{out.decode()}")
        return float(rate[1])


def _replaced(source: str, **by: str) -> str:
    for name, sql in by.items():
        source = re.sub(rf"(?<!:):{name}\b", lambda _, sql=sql: sql, source)
    return source


def _array_of(each: str) -> str:
    return f"(SELECT array_agg({each}) FROM generate_series(1, {BATCH}))"


CONTENDERS: tuple[type[Contender], ...] = (
    Ours,
    AsyncpgPool,
    AsyncpgHeld,
    FourStatements,
    Psycopg,
    SqlAlchemy,
    Pgbench,
)
