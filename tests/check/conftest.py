"""Two filled databases for the rules that need one: the project's own, and one with all kinds of tables."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from catbird_db.check.database import Connection, connect, read_catalog
from catbird_db.check.fill import fill
from catbird_db.check.subject import Catalog
from catbird_db.embedded import EmbeddedServer


@dataclass(frozen=True)
class Filled:
    connection: Connection
    catalog: Catalog


@pytest.fixture(scope="session")
def filled(catbird_server: EmbeddedServer, catbird_template: str) -> Generator[Filled]:
    """The project's tables, filled and analyzed. Change them only in a transaction that is rolled back."""
    with _database(catbird_server, "check_filled", catbird_template) as connection:
        catalog = read_catalog(connection)
        fill(connection, catalog)
        yield Filled(connection, catalog)


VARIED = """
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TABLE owners (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    mood mood NOT NULL DEFAULT 'calm',
    name_length integer GENERATED ALWAYS AS (length(name)) STORED,
    CONSTRAINT owners_name_check CHECK (name ~ '^[a-z]+$')
);
COMMENT ON TABLE owners IS 'Whose things they are.
tenant: id';
CREATE TABLE kinds (
    kind text PRIMARY KEY,
    label varchar(3) NOT NULL
);
COMMENT ON TABLE kinds IS 'What kinds of things there are.
small: a dozen rows, as many as a release brings';
CREATE TABLE site (
    number integer PRIMARY KEY DEFAULT 1 CHECK (number = 1),
    name text NOT NULL
);
COMMENT ON TABLE site IS 'Where they are.
small: one row';
CREATE TABLE things (
    owner_id bigint NOT NULL REFERENCES owners,
    thing_id uuid NOT NULL,
    parent_id uuid,
    kind text NOT NULL REFERENCES kinds,
    state text NOT NULL,
    rank smallint NOT NULL,
    tags text[] NOT NULL,
    other jsonb NOT NULL DEFAULT '{}',
    weight numeric(12, 2),
    due_at timestamptz,
    made_on date NOT NULL DEFAULT CURRENT_DATE,
    PRIMARY KEY (owner_id, thing_id),
    UNIQUE (owner_id, kind, state),
    FOREIGN KEY (owner_id, parent_id) REFERENCES things (owner_id, thing_id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT things_other_check CHECK (other ? 'rank' = (rank > 3))
);
COMMENT ON TABLE things IS 'Things.
tenant: owner_id
actor: owner_id';
CREATE INDEX things_ready_idx ON things (due_at) WHERE state = 'ready';
CREATE INDEX things_tags_idx ON things USING gin (tags);
CREATE TABLE chunks (
    collection_id uuid NOT NULL,
    document_id uuid NOT NULL,
    chunk_index integer NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (collection_id, document_id, chunk_index)
) PARTITION BY HASH (collection_id);
COMMENT ON TABLE chunks IS 'Pieces of documents.
tenant: collection_id';
CREATE INDEX chunks_document_id_idx ON chunks (document_id);
"""


@pytest.fixture(scope="session")
def varied(catbird_server: EmbeddedServer) -> Generator[Filled]:
    """Tables of all kinds, filled by the same code: enums, identities, partitions, arrays, cycles."""
    with _database(catbird_server, "check_varied", "template1") as connection:
        connection.execute(VARIED.encode())
        for number in range(8):
            connection.execute(
                f"CREATE TABLE chunks_{number} PARTITION OF chunks"
                f" FOR VALUES WITH (MODULUS 8, REMAINDER {number})".encode()
            )
        catalog = read_catalog(connection)
        fill(connection, catalog)
        yield Filled(connection, catalog)


@contextmanager
def _database(
    server: EmbeddedServer, name: str, template: str
) -> Generator[psycopg.Connection[Any]]:
    with connect(server.url) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        with connect(server.database_url(name)) as connection:
            yield connection
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
