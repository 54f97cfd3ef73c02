"""Times on a GPU: events around replays of CUDA graphs, buffers that leave the cache in between, rivals in turns.

- A call of 10 us is shorter than Python's way to it. So calls are captured once into a CUDA graph and the graph is
  replayed between two events. What cannot be captured (it waits for the GPU, say) is called directly; the row's
  "graph" is then false, and the time includes Python's where the GPU waits for it.
- A graph holds a call for each of several sets of buffers, together twice the L2 cache: a call finds nothing there.
- Implementations take turns, in rounds that begin with another one each; a row's time is the median of the rounds.

The simulator has a clock of its own, Python's: its rows show that the script runs and no more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .lab import Lab, Row, sentence

ROUNDS = 9
Call = Callable[[], Any]


@dataclass
class Work:
    """What is timed: a call for each set of buffers. library: whose streams it runs on, "cupy" or "torch"."""

    calls: Sequence[Call]
    library: str = "cupy"
    graph: bool = True  # whether to try


@dataclass
class Times:
    samples: list[float] = field(default_factory=list)  # seconds a call
    graph: bool = False
    error: Exception | None = None

    def fill(self, row: Row) -> Row:
        if self.error is not None:
            return row | {"equal": False, "problem": sentence(self.error)}
        q1, median, q3 = (float(q) for q in np.percentile(self.samples, (25, 50, 75)))
        return row | {"median_s": median, "q1_s": q1, "q3_s": q3, "samples": len(self.samples), "graph": self.graph}


def measure(lab: Lab, works: Mapping[str, Work], seconds: float = 0.25) -> dict[str, Times]:
    """Times of each, taking turns; about `seconds` of measured calls for each. One that fails has an error."""
    times = {name: Times() for name in works}
    ready: dict[str, Any] = {}
    for name, work in works.items():
        try:
            ready[name] = DryReplay(work) if lab.dry else _REPLAYS[work.library](work)
            times[name].graph = ready[name].graph
        except Exception as error:
            times[name].error = error
    counts = {}
    for name, replay in ready.items():
        once = 1.0 if lab.dry else _steady(replay)
        counts[name] = 1 if lab.dry else int(np.clip(seconds / ROUNDS / once, 1, 1000))
    names = list(ready)
    for r in range(2 if lab.dry else ROUNDS):
        first = r % max(1, len(names))
        for name in names[first:] + names[:first]:
            if times[name].error is None:
                try:
                    times[name].samples.append(ready[name].run(counts[name]) / len(works[name].calls))
                except Exception as error:
                    times[name].error = error
    return times


def _steady(replay: Any) -> float:
    """Seconds of a replay, once the clocks are up."""
    first = replay.run(1)
    return max(min(replay.run(max(1, min(20, int(0.01 / max(first, 1e-6))))), first), 1e-7)


class DryReplay:
    graph = False

    def __init__(self, work: Work):
        self.calls = work.calls

    def run(self, count: int) -> float:
        """Seconds for one pass over all sets of buffers; `count` passes are made."""
        start = time.perf_counter()
        for _ in range(count):
            for call in self.calls:
                call()
        return (time.perf_counter() - start) / count


class CupyReplay:
    """Calls on CuPy's arrays, with memory from a pool of their own: a replay may write to nobody else's."""

    def __init__(self, work: Work):
        import cupy

        self.calls, self.cuda = work.calls, cupy.cuda
        self.pool = cupy.cuda.MemoryPool()
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.captured = self.kept = None
        cupy.cuda.Device().synchronize()  # inputs were made on another stream
        with cupy.cuda.using_allocator(self.pool.malloc), self.stream:
            for _ in range(2):  # compiles, and fills the pool
                kept = [call() for call in work.calls]
                self.stream.synchronize()
                del kept
            if work.graph:
                self._capture()

    def _capture(self) -> None:
        self.stream.begin_capture()
        try:
            self.kept = [call() for call in self.calls]
            self.captured = self.stream.end_capture()
        except Exception:  # something in it cannot be captured
            with contextlib.suppress(Exception):
                self.stream.end_capture()
            self.captured = self.kept = None
        else:
            self.captured.upload(self.stream)

    @property
    def graph(self) -> bool:
        return self.captured is not None

    def run(self, count: int) -> float:
        start, stop = self.cuda.Event(), self.cuda.Event()
        with self.cuda.using_allocator(self.pool.malloc), self.stream:
            start.record(self.stream)
            for _ in range(count):
                if self.captured is not None:
                    self.captured.launch(self.stream)
                else:
                    for call in self.calls:
                        call()
            stop.record(self.stream)
            stop.synchronize()
        return self.cuda.get_elapsed_time(start, stop) * 1e-3 / count


class TorchReplay:
    def __init__(self, work: Work):
        import torch

        self.calls, self.torch = work.calls, torch
        self.stream = torch.cuda.Stream()
        self.captured = self.kept = None
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                for call in work.calls:
                    call()
            self.stream.synchronize()
        if work.graph:
            self._capture()

    def _capture(self) -> None:
        graph = self.torch.cuda.CUDAGraph()
        try:
            with self.torch.cuda.graph(graph, stream=self.stream):
                self.kept = [call() for call in self.calls]
            self.captured = graph
        except Exception:
            self.captured = self.kept = None

    @property
    def graph(self) -> bool:
        return self.captured is not None

    def run(self, count: int) -> float:
        start, stop = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self.torch.cuda.stream(self.stream):
            start.record(self.stream)
            for _ in range(count):
                if self.captured is not None:
                    self.captured.replay()
                else:
                    for call in self.calls:
                        call()
            stop.record(self.stream)
            stop.synchronize()
        return start.elapsed_time(stop) * 1e-3 / count


_REPLAYS = {"cupy": CupyReplay, "torch": TorchReplay}


def rows(
    lab: Lab, suite: str, case: str, works: Mapping[str, Work], *, seconds: float = 0.25, flops: float = 0.0,
    bytes: float = 0.0, missing: Mapping[str, str] | None = None, problems: Mapping[str, str] | None = None,
) -> list[Row]:  # fmt: skip
    """Rows of a case with times, shares of the limit and ratios.

    missing: implementations that could not be had, and why; they get a row as well. problems: results that are wrong.
    """
    found: dict[str, Row] = {}
    for name, times in measure(lab, works, seconds).items():
        row = lab.row(suite, case, name, flops=flops, bytes=bytes)
        if problem := (problems or {}).get(name):
            row |= {"equal": False, "problem": problem}
        found[name] = _limit(lab, times.fill(row))
    timed = {name: row["median_s"] for name, row in found.items() if row["median_s"]}
    for name, own in timed.items():
        found[name]["ratios"] = {other: t / own for other, t in timed.items() if other != name}
    absent = [lab.row(suite, case, name, equal=False, problem=why) for name, why in (missing or {}).items()]
    return [*found.values(), *absent]


def _limit(lab: Lab, row: Row) -> Row:
    """The shortest possible time, from the ceilings that were measured, and the share of it."""
    by_copy = row["bytes"] / lab.limits["copy"] if lab.limits.get("copy") else 0.0
    by_product = row["flops"] / lab.limits["product"] if lab.limits.get("product") else 0.0
    limit = max(by_copy, by_product)
    if not limit or not row["median_s"]:
        return row
    return row | {"limit_s": limit, "share_of_limit": limit / row["median_s"], "compute_bound": by_product > by_copy}
