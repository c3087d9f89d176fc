"""Settings: what the environment says, what `.env.example` promises, and what no message shows."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catbird_db import InvalidArgumentError, Settings, open_pool

ROOT = Path(__file__).parent.parent
SECRET = "s3cr3t"
URL = f"postgresql://alice:{SECRET}@localhost/catbird"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def examples() -> dict[str, tuple[str, str]]:
    """The value of each variable in `.env.example`, and the comment above it."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    found = re.findall(r"((?:^#.*\n)*)^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)
    return {name: (value, comment) for comment, name, value in found}


def test_the_example_names_every_setting_and_no_other() -> None:
    assert list(examples()) == [name.upper() for name in Settings.model_fields]


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (value, _) in examples().items():
        if name != "DATABASE_URL":  # which has none
            monkeypatch.setenv(name, value)
    assert Settings() == Settings.model_construct()


def test_the_example_gives_each_setting_a_reason_and_each_time_its_unit() -> None:
    for name, (_, comment) in examples().items():
        assert len(comment) > 40, name
        annotation = Settings.model_fields[name.lower()].annotation
        assert annotation is not float or "Seconds" in comment, name


def test_the_example_is_read_by_a_shell() -> None:
    code = "from catbird_db import Settings; print(Settings().require_database_url())"
    run = subprocess.run(
        ["sh", "-ec", 'set -a; . ./.env.example; exec "$0" -c "$1"', sys.executable, code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stdout == "postgresql://catbird@localhost:5432/catbird\n"


SERVER_TIMEOUTS = ("DB_STATEMENT_TIMEOUT", "DB_LOCK_TIMEOUT", "DB_IDLE_IN_TRANSACTION_TIMEOUT")

VALUES: dict[str, tuple[str, Any]] = {
    "DATABASE_TYPE": ("memory", "memory"),
    "DATABASE_URL": (URL, URL),
    "DB_POOL_MIN_SIZE": ("0", 0),
    "DB_POOL_MAX_SIZE": ("50", 50),
    "DB_POOL_TIMEOUT": ("2.5", 2.5),
    "DB_POOL_IDLE_TIMEOUT": ("0", 0.0),
    "DB_POOL_RECYCLE": ("1e3", 1000.0),
    "DB_POOL_PRE_PING": ("0", 0.0),
    "DB_STATEMENT_CACHE_SIZE": ("0", 0),
    "DB_PLAN_CACHE_MODE": ("auto", "auto"),
    "DB_STATEMENT_TIMEOUT": ("0.001", 0.001),
    "DB_LOCK_TIMEOUT": ("5", 5.0),
    "DB_IDLE_IN_TRANSACTION_TIMEOUT": ("120", 120.0),
    "DB_APPLICATION_NAME": ("mine", "mine"),
    "OBJECT_STORE": ("s3", "s3"),
    "OBJECT_FOLDER": ("/var/lib/objects", "/var/lib/objects"),
    "OBJECT_DEDUPE": ("tenant", "tenant"),
    "OBJECT_LEASE": ("60", 60.0),
    "OBJECT_TIMEOUT": ("5", 5.0),
    "OBJECT_CONNECTIONS": ("4", 4),
    "S3_URL": ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    "S3_BUCKET": ("catbird", "catbird"),
    "S3_REGION": ("eu-central-1", "eu-central-1"),
    "S3_ACCESS_KEY": ("access", "access"),
    "S3_SECRET_KEY": (SECRET, SECRET),
}


def test_each_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(VALUES) == [name.upper() for name in Settings.model_fields]
    for name, (text, value) in VALUES.items():
        monkeypatch.setenv(name, text)
        assert getattr(Settings(), name.lower()) == value != Settings.model_construct()
    settings = Settings(db_pool_max_size=7)
    assert (settings.db_pool_max_size, settings.db_pool_timeout) == (7, 2.5)


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VALUES:
        monkeypatch.setenv(name, "")
    assert Settings() == Settings.model_construct()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_TYPE", SECRET),
        ("DATABASE_TYPE", "sqlite"),
        ("DATABASE_TYPE", "Memory"),
        ("DATABASE_URL", f"mysql://alice:{SECRET}@localhost/catbird"),
        ("DATABASE_URL", f"postgresql:/alice:{SECRET}@localhost/catbird"),
        ("DATABASE_URL", f"alice:{SECRET}@localhost"),
        ("DATABASE_URL", f"postgresql+asyncpg://alice:{SECRET}@localhost/catbird"),
        ("DATABASE_URL", SECRET),
        ("DB_POOL_MIN_SIZE", "-1"),
        ("DB_POOL_MIN_SIZE", SECRET),
        ("DB_POOL_MIN_SIZE", "1.5"),
        ("DB_POOL_MAX_SIZE", "0"),
        ("DB_POOL_MAX_SIZE", SECRET),
        ("DB_POOL_TIMEOUT", "0"),
        ("DB_POOL_TIMEOUT", SECRET),
        ("DB_POOL_IDLE_TIMEOUT", "-1"),
        ("DB_POOL_RECYCLE", SECRET),
        ("DB_POOL_PRE_PING", "yes"),
        ("DB_STATEMENT_CACHE_SIZE", "-1"),
        ("DB_STATEMENT_CACHE_SIZE", "auto"),
        ("DB_STATEMENT_TIMEOUT", "30s"),
        ("DB_LOCK_TIMEOUT", "-0.1"),
        ("DB_IDLE_IN_TRANSACTION_TIMEOUT", SECRET),
        ("DB_APPLICATION_NAME", SECRET * 20),
        ("OBJECT_STORE", SECRET),
        ("OBJECT_DEDUPE", SECRET),
        ("OBJECT_LEASE", "0"),
        ("OBJECT_TIMEOUT", SECRET),
        ("OBJECT_CONNECTIONS", "0"),
        ("S3_URL", SECRET),
        ("S3_BUCKET", f"{SECRET}/b"),
        ("S3_URL", f"ftp://{SECRET}"),
        ("S3_URL", f"https://alice:{SECRET}@host"),
        ("S3_URL", f"https://host/{SECRET}"),
    ],
)
def test_a_malformed_value_is_told_by_its_variable_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgumentError, match=f"^{name}: ") as refused:
        Settings()
    assert SECRET not in f"{refused.value} {refused.value!r}"
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("name", [name for name in VALUES if name.endswith("TIMEOUT")])
@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_a_time_that_is_no_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgumentError, match=f"^{name}: "):
        Settings()


