"""What a language model expects next."""

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
    TEXT,
    array_of,
    new_figure,
    plain_axes,
    readable_text,
    readable_token,
    styled,
)


@styled
def next_token_bars(tokens: Sequence[Any], probabilities: Any, k: int = 10, context: str = "") -> Any:
    """The `k` most likely next tokens as bars, and what is left for all others. Returns a Figure.

    tokens: V names, probabilities: (V,), adding up to 1 for a whole vocabulary. context: the text that the model has
    read; its last characters become the title.
    """
    probabilities = array_of("probabilities", probabilities, "(V,)").astype(np.float64)
    if len(tokens) != len(probabilities) or not len(tokens):
        raise ValueError(f"next_token_bars: {len(tokens)} tokens but {len(probabilities)} probabilities")
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("next_token_bars: probabilities must be finite and at least 0; pass softmax(logits)")
    order = np.argsort(-probabilities, kind="stable")[:k]
    values = list(probabilities[order])
    names = [readable_token(tokens[i]) for i in order]
    colours = [LINES[0]] * len(values)
    others = len(tokens) - len(order)
    if others:
        values.append(max(0.0, float(probabilities.sum() - probabilities[order].sum())))
        names.append(f"{others} other" + "s" * (others > 1))
        colours.append(FAINT)

    fig = new_figure(5.2, 0.55 + 0.26 * len(values) + 0.3 * bool(context))
    ax = plain_axes(fig.add_subplot())
    places = np.arange(len(values))
    ax.barh(places, [100 * v for v in values], height=0.72, color=colours)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=TEXT, colors=INK, length=0)
    ax.spines["left"].set_visible(False)
    for place, value in zip(places, values):
        text = f" {100 * value:.1f}" if value >= 0.0005 or value == 0 else " <0.1"
        ax.text(100 * value, place, text, va="center", fontsize=SMALL, color=MUTED)
    ax.set_xlim(0, max(1e-9, 112 * max(values)))
    ax.set_xlabel("probability of the next token, %")
    if context:
        tail = ("…" if len(context) > 44 else "") + context[-44:]
        inner = tail.rstrip(" ").replace("\n", "↵")  # only spaces at the end need to be made visible
        ax.set_title(f"after “{readable_text(inner)}{'␣' * (len(tail) - len(inner))}”", loc="left", fontsize=SMALL)
    return fig
