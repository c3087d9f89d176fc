"""Conversations: one MLS group each, its epoch, and what a client's list of chats shows."""

from datetime import datetime

from uuid_utils.compat import uuid7

from ..errors import ConflictError, InvalidArgumentError, NotFoundError, StaleEpochError
from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..types import ConvoId, Cursor, Did, Dids, Epoch, Limit, Row, Title

__all__ = [
    "Conversation",
    "ConversationSummary",
    "create_conversation",
    "create_conversation_with_members",
    "delete_conversation",
    "get_conversation",
    "get_current_epoch",
    "list_conversations",
    "update_conversation_epoch",
]


class Conversation(Row, frozen=True):
    """A conversation.

    ``last_seq`` is the number of its newest message, ``app_count`` of application messages ever
    sent; up to ``trimmed_seq`` retention has removed messages.
    """

    id: str
    creator_did: str
    title: str | None
    current_epoch: int
    last_seq: int
    app_count: int
    trimmed_seq: int
    last_message_at: datetime
    created_at: datetime
    updated_at: datetime


class ConversationSummary(Conversation, frozen=True):
    """A conversation as one member sees it."""

    unread_count: int


@query
async def insert_conversation(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    creator_did: Did,
    title: Title | None,
    member_dids: Dids,
) -> Conversation | None: ...


@query
async def get_conversation(db: Executor, /, *, convo_id: ConvoId) -> Conversation | None:
    """The conversation, or None."""
    ...


@query
async def list_conversations(
    db: Executor, /, *, member_did: Did, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[ConversationSummary]:
    """The conversations a member is active in, latest activity first, with unread counts.

    A conversation that gets a message between two pages moves up past the cursor: a client finds
    it by asking for the first page again, as it does anyway to show what is new.
    """
    ...


@query
async def get_current_epoch(db: Executor, /, *, convo_id: ConvoId) -> int:
    """The MLS epoch that the conversation is at (RFC 9420 §8.1).

    Raises:
        NotFoundError: there is no such conversation.
    """
    ...


@query
async def advance_epoch(
    db: Executor, /, *, convo_id: ConvoId, expected_epoch: Epoch, new_epoch: Epoch
) -> Conversation | None: ...


@query
async def delete_conversation(db: Executor, /, *, convo_id: ConvoId) -> bool:
    """Delete a conversation and all that hangs on it; False where there is none."""
    ...


@validated
async def create_conversation(
    db: Executor,
    /,
    *,
    creator_did: Did,
    convo_id: ConvoId | None = None,
    title: Title | None = None,
) -> Conversation:
    """Create a conversation at epoch 0; its creator is the first member.

    Args:
        creator_did: who creates it.
        convo_id: the MLS group id, as text; a UUIDv7 unless given.
        title: what clients may show; in clear.

    Raises:
        ConflictError: ``convo_id`` is taken.
    """
    return await create_conversation_with_members(
        db, creator_did=creator_did, member_dids=(), convo_id=convo_id, title=title
    )


@validated
async def create_conversation_with_members(
    db: Executor,
    /,
    *,
    creator_did: Did,
    member_dids: Dids,
    convo_id: ConvoId | None = None,
    title: Title | None = None,
) -> Conversation:
    """Create a conversation with several members, all or nothing.

    Args:
        creator_did: who creates it; a member too, listed or not.
        member_dids: the others; repeats count once.
        convo_id: as for `create_conversation`.
        title: as for `create_conversation`.

    Raises:
        ConflictError: ``convo_id`` is taken.
    """
    conversation = await insert_conversation(
        db,
        convo_id=convo_id or str(uuid7()),
        creator_did=creator_did,
        title=title,
        member_dids=list(dict.fromkeys((creator_did, *member_dids))),
    )
    if conversation is None:
        raise ConflictError("create_conversation: convo_id is taken; choose another")
    return conversation


@validated
async def update_conversation_epoch(
    db: Executor, /, *, convo_id: ConvoId, expected_epoch: Epoch, new_epoch: Epoch
) -> Conversation:
    """Move the epoch forward, if it still is what the caller believes (compare-and-swap).

    For a commit use `commit_group_change`, which moves the epoch with all that belongs to it.

    Raises:
        InvalidArgumentError: ``new_epoch`` is not after ``expected_epoch``.
        NotFoundError: there is no such conversation.
        StaleEpochError: it is at another epoch; carries ``current_epoch``.
    """
    if new_epoch <= expected_epoch:
        raise InvalidArgumentError("new_epoch: must be greater than expected_epoch")
    moved = await advance_epoch(
        db, convo_id=convo_id, expected_epoch=expected_epoch, new_epoch=new_epoch
    )
    if moved is not None:
        return moved
    conversation = await get_conversation(db, convo_id=convo_id)
    if conversation is None:
        raise NotFoundError("update_conversation_epoch: no such conversation")
    raise stale_epoch(expected_epoch, conversation.current_epoch)


def stale_epoch(epoch: int, current_epoch: int) -> StaleEpochError:
    """Both numbers are the group's, none is a row's content."""
    return StaleEpochError(
        f"epoch {epoch} is not open: the conversation is at epoch {current_epoch}; "
        "catch up by list_commits and try again",
        current_epoch=current_epoch,
    )
