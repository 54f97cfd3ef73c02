"""Bars of memory: each part is drawn as long as it is, from where the one before it ends."""

from __future__ import annotations

import numpy as np
import pytest

from minillm.explain.embed import figure_bytes
from minillm.explain.memory import memory_bars, on

BARS = {
    "this run, computed": {"weights": 3e6, "gradients": 3e6, "optimizer state": 6e6, "activations": 28e6},
    "measured $peak$": {"weights": 3e6, "other": 30e6, "activations": 0},
}


def pieces(figure) -> list[tuple[float, float]]:
    return [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in figure.axes[0].patches]


def test_parts_are_stacked():
    figure = memory_bars(BARS)
    assert pieces(figure) == [(0, 3), (3, 3), (6, 6), (12, 28), (0, 3), (3, 30)]
    bars = figure.axes[0].patches
    assert bars[0].get_facecolor() == bars[4].get_facecolor() != bars[1].get_facecolor()
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts == ["3.0", "3.0", "6.0", "28.0", " 40.0 MB", "3.0", "30.0", " 33.0 MB"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "weights", "gradients", "optimizer state", "activations", "other",
    ]  # fmt: skip
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["this run, computed", r"measured \$peak\$"]


def test_a_part_that_is_too_thin_for_its_figure_has_none():
    figure = memory_bars({"run": {"weights": 1.0, "activations": 4e9}})
    assert [t.get_text() for t in figure.axes[0].texts] == ["4.0", " 4.0 GB"]


@pytest.mark.parametrize("size", [1.0, 999.0, 5e3, 5e6, 5e9, 5e12])
def test_texts_stay_inside_their_parts(size):
    figure = memory_bars({"a": {f"part {i}": size * (i + 1) for i in range(12)}, "b": {"part 1": size}})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    bars, inside = axes.patches, [t for t in axes.texts if not t.get_text().startswith(" ")]
    boxes = [bar.get_window_extent() for bar in bars]
    for text in inside:
        box = text.get_window_extent()
        assert any(b.x0 <= box.x0 and box.x1 <= b.x1 and b.y0 <= box.y0 and box.y1 <= b.y1 for b in boxes)
    data, media, width, _ = figure_bytes(figure)
    assert media == "image/svg+xml" and width < 740


def test_nothing_to_draw():
    for bars in ({}, {"run": {}}, {"run": {"weights": 0}}, {"run": {"weights": -1.0}}, {"run": {"weights": np.nan}}):
        with pytest.raises(ValueError, match="expected name ->"):
            memory_bars(bars)


def test_text_can_be_read_on_its_colour():
    assert on("#ffffff") == "#1f2328" and on("#000000") == "white" and on("#ffa90e") == "#1f2328"
