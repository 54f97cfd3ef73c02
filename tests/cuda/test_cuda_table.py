"""Every case of the gradient checker's table in float32, on a GPU's way through the kernels: the CPU's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_stand_in import kernels_on_strict
from test_strict_device import CASES, on_device, outputs_and_gradients


@pytest.fixture(scope="module")
def made():
    patch = pytest.MonkeyPatch()
    yield kernels_on_strict(patch)
    patch.undo()


def in_float32(arrays):
    return [a.astype(np.float32) if getattr(a, "dtype", None) == np.float64 else a for a in arrays]


@pytest.mark.parametrize("case", [c for c in CASES if not c.op.startswith("kernels.")], ids=lambda c: c.name)
def test_in_float32(case, made):
    inputs = in_float32(case.inputs())
    cpu = outputs_and_gradients(case.function, inputs, "cpu")
    there = outputs_and_gradients(on_device(case.function), inputs, "strict")
    for a, b in zip(cpu, there):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-4 * (1 + abs(a).max(initial=0)))
