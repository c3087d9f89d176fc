"""catbird-db: SQL that a DBA reviews, called as plain typed async functions.

    async with open_pool(Settings(database_url=...)) as pool:
        conversation = await create_conversation(pool, creator_did="did:plc:alice")
        async with transaction(pool) as tx:
            ...

Every public name is here; each function's `help()` shows its SQL's own comment too.
"""

from . import chat, corpus, database, errors, health, items, pool, storage, users, vault
from .chat import *
from .config import Settings
from .corpus import *
from .database import *
from .errors import *
from .health import *
from .items import *
from .pagination import Page
from .pool import *
from .query import verify
from .storage import *
from .types import UNSET
from .users import *
from .vault import *

__all__ = ["UNSET", "Page", "Settings"]
__all__ += chat.__all__
__all__ += corpus.__all__
__all__ += database.__all__
__all__ += errors.__all__
__all__ += health.__all__
__all__ += items.__all__
__all__ += pool.__all__
__all__ += storage.__all__
__all__ += users.__all__
__all__ += vault.__all__

verify()
