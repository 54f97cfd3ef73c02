"""Attention with products of bfloat16: float32 in and out, where the CPU has the instructions."""

# ruff: noqa: C408 - dict(T=5, causal=True) reads as the call that it becomes
from __future__ import annotations

import numpy as np
import pytest
from attention_oracle import NAMES, inputs

from kernels import simd
from kernels.attention import attention_backward, attention_forward, cpu

needs_bf16 = pytest.mark.skipif(not simd.HAS_BF16, reason="this CPU does not multiply bfloat16")


def run(dout, q, k, v, **options):
    out, lse = attention_forward(q, k, v, **options)
    return [out, lse, *attention_backward(dout, q, k, v, out, lse, **options)]


CASES = {
    "whole blocks": dict(B=1, T=128, S=256, D=64),
    "odd": dict(T=33, S=35, D=7),
    "odd, causal": dict(T=97, S=97, D=59, causal=True),
    "offset": dict(T=65, S=131, D=64, causal=True, offset=66),
    "window": dict(B=1, T=200, D=48, window=33),
    "grouped": dict(B=1, H=6, heads_kv=2, T=40, D=80, causal=True),
    "long": dict(B=1, H=1, T=300, S=517, D=128),
    "wide": dict(B=1, H=1, T=70, S=71, D=256),
    "dropout": dict(B=1, T=50, D=32, dropout_p=0.3, seed=4),
    "rows that see nothing": dict(T=40, D=16, causal=True, offset=-7),
}


@needs_bf16
@pytest.mark.parametrize("name", CASES)
def test_no_worse_than_rounding(name):
    """At most 2 x (gradients: 3 x) the error that rounding the operands of NumPy's products makes, in the mean over the
    array, and 3 x in the largest; both against float64."""
    case = dict(CASES[name])
    options = {n: case.pop(n) for n in ("causal", "offset", "window", "dropout_p", "seed") if n in case}
    arrays = inputs(**case)
    exact = run(*(x.astype(np.float64) for x in arrays), impl="reference", **options)
    plain = run(*arrays, impl="reference", bf16=True, **options)
    for name, x, want, low in zip(NAMES, run(*arrays, impl="cpu", bf16=True, **options), exact, plain):
        assert x.dtype == np.float32 and np.array_equal(x == -np.inf, want == -np.inf), name
        x, low, want = (np.where(want == -np.inf, 0, y) for y in (x, low, want))
        error, usual, floor = np.abs(x - want), np.abs(low - want), 1e-6
        assert error.mean() <= (2 if name in ("out", "lse") else 3) * usual.mean() + floor, name
        assert error.max() <= 3 * usual.max() + floor, name
        assert error.max() > 0 or not usual.max(), f"{name}: exact, so nothing was rounded"


@needs_bf16
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("T", [33, 40])
def test_masked_keys_leak_nothing(poison, T):
    dout, q, k, v = inputs(T=T, S=71, D=20)
    dead = np.zeros(71, bool)
    dead[[3, 31, 64, 70]] = True
    options = dict(bias=~dead, impl="cpu", bf16=True)
    clean = run(dout, q, *(np.where(dead[:, None], np.float32(0), x) for x in (k, v)), **options)
    dirty = run(dout, q, *(np.where(dead[:, None], np.float32(poison), x) for x in (k, v)), **options)
    for name, x, y in zip(NAMES, clean, dirty):
        assert np.isfinite(y).all(), name
        assert np.abs(x - y).max() < 0.05, name  # NaN in a block: its products are made of float32 numbers


@needs_bf16
def test_nan_that_is_seen_is_not_hidden():
    dout, q, k, v = inputs(T=40, D=16)
    v[:, :, 17] = np.nan
    out, _, dq, _, _ = run(dout, q, k, v, impl="cpu", bf16=True)
    assert np.isnan(out).all() and np.isnan(dq).all()


def test_without_the_instructions_it_is_an_error(monkeypatch):
    monkeypatch.setattr(cpu.simd, "HAS_BF16", False)
    dout, q, k, v = inputs(T=9)
    with pytest.raises(NotImplementedError, match="AVX512_BF16"):
        attention_forward(q, k, v, bf16=True, impl="cpu")
    with pytest.raises(NotImplementedError, match="AVX512_BF16"):
        attention_backward(dout, q, k, v, q, q[..., 0], bf16=True, impl="cpu")
