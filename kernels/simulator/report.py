"""What the last simulated launch did, in numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .build import describe_place, find_places, runtime, with_places

_KINDS = ("load", "store", "atomic")


@dataclass(frozen=True)
class Line:
    """What one line of a kernel asked of memory. A request is what the lanes of a warp access together."""

    place: str  # "softmax.cu:41"
    memory: str  # "shared" or "global"
    kind: str  # "load" or "store"
    size: int  # bytes per lane
    requests: int
    bytes: int
    conflicts: int  # of shared memory: passes beyond one
    sectors: int  # of global memory: units of 32 bytes that were fetched or written

    @property
    def efficiency(self) -> float:
        """Bytes asked for per byte moved in sectors of global memory ("useful"); above 1 where lanes share a number."""
        return self.bytes / (32 * self.sectors) if self.sectors else 1.0


@dataclass(frozen=True)
class Report:
    """Of one launch. What comes from single accesses is known with check=True only, and else empty."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int  # dynamic
    checked: bool
    instructions: dict[str, int]  # ldmatrix, mma, cp_async, wgmma, tma: times, by a warp or thread as on a GPU
    waits: dict[str, int]  # how often each kind of barrier or exchange took place
    ldmatrix_conflicts: int
    read: dict[int, int] = field(default_factory=dict)  # bytes of global memory, by the argument's number
    written: dict[int, int] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()

    @property
    def bank_conflicts(self) -> int:
        """Of ldmatrix, and of ordinary accesses where they were checked."""
        return self.ldmatrix_conflicts + sum(line.conflicts for line in self.lines)

    @property
    def bytes_read(self) -> int:
        return sum(self.read.values())

    @property
    def bytes_written(self) -> int:
        return sum(self.written.values())

    def __str__(self) -> str:
        rows = [
            ("kernel", self.kernel),
            ("grid x block", f"{_sizes(self.grid)} x {_sizes(self.block)}"),
            ("dynamic shared memory", f"{self.shared_bytes:,} bytes"),
            *((name, f"{n:,}") for name, n in self.instructions.items() if n),
            *((name, f"{n:,}") for name, n in self.waits.items() if name.partition(".")[0] not in self.instructions),
            ("bank conflicts", f"{self.bank_conflicts:,}"),
        ]
        if self.checked:
            rows += [
                ("global memory read", f"{self.bytes_read:,} bytes{_by_argument(self.read)}"),
                ("global memory written", f"{self.bytes_written:,} bytes{_by_argument(self.written)}"),
            ]
        text = "\n".join(f"{name:28} {value}" for name, value in rows)
        if self.lines:
            places = [line.place.replace(", called at", " <-") for line in self.lines]
            wide = max(map(len, places))
            text += f"\n\n{'':{wide}} {'memory':13}{'bytes':>10}{'requests':>10}{'conflicts':>10}{'useful':>8}\n"
            text += "\n".join(
                f"{place:{wide}} {line.memory + ' ' + line.kind:13}{line.bytes:10,}{line.requests:10,}"
                + (f"{line.conflicts:10,}" if line.memory == "shared" else f"{'':10}{line.efficiency:8.0%}")
                for place, line in zip(places, self.lines)
            )
        return text


def _sizes(sizes: tuple[int, ...]) -> str:
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes = sizes[:-1]
    return " x ".join(map(str, sizes)) if len(sizes) == 1 else "(" + ", ".join(map(str, sizes)) + ")"


def _by_argument(by: dict[int, int]) -> str:
    parts = [f"argument {i}: {n:,}" for i, n in by.items() if n]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""


_last: tuple[Any, ...] | None = None
_records: list[list[Report]] = []
_trace: tuple[int, int, int] = (0, 0, 0)  # what 16 bits are (1 bf16, 2 f16; 0: no trace), warp, steps
_traces: list[str] = []


def tracing() -> tuple[int, int, int]:
    """What the next launch traces, for the runtime."""
    return _trace


def launched(*what: Any) -> None:
    """Called after each launch; what is read from the runtime then is read only when somebody asks."""
    global _last
    _last = (*what[:-1], dict(what[-1]))
    if _records or _trace[0]:
        made = report()
        for records in _records:
            records.append(made)
        if _trace[0]:
            _traces.append(with_places(what[1], runtime().sim_trace().decode()))


def report() -> Report:
    """Of the last launch, also one that failed."""
    if _last is None:
        raise RuntimeError("kernels.simulator.report(): no kernel has run yet")
    name, path, grid, block, shared, checked, counters = _last
    data = json.loads(runtime().sim_report().decode())
    find_places(path, [site[0] for site in data["sites"]])
    lines = [_line(path, *site) for site in data["sites"]]
    read: dict[int, int] = {}
    written: dict[int, int] = {}
    for number, r, w in data["arguments"]:
        read[number] = read.get(number, 0) + r
        written[number] = written.get(number, 0) + w
    counts = dict(counters)
    conflicts = counts.pop("bank_conflicts")
    counts.pop("barriers")
    lines.sort(key=lambda line: (line.place, line.kind))
    return Report(
        name, grid, block, shared, checked, counts, data["meetings"], conflicts, read, written, tuple(_merged(lines))
    )


def _line(path: Path, place: int, shared: int, kind: int, size: int, *numbers: int) -> Line:
    return Line(describe_place(path, place), "shared" if shared else "global", _KINDS[kind], size, *numbers)


def _merged(lines: list[Line]) -> Iterator[Line]:
    """Accesses of one line of the source, of one kind: as one."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.place, line.memory, line.kind, line.size), []).append(line)
    for key, same in groups.items():
        yield Line(*key, *(sum(getattr(x, f) for x in same) for f in ("requests", "bytes", "conflicts", "sectors")))


@contextmanager
def record() -> Iterator[list[Report]]:
    """A list that gets a Report of each launch inside the block."""
    records: list[Report] = []
    _records.append(records)
    try:
        yield records
    finally:
        _records.remove(records)


@contextmanager
def trace(dtype: str = "bf16", *, warp: int = 0, steps: int = 1000) -> Iterator[list[str]]:
    """A list that gets, of each launch inside the block, the text of what one warp of the first block does.

    dtype: what 16-bit numbers in shared memory and registers are, "bf16" or "f16". steps: how many.
    """
    global _trace
    before, _trace = _trace, ({"bf16": 1, "f16": 2}[dtype] if steps else 0, warp, steps)
    del _traces[:]
    try:
        yield _traces
    finally:
        _trace = before
