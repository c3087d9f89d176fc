"""The `catbird-db` command. Each subcommand imports what it needs, so that `--help` is quick."""

import io
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .check.command import register as register_check
from .config import Settings
from .errors import DatabaseError

__all__ = ["app", "main"]

INTERRUPTED = 130  # what a shell reports for Ctrl-C

out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)

app = typer.Typer(
    name="catbird-db",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
register_check(app)

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar="DATABASE_URL",
        metavar="URL",
        help="postgresql://user:password@host:port/database",
    ),
]


def main() -> None:
    """Run the command; what goes wrong with the database is one line, and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ✓ gets a ?
    try:
        app(prog_name="catbird-db")
    except DatabaseError as error:
        _fail(str(error))


@app.callback(invoke_without_command=True)
def catbird_db(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """The PostgreSQL data layer of an end-to-end-encrypted workspace server.

    New here? [bold]catbird-db demo[/] needs no database: it brings its own.
    """
    if version:
        from importlib.metadata import version as version_of

        out.print(f"catbird-db {version_of('catbird-db')}")
        raise typer.Exit


@app.command()
def demo() -> None:
    """Watch MLS clients hold a conversation on a throwaway PostgreSQL, each promise checked."""
    try:
        from .demo import run
    except ImportError as missing:
        _fail(str(missing))
    try:
        kept = run(out)
    except KeyboardInterrupt:
        err.print("Stopped. The server goes, and its data with it.")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if kept else 1)


@app.command()
def migrate(database_url: DatabaseUrl = None) -> None:
    """Apply the migrations that the database does not have yet."""
    from .migrate import apply

    url = _url(database_url)
    steps = _Steps("applied")
    with steps.shown():
        applied = apply(url, on_step=steps.begin)
    if not applied:
        out.print("Nothing to apply: the database is up to date.")


@app.command()
def rollback(
    database_url: DatabaseUrl = None,
    count: Annotated[int, typer.Option(min=1, help="How many migrations, latest first.")] = 1,
    to: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Instead: the one that is to be the last applied."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Roll back the latest migrations, with the data that they hold."""
    from .migrate import rollback as roll_back
    from .migrate import status as migration_status

    url = _url(database_url)
    if not yes:
        applied = migration_status(url).applied
        doomed = applied[-count:] if to is None else applied[_place(to, applied) :]
        if doomed:
            typer.confirm(f"Roll back {', '.join(reversed(doomed))}, with all data?", abort=True)
    rolled_back = roll_back(url, count=count, target=to)
    for migration in rolled_back:
        out.print(f"rolled back  {migration}")
    if not rolled_back:
        out.print("Nothing to roll back.")


@app.command()
def status(
    database_url: DatabaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the health of the database and its migrations; exit status 0 only if all is well."""
    import asyncio

    from .health import Health, health_check
    from .pool import open_pool

    # No connection beforehand: one that fails is a finding of the health check.
    settings = Settings(database_url=_url(database_url), db_pool_min_size=0)

    async def ask() -> Health:
        async with open_pool(settings) as pool:
            return await health_check(pool)

    health = asyncio.run(ask())
    if as_json:
        typer.echo(health.model_dump_json(indent=2))
    else:
        _show(
            health.status,
            {
                "PostgreSQL": health.server_version,
                "round trip": _milliseconds(health.latency_seconds),
            },
            {
                **dict.fromkeys(health.applied, "applied"),
                **dict.fromkeys(health.pending, "[yellow]pending[/]"),
                **dict.fromkeys(health.unknown, "[red]unknown to this version[/]"),
            },
            health.problems,
        )
    raise typer.Exit(0 if health.status == "ok" else 1)


def _show(
    verdict: str, facts: dict[str, str | None], migrations: dict[str, str], problems: list[str]
) -> None:
    colour = {"ok": "green", "degraded": "yellow"}.get(verdict, "red")
    told = [f"{name} {value}" for name, value in facts.items() if value]
    out.print(", ".join([f"[bold {colour}]{verdict}[/]", *told]))
    for problem in problems:
        out.print(f"[{colour}]{escape(problem)}[/]")
    if migrations:
        table = Table("migration", "state", box=None, padding=(0, 3, 0, 0), pad_edge=False)
        for migration, state in sorted(migrations.items()):
            table.add_row(migration, state)
        out.print("", table, sep="\n")


class _Steps:
    """Lines that say what is done and how long it took; a spinner for what is being done."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._current: str | None = None
        self._since = 0.0
        self._spinner = out.status("connecting")

    @contextmanager
    def shown(self) -> Generator[None]:
        if out.is_terminal:
            self._spinner.start()
        try:
            yield
            self._end(self._done)
        except BaseException:
            self._end("[red]failed[/]")
            raise
        finally:
            self._spinner.stop()

    def begin(self, step: str) -> None:
        self._end(self._done)
        self._current, self._since = step, time.perf_counter()
        self._spinner.update(f"applying {step}")

    def _end(self, how: str) -> None:
        if self._current is not None:
            took = _milliseconds(time.perf_counter() - self._since)
            out.print(f"{how}  {self._current}  [dim]{took}[/]")
        self._current = None


def _place(last: str, applied: list[str]) -> int:
    """Where those begin that were applied after ``last``; behind the end if it is none of them."""
    return applied.index(last) + 1 if last in applied else len(applied)


def _url(database_url: str | None) -> str:
    if not database_url:
        _fail("which database? give --database-url, or set DATABASE_URL")
    return Settings(database_url=database_url).require_database_url()


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:,.1f} ms"


def _fail(message: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}")
    sys.exit(1)
