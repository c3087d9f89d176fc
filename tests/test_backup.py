"""Backups: what comes back is the table that went, or an error; whoever has been at it meanwhile."""

import re
from collections.abc import Iterator
from contextlib import suppress
from traceback import format_exception
from typing import Any

import psycopg
import pytest

from catbird_db.backup import (
    backup_table,
    delete_expired_backups,
    list_backups,
    restore_backup,
    verify_backup,
)
from catbird_db.catalog import schema_snapshot
from catbird_db.errors import (
    BackupError,
    DatabaseConnectionError,
    InvalidArgumentError,
    TransactionConflictError,
)

Connection = psycopg.Connection[Any]

SCHEMA = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE SCHEMA "odd schema";
CREATE TABLE people (
    id bigint GENERATED ALWAYS AS IDENTITY (START WITH 5 INCREMENT BY 2),
    gone int,
    number serial,
    name text COLLATE "C" NOT NULL,
    mood mood DEFAULT 'good',
    address email,
    born date,
    price numeric(10, 2) CONSTRAINT price_is_positive CHECK (price > 0),
    doubled numeric GENERATED ALWAYS AS (price * 2) STORED,
    tags text[],
    other jsonb NOT NULL DEFAULT '{"a": "it''s 100%"}',
    bytes bytea,
    seen timestamptz DEFAULT now(),
    boss bigint,
    CONSTRAINT people_pkey PRIMARY KEY (id) INCLUDE (name),
    CONSTRAINT people_name_key UNIQUE NULLS NOT DISTINCT (name, born) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT people_boss_fkey FOREIGN KEY (boss) REFERENCES people (id) ON DELETE SET NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE people DROP COLUMN gone;
ALTER TABLE people ALTER COLUMN bytes SET STORAGE EXTERNAL, ALTER COLUMN name SET STATISTICS 500;
ALTER TABLE people ADD CONSTRAINT people_later CHECK (length(name) < 100) NOT VALID;
CREATE INDEX people_lower_idx ON people (lower(name) text_pattern_ops, born DESC NULLS LAST) WHERE price > 1;
CREATE INDEX people_tags_idx ON people USING gin (tags);
CREATE STATISTICS people_stats ON born, mood FROM people;
COMMENT ON TABLE people IS 'Who. It''s 100%.
tenant: id';
COMMENT ON COLUMN people.name IS 'As they say it.';
COMMENT ON INDEX people_lower_idx IS 'kept: why';
COMMENT ON CONSTRAINT price_is_positive ON people IS 'Nothing is free.';
CREATE TABLE pets (owner bigint, CONSTRAINT pets_owner_fkey FOREIGN KEY (owner) REFERENCES people (id) ON DELETE CASCADE);
INSERT INTO people (name, mood, address, born, price, tags, bytes, seen)
SELECT 'p' || g, CASE WHEN g % 3 = 0 THEN 'bad'::mood END, 'a@b', '2000-01-01'::date + g, g, ARRAY[g::text], sha256(g::text::bytea),
       '2020-01-01'::timestamptz + g * interval '1 s'
  FROM generate_series(1, 500) AS g;
UPDATE people SET boss = 5 WHERE id > 100;
INSERT INTO pets SELECT id FROM people WHERE id % 3 = 0;

CREATE TABLE "odd schema"."Parts %" (
    tenant uuid NOT NULL, n bigint NOT NULL, body text NOT NULL DEFAULT 'x',
    CONSTRAINT "Parts_pkey" PRIMARY KEY (tenant, n)
) PARTITION BY HASH (tenant);
CREATE TABLE "odd schema".parts_0 PARTITION OF "odd schema"."Parts %" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "odd schema".parts_1 PARTITION OF "odd schema"."Parts %" FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY RANGE (n);
CREATE TABLE "odd schema".parts_1_low PARTITION OF "odd schema".parts_1 FOR VALUES FROM (MINVALUE) TO (50) WITH (fillfactor = 60);
CREATE TABLE "odd schema".parts_1_rest (n bigint NOT NULL, body text NOT NULL DEFAULT 'rest', tenant uuid NOT NULL);
ALTER TABLE "odd schema".parts_1 ATTACH PARTITION "odd schema".parts_1_rest DEFAULT;
CREATE INDEX parts_body_idx ON "odd schema"."Parts %" (tenant, body);
CREATE INDEX parts_low_only_idx ON "odd schema".parts_1_low (n);
ALTER TABLE "odd schema".parts_0 ADD CONSTRAINT only_here CHECK (n > 0);
CREATE TABLE refers (tenant uuid, n bigint, CONSTRAINT refers_fkey FOREIGN KEY (tenant, n) REFERENCES "odd schema"."Parts %" ON DELETE CASCADE);
INSERT INTO "odd schema"."Parts %" SELECT gen_random_uuid(), g, 'b' || g FROM generate_series(1, 200) AS g;
INSERT INTO refers SELECT tenant, n FROM "odd schema"."Parts %";
"""

PEOPLE, PARTS = "people", '"odd schema"."Parts %"'


@pytest.fixture
def url(catbird_empty_database_url: str) -> str:
    with psycopg.connect(catbird_empty_database_url) as connection:
        connection.execute(SCHEMA)
    return catbird_empty_database_url


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def rows(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT r::text, r.* FROM {table} AS r ORDER BY 1").fetchall()  # type: ignore[arg-type]


@pytest.mark.parametrize("table", [PEOPLE, PARTS, "pets"])
def test_what_comes_back_is_equal_in_schema_and_rows(connection: Connection, table: str) -> None:
    schema, before = schema_snapshot(connection), rows(connection, table)
    backup = backup_table(connection, table)
    assert backup.row_count == len(before) > 100
    assert schema_snapshot(connection) == schema
    connection.execute(f"DROP TABLE {table} CASCADE")  # type: ignore[arg-type]
    assert schema_snapshot(connection) != schema

    assert restore_backup(connection, backup.name) == backup
    assert schema_snapshot(connection) == schema
    assert rows(connection, table) == before


def test_every_table_of_the_shipped_schema_comes_back(catbird_database_url: str) -> None:
    backs_up_every_shipped_table(catbird_database_url)


def backs_up_every_shipped_table(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace AND c.relname !~ 'yoyo'"
        ).fetchall()
        assert len(tables) >= 8
        schema = meaning(connection)
        for (table,) in tables:
            backup = backup_table(connection, table)
            connection.execute(f"DROP TABLE {table} CASCADE")  # type: ignore[arg-type]
            restore_backup(connection, backup.name)
            assert meaning(connection) == schema


def meaning(connection: Connection) -> str:
    """The schema; ``a BETWEEN 0 AND b AND c`` has other parentheses once PostgreSQL has read what it wrote."""
    return re.sub("[()]", "", schema_snapshot(connection))


FAMILY = """
CREATE SCHEMA kin;
CREATE TABLE kin.parents (id int PRIMARY KEY, favourite int) PARTITION BY HASH (id);
CREATE TABLE kin.parents_0 PARTITION OF kin.parents FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE kin.children (id int PRIMARY KEY, parent int CONSTRAINT parent_fkey REFERENCES kin.parents);
ALTER TABLE kin.parents ADD CONSTRAINT favourite_fkey FOREIGN KEY (favourite) REFERENCES kin.children;
INSERT INTO kin.parents VALUES (1), (2);
INSERT INTO kin.children VALUES (3, 1);
UPDATE kin.parents SET favourite = 3 WHERE id = 2;
"""


@pytest.mark.parametrize("first", [0, 1])
def test_tables_that_refer_to_each_other_come_back_in_any_order(
    connection: Connection, first: int
) -> None:
    connection.execute(FAMILY)
    schema = schema_snapshot(connection)
    connection.execute("SET search_path = kin, public")
    taken = [backup_table(connection, table) for table in ("parents", "children")]
    connection.execute("DROP TABLE parents, children; SET search_path = public")

    alone = restore_backup(connection, taken[first].name)
    assert len(alone.left_out) == 2
    assert [one.left_out for one in list_backups(connection) if one.left_out] == [alone.left_out]
    restore_backup(connection, taken[1 - first].name)
    assert list_backups(connection) == taken
    assert schema_snapshot(connection) == schema


def test_a_foreign_key_that_one_backup_alone_knows_comes_back(connection: Connection) -> None:
    connection.execute(FAMILY)
    children = backup_table(connection, "kin.children")
    connection.execute("DROP TABLE kin.children CASCADE")
    parents = backup_table(connection, "kin.parents")
    connection.execute("DROP TABLE kin.parents")

    assert len(restore_backup(connection, children.name).left_out) == 2
    other = backup_table(connection, "pets")
    connection.execute("DROP TABLE pets")
    restore_backup(connection, other.name)
    assert verify_backup(connection, children.name).left_out
    assert restore_backup(connection, parents.name).left_out == ()
    assert verify_backup(connection, children.name) == children
    assert "kin.children.parent_fkey" in schema_snapshot(connection)
    assert "kin.parents.favourite_fkey" in schema_snapshot(connection)


def test_sequences_go_on_where_they_were(connection: Connection) -> None:
    backup = backup_table(connection, PEOPLE)
    connection.execute("DROP TABLE people CASCADE")
    restore_backup(connection, backup.name)
    new = connection.execute(
        "INSERT INTO people (name) VALUES ('new') RETURNING id, number"
    ).fetchone()
    assert new == (5 + 2 * 500, 501)


def test_grants_and_the_owner_come_back(connection: Connection) -> None:
    (database,) = connection.execute("SELECT current_database()").fetchone() or ("",)
    app, owner = f"app_{database}", f"owner_{database}"
    try:
        connection.execute(
            f"CREATE ROLE {app}; CREATE ROLE {owner}; ALTER TABLE people OWNER TO {owner};"  # type: ignore[arg-type]
            f"GRANT SELECT, INSERT ON people TO {app} WITH GRANT OPTION; GRANT SELECT ON people TO PUBLIC;"
            f"GRANT SELECT (name), UPDATE (name, born) ON people TO {app}; GRANT UPDATE (other) ON people TO PUBLIC;"
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {app}; GRANT SELECT ON SEQUENCE people_id_seq TO PUBLIC"
        )
        schema = schema_snapshot(connection)
        backup = backup_table(connection, PEOPLE)
        connection.execute("DROP TABLE people CASCADE")
        restore_backup(connection, backup.name)
        assert schema_snapshot(connection) == schema
        assert connection.execute(
            "SELECT tableowner FROM pg_tables WHERE tablename = 'people'"
        ).fetchone() == (owner,)
    finally:
        connection.execute(f"DROP OWNED BY {app}, {owner} CASCADE; DROP ROLE {app}, {owner}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE {copy} SET price = 999 WHERE id = 7",
        "UPDATE {copy} SET mood = NULL WHERE id = 9",
        "UPDATE {copy} SET seen = seen + interval '1 us' WHERE id = 7",
        "UPDATE {copy} AS a SET name = b.name FROM {copy} AS b WHERE (a.id, b.id) IN ((7, 9), (9, 7))",
        "DELETE FROM {copy} WHERE id = 7",
        "DELETE FROM {copy} WHERE id = (SELECT max(id) FROM {copy})",
        "INSERT INTO {copy} SELECT * FROM {copy} WHERE id = 7",
        "DELETE FROM {copy} WHERE id = 7; INSERT INTO {copy} SELECT * FROM {copy} WHERE id = 9",
        "TRUNCATE {copy}",
        "ALTER TABLE {copy} DROP COLUMN born",
        "ALTER TABLE {copy} ADD COLUMN more int",
        "ALTER TABLE {copy} ALTER COLUMN price TYPE float8",
        "DROP TABLE {copy}",
    ],
)
def test_a_backup_that_was_tampered_with_is_refused(connection: Connection, tampering: str) -> None:
    backup = backup_table(connection, PEOPLE)
    verify_backup(connection, backup.name)
    connection.execute(tampering.format(copy=f'catbird_backup."{backup.name}"'))  # type: ignore[arg-type]
    connection.execute("DROP TABLE people CASCADE")
    schema = schema_snapshot(connection)
    for refused in (verify_backup, restore_backup):
        with pytest.raises(BackupError, match=backup.name):
            refused(connection, backup.name)
        assert schema_snapshot(connection) == schema


def test_columns_may_have_any_name(connection: Connection) -> None:
    connection.execute(
        "CREATE TYPE pair AS (a int, b int);"
        "CREATE TABLE letters (r pair, d text, h text, t text, c int, n int, digest text, high int, low int);"
        "INSERT INTO letters VALUES ('(1,2)', 'd', 'h', 't', 1, 2, 'x', 3, 4), ('(3,4)', 'd', 'h', 't', 1, 2, 'x', 3, 4)"
    )
    schema = schema_snapshot(connection)
    backup = backup_table(connection, "letters")
    connection.execute("DROP TABLE letters")
    restore_backup(connection, backup.name)
    assert schema_snapshot(connection) == schema
    for column in ("r = '(5,6)'", "d = 'e'", "h = 'e'", "t = 'e'", "low = 5", "n = NULL"):
        with connection.transaction(force_rollback=True):
            connection.execute(f'UPDATE catbird_backup."{backup.name}" SET {column}')  # type: ignore[arg-type]
            with pytest.raises(BackupError, match="not those that were put into it"):
                verify_backup(connection, backup.name)


def test_a_column_of_any_type_may_have_the_name_of_the_row(connection: Connection) -> None:
    for number, type_name in enumerate(("text", "int4range", "people", "int[]")):
        connection.execute(f"CREATE TABLE r{number} (r {type_name})")  # type: ignore[arg-type]
        backup_table(connection, f"r{number}")


def test_rows_in_another_order_are_the_same_rows(connection: Connection) -> None:
    backup = backup_table(connection, PEOPLE)
    copy = f'catbird_backup."{backup.name}"'
    connection.execute(
        f"CREATE TABLE moved AS SELECT * FROM {copy} ORDER BY random(); TRUNCATE {copy};"  # type: ignore[arg-type]
        f"INSERT INTO {copy} SELECT * FROM moved; DROP TABLE moved"
    )
    connection.execute(
        "SET TimeZone = 'Asia/Tokyo'; SET extra_float_digits = -5; SET bytea_output = 'escape'"
    )
    assert verify_backup(connection, backup.name) == backup


def test_a_manifest_that_was_tampered_with_gives_no_other_table(connection: Connection) -> None:
    backup = backup_table(connection, PEOPLE)
    connection.execute("DROP TABLE people CASCADE")
    schema = schema_snapshot(connection)
    connection.execute(
        "UPDATE catbird_backup.manifest"
        " SET after_rows = array(SELECT s FROM unnest(after_rows) AS s WHERE s NOT LIKE '%people_tags_idx%')"
    )
    with pytest.raises(BackupError, match=r"without index public\.people_tags_idx"):
        restore_backup(connection, backup.name)
    assert schema_snapshot(connection) == schema


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("CREATE VIEW names AS SELECT name FROM people", "names"),
        ("CREATE TABLE heirs () INHERITS (people)", "heirs"),
        ("CREATE RULE quiet AS ON DELETE TO people DO INSTEAD NOTHING", "people.quiet"),
        ("ALTER TABLE people ENABLE ROW LEVEL SECURITY", "ROW SECURITY"),
        ("CREATE PUBLICATION heard FOR TABLE people", "heard public.people|heard people"),
        ("ALTER STATISTICS people_stats SET STATISTICS 17", "STATISTICS 17"),
        ("ALTER TABLE people SET TABLESPACE elsewhere", "TABLESPACE elsewhere"),
        ("ALTER INDEX people_pkey SET TABLESPACE elsewhere", "TABLESPACE elsewhere"),
        ("ALTER INDEX people_lower_idx ALTER COLUMN 1 SET STATISTICS 777", "STATISTICS 1: 777"),
        ("ALTER TABLE people DISABLE TRIGGER ALL", "people_boss_fkey"),
        ("ALTER TABLE pets DISABLE TRIGGER ALL", "pets_owner_fkey"),
    ],
)
def test_what_could_not_be_given_back_is_not_backed_up(
    connection: Connection, what: str, says: str
) -> None:
    if "TABLESPACE" in what:
        make_tablespace(connection)
    connection.execute(what)  # type: ignore[arg-type]
    schema = schema_snapshot(connection)
    with pytest.raises(BackupError, match=f"public.people cannot be backed up: .*({says})"):
        backup_table(connection, PEOPLE)
    assert schema_snapshot(connection) == schema
    assert list_backups(connection) == []


def make_tablespace(connection: Connection) -> None:
    """One of the server's, once for all tests."""
    connection.execute("SET allow_in_place_tablespaces = on")
    with suppress(psycopg.errors.DuplicateObject):
        connection.execute("CREATE TABLESPACE elsewhere LOCATION ''")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("CREATE TABLE typed OF pair", "OF public.pair"),
        ("CREATE TABLE typed ()", "no columns"),
        ("CREATE TABLE typed (a int GENERATED ALWAYS AS (1) STORED)", "no columns to fill"),
    ],
)
def test_a_table_that_could_not_be_made_again_is_not_backed_up(
    connection: Connection, made: str, says: str
) -> None:
    connection.execute("CREATE TYPE pair AS (a int, b int)")
    connection.execute(made)  # type: ignore[arg-type]
    with pytest.raises(BackupError, match=f"public.typed cannot be backed up: .*{says}"):
        backup_table(connection, "typed")


