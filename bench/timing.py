"""Interleaved repeats in blocks, with no two thread pools awake at once.

Every library here has threads that spin for a while after their work before they sleep: OpenMP's, OpenBLAS's, XLA's.
While one library is timed, another's spinning threads take cores from it: alternating call by call, a product of
0.24 ms was measured to take 8 ms. So torch and JAX have processes of their own (remote.py), and each implementation
gets a *block* of calls. A block begins when every other thread of the process sleeps (Linux tells:
/proc/self/task/*/stat), a worker answers when its own do, and the first calls of the block, which wake its pool, are
not counted. Blocks of all implementations alternate, in rounds that begin with another one each, so that a slow minute
of the machine hits all of them alike.

`python -m bench.alone` holds torch in this harness against torch without it: on a machine that nobody else uses the two
should agree. With others on the cores nothing here is worth reading: on 2 cores under a load of 6, torch's
product of 1024^3 took 45 to 110 ms in a process of its own, 11.5 when they paused.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .case import Run

SAMPLE = 20e-6  # a sample is as many calls as take this long: a clock read costs 50 ns
CALLS_PER_BLOCK = 50
AWAKE = 3e-3  # seconds of calls, not counted, at the start of a block


@dataclass
class Budget:
    seconds: float = 0.6  # of measured calls, per implementation
    rounds: int = 5
    cold: bool = False


@dataclass
class Times:
    """Seconds per call, one number a sample."""

    samples: list[float] = field(default_factory=list)
    error: Exception | None = None  # it ended before its time

    def quartiles(self) -> tuple[float, float, float]:
        q1, median, q3 = np.percentile(self.samples, (25, 50, 75))
        return float(q1), float(median), float(q3)


class Timed(Protocol):
    """prepared.Local, or remote.Remote."""

    def estimate(self) -> float: ...

    def block(self, count: int, inner: int, seconds: float) -> list[float]: ...


def settle(limit: float = 0.1) -> None:
    """Until the other threads of this process sleep, at most `limit` seconds."""
    if not os.path.isdir("/proc/self/task"):
        time.sleep(0.03)  # OpenBLAS spins for about that long
        return
    end, me = time.perf_counter() + limit, str(os.getpid())  # the main thread has the process's id
    while any(_runs(task) for task in os.listdir("/proc/self/task") if task != me):
        if time.perf_counter() > end:
            return
        time.sleep(0.5e-3)


def _runs(task: str) -> bool:
    try:
        with open(f"/proc/self/task/{task}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False  # it ended


def measure(runs: Mapping[str, Timed], budget: Budget) -> dict[str, Times]:
    """Times of every run, interleaved. Where one fails, its times have the error, and the others go on."""
    times = {name: Times() for name in runs}
    seconds: dict[str, float] = {}
    for name, run in runs.items():
        with _caught(times[name]):
            seconds[name] = run.estimate()
    for r in range(budget.rounds):
        names = [name for name in runs if times[name].error is None]
        first = r % max(1, len(names))
        for name in names[first:] + names[:first]:
            with _caught(times[name]):
                times[name].samples += _round(runs[name], seconds[name], r, budget)
    return times


@contextlib.contextmanager
def _caught(times: Times) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        times.error = error


def _round(run: Timed, seconds: float, r: int, budget: Budget) -> list[float]:
    share = budget.seconds / budget.rounds
    inner = 1 if budget.cold else max(1, int(SAMPLE / seconds))
    count = int(np.clip(share / (inner * seconds), 1, CALLS_PER_BLOCK))
    if r >= 3 and count == 1 and seconds * (r + 1) > 2 * budget.seconds:
        return []  # slow: three samples are enough
    settle()
    return run.block(count, inner, seconds)


def estimate(run: Run) -> float:
    """Seconds of a warm call; the calls before it compile and allocate."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    if first > 1.0:
        settle()
    best = np.inf
    for _ in range(3 if first < 0.2 else 1):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return max(float(best), 1e-8)


def block(run: Run, count: int, inner: int, seconds: float, flush: Callable[[], None] | None) -> list[float]:
    """Samples of seconds a call. flush: empties the caches, called before each sample."""
    settle()
    _wake(run, seconds)
    samples = []
    clock = time.perf_counter
    for _ in range(count):
        if flush:
            flush()
            settle()
        start = clock()
        for _ in range(inner):
            run()
        samples.append((clock() - start) / inner)
    return samples


def _wake(run: Run, seconds: float) -> None:
    if seconds > 20 * AWAKE:
        return  # so long that waking does not show
    end = time.perf_counter() + AWAKE
    while True:
        run()
        if time.perf_counter() >= end:
            return
