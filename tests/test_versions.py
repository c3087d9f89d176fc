"""The same schema and statements on whatever other PostgreSQL this machine has, from 15 on."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep

import psycopg
import pytest
from test_backup import FAMILY, PARTS, PEOPLE, SCHEMA, backs_up_every_shipped_table, rows

from catbird_db import (
    NewWelcome,
    Settings,
    StaleEpochError,
    WelcomeRecipient,
    acknowledge_welcome,
    authenticate_user,
    commit_group_change,
    consume_key_package,
    create_conversation,
    create_message,
    create_user,
    get_user_by_email,
    get_user_by_username,
    health_check,
    list_conversations,
    list_messages,
    list_messages_since,
    list_pending_welcomes,
    mark_read,
    open_pool,
    store_key_package,
)
from catbird_db.backup import backup_table, restore_backup
from catbird_db.catalog import schema_snapshot
from catbird_db.migrate import apply, rollback, shipped_migrations
from catbird_db.query import bound

OLDEST = 15
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


def servers() -> list[Path]:
    """Where this machine has the programs of a PostgreSQL that we support."""
    found = [path for place in PLACES for path in Path("/").glob(place[1:])]
    return sorted(path for path in found if major(path) >= OLDEST)


def major(bin_dir: Path) -> int:
    with suppress(OSError):
        told = subprocess.run(
            [bin_dir / "postgres", "-V"], capture_output=True, check=True, text=True
        )
        return int(told.stdout.split()[2].split(".")[0])
    return 0


SERVERS = servers()
__test__ = bool(SERVERS)  # nothing to test is no test left out


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: f"PostgreSQL {major(path)}")
def url(request: pytest.FixtureRequest) -> Generator[str]:
    """A throwaway server of that version; root runs it as whoever owns the embedded one."""
    bin_dir: Path = request.param
    folder = Path(tempfile.mkdtemp(prefix="cbver-", dir="/tmp"))
    owner = request.getfixturevalue("catbird_server").directory.joinpath("data").stat()
    identity = {}
    if os.geteuid() == 0:
        os.chown(folder, owner.st_uid, owner.st_gid)
        identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    data = folder / "data"
    subprocess.run(
        [
            bin_dir / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            *(
                "--locale=C",
                "--locale-provider=icu",
                "--icu-locale=tr-TR",
            ),  # where I is not i's capital
            "-N",
        ],
        cwd="/",
        stdout=subprocess.DEVNULL,
        check=True,
        **identity,
    )
    process = subprocess.Popen(
        [bin_dir / "postgres", "-D", data, "-h", "", "-k", folder, "-F"],
        cwd="/",
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        stderr=subprocess.DEVNULL,
        **identity,
    )
    try:
        url = f"postgresql://postgres@/postgres?host={folder}&port=5432"
        while True:
            assert process.poll() is None
            with suppress(psycopg.OperationalError), psycopg.connect(url):
                break
            sleep(0.02)
        apply(url)
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


async def test_no_locale_has_a_say_in_names(url: str) -> None:
    async with open_pool(Settings(database_url=url)) as pool:
        user = await create_user(pool, username="ALICE.I", email="ALICE.I@X.ORG", password="?")
        assert await get_user_by_username(pool, username="alice.I") == user
        assert await get_user_by_email(pool, email="alicE.I@x.org") == user
        assert await authenticate_user(pool, username="ALICE.I", password="?") is not None


async def test_every_statement_prepares(url: str) -> None:
    async with open_pool(Settings(database_url=url)) as pool, pool.connection() as connection:
        for one in bound():
            await connection.prepare(one.statement.sql)
        assert len(bound()) > 40


async def test_a_group_chats(url: str) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    async with open_pool(Settings(database_url=url)) as pool:
        assert (await health_check(pool)).status == "ok"
        await create_conversation(pool, creator_did="did:plc:alice", convo_id="c", title="é")
        await store_key_package(
            pool, did="did:plc:bob", cipher_suite=1, key_data=b"package", expires_at=soon
        )
        package = await consume_key_package(pool, did="did:plc:bob", cipher_suite=1, convo_id="c")
        assert package is not None
        assert await consume_key_package(pool, did="did:plc:bob", cipher_suite=1) is None
        recipient = WelcomeRecipient(did="did:plc:bob", key_package_ref=package.ref)
        receipt = await commit_group_change(
            pool,
            convo_id="c",
            sender_did="did:plc:alice",
            message_id="commit",
            expected_epoch=0,
            commit=b"commit",
            add_dids=["did:plc:bob"],
            welcomes=[NewWelcome(data=b"welcome", recipients=[recipient])],
            group_info=b"info",
        )
        assert (receipt.seq, receipt.epoch) == (1, 1)
        (welcome,) = (await list_pending_welcomes(pool, recipient_did="did:plc:bob")).items
        assert welcome.data == b"welcome"
        assert await acknowledge_welcome(
            pool, convo_id="c", recipient_did="did:plc:bob", key_package_ref=package.ref
        )
        with pytest.raises(StaleEpochError):
            await create_message(
                pool, convo_id="c", sender_did="did:plc:alice", epoch=0, ciphertext=b"late"
            )
        for number in range(5):
            await create_message(
                pool, convo_id="c", sender_did="did:plc:alice", epoch=1, ciphertext=b"%d" % number
            )
        (summary,) = (await list_conversations(pool, member_did="did:plc:bob")).items
        assert (summary.unread_count, summary.last_seq) == (5, 6)
        assert await mark_read(pool, convo_id="c", member_did="did:plc:bob", seq=4) == 2
        since = await list_messages_since(pool, convo_id="c", reader_did="did:plc:bob", after_seq=4)
        assert [message.ciphertext for message in since] == [b"3", b"4"]
        first = await list_messages(pool, convo_id="c", reader_did="did:plc:bob", limit=4)
        rest = await list_messages(
            pool, convo_id="c", reader_did="did:plc:bob", limit=4, cursor=first.next_cursor
        )
        assert [message.seq for message in first.items + rest.items] == [6, 5, 4, 3, 2, 1]


def test_the_migrations_go_down_and_up_again(url: str) -> None:
    ids = shipped_migrations()
    assert rollback(url, count=len(ids)) == ids[::-1]
    assert apply(url) == ids


def test_every_table_of_the_shipped_schema_comes_back(url: str) -> None:
    backs_up_every_shipped_table(url)


def test_a_table_comes_back_from_its_backup(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE backups")
    try:
        with psycopg.connect(url.replace("/postgres?", "/backups?"), autocommit=True) as connection:
            connection.execute(SCHEMA + FAMILY)
            for table in (PEOPLE, PARTS, "kin.parents", "kin.children"):
                schema, before = schema_snapshot(connection), rows(connection, table)
                backup = backup_table(connection, table)
                connection.execute(f"DROP TABLE {table} CASCADE")  # type: ignore[arg-type]
                restore_backup(connection, backup.name)
                assert schema_snapshot(connection) == schema
                assert rows(connection, table) == before
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP DATABASE backups WITH (FORCE)")
