"""corpus: collections, documents, chunks, and the operations on them."""

from . import chunks, collections, documents, operations
from .chunks import *
from .collections import *
from .documents import *
from .operations import *

__all__: list[str] = []
__all__ += chunks.__all__
__all__ += collections.__all__
__all__ += documents.__all__
__all__ += operations.__all__
