"""Early stopping counts what is no better, and starts again where something is."""

from __future__ import annotations

import math

import pytest

from minillm.training.early_stopping import EarlyStopping


def first_stop(values, **settings):
    stop = EarlyStopping(**settings)
    return next((i for i, v in enumerate(values) if stop.update(v)), None)


def test_patience():
    assert first_stop([3, 2, 2, 2, 2], patience=3) == 4
    assert first_stop([3, 2, 2, 1, 2, 2], patience=3) is None
    assert first_stop([5, 4, 3, 2, 1], patience=1) is None
    assert first_stop([1, math.nan, math.nan], patience=2) == 2


def test_min_delta():
    values = [3 - 0.01 * i for i in range(10)]
    assert first_stop(values, patience=2) is None
    assert first_stop(values, patience=3, min_delta=0.025) is None  # better by 0.03 every third time
    assert first_stop(values, patience=2, min_delta=0.5) == 2


def test_state():
    one, two = EarlyStopping(2), EarlyStopping(2)
    one.update(1.0)
    one.update(2.0)
    two.load_state_dict(one.state_dict())
    assert two.update(2.0)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(0)
