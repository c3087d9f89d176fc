"""`catbird-db collect` and `reconcile`, as a shell sees them, on a folder of objects."""

import json
from pathlib import Path

import pytest
from test_cli import run

from catbird_db import Pool, Settings, open_store, put_object


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


async def put(pool: Pool, folder: Path, *bodies: bytes) -> None:
    """Store bytes to which nothing refers, and whose leases are over."""
    async with open_store(Settings(object_folder=str(folder))) as store:
        for body in bodies:
            await put_object(pool, store, body=body)
    async with pool.connection() as connection:
        await connection.execute("UPDATE objects SET lease_until = now() - interval '1 s'")


async def test_collect_deletes_what_nothing_refers_to(
    catbird_pool: Pool, catbird_database_url: str, folder: Path
) -> None:
    await put(catbird_pool, folder, b"one", b"three")
    environment = {"database_url": catbird_database_url, "OBJECT_FOLDER": str(folder)}
    done = run("collect", **environment)
    assert (done.returncode, done.stdout) == (0, "2 objects collected, 8 bytes\n"), done.stderr
    again = run("collect", "--json", **environment)
    assert json.loads(again.stdout) == {"objects": 0, "bytes": 0}


async def test_reconcile_finds_what_is_missing_and_mends_what_is_too_much(
    catbird_pool: Pool, catbird_database_url: str, folder: Path
) -> None:
    await put(catbird_pool, folder, b"one", b"three")
    environment = {"database_url": catbird_database_url, "OBJECT_FOLDER": str(folder)}
    assert run("reconcile", **environment).stdout == "nothing amiss\n"
    async with catbird_pool.connection() as connection:
        stray = await connection.fetchval("DELETE FROM objects WHERE size = 3 RETURNING hash")
        missing = await connection.fetchval("SELECT hash FROM objects")
    (file,) = (one for one in folder.rglob("*") if one.is_file() and missing in str(one))
    file.unlink()

    found = run("reconcile", **environment)
    assert found.returncode == 1
    assert f"missing  {missing}" in found.stdout and stray in found.stdout
    told = json.loads(run("reconcile", "--mend", "--json", **environment).stdout)
    assert (told["missing"], told["removed"], len(told["strays"])) == ([missing], 1, 1)
    after = run("reconcile", "--json", **environment)
    assert after.returncode == 1 and json.loads(after.stdout)["strays"] == []


def test_a_store_that_is_not_there_is_one_line(catbird_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(
        "collect", database_url=catbird_database_url, OBJECT_FOLDER=str(tmp_path / "file" / "below")
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
