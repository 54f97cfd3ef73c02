"""Beam search against the search of all texts, on a vocabulary that allows it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import minillm
from minillm.generation import Sampling, beam_search, generate
from minillm.generation.beam import log_softmax
from minillm.models import GPT

V, CONTEXT, END = 4, 6, 3
PROMPT = [1, 2]


def made(seed: int = 0, scale: float = 0.5, context: int = CONTEXT, **settings) -> GPT:
    minillm.manual_seed(seed)
    model = GPT(V, context=context, layers=2, heads=2, width=8, **settings).eval()
    for i, p in enumerate(model.parameters()):
        p.data[...] += scale * np.random.default_rng(100 * seed + i).normal(size=p.shape).astype(p.dtype)
    return model.to("float64")


def log_probability(model, new) -> float:
    """Of `new` after PROMPT, in one pass without a cache."""
    text = [*PROMPT, *new]
    log_p = log_softmax(model(np.array([text[:-1]])).numpy()[0])  # (T, V)
    return sum(log_p[len(PROMPT) - 1 + i, token] for i, token in enumerate(new))


def all_texts(model, most: int, a: float) -> list[tuple[float, tuple[int, ...]]]:
    """(score, new tokens) of every text that ends in END or has `most` tokens, the best first."""
    found = []
    for n in range(1, most + 1):
        for new in product(range(V), repeat=n):
            if END not in new[:-1] and (new[-1] == END or n == most):
                found.append((log_probability(model, new) / ((5 + n) / 6) ** a, new))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("a", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_wide_beam_finds_the_best_of_all_texts(seed, a):
    model = made(seed, position=["learned", "rotary", "alibi"][seed])
    want = all_texts(model, 4, a)
    got = beam_search(model, PROMPT, max_new_tokens=4, beams=len(want), length_penalty=a, stop=[END])
    assert len(got) == len(want)
    for h, (score, new) in zip(got[:50], want):
        assert tuple(h.ids[2:].tolist()) == new and h.score == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("a", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_narrow_beam(seed, a):
    """Scores are those of the texts, the order is theirs, and with more beams the best is no worse than greedy."""
    model = made(seed)
    got = beam_search(model, PROMPT, max_new_tokens=4, beams=3, length_penalty=a, stop=[END])
    assert 1 <= len(got) <= 3
    assert [h.score for h in got] == sorted([h.score for h in got], reverse=True)
    for h in got:
        new = h.ids[2:].tolist()
        assert h.ids.dtype == np.int64 and h.ids[:2].tolist() == PROMPT
        assert len(new) == 4 or new[-1] == END
        assert END not in new[:-1]
        assert h.log_probability == pytest.approx(log_probability(model, new), rel=1e-9)
        assert h.score == pytest.approx(h.log_probability / ((5 + len(new)) / 6) ** a, rel=1e-12)
    assert len({tuple(h.ids) for h in got}) == len(got)


def naive(model, beams: int, most: int) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search of texts of one length, from its definition."""
    kept = [(0.0, ())]
    for _ in range(most):
        more = [(log_probability(model, (*new, t)), (*new, t)) for _, new in kept for t in range(V)]
        kept = sorted(more, reverse=True)[:beams]
    return kept


@pytest.mark.parametrize("beams", [2, 3, 5])
def test_the_beams_are_those_of_the_definition(beams):
    for seed in range(4):
        model = made(seed)
        got = beam_search(model, PROMPT, max_new_tokens=4, beams=beams)
        want = naive(model, beams, 4)
        assert [tuple(h.ids[2:].tolist()) for h in got] == [new for _, new in want]


def test_one_beam_is_greedy():
    for seed in range(5):
        model = made(seed)
        (h,) = beam_search(model, PROMPT, max_new_tokens=4, beams=1, stop=[END])
        np.testing.assert_array_equal(h.ids, generate(model, [PROMPT], Sampling(0), max_new_tokens=4, stop=[END])[0])


def test_a_beam_finds_what_greedy_misses():
    better = 0
    for seed in range(12):
        model = made(seed)
        one, many = (beam_search(model, PROMPT, max_new_tokens=4, beams=b)[0].log_probability for b in (1, 16))
        assert many >= one - 1e-12
        better += many > one + 1e-9
    assert better  # otherwise the models are too simple to test anything


def test_a_length_penalty_prefers_longer_texts():
    lengths = []
    for a in (0.0, 3.0):
        lengths.append([
            len(beam_search(made(s), PROMPT, max_new_tokens=4, beams=16, length_penalty=a, stop=[END])[0].ids)
            for s in range(12)
        ])  # fmt: skip
    assert sum(lengths[1]) > sum(lengths[0])


def test_past_the_context():
    """A full context is read again from its middle, as when sampling."""
    model = made(context=4)
    (h,) = beam_search(model, PROMPT, max_new_tokens=9, beams=1)
    np.testing.assert_array_equal(h.ids, generate(model, [PROMPT], Sampling(0), max_new_tokens=9)[0])
    assert len(beam_search(model, PROMPT, max_new_tokens=9, beams=5)) == 5


def test_it_ends_early():
    model = made()
    model.norm.weight.data[...] = 0
    model.norm.bias.data[...] = model.token.weight.data[END] * 100  # END, whatever came before
    sizes, hidden = [], model.hidden
    model.hidden = lambda ids, cache=None: sizes.append(ids.shape) or hidden(ids, cache)
    (h,) = beam_search(model, PROMPT, max_new_tokens=4, beams=1, stop=[END])
    assert h.ids.tolist() == [*PROMPT, END] and len(sizes) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beams": 0}, "beam"), ({"max_new_tokens": 0}, "token"), ({"length_penalty": -1}, "length_penalty"),
        ({"stop": [4]}, "stop token 4"),
    ],
)  # fmt: skip
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        beam_search(made(), PROMPT, **{"max_new_tokens": 3, **given})
    with pytest.raises(ValueError, match="empty"):
        beam_search(made(), [], max_new_tokens=3)


@pytest.mark.parametrize("a", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("beams", [1, 2, 4])
def test_ending_early_loses_nothing(monkeypatch, beams, a):
    def search():
        return [beam_search(made(s), PROMPT, max_new_tokens=4, beams=beams, length_penalty=a, stop=[END])
                for s in range(8)]  # fmt: skip

    early = search()
    monkeypatch.setattr("minillm.generation.beam._settled", lambda *_: False)
    for got, want in zip(early, search()):
        assert [h.score for h in got] == [h.score for h in want]
