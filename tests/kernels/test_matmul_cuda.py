"""Products on a GPU: what cuBLAS is told. A stand-in in NumPy does exactly that, from pointers and strides."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from kernel_checks import LAYOUTS

from kernels import gpu
from kernels.matmul import cublas, cuda, simulated_cublas

BF16 = gpu.bfloat16()
SHAPES = [(1, 1, 1), (3, 5, 7), (1, 9, 4), (9, 1, 4), (6, 7, 1), (16, 33, 20), (2, 1, 1)]
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BF16]
EPS = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.fixture(autouse=True)
def simulator():
    simulated_cublas.calls.clear()
    with gpu.numpy_on("simulator"):
        yield


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def by_columns(x):
    return np.array(x.swapaxes(-1, -2), order="C").swapaxes(-1, -2)


def in_a_frame(x):
    """Rows that are followed by NaN: a leading dimension larger than the row."""
    frame = np.full((*x.shape[:-2], x.shape[-2] + 3, x.shape[-1] + 5), np.nan, x.dtype)
    frame[..., 1:-2, 2:-3] = x
    return frame[..., 1:-2, 2:-3]


def heads(x):
    """The last two axes of (..., H, T, D) as attention has them: (T, H, D) in memory."""
    return x if x.ndim < 3 else np.array(x.swapaxes(-3, -2), order="C").swapaxes(-3, -2)


def in_a_frame_by_columns(x):
    return in_a_frame(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def packed(x):
    """Beside a byte each: distances that are no whole numbers of elements."""
    struct = np.zeros(x.shape, [("x", x.dtype), ("byte", "i1")])
    struct["x"] = x
    return struct["x"]


TURNS = {
    **LAYOUTS, "columns": by_columns, "frame": in_a_frame, "frame by columns": in_a_frame_by_columns, "packed": packed,
}  # fmt: skip


def check(out, a, b, plus=0.0):
    """Against float64; an error of one rounding of the result and of float32 sums."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    exact, size = a @ b + plus, abs(a) @ abs(b) + abs(plus)
    sums = 2.0**-24 if out.dtype != np.float64 else 2.0**-53
    got = out.astype(np.float64)
    assert got.shape == exact.shape
    assert (abs(got - exact) <= EPS[out.dtype.name] * abs(exact) + 2 * a.shape[-1] * sums * size + 1e-30).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_layouts_of_the_factors(shape, dtype):
    M, N, K = shape
    a, b = normal((M, K), dtype), normal((K, N), dtype, 1)
    for turn_a, turn_b in itertools.product(TURNS.values(), repeat=2):
        out = np.full((M, N), np.nan, dtype)  # what is there is not read
        x, y = turn_a(a), turn_b(b)
        assert cuda.matmul(x, y, out, False) is out
        check(out, a, b)
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 5, 7)], ids=str)
def test_all_layouts_of_the_result(shape, dtype, accumulate):
    *lead, M, N, K = shape
    a, b = normal((*lead, M, K), dtype), normal((*lead, K, N), dtype, 1)
    for name, turn in TURNS.items():
        if name == "read-only":
            continue
        held = np.ones((*lead, M, N), dtype)
        out = turn(held)
        out[...] = 1
        whole = out if out.base is None else out.base
        outside = np.isnan(whole.astype(np.float64)).sum() if name.startswith("frame") else None
        cuda.matmul(by_columns(a), b, out, accumulate)
        check(out, a, b, float(accumulate))
        if name.startswith("frame"):  # nothing was written around it
            assert np.isnan(whole.astype(np.float64)).sum() == outside


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((2, 3, 4, 5), (2, 3, 5, 7)), ((2, 3, 4, 5), (3, 5, 7)), ((4, 1, 5, 6), (7, 6, 2)), ((9, 5), (3, 5, 4)),
        ((3, 9, 5), (5, 4)), ((2, 3, 9, 5), (1, 5, 4)), ((2, 1, 3, 4), (1, 5, 4, 2)), ((1, 1, 4), (4, 5)),
        ((2, 3, 1, 5), (2, 3, 5, 1)), ((0, 3, 4), (4, 5)), ((2, 0, 4), (4, 5)), ((2, 3, 0), (0, 5)),
        ((1, 3, 4), (5, 4, 2)),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16], ids=str)
