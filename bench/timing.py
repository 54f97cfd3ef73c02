"""Interleaved repeats in blocks, with no two thread pools awake at once.

Every library here has threads that spin for a while after their work before they sleep: OpenMP's (shared by Numba and
torch), OpenBLAS's, XLA's. While one library is timed, another's spinning threads take cores from it: alternating call
by call, a product of 0.24 ms was measured to take 8 ms. So each implementation gets a *block* of calls; before a block
the harness waits until every other thread of the process sleeps (Linux tells: /proc/self/task/*/stat), and the first
calls of the block, which wake its own pool, are not counted. Blocks of all implementations alternate, in rounds that
begin with another one each, so that a slow minute of the machine hits all of them alike.

`python -m bench.alone` holds torch in this harness against torch in a process of its own: on a machine that nobody else
uses the two should agree. With others on the cores nothing here is worth reading: on 2 cores under a load of 6, torch's
product of 1024^3 took 45 to 110 ms in a process of its own, 11.5 when they paused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

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

    def quartiles(self) -> tuple[float, float, float]:
        q1, median, q3 = np.percentile(self.samples, (25, 50, 75))
        return float(q1), float(median), float(q3)


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


def measure(runs: dict[str, Run], budget: Budget, flush: Callable[[], None] | None = None) -> dict[str, Times]:
    """Times of every run, interleaved. flush: empties the caches, called before each sample if budget.cold."""
    flush = flush if budget.cold else None
    times = {name: Times() for name in runs}
    seconds = {name: _estimate(run) for name, run in runs.items()}
    names = list(runs)
    for r in range(budget.rounds if runs else 0):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            share = budget.seconds / budget.rounds
            inner = 1 if flush else max(1, int(SAMPLE / seconds[name]))
            count = int(np.clip(share / (inner * seconds[name]), 1, CALLS_PER_BLOCK))
            if r and count == 1 and seconds[name] * (r + 1) > 2 * budget.seconds and r >= 3:
                continue  # slow: three samples are enough
            settle()
            _wake(runs[name], seconds[name])
            times[name].samples += _block(runs[name], count, inner, flush)
    return times


def _estimate(run: Run) -> float:
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


def _wake(run: Run, seconds: float) -> None:
    if seconds > 20 * AWAKE:
        return  # so long that waking does not show
    end = time.perf_counter() + AWAKE
    while True:
        run()
        if time.perf_counter() >= end:
            return


def _block(run: Run, count: int, inner: int, flush: Callable[[], None] | None) -> list[float]:
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
