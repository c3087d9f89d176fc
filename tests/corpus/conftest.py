"""Several pools on one database, as several server processes have them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest

from catbird_db import Pool, Settings, open_pool


@pytest.fixture
async def pools(catbird_database_url: str) -> AsyncGenerator[list[Pool]]:
    """Three pools of twelve connections: enough for 32 tasks that none waits for a connection."""
    settings = Settings(database_url=catbird_database_url, db_pool_max_size=12)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_pool(settings)) for _ in range(3)]


@pytest.fixture
def pool(pools: list[Pool]) -> Pool:
    return pools[0]
