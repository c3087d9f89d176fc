"""`catbird-db explain`: arguments by their types, a plan with buffers, and nothing changed."""

from collections.abc import Generator

import psycopg
import pytest
from check.conftest import Filled

from catbird_db.check.database import Connection, connect_read_only
from catbird_db.check.explain import explain, find_statement, missing_arguments
from catbird_db.errors import InvalidArgumentError


@pytest.fixture
def connection(filled: Filled) -> Generator[Connection]:
    with filled.connection.transaction(force_rollback=True):
        yield filled.connection


@pytest.mark.parametrize("name", ["get_message", "chat.messages.get_message"])
def test_a_statement_is_found_by_either_name(name: str) -> None:
    assert find_statement(name).statement.label == "chat.messages.get_message"


def test_a_name_that_is_mistyped_is_helped() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"no statement is named get_mesage; there is chat"
    ):
        find_statement("get_mesage")


def test_only_what_has_no_default_is_missing() -> None:
    assert missing_arguments(find_statement("list_messages"), {}) == ["convo_id", "reader_did"]
    assert missing_arguments(find_statement("list_messages"), {"convo_id": "c"}) == ["reader_did"]


def test_a_read_shows_its_buffers(connection: Connection) -> None:
    told = explain(
        connection, find_statement("list_messages"), {"convo_id": "1", "reader_did": "1"}
    )
    assert told.startswith("chat.messages.list_messages\n  convo_id = '1'::text\n")
    assert "  cursor_seq = NULL::bigint" in told
    assert "  limit = '50'::bigint" in told
    assert "Index Cond: ((convo_id = $1)" in told
    assert "Buffers: shared" in told
    assert "rolled back" not in told


def test_a_read_needs_no_right_to_write(catbird_database_url: str) -> None:
    with connect_read_only(catbird_database_url) as connection:
        assert "Buffers" in explain(
            connection, find_statement("get_conversation"), {"convo_id": "c"}
        )


def test_a_write_says_so_and_changes_nothing(connection: Connection) -> None:
    members = "SELECT m.* FROM members AS m WHERE m.convo_id = '1' ORDER BY m.member_did"
    before = connection.execute(members).fetchall()
    (member,) = {row[1] for row in before if row[3] is None and row[1] == "1"} or {before[0][1]}
    told = explain(
        connection, find_statement("remove_member"), {"convo_id": "1", "member_did": member}
    )
    assert "It ran, with its locks, and was rolled back: nothing is changed." in told
    assert "Update on members m" in told
    assert connection.execute(members).fetchall() == before


def test_a_statement_that_locks_counts_as_a_write(connection: Connection) -> None:
    told = explain(connection, find_statement("lock_conversation"), {"convo_id": "1"})
    assert "with its locks" in told


@pytest.mark.parametrize("dids", ["1,2", "{1,2}"])
def test_an_array_is_a_list(connection: Connection, dids: str) -> None:
    told = explain(
        connection, find_statement("claim_key_packages"), {"dids": dids, "cipher_suite": "1"}
    )
    assert "dids = '{1,2}'::text[]" in told


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "convo_id, reader_did: give a value by --arg convo_id=..."),
        ({"convo_id": "c", "reader_did": "d", "limit": "ten"}, 'limit: invalid input syntax for type bigint: "ten"'),
        ({"convo": "c"}, "convo is no parameter; there is convo_id, cursor_seq, limit, reader_did"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(
    connection: Connection, given: dict[str, str], says: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        explain(connection, find_statement("list_messages"), given)
    assert str(caught.value) == says


def test_a_quote_in_an_argument_stays_in_it(connection: Connection) -> None:
    told = explain(
        connection, find_statement("get_conversation"), {"convo_id": "1'; DROP TABLE members; --"}
    )
    assert "convo_id = '1''; DROP TABLE members; --'::text" in told


def test_a_statement_that_fails_leaves_the_session_usable(connection: Connection) -> None:
    arguments = {"convo_id": "1", "creator_did": "d", "member_dids": "{a,NULL}"}
    with pytest.raises(psycopg.errors.NotNullViolation), connection.transaction():
        explain(connection, find_statement("insert_conversation"), {**arguments, "convo_id": "new"})
    assert connection.execute("SELECT 1").fetchone() == (1,)
