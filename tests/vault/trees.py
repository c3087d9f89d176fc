"""What the vault's tests share: files without an upload, what a vault holds, and whether it is sound."""

import hashlib
from typing import Any

from chat.actors import stored

from catbird_db import File, Pool, StoredObject, list_tree, record_file
from catbird_db.pool import Executor


async def add_user(pool: Pool, name: str) -> int:
    rows = await stored(
        pool,
        "INSERT INTO users (username, email) VALUES ($1, $1 || '@example.org') RETURNING id",
        name,
    )
    return rows[0]["id"]


async def an_object(pool: Pool, text: str) -> StoredObject:
    """An object that the table calls stored, with no bytes behind it."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    await stored(
        pool,
        "INSERT INTO objects (hash, generation, size, state, lease_until)"
        " VALUES ($1, gen_random_uuid(), $2, 'stored', now() + interval '1 day')"
        " ON CONFLICT DO NOTHING",
        digest,
        len(text),
    )
    return StoredObject(hash=digest, size=len(text))


async def put(
    pool: Pool, user_id: int, path: str, text: str | None = None, /, *, db: Executor | None = None
) -> File:
    """Write a text (its path unless given), in ``db`` where the caller has a transaction."""
    content = await an_object(pool, path if text is None else text)
    return await record_file(db or pool, user_id=user_id, path=path, stored=content)


async def tree(pool: Pool, user_id: int, path: str = "/") -> list[str]:
    """The paths below a folder, folders with a slash at their end."""
    page = await list_tree(pool, user_id=user_id, path=path, limit=500)
    assert page.next_cursor is None
    return [one.path + "/" * (one.kind == "folder") for one in page.items]


FAULTS = {
    "a file and a folder share a path": """
        SELECT f.path FROM files AS f JOIN folders AS d ON d.user_id = f.user_id AND d.path = f.path
         WHERE f.deleted_at IS NULL AND d.deleted_at IS NULL""",
    "a file is not in the folder that its path names": """
        SELECT f.path FROM files AS f LEFT JOIN folders AS d ON d.user_id = f.user_id AND d.id = f.folder_id
         WHERE f.deleted_at IS NULL
           AND (coalesce(d.path, '') <> regexp_replace(f.path, '/[^/]*$', '') OR d.deleted_at IS NOT NULL)""",
    "a folder is not in the folder that its path names": """
        SELECT f.path FROM folders AS f LEFT JOIN folders AS d ON d.user_id = f.user_id AND d.id = f.parent_id
         WHERE f.deleted_at IS NULL
           AND (coalesce(d.path, '') <> regexp_replace(f.path, '/[^/]*$', '') OR d.deleted_at IS NOT NULL)""",
    "versions have gaps": """
        SELECT f.path FROM files AS f
         WHERE (SELECT array_agg(v.version ORDER BY v.version) FROM file_versions AS v
                 WHERE v.user_id = f.user_id AND v.file_id = f.id)
               IS DISTINCT FROM ARRAY (SELECT generate_series(1, f.version))""",
    "a file is not its newest version": """
        SELECT f.path FROM files AS f
         WHERE NOT EXISTS (SELECT FROM file_versions AS v
                            WHERE v.user_id = f.user_id AND v.file_id = f.id AND v.version = f.version
                              AND v.object_hash = f.object_hash AND v.size = f.size)""",
}


async def assert_sound(pool: Pool) -> None:
    """What holds for every vault at every moment."""
    found: dict[str, list[Any]] = {}
    for fault, sql in FAULTS.items():
        if rows := await stored(pool, sql):
            found[fault] = [row["path"] for row in rows[:5]]
    assert found == {}
