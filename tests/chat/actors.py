"""What the chat tests share: whose turn it is, who waits for whom, and what is stored in the end."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from catbird_db import (
    DatabaseError,
    Message,
    NewMessage,
    Pool,
    create_conversation_with_members,
    create_message,
    create_messages,
)
from catbird_db.pool import Executor

T = TypeVar("T")

WAITS_FOR_A_LOCK = r"""
SELECT substring(query FROM '/\* [a-z_.]*\.([a-z_]+) \*/') AS statement
  FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Undo(Exception):
    """Leaves a transaction, which rolls back."""


async def at_once(calls: Iterable[Awaitable[T]]) -> tuple[list[T], list[DatabaseError]]:
    """Run them all at the same time: what they returned, and what they raised."""
    results: list[T] = []
    errors: list[DatabaseError] = []
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, DatabaseError):
            errors.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            results.append(outcome)
    return results, errors


async def until_waiting(pool: Pool, *statements: str) -> None:
    """Return when statements of these names (one for each name) wait for a lock of another's."""
    waiting: list[str] = []
    try:
        async with asyncio.timeout(8):
            while not Counter(statements) <= Counter(waiting):
                await asyncio.sleep(0.003)
                waiting = [row["statement"] for row in await stored(pool, WAITS_FOR_A_LOCK)]
    except TimeoutError:
        raise AssertionError(f"{statements} should wait for a lock; {waiting} do") from None


async def insist(call: Callable[[], Awaitable[T]], *errors: type[BaseException]) -> T:
    """Call again until it is answered, as a client does that lost the reply."""
    for _ in range(1000):
        try:
            return await call()
        except errors:
            await asyncio.sleep(0.001)
    return await call()


async def stored(pool: Pool, sql: str, *arguments: Any) -> list[Any]:
    """Rows, past the functions under test."""
    async with pool.connection() as connection:
        return await connection.fetch(sql, *arguments)


async def converse(pool: Pool, convo_id: str, *dids: str) -> str:
    """A conversation of these members, at epoch 0."""
    await create_conversation_with_members(
        pool, creator_did=dids[0], member_dids=dids[1:], convo_id=convo_id
    )
    return convo_id


async def send(
    db: Executor, convo_id: str, did: str, *message_ids: str, epoch: int = 0
) -> list[Message]:
    """Send messages whose text is their id: one alone, several as a batch."""
    if len(message_ids) == 1:
        message = await create_message(
            db,
            convo_id=convo_id,
            sender_did=did,
            epoch=epoch,
            ciphertext=message_ids[0].encode(),
            message_id=message_ids[0],
        )
        return [message]
    return await create_messages(
        db, convo_id=convo_id, sender_did=did, epoch=epoch, messages=texts(message_ids)
    )


def texts(message_ids: Iterable[str]) -> list[NewMessage]:
    """A batch of messages whose text is their id."""
    return [NewMessage(ciphertext=one.encode(), message_id=one) for one in message_ids]


async def history(pool: Pool, convo_id: str) -> list[Message]:
    """All messages of a conversation as stored, after checking that their numbers are sound:

    seq 1, 2, 3, ... up to the counter, app_number the running count of application messages,
    sent_at never earlier than the one before, and one commit at most for an epoch, in their order.
    """
    [conversation] = await stored(pool, "SELECT * FROM conversations WHERE id = $1", convo_id)
    rows = await stored(pool, "SELECT * FROM messages WHERE convo_id = $1 ORDER BY seq", convo_id)
    assert [row["seq"] for row in rows] == list(range(1, conversation["last_seq"] + 1))
    apps = list(accumulate(row["message_type"] == "app" for row in rows))
    assert [row["app_number"] for row in rows] == apps
    assert conversation["app_count"] == (apps[-1] if apps else 0)
    times = [row["sent_at"] for row in rows]
    assert times == sorted(times)
    commits = [row["epoch"] for row in rows if row["message_type"] == "commit"]
    assert commits == sorted(set(commits))
    assert not commits or commits[-1] < conversation["current_epoch"]
    return [
        Message.model_validate({name: row[name] for name in Message.model_fields}) for row in rows
    ]


def ids(messages: Sequence[Message]) -> list[str]:
    return [message.id for message in messages]


def everything_told(error: BaseException) -> str:
    """All that a caller can get out of an exception: its text, attributes, notes and causes."""
    told = [f"{type(error).__name__} {error!s} {error.args!r} {vars(error)!r}"]
    for other in (error.__cause__, error.__context__):
        if other is not None:
            told.append(everything_told(other))
    return "\n".join(told)
