"""The catalog as it is read, statements that do not prepare, and what is not done to a database."""

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from check.conftest import Filled
from check.mutants import made, mutant, statement
from psycopg.sql import SQL, Literal

from catbird_db.catalog import schema_snapshot
from catbird_db.check.database import (
    Connection,
    connect,
    connect_read_only,
    describe,
    examine,
    read_catalog,
    throwaway,
)
from catbird_db.check.finding import Finding
from catbird_db.check.subject import Column, Index
from catbird_db.query import bound


def refusal(database: Filled, folder: Path, name: str, *changes: tuple[str, str]) -> Finding:
    subject, finding = examine(database.connection, mutant(folder, name, *changes))
    assert finding is not None
    assert subject.described is None
    assert finding.rule == "prepare"
    return finding


def underlined(finding: Finding) -> str:
    return finding.excerpt[finding.column - 1 : finding.column - 1 + finding.width]


def test_a_throwaway_has_the_shipped_schema() -> None:
    with throwaway() as url, connect(url) as connection:
        assert "conversations" in read_catalog(connection).tables


def test_a_table_is_read_with_what_its_comment_declares(filled: Filled) -> None:
    table = filled.catalog.tables["members"]
    assert list(table.columns) == [
        *("convo_id", "member_did", "joined_at", "left_at", "read_seq", "read_app_count")
    ]
    assert table.columns["left_at"] == Column("left_at", "timestamp with time zone", not_null=False)
    assert table.columns["read_seq"] == Column("read_seq", "bigint", True, has_default=True)
    assert table.tenants == ("convo_id", "member_did")
    assert table.actors == ("member_did",)
    assert (table.admits, table.admits_of) == (("convo_id",), None)
    assert table.small is None
    (key,) = (replace(one, options=()) for one in table.indexes if one.name == "members_pkey")
    assert key == Index(
        "members_pkey", "members", ("convo_id", "member_did"), True, None, constraint=True
    )
    assert table.indexes[0].predicate == "(left_at IS NULL)"


def test_values_are_read_from_checks(filled: Filled) -> None:
    checks = filled.catalog.tables["messages"].checks
    assert checks == {"message_type": ("app", "commit", "proposal")}


def test_other_kinds_of_tables_are_read(varied: Filled) -> None:
    catalog = varied.catalog
    assert catalog.enums == {"mood": ("calm", "cross")}
    assert catalog.tables["owners"].columns["name_length"].generated
    assert catalog.tables["owners"].columns["id"].has_default
    assert catalog.tables["kinds"].small == "a dozen rows, as many as a release brings"
    assert catalog.tables["chunks"].partition_key == ("collection_id",)
    assert catalog.partitions["chunks_3"] == "chunks"
    assert catalog.partitions["chunks_3_pkey"] == "chunks_pkey"
    assert "chunks_3" not in catalog.tables
    assert {index.method for index in catalog.tables["things"].indexes} == {"btree", "gin"}
    assert {"random", "clock_timestamp", "gen_random_uuid"} <= catalog.volatile
    assert not {"now", "statement_timestamp", "lower"} & catalog.volatile


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("a IN ('x', 'y')", {"a": ("x", "y")}),
        ("a = 'x'", {"a": ("x",)}),
        ("a = 'x' OR a = 'y'", {"a": ("x", "y")}),
        ("a IS NULL OR a IN ('x', 'y')", {"a": ("x", "y")}),
        ("a IN ('x', 'y') AND n > 0", {"a": ("x", "y")}),
        ("a IN ('x') AND n IN (1, 2)", {"a": ("x",), "n": ("1", "2")}),
        ("a IN ('x') OR n = 1", {}),
        ("a NOT IN ('x')", {}),
        ("a > 'x'", {}),
        ("(a = 'x') = (n = 1)", {}),
        ("v IN ('x', 'y')", {"v": ("x", "y")}),
    ],
)
def test_only_a_check_that_lists_values_is_read_as_such(
    catbird_empty_database_url: str, check: str, values: dict[str, tuple[str, ...]]
) -> None:
    with connect(catbird_empty_database_url) as connection:
        command = f"CREATE TABLE t (a text, n integer, v varchar(5), CONSTRAINT c CHECK ({check}))"
        connection.execute(command.encode())
        assert read_catalog(connection).tables["t"].checks == values


