"""Initialisers: bounds, moments, seeds; the layers' defaults."""

import math

import numpy as np
import pytest

from minillm import Generator, Tensor, get_rng_state, manual_seed, nn, zeros
from minillm.nn import init


def test_bounds_and_gains_are_pytorchs():
    for fill, bound in [
        (lambda w: init.uniform_(w, -2, 3), (-2, 3)),
        (lambda w: init.xavier_uniform_(w, gain=2.0), 2 * math.sqrt(6 / 500)),
        (lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)), 1 / math.sqrt(200)),
        (lambda w: init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"), math.sqrt(2) * math.sqrt(3 / 300)),
    ]:
        w = zeros(300, 200)
        low, high = bound if isinstance(bound, tuple) else (-bound, bound)
        assert fill(w) is w
        x = w.numpy()
        span = high - low
        # all inside; 60,000 draws come within 1e-3 of both ends; the mean of a uniform is known to span / sqrt(12 n)
        assert low <= x.min() < low + 1e-3 * span
        assert high - 1e-3 * span < x.max() <= high
        assert abs(x.mean() - (low + high) / 2) < 5 * span / math.sqrt(12 * x.size)


@pytest.mark.parametrize(
    ("fill", "mean", "std"),
    [
        (lambda w: init.normal_(w, 1.0, 2.0), 1.0, 2.0),
        (init.xavier_normal_, 0.0, math.sqrt(2 / 500)),
        (lambda w: init.kaiming_normal_(w, nonlinearity="relu"), 0.0, math.sqrt(2 / 200)),
    ],
)
def test_normal_initialisers_have_the_stated_moments(fill, mean, std):
    x = fill(zeros(300, 200)).numpy()
    assert abs(x.mean() - mean) < 5 * std / math.sqrt(x.size)
    assert abs(x.std() / std - 1) < 5 / math.sqrt(2 * x.size)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains(name):
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)
    assert init.fans(zeros(2, 3, 5)) == (15, 10)


def test_the_seed_decides_and_numpys_state_is_not_touched():
    before = np.random.get_state()[1].copy()
    first, second = (manual_seed(3) and nn.Linear(4, 4).weight.numpy() for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(second, nn.Linear(4, 4).weight.numpy())
    assert np.array_equal(before, np.random.get_state()[1])
    a, b = (init.normal_(zeros(5), generator=Generator(9)).numpy() for _ in range(2))
    assert np.array_equal(a, b)


def test_default_initial_values():
    linear = nn.Linear(400, 100)
    assert abs(linear.weight.numpy()).max() <= 1 / 20
    assert linear.weight.numpy().std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.02)
    assert abs(linear.bias.numpy()).max() <= 1 / 20
    embedding = nn.Embedding(300, 50, padding_idx=-1)
    assert embedding.weight.numpy()[:-1].std() == pytest.approx(1, rel=0.03)
    assert not embedding.weight.numpy()[-1].any()
    norm = nn.LayerNorm(3)
    assert norm.weight.tolist() == [1, 1, 1]
    assert norm.bias.tolist() == [0, 0, 0]
    attention = nn.MultiheadAttention(8, 2)
    assert not attention.in_proj_bias.numpy().any()
    assert not attention.out_proj.bias.numpy().any()
    assert 0 < abs(attention.in_proj_weight.numpy()).max() <= math.sqrt(6 / 32)
    assert all(p.dtype == np.float32 for m in (linear, embedding, norm, attention) for p in m.parameters())


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"shape \(out, in, \.\.\.\)"):
        init.xavier_uniform_(zeros(3))
    with pytest.raises(ValueError, match="no gain for 'swish'"):
        init.kaiming_normal_(zeros(3, 3), nonlinearity="swish")
    with pytest.raises(ValueError, match="fan_in"):
        init.kaiming_uniform_(zeros(3, 3), mode="in")


def test_skipped_draws_nothing_and_writes_nothing():
    manual_seed(3)
    before = get_rng_state()
    kept = Tensor(np.arange(6.0).reshape(2, 3))
    with init.skipped():
        for fill in (init.uniform_, init.normal_, init.zeros_, init.xavier_uniform_, init.kaiming_normal_):
            assert fill(kept) is kept
        layer = nn.Linear(3, 2)
    assert np.array_equal(kept.numpy(), np.arange(6.0).reshape(2, 3)) and get_rng_state() == before
    assert layer.weight.shape == (2, 3)
    init.zeros_(kept)
    assert not kept.numpy().any()
