"""chat: the Catbird MLS server's conversations, members, messages, commits, key packages and blobs."""

from . import blobs, commits, conversations, key_packages, members, messages, welcomes
from .blobs import *
from .commits import *
from .conversations import *
from .key_packages import *
from .members import *
from .messages import *
from .welcomes import *

__all__: list[str] = []
__all__ += blobs.__all__
__all__ += commits.__all__
__all__ += conversations.__all__
__all__ += key_packages.__all__
__all__ += members.__all__
__all__ += messages.__all__
__all__ += welcomes.__all__
