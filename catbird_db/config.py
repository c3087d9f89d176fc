"""Settings, read from the environment. `.env.example` lists each with its default and reason."""

import re
from typing import Literal, TypeAlias

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import InvalidArgumentError

DatabaseType: TypeAlias = Literal["memory", "embedded", "postgres"]

LONGEST = 2_147_483.0  # seconds; PostgreSQL keeps milliseconds in an int4


class Settings(BaseSettings):
    """How to reach the database and how to treat it.

    ``Settings()`` reads the environment; ``Settings(database_url=...)`` overrides a part of it.

    Raises:
        InvalidArgumentError: a value is malformed; names the variable.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    database_type: DatabaseType | None = None
    """What `open_database` opens; unset: see `chosen_type`."""
    database_url: str | None = Field(default=None, repr=False)
    """``postgresql://user:password@host:port/database?sslmode=verify-full``, libpq's form."""

    db_pool_min_size: int = Field(default=1, ge=0)
    """Connections kept open."""
    db_pool_max_size: int = Field(default=10, ge=1)
    """Connections at most."""
    db_pool_timeout: float = Field(default=30.0, gt=0, le=LONGEST)
    """Seconds to wait for a free connection, and for a new one to open."""
    db_pool_idle_timeout: float = Field(default=300.0, ge=0, le=LONGEST)
    """Seconds after which an idle connection above the minimum is closed; 0 = never."""
    db_pool_recycle: float = Field(default=1800.0, ge=0, le=LONGEST)
    """Seconds after which a connection is replaced when next taken; 0 = never."""
    db_pool_pre_ping: float = Field(default=30.0, ge=0, le=LONGEST)
    """Seconds of idleness after which a connection is tried before use; 0 = never."""
    db_statement_cache_size: int | None = Field(default=None, ge=0)
    """Prepared statements a connection; unset = derived from the number of queries; 0 = PgBouncer."""
    db_plan_cache_mode: Literal["force_generic_plan", "auto", "force_custom_plan"] = (
        "force_generic_plan"
    )
    """When PostgreSQL plans: once for all arguments, which are the plans that `catbird-db check` proves;
    ``auto`` plans statements on chunks anew for each call."""

    db_statement_timeout: float = Field(default=30.0, ge=0, le=LONGEST)
    """Seconds that PostgreSQL lets one statement run; 0 = no limit."""
    db_lock_timeout: float = Field(default=10.0, ge=0, le=LONGEST)
    """Seconds that a statement waits for one lock; 0 = no limit."""
    db_idle_in_transaction_timeout: float = Field(default=60.0, ge=0, le=LONGEST)
    """Seconds after which PostgreSQL ends a session that is idle inside a transaction; 0 = never."""
    db_application_name: str = Field(default="catbird-db", max_length=63)
    """What pg_stat_activity calls these connections."""

    object_store: Literal["folder", "s3"] = "folder"
    """Where the bytes of blobs, files and documents are."""
    object_folder: str | None = None
    """The folder; unset = ``objects`` beside the embedded database, in the user's data folder."""
    object_dedupe: Literal["global", "tenant"] = "global"
    """Whether equal bytes are kept once for all, or once a tenant."""
    object_lease: float = Field(default=900.0, gt=0, le=LONGEST)
    """Seconds for which an object without a reference is safe from collection."""
    object_timeout: float = Field(default=30.0, gt=0, le=LONGEST)
    """Seconds that the S3 server may take to accept a connection, and to send or take the next bytes."""
    object_connections: int = Field(default=16, ge=1, le=1000)
    """Requests to the store at the same time, each in a thread."""
    s3_url: str | None = None
    """``https://s3.eu-central-1.amazonaws.com``: scheme, host, perhaps a port."""
    s3_bucket: str | None = None
    """The bucket, which must exist."""
    s3_region: str | None = None
    """Its region; unset = asked for."""
    s3_access_key: str | None = Field(default=None, repr=False)
    """The access key."""
    s3_secret_key: str | None = Field(default=None, repr=False)
    """Its secret; never shown."""

    def __init__(self, **values: object) -> None:
        try:
            super().__init__(**values)  # pyright: ignore[reportArgumentType]
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            name = str(first["loc"][0]).upper() if first["loc"] else "settings"
            says = first["msg"].removeprefix("Value error, ")
            raise InvalidArgumentError(f"{name}: {says}") from None

    @field_validator("database_url")
    @classmethod
    def _plain_scheme(cls, url: str | None) -> str | None:
        """yoyo's ``postgresql+psycopg://`` is the same database."""
        if url is None:
            return None
        scheme, separator, rest = url.partition("://")
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg") or not separator:
            raise ValueError("write postgresql://user:password@host:port/database")
        hosts = re.split("[/?]", rest, maxsplit=1)[0].rpartition("@")[2]
        if any(int(port) > 65_535 for port in re.findall(r":(\d+)(?=,|$)", hosts)):
            raise ValueError("a port is 65535 at most")  # asyncpg takes it modulo 65536
        return f"postgresql://{rest}"

    @field_validator("s3_url")
    @classmethod
    def _scheme_and_host(cls, url: str | None) -> str | None:
        if url is not None:
            scheme, separator, host = url.rstrip("/").partition("://")
            if scheme not in ("http", "https") or not separator or not host or {*"/@?#"} & {*host}:
                raise ValueError("write https://host or https://host:port")
        return url

    @field_validator("s3_bucket")
    @classmethod
    def _as_buckets_are_named(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(
            r"[A-Za-z0-9][A-Za-z0-9._:-]{1,61}[A-Za-z0-9]", name
        ):
            raise ValueError("a bucket has a name of 3 to 63 letters, digits, dots and hyphens")
        return name

    @field_validator("db_pool_max_size")
    @classmethod
    def _not_below_minimum(cls, size: int, info: ValidationInfo) -> int:
        if size < info.data.get("db_pool_min_size", 0):
            raise ValueError("must not be below DB_POOL_MIN_SIZE")
        return size

    @property
    def chosen_type(self) -> DatabaseType:
        """``database_type``; unset, it is postgres where DATABASE_URL is set, and embedded where not."""
        return self.database_type or ("postgres" if self.database_url else "embedded")

    def require_database_url(self) -> str:
        """``database_url``, or InvalidArgumentError saying how to set it."""
        if self.database_url is None:
            raise InvalidArgumentError(
                "DATABASE_URL is not set: export DATABASE_URL=postgresql://user@host/database, "
                "or pass Settings(database_url=...); without a server of your own: open_database "
                "with DATABASE_TYPE=embedded"
            )
        return self.database_url
