"""The range test: it finds where the loss falls, stops where it diverges, and leaves nothing behind."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm import nn, optim
from minillm.models import GPT
from minillm.training.batches import RandomWindows
from minillm.training.lr_finder import RangeTest, find_lr

IDS = np.random.default_rng(0).integers(0, 7, 400)


def gpt():
    minillm.manual_seed(3)
    model = GPT(7, context=8, layers=1, heads=2, width=8, dropout=0.2)
    matrices, others = optim.muon_groups(model)
    both = optim.Optimizers([optim.Muon(matrices, lr=0.02), optim.AdamW(others, lr=0.004)])
    return model, both, RandomWindows(IDS, 4, 8, seed=1)


def train(model, optimizer, batches, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(*batches.next()).backward()
        optimizer.step(clip_norm=1.0)


@pytest.mark.parametrize("before", [0, 3])
def test_a_training_does_not_notice_it(before):
    """Parameters, moments, settings, dropout's numbers, batches, modes: the same bits as without the test."""
    without, tested = gpt(), gpt()
    start = minillm.get_rng_state()
    train(*without, before)
    middle = minillm.get_rng_state()
    train(*without, 3)
    minillm.set_rng_state(start)
    train(*tested, before)
    assert minillm.get_rng_state() == middle
    tested[0].blocks[0].eval()
    grads = [p.grad for p in tested[0].parameters()]
    copies = [g if g is None else g.numpy().copy() for g in grads]
    result = find_lr(*tested, tested[0].loss, start=1e-4, stop=1.0, steps=12)
    assert len(set(result.losses)) > 5  # it did train
    assert minillm.get_rng_state() == middle
    assert tested[0].training and not tested[0].blocks[0].training
    tested[0].train()
    for p, grad, copy in zip(tested[0].parameters(), grads, copies):
        assert p.grad is grad and (grad is None or np.array_equal(grad.numpy(), copy))
    assert [g["lr"] for g in tested[1].param_groups] == [g["lr"] for g in without[1].param_groups]
    train(*tested, 3)
    for p, q in zip(tested[0].parameters(), without[0].parameters()):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_all_is_put_back_after_an_error():
    model, optimizer, batches = gpt()
    weights = [p.numpy().copy() for p in model.parameters()]
    calls = []

    def loss(x, y):
        calls.append(x)
        if len(calls) == 5:
            raise KeyError
        return model.loss(x, y)

    with pytest.raises(KeyError):
        find_lr(model, optimizer, batches, loss, start=1e-2)
    for p, w in zip(model.parameters(), weights):
        np.testing.assert_array_equal(p.numpy(), w)
    assert [g["lr"] for g in optimizer.param_groups][-1] == 0.004


def bowl(curvature, start=1.0):
    net = nn.Module()
    net.w = nn.Parameter(np.full(10, start))
    return net, lambda: (net.w * net.w).sum() * (curvature / 2)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 100.0])
def test_finds_the_rate_of_a_bowl(curvature):
    """Gradient descent on curvature / 2 |w|^2 is best at lr = 1 / curvature and diverges above twice that."""
    net, loss = bowl(curvature)
    sgd = optim.SGD(net.parameters(), lr=0.5)
    test = find_lr(net, sgd, [()], loss, start=1e-5 / curvature, stop=100 / curvature, steps=200)
    assert test.diverged and test.lrs[-1] > 2 / curvature
    assert 0.02 / curvature < test.steepest < 1 / curvature
    assert (net.w.numpy() == 1).all() and sgd.param_groups[0]["lr"] == 0.5


def test_rates_grow_by_a_factor_and_groups_keep_their_ratio():
    net, loss = bowl(1.0)
    seen = []

    class Watched(optim.SGD):
        def step(self, clip_norm=None):
            seen.append([g["lr"] for g in self.param_groups])

    other = nn.Parameter(np.zeros(2))
    sgd = Watched([{"params": [net.w], "lr": 0.1}, {"params": [other], "lr": 0.3}])
    test = find_lr(net, sgd, [()], loss, start=1e-3, stop=10.0, steps=20)
    np.testing.assert_allclose(test.lrs, np.geomspace(1e-3, 10, 20))
    np.testing.assert_allclose(seen, np.stack([test.lrs, 3 * test.lrs], axis=1))
    assert not test.diverged and len(test.losses) == 20


