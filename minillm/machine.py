"""What this machine can do: the peak that a training's speed is compared with."""

from __future__ import annotations

from functools import cache


@cache
def peak_flops(threads: int | None = None) -> float:
    """Float32 FLOP/s of fused multiply-adds on `threads` threads (None: as many as kernels use now), measured once.

    Takes about 0.1 s; the first time ever, seconds more to compile. It is the arithmetic's peak, without any memory
    traffic: a matrix product reaches most of it, a training step about half. ValueError for threads below 1, or more
    than Numba started with.
    """
    import numba

    from kernels.peak import peak

    return peak(numba.get_num_threads() if threads is None else threads, repeats=3, seconds=0.1)
