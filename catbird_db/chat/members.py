"""Members of a conversation, and how much of it each has not read.

Unread is derived, never counted up and down: application messages in the conversation less
those that the member has read or retention has removed. So it cannot drift.
"""

from datetime import datetime

from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..types import ConvoId, Cursor, Did, Increment, Limit, Row, Seq

__all__ = [
    "Member",
    "add_member",
    "get_membership",
    "is_member",
    "list_members",
    "mark_read",
    "remove_member",
    "reset_unread_count",
    "update_unread_count",
]


class Member(Row, frozen=True):
    """One DID in one conversation; ``left_at`` is None while it is active.

    ``read_seq`` is the greatest ``seq`` that the member has marked as read, or sent.
    """

    convo_id: str
    member_did: str
    joined_at: datetime
    left_at: datetime | None
    read_seq: int


@query
async def add_member(db: Executor, /, *, convo_id: ConvoId, member_did: Did) -> Member:
    """Add a member; one who left joins again, an active one stays as it is.

    Who joins, or joins again, starts with nothing unread.

    Raises:
        NotFoundError: there is no such conversation.
    """
    ...


@query
async def remove_member(db: Executor, /, *, convo_id: ConvoId, member_did: Did) -> bool:
    """End a membership, with the Welcomes that still wait; False where it was not active."""
    ...


@query
async def is_member(db: Executor, /, *, convo_id: ConvoId, member_did: Did) -> bool:
    """Whether this DID is an active member; False also where there is no such conversation."""
    ...


@query
async def list_members(
    db: Executor, /, *, convo_id: ConvoId, limit: Limit = 200, cursor: Cursor | None = None
) -> Page[Member]:
    """The active members, by DID."""
    ...


@query
async def get_membership(db: Executor, /, *, convo_id: ConvoId, member_did: Did) -> Member | None:
    """The membership of a DID, also of one who left; None if it never was a member."""
    ...


@query
async def update_unread_count(
    db: Executor, /, *, convo_id: ConvoId, member_did: Did, increment: Increment
) -> int:
    """Mark so many more messages as unread, or fewer where ``increment`` is negative.

    Returns:
        How many are unread now: never below 0, never more than the conversation has.

    Raises:
        NotFoundError: not an active member of such a conversation.
    """
    ...


@query
async def reset_unread_count(db: Executor, /, *, convo_id: ConvoId, member_did: Did) -> int:
    """Mark everything as read.

    Returns:
        How many are unread now: 0.

    Raises:
        NotFoundError: not an active member of such a conversation.
    """
    ...


@query
async def mark_read(db: Executor, /, *, convo_id: ConvoId, member_did: Did, seq: Seq) -> int:
    """Mark all messages up to ``seq`` as read. The mark never moves back.

    Returns:
        How many are unread now.

    Raises:
        NotFoundError: not an active member of such a conversation.
    """
    ...
