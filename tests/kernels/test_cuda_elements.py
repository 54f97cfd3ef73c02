"""CUDA kernels element by element, simulated: bfloat16 and float16, ragged and misaligned arrays, planted bugs."""

from __future__ import annotations

import math
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import kernels as k
from kernels import gpu
from kernels.gpu import elements

bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
DTYPES = [np.dtype(np.float32), bfloat16, np.dtype(np.float16)]
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
TINY = {"float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}  # the distance of the smallest numbers
SHAPES = [(1, 1), (3, 5), (2, 16), (3, 257)]  # one element, less than a pack, whole packs in every row, ragged
ACTIVATIONS = [None, "relu", "relu2", "gelu", "gelu_tanh", "silu"]


@pytest.fixture(autouse=True)
def _simulated():
    with gpu.numpy_on("simulator"), k.use("cuda"):
        yield


class Make:
    """Makes arrays of the same values on each run: of a dtype `offset` elements into NaN, or of float64 (`exact`)."""

    def __init__(self, dtype, offset=0, exact=False):
        self.dtype, self.offset, self.exact, self.rng = dtype, offset, exact, np.random.default_rng(0)
        self.frames = []

    def __call__(self, *shape, unit=False):
        values = (self.rng.uniform if unit else self.rng.normal)(size=shape).astype(self.dtype)
        if self.exact:
            return values.astype(np.float64)
        frame = np.full(values.size + 64, np.nan, self.dtype)
        inside = slice(16 + self.offset, 16 + self.offset + values.size)
        frame[inside] = values.reshape(-1)
        self.frames.append((frame, inside))
        return frame[inside].reshape(shape)

    def check_frames(self):
        for frame, inside in self.frames:
            outside = frame.astype(np.float32)
            outside[inside] = np.nan
            assert np.isnan(outside).all(), "written beside an array"


def adamw(make, R, C, decoupled=True):
    p, g, m, v = make(R * C), make(R * C), make(R * C), make(R * C, unit=True)
    cuts = sorted({0, R * C // 3, min(R * C, R * C // 3 + 1), R * C // 2})
    segments = tuple((a, b, 0.1 * (i + 1)) for i, (a, b) in enumerate(pairwise(cuts)))
    k.adamw_flat(p, g, m, v, lr=0.1, beta2=0.9, eps=1e-3, step=2, weight_decay=segments, scale=0.5, decoupled=decoupled)
    return p, m, v


CASES = {  # functions of make(*shape) and two sizes
    "gelu": lambda make, R, C: (k.gelu_forward(make(R, C)), k.gelu_backward(make(R, C), make(R, C))),
    "gelu, tanh": lambda make, R, C: (
        k.gelu_forward(make(R, C), "tanh"), k.gelu_backward(make(R, C), make(R, C), "tanh")),
    "silu": lambda make, R, C: (k.silu_forward(make(R, C)), k.silu_backward(make(R, C), make(R, C))),
    "swiglu": lambda make, R, C: (
        k.swiglu_forward(make(R, C), make(R, C)), *k.swiglu_backward(make(R, C), make(R, C), make(R, C))),
    "dropout": lambda make, R, C: (
        k.dropout_forward(make(R, C), 0.3, 2**63 + 5, 2**64 - 7), k.dropout_backward(make(R, C), 0.3, 1, 2)),
    "rotary": lambda make, R, C: (
        k.rotary_forward(make(2, 2, R, 2 * C), make(R, C), make(R, C)),
        k.rotary_backward(make(R, 2, 1, 2 * C).transpose(2, 1, 0, 3), make(R, C), make(R, C))),
    "reparameterize": lambda make, R, C: (
        *k.reparameterize_forward(make(R, C), make(R, C), make(R, C)),
        *k.reparameterize_backward(make(R, C), make(R), make(R, C), make(R, C), make(R, C)),
        *k.reparameterize_backward(None, make(R), make(R, C), make(R, C), make(R, C)),
        *k.reparameterize_backward(make(R, C), None, make(R, C), make(R, C), make(R, C))),
    "bce": lambda make, R, C: (
        k.bce_forward(make(R, C), make(R, C, unit=True)),
        k.bce_forward(make(R, C), make(R, C, unit=True), rows=True),
        k.bce_backward(make(R, C), make(R, C), make(R, C, unit=True)),
        k.bce_backward(make(R), make(R, C), make(R, C, unit=True))),
    "adamw": adamw,
    "adam": lambda make, R, C: adamw(make, R, C, decoupled=False),
    "norm": lambda make, R, C: (
        k.sum_of_squares([make(R, C), make(0), make(C)]), np.array(k.global_norm(make(R, C)))),
}  # fmt: skip


def results(case, dtype, shape, **how):
    make = Make(dtype, **how)
    got = CASES[case](make, *shape)
    make.check_frames()
    return got


def check_case(case, dtype, shape):
    """Half a distance between neighbours from the formula in float64, and a little for the arithmetic in float32."""
    with k.use("reference"):
        exact = CASES[case](Make(dtype, exact=True), *shape)
    for got, e in zip(results(case, dtype, shape), exact, strict=True):
        assert got.shape == e.shape
        eps, tiny = (0.0, 0.0) if got.dtype == np.float64 else (EPS[dtype.name], TINY[dtype.name])
        slack = 1e-13 if got.dtype == np.float64 else 2e-6
        ulp = np.maximum(eps * 2.0 ** np.floor(np.log2(np.maximum(abs(e), 1e-300))), tiny)
        error = abs(got.astype(np.float64) - e)
        assert (error <= 0.5 * ulp + slack * (1 + abs(e))).all(), f"{case}: {np.max(error / ulp)} ulp"


def same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_rounds_the_formula_once(case, shape, dtype):
    check_case(case, dtype, shape)


@EVERY_DTYPE
@pytest.mark.parametrize("case", CASES)
def test_bits_depend_on_neither_alignment_nor_grid_nor_order(case, dtype, monkeypatch):
    for shape in SHAPES[1:]:
        expected = results(case, dtype, shape)
        same_bits(results(case, dtype, shape, offset=1), expected)
    with gpu.numpy_on("simulator", seed=1, late=0):
        same_bits(results(case, dtype, shape), expected)
    monkeypatch.setattr(elements, "BLOCKS", 1)  # every thread goes round its loop several times
    shape = (17, 257)
    one_block = results(case, dtype, shape)
    monkeypatch.setattr(elements, "BLOCKS", 4096)
    same_bits(one_block, results(case, dtype, shape))


# ------------------------------------------------------------------------------------------------ random


@EVERY_DTYPE
@pytest.mark.parametrize("size", [1, 4, 5, 1003])
@pytest.mark.parametrize(("seed", "position"), [(0, 0), (2**64 - 1, 3), (5, 2**64 - 2), (2**40 + 1, 2**32 - 1)])
def test_uniform_numbers_are_the_reference_bit_for_bit(seed, position, size, dtype):
    got = k.philox_uniform(size, seed, position, dtype)
    same_bits([got], [k.philox_uniform(size, seed, position, dtype, impl="reference")])
    assert got.max() < 1
    same_bits([k.philox_bits(size, seed, position)], [k.philox_bits(size, seed, position, impl="reference")])


@EVERY_DTYPE
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 10, 11, 4003])
def test_normal_numbers_are_the_reference_bit_for_bit(size, dtype):
    got = k.philox_normal(size, 3, 2**64 - 5, dtype, mean=0.5, std=2.0)
    same_bits([got], [k.philox_normal(size, 3, 2**64 - 5, dtype, mean=0.5, std=2.0, impl="reference")])
    if dtype == np.float32:
        same_bits([got], [k.philox_normal(size, 3, 2**64 - 5, dtype, mean=0.5, std=2.0, impl="cpu")])


def test_random_numbers_do_not_depend_on_the_grid(monkeypatch):
    calls = (k.philox_uniform, k.philox_normal)
    expected = [f(9001, 1, 2) for f in calls] + [k.philox_bits(9001, 1, 2)]
    monkeypatch.setattr(elements, "BLOCKS", 1)
    same_bits([f(9001, 1, 2) for f in calls] + [k.philox_bits(9001, 1, 2)], expected)


@EVERY_DTYPE
def test_dropout_keeps_the_elements_that_the_cpu_keeps(dtype):
    x = np.ones(3001, dtype)
    for p in (0.0, 0.1, 0.5, 1.0):
        with k.use("cpu"):
            kept = k.dropout_forward(np.ones(3001, np.float32), p, 9, 2) != 0
        np.testing.assert_array_equal(k.dropout_forward(x, p, 9, 2) != 0, kept)


# ------------------------------------------------------------------------------------------------ linear


def linear(make, rows, features, out_features, activation, bias=True):
    x, weight, dout = make(rows, features), make(out_features, features), make(rows, out_features)
    out, pre = k.linear_forward(x, weight, make(out_features) if bias else None, activation=activation)
    dweight, dbias = make(out_features, features), make(out_features)
    kept = make(rows, out_features)  # not what came out: the backward pass is checked on the same numbers
    grads = k.linear_backward(dout, x, weight, kept, kept, activation=activation, dweight=dweight, dbias=dbias)
    return (out, *(() if pre is None else (pre,)), *grads)


def check_linear(dtype, sizes, activation):
    with k.use("reference"):
        exact = linear(Make(dtype, exact=True), *sizes, activation)
    make = Make(dtype)
    got = linear(make, *sizes, activation)
    make.check_frames()
    for g, e in zip(got, exact, strict=True):
        # The product is rounded before the bias is added, dpre before it is multiplied; relu2 doubles an error and more
        bound = 3 * EPS[dtype.name] * max(1, np.max(abs(e))) * max(1, math.sqrt(sizes[0]) / 4)
        assert np.max(abs(g.astype(np.float64) - e)) <= bound
    return got


@EVERY_DTYPE
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(3, 4, 5), (300, 8, 48), (131, 3, 267)], ids=str)
def test_linear(sizes, activation, dtype):
    got = check_linear(dtype, sizes, activation)
    same_bits(linear(Make(dtype, offset=1), *sizes, activation), got)
    with gpu.numpy_on("simulator", seed=7):
        same_bits(linear(Make(dtype), *sizes, activation), got)


