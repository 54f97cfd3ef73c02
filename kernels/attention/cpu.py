"""Attention on the CPU: fused, blocked, parallel; formulas in reference.py.

The scores exist only as one block of queries x one block of keys, in cache. Forward walks over the key blocks with the
online softmax: per query the largest score so far (m), the sum of exp(s - m) so far (l) and the output so far, rescaled
by exp(m_old - m) when m grows. Backward recomputes p from lse. Key blocks that causal or window hide are not visited.

Threads: forward takes one (batch, head, query block) per task, backward one (batch, kv head), which owns all of its dq,
dk and dv. So no two threads add to the same number, and the bits do not depend on how many threads there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import contiguous
from ..numba_setup import njit, prange
from .limits import small

BLOCK_Q = 64
BLOCK_K = 64
# Sums may be reordered (vector lanes) and a*b + c fused; NaN and infinity keep their meaning: masks are made of them.
_options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
_in_order = {**_options, "fastmath": {"contract"}}


def attention_forward(
    q: Any, k: Any, v: Any, bias: Any, *, causal: bool, offset: int, window: int | None, scale: float
) -> tuple[Any, Any]:
    """See `kernels.attention`, which checks the arguments. (out (B, H, T, D), lse (B, H, T))."""
    q, k, v = contiguous(q), contiguous(k), contiguous(v)
    out, lse = np.zeros_like(q), np.empty(q.shape[:3], q.dtype)
    offset, window = _plain(q.shape[2], k.shape[2], offset, window)
    scale = q.dtype.type(scale)  # a Python float would make float64 of every score
    _forward(q, k, v, *_plain_bias(bias, q), causal, offset, window, scale, out, lse)
    return out, lse


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
) -> tuple[Any, Any, Any]:
    """See `kernels.attention`. (dq (B, H, T, D), dk (B, H_kv, S, D), dv (B, H_kv, S, D))."""
    dout, q, k, v, out, lse = (contiguous(x) for x in (dout, q, k, v, out, lse))
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    offset, window = _plain(q.shape[2], k.shape[2], offset, window)
    scale = q.dtype.type(scale)
    _backward(dout, q, k, v, out, lse, *_plain_bias(bias, q), causal, offset, window, scale, dq, dk, dv)
    return dq, dk, dv


def _plain(T: int, S: int, offset: int, window: int | None) -> tuple[int, int]:
    """Offset and window as small integers; None is a window over everything."""
    offset, window = small(T, S, offset, window)
    return offset, offset + T + S + 2 if window is None else window


def _plain_bias(bias: Any, q: Any) -> tuple[Any, bool]:
    """Bias as a C-ordered float array, so that Numba sees one type; axes along which it is the same get length 1."""
    if bias is None:
        return np.zeros((1, 1, 1, 1), q.dtype), False
    bias = bias[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in bias.strides)]
    if bias.dtype == bool:
        bias = np.where(bias, 0, -np.inf).astype(q.dtype)
    return contiguous(bias), True


@njit(parallel=True, **_options)
def _forward(q, k, v, bias, has_bias, causal, offset, window, scale, out, lse):
    B, H, T, _ = q.shape
    blocks = (T + BLOCK_Q - 1) // BLOCK_Q
    group = H // k.shape[1]
    for task in prange(B * H * blocks):
        b, h, first = task // (H * blocks), task // blocks % H, task % blocks * BLOCK_Q
        _forward_block(q, k, v, bias, has_bias, causal, offset, window, scale, out, lse, b, h, h // group, first)


@njit(parallel=True, **_options)
def _backward(dout, q, k, v, out, lse, bias, has_bias, causal, offset, window, scale, dq, dk, dv):
    B, heads_kv = k.shape[:2]
    for task in prange(B * heads_kv):
        b, h = task // heads_kv, task % heads_kv
        _backward_head(dout, q, k, v, out, lse, bias, has_bias, causal, offset, window, scale, dq, dk, dv, b, h)


@njit(**_options)
def _forward_block(q, k, v, bias, has_bias, causal, offset, window, scale, out, lse, b, h, g, first):
    """Queries first .. first + BLOCK_Q of head h, which reads kv head g."""
    last = min(first + BLOCK_Q, q.shape[2])
    S, D = k.shape[2:]
    q, out, lse = q[b, h, first:last], out[b, h, first:last], lse[b, h, first:last]  # (n, D), (n, D), (n,)
    n = last - first
    keys = np.empty((D, BLOCK_K), q.dtype)
    s = np.empty((n, BLOCK_K), q.dtype)
    m, l = np.empty(n, q.dtype), np.empty(n, q.dtype)
    _fill(m, -np.inf)
    _fill(l, 0.0)
    start = _seen(first, S, causal, offset, window)[0]
    stop = _seen(last - 1, S, causal, offset, window)[1]
    for j in range(start, stop, BLOCK_K):
        values = v[b, g, j : min(j + BLOCK_K, stop)]  # (width, D)
        _transpose(keys, k[b, g, j : min(j + BLOCK_K, stop)])
        _set_product(s, q, keys)  # (n, BLOCK_K)
        for i in range(n):
            row = s[i]
            _finish_scores(row, first + i, j, S, causal, offset, window, scale, bias, has_bias, b, h)
            top = max(m[i], _max(row))
            shift = top if top > -np.inf else q.dtype.type(0)  # nothing seen yet: exp(-inf - 0) is 0
            rescale = np.exp(m[i] - shift)
            l[i] = l[i] * rescale + _exp(row, shift)
            m[i] = top
            out_i = out[i]
            for d in range(D):
                out_i[d] *= rescale
        _add_seen(out, s, values)
    for i in range(n):
        out_i = out[i]
        if l[i] == 0:
            lse[i] = -np.inf
        else:
            lse[i] = m[i] + np.log(l[i])
            for d in range(D):
                out_i[d] /= l[i]


@njit(**_options)
def _backward_head(dout, q, k, v, out, lse, bias, has_bias, causal, offset, window, scale, dq, dk, dv, b, g):
    """Everything about kv head g: for each block of its keys, all the queries that see one of them."""
    T, D = q.shape[2:]
    S = k.shape[2]
    group = q.shape[1] // k.shape[1]
    keys, values = np.empty((D, BLOCK_K), q.dtype), np.empty((D, BLOCK_K), q.dtype)
    p_, ds_ = np.empty((BLOCK_Q, BLOCK_K), q.dtype), np.empty((BLOCK_Q, BLOCK_K), q.dtype)
    turned = np.empty((BLOCK_K, BLOCK_Q), q.dtype)
    delta = np.empty((group, T), q.dtype)
    for h in range(group):
        for i in range(T):
            delta[h, i] = _dot(dout[b, g * group + h, i], out[b, g * group + h, i])
    for j in range(0, S, BLOCK_K):
        end = min(j + BLOCK_K, S)
        k_j, dk_j, dv_j = k[b, g, j:end], dk[b, g, j:end], dv[b, g, j:end]  # (width, D)
        _transpose(keys, k_j)
        _transpose(values, v[b, g, j:end])
        start = max(0, j - offset) if causal else 0
        stop = max(0, min(T, end - 1 + window - offset))
        for h in range(g * group, (g + 1) * group):
            for first in range(start, stop, BLOCK_Q):
                last = min(first + BLOCK_Q, stop)
                n = last - first
                q_i, dout_i, dq_i = q[b, h, first:last], dout[b, h, first:last], dq[b, h, first:last]  # (n, D)
                p, ds = p_[:n], ds_[:n]  # (n, BLOCK_K)
                _set_product(p, q_i, keys)
                _set_product(ds, dout_i, values)
                for i in range(n):
                    row = p[i]
                    _finish_scores(row, first + i, j, S, causal, offset, window, scale, bias, has_bias, b, h)
                    total = lse[b, h, first + i]
                    _exp(row, total if total != -np.inf else q.dtype.type(np.inf))
                    _softmax_backward(ds[i], row, delta[h - g * group, first + i], scale)
                _transpose(turned, p)
                _add_seen(dv_j, turned, dout_i)
                _transpose(turned, ds)
                _add_seen(dk_j, turned, q_i)
                _add_seen(dq_i, ds, k_j)


@njit(**_options)
def _seen(i, S, causal, offset, window):
    """The keys [start, stop) that query i sees, as far as causal and window say."""
    stop = min(S, i + offset + 1) if causal else S
    return max(0, i + offset - window + 1), stop


@njit(**_options)
def _finish_scores(row, i, j, S, causal, offset, window, scale, bias, has_bias, b, h):
    """row (BLOCK_K,): q_i . k_j for keys j, j + 1, ...: scale it, add the bias, -inf where i does not see the key."""
    for c in range(row.size):
        row[c] *= scale
    if has_bias:
        extra = bias[b % bias.shape[0], h % bias.shape[1], i % bias.shape[2]]  # (S,) or (1,)
        step = 1 if extra.size > 1 else 0
        for c in range(min(row.size, S - j)):
            x = extra[(j + c) * step]
            row[c] = row[c] + x if x != -np.inf else x
    start, stop = _seen(i, S, causal, offset, window)
    _fill(row[: max(0, min(row.size, start - j))], -np.inf)
    _fill(row[max(0, min(row.size, stop - j)) :], -np.inf)


@njit(**_options)
def _fill(row, value):
    for c in range(row.size):
        row[c] = value


@njit(**_options)
def _exp(row, shift):
    """row = exp(row - shift), in place, and 0 for -inf even where shift is NaN or -inf; returns the sum."""
    for c in range(row.size):
        row[c] = np.exp(row[c] - shift) if row[c] != -np.inf else 0
    total = row.dtype.type(0)
    for c in range(row.size):
        total += row[c]
    return total


@njit(**_options)
def _softmax_backward(ds, p, delta, scale):
    """ds, which holds dp, becomes scale * p * (dp - delta); 0 where p is, whatever dp is there."""
    for c in range(p.size):
        ds[c] = p[c] * (ds[c] - delta) * scale if p[c] != 0 else p[c]


@njit(**_options)
def _max(row):
    a = b = c = d = row[0]  # four at a time: one alone waits for itself
    for i in range(0, row.size, 4):
        a, b = max(a, row[i]), max(b, row[i + 1])
        c, d = max(c, row[i + 2]), max(d, row[i + 3])
    return max(max(a, b), max(c, d))


@njit(**_options)
def _dot(x, y):
    total = x.dtype.type(0)
    for d in range(x.size):
        total += x[d] * y[d]
    return total


@njit(**_options)
def _finite(x):
    """No NaN, no infinity: 0 * x is 0 everywhere."""
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        row = x[i]
        for d in range(row.size):
            total += row[d] * row.dtype.type(0)
    return total == 0


@njit(**_options)
def _transpose(columns, x):
    """columns (D, BLOCK_K) = x (n, D) transposed, and zeros beside it."""
    for d in range(columns.shape[0]):
        column = columns[d]
        for i in range(x.shape[0]):
            column[i] = x[i, d]
        _fill(column[x.shape[0] :], 0.0)


@njit(**_in_order)
def _add_product(c, a, b):
    """c (M, N) += a (M, K) @ b (K, N), K and N from b."""
    K = b.shape[0]
    fours = K - K % 4
    for i in range(c.shape[0]):
        c_i = c[i]
        for j in range(0, fours, 4):  # four rows of b for each load and store of c
            w, x, y, z = a[i, j], a[i, j + 1], a[i, j + 2], a[i, j + 3]
            b_w, b_x, b_y, b_z = b[j], b[j + 1], b[j + 2], b[j + 3]
            for d in range(c_i.size):
                c_i[d] = c_i[d] + w * b_w[d] + x * b_x[d] + y * b_y[d] + z * b_z[d]
        for j in range(fours, K):
            w, b_w = a[i, j], b[j]
            for d in range(c_i.size):
                c_i[d] += w * b_w[d]


@njit(**_in_order)
def _set_product(c, a, b):
    for i in range(c.shape[0]):
        _fill(c[i], 0.0)
    _add_product(c, a, b)


@njit(**_in_order)
def _add_seen(c, a, b):
    """`_add_product`, but a zero in a skips its row of b, so that 0 * NaN and 0 * inf stay out.

    Both ways add in the order of b's rows: other queries keep their bits when a key becomes NaN.
    """
    if _finite(b):
        _add_product(c, a, b)
        return
    for i in range(c.shape[0]):
        c_i = c[i]
        for j in range(b.shape[0]):
            w, b_w = a[i, j], b[j]
            if w != 0:
                for d in range(c_i.size):
                    c_i[d] += w * b_w[d]