def test_a_table_that_is_not_there_or_is_there_again_is_an_error(connection: Connection) -> None:
    with pytest.raises(BackupError, match="there is no table nowhere"):
        backup_table(connection, "nowhere")
    for name in ("nowhere", "manifest", "nowhere; DROP TABLE pets"):
        for function in (verify_backup, restore_backup):
            with pytest.raises(BackupError, match="there is no backup"):
                function(connection, name)
    with pytest.raises(InvalidArgumentError, match="keep_days"):
        backup_table(connection, PEOPLE, keep_days=0)
    backup = backup_table(connection, PEOPLE)
    with pytest.raises(BackupError, match=r"public\.people exists;"):
        restore_backup(connection, backup.name)


def test_a_table_that_was_renamed_is_in_the_way(connection: Connection) -> None:
    schema, before = schema_snapshot(connection), rows(connection, PEOPLE)
    old = backup_table(connection, PEOPLE)
    connection.execute("DELETE FROM pets; DELETE FROM people; ALTER TABLE people RENAME TO new")
    renamed = schema_snapshot(connection)
    with pytest.raises(
        BackupError, match=r"in the way: .*public\.new.*; back that table up and drop"
    ):
        restore_backup(connection, old.name)
    assert schema_snapshot(connection) == renamed

    backup_table(connection, "new")
    connection.execute("DROP TABLE new CASCADE")
    restore_backup(connection, old.name)
    assert schema_snapshot(connection) == schema
    assert rows(connection, PEOPLE) == before