def test_the_bias_gradient_of_many_rows_loses_no_digits():
    dout = np.random.default_rng(0).normal(1, 1, (3001, 3)).astype(np.float32)
    x, weight = np.zeros((3001, 1), np.float32), np.zeros((3, 1), np.float32)
    _, _, dbias = k.linear_backward(dout, x, weight, needs=(False, False, True))
    np.testing.assert_allclose(dbias, dout.sum(axis=0, dtype=np.float64), rtol=2e-7)


def test_bf16_products_of_float32_arrays():
    make = Make(np.dtype(np.float32))
    x, weight, bias, dout = make(70, 33), make(20, 33), make(20), make(70, 20)
    out, pre = k.linear_forward(x, weight, bias, activation="gelu", bf16=True)
    grads = k.linear_backward(dout, x, weight, pre, out, activation="gelu", bf16=True)
    with k.use("reference"):
        expected = k.linear_forward(x, weight, bias, activation="gelu", bf16=True)
        same = k.linear_backward(dout, x, weight, pre, out, activation="gelu", bf16=True)
    for a, b in zip((out, pre), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)
    for a, b in zip(grads[:2], same[:2], strict=True):  # dpre may fall to the other side of a tie
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-3 * np.max(abs(b)))
    np.testing.assert_allclose(grads[2], same[2], rtol=1e-5, atol=1e-5)


