from __future__ import annotations

import doctest
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.baselines import NGram, ngram, unigram_entropy
from minillm.data import python_source_text
from minillm.text import CharTokenizer


def by_the_formula(train: list[int], order: int, vocab_size: int):
    """p(w | h) by recursion over dictionaries: the formula, and nothing else."""
    followers: dict[tuple, Counter] = defaultdict(Counter)
    for k in range(order):
        for i in range(k, len(train)):
            followers[tuple(train[i - k : i])][train[i]] += 1

    def p(w, h):
        shorter = p(w, h[1:]) if h else 1 / vocab_size
        seen = followers.get(h)
        if not seen:
            return shorter
        return (seen[w] + len(seen) * shorter) / (sum(seen.values()) + len(seen))

    return p


@settings(max_examples=100, deadline=None)
@given(
    train=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    test=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    order=st.integers(1, 7),
)
def test_against_the_formula(train, test, order):
    """Symbol 4 is never seen in training; texts shorter than the order are among the cases."""
    p = by_the_formula(train, order, 5)
    expected = [math.log(p(w, tuple(test[max(0, i - order + 1) : i]))) for i, w in enumerate(test)]
    model = NGram(order).fit(np.array(train), 5)
    np.testing.assert_allclose(model.log_probabilities(np.array(test)), expected, rtol=1e-12)
    assert model.cross_entropy(np.array(test)) == pytest.approx(-sum(expected) / len(test))


@pytest.mark.parametrize("order", range(1, 8))
def test_probabilities_sum_to_one(order):
    rng = np.random.default_rng(order)
    vocab = 6
    model = NGram(order).fit(rng.integers(0, vocab - 1, 300), vocab)
    for _ in range(10):
        history = rng.integers(0, vocab, rng.integers(0, 9))
        last = [model.log_probabilities(np.append(history, w))[-1] for w in range(vocab)]
        assert np.exp(last).sum() == pytest.approx(1, rel=1e-12)


def test_a_large_alphabet_does_not_overflow():
    """1,114,112 code points to the power of 7 have 141 bits: packed into 64 they would collide."""
    rng = np.random.default_rng(0)
    vocab = 0x110000
    few = rng.integers(0, vocab, 5)
    train, test = few[rng.integers(0, 5, 400)], few[rng.integers(0, 5, 50)]
    p = by_the_formula(train.tolist(), 7, vocab)
    expected = [math.log(p(w, tuple(test.tolist()[max(0, i - 6) : i]))) for i, w in enumerate(test.tolist())]
    np.testing.assert_allclose(NGram(7).fit(train, vocab).log_probabilities(test), expected, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(train=st.lists(st.integers(0, 3), min_size=1, max_size=60), order=st.integers(1, 7))
def test_all_orders_in_one_pass(train, order):
    test = np.array([0, 1, 2, 3, 0, 0, 1])
    one_by_one = [NGram(k).fit(np.array(train), 4).cross_entropy(test) for k in range(1, order + 1)]
    assert NGram(order).fit(np.array(train), 4).cross_entropies(test) == one_by_one


def test_subwords_of_a_large_vocabulary():
    """Fifty thousand different tokens: a table of pairs would have 2.5 billion entries."""
    rng = np.random.default_rng(1)
    vocab = 50_000
    ids = np.minimum(rng.zipf(1.3, 30_000), vocab) - 1
    p = by_the_formula(ids[:29_900].tolist(), 3, vocab)
    test = ids[29_900:].tolist()
    expected = [math.log(p(w, tuple(test[max(0, i - 2) : i]))) for i, w in enumerate(test)]
    reached = NGram(3).fit(ids[:29_900], vocab).cross_entropies(test)
    assert reached[-1] == pytest.approx(-sum(expected) / len(test), rel=1e-12)


def test_no_text_and_a_known_text():
    periodic = np.arange(3000) % 3
    assert NGram(2).fit(periodic, 3).cross_entropy(periodic) < 0.01  # each symbol is known from the last
    assert NGram(1).fit(periodic, 3).cross_entropy(periodic) == pytest.approx(math.log(3), rel=1e-6)


def test_longer_histories_help_on_real_text():
    text = python_source_text(60_000)
    tokenizer = CharTokenizer.train(text)
    train, test = np.split(tokenizer.encode(text), [54_000])
    scores = [NGram(order).fit(train, tokenizer.vocab_size).cross_entropy(test) for order in (1, 2, 3, 4)]
    assert scores == sorted(scores, reverse=True) and scores[0] < math.log(tokenizer.vocab_size)
    assert unigram_entropy(test) < scores[0]  # no fixed frequencies beat the text's own


def test_nothing_is_changed_and_a_model_can_be_fitted_again():
    ids = np.array([0, 1, 1, 0, 2], np.int32)
    kept = ids.copy()
    model = NGram(3).fit(ids, 3)
    first = model.cross_entropy(ids)
    assert (ids == kept).all()
    assert model.fit(ids[::-1], 3).cross_entropy(ids) != first
    assert model.fit(ids, 3).cross_entropy(ids) == first


def test_wrong_calls():
    ids = np.array([0, 1, 2])
    for call in (
        lambda: NGram(0),
        lambda: NGram(2).cross_entropy(ids),
        lambda: NGram(2).fit(ids, 2),
        lambda: NGram(2).fit(ids - 1, 3),
        lambda: NGram(2).fit(ids.astype(float), 3),
        lambda: NGram(2).fit(ids[:0], 3),
        lambda: NGram(2).fit(ids, 3).cross_entropy(np.array([3])),
        lambda: NGram(2).fit(ids, 3).cross_entropy(np.array([[0]])),
    ):
        with pytest.raises(ValueError, match=r"expected|first"):
            call()


def test_examples_in_the_docstrings():
    result = doctest.testmod(ngram)
    assert result.attempted > 0 and result.failed == 0
