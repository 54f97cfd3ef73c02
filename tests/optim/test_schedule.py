"""Schedules: their corners, their ends, and that the first step moves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.optim import warmup_cosine, warmup_linear, warmup_stable_decay

ALL = [warmup_cosine, warmup_linear, warmup_stable_decay]


@pytest.mark.parametrize("schedule", ALL)
@given(st.integers(1, 500), st.integers(0, 200))
def test_between_0_and_1_and_never_0_before_the_end(schedule, total, warmup):
    factors = [schedule(step, total, warmup) for step in range(1, total + 1)]
    assert all(0 <= f <= 1 for f in factors)
    assert all(f > 0 for f in factors[:-1])
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


@pytest.mark.parametrize("schedule", ALL)
def test_warm_up_is_a_line(schedule):
    assert [schedule(s, 1000, 10) for s in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule(1, 1000, 0) == pytest.approx(1.0, abs=0.01)
    assert schedule(2, 10, 100) == pytest.approx(1.0)  # cut to a fifth


def test_ends():
    assert warmup_cosine(100, 100, 10, 0.1) == pytest.approx(0.1)
    assert warmup_cosine(55, 100, 10, 0.0) == pytest.approx(0.5)
    assert warmup_cosine(32.5, 100, 10, 0.0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)  # steps may be floats
    assert warmup_linear(100, 100, 10, 0.2) == pytest.approx(0.2)
    assert warmup_linear(32.5, 100, 10) == pytest.approx(0.75)
    assert warmup_stable_decay(60, 100, 10, stable=0.6) == 1.0
    assert warmup_stable_decay(80, 100, 10, stable=0.6, final=0.5) == pytest.approx(0.75)
    assert all(f(1e9, 100, 10, final=0.3) == pytest.approx(0.3) for f in ALL)


def test_what_cannot_be():
    for step, total, warmup, final in ((1, 0, 0, 0), (-1, 9, 0, 0), (1, 9, -1, 0), (1, 9, 1, 1.5), (math.nan, 9, 1, 0)):
        for schedule in ALL:
            with pytest.raises(ValueError, match="total > 0"):
                schedule(step, total, warmup, final=final)
    with pytest.raises(ValueError, match="share"):
        warmup_stable_decay(1, 10, 0, stable=1.5)