def test_norms_are_of_one_dtype_and_of_something():
    with pytest.raises(ValueError, match="sum_of_squares: got no arrays"):
        k.sum_of_squares([])
    with pytest.raises(TypeError, match=r"arrays\[1\] is float16 but arrays\[0\] is float32"):
        k.sum_of_squares([np.ones(2, np.float32), np.ones(2, np.float16)])


@pytest.mark.parametrize("impl", ["reference", "cpu", "cuda"])
def test_the_sum_of_squares_of_several_arrays(impl):
    arrays = [np.full((3, 5), 2, np.float32), np.zeros(0, np.float32), np.full(7, 3, np.float32)]
    got = k.sum_of_squares(arrays, impl=impl)
    assert got.shape == ()
    assert got.dtype == np.float64
    assert float(got) == 15 * 4 + 7 * 9
    assert float(k.sum_of_squares(arrays[1:2], impl=impl)) == 0


# ------------------------------------------------------------------------------------------ planted bugs

FLOAT, HALF = DTYPES[0], DTYPES[1]
BUGS = {  # (kernel, file, what stands there, what a bug would be, the check that must fail)
    "a tail that ends too early": (
        "gelu", "gpu/elements.cuh", "if (i + j < n) x[i + j]", "if (i + j + 1 < n) x[i + j]",
        lambda: check_case("gelu", FLOAT, (3, 5))),
    "a tail that goes too far": (
        "adamw", "gpu/elements.cuh", "if (i + j < n) x[i + j]", "if (i + j <= n) x[i + j]",
        lambda: check_case("adamw", FLOAT, (3, 5))),
    "a pack that reaches beyond the end": (
        "adamw", "gpu/elements.cuh", "if (whole && i + v.N <= n) {\n        Pack<T> pack;",
        "if (whole) {\n        Pack<T> pack;", lambda: check_case("adamw", FLOAT, (3, 5))),
    "a counter that does not count": (
        "dropout", "gpu/philox.cuh", "position + (i + j) / 4", "position + i / 4",
        lambda: check_case("dropout", HALF, (2, 16))),
    "a counter without its upper word": (
        "dropout", "gpu/philox.cuh", "(u32)(counter >> 32)", "0", lambda: check_case("dropout", FLOAT, (2, 16))),
    "a dropout of the wrong side": (
        "dropout", "dropout/dropout.cu", ">> 8 >=", ">> 8 <", lambda: check_case("dropout", FLOAT, (2, 16))),
    "normal numbers of a word too early": (
        "random", "random/random.cu", "skip == 1 ? second[j + 1]", "skip == 1 ? second[j]",
        lambda: test_normal_numbers_are_the_reference_bit_for_bit(10, FLOAT)),
    "float16 rounded twice": (
        "random", "random/random.cu", "bits % 2 == 0)", "false)",
        lambda: test_normal_numbers_are_the_reference_bit_for_bit(150_003, DTYPES[2])),
    "a segment that begins one late": (
        "adamw", "adamw/adamw.cu", "while (i + j >= next", "while (i + j > next",
        lambda: check_case("adamw", FLOAT, (3, 257))),
    "a bisection that goes too far": (
        "adamw", "adamw/adamw.cu", "bounds[middle] <= start", "bounds[middle] <= start + CHUNK",
        lambda: check_segments_at_chunks()),
    "a missing barrier in the norm": (
        "global_norm", "global_norm/global_norm.cu", "__syncthreads();", "",
        lambda: check_case("norm", FLOAT, (17, 257))),
    "a missing barrier in the bias gradient": (
        "linear", "linear/linear.cu", "// neighbours in neighbouring banks\n    __syncthreads();", "",
        lambda: check_linear(FLOAT, (131, 3, 267), "gelu")),
    "a missing barrier between the blocks of the bias gradient": (
        "linear", "linear/linear.cu", "partial[warp][lane] = sum;\n    __syncthreads();", "partial[warp][lane] = sum;",
        test_the_bias_gradient_of_many_rows_loses_no_digits),
    "a warp left out of the bias gradient": (
        "linear", "linear/linear.cu", "int w = 0; w < WARPS", "int w = 1; w < WARPS",
        lambda: check_linear(FLOAT, (131, 3, 267), None)),
    "a missing barrier in the sum of a row": (
        "binary_cross_entropy", "gpu/common.cuh", "scratch[warp] = x;\n    __syncthreads();", "scratch[warp] = x;",
        lambda: check_case("bce", FLOAT, (3, 257))),
    "a row's gradient given to the next": (
        "binary_cross_entropy", "binary_cross_entropy/binary_cross_entropy.cu", "i + j == next", "i + j + 1 == next",
        lambda: check_case("bce", FLOAT, (3, 5))),
    "a rotation that is never undone": (
        "rotary", "rotary/rotary.cu", "* sign", "", lambda: check_case("rotary", FLOAT, (2, 16))),
    "padding that enters the KL divergence": (
        "reparameterize", "reparameterize/reparameterize.cu", "excess = grown - v;", "excess = grown - v + 1;",
        lambda: check_case("reparameterize", FLOAT, (3, 5))),
}  # fmt: skip


