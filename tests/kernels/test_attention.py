"""Attention: every implementation against a float64 oracle that shares no code with them."""

# ruff: noqa: C408 - dict(T=5, causal=True) reads as the call that it becomes
from __future__ import annotations

import ml_dtypes
import numba
import numpy as np
import pytest
from attention_oracle import NAMES, check, inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import attention_backward, attention_forward

ON_CPU = ["reference", "cpu"]


# Implementations: reference and cpu; the CUDA kernels in the simulator; the CUDA kernels on a GPU
ON_CUDA = [
    pytest.param("cuda", id="cuda", marks=pytest.mark.on_cuda("simulator")),
    pytest.param("cuda", id="gpu", marks=[pytest.mark.on_cuda("device"), pytest.mark.gpu]),
]


def run(impl, dout, q, k, v, **options):
    """[out, lse, dq, dk, dv]"""
    out, lse = attention_forward(q, k, v, impl=impl, **options)
    return [out, lse, *attention_backward(dout, q, k, v, out, lse, impl=impl, **options)]


# A case: sizes and options. `bias` is a function of (rng, (B, H, T, S)). ---------------------------


def mask(keep=0.6, axes=()):
    """A bool mask, True with probability `keep`, of length 1 along `axes`."""
    return lambda rng, shape: rng.random([1 if a in axes else n for a, n in enumerate(shape)]) < keep


def slope(axes=(), dead=0.3):
    """A float bias of size 1 with some -inf, of length 1 along `axes`."""

    def make(rng, shape):
        shape = [1 if a in axes else n for a, n in enumerate(shape)]
        return np.where(rng.random(shape) < dead, -np.inf, rng.standard_normal(shape))

    return make


CASES = {
    "one": dict(B=1, H=1, T=1, D=1),
    "length 31": dict(T=31),
    "length 32": dict(T=32, causal=True),
    "length 33": dict(T=33, causal=True),
    "length 64": dict(T=64, D=64),
    "length 97": dict(T=97, D=59, causal=True),
    "length 129, window": dict(T=129, window=40),
    "head dim 3": dict(D=3),
    "head dim 59": dict(D=59, T=20),
    "head dim 111": dict(D=111, T=20, causal=True),
    "head dim 256": dict(D=256, B=1, T=9, S=40),
    "T < S, cache": dict(T=5, S=70, causal=True, offset=65),
    "T < S": dict(T=5, S=70, causal=True),
    "T > S": dict(T=70, S=5, causal=True),
    "decode": dict(T=1, S=97, causal=True, offset=96, H=4, heads_kv=2),
    "offset -7: rows that see nothing": dict(T=40, causal=True, offset=-7),
    "offset beyond everything": dict(T=10, causal=True, offset=10**15),
    "offset before everything": dict(T=10, causal=True, offset=-(10**15)),
    "window": dict(T=97, window=5),
    "window 1, causal": dict(T=40, window=1, causal=True),
    "window, causal, offset": dict(T=40, S=100, window=33, causal=True, offset=60),
    "window past the keys": dict(T=40, S=20, window=3),
    "far offset, wider window": dict(T=7, S=5, offset=40, window=43),
    "far offset, window past the keys": dict(T=7, S=5, offset=40, window=20),
    "far negative offset, causal window": dict(T=7, S=5, offset=-3, window=2, causal=True),
    "window of everything": dict(T=10, window=10**15, causal=True),
    "grouped heads": dict(H=6, heads_kv=2, T=40, causal=True),
    "one kv head": dict(H=4, heads_kv=1, T=33),
    "bool mask": dict(T=40, bias=mask()),
    "bool mask, causal": dict(T=70, bias=mask(0.3), causal=True),
    "padding mask": dict(T=40, bias=mask(axes=(1, 2))),
    "mask of queries": dict(T=40, bias=mask(axes=(1, 3))),
    "mask of nothing": dict(T=10, bias=mask(0.0, axes=(0, 1))),
    "float bias": dict(T=40, S=70, bias=slope()),
    "float bias, over B": dict(T=40, bias=slope(axes=(0,)), causal=True),
    "float bias, over B and H": dict(T=40, bias=slope(axes=(0, 1)), H=4, heads_kv=2),
    "float bias, over T": dict(T=40, bias=slope(axes=(0, 2)), window=9),
    "two axes of bias": dict(T=40, bias=lambda rng, shape: slope()(rng, shape[2:])),
    "scale": dict(T=33, scale=0.7),
    "scale 0": dict(T=33, scale=0.0, causal=True),
    "negative scale": dict(T=33, scale=-1.0),
}
CASES |= {
    "dropout": dict(T=40, S=70, dropout_p=0.3, seed=5, position=3),
    "dropout, causal, grouped": dict(T=37, H=4, heads_kv=2, causal=True, dropout_p=0.5, seed=2**63 + 1, position=2**40),
    "dropout, window, mask": dict(T=97, window=20, bias=mask(), dropout_p=0.1, seed=1),
    "dropout of everything": dict(T=9, dropout_p=1.0),
}
SLOW = ("length 97", "length 129, window", "head dim 111", "length 64", "one")  # to compile or to simulate
SIMULATED = [name for name in CASES if name not in SLOW]
ALL = [("reference", n) for n in CASES] + [("cpu", n) for n in CASES]
ALL += [pytest.param("cuda", n, marks=ON_CUDA[0].marks, id=f"cuda-{n}") for n in SIMULATED]
ALL += [pytest.param("cuda", n, marks=ON_CUDA[1].marks, id=f"gpu-{n}") for n in CASES]


