"""Matrix product: against NumPy in higher precision, on every layout, size, batch and number of threads."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import has_bf16, matmul, matmul_bf16
from kernels.matmul.reference import round_to_bf16

TURNS = {  # the same matrices, stored by rows or by columns
    "rows": lambda x: x,
    "columns": lambda x: np.array(np.swapaxes(x, -1, -2), order="C").swapaxes(-1, -2),
}
FOUR = pytest.mark.parametrize(
    ("turn_a", "turn_b"), [(a, b) for a in TURNS.values() for b in TURNS.values()], ids=["NN", "NT", "TN", "TT"]
)
SHAPES = [  # M, N, K: less than a tile, whole tiles, one more; several blocks along N and along K
    (1, 1, 1), (3, 5, 7), (8, 48, 16), (17, 49, 33), (64, 200, 3), (2, 3, 900), (40, 64, 65), (9, 800, 401),
    (130, 47, 385),
]  # fmt: skip
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU has no AVX512_BF16")


def matrices(a_shape, b_shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=a_shape).astype(dtype), rng.normal(size=b_shape).astype(dtype)


def wide(x):
    return x.astype(np.longdouble if x.dtype == np.float64 else np.float64)


def check_product(got, a, b, start=None):
    """Within 2x the error of NumPy's product in the same precision + 8 eps of the largest result."""
    exact, plain = wide(a) @ wide(b), a @ b
    if start is not None:
        exact, plain = exact + start, plain + start
    check.accurate(got, exact, plain, bound=np.max(abs(exact), initial=0))


@FOUR
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_transpositions(shape, turn_a, turn_b, dtype, impl):
    M, N, K = shape
    a, b = matrices((M, K), (K, N), dtype)
    (out,) = check.pure(lambda *ab: matmul(*ab, impl=impl), turn_a(a), turn_b(b))
    check_product(out, a, b)
    held = np.array(turn_a(b[:1] + np.zeros((M, 1), dtype)))
    start = held.copy()
    assert matmul(turn_a(a), turn_b(b), out=held, accumulate=True, impl=impl) is held
    check_product(held, a, b, start)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 70)] * 3), st.sampled_from([*TURNS]), st.sampled_from([*TURNS]), st.integers(0, 99))
def test_any_size(shape, turn_a, turn_b, seed):
    M, N, K = shape
    a, b = matrices((M, K), (K, N), seed=seed)
    check_product(matmul(TURNS[turn_a](a), TURNS[turn_b](b), impl="cpu"), a, b)


def test_any_strides(layout, dtype, impl):
    a, b = matrices((6, 37, 45), (6, 45, 51), dtype)
    out = matmul(layout(a), layout(b), impl=impl)
    check_product(out, a, b)
    if impl == "cpu":  # the layout changes no bit
        np.testing.assert_array_equal(out, matmul(a, b, impl=impl))


@pytest.mark.parametrize("accumulate", [False, True])
def test_any_strides_of_out(layout, dtype, impl, accumulate):
    a, b = matrices((3, 11, 20), (3, 20, 13), dtype)
    out = layout(np.ones((3, 11, 13), dtype))
    if not out.flags.writeable:
        with pytest.raises(ValueError, match="out is read-only"):
            matmul(a, b, out=out, impl=impl)
        return
    assert matmul(a, b, out=out, accumulate=accumulate, impl=impl) is out
    check_product(out, a, b, np.ones_like(out) if accumulate else None)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((2, 3, 4, 5), (3, 5, 7)), ((4, 1, 5, 6), (7, 6, 2)), ((9, 5), (3, 5, 4)), ((3, 9, 5), (5, 4)),
        ((2, 1, 3, 4), (1, 5, 4, 2)), ((16, 20, 30), (16, 30, 40)), ((5, 64, 70), (5, 70, 64)), ((1, 1, 4), (4, 5)),
        ((0, 3, 4), (4, 5)), ((2, 0, 4), (4, 5)), ((2, 3, 0), (0, 5)),
    ],
    ids=str,
)  # fmt: skip
def test_batch_axes_broadcast(a_shape, b_shape, impl):
    a, b = matrices(a_shape, b_shape)
    check_product(matmul(a, b, impl=impl), a, b)
    heads = np.array(a.swapaxes(0, -2), order="C").swapaxes(0, -2)  # as the heads of attention lie: (T, H, D)
    check_product(matmul(heads, b, impl=impl), a, b)


