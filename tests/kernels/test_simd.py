"""Every word of kernels.simd: against NumPy, on both dtypes; the functions in ulp, over all of float32."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest

from kernels import simd
from kernels.numba_setup import njit

DTYPES = (np.float32, np.float64)
LANES = {np.float32: simd.LANES32, np.float64: simd.LANES64}


def elementwise(function):
    """out[i] = function(x[i]), vector by vector; x.size a multiple of the lanes."""

    @njit(cache=False)
    def run(x, out):
        for i in range(0, x.size, simd.lanes(x)):
            simd.store(out, i, function(simd.load(x, i)))

    return run


# ------------------------------------------------------------------------------------------- functions

MPMATH_LIKE = {  # float64 NumPy is exact enough to judge float32
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(-abs(x)), 1) / (1 + np.exp(-abs(x))),
    "erf": np.vectorize(math.erf, otypes=[float]),
}  # fmt: skip
ULP = {"exp": 1.3, "expm1": 1.7, "log": 1.0, "log1p": 1.5, "tanh": 1.5, "sigmoid": 2.5, "erf": 1.3}


@pytest.mark.parametrize("name", ULP)
def test_error_in_ulp_over_all_of_float32(name):
    """Bit patterns in steps, from -NaN over denormals to NaN: every exponent, both signs."""
    step = 997 if name != "erf" else 9973  # math.erf is slow
    x = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    specials = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 88.72, 88.73, -87.4, -103.9, -104.1, 1, -1])
    x = np.concatenate([x, specials.astype(np.float32)])
    x = np.concatenate([x, np.ones(-x.size % 16, np.float32)])
    out = np.full_like(x, 77)
    elementwise(getattr(simd, name))(x, out)
    with np.errstate(all="ignore"):
        exact = MPMATH_LIKE[name](x.astype(np.float64))
        rounded = exact.astype(np.float32)
        ordinary = np.isfinite(rounded)
        ulp = np.abs(out - exact) / np.spacing(np.abs(np.where(ordinary, rounded, 1)))
    np.testing.assert_array_equal(out[~ordinary], rounded[~ordinary])  # inf and NaN where they belong
    worst = np.argmax(np.where(ordinary, ulp, 0))
    assert ulp[worst] <= ULP[name], f"{name}({x[worst]!r}) = {out[worst]!r}, {ulp[worst]:.2f} ulp off"


@pytest.mark.parametrize("name", ULP)
def test_float64_agrees_with_the_c_library(name):
    x = np.linspace(-30, 30, 800)
    x = np.abs(x) + 0.01 if name.startswith("log") else x
    out = np.empty_like(x)
    elementwise(getattr(simd, name))(x, out)
    np.testing.assert_allclose(out, MPMATH_LIKE[name](x), rtol=4e-16 if name != "sigmoid" else 1e-15)


def test_negative_zero_and_odd_functions():
    x = np.array([-0.0, -1e-40, -0.5, -3.0] * 4, np.float32)
    for name in ("tanh", "erf", "expm1", "log1p"):
        out, mirrored = np.empty_like(x), np.empty_like(x)
        elementwise(getattr(simd, name))(x / 4, out)
        assert np.signbit(out[0]), name
        if name in ("tanh", "erf"):
            elementwise(getattr(simd, name))(-x / 4, mirrored)
            np.testing.assert_array_equal(out, -mirrored)


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_touch_nothing_else(dtype):
    @njit(cache=False)
    def copy(x, out, n):
        simd.store_tail(out, 1, simd.load_tail(x, 1, n), n)

    n = LANES[dtype]
    x = np.arange(1, n + 3, dtype=dtype)
    for count in (-3, 0, 1, n - 1, n, n + 5):
        out = np.full(n + 2, 77, dtype)
        copy(x, out, count)
        kept = min(max(count, 0), n)
        np.testing.assert_array_equal(out[1 : 1 + kept], x[1 : 1 + kept])
        assert (out[1 + kept :] == 77).all() and out[0] == 77


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_tail_gives_zeros_beyond(dtype):
    @njit(cache=False)
    def total(x, n):
        return simd.hsum(simd.load_tail(x, 0, n))

    x = np.full(LANES[dtype], np.nan, dtype)
    x[:2] = 1, 2
    assert total(x, 2) == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_number_behind_a_pointer(dtype):
    @njit(cache=False)
    def third(x):
        return simd.number(simd.pointer(x) + 1, 2), simd.number(x, 0)

    assert third(np.arange(5, 9, dtype=dtype)) == (8, 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_and_pointers(dtype):
    @njit(cache=False)
    def turn(x, out):
        simd.transpose(simd.pointer(x) + 1, x.shape[1], simd.pointer(out), out.shape[1])
        simd.keep_alive(x)

    n = LANES[dtype]
    x = np.random.default_rng(0).standard_normal((n, n + 3)).astype(dtype)
    out = np.zeros((n, n + 1), dtype)
    turn(x, out)
    np.testing.assert_array_equal(out[:, :n], x[:, 1 : n + 1].T)
    assert (out[:, n] == 0).all()


# ------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_operators_with_vectors_and_numbers(op, dtype):
    @njit(cache=False)
    def run(x, y, out):
        n = simd.lanes(x)
        u, v = simd.load(x, 0), simd.load(y, 0)
        simd.store(out, 0, op(u, v))
        simd.store(out, n, op(u, 3))
        simd.store(out, 2 * n, op(0.5, v))
        u = -u
        u += v
        simd.store(out, 3 * n, u)

    n = LANES[dtype]
    x, y = np.linspace(-2, 2, n, dtype=dtype), np.linspace(0.5, 5, n, dtype=dtype)
    out = np.empty((4, n), dtype)
    run(x, y, out)
    np.testing.assert_array_equal(out, np.stack([op(x, y), op(x, dtype(3)), op(dtype(0.5), y), -x + y]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne])
def test_comparisons_and_select(op, dtype):
    @njit(cache=False)
    def run(x, y, out):
        u, v = simd.load(x, 0), simd.load(y, 0)
        m = op(u, v)
        simd.store(out, 0, simd.select(m, u, 7.0))
        simd.store(out, simd.lanes(x), simd.select(~m & (u < 9.0) | (u > 99.0), 1.0, v))
        return simd.any_lane(m), simd.all_lanes(m)

    n = LANES[dtype]
    x, y = np.arange(n).astype(dtype), np.full(n, 1, dtype)
    y[-1] = np.nan
    out = np.empty((2, n), dtype)
    some, every = run(x, y, out)
    m = op(x, y)
    np.testing.assert_array_equal(out[0], np.where(m, x, 7))
    np.testing.assert_array_equal(out[1], np.where(~m & (x < 9), 1, y))
    assert (some, every) == (m.any(), m.all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_over_lanes(dtype):
    @njit(cache=False)
    def run(x):
        v = simd.load(x, 0)
        return simd.hsum(v), simd.hmax(v), simd.hmin(v), simd.hsum_wide(v)

    x = np.random.default_rng(1).standard_normal(LANES[dtype]).astype(dtype)
    total, top, low, wide = run(x)
    assert total == pytest.approx(x.sum(dtype=np.float64), rel=1e-6)
    assert (top, low) == (x.max(), x.min())
    assert wide == pytest.approx(x.sum(dtype=np.float64), rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_words(dtype):
    @njit(cache=False)
    def run(x, out):
        n = simd.lanes(x)
        v = simd.load(x, 0)
        words = (
            simd.fma(v, 2.0, v), simd.minimum(v, 0.25), simd.maximum(v, -v), simd.absolute(v),
            simd.sqrt(simd.absolute(v)), simd.floor(v), simd.round_even(v), simd.copysign(simd.iota(v), v),
            simd.splat(3, x), simd.zeros(v), simd.select(simd.first(2, v), 1.0, v), simd.from_bits(simd.bits(v)),
            simd.to_float(simd.bits(simd.zeros(v))),
        )  # fmt: skip
        for i in range(len(words)):
            simd.store(out, i * n, words[i])
        return n

    n = LANES[dtype]
    x = np.linspace(-2.5, 2.5, n, dtype=dtype)
    out = np.empty((13, n), dtype)
    assert run(x, out) == n
    head = x.copy()
    head[:2] = 1
    expected = [
        3 * x, np.minimum(x, 0.25), abs(x), abs(x), np.sqrt(abs(x)), np.floor(x), np.rint(x),
        np.copysign(np.arange(n), x), np.full(n, 3), np.zeros(n), head, x, np.zeros(n),
    ]  # fmt: skip
    np.testing.assert_array_equal(out, np.array(expected, dtype))


def test_errors_name_the_word():
    @njit(cache=False)
    def wrong(x):
        return simd.hsum(simd.load(x[:, 0], 0))

    with pytest.raises(Exception, match=r"simd\.load takes an array in C order or a pointer"):
        wrong(np.zeros((20, 2), np.float32))


# --------------------------------------------------------------------------------------------- products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, vectors", [(1, 1), (3, 2), (simd.TILE_ROWS, simd.TILE_VECTORS)])
def test_register_tile(rows, vectors, dtype):
    tile = simd.make_tile(rows, vectors)

    @njit(cache=False)
    def product(a, b, c, d, d_row):  # a is stored transposed: a_row = 1
        n = b.shape[1]
        p, q, r, s = simd.pointer(a), simd.pointer(b), simd.pointer(c), simd.pointer(d)
        tile(p, 1, a.shape[1], q, n, r, n, s, d_row, a.shape[0])

    rng = np.random.default_rng(2)
    n = vectors * LANES[dtype]
    for k in (0, 1, 5):
        a, b = rng.standard_normal((k, rows)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        bias, c = rng.standard_normal(n).astype(dtype), np.full((rows, n), 5, dtype)
        exact = a.T.astype(np.float64) @ b
        bound = 4 * np.finfo(dtype).eps * (k + 1) * 4
        product(a, b, c, bias, 0)
        np.testing.assert_allclose(c, exact + bias, atol=bound)
        product(a, b, c, c, n)  # accumulate
        np.testing.assert_allclose(c, 2 * exact + bias, atol=2 * bound)


def as_bf16(x):
    """Rounded to the nearest bfloat16, ties to even, kept in float32."""
    u = x.view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32).reshape(x.shape)


@pytest.mark.skipif(not simd.HAS_BF16, reason="this CPU, or this number of lanes, has no bfloat16 products")
def test_bf16_tile_rounds_the_operands_and_nothing_else():
    rows, k = 4, 64
    tile = simd.make_tile_bf16(rows, 1)

    @njit(cache=False)
    def product(a, b, c, a16, b16):
        half = a.shape[1] // 2
        for r in range(a.shape[0]):
            for i in range(0, a.shape[1], 32):
                at = r * a.shape[1] + i
                simd.store(a16, r * half + i // 2, simd.pack_row(simd.load(a, at), simd.load(a, at + 16)))
        for i in range(half):
            simd.store(b16, i * 16, simd.pack_pairs(simd.load(b, i * 32), simd.load(b, i * 32 + 16)))
        p, q, r, s = simd.pointer(a16), simd.pointer(b16), simd.pointer(c), simd.pointer(c)
        tile(p, half, 1, q, 16, r, 16, s, 16, half)

    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((rows, k)).astype(np.float32), rng.standard_normal((k, 16)).astype(np.float32)
    c = np.zeros((rows, 16), np.float32)
    product(a, b, c, np.zeros((rows, k // 2), np.int32), np.zeros((k // 2, 16), np.int32))
    np.testing.assert_allclose(c, as_bf16(a).astype(np.float64) @ as_bf16(b), atol=k * 2**-22)  # float32 sums
    assert abs(c - a @ b).max() > 1e-3  # and rounding there was
