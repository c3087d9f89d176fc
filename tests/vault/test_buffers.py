"""What a look into a vault costs does not grow with the vault, nor with those beside it."""

import json
from typing import Any

import pytest
from chat.actors import stored
from scale import scaled
from trees import an_object

from catbird_db import Pool
from catbird_db.query import bound

SMALL, LARGE = 10, scaled(400, 10_000)
"""Folders, each of 100 files."""

FILL = """
WITH made AS (
    INSERT INTO folders (user_id, id, path)
    SELECT $1, gen_random_uuid(), '/folder ' || lpad(n::text, 6, '0') FROM generate_series(1, $2::int) AS n
    RETURNING user_id, id, path
)
INSERT INTO files (user_id, id, folder_id, path, object_hash, size, content_type)
SELECT made.user_id, gen_random_uuid(), made.id, made.path || '/note ' || lpad(n::text, 6, '0') || '.md', $3, 1, 'text/markdown'
  FROM made CROSS JOIN generate_series(1, 100) AS n
 ORDER BY made.path, n
"""

ASKED: dict[str, dict[str, Any]] = {
    "vault.files.find_file_by_path": {"path": "/folder 000007/note 000050.md"},
    "vault.folders.list_folder": {"path": "/folder 000007", "limit": 51, "cursor_path": None},
    "vault.folders.list_folder, the second page": {
        "path": "/folder 000007",
        "limit": 51,
        "cursor_path": "/folder 000007/note 000050.md",
    },
    "vault.folders.list_folder, the root": {"path": "", "limit": 9, "cursor_path": None},
    "vault.folders.list_tree": {"path": "/folder 000007", "limit": 51, "cursor_path": None},
    "vault.folders.get_folder": {"path": "/folder 000007"},
    "vault.files.list_markdown_files": {"limit": 51, "cursor_path": None},
}


def literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else f"{value}"


async def buffers(connection: Any, name: str, given: dict[str, Any]) -> int:
    """Buffers of the second run: the first also reads the catalog, and sets hint bits."""
    label = name.partition(",")[0]
    statement = next(one.statement for one in bound() if one.statement.label == label)
    await connection.execute(f"PREPARE asked AS {statement.sql}")
    arguments = ", ".join(literal(given[one]) for one in statement.parameters)
    for _ in range(2):
        text = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked ({arguments})"
        )
    await connection.execute("DEALLOCATE asked")
    top = json.loads(text)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


@pytest.mark.parametrize("plan", ["custom", "generic"])
async def test_a_look_into_a_large_vault_touches_what_one_into_a_small_vault_beside_it_does(
    pool: Pool, alice: int, bob: int, plan: str
) -> None:
    content = await an_object(pool, "x")
    for user_id, folders in ((alice, SMALL), (bob, LARGE)):
        await stored(pool, "INSERT INTO vaults (user_id) VALUES ($1)", user_id)
        await stored(pool, FILL, user_id, folders, content.hash)
    async with pool.connection() as connection:
        await connection.execute("VACUUM (ANALYZE) files, folders")
        await connection.execute(f"SET plan_cache_mode = force_{plan}_plan")
        counts = {
            name: [
                await buffers(connection, name, {**given, "user_id": one}) for one in (alice, bob)
            ]
            for name, given in ASKED.items()
        }
        await connection.execute("RESET plan_cache_mode")
    grown = {name: n for name, n in counts.items() if n[1] > n[0] + 3}  # a page ends elsewhere
    assert grown == {}
    assert max(counts["vault.files.find_file_by_path"]) <= 8
    assert max(counts["vault.folders.list_folder"]) <= 40
    print(counts)
