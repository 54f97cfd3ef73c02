"""The loop of the language model: each technique that it composes shows in the result, and what it says to whom."""

from __future__ import annotations

import math
import os
import signal
from itertools import pairwise

import numpy as np
import pytest

import minillm
from minillm import optim
from minillm.models import GPT
from minillm.training import NonFiniteLoss
from minillm.training import clock as clock_module
from minillm.training.batches import RandomWindows
from minillm.training.clock import Clock
from minillm.training.early_stopping import EarlyStopping
from minillm.training.ema import EMA
from minillm.training.loop import Loop

IDS = np.random.default_rng(0).integers(0, 11, 500)


def parts(seed=1, batch=3, lr=1e-2, **settings):
    """A model, its optimizer, its batches."""
    minillm.manual_seed(seed)
    model = GPT(11, context=6, layers=1, heads=2, width=8, **settings)
    return model, optim.AdamW(model.parameters(), lr=lr), RandomWindows(IDS, batch, 6, seed)


def looped(steps=5, seed=1, batch=3, lr=1e-2, loss=None, model_settings=None, **settings):
    model, optimizer, batches = parts(seed, batch, lr, **(model_settings or {}))
    loop = Loop(model, optimizer, batches, loss(model) if loss else model.loss, steps=steps, **settings)
    loop.run()
    return loop


def arrays(model):
    return [p.numpy().copy() for p in model.parameters()]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b)))


