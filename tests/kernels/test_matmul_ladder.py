"""Every rung of the ladder computes the product."""

from __future__ import annotations

import importlib

import kernel_checks as check
import numpy as np
import pytest

from kernels.matmul.ladder import RUNGS


@pytest.mark.parametrize("rung", [name for name, _ in RUNGS])
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 48, 16), (35, 101, 70), (17, 500, 800)], ids=str)
def test_rung(rung, shape):
    module = importlib.import_module(f"kernels.matmul.ladder.{rung}")
    M, N, K = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(M, K)).astype(np.float32), rng.normal(size=(K, N)).astype(np.float32)
    (out,) = check.pure(module.matmul, a, b)
    exact = a.astype(np.float64) @ b
    check.accurate(out, exact, a @ b, bound=np.max(abs(exact)))
    assert "Reached: " in module.__doc__ and "python -m bench ladder matmul" in module.__doc__
