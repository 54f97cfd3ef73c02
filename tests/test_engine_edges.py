"""Where the engine could be wrong in silence: rules, hooks, copies, checkpoints, sums over many rows."""

from __future__ import annotations

import numpy as np
import pytest

import minillm
from minillm import functional as F


def test_a_rule_that_returns_too_few_gradients_is_an_error():
    @minillm.op
    def two(x, y):
        return x * y

    @two.vjp
    def _(dout, y):
        return dout * y

    x, y = (minillm.tensor([2.0], requires_grad=True) for _ in range(2))
    with pytest.raises(minillm.GraphError, match=r"rule of two returned 1 gradient"):
        two(x, y).backward()
    two(x, 3.0).backward()  # nothing is missing here
    assert x.grad.item() == 3.0


def test_a_rule_that_asks_for_what_there_is_not_is_an_error():
    @minillm.op
    def one(x):
        return x * 2, {"twice": 2}

    @one.vjp
    def _(dout, twise):
        return dout * twise

    with pytest.raises(minillm.GraphError, match=r"asks for 'twise'.*it can have .*twice"):
        one(minillm.tensor([1.0], requires_grad=True))


def test_in_place_arithmetic_does_not_truncate():
    x = minillm.tensor([1, 2])
    for write in (lambda: x.add_(0.5), lambda: x.mul_(2.7), lambda: x.div_(2)):
        with pytest.raises(TypeError, match="can only hold int64"):
            write()
    assert x.tolist() == [1, 2]
    assert x.add_(1).tolist() == [2, 3]


