"""The exceptions that callers catch, and which of them a driver's error becomes.

A driver's exception never reaches the caller bare, and no message here holds a row's or an
argument's value: PostgreSQL writes those into ``detail`` (removed from the cause) and into the
text of data errors (class 22, whose cause is not kept).
"""

from typing import TYPE_CHECKING, Any, Final, NoReturn

import asyncpg

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "BackupError",
    "ConflictError",
    "ConstraintError",
    "DatabaseConnectionError",
    "DatabaseError",
    "DestructiveMigrationError",
    "HistoryTrimmedError",
    "IntegrityError",
    "InvalidArgumentError",
    "NotAMemberError",
    "NotFoundError",
    "PoolTimeoutError",
    "QueryError",
    "SerializationError",
    "StaleEpochError",
    "StorageError",
    "TransactionConflictError",
]


class DatabaseError(Exception):
    """Something about the database or the call went wrong; the base of the errors below.

    Attributes:
        sqlstate: PostgreSQL's five-character code, where PostgreSQL refused.
        constraint: name of the violated constraint, where one was.
        query: the statement, such as ``chat.messages.append_message``.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        constraint: str | None = None,
        query: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.query = query


class DatabaseConnectionError(DatabaseError):
    """The server cannot be reached, refused the login, or went away. Whether a write that was
    under way has been stored is not known; the functions that may be repeated say so."""


class PoolTimeoutError(DatabaseError):
    """Every connection of the pool stayed busy for DB_POOL_TIMEOUT seconds."""


class QueryError(DatabaseError):
    """PostgreSQL refused a statement for a reason that is nobody's data: a wrong statement,
    a missing table or privilege, a timeout, a full disk."""


class DestructiveMigrationError(QueryError):
    """A migration would lose data, and the operator has not named it: it was not applied.

    Attributes:
        losses: what would be lost, by the migration that would lose it.
    """

    def __init__(self, message: str, *, losses: dict[str, str], query: str | None = None) -> None:
        super().__init__(message, query=query)
        self.losses = losses


class BackupError(QueryError):
    """A table cannot be backed up, or its backup is not what was put into it; nothing was changed."""


class NotFoundError(DatabaseError):
    """What the caller named does not exist, or is not the caller's to know of."""


class SerializationError(DatabaseError):
    """A row does not fit its model: the schema and this version of the program differ."""


class ConflictError(DatabaseError):
    """What is there does not allow it: a name, id or path is taken, the content is not the expected
    one, or a status may not become this one."""


class ConstraintError(DatabaseError):
    """A rule of the schema (a CHECK, a foreign key, NOT NULL) forbids this row."""


class InvalidArgumentError(DatabaseError, ValueError):
    """An argument is of the wrong type or out of range; nothing was sent to the server."""


class TransactionConflictError(DatabaseError):
    """Another transaction was in the way (serialization failure, deadlock, lock timeout):
    do the whole transaction again, as `run_transaction` does."""


class NotAMemberError(DatabaseError):
    """The sender or reader is not an active member of the conversation.

    Attributes:
        convo_ids: the conversations that refused.
    """

    def __init__(
        self, message: str, *, convo_ids: tuple[str, ...] = (), query: str | None = None
    ) -> None:
        super().__init__(message, query=query)
        self.convo_ids = convo_ids


class StaleEpochError(DatabaseError):
    """The conversation is at another epoch (RFC 9420 §14): catch up from it, then try again.

    Attributes:
        current_epoch: the epoch that the conversation is at.
    """

    def __init__(self, message: str, *, current_epoch: int, query: str | None = None) -> None:
        super().__init__(message, query=query)
        self.current_epoch = current_epoch


class HistoryTrimmedError(DatabaseError):
    """Retention has removed messages that the reader has not seen.

    Attributes:
        trimmed_seq: messages up to this `seq` are gone, but for commits; read on from it.
    """

    def __init__(self, message: str, *, trimmed_seq: int, query: str | None = None) -> None:
        super().__init__(message, query=query)
        self.trimmed_seq = trimmed_seq


class StorageError(Exception):
    """The object store (S3 or a folder) failed."""


class IntegrityError(StorageError):
    """Bytes that came back are not the bytes that were stored."""


_GONE = (NotFoundError, "the object is gone: its lease had ended; store it again")

