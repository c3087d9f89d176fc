"""One small change to the project's own SQL, stubs or schema, and what `check` makes of it.

Each case says what is changed to what and which rule must see it; "" is a near miss, which looks
like a mistake and is none. What is found of the unchanged statement does not count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mutants import mutant, statement
from stub_mutants import drift_of, stub_mutant

from catbird_db.check import migrations
from catbird_db.check.database import read_catalog
from catbird_db.check.finding import Finding
from catbird_db.check.runner import Place, check_statement, compared, used_indexes
from catbird_db.migrate import migrations_dir
from catbird_db.query import Bound, bound

NEAR_MISS = ""


@dataclass(frozen=True)
class Case:
    rule: str
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.rule or 'near miss'}: {self.name}: {self.new.strip()[:60] or 'without ' + self.old.strip()[:50]}"


def case(rule: str, name: str, old: str, new: str) -> Case:
    return Case(rule, name, old, new)


STATE = """\
SELECT current_setting('server_version') AS server_version,
       pg_is_in_recovery() AS in_recovery"""

TRIMMED_FOR_MEMBERS = """\
  FROM members AS r
  JOIN conversations AS c ON c.id = r.convo_id
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL
   AND c.id = :convo_id"""
TRIMMED_FOR = """\
  FROM conversations AS c
 WHERE c.id = :convo_id AND EXISTS (SELECT FROM {})"""

OF_CURSOR = """
                   AND f.path > coalesce(:cursor_path::text, '')"""

STATEMENTS = [
    # ---- prepare: what PostgreSQL refuses
    case("prepare", "get_conversation", "c.title,", "c.titel,"),
    case("prepare", "get_message", "messages AS s", "message AS s"),
    case("prepare", "append_message", "ON CONFLICT (convo_id, id)", "ON CONFLICT (id)"),
    case("prepare", "list_members", "LIMIT :limit", "LIMIT :limit::text"),
    case("prepare", "mark_read", "least(:seq::bigint, c.last_seq)", "least(:seq::bigint, c.title)"),
    case(NEAR_MISS, "get_conversation", "conversations AS c", "public.conversations AS c"),
    # ---- parameter: what the annotation admits, and what the SQL takes
    case("parameter", "advance_epoch", ":new_epoch::bigint >", ":new_epoch::int >"),
    case("parameter", "claim_key_package", ":convo_id::text", ":convo_id::uuid"),
    case("parameter", "mark_read", "least(:seq::bigint", "least(:seq::smallint"),
    case(NEAR_MISS, "mark_read", "s.seq <= :seq", "s.seq <= :seq::bigint"),
    # ---- columns: names, order and types against the row model
    case("columns", "get_membership", "m.joined_at, m.left_at,", "m.left_at, m.joined_at,"),
    case("columns", "get_membership", ", m.read_seq", ""),
    case("columns", "get_membership", "m.read_seq", "m.read_seq::text AS read_seq"),
    case("columns", "get_membership", "m.read_seq", "m.read_seq AS seq"),
    case("columns", "get_current_epoch", "SELECT c.current_epoch", "SELECT c.current_epoch, c.id"),
    case("columns", "get_current_epoch", "c.current_epoch", "c.created_at"),
    case(NEAR_MISS, "get_membership", "m.read_seq", "(m.read_seq) AS read_seq"),
    # ---- not-null: a None that the model does not expect
    case(
        "not-null", "get_membership", "m.joined_at", "nullif(m.joined_at, 'infinity') AS joined_at"
    ),
    case("not-null", "list_pending_welcomes", "JOIN welcomes AS w", "LEFT JOIN welcomes AS w"),
    case("not-null", "get_key_package", "-- not-null: key_data", "-- Note: key_data"),
    case("not-null", "get_message_count", "c.last_seq - c.trimmed_count", "nullif(c.last_seq, 0)"),
    case(NEAR_MISS, "get_membership", "m.joined_at", "coalesce(m.joined_at, now()) AS joined_at"),
    # ---- tenant: every row is of the tenant that the caller named
    case("tenant", "get_conversation", "c.id = :convo_id", "c.title = :convo_id"),
    case("tenant", "get_conversation", "c.id = :convo_id", "c.id >= :convo_id"),
    case("tenant", "get_conversation", "c.id = :convo_id", "c.id = :convo_id OR c.title IS NULL"),
    case("tenant", "get_conversation", "c.id = :convo_id", "NOT c.id = :convo_id"),
    case("tenant", "get_conversation", "c.id = :convo_id", "c.id = c.id AND c.title = :convo_id"),
    case("tenant", "get_conversation", "-- tenant: convo_id\n", ""),
    case(
        "tenant",
        "list_messages",
        "WHERE s.convo_id = :convo_id\n          AND s.seq <",
        "WHERE s.seq <",
    ),
    case(
        NEAR_MISS,
        "append_message",
        "WHERE NOT EXISTS (SELECT FROM locked)\n   AND s.convo_id = :convo_id AND s.id",
        "WHERE NOT EXISTS (SELECT FROM locked)\n   AND s.id",
    ),
    case(
        "tenant",
        "delete_message",
        "s.convo_id = :convo_id AND s.id = :message_id",
        "s.id = :message_id AND (s.convo_id = :convo_id OR s.epoch = 0)",
    ),
    case(
        "tenant",
        "update_unread_count",
        "WHERE c.id = :convo_id\n   AND m.convo_id",
        "WHERE m.convo_id",
    ),
    case(NEAR_MISS, "get_conversation", "c.id = :convo_id", ":convo_id = c.id"),
    case(NEAR_MISS, "get_trimmed_seq", "\n   AND c.id = :convo_id", ""),
    # ---- actor: the caller's own row stands in the way
    case("actor", "get_message", "r.member_did = :reader_did", "r.member_did <> :reader_did"),
    case(
        "actor",
        "get_message",
        "r.member_did = :reader_did",
        "(r.member_did = :reader_did OR r.left_at IS NULL)",
    ),
    case("actor", "list_commits", "AND r.member_did = :reader_did", "AND r.convo_id = :reader_did"),
    case(
        "actor",
        "acknowledge_welcome",
        "wr.recipient_did = :recipient_did",
        "wr.recipient_did >= :recipient_did",
    ),
    case(NEAR_MISS, "find_commit", " AND m.member_did = found.sender_did", ""),
    case("actor", "apply_commit", "unless external", "unless group_info"),
    case("actor", "apply_commit", "EXISTS (SELECT FROM committer)", "EXISTS (SELECT FROM locked)"),
    case("actor", "apply_commit", ":external::boolean OR", "NOT :external::boolean OR"),
    case("actor", "get_message", "r.left_at IS NULL", "r.left_at IS NOT NULL"),
    case("actor", "get_message", "-- actor: reader_did\n", ""),
    case("actor", "get_collection", "-- actor: user_id\n", ""),
    case("actor", "is_member", "-- actor: none (", "-- Actor: none ("),
    *(
        case("actor", "get_trimmed_seq", TRIMMED_FOR_MEMBERS, TRIMMED_FOR.format(own))
        for own in (  # the reader's own rows, which outlive membership
            "welcome_recipients AS wr WHERE wr.convo_id = :convo_id AND wr.recipient_did = :reader_did"
            " AND wr.acknowledged_at IS NOT NULL",
            "blobs AS b WHERE b.convo_id = :convo_id AND b.uploaded_by_did = :reader_did",
            "welcome_recipients AS wr JOIN members AS m ON m.convo_id = wr.convo_id"
            " WHERE wr.convo_id = :convo_id AND wr.recipient_did = :reader_did"
            " AND m.member_did = :reader_did AND m.left_at IS NOT NULL",
        )
    ),
    case(
        NEAR_MISS,
        "get_trimmed_seq",
        TRIMMED_FOR_MEMBERS,
        TRIMMED_FOR.format(
            "members AS m WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL"
        ),
    ),
    case(
        "actor",
        "get_collection",
        "collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id",
        "audit_log AS a WHERE a.collection_id = c.id AND a.owner_id = :user_id",
    ),
    case("actor", "list_pending_welcomes", "w.ordinal = wr.ordinal", "w.ordinal > wr.ordinal"),
    case(
        "actor",
        "list_pending_welcomes",
        "m.convo_id = wr.convo_id AND",
        "m.convo_id < wr.convo_id AND",
    ),
    case("actor", "list_audit_log", "p.user_id = :user_id", "p.user_id <> :user_id"),
    case("actor", "list_audit_log", "a.owner_id = :user_id", "a.user_id = :user_id"),
    case(NEAR_MISS, "mark_read", "-- actor: member_did", "-- actor: none (a trusted caller)"),
    case(NEAR_MISS, "get_message", "r.member_did = :reader_did", ":reader_did = r.member_did"),
    # ---- index: the plan, on filled tables
    case("index", "get_message", "ON s.convo_id = :convo_id", "ON lower(s.convo_id) = :convo_id"),
    case("index", "list_members", "-- index: members_pkey", "-- index: messages_pkey"),
    case("index", "list_members", "-- index: members_pkey\n", ""),
    case("index", "delete_message", "s.convo_id = :convo_id", "s.convo_id LIKE :convo_id"),
    case("index", "list_messages", "ORDER BY s.seq DESC", "ORDER BY s.sent_at DESC, s.seq DESC"),
    case(
        "index",
        "list_members",
        "m.member_did > coalesce(:cursor_member_did::text, '')",
        "(:cursor_member_did::text IS NULL OR m.member_did > :cursor_member_did)",
    ),
    case(
        NEAR_MISS,
        "list_members",
        "-- index: members_pkey",
        "-- index: members_pkey, members_member_did_idx",
    ),
    # ---- index: each branch of a page begins at its cursor
    case(
        "index",
        "list_collections",
        """
           AND p.collection_id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')""",
        "",
    ),
    case(
        "index",
        "list_collections",
        """
           AND own.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')""",
        "",
    ),
    case(
        "index",
        "list_collections",
        "p.collection_id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')\n"
        "         ORDER BY p.collection_id DESC\n         LIMIT :limit",
        "p.granted_at < statement_timestamp()",
    ),
    case("index", "list_folder", OF_CURSOR, ""),
    case("index", "list_folder", f"folder.id IS NULL{OF_CURSOR}", "folder.id IS NULL"),
    case("index", "list_tree", OF_CURSOR, ""),
    case(
        NEAR_MISS,
        "list_collections",
        """  JOIN collections AS c ON c.id = mine.id
 ORDER BY c.id DESC""",
        """  JOIN collections AS c ON c.id = mine.id
 ORDER BY mine.id DESC""",
    ),
    # ---- select-star
    case(
        "select-star",
        "get_membership",
        "m.convo_id, m.member_did, m.joined_at, m.left_at, m.read_seq",
        "m.*",
    ),
    case(
        "select-star",
        "get_membership",
        "m.convo_id, m.member_did, m.joined_at, m.left_at, m.read_seq",
        "*",
    ),
    case("select-star", "get_current_epoch", "c.current_epoch", "(c).current_epoch, c"),
    case(NEAR_MISS, "count_key_packages", "count(*)", "count(kp.id)"),
    # ---- qualified
    case("qualified", "list_conversations", "c.title,", "title,"),
    case("qualified", "get_message", "r.left_at IS NULL", "left_at IS NULL"),
    case("qualified", "mark_read", "SELECT s.app_number", "SELECT app_number"),
    case(
        "qualified",
        "find_commit",
        "JOIN members AS m ON m.convo_id = found.convo_id AND m.member_did = found.sender_did",
        "JOIN members AS m USING (convo_id)",
    ),
    case(
        "qualified",
        "delete_key_packages",
        "AND kp.device_id = :device_id\n       AND wr",
        "AND device_id = :device_id\n       AND wr",
    ),
    case(NEAR_MISS, "get_membership", "m.joined_at", "joined_at"),
    case(NEAR_MISS, "list_members", "ORDER BY m.member_did", "ORDER BY member_did"),
    # ---- volatile
    case("volatile", "delete_message", "statement_timestamp()", "clock_timestamp()"),
    case(
        "volatile",
        "acknowledge_welcome",
        "wr.acknowledged_at IS NULL",
        "wr.acknowledged_at IS NULL AND random() < 2",
    ),
    case(
        "volatile",
        "claim_key_package",
        "SET consumed_at = statement_timestamp()",
        "SET consumed_at = clock_timestamp()",
    ),
    case(
        "volatile",
        "add_member",
        "left_at = NULL",
        "left_at = nullif(clock_timestamp(), clock_timestamp())",
    ),
    case("volatile", "remove_member", "RETURNING m.member_did", "RETURNING m.member_did, random()"),
    case(
        "volatile",
        "delete_key_packages",
        "RETURNING kp.id",
        "RETURNING kp.id, clock_timestamp() AS at",
    ),
    case(NEAR_MISS, "delete_key_packages", "RETURNING kp.id", "RETURNING kp.id, now() AS at"),
    case(NEAR_MISS, "delete_message", "statement_timestamp()", "now()"),
    case(
        NEAR_MISS,
        "add_member",
        ":member_did, statement_timestamp()",
        ":member_did, clock_timestamp()",
    ),
    # ---- session-state
    case(
        "session-state",
        "lock_conversation",
        "SELECT FROM conversations AS c WHERE c.id = :convo_id FOR NO KEY UPDATE",
        "SELECT pg_advisory_lock(hashtext(c.id)) FROM conversations AS c WHERE c.id = :convo_id",
    ),
    case(
        "session-state",
        "lock_conversation",
        "SELECT FROM conversations AS c",
        "SELECT set_config('search_path', c.id, false) FROM conversations AS c",
    ),
    case("session-state", "get_server_state", STATE, "LISTEN conversations"),
    case("session-state", "get_server_state", STATE, "SET search_path = public"),
    case("session-state", "get_server_state", STATE, "TRUNCATE conversations"),
    case("session-state", "get_server_state", STATE, "CREATE TEMPORARY TABLE t (id int)"),
    case(
        "session-state", "get_server_state", "SELECT current", "SELECT pg_notify('a', 'b'), current"
    ),
    case(NEAR_MISS, "lock_conversation", "FOR NO KEY UPDATE", "FOR UPDATE"),
    # ---- offset
    case("offset", "list_members", "LIMIT :limit", "LIMIT :limit OFFSET 10"),
    case("offset", "list_commits", "LIMIT :limit", "OFFSET 1 LIMIT :limit"),
    # ---- unlocked
    case("unlocked", "claim_key_package", "       FOR UPDATE SKIP LOCKED\n", ""),
    case("unlocked", "delete_messages_before", " FOR NO KEY UPDATE", ""),
    case(NEAR_MISS, "claim_key_package", "FOR UPDATE SKIP LOCKED", "FOR NO KEY UPDATE SKIP LOCKED"),
    # ---- one-row: where the first of several would be taken
    case(
        "one-row",
        "get_membership",
        " AND m.member_did = :member_did",
        " AND m.left_at::text = :member_did",
    ),
    case("one-row", "get_message", "AND s.id = :message_id", "AND s.sender_did = :message_id"),
    case("one-row", "claim_key_package", "     LIMIT 1\n       FOR UPDATE", "       FOR UPDATE"),
    case("one-row", "claim_key_package", "    AND NOT EXISTS (SELECT FROM candidate)\n", ""),
    case("one-row", "append_message", "WHERE NOT EXISTS (SELECT FROM locked)\n   AND s", "WHERE s"),
    case("one-row", "create_file", "     WHERE NOT EXISTS (SELECT FROM latest)\n", ""),
    case("one-row", "count_key_packages", "count(*) AS available", "1::bigint AS available"),
    case(
        NEAR_MISS,
        "get_membership",
        "m.member_did = :member_did",
        "m.member_did = :member_did LIMIT 1",
    ),
    # ---- unbounded
    case(
        "unbounded",
        "list_commits",
        "ORDER BY s.epoch\n        LIMIT :limit",
        "AND :limit::bigint > 0",
    ),
    case("unbounded", "list_messages_since", "LIMIT :limit", "LIMIT ALL OFFSET :limit"),
    case(
        "unbounded",
        "append_messages",
        "twin.id = given.id\n            LIMIT 1",
        "twin.id > given.id",
    ),
    case("unbounded", "claim_key_packages", "-- unbounded:", "-- Unbounded:"),
    case(
        "unbounded",
        "list_members",
        "-- key: member_did",
        "-- key: member_did\n-- unbounded: few of them",
    ),
    case(
        "unbounded",
        "list_members",
        "ORDER BY m.member_did\n LIMIT :limit",
        "AND :limit::bigint > 0 ORDER BY m.member_did",
    ),
    case(NEAR_MISS, "list_commits", "LIMIT :limit", "LIMIT :limit + 1"),
    # ---- order
    case("order", "list_members", "ORDER BY m.member_did", "ORDER BY m.joined_at"),
    case("order", "list_members", "ORDER BY m.member_did", "ORDER BY m.member_did DESC"),
    case("order", "list_members", "ORDER BY m.member_did\n", ""),
    case("order", "list_messages", "ORDER BY s.seq DESC\n", ""),
    case("order", "list_messages", "ORDER BY s.seq DESC", "ORDER BY s.sent_at DESC"),
    case("order", "list_commits", "AND s.message_type = 'commit'\n", ""),
    case(
        "order",
        "list_conversations",
        "ORDER BY c.last_message_at DESC, c.id DESC",
        "ORDER BY c.last_message_at DESC",
    ),
    case("order", "get_key_package", "ORDER BY available.last_resort", ""),
    case(
        "order",
        "list_pending_welcomes",
        "ORDER BY wr.convo_id, wr.epoch, wr.key_package_ref",
        "ORDER BY wr.convo_id, wr.epoch",
    ),
    case(
        "order",
        "claim_key_package",
        "ORDER BY kp.created_at DESC, kp.id DESC",
        "ORDER BY kp.created_at DESC",
    ),
    case("order", "list_messages_since", "ORDER BY page.seq", ""),
    case("order", "list_messages", "ORDER BY s.seq DESC", "ORDER BY s.seq"),
    case("order", "list_messages", "s.seq < coalesce", "s.seq > coalesce"),
    case("order", "list_folder", "-- key: path (a file", "-- key: path\n-- (a file"),
    case("order", "list_folder", "ORDER BY entry.path", "ORDER BY entry.created_at"),
    case("order", "append_messages", "ORDER BY answered.ordinal", "ORDER BY answered.sender_did"),
    case("order", "append_messages", "-- order: ordinal (", "-- Order: ordinal ("),
    case("order", "list_commits", "ORDER BY page.epoch", "ORDER BY page.sender_did"),
    case("order", "read_new_messages", "position.ordinal, page.seq", "position.ordinal"),
    case("order", "read_new_messages", "position.ordinal, page.seq", "page.seq, position.convo_id"),
    case("order", "list_messages_since", "ORDER BY page.seq", "ORDER BY page.sent_at"),
    case("order", "take_due_syncs", "ORDER BY claimed.id", "ORDER BY claimed.owner_id"),
    case("order", "insert_documents", "ORDER BY stored.content_hash", "ORDER BY stored.created_at"),
    case(
        "order",
        "list_messages_since",
        "-- index:",
        "-- order: seq (it is the key)\n-- index:",
    ),
    case(NEAR_MISS, "list_messages", "ORDER BY s.seq DESC", "ORDER BY s.seq DESC, s.id"),
    case(NEAR_MISS, "list_messages_since", "ORDER BY page.seq", "ORDER BY page.id"),
    case(NEAR_MISS, "list_messages_since", "ORDER BY page.seq", "ORDER BY 2"),
    case(NEAR_MISS, "take_due_syncs", "ORDER BY claimed.id", "ORDER BY collection_id"),
    case(
        NEAR_MISS,
        "claim_key_package",
        "ORDER BY kp.created_at, kp.id",
        "ORDER BY kp.created_at, kp.id, kp.ref",
    ),
    # ---- meaning: both are text
    case(
        "meaning",
        "remove_member",
        "wr.recipient_did = parted.member_did",
        "wr.recipient_did = :convo_id",
    ),
    case(
        "meaning",
        "get_message",
        "s.id = :message_id",
        "s.id = :convo_id AND s.sender_did = :message_id",
    ),
    case(
        "meaning",
        "append_message",
        "locked.last_seq + 1, :message_id, :sender_did",
        "locked.last_seq + 1, :sender_did, :message_id",
    ),
    case(NEAR_MISS, "find_commit", "m.member_did = found.sender_did", "m.member_did = :sender_did"),
    # ---- refused: prepared, and in vain
    case(
        "refused",
        "apply_commit",
        "ordinal, data)\n    SELECT :convo_id, stored.epoch + 1, given.ordinal, given.data",
        "ordinal)\n    SELECT :convo_id, stored.epoch + 1, given.ordinal",
    ),
    case("refused", "apply_commit", "'commit', :expected_epoch", "'comit', :expected_epoch"),
    case("refused", "list_commits", "message_type = 'commit'", "message_type = 'comit'"),
    # ---- order: the first page
    case(
        "order",
        "list_messages",
        "coalesce(:cursor_seq, 9223372036854775807)",
        "coalesce(:cursor_seq, 0)",
    ),
    case(
        "order",
        "list_members",
        "coalesce(:cursor_member_did::text, '')",
        "coalesce(:cursor_member_did::text, 'z')",
    ),
    case(
        "order",
        "list_pending_welcomes",
        "coalesce(:cursor_key_package_ref::bytea, '')",
        r"coalesce(:cursor_key_package_ref::bytea, '\xff')",
    ),
    case(
        NEAR_MISS,
        "list_pending_welcomes",
        "coalesce(:cursor_key_package_ref::bytea, '')",
        r"coalesce(:cursor_key_package_ref::bytea, '\x')",
    ),
    case(
        "order",
        "list_members",
        """m.member_did > coalesce(:cursor_member_did::text, '')
 ORDER BY m.member_did""",
        """m.member_did < coalesce(:cursor_member_did::text, 'x')
 ORDER BY m.member_did DESC""",
    ),
    # ---- idle
    case("idle", "get_trimmed_seq", "r.left_at IS NULL", "r.convo_id IS NULL"),
    case("idle", "get_trimmed_seq", "r.left_at IS NULL", "r.read_seq IS NOT NULL"),
    case("idle", "list_messages_since", "r.convo_id = :convo_id", "r.convo_id <> :convo_id"),
    case(
        "idle",
        "find_commit",
        "found.sender_did = :sender_did",
        "found.sender_did = found.sender_did AND m.member_did = :sender_did",
    ),
    case("idle", "find_commit", "JOIN members AS m", "LEFT JOIN members AS m"),
    case("idle", "lock_conversation", " FOR NO KEY UPDATE", ""),
    case("idle", "claim_key_packages", "LIMIT 1\n              FOR UPDATE", "FOR UPDATE"),
    case(
        NEAR_MISS,
        "claim_key_packages",
        "LIMIT 1\n              FOR UPDATE SKIP LOCKED",
        "LIMIT 1\n              FOR UPDATE",
    ),
    case(NEAR_MISS, "get_message", "r.left_at IS NULL", "r.left_at IS NULL AND s.convo_id IS NULL"),
    # ---- drift
    case("drift", "get_message", "s.id = :message_id", "s.id = 'x'"),
    case("drift", "get_message", "s.id = :message_id", "s.id = :message"),
    case("drift", "get_message", "get_message :maybe", "get_message :many"),
    case(NEAR_MISS, "get_message", "s.id = :message_id", "s.id = :message_id::text"),
]

