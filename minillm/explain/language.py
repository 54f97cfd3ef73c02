"""A language model's training and what it learned: rate and gradient over steps, every head's attention, each guess.

Functions take plain arrays, dicts and strings, and return a `matplotlib.figure.Figure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    readable_text,
    readable_token,
    styled,
)

MOST_LAYERS, MOST_HEADS = 8, 8  # of a grid of attention maps: a map keeps at least 0.8 inches
MEMORY_COLOURS = ("#1f6fb5", "#c2570c", "#717581", "#6f2da8", "#2f7d4f", "#8a5a44")  # dark: figures on them are white


@styled
def step_curves(
    lr: Sequence[tuple[float, float]], grad_norm: Sequence[tuple[float, float]], clip_norm: float | None = None
) -> Any:
    """Learning rate and norm of the gradient, each a list of (step, value), one above the other.

    clip_norm: a dashed line; gradients above it were shortened to it. Values that are not finite leave a gap.
    """
    lines = [np.asarray(points, np.float64).reshape(-1, 2) for points in (lr, grad_norm)]  # (points, 2)
    if not all(np.isfinite(points).all(axis=1).any() for points in lines):
        raise ValueError("step_curves: lr and grad_norm each need at least one point with a finite value")
    fig = new_figure(5.8, 3.4)
    rate, norm = fig.subplots(2, 1, sharex=True)
    for ax, points, colour, name in zip((rate, norm), lines, (LINES[3], LINES[2]), ("learning rate", "gradient norm")):
        plain_axes(ax)
        ax.plot(*points.T, color=colour, linewidth=1.4, marker="o" if len(points) < 2 else None, markersize=4)
        ax.set_ylabel(name)
        ax.grid(axis="y", color=FAINT, linewidth=0.5)
        ax.set_axisbelow(True)
        ax.margins(x=0 if len(points) > 1 else 0.05)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="plain", useOffset=False)
    norms = lines[1][np.isfinite(lines[1][:, 1]), 1]
    if (norms > 0).all():
        _log_axis(norm, norms, clip_norm)
    if clip_norm is not None:
        norm.axhline(clip_norm, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)))
        norm.annotate(
            f"cut to {clip_norm:g}", (1.01, clip_norm), xycoords=("axes fraction", "data"), fontsize=SMALL,
            va="center", color=INK, annotation_clip=False,
        )  # fmt: skip
    norm.set_xlabel("step")
    return fig


def _log_axis(ax: Any, values: np.ndarray, clip_norm: float | None) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = np.append(values, [] if clip_norm is None else clip_norm)
    low, high = shown.min() / 1.3, shown.max() * 1.3
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def evenly(count: int, most: int) -> list[int]:
    """Of 0 .. count - 1 at most `most`, spread evenly, the first and the last among them.

    >>> evenly(3, 8), evenly(12, 4)
    ([0, 1, 2], [0, 4, 7, 11])
    """
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]


@styled
def attention_grid(weights: Any, tokens: Sequence[Any]) -> Any:
    """The attention weights (layers, heads, T, T) of every head on one text: a row of maps per layer, from the first.

    A map has a row per token that looks and a column per token looked at; darker is more, by the square root of the
    weight. Of more than MOST_LAYERS layers or MOST_HEADS heads, those that `evenly` takes; each map has its numbers.
    """
    from matplotlib.colors import PowerNorm

    weights = array_of("weights", weights, "(layers, heads, T, T)", finite=True).astype(np.float64)
    if weights.size == 0 or weights.shape[2:] != (len(tokens), len(tokens)):
        raise ValueError(f"attention_grid: weights {weights.shape} and {len(tokens)} tokens do not belong together")
    layers, heads = evenly(weights.shape[0], MOST_LAYERS), evenly(weights.shape[1], MOST_HEADS)
    labels = [readable_token(t, longest=6) for t in tokens]
    cell = min(1.7, (WIDTH - 0.8) / len(heads))
    fig = new_figure(cell * len(heads) + 0.8, (cell + 0.16) * len(layers) + 0.55, "compressed")
    grid = fig.subplots(len(layers), len(heads), squeeze=False)
    norm = PowerNorm(0.5, vmin=0.0, vmax=float(weights.max()) or 1.0)
    every = max(1, int(np.ceil(6.5 * len(tokens) / (72 * cell))))  # a label needs 6.5 points
    upright = all(len(label) <= 2 for label in labels)
    for row, layer in zip(grid, layers):
        for ax, head in zip(row, heads):
            plain_axes(ax)
            for spine in ax.spines.values():
                spine.set(visible=True, color=FAINT, linewidth=0.6)
            ax.imshow(weights[layer, head], cmap="Blues", norm=norm, interpolation="nearest")
            ax.set_title(f"head {head + 1}" if layer == layers[0] else "", fontsize=TINY, pad=2, color=MUTED)
            last, first = layer == layers[-1], head == heads[0]
            places = range(0, len(tokens), every)
            ax.set_xticks(places if last else [], labels[::every] if last else [])
            ax.set_yticks(places if first else [], labels[::every] if first else [])
            ax.tick_params(labelsize=5.5, colors=INK, length=0, pad=1)
            ax.tick_params(axis="x", labelrotation=0 if upright else 90)
            if first:
                ax.set_ylabel(f"layer {layer + 1}", fontsize=TINY, color=MUTED, labelpad=3)
    return fig


@styled
def predictions(tokens: Sequence[Any], following: Any, probabilities: Any, names: Sequence[Any], k: int = 5) -> Any:
    """What a model expected at each place of a text: a row per token, the token that came, and the k likeliest ones.

    tokens         T names, of what the model read
    following      T ids, of the token that came next
    probabilities  (T, V), of the token after each of them
    names          V names
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    p = array_of("probabilities", probabilities, "(T, V)", finite=True).astype(np.float64)
    following = np.asarray(following, np.int64).reshape(-1)
    if p.size == 0 or (len(tokens), len(following), len(names)) != (len(p), len(p), p.shape[1]):
        raise ValueError(
            f"predictions: {len(tokens)} tokens, {len(following)} that follow and {len(names)} names; probabilities "
            f"{p.shape} need a token and its follower for each row, a name for each column"
        )
    T, k = len(p), min(k, p.shape[1])
    best = np.argsort(-p, axis=1, kind="stable")[:, :k]  # (T, k)
    true = np.take_along_axis(p, following[:, None], 1)[:, 0]  # (T,)
    fig = new_figure(WIDTH, 0.235 * T + 0.75)
    came, likely = fig.subplots(1, 2, sharey=True, width_ratios=(0.34, 0.66))
    places = np.arange(T)
    plain_axes(came, frame=False)
    came.barh(places, 100 * true, height=0.72, color=LINES[0])
    for place, i, value in zip(places, following, true):
        text = f" {readable_token(names[int(i)], longest=10)}  {percent(value)}"
        came.text(100 * value, place, text, va="center", fontsize=SMALL, color=INK)
    came.set(xlim=(0, 175), ylim=(T - 0.5, -0.5))
    came.set_xticks([0, 50, 100])
    came.set_yticks(places, [readable_token(t, longest=10) for t in tokens])
    came.tick_params(axis="y", labelsize=SMALL, colors=INK)
    came.tick_params(axis="x", labelsize=TINY)
    came.set_title("what it read, what came, %", fontsize=SMALL, loc="left", color=MUTED)

    values = np.take_along_axis(p, best, 1)  # (T, k)
    plain_axes(likely, frame=False)
    likely.imshow(values, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = f"{readable_token(names[int(best[row, column])], longest=8)}  {percent(value)}"
        right = best[row, column] == following[row]
        likely.text(
            column, row, text, ha="center", va="center", fontsize=TINY, color="white" if value > 0.35 else INK,
            fontweight="bold" if right else "normal",
        )  # fmt: skip
        if right:
            likely.add_patch(Rectangle((column - 0.48, row - 0.45), 0.96, 0.9, fill=False, color=LINES[1], lw=1.4))
    likely.set_xticks(range(k), [f"{i + 1}." for i in range(k)])
    likely.tick_params(axis="y", labelleft=False)
    likely.tick_params(axis="x", labelsize=TINY)
    likely.set_title("its likeliest guesses, %; framed: the one that came", fontsize=SMALL, loc="left", color=MUTED)
    return fig


def percent(p: float) -> str:
    """
    >>> percent(0.513), percent(0.004), percent(0.00001), percent(0.0)
    ('51', '0.4', '<0.1', '0')
    """
    return f"{100 * p:.0f}" if p >= 0.0095 or p == 0 else f"{100 * p:.1f}" if p >= 0.0005 else "<0.1"


@styled
def memory_bars(steps: Mapping[str, Mapping[str, float]]) -> Any:
    """Memory of training steps, {name of a step: {what holds it: bytes}}: a bar each, stacked in the order given."""
    names = list(dict.fromkeys(name for parts in steps.values() for name in parts))
    sizes = np.array([[float(parts.get(name, 0.0)) for name in names] for parts in steps.values()])  # (steps, parts)
    if sizes.size == 0 or not np.isfinite(sizes).all() or (sizes < 0).any():
        raise ValueError("memory_bars: give at least one step, each a dict of sizes in bytes of at least 0")
    largest = sizes.sum(1).max()
    unit, scale = ("GB", 1e9) if largest >= 2e9 else ("MB", 1e6) if largest >= 2e5 else ("kB", 1e3)
    sizes = sizes / scale
    longest = sizes.sum(1).max() or 1.0
    fig = new_figure(6.4, 0.95 + 0.42 * len(steps))
    ax = plain_axes(fig.add_subplot())
    places, start = np.arange(len(steps)), np.zeros(len(steps))
    for i, name in enumerate(names):
        colour = MEMORY_COLOURS[i % len(MEMORY_COLOURS)]
        ax.barh(places, sizes[:, i], left=start, height=0.62, color=colour, label=readable_text(name))
        for place, left, size in zip(places, start, sizes[:, i]):
            if size > 0.09 * longest:  # there is room for it
                ax.text(left + size / 2, place, f"{size:.3g}", ha="center", va="center", fontsize=TINY, color="white")
        start = start + sizes[:, i]
    for place, total in zip(places, start):
        ax.text(total, place, f" {total:.3g}", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(places, [readable_text(name) for name in steps])
    ax.tick_params(axis="y", colors=INK, length=0)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * longest)
    ax.set_xlabel(f"memory of a step, {unit}")
    fig.legend(loc="outside upper left", ncols=len(names), fontsize=TINY, frameon=False, handlelength=1, handleheight=1)
    return fig
