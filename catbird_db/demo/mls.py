"""An MLS client (RFC 9420), as it runs on one device: keys stay here, only wire bytes leave.

It stands on the package rfc9420 and keeps to what that package (1.3) does as run: commits that
only add (it refuses to verify the UpdatePath of a Remove or an Update), one leaf an identity, so
that a device's identity is ``did#device``, and work on a copy of the group, since a commit that
fails spoils the group's object.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from rfc9420 import CipherSuite, DefaultCryptoProvider, ProtocolMLSGroup, PublicGroup
    from rfc9420.extensions.extensions import Extension, build_capabilities_data
    from rfc9420.messages.data_structures import (
        AddProposal,
        Credential,
        MLSVersion,
        Signature,
        Welcome,
    )
    from rfc9420.messages.key_packages import KeyPackage, LeafNode, LeafNodeSource
    from rfc9420.messages.messages import (
        MLSCiphertext,
        MLSMessage,
        MLSPlaintext,
        ProtocolVersion,
        WireFormat,
    )
    from rfc9420.messages.refs import make_key_package_ref
    from rfc9420.protocol.validations import validate_confirmation_tag
except ModuleNotFoundError as missing:
    raise ImportError(f"no module {missing.name}: pip install 'catbird-db[demo]'") from None

CIPHER_SUITE = 1
"""MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 (RFC 9420 §17.1)."""

LIFETIME = timedelta(days=90)
CLOCK_SKEW = timedelta(hours=1)
LAST_RESORT = 0x000A
"""The extension that marks a last-resort key package (RFC 9420 §16.8, draft-ietf-mls-extensions)."""


@dataclass(frozen=True)
class KeyPackageView:
    """What a key package says, its signatures and its lifetime verified (RFC 9420 §10.1)."""

    identity: str
    last_resort: bool
    expires_at: datetime


@dataclass(frozen=True)
class GroupInfoView:
    """What a GroupInfo says, its signature and its tree's hashes verified (RFC 9420 §12.4.3)."""

    group_id: str
    epoch: int
    identities: frozenset[str]


@dataclass(frozen=True)
class Commit:
    """A commit that is made and not yet accepted: its maker's group is as it was.

    Attributes:
        group_id: the group.
        epoch: the epoch that it was made in.
        message: the commit, for the members.
        welcome: for all whom it adds.
        group_info: of the epoch that it leads to.
    """

    group_id: str
    epoch: int
    message: bytes
    welcome: bytes
    group_info: bytes
    _after: ProtocolMLSGroup = field(repr=False)


@dataclass(frozen=True)
class _Published:
    """A key package with the private keys that open what is sealed to it."""

    mls_ref: bytes
    init_private: bytes
    leaf_private: bytes
    package: KeyPackage
    last_resort: bool


