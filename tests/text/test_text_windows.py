from __future__ import annotations

import doctest

import numpy as np
import pytest

from minillm.data import DataError
from minillm.text import sample_windows, train_validation_split, windows


@pytest.mark.parametrize("n, fraction, cut", [(10, 0.9, 9), (11, 0.9, 9), (2, 0.5, 1), (1000, 0.001, 1)])
def test_split_keeps_the_order(n, fraction, cut):
    ids = np.arange(n)
    train, validation = train_validation_split(ids, fraction)
    assert len(train) == cut and (np.concatenate([train, validation]) == ids).all()


@pytest.mark.parametrize("n, fraction", [(0, 0.5), (1, 0.9), (5, 0.1), (10, 0.0), (10, 1.0), (10, float("nan"))])
def test_split_without_two_parts(n, fraction):
    with pytest.raises(DataError, match="fraction="):
        train_validation_split(np.arange(n), fraction)


def test_windows_are_pieces_of_the_text_and_targets_the_next_ids():
    ids = np.arange(20, dtype=np.uint16)
    x, y = sample_windows(ids, 500, 6, np.random.default_rng(0))
    assert x.shape == y.shape == (500, 6) and x.dtype == y.dtype == np.int64
    assert (np.diff(x, axis=1) == 1).all() and (y == x + 1).all()
    assert set(x[:, 0].tolist()) == set(range(14))  # every start, the first and the last with a target included


def test_the_shortest_text_gives_its_only_window():
    x, y = sample_windows(np.array([5, 6, 7]), 2, 2, np.random.default_rng(0))
    assert x.tolist() == [[5, 6]] * 2 and y.tolist() == [[6, 7]] * 2
    with pytest.raises(DataError, match="2 ids are too few for a context of 2: expected at least 3"):
        sample_windows(np.array([5, 6]), 2, 2, np.random.default_rng(0))


@pytest.mark.parametrize("batch, context", [(0, 1), (1, 0), (-1, 1)])
def test_sizes_that_are_not_positive(batch, context):
    with pytest.raises(DataError, match=f"batch={batch}, context={context}"):
        sample_windows(np.arange(9), batch, context, np.random.default_rng(0))


def test_examples_in_the_docstrings():
    result = doctest.testmod(windows)
    assert result.attempted > 0 and result.failed == 0
