"""What the tests of links, queue and pages share: users, and files that come, move and go.

Files are rows here, without bytes; each change of structure does what the vault's functions do:
lock the vault, change the row, let links follow.
"""

from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from catbird_db import Connection, Pool
from catbird_db.vault.links import relink
from catbird_db.vault.vaults import lock_vault

HASH = "0" * 64
NOBODY = 10**9
"""No user."""


async def stored(pool: Pool, sql: str, *arguments: Any) -> list[Any]:
    """Rows, past the functions under test."""
    async with pool.connection() as connection:
        return await connection.fetch(sql, *arguments)


async def make_user(pool: Pool, name: str) -> int:
    [row] = await stored(
        pool,
        "INSERT INTO users (username, email) VALUES ($1, $1 || '@example.org') RETURNING id",
        name,
    )
    await stored(pool, "INSERT INTO vaults (user_id) VALUES ($1)", row["id"])
    await stored(
        pool,
        "INSERT INTO objects (hash, generation, size, state, lease_until)"
        " VALUES ($1, gen_random_uuid(), 0, 'stored', now()) ON CONFLICT DO NOTHING",
        HASH,
    )
    return row["id"]


async def put(tx: Connection, user_id: int, path: str) -> UUID:
    """A file appears at a path."""
    file_id = uuid7()
    await lock_vault(tx, user_id=user_id)
    await tx.execute(
        "INSERT INTO files (user_id, id, path, object_hash, size, content_type)"
        " VALUES ($1, $2, $3, $4, 0, 'text/markdown')",
        user_id,
        file_id,
        path,
        HASH,
    )
    await relink(tx, user_id=user_id, paths=[path])
    return file_id


async def move(tx: Connection, user_id: int, file_id: UUID, path: str) -> None:
    await lock_vault(tx, user_id=user_id)
    await tx.execute(
        "UPDATE files SET path = $3 WHERE user_id = $1 AND id = $2", user_id, file_id, path
    )
    await relink(tx, user_id=user_id, paths=[path])


async def remove(tx: Connection, user_id: int, path: str) -> None:
    """The file at a path is deleted, or all that is in that folder."""
    await lock_vault(tx, user_id=user_id)
    await tx.execute(
        "UPDATE files SET deleted_at = statement_timestamp(), deletion_id = $3"
        " WHERE user_id = $1 AND deleted_at IS NULL AND (path = $2 OR starts_with(path, $2 || '/'))",
        user_id,
        path,
        uuid7(),
    )
    await relink(tx, user_id=user_id, paths=[path])


async def bring_back(tx: Connection, user_id: int, file_id: UUID) -> None:
    await lock_vault(tx, user_id=user_id)
    await tx.execute(
        "UPDATE files SET deleted_at = NULL, deletion_id = NULL WHERE user_id = $1 AND id = $2",
        user_id,
        file_id,
    )
    await relink(tx, user_id=user_id, file_ids=[file_id])
