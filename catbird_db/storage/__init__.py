"""storage: bytes behind a hash, in S3 or a folder, with PostgreSQL saying who refers to what."""

from . import objects, store
from .objects import *
from .store import *

__all__: list[str] = []
__all__ += objects.__all__
__all__ += store.__all__
