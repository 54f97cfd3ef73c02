"""The training loop: losses, validation, seeds, Ctrl-C, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm import functional as F
from minillm import nn, optim
from minillm.models import VAE
from minillm.training import LOSSES, History, NonFiniteLoss, evaluate, fit, fit_batches, train_step

rng = np.random.default_rng(0)
x = rng.random((50, 4), dtype=np.float32)
y = (x @ rng.random((4, 1), dtype=np.float32)).astype(np.float32)


def linear(seed: int = 0, outputs: int = 1) -> nn.Linear:
    minillm.manual_seed(seed)
    return nn.Linear(4, outputs)


def run(model=None, inputs=x, targets=y, loss="mse", **settings) -> History:
    model = linear() if model is None else model
    settings = {"epochs": 3, "batch_size": 8, "progress": False, **settings}
    settings.setdefault("optimizer", optim.SGD(model.parameters(), lr=0.1))
    return fit(model, inputs, targets, loss, **settings)


def rows(history: History) -> list[dict]:
    """The rows without what the clock says."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


# --------------------------------------------------------------------------------------------------- losses


def test_it_learns_and_leaves_evaluation_mode():
    model = linear()
    history = run(model, epochs=40, optimizer=optim.Adam(model.parameters(), lr=0.05))
    assert history.last("loss") < 0.01 * history.rows[0]["loss"]
    assert [row["epoch"] for row in history] == list(range(1, 41))
    assert [row["step"] for row in history] == [7 * e for e in range(1, 41)]  # ceil(50 / 8) steps an epoch
    assert not model.training and not history.interrupted


@pytest.mark.parametrize("name", ["mse", "l1", "huber"])
def test_a_loss_by_name(name):
    assert rows(run(loss=name)) == rows(run(loss=LOSSES[name]))


def test_cross_entropy_by_name():
    model = linear(outputs=3)
    history = run(model, targets=rng.integers(0, 3, 50), loss="cross_entropy", epochs=10)
    assert history.last("loss") < history.rows[0]["loss"]


@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_binary_cross_entropies_by_name(name):
    model = nn.Sequential(linear(), nn.Sigmoid()) if name == "binary_cross_entropy" else linear()
    history = run(model, targets=(y > y.mean()).astype(np.float32), loss=name, epochs=5)
    assert history.last("loss") < history.rows[0]["loss"]


def test_a_loss_of_ones_own_and_no_targets():
    model = linear(outputs=4)
    history = run(model, targets=None, loss=lambda out, target: F.mse_loss(out, target))
    assert history.last("loss") < history.rows[0]["loss"]


def test_the_models_own_loss_with_and_without_targets():
    class Own(nn.Module):
        def __init__(self):
            self.layer = linear()
            self.seen = []

        def forward(self, x):
            return self.layer(x)

        def loss(self, x, targets=None):
            self.seen.append(targets is not None)
            return (self(x) ** 2).mean()

    for targets in (None, y):
        model = Own()
        run(model, targets=targets, loss=None)
        assert set(model.seen) == {targets is not None}


def test_the_loss_of_an_epoch_is_the_mean_over_examples():
    """The last batch is smaller and weighs less."""
    model = linear()
    history = run(model, epochs=1, optimizer=optim.SGD(model.parameters(), lr=0.0))
    expected = ((linear()(minillm.tensor(x)).numpy() - y) ** 2).mean()
    assert history.last("loss") == pytest.approx(expected, rel=1e-5)


# ----------------------------------------------------------------------------------------- validation, seeds


def test_validation_is_measured_in_evaluation_mode():
    model = nn.Sequential(linear(), nn.Dropout(0.5))
    held_out = rng.random((20, 4), dtype=np.float32), rng.random((20, 1), dtype=np.float32)
    history = run(model, epochs=2, validation=held_out)
    expected = ((model[0](minillm.tensor(held_out[0])).numpy() - held_out[1]) ** 2).mean()
    assert history.last("validation_loss") == pytest.approx(float(expected), rel=1e-5)
    assert history.last("validation_loss") == pytest.approx(evaluate(model, *held_out, "mse", batch_size=3), rel=1e-5)


def test_validation_of_an_autoencoder():
    model = linear(outputs=4)
    history = run(model, targets=None, validation=x[:10])
    assert history.last("validation_loss") == pytest.approx(evaluate(model, x[:10], loss="mse"), rel=1e-6)


