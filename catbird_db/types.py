"""The parameter types of every function, UNSET, and Row and Input, the bases of all models.

A signature is a contract: `@query` and `@validated` refuse, before anything is sent, what these
aliases do not admit, and `catbird-db check` proves that they fit the SQL.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias
from unicodedata import normalize
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    StringConstraints,
    ValidationError,
)

from .errors import InvalidArgumentError


class Unset(Enum):
    """The type of `UNSET`, to be written in an annotation: ``title: Title | Unset | None = UNSET``."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset.UNSET
"""Not given: a field stays as it is, where None would clear it."""

INT8_MAX = 2**63 - 1
MAX_BYTES = 16 * 2**20

_TEXT = r"^[^\x00]*$"  # PostgreSQL's text holds anything but NUL
_VISIBLE_ASCII = r"^[\x21-\x7e]+$"

Text = Annotated[str, StringConstraints(pattern=_TEXT)]
Int8 = Annotated[int, Field(ge=-INT8_MAX - 1, le=INT8_MAX)]

ConvoId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_TEXT)]
"""A conversation: the MLS group id as its creator chose it (RFC 9420 §8.1), as text."""

Did = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_VISIBLE_ASCII)]
"""A decentralized identifier; visible ASCII (W3C DID Core §3.1)."""

Dids = Annotated[Sequence[Did], Field(max_length=10_000)]

DeviceId = Annotated[str, StringConstraints(max_length=255, pattern=_TEXT)]
"""One device of a DID; empty for a client that has but one."""

MessageId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_TEXT)]
"""The sender's own id of a message, unique in its conversation; sending it again is a retry."""

UserId = Annotated[int, Field(ge=1, le=INT8_MAX)]
"""A user: `User.id`."""

FileId = UUID
"""A file of a vault; moving does not change it."""

FileVersionNumber = Annotated[int, Field(ge=1, le=INT8_MAX)]
"""Which version of a file: 1, 2, 3, ..."""

ContentType = Annotated[
    str, StringConstraints(max_length=255, pattern=r"^[!-.0-~]+/[!-.0-~][ -~]*$")
]
"""A media type, perhaps with parameters: ``text/markdown; charset=utf-8``."""

Title = Annotated[str, StringConstraints(max_length=1000, pattern=_TEXT)]

ItemName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=_TEXT),
]

ItemDescription = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=1000, pattern=_TEXT)
]
"""Empty once it is trimmed, it is none."""

Limit = Annotated[int, Field(ge=1, le=500)]
"""Rows of one page."""

BatchLimit = Annotated[int, Field(ge=1, le=100_000)]
"""Rows that one call of a retention function removes."""

Cursor = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
"""Where the next page begins: `Page.next_cursor`, as it was returned."""

Epoch = Annotated[int, Field(ge=0, le=INT8_MAX - 1)]
"""An MLS epoch (RFC 9420 §8.1)."""

EpochWindow = Annotated[int, Field(ge=0, le=INT8_MAX)]
"""How many epochs behind the current one a message may be."""

Seq = Annotated[int, Field(ge=0, le=INT8_MAX)]
"""A message's place in its conversation: 1, 2, 3, ... without gaps; 0 is before the first."""

Increment = Annotated[int, Field(ge=-(2**62), le=2**62)]

CipherSuite = Annotated[int, Field(ge=1, le=0xFFFF)]
"""An MLS cipher suite (RFC 9420 §17.1)."""

SentType = Literal["app", "proposal"]
"""What `create_message` takes; a commit goes through `commit_group_change`."""

MessageType = Literal["app", "commit", "proposal"]

Bytes = Annotated[bytes, Field(min_length=1, max_length=MAX_BYTES)]
"""MLS wire bytes, opaque here; 1 byte to 16 MiB."""

KeyPackageRef = Annotated[bytes, Field(min_length=1, max_length=64)]
"""Which key package: what `consume_key_package` gave as `ref`."""

Timestamp = Annotated[
    AwareDatetime,
    Field(ge=datetime(1, 1, 2, tzinfo=UTC), lt=datetime(9999, 12, 31, tzinfo=UTC)),
]
"""A point in time, with its zone; the ends of Python's range would be sent as infinity."""


CollectionId = UUID
DocumentId = UUID
OperationId = UUID
LeaseToken = UUID

CollectionName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=_TEXT)
]
"""1 to 255 characters without blanks around them."""

Description = Annotated[str, StringConstraints(max_length=10_000, pattern=_TEXT)]
StatusText = Annotated[str, StringConstraints(max_length=10_000, pattern=_TEXT)]
"""What went wrong, or how something stands, for people to read."""

StoreName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_TEXT)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_TEXT)]

Dimension = Annotated[int, Field(ge=1, le=65_536)]
"""How many numbers an embedding has."""

Minutes = Annotated[int, Field(ge=1, le=525_600)]

CollectionStatus = Literal["pending", "processing", "ready", "degraded", "error"]
SyncMode = Literal["one_time", "continuous"]

Permission = Literal["READ", "WRITE", "ADMIN"]
"""WRITE reads too; ADMIN writes too, changes the collection and grants."""

ContentHash = Annotated[bytes, Field(min_length=32, max_length=32)]
"""A SHA-256, 32 bytes."""

ObjectHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}(_[0-9a-f]{32})?$")]
"""What `put_object` gave as ``hash``."""

FileName = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_TEXT)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=_TEXT)]
Uri = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=_TEXT)]
MimeType = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_TEXT)]
Size = Annotated[int, Field(ge=0, le=INT8_MAX)]
Offset = Annotated[int, Field(ge=0, le=INT8_MAX)]
"""Bytes or characters from the beginning."""

DocumentStatus = Literal["pending", "processing", "completed", "failed"]

Retries = Annotated[int, Field(ge=1, le=INT8_MAX)]

ChunkIndex = Annotated[int, Field(ge=0, le=INT8_MAX)]
"""A chunk's place in its document: 0, 1, 2, ..."""

ChunkContent = Annotated[str, StringConstraints(max_length=100_000, pattern=_TEXT)]
"""At most 100,000 characters: PostgreSQL indexes no more than 1 MiB of words."""

ChunksVersion = Annotated[int, Field(ge=1, le=INT8_MAX)]
"""How often a document's chunks had been replaced when a chunk was stored."""

EmbeddingId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_TEXT)]
"""Of a vector, as the vector store calls it."""

OperationType = Literal["index", "append", "reindex", "remove_source", "delete", "projection_build"]
OperationStatus = Literal["pending", "processing", "completed", "failed", "cancelled"]
Percent = Annotated[int, Field(ge=0, le=100)]

_NEGATES_NOTHING = re.compile(r"-{2,}|-(?=[\s!&|()<]|$)")
_INDEXED = 1024  # bytes: longer than a path is, no name is looked for
_JSON_SIZE = 2**20
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _name(text: str) -> str:
    name = normalize("NFC", text)
    if not 1 <= len(name.encode()) <= _INDEXED:
        raise ValueError(f"should have 1 to {_INDEXED} bytes")
    return name


def _json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not value:
        return value
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError):
        raise ValueError("should be what JSON can hold") from None
    if _NUL_IN_JSON.search(text):
        raise ValueError("should hold no NUL")
    if size > _JSON_SIZE:
        raise ValueError(f"should have at most {_JSON_SIZE} bytes as JSON")
    return value


Name = Annotated[
    str, StringConstraints(min_length=1, max_length=_INDEXED, pattern=_TEXT), AfterValidator(_name)
]
"""What something is looked up by: 1 to 1024 bytes, brought to NFC."""

Tag = Annotated[Name, AfterValidator(lambda tag: _name(tag.removeprefix("#")))]
"""A tag; a leading # is left out."""

LinkName = Annotated[Name, AfterValidator(lambda name: _name(name.lstrip("/")))]
"""What a link names: a file's name or path, with or without .md, or an alias; leading slashes are
left out."""

SearchText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000, pattern=_TEXT),
    AfterValidator(lambda text: _NEGATES_NOTHING.sub(" ", text)),
]
"""What is searched for, as people write it; hyphens are left out but for those of ``-word`` and
``co-op``: websearch_to_tsquery nests a NOT for each, and has no room for 33 of them."""

Html = Annotated[str, StringConstraints(max_length=MAX_BYTES, pattern=_TEXT)]

JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_json)]
"""A JSON object that PostgreSQL's jsonb can hold, of at most 1 MiB."""

Priority = Annotated[int, Field(ge=0, le=2)]
"""2 before 1 before 0."""

Changed = Annotated[int, Field(ge=1, le=INT8_MAX)]
"""How many changes of a file were noted: what `claim_processing` gave as ``changed``."""

Invalidation = Annotated[int, Field(ge=0, le=INT8_MAX)]
"""How often a page became stale: what `begin_publishing` returned."""

Lease = Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(days=1))]
"""How long a worker may be silent before another one takes its work."""

JsonColumn: TypeAlias = Json[dict[str, Any]] | dict[str, Any]
"""A jsonb column of a row model: as PostgreSQL sends it, or as the model holds it."""


class Row(BaseModel, frozen=True):
    """The base of row models: frozen, closed, silent about values.

    Errors do not show the input, and reprs show how many bytes there are, not which.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [
            (name, _Sized(value) if isinstance(value, bytes) else value)
            for name, value in super().__repr_args__()
        ]


class Input(Row, frozen=True):
    """The base of models that callers build and pass in: checked strictly when made, and passed.

    Raises:
        InvalidArgumentError: names the field.
    """

    model_config = ConfigDict(strict=True, revalidate_instances="always")

    if not TYPE_CHECKING:  # the checker sees the fields, not this

        def __init__(self, **values: object) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InvalidArgumentError(f"{type(self).__name__}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """``path.to.field: what is wrong``, without any value: also not the key of a mapping."""
    fault = error.errors(include_input=False, include_url=False)[0]
    path: list[str | int] = []
    for step, following in zip(fault["loc"], (*fault["loc"][1:], None), strict=False):
        if following == "[key]" or (isinstance(step, str) and path and isinstance(path[-1], str)):
            break
        path.append(step)
    return f"{'.'.join(map(str, path))}: {fault['msg']}"


class _Sized:
    def __init__(self, value: bytes) -> None:
        self.size = len(value)

    def __repr__(self) -> str:
        return f"<{self.size} bytes>"