def test_a_table_may_be_moved_out_of_the_way(connection: Connection) -> None:
    schema, before = schema_snapshot(connection), rows(connection, PEOPLE)
    backup = backup_table(connection, PEOPLE)
    with pytest.raises(BackupError, match=r"public\.people exists; .* move it to another schema"):
        restore_backup(connection, backup.name)
    connection.execute("CREATE SCHEMA aside; ALTER TABLE people SET SCHEMA aside")
    for last, then in (
        ("fkey", "ALTER TABLE pets DROP CONSTRAINT pets_owner_fkey"),
        ("people_stats", "ALTER STATISTICS people_stats SET SCHEMA aside"),
    ):
        with pytest.raises(BackupError, match=f"in the way: .*{last}"):
            restore_backup(connection, backup.name)
        connection.execute(then)
    restore_backup(connection, backup.name)
    assert set(schema.splitlines()) < set(schema_snapshot(connection).splitlines())
    assert rows(connection, PEOPLE) == before == rows(connection, "aside.people")


def test_a_restore_that_others_stand_in_the_way_of_leaves_nothing_behind(
    connection: Connection,
) -> None:
    backup = backup_table(connection, PEOPLE)
    connection.execute("DROP TABLE people CASCADE; INSERT INTO pets VALUES (4711)")
    schema = schema_snapshot(connection)
    with pytest.raises(BackupError, match="pets_owner_fkey") as caught:
        restore_backup(connection, backup.name)
    assert "4711" not in "".join(format_exception(caught.value))
    assert caught.value.constraint == "pets_owner_fkey"
    assert schema_snapshot(connection) == schema
    verify_backup(connection, backup.name)


