"""Messages of a conversation: opaque MLS bytes, numbered 1, 2, 3, ... by ``seq``.

``seq`` is given out under the lock of the conversation's row and becomes visible in its order,
so a reader that pages by ``seq`` misses nothing, whoever writes and whoever rolls back.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated

from pydantic import Field
from uuid_utils.compat import uuid7

from ..errors import (
    ConflictError,
    DatabaseError,
    HistoryTrimmedError,
    InvalidArgumentError,
    NotAMemberError,
    NotFoundError,
    TransactionConflictError,
)
from ..pagination import Page
from ..pool import Connection, Executor, Pool, transaction
from ..query import query
from ..signature import validated
from ..types import (
    BatchLimit,
    Bytes,
    ConvoId,
    Cursor,
    Did,
    Epoch,
    EpochWindow,
    Input,
    Limit,
    MessageId,
    MessageType,
    Row,
    SentType,
    Seq,
)
from .conversations import stale_epoch

__all__ = [
    "CatchUp",
    "Message",
    "NewMessage",
    "create_message",
    "create_messages",
    "delete_message",
    "delete_messages_before",
    "get_message",
    "get_message_count",
    "list_commits",
    "list_messages",
    "list_messages_since",
    "list_new_messages",
]

Texts = Sequence[str]
Blobs = Sequence[bytes]


class Message(Row, frozen=True):
    """A message as the server holds it: ``ciphertext`` is empty once ``deleted_at`` is set.

    ``epoch`` is the MLS epoch that the message was made in; a commit leads to the next one.
    """

    convo_id: str
    seq: int
    id: str
    sender_did: str
    message_type: MessageType
    epoch: int
    ciphertext: bytes
    sent_at: datetime
    deleted_at: datetime | None


class NewMessage(Input, frozen=True):
    """One message of a batch; a UUIDv7 is its id unless one is given."""

    ciphertext: Bytes
    message_id: MessageId | None = None
    message_type: SentType = "app"


class CatchUp(Row, frozen=True):
    """What is new in one conversation, oldest first.

    Attributes:
        convo_id: which conversation.
        messages: those above the position asked from.
        more: there are more than were asked for; ask again from the last one's ``seq``.
        trimmed: retention has removed messages above the position asked from.
    """

    convo_id: str
    messages: list[Message]
    more: bool
    trimmed: bool


class Refusal(Row, frozen=True):
    """Why messages were refused: how many of the ids are taken, or are the sender's own."""

    current_epoch: int
    is_member: bool
    taken: int
    own: int


class Trimmed(Row, frozen=True):
    trimmed_seq: int


class NewMessageRow(Row, frozen=True):
    convo_id: str
    is_member: bool
    trimmed: bool | None
    seq: int | None
    id: str | None
    sender_did: str | None
    message_type: MessageType | None
    epoch: int | None
    ciphertext: bytes | None
    sent_at: datetime | None
    deleted_at: datetime | None


async def not_a_member(_db: Executor, /, *, convo_id: ConvoId, **_: object) -> DatabaseError:
    """The refusal of every read: the same for a stranger and for an unknown conversation."""
    return NotAMemberError(
        "the reader is not an active member of this conversation", convo_ids=(convo_id,)
    )


async def not_a_member_or_trimmed(
    db: Executor, /, *, convo_id: ConvoId, reader_did: Did, after_seq: Seq, **_: object
) -> DatabaseError:
    """Which of the two it was that list_messages_since refused."""
    found = await get_trimmed_seq(db, convo_id=convo_id, reader_did=reader_did)
    if found is None:
        return await not_a_member(db, convo_id=convo_id)
    if found.trimmed_seq <= after_seq:
        return TransactionConflictError("the membership changed at this moment; ask again")
    return HistoryTrimmedError(
        f"retention has removed messages up to seq {found.trimmed_seq}; "
        "catch up from there, and by list_commits",
        trimmed_seq=found.trimmed_seq,
    )


@query
async def append_message(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    epoch: Epoch,
    epoch_window: EpochWindow,
    message_id: MessageId,
    message_type: SentType,
    ciphertext: Bytes,
) -> Message | None: ...


@query
async def append_messages(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    epoch: Epoch,
    message_ids: Texts,
    message_types: Texts,
    ciphertexts: Blobs,
) -> list[Message]: ...


@query
async def lock_conversation(db: Executor, /, *, convo_id: ConvoId) -> None: ...


@query
async def explain_refusal(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    message_ids: Texts,
    message_types: Texts,
    ciphertexts: Blobs,
) -> Refusal | None: ...


@query(refused=not_a_member)
async def get_message(
    db: Executor, /, *, convo_id: ConvoId, message_id: MessageId, reader_did: Did
) -> Message | None:
    """One message, by the id that its sender chose, or None.

    Raises:
        NotAMemberError: ``reader_did`` is not an active member.
    """
    ...


