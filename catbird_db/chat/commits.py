"""Commits: the one way in which members and epoch change together (RFC 9420 §12.4)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field

from ..errors import InvalidArgumentError, TransactionConflictError
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..types import Bytes, ConvoId, Did, Dids, Epoch, Input, KeyPackageRef, MessageId, Row
from .messages import raise_refusal

__all__ = [
    "CommitReceipt",
    "GroupInfo",
    "NewWelcome",
    "WelcomeRecipient",
    "commit_group_change",
    "get_group_info",
]

Ordinal = Annotated[int, Field(ge=1, le=10_000)]


class CommitReceipt(Row, frozen=True):
    """A commit that won: where it stands, and the epoch that it led to."""

    convo_id: str
    seq: int
    epoch: int


class GroupInfo(Row, frozen=True):
    """What a stranger needs for an external commit (RFC 9420 §12.4.3); of ``epoch``."""

    convo_id: str
    epoch: int
    data: bytes
    updated_at: datetime


class WelcomeRecipient(Input, frozen=True):
    """One device that a Welcome lets in, by the key package that was claimed for it."""

    did: Did
    key_package_ref: KeyPackageRef


class NewWelcome(Input, frozen=True):
    """A Welcome (RFC 9420 §12.4.3.1), and for whom it is."""

    data: Bytes
    recipients: Annotated[Sequence[WelcomeRecipient], Field(min_length=1, max_length=10_000)]


@query
async def apply_commit(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    message_id: MessageId,
    expected_epoch: Epoch,
    commit: Bytes,
    add_dids: Dids,
    remove_dids: Dids,
    welcomes: Sequence[bytes],
    recipient_ordinals: Sequence[Ordinal],
    recipient_dids: Sequence[str],
    recipient_refs: Sequence[bytes],
    group_info: Bytes | None,
    external: bool,
) -> CommitReceipt | None: ...


@query
async def find_commit(
    db: Executor, /, *, convo_id: ConvoId, sender_did: Did, message_id: MessageId, commit: Bytes
) -> CommitReceipt | None: ...


@query
async def get_group_info(db: Executor, /, *, convo_id: ConvoId) -> GroupInfo | None:
    """The newest GroupInfo of a conversation, or None."""
    ...


@validated
async def commit_group_change(
    db: Executor,
    /,
    *,
    convo_id: ConvoId,
    sender_did: Did,
    message_id: MessageId,
    expected_epoch: Epoch,
    commit: Bytes,
    add_dids: Dids = (),
    remove_dids: Dids = (),
    welcomes: Annotated[Sequence[NewWelcome], Field(max_length=10_000)] = (),
    group_info: Bytes | None = None,
    external: bool = False,
) -> CommitReceipt:
    """Store a commit with the members, Welcomes and GroupInfo it brings: all, or nothing.

    Of those who commit in one epoch exactly one wins; the others get StaleEpochError, catch up by
    `list_commits` and commit anew. The winner may ask again and gets the same receipt.

    Args:
        convo_id: the conversation.
        sender_did: an active member; for an external commit one of ``add_dids``.
        message_id: the sender's id for the commit.
        expected_epoch: the epoch that the commit was made in.
        commit: an MLSMessage with the commit (RFC 9420 §12.4).
        add_dids: who becomes a member; who is one already stays as it is.
        remove_dids: who stops being one; the Welcomes that wait for them go too.
        welcomes: each once, however many recipients it has.
        group_info: of the new epoch, for external joins.
        external: an external commit (RFC 9420 §12.4.3.2).

    Raises:
        InvalidArgumentError: ``add_dids`` and ``remove_dids`` are not distinct and disjoint, the
            sender removes itself (RFC 9420 §12.2), a recipient stands twice or is removed, or the
            sender of an external commit is not among ``add_dids``.
        NotFoundError: there is no such conversation.
        NotAMemberError: ``sender_did`` is not an active member.
        StaleEpochError: another commit won; carries ``current_epoch``.
        ConflictError: ``message_id`` is taken.
    """
    _check_change(sender_did, add_dids, remove_dids, welcomes, external)
    recipients = [
        (ordinal, recipient.did, recipient.key_package_ref)
        for ordinal, welcome in enumerate(welcomes, start=1)
        for recipient in welcome.recipients
    ]
    receipt = await apply_commit(
        db,
        convo_id=convo_id,
        sender_did=sender_did,
        message_id=message_id,
        expected_epoch=expected_epoch,
        commit=commit,
        add_dids=add_dids,
        remove_dids=remove_dids,
        welcomes=[welcome.data for welcome in welcomes],
        recipient_ordinals=[ordinal for ordinal, _, _ in recipients],
        recipient_dids=[did for _, did, _ in recipients],
        recipient_refs=[ref for _, _, ref in recipients],
        group_info=group_info,
        external=external,
    )
    if receipt is not None:
        return receipt
    await raise_refusal(
        db,
        convo_id=convo_id,
        sender_did=sender_did,
        epoch=expected_epoch,
        epoch_window=0,
        message_ids=[message_id],
        message_types=["commit"],
        ciphertexts=[commit],
        from_outside=external,
    )
    receipt = await find_commit(  # nothing speaks against it: it is stored already
        db, convo_id=convo_id, sender_did=sender_did, message_id=message_id, commit=commit
    )
    if receipt is not None:
        return receipt
    raise TransactionConflictError("commit_group_change: the conversation changed; ask again")


def _check_change(
    sender_did: str,
    add_dids: Sequence[str],
    remove_dids: Sequence[str],
    welcomes: Sequence[NewWelcome],
    external: bool,
) -> None:
    both = [*add_dids, *remove_dids]
    recipients = [(r.did, r.key_package_ref) for welcome in welcomes for r in welcome.recipients]
    faults = {
        "add_dids, remove_dids: must be distinct and disjoint": len(set(both)) < len(both),
        "remove_dids: the sender cannot remove itself (RFC 9420 §12.2)": sender_did in remove_dids,
        "external: the sender of an external commit must be among add_dids": (
            external and sender_did not in add_dids
        ),
        "welcomes: a recipient stands twice": len(set(recipients)) < len(recipients),
        "welcomes: a recipient is among remove_dids": any(
            did in remove_dids for did, _ in recipients
        ),
    }
    for fault, found in faults.items():
        if found:
            raise InvalidArgumentError(f"commit_group_change: {fault}")
