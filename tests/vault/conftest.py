"""Two users, and a pool wide enough for all tasks of an attack to meet in the database."""

from collections.abc import AsyncGenerator

import pytest
from trees import add_user

from catbird_db import Pool, Settings, open_pool


@pytest.fixture
async def pool(catbird_settings: Settings) -> AsyncGenerator[Pool]:
    """A connection for each of 40 tasks."""
    settings = catbird_settings.model_copy(update={"db_pool_max_size": 40})
    async with open_pool(settings) as pool:
        yield pool


@pytest.fixture
async def alice(pool: Pool) -> int:
    return await add_user(pool, "alice")


@pytest.fixture
async def bob(pool: Pool) -> int:
    return await add_user(pool, "bob")