def test_no_error_of_the_driver_comes_out(url: str, connection: Connection) -> None:
    for name in ("a.b.c.d", '"x', "", "x" * 300, "nul\0"):
        with pytest.raises(BackupError):
            backup_table(connection, name)
    connection.execute("CREATE TABLE rights AS SELECT 'postgres=r/postgres'::aclitem AS a")
    with pytest.raises(BackupError, match="aclitem"):
        backup_table(connection, "rights")
    backup = backup_table(connection, "pets")
    with psycopg.connect(url) as another:
        another.execute(
            "LOCK TABLE people, catbird_backup.manifest IN ACCESS EXCLUSIVE MODE;"
            f'LOCK TABLE catbird_backup."{backup.name}" IN ACCESS EXCLUSIVE MODE'  # type: ignore[arg-type]
        )
        connection.execute("SET lock_timeout = '10ms'")
        for blocked in (
            lambda: backup_table(connection, PEOPLE),
            lambda: backup_table(connection, "pets"),  # refers to the one that is locked
            lambda: list_backups(connection),
            lambda: verify_backup(connection, backup.name),
            lambda: restore_backup(connection, backup.name),
            lambda: delete_expired_backups(connection),
        ):
            with pytest.raises(TransactionConflictError, match="lock timeout"):
                blocked()
    connection.close()
    with pytest.raises(DatabaseConnectionError):
        list_backups(connection)
    with pytest.raises(DatabaseConnectionError):
        delete_expired_backups(connection)