def test_no_depth_gives_zeros_or_leaves_out_alone(dtype, impl):
    a, b = np.ones((3, 0), dtype), np.ones((0, 4), dtype)
    np.testing.assert_array_equal(matmul(a, b, impl=impl), np.zeros((3, 4)))
    out = np.full((3, 4), 7, dtype)
    np.testing.assert_array_equal(matmul(a, b, out=out, accumulate=True, impl=impl), 7)
    np.testing.assert_array_equal(matmul(a, b, out=out, impl=impl), 0)


def test_out_may_overlap_the_factors(impl):
    a, b = matrices((20, 20), (20, 20))
    x, y = a.copy(), b.copy()
    assert matmul(x, b, out=x, impl=impl) is x
    check_product(x, a, b)
    check_product(matmul(a, y, out=y[::-1], impl=impl), a, b)


@pytest.mark.parametrize("shapes", [((700, 70), (70, 90)), ((30, 600), (600, 700)), ((5, 40, 50), (5, 50, 60))])
@pytest.mark.parametrize("f", [matmul, pytest.param(matmul_bf16, marks=needs_bf16)])
def test_same_bits_for_any_number_of_threads(shapes, f):
    a, b = matrices(*shapes)
    check.same_for_any_threads(lambda: f(a, b, impl="cpu"))
    check.same_for_any_threads(lambda: f(TURNS["columns"](a), TURNS["columns"](b), impl="cpu"))


@pytest.mark.parametrize("f", [matmul, pytest.param(matmul_bf16, marks=needs_bf16)])
def test_rows_and_columns_give_the_same_bits_alone_and_among_others(f):
    a, b = matrices((300, 500), (500, 250))
    out = f(a, b)
    np.testing.assert_array_equal(f(a[123:124], b), out[123:124])
    np.testing.assert_array_equal(f(a[5:7], b[:, 99:180]), out[5:7, 99:180])
    np.testing.assert_array_equal(f(a[:5], TURNS["columns"](b)), out[:5])
    np.testing.assert_array_equal(f(TURNS["columns"](a[7:10]), TURNS["columns"](b)), out[7:10])


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 15, 63, 64, 65, 700])
def test_few_rows_and_a_turned_b_are_dot_products(rows, depth, dtype):
    """Read in memory's order, not packed; in an order of their own, the same for every row, column and thread."""
    a, b = matrices((rows, depth), (depth, 130), dtype)
    turned = TURNS["columns"](b)
    out = matmul(a, turned, impl="cpu")
    check_product(out, a, b)
    np.testing.assert_array_equal(matmul(a[-1:], turned[:, 99:], impl="cpu"), out[-1:, 99:])
    check.same_for_any_threads(lambda: matmul(a, turned, impl="cpu"))


@FOUR
@pytest.mark.parametrize("f", [matmul, pytest.param(matmul_bf16, marks=needs_bf16)])
def test_reads_and_writes_nothing_outside(f, turn_a, turn_b):
    """NaN all around the factors, and a mark around the result."""
    for M, N, K in SHAPES[1:]:
        a, b = matrices((M, K), (K, N))
        whole = np.full((M + 2, N + 2), 77, np.float32)
        f(turn_a(surrounded(a)), turn_b(surrounded(b)), out=whole[1:-1, 1:-1], impl="cpu")
        np.testing.assert_array_equal(whole[1:-1, 1:-1], f(turn_a(a), turn_b(b), impl="cpu"))
        whole[1:-1, 1:-1] = 77
        assert (whole == 77).all()


def surrounded(x):
    poisoned = np.full((x.shape[0] + 2, x.shape[1] + 2), np.nan, x.dtype)
    poisoned[1:-1, 1:-1] = x
    return poisoned[1:-1, 1:-1]