# What a violated constraint says to the caller, where its name says more than its kind.
BY_CONSTRAINT: Final[dict[str, tuple[type[DatabaseError], str]]] = {
    "conversations_pkey": (ConflictError, "this conversation id is taken"),
    "members_convo_id_fkey": (NotFoundError, "no such conversation"),
    "messages_convo_id_fkey": (NotFoundError, "no such conversation"),
    "messages_convo_id_id_key": (ConflictError, "a message of this conversation has this id"),
    "messages_convo_id_epoch_key": (ConflictError, "this epoch has its commit"),
    "users_username_key": (ConflictError, "this username is taken"),
    "users_email_key": (ConflictError, "this email is another user's"),
    "users_did_key": (ConflictError, "this DID is another user's"),
    "blobs_convo_id_fkey": (NotFoundError, "no such conversation"),
    "blobs_object_fkey": _GONE,
    "collections_owner_id_name_key": (ConflictError, "the owner has a collection of this name"),
    "collections_owner_id_fkey": (NotFoundError, "no such user"),
    "collections_sync_check": (
        InvalidArgumentError,
        "sync_interval_minutes: a continuous sync needs it, and a one-time sync has none",
    ),
    "collection_permissions_user_id_fkey": (NotFoundError, "no such user"),
    "collection_permissions_collection_id_fkey": (NotFoundError, "no such collection"),
    "documents_collection_id_fkey": (NotFoundError, "no such collection"),
    "documents_object_fkey": _GONE,
    "chunks_document_fkey": (NotFoundError, "no such document"),
    "operations_pkey": (ConflictError, "this operation id is taken"),
    "operations_collection_id_fkey": (NotFoundError, "no such collection"),
    "key_packages_did_cipher_suite_ref_key": (ConflictError, "this key package is stored"),
    "vaults_user_id_fkey": (NotFoundError, "no such user"),
    "folders_path_key": (ConflictError, "this path is taken"),
    "folders_path_check": (InvalidArgumentError, "path: the vault takes no such path"),
    "files_path_key": (ConflictError, "this path is taken"),
    "files_path_check": (InvalidArgumentError, "path: the vault takes no such path"),
    "files_object_fkey": _GONE,
    "file_versions_object_fkey": _GONE,
    "published_pages_permalink_key": (ConflictError, "another page has this permalink"),
    "published_pages_permalink_check": (InvalidArgumentError, "permalink: pages take none such"),
}

# By SQLSTATE, then by its class (the first two characters).
BY_SQLSTATE: Final[dict[str, tuple[type[DatabaseError], str]]] = {
    "0A000": (QueryError, "PostgreSQL does not support this"),
    "08": (DatabaseConnectionError, "the connection to PostgreSQL was lost"),
    "22": (InvalidArgumentError, "PostgreSQL cannot represent a value"),
    "23": (ConstraintError, "a constraint forbids this"),
    "23503": (ConstraintError, "a foreign key forbids this"),
    "23505": (ConflictError, "this key is taken"),
    "28": (DatabaseConnectionError, "PostgreSQL refused the login"),
    "3D000": (DatabaseConnectionError, "this database does not exist"),
    "40": (TransactionConflictError, "another transaction was in the way; do this one again"),
    "40P01": (TransactionConflictError, "deadlock with another transaction; do this one again"),
    "42501": (QueryError, "this role lacks a privilege"),
    "42P01": (QueryError, "a table is missing: apply the migrations"),
    "53300": (DatabaseConnectionError, "PostgreSQL has no connection free (max_connections)"),
    "53": (QueryError, "PostgreSQL is short of a resource (disk, memory)"),
    "55P03": (TransactionConflictError, "waited for a lock for lock_timeout; do this again"),
    "57014": (QueryError, "cancelled: it ran for statement_timeout, or an operator ended it"),
    "57P": (
        DatabaseConnectionError,
        "PostgreSQL is shutting down, starting, or ended this session",
    ),
    "25006": (QueryError, "this server, or this transaction, is read only"),
    "25P02": (
        QueryError,
        "a statement of this transaction failed before; leave its block, or use a savepoint",
    ),
    "25P03": (DatabaseConnectionError, "idle in a transaction for longer than allowed"),
    "25P04": (DatabaseConnectionError, "a transaction ran for longer than transaction_timeout"),
}

BAD_URL: Final = (
    "DATABASE_URL: not a PostgreSQL connection URL, or its sslmode and certificates do not fit; "
    "write postgresql://user:password@host:port/database"
)

ESCAPE_AT: Final = "DATABASE_URL: write the password's @ as %40"

# What a driver may raise. asyncpg lets OSError and TimeoutError through while connecting.
DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
CONNECT_ERRORS: Final = (*DRIVER_ERRORS, OSError, TimeoutError)