@query(refused=not_a_member)
async def list_messages(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    reader_did: Did,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> Page[Message]:
    """Messages of a conversation, newest first.

    Raises:
        NotAMemberError: ``reader_did`` is not an active member.
        InvalidArgumentError: ``cursor`` is not one of this function's.
    """
    ...


@query(refused=not_a_member_or_trimmed)
async def list_messages_since(
    db: Executor, /, *, convo_id: ConvoId, reader_did: Did, after_seq: Seq, limit: Limit = 100
) -> list[Message]:
    """Messages above ``after_seq``, oldest first: how a client catches up.

    Ask again from the last message's ``seq`` until nothing comes.

    Raises:
        NotAMemberError: ``reader_did`` is not an active member.
        HistoryTrimmedError: retention has removed messages above ``after_seq``; carries
            ``trimmed_seq``, from which to read on.
    """
    ...


@query
async def get_trimmed_seq(
    db: Executor, /, *, convo_id: ConvoId, reader_did: Did
) -> Trimmed | None: ...


@query
async def read_new_messages(
    db: Executor,
    /,
    *,
    reader_did: Did,
    convo_ids: Texts,
    after_seqs: Sequence[int],
    limit_per_conversation: Limit,
) -> list[NewMessageRow]: ...


@query(refused=not_a_member)
async def list_commits(
    db: Executor, /, *, convo_id: ConvoId, reader_did: Did, from_epoch: Epoch, limit: Limit = 100
) -> list[Message]:
    """Commits made in ``from_epoch`` and later, oldest first; retention keeps them all.

    Raises:
        NotAMemberError: ``reader_did`` is not an active member.
    """
    ...


@query
async def get_message_count(db: Executor, /, *, convo_id: ConvoId) -> int:
    """Messages in the conversation, commits and deleted ones too, less those retention removed.

    Raises:
        NotFoundError: there is no such conversation.
    """
    ...


@query
async def delete_message(db: Executor, /, *, convo_id: ConvoId, message_id: MessageId) -> bool:
    """Blank a message's ciphertext; lists go on to show it, with ``deleted_at``.

    Returns:
        Whether it did: False for an unknown id, for one already deleted, and for a commit,
        without which no member could catch up.
    """
    ...


@query
async def delete_messages_before(
    db: Executor, /, *, convo_id: ConvoId, seq: Seq, limit: BatchLimit = 1000
) -> int:
    """Retention: remove messages below ``seq``, oldest first, at most ``limit``; keep commits.

    Call it until it returns less than ``limit``. A reader that has not come as far gets
    HistoryTrimmedError. The ids of removed messages are free again.

    Returns:
        How many were removed.
    """
    ...


@validated
async def create_message(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    epoch: Epoch,
    ciphertext: Bytes,
    message_id: MessageId | None = None,
    message_type: SentType = "app",
    epoch_window: EpochWindow = 0,
) -> Message:
    """Append one message to a conversation, once.

    Sending the same ``message_id`` again returns the message first stored, so a client may
    retry after a lost reply. The message and its ``seq`` are one statement: readers that page
    by ``seq`` never miss it. It marks its sender as having read up to it.

    Args:
        convo_id: the conversation.
        sender_did: an active member of it.
        epoch: the MLS epoch that the message was made in.
        ciphertext: an MLSMessage (RFC 9420 §6), 1 byte to 16 MiB; never looked into.
        message_id: the sender's id for it; a UUIDv7 unless given.
        message_type: ``app`` or ``proposal``; a commit goes through `commit_group_change`.
        epoch_window: how many epochs behind the current one are let in.

    Raises:
        NotFoundError: there is no such conversation.
        NotAMemberError: ``sender_did`` is not an active member.
        StaleEpochError: ``epoch`` is outside [current - window, current]; carries
            ``current_epoch`` (RFC 9420 §14).
        ConflictError: ``message_id`` is taken by another sender, or by other bytes.
    """
    message_id = message_id or str(uuid7())

    async def append() -> Message | None:
        return await append_message(
            db,
            convo_id=convo_id,
            sender_did=sender_did,
            epoch=epoch,
            epoch_window=epoch_window,
            message_id=message_id,
            message_type=message_type,
            ciphertext=ciphertext,
        )

    message = await append()
    if message is not None:
        return message
    await raise_refusal(
        db,
        convo_id=convo_id,
        sender_did=sender_did,
        epoch=epoch,
        epoch_window=epoch_window,
        message_ids=[message_id],
        message_types=[message_type],
        ciphertexts=[ciphertext],
    )
    message = await append()  # its twin was stored while this one waited
    if message is not None:
        return message
    raise TransactionConflictError("create_message: the conversation changed; send it again")


@validated
async def create_messages(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    epoch: Epoch,
    messages: Annotated[Sequence[NewMessage], Field(min_length=1, max_length=1000)],
) -> list[Message]:
    """Append a batch of one sender, in its order and without gaps in ``seq``, or nothing of it.

    Those already stored are returned as they are, so a batch may be retried, also in other cuts.
    On a pool it is one statement; in a caller's transaction the conversation is locked first.

    Args:
        convo_id: the conversation.
        sender_did: an active member of it.
        epoch: the current MLS epoch, in which all of them were made.
        messages: 1 to 1000, their ids distinct.

    Returns:
        The stored messages, in the order given.

    Raises:
        InvalidArgumentError: a ``message_id`` stands twice in the batch.
        NotFoundError, NotAMemberError, StaleEpochError, ConflictError: as `create_message`.
    """
    ids = [message.message_id or str(uuid7()) for message in messages]
    if len(set(ids)) < len(ids):
        raise InvalidArgumentError("create_messages: messages: a message_id stands twice in it")
    types = [message.message_type for message in messages]
    ciphertexts = [message.ciphertext for message in messages]

    async def append(executor: Executor) -> list[Message]:
        return await append_messages(
            executor,
            convo_id=convo_id,
            sender_did=sender_did,
            epoch=epoch,
            message_ids=ids,
            message_types=types,
            ciphertexts=ciphertexts,
        )

    async def append_or_say_why(executor: Executor) -> list[Message]:
        stored = await append(executor)
        if len(stored) == len(ids):
            return stored
        await raise_refusal(
            executor,
            convo_id=convo_id,
            sender_did=sender_did,
            epoch=epoch,
            epoch_window=0,
            message_ids=ids,
            message_types=types,
            ciphertexts=ciphertexts,
        )
        stored = await append(executor)  # its twin was stored while this one waited
        if len(stored) == len(ids):
            return stored
        raise TransactionConflictError("create_messages: the conversation changed; send it again")

    async def append_behind_lock(tx: Connection) -> list[Message]:
        await lock_conversation(tx, convo_id=convo_id)
        return await append_or_say_why(tx)

    if isinstance(db, Connection) and db.is_in_transaction():
        return await append_behind_lock(db)
    if isinstance(db, Pool):
        try:
            return await append_or_say_why(db)
        except ConflictError as error:
            if error.constraint != "messages_convo_id_id_key":
                raise  # else it overlapped another batch while it waited
    async with transaction(db) as tx:
        return await append_behind_lock(tx)


@validated
async def list_new_messages(
    db: Executor,
    /,
    *,
    reader_did: Did,
    positions: Annotated[Mapping[ConvoId, Seq], Field(max_length=500)],
    limit_per_conversation: Limit = 50,
) -> list[CatchUp]:
    """What is new in many conversations, by one statement.

    Args:
        reader_did: an active member of all of them.
        positions: for each conversation (at most 500) the ``seq`` read so far.
        limit_per_conversation: messages of one conversation at most.

    Returns:
        One entry for each position, in its order, also where nothing is new.

    Raises:
        NotAMemberError: ``reader_did`` is not an active member of some; carries ``convo_ids``.
    """
    if not positions:
        return []
    rows = await read_new_messages(
        db,
        reader_did=reader_did,
        convo_ids=list(positions),
        after_seqs=list(positions.values()),
        limit_per_conversation=limit_per_conversation,
    )
    strangers = tuple(row.convo_id for row in rows if not row.is_member)
    if strangers:
        raise NotAMemberError(
            f"the reader is not an active member of {len(strangers)} of these conversations",
            convo_ids=strangers,
        )
    return [
        _catch_up(convo_id, list(group), limit_per_conversation)
        for convo_id, group in groupby(rows, key=lambda row: row.convo_id)
    ]


def _catch_up(convo_id: str, rows: list[NewMessageRow], limit: int) -> CatchUp:
    found = [row for row in rows if row.seq is not None]
    return CatchUp(
        convo_id=convo_id,
        messages=[
            Message.model_validate(row.model_dump(exclude={"is_member", "trimmed"}))
            for row in found[:limit]
        ],
        more=len(found) > limit,
        trimmed=bool(rows[0].trimmed),
    )


async def raise_refusal(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    epoch: Epoch,
    epoch_window: EpochWindow,
    message_ids: Texts,
    message_types: Texts,
    ciphertexts: Blobs,
    from_outside: bool = False,
) -> None:
    """Ask once why these were refused, and raise it; return where nothing speaks against them.

    A stranger learns only that: whether an id is taken is for members to know. One who commits
    from outside (RFC 9420 §12.4.3.2) need not be a member.
    """
    found = await explain_refusal(
        db,
        convo_id=convo_id,
        sender_did=sender_did,
        message_ids=message_ids,
        message_types=message_types,
        ciphertexts=ciphertexts,
    )
    if found is None:
        raise NotFoundError("no such conversation")
    if not found.is_member and (not from_outside or found.own):
        raise NotAMemberError(
            "the sender is not an active member of this conversation", convo_ids=(convo_id,)
        )
    if found.taken:
        raise ConflictError("message_id: taken by another sender, or by other bytes")
    if found.own == len(message_ids):
        return
    if not found.current_epoch - epoch_window <= epoch <= found.current_epoch:
        raise stale_epoch(epoch, found.current_epoch)
