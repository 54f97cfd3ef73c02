"""The limits in detail: peak on one thread and on all, three streams over working sets from L1 to memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import limits
from ..case import Options

if TYPE_CHECKING:
    from ..runner import Session

UNIT = 1e9
TITLE = "FMA peak and bandwidth of this machine, by working set"
SHAPE = ()
SIZES = [16 << 10, 128 << 10, 512 << 10, 2 << 20, 8 << 20, 24 << 20, 64 << 20, 256 << 20]  # all threads together
QUICK = [16 << 10, 512 << 10, 8 << 20, 256 << 20]


def sizes(options: Options) -> list[int]:
    return QUICK if options.quick else SIZES


def rows(session: Session) -> list[dict[str, Any]]:
    """One row per figure: the time of 10^9 FLOPs or bytes."""
    found = []
    for threads in sorted({1, session.options.threads}):
        measured = limits.measure(threads, sizes(session.options), limits.STREAMS, 3 if session.options.quick else 5)
        session.limits[threads] = measured
        found.append(_row(threads, "peak float32", measured.peak, flops=UNIT))
        if measured.peak_bf16:
            found.append(_row(threads, "peak bfloat16", measured.peak_bf16, flops=UNIT))
        for stream, rates in measured.bandwidth.items():
            for size, rate in zip(measured.sizes, rates):
                found.append(_row(threads, f"{stream} {size >> 10} KB", rate, bytes=UNIT))
    session.rows += found
    return found


def _row(threads: int, case: str, rate: float, flops: float = 0.0, bytes: float = 0.0) -> dict[str, Any]:
    seconds = UNIT / rate
    return {
        "suite": "limits", "case": f"{case}, {threads} thread{'s' * (threads > 1)}", "implementation": "minillm",
        "median_s": seconds, "q1_s": seconds, "q3_s": seconds, "samples": 1, "flops": flops, "bytes": bytes,
        "elements": 0, "limit_s": seconds, "share_of_limit": 1.0, "label": "", "max_error": 0.0,
        "equal": True, "problem": "",
        "threads": threads, "cold": False, "ratios": {}, "load": None,
    }  # fmt: skip