STUBS = [
    case("not-null", "get_membership", "left_at: datetime | None", "left_at: datetime"),
    case("columns", "get_membership", "read_seq: int", "read_seq: str"),
    case("columns", "get_membership", "    joined_at: datetime\n", ""),
    case("columns", "get_membership", "    read_seq: int\n", "    read_seq: int\n    more: int\n"),
    case("columns", "get_current_epoch", "convo_id: ConvoId) -> int:", "convo_id: ConvoId) -> str:"),
    case("parameter", "mark_read", "seq: Seq)", "seq: str)"),
    case("parameter", "get_key_package", "cipher_suite: CipherSuite", "cipher_suite: int"),
    case("parameter", "get_membership", "convo_id: ConvoId, member_did: Did) -> Member | None", "convo_id: int, member_did: Did) -> Member | None"),
    case("drift", "get_membership", "member_did: Did) -> Member | None", "did: Did) -> Member | None"),
    case("drift", "get_membership", "member_did: Did) -> Member | None", "member_did: Did) -> Member"),
    case(NEAR_MISS, "get_membership", "joined_at: datetime\n", "joined_at: datetime | None\n"),
]  # fmt: skip

SCHEMA = [
    case("index", "list_messages", "", "ALTER TABLE messages DROP CONSTRAINT messages_pkey"),
    case("order", "list_commits", "", "DROP INDEX messages_convo_id_epoch_key"),
    case("not-null", "get_conversation", "", "ALTER TABLE conversations ALTER COLUMN creator_did DROP NOT NULL"),
    case("columns", "get_conversation", "", "ALTER TABLE conversations ALTER COLUMN last_seq TYPE text"),
    case("prepare", "get_conversation", "", "ALTER TABLE conversations DROP COLUMN title"),
    case(NEAR_MISS, "get_conversation", "", "ALTER TABLE conversations ADD COLUMN colour text"),
]  # fmt: skip