def test_the_bits_of_a_loop_written_by_hand():
    model, optimizer, batches = parts(dropout=0.2)
    losses = []
    for step in range(1, 6):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * optim.warmup_linear(step, 5, 1)
        optimizer.zero_grad()
        x, y = batches.next()
        loss = model.loss(x, y)
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        losses.append(loss.item())
    loop = looped(
        model_settings={"dropout": 0.2}, clip_norm=0.3, schedule=lambda s, t: optim.warmup_linear(s, t, 1), every=2
    )
    for a, b in zip(arrays(loop.model), arrays(model)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # clipping in two passes rounds once more
    assert [row["step"] for row in loop.history] == [0, 2, 4, 5]
    np.testing.assert_allclose([v for _, v in loop.history.curve("loss")], [
        np.mean(losses[:2]), np.mean(losses[2:4]), losses[4],
    ], rtol=1e-5)  # fmt: skip
    assert not loop.model.training


@pytest.mark.parametrize("setting", [{"clip_norm": 0.01}, {"accumulation": 2}, {"schedule": lambda s, t: 0.5}])
def test_each_setting_changes_the_steps(setting):
    plain, changed = looped(), looped(**setting)
    if "clip_norm" in setting:  # Adam forgets the scale of a gradient, unless it changes
        plain, changed = looped(clip_norm=1.0), looped(clip_norm=0.5)
    assert not equal(plain.model, changed.model)


def test_accumulated_batches_are_one_larger_batch():
    class Halves:
        """Batches of two, cut out of batches of four."""

        tokens = 12

        def __init__(self):
            self.whole, self.rest = RandomWindows(IDS, 4, 6, 1), []

        def next(self):
            if not self.rest:
                x, y = self.whole.next()
                self.rest = [(x[:2], y[:2]), (x[2:], y[2:])]
            return self.rest.pop(0)

        def state_dict(self):
            return {}

    whole = looped(batch=4)
    model, optimizer, _ = parts()
    halves = Loop(model, optimizer, Halves(), model.loss, steps=5, accumulation=2)
    halves.run()
    for a, b in zip(arrays(halves.model), arrays(whole.model)):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


def test_schedule_goes_from_the_first_step_to_the_last():
    seen = []
    looped(steps=4, schedule=lambda step, total: seen.append((step, total)) or 1.0)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_every_group_keeps_its_own_rate():
    model, _, batches = parts()
    groups = [{"params": [model.token.weight], "lr": 0.1}, {"params": list(model.blocks.parameters()), "lr": 0.01}]
    optimizer = optim.AdamW(groups)
    Loop(model, optimizer, batches, model.loss, steps=3, schedule=lambda s, t: 1 / s).run()
    np.testing.assert_allclose([g["lr"] for g in optimizer.param_groups], [0.1 / 3, 0.01 / 3])


def test_measurements_see_the_average():
    model, optimizer, batches = parts()
    ema, seen = EMA(model, 0.9), []
    loop = Loop(
        model, optimizer, batches, model.loss, steps=4, every=2, ema=ema,
        measure=lambda step: seen.append((arrays(model), model.training)) or {},
    )  # fmt: skip
    loop.run()
    for a, b in zip(seen[-1][0], ema.averages.values()):
        np.testing.assert_array_equal(a, b)
    by_hand = seen[0][0][0]
    for step in range(1, 5):  # the same steps again, their weights averaged here
        rest = 1 - min(0.9, (1 + step) / (10 + step))
        by_hand = by_hand + rest * (arrays(looped(steps=step).model)[0] - by_hand)
    np.testing.assert_allclose(seen[-1][0][0], by_hand, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(seen[-1][0][0], model.token.weight.numpy())
    assert [training for _, training in seen] == [False] * 3


def test_early_stopping():
    values = iter([3.0, 2.0, 2.5, 2.1, 0.0])
    saved = []
    loop = looped(
        steps=100, every=3, early=EarlyStopping(2), measure=lambda step: {"validation_loss": next(values)},
        save=lambda step, state, best: saved.append((step, best)), save_every=50,
    )  # fmt: skip
    assert loop.step == 9 and loop.best == 2.0
    assert saved == [(0, True), (3, True), (9, False)]  # the best ones, and the last
    assert loop.observer.__class__.__name__ == "Silent"


@pytest.mark.parametrize(
    ("save_every", "expected"),
    [(None, [0, 4, 8, 10]), (3, [0, 3, 6, 9, 10]), (4, [0, 4, 8, 10]), (1, list(range(11)))],
)
def test_when_it_saves(save_every, expected):
    saved = []
    looped(steps=10, every=4, save=lambda step, *_: saved.append(step), save_every=save_every)
    assert saved == expected


# --------------------------------------------------------------------------------------------------------- time


class Watch:
    """Stands in for the clock: a second for each step and measurement, by hand."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(clock_module.time, "perf_counter", lambda: self.now)


def timed(monkeypatch, **settings):
    watch, factors = Watch(monkeypatch), []

    def loss(model):
        def compute(x, y):
            watch.now += 1.0
            return model.loss(x, y)

        return compute

    def measure(step):
        watch.now += 5.0
        return {}

    def schedule(step, total):
        factors.append(step / total)
        return 1.0

    loop = looped(loss=loss, measure=measure, schedule=schedule, every=1000, **settings)
    return loop, watch.now - 100.0, factors


def test_minutes_end_in_time_and_the_schedule_with_them(monkeypatch):
    loop, seconds, progress = timed(monkeypatch, steps=None, minutes=1.0)
    assert 58 <= seconds <= 60 and loop.step == 50  # 5 for the first measurement, and 5 kept for the last
    assert progress == sorted(progress) and progress[0] < 0.15 and progress[-1] == 1
    np.testing.assert_allclose(np.diff(progress[1:]), 1 / 55, rtol=1e-6)


def test_steps_may_end_before_the_minutes(monkeypatch):
    loop, seconds, progress = timed(monkeypatch, steps=20, minutes=1.0)
    assert loop.step == 20 and seconds == 30 and progress[-1] == 1
    loop, seconds, progress = timed(monkeypatch, steps=200, minutes=1.0)
    assert loop.step == 50 and progress[-1] == 1


def test_time_before_a_pause_counts_and_the_pause_does_not(monkeypatch):
    watch = Watch(monkeypatch)
    clock = Clock(None, 1.0)
    watch.now += 1000
    clock.before = 45.0
    clock.start()
    watch.now += 10
    assert clock.seconds() == 55.0 and clock.over(1) == "" and clock.progress(1) == pytest.approx(55 / 60)
    watch.now += 5.1
    assert clock.over(1) == "minutes" and clock.progress(1) == 1


@pytest.mark.parametrize("wrong", [(None, None), (0, None), (None, 0.0), (5, -1.0), (None, math.inf)])
def test_a_clock_needs_a_bound(wrong):
    with pytest.raises(ValueError, match="give steps of at least 1, or minutes above 0"):
        Clock(*wrong)


# --------------------------------------------------------------------------------------------------- not finite


def poisoned(*at, weight=None):
    """Losses of which those of some steps (from 1) are NaN, or have an infinite gradient for a weight."""

    def of(model):
        calls = []

        def loss(x, y):
            calls.append(1)
            value = model.loss(x, y)
            if len(calls) in at:
                value = value * float("nan") if weight is None else value + _infinite_gradient(model, weight)
            return value

        return loss

    return of


def _infinite_gradient(model, name):
    """0, with an infinite derivative: sqrt at 0."""
    p = dict(model.named_parameters())[name]
    return minillm.functional.sqrt((p * 0).sum())


def test_a_loss_that_is_not_finite_stops_before_its_step():
    saved = []
    model, optimizer, batches = parts()
    loss = poisoned(3, 4)(model)  # the step is run again, watched
    loop = Loop(
        model, optimizer, batches, loss, steps=5, save_every=1, save=lambda s, state, best: saved.append((s, state))
    )
    with pytest.raises(NonFiniteLoss, match=r"step 3: the loss is nan; .*made the first NaN") as error:
        loop.run()
    assert "\n" not in str(error.value)
    assert loop.step == 2 and saved[-1][0] == 2 and equal(model, looped(steps=2).model)
    np.testing.assert_array_equal(saved[-1][1]["parts"]["model"]["token.weight"], model.token.weight.numpy())


def test_the_broken_step_is_run_again_with_the_same_dropout():
    states = []

    def of(model):
        def loss(x, y):
            states.append(minillm.get_rng_state())
            value = model.loss(x, y)
            return value * float("nan") if len(states) > 2 else value

        return loss

    with pytest.raises(NonFiniteLoss):
        looped(loss=of, model_settings={"dropout": 0.5})
    assert states[3] == states[2] != states[1]


def test_a_gradient_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteLoss, match=r"step 2: the norm of the gradient is nan; the gradient rule of "):
        looped(loss=poisoned(2, 3, weight="norm.weight"), model_settings={})
    with pytest.raises(NonFiniteLoss, match=r"step 2: .*the gradient of norm.weight is not finite"):
        looped(loss=poisoned(2, weight="norm.weight"))  # once only: run again, it was finite


def test_a_broken_weight_is_named():
    model, optimizer, batches = parts()
    model.blocks[0].mlp[0].weight.data[0, 0] = np.inf
    with pytest.raises(NonFiniteLoss, match="the parameter blocks.0.mlp.0.weight is not finite"):
        Loop(model, optimizer, batches, model.loss, steps=3).run()


def test_broken_weights_are_not_saved():
    saved = []
    with pytest.raises(NonFiniteLoss, match=r"the parameter .* is not finite after step 1: not saved"):
        looped(lr=1e39, save_every=1, save=lambda step, *_: saved.append(step))
    assert saved == [0]


def test_skip():
    saved = []
    loop = looped(
        steps=6, loss=poisoned(2, 4, 5), non_finite="skip", save_every=1, save=lambda s, state, b: saved.append(state)
    )
    assert loop.step == 6 and loop.history.last("loss") is not None
    changed = [
        not np.array_equal(a["parts"]["model"]["token.weight"], b["parts"]["model"]["token.weight"])
        for a, b in pairwise(saved)
    ]
    assert changed == [True, False, True, False, False, True]
    with pytest.raises(NonFiniteLoss, match="step 2: the loss is nan"):
        looped(steps=6, loss=poisoned(2, 3))


def test_skip_does_not_go_on_for_ever():
    with pytest.raises(NonFiniteLoss, match=r"step 22: the loss is nan \(20 such steps one after another\)"):
        looped(steps=100, loss=poisoned(*range(3, 100)), non_finite="skip")
    with pytest.raises(ValueError, match="non_finite='ignore' is none of stop, skip"):
        looped(non_finite="ignore")


# ---------------------------------------------------------------------------------------------------- observers


class Diary:
    def __init__(self, at=None):
        self.said, self.at = [], at

    def on_start(self, info):
        self.said.append(("start", info))

    def on_step(self, step):
        self.said.append(("step", step))
        if step["step"] == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_row(self, row):
        self.said.append(("row", row))

    def on_end(self, end):
        self.said.append(("end", end))


def test_what_an_observer_hears():
    diary = Diary()
    loop = looped(steps=3, every=2, observer=diary, title="mine", measure=lambda step: {"validation_loss": 1.0 + step})
    assert [kind for kind, _ in diary.said] == ["start", "row", "step", "step", "row", "step", "row", "end"]
    info = diary.said[0][1]
    assert info["title"] == "mine" and info["step"] == 0 and info["steps"] == 3 and info["minutes"] is None
    assert info["tokens_per_step"] == 18 and info["parameters"] == loop.model.num_parameters() and info["rows"] == []
    steps = [step for kind, step in diary.said if kind == "step"]
    assert [s["step"] for s in steps] == [1, 2, 3] and [s["progress"] for s in steps] == [1 / 3, 2 / 3, 1]
    assert all(s["loss"] > 0 and s["grad_norm"] > 0 and s["lr"] == 1e-2 and s["tokens"] == 18 for s in steps)
    assert [row for kind, row in diary.said if kind == "row"] == loop.history.rows
    assert diary.said[-1][1] == {"step": 3, "reason": "done"}


def test_the_gradient_norm_is_the_one_before_clipping():
    diary = Diary()
    looped(steps=1, observer=diary, clip_norm=1e-3)
    model, _, batches = parts()
    model.loss(*batches.next()).backward()
    norm = float(optim.clip_grad_norm_(model.parameters(), 1.0))
    assert next(s for k, s in diary.said if k == "step")["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_ctrl_c_waits_for_the_step():
    diary, saved = Diary(at=2), []
    loop = looped(steps=9, every=4, observer=diary, save=lambda step, *_: saved.append(step))
    assert loop.step == 2 and saved == [0, 2] and loop.history.interrupted
    assert diary.said[-1][1] == {"step": 2, "reason": "interrupted"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_is_told_too():
    diary = Diary()
    with pytest.raises(NonFiniteLoss):
        looped(observer=diary, loss=poisoned(2, 3))
    assert diary.said[-1][1] == {"step": 1, "reason": "failed"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("wrong", [{"every": 0}, {"accumulation": 0}, {"save_every": 0}, {"steps": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        looped(**wrong)
