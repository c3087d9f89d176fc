"""The marks, and what is printed and written: a table, a page of docs, a plot, and the figures."""

import json
import os
import platform
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

from catbird_db.embedded import EmbeddedServer

from .buffers import Buffers
from .contenders import (
    CONTENDERS,
    AsyncpgPool,
    FourStatements,
    Ours,
    Pgbench,
    SqlAlchemy,
)
from .corpus import BARE_COPY, CHUNKS_PER_DOCUMENT, LIST_LAYOUT, NAIVE, Corpus
from .corpus import OURS as OUR_CORPUS
from .measure import Measured, Pace
from .moves import Moves
from .objects import DIRECT, HASHING, Transfer
from .tables import BATCH

__all__ = ["ONE_BY_ONE", "Mark", "Results", "Scenario", "facts_of", "judge", "show", "write"]

ONE_BY_ONE = "catbird_db, one by one"
"""create_message beside create_messages."""

TITLES = {
    "get_message": "get_message",
    "list_messages": "list_messages, a page of 50",
    "create_message": "create_message",
    "create_message_hot": "create_message, all in one conversation",
    "create_messages": f"create_messages ({BATCH}), per message",
    "consume_key_package": "consume_key_package, of one DID",
}

LEVELS = {"list_folder": 4, "take_operation": 4, "page_documents": 8}
"""By how many buffers more a look costs in a larger table, where it descends several indexes: each is
a level higher, and a page of rows may end on the next page of the heap. A claim writes to three indexes.
Documents lie in the order in which they came, here by chance: of 50 in a row few are neighbours, and in a
table of a few pages more of them are. 2 for all others."""

SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "autovacuum",
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One operation under one condition; not durable is synchronous_commit = off."""

    operation: str
    tasks: int
    durable: bool = True

    @property
    def title(self) -> str:
        return TITLES[self.operation]

    @property
    def condition(self) -> str:
        tasks = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        return tasks if self.durable else f"{tasks}, synchronous_commit = off"


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark: what was promised, what was found."""

    text: str
    limit: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Results:
    facts: Mapping[str, str]
    measured: Mapping[Scenario, Measured]
    objects: Mapping[Transfer, Measured]
    buffers: Buffers
    moves: Moves
    corpus: Corpus
    import_seconds: float
    marks: list[Mark]


async def facts_of(server: EmbeddedServer, pace: Pace) -> dict[str, str]:
    connection = await asyncpg.connect(server.url)
    try:
        settings = {name: await connection.fetchval(f"SHOW {name}") for name in SETTINGS}
        postgres = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    libraries = ("asyncpg", "pydantic", "psycopg", "SQLAlchemy")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.release()}",
        "load before": _load(),
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "postgresql": f"{postgres}, on the same machine, by a Unix socket",
        "settings": ", ".join(f"{name} = {value}" for name, value in settings.items()),
        "method": f"at most {pace.rounds} rounds of turns of about {pace.seconds * 1000:g} ms, in rotation; medians",
    }


def _load() -> str:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    busy = ": the machine was busy, and the figures are worth less" if load > cores / 2 else ""
    return f"{load:.1f} on {cores} cores{busy}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# The marks.


