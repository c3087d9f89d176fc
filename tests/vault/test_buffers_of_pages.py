"""What links, queue and pages cost does not grow with the vault, nor with those beside it."""

import hashlib
from typing import Any

import pytest
from chat.actors import stored
from test_buffers import FILL, LARGE, SMALL, buffers
from trees import an_object

from catbird_db import Pool

HANG_ON = [
    "INSERT INTO frontmatter (user_id, file_id) SELECT user_id, id FROM files",
    "INSERT INTO file_tags (user_id, file_id, tag, position)"
    " SELECT user_id, id, 'tag ' || left(path, 14), 1 FROM files",
    "INSERT INTO file_aliases (user_id, file_id, alias, position)"
    " SELECT user_id, id, 'alias ' || path, 1 FROM files",
    # Each links to the first of its folder, whose name is also that of a file in each other folder.
    "INSERT INTO file_links (user_id, source_file_id, position, target_name, target_file_id, embed)"
    " SELECT s.user_id, s.id, 1, substr(t.path, 2), t.id, true FROM files AS s JOIN files AS t"
    " ON t.user_id = s.user_id AND t.path = left(s.path, 14) || '/note 000001.md'",
    "INSERT INTO file_links (user_id, source_file_id, position, target_name, embed)"
    " SELECT user_id, id, 2, 'ghost', false FROM files",
    "INSERT INTO processing_queue (user_id, file_id, priority, ready_at)"
    " SELECT user_id, id, 1, CASE WHEN path < '/folder 000002' THEN now() ELSE now() + interval '1 hour' END"
    " FROM files",
    "INSERT INTO published_pages (user_id, file_id, permalink, html, published_at, invalidation)"
    " SELECT user_id, id, substr(path, 2), 'x', now(), (path < '/folder 000002')::int FROM files",
]

ASKED: dict[str, dict[str, Any]] = {
    "vault.frontmatter.find_files_by_tag": {
        "tag": "tag /folder 000007",
        "limit": 51,
        "cursor_file_id": None,
    },
    "vault.links.resolve_links, a path": {"names": "{folder 000007/note 000050}"},
    "vault.links.resolve_links, a name in each folder": {"names": "{note 000050}"},
    "vault.links.resolve_links, an alias": {"names": "{alias /folder 000007/note 000050.md}"},
    "vault.links.update_targets": {"file_ids": "{}", "paths": "{/folder 000007/note 000050.md}"},
    "vault.files.overwrite_file": {
        "path": "/folder 000007/note 000050.md",
        "object_hash": hashlib.sha256(b"x").hexdigest(),
        "size": 1,
        "content_type": None,
        "if_match": None,
    },
    "vault.links.list_unresolved_links": {
        "limit": 51,
        "cursor_target_name": None,
        "cursor_source_file_id": None,
        "cursor_position": None,
    },
    "vault.processing.claim_user_processing": {
        "limit": 10,
        "max_attempts": 5,
        "lease_token": "00000000-0000-0000-0000-000000000001",
        "lease": "1 hour",
    },
    "vault.publishing.list_published": {"limit": 51, "cursor_permalink": None},
    "vault.publishing.list_stale_pages": {"limit": 51, "cursor_file_id": None},
}


@pytest.mark.parametrize("plan", ["custom", "generic"])
async def test_links_queue_and_pages_of_a_large_vault_touch_what_those_of_a_small_one_do(
    pool: Pool, alice: int, bob: int, plan: str
) -> None:
    content = await an_object(pool, "x")
    for user_id, folders in ((alice, SMALL), (bob, LARGE)):
        await stored(pool, "INSERT INTO vaults (user_id) VALUES ($1)", user_id)
        await stored(pool, FILL, user_id, folders, content.hash)
    for statement in HANG_ON:
        await stored(pool, statement)
    async with pool.connection() as connection:
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute(f"SET plan_cache_mode = force_{plan}_plan")
        counts = {
            name: [
                await buffers(connection, name, {**given, "user_id": one}) for one in (alice, bob)
            ]
            for name, given in ASKED.items()
        }
        await connection.execute("RESET plan_cache_mode")
    print(counts)
    grown = {name: n for name, n in counts.items() if n[1] > 1.5 * n[0] + 8}  # indexes are higher
    assert grown == {}