def test_a_backup_goes_with_the_transaction_that_took_it(url: str, connection: Connection) -> None:
    with psycopg.connect(url) as migration:
        backup = backup_table(migration, PEOPLE)
        migration.execute("DROP TABLE people CASCADE")
        migration.rollback()
    assert list_backups(connection) == []
    with psycopg.connect(url) as migration:
        backup = backup_table(migration, PEOPLE)
        migration.execute("DROP TABLE people CASCADE")
    assert list_backups(connection) == [backup]


# Expiry.


def expire(connection: Connection, *names: str) -> None:
    connection.execute(
        "UPDATE catbird_backup.manifest SET expires_at = now() - interval '1 s' WHERE name = ANY (%s)",
        [list(names)],
    )


def test_only_what_has_expired_is_deleted(connection: Connection) -> None:
    old, new = backup_table(connection, PEOPLE, keep_days=1), backup_table(connection, PEOPLE)
    assert (new.expires_at - new.taken_at).days == 30 and (old.expires_at - old.taken_at).days == 1
    connection.execute(f'CREATE TABLE catbird_backup."{old.name}_copy" ()')  # type: ignore[arg-type]
    assert delete_expired_backups(connection) == []
    expire(connection, old.name)
    assert delete_expired_backups(connection) == [old.name]
    assert delete_expired_backups(connection) == []
    assert list_backups(connection) == [new]
    verify_backup(connection, new.name)
    left = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'catbird_backup'::regnamespace AND relkind = 'r' ORDER BY 1"
    ).fetchall()
    assert left == sorted([("manifest",), (new.name,), (f"{old.name}_copy",)])