@pytest.mark.parametrize(
    ("comment", "mistakes"),
    [
        ("tenant: convo_id", []),
        ("Things.\ntenant: none (of the operator alone)", []),
        ("tenant: convoid", ["says 'tenant: convoid', and there is no such column"]),
        ("tenant: convo_id\nactor: a, did", ["says 'actor: a, did', and there is no such column"]),
        ("tenant: convo_id\nended: leftat", ["says 'ended: leftat', and there is no such column"]),
        ("tenant: convo_id\nactor: a\nadmits: convo_id", []),
        ("tenant: convo_id\nactor: a\nadmits: convo_id, a of t", []),
        (
            "tenant: convo_id\nactor: a\nadmits: convoid",
            ["'admits: convoid', and there is no such"],
        ),
        (
            "tenant: convo_id\nactor: a\nadmits: convo_id of u",
            ["admits to rows of u, and there is no"],
        ),
        ("tenant: a\nactor: a\nadmits: did of t", ["no such column", "no such column"]),
        ("tenant: convo_id\nadmits: convo_id", ["to what a row admits, and not whom"]),
        ("tenant: none ( )", ["says 'tenant: none ( )', and there is no such column"]),
        ("Things.", ["nothing says which column keeps the tenants of t apart"]),
        ("tennant: convo_id", ["unknown key tennant", "nothing says which column"]),
    ],
)
def test_a_comment_says_of_each_table_what_keeps_its_tenants_apart(
    catbird_empty_database_url: str, comment: str, mistakes: list[str]
) -> None:
    with connect(catbird_empty_database_url) as connection:
        connection.execute("CREATE TABLE t (convo_id text, a text)")
        connection.execute(SQL("COMMENT ON TABLE t IS {}").format(Literal(comment)))
        found = read_catalog(connection).mistakes
        assert len(found) == len(mistakes)
        for one, expected in zip(found, mistakes, strict=True):
            assert expected in one.message


def test_a_function_of_somebody_is_not_taken_for_that_of_postgresql(
    catbird_empty_database_url: str,
) -> None:
    with connect(catbird_empty_database_url) as connection:
        connection.execute("CREATE FUNCTION lower(n uuid) RETURNS text LANGUAGE sql RETURN 'x'")
        assert read_catalog(connection).functions == {"lower"}


def test_a_comment_may_say_that_there_is_no_tenant(catbird_empty_database_url: str) -> None:
    with connect(catbird_empty_database_url) as connection:
        connection.execute("CREATE TABLE t (a text)")
        connection.execute(
            "COMMENT ON TABLE t IS E'Things.\\ntenant: none (of the operator alone)'"
        )
        assert read_catalog(connection).tables["t"].tenants == ()


# `prepare`


def test_every_statement_of_the_project_prepares(filled: Filled) -> None:
    refused = [examine(filled.connection, one)[1] for one in bound()]
    assert [str(one) for one in refused if one is not None] == []


def test_what_postgresql_says_of_a_statement(filled: Filled) -> None:
    described = describe(filled.connection, statement("get_message_count").statement)
    assert described.parameter_types == ("text",)
    assert described.column_names == ("message_count",)
    assert described.column_types == ("bigint",)
    assert described.column_origins == (None,)
    described = describe(filled.connection, statement("list_commits").statement)
    assert described.parameter_types == ("text", "bigint", "bigint", "text")
    assert described.column_origins[1] == ("messages", "seq")