def test_stops_at_a_loss_that_is_not_finite():
    net, loss = bowl(1.0)

    def explodes(factor):
        return loss() * factor

    for value in (math.inf, math.nan):
        batches = [(1.0,)] * 4 + [(value,)]
        test = find_lr(net, optim.SGD(net.parameters()), batches, explodes, steps=20)
        assert test.diverged and len(test.losses) == 4 and np.isfinite(test.losses).all()
    assert (net.w.numpy() == 1).all()


def test_stops_at_a_gradient_that_is_not_finite():
    net, loss = bowl(1.0)
    sgd, steps = optim.SGD(net.parameters()), []
    sgd.step = steps.append
    net.w.register_hook(lambda g: g * (math.inf if len(steps) == 3 else 1))
    test = find_lr(net, sgd, [()], loss, start=1e-3, steps=20)
    assert test.diverged and len(test.losses) == 4 and len(steps) == 3
    assert (net.w.numpy() == 1).all()


def test_the_place_of_batches_is_put_back():
    class Counting:
        at = 7

        def next(self):
            self.at += 1
            return ()

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    (net, loss), batches = bowl(1.0), Counting()
    assert len(find_lr(net, optim.SGD(net.parameters()), batches, loss, steps=12).losses) == 12
    assert batches.at == 7


def test_slopes_of_a_curve_that_is_known():
    lrs = np.geomspace(1e-4, 1.0, 101)
    x = np.log(lrs)
    middle = math.log(1e-2)
    curve = RangeTest(lrs, 3 - np.tanh(x - middle), False, 101)
    assert curve.steepest == pytest.approx(1e-2)
    np.testing.assert_allclose(RangeTest(lrs, 2 * x, False, 101).slopes[5:-5], 2.0)
    rising = np.where(lrs > 0.1, 30 * (x - math.log(0.1)), 0)  # a fall after the rise is none
    rising[-8:] *= 0.3
    assert RangeTest(lrs, curve.losses + rising, True, 101).steepest == pytest.approx(1e-2)


def test_where_nothing_falls_there_is_no_suggestion():
    net, loss = bowl(1.0)
    with pytest.raises(ValueError, match="start at a smaller"):
        find_lr(net, optim.SGD(net.parameters()), [()], loss, start=100.0, stop=1e4).steepest  # noqa: B018
    lrs = np.geomspace(1e-4, 1, 50)
    with pytest.raises(ValueError, match="go on to a larger"):
        RangeTest(lrs, np.ones(50), False, 50).steepest  # noqa: B018


def test_what_it_refuses():
    net, loss = bowl(1.0)
    sgd = optim.SGD(net.parameters(), lr=0.1)
    for wrong in ({"start": 0.0}, {"start": 2.0}, {"steps": 3}, {"stop": math.inf}):
        with pytest.raises(ValueError, match="0 < start < stop"):
            find_lr(net, sgd, [()], loss, **wrong)
    with pytest.raises(ValueError, match="come to an end"):
        find_lr(net, sgd, iter([()]), loss)
    with pytest.raises(ValueError, match="above 0"):
        find_lr(net, optim.SGD(net.parameters(), lr=0.0), [()], loss)


def test_the_suggested_rate_trains_and_rates_far_from_it_do_not():
    text = np.tile(np.arange(7), 60)  # what comes next is known

    def after(lr, steps=60):
        minillm.manual_seed(0)
        model = GPT(7, context=8, layers=1, heads=2, width=16)
        adamw, batches = optim.AdamW(model.parameters(), lr=lr or 1e-3), RandomWindows(text, 8, 8, seed=0)
        if lr is None:
            return find_lr(model, adamw, batches, model.loss, start=1e-6, stop=10.0, steps=80).steepest
        train(model, adamw, batches, steps)
        return model.loss(*batches.next()).item()

    best = after(None)
    assert after(best) < 0.1 < 1 < min(after(best / 100), after(best * 100))
