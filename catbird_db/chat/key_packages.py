"""Key packages (RFC 9420 §10): published by devices, each claimed by one who adds them to a group.

A one-time package goes to one claimant. A last-resort package (RFC 9420 §16.8) is served when no
one-time package is left, and stays. A spent package drops its bytes and is remembered by its
SHA-256, so that storing it again cannot bring it back.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field
from uuid_utils.compat import uuid7

from ..errors import TransactionConflictError
from ..pool import Executor
from ..query import query
from ..signature import validated
from ..types import (
    BatchLimit,
    Bytes,
    CipherSuite,
    ConvoId,
    DeviceId,
    Did,
    Input,
    Row,
    Timestamp,
)

__all__ = [
    "KeyPackage",
    "NewKeyPackage",
    "consume_key_package",
    "consume_key_packages",
    "count_key_packages",
    "delete_expired_key_packages",
    "delete_key_packages",
    "get_key_package",
    "store_key_package",
    "store_key_packages",
]

STORE_ATTEMPTS = 3


class KeyPackage(Row, frozen=True):
    """A key package of one device; ``ref`` is the SHA-256 of ``key_data``.

    ``consumed_at`` is set once it is claimed or, for a last resort, replaced.
    """

    did: str
    id: UUID
    device_id: str
    cipher_suite: int
    key_data: bytes
    ref: bytes
    last_resort: bool
    created_at: datetime
    expires_at: datetime
    consumed_at: datetime | None


class NewKeyPackage(Input, frozen=True):
    """One key package of a batch."""

    cipher_suite: CipherSuite
    key_data: Bytes
    expires_at: Timestamp
    device_id: DeviceId = ""
    last_resort: bool = False


@query
async def insert_key_package(
    db: Executor,
    /,
    *,
    did: Did,
    id: UUID,
    device_id: DeviceId,
    cipher_suite: CipherSuite,
    key_data: Bytes,
    last_resort: bool,
    expires_at: Timestamp,
) -> KeyPackage | None: ...


@query
async def insert_key_packages(
    db: Executor,
    /,
    *,
    did: Did,
    ids: Sequence[UUID],
    device_ids: Sequence[str],
    cipher_suites: Sequence[CipherSuite],
    key_datas: Sequence[bytes],
    last_resorts: Sequence[bool],
    expiries: Sequence[datetime],
) -> int: ...


@query
async def get_key_package(
    db: Executor, /, *, did: Did, cipher_suite: CipherSuite
) -> KeyPackage | None:
    """The package that would be claimed next, or None. Claims nothing."""
    ...


@query
async def claim_key_package(
    db: Executor, /, *, did: Did, cipher_suite: CipherSuite, convo_id: ConvoId | None
) -> KeyPackage | None: ...


@query
async def claim_device_key_package(
    db: Executor,
    /,
    *,
    did: Did,
    cipher_suite: CipherSuite,
    device_id: DeviceId,
    convo_id: ConvoId | None,
) -> KeyPackage | None: ...


@query
async def claim_key_packages(
    db: Executor, /, *, dids: Sequence[str], cipher_suite: CipherSuite, convo_id: ConvoId | None
) -> list[KeyPackage]: ...


@query
async def count_key_packages(db: Executor, /, *, did: Did, cipher_suite: CipherSuite) -> int:
    """How many unexpired one-time packages are left: when few, the devices publish more."""
    ...


@query
async def delete_key_packages(db: Executor, /, *, did: Did, device_id: DeviceId) -> int:
    """Withdraw a device: its unclaimed packages, and the Welcomes that still wait for it.

    Returns:
        How many packages were withdrawn.
    """
    ...


@query
async def delete_expired_key_packages(db: Executor, /, *, limit: BatchLimit = 1000) -> int:
    """Retention, over all DIDs: remove expired packages, oldest first, at most ``limit``.

    A spent package is remembered for 180 days past its expiry. Call it until it returns less
    than ``limit``.

    Returns:
        How many were removed.
    """
    ...


@validated
async def store_key_package(
    db: Executor,
    /,
    *,
    did: Did,
    cipher_suite: CipherSuite,
    key_data: Bytes,
    expires_at: Timestamp,
    device_id: DeviceId = "",
    last_resort: bool = False,
) -> KeyPackage:
    """Publish a key package. Storing it again returns the stored one, and revives nothing.

    Args:
        did: whose it is.
        cipher_suite: its MLS cipher suite (RFC 9420 §17.1).
        key_data: the KeyPackage (RFC 9420 §10), 1 byte to 16 MiB; never looked into.
        expires_at: the end of its lifetime; it is not served from then on.
        device_id: which device of the DID.
        last_resort: serve it when nothing else is left; replaces the device's old last resort.
    """
    for _ in range(STORE_ATTEMPTS):
        stored = await insert_key_package(
            db,
            did=did,
            id=uuid7(),
            device_id=device_id,
            cipher_suite=cipher_suite,
            key_data=key_data,
            last_resort=last_resort,
            expires_at=expires_at,
        )
        if stored is not None:
            return stored
    raise TransactionConflictError("store_key_package: stored and removed meanwhile; store again")


@validated
async def store_key_packages(
    db: Executor,
    /,
    *,
    did: Did,
    packages: Annotated[Sequence[NewKeyPackage], Field(max_length=1000)],
) -> int:
    """Publish a batch, in one statement.

    Returns:
        How many of them were not stored before.
    """
    return await insert_key_packages(
        db,
        did=did,
        ids=[uuid7() for _ in packages],
        device_ids=[package.device_id for package in packages],
        cipher_suites=[package.cipher_suite for package in packages],
        key_datas=[package.key_data for package in packages],
        last_resorts=[package.last_resort for package in packages],
        expiries=[package.expires_at for package in packages],
    )


@validated
async def consume_key_package(
    db: Executor,
    /,
    *,
    did: Did,
    cipher_suite: CipherSuite,
    convo_id: ConvoId | None = None,
    device_id: DeviceId | None = None,
) -> KeyPackage | None:
    """Claim a key package, to add its device to a group; nobody else gets the same one.

    The oldest unexpired one-time package, else the newest last resort, which stays. In a caller's
    transaction a rollback gives the package back.

    Args:
        did: whom to add.
        cipher_suite: the group's.
        convo_id: for which conversation, remembered with the claim.
        device_id: of this device only.

    Returns:
        The package, or None where there is none.
    """
    if device_id is None:
        return await claim_key_package(db, did=did, cipher_suite=cipher_suite, convo_id=convo_id)
    return await claim_device_key_package(
        db, did=did, cipher_suite=cipher_suite, device_id=device_id, convo_id=convo_id
    )


@validated
async def consume_key_packages(
    db: Executor,
    /,
    *,
    dids: Annotated[Sequence[Did], Field(max_length=1000)],
    cipher_suite: CipherSuite,
    convo_id: ConvoId | None = None,
) -> list[KeyPackage]:
    """Claim one key package for each device of each DID, in one statement.

    Args:
        dids: whom to add, at most 1000; repeats count once.
        cipher_suite: the group's.
        convo_id: as for `consume_key_package`.

    Returns:
        By DID and device; a device that has none is left out.
    """
    return await claim_key_packages(
        db, dids=list(dict.fromkeys(dids)), cipher_suite=cipher_suite, convo_id=convo_id
    )
