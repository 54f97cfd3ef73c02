"""What this machine can do: the peak that a training's speed is compared with."""

from __future__ import annotations

from functools import cache


@cache
def peak_flops(threads: int | None = None, bf16: bool = False) -> float:
    """Float32 (or bfloat16) FLOP/s of multiply-adds on `threads` threads (None: as many as kernels use), measured once.

    Takes about 0.1 s; the first time ever, seconds more to compile. It is the arithmetic's peak, without any memory
    traffic: a matrix product reaches most of it, a training step about half. ValueError for threads below 1, or more
    than Numba started with.
    """
    import numba

    threads = numba.get_num_threads() if threads is None else threads
    if bf16:
        from kernels.peak_bf16 import peak_bf16

        return peak_bf16(threads, repeats=3, seconds=0.1)
    from kernels.peak import peak

    return peak(threads, repeats=3, seconds=0.1)
