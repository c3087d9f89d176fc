"""corpus: Semantik's collections, documents, chunks, and the operations on them."""

from . import collections
from .collections import *

__all__: list[str] = []
__all__ += collections.__all__
