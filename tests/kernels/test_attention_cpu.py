# ruff: noqa: C408 - dict(T=5, causal=True) reads as the call that it becomes
"""Attention on the CPU: what its blocks, its parts, its decode path and its dropout could get wrong."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from attention_oracle import NAMES, check, inputs, keep

from kernels.attention import attention_backward, attention_forward, reference
from kernels.attention.decode import CUT, QUERIES
from kernels.attention.rooms import BLOCK_Q, backward_parts, backward_sizes, forward_sizes

BLOCKS = sorted({BLOCK_Q, backward_sizes(4096, 64), *forward_sizes(4096, 4096, 64), CUT})


def both(dout, q, k, v, **options):
    out, lse = attention_forward(q, k, v, impl="cpu", **options)
    return [out, lse, *attention_backward(dout, q, k, v, out, lse, impl="cpu", **options)]


def in_float64(dout, q, k, v, **options):
    """The reference, in float64: quicker than the oracle, which test_attention.py holds it to."""
    dout, q, k, v = (x.astype(np.float64) for x in (dout, q, k, v))
    if options.get("bias") is not None and options["bias"].dtype != bool:
        options["bias"] = options["bias"].astype(np.float64)
    out, lse = attention_forward(q, k, v, impl="reference", **options)
    return [out, lse, *attention_backward(dout, q, k, v, out, lse, impl="reference", **options)]


def close(results, wanted, tolerance=2e-5):
    """Each element within `tolerance` of the largest of its array: sums of 1000 terms of float32 are within 1e-5."""
    for name, x, y in zip(NAMES, results, wanted):
        empty = y == -np.inf
        assert np.array_equal(x == -np.inf, empty), name
        x, y = np.where(empty, 0, x), np.where(empty, 0, y)
        assert np.isfinite(x).all(), name
        assert np.abs(x - y).max(initial=0) <= tolerance * max(1, np.abs(y).max(initial=0)), name


# Lengths around the blocks -------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("length", sorted({b + d for b in BLOCKS for d in (-1, 0, 1)} | {1, 1025}))
def test_lengths_around_the_blocks(length, causal):
    arrays = inputs(B=1, H=2, T=length, D=32)
    close(both(*arrays, causal=causal), in_float64(*arrays, causal=causal))


@pytest.mark.parametrize("D", [1, 16, 17, 33, 48, 64, 65, 80, 96, 127, 128, 129, 200, 256])
def test_head_dims(D):
    arrays = inputs(B=1, H=1, T=70, S=150, D=D)
    close(both(*arrays, causal=True, offset=80), in_float64(*arrays, causal=True, offset=80))


WINDOWS = [dict(window=1), dict(window=100, causal=True), dict(window=300, offset=150)]


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_long_windows(options):
    arrays = inputs(B=1, H=2, T=700, S=650, D=16)
    close(both(*arrays, **options), in_float64(*arrays, **options))


@pytest.mark.parametrize("order", ["rising", "falling", "one in each block"])
def test_order_of_scores(order):
    dout, q, k, v = inputs(B=1, H=1, T=130, S=1000, D=16)
    q[..., 0] = 1
    ramp = np.linspace(-50, 50, 1000)
    k[..., 0] = {"rising": ramp, "falling": ramp[::-1], "one in each block": np.where(ramp % 7 < 0.1, 50, -50)}[order]
    close(both(dout, q, k, v, scale=1.0), in_float64(dout, q, k, v, scale=1.0), 2e-4)  # scores of 50: eps * 50 in p


# What is beside the arrays, or masked, does not count ----------------------------------------------


@pytest.mark.parametrize("T, D", [(1, 16), (1, 64), (33, 20), (33, 64), (129, 59)])
def test_nan_around_the_arrays(T, D):
    arrays = inputs(B=2, H=2, T=T, S=97, D=D)
    surrounded = []
    for x in arrays:
        wide = np.full([n + 2 for n in x.shape], np.nan, x.dtype)
        inner = wide[tuple([slice(1, -1)] * 4)]
        inner[...] = x
        surrounded.append(inner)
    for x, y in zip(both(*arrays, causal=True, offset=70), both(*surrounded, causal=True, offset=70)):
        assert np.array_equal(x, y)


def test_heads_split_from_one_axis_join_again_without_a_copy():
    """(B, T, H, D) in memory, as a projection leaves it, is taken and returned as it is."""
    arrays = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in inputs(T=33, D=16)]
    want = both(*(np.ascontiguousarray(x) for x in arrays))
    for name, x, y in zip(NAMES, want, both(*arrays)):
        assert np.array_equal(x, y), name
        assert name == "lse" or y.swapaxes(1, 2).flags.c_contiguous, name


@pytest.mark.parametrize("T", [1, 40])
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_masked_keys_leak_nothing(T, poison):
    dout, q, k, v = inputs(T=T, S=600, D=16)
    dead = np.random.default_rng(1).random(600) < 0.1
    clean = both(dout, q, *(np.where(dead[:, None], np.float32(0), x) for x in (k, v)), bias=~dead)
    dirty = both(dout, q, *(np.where(dead[:, None], np.float32(poison), x) for x in (k, v)), bias=~dead)
    for name, x, y in zip(NAMES, clean, dirty):
        assert np.array_equal(x, y), name


# Few queries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", range(1, QUERIES + 1))
@pytest.mark.parametrize("S", [1, 97, CUT - 1, CUT, CUT + 1, 2 * CUT + 300])
def test_few_queries(T, S):
    arrays = inputs(B=2, H=4, heads_kv=2, T=T, S=S, D=32)
    rng = np.random.default_rng(0)
    slope = np.where(rng.random((1, 1, 1, S)) < 0.3, -np.inf, rng.standard_normal((1, 1, 1, S)))
    for options in (
        dict(causal=True, offset=S - T),
        dict(window=max(1, S // 2), offset=S - T),
        dict(bias=rng.random((2, 4, T, S)) < 0.5),
        dict(bias=slope.astype(np.float32)),
        dict(dropout_p=0.4, seed=3, position=11),
        dict(bias=np.zeros((1, 1, 1, 1), bool)),
    ):
        close(both(*arrays, **options)[:2], in_float64(*arrays, **options)[:2])


def test_few_queries_against_the_oracle():
    arrays = inputs(B=1, H=2, heads_kv=1, T=2, S=130, D=16)
    check(both(*arrays, causal=True, offset=128), *arrays, causal=True, offset=128)


# Threads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["two heads", "causal", "decode", "dropout", "float64"])
def test_bits_do_not_depend_on_threads(case):
    sizes = dict(B=1, H=1, T=1, S=3000, D=32) if case == "decode" else dict(B=1, H=2, T=700, D=32)
    arrays = inputs(**sizes, dtype=np.float64 if case == "float64" else np.float32)
    options = {"causal": dict(causal=True), "dropout": dict(dropout_p=0.2, seed=1)}.get(case, {})
    want = both(*arrays, **options)
    threads = numba.get_num_threads()
    try:
        for n in {1, min(2, threads), threads}:
            numba.set_num_threads(n)
            for name, x, y in zip(NAMES, want, both(*arrays, **options)):
                assert np.array_equal(x, y), name
    finally:
        numba.set_num_threads(threads)


def test_few_heads_make_many_tasks():
    assert backward_parts(1, 4096, 64) == 16 and backward_parts(2, 4096, 64) == 8
    assert backward_parts(48, 4096, 64) == 1 and backward_parts(1, 60, 64) == 1


# Dropout -------------------------------------------------------------------------------------------


def test_dropout_keeps_what_it_says_and_scales():
    B, H, T, S, p = 2, 3, 37, 41, 0.3
    q = np.zeros((B, H, T, 64), np.float32)  # equal weights: out shows which keys were kept
    k = np.zeros((B, H, S, 64), np.float32)
    v = np.zeros_like(k)
    v[:, :, np.arange(S), np.arange(S)] = 1
    out, lse = attention_forward(q, k, v, dropout_p=p, seed=9, position=4, impl="cpu")
    kept = keep(9, 4, B * H * T * S, p).reshape(B, H, T, S)
    assert np.array_equal(out[..., :S] != 0, kept) and 0.65 < kept.mean() < 0.75
    assert np.allclose(out[..., :S][kept], 1 / S / (1 - p), rtol=1e-6)
    assert np.allclose(lse, np.log(S), rtol=1e-6)  # of the weights before dropout


def test_dropout_is_the_same_in_the_backward_pass():
    dout, q, k, v = inputs(B=1, H=2, T=33, S=50, D=16, dtype=np.float64)
    options = dict(dropout_p=0.4, seed=77, position=123, causal=True, offset=17, impl="cpu")
    out, lse = attention_forward(q, k, v, **options)
    gradients = attention_backward(dout, q, k, v, out, lse, **options)
    rng, h = np.random.default_rng(0), 1e-5
    for x, dx in zip((q, k, v), gradients):
        direction = rng.standard_normal(x.shape)
        sides = []
        for sign in (h, -h):
            moved = [y + sign * direction if y is x else y for y in (q, k, v)]
            sides.append((attention_forward(*moved, **options)[0] * dout).sum())
        assert abs((sides[0] - sides[1]) / (2 * h) - (dx * direction).sum()) < 1e-6


def test_dropout_counts_as_an_array_of_weights_would():
    """Other offsets of the same stream are other masks, and the position counts blocks of four."""
    _, q, k, v = inputs(T=33, D=16)
    places = ((1, 0), (1, 1), (2, 0))
    draw = [attention_forward(q, k, v, dropout_p=0.5, seed=s, position=p, impl="cpu")[0] for s, p in places]
    assert not np.array_equal(draw[0], draw[1]) and not np.array_equal(draw[0], draw[2])
    options = dict(causal=False, offset=0, window=None, scale=0.25)
    want = reference.attention_forward(q, k, v, None, **options, dropout=(0.5, 1, 0))[0]
    assert np.allclose(draw[0], want, atol=1e-5)