def check_segments_at_chunks():
    """Segments that begin where a block's chunk does, which is where the bisection ends."""
    chunk = 4096
    arrays = [np.ones(2 * chunk + 3, np.float32) for _ in range(4)]
    segments = ((0, chunk, 0.5), (chunk, 2 * chunk, 0.25))
    k.adamw_flat(*arrays, lr=0.1, step=1, weight_decay=segments)
    expected = [np.ones(2 * chunk + 3, np.float32) for _ in range(4)]
    k.adamw_flat(*expected, lr=0.1, step=1, weight_decay=segments, impl="reference")
    np.testing.assert_allclose(arrays[0], expected[0], rtol=1e-6)


def test_segments_at_the_edges_of_chunks():
    check_segments_at_chunks()


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(bug, tmp_path, monkeypatch):
    kernel, file, old, new, check = BUGS[bug]
    check()
    module, folder = import_module(f"kernels.{kernel}.cuda"), Path(k.__file__).parent
    broken = (folder / file).read_text()
    assert broken.count(old) >= 1
    for path in (module.SOURCE, *(folder / "gpu").glob("*.cuh")):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / Path(file).name).write_text(broken.replace(old, new))
    monkeypatch.setattr(module, "SOURCE", tmp_path / module.SOURCE.name)
    with pytest.raises((AssertionError, RuntimeError)):
        check()
