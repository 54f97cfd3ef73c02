"""autocast: products in bfloat16, both ways, and nothing else; clear errors."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
import minillm
from minillm import functional as F
from minillm import manual_seed, optim, tensor
from minillm.models import GPT

needs_bf16 = pytest.mark.skipif(not kernels.has_bf16(), reason="this CPU has no bfloat16 products")


def gradients(x, w, enabled):
    x, w = tensor(x, requires_grad=True), tensor(w, requires_grad=True)
    with minillm.autocast(enabled=enabled):
        out = F.linear(x, w, activation="gelu")
    (out * out).sum().backward()  # outside the block: the rule remembers
    return out.numpy(), x.grad.numpy(), w.grad.numpy()


@needs_bf16
def test_linear_forward_and_backward_round_to_bfloat16():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((64, 96)).astype(np.float32), rng.standard_normal((48, 96)).astype(np.float32)
    for low, full in zip(gradients(x, w, True), gradients(x, w, False)):
        assert low.dtype == np.float32
        error = np.linalg.norm(low - full) / np.linalg.norm(full)
        assert 1e-4 < error < 2e-2  # 2^-9 for each factor of a few products in a row: neither float32 nor nonsense


@needs_bf16
def test_attention():
    q = np.random.default_rng(1).standard_normal((2, 2, 40, 16)).astype(np.float32)

    def run(enabled):
        x = tensor(q, requires_grad=True)
        with minillm.autocast(enabled=enabled):
            out = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        (out * out).sum().backward()
        return out.numpy(), x.grad.numpy()

    for low, full in zip(run(True), run(False)):
        assert 1e-4 < np.linalg.norm(low - full) / np.linalg.norm(full) < 2e-2


@needs_bf16
def test_a_model_learns_as_in_float32():
    ids = np.random.default_rng(2).integers(0, 9, (4, 33)).cumsum(1) % 11
    x, y = tensor(ids[:, :-1]), tensor(ids[:, 1:])

    def losses(enabled):
        manual_seed(0)
        model = GPT(vocab_size=11, context=32, layers=2, heads=2, width=32)
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)
        curve = []
        for _ in range(20):
            optimizer.zero_grad()
            with minillm.autocast(enabled=enabled):
                loss = model.loss(x, y)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        return np.array(curve)

    low, full = losses(True), losses(False)
    assert low[-1] < low[0] - 0.3
    assert 0 < abs(low - full).max() < 0.05


@needs_bf16
def test_blocks_nest_and_decorate():
    x = np.ones((4, 4), np.float32) / 3

    @minillm.autocast()
    def product():
        return F.linear(tensor(x), tensor(x)).numpy()

    plain = F.linear(tensor(x), tensor(x)).numpy()
    assert (product() != plain).any()
    with minillm.autocast(), minillm.autocast(enabled=False):
        np.testing.assert_array_equal(F.linear(tensor(x), tensor(x)).numpy(), plain)
    np.testing.assert_array_equal(F.linear(tensor(x), tensor(x)).numpy(), plain)


@needs_bf16
def test_float64_is_left_alone():
    x = np.ones((4, 4)) / 3
    with minillm.autocast():
        np.testing.assert_allclose(F.linear(tensor(x), tensor(x)).numpy(), x @ x.T, rtol=1e-15)


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="bfloat16"):
        minillm.autocast("float16")
    monkeypatch.setattr(kernels, "has_bf16", lambda: False)
    with pytest.raises(RuntimeError, match="AVX512_BF16"), minillm.autocast():
        pass
    with minillm.autocast(enabled=False):
        pass
