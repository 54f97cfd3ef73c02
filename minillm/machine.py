"""What this machine can do: the peak that a training's speed is compared with."""

from __future__ import annotations

from functools import cache


@cache
def peak_flops(threads: int | None = None) -> float:
    """Float32 FLOP/s of fused multiply-adds on `threads` threads (None: as many as kernels use now), measured once.

    Takes about 0.1 s; the first time ever, seconds more to compile. It is the arithmetic's peak, without any memory
    traffic: a matrix product reaches most of it, a training step about half.
    """
    import numba

    from kernels.peak import peak

    return peak(numba.get_num_threads() if threads is None else threads, repeats=3, seconds=0.1)


def share_of_peak(flops: float, seconds: float, threads: int | None = None) -> float:
    """The part of the peak that `flops` in `seconds` are: model FLOPs utilisation, 0.4 for 40 %.

    Source: Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B: FLOPs that the model needs, not those of
    recomputed activations. ValueError for seconds of 0 or less.
    """
    if not seconds > 0:
        raise ValueError(f"share_of_peak: seconds must be above 0, got {seconds}")
    return flops / seconds / peak_flops(threads)
