"""A pytest plugin: each test gets a database of its own, migrated, on a real PostgreSQL 18.

For this project and for those built on it. Name it once and use its fixtures:

    pytest_plugins = ["catbird_db.testing"]  # in conftest.py, or: pytest -p catbird_db.testing

    async def test_a_conversation_has_its_creator_as_member(catbird_pool): ...

A run has one server (with pytest-xdist, each worker has one), which is deleted with the run, however
that ends. The migrations are applied once, to a template; a test's database is a copy of that.

A project with tables of its own overrides `catbird_migrations`:

    @pytest.fixture(scope="session")
    def catbird_migrations():
        return [migrations_dir(), Path("migrations")]
"""

import itertools
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import pytest
    import pytest_asyncio
    from pytest_postgresql.janitor import DatabaseJanitor
except ModuleNotFoundError as missing:
    raise ImportError(f"no module {missing.name}: pip install 'catbird-db[testing]'") from None

if TYPE_CHECKING:
    from .config import Settings
    from .embedded import EmbeddedServer
    from .pool import Pool
    from .storage import ObjectStore

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def catbird_server() -> "Generator[EmbeddedServer]":
    """The run's PostgreSQL server, a throwaway."""
    from .embedded import start_server

    with start_server() as server:
        yield server


@pytest.fixture(scope="session")
def catbird_migrations() -> list[Path]:
    """The folders of migrations that every test's database has, in order; override to add to them."""
    from .migrate import migrations_dir

    return [migrations_dir()]


@pytest.fixture(scope="session")
def catbird_template(
    catbird_server: "EmbeddedServer", catbird_migrations: list[Path]
) -> Generator[str]:
    """The name of the migrated database that tests get copies of."""
    from .migrate import apply

    with _database(catbird_server, "catbird_template", is_template=True) as name:
        for directory in catbird_migrations:
            apply(catbird_server.database_url(name), directory=directory)
        yield name


@pytest.fixture
def catbird_database_url(catbird_server: "EmbeddedServer", catbird_template: str) -> Generator[str]:
    """The URL of a database with the migrated schema and no rows, dropped after the test."""
    with _database(catbird_server, f"test_{next(_numbers)}", catbird_template) as name:
        yield catbird_server.database_url(name)


@pytest.fixture
def catbird_empty_database_url(catbird_server: "EmbeddedServer") -> Generator[str]:
    """The URL of a database with nothing in it, dropped after the test."""
    with _database(catbird_server, f"test_{next(_numbers)}") as name:
        yield catbird_server.database_url(name)


@pytest.fixture
def catbird_settings(catbird_database_url: str) -> "Settings":
    """Settings that lead to the test's database; everything else is the environment's or the default."""
    from .config import Settings

    return Settings(database_url=catbird_database_url)


@pytest_asyncio.fixture
async def catbird_pool(catbird_settings: "Settings") -> "AsyncGenerator[Pool]":
    """A pool on the test's database."""
    from .pool import open_pool

    async with open_pool(catbird_settings) as pool:
        yield pool


@pytest_asyncio.fixture
async def catbird_store(tmp_path: Path) -> "AsyncGenerator[ObjectStore]":
    """An object store in a folder of the test's own."""
    from .config import Settings
    from .storage import open_store

    async with open_store(Settings(object_store="folder", object_folder=f"{tmp_path}")) as store:
        yield store


@contextmanager
def _database(
    server: "EmbeddedServer", name: str, template: str | None = None, *, is_template: bool = False
) -> Generator[str]:
    janitor = DatabaseJanitor(
        user="postgres",
        host=str(server.socket_dir),
        port=server.port,
        dbname=name,
        template_dbname=template,
        as_template=is_template,
        connection_timeout=5,
    )
    with janitor:  # also ends the sessions that a test left open
        yield name