def test_seeds():
    assert rows(run(seed=1)) == rows(run(seed=1))
    assert rows(run(seed=1)) != rows(run(seed=2))
    assert rows(run(seed=1, shuffle=False)) == rows(run(seed=2, shuffle=False))


def test_seeds_of_a_model_that_draws_noise():
    def train(seed):
        minillm.manual_seed(seed)
        model = VAE(4, (8,), 2)
        return rows(run(model, targets=None, loss=None, seed=seed))

    assert train(1) == train(1)
    assert train(1) != train(2)


def test_shuffling_shows_every_example_once():
    seen = []

    def loss(out, target):
        seen.append(target.numpy().ravel())
        return F.mse_loss(out, target)

    run(loss=loss, epochs=2)
    first, second = np.concatenate(seen[:7]), np.concatenate(seen[7:])
    np.testing.assert_array_equal(np.sort(first), np.sort(y.ravel()))
    np.testing.assert_array_equal(np.sort(second), np.sort(y.ravel()))
    assert not np.array_equal(first, second)


def test_clip_norm_bounds_the_step():
    model = linear()
    before = [p.numpy().copy() for p in model.parameters()]
    run(model, epochs=1, batch_size=50, clip_norm=1e-3, optimizer=optim.SGD(model.parameters(), lr=1.0))
    moved = math.sqrt(sum(((p.numpy() - b) ** 2).sum() for p, b in zip(model.parameters(), before)))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_on_epoch():
    called = []
    history = run(on_epoch=lambda epoch, row: called.append((epoch, row["loss"])))
    assert called == [(row["epoch"], row["loss"]) for row in history]


# --------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("step", [1, 3, 7, 8, 12])
def test_ctrl_c_keeps_what_was_learned(step):
    calls = []

    def loss(out, target):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return F.mse_loss(out, target)

    model = linear()
    history = run(model, loss=loss, epochs=10)
    assert history.interrupted and len(calls) == step
    assert not model.training
    assert (history.last("step") or 0) == step - 1  # the steps that were taken
    assert np.isfinite(model(minillm.tensor(x)).numpy()).all()
    assert len({row["step"] for row in history}) == len(history)


def test_ctrl_c_during_validation_and_on_epoch():
    def stop(*_):
        raise KeyboardInterrupt

    history = run(on_epoch=stop)
    assert history.interrupted and len(history) == 1

    class Stops(nn.Linear):
        def forward(self, x):
            if not self.training:
                raise KeyboardInterrupt
            return super().forward(x)

    model = Stops(4, 1)
    history = run(model, validation=(x, y))
    assert history.interrupted and not model.training
    assert [row["step"] for row in history] == [7]


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(bad):
    model = linear()
    before = model.weight.numpy().copy()
    with pytest.raises(NonFiniteLoss, match="Lower the learning rate"):
        run(model, loss=lambda out, target: F.mse_loss(out, target) * bad)
    np.testing.assert_array_equal(model.weight.numpy(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": y[:-1]}, "50 inputs but 49 targets"),
        ({"inputs": x[:0], "targets": y[:0]}, "empty"),
        ({"inputs": np.float32(1.0), "targets": np.float32(1.0)}, "empty"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"loss": "mes"}, "Did you mean 'mse'"),
        ({"loss": None}, "no loss\\(\\) of its own|no attribute 'loss'"),
        ({"validation": x}, "tuple \\(inputs, targets\\)"),
        ({"validation": (x, y, y)}, "tuple \\(inputs, targets\\)"),
        ({"validation": (x, y[:-1])}, "50 validation inputs but 49 targets"),
        ({"validation": (x[:0], y[:0])}, "validation inputs are empty"),
    ],
)
def test_what_fit_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)


def test_fit_needs_an_optimizer():
    with pytest.raises(TypeError, match="give an optimizer"):
        fit(linear(), x, y, "mse", progress=False)


@pytest.mark.parametrize("loss", [lambda out, target: (out - target) ** 2, lambda out, target: 1.0])
def test_a_loss_is_one_number(loss):
    with pytest.raises(TypeError, match=r"one number.*mean"):
        run(loss=loss)


def test_evaluate_refuses_nothing_at_all():
    with pytest.raises(ValueError, match="empty"):
        evaluate(linear(), x[:0], y[:0], "mse")


# ---------------------------------------------------------------------------------------------- fit_batches