def test_bits_and_truth_values():
    a, b = minillm.tensor([1, 2]), minillm.tensor([3, 1])
    assert [(a & b).tolist(), (a | b).tolist(), (a ^ b).tolist(), (~a).tolist()] == [[1, 0], [3, 3], [2, 3], [-2, -3]]
    t = minillm.tensor([True, False])
    assert [(~t).tolist(), (t & True).tolist(), (t | t).tolist()] == [[False, True], [True, False], [True, False]]
    assert (minillm.tensor([7, -7]) // 2).tolist() == [3, -4] and (minillm.tensor([7, -7]) % 3).tolist() == [1, 2]


def test_a_hook_has_a_handle_and_no_grad_needs_no_parentheses():
    x = minillm.tensor([1.0], requires_grad=True)
    handle = x.register_hook(lambda g: g * 10)
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.item() == 2.0

    @minillm.no_grad
    def quiet(t):
        return t * 2

    assert not quiet(x).requires_grad and (x * 2).requires_grad


def test_the_package_exports_functions_not_their_modules():
    from types import ModuleType

    from minillm import functional

    assert not [n for n, v in vars(functional).items() if isinstance(v, ModuleType) and not n.startswith("_")]
    assert callable(minillm.softmax) and not hasattr(minillm, "scatter")


def test_a_device_that_is_not_there_is_a_device_error():
    if minillm.device.is_available("cuda"):
        pytest.skip("this machine has a GPU")
    for ask in (lambda: minillm.zeros(2, device="cuda"), lambda: minillm.tensor([1.0]).to("cuda")):
        with pytest.raises(minillm.DeviceError, match="cuda"):
            ask()


def test_hooks_on_the_border_of_a_checkpoint_run_once():
    x = minillm.ones(2, requires_grad=True)
    x.register_hook(lambda g: g * 10)
    minillm.checkpoint(lambda t: t * t, x).sum().backward()
    assert x.grad.tolist() == [20.0, 20.0]
    x = minillm.ones(2, requires_grad=True)
    h = x * 1
    h.retain_grad()
    h.retain_grad()
    minillm.checkpoint(lambda t: t * t, h).sum().backward()
    assert h.grad.tolist() == [2.0, 2.0]


def test_a_checkpoint_notices_what_changed_before_the_replay():
    w = minillm.tensor([2.0], requires_grad=True)
    x = minillm.tensor([3.0], requires_grad=True)
    y = minillm.checkpoint(lambda t: w * t * t, x)
    with minillm.no_grad():
        w.copy_(100.0)
    with pytest.raises(minillm.GraphError, match="written in place"):
        y.sum().backward()


def test_a_checkpoint_inside_functional_call_is_an_error_not_a_zero():
    from minillm import nn

    class Checkpointed(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return minillm.checkpoint(self.layer, x)

    model, x = Checkpointed(), minillm.tensor([[1.0, 2.0]])
    loss = lambda w: nn.functional_call(model, {"layer.weight": w}, x).sum()  # noqa: E731
    with pytest.raises(minillm.GraphError, match="used other tensors than at first"):
        minillm.grad(loss)(minillm.tensor([[5.0, 6.0]]))


def test_a_checkpoint_replays_every_generator():
    x, generator = minillm.ones(64, requires_grad=True), minillm.Generator(3)
    y = minillm.checkpoint(lambda t: F.dropout(t, 0.5, True, generator), x)
    after = generator.get_state()
    y.sum().backward()
    assert (y.numpy() == x.grad.numpy()).all() and generator.get_state() == after


def test_what_a_hook_returns_is_checked_and_copied():
    x = minillm.tensor([1.0, 2.0], requires_grad=True)
    for wrong in (lambda g: minillm.ones(5), lambda g: 2.0):
        remove = x.register_hook(wrong)
        with pytest.raises(minillm.GraphError, match="hook on a tensor of shape"):
            (x * 2).sum().backward()
        remove()
    shared = minillm.ones(2, dtype="float64")
    seen = []
    x.register_hook(lambda g: shared)
    x.register_hook(seen.append)
    for _ in range(2):
        (x * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0] and x.grad.dtype == np.float32
    assert shared.tolist() == [1.0, 1.0] and seen[0].tolist() == [1.0, 1.0]


def test_adding_into_grad_is_a_write():
    x, w = minillm.tensor([1.0, 2.0], requires_grad=True), minillm.ones(2, requires_grad=True)
    (x * x).sum().backward()
    y = (w * x.grad).sum()
    (x * x).sum().backward()
    with pytest.raises(minillm.GraphError, match="written in place"):
        y.backward()


def test_copies_are_leaves_of_their_own():
    import copy

    t = minillm.tensor([1.0], requires_grad=True)
    for c in (copy.deepcopy(t), copy.copy(t)):
        (c * 2).sum().backward()
        assert t.grad is None and c.grad.item() == 2.0
    with pytest.raises(minillm.GraphError, match="only leaves"):
        copy.deepcopy(t * 2)
    assert t.to("cpu") is t


def test_sums_over_many_rows_keep_float32s_accuracy():
    x = minillm.full((200_000, 4), 0.1)
    assert abs(x.sum(dim=0).numpy() / 20_000 - 1).max() < 1e-5
    w = minillm.ones(4, requires_grad=True)
    (x * w).sum().backward()
    assert abs(w.grad.numpy() / 20_000 - 1).max() < 1e-5
    bias = minillm.zeros(4, requires_grad=True)
    F.linear(x, minillm.eye(4), bias).backward(x)
    assert abs(bias.grad.numpy() / 20_000 - 1).max() < 1e-5


def test_creation_takes_the_kind_of_its_numbers():
    assert minillm.full((2,), np.float32(1.5)).tolist() == [1.5, 1.5]
    assert minillm.full((1,), True).dtype == np.bool_ and minillm.full((1,), 2).dtype == np.int64
    assert minillm.arange(np.float32(0), np.float32(1), np.float32(0.25)).tolist() == [0.0, 0.25, 0.5, 0.75]
    half = minillm.rand(10_000, dtype=np.float16)
    assert half.dtype == np.float16 and half.min().item() >= 0 and half.max().item() < 1
    with pytest.raises(TypeError, match="real numbers"):
        minillm.tensor([1 + 1j])


def test_nan_is_not_lost_in_logsumexp():
    assert np.isnan(F.logsumexp(minillm.tensor([float("nan"), 1.0]), 0).item())
    assert F.logsumexp(minillm.tensor([-np.inf, -np.inf]), 0).item() == -np.inf
