"""Paths in a vault: one spelling for each, checked here and, by the same rules, in the database."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from ..errors import InvalidArgumentError

__all__ = ["normalize_path"]

MAX_PATH_BYTES = 1024


def normalize_path(path: str) -> str:
    """The one spelling of a path: in NFC and with a leading ``/``. The root is the empty string.

    Everything else is refused and not mended: no segment is empty, ``.`` or ``..``; there is no
    control character; the whole has at most 1024 bytes in UTF-8. The CHECK constraints of
    ``folders`` and ``files`` say the same.

    Raises:
        InvalidArgumentError: says which rule the path breaks.
    """
    if any(unicodedata.category(one) == "Cc" for one in path):
        raise InvalidArgumentError("the path has a control character")
    if any("\ud800" <= one <= "\udfff" for one in path):
        raise InvalidArgumentError("the path is no Unicode text: it has half of a surrogate pair")
    if path in ("", "/"):
        return ""
    path = unicodedata.normalize("NFC", path)
    if not path.startswith("/"):
        path = f"/{path}"
    segments = path[1:].split("/")
    if "" in segments:
        raise InvalidArgumentError("the path has an empty segment, or ends with '/'")
    if "." in segments or ".." in segments:
        raise InvalidArgumentError("the path has a segment '.' or '..'")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidArgumentError(f"the path has more than {MAX_PATH_BYTES} bytes in UTF-8")
    return path


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
