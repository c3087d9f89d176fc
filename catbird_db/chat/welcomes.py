"""Welcomes that wait for the devices they let in. `commit_group_change` stores them."""

from ..pagination import Page
from ..pool import Executor
from ..query import query
from ..types import ConvoId, Cursor, Did, KeyPackageRef, Limit, Row

__all__ = ["Welcome", "acknowledge_welcome", "list_pending_welcomes"]


class Welcome(Row, frozen=True):
    """A Welcome for one device: ``key_package_ref`` says which of its key packages was used.

    ``epoch`` is the one that its recipient joins; ``data`` is shared by all its recipients.
    """

    convo_id: str
    epoch: int
    data: bytes
    key_package_ref: bytes


@query
async def list_pending_welcomes(
    db: Executor, /, *, recipient_did: Did, limit: Limit = 50, cursor: Cursor | None = None
) -> Page[Welcome]:
    """The Welcomes that a DID's devices have not acknowledged; reading them changes nothing."""
    ...


@query
async def acknowledge_welcome(
    db: Executor, /, *, convo_id: ConvoId, recipient_did: Did, key_package_ref: KeyPackageRef
) -> bool:
    """A device has joined: do not show its Welcome again; False where none was waiting."""
    ...
