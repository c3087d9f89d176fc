"""Paths in a vault, and permalinks: one spelling for each, checked here and, by the same rules, in
the database."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from ..errors import InvalidArgumentError

__all__ = ["normalize_path", "normalize_permalink"]

MAX_PATH_BYTES = 1024

_ELSEWHERE = re.compile(r"[?#%\\]")
_UNSEEN = re.compile(
    "[\u00a0\u00ad\u061c\u1680\u180e\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def normalize_path(path: str) -> str:
    """The one spelling of a path: in NFC and with a leading ``/``. The root is the empty string.

    Everything else is refused and not mended: no segment is empty, ``.`` or ``..``; there is no
    control character; the whole has at most 1024 bytes in UTF-8. The CHECK constraints of
    ``folders`` and ``files`` say the same.

    Raises:
        InvalidArgumentError: says which rule the path breaks.
    """
    if path in ("", "/"):
        return ""
    return "/" + _spelling("path", path.removeprefix("/"), MAX_PATH_BYTES - 1)


def normalize_permalink(permalink: str) -> str:
    """The one spelling of a permalink: in NFC and without slashes around it.

    Refused is what `normalize_path` refuses, and the empty one. It stands in URLs and is read by
    people, so also: a ``?``, ``#``, ``%`` or backslash; a segment that begins or ends with a space;
    any other space, and what is invisible or turns the direction of text (U+200B, U+202E, ...; the
    joiners U+200C and U+200D, which words need, are kept). The CHECK constraint of
    ``published_pages`` says the same.

    Raises:
        InvalidArgumentError: says which rule the permalink breaks.
    """
    permalink = _spelling("permalink", permalink.strip("/"), MAX_PATH_BYTES)
    if _ELSEWHERE.search(permalink):
        raise InvalidArgumentError("the permalink has one of ? # % \\, which mean more in a URL")
    if _UNSEEN.search(permalink):
        raise InvalidArgumentError("the permalink has a character that cannot be seen")
    if any(one != one.strip(" ") for one in permalink.split("/")):
        raise InvalidArgumentError("the permalink has a segment with a space at an end")
    return permalink


def _spelling(what: str, text: str, longest: int) -> str:
    if any(unicodedata.category(one) == "Cc" for one in text):
        raise InvalidArgumentError(f"the {what} has a control character")
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise InvalidArgumentError(
            f"the {what} is no Unicode text: it has half of a surrogate pair"
        )
    text = unicodedata.normalize("NFC", text)
    segments = text.split("/")
    if "" in segments:
        raise InvalidArgumentError(f"the {what} has an empty segment, or ends with '/'")
    if "." in segments or ".." in segments:
        raise InvalidArgumentError(f"the {what} has a segment '.' or '..'")
    if len(text.encode()) > longest:
        raise InvalidArgumentError(f"the {what} has more than {MAX_PATH_BYTES} bytes in UTF-8")
    return text


def parent_of(path: str) -> str:
    """The path of the folder that a normalized path is in; empty for the root."""
    return path.rpartition("/")[0]


def ancestry(path: str) -> list[str]:
    """A normalized path and all that it is in, outermost first, without the root."""
    return [path[:end] for end, one in enumerate(f"{path}/") if one == "/" and end]


def is_below(path: str, folder: str) -> bool:
    """Whether a normalized path lies in a folder, however deep."""
    return path.startswith(f"{folder}/")


def _not_the_root(path: str) -> str:
    if not path:
        raise InvalidArgumentError(
            "the path is the root, which is always there and stays where it is"
        )
    return path


VaultPath = Annotated[
    str, StringConstraints(max_length=4 * MAX_PATH_BYTES), AfterValidator(normalize_path)
]
"""A place in a vault: ``/notes/today.md``; ``/`` is the root."""

EntryPath = Annotated[VaultPath, AfterValidator(_not_the_root)]
"""A place where a file or a folder may be: not the root."""

Permalink = Annotated[
    str, StringConstraints(max_length=4 * MAX_PATH_BYTES), AfterValidator(normalize_permalink)
]
"""Where a page is read, below its user's name: ``notes/today``."""