@pytest.mark.parametrize("name", SERVER_TIMEOUTS)
@pytest.mark.parametrize("value", ["inf", "1e300", "2147484"])
def test_a_time_that_the_server_cannot_keep_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgumentError, match=f"^{name}: "):
        Settings()


def test_a_maximum_below_the_minimum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_POOL_MIN_SIZE", "5")
    monkeypatch.setenv("DB_POOL_MAX_SIZE", "4")
    with pytest.raises(InvalidArgumentError, match=r"^DB_POOL_MAX_SIZE: .*DB_POOL_MIN_SIZE"):
        Settings()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_each_scheme_of_a_url_is_the_same_database(scheme: str) -> None:
    assert Settings(database_url=f"{scheme}://localhost/catbird").database_url == (
        "postgresql://localhost/catbird"
    )


def test_no_password_and_no_key_is_in_the_repr() -> None:
    settings = Settings(database_url=URL, s3_secret_key=SECRET, s3_access_key=SECRET)
    assert SECRET not in f"{settings} {settings!r} {[settings]}"


def test_a_missing_url_says_how_to_set_it() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^DATABASE_URL is not set: export"):
        Settings().require_database_url()


async def test_a_pool_without_a_url_says_how_to_set_it() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^DATABASE_URL is not set: export"):
        async with open_pool():
            pass


def test_an_unknown_database_type_is_told_which_there_are() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'memory', 'embedded' or 'postgres'"):
        Settings(database_type="sqlite")  # type: ignore[arg-type]


def test_the_type_is_chosen_by_the_url_unless_it_is_named() -> None:
    assert Settings().chosen_type == "embedded"
    assert Settings(database_url=URL).chosen_type == "postgres"
    assert Settings(database_type="memory", database_url=URL).chosen_type == "memory"
    assert Settings(database_type="postgres").chosen_type == "postgres"


def test_settings_do_not_change() -> None:
    settings = Settings(database_url=URL)
    with pytest.raises(ValueError, match="frozen") as refused:
        settings.database_url = "postgresql://elsewhere"  # type: ignore[misc]
    assert SECRET not in str(refused.value)


async def test_a_pool_is_opened_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, catbird_database_url: str
) -> None:
    monkeypatch.setenv(
        "DATABASE_URL", catbird_database_url.replace("postgresql://", "postgresql+psycopg://")
    )
    monkeypatch.setenv("DB_APPLICATION_NAME", "from the environment")
    async with open_pool() as pool, pool.connection() as connection:
        assert await connection.fetchval("SHOW application_name") == "from the environment"