def test_batches_of_all_layouts(a_shape, b_shape, dtype):
    a, b = normal(a_shape, dtype), normal(b_shape, dtype, 1)
    lead = np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
    turns = [lambda x: x, heads, by_columns, in_a_frame, lambda x: x[::-1].copy()[::-1]]
    for turn_a, turn_b, turn_out in itertools.product(turns, turns, [lambda x: x, heads, by_columns]):
        out = turn_out(np.full((*lead, a_shape[-2], b_shape[-1]), np.nan, dtype))
        cuda.matmul(turn_a(a), turn_b(b), out, False)
        check(out, a, b)


def called(a, b, out=None, accumulate=False):
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    simulated_cublas.calls.clear()
    cuda.matmul(a, b, np.empty(shape, a.dtype) if out is None else out, accumulate)
    return [call[:1] + call[4:5] for call in simulated_cublas.calls]


def test_one_call_for_a_batch():
    qkv = normal((2, 6, 3, 4))  # (B, T, H, D)
    q = qkv.swapaxes(1, 2)  # heads, as they lie
    assert called(normal((2, 3, 4, 5)), normal((5, 7))) == [("gemmEx", 1)]  # one large product
    assert called(normal((2, 3, 4, 5)), normal((1, 1, 5, 7))) == [("gemmEx", 1)]
    assert called(normal((3, 4, 5)), normal((3, 5, 7))) == [("gemmStridedBatchedEx", 3)]
    assert called(q, q.swapaxes(-1, -2)) == [("gemmStridedBatchedEx", 6)]
    assert called(q[0], q[0].swapaxes(-1, -2)) == [("gemmStridedBatchedEx", 3)]
    assert called(normal((1, 4, 5)), normal((1, 5, 7))) == [("gemmEx", 1)]


def test_no_depth_gives_zeros_or_leaves_out_alone():
    a, b, out = np.ones((3, 0), np.float32), np.ones((0, 4), np.float32), np.full((3, 4), 7, np.float32)
    cuda.matmul(a, b, out, True)
    assert (out == 7).all()
    cuda.matmul(a, b, out, False)
    assert (out == 0).all()
    assert not simulated_cublas.calls


def test_tf32_only_on_request():
    a, b = normal((4, 50)), normal((50, 6))
    exact = a.astype(np.float64) @ b.astype(np.float64)

    def error(dtype=np.float32):
        out = np.empty((4, 6), dtype)
        cuda.matmul(a.astype(dtype), b.astype(dtype), out, False)
        return abs(out - exact).max()

    plain = error()
    with cuda.tensor_float32():
        rounded = error()
        with cuda.tensor_float32(False):
            assert error() == plain
        assert error(np.float64) < 1e-12  # float64 stays what it is
    assert plain < 1e-5 < rounded < 1e-1
    assert error() == plain
    with pytest.raises(KeyError), cuda.tensor_float32():
        raise KeyError
    assert error() == plain


def test_bf16_of_float32_arrays_sums_in_float32():
    a, b = normal((5, 70)), normal((70, 6), seed=1)
    out = np.ones((5, 6), np.float32)
    cuda.matmul_bf16(a, b, out, True)
    exact = a.astype(BF16).astype(np.float64) @ b.astype(BF16).astype(np.float64) + 1
    np.testing.assert_allclose(out, exact, rtol=1e-6, atol=1e-6)


def test_16_bit_factors_do_not_overflow_on_the_way():
    a = np.full((1, 64), 100, np.float16)
    b = np.concatenate([np.full((32, 1), 300), np.full((32, 1), -300)]).astype(np.float16)
    out = np.empty((1, 1), np.float16)
    cuda.matmul(a, b, out, False)
    assert out == 0  # half of the sum is 960000, beyond float16


