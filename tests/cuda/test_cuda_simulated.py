"""Whole trainings on the CUDA kernels, run by the simulator: every launch of a step, and the CPU's numbers."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

import kernels
import minillm
from kernels import gpu, simulator
from minillm import models, optim
from minillm.models import GPT

SETTINGS = {
    "GPT-2": {},
    "Llama": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "tie": False, "bias": False},
}


@pytest.fixture(autouse=True)
def compiler():
    simulator.compiler()


@contextmanager
def on_cuda(enabled):
    """CUDA kernels, on the simulator; without memory checking, for which each kernel has its own tests."""
    with gpu.numpy_on("simulator", check=False) if enabled else nullcontext(), kernels.use("cuda" if enabled else None):
        yield


def train(make, loss, cuda, precision="float32", steps=2):
    minillm.manual_seed(0)
    with on_cuda(cuda):
        model = make()
        optimizer, losses = optim.AdamW(model.parameters(), lr=1e-2), []
        for _ in range(steps):
            optimizer.zero_grad()
            with minillm.autocast(enabled=precision == "bfloat16"):
                value = loss(model)
            value.backward()
            optimizer.step(clip_norm=0.5)
            losses.append(value.item())
        return losses, model.state_dict()


def gpt(settings):
    ids = np.random.default_rng(0).integers(0, 11, (2, 10))
    ids[0, 5] = -100  # a target that counts for nothing
    x, y = np.maximum(ids[:, :-1], 0), ids[:, 1:]
    return lambda: GPT(11, context=9, layers=1, heads=2, width=16, **settings), lambda m: m.loss(x, y)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_language_model(name):
    make, loss = gpt(SETTINGS[name])
    (there, weights), (here, expected) = (train(make, loss, cuda) for cuda in (True, False))
    np.testing.assert_allclose(there, here, rtol=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(weights[key], value, rtol=2e-2, atol=2e-3, err_msg=key)  # Adam divides by roots


@pytest.mark.skipif(not kernels.has_bf16(), reason="this CPU has no bfloat16 products to compare with")
def test_a_language_model_in_bfloat16():
    make, loss = gpt({})
    there, here = (train(make, loss, cuda, "bfloat16")[0] for cuda in (True, False))
    np.testing.assert_allclose(there, here, rtol=1e-2)
    assert there != train(make, loss, True)[0]  # it is another precision


def test_a_variational_autoencoder():
    x = np.random.default_rng(0).random((5, 12), np.float32)
    make, loss = lambda: models.VAE(12, (8,), 3), lambda m: m.loss(minillm.tensor(x))
    (there, weights), (here, expected) = (train(make, loss, cuda) for cuda in (True, False))
    np.testing.assert_allclose(there, here, rtol=1e-4)
    for key, value in expected.items():
        np.testing.assert_allclose(weights[key], value, rtol=2e-2, atol=2e-3, err_msg=key)


def test_a_classifier_with_dropout_and_generation():
    """Dropout drops the same on both; and what a model writes is the same text."""
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 5, 2), np.float32), rng.integers(0, 3, 4)
    make = lambda: models.AttentionModel(2, 5, 3, width=8, heads=2, dropout=0.3)  # noqa: E731
    there, here = (train(make, lambda m: m.loss(minillm.tensor(x), y), cuda)[0] for cuda in (True, False))
    np.testing.assert_allclose(there, here, rtol=1e-4)

    def write(cuda):
        minillm.manual_seed(1)
        model = GPT(11, context=9, layers=1, heads=2, width=16).eval()
        with on_cuda(cuda):
            return model.generate([1, 2, 3], 5, temperature=0.8, generator=minillm.Generator(4)).tolist()

    assert write(True) == write(False)