INDEXES = [
    case(NEAR_MISS, "wide_idx", "", "CREATE INDEX wide_idx ON messages (convo_id) INCLUDE (epoch); COMMENT ON INDEX wide_idx IS 'kept: x'"),
    case(NEAR_MISS, "class_idx", "", "CREATE INDEX class_idx ON messages (convo_id text_pattern_ops); COMMENT ON INDEX class_idx IS 'kept: x'"),
    case("index-unused", "messages_sender_did_idx", "", "CREATE INDEX messages_sender_did_idx ON messages (sender_did)"),
    case("index-prefix", "messages_convo_id_idx", "", "CREATE INDEX messages_convo_id_idx ON messages (convo_id)"),
    case("index-prefix", "again_key", "", "CREATE UNIQUE INDEX again_key ON messages (convo_id, seq)"),
    case("index-prefix", "again_idx", "", "CREATE INDEX again_idx ON members (member_did, convo_id) WHERE left_at IS NULL"),
    case(NEAR_MISS, "kept_idx", "", "CREATE INDEX kept_idx ON messages (sender_did); COMMENT ON INDEX kept_idx IS 'kept: the abuse desk asks by it'"),
    case(NEAR_MISS, "sender_key", "", "CREATE UNIQUE INDEX sender_key ON messages (sender_did, convo_id, seq)"),
    case(NEAR_MISS, "left_idx", "", "CREATE INDEX left_idx ON members (member_did) WHERE left_at IS NOT NULL; COMMENT ON INDEX left_idx IS 'kept: x'"),
]  # fmt: skip

