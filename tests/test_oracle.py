"""Values and gradients of every row that names its PyTorch twin, in float64 and float32, against PyTorch."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import minillm
from minillm.testing.cases import all_cases
from minillm.testing.check import random_cotangent

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

CASES = [c for c in all_cases() if c.torch is not None]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On arrays this small, starting threads takes longer than the work, and much longer on a busy machine."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def ours(case, inputs, dtype):
    xs = [minillm.tensor(x.astype(dtype), requires_grad=True) for x in inputs]
    outs = case.function(*xs)
    outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    rng = np.random.default_rng(1)
    tracked = [o for o in outs if o.requires_grad]
    cotangents = [minillm.tensor(random_cotangent(o.shape, rng).astype(dtype)) for o in tracked]
    grads = minillm.gradients(tracked, xs, cotangents, allow_unused=True)
    return [o.numpy() for o in outs], [g.numpy() if g is not None else np.zeros_like(x) for g, x in zip(grads, inputs)]


def theirs(case, inputs):
    xs = [torch.tensor(x, requires_grad=True) for x in inputs]
    outs = case.torch(torch, *xs)
    outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    rng = np.random.default_rng(1)
    tracked = [o for o in outs if o.requires_grad]
    cotangents = [torch.tensor(random_cotangent(tuple(o.shape), rng)) for o in tracked]
    grads = torch.autograd.grad(tracked, xs, cotangents, allow_unused=True)
    return [o.detach().numpy() for o in outs], [
        g.numpy() if g is not None else np.zeros_like(x) for g, x in zip(grads, inputs)
    ]


def agree(got, expected, what, rtol, floor, extra=0.0):
    """|got - expected| <= rtol * |expected| + floor * largest |expected| + extra, infinities in the same places."""
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, PyTorch's {expected.shape}"
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite], err_msg=what)
    scale = np.abs(expected[finite]).max(initial=0.0)
    np.testing.assert_allclose(
        got[finite], expected[finite], rtol=rtol, atol=floor * max(scale, 1e-3) + extra, err_msg=what
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_float64(case):
    inputs = case.inputs()
    outs, grads = ours(case, inputs, np.float64)
    expected_outs, expected_grads = theirs(case, inputs)
    assert len(outs) == len(expected_outs)
    for i, (o, e) in enumerate(zip(outs, expected_outs)):
        agree(o, e, f"output {i}", 1e-9, 1e-12)  # some 1e3 eps of cancelled digits; both sides are exact to a few eps
    for i, (g, e) in enumerate(zip(grads, expected_grads)):
        agree(g, e, f"gradient {i}", 1e-9, 1e-11)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_float32_against_pytorch_in_float64(case):
    inputs = [x.astype(np.float32) for x in case.inputs()]
    outs, grads = ours(case, inputs, np.float32)
    expected_outs, expected_grads = theirs(case, [x.astype(np.float64) for x in inputs])  # the same rounded inputs
    low_outs, low_grads = theirs(case, inputs)
    eps = float(
        np.finfo(np.float32).eps
    )  # twice PyTorch's own error in float32 (three times for gradients), and some eps
    for i, (o, e, low) in enumerate(zip(outs, expected_outs, low_outs)):
        assert o.dtype == low.dtype, f"output {i} is {o.dtype}, PyTorch's {low.dtype}"
        agree(o, e, f"output {i}", 8 * eps, 8 * eps, 2 * error(low, e))
    for i, (g, e, low) in enumerate(zip(grads, expected_grads, low_grads)):
        assert g.dtype == np.float32, f"gradient {i} is {g.dtype}"
        agree(g, e, f"gradient {i}", 16 * eps, 16 * eps, 3 * error(low, e))


def error(low, exact):
    """The largest error of PyTorch's own float32."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(low.astype(np.float64) - exact)
    return float(difference[np.isfinite(difference)].max(initial=0.0))


def test_there_are_enough_rows():
    assert len(CASES) > 200