def test_sizes_beyond_c_ints_are_named():
    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2, 2**31), (0, 0))
    a = np.zeros((1, 2), np.float32)
    out = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 2**31), (4, 4))
    fake = SimpleNamespace(shape=wide.shape, strides=(2**33, 4), itemsize=4, ndim=2, dtype=wide.dtype)
    with pytest.raises(ValueError, match=r"2\^31 - 1.*\(1, 2\) @ \(2, 2147483648\)"):
        cuda._call(a, fake, out, False)


def test_the_numbers_of_cuda_are_right():
    runtime = pytest.importorskip("cupy.cuda.runtime")
    named = {"float32": "CUDA_R_32F", "float64": "CUDA_R_64F", "float16": "CUDA_R_16F", "bfloat16": "CUDA_R_16BF"}
    assert {k: getattr(runtime, v) for k, v in named.items()} == cuda.TYPES


@pytest.mark.parametrize("change", ["op", "leading dimension", "distance"])
def test_the_stand_in_notices_a_wrong_layout(change, monkeypatch):
    """The tests above can fail: a mistake in what cuBLAS is told gives other numbers, or is refused."""
    operand = cuda._operand

    def wrong(x, lead):
        x, op, ld, step = operand(x, lead)
        return x, op ^ (change == "op"), ld + (change == "leading dimension"), step + (change == "distance")

    monkeypatch.setattr(cuda, "_operand", wrong)
    with pytest.raises((AssertionError, ValueError)):
        a, b = normal((3, 4, 4)), normal((3, 4, 4), seed=1)
        out = np.empty((3, 4, 4), np.float32)
        cuda.matmul(a, b, out, False)
        check(out, a, b)


# --------------------------------------------------------------------------------------- the library itself


class Recorder:
    """Stands for the C library: checks the types of the arguments as ctypes would, and computes with NumPy."""

    def __init__(self, status=0):
        self.streams, self.status = [], status
        for name in ("cublasSetStream_v2", "cublasGemmEx", "cublasGemmStridedBatchedEx"):
            setattr(self, name, self._function(name))

    def _function(self, name):
        def function(*given):
            assert len(given) == len(function.argtypes)
            values = [kind(x).value or 0 for kind, x in zip(function.argtypes, given)]
            assert values == list(given), "cut off by its C type"
            if name == "cublasSetStream_v2":
                self.streams.append(values)
            else:
                getattr(simulated_cublas, "g" + name.removeprefix("cublasG"))(*values)
            return self.status

        return function


@pytest.mark.parametrize("shapes", [((3, 5), (5, 7)), ((4, 3, 5), (4, 5, 7)), ((4, 3, 5), (5, 7))], ids=str)
def test_the_library_is_called_with_the_arguments_of_cupys_wrappers(shapes, monkeypatch):
    library = Recorder()
    blas = cublas.Cublas(library, lambda: 77)
    monkeypatch.setattr(cuda, "_blas", lambda numpy: (blas, 5))
    a, b = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in shapes)
    with gpu.numpy_on("simulator"):
        out = cuda.product_into(a, b, np.empty((*a.shape[:-1], 7), np.float32))
    np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-6)
    assert library.streams == [[5, 77]]


def test_a_status_of_the_library_is_an_error():
    blas = cublas.Cublas(Recorder(status=13), lambda: 0)
    with pytest.raises(RuntimeError, match="status 13 .execution failed"):
        blas.gemmEx(5)


def test_the_library_is_found_among_what_is_loaded(tmp_path):
    maps = tmp_path / "maps"
    lines = ["7f00-7f01 r-xp 0 08:01 7  /a b/lib/libcublas.so.13", "7f02-7f03 r-xp 0 08:01 8  /lib/libcublasLt.so.13"]
    maps.write_text("\n".join(lines) + "\n")
    assert cublas.loaded(maps) == "/a b/lib/libcublas.so.13"
    maps.write_text("")
    assert cublas.loaded(maps) is None and cublas.loaded(tmp_path / "none") is None
