"""The trace of a training: means of equal stretches, few points, the same ones in a run that went on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm import optim
from minillm.models import GPT
from minillm.training.batches import RandomWindows
from minillm.training.loop import Loop
from minillm.training.trace import MOST, NAMES, Trace


def traced(losses, trace=None):
    trace = Trace() if trace is None else trace
    for step, loss in enumerate(losses, 1):
        trace.add(step=step, loss=loss, lr=step / 1e3, grad_norm=2 * loss)
    return trace


@settings(deadline=None, max_examples=40)
@given(count=st.integers(0, 2000))
def test_points_are_the_means_of_their_steps(count):
    losses = np.random.default_rng(0).normal(3, 1, count)
    trace = traced(losses)
    stride = trace.stride
    assert stride == 1 << max(0, (count // MOST).bit_length())  # 1 below 256 steps, 2 below 512, ...
    stretches = [losses[i : i + stride] for i in range(0, count, stride)]
    curve = trace.curve("loss")
    assert len(curve) == len(stretches) <= MOST
    np.testing.assert_allclose([v for _, v in curve], [s.mean() for s in stretches], rtol=1e-9)
    steps = [np.arange(i, min(i + stride, count)).mean() + 1 for i in range(0, count, stride)]
    np.testing.assert_allclose([s for s, _ in curve], steps)
    np.testing.assert_allclose([v for _, v in trace.curve("grad_norm")], [2 * v for _, v in curve])


@pytest.mark.parametrize("cut", [0, 1, 255, 256, 701])
def test_a_trace_that_goes_on_has_the_same_numbers(cut):
    losses = list(np.random.default_rng(1).normal(3, 1, 1001))
    first = traced(losses[:cut])
    later = Trace()
    later.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step in range(cut, len(losses)):
        later.add(step=step + 1, loss=losses[step], lr=(step + 1) / 1e3, grad_norm=2 * losses[step])
    whole = traced(losses)
    assert all(later.curve(name) == whole.curve(name) for name in NAMES)


def test_steps_that_were_not_taken_are_left_out():
    trace = traced([1.0, float("nan"), 3.0, float("inf")])
    assert trace.curve("loss") == [(1, 1.0), (3, 3.0)]
    assert Trace().curve("lr") == []


def test_the_loop_traces_each_step_and_goes_on_with_it():
    def loop(steps):
        minillm.manual_seed(0)
        model = GPT(11, context=6, layers=1, heads=2, width=8)
        batches = RandomWindows(np.arange(400) % 11, 3, 6, 1)
        optimizer = optim.AdamW(model.parameters(), lr=0.5)
        return Loop(model, optimizer, batches, model.loss, steps=steps, schedule=lambda s, t: 1 / s, every=2)

    whole = loop(5)
    seen = []
    whole.observer.on_step = seen.append
    trace = whole.run().trace
    assert trace.curve("lr") == [(s, 0.5 / s) for s in range(1, 6)]
    assert [v for _, v in trace.curve("grad_norm")] == [step["grad_norm"] for step in seen]
    assert [v for _, v in trace.curve("loss")] == [step["loss"] for step in seen]
    first, second = loop(3), loop(5)
    first.run()
    second.load_state_dict(first.state_dict())
    assert second.run().trace.curve("loss") == trace.curve("loss")
