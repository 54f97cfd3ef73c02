"""Attention as its definition: the specification that the other implementations are compared with.

q (B, H, T, D): B sequences, H heads, T queries of D numbers. k, v (B, H_kv, S, D): S keys and their values; H / H_kv
query heads share each. lse (B, H, T). Which keys a query sees is said by causal, offset, window and bias, defined in
`kernels.attention`; a query that sees none has out 0 and lse -inf, and that is what every `where` below is for.

forward, per query i; j runs over the keys that i sees:

    s_ij  = scale * q_i . k_j + bias_ij
    lse_i = log sum_j exp(s_ij)
    p_ij  = exp(s_ij - lse_i)         in code exp(s_ij - top_i) / total_i, top_i = max_j s_ij: exp cannot overflow
    out_i = sum_j p_ij v_j

backward, from dout, in matrices:

    dV = P^T dOut
    dP = dOut V^T
    dS = P * (dP - delta)       delta_i = sum_j p_ij dp_ij = dout_i . out_i     (the softmax's Jacobian)
    dQ = scale dS K
    dK = scale dS^T Q

With dropout the weights are p_ij keep_ij / (1 - dropout_p), in out, dV and dP; lse is of p itself.

float16 and bfloat16 are computed in float32 and rounded once, at the end.

The whole (T, S) array of scores is in memory here; the other implementations never hold it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import array_module
from ..matmul.reference import round_to_bf16
from ..random.reference import philox_uniform


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
) -> tuple[Any, Any]:
    """See `kernels.attention`, which checks the arguments. (out (B, H, T, D), lse (B, H, T))."""
    xp = array_module(q)
    if q.dtype.itemsize == 2:
        mask: dict[str, Any] = {"causal": causal, "offset": offset, "window": window}
        out, lse = attention_forward(*_widened(q, k, v, bias), scale=scale, dropout=dropout, **mask)
        return out.astype(q.dtype), lse
    q, k, v = _rounded(bf16, q, k, v)
    k, v = _repeat(k, q), _repeat(v, q)  # (B, H, S, D)
    s, seen = _scores(q, k, bias, causal, offset, window, scale)  # (B, H, T, S)
    top = s.max(axis=-1, keepdims=True)  # (B, H, T, 1): the largest exponent becomes exp(0)
    top = xp.where(top == -xp.inf, 0, top).astype(q.dtype)
    p = xp.exp(s - top)  # (B, H, T, S), not yet divided
    total = p.sum(axis=-1, keepdims=True)  # (B, H, T, 1); 0 where nothing is seen
    none = total == 0
    total = xp.where(none, 1, total).astype(q.dtype)
    weights, kept = _drop(p / total, dropout)  # (B, H, T, S)
    (weights,) = _rounded(bf16, weights)
    out = _product(weights, v, seen & kept)  # (B, H, T, D)
    lse = xp.where(none, -xp.inf, top + xp.log(total)).astype(q.dtype)
    return out, lse[..., 0]


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
) -> tuple[Any, Any, Any]:
    """See `kernels.attention`. (dq (B, H, T, D), dk (B, H_kv, S, D), dv (B, H_kv, S, D))."""
    xp = array_module(q)
    if q.dtype.itemsize == 2:
        mask: dict[str, Any] = {"causal": causal, "offset": offset, "window": window}
        grads = attention_backward(*_widened(dout, q, k, v, out, lse, bias), scale=scale, dropout=dropout, **mask)
        dq, dk, dv = (x.astype(q.dtype) for x in grads)
        return dq, dk, dv
    delta = (dout * out).sum(axis=-1, keepdims=True)  # (B, H, T, 1)
    q, k, v, dout = _rounded(bf16, q, k, v, dout)
    shared = k.shape  # (B, H_kv, S, D)
    k, v = _repeat(k, q), _repeat(v, q)  # (B, H, S, D)
    s, seen = _scores(q, k, bias, causal, offset, window, scale)  # (B, H, T, S)
    p = xp.where(seen, xp.exp(s - xp.where(lse == -xp.inf, 0, lse).astype(q.dtype)[..., None]), 0).astype(q.dtype)
    weights, kept = _drop(p, dropout)  # (B, H, T, S)
    with np.errstate(over="ignore", invalid="ignore"):  # in masked values, which the next lines drop
        dp, _ = _drop(dout @ v.swapaxes(-1, -2), dropout)  # (B, H, T, S)
        ds = xp.where(seen, p * (dp - delta), 0).astype(q.dtype)  # (B, H, T, S)
    weights, ds = _rounded(bf16, weights, ds)
    dv = _product(weights.swapaxes(-1, -2), dout, (seen & kept).swapaxes(-1, -2))  # (B, H, S, D)
    dq = scale * _product(ds, k, seen)  # (B, H, T, D)
    dk = scale * _product(ds.swapaxes(-1, -2), q, seen.swapaxes(-1, -2))  # (B, H, S, D)
    return dq, _sum_groups(dk, shared), _sum_groups(dv, shared)


def _scores(q: Any, k: Any, bias: Any, causal: bool, offset: int, window: int | None, scale: float) -> tuple[Any, Any]:
    """Scaled scores, -inf where a query does not see a key, and seen, both (B, H, T, S)."""
    xp = array_module(q)
    T, S = q.shape[2], k.shape[2]
    i, j = xp.arange(T)[:, None], xp.arange(S)[None, :]
    seen = xp.ones((T, S), dtype=bool)
    if causal:
        seen = seen & (j <= i + offset)
    if window is not None:
        seen = seen & (j > i + offset - window)
    with np.errstate(over="ignore", invalid="ignore"):  # in masked keys, dropped below
        s = scale * (q @ k.swapaxes(-1, -2))  # (B, H, T, S)
    if bias is not None:
        seen = seen & (bias if bias.dtype == bool else bias != -xp.inf)  # (B, H, T, S) or smaller
        if bias.dtype != bool:
            s = s + xp.where(bias == -xp.inf, 0, bias).astype(q.dtype)
    seen = xp.broadcast_to(seen, s.shape)
    return xp.where(seen, s, -xp.inf).astype(q.dtype), seen


def _drop(x: Any, dropout: tuple[float, int, int] | None) -> tuple[Any, Any]:
    """x (B, H, T, S) / (1 - p) where it is kept, else 0; and kept. The same numbers as dropout of an array x."""
    xp = array_module(x)
    if dropout is None:
        return x, xp.ones((1, 1, 1, 1), dtype=bool)
    p, seed, position = dropout
    kept = philox_uniform(x.shape, seed, position, xp.dtype(xp.float32), xp) >= xp.float32(p)
    return xp.where(kept, x * (1 / (1 - p) if p < 1 else 0.0), 0).astype(x.dtype), kept


def _widened(*arrays: Any) -> list[Any]:
    """The floating ones as float32."""
    return [x if x is None or x.dtype == bool else x.astype(np.float32) for x in arrays]


def _rounded(bf16: bool, *arrays: Any) -> tuple[Any, ...]:
    """With bf16 the operands of products are rounded to bfloat16; sums, softmax and delta are not."""
    return tuple(round_to_bf16(x) for x in arrays) if bf16 else arrays


def _product(weights: Any, x: Any, seen: Any) -> Any:
    """weights @ x, where NaN and inf in row j of x reach only the results i that see it (0 * NaN would reach all)."""
    xp = array_module(x)
    finite = xp.isfinite(x)
    if finite.all():
        return weights @ x
    poisoned = seen.astype(x.dtype) @ (~finite).astype(x.dtype) > 0
    return xp.where(poisoned, xp.nan, weights @ xp.where(finite, x, 0).astype(x.dtype)).astype(x.dtype)


def _repeat(x: Any, q: Any) -> Any:
    """(B, H_kv, S, D) -> (B, H, S, D): each kv head once per query head that reads it."""
    return array_module(x).repeat(x, q.shape[1] // x.shape[1], axis=1)


def _sum_groups(dx: Any, shape: tuple[int, ...]) -> Any:
    """(B, H, S, D) -> (B, H_kv, S, D): a shared head gets the sum of its readers' gradients."""
    B, heads_kv, S, D = shape
    return dx.reshape(B, heads_kv, -1, S, D).sum(axis=2)