@pytest.mark.parametrize(
    ("change", "message", "token", "mend"),
    [
        (("g.epoch", "g.epok"), "column g.epok does not exist", "g.epok", 'reference the column "g.epoch"'),
        (("FROM group_infos", "FROM group_info"), 'relation "group_info" does not exist', "group_info", "what the migrated schema has"),
        (("g.convo_id = :convo_id", "g.epoch = lower(:convo_id)"), "operator does not exist: bigint = text", "=", "type casts"),
        (("g.convo_id = :convo_id", "g.convo_id = :convo_id AND"), "syntax error at end of input", ";", ""),
        (("g.convo_id, g.epoch", "g.convo_id, lowre(g.data)"), "function lowre(bytea) does not exist", "lowre", "type casts"),
        (("= :convo_id", "= coalesce(:convo_id, 1)"), "operator does not exist: text = integer", "=", "type casts"),
    ],
)  # fmt: skip
def test_a_statement_that_does_not_prepare_points_at_the_token(
    filled: Filled, tmp_path: Path, change: tuple[str, str], message: str, token: str, mend: str
) -> None:
    found = refusal(filled, tmp_path, "get_group_info", change)
    assert message in found.message
    assert underlined(found) == token
    assert mend in found.mend


def test_a_position_behind_the_label_and_other_alphabets_is_right(
    filled: Filled, tmp_path: Path
) -> None:
    text = "-- name: made :exec\n-- Ž.\nSELECT 'žluť' /* ü */,\n\t'ö', :x::bigint + nothing;"
    _, found = examine(filled.connection, made(tmp_path, text, x=int))
    assert found is not None
    assert underlined(found) == "nothing"
    assert (found.line, found.column) == (4, 20)


def test_a_lost_connection_is_no_finding(catbird_database_url: str) -> None:
    with connect(catbird_database_url) as connection, connect(catbird_database_url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            examine(connection, statement("get_group_info"))


# Read only


def state(connection: Connection) -> list[object]:
    """All that a statement could change: rows, schema, sequences, statistics, settings, locks."""
    tables = sorted(read_catalog(connection).tables)
    rows = [
        connection.execute(f"SELECT t.xmin, t.xmax, t.* FROM {table} AS t ORDER BY 3, 4".encode())
        for table in tables
    ]
    queries = (
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup FROM pg_stat_user_tables ORDER BY 1",
        "SELECT relname, relpages, reltuples FROM pg_class WHERE oid >= 16384 ORDER BY oid",
        "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting",
        "SELECT mode FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype = 'relation'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    connection.execute("SELECT pg_stat_force_next_flush()")
    found = [connection.execute(query.encode()).fetchall() for query in queries]
    return [[one.fetchall() for one in rows], schema_snapshot(connection), *found]


def test_an_existing_database_is_left_as_it_was(catbird_database_url: str, tmp_path: Path) -> None:
    with connect(catbird_database_url) as observer:
        observer.execute("INSERT INTO conversations (id, creator_did) VALUES ('c', 'd')")
        observer.execute("INSERT INTO members (convo_id, member_did) VALUES ('c', 'd')")
        plain = observer.execute(
            "SELECT oid::regclass::text FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in plain.fetchall():  # what changes is not autovacuum's doing
            observer.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        observer.execute("ANALYZE")
        before = state(observer)
        with connect_read_only(catbird_database_url) as connection:
            assert "members" in read_catalog(connection).tables
            for one in bound():
                _, refused = examine(connection, one)
                assert refused is None
                assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            _, refused = examine(connection, mutant(tmp_path, "get_group_info", ("g.epoch", "g.x")))
            assert refused is not None
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert state(observer) == before


@pytest.mark.parametrize(
    "command",
    [
        "INSERT INTO conversations (id, creator_did) VALUES ('c', 'd')",
        "DELETE FROM conversations",
        "CREATE TABLE t ()",
        "SELECT setval('s', 1)",
        "SELECT FROM conversations FOR UPDATE",
        "EXPLAIN ANALYZE DELETE FROM conversations",
    ],
)
def test_a_read_only_connection_refuses_what_would_change_anything(
    catbird_database_url: str, command: str
) -> None:
    with connect(catbird_database_url) as admin:
        admin.execute("CREATE SEQUENCE s")
    with connect_read_only(catbird_database_url) as connection:
        if (
            command == "ANALYZE"
        ):  # PostgreSQL lets it through, and the transaction's end takes it back
            pytest.skip("statistics only")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(command.encode())


def test_a_statement_that_writes_is_prepared_read_only(catbird_database_url: str) -> None:
    with connect_read_only(catbird_database_url) as connection:
        assert (
            describe(connection, statement("append_message").statement).column_names[0]
            == "convo_id"
        )