OPTIONS = ("causal", "offset", "window", "scale", "dropout_p", "seed", "position")


def build(name, dtype=np.float32):
    """(dout, q, k, v), options of a case."""
    case = dict(CASES[name])
    bias = case.pop("bias", None)
    options = {key: case.pop(key) for key in OPTIONS if key in case}
    arrays = inputs(**case, dtype=dtype)
    if bias is not None:
        _, q, k, _ = arrays
        bias = bias(np.random.default_rng(1), (*q.shape[:3], k.shape[2]))
        options["bias"] = bias if bias.dtype == bool else bias.astype(dtype)
    return arrays, options


@pytest.mark.parametrize("impl, name", ALL)
def test_agrees_with_the_oracle(impl, name):
    arrays, options = build(name)
    before = [x.copy() for x in arrays]
    results = run(impl, *arrays, **options)
    check(results, *arrays, **options)
    assert all(np.array_equal(x, y) for x, y in zip(arrays, before)), "an input was changed"
    assert not any(np.shares_memory(x, y) for x in results for y in arrays), "an output is an input's memory"
    assert not any(np.shares_memory(x, y) for i, x in enumerate(results) for y in results[:i])


@pytest.mark.parametrize("impl", ON_CPU)
@pytest.mark.parametrize("name", ["length 33", "grouped heads", "float bias", "offset -7: rows that see nothing"])
def test_float64(impl, name):
    arrays, options = build(name, np.float64)
    check(run(impl, *arrays, **options), *arrays, **options)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["length 33", "grouped heads", "float bias", "offset -7: rows that see nothing"])
def test_half_types_are_computed_in_float32_and_rounded_once(name, dtype):
    arrays, options = build(name)
    arrays = [x.astype(dtype) for x in arrays]
    if "bias" in options:
        options["bias"] = options["bias"].astype(dtype)
    results = run(None, *arrays, **options)
    assert [x.dtype for x in results] == [dtype, np.float32, dtype, dtype, dtype]
    if "bias" in options:
        options["bias"] = options["bias"].astype(np.float32)
    out, lse = attention_forward(*(x.astype(np.float32) for x in arrays[1:]), impl="reference", **options)
    assert np.array_equal(results[0], out.astype(dtype)) and np.array_equal(results[1], lse)
    dout, q, k, v, rounded = (x.astype(np.float32) for x in (*arrays, results[0]))
    grads = attention_backward(dout, q, k, v, rounded, lse, impl="reference", **options)
    assert all(np.array_equal(x, y.astype(dtype)) for x, y in zip(results[2:], grads))


