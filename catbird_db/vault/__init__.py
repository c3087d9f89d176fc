"""vault: each user's folders and files, and every version of each file."""

from . import files, folders, paths, versions
from .files import *
from .folders import *
from .paths import *
from .versions import *

__all__: list[str] = []
__all__ += files.__all__
__all__ += folders.__all__
__all__ += paths.__all__
__all__ += versions.__all__
