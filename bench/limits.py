"""The limits of this machine, measured with our own SIMD values: what every share in the report is a share of.

    peak        float32 fused multiply-adds, counted as two: twelve independent sums keep both units of a core busy
    peak_bf16   the same for pairs of bfloat16, where the CPU has them
    bandwidth   copy, read and triad (a = b + s c) over working sets from L1 to memory; bytes read plus bytes written

Best of several repeats: a limit is what the machine can do, and everything that disturbs makes it look lower.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kernels import simd
from kernels.numba_setup import njit, prange
from kernels.peak import best_of, on_threads, peak

STREAMS = ("copy", "read", "triad")


@njit
def _stream(kind, a, b, c, size, times):
    """Over whole vectors, four at a time; size, in elements, is a multiple of 4 * lanes."""
    n = simd.lanes(a)
    s = a[0]
    for _ in range(times):
        if kind == 0:
            for i in range(0, size, 4 * n):
                for j in range(i, i + 4 * n, n):
                    simd.store(a, j, simd.load(b, j))
        elif kind == 1:
            u = v = w = x = simd.zeros(b)
            for i in range(0, size, 4 * n):
                u, v = u + simd.load(b, i), v + simd.load(b, i + n)
                w, x = w + simd.load(b, i + 2 * n), x + simd.load(b, i + 3 * n)
            s += simd.hsum(u + v + w + x)
        else:
            for i in range(0, size, 4 * n):
                for j in range(i, i + 4 * n, n):
                    simd.store(a, j, simd.fma(simd.load(c, j), simd.splat(0.5, c), simd.load(b, j)))
    return s


@njit(parallel=True)
def _streams(kind, a, b, c, size, times, sums):
    """Each thread on rows of its own."""
    for t in prange(a.shape[0]):
        sums[t] = _stream(kind, a[t], b[t], c[t], size, times)


@dataclass
class Limits:
    """FLOP/s and bytes/s on `threads` threads."""

    threads: int
    peak: float = 0.0
    peak_bf16: float = 0.0  # 0: no such instructions
    sizes: list[int] = field(default_factory=list)  # working sets of the whole machine part in use, bytes, ascending
    bandwidth: dict[str, list[float]] = field(default_factory=dict)  # stream -> bytes/s at each size

    def bandwidth_at(self, working_set: float, stream: str = "copy") -> float:
        """Of a working set that stays where it fits; interpolated over the logarithm of the size."""
        return float(np.interp(np.log(max(working_set, 1.0)), np.log(self.sizes), self.bandwidth[stream]))

    def seconds(
        self, flops: float, bytes_: float, working_set: float, bf16: bool = False, stream: str = "copy"
    ) -> float:
        """The least time for this work: the larger of computing and moving it."""
        peak = self.peak_bf16 if bf16 and self.peak_bf16 else self.peak
        return max(flops / peak, bytes_ / self.bandwidth_at(working_set, stream))


def measure(threads: int, sizes: list[int], streams: tuple[str, ...] = ("copy",), repeats: int = 5) -> Limits:
    """On Numba's threads; about 0.1 s for each (stream, size) pair."""
    limits = Limits(threads, sizes=sorted(sizes))
    with on_threads(threads):
        limits.peak = peak(threads, repeats)
        if simd.HAS_BF16:
            from kernels.peak_bf16 import peak_bf16

            limits.peak_bf16 = peak_bf16(threads, repeats)
        for stream in streams:
            limits.bandwidth[stream] = [_bandwidth(threads, size, stream, repeats) for size in limits.sizes]
    return limits


def _bandwidth(threads: int, size: int, stream: str, repeats: int) -> float:
    """`size` bytes in all, over the arrays that the stream touches."""
    arrays = {"copy": 2, "read": 1, "triad": 3}[stream]
    step = 4 * simd.LANES32
    n = max(size // (4 * arrays * threads) // step * step, step)
    gap = 1040  # floats between the rows: not all at the same place of a cache
    a, b, c = (np.ones((threads, n + gap), np.float32) for _ in range(3))
    times = max(1, (16 << 20) // size)
    sums = np.zeros(threads, np.float32)
    kind = STREAMS.index(stream)
    moved = 4 * arrays * n * threads * times
    return moved / best_of(lambda: _streams(kind, a, b, c, n, times, sums), repeats)
