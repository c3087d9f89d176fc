"""btree_gin, which others in the same database may use too."""

import psycopg

from catbird_db.migrate import apply, rollback


def test_rolling_back_leaves_the_extension_to_whoever_uses_it(
    catbird_empty_database_url: str,
) -> None:
    url = catbird_empty_database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION btree_gin")
        connection.execute("CREATE TABLE other (id integer, words tsvector)")
        connection.execute("CREATE INDEX other_idx ON other USING gin (id, words)")
    applied = apply(url)
    assert sorted(rollback(url, count=len(applied))) == sorted(applied)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT 'other_idx'::regclass::text").fetchone()
    assert found == ("other_idx",)
    assert apply(url) == applied