GUARD = """
DO $$ DECLARE lost bigint; BEGIN
    LOCK TABLE members IN ACCESS EXCLUSIVE MODE;
    SELECT count(*) INTO lost FROM members;
    IF lost > 0 AND current_setting('catbird.allow_destructive', true) IS DISTINCT FROM '0004_key_packages' THEN
        RAISE EXCEPTION 'members with its % rows', lost;
    END IF;
END $$;
"""
MESSAGES = GUARD.replace("members", "messages")
IGNORED = "-- squawk-ignore-file ban-drop-table -- a test\n"
LAST = "0004_key_packages.sql"
END = "-- What delete_expired_key_packages looks for."

FILES = [
    case("destructive", LAST, END, "DROP TABLE messages;"),
    case("destructive", LAST, END, "ALTER TABLE messages DROP COLUMN deleted_at;"),
    case("destructive", LAST, END, "TRUNCATE messages;"),
    case("destructive", LAST, END, "DELETE FROM messages;"),
    case("destructive", LAST, END, "DELETE FROM messages WHERE true;"),
    case("destructive", LAST, END, "UPDATE messages SET deleted_at = now();"),
    case("destructive", LAST, END, "ALTER TABLE messages ALTER COLUMN seq TYPE integer;"),
    case("destructive", LAST, END, "DROP SCHEMA other CASCADE;"),
    case("destructive", LAST, END, "DELETE FROM messages WHERE convo_id = convo_id;"),
    case("destructive", LAST, END, "DELETE FROM messages WHERE convo_id IS NOT NULL;"),
    case("destructive", LAST, END, "MERGE INTO messages AS s USING members AS m ON m.convo_id = s.convo_id WHEN MATCHED THEN DELETE;"),
    case("destructive", LAST, END, "INSERT INTO conversations (id, creator_did) SELECT c.id, 'x' FROM conversations AS c ON CONFLICT (id) DO UPDATE SET title = NULL;"),
    case("destructive", LAST, END, "ALTER TABLE messages SET UNLOGGED;"),
    case("destructive", LAST, END, "ALTER TABLE conversations ALTER COLUMN title TYPE text USING left(title, 3);"),
    case("destructive", LAST, END, "CREATE FUNCTION wipe() RETURNS void LANGUAGE sql AS 'DELETE FROM messages';"),
    case("destructive", LAST, END, "DO $$ BEGIN EXECUTE 'DROP TABLE messages'; END $$;"),
    case("destructive", LAST, END, "DROP TABLE messages;" + MESSAGES),
    case("destructive", LAST, END, MESSAGES.replace("0004", "0003") + "DROP TABLE messages;"),
    case("destructive", LAST, END, MESSAGES.replace("count(*)", "0") + "DROP TABLE messages;"),
    case("destructive", LAST, END, MESSAGES.replace("    LOCK TABLE messages IN ACCESS EXCLUSIVE MODE;", "") + "DROP TABLE messages;"),
    case("destructive", LAST, END, GUARD.replace("END IF;", "END IF;\n    DROP TABLE messages;")),
    case("destructive", LAST, END, GUARD + "DROP TABLE messages;"),
    case("destructive", LAST, END, GUARD + "DROP TABLE members, messages;"),
    case("destructive", LAST, END, GUARD + "ALTER TABLE messages DROP COLUMN deleted_at;"),
    case("destructive", LAST, END, GUARD + "TRUNCATE members, messages;"),
    case("destructive", LAST, END, GUARD + "DELETE FROM messages;"),
    case("destructive", LAST, END, GUARD + "DO $$ BEGIN EXECUTE 'DROP TABLE messages'; END $$;"),
    case("destructive", LAST, END, GUARD + "CREATE FUNCTION wipe() RETURNS void LANGUAGE sql AS 'DELETE FROM messages';"),
    case("destructive", LAST, END, GUARD + "DROP SCHEMA other CASCADE;"),
    case("destructive", LAST, END, GUARD + "DROP TABLE other.messages;"),
    case("destructive", LAST, END, GUARD.replace("END IF;", "END IF;\n    EXECUTE 'DROP TABLE messages';")),
    case("destructive", LAST, END, MESSAGES.replace("LOCK TABLE messages", "LOCK TABLE members") + "DROP TABLE messages;"),
    case("destructive", LAST, END, MESSAGES.replace("FROM messages", "FROM members") + "DROP TABLE messages;"),
    case("destructive", LAST, END, MESSAGES.replace("LOCK TABLE messages", "-- LOCK TABLE messages\n    LOCK TABLE members") + "DROP TABLE messages;"),
    case(NEAR_MISS, LAST, END, MESSAGES.replace("END IF;", "END IF;\n    DROP TABLE messages;")),
    case(NEAR_MISS, LAST, END, MESSAGES.replace("END IF;", "END IF;\n    EXECUTE 'DROP TABLE messages';")),
    case(NEAR_MISS, LAST, END, IGNORED + GUARD + MESSAGES + "DROP TABLE members, messages;"),
    case(NEAR_MISS, LAST, END, IGNORED + MESSAGES + "DROP TABLE public.messages;"),
    case(NEAR_MISS, LAST, END, IGNORED.replace("table", "schema") + MESSAGES.replace("messages", "other.notes") + "DROP SCHEMA other;"),
    case("destructive", LAST, END, "-- transactional: false\n" + MESSAGES + "DROP TABLE messages;"),
    case(NEAR_MISS, LAST, END, IGNORED + MESSAGES + "DROP TABLE messages;"),
    case("destructive", LAST, END, "DELETE FROM messages WHERE true OR seq = 1;"),
    case("destructive", LAST, END, "DELETE FROM messages WHERE NOT (false AND seq = 1);"),
    case("destructive", LAST, END, "DELETE FROM messages WHERE seq = seq + 0;"),
    case("destructive", LAST, END, "DROP COLLATION other CASCADE;"),
    case("destructive", LAST, END, "DROP FUNCTION other CASCADE;"),
    case(NEAR_MISS, LAST, END, "DROP COLLATION other;"),
    case(NEAR_MISS, LAST, END, "DELETE FROM messages WHERE true AND seq IN (1, 2) OR seq + 1 = 3;"),
    case(NEAR_MISS, LAST, END, "DELETE FROM messages WHERE convo_id = 'c1';"),
    case("squawk", LAST, END, "ALTER TABLE messages ADD COLUMN n integer;"),
    case("squawk", LAST, "SET LOCAL lock_timeout = '5s';", ""),
    case("squawk", LAST, END, "-- squawk-ignore ban-drop-table -- nothing is dropped here"),
    case("squawk", LAST, " -- 16 bits (RFC 9420 17.1), as a CHECK below says", ""),
    case(NEAR_MISS, LAST, END, "-- squawk-ignore prefer-bigint-over-int -- few\nALTER TABLE messages ADD COLUMN n integer;"),
    case("migration", LAST, END, "CREATE TABEL x (id bigint);"),
    case("migration", LAST, END, "-- rollback: none"),
    case("migration", LAST, END, "-- rollback: none (it has one)"),
]  # fmt: skip

