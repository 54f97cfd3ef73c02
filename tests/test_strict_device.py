"""The whole project on the device "strict", which refuses on the CPU what CuPy refuses on a GPU."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

import minillm
from minillm import functional as F
from minillm import models, nn, optim
from minillm.testing import strict
from minillm.testing.cases import all_cases
from minillm.testing.check import random_cotangent

strict.install()

CASES = [
    c for c in all_cases() if not (c.op.startswith("kernels.") and c.label.startswith("cpu"))
]  # Numba wants NumPy arrays


def on_device(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """The function with every NumPy array that it holds (closure, defaults, globals of its module) on the device."""
    seen = {} if seen is None else seen
    if isinstance(value, np.ndarray):
        return strict.xp.asarray(value)
    if isinstance(value, minillm.Tensor):
        return value.to("strict")
    if type(value) in (list, tuple):
        return type(value)(on_device(v, seen) for v in value)
    if type(value) is dict:
        return {k: on_device(v, seen) for k, v in value.items()}
    ours = isinstance(value, types.FunctionType) and value.__module__.startswith("minillm.testing.cases")
    if not ours or hasattr(value, "vjp"):  # an op holds no data
        return value
    if id(value) in seen:
        return seen[id(value)]
    names = {n for code in _codes(value.__code__) for n in code.co_names}
    here = {k: on_device(v, seen) if k in names and k != value.__name__ else v for k, v in value.__globals__.items()}
    here["np"] = strict.xp
    closure = (
        None
        if value.__closure__ is None
        else tuple(types.CellType(on_device(c.cell_contents, seen)) for c in value.__closure__)
    )
    new = types.FunctionType(value.__code__, here, value.__name__, on_device(value.__defaults__, seen), closure)
    new.__kwdefaults__ = on_device(value.__kwdefaults__, seen)
    seen[id(value)] = new
    return new


def _codes(code: types.CodeType) -> list[types.CodeType]:
    return [code, *[c for inner in code.co_consts if isinstance(inner, types.CodeType) for c in _codes(inner)]]


def outputs_and_gradients(function, inputs, device):
    xs = [minillm.tensor(x, device=device, requires_grad=True) for x in inputs]
    outs = function(*xs)
    outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    rng = np.random.default_rng(1)
    tracked = [o for o in outs if o.requires_grad]
    cotangents = [minillm.tensor(random_cotangent(o.shape, rng), device=device) for o in tracked]
    grads = minillm.gradients(tracked, xs, cotangents, allow_unused=True)
    for t in [*outs, *grads]:
        assert t is None or t.device == device
    return [None if t is None else t.numpy() for t in [*outs, *grads]]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_table_on_the_device(case):
    cpu = outputs_and_gradients(case.function, case.inputs(), "cpu")
    there = outputs_and_gradients(on_device(case.function), case.inputs(), "strict")
    for a, b in zip(cpu, there):
        if a is None:
            assert b is None
        else:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(
                b, a, rtol=1e-11, atol=1e-12
            )  # NumPy both; Numba's kernels against their references


# ------------------------------------------------------------------------------------------- the device itself


def test_it_refuses_what_cupy_refuses():
    x = strict.xp.asarray(np.ones((2, 3), np.float32))
    other = np.ones((2, 3), np.float32)
    refused = [
        lambda: np.asarray(x), lambda: x + other, lambda: other + x, lambda: x * np.ones(()), lambda: np.exp(x),
        lambda: np.sum(x),
        lambda: strict.xp.add(x, other), lambda: strict.xp.exp(other), lambda: strict.xp.where(other > 0, x, x),
        lambda: strict.xp.concatenate([x, other]), lambda: strict.xp.prod((2, 3)), lambda: x.sum(initial=0),
        lambda: strict.xp.matmul(x, other.T), lambda: x.__setitem__(0, other[0]), lambda: x.__iadd__(other),
        lambda: strict.xp.add.at(x, 0, other[0]), lambda: x @ other.T, lambda: np.add(other, x), lambda: x == other,
        lambda: strict.xp.stack([other]), lambda: strict.xp.maximum(x, other),
    ]  # fmt: skip
    for call in refused:
        with pytest.raises(TypeError):
            call()
    for name in ("errstate", "insert", "unstack", "vecdot", "random"):
        with pytest.raises(AttributeError):
            getattr(strict.xp, name)


def test_it_allows_what_cupy_allows():
    x = strict.xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    total = x.sum()
    assert isinstance(total, strict.StrictArray) and total.shape == () and float(total) == 15
    for y in (
        x + 1,
        2.0 * x,
        x * np.float32(2),
        np.float32(2) * x,
        x / True,
        -x,
        x**2,
        x @ x.T,
        strict.xp.exp(x),
        x.max(axis=0),
    ):
        assert isinstance(y, strict.StrictArray) and y.dtype == np.float32
    assert x[np.array([0, 1]), [1, 2]].get().tolist() == [1, 5]
    assert x[strict.xp.asarray(np.array([5]))].get().tolist() == [[3, 4, 5]]  # out of bounds wraps
    view = x[1:]
    assert view.base is x and view[0].base is x and x.copy().base is None
    view += 1
    assert x.get()[1].tolist() == [4, 5, 6]
    assert x.get() is not x.get() and isinstance(x.get(), np.ndarray)
    host = np.zeros(3)
    strict.xp.asarray(host)[0] = 1  # a copy: nothing is shared with main memory
    assert host[0] == 0


def test_the_functions_it_lacks_are_those_that_cupy_lacks():
    cupy = pytest.importorskip("cupy")
    for name in strict._LACKING:
        assert not callable(getattr(cupy, name, None)), name


# -------------------------------------------------------------------------------- layers, optimizers, models


def there(model: nn.Module) -> nn.Module:
    return model.to("strict")


def parameters_on(model: nn.Module, device: str) -> bool:
    return all(p.device == device and (p.grad is None or p.grad.device == device) for p in model.parameters())


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    def run(device):
        minillm.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Dropout(0.5), nn.Linear(4, 2)).to(device)
        optimizer = OPTIMIZERS[name](model.parameters())
        x = minillm.randn(5, 3, device=device)
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            norm = optim.clip_grad_norm_(model.parameters(), 0.1)
            optim.clip_grad_value_(model.parameters(), 0.05)
            optimizer.step()
        assert parameters_on(model, device)
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        return model.state_dict(), float(norm)

    (cpu, norm_cpu), (other, norm_other) = run("cpu"), run("strict")
    assert norm_other == pytest.approx(norm_cpu, rel=1e-5)
    for key in cpu:
        np.testing.assert_allclose(
            other[key], cpu[key], rtol=2e-4, atol=2e-5
        )  # float32, four steps that divide by roots


def test_dropout_masks_are_those_of_the_cpu():
    masks = []
    for device in ("cpu", "strict"):
        minillm.manual_seed(3)
        masks.append(F.dropout(minillm.ones(50, device=device), 0.4).numpy())
    assert np.array_equal(*masks) and 0 < (masks[0] == 0).sum() < 50


def test_random_tensors_are_those_of_the_cpu():
    for make in (
        lambda d: minillm.rand(7, device=d),
        lambda d: minillm.randint(0, 9, (7,), device=d),
        lambda d: minillm.randperm(7, device=d),
    ):
        values = []
        for device in ("cpu", "strict"):
            minillm.manual_seed(5)
            values.append(make(device).numpy())
        assert np.array_equal(*values)


def test_checkpoint():
    model = there(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh()))
    x = minillm.randn(2, 3, device="strict", requires_grad=True)
    results = []
    for wrap in (lambda f, t: f(t), minillm.checkpoint):
        minillm.manual_seed(1)
        model.zero_grad()
        x.grad = None
        wrap(model, x).sum().backward()
        results.append([x.grad.numpy(), *[p.grad.numpy() for p in model.parameters()]])
    for a, b in zip(*results):
        assert np.array_equal(a, b)


def test_higher_derivatives_and_transforms():
    x = minillm.tensor([0.3, -0.2], device="strict")
    f = lambda t: (F.softmax(t, 0) * t).sum()  # noqa: E731
    for transform in (minillm.grad, minillm.jacobian, minillm.hessian):
        got = transform(f)(x)
        assert got.device == "strict"
        np.testing.assert_allclose(got.numpy(), transform(f)(x.cpu()).numpy(), rtol=1e-5, atol=1e-6)
    for product in (minillm.hvp(f, x, x)[1], minillm.jvp(f, x, x)[1]):
        assert product.device == "strict"


MODELS = {
    "Autoencoder": (lambda: models.Autoencoder(6, 4, 3), lambda m, d: m.loss(minillm.rand(5, 6, device=d))),
    "VAE": (lambda: models.VAE(6, (5,), 2), lambda m, d: m.loss(minillm.rand(5, 6, device=d))),
    "VAE gaussian": (
        lambda: models.VAE(6, (5,), 2, likelihood="gaussian"),
        lambda m, d: m.loss(minillm.rand(5, 6, device=d)),
    ),
    "AttentionModel": (
        lambda: models.AttentionModel(2, 4, 3, width=8, heads=2, dropout=0.1),
        lambda m, d: m.loss(minillm.rand(5, 4, 2, device=d), minillm.randint(0, 3, (5,), device=d)),
    ),
    "AttentionModel scaled_dot": (
        lambda: models.AttentionModel(2, 4, 0, width=8, heads=2, score="scaled_dot"),
        lambda m, d: m.loss(minillm.rand(5, 4, 2, device=d)),
    ),
    "GPT": (
        lambda: models.GPT(11, context=8, layers=2, heads=2, width=8, dropout=0.1),
        lambda m, d: m.loss(minillm.randint(0, 11, (2, 8), device=d), minillm.randint(0, 11, (2, 8), device=d)),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_on_the_cpu(name):
    build, loss = MODELS[name]

    def run(device):
        minillm.manual_seed(0)
        model = build().to(device)
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            value = loss(model, device)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        assert parameters_on(model, device)
        return losses

    assert run("strict") == pytest.approx(run("cpu"), rel=1e-5)


def test_what_models_do_besides_training():
    minillm.manual_seed(0)
    gpt = there(models.GPT(11, context=8, layers=1, heads=2, width=8))
    for settings in ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}, {}):
        out = gpt.generate([1, 2], 4, **settings)
        assert isinstance(out, np.ndarray) and out.shape == (6,)
    assert isinstance(gpt.attention_maps(minillm.tensor([1, 2, 3], device="strict")), np.ndarray)
    vae = there(models.VAE(6, (5,), 2))
    assert vae.sample(3).device == "strict"
    assert vae.log_prob(minillm.rand(2, 6, device="strict"), samples=3).device == "strict"
    attention = there(models.AttentionModel(2, 4, 3, width=8, heads=2))
    assert isinstance(attention.predict(minillm.rand(5, 4, 2, device="strict")), np.ndarray)
    state = attention.state_dict()
    assert all(isinstance(v, np.ndarray) for v in state.values())
    attention.load_state_dict(state)
    assert parameters_on(attention, "strict")


def test_fit():
    from minillm.training import fit

    def run(device):
        minillm.manual_seed(0)
        model = models.AttentionModel(2, 3, 4, width=8, heads=2).to(device)
        rng = np.random.default_rng(0)
        x = minillm.tensor(rng.random((20, 3, 2), dtype=np.float32), device=device)
        y = minillm.tensor(rng.integers(0, 4, 20), device=device)
        history = fit(
            model,
            x,
            y,
            optimizer=optim.Adam(model.parameters()),
            epochs=2,
            batch_size=8,
            validation=(x, y),
            clip_norm=1.0,
            progress=False,
        )
        assert parameters_on(model, device)
        return history

    a, b = run("strict"), run("cpu")
    assert a.last("loss") == pytest.approx(b.last("loss"), rel=1e-4)
    assert a.last("validation_loss") == pytest.approx(b.last("validation_loss"), rel=1e-4)
