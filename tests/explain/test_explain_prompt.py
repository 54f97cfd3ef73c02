"""What a model expected along a text: the figures are the probabilities, and the frame is around what stands there."""

from __future__ import annotations

import numpy as np
import pytest

from minillm.explain.embed import figure_bytes
from minillm.explain.prompt import prompt_predictions
from minillm.explain.style import INK

TOKENS = ["a", " b", "\n", "$x$"]
P = np.array([[0.1, 0.6, 0.25, 0.05], [0.97, 0.01, 0.0199, 0.0001], [0.25, 0.25, 0.25, 0.25]])


def cells(figure) -> list[list[str]]:
    texts = [t.get_text() for t in figure.axes[1].texts]
    k = int(figure.axes[1].get_xlim()[1])
    return [texts[i : i + k] for i in range(0, len(texts), k)]


def framed(figure) -> list[tuple[int, int]]:
    """(place, rank) of the cells with a frame."""
    from matplotlib.colors import to_rgba

    found = [b for b in figure.axes[1].patches if b.get_edgecolor() == to_rgba(INK)]
    return [(round(b.get_y() + b.get_height() / 2), int(b.get_x())) for b in found]


def test_each_place_shows_what_was_expected():
    figure = prompt_predictions(TOKENS, [2, 3, 0], P, k=3)
    assert cells(figure) == [["␣b 60", "↵ 25", "a 10"], ["a 97", "↵ 2", "␣b 1"], ["a 25", "␣b 25", "↵ 25"]]
    assert framed(figure) == [(0, 1), (2, 0)]  # the second place's token is not among the three likeliest
    bars = figure.axes[0].patches
    assert [round(b.get_width(), 6) for b in bars] == [25, 0.01, 25]
    assert [t.get_text() for t in figure.axes[0].texts] == ["25", "<0.1", "25"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["↵", r"\$x\$", "a"]
    assert figure.axes[1].get_ylim()[0] > figure.axes[1].get_ylim()[1]  # the text begins on top


def test_more_candidates_than_tokens():
    assert [len(row) for row in cells(prompt_predictions(TOKENS, [0, 1, 2], P, k=9))] == [4, 4, 4]


@pytest.mark.parametrize("length", [1, 24, 40])
def test_words_stay_in_their_cells(length):
    words = ["internationalization", "MMMMMMMMMMMM", " the", "漢字かな", "\x00\x01\x02\x03", "x"]
    rng = np.random.default_rng(0)
    figure = prompt_predictions(words, rng.integers(0, 6, length), rng.dirichlet(np.ones(6), length))
    figure.draw_without_rendering()
    for text in figure.axes[1].texts:
        rank = int(text.get_position()[0])
        left, right = (figure.axes[1].transData.transform((x, 0))[0] for x in (rank, rank + 1))
        box = text.get_window_extent()
        assert left - 1 <= box.x0 and box.x1 <= right + 1, text.get_text()
    data, media, width, _ = figure_bytes(figure)
    assert 300 < width < 740


def test_wrong_calls():
    for call, message in (
        (lambda: prompt_predictions(TOKENS, [0, 1], P), "expected"),
        (lambda: prompt_predictions(TOKENS[:3], [0, 1, 2], P), "expected"),
        (lambda: prompt_predictions(TOKENS, [0, 1, 4], P), "expected 0 to 3"),
        (lambda: prompt_predictions(TOKENS, [0, 1, -1], P), "expected 0 to 3"),
        (lambda: prompt_predictions(TOKENS, [0, 1, 2], P * 4), "softmax"),
        (lambda: prompt_predictions(TOKENS, [0, 1, 2], P - 0.2), "softmax"),
        (lambda: prompt_predictions(TOKENS, [0, 1, 2], P * np.nan), "softmax"),
        (lambda: prompt_predictions(TOKENS, [0, 1, 2], P, k=0), "1 or more"),
        (lambda: prompt_predictions(TOKENS, [0] * 41, np.ones((41, 4)) / 4), "from 1 to 40"),
        (lambda: prompt_predictions(TOKENS, np.zeros(0, int), np.ones((0, 4))), "from 1 to 40"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
