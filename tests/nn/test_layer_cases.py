"""Every layer and loss of the table against PyTorch, and against differences."""

import numpy as np
import pytest
from nn_oracle import both

from minillm import Tensor
from minillm.testing.cases.layers import CASES

IDS = [f"{i}-{c.name}" for i, c in enumerate(CASES)]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # of the largest element; sums of up to 16 terms


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [c for c in CASES if c.torch], ids=[i for i, c in zip(IDS, CASES) if c.torch])
def test_values_and_gradients_are_those_of_pytorch(case, dtype):
    torch = pytest.importorskip("torch")
    ours, theirs = both(torch, case, np.dtype(dtype))
    for kind, got, want in zip(("output", "gradient"), ours, theirs):
        assert len(got) == len(want) > 0
        for i, (a, b) in enumerate(zip(got, want)):
            assert a.shape == b.shape
            atol = TOLERANCE[dtype] * max(1.0, abs(b).max())
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=f"{kind} {i}")


@pytest.mark.parametrize("case", [c for c in CASES if c.orders], ids=[i for i, c in zip(IDS, CASES) if c.orders])
def test_the_gradient_predicts_the_change_of_the_output(case):
    """Along a random direction, in float64: central difference of <cotangent, f> against <gradient, direction>."""
    rng = np.random.default_rng(3)
    inputs = case.inputs()
    directions = [rng.standard_normal(x.shape) for x in inputs]
    cotangents = []

    def value(*xs):
        out = case.function(*xs)
        outs = out if isinstance(out, tuple) else (out,)
        if not cotangents:
            cotangents.extend(rng.standard_normal(o.shape) for o in outs)
        return sum((o * c).sum() for o, c in zip(outs, cotangents))

    leaves = [Tensor(x, requires_grad=True) for x in inputs]
    value(*leaves).backward()
    slope = sum((x.grad.numpy() * d).sum() for x, d in zip(leaves, directions))
    h = 1e-5  # a LayerNorm of 4 numbers bends: at 1e-4 the third derivative shows
    ahead = value(*[Tensor(x + h * d) for x, d in zip(inputs, directions)]).item()
    behind = value(*[Tensor(x - h * d) for x, d in zip(inputs, directions)]).item()
    assert abs(slope) > 1e-3
    assert abs((ahead - behind) / (2 * h) - slope) <= 1e-5 * max(1, abs(slope))