DROPS = "ALTER TABLE members DROP COLUMN joined_at;"
GUARDS = [
    case("destructive", "members", "IS DISTINCT FROM", "<>"),  # NULL where it is not set
    case("destructive", "members", "IF lost > 0", "IF false"),
    case("destructive", "members", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"),
    case(NEAR_MISS, "members", "IF lost > 0 AND", "IF"),
    case(NEAR_MISS, "members", "", ""),
]  # fmt: skip

ROUND_TRIPS = [
    case("migration", "0001_conversations.sql", "CREATE INDEX members", "CREATE TABLE forgotten (id bigint PRIMARY KEY);\nCREATE INDEX members"),
    case("migration", "0001_conversations.rollback.sql", "DROP TABLE members;\n", ""),
    case("migration", "0001_conversations.sql", "title text,", "title txet,"),
    case(NEAR_MISS, "0001_conversations.sql", "title text,", "subject text,"),
]  # fmt: skip


# ---- how they are run


@pytest.fixture(scope="session")
def place(filled) -> Place:
    return compared(Place(filled.connection, filled.catalog, filled=True), bound())


@pytest.fixture(scope="session")
def before(place: Place) -> Callable[[str], set[tuple[str, str]]]:
    """What is found of a statement as it is."""
    known: dict[str, set[tuple[str, str]]] = {}

    def findings(name: str) -> set[tuple[str, str]]:
        if name not in known:
            known[name] = {
                (one.rule, one.message) for one in check_statement(place, statement(name))
            }
        return known[name]

    return findings


def found_of(place: Place, one: Bound) -> list[Finding]:
    if says := drift_of(one):
        return [Finding(one.statement.path, 1, 1, "drift", says, "")]
    return list(check_statement(place, one))


def judge(one: Case, found: list[Finding], known: set[tuple[str, str]] = frozenset()) -> None:
    new = [finding for finding in found if (finding.rule, finding.message) not in known]
    text = "\n\n".join(map(str, new))
    if one.rule == NEAR_MISS:
        assert not new, text
    else:
        assert one.rule in {finding.rule for finding in new}, text or "nothing is found"


@pytest.mark.parametrize("one", STATEMENTS, ids=str)
def test_a_mistake_in_a_statement_is_found(one: Case, place: Place, before, tmp_path: Path):
    changed = mutant(tmp_path, one.name, (one.old, one.new))
    judge(one, found_of(place, changed), before(one.name))


@pytest.mark.parametrize("are_filled", [True, False])
def test_what_is_not_planned_is_said_once(place: Place, tmp_path: Path, are_filled: bool):
    changed = mutant(tmp_path, "append_message", ("ON CONFLICT (convo_id, id)", "ON CONFLICT (id)"))
    found = check_statement(replace(place, filled=are_filled), changed)
    (message,) = (one.message for one in found if one.rule == "prepare")
    assert message.startswith("PostgreSQL prepares this, but does not plan it: there is no unique")


@pytest.mark.parametrize("one", STUBS, ids=str)
def test_a_mistake_in_a_stub_is_found(one: Case, place: Place, before):
    changed = stub_mutant(one.name, (one.old, one.new))
    judge(one, found_of(place, changed), before(one.name))


@pytest.fixture
def altered(place: Place) -> Iterator[Callable[[str], Place]]:
    """A place with another schema, for the length of a test."""
    with place.connection.transaction(force_rollback=True):

        def alter(sql: str) -> Place:
            place.connection.execute(sql.encode())
            return Place(place.connection, read_catalog(place.connection), filled=True)

        yield alter


@pytest.mark.parametrize("one", SCHEMA, ids=str)
def test_a_schema_that_a_statement_does_not_fit_is_found(one: Case, before, altered):
    known = before(one.name)
    judge(one, found_of(altered(one.new), statement(one.name)), known)


@pytest.mark.parametrize("one", INDEXES, ids=str)
def test_an_index_that_nobody_needs_is_found(one: Case, altered):
    place = altered(one.new)
    files = migrations.read([migrations_dir()])
    used = used_indexes(place, bound())
    judge(one, list(migrations.check_indexes(place.connection, place.catalog, used, files)))


@pytest.mark.parametrize("one", FILES, ids=str)
def test_a_mistake_in_a_migration_is_found(one: Case, tmp_path: Path):
    judge(one, list(migrations.check(migrations.read([changed_migrations(tmp_path, one)]))))


@pytest.mark.parametrize("one", ROUND_TRIPS, ids=str)
def test_a_migration_that_leads_elsewhere_is_found(
    one: Case, tmp_path: Path, catbird_empty_database_url: str
):
    folder = changed_migrations(tmp_path, one, only="0001")
    judge(one, list(migrations.round_trip(catbird_empty_database_url, [folder])))


@pytest.mark.parametrize("one", GUARDS, ids=str)
def test_a_guard_that_does_not_ask_is_found(
    one: Case, tmp_path: Path, catbird_empty_database_url: str
):
    changed_migrations(tmp_path, None, only="0001")
    guard = GUARD.replace("0004_key_packages", "0002_drop").replace(one.old, one.new, 1)
    (tmp_path / "0002_drop.sql").write_text(f"-- A step.\n{guard}\n{DROPS}", encoding="utf-8")
    judge(one, list(migrations.round_trip(catbird_empty_database_url, [tmp_path])))


def test_a_way_back_that_fails_does_not_accuse_the_others(
    tmp_path: Path, catbird_empty_database_url: str
):
    changed_migrations(tmp_path, None)
    (tmp_path / "0005_more.sql").write_text("ALTER TABLE members ALTER read_seq SET DEFAULT 7;")
    (tmp_path / "0005_more.rollback.sql").write_text("SELECT 1;")
    [found] = migrations.round_trip(catbird_empty_database_url, [tmp_path])
    assert found.path.name == "0005_more.rollback.sql"
    assert "column members.read_seq is different" in found.message


def test_a_migration_without_a_way_back_is_found(tmp_path: Path):
    folder = changed_migrations(tmp_path, None)
    (folder / "0003_commits.rollback.sql").unlink()
    [found] = migrations.check(migrations.read([folder]))
    assert (found.rule, found.path.name) == ("migration", "0003_commits.sql")


def test_a_python_migration_that_nobody_read_is_found(tmp_path: Path):
    folder = changed_migrations(tmp_path, None)
    migration = folder / "0005_more.py"
    migration.write_text("from yoyo import step\n", encoding="utf-8")
    [found] = migrations.check(migrations.read([folder]))
    assert (found.rule, found.path.name) == ("migration", "0005_more.py")
    migration.write_text("# read: by the DBA, and it loses nothing\n", encoding="utf-8")
    assert not [*migrations.check(migrations.read([folder]))]


def changed_migrations(folder: Path, one: Case | None, only: str = "") -> Path:
    for path in sorted(migrations_dir().glob(f"{only}*.sql")):
        text = path.read_text("utf-8")
        if one is not None and path.name == one.name:
            assert one.old in text
            text = text.replace(one.old, one.new, 1)
        (folder / path.name).write_text(text, encoding="utf-8")
    return folder
