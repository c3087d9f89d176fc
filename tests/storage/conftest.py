"""Both stores: a folder, and a bucket of a real S3 server that the session starts when first needed."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from seaweed import Seaweed, seaweed

from catbird_db import ObjectStore, Settings, open_store


@pytest.fixture(scope="session")
def s3_server() -> Generator[Seaweed]:
    """One server for all tests of this process."""
    with seaweed() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an object store: each test that uses them runs with both kinds."""
    if request.param == "folder":
        return Settings(object_store="folder", object_folder=f"{tmp_path / 'objects'}")
    server: Seaweed = request.getfixturevalue("s3_server")
    return server.settings()


@pytest.fixture
async def store(store_settings: Settings) -> AsyncGenerator[ObjectStore]:
    """An empty store."""
    async with open_store(store_settings) as store:
        for entry in [entry async for entry in store.list()]:
            await store.delete(entry.key)
        yield store
