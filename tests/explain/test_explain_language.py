"""The pictures of a language model draw what they were given; one point, one token and strange names are enough."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from minillm.explain import language
from minillm.explain.embed import figure_bytes

TEXT = "First Citizen:\nBefore we"


def maps(layers, heads, tokens, seed=0):
    scores = np.random.default_rng(seed).normal(0, 2, (layers, heads, tokens, tokens))
    scores[:, :, np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


def texts(figure):
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(Text) if t.get_visible() and t.get_text()]


def drawn(figure, least=150):
    """It renders, and fits into the column."""
    data, _, width, height = figure_bytes(figure, raster=True)
    assert data.startswith(b"\x89PNG") and least < width < 740 and height > 80
    return figure


def test_rate_and_gradient_over_steps():
    lr = [(1, 0.1), (2, 0.2), (3, 0.15)]
    norm = [(1, 3.0), (2, float("nan")), (3, 0.5)]
    figure = drawn(language.step_curves(lr, norm, clip_norm=1.0))
    rate, gradient = figure.axes
    assert_allclose(rate.lines[0].get_xydata(), lr)
    assert_allclose(gradient.lines[0].get_ydata(), [3.0, np.nan, 0.5])
    assert_allclose(gradient.lines[1].get_ydata(), 1.0)
    assert rate.get_ylim()[0] == 0 and {"learning rate", "gradient norm", "step", "cut to 1"} <= set(texts(figure))
    low, high = gradient.get_ylim()
    assert low < 0.5 and high > 3 and gradient.get_yscale() == "log"


@pytest.mark.parametrize("norm", [0.0, 0.3, 1e6])
def test_one_step_is_a_point(norm):
    figure = drawn(language.step_curves([(7, 1e-3)], [(7, norm)]))
    assert all(ax.lines[0].get_marker() == "o" for ax in figure.axes)
    with pytest.raises(ValueError, match="at least one point"):
        language.step_curves([], [])
    with pytest.raises(ValueError, match="at least one point"):
        language.step_curves([(1, 0.1)], [(1, float("nan"))])


def test_a_map_for_every_head_of_every_layer():
    weights = maps(3, 4, len(TEXT))
    figure = drawn(language.attention_grid(weights, list(TEXT)))
    assert len(figure.axes) == 12
    for i, ax in enumerate(figure.axes):
        assert_allclose(ax.images[0].get_array(), weights[i // 4, i % 4])
    found = texts(figure)
    assert [t for t in found if t.startswith("head")] == [f"head {i}" for i in range(1, 5)]
    assert {"layer 1", "layer 2", "layer 3"} <= set(found)


@pytest.mark.parametrize("layers, heads, tokens", [(12, 12, 24), (48, 25, 3), (1, 1, 1), (9, 1, 24)])
def test_of_large_models_some_by_their_number(layers, heads, tokens):
    weights = maps(layers, heads, tokens)
    strange = ["$a$", " the", "\n", "漢", *TEXT]
    figure = drawn(language.attention_grid(weights, strange[:tokens]), least=60)
    rows, columns = language.evenly(layers, language.MOST_LAYERS), language.evenly(heads, language.MOST_HEADS)
    assert len(figure.axes) == len(rows) * len(columns) <= language.MOST_LAYERS * language.MOST_HEADS
    assert_allclose(figure.axes[-1].images[0].get_array(), weights[-1, -1])
    assert f"layer {layers}" in texts(figure)
    chosen = [weights[i, j] for i in rows for j in columns]
    for ax, expected in zip(figure.axes, chosen, strict=True):
        assert_allclose(ax.images[0].get_array(), expected)


def test_evenly():
    for count in range(1, 60):
        for most in (1, 2, 8):
            chosen = language.evenly(count, most)
            assert chosen == sorted(set(chosen)) and len(chosen) == min(count, most)
            assert chosen[0] == 0 and (most == 1 or chosen[-1] == count - 1)


def guesses(t=23):
    vocabulary = sorted({*TEXT, *"abcdefgh$"})
    p = np.random.default_rng(0).dirichlet(np.full(len(vocabulary), 0.1), t)
    return list(TEXT[:t]), np.array([vocabulary.index(c) for c in TEXT[1 : t + 1]]), p, vocabulary


@pytest.mark.parametrize("t", [1, 23])
def test_each_guess_beside_what_came(t):
    tokens, following, p, vocabulary = guesses(t)
    figure = drawn(language.predictions(tokens, following, p, vocabulary))
    came, likely = figure.axes
    true = p[np.arange(t), following]
    assert_allclose([bar.get_width() for bar in came.patches], 100 * true)
    assert_allclose(likely.images[0].get_array(), -np.sort(-p, axis=1)[:, :5])
    best = np.argsort(-p, axis=1)[:, :5]
    frames = {(round(f.get_y() + 0.45), round(f.get_x() + 0.48)) for f in likely.patches}
    assert frames == {(int(r), int(c)) for r, c in zip(*np.nonzero(best == following[:, None]))}
    first = likely.texts[0].get_text()
    assert first.endswith(f"  {language.percent(p[0].max())}")


def test_fewer_names_than_guesses_and_long_ones():
    drawn(language.predictions([" something else"] * 3, [0, 1, 0], np.full((3, 2), 0.5), ["an extraordinary", "$b$"]))
    tokens, following, p, vocabulary = guesses()
    for wrong in ((tokens[:-1], following, p, vocabulary), (tokens, following, p, vocabulary[1:])):
        with pytest.raises(ValueError, match="need a token and its follower"):
            language.predictions(*wrong)
    with pytest.raises(ValueError, match="NaN"):
        language.predictions(tokens, following, p * np.nan, vocabulary)


@pytest.mark.parametrize("scale, unit", [(1e3, "kB"), (1e6, "MB"), (1e10, "GB")])
def test_stacked_memory(scale, unit):
    steps = {"kept": {"weights": 3, "activations": 29}, "again": {"weights": 3, "averaged": 4, "activations": 9}}
    steps = {name: {k: v * scale for k, v in parts.items()} for name, parts in steps.items()}
    figure = drawn(language.memory_bars(steps))
    (ax,) = figure.axes
    bars = [[(b.get_x(), b.get_width()) for b in container] for container in ax.containers]
    by = {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit] / scale
    expected = [[(0, 3), (0, 3)], [(3, 29), (3, 9)], [(32, 0), (12, 4)]]
    assert_allclose(bars, np.array(expected) / by)
    assert f"memory of a step, {unit}" in texts(figure) and f" {32 / by:.3g}" in texts(figure)


def test_memory_of_nothing():
    drawn(language.memory_bars({"a step": {"weights": 0.0}}))
    for wrong in ({}, {"a step": {}}, {"a step": {"weights": float("nan")}}, {"a step": {"weights": -1.0}}):
        with pytest.raises(ValueError, match="at least"):
            language.memory_bars(wrong)
