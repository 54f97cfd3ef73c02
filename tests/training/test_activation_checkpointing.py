"""Activation checkpointing: a fraction of the memory, the same gradients to the bit, with dropout too."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm import nn, tensor
from minillm.models import GPT
from minillm.training.activation_checkpointing import checkpoint_sequential, peak_activation_memory

IDS = np.random.default_rng(0).integers(0, 64, (8, 64))
VARIANTS = {
    "gpt2": {},
    "dropout": {"dropout": 0.1, "stochastic_depth": 0.2},
    "llama": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "kv_heads": 2},
}


def gradients(model, again):
    model.checkpoint_blocks = again
    model.zero_grad()
    minillm.manual_seed(3)
    loss = model.loss(IDS, IDS)
    loss.backward()
    return {"loss": loss.numpy(), **{n: p.grad.numpy() for n, p in model.named_parameters()}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_twelve_layers_in_a_third_of_the_memory_with_the_same_gradients(variant):
    minillm.manual_seed(0)
    model = GPT(vocab_size=64, context=64, layers=12, heads=4, width=64, **VARIANTS[variant])
    plain = gradients(model, False)
    again = gradients(model, True)
    assert plain.keys() == again.keys()
    for name, g in plain.items():
        np.testing.assert_array_equal(g, again[name], err_msg=name)
    del plain, again
    peaks = []
    for checkpointed in (False, True):
        model.zero_grad()
        peaks.append(peak_activation_memory(lambda on=checkpointed: gradients(model, on)))
    assert peaks[1] <= 0.35 * peaks[0]
    assert peaks[0] > 12 * 8 * IDS.size * 64 * 4  # eight arrays of the stream's size a layer: it was measured


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 7), data=st.data())
def test_segments(count, data):
    segments = data.draw(st.integers(1, count))
    minillm.manual_seed(1)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.3)) for _ in range(count)])
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)

    def run(function):
        model.zero_grad()
        minillm.manual_seed(2)
        leaf = tensor(x, requires_grad=True)
        out = function(leaf)
        (out * out).sum().backward()
        return [out.numpy(), leaf.grad.numpy(), *[p.grad.numpy() for p in model.parameters()]]

    for a, b in zip(run(model), run(lambda leaf: checkpoint_sequential(model, segments, leaf)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_square_root_of_n_segments_keep_least_of_a_chain():
    x = tensor(np.ones(10_000, np.float32), requires_grad=True)
    chain = [lambda t: t.tanh()] * 64

    def peak(segments):
        def run():
            x.grad = None
            checkpoint_sequential(chain, segments, x).sum().backward()

        return peak_activation_memory(run) / x.data.nbytes  # in arrays of the chain

    few, root, many = peak(2), peak(8), peak(64)
    assert root < 8 + 8 + 6
    assert few > 32 and many > 64


def test_number_of_segments():
    for segments in (0, 3):
        with pytest.raises(ValueError, match="is from 1 to the 2 functions"):
            checkpoint_sequential([lambda t: t] * 2, segments, tensor([1.0]))


def test_what_is_measured_is_the_worst_moment():
    size = 1_000_000
    kept = []

    def one_after_another():
        for _ in range(4):
            np.ones(size, np.uint8)

    def all_at_once():
        kept.extend([np.ones(size, np.uint8) for _ in range(4)])
        kept.clear()

    assert size <= peak_activation_memory(one_after_another) < 1.1 * size
    assert 4 * size <= peak_activation_memory(all_at_once) < 4.1 * size
    there = np.ones(size, np.uint8)
    assert peak_activation_memory(lambda: there.sum()) < 0.1 * size


def test_tracing_goes_on_where_someone_else_began_it():
    tracemalloc.start()
    try:
        assert peak_activation_memory(lambda: np.ones(10**6, np.uint8)) >= 10**6
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    with pytest.raises(KeyError):
        peak_activation_memory(lambda: {}["x"])
    assert not tracemalloc.is_tracing()