def test_infinities_and_nan_stay_where_they_belong(impl):
    a, b = matrices((20, 30), (30, 60))
    a[3, 4], b[7, 11] = np.inf, np.nan
    out = matmul(a, b, impl=impl)
    clean = matmul(np.nan_to_num(a, posinf=0), np.nan_to_num(b), impl=impl)
    touched = np.zeros(out.shape, bool)
    touched[3], touched[:, 11] = True, True
    assert not np.isfinite(out[touched]).any()
    np.testing.assert_array_equal(out[~touched], clean[~touched])


# ---------------------------------------------------------------------------------------- bfloat16


def test_rounding_to_bf16():
    eps = 2.0**-7  # from 1 to the next number
    x = np.float32([1, 1 + eps / 2, 1 + 3 * eps / 2, 1 + 0.51 * eps, -1 - eps / 2, np.inf, -np.inf, np.nan, 0])
    rounded = np.float32([1, 1, 1 + 2 * eps, 1 + eps, -1, np.inf, -np.inf, np.nan, 0])
    np.testing.assert_array_equal(round_to_bf16(x), rounded)


@needs_bf16
@FOUR
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_is_the_product_of_rounded_factors(shape, turn_a, turn_b):
    """Rounded factors multiply exactly in float32: what is left is the error of float32 sums, 2^8 smaller."""
    M, N, K = shape
    a, b = matrices((M, K), (K, N))
    (out,) = check.pure(matmul_bf16, turn_a(a), turn_b(b))
    check_product(out, round_to_bf16(a), round_to_bf16(b))
    held = np.ones((M, N), np.float32)
    check_product(matmul_bf16(turn_a(a), turn_b(b), out=held, accumulate=True), round_to_bf16(a), round_to_bf16(b), 1.0)


@needs_bf16
def test_bf16_batches_and_layouts(layout):
    a, b = matrices((4, 33, 70), (4, 70, 50))
    check_product(matmul_bf16(layout(a), layout(b)), round_to_bf16(a), round_to_bf16(b))


def test_bf16_reference():
    a, b = matrices((5, 6), (6, 7))
    got = matmul_bf16(a, b, impl="reference")
    np.testing.assert_array_equal(got, matmul(round_to_bf16(a), round_to_bf16(b), impl="reference"))
    assert 1e-4 < np.max(abs(got - a @ b)) < 0.1


@pytest.mark.skipif(has_bf16(), reason="this CPU has AVX512_BF16")
def test_bf16_says_what_is_missing():
    with pytest.raises(RuntimeError, match="AVX512_BF16"):
        matmul_bf16(*matrices((2, 3), (3, 4)), impl="cpu")


# -------------------------------------------------------------------------------- dtypes and errors


def test_half_precision_runs_on_the_reference():
    a, b = matrices((4, 30), (30, 5), np.float16)
    out = matmul(a, b)
    assert out.dtype == np.float16
    np.testing.assert_array_equal(out, (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float16))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: matmul(a, a), ValueError, r"a \(2, 3\) and b \(2, 3\) do not fit"),
        (lambda a: matmul(a, a[0]), ValueError, r"expected \(\.\.\., M, K\) and \(\.\.\., K, N\)"),
        (lambda a: matmul(a[None][[0, 0]], np.ones((3, 3, 4), np.float32)), ValueError, "do not broadcast"),
        (lambda a: matmul(a, a.T.astype(np.float64)), TypeError, "b is float64 but a is float32"),
        (lambda a: matmul(a, a.T, out=a.copy()), ValueError, r"out has shape \(2, 3\), expected \(2, 2\)"),
        (lambda a: matmul(a, a.T, out=np.zeros((2, 2))), TypeError, "out is float64"),
        (lambda a: matmul(a, a.T, accumulate=True), ValueError, "accumulate=True adds to out"),
        (lambda a: matmul_bf16(a.astype(np.float64), a.T.astype(np.float64)), TypeError, "expected float32"),
        (lambda a: matmul(a.astype(int), a.T.astype(int)), TypeError, "floating dtype"),
    ],
)  # fmt: skip
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((2, 3), np.float32))
