"""The softmax of a row of scores, between the products; base 2, because 2^x is cheaper than e^x.

Scores come as s = log2(e) * scale * q.k: the queries are packed times that factor. So p = 2^(s - m), and the natural
log-sum-exp is ln 2 * m + log l. A row has BLOCK_K numbers, of which [from_, to) (whole vectors) have been computed and
[start, stop) are of keys that the query sees.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from .. import simd
from ..numba_setup import njit
from ..vector.functions import scale as times_power
from .tiles import INNER, spread

LN2, LOG2_E = math.log(2.0), math.log2(math.e)


def exp2(x):
    """2^x for a vector x; exactly 1 at 0 and 0 at -inf; NaN stays NaN. 1.4 ulp (float32; float64 asks the C library).

    2^x = 2^n 2^r, |r| <= 1/2,    2^r = 1 + r Q(r), Q minimax of degree 4.
    """


@overload(exp2, jit_options={"forceinline": True})
def _(x):
    if x.dtype == types.float64:
        return lambda x: simd.exp(x * LN2)

    def float32(x):
        x = simd.maximum(-152.0, x)  # 2^-152 is 0 in float32; the order of arguments lets NaN through
        n = simd.round_even(x)
        r = x - n
        p = simd.fma(simd.fma(simd.fma(r, 0.0013264727, 0.009671513), r, 0.055507336), r, 0.24022242)
        return times_power(simd.fma(simd.fma(p, r, 0.693147), r, 1.0), n)

    return float32


@njit(**INNER)
def seen(i, S, rule):
    """The keys [start, stop) that query i sees, as far as causal and window say."""
    causal, offset, window = rule
    stop = min(S, i + offset + 1) if causal else S
    return max(0, i + offset - window + 1), stop


@njit(**INNER)
def hide(s, from_, to, start, stop):
    """-inf for the keys of [from_, to) outside [start, stop). Visits only the vectors that hold one."""
    lanes = simd.lanes(s)
    inside = max(from_, min((start + lanes - 1) // lanes * lanes, to))  # whole vectors of seen keys, up to `outside`
    outside = max(inside, from_ + max(0, stop - from_) // lanes * lanes)
    for c in range(from_, inside, lanes):
        key = simd.iota(s) + c
        simd.store(s, c, simd.select((key >= start) & (key < stop), simd.load(s, c), -np.inf))
    for c in range(outside, to, lanes):
        simd.store(s, c, simd.select(simd.iota(s) + c < stop, simd.load(s, c), -np.inf))


@njit(**INNER)
def add_bias(s, from_, to, bias, step, stop):
    """s += log2(e) * bias for keys before stop; bias[j * step] belongs to key j. -inf hides a key, whatever s is."""
    for c in range(from_, to, simd.lanes(s)):
        x = simd.load_tail(bias, c, stop - c) if step else spread(bias, 0)
        simd.store(s, c, simd.select(x == -np.inf, -np.inf, simd.fma(x, LOG2_E, simd.load(s, c))))


@njit(**INNER)
def softmax_row(s, from_, to, m, l, o, width):
    """Online softmax: s becomes p = 2^(s - m), and m, l, o learn of it.

    m   a vector: the largest score so far, in every lane
    l   a vector: sums of p so far, one for each lane
    o   the row of the output so far, `width` numbers (whole vectors)
    """
    lanes = simd.lanes(s)
    top = simd.splat(-np.inf, s)
    for c in range(from_, to, lanes):
        top = simd.maximum(simd.load(s, c), top)
    top, old, total = simd.splat(simd.hmax(top), s), simd.load(m, 0), simd.load(l, 0)
    if simd.any_lane(top > old):
        simd.store(m, 0, top)
        if simd.any_lane(old > -np.inf):  # what was summed so far was relative to a smaller maximum
            factor = exp2(old - top)
            for d in range(0, width, lanes):
                simd.store(o, d, simd.load(o, d) * factor)
            total = total * factor
    else:
        top = simd.select(old > -np.inf, old, 0.0)  # nothing seen yet: 2^(-inf - 0) is 0
    for c in range(from_, to, lanes):
        p = exp2(simd.load(s, c) - top)
        simd.store(s, c, p)
        total = total + p
    simd.store(l, 0, total)


@njit(**INNER)
def softmax_backward_row(s, dp, from_, to, lse, delta):
    """s becomes p = e^(s - lse), dp becomes ds = p (dp - delta): both exactly 0 for a hidden key, whatever is there."""
    shift = simd.select(lse == -np.inf, np.inf, lse * LOG2_E)  # of a query that sees nothing: all its p are 0
    for c in range(from_, to, simd.lanes(s)):
        x = simd.load(s, c)
        p = simd.select(x == -np.inf, 0.0, exp2(x - shift))
        ds = p * (simd.load(dp, c) - delta)
        simd.store(s, c, p)
        simd.store(dp, c, simd.select(p == 0.0, 0.0, ds))