def judge(
    measured: Mapping[Scenario, Measured],
    objects: Mapping[Transfer, Measured],
    buffers: Buffers,
    moves: Moves,
    corpus: Corpus,
    import_seconds: float,
) -> list[Mark]:
    marks: list[Mark] = []

    def at_most(limit: float, text: str, scenario: Scenario, other: str) -> None:
        ratio = measured[scenario].ratio(Ours.name, other)
        marks.append(Mark(text, f"≤ {limit:g}", f"{ratio:.2f}", ratio <= limit))

    def at_least(limit: float, text: str, ratio: float) -> None:
        marks.append(Mark(text, f"≥ {limit:g}", f"{ratio:.2f}", ratio >= limit))

    get, page = Scenario("get_message", 1), Scenario("list_messages", 1)
    pool, orm = AsyncpgPool.name, SqlAlchemy.name
    at_most(0.75, "get_message, time of the stock pool's fetchrow, 1 task", get, pool)
    at_most(
        0.9,
        "get_message, time of the stock pool's fetchrow, 16 tasks",
        Scenario("get_message", 16),
        pool,
    )
    at_most(0.25, "get_message, time of SQLAlchemy's", get, orm)
    at_most(1.1, "page of 50 as models, time of the stock pool's fetch of records", page, pool)
    at_most(0.35, "page of 50, time of SQLAlchemy's", page, orm)
    for scenario in measured:
        if scenario.operation in ("create_message", "create_message_hot"):
            ratio = 1 / measured[scenario].ratio(Ours.name, FourStatements.name)
            text = f"{scenario.title}, rate of four statements, {scenario.condition}"
            at_least(2, text, ratio)
    for scenario in measured:
        if scenario.operation == "create_messages":
            ratio = 1 / measured[scenario].ratio(Ours.name, ONE_BY_ONE)
            at_least(10, f"{scenario.title}, rate of create_message, {scenario.condition}", ratio)
    for transfer, found in objects.items():
        ratio = 1 / found.ratio(Ours.name, DIRECT)
        at_least(transfer.mark, f"{transfer.title}, rate of the minio client alone", ratio)
    for operation in dict.fromkeys(one.operation for one in buffers.touched):
        plans = [one for one in buffers.touched if one.operation == operation]
        small, large = plans[0].rows
        text = f"{operation}, buffers at {large:,} rows above those at {small:,}"
        for where, counts in (
            ("in one table", [(one.small_beside_large, one.large) for one in plans]),
            ("in tables of these sizes", [(one.small, one.large) for one in plans]),
        ):
            before, after = max(counts, key=lambda count: count[1] - count[0])  # of the worse plan
            limit = LEVELS.get(operation, 2) if where != "in one table" else 2
            found = f"{after - before:+} ({before} → {after})"
            marks.append(Mark(f"{text}, {where}", f"≤ {limit}", found, after - before <= limit))
    for operation, other, limit, text in (
        ("replace_chunks", BARE_COPY, 0.8, "rate of a bare COPY into the same table"),
        ("get_chunks_by_document", LIST_LAYOUT, 5, "rate of the same on 100 LIST partitions"),
        ("claim_operation", NAIVE, 2, "16 workers, rate of SELECT, then UPDATE"),
    ):
        ratio = 1 / corpus.measured[operation].ratio(OUR_CORPUS, other)
        at_least(limit, f"{operation}, {text}", ratio)
    for flat in corpus.buffers:
        small, large = corpus.sizes.chunks
        text = f"{flat.statement}, buffers at {large:,} chunks above those at {small:,}"
        limit = LEVELS.get(flat.statement, 2)
        found = f"{flat.large - flat.small:+} ({flat.small} → {flat.large})"
        marks.append(Mark(text, f"≤ {limit}", found, flat.large - flat.small <= limit))
    text = f"move_folder of {moves.descendants:,} descendants, rate of the same row by row"
    at_least(2, text, moves.ratio)
    found = f"{import_seconds:.2f} s"
    marks.append(Mark("import catbird_db", "< 0.4 s", found, import_seconds < 0.4))
    return marks


# The tables, as rows of texts.


def _timings(results: Results) -> tuple[list[str], list[list[str]]]:
    names = [one.name for one in CONTENDERS]
    header = ["µs", *names]
    rows: list[list[str]] = []
    for scenario, measured in results.measured.items():
        row = [f"{scenario.title}; {scenario.condition}"]
        for name in names:
            row.append("")
            if name in measured.rounds:
                times = f"x{measured.ratio(name, Ours.name):.2f}"
                row[-1] = f"{measured.median(name):,.0f}" + (
                    "" if name == Ours.name else f" {times}"
                )
        rows.append(row)
    return header, rows


def _objects(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            transfer.title,
            f"{measured.median(Ours.name):,.0f}",
            f"{measured.median(DIRECT):,.0f}",
            f"{1 / measured.ratio(Ours.name, DIRECT):.2f}",
            f"{1 / measured.ratio(Ours.name, HASHING):.2f}" if HASHING in measured.rounds else "",
        ]
        for transfer, measured in results.objects.items()
    ]
    header = ["µs", Ours.name, "minio client alone", "our rate as a part of its"]
    return [*header, "and of its with SHA-256"], rows


def _marks(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [[m.text, m.limit, m.found, "yes" if m.passed else "no"] for m in results.marks]
    return ["mark", "limit", "found", "met"], rows


def _buffers(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            f"{t.operation}, {t.plan} plan",
            f"{t.rows[0]:,}: {t.small}",
            f"{t.rows[0]:,}: {t.small_beside_large}",
            f"{t.rows[1]:,}: {t.large}",
        ]
        for t in results.buffers.touched
    ]
    return [
        "buffers",
        "small, in a small table",
        "small, in the large table",
        "large, in the large table",
    ], rows


def _bursts(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            f"{burst.claims:,}",
            "yes" if burst.under_snapshot else "no",
            f"{burst.buffers}",
            f"{burst.milliseconds:.2f}",
        ]
        for burst in results.buffers.bursts
    ]
    return [
        "claims since the last vacuum",
        "older snapshot open",
        "buffers of the next",
        "ms",
    ], rows


