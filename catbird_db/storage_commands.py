"""`catbird-db collect` and `reconcile`: `register` adds them to the command."""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape

from .config import Settings
from .terminal import AsJson, DatabaseUrl, bar, database, on_pool, out

if TYPE_CHECKING:
    from .pool import Pool
    from .storage import ObjectStore

T = TypeVar("T")

_BATCH = 1000  # objects
_FINDINGS = ("missing", "damaged", "strays", "unknown")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(collect)
    app.command()(reconcile)


def collect(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Delete the objects that nothing refers to. Any number may run, at any time."""
    from .storage import collect_garbage

    objects = size = 0

    async def run(pool: "Pool", store: "ObjectStore") -> None:
        nonlocal objects, size
        while True:
            collected = await collect_garbage(pool, store, limit=_BATCH)
            objects, size = objects + collected.objects, size + collected.bytes
            progress("objects collected", objects)
            if collected.objects < _BATCH:
                return

    with database(database_url) as url, bar("collecting") as progress:
        _on_store(Settings(database_url=url), run)
    if as_json:
        typer.echo(json.dumps({"objects": objects, "bytes": size}))
    else:
        out.print(f"{objects:,} objects collected, {size:,} bytes")


def reconcile(
    database_url: DatabaseUrl = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="Delete the bytes that no row knows.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all bytes and compare their hashes.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="Of each kind of finding, so many.")
    ] = 1000,
    as_json: AsJson = False,
) -> None:
    """Compare what the object store holds with what the database says; 0 only if nothing is amiss."""
    from . import storage

    async def run(pool: "Pool", store: "ObjectStore") -> storage.Reconciliation:
        return await storage.reconcile(
            pool,
            store,
            mend=mend,
            verify=verify,
            limit=limit,
            on_progress=lambda compared: progress("objects compared", compared),
        )

    with database(database_url) as url, bar("comparing") as progress:
        found = _on_store(Settings(database_url=url), run)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for name in _FINDINGS:
            for one in getattr(found, name):
                out.print(f"{name:8} {escape(one)}", soft_wrap=True)
        amiss = sum(len(getattr(found, name)) for name in _FINDINGS)
        out.print(f"{amiss} findings, {found.removed} strays deleted" if amiss else "nothing amiss")
        if not found.is_whole:
            out.print("there is more than --limit: mend these, and ask again")
    left = len(found.strays) - found.removed
    all_is_well = found.is_whole and not (found.missing or found.damaged or found.unknown or left)
    raise typer.Exit(0 if all_is_well else 1)


def _on_store(settings: Settings, work: "Callable[[Pool, ObjectStore], Awaitable[T]]") -> T:
    from .storage import open_store

    async def run(pool: "Pool") -> T:
        async with open_store(settings) as store:
            return await work(pool, store)

    return on_pool(settings, run)
