"""What the commands share: where they print, which database is meant, and how they fail."""

import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn, Protocol, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from .config import Settings
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from .pool import Pool

T = TypeVar("T")

# A parameter such as :email: is no emoji.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="postgresql://user:password@host:port/database; default: the environment's"
        " DATABASE_URL, or with DATABASE_TYPE=embedded the user's own.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@contextmanager
def database(database_url: str | None) -> Generator[str]:
    """The URL of the database that is meant; one of our own is up for as long as the block lasts."""
    settings = Settings(database_url=database_url) if database_url else Settings()
    kind = "postgres" if database_url else settings.database_type
    if kind == "memory":
        raise InvalidArgumentError(
            "a memory database ends with the program that opened it; DATABASE_TYPE=embedded is kept"
        )
    if kind == "embedded":
        from .embedded import start_server, user_data_dir

        with spinner("starting PostgreSQL"):
            server = start_server(user_data_dir())
        with server:
            yield server.url
        return
    if not settings.database_url:
        raise InvalidArgumentError(
            "which database? give --database-url, or set DATABASE_URL, or DATABASE_TYPE=embedded"
        )
    yield settings.require_database_url()


def on_pool(settings: Settings, work: "Callable[[Pool], Awaitable[T]]") -> T:
    import asyncio

    from .pool import open_pool

    async def run() -> T:
        async with open_pool(settings) as pool:
            return await work(pool)

    return asyncio.run(run())


@contextmanager
def spinner(doing: str) -> Generator[Callable[[str], None]]:
    """On a terminal, what is being done; yields what changes it."""
    if not err.is_terminal:
        yield lambda doing: None
        return
    with err.status(doing) as status:
        yield status.update


class Bar(Protocol):
    """Says what is being done, how much of it is, and of how much, where that is known."""

    def __call__(self, doing: str, done: int = 0, total: int | None = None, /) -> None: ...


@contextmanager
def bar(doing: str, *, console: Console = err, silent: bool = False) -> Generator[Bar]:
    """On a terminal, a bar; yields what moves it."""
    if silent or not console.is_terminal:
        yield lambda doing, done=0, total=None, /: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda doing, done=0, total=None, /: shown.update(
            task, description=escape(doing), completed=done, total=total
        )


def fail(message: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}")
    sys.exit(1)
