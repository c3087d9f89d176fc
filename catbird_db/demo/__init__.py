"""The demo: real MLS clients hold a conversation through the data layer, on a throwaway PostgreSQL.

`catbird-db demo` runs it. It ends with a table of what this package promises and what was observed
of each promise; it says whether all were kept.
"""

import asyncio
import time
import traceback
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.markup import escape

from ..config import Settings
from ..embedded import start_server
from ..health import health_check
from ..migrate import apply
from ..pool import open_pool
from . import story
from .evidence import Meter, Promise, Verdict
from .scene import Scene
from .stage import Stage, count

__all__ = ["run", "tell"]

BUSIEST = 12
"""Statements in the table of those that took the most time."""


def run(console: Console) -> bool:
    """Start a server, migrate it, tell the story on it, and stop it; whether all promises held.

    Raises:
        DatabaseError: the server does not start, or cannot be migrated.
    """
    stage = Stage(console)
    stage.panel(
        "Seven people, ten devices, one stranger. Each device is a real MLS client (RFC 9420): it "
        "keeps its keys, and all that it learns of the others comes out of PostgreSQL. On the left "
        "are the functions of [bold]catbird_db[/] that are called, on the right what came of it.",
        title="[bold]catbird-db[/] · a conversation, end to end encrypted",
    )
    begin = time.perf_counter()
    with stage.busy("starting PostgreSQL"):
        server = start_server()
    with server:
        started = time.perf_counter() - begin
        with stage.busy("applying the migrations"):
            applied = apply(server.url)
        migrated = time.perf_counter() - begin - started
        stage.rule("A database")
        stage.step("start_server", f"A throwaway PostgreSQL on a Unix socket, in {started:.1f} s.")
        stage.step("apply", f"{', '.join(applied)}, in {migrated:.1f} s.")
        # Not the environment's: the story needs several connections, and locks that are waited for.
        settings = Settings(
            database_url=server.url,
            db_pool_min_size=1,
            db_pool_max_size=10,
            db_pool_timeout=30,
            db_lock_timeout=10,
            db_statement_timeout=30,
        )
        verdict = asyncio.run(tell(settings, stage))
    stage.rule("The end")
    stage.step("", f"Server stopped, data deleted, {time.perf_counter() - begin:.1f} s in all.")
    return show_verdict(stage, verdict)


async def tell(settings: Settings, stage: Stage) -> Verdict:
    """Tell the story on a migrated, empty database, and say what was observed."""
    verdict, meter = Verdict(), Meter()
    begin = time.perf_counter()
    async with open_pool(settings, observe=meter) as pool:
        health = await health_check(pool)
        stage.step(
            "health_check",
            f"{health.status}: PostgreSQL {health.server_version}, {len(health.applied)} "
            f"migrations applied, {len(health.pending)} pending.",
        )
        try:
            await story.tell(Scene(pool, stage, verdict))
        except Exception as error:  # whatever it is: not all was read back and opened
            why = f"the story breaks off: {_describe(error)}"
            verdict.check(Promise.EVERY_BYTE, False, escape(why))
            stage.failure(why)
    show_statements(stage, meter, time.perf_counter() - begin)
    return verdict


def show_statements(stage: Stage, meter: Meter, elapsed: float) -> None:
    """What ran in the database, the busiest statements first."""
    stage.rule("What ran")
    stage.step(
        "",
        f"[bold]{count(meter.calls, 'statement')}[/] took {meter.seconds * 1000:,.0f} ms in the "
        "database, counted one by one: many ran side by side, and some waited for each other. The "
        f"whole story took {elapsed:.1f} s.",
    )
    by_time = sorted(meter.by_statement.items(), key=lambda one: -one[1].seconds)
    rest = by_time[BUSIEST:]
    rows = [
        [name, f"{usage.calls:,}", f"{usage.seconds * 1000:,.1f}", f"{usage.seconds / usage.calls * 1000:.2f}"]
        for name, usage in by_time[:BUSIEST]
    ]  # fmt: skip
    if rest:
        calls, seconds = sum(u.calls for _, u in rest), sum(u.seconds for _, u in rest)
        rows.append([count(len(rest), "other"), f"{calls:,}", f"{seconds * 1000:,.1f}", f"{seconds / calls * 1000:.2f}"])  # fmt: skip
    stage.table(["statement", "calls", "ms", "ms each"], rows, right=["calls", "ms", "ms each"])


def show_verdict(stage: Stage, verdict: Verdict) -> bool:
    """The table of promises, and whether all of them were kept."""
    stage.rule("Promises")
    stage.table(
        ["", "promise", "observed"],
        [
            [stage.mark(verdict.kept(promise)), str(promise), verdict.observed(promise)]
            for promise in Promise
        ],
        spaced=True,
    )
    if verdict.broken:
        stage.failure(f"{len(verdict.broken)} of {len(Promise)} promises were not kept.")
    else:
        stage.success(
            f"All {len(Promise)} promises kept. Every ciphertext above was made, stored, read "
            "back and opened by an MLS client."
        )
    return not verdict.broken


def _describe(error: Any) -> str:
    """What was raised, by the first of several tasks, and in which line of the demo."""
    while isinstance(error, ExceptionGroup):
        error = cast(Any, error).exceptions[0]
    here = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent == Path(__file__).parent
    ]
    where = f" ({Path(here[-1].filename).name}:{here[-1].lineno})" if here else ""
    return f"{type(error).__name__}: {error}{where}"