def test_what_is_deleted_is_deleted_whatever_becomes_of_the_connection(
    url: str, connection: Connection
) -> None:
    old = backup_table(connection, PEOPLE)
    expire(connection, old.name)
    with psycopg.connect(url) as another:
        another.execute("SELECT 1")
        with pytest.raises(InvalidArgumentError, match="in a transaction"):
            delete_expired_backups(another)
        another.rollback()
        assert delete_expired_backups(another) == [old.name]
        another.rollback()
    assert list_backups(connection) == []


def test_one_that_cannot_be_deleted_keeps_no_other(connection: Connection) -> None:
    first, second, third = (backup_table(connection, "pets") for _ in range(3))
    connection.execute(f'CREATE VIEW looks AS SELECT * FROM catbird_backup."{second.name}"')  # type: ignore[arg-type]
    expire(connection, first.name, second.name, third.name)
    with pytest.raises(BackupError, match=f"not deleted: {second.name} .*; deleted: 2"):
        delete_expired_backups(connection)
    assert list_backups(connection)[0].name == second.name
    verify_backup(connection, second.name)


def test_no_backup_was_ever_taken(catbird_empty_database_url: str) -> None:
    with psycopg.connect(catbird_empty_database_url, autocommit=True) as connection:
        assert list_backups(connection) == delete_expired_backups(connection) == []