@pytest.mark.parametrize("impl", ON_CPU)
def test_length_1025(impl):
    arrays = inputs(B=1, H=2, heads_kv=1, T=1025, D=16)
    check(run(impl, *arrays, causal=True), *arrays, causal=True)


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("order", ["rising", "falling"])
def test_rising_and_falling_scores(impl, size, order):
    # rising: each key block has a new largest score, and all that came before is rescaled; falling: none has
    dout, q, k, v = inputs(B=1, T=20, S=150, D=3)
    q[..., 0] = 1
    k[..., 0] = np.linspace(-size, size, 150)[:: 1 if order == "rising" else -1]
    check(run(impl, dout, q, k, v, scale=1.0), dout, q, k, v, scale=1.0)


# What is masked stays out --------------------------------------------------------------------------


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("how", ["bool", "float", "causal", "window"])
def test_masked_keys_leak_nothing(impl, poison, how):
    T, S = 40, 70
    dout, q, k, v = inputs(T=T, S=S)
    dead = np.zeros(S, bool)
    dead[[3, 64, 69]] = True  # in a block with others, and at the ends
    options = {"bool": dict(bias=~dead), "float": dict(bias=np.where(dead, -np.inf, 0).astype(np.float32))}.get(how)
    if how == "causal":
        dead, options = np.arange(S) >= T, dict(causal=True)  # after the last query
    elif how == "window":
        dead, options = np.arange(S) < 30, dict(window=1, offset=30)
    clean = [np.where(dead[:, None], np.float32(0), x) for x in (k, v)]
    dirty = [np.where(dead[:, None], np.float32(poison), x) for x in (k, v)]
    want = run(impl, dout, q, *clean, **options)
    check(want, dout, q, *clean, **options)
    for name, x, y in zip(NAMES, want, run(impl, dout, q, *dirty, **options)):
        assert np.array_equal(x, y), name
    assert not want[3][:, :, dead].any() and not want[4][:, :, dead].any()  # and what is masked gets no gradient


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
@pytest.mark.parametrize("future", [1.0, 1e12, np.nan])
def test_the_future_does_not_leak(impl, future):
    dout, q, k, v = inputs(T=97 if impl != "cuda" else 40)
    before = run(impl, dout, q, k, v, causal=True)
    for j in (1, 30, 33):
        changed = [x.copy() for x in (k, v)]
        for x in changed:
            x[:, :, j:] = future
        after = run(impl, dout, q, *changed, causal=True)
        for name, x, y in zip(NAMES[:3], before, after):
            assert np.array_equal(x[:, :, :j], y[:, :, :j]), f"{name} before key {j}"
        assert not np.array_equal(before[0][:, :, j:], after[0][:, :, j:])


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
def test_queries_that_do_not_see_a_key_leak_nothing_into_its_gradient(impl):
    dout, q, k, v = inputs(T=40)
    q[:, :, :5], dout[:, :, :5] = np.nan, np.nan  # with causal these see keys 0..4 alone
    dk, dv = run(impl, dout, q, k, v, causal=True)[3:]
    assert np.isnan(dk[:, :, :5]).all() and np.isnan(dv[:, :, :5]).all()
    assert np.isfinite(dk[:, :, 5:]).all() and np.isfinite(dv[:, :, 5:]).all()


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_nan_that_is_seen_is_not_hidden(impl, where):
    dout, q, k, v = inputs(T=40)
    {"q": q, "k": k, "v": v}[where][:, :, 17] = np.nan
    out, lse, dq, _, _ = run(impl, dout, q, k, v)
    rows = slice(17, 18) if where == "q" else slice(None)
    assert np.isnan(out[:, :, rows]).all() and np.isnan(dq[:, :, rows]).all()
    assert np.isnan(lse[:, :, rows]).all() == (where != "v")


