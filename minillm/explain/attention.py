"""Where a model looks: attention weights beside the image that they read, and every head's map over tokens."""

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
    WRONG,
    array_of,
    finite_range,
    new_figure,
    plain_axes,
    readable_text,
    readable_token,
    styled,
)


@styled
def attention_over_image(images: Any, weights: Any, predictions: Any, labels: Any, columns: int = 4) -> Any:
    """Images (N, h, w) that a model read row by row, with the weight it gave each row drawn beside it as a bar.

    weights: (N, steps), each row of it adding up to 1; a step is one row of pixels (steps = h) or a band of h / steps
    rows. predictions, labels: (N,). All bars share one scale; the dashed line is equal attention, 1 / steps.
    """
    images = array_of("images", images, "(N, h, w)").astype(np.float64)
    weights = array_of("weights", weights, "(N, steps)", finite=True).astype(np.float64)
    n, h, w = images.shape
    steps = weights.shape[1]
    if len(weights) != n or len(predictions) != n or len(labels) != n or n == 0:
        raise ValueError(
            f"attention_over_image: {n} images, {len(weights)} rows of weights, {len(predictions)} predictions, "
            f"{len(labels)} labels; all four must be equal and at least 1"
        )
    if steps == 0 or h % steps:
        raise ValueError(f"attention_over_image: {steps} steps do not divide the {h} rows of an image")
    low, high = finite_range([images])
    columns = min(columns, n)
    rows = -(-n // columns)
    band, gap = h / steps, 0.1 * w
    largest = float(weights.max()) or 1.0

    cell = min(WIDTH / columns, 2.3)
    fig = new_figure(cell * columns, rows * (cell * 0.48 * h / w + 0.36) + 0.3, "compressed")
    for i in range(n):
        ax = plain_axes(fig.add_subplot(rows, columns, i + 1), frame=False)
        ax.imshow(images[i], cmap="gray", vmin=low, vmax=high, interpolation="nearest", extent=(0, w, h, 0))
        start = w + gap
        middles = (np.arange(steps) + 0.5) * band
        ax.barh(middles, weights[i] / largest * w, height=0.8 * band, left=start, color=LINES[0])
        ax.plot([start, start], [0, h], color=MUTED, linewidth=0.8)
        equal = start + w / steps / largest
        if equal <= start + w:
            ax.plot([equal, equal], [0, h], color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
        ax.set(xlim=(0, 2 * w + gap), ylim=(h, 0), aspect="equal")
        ax.set_yticks([])
        ax.set_xticks([start, start + w], ["0", f"{largest:.2f}"])
        ax.tick_params(labelsize=TINY, colors=MUTED, pad=1)
        right = predictions[i] == labels[i]
        title = f"says {predictions[i]}, right" if right else f"says {predictions[i]}, is {labels[i]}"
        ax.set_title(readable_text(title), fontsize=SMALL, color=INK if right else WRONG, pad=3, loc="left")
    fig.supxlabel("attention weight of each row (dashed: equal weights)", fontsize=SMALL, color=MUTED)
    return fig


@styled
def attention_maps(
    weights: Any,
    tokens: Sequence[Any],
    key_tokens: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """Every head's attention weights (H, T, S): a row per query token, a column per key token. Returns a Figure.

    tokens: T labels for the rows, and for the columns too unless `key_tokens` (S labels) are given. names: H titles.
    One colour scale for all heads; colour follows the square root of the weight, so that small weights show.
    """
    from matplotlib.colors import PowerNorm

    weights = array_of("weights", weights, "(H, T, S)", finite=True).astype(np.float64)
    heads, t, s = weights.shape
    keys = list(tokens if key_tokens is None else key_tokens)
    if len(tokens) != t or len(keys) != s or weights.size == 0:
        raise ValueError(
            f"attention_maps: weights {weights.shape} need {t} query and {s} key labels, got {len(tokens)} and "
            f"{len(keys)}"
        )
    if names is not None and len(names) != heads:
        raise ValueError(f"attention_maps: {heads} heads but {len(names)} names")
    rows_text, keys_text = [readable_token(x) for x in tokens], [readable_token(x) for x in keys]

    longest = max(len(x) for x in rows_text)
    side_margin = 0.25 + 0.07 * longest
    # The most columns whose labels still get 7 points each; past that, only some tokens are labelled.
    fits = [c for c in range(1, min(heads, 4) + 1) if (WIDTH - side_margin - 0.7) / c / max(t, s) * 72 >= 7.0]
    columns = max(fits, default=1 if heads == 1 else 2)
    rows = -(-heads // columns)
    columns = -(-heads // rows)  # four heads as 2 x 2, not as 3 + 1
    cell = min((WIDTH - side_margin - 0.7) / columns, 3.2 if heads > 1 else 5.0)  # inches
    points = cell / max(t, s) * 72  # points per token
    size = float(np.clip(points * 0.8, 5.5, SMALL))
    every = max(1, int(np.ceil(7.0 / points)))
    upright = all(len(x) <= 2 for x in keys_text)
    below = 0.3 if upright else 0.25 + 0.07 * max(len(x) for x in keys_text)

    fig = new_figure(
        cell * columns + side_margin + 0.7, rows * (cell * t / max(t, s) + 0.3) + below + 0.15, "compressed"
    )
    grid = fig.subplots(rows, columns, squeeze=False)
    norm = PowerNorm(0.5, vmin=0.0, vmax=float(weights.max()) or 1.0)
    shown = None
    for i, ax in enumerate(grid.flat):
        if i >= heads:
            ax.set_axis_off()
            continue
        plain_axes(ax)
        for spine in ax.spines.values():
            spine.set(visible=True, color=FAINT, linewidth=0.8)
        shown = ax.imshow(weights[i], cmap="Blues", norm=norm, interpolation="nearest")
        left, bottom = i % columns == 0, i + columns >= heads
        ax.set_yticks(range(0, t, every), rows_text[::every] if left else [""] * len(rows_text[::every]))
        ax.set_xticks(range(0, s, every), keys_text[::every] if bottom else [""] * len(keys_text[::every]))
        ax.tick_params(labelsize=size, colors=INK, length=0, pad=2)
        ax.tick_params(axis="x", labelrotation=0 if upright else 90)
        ax.set_title(readable_text(names[i] if names is not None else f"head {i + 1}"), fontsize=SMALL, pad=3)
    fig.supylabel("query: the token that looks", fontsize=SMALL, color=MUTED)
    fig.supxlabel("key: the token looked at", fontsize=SMALL, color=MUTED)
    bar = fig.colorbar(shown, ax=grid, shrink=0.6, aspect=28, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=TINY, colors=MUTED, length=2)
    bar.set_label("attention weight", fontsize=TINY, color=MUTED)
    return fig