class Client:
    """One device: its identity, its private keys, and the groups that it is in."""

    def __init__(self, did: str, device_id: str) -> None:
        self.did = did
        self.device_id = device_id
        self._crypto = _crypto()
        key = Ed25519PrivateKey.generate()
        self._signing_key = key.private_bytes_raw()
        self._public_key = key.public_key().public_bytes_raw()
        self._published: dict[bytes, _Published] = {}
        self._groups: dict[str, ProtocolMLSGroup] = {}

    @property
    def identity(self) -> str:
        """What its credential says (RFC 9420 §5.3)."""
        return identity(self.did, self.device_id)

    def make_key_package(
        self, *, last_resort: bool = False, lifetime: timedelta = LIFETIME
    ) -> bytes:
        """A key package to publish (RFC 9420 §10); its private keys stay."""
        init_private, init_public = self._crypto.generate_key_pair()
        leaf_private, leaf_public = self._crypto.generate_key_pair()
        now = datetime.now(UTC)

        def leaf(signature: Signature) -> LeafNode:
            return LeafNode(
                encryption_key=leaf_public,
                signature_key=self._public_key,
                credential=Credential(identity=self.identity.encode(), public_key=self._public_key),
                capabilities=build_capabilities_data(
                    [CIPHER_SUITE], [LAST_RESORT], include_grease=False
                ),
                leaf_node_source=LeafNodeSource.KEY_PACKAGE,
                lifetime_not_before=int((now - CLOCK_SKEW).timestamp()),
                lifetime_not_after=int((now + lifetime).timestamp()),
                signature=signature,
            )

        def package(signature: Signature) -> KeyPackage:
            suite = self._crypto.active_ciphersuite
            return KeyPackage(
                version=MLSVersion.MLS10,
                cipher_suite=CipherSuite(suite.kem, suite.kdf, suite.aead),
                init_key=init_public,
                leaf_node=signed_leaf,
                extensions=[Extension(LAST_RESORT, b"")] if last_resort else [],
                signature=signature,
            )

        unsigned = Signature(b"")
        signed_leaf = leaf(self._sign(b"LeafNodeTBS", leaf(unsigned).tbs_serialize()))
        signed = package(self._sign(b"KeyPackageTBS", package(unsigned).tbs_serialize()))
        data = signed.serialize()
        self._published[sha256(data).digest()] = _Published(
            make_key_package_ref(self._crypto, data),
            init_private,
            leaf_private,
            signed,
            last_resort,
        )
        return data

    def published(self, ref: bytes) -> bool:
        """Whether this device can open what is sealed to the key package of that SHA-256."""
        return ref in self._published

    def create_group(self, group_id: str) -> None:
        """Found a group with this device as its only member, at epoch 0 (RFC 9420 §11)."""
        data = self.make_key_package()
        own = self._published.pop(sha256(data).digest())
        self._groups[group_id] = ProtocolMLSGroup.create(
            group_id.encode(), own.package, self._crypto
        )

    def prepare_adds(self, group_id: str, key_packages: Sequence[bytes]) -> Commit:
        """Make a commit that adds the owners of these key packages (RFC 9420 §12.4).

        The group stays as it is until `adopt`: the server may prefer another's commit (§14).
        """
        before = self._groups[group_id]
        after = deepcopy(before)
        # Inline, so that the commit carries its proposals; the public way sends each by itself.
        after._pending_proposals.extend(  # pyright: ignore[reportPrivateUsage]
            AddProposal(data) for data in key_packages
        )
        pending = after.create_commit(self._signing_key)
        after.apply_own_commit(pending)
        after._update_external_key_pair()  # pyright: ignore[reportPrivateUsage] # it forgets to
        (welcome,) = pending.welcomes
        return Commit(
            group_id=group_id,
            epoch=before.get_epoch(),
            message=_wire(WireFormat.PUBLIC_MESSAGE, pending.commit_message.serialize()),
            welcome=_wire(WireFormat.WELCOME, welcome.serialize()),
            group_info=_wire(WireFormat.GROUP_INFO, after.export_group_info(self._signing_key)),
            _after=after,
        )

    def adopt(self, commit: Commit) -> None:
        """Go on to the epoch of one's own commit, which the server has accepted."""
        if self.epoch(commit.group_id) != commit.epoch:
            raise ValueError(f"made in epoch {commit.epoch}, which is over")
        self._groups[commit.group_id] = commit._after  # pyright: ignore[reportPrivateUsage]

    def join(self, welcome: bytes) -> str:
        """Join the group that a Welcome opens (RFC 9420 §12.4.3.1), and say which.

        The private keys of a one-time package are forgotten; a last resort's serve again (§16.8).
        """
        content = Welcome.deserialize(_content(WireFormat.WELCOME, welcome))
        sealed_to = {secrets.new_member for secrets in content.secrets}
        found = [ref for ref, own in self._published.items() if own.mls_ref in sealed_to]
        if not found:
            raise LookupError("this Welcome is for none of this device's key packages")
        own = self._published[found[0]]
        group = ProtocolMLSGroup.from_welcome(
            content,
            own.init_private,
            self._crypto,
            key_package=own.package,
            encryption_private_key=own.leaf_private,
        )
        if not own.last_resort:
            del self._published[found[0]]
        group_id = group.get_group_id().decode()
        self._groups[group_id] = group
        return group_id

    def apply_commit(self, group_id: str, message: bytes) -> None:
        """Verify another member's commit and go on to its epoch (RFC 9420 §12.4.2)."""
        plaintext = MLSPlaintext.deserialize(_content(WireFormat.PUBLIC_MESSAGE, message))
        group = deepcopy(self._groups[group_id])
        group.process_commit(plaintext, plaintext.auth_content.tbs.framed_content.sender.sender)
        self._groups[group_id] = group

    def verify_entry(self, group_id: str, message: bytes) -> None:
        """Verify that a commit is the one that led to the epoch in which this device joined.

        It cannot apply it, having no secret of the epoch before; but the commit must carry the
        confirmation tag of this epoch (RFC 9420 §8.1).
        """
        plaintext = MLSPlaintext.deserialize(_content(WireFormat.PUBLIC_MESSAGE, message))
        group: Any = self._groups[group_id]
        validate_confirmation_tag(
            self._crypto,
            group._key_schedule.confirmation_key,
            group._confirmed_transcript_hash,
            plaintext.auth_content.confirmation_tag or b"",
        )

    def seal(self, group_id: str, text: bytes) -> bytes:
        """Encrypt and sign a message for the group (RFC 9420 §6.3)."""
        sealed = self._groups[group_id].protect(text, signing_key=self._signing_key)
        return _wire(WireFormat.PRIVATE_MESSAGE, sealed.serialize())

    def open(self, group_id: str, message: bytes) -> tuple[str, bytes]:
        """Decrypt a message and verify its signature: who sent it (an identity), and its text."""
        sealed = MLSCiphertext.deserialize(_content(WireFormat.PRIVATE_MESSAGE, message))
        group = self._groups[group_id]
        leaf, text = group.unprotect(sealed)
        return dict(group.get_member_identities())[leaf].decode(), text

    def epoch(self, group_id: str) -> int:
        """The epoch that this device is at."""
        return self._groups[group_id].get_epoch()

    def identities(self, group_id: str) -> frozenset[str]:
        """Who is in the group, by this device's copy of the ratchet tree."""
        return _identities(self._groups[group_id])

    def authenticator(self, group_id: str) -> bytes:
        """The epoch authenticator: equal on two devices if all their secrets are (RFC 9420 §8.7)."""
        return self._groups[group_id].get_epoch_authenticator()

    def _sign(self, label: bytes, data: bytes) -> Signature:
        return Signature(self._crypto.sign_with_label(self._signing_key, label, data))


