"""check_kernel, the layouts and the hypothesis strategies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from minillm.testing import ConformanceError, check_kernel
from minillm.testing.conformance import layouts
from minillm.testing.strategies import arrays, broadcastable, dims, shapes

RNG = np.random.default_rng(0)
X, W, B = RNG.standard_normal((7, 33)), RNG.standard_normal(33), RNG.standard_normal(33)


def plain(x):
    return (np.exp(x) / np.exp(x).sum(-1, keepdims=True)).astype(x.dtype)


def test_the_projects_kernels_conform():
    for dtype in (np.float32, np.float64):
        report = check_kernel(
            lambda *a: kernels.layernorm_forward(*a),
            lambda *a: kernels.layernorm_forward(*a, impl="reference"),
            [X, W, B],
            dtype=dtype,
        )
        assert report.compared > 3 * X.size and report.worst <= 1 and report.ulp[50] < 8
    assert check_kernel(kernels.gelu_forward, lambda x: kernels.gelu_forward(x, impl="reference"), [X])


def _as_if_contiguous(x):
    """What a kernel reads that trusts the last stride and computes the others."""
    if x.strides[-1] != x.itemsize or x.strides[0] == x.shape[1] * x.itemsize:
        return x
    return np.ascontiguousarray(np.roll(x, 1, 0))


FAULTY = {
    "zeros": lambda x: np.zeros_like(x),
    "nan": lambda x: np.where(np.arange(x.shape[-1]) == 5, np.nan, plain(x)).astype(x.dtype),
    "one block": lambda x: np.concatenate([plain(x)[:, :32], 0 * plain(x)[:, 32:]], 1),
    "dtype": lambda x: plain(x.astype(np.float64)),
    "shape": lambda x: plain(x)[:-1],
    "view": lambda x: x[::-1],
    "contiguous only": lambda x: plain(_as_if_contiguous(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
def test_kernels_that_cheat_are_caught(name):
    with pytest.raises(ConformanceError):
        check_kernel(FAULTY[name], plain, [X])


def test_writes_and_unrepeatable_results_are_caught():
    def writes(x):
        out = plain(x)
        x[0, 0] += 1
        return out

    assert any(
        "written to" in p for p in check_kernel(writes, plain, [X], alignments=False, raise_exception=False).problems
    )
    calls = iter(range(1000))
    noisy = check_kernel(
        lambda x: plain(x) * np.float32(1 + 1e-7 * (next(calls) % 2)), plain, [X], raise_exception=False
    )
    assert any("other bits" in p for p in noisy.problems)


def test_the_bound_is_not_zero_where_the_plain_version_is_exact():
    assert check_kernel(lambda x: (x * 3 / 3).astype(x.dtype), lambda x: x * 1, [X])
    with pytest.raises(ConformanceError, match="numbers wrong; worst at"):
        check_kernel(lambda x: (x * 1.0001).astype(x.dtype), lambda x: x * 1, [X])


@given(arrays(shapes(1, 3), dtype=np.float32))
@settings(max_examples=30, deadline=None)
def test_layouts_hold_the_same_values(x):
    for name, view in layouts(x):
        assert np.array_equal(view, x), name
        assert view.dtype == x.dtype


@given(broadcastable(3), st.data())
@settings(max_examples=30, deadline=None)
def test_broadcastable_shapes_broadcast_and_dims_are_axes(three, data):
    full = np.broadcast_shapes(*three)
    assert np.zeros(full).sum(axis=data.draw(dims(len(full)))) is not None