# Layouts, sizes, repeatability ---------------------------------------------------------------------


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
@pytest.mark.parametrize("layout", ["transposed", "negative", "stepped", "fortran", "broadcast", "read-only"])
def test_strides(impl, layout):
    arrays = inputs(T=33)
    bias = slope()(np.random.default_rng(1), (2, 2, 33, 33)).astype(np.float32)

    def view(x):
        """Equal to x (for broadcast: to its first batch), in another layout."""
        if layout == "transposed":  # (B, T, H, D) in memory, as a projection leaves it
            return np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
        if layout == "negative":
            return np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]
        if layout == "stepped":
            return np.repeat(np.repeat(x, 2, axis=2), 3, axis=3)[..., ::2, ::3]
        if layout == "fortran":
            return np.asfortranarray(x)
        if layout == "broadcast":
            return np.broadcast_to(x[:1], x.shape)
        x = x.copy()
        x.flags.writeable = False
        return x

    views, bias = [view(x) for x in arrays], view(bias)
    plain = [np.array(x, order="C") for x in views]
    want = run(impl, *plain, bias=np.array(bias, order="C"), causal=True)
    for name, x, y in zip(NAMES, want, run(impl, *views, bias=bias, causal=True)):
        if impl == "reference":  # a BLAS may take another path
            assert np.allclose(x, y, rtol=1e-5, atol=1e-6), name
        else:
            assert np.array_equal(x, y), name


@pytest.mark.parametrize("impl", [*ON_CPU, *ON_CUDA])
@pytest.mark.parametrize("sizes", [dict(B=0), dict(H=0, heads_kv=0), dict(T=0, S=5), dict(T=5, S=0), dict(T=0, S=0)])
def test_zero_sizes(impl, sizes):
    arrays = inputs(**{"B": 2, "H": 2, "T": 4, **sizes})
    results = run(impl, *arrays, causal=True)
    for name, x, shape in zip(NAMES, results, [arrays[1].shape, arrays[1].shape[:3], *(x.shape for x in arrays[1:])]):
        assert x.shape == shape and x.dtype == np.float32, name
        assert (x == (-np.inf if name == "lse" else 0)).all(), name


@pytest.mark.parametrize("impl", ON_CPU)
@pytest.mark.parametrize("case", ["grouped heads", "bool mask, causal"])
def test_repeats_to_the_bit_with_any_number_of_threads(impl, case):
    arrays, options = build(case)
    want = run(impl, *arrays, **options)
    threads = numba.get_num_threads()
    try:
        for n in {1, min(2, threads), threads}:
            numba.set_num_threads(n)
            for x, y in zip(want, run(impl, *arrays, **options)):
                assert np.array_equal(x, y)
    finally:
        numba.set_num_threads(threads)


# Gradients are derivatives -------------------------------------------------------------------------


@pytest.mark.parametrize("impl", ON_CPU)
@pytest.mark.parametrize("options", [{}, dict(causal=True, offset=-1), dict(window=2, offset=1, scale=1.3)], ids=str)
def test_gradients_against_central_differences(impl, options):
    dout, *arrays = inputs(B=1, H=2, heads_kv=1, T=4, S=5, D=3, dtype=np.float64)
    gradients = run(impl, dout, *arrays, **options)[2:]

    def loss():
        return float((attention_forward(*arrays, impl=impl, **options)[0] * dout).sum())

    h = 1e-5  # truncation h^2 = 1e-10, rounding eps / h = 2e-11
    for name, x, dx in zip("qkv", arrays, gradients):
        for index in np.ndindex(x.shape):
            keep = x[index]
            x[index] = keep + h
            up = loss()
            x[index] = keep - h
            down = loss()
            x[index] = keep
            assert abs((up - down) / (2 * h) - dx[index]) < 1e-8, (name, index)