def _by_relation(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [[name, f"{count:.1f}"] for name, count in results.buffers.by_relation.items()]
    total = sum(results.buffers.by_relation.values())
    return ["relation", "buffers"], [*rows, ["all", f"{total:.1f}"]]


def _corpus(results: Results) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            operation,
            name,
            f"{measured.median(name):,.0f}",
            f"x{measured.ratio(name, OUR_CORPUS):.2f}",
        ]
        for operation, measured in results.corpus.measured.items()
        for name in measured.rounds
    ]
    return ["operation", "by", "µs", "beside ours"], rows


def _moves(results: Results) -> tuple[list[str], list[list[str]]]:
    moves = results.moves
    rows = [
        ["one statement", f"{moves.one_statement:.2f}", "x1.00"],
        [
            "row by row, prepared, in one transaction",
            f"{moves.row_by_row:.2f}",
            f"x{moves.ratio:.2f}",
        ],
    ]
    return [f"move_folder of {moves.descendants:,} descendants", "seconds", "beside ours"], rows


# Shown.


def show(results: Results) -> None:
    console = Console()
    for name, value in results.facts.items():
        console.print(f"[dim]{name}:[/] {value}", highlight=False)
    console.print(_timings_table(results))
    for header, rows in (
        _objects(results),
        _buffers(results),
        _by_relation(results),
        _bursts(results),
        _moves(results),
        _corpus(results),
        _marks(results),
    ):
        console.print(_table(header, rows))
    missed = sum(not mark.passed for mark in results.marks)
    console.print(f"{len(results.marks) - missed} of {len(results.marks)} marks met")


def _timings_table(results: Results) -> Table:
    table = _table(["operation", "by", "µs", "beside ours", "a second"], [])
    for scenario, measured in results.measured.items():
        title = f"{scenario.title}\n[dim]{scenario.condition}[/]"
        for name in measured.rounds:
            microseconds = measured.median(name)
            table.add_row(
                title,
                f"[bold]{name}[/]" if name == Ours.name else name,
                f"{microseconds:,.0f}",
                f"x{measured.ratio(name, Ours.name):.2f}",
                f"{1e6 / microseconds:,.0f}",
            )
            title = ""
        table.add_section()
    return table


def _table(header: list[str], rows: list[list[str]]) -> Table:
    table = Table(header_style="bold")
    for number, title in enumerate(header):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        colour = {"yes": "[green]", "no": "[red]"}.get(row[-1], "") if header[-1] == "met" else ""
        table.add_row(*row[:-1], colour + row[-1])
    return table


# Written.


def write(results: Results, folder: Path) -> None:
    """benchmarks.md, benchmarks.json and benchmarks.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(_as_json(results), encoding="utf-8")
    (folder / "benchmarks.md").write_text(_as_page(results), encoding="utf-8")
    _plot(results, folder / "benchmarks.svg")


def _as_json(results: Results) -> str:
    timings = [
        {
            **asdict(scenario),
            "microseconds": {name: round(measured.median(name), 1) for name in measured.rounds},
            "rounds": {
                name: [round(one, 1) for one in rounds] for name, rounds in measured.rounds.items()
            },
        }
        for scenario, measured in results.measured.items()
    ]
    found = {
        "facts": dict(results.facts),
        "marks": [asdict(mark) for mark in results.marks],
        "timings": timings,
        "objects": [
            {**asdict(transfer), "rounds": dict(measured.rounds)}
            for transfer, measured in results.objects.items()
        ],
        "buffers": asdict(results.buffers),
        "moves": asdict(results.moves),
        "corpus": {
            "microseconds": {
                operation: {name: round(measured.median(name), 1) for name in measured.rounds}
                for operation, measured in results.corpus.measured.items()
            },
            "buffers": [asdict(flat) for flat in results.corpus.buffers],
            "naive claims in vain": round(results.corpus.vain, 3),
        },
        "import_seconds": round(results.import_seconds, 3),
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


PAGE = """\
# Benchmarks

Written by `make bench`: do not edit. Its measurements, round by round, are in
[benchmarks.json](benchmarks.json); the code is `benchmarks/`.

{facts}

Contenders take turns of equal length, each round in another order; a figure is the median of the
rounds, a ratio the median of the rounds' ratios. Microseconds are wall-clock time divided by calls, so
with 16 tasks they are the inverse of the throughput. Every pool has ten connections at most; held
connections and pgbench have one for each task. All but SQLAlchemy send the text of `sql/`; all but
catbird_db and SQLAlchemy return what the driver returns. The server has its default durability; rows
marked `synchronous_commit = off` show what is left when nobody waits for the disk.

![Time of a call, by contender](benchmarks.svg)

## Marks

{marks}

## Times

Each beside ours: x1.27 takes 1.27 times as long as catbird_db.

{timings}

