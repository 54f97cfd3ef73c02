"""The average of the weights: its formula, what a swap leaves behind, its state, and that it is smoother."""

from __future__ import annotations

import numpy as np
import pytest

import minillm
from minillm import nn, optim
from minillm.training.ema import EMA


def model(seed=0):
    minillm.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def moved(net, rng):
    for p in net.parameters():
        p.data[...] += rng.normal(size=p.shape).astype(np.float32)


def test_formula():
    net, rng = model(), np.random.default_rng(0)
    ema = EMA(net, 0.5)
    want = [p.numpy().astype(np.float64) for p in net.parameters()]
    for t in range(1, 15):
        moved(net, rng)
        ema.update()
        d = min(0.5, (1 + t) / (10 + t))
        want = [d * w + (1 - d) * p.numpy() for w, p in zip(want, net.parameters())]
    for w, a in zip(want, ema.averages.values()):
        np.testing.assert_allclose(a, w, rtol=1e-4, atol=1e-5)


def test_a_swap_is_undone_to_the_bit_also_after_an_error():
    net = model()
    ema = EMA(net, 0.9)
    moved(net, np.random.default_rng(0))
    own = [p.numpy().copy() for p in net.parameters()]
    with pytest.raises(KeyError), ema.swapped():
        for p, a in zip(net.parameters(), ema.averages.values()):
            np.testing.assert_array_equal(p.numpy(), a)
        raise KeyError
    for p, w in zip(net.parameters(), own):
        np.testing.assert_array_equal(p.numpy(), w)


def test_works_where_an_optimizer_laid_the_parameters_side_by_side():
    net = model()
    adam = optim.AdamW(net.parameters(), lr=0.1)
    ema, x = EMA(net, 0.9), minillm.tensor(np.ones((5, 3), np.float32))
    for _ in range(3):
        adam.zero_grad()
        net(x).square().sum().backward()
        adam.step()
        ema.update()
        with ema.swapped():
            net(x)
    assert not np.array_equal(ema.averages["0.weight"], net[0].weight.numpy())


def test_state():
    net, rng = model(), np.random.default_rng(0)
    ema = EMA(net, 0.9)
    for _ in range(3):
        moved(net, rng)
        ema.update()
    other = EMA(net, 0.9)
    other.load_state_dict(ema.state_dict())
    moved(net, rng)
    ema.update()
    other.update()
    for a, b in zip(ema.averages.values(), other.averages.values()):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="not in the model"):
        other.load_state_dict({"steps": 1, "averages": {**ema.averages, "more": np.zeros(1)}})
    with pytest.raises(ValueError, match="shape"):
        other.load_state_dict({"steps": 1, "averages": {**ema.averages, "0.bias": np.zeros(9)}})


def test_the_average_is_nearer_to_the_minimum_of_a_noisy_problem():
    """|w - 1|^2 with noisy gradients: w wanders around 1, its average does not."""
    rng, p = np.random.default_rng(0), nn.Parameter(np.zeros(200, np.float32))
    net = nn.Module()
    net.w = p
    sgd, ema = optim.SGD([p], lr=0.2), EMA(net, 0.98)
    for _ in range(300):
        p.grad = minillm.tensor((p.numpy() - 1 + rng.normal(size=200)).astype(np.float32))
        sgd.step()
        ema.update()
    last, mean = np.abs(p.numpy() - 1).mean(), np.abs(ema.averages["w"] - 1).mean()
    assert mean < 0.5 * last


def test_float16_weights_have_an_average_that_can_move():
    net = nn.Module()
    net.w = nn.Parameter(np.ones(3, np.float16))
    ema = EMA(net, 0.999)
    ema.steps = 10**6
    net.w.data[...] = 1.25
    for _ in range(700):
        ema.update()
    np.testing.assert_allclose(ema.averages["w"], 1.25 - 0.25 * 0.999**700, rtol=1e-4)
    again = EMA(net, 0.999)
    again.load_state_dict(ema.state_dict())
    np.testing.assert_array_equal(again.averages["w"], ema.averages["w"])
    with ema.swapped():
        assert net.w.dtype == np.float16 and 1.1 < net.w.numpy()[0] < 1.2


def test_inside_a_swap_nothing_is_averaged_or_swapped_again():
    net = model()
    ema = EMA(net, 0.9)
    with ema.swapped():
        with pytest.raises(RuntimeError, match="inside swapped"):
            ema.update()
        with pytest.raises(RuntimeError, match="inside swapped"), ema.swapped():
            pass
    ema.update()
    assert ema.steps == 1


def test_frozen_parameters_have_no_average():
    net = model()
    net[0].requires_grad_(False)
    assert list(EMA(net).averages) == ["2.weight", "2.bias"]
    with pytest.raises(ValueError, match="nothing to average"):
        EMA(net.requires_grad_(False))


def test_decay_that_cannot_be():
    with pytest.raises(ValueError, match="decay"):
        EMA(model(), 1.0)
