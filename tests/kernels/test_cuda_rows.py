"""The CUDA kernels that work on rows, simulated: 16 bits, all ways a row can lie and be cut, extremes, planted bugs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import gpu
from kernels.cross_entropy import cuda as cross_entropy
from kernels.embedding import cuda as embedding
from kernels.gpu import rows
from kernels.layernorm import cuda as layernorm
from kernels.linear_cross_entropy import cuda as linear_cross_entropy
from kernels.rmsnorm import cuda as rmsnorm
from kernels.softmax import cuda as softmax

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")

FLOAT, BF16, F16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
DTYPES = pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
HEADERS = Path(gpu.__file__).parent


def simulated(seed=0):
    return gpu.numpy_on("simulator", seed=seed)


def draw(rng, shape, dtype, scale=1.0, offset=0):
    """Normal numbers in an array that begins `offset` numbers behind a multiple of 64 bytes, with NaN around it."""
    size = int(np.prod(shape))
    memory = np.full(size + 128, np.nan, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize + offset
    x = memory[start : start + size].reshape(shape)
    x[...] = (scale * rng.normal(size=shape)).astype(dtype)
    return x


def calls(rng, count, n, dtype, offset=0):
    """{name: a call of a kernel, impl open}, on count rows of n numbers."""

    def x(scale=1.0):
        return draw(rng, (count, n), dtype, scale, offset)

    def w():
        return draw(rng, (n,), dtype, offset=offset)

    z, dout, other, weight, bias = x(3), x(), x(), w(), w()
    wide = kernels.checks.wide_dtype(dtype)
    p, log_p = (f(z, impl="reference") for f in (kernels.softmax_forward, kernels.log_softmax_forward))
    _, mean, rstd = kernels.layernorm_forward(dout, weight, bias, impl="reference")
    _, root = kernels.rmsnorm_forward(dout, weight, 1e-5, impl="reference")
    y = rng.integers(0, n, count)
    y[count // 2] = -100
    factor = rng.normal(size=count).astype(wide)
    _, lse = kernels.cross_entropy_forward(z, y, impl="reference")
    smooth = {"label_smoothing": 0.2, "weight": abs(weight)}
    return {
        "softmax_forward": lambda **k: kernels.softmax_forward(z, **k),
        "softmax_backward": lambda **k: kernels.softmax_backward(dout, p, **k),
        "log_softmax_forward": lambda **k: kernels.log_softmax_forward(z, **k),
        "log_softmax_backward": lambda **k: kernels.log_softmax_backward(dout, log_p, **k),
        "layernorm_forward": lambda **k: kernels.layernorm_forward(dout, weight, bias, **k),
        "layernorm_residual": lambda **k: kernels.layernorm_forward(dout, weight, None, residual=other, **k),
        "layernorm_backward": lambda **k: kernels.layernorm_backward(other, dout, weight, mean, rstd, **k),
        "layernorm_into": lambda **k: kernels.layernorm_backward(
            other, dout, None, mean, rstd, dresidual=z, dweight=weight.copy(), dbias=bias.copy(), **k
        ),
        "rmsnorm_forward": lambda **k: kernels.rmsnorm_forward(dout, weight, 1e-5, **k),
        "rmsnorm_residual": lambda **k: kernels.rmsnorm_forward(dout, None, 1e-5, residual=other, **k),
        "rmsnorm_backward": lambda **k: kernels.rmsnorm_backward(
            other, dout, weight, root, dresidual=z, dweight=bias.copy(), **k
        ),
        "cross_entropy_forward": lambda **k: kernels.cross_entropy_forward(z, y, **k),
        "cross_entropy_backward": lambda **k: kernels.cross_entropy_backward(factor, z, y, lse, **k),
        "cross_entropy_with_grad": lambda **k: kernels.cross_entropy_with_grad(z, y, 0.5, **smooth, **k),
    }


def agree(got, expected, dtype, terms=1):
    """Within one rounding to dtype of the reference, which rounds once, and what float32 loses in sums of `terms`."""
    for a, b in zip(_tuple(got), _tuple(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        eps = float(ml_dtypes.finfo(a.dtype).eps)
        a, b = a.astype(np.float64), b.astype(np.float64)
        size = max(1.0, float(np.nanmax(abs(b), initial=0)))
        np.testing.assert_allclose(a, b, rtol=eps if a.dtype != FLOAT else 1e-5, atol=(4 + terms / 64) * 1e-6 * size)


def check_all(count, n, dtype, seed=0, offset=0, only=""):
    for name, call in calls(np.random.default_rng(seed), count, n, dtype, offset).items():
        if only in name:
            expected = call(impl="reference")
            with simulated(seed):
                got = call(impl="cuda")
            agree(got, expected, dtype, n)


def _tuple(x):
    return x if isinstance(x, tuple) else (x,)


def cut_as(monkeypatch, team, packs):
    """Rows are cut like this, whatever their length: short ones then come in several chunks."""
    for module in (softmax, layernorm, rmsnorm, cross_entropy):
        monkeypatch.setattr(module, "cut", lambda *_: rows.Cut(team, packs))


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(("n", "dtype"), [(1, BF16), (64, BF16), (61, F16), (250, BF16)], ids=str)
def test_rows_of_a_warp_and_less(n, dtype):
    check_all(9, n, dtype)


@pytest.mark.parametrize("n", [520, 2051])
def test_rows_of_a_block(n):
    check_all(3, n, BF16)


@pytest.mark.parametrize("offset", [1, 3])
def test_rows_that_begin_anywhere(offset):
    check_all(5, 61, BF16, offset=offset)
    check_all(5, 30, FLOAT, offset=offset)


@pytest.mark.parametrize(("team", "dtype", "n"), [(8, FLOAT, 131), (64, FLOAT, 1030), (64, BF16, 1039)], ids=str)
def test_rows_of_several_chunks(team, dtype, n, monkeypatch):
    cut_as(monkeypatch, team, 1)
    check_all(3, n, dtype, offset=1)


def test_sums_of_columns_in_several_chunks(monkeypatch):
    """Then the sums over the rows wait in memory while another chunk is being added up."""
    for module in (layernorm, rmsnorm):
        monkeypatch.setattr(module, "column_cut", lambda *_: rows.ColumnCut(64, 1, 4, 3))
    for n in (256, 301):
        check_all(11, n, FLOAT, only="norm")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_warps_does_not_matter(seed):
    """The same bits, with rows of a warp, of a block, and sums over rows by many blocks."""
    for count, n in ((70, 33), (3, 600)):
        for call in calls(np.random.default_rng(0), count, n, FLOAT).values():
            with simulated(0):
                expected = call(impl="cuda")
            with simulated(seed + 7):
                got = call(impl="cuda")
            for a, b in zip(_tuple(got), _tuple(expected), strict=True):
                assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("n", [5, 700])
def test_extremes_of_softmax(n):
    x = np.zeros((5, n), np.float32)
    x[0], x[1, :-1], x[2], x[3, 1], x[4, 0] = -np.inf, -np.inf, -1e30, 1e30, np.nan
    for name in ("softmax_forward", "log_softmax_forward"):
        with np.errstate(invalid="ignore"):
            expected = getattr(kernels, name)(x, impl="reference")
        with simulated():
            got = getattr(kernels, name)(x, impl="cuda")
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert np.isnan(got[[0, 4]]).all() and np.isfinite(got[2]).all()


@pytest.mark.parametrize("n", [5, 700])
@pytest.mark.parametrize("size", [1e-25, 1e20, 1e30])
def test_extremes_of_norms(size, n):
    rng = np.random.default_rng(0)
    x, other = (size * rng.normal(size=(2, 3, n))).astype(np.float32)
    for call in (
        lambda **k: kernels.layernorm_forward(x, None, None, 0.0, residual=other, **k),
        lambda **k: kernels.rmsnorm_forward(x, None, 0.0, residual=other, **k),
    ):
        expected = call(impl="reference")
        for seed in range(3):
            with simulated(seed):
                got = call(impl="cuda")
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5)


def test_extremes_of_cross_entropy():
    z = np.array([[-np.inf, 0, 1], [1e30, -1e30, 0], [np.nan, 0, 0], [-np.inf] * 3], np.float32)
    y = np.array([1, 0, -100, 2])
    expected = kernels.cross_entropy_with_grad(z[:3], y[:3], 1.0, impl="reference")
    with simulated():
        loss, lse, dz = kernels.cross_entropy_with_grad(z, y, 1.0, impl="cuda")
    for got, e in zip((loss, lse, dz), expected, strict=True):
        np.testing.assert_allclose(got[:3], e, rtol=1e-6)
    assert np.isnan(loss[3])


def test_targets_outside_read_nothing_and_give_nan():
    z, loss, lse, dz = np.zeros((3, 5), np.float32), *np.zeros((2, 3), np.float32), np.zeros((3, 5), np.float32)
    with simulated():
        cross_entropy.rows(z.reshape(-1), np.array([4, 5, -1]), 1.0, -100, 0.0, None, loss, lse, dz)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True])
    np.testing.assert_array_equal(np.isnan(dz).all(axis=1), [False, True, True])


@pytest.mark.parametrize("kw", [{}, {"softcap": 5.0, "label_smoothing": 0.1, "z_loss": 0.01}], ids=str)
@DTYPES
def test_linear_cross_entropy(dtype, kw, monkeypatch):
    monkeypatch.setattr(linear_cross_entropy, "LEAST", 8)
    monkeypatch.setattr(linear_cross_entropy, "CHUNK_BYTES", 1)  # three chunks
    rng = np.random.default_rng(0)
    x, weight = draw(rng, (21, 24), dtype), draw(rng, (67, 24), dtype, 0.4)
    y, factor = rng.integers(0, 67, 21), rng.normal(size=21).astype(np.float32)
    y[3] = -100
    for into in (None, draw(rng, (67, 24), dtype)):
        call = lambda **k: kernels.linear_cross_entropy(  # noqa: E731
            x, weight, y, factor, dweight=None if into is None else into.copy(), **kw, **k  # noqa: B023
        )  # fmt: skip
        expected = call(impl="reference")
        with simulated():
            got = call(impl="cuda")
        np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=8 * float(ml_dtypes.finfo(dtype).eps))
        atol = 6 * float(ml_dtypes.finfo(dtype).eps)  # logits, and their gradient, are rounded to 16 bits
        for a, b in zip(got[1:], expected[1:], strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=0.02, atol=atol)


@DTYPES
@pytest.mark.parametrize("D", [1, 24, 300])
def test_embedding(D, dtype):
    rng = np.random.default_rng(0)
    for count, V in ((200, 3), (70, 50), (33, 1)):  # runs over several pieces of 32, runs of one, one run
        ids = rng.integers(0, V, count)
        table, dout, into = draw(rng, (V, D), dtype), draw(rng, (count, D), dtype), draw(rng, (V, D), dtype, 9.0)
        expected = kernels.embedding_backward(dout, ids, V, padding_idx=0, out=into.copy(), impl="reference")
        with simulated():
            np.testing.assert_array_equal(kernels.embedding_forward(ids, table, impl="cuda"), table[ids])
            got = kernels.embedding_backward(dout, ids, V, padding_idx=0, out=into.copy(), impl="cuda")
        agree(got, expected, dtype)


def test_embedding_sums_an_infinity():
    dout = np.full((40, 2), np.inf, np.float32)
    with simulated():
        got = kernels.embedding_backward(dout, np.zeros(40, int), 1, impl="cuda")
    assert np.isposinf(got).all()


def test_ids_outside_are_nan_where_nobody_looks(monkeypatch):
    """As on a GPU, where looking for them would make the host wait."""
    monkeypatch.setattr(embedding, "_ids", lambda ids, _: ids)
    ids, table = np.array([1, -1, 2, 0]), np.ones((2, 9), np.float32)
    with simulated():
        out = kernels.embedding_forward(ids, table, impl="cuda")
        dtable = kernels.embedding_backward(out, ids, 2, impl="cuda")
    np.testing.assert_array_equal(np.isnan(out).all(axis=1), [False, True, True, False])
    np.testing.assert_array_equal(dtable, np.ones((2, 9)))


def test_how_rows_are_cut():
    for itemsize in (2, 4):
        for n in (1, 2, 64, 100, 500, 768, 4096, 8191, 50_257, 200_000):
            for arrays in (1, 2, 4):
                how = rows.cut("k", n, itemsize, arrays)
                assert 1 <= how.packs <= 8 // arrays and how.team in (8, 32, 256, 1024)
                fits = how.team * how.packs >= rows.packs_of(n, itemsize)
                assert fits or (how.team, how.packs) == (1024, min(7, 8 // arrays))
                columns = rows.column_cut("k", 5000, n, itemsize)
                assert columns.blocks * columns.rows_of_block >= 5000 > (columns.blocks - 1) * columns.rows_of_block
                if columns.team <= 32:  # the teams of a block share a row of `part`, so each must hold all columns
                    assert columns.team * columns.packs * 16 >= n * itemsize
    with pytest.raises(ValueError, match="too long"):
        rows.cut("k", 2**31, 2)
    with pytest.raises(ValueError, match="too many"):
        rows.cut("k", 9000, 4).grid("k", 2**31)


# ------------------------------------------------------------------------------------------ planted bugs

SOURCES = {
    "softmax": (softmax, "FORWARD", "softmax_forward"),
    "layernorm": (layernorm, "FORWARD", "layernorm_forward"),
    "layernorm_residual": (layernorm, "FORWARD", "layernorm_residual"),
    "layernorm_backward": (layernorm, "BACKWARD", "layernorm_backward"),
    "rmsnorm_backward": (rmsnorm, "BACKWARD", "rmsnorm_backward"),
    "cross_entropy": (cross_entropy, "SOURCE", "cross_entropy_with_grad"),
}
BARRIER = "        __syncthreads();                      // the scratch may be written again\n"
BUGS = {  # name: (which source, rows, n, file, what stands there, what is planted)
    "no barrier before the sums are read": (
        "softmax", 2, 1500, "rows.cuh", "scratch[32 * m + warp] = x[m];\n        __syncthreads();\n",
        "scratch[32 * m + warp] = x[m];\n",
    ),
    "no barrier before the scratch is used again": ("softmax", 4, 1500, "rows.cuh", BARRIER, ""),
    "a tail one number too long": (
        "softmax", 5, 33, "rows.cuh", "inside(j + e, n) ? row[j + e]", "inside(j + e, n + 1) ? row[j + e]",
    ),
    "a tail one number too short": (
        "layernorm", 5, 33, "rows.cuh", "inside(j + e, n) ? row[j + e]", "inside(j + e, n - 1) ? row[j + e]",
    ),
    "a tail that writes one number too many": (
        "softmax", 5, 33, "rows.cuh", "if (inside(j + e, n))", "if (inside(j + e, n + 1))",
    ),
    "numbers outside the row are counted": (
        "layernorm", 3, 33, "layernorm.cu", "inside(column(start, k) + e, n) ? x_k", "true ? x_k",
    ),
    "a sum over half of a team": (
        "layernorm", 3, 120, "rows.cuh", "int step = LANES / 2;", "int step = LANES / 4;",
    ),
    "blocks that share their sums": (
        "layernorm_backward", 70, 20, "columns.cuh", "m * gridDim.x + blockIdx.x", "m * gridDim.x",
    ),
    "warps that add up at once": (
        "rmsnorm_backward", 70, 20, "columns.cuh", "}\n                __syncthreads();\n", "}\n",
    ),
    "a row left out at the end of a block": (
        "rmsnorm_backward", 70, 20, "rmsnorm_backward.cu", "if (stop > rows) stop = rows;",
        "if (stop > rows) stop = rows - 1;",
    ),
    "the maximum of one thread": (
        "cross_entropy", 4, 150, "cross_entropy.cu", "float highest = team_max(top, scratch);", "float highest = top;",
    ),
}  # fmt: skip


def planted(tmp_path, source, file, old, new):
    """The path of a copy of source, beside copies of all headers, one of the files changed."""
    for path in (*HEADERS.glob("*.cuh"), source):
        text = path.read_text()
        if path.name == file:
            assert text.count(old) == 1, f"{file} has {text.count(old)} of: {old}"
            text = text.replace(old, new)
        (tmp_path / path.name).write_text(text)
    return tmp_path / source.name


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug, tmp_path, monkeypatch):
    which, count, n, file, old, new = BUGS[bug]
    module, attribute, name = SOURCES[which]
    call = calls(np.random.default_rng(0), count, n, FLOAT)[name]
    expected = call(impl="reference")
    with simulated():
        agree(call(impl="cuda"), expected, FLOAT, n)
    monkeypatch.setattr(module, attribute, planted(tmp_path, getattr(module, attribute), file, old, new))
    with pytest.raises((AssertionError, gpu_errors())):
        for seed in range(6):
            with simulated(seed):
                agree(call(impl="cuda"), expected, FLOAT, n)


def test_a_sum_in_any_order_is_caught(tmp_path, monkeypatch):
    """Atomics give right sums, but other bits when the warps come in another order."""
    call = calls(np.random.default_rng(0), 70, 20, FLOAT)["rmsnorm_backward"]
    path = planted(
        tmp_path, rmsnorm.BACKWARD, "columns.cuh", "x[m][k][e] = sum = team == 0 ? x[m][k][e] : sum + x[m][k][e];",
        "if (team > 1) x[m][k][e] = sum; else if (team) atomicAdd(&sum, x[m][k][e]); else if (!r) sum = 0.0f;",
    )  # fmt: skip
    text = (tmp_path / "columns.cuh").read_text()
    text = text.replace("if (threadIdx.x / TEAM == team) {", "{ int r = threadIdx.x / TEAM;")
    (tmp_path / "columns.cuh").write_text(text)
    monkeypatch.setattr(rmsnorm, "BACKWARD", path)
    results = set()
    for seed in range(4):
        with simulated(seed):
            got = call(impl="cuda")
        agree(got, call(impl="reference"), FLOAT)
        results.add(got[1].tobytes())
    assert len(results) > 1


def gpu_errors():
    from kernels.simulator import SimulatorError

    return SimulatorError


EMBEDDING_BUGS = {
    "a run that goes on is written at its piece's end": ("stop < rows && ids[stop] == id", "stop < rows && false"),
    "the piece after the last of a run is added": (
        "piece * PIECE < rows && ids[piece * PIECE] == id; piece++", "piece * PIECE < rows; piece++",
    ),
    "every piece of a run joins it": ("if (!goes_on || !begins_here ||", "if (!goes_on ||"),
    "what additions lose is forgotten": ("lost += (total - (sum - part)) + (x - part);", ""),
}  # fmt: skip


@pytest.mark.parametrize("bug", EMBEDDING_BUGS)
def test_a_bug_planted_in_embedding_is_caught(bug, tmp_path, monkeypatch):
    ids = np.repeat([0, 1, 2], [10, 150, 60])
    dout = np.full((220, 3), 0.1, np.float32)
    dout[20] = 1e8
    expected = kernels.embedding_backward(dout, ids, 3, impl="reference")
    with simulated():
        np.testing.assert_array_equal(kernels.embedding_backward(dout, ids, 3, impl="cuda"), expected)
    path = planted(tmp_path, embedding.SOURCE, "embedding.cu", *EMBEDDING_BUGS[bug])
    monkeypatch.setattr(embedding, "SOURCE", path)
    with pytest.raises((AssertionError, gpu_errors())), simulated():
        np.testing.assert_array_equal(kernels.embedding_backward(dout, ids, 3, impl="cuda"), expected)


@pytest.mark.parametrize("impl", ["reference", "cpu", "cuda"])
def test_a_factor_in_an_array_of_no_dims(impl):
    """On a GPU a number that the host need not know."""
    rng = np.random.default_rng(0)
    z, y, factor = rng.normal(size=(4, 9)).astype(np.float32), rng.integers(0, 9, 4), np.asarray(0.25, np.float32)
    x, weight = z[:, :3].copy(), rng.normal(size=(9, 3)).astype(np.float32)
    with simulated():
        for f, given in ((kernels.cross_entropy_with_grad, (z, y)), (kernels.linear_cross_entropy, (x, weight, y))):
            for a, b in zip(f(*given, factor, impl=impl), f(*given, 0.25, impl=impl), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6)
