"""`catbird-db check`, `docs` and `explain`: `register` adds them to the command."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from ..errors import DatabaseError, InvalidArgumentError
from ..terminal import DatabaseUrl as AnyDatabaseUrl
from ..terminal import bar, database, err, fail

if TYPE_CHECKING:
    from .runner import Report

_DOCUMENT = Path("docs/queries.md")

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="An existing, migrated database: it is only read. What needs a throwaway is skipped, and"
        " said to be.",
    ),
]

out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # for other programs too


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    app.command()(docs)
    app.command()(explain)


def check(
    database_url: DatabaseUrl = None,
    rule: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this rule; more than once: these.")
    ] = None,
    form: Annotated[
        Literal["text", "json", "github"],
        typer.Option("--format", help="How findings are printed."),
    ] = "text",
    package: Annotated[
        str, typer.Option(help="A package with sql/, and perhaps migrations/, of its own.")
    ] = "catbird_db",
) -> None:
    """Prove every statement, stub and migration; exit status 1 if anything is found.

    On a throwaway PostgreSQL, migrated and filled. With --database-url, on that database.
    """
    sys.path.append("")  # a package of the folder that one stands in
    with _errors_in_one_line():
        from .finding import render
        from .runner import run

        with bar("") as progress:
            report = run(
                database_url=database_url,
                rules=rule or None,
                package=package,
                progress=progress,
            )
    text = render(report.findings, form)
    if text:
        out.print(text)
    for line in report.skipped:
        err.print(f"skipped  {line}", markup=False)
        if form == "github":
            out.print(f"::notice title=catbird-db check: skipped::{line}")
    if form == "text":
        _summarise(report)
    raise typer.Exit(1 if report.findings else 0)


def _summarise(report: "Report") -> None:
    if report.findings:
        out.print()
    number = len(report.findings)
    found = f"{number} finding{'s' if number != 1 else ''}" if number else "nothing found"
    out.print(
        f"{found}: {report.statements} statements, {len(report.rules_run)} rules,"
        f" {report.seconds:.1f} s"
    )


def docs(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit status 1 if it is stale.")
    ] = False,
    path: Annotated[Path, typer.Option(help="Where.")] = _DOCUMENT,
) -> None:
    """Write docs/queries.md: for a DBA, each statement with its types and its plan."""
    with _errors_in_one_line():
        from .runner import queries_document

        with bar("") as progress:
            text = queries_document(progress=progress)
    is_stale = not path.exists() or path.read_text("utf-8") != text
    if check and is_stale:
        fail(f"{path} is stale: run 'catbird-db docs'")
    if is_stale:
        path.write_text(text, encoding="utf-8")
    out.print(f"{path} is {'written' if is_stale else 'up to date'}")


def explain(
    name: Annotated[str, typer.Argument(help="get_message, or chat.messages.get_message.")],
    database_url: AnyDatabaseUrl = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", "-a", metavar="K=V", help="A parameter's value.")
    ] = None,
) -> None:
    """Show one statement's plan and buffers on a database; what it writes is rolled back."""
    given = dict(_pair(one) for one in arg or ())
    with _errors_in_one_line():
        from .database import connect
        from .explain import explain as explained
        from .explain import find_statement

        statement = find_statement(name)
        with database(database_url) as url, connect(url) as connection:
            out.print(explained(connection, statement, given))


def _pair(argument: str) -> tuple[str, str]:
    name, separator, value = argument.partition("=")
    if not separator:
        raise typer.BadParameter(f"{argument}: write name=value", param_hint="--arg")
    return name, value


@contextmanager
def _errors_in_one_line() -> Generator[None]:
    import psycopg

    try:
        yield
    except (DatabaseError, InvalidArgumentError, ImportError, psycopg.OperationalError) as error:
        fail(str(error))