def raise_translated(
    error: BaseException,
    *,
    query: str | None = None,
    place: str | None = None,
    connecting: bool = False,
) -> NoReturn:
    """Raise what a driver's exception becomes, with it as the cause where it holds no values.

    Args:
        error: what the driver raised.
        query: the statement's label.
        place: ``file:line:column`` in the .sql file, where PostgreSQL gave a position.
        connecting: no statement was sent yet, so whatever was refused is the connection.
    """
    translated = _translate(error, query, place)
    if connecting and type(translated) is QueryError:
        translated = DatabaseConnectionError(
            f"while connecting: {translated}", sqlstate=translated.sqlstate
        )
    raise translated from (None if isinstance(translated, InvalidArgumentError) else error)


def of_psycopg(
    error: "psycopg.Error", *, query: str | None = None, place: str | None = None
) -> DatabaseError:
    """What an error of psycopg becomes: who waits or connects may try again, all else is a `QueryError`."""
    import psycopg

    sqlstate = error.sqlstate
    if sqlstate is None:  # libpq's own: not reached, login refused, connection lost
        gone = isinstance(error, psycopg.OperationalError)
        kind = DatabaseConnectionError if gone else QueryError
        return kind(" ".join(str(error).split()), query=query)
    kind, says = _by_sqlstate(sqlstate)
    if kind not in (DatabaseConnectionError, TransactionConflictError):
        kind = QueryError
    if not sqlstate.startswith("22"):  # whose text quotes values, as DETAIL does
        says = error.diag.message_primary or says
    return kind(
        f"{place}: {says} ({sqlstate})" if place else f"{says} ({sqlstate})",
        sqlstate=sqlstate,
        constraint=error.diag.constraint_name,
        query=query,
    )


def _translate(error: BaseException, query: str | None, place: str | None) -> DatabaseError:
    if isinstance(error, asyncpg.PostgresError):
        return _of_postgres(error, query, place)
    if isinstance(error, asyncpg.InterfaceError):
        return _of_interface(error, query)
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):
        return QueryError(_join(query, "a type was changed; ask again"), query=query)
    if isinstance(error, asyncpg.InternalClientError):  # it ended between two statements of ours
        says = "the connection to PostgreSQL was lost"
        return DatabaseConnectionError(_join(query, says), query=query)
    if isinstance(error, OSError | TimeoutError):
        says = f"PostgreSQL cannot be reached: {error or type(error).__name__}"  # no password in it
        return DatabaseConnectionError(_join(query, says), query=query)
    return QueryError(_join(query, f"driver: {type(error).__name__}"), query=query)


def _of_postgres(
    error: asyncpg.PostgresError, query: str | None, place: str | None
) -> DatabaseError:
    fields: Any = error  # asyncpg sets these from what the server sends
    fields.detail = fields.context = fields.internal_query = None  # these hold row values
    sqlstate: str = fields.sqlstate or "XX000"
    constraint: str | None = fields.constraint_name
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        kind, says = TransactionConflictError, "a migration changed a table; do this again"
    elif constraint in BY_CONSTRAINT:
        kind, says = BY_CONSTRAINT[constraint]
    else:
        kind, says = _by_sqlstate(sqlstate)
    if sqlstate.startswith("42"):  # names and syntax, never values
        says = f"{says}: {error.args[0]}"
    details = [sqlstate, *([constraint] if constraint else []), *([place] if place else [])]
    return kind(
        _join(query, f"{says} ({', '.join(details)})"),
        sqlstate=sqlstate,
        constraint=constraint,
        query=query,
    )


def _by_sqlstate(sqlstate: str) -> tuple[type[DatabaseError], str]:
    for code in (sqlstate, sqlstate[:3], sqlstate[:2]):
        if code in BY_SQLSTATE:
            return BY_SQLSTATE[code]
    return QueryError, "PostgreSQL refused the statement"


def _of_interface(error: asyncpg.InterfaceError, query: str | None) -> DatabaseError:
    text = str(error)
    if isinstance(error, asyncpg.ClientConfigurationError):  # it quotes the URL
        return InvalidArgumentError(BAD_URL, query=query)
    if isinstance(error, ValueError) or "query argument" in text:  # asyncpg quotes the value
        return InvalidArgumentError(
            _join(query, "an argument does not fit its parameter's type"), query=query
        )
    if "another operation" in text:
        says = (
            "this connection is busy with another task's statement; "
            "give each task its own transaction, or pass the pool"
        )
        return QueryError(_join(query, says), query=query)
    if "closed" in text or "closing" in text or "released" in text:
        return DatabaseConnectionError(_join(query, text.splitlines()[0]), query=query)
    return QueryError(_join(query, text.splitlines()[0]), query=query)


def _join(query: str | None, says: str) -> str:
    return f"{query}: {says}" if query else says
