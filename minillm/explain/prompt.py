"""What a language model expects at each place of a text, beside what stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minillm.explain.style import (
    FAINT,
    INK,
    LINES,
    MUTED,
    SMALL,
    TINY,
    WIDTH,
    array_of,
    new_figure,
    plain_axes,
    readable_token,
    styled,
)

MOST_PLACES = 40


@styled
def prompt_predictions(tokens: Sequence[Any], targets: Sequence[int], probabilities: Any, k: int = 5) -> Any:
    """A row for each token of a text: its probability, and the `k` tokens that were likeliest there. Returns a Figure.

    tokens         V names, of the whole vocabulary
    targets        (T,) ids of the tokens that stand there
    probabilities  (T, V): row t is what the model expects where target t stands, from all that stands before it
    The candidate that stands there has a frame. At most 40 places: ValueError for more.
    """
    p = array_of("probabilities", probabilities, "(T, V)").astype(np.float64)
    ids = array_of("targets", targets, "(T,)", dtypes="iu")
    T, V = p.shape
    if len(ids) != T or len(tokens) != V or not 1 <= T <= MOST_PLACES:
        raise ValueError(
            f"prompt_predictions: probabilities {p.shape}, {len(ids)} targets, {len(tokens)} tokens: expected (T, V), "
            f"T targets, V tokens, and T from 1 to {MOST_PLACES}"
        )
    if ids.min() < 0 or ids.max() >= V:
        raise ValueError(f"prompt_predictions: targets from {ids.min()} to {ids.max()}, expected 0 to {V - 1}")
    if not np.isfinite(p).all() or (p < 0).any() or (p > 1.001).any():
        raise ValueError("prompt_predictions: probabilities must be from 0 to 1; pass softmax(logits)")
    if k < 1:
        raise ValueError(f"prompt_predictions: k={k}, expected 1 or more")
    k = min(k, V)
    best = np.argsort(-p, axis=1, kind="stable")[:, :k]  # (T, k)
    true = p[np.arange(T), ids]  # (T,)
    room = 10 if k > 4 else 12  # letters in a cell
    names = [readable_token(tokens[i], longest=14) for i in ids]

    fig = new_figure(WIDTH, 0.62 + 0.235 * T, "constrained")
    left, right = fig.subplots(1, 2, width_ratios=[1.6, 0.95 * k], sharey=True)
    places = np.arange(T)
    plain_axes(left)
    left.barh(places, 100 * true, height=0.72, color=LINES[0])
    for place, value in zip(places, true):
        inside = value > 0.7
        left.text(
            100 * value + (-2 if inside else 2), place, percent(value), va="center", ha="right" if inside else "left",
            fontsize=TINY, color="white" if inside else MUTED,
        )  # fmt: skip
    left.set_yticks(places, names)
    left.tick_params(axis="y", labelsize=SMALL, colors=INK, length=0)
    left.spines["left"].set_visible(False)
    left.set_xlim(0, 105)
    left.set_xticks([0, 50, 100])
    left.set_xlabel("probability of what stands there, %", fontsize=TINY)

    plain_axes(right, frame=False)
    for place in places:
        for rank, i in enumerate(best[place]):
            value = p[place, i]
            hit = i == ids[place]
            right.barh(
                place, 0.94, left=rank + 0.03, height=0.84, color=_blue(value), edgecolor=INK if hit else FAINT,
                linewidth=1.3 if hit else 0.4, zorder=2 if hit else 1,
            )  # fmt: skip
            text = f"{short(tokens[i], room)} {percent(value)}"
            right.text(
                rank + 0.5, place, text, ha="center", va="center", fontsize=TINY - 0.5, zorder=3,
                color="white" if value > 0.55 else INK,
            )  # fmt: skip
    right.set_xlim(0, k)
    right.set_xticks(np.arange(k) + 0.5, ["likeliest", *[f"{i}." for i in range(2, k + 1)]])
    right.tick_params(axis="x", labelsize=TINY, colors=MUTED, length=0)
    right.tick_params(axis="y", length=0)
    right.set_xlabel("what the model expected there, % (framed: what stands there)", fontsize=TINY)
    right.set_ylim(T - 0.4, -0.6)  # the first token on top
    return fig


def short(token: Any, room: int) -> str:
    """A token's label, cut to the width of `room` small letters; capitals and figures are wider.

    >>> short("international", 8), short("INTERNATIONAL", 8)
    ('interna…', 'INTER…')
    """
    label = readable_token(token, longest=room)
    wide = sum(c.isupper() or c.isdigit() for c in label) > len(label) / 2
    return readable_token(token, longest=max(3, room * 3 // 4)) if wide else label


def percent(p: float) -> str:
    """
    >>> percent(0.5), percent(0.004), percent(0.0002), percent(0.9999)
    ('50', '0.4', '<0.1', '100')
    """
    if p < 0.0005:
        return "<0.1"
    return f"{100 * p:.0f}" if p >= 0.0095 else f"{100 * p:.1f}"


def _blue(p: float) -> tuple[float, float, float]:
    """White for 0 to the blue of the bars for 1, by the square root: small probabilities show."""
    full = np.array([int(LINES[0][i : i + 2], 16) / 255 for i in (1, 3, 5)])
    r, g, b = 1 - np.sqrt(min(1.0, p)) * (1 - full)
    return float(r), float(g), float(b)
