"""Databases to measure on: migrated, filled by generate_series, with counters that agree."""

import asyncpg

from catbird_db.embedded import EmbeddedServer
from catbird_db.migrate import apply

__all__ = [
    "BATCH",
    "CIPHERTEXT",
    "READER",
    "SUITE",
    "check_counters",
    "create_database",
    "current_epoch",
    "fill_background",
    "fill_conversations",
    "fill_key_packages",
    "fill_messages",
    "fill_vault",
]

READER = "did:plc:0"
SUITE = 1
BATCH = 100
CIPHERTEXT = bytes(range(256)) + bytes(44)  # 300 bytes: a short text as an MLS PrivateMessage
MEMBERS = 20
COMMIT_EVERY = 200
FILES_OF_A_FOLDER = 100

CONVERSATIONS = f"""
WITH created AS (
    INSERT INTO conversations (id, creator_did) SELECT unnest($1::text[]), 'did:plc:0' RETURNING id
)
INSERT INTO members (convo_id, member_did)
SELECT id, 'did:plc:' || n FROM created, generate_series(0, {MEMBERS - 1}) AS n
"""

# Every 200th message is a commit; epoch, app_number and the conversation's counters follow from it.
MESSAGES = f"""
WITH stored AS (
    INSERT INTO messages (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, app_number)
    SELECT c.id, n, CASE WHEN $3 THEN n::text ELSE uuidv7()::text END, 'did:plc:' || n % {MEMBERS},
           CASE WHEN n % {COMMIT_EVERY} = 0 THEN 'commit' ELSE 'app' END, (n - 1) / {COMMIT_EVERY},
           decode(repeat(md5(n::text), 19), 'hex'), n - n / {COMMIT_EVERY}
      FROM generate_series(1, $2::bigint) AS n, conversations AS c
     WHERE c.id = ANY ($1::text[])
), counted AS (
    UPDATE conversations
       SET last_seq = $2, app_count = $2 - $2 / {COMMIT_EVERY}, current_epoch = $2 / {COMMIT_EVERY}
     WHERE id = ANY ($1::text[])
)
UPDATE members SET read_seq = $2, read_app_count = $2 - $2 / {COMMIT_EVERY}
 WHERE convo_id = ANY ($1::text[])
"""

# Four devices of each DID; the first packages of each are its last resorts.
KEY_PACKAGES = """
INSERT INTO key_packages (did, id, device_id, cipher_suite, key_data, ref, last_resort, created_at, expires_at)
SELECT did, uuidv7(), 'device-' || n % 4, $3, data, sha256(data), n < 0,
       now() + n * interval '1 millisecond', now() + interval '90 days'
  FROM (SELECT did, n, decode(repeat(md5(did || n || clock_timestamp()), 20), 'hex') AS data
          FROM generate_series(CASE WHEN $4 THEN -4 ELSE 0 END, $2::bigint - 1) AS n, unnest($1::text[]) AS did) AS new
"""

# Folders of 100 files each below /tree; all files share one object.
USER = """
WITH created AS (
    INSERT INTO users (id, username, email) OVERRIDING SYSTEM VALUE
    SELECT id, 'user-' || id, 'user-' || id || '@example.org' FROM unnest(ARRAY[$1::bigint]) AS id RETURNING id
)
INSERT INTO vaults (user_id) SELECT id FROM created
"""
OBJECT = """
INSERT INTO objects (hash, generation, size, state, lease_until)
VALUES (repeat('0', 64), uuidv7(), 1, 'stored', now()) ON CONFLICT DO NOTHING
"""
FOLDERS = f"""
WITH top AS (
    INSERT INTO folders (user_id, id, path) VALUES ($1, uuidv7(), '/tree') RETURNING id
)
INSERT INTO folders (user_id, id, parent_id, path)
SELECT $1, uuidv7(), top.id, '/tree/folder ' || lpad(n::text, 6, '0')
  FROM top, generate_series(1, $2::bigint / {FILES_OF_A_FOLDER}) AS n
"""
FILES = f"""
WITH made AS (
    INSERT INTO files (user_id, id, folder_id, path, object_hash, size, content_type)
    SELECT f.user_id, uuidv7(), f.id, f.path || '/note ' || lpad(n::text, 3, '0') || '.md', repeat('0', 64), 1, 'text/markdown'
      FROM folders AS f, generate_series(1, {FILES_OF_A_FOLDER}) AS n
     WHERE f.user_id = $1 AND f.parent_id IS NOT NULL
     ORDER BY f.path, n
    RETURNING user_id, id
)
INSERT INTO file_versions (user_id, file_id, version, object_hash, size, content_type)
SELECT user_id, id, 1, repeat('0', 64), 1, 'text/markdown' FROM made
"""


async def create_database(server: EmbeddedServer, name: str, *settings: str) -> str:
    """A migrated database with these settings; returns its URL."""
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        for setting in settings:
            await connection.execute(f"ALTER DATABASE {name} SET {setting}")
    finally:
        await connection.close()
    url = server.database_url(name)
    apply(url)
    return url


async def fill_conversations(connection: asyncpg.Connection, convo_ids: list[str]) -> None:
    await connection.execute(CONVERSATIONS, convo_ids)


async def fill_messages(
    connection: asyncpg.Connection, convo_ids: list[str], count: int, *, numbered: bool = False
) -> None:
    """The first ``count`` messages of each conversation, one conversation among the others.

    Args:
        connection: not in a transaction.
        convo_ids: of `fill_conversations`.
        count: messages of each.
        numbered: their ids are "1", "2", ... instead of UUIDs.
    """
    await connection.execute(MESSAGES, convo_ids, count, numbered)


async def fill_key_packages(
    connection: asyncpg.Connection, dids: list[str], count: int, *, last_resorts: bool = True
) -> None:
    await connection.execute(KEY_PACKAGES, dids, count, SUITE, last_resorts)


async def fill_vault(connection: asyncpg.Connection, user_id: int, files: int) -> None:
    """A user with so many files (a multiple of 100), 100 of them in each folder of /tree."""
    await connection.execute(USER, user_id)
    await connection.execute(OBJECT)
    await connection.execute(FOLDERS, user_id, files)
    await connection.execute(FILES, user_id)


async def fill_background(connection: asyncpg.Connection) -> None:
    """Other people's conversations, key packages and files, 10,000 rows at least of each: before and after all others.

    So nobody's keys are the last of an index, where PostgreSQL spares itself the way down.
    """
    others = [f"{letter}-{number}" for letter in "Az" for number in range(250)]
    await fill_conversations(connection, others)
    await fill_messages(connection, others, 20)
    await fill_key_packages(connection, [f"did:plc:{other}" for other in others], 20)
    for user_id in (1, 1_000_000):
        await fill_vault(connection, user_id, 25_000)


def current_epoch(messages: int) -> int:
    """The epoch of a conversation that `fill_messages` gave so many messages."""
    return messages // COMMIT_EVERY


async def check_counters(connection: asyncpg.Connection) -> None:
    """Whatever the contenders did, they did the same: no gaps, and counters that agree.

    Raises:
        AssertionError: names the conversations.
    """
    wrong = await connection.fetch(
        """SELECT c.id
             FROM conversations AS c
             LEFT JOIN messages AS m ON m.convo_id = c.id
            GROUP BY c.id
           HAVING c.last_seq <> count(m.seq) OR c.last_seq <> coalesce(max(m.seq), 0)
               OR c.app_count <> coalesce(max(m.app_number), 0)"""
    )
    assert not wrong, f"counters disagree: {[row['id'] for row in wrong]}"