def stream(count: int | None = None):
    generator = np.random.default_rng(0)
    while count is None or count > 0:
        rows = generator.integers(0, 50, 8)
        yield minillm.tensor(x[rows]), minillm.tensor(y[rows])
        count = None if count is None else count - 1


def run_batches(steps=10, model=None, batches=None, **settings) -> History:
    model = linear() if model is None else model
    loss = settings.pop("loss", lambda a, b: F.mse_loss(model(a), b))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    settings = {"every": 4, "progress": False, **settings}
    return fit_batches(model, stream() if batches is None else batches, loss, optimizer, steps, **settings)


def test_fit_batches_records_start_every_and_end():
    measured = []
    history = run_batches(measure=lambda step: measured.append(step) or {"score": step / 10})
    assert [row["step"] for row in history] == measured == [0, 4, 8, 10]
    assert "loss" not in history.rows[0] and history.rows[-1]["loss"] > 0
    assert history.curve("score") == [(0, 0.0), (4, 0.4), (8, 0.8), (10, 1.0)]


def test_measure_runs_in_evaluation_mode():
    model, modes = linear(), []
    run_batches(model=model, measure=lambda step: modes.append(model.training) or {})
    assert modes == [False] * 4 and not model.training


def test_schedule_sets_the_learning_rate():
    model = linear()
    optimizer, rates = optim.SGD(model.parameters(), lr=0.1), []

    def loss(a, b):
        rates.append(optimizer.param_groups[0]["lr"])
        return F.mse_loss(model(a), b)

    fit_batches(model, stream(), loss, optimizer, 3, schedule=lambda step: step / 100, progress=False)
    assert rates == [0.01, 0.02, 0.03]


def test_ctrl_c_in_fit_batches():
    calls, model = [], linear()

    def loss(a, b):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return F.mse_loss(model(a), b)

    history = run_batches(model=model, loss=loss)
    assert history.interrupted and not model.training
    assert [row["step"] for row in history] == [0, 4, 6]
    assert history.rows[-1]["loss"] > 0


def test_ctrl_c_in_a_measurement():
    def measure(step):
        if step == 4:
            raise KeyboardInterrupt
        return {"score": 1.0}

    history = run_batches(measure=measure)
    assert history.interrupted
    assert [row["step"] for row in history] == [0, 4]
    assert history.rows[-1]["loss"] > 0


def test_batches_that_run_out():
    with pytest.raises(ValueError, match="ended after 3 of 10 steps"):
        run_batches(batches=stream(3))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"every": 0}])
def test_what_fit_batches_refuses(settings):
    with pytest.raises(ValueError, match="at least 1"):
        run_batches(**settings)


def test_train_step_returns_the_loss_before_the_step():
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def compute():
        return F.mse_loss(model(minillm.tensor(x)), minillm.tensor(y))

    before = compute().item()
    assert train_step(model, compute, optimizer) == before
    assert compute().item() < before


# -------------------------------------------------------------------------------------------------- history


def test_history():
    h = History()
    assert len(h) == 0 and h.last("loss") is None and h.curve("loss") == []
    h.append(step=1, loss=2.0)
    h.append(step=2, loss=None, epoch=1)
    h.append(step=3, loss=1.0, epoch=2)
    assert h.curve("loss") == [(1, 2.0), (3, 1.0)]
    assert h.curve("epoch") == [(2, 1), (3, 2)]
    assert h.last("loss") == 1.0
    assert [row["step"] for row in h] == [1, 2, 3]


def test_clipping_counts_only_what_the_optimizer_moves():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    frozen = optim.SGD(model[1].parameters(), lr=1.0)
    with minillm.no_grad():
        for layer in model:
            layer.weight.copy_(1.0)
    model[0].weight.grad = minillm.full((1, 1), 1e6)
    train_step(model, lambda: model(minillm.ones(1, 1)).sum(), frozen, clip_norm=0.5)
    assert model[1].weight.item() == pytest.approx(0.5)


def test_evaluation_leaves_each_module_in_its_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    evaluate(model, np.ones((4, 2), np.float32), loss="mse")
    assert model.training and model[0].training and not model[1].training


def test_float64_arrays_train_a_float32_model():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    x = np.random.default_rng(0).random((8, 3))
    assert x.dtype == np.float64
    fit(model, x, loss="mse", optimizer=optim.SGD(model.parameters(), lr=0.1), validation=x, progress=False)
    assert all(p.dtype == np.float32 for p in model.parameters())
