"""The filters against cases worked out by hand and against transformers; draws against their probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from minillm import Generator
from minillm.generation import Sampling
from minillm.generation.sampling import draw, min_p, repetition_penalty, temperature, top_k, top_p

INF = math.inf
P = np.array([0.05, 0.4, 0.1, 0.25, 0.2])
X = np.log(P)


def kept(logits) -> list[int]:
    return np.flatnonzero(np.isfinite(logits)).tolist()


def softmax(x):
    p = np.exp(x - x.max())
    return p / p.sum()


# --------------------------------------------------------------------------------------------- each filter


def test_temperature_is_a_power_of_the_probabilities():
    for T in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(softmax(temperature(X, T)), P ** (1 / T) / (P ** (1 / T)).sum(), rtol=1e-12)
    assert kept(temperature(np.array([-1e10, 1e10, 1e10]), 1e-308)) == [1, 2]  # no warning, no NaN


@pytest.mark.parametrize(("k", "want"), [(1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (5, [0, 1, 2, 3, 4]), (99, range(5))])
def test_top_k(k, want):
    got = top_k(X, k)
    assert kept(got) == list(want)
    np.testing.assert_array_equal(got[list(want)], X[list(want)])


def test_top_k_of_equal_logits_is_k():
    for k in range(1, 7):
        assert len(kept(top_k(np.zeros(7), k))) == k


@pytest.mark.parametrize(
    ("p", "want"),
    [(1e-9, [1]), (0.39, [1]), (0.41, [1, 3]), (0.64, [1, 3]), (0.66, [1, 3, 4]), (0.9, [1, 2, 3, 4]), (1, range(5))],
)
def test_top_p(p, want):
    if p == 0.9:
        p -= 1e-9  # the sum 0.95 is above, 0.85 below
    assert kept(top_p(X, p)) == list(want)


def test_top_p_renormalizes_what_others_left():
    assert kept(top_p(top_k(X, 2), 0.6)) == [1]  # 0.4 / 0.65 = 0.615
    assert kept(top_p(X, 0.6)) == [1, 3]


@pytest.mark.parametrize(("m", "want"), [(0, range(5)), (0.2, [1, 2, 3, 4]), (0.3, [1, 3, 4]), (0.6, [1, 3]), (1, [1])])
def test_min_p(m, want):
    assert kept(min_p(X, m)) == list(want)


def test_repetition_penalty_lowers_what_was_seen():
    x = np.array([3.0, -3.0, 3.0, -3.0, 0.0])
    np.testing.assert_array_equal(repetition_penalty(x, [0, 1, 4, 1, 0], 1.5), [2.0, -4.5, 3.0, -3.0, 0.0])
    np.testing.assert_array_equal(repetition_penalty(x, [], 1.5), x)
    assert x[0] == 3.0  # the argument is left as it was


def test_filters_leave_their_argument_alone():
    x = X.copy()
    Sampling(0.7, 3, 0.8, 0.1, 1.3).filtered(x, [1, 2])
    np.testing.assert_array_equal(x, X)


def test_the_order_of_the_filters():
    """Temperature before top-p: a hot nucleus is larger. Penalty before temperature 0: the best may change."""
    assert kept(Sampling(temperature=1.0, top_p=0.6).filtered(X)) == [1, 3]
    assert kept(Sampling(temperature=5.0, top_p=0.6).filtered(X)) == [1, 3, 4]
    assert kept(Sampling(temperature=0, repetition_penalty=2.0).filtered(X, [1])) == [3]
    assert kept(Sampling(top_k=3, min_p=0.55).filtered(X)) == [1, 3]


logits_of_any_size = st.lists(st.floats(-30, 30), min_size=1, max_size=12).map(np.array)


@settings(max_examples=60, deadline=None)
@given(
    logits_of_any_size, st.floats(0, 3), st.integers(1, 15), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.5, 2),
    st.integers(0, 2**32),
)  # fmt: skip
def test_some_token_always_stays_and_is_chosen(x, T, k, p, m, r, seed):
    sampling = Sampling(T, k, p, m, r)
    seen = [0, len(x) - 1]
    left = kept(sampling.filtered(x, seen))
    assert 1 <= len(left) <= k
    assert sampling.choose(x, seen, Generator(seed)) in left
    assert int(repetition_penalty(x, seen, r).argmax()) in left or len(left) == k  # ties at the border of top-k


@pytest.mark.oracle
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 3), st.integers(1, 9), st.floats(0.05, 0.99), st.floats(0.01, 0.9))
def test_transformers_filters_agree(seed, T, k, p, m):
    torch = pytest.importorskip("torch")
    hf = pytest.importorskip("transformers")
    x = np.random.default_rng(seed).normal(size=9) * 3
    seen = [2, 5, 5]
    want = torch.tensor(x)[None]
    for processor in (
        hf.RepetitionPenaltyLogitsProcessor(1.4), hf.TemperatureLogitsWarper(T), hf.TopKLogitsWarper(k),
        hf.TopPLogitsWarper(p), hf.MinPLogitsWarper(m),
    ):  # fmt: skip
        want = processor(torch.tensor([seen]), want)
    got = Sampling(T, k, p, m, 1.4).filtered(x, seen)
    np.testing.assert_allclose(softmax(got), torch.softmax(want, -1)[0].numpy(), rtol=1e-9, atol=1e-15)


# --------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(), Sampling(0.5), Sampling(2.0), Sampling(top_k=3), Sampling(top_p=0.7), Sampling(min_p=0.3),
        Sampling(1.5, 4, 0.9, 0.1, 1.2),
    ],
    ids=str,
)  # fmt: skip
def test_draws_follow_the_probabilities(sampling):
    generator, n = Generator(11), 4000
    counts = np.bincount([sampling.choose(X, [1], generator) for _ in range(n)], minlength=5)
    p = softmax(sampling.filtered(X, [1]))
    assert not counts[p == 0].any()
    assert chisquare(counts[p > 0], n * p[p > 0]).pvalue > 1e-3


def test_the_ends_of_the_unit_interval():
    x = np.array([-INF, 1.0, -INF, 1.0, -INF])
    assert draw(x, 0.0) == 1 and draw(x, 1 - 2.0**-24) == 3
    assert draw(np.array([0.0, -1000.0]), 1 - 2.0**-24) == 0


def test_temperature_0_uses_no_random_number():
    class Nothing:
        def uniform(self):
            raise AssertionError

    assert Sampling(0).choose(X, [], Nothing()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1}, "temperature"), ({"temperature": math.nan}, "temperature"),
        ({"temperature": INF}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_k": 1.5}, "top_k"),
        ({"top_p": 0}, "top_p"), ({"top_p": 1.1}, "top_p"), ({"min_p": -0.1}, "min_p"), ({"min_p": math.nan}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"), ({"repetition_penalty": INF}, "repetition_penalty"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**given)
