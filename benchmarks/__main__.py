"""Measure all, judge it by the marks, and write docs/benchmarks.md, .json and .svg.

python -m benchmarks            # about ten minutes; writes to docs/
python -m benchmarks --quick    # a smoke run of the same code; its figures say nothing
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

try:
    import greenlet  # noqa: F401  # SQLAlchemy's asyncio half needs it, and does not require it
    import matplotlib  # noqa: F401
    import psycopg_pool  # noqa: F401
    import sqlalchemy  # noqa: F401
except ModuleNotFoundError as missing:
    sys.exit(f"no module {missing.name}: pip install -e '.[bench]'")

import asyncpg

from catbird_db.embedded import EmbeddedServer, start_server

from .buffers import Sizes, measure_buffers
from .contenders import CONTENDERS, READ_CONVO, READ_MESSAGES, TASKS, Contender, Ours
from .corpus import CorpusSizes, measure_corpus
from .measure import Measured, Pace, Turn, import_seconds, measure
from .moves import measure_moves
from .objects import measure_objects
from .report import ONE_BY_ONE, Results, Scenario, facts_of, judge, show, write
from .tables import (
    BATCH,
    check_counters,
    create_database,
    fill_background,
    fill_conversations,
    fill_key_packages,
    fill_messages,
)

DATABASES = {True: "durable", False: "not_durable"}

SCENARIOS = (
    Scenario("get_message", 1),
    Scenario("get_message", TASKS),
    Scenario("list_messages", 1),
    Scenario("list_messages", TASKS),
    Scenario("create_message", 1),
    Scenario("create_message", TASKS),
    Scenario("create_message_hot", TASKS),
    Scenario("create_messages", 1),
    Scenario("consume_key_package", 1),
    Scenario("consume_key_package", TASKS),
    Scenario("create_message", 1, durable=False),
    Scenario("create_message", TASKS, durable=False),
    Scenario("create_messages", 1, durable=False),
)


async def time_all(server: EmbeddedServer, pace: Pace) -> dict[Scenario, Measured]:
    measured: dict[Scenario, Measured] = {}
    for durable, database in DATABASES.items():
        url = await create_database(
            server, database, *([] if durable else ["synchronous_commit = off"])
        )
        connection = await asyncpg.connect(url)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(connection.close)
            contenders = [
                await stack.enter_async_context(one(server, database).opened())
                for one in CONTENDERS
            ]
            await fill_background(connection)
            await fill_conversations(connection, [READ_CONVO])
            await fill_messages(connection, [READ_CONVO], READ_MESSAGES, numbered=True)
            await fill_conversations(connection, [id for one in contenders for id in one.convo_ids])
            for scenario in SCENARIOS:
                if scenario.durable is durable:
                    progress(f"{scenario.title}, {scenario.condition}")
                    measured[scenario] = await time_one(connection, scenario, contenders, pace)
            await check_counters(connection)
    return measured


async def time_one(
    connection: asyncpg.Connection, scenario: Scenario, contenders: list[Contender], pace: Pace
) -> Measured:
    turns: dict[str, Turn] = {
        one.name: one.turn(scenario.operation)
        for one in contenders
        if scenario.operation in one.operations
    }
    units: dict[str, int] = {}
    if scenario.operation == "create_messages":
        units = dict.fromkeys(turns, BATCH)
        turns[ONE_BY_ONE] = next(o for o in contenders if isinstance(o, Ours)).turn(
            "create_message"
        )

    async def supply(calls: Mapping[str, int]) -> None:
        for one in contenders:
            count = calls.get(one.name, 0) * one.longer
            await fill_key_packages(connection, [one.did], count, last_resorts=False)

    claims = scenario.operation == "consume_key_package"
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")
    return await measure(
        turns,
        pace=pace,
        tasks=scenario.tasks,
        units=units,
        before_round=supply if claims else None,
    )


async def run(*, quick: bool) -> Results:
    pace = Pace(rounds=2, seconds=0.005, warm_ups=1) if quick else Pace(rounds=41, seconds=0.03)
    sizes = Sizes((100, 1_000), (100, 1_000), (500, 1_000), (0, 10), (0, 10)) if quick else Sizes()
    progress("import catbird_db")
    importing = import_seconds("catbird_db", times=2 if quick else 9)
    with (
        tempfile.TemporaryDirectory(prefix="catbird-bench-", dir="/tmp") as home,
        start_server(Path(home) / "server") as server,
    ):
        facts = await facts_of(server, pace)
        measured = await time_all(server, pace)
        progress("put_object, open_object")
        objects = await measure_objects(await create_database(server, "objects"), quick=quick)
    progress(f"buffers, at {sizes.messages[1]:,} messages")
    with start_server() as throwaway:
        buffers = await measure_buffers(throwaway, sizes)
    descendants = 1_000 if quick else 50_000
    progress(f"move_folder, {descendants:,} files")
    with start_server() as throwaway:
        moves = await measure_moves(throwaway, descendants, rounds=1 if quick else 5)
    of_corpus = CorpusSizes((2_000, 4_000), 100) if quick else CorpusSizes()
    progress(f"the corpus, at {of_corpus.chunks[1]:,} chunks")
    with (
        tempfile.TemporaryDirectory(prefix="catbird-bench-", dir="/tmp") as home,
        start_server(Path(home) / "server") as server,
    ):
        corpus = await measure_corpus(server, pace, of_corpus)
    marks = judge(measured, objects, buffers, moves, corpus, importing)
    return Results(facts, measured, objects, buffers, moves, corpus, importing, marks)


def progress(what: str) -> None:
    print(f"· {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: seconds, no figures")
    parser.add_argument("--output", type=Path, help="where to write (docs; nowhere if --quick)")
    given = parser.parse_args()
    results = asyncio.run(run(quick=given.quick))
    show(results)
    output = given.output or (None if given.quick else Path(__file__).parents[1] / "docs")
    if output:
        write(results, output)


if __name__ == "__main__":
    main()
