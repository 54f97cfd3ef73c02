"""Each rung of the ladder computes attention."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from kernels.attention import attention_forward
from kernels.attention.ladder import RUNGS


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 64, 32), (1, 2, 97, 59), (1, 1, 200, 64)], ids=str)
@pytest.mark.parametrize("rung", [name for name, _ in RUNGS])
def test_rung_computes_attention(rung, shape, causal):
    module = importlib.import_module(f"kernels.attention.ladder.{rung}")
    q, k, v = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    out = module.attention(q, k, v, causal)
    want = attention_forward(*(x.astype(np.float64) for x in (q, k, v)), causal=causal, impl="reference")[0]
    assert out.dtype == np.float32 and out.shape == want.shape
    assert np.abs(out - want).max() < 5e-6  # 20 eps of numbers of size 2


def test_rungs_say_what_they_reached():
    for name, title in RUNGS:
        doc = importlib.import_module(f"kernels.attention.ladder.{name}").__doc__
        assert title and "Reached:" in doc and "python -m bench ladder attention" in doc
