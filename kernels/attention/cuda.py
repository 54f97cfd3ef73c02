"""Attention on a GPU: takes the best rung of the ladder that the GPU and the arguments allow, and launches it.

    1   scalar, fused; any head dim, dtype, mask, and dropout    sm_75+      ladder/cuda_1_scalar.cu
    2   tensor cores                                             sm_80+      ladder/cuda_2_tensor_cores.cu
    2b  its backward; 2b_deterministic: without atomics          sm_80+      ladder/cuda_2b_backward.cu
    3   rung 2 tuned                                             sm_80+      ladder/cuda_3_tuned.cu
    4.. Hopper's own instructions                                sm_90a      cuda_hopper.py

Rungs from 2 on multiply bfloat16 or float16 with head dims 64 and 128, with neither bias nor dropout; everything else
is rung 1's. One may be asked for: `rung="2"` in the functions below, or for all calls in a block

    with kernels.attention.cuda.use_rungs("2", "2b_deterministic"):     # forward, backward; None: the best
        ...

With the atomics of 2b and 4b the last bits of dq may change from run to run; everything else repeats to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import array_module
from ..gpu import bfloat16, kernel, type_name
from . import cuda_ampere
from .cuda_ampere import LADDER, band_of, blocks, ready, sizes

SCALAR = LADDER / "cuda_1_scalar.cu"
_STRIDES = np.dtype([(name, np.int64) for name in "bhij"])
_DROPOUT = np.dtype([("seed", np.uint64), ("position", np.uint64), ("p", np.float32), ("factor", np.float32)])


def defines(head_dim: int) -> dict[str, int]:
    """What rung 1 is compiled with: -DHEAD_DIM=... -DWARPS=... (rows per block, in 48 KB of shared memory)."""
    return {"HEAD_DIM": head_dim, "WARPS": 8 if head_dim <= 128 else 4}


VARIANTS = [
    (SCALAR, {"TYPE": t, **defines(d)}, "sm_75") for t, d in (("float", 64), ("float", 256), ("bf16", 111), ("f16", 1))
]


class Options(NamedTuple):
    """What is asked of a rung besides the arrays."""

    bias: Any
    causal: bool
    offset: int
    window: int | None
    scale: float
    dropout: tuple[float, int, int] | None

    def band(self, q: Any, k: Any) -> np.ndarray:
        return band_of(q, k, self.causal, self.offset, self.window)


class Rung(NamedTuple):
    """Functions of a rung, and from which GPU on it runs.

    forward(q, k, v, options) -> (out, lse); backward(dout, q, k, v, out, lse, options) -> (dq, dk, dv); None: has none.
    refuses(q, k, v, options) -> why it cannot do that, or None.
    """

    source: Path
    lowest: str
    forward: Callable[..., Any] | None
    backward: Callable[..., Any] | None
    refuses: Callable[..., str | None]


# Rung 1 ------------------------------------------------------------------------------------------------------------


def _scalar_forward(q: Any, k: Any, v: Any, o: Options) -> tuple[Any, Any]:
    xp = array_module(q)
    q, k, v = map(ready, (q, k, v))
    out, lse = xp.empty_like(q), xp.empty(q.shape[:3], np.float32)
    _scalar("attention_forward", q, (q, k, v, *_scalar_options(q, k, o), out, lse))
    return out, lse


def _scalar_backward(dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, o: Options) -> tuple[Any, Any, Any]:
    xp = array_module(q)
    dout, q, k, v, out, lse = map(ready, (dout, q, k, v, out, lse))
    dq, dk, dv, delta = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v), xp.empty_like(lse)
    options = _scalar_options(q, k, o)
    _scalar("attention_backward_q", q, (dout, q, k, v, out, lse, *options, delta, dq))
    _scalar("attention_backward_kv", k, (dout, q, k, v, lse, delta, *options, dk, dv))
    return dq, dk, dv


def _scalar(name: str, rows: Any, arguments: tuple[Any, ...]) -> None:
    """One warp per row of `rows` (batch, heads, length, D)."""
    batch, heads, length, head_dim = rows.shape
    macros = defines(head_dim)
    run = kernel(SCALAR, name, rows, TYPE=type_name(rows.dtype), **macros)
    run((blocks(batch * heads, length, macros["WARPS"]),), (32 * macros["WARPS"],), arguments)


def _scalar_options(q: Any, k: Any, o: Options) -> tuple[Any, ...]:
    """The kernel's arguments: bias (None is a null pointer), Strides, Sizes, Band, Dropout, scale."""
    if q.shape[2] + k.shape[2] >= 2**30:
        raise ValueError(f"attention: {q.shape[2]} queries and {k.shape[2]} keys are too long for the CUDA kernels")
    bias: Any = o.bias
    strides: tuple[int, ...] = (0, 0, 0, 0)
    if bias is not None:
        if bias.dtype == bool:
            bias = array_module(q).where(bias, np.float32(0), np.float32(-np.inf)).astype(q.dtype)
        bias = ready(bias)
        strides = tuple(0 if n == 1 else stride // bias.itemsize for n, stride in zip(bias.shape, bias.strides))
    p, seed, position = o.dropout or (0.0, 0, 0)
    drop = np.array([(seed, position, p, 1 / (1 - p) if p < 1 else 0.0)], _DROPOUT)
    return bias, np.array([strides], _STRIDES), sizes(q, k), o.band(q, k), drop, np.float32(o.scale)


# The table ---------------------------------------------------------------------------------------------------------


def _forward(run: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, v, o: run(q, k, v, o.band(q, k), o.scale)


def _backward(deterministic: bool) -> Callable[..., Any]:
    return lambda dout, q, k, v, out, lse, o: cuda_ampere.backward_2b(
        dout, q, k, v, out, lse, o.band(q, k), o.scale, deterministic
    )


def _ampere_refuses(q: Any, k: Any, v: Any, o: Options) -> str | None:
    return cuda_ampere.refuses(q, k, o.bias, o.scale, o.dropout)


RUNGS: dict[str, Rung] = {
    "1": Rung(SCALAR, "sm_75", _scalar_forward, _scalar_backward, lambda *_: None),
    "2": Rung(cuda_ampere.FORWARD_2, "sm_80", _forward(cuda_ampere.forward_2), None, _ampere_refuses),
    "2b": Rung(cuda_ampere.BACKWARD_2B, "sm_80", None, _backward(False), _ampere_refuses),
    "2b_deterministic": Rung(cuda_ampere.BACKWARD_2B, "sm_80", None, _backward(True), _ampere_refuses),
    "3": Rung(cuda_ampere.FORWARD_3, "sm_80", _forward(cuda_ampere.forward_3), None, _ampere_refuses),
}
BEST_FORWARD, BEST_BACKWARD = ["3", "1"], ["2b", "1"]  # best first
_asked: tuple[str | None, str | None] = (None, None)  # by use_rungs


def _add_hopper() -> None:
    """The rungs of cuda_hopper.py; its best go before ours."""
    from . import cuda_hopper as hopper

    def refuses(q: Any, k: Any, v: Any, o: Options) -> str | None:
        if hopper.supports(q, k, v, o.bias, scale=o.scale, dropout=o.dropout):
            return None
        return _ampere_refuses(q, k, v, o) or "it needs a Hopper GPU (compute capability 9.0)"

    def forward(name: str) -> Callable[..., Any]:
        return lambda q, k, v, o: hopper.attention_forward(
            q, k, v, causal=o.causal, offset=o.offset, window=o.window, scale=o.scale, rung=name
        )

    def backward(name: str) -> Callable[..., Any]:
        return lambda dout, q, k, v, out, lse, o: hopper.attention_backward(
            dout, q, k, v, out, lse, causal=o.causal, offset=o.offset, window=o.window, scale=o.scale, rung=name
        )

    for name, rung in hopper.RUNGS.items():
        there, back = (None, backward(name)) if rung.backward else (forward(name), None)
        RUNGS[name] = Rung(rung.source, "sm_90a", there, back, refuses)
    BEST_FORWARD.insert(0, hopper.BEST_FORWARD)
    BEST_BACKWARD.insert(0, hopper.BEST_BACKWARD)


_add_hopper()


@contextmanager
def use_rungs(forward: str | None = None, backward: str | None = None) -> Iterator[None]:
    """Inside the block these rungs run. One that cannot do what is asked is an error; None takes the best that can."""
    global _asked
    _check_rung(forward, "forward")
    _check_rung(backward, "backward")
    before, _asked = _asked, (forward, backward)
    try:
        yield
    finally:
        _asked = before


def _check_rung(name: str | None, what: str) -> None:
    have = [n for n, rung in RUNGS.items() if getattr(rung, what)]
    if name is not None and name not in have:
        raise ValueError(f"attention: no {what} rung {name!r}; there are {', '.join(have)}")


def choose(what: str, rung: str | None, q: Any, k: Any, v: Any, options: Options) -> Rung:
    """The rung that runs `what`, "forward" or "backward": the one asked for, or the best."""
    rung = rung or _asked[what == "backward"]
    _check_rung(rung, what)
    for name in [rung] if rung else BEST_FORWARD if what == "forward" else BEST_BACKWARD:
        why = RUNGS[name].refuses(q, k, v, options)
        if why is None:
            return RUNGS[name]
    raise NotImplementedError(f"attention: rung {rung} cannot do this: {why}")


def attention_forward(
    q: Any,
    k: Any,
    v: Any,
    bias: Any,
    *,
    causal: bool,
    offset: int,
    window: int | None,
    scale: float,
    dropout: tuple[float, int, int] | None = None,
    bf16: bool = False,
    rung: str | None = None,
) -> tuple[Any, Any]:
    """See `kernels.attention`, which checks the arguments. (out (B, H, T, D), lse (B, H, T))."""
    if bf16:
        q, k, v, bias = _in_bf16(q, k, v, bias)
    options = Options(bias, causal, offset, window, scale, dropout)
    out, lse = choose("forward", rung, q, k, v, options).forward(q, k, v, options)  # type: ignore[misc]
    return (out.astype(np.float32) if bf16 else out), lse


def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    bias: Any,
    *,
    causal: bool,
    offset: int,
    window: int | None,
    scale: float,
    dropout: tuple[float, int, int] | None = None,
    bf16: bool = False,
    rung: str | None = None,
) -> tuple[Any, Any, Any]:
    """See `kernels.attention`. (dq (B, H, T, D), dk (B, H_kv, S, D), dv (B, H_kv, S, D))."""
    if bf16:
        dout, q, k, v, out, bias = _in_bf16(dout, q, k, v, out, bias)
    options = Options(bias, causal, offset, window, scale, dropout)
    run = choose("backward", rung, q, k, v, options).backward
    grads = run(dout, q, k, v, out, lse, options)  # type: ignore[misc]
    return tuple(x.astype(np.float32) for x in grads) if bf16 else grads


def _in_bf16(*arrays: Any) -> tuple[Any, ...]:
    """float32 arrays rounded to bfloat16: what bf16=True multiplies, and here results are rounded to, too."""
    return tuple(x if x is None or x.dtype == bool else x.astype(bfloat16()) for x in arrays)
