"""Page, and the opaque cursor that leads from one page to the next."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import InvalidArgumentError
from .types import Int8, Text, Timestamp

T = TypeVar("T")

# A cursor may be forged: it holds only what PostgreSQL takes.
_SENDABLE: dict[Any, Any] = {str: Text, int: Int8, datetime: Timestamp}


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: at most ``limit`` of them, in the list's order.
        next_cursor: pass it as ``cursor`` for the page after this one; None on the last page.
    """

    items: list[T]
    next_cursor: str | None


class CursorCodec:
    """Writes and reads the cursors of one function.

    A cursor holds the function's name and the key of the last row shown, so that it fits no
    other function and rows inserted before it shift nothing. It is not a secret and not an
    authority: what a page may show is decided by the statement, each time.
    """

    def __init__(self, label: str, key_types: Sequence[Any]) -> None:
        self._label = label
        sendable = [_SENDABLE.get(key_type, key_type) for key_type in key_types]
        key: Any = tuple[Literal[label], *sendable]  # pyright: ignore[reportInvalidTypeForm]
        self._adapter: TypeAdapter[tuple[Any, ...]] = TypeAdapter(
            key,
            config=ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64"),
        )

    def encode(self, key: Sequence[Any]) -> str:
        raw = self._adapter.dump_json((self._label, *key))
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def decode(self, cursor: str) -> tuple[Any, ...]:
        """The key in a cursor.

        Raises:
            InvalidArgumentError: not a cursor, or another function's.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            return self._adapter.validate_json(raw)[1:]
        except (binascii.Error, ValueError, ValidationError):
            raise InvalidArgumentError(
                f"{self._label}: cursor: not a cursor of this function; "
                "pass the next_cursor of its last page, unchanged",
                query=self._label,
            ) from None