@pytest.mark.parametrize("impl", ON_CPU)
def test_random_shapes_and_options(impl):
    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(data=st.data())
    def property(data):
        size = st.integers(1, 70)
        heads_kv = data.draw(st.integers(1, 3), "heads_kv")
        T, S = data.draw(size, "T"), data.draw(size, "S")
        H, D, B = heads_kv * data.draw(st.integers(1, 3), "group"), data.draw(st.integers(1, 20), "D"), 2
        arrays = inputs(B, H, T, S, D, heads_kv, seed=data.draw(st.integers(0, 99), "seed"))
        options = dict(
            causal=data.draw(st.booleans(), "causal"),
            offset=data.draw(st.integers(-80, 80), "offset"),
            window=data.draw(st.none() | st.integers(1, 80), "window"),
        )
        axes = data.draw(st.none() | st.sets(st.integers(0, 3)), "axes of length 1 of the bias")
        if axes is not None:
            make = data.draw(st.sampled_from([mask, slope]), "kind of bias")(axes=axes)
            bias = make(np.random.default_rng(0), (B, H, T, S))
            options["bias"] = bias if bias.dtype == bool else bias.astype(np.float32)
        check(run(impl, *arrays, **options), *arrays, **options)

    property()


# Errors --------------------------------------------------------------------------------------------


def test_errors_say_what_was_given():
    dout, q, k, v = inputs(T=4)
    out, lse = attention_forward(q, k, v)

    def fails(error, match, *arrays, **options):
        with pytest.raises(error, match=match):
            attention_forward(*arrays, **options)

    fails(ValueError, r"head dim of q \(2, 2, 4, 8\) and k \(2, 2, 4, 7\) differ", q, k[..., :7], v[..., :7])
    fails(ValueError, r"batch.*\(2, 2, 4, 8\) and k \(1, 2, 4, 8\)", q, k[:1], v[:1])
    fails(ValueError, r"k and v must have the same shape.*\(2, 2, 4, 8\) and v \(2, 2, 3, 8\)", q, k, v[:, :, :3])
    three = np.concatenate([q, q[:, :1]], axis=1)
    fails(ValueError, "3 query heads cannot share 2 key/value heads", three, k, v)
    fails(ValueError, r"must have 4 axes.*\(2, 4, 8\)", q[:, 0], k, v)
    fails(TypeError, "v is float64 but q is float32", q, k, v.astype(np.float64))
    fails(TypeError, "floating", *(x.astype(np.int64) for x in (q, k, v)))
    fails(TypeError, "k must be an array, got list", q, k.tolist(), v)
    fails(ValueError, "head dim 257", *(np.zeros((1, 1, 2, 257), np.float32),) * 3)
    fails(ValueError, "head dim 0", *(np.zeros((1, 1, 2, 0), np.float32),) * 3)
    fails(ValueError, r"bias of shape \(3, 4\).*\(2, 2, 4, 4\)", q, k, v, bias=np.zeros((3, 4), bool))
    fails(ValueError, "dropout_p.*got 1.5", q, k, v, dropout_p=1.5)
    fails(ValueError, "seed", q, k, v, dropout_p=0.5, seed=-1)
    fails(TypeError, "bf16=True.*float64", *(x.astype(np.float64) for x in (q, k, v)), bf16=True)
    fails(ValueError, r"bias of shape \(1, 2, 2, 4, 4\)", q, k, v, bias=np.zeros((1, 2, 2, 4, 4), bool))
    fails(TypeError, "bias is float64", q, k, v, bias=np.zeros((4, 4)))
    fails(ValueError, "window must be at least 1", q, k, v, window=0)
    fails(TypeError, "float", q, k, v, window=1.5)
    fails(TypeError, "float", q, k, v, offset=0.5)
    fails(ValueError, "'gpu'.*reference, cpu, cuda", q, k, v, impl="gpu")
    fails(TypeError, "CuPy", q, k, v, impl="cuda")
    with pytest.raises(ValueError, match=r"lse has shape \(2, 2, 3\), expected \(2, 2, 4\)"):
        attention_backward(dout, q, k, v, out, lse[..., :3])
    with pytest.raises(ValueError, match=r"dout has shape"):
        attention_backward(dout[:1], q, k, v, out, lse)
    with pytest.raises(TypeError, match="dout is float64"):
        attention_backward(dout.astype(np.float64), q, k, v, out, lse)
    with pytest.raises(TypeError, match="lse is float32, but next to q of float64 it must be float64"):
        attention_backward(*(x.astype(np.float64) for x in (dout, q, k, v, out)), lse)
