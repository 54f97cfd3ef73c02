"""An oracle for attention that shares no code with the kernels: one query at a time, over the keys it sees."""

from __future__ import annotations

import numpy as np

NAMES = ("out", "lse", "dq", "dk", "dv")


def oracle(
    dout, q, k, v, causal=False, offset=0, window=None, bias=None, scale=None, dropout_p=0.0, seed=0, position=0,
    dtype=np.float64,
):  # fmt: skip
    """Results in `dtype`, and next to each a bound: the sum of the absolute values of the terms it is made of, times
    the size of the exponent, which turns the rounding of a score into a relative error of its exp."""
    dout, q, k, v = (x.astype(dtype) for x in (dout, q, k, v))
    B, H, T, D = q.shape
    S, group = k.shape[2], H // k.shape[1]
    scale = dtype(1 / np.sqrt(D) if scale is None else scale)
    if bias is not None:
        bias = np.broadcast_to(bias, (B, H, T, S))
    kept = keep(seed, position, B * H * T * S, dropout_p).reshape(B, H, T, S)
    factor = dtype(1 / (1 - dropout_p) if dropout_p < 1 else 0)
    results = [np.zeros(q.shape, dtype), np.full((B, H, T), -np.inf, dtype), *(np.zeros_like(x) for x in (q, k, v))]
    bounds = [np.zeros(x.shape) for x in results]
    for b, h, i in np.ndindex(B, H, T):
        keys = [j for j in range(S) if not (causal and j > i + offset) and not (window and j <= i + offset - window)]
        if bias is not None:
            keys = [j for j in keys if (bias[b, h, i, j] if bias.dtype == bool else bias[b, h, i, j] > -np.inf)]
        if not keys:
            continue
        g, q_i, do = h // group, q[b, h, i], dout[b, h, i]
        K, V = k[b, g, keys], v[b, g, keys]
        s = K @ q_i * scale
        if bias is not None and bias.dtype != bool:
            s = s + bias[b, h, i, keys].astype(dtype)
        lse = s.max() + np.log(np.exp(s - s.max()).sum())
        p = np.exp(s - lse)
        w = np.where(kept[b, h, i, keys], factor, 0)
        dp = w * (V @ do)
        ds = scale * p * (dp - p @ dp)
        rows = ((w * p) @ V, lse, ds @ K, np.outer(ds, q_i), np.outer(w * p, do))
        rounding = np.abs(s).max() + (np.abs(K) @ np.abs(q_i)).max() * abs(scale) + 1
        dp = w * (np.abs(V) @ np.abs(do))
        ds = abs(scale) * p * (dp + p @ dp)
        sizes = ((w * p) @ np.abs(V), 1, ds @ np.abs(K), np.outer(ds, np.abs(q_i)), np.outer(w * p, np.abs(do)))
        for arrays, (out, total, dq, dk, dv) in ((results, rows), (bounds, [size * rounding for size in sizes])):
            arrays[0][b, h, i], arrays[1][b, h, i], arrays[2][b, h, i] = out, total, dq
            arrays[3][b, g, keys] += dk
            arrays[4][b, g, keys] += dv
    return results, bounds


def keep(seed, position, count, p):
    """Which of `count` elements dropout keeps: Philox4x32-10 on Python's integers, one counter at a time."""
    low, words = 2**32 - 1, []
    for counter in range(position, position + (count + 3) // 4 if p else position):
        c, key = [counter & low, counter >> 32, 0, 0], [seed & low, seed >> 32]
        for _ in range(10):
            x, y = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [y >> 32 ^ c[1] ^ key[0], y & low, x >> 32 ^ c[3] ^ key[1], x & low]
            key = [key[0] + 0x9E3779B9 & low, key[1] + 0xBB67AE85 & low]
        words += c
    return np.array(words[:count]) // 256 >= float(np.float32(p)) * 2**24 if p else np.ones(count, bool)


def inputs(B=2, H=2, T=33, S=None, D=8, heads_kv=None, dtype=np.float32, seed=0):
    """dout, q, k, v."""
    rng = np.random.default_rng(seed)
    kv = (B, heads_kv or H, T if S is None else S, D)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((B, H, T, D), (B, H, T, D), kv, kv)]


def check(results, dout, q, k, v, **options):
    """err <= 2 x (3 x for gradients) the error of the same formula in plain float32, + 4 eps x the sum of the terms'
    sizes: the plain version may be exact by luck, and each term is rounded in a few operations."""
    want, bounds = oracle(dout, q, k, v, **options)
    plain, _ = oracle(dout, q, k, v, **options, dtype=q.dtype.type)
    eps = np.finfo(q.dtype).eps
    for name, x, exact, low, bound in zip(NAMES, results, want, plain, bounds):
        assert x.dtype == q.dtype and x.shape == exact.shape, name
        empty = exact == -np.inf  # lse of a query that sees nothing: the same, not only as near
        assert np.array_equal(x == -np.inf, empty), name
        exact, low, x = (np.where(empty, 0, y).astype(np.float64) for y in (exact, low, x))
        allowed = (2 if name in ("out", "lse") else 3) * np.abs(low - exact) + 4 * eps * bound
        excess = np.abs(x - exact) - allowed
        worst = np.unravel_index(np.argmax(excess), excess.shape) if excess.size else ()
        assert (excess <= 0).all(), f"{name}{list(map(int, worst))}: {x[worst]}, expected {exact[worst]}, q {q.shape}"
