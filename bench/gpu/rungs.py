"""The rungs of the CUDA attention ladder, as functions: what kernels/attention/cuda.py lists in RUNGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kernels.attention import cuda
from kernels.gpu.nvrtc import runs_on

from .lab import Lab


class Rung(NamedTuple):
    name: str  # "4b"
    source: str  # "cuda_4b_hopper_backward"
    backward: bool
    run: Callable[..., Any]  # (q, k, v, causal=) -> (out, lse), or (dout, q, k, v, out, lse, causal=) -> gradients


def rungs(lab: Lab) -> list[Rung]:
    """Those that this lab's GPU runs: forward ones first. Rung 1 is in both halves."""
    found = []
    for backward in (False, True):
        for name, rung in sorted(cuda.RUNGS.items()):
            if (rung.backward if backward else rung.forward) and runs_on(lab.arch, rung.lowest):
                found.append(Rung(name, rung.source.stem, backward, _bound(name, backward)))
    return found


def _bound(name: str, backward: bool) -> Callable[..., Any]:
    function = cuda.attention_backward if backward else cuda.attention_forward

    def run(*arrays: Any, causal: bool = False) -> Any:
        scale = arrays[0].shape[-1] ** -0.5
        return function(*arrays, None, causal=causal, offset=0, window=None, scale=scale, rung=name)

    return run