def identity(did: str, device_id: str) -> str:
    """The identity of a device, by which its leaf is known."""
    return f"{did}#{device_id}"


def read_key_package(data: bytes) -> KeyPackageView:
    """Verify a key package, as one must before adding its owner (RFC 9420 §10.1)."""
    package = KeyPackage.deserialize(data)
    package.verify(_crypto(), current_time=int(time.time()))  # pyright: ignore[reportUnknownMemberType]
    leaf = package.leaf_node
    if leaf is None or leaf.credential is None:
        raise ValueError("a key package without a credential or a lifetime")
    return KeyPackageView(
        identity=leaf.credential.identity.decode(),
        last_resort=any(one.ext_type == LAST_RESORT for one in package.extensions or ()),
        expires_at=datetime.fromtimestamp(leaf.lifetime_not_after, UTC),
    )


def read_group_info(data: bytes) -> GroupInfoView:
    """Verify a GroupInfo as an outsider does: no secret of the group is needed."""
    group = PublicGroup.from_group_info(_crypto(), _content(WireFormat.GROUP_INFO, data))
    return GroupInfoView(
        group_id=group.group_id.decode(),
        epoch=group.epoch,
        identities=_identities(group._inner),  # pyright: ignore[reportPrivateUsage]
    )


def _crypto() -> Any:
    """Not the type that it is: the package's own functions are typed as if they refused it."""
    return DefaultCryptoProvider(suite_id=CIPHER_SUITE)


def _identities(group: ProtocolMLSGroup) -> frozenset[str]:
    return frozenset(name.decode() for _, name in group.get_member_identities() if name)


def _wire(kind: WireFormat, content: bytes) -> bytes:
    """An MLSMessage (RFC 9420 §6)."""
    return MLSMessage(ProtocolVersion.MLS10, kind, content).serialize()


def _content(kind: WireFormat, message: bytes) -> bytes:
    parsed = MLSMessage.deserialize(message)
    if parsed.wire_format != kind:
        raise ValueError(f"expected {kind.name}, found {parsed.wire_format.name}")
    return parsed.content