create_message as four statements is the same work on asyncpg's stock pool, in a transaction: lock the
conversation and the member, insert, update the conversation, update the member.

## Objects

put_object and open_object on a SeaweedFS of this machine, beside the minio client called directly, in as many threads.
Ours is that client with two short transactions around an upload, and one look-up and the check of the hash for a read.

{objects}

## Buffers

`EXPLAIN (ANALYZE, BUFFERS)`, shared hit + read, after a vacuum. The small conversation (DID, vault) is
measured in a database of its own size and beside the large one; the difference of the two is that of the
height of the indexes, which one level more brings for each index that is descended.

{buffers}

By relation, one create_message in the large database, with the check of the foreign key, which EXPLAIN
does not count:

{by_relation}

It descends conversations_pkey three times (to lock the row, to update it, for the foreign key), finds the
member's row to lock it and to update it, looks for the message id before it inserts one, and enters the
message into two indexes. The rest are heap pages: the conversation's and the member's row, old and new
version on one page (HOT), and the page that the message goes to.

A claimed package leaves a dead entry at the head of the index, which the next claims step over until
a vacuum:

{bursts}

## A folder that moves

{moves}

Median of rounds in which both move the same tree, after a vacuum. Most of the time goes to the indexes that
hold a path: three of `files`.

## Corpus

`get_chunks_by_document` reads the {per_document} chunks of a document among {chunks:,}, by 1 task: beside the same query on another
layout, 100 LIST partitions by a key that the query does not have, on asyncpg's stock pool, and beside an ORM
without access control. `replace_chunks` gives a document {replaced:,} chunks instead of as many; the bare COPY adds as many
to a document that has none. `claim_operation` and `complete_operation`, by 16 workers, beside a SELECT of the
oldest and an UPDATE of it, tried again where another was first: {vain:.0%} of those were in vain.

{corpus}
"""


def _as_page(results: Results) -> str:
    return PAGE.format(
        facts="\n".join(f"- {name}: {value}" for name, value in results.facts.items()),
        marks=_as_markdown(*_marks(results)),
        timings=_as_markdown(*_timings(results)),
        objects=_as_markdown(*_objects(results)),
        buffers=_as_markdown(*_buffers(results)),
        by_relation=_as_markdown(*_by_relation(results)),
        bursts=_as_markdown(*_bursts(results)),
        moves=_as_markdown(*_moves(results)),
        corpus=_as_markdown(*_corpus(results)),
        per_document=CHUNKS_PER_DOCUMENT,
        chunks=results.corpus.sizes.chunks[1],
        replaced=results.corpus.sizes.replaced,
        vain=results.corpus.vain,
    )


def _as_markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


OURS, OTHERS, FLOOR = "#c2410c", "#94a3b8", "#cbd5e1"
INK, PAPER = "#1f2937", "#ffffff"


def _plot(results: Results, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "catbird_db"  # the same figures, the same file
    shown = [scenario for scenario in results.measured if scenario.durable]
    figure, axes = plt.subplots(-(-len(shown) // 2), 2, figsize=(11, 1.75 * (len(shown) + 1) / 2))
    figure.set_facecolor(PAPER)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, scenario in zip(axes.flat, shown, strict=False):
        measured = results.measured[scenario]
        names = [one.name for one in CONTENDERS if one.name in measured.rounds]
        medians = [measured.median(name) for name in names]
        colours = [{Ours.name: OURS, Pgbench.name: FLOOR}.get(name, OTHERS) for name in names]
        bars = axis.barh(names, medians, color=colours, height=0.72)
        axis.bar_label(
            bars, [f"{median:,.0f} µs" for median in medians], padding=3, fontsize=7.5, color=INK
        )
        axis.invert_yaxis()
        axis.set_title(
            f"{scenario.title}; {scenario.condition}",
            fontsize=9,
            loc="left",
            color=INK,
            weight="bold",
        )
        axis.set_xlim(0, 1.18 * max(medians))
        axis.set_xticks([])
        axis.tick_params(axis="y", labelsize=7.5, length=0, labelcolor=INK)
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.suptitle(
        "Microseconds a call (less is better)",
        fontsize=11,
        color=INK,
        x=0.01,
        ha="left",
        weight="bold",
    )
    figure.text(0.01, 0.005, textwrap.shorten(_caption(results), 170), fontsize=6.5, color=INK)
    figure.tight_layout(rect=(0, 0.012, 1, 1))
    figure.savefig(path, format="svg", metadata={"Date": None}, facecolor=PAPER)
    plt.close(figure)


def _caption(results: Results) -> str:
    facts = results.facts
    return f"{facts['date']} · {facts['machine']} · PostgreSQL {facts['postgresql']} · Python {facts['python']}"
