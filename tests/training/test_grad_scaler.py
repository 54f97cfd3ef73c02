"""GradScaler: gradients below float16's range survive, overflows are skipped, the scale follows PyTorch's rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import nn, optim, tensor
from minillm.optim import clip_grad_norm_
from minillm.training.grad_scaler import SMALLEST_SCALE, GradScaler
from minillm.training.mixed_precision import mixed_precision


def weight(value=1.0):
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data[...] = value
    return layer


def backward(layer, scaler, gradient):
    """One backward pass in float16, the loss in float32, whose gradient is `gradient`: that of the output times x."""
    root = 2.0 ** round(math.log2(gradient) / 2) if gradient > 0 else 1.0
    with mixed_precision(layer):
        x = tensor([[root]], dtype=np.float16)
        scaler.scale((layer(x).float() * (gradient / root)).sum()).backward()


@pytest.mark.parametrize("gradient", [2.0**-26, 2.0**-30, 3 * 2.0**-31])
def test_gradients_below_the_smallest_float16_survive(gradient):
    got = {}
    for enabled in (False, True):
        layer = weight()
        optimizer, scaler = optim.SGD(layer.parameters(), lr=1.0), GradScaler(enabled=enabled)
        backward(layer, scaler, gradient)
        scaler.unscale_(optimizer)
        got[enabled] = layer.weight.grad.item()
    assert got == {False: 0.0, True: gradient}


def test_an_overflow_takes_no_step_and_halves_the_scale_and_the_next_step_is_taken():
    layer = weight()
    optimizer, scaler = optim.Adam(layer.parameters(), lr=0.5), GradScaler()
    backward(layer, scaler, 1.0)  # 65536 is more than float16 holds
    assert scaler.step(optimizer) is False
    assert layer.weight.item() == 1.0 and not optimizer.state  # no moment has seen it
    scaler.update()
    assert scaler.get_scale() == 2.0**15
    optimizer.zero_grad()
    backward(layer, scaler, 1.0)
    assert scaler.step(optimizer) is True
    assert layer.weight.grad.item() == 1.0 and layer.weight.item() == pytest.approx(0.5)
    scaler.update()
    assert scaler.get_scale() == 2.0**15


def test_the_scale_grows_after_steps_without_overflow_in_a_row():
    layer = weight()
    optimizer, scaler = optim.SGD(layer.parameters(), lr=0.0), GradScaler(8.0, growth_interval=3)
    scales = []
    for gradient in (1.0, 1.0, 2.0**14, 1.0, 1.0, 1.0, 1.0):  # the third overflows
        optimizer.zero_grad()
        backward(layer, scaler, gradient)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [8, 8, 4, 4, 4, 8, 8]


def test_the_steps_are_those_of_the_unscaled_gradients():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 5)).astype(np.float32)

    def trained(scaler):
        layer = nn.Linear(5, 3)
        layer.weight.data[...] = np.linspace(-1, 1, 15).reshape(3, 5)
        layer.bias.data[...] = 0
        optimizer = optim.AdamW(layer.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            scaler.scale((layer(tensor(x)) ** 2).mean()).backward()
            scaler.step(optimizer, clip_norm=0.5)
            scaler.update()
        return layer.weight.numpy()

    # in float32 a power of two is multiplied in and divided out without rounding
    np.testing.assert_array_equal(trained(GradScaler()), trained(GradScaler(enabled=False)))


def test_unscaled_before_clipping_and_not_twice():
    layer = weight()
    optimizer, scaler = optim.SGD(layer.parameters(), lr=1.0), GradScaler(1024.0)
    backward(layer, scaler, 4.0)
    assert layer.weight.grad.item() == 4096
    scaler.unscale_(optimizer)
    assert clip_grad_norm_(layer.parameters(), 1.0).item() == pytest.approx(4.0)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) was called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert layer.weight.item() == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(RuntimeError, match="already"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) was called"):
        scaler.unscale_(optimizer)
    scaler.update()


def test_one_of_two_optimizers_overflows():
    a, b = weight(), weight()
    optimizers = [optim.SGD(m.parameters(), lr=1.0) for m in (a, b)]
    scaler = GradScaler()
    backward(a, scaler, 2.0)
    backward(b, scaler, 2.0**-10)
    assert [scaler.step(o) for o in optimizers] == [False, True]
    assert a.weight.item() == 1.0 and b.weight.item() == 1 - 2.0**-10
    scaler.update()
    assert scaler.get_scale() == 2.0**15


def test_the_state_goes_on_elsewhere():
    layer = weight()
    optimizer, scaler = optim.SGD(layer.parameters(), lr=0.0), GradScaler(8.0, 4.0, 0.25, 3)
    for _ in range(2):
        backward(layer, scaler, 1.0)
        scaler.step(optimizer)
        scaler.update()
    saved = scaler.state_dict()
    assert saved == {
        "scale": 8.0, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 3, "_growth_tracker": 2,
    }  # fmt: skip
    other = GradScaler()
    other.load_state_dict(saved)
    assert other.state_dict() == saved
    backward(layer, other, 1.0)
    other.step(optimizer)
    other.update()
    assert other.get_scale() == 32.0
    with pytest.raises(ValueError, match="not enabled"):
        other.load_state_dict({})
    with pytest.raises(ValueError, match="backoff_factor"):
        other.load_state_dict({**saved, "backoff_factor": 2.0})
    assert other.get_scale() == 32.0


def test_not_enabled_it_is_not_there():
    layer = weight()
    optimizer, scaler = optim.SGD(layer.parameters(), lr=1.0), GradScaler(enabled=False)
    loss = layer(tensor([[3.0]])).sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1.0 and not scaler.is_enabled()
    loss.backward()
    scaler.unscale_(optimizer)
    assert scaler.step(optimizer) is True and layer.weight.item() == -2.0
    scaler.update()
    assert scaler.state_dict() == {}


def test_several_losses():
    one, two = GradScaler(4.0).scale([tensor(1.0), tensor(2.0)])
    assert (one.item(), two.item()) == (4.0, 8.0)
    with pytest.raises(TypeError, match="got float"):
        GradScaler().scale(1.0)


def test_nan_gradients_end_in_an_error_not_in_silence():
    layer = weight()
    optimizer, scaler = optim.SGD(layer.parameters(), lr=1.0), GradScaler()
    layer.weight.grad = tensor([[math.nan]])
    with pytest.raises(FloatingPointError, match="no overflow of float16"):
        for _ in range(100):
            assert scaler.step(optimizer) is False
            scaler.update()
    assert scaler.get_scale() == SMALLEST_SCALE / 2 and layer.weight.item() == 1.0


def test_errors():
    layer = weight().to(np.float16)
    optimizer, scaler = optim.SGD(layer.parameters(), lr=1.0), GradScaler()
    layer.weight.grad = tensor([[1.0]], dtype=np.float16)
    with pytest.raises(ValueError, match="train float32 parameters"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"call step\(\)"):
        GradScaler().update()
    with pytest.raises(ValueError, match="above 0"):
        GradScaler().update(math.inf)
    for bad in ({"init_scale": 0}, {"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"growth_interval": 0}):
        with pytest.raises(ValueError, match="GradScaler: expected"):
            GradScaler(**bad)


@pytest.mark.oracle
@settings(deadline=None)
@given(finite=st.lists(st.booleans(), max_size=20), interval=st.integers(1, 4))
def test_the_scale_is_that_of_pytorch(finite, interval):
    torch = pytest.importorskip("torch")
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=interval)
    ours = GradScaler(init_scale=2.0**10, growth_interval=interval)
    p, layer = torch.nn.Parameter(torch.ones(1)), weight()
    their_optimizer, our_optimizer = torch.optim.SGD([p], lr=0.125), optim.SGD(layer.parameters(), lr=0.125)
    theirs.scale(torch.ones(1))  # it makes its state when first used
    for ok in finite:
        p.grad = torch.tensor([theirs.get_scale() if ok else math.inf])
        layer.weight.grad = tensor([[ours.get_scale() if ok else math.inf]])
        theirs.step(their_optimizer)
        ours.step(our_optimizer)
        theirs.update()
        ours.update()
        assert ours.state_dict() == theirs.state_dict()
        assert layer.weight.item() == p.item()
