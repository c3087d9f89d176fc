"""Timing on a machine that does other things too: many short turns, taken in rotation.

In each round every contender has one turn of about the same length, and each round begins with
another contender. A ratio is the median of the rounds' ratios: what slows a round down slows both.
"""

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "BeforeRound",
    "Call",
    "Measured",
    "Pace",
    "Turn",
    "import_seconds",
    "measure",
    "turn_of",
]

Call: TypeAlias = Callable[[int], Awaitable[object]]
"""One call of an operation, by the task of this number."""

Turn: TypeAlias = Callable[[int, int], Awaitable[float]]
"""Seconds that so many calls take, divided among so many tasks."""

BeforeRound: TypeAlias = Callable[[Mapping[str, int]], Awaitable[None]]
"""Told how many calls each contender is about to make; its own time does not count."""

FEWEST_ROUNDS = 9
"""However long they take, where so many were asked for."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure.

    Attributes:
        rounds: that count.
        seconds: of one turn, about.
        longest: seconds after which a busy machine is spared the rounds above `FEWEST_ROUNDS`.
        warm_ups: rounds before them: sessions open, plans are cached, the length of a turn is found.
    """

    rounds: int
    seconds: float
    longest: float = 22.0
    warm_ups: int = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One operation by so many tasks: microseconds of each contender in each round.

    They are wall-clock time divided by calls (by messages, where a call is many): with 16 tasks, the
    inverse of the throughput.
    """

    rounds: Mapping[str, list[float]]

    def median(self, contender: str) -> float:
        return statistics.median(self.rounds[contender])

    def ratio(self, contender: str, other: str) -> float:
        """How many times the time of ``other`` that ``contender`` takes."""
        pairs = zip(self.rounds[contender], self.rounds[other], strict=True)
        return statistics.median(one / another for one, another in pairs)


def turn_of(call: Call) -> Turn:
    async def work(task: int, calls: int) -> None:
        for _ in range(calls):
            await call(task)

    async def turn(calls: int, tasks: int) -> float:
        gc.collect()
        start = time.perf_counter()
        if tasks == 1:
            await work(0, calls)
        else:
            await asyncio.gather(*(work(task, calls // tasks) for task in range(tasks)))
        return time.perf_counter() - start

    return turn


async def measure(
    contenders: Mapping[str, Turn],
    *,
    pace: Pace,
    tasks: int,
    units: Mapping[str, int],
    before_round: BeforeRound | None = None,
    at_first: int = 10,
) -> Measured:
    """Let the contenders take turns.

    Args:
        contenders: by name.
        pace: how long.
        tasks: how many tasks each turn's calls are divided among.
        units: how many messages one call of a contender is, where it is more than one.
        before_round: prepares what the calls of a round use up.
        at_first: calls of each task before the length of a turn is known.
    """
    names = list(contenders)
    calls = dict.fromkeys(names, at_first * tasks)
    rounds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(pace.warm_ups):
        if before_round:
            await before_round(calls)
        for name, turn in contenders.items():
            fitting = calls[name] * pace.seconds / await turn(calls[name], tasks)
            calls[name] = tasks * max(2, round(fitting / tasks))
    gc.collect()
    gc.freeze()  # what the program has loaded is none of a turn's garbage
    latest = time.monotonic() + pace.longest
    for number in range(pace.rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() > latest:
            break
        if before_round:
            await before_round(calls)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds = await contenders[name](calls[name], tasks)
            rounds[name].append(seconds / calls[name] / units.get(name, 1) * 1e6)
    return Measured(rounds)


def import_seconds(module: str, *, times: int) -> float:
    """The median time of an import in a fresh interpreter, its files in the system's cache."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    return statistics.median(
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(times)
    )
