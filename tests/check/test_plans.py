"""What a plan may not do, mutant by mutant, and what it may."""

import time
from pathlib import Path

import pytest
from check.conftest import Filled
from check.mutants import made, mutant, statement

from catbird_db.check import plans
from catbird_db.check.database import examine
from catbird_db.check.finding import Finding
from catbird_db.query import Bound, bound


def judged(database: Filled, one: Bound) -> list[Finding]:
    subject, refused = examine(database.connection, one)
    assert refused is None, str(refused)
    return list(plans.check(database.connection, subject, database.catalog))


def underlined(finding: Finding) -> str:
    return finding.excerpt[finding.column - 1 : finding.column - 1 + finding.width]


@pytest.mark.parametrize("one", bound(), ids=lambda one: one.statement.label)
def test_the_project_reaches_its_tables_by_the_indexes_that_it_names(
    filled: Filled, one: Bound
) -> None:
    found = judged(filled, one)
    assert found == [], "\n\n".join(map(str, found))


def test_the_whole_rule_takes_less_than_ten_seconds(filled: Filled) -> None:
    start = time.perf_counter()
    for one in bound():
        judged(filled, one)
    assert time.perf_counter() - start < 10


# name, statement, what is changed, what the finding says, what it underlines
CAUGHT = [
    (
        "no condition",
        "get_conversation",
        [(" WHERE c.id = :convo_id", " WHERE :convo_id::text IS NOT NULL")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "function on the indexed column",
        "get_conversation",
        [("c.id = :convo_id", "lower(c.id) = :convo_id")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "cast of the indexed column",
        "get_message_count",
        [("c.id = :convo_id", "c.id::varchar(9) = :convo_id")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "other collation than the index's",
        "get_group_info",
        [("g.convo_id = :convo_id", "g.convo_id = :convo_id COLLATE pg_c_utf8")],
        "reads all of group_infos",
        "group_infos",
    ),
    (
        "OR with another column",
        "get_group_info",
        [("g.convo_id = :convo_id", "(g.convo_id = :convo_id OR g.epoch = 1)")],
        "reads all of group_infos",
        "group_infos",
    ),
    (
        "LIKE of a parameter",
        "get_conversation",
        [("c.id = :convo_id", "c.id LIKE :convo_id")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "a range where equality was",
        "get_membership",
        [("m.convo_id = :convo_id AND", "m.convo_id >= :convo_id AND")],
        "walks along members_pkey of members: nothing binds its leading column convo_id by equality",
        "members",
    ),
    (
        "not equal",
        "get_conversation",
        [("c.id = :convo_id", "c.id <> :convo_id")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "only the second column, which PostgreSQL 18 skip-scans",
        "count_key_packages",
        [("kp.did = :did AND", ":did::text IS NOT NULL AND")],
        "by equality",
        "key_packages",
    ),
    (
        "join on a column without an index",
        "list_conversations",
        [("c.id = m.convo_id", "c.creator_did = m.convo_id")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "a lateral read without the tenant",
        "list_commits",
        [("s.convo_id = :convo_id\n          AND s.message_type", "s.message_type")],
        "messages_convo_id_epoch_key",
        "messages",
    ),
    (
        "an outer join without the tenant",
        "get_message",
        [("s.convo_id = :convo_id AND s.id", "s.id")],
        "nothing binds its leading column convo_id by equality",
        "messages",
    ),
    (
        "inside a WITH query",
        "append_message",
        [("     WHERE c.id = :convo_id\n),", "     WHERE upper(c.id) = :convo_id\n),")],
        "reads all of conversations",
        "conversations",
    ),
    (
        "a DELETE that joins what an index does not reach",
        "delete_key_packages",
        [("wr.recipient_did = :did AND ", "")],
        "of welcome_recipients: nothing binds its leading column recipient_did",
        "welcome_recipients",
    ),
    (
        "an UPDATE without its key",
        "mark_read",
        [("m.convo_id = :convo_id AND m.member_did = :member_did AND ", ":member_did <> '' AND ")],
        "of members: nothing binds its leading column",
        "members",
    ),
    (
        "IS NULL OR in a page",
        "list_messages",
        [
            (
                "s.seq < coalesce(:cursor_seq, 9223372036854775807)",
                "(:cursor_seq::bigint IS NULL OR s.seq < :cursor_seq)",
            )
        ],
        "no index condition begins a page at its seq",
        "-- key: seq",
    ),
    (
        "an index that the header does not name",
        "mark_read",
        [(", messages_pkey", "")],
        "the plan uses messages_pkey, which the header does not allow",
        "-- index: members_pkey, members_member_did_idx, conversations_pkey",
    ),
    (
        "an arbiter of ON CONFLICT that the header does not name",
        "insert_conversation",
        [("-- index: conversations_pkey\n", "-- index: members_pkey\n")],
        "the plan uses conversations_pkey, which the header does not allow",
        "-- index: members_pkey",
    ),
    (
        "no index line",
        "get_membership",
        [("-- index: members_pkey\n", "")],
        "no line of the header says which indexes the plan may use; it uses members_pkey",
        "-- name: get_membership :maybe",
    ),
    (
        "an index that does not exist",
        "get_membership",
        [("-- index: members_pkey\n", "-- index: members_pkey, member_pkey\n")],
        "there is no index member_pkey",
        "-- index: members_pkey, member_pkey",
    ),
    (
        "a join whose size the planner overestimates: claims, as they were before",
        "claim_key_packages",
        [
            (
                "FROM unnest(ARRAY (SELECT candidate.did FROM candidate), "
                "ARRAY (SELECT candidate.id FROM candidate)) AS picked (did, id)",
                "FROM candidate AS picked",
            )
        ],
        "left to itself, PostgreSQL reads all of key_packages here, by a sequential scan",
        "key_packages",
    ),
    (
        "a LIMIT that the planner cannot see: retention, as it was before",
        "delete_expired_key_packages",
        [
            (
                "USING unnest(ARRAY (SELECT doomed.did FROM doomed), "
                "ARRAY (SELECT doomed.id FROM doomed)) AS picked (did, id)",
                "USING doomed AS picked",
            )
        ],
        "left to itself, PostgreSQL reads all of key_packages here, by a sequential scan",
        "key_packages",
    ),
    (
        "three of four branches of a page that begin at its start",
        "list_folder",
        [("\n                   AND f.path > coalesce(:cursor_path::text, '')", "")] * 3,
        "no index condition begins this branch of a page at its path",
        "folders",
    ),
    (
        "a walk along an index that drops rows on the way",
        "delete_expired_key_packages",
        [
            (
                "WHERE kp.consumed_at IS NULL AND kp.expires_at < statement_timestamp()",
                "WHERE kp.consumed_at IS NULL AND kp.consumed_for_convo_id = 'x'",
            )
        ],
        "walks along key_packages_expired_idx and drops rows on the way",
        "key_packages",
    ),
    (
        "the same within a range, which grows with the table",
        "delete_expired_key_packages",
        [
            (
                "WHERE kp.consumed_at IS NULL AND",
                "WHERE kp.consumed_at IS NULL AND kp.device_id <> 'x' AND",
            )
        ],
        "walks along key_packages_expired_idx and drops rows on the way",
        "key_packages",
    ),
]


@pytest.mark.parametrize(
    ("name", "changes", "says", "under"),
    [case[1:] for case in CAUGHT],
    ids=[case[0] for case in CAUGHT],
)
def test_a_mutant_is_caught(
    filled: Filled, tmp_path: Path, name: str, changes: list[tuple[str, str]], says: str, under: str
) -> None:
    found = [one for one in judged(filled, mutant(tmp_path, name, *changes)) if says in one.message]
    assert found, [one.message for one in judged(filled, mutant(tmp_path, name, *changes))]
    assert underlined(found[0]) == under
    assert found[0].rule == "index"
    assert found[0].path == tmp_path / f"{name}.sql"


@pytest.mark.parametrize(
    ("index", "name", "says"),
    [
        ("members_member_did_idx", "list_conversations", "of members: nothing binds"),
        ("messages_convo_id_epoch_key", "list_commits", "which the header does not allow"),
        ("key_packages_expired_idx", "delete_expired_key_packages", " key_packages"),
        (
            "welcome_recipients_pending_idx",
            "list_pending_welcomes",
            "at the end of welcome_recipients",
        ),
    ],
)
def test_a_dropped_index_is_caught(filled: Filled, index: str, name: str, says: str) -> None:
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(f"DROP INDEX {index}".encode())
        assert any(says in one.message for one in judged(filled, statement(name)))


# Near misses: each differs from a mutant above by little, and is right.
RIGHT = [
    (
        "a row looked up for each of a page's",
        "list_collections",
        [
            (
                "JOIN collections AS c ON c.id = mine.id",
                "JOIN collections AS c ON c.id = mine.id LEFT JOIN LATERAL (SELECT g.user_id "
                "FROM collection_permissions AS g WHERE g.collection_id = c.id ORDER BY g.user_id LIMIT 1) AS first ON true",
            ),
            ("-- index:", "-- index: collection_permissions_pkey,"),
        ],
    ),
    (
        "branches in a WITH query",
        "list_collections",
        [
            (
                "SELECT c.id",
                "WITH mine (id) AS (SELECT own.id AS id FROM collections AS own WHERE own.owner_id = :user_id "
                "AND (:status::text IS NULL OR own.status = :status) "
                "AND own.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff') ORDER BY own.id DESC LIMIT :limit) SELECT c.id",
            ),
            (
                "(\n       (SELECT own.id",
                "(SELECT either.id FROM (\n       (SELECT mine.id FROM mine ORDER BY mine.id DESC LIMIT :limit) UNION (SELECT own.id",
            ),
            ("LIMIT :limit)) AS mine", "LIMIT :limit)) AS either) AS mine"),
        ],
    ),
    ("sides exchanged", "get_conversation", [("c.id = :convo_id", ":convo_id = c.id")]),
    ("one of several", "get_conversation", [("c.id = :convo_id", "c.id IN (:convo_id, 'c2')")]),
    ("an array", "get_conversation", [("c.id = :convo_id", "c.id = ANY (ARRAY[:convo_id, 'c2'])")]),
    (
        "OR of one column",
        "get_conversation",
        [("c.id = :convo_id", "(c.id = :convo_id OR c.id = 'c2')")],
    ),
    (
        "a cast of the parameter",
        "get_conversation",
        [("c.id = :convo_id", "c.id = :convo_id::varchar::text")],
    ),
    (
        "a range next to the equality",
        "get_membership",
        [("m.member_did = :member_did", "m.member_did >= :member_did")],
    ),
    (
        "a filter next to the equality",
        "get_conversation",
        [("c.id = :convo_id", "c.id = :convo_id AND (c.title LIKE '%x%' OR c.last_seq > 5)")],
    ),
    (
        "a sub-select under equality",
        "get_conversation",
        [
            (
                "c.id = :convo_id",
                "c.id = (SELECT g.convo_id FROM group_infos AS g WHERE g.convo_id = :convo_id)",
            ),
            ("-- index: conversations_pkey", "-- index: conversations_pkey, group_infos_pkey"),
        ],
    ),
    (
        "an index named that this plan does not take",
        "get_membership",
        [("-- index: members_pkey", "-- index: members_pkey, members_member_did_idx")],
    ),
    (
        "an exemption",
        "get_conversation",
        [
            ("-- index: conversations_pkey", "-- index: none (run once a year, by hand)"),
            ("c.id = :convo_id", "lower(c.id) = :convo_id"),
        ],
    ),
    (
        "a walk along an index that a LIMIT ends",
        "delete_expired_key_packages",
        [("AND kp.expires_at < statement_timestamp()\n", "\n")],
    ),
]


@pytest.mark.parametrize(
    ("name", "changes"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT]
)
def test_a_near_miss_passes(
    filled: Filled, tmp_path: Path, name: str, changes: list[tuple[str, str]]
) -> None:
    found = judged(filled, mutant(tmp_path, name, *changes))
    assert found == [], "\n\n".join(map(str, found))


PAGE = """-- name: made :page
-- key: member_did
-- index: members_pkey
SELECT m.convo_id, m.member_did FROM members AS m
 WHERE m.convo_id = :convo_id{condition}
 ORDER BY {order}
 LIMIT :limit{offset};"""
AFTER = "coalesce(:cursor_member_did::text, '')"


@pytest.mark.parametrize(
    ("condition", "order", "offset"),
    [
        ("", "m.member_did", " OFFSET coalesce(:cursor_member_did::bigint, 0)"),
        (f" AND m.member_did || '' > {AFTER}", "m.member_did", ""),
        (f" AND m.member_did > {AFTER}", "m.joined_at, m.member_did", ""),
        (f" AND m.member_did > {AFTER}", "m.member_did COLLATE pg_c_utf8", ""),
        (" AND (:cursor_member_did::text IS NULL OR m.member_did > :cursor_member_did)", "m.member_did", ""),
        (" AND CASE WHEN :cursor_member_did::text <> '' THEN m.member_did > :cursor_member_did ELSE true END", "m.member_did", ""),
        (f" AND (m.member_did > {AFTER} OR m.joined_at IS NULL)", "m.member_did", ""),
    ],
)  # fmt: skip
def test_a_page_that_reads_what_it_skips_is_caught(
    filled: Filled, tmp_path: Path, condition: str, order: str, offset: str
) -> None:
    text = PAGE.format(condition=condition, order=order, offset=offset)
    (found,) = judged(filled, made(tmp_path, text))
    assert "no index condition begins a page at its member_did: each page reads" in found.message
    assert underlined(found) == "-- key: member_did"


@pytest.mark.parametrize(
    ("condition", "order"),
    [
        (f" AND m.member_did > {AFTER}", "m.member_did"),
        (f" AND {AFTER} < m.member_did", "m.convo_id, m.member_did"),
        (f" AND (m.convo_id, m.member_did) > (:convo_id, {AFTER})", "m.member_did"),
        (f" AND m.member_did > {AFTER} AND m.left_at IS NULL", "m.member_did"),
        (" AND m.member_did < coalesce(:cursor_member_did::text, '~')", "m.member_did DESC"),
    ],
)
def test_a_page_that_begins_at_its_key_passes(
    filled: Filled, tmp_path: Path, condition: str, order: str
) -> None:
    text = PAGE.format(condition=condition, order=order, offset="")
    found = judged(filled, made(tmp_path, text))
    assert found == [], "\n\n".join(map(str, found))


ROW_PAGE = """-- name: made :page
-- key: convo_id, epoch, key_package_ref
-- index: welcome_recipients_pending_idx
SELECT wr.convo_id FROM welcome_recipients AS wr
 WHERE wr.recipient_did = :recipient_did AND wr.acknowledged_at IS NULL
   AND {condition}
 ORDER BY wr.convo_id, wr.epoch, wr.key_package_ref
 LIMIT :limit;"""


def test_a_page_whose_cursor_is_compared_column_by_column_is_caught(
    filled: Filled, tmp_path: Path
) -> None:
    by_column = """wr.convo_id >= :cursor_convo_id
   AND (wr.convo_id > :cursor_convo_id OR wr.epoch > :cursor_epoch OR wr.key_package_ref > :cursor_key_package_ref)"""
    as_a_row = """(wr.convo_id, wr.epoch, wr.key_package_ref)
     > (:cursor_convo_id, :cursor_epoch, :cursor_key_package_ref)"""
    (found,) = judged(filled, made(tmp_path, ROW_PAGE.format(condition=by_column)))
    assert "no index condition begins a page" in found.message
    assert judged(filled, made(tmp_path, ROW_PAGE.format(condition=as_a_row))) == []


# A unique key is given, and the planner, which takes a tenant for a small one, reads all its rows.
WHOLE_TENANT = [
    (
        "a join on the rest of the key",
        """SELECT m.seq FROM unnest(:ids::text[]) AS given (id)
          JOIN messages AS m ON m.id = given.id WHERE m.convo_id = :convo_id""",
    ),
    (
        "an array of the rest of the key",
        """SELECT m.seq FROM messages AS m
         WHERE m.convo_id = :convo_id AND m.seq = ANY (ARRAY (SELECT unnest(:seqs::bigint[])))""",
    ),
    (
        "a small partial index that the planner prefers",
        """SELECT m.seq FROM messages AS m
         WHERE m.convo_id = :convo_id AND m.id = :id AND m.message_type = 'commit'""",
    ),
    (
        "a DELETE",
        """DELETE FROM messages AS m USING unnest(:ids::text[]) AS given (id)
         WHERE m.convo_id = :convo_id AND m.id = given.id""",
    ),
]  # fmt: skip
ONE_BY_ONE = [
    ("a key", "SELECT m.seq FROM messages AS m WHERE m.convo_id = :convo_id AND m.id = :id"),
    (
        "LATERAL",
        """SELECT m.seq FROM unnest(:ids::text[]) AS given (id)
         CROSS JOIN LATERAL (SELECT s.seq FROM messages AS s
                              WHERE s.convo_id = :convo_id AND s.id = given.id LIMIT 1) AS m""",
    ),
    (
        "a MATERIALIZED query",
        """WITH found AS MATERIALIZED (
             SELECT m.seq, m.message_type FROM messages AS m WHERE m.convo_id = :convo_id AND m.id = :id)
         SELECT found.seq FROM found WHERE found.message_type = 'commit'""",
    ),
    (
        "a join on all of the key",
        """SELECT m.seq FROM unnest(:convo_ids::text[], :ids::text[]) AS given (convo_id, id)
          JOIN messages AS m ON m.convo_id = given.convo_id AND m.id = given.id""",
    ),
    (
        "a range of the key",
        """DELETE FROM messages AS m
         WHERE m.convo_id = :convo_id AND m.seq > (SELECT :from::bigint) AND m.seq <= (SELECT :to::bigint)""",
    ),
    (
        "all rows of a tenant that are asked for",
        "SELECT m.seq FROM messages AS m WHERE m.convo_id = :convo_id AND m.sender_did = :sender_did",
    ),
]  # fmt: skip
HEADER = "-- name: made :many\n-- index: messages_convo_id_id_key, messages_pkey, messages_convo_id_epoch_key"


@pytest.mark.parametrize(
    "sql", [case[1] for case in WHOLE_TENANT], ids=[case[0] for case in WHOLE_TENANT]
)
def test_reading_a_whole_tenant_for_the_rows_of_a_key_is_caught(
    filled: Filled, tmp_path: Path, sql: str
) -> None:
    (found,) = judged(filled, made(tmp_path, f"{HEADER}\n{sql};"))
    assert (
        "all rows of messages of one convo_id, and drops all but what convo_id, " in found.message
    )
    assert underlined(found) == "messages"


@pytest.mark.parametrize(
    "sql", [case[1] for case in ONE_BY_ONE], ids=[case[0] for case in ONE_BY_ONE]
)
def test_looking_up_the_rows_of_a_key_passes(filled: Filled, tmp_path: Path, sql: str) -> None:
    found = judged(filled, made(tmp_path, f"{HEADER}\n{sql};"))
    assert found == [], "\n\n".join(map(str, found))


def test_a_page_may_say_why_no_index_serves_its_key(filled: Filled, tmp_path: Path) -> None:
    reason = " (the order changes with each message; bounded by what the member is in)"
    with_reason = "-- key: last_message_at, id" + reason
    assert judged(filled, statement("list_conversations")) == []
    (found,) = judged(
        filled, mutant(tmp_path, "list_conversations", (with_reason, with_reason[:27]))
    )
    assert "no index condition begins a page at its last_message_at, id" in found.message


def test_a_header_may_say_why_a_table_is_not_reached_by_a_key(
    filled: Filled, tmp_path: Path
) -> None:
    slow = ("c.id = :convo_id", "c.id <> :convo_id")
    line = "-- index: conversations_pkey"
    exempt = (line, line + " (run once a year, by hand)")
    assert judged(filled, mutant(tmp_path, "get_conversation", slow)) != []
    assert judged(filled, mutant(tmp_path, "get_conversation", slow, exempt)) == []


def test_a_reason_lets_no_other_index_in(filled: Filled, tmp_path: Path) -> None:
    other = ("-- index: conversations_pkey", "-- index: members_pkey (run once a year, by hand)")
    (found,) = judged(filled, mutant(tmp_path, "get_conversation", other))
    assert "conversations_pkey, which the header does not allow" in found.message


# Tables of other kinds


def test_one_partition_is_asked_where_the_partition_key_is_bound(
    varied: Filled, tmp_path: Path
) -> None:
    text = """-- name: made :many
-- index: chunks_pkey
SELECT k.body FROM chunks AS k
 WHERE k.collection_id = :collection AND k.document_id = :document;"""
    assert judged(varied, made(tmp_path, text)) == []


def test_partitions_are_found_by_a_join_too(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
-- index: chunks_pkey
SELECT k.body
  FROM unnest(:collections::uuid[]) AS given (id)
  JOIN chunks AS k ON k.collection_id = given.id AND k.chunk_index = 1;"""
    assert judged(varied, made(tmp_path, text)) == []


def test_asking_every_partition_is_caught(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
-- index: chunks_document_id_idx
SELECT k.body FROM chunks AS k WHERE k.document_id = :document;"""
    (found,) = judged(varied, made(tmp_path, text))
    assert found.message == "this asks 8 partitions of chunks: nothing binds collection_id"
    assert underlined(found) == "chunks"


def test_an_index_of_a_partition_counts_as_its_tables(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
-- index: things_pkey
SELECT k.body FROM chunks AS k WHERE k.collection_id = :collection AND k.document_id = :document;"""
    (found,) = judged(varied, made(tmp_path, text))
    assert "chunks_pkey, which the header does not allow" in found.message


def test_a_small_table_is_exempt(varied: Filled, tmp_path: Path) -> None:
    text = "-- name: made :many\nSELECT k.kind, k.label FROM kinds AS k ORDER BY k.label;"
    assert judged(varied, made(tmp_path, text)) == []


def test_a_small_table_exempts_no_other(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
SELECT t.thing_id FROM kinds AS k JOIN things AS t ON t.kind = k.kind WHERE k.label = :label;"""
    assert any("of things" in one.message for one in judged(varied, made(tmp_path, text)))


def test_an_inverted_index_is_reached_by_any_condition(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
-- index: things_tags_idx
SELECT t.thing_id FROM things AS t WHERE t.tags @> :tags::text[];"""
    assert judged(varied, made(tmp_path, text)) == []


def test_a_claim_in_the_order_of_its_index_passes(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
-- index: things_ready_idx
SELECT t.thing_id FROM things AS t
 WHERE t.state = 'ready' AND t.due_at < statement_timestamp()
 ORDER BY t.due_at LIMIT 10 FOR UPDATE SKIP LOCKED;"""
    assert judged(varied, made(tmp_path, text)) == []


CLAIM_WITH = """-- name: made :many
-- index: things_ready_idx, owners_pkey
SELECT t.thing_id FROM things AS t
  {join}
 WHERE t.state = 'ready' AND t.due_at < statement_timestamp()
 ORDER BY t.due_at LIMIT 10;"""


def test_a_claim_that_a_join_thins_out_is_caught(varied: Filled, tmp_path: Path) -> None:
    text = CLAIM_WITH.format(join="JOIN owners AS o ON o.id = t.owner_id AND o.name_length = 3")
    found = judged(varied, made(tmp_path, text))
    assert ["drops rows on the way" in one.message for one in found] == [True]


def test_a_claim_that_a_join_only_widens_passes(varied: Filled, tmp_path: Path) -> None:
    text = CLAIM_WITH.format(join="LEFT JOIN owners AS o ON o.id = t.owner_id")
    assert judged(varied, made(tmp_path, text.replace("t.thing_id", "t.thing_id, o.name"))) == []


def test_a_claim_without_a_limit_is_caught(varied: Filled, tmp_path: Path) -> None:
    text = """-- name: made :many
-- index: things_ready_idx
SELECT t.thing_id FROM things AS t
 WHERE t.state = 'ready' AND t.due_at < statement_timestamp() FOR UPDATE SKIP LOCKED;"""
    found = judged(varied, made(tmp_path, text))
    assert ["nothing binds its leading column due_at" in one.message for one in found] == [True]


def test_a_statement_that_does_not_prepare_is_another_rules(filled: Filled, tmp_path: Path) -> None:
    subject, refused = examine(
        filled.connection, mutant(tmp_path, "get_group_info", ("g.epoch", "g.epok"))
    )
    assert refused is not None
    assert list(plans.check(filled.connection, subject, filled.catalog)) == []
