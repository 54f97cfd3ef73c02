"""Is it right on real hardware? Every kernel, and every rung of the attention ladder, against float64.

The reference runs in float64 on the same numbers, those of bfloat16 and float16 rounded before. An output's error is
the norm of its difference over the norm of the reference: rounding each number once costs about 2^-9 of it in bfloat16,
2^-12 in float16; a tile that is missing or a barrier too few costs far more. NaN is never right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels

from .calls import CALLS, FLOATS, Side
from .lab import Lab, Row, sentence
from .parts import Cases, relative
from .rungs import Rung, rungs

TITLE = "against float64"
BOUNDS = {"float32": 5e-6, "bfloat16": 8e-3, "float16": 1e-3}
SHAPES = [  # of the rungs: B, H, H_kv, T, S; whole tiles and ragged ones
    (1, 1, 1, 128, 128), (1, 2, 1, 200, 200), (1, 2, 2, 70, 93), (2, 4, 2, 1000, 1000), (1, 2, 1, 4096, 4096),
]  # fmt: skip


def cases(lab: Lab) -> Cases:
    for size in lab.pick(("small", "large"), ("small",)):
        for name in lab.pick(list(CALLS), ["softmax", "gelu"]):
            for dtype in lab.pick(FLOATS, ("float32", "bfloat16")):
                yield (
                    f"{name} {dtype} {size}",
                    lambda name=name, dtype=dtype, size=size: [_call(lab, name, dtype, size)],
                )
    shapes, dims, dtypes = lab.pick((SHAPES, (64, 128), FLOATS[1:]), ([(1, 2, 1, 70, 93)], (64,), FLOATS[1:2]))
    for rung in lab.pick(rungs(lab), rungs(lab)[:1]):
        for dim in dims:
            for causal in (False, True):
                for dtype in dtypes:
                    yield (
                        f"{_title(rung)} head dim {dim} {'causal' if causal else 'full'} {dtype}",
                        lambda rung=rung, dim=dim, causal=causal, dtype=dtype: [
                            _rung(lab, rung, shape, dim, causal, dtype) for shape in shapes
                        ],
                    )


def verdict(lab: Lab, got: Any, wanted: Any, dtype: str, slack: float = 1.0) -> tuple[float, str]:
    """(the worst output's error, what is wrong)."""
    if len(got) != len(wanted):
        return np.inf, f"{len(got)} outputs, the reference has {len(wanted)}"
    worst, problem = 0.0, ""
    for i, (g, w) in enumerate(zip(got, wanted)):
        if g is None or w is None:
            continue
        error = relative(lab.wide(g), lab.wide(w))
        if not error <= worst:  # NaN comes through
            worst = error
        if not error <= BOUNDS[dtype] * slack and not problem:
            problem = f"output {i} is off by {error:.2g} of its norm; {BOUNDS[dtype] * slack:.2g} is allowed"
    return worst, problem


def _call(lab: Lab, name: str, dtype: str, size: str) -> Row:
    with np.errstate(all="ignore"):
        wanted = CALLS[name](Side(lab, "reference", dtype), size == "small")
    with lab.on():
        got = CALLS[name](Side(lab, "cuda", dtype), size == "small")
    error, problem = verdict(lab, got, wanted, dtype, slack=2.0 if name.startswith("attention") else 1.0)
    return _row(lab, f"{name} {dtype} {size}", error, problem)


def _title(rung: Rung) -> str:
    return f"rung {rung.name} {'backward' if rung.backward else 'forward'} ({rung.source})"


def _rung(lab: Lab, rung: Rung, shape: tuple[int, ...], dim: int, causal: bool, dtype: str) -> Row:
    B, H, heads_kv, T, S = shape
    where = f"{shape} head dim {dim} {'causal' if causal else 'full'} {dtype}"
    case = f"{_title(rung)} {where}"
    q, dout = lab.normal(B, H, T, dim, dtype=dtype, seed=1), lab.normal(B, H, T, dim, dtype=dtype, seed=2)
    k, v = lab.normal(B, heads_kv, S, dim, dtype=dtype, seed=3), lab.normal(B, heads_kv, S, dim, dtype=dtype, seed=4)
    wide = [x.astype(np.float64) for x in (q, k, v, dout)]
    out, lse = kernels.attention_forward(*wide[:3], causal=causal, impl="reference")
    try:
        with lab.on():
            if rung.backward:
                wanted = kernels.attention_backward(wide[3], *wide[:3], out, lse, causal=causal, impl="reference")
                got = rung.run(dout, q, k, v, out.astype(q.dtype), lse.astype(np.float32), causal=causal)
            else:
                wanted, got = (out, lse), rung.run(q, k, v, causal=causal)
    except NotImplementedError as error:  # a rung says so where it stops
        return _row(lab, case, None, sentence(error))
    return _row(lab, case, *verdict(lab, got, wanted, dtype, slack=2.0))


def _row(lab: Lab, case: str, error: float | None, problem: str) -> Row:
    finite = error is not None and np.isfinite(error)
    return lab.row("correct", case, max_error=error if finite else None, equal=not problem, problem=problem)
