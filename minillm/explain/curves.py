"""Loss curves, with the values that put a loss into perspective drawn as dashed lines."""

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
    format_value,
    new_figure,
    plain_axes,
    readable_text,
    spread,
    styled,
    wrapped,
)

DASHES = ((0, (4, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))


def _points(name: str, series: Sequence[tuple[float, float]], log: bool) -> np.ndarray:
    points = np.asarray(series, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"history[{name!r}]: expected a list of (step, value) pairs, got shape {points.shape}")
    if not np.isfinite(points).all(axis=1).any():
        raise ValueError(f"history[{name!r}]: none of its {len(points)} values is finite; the run diverged")
    if log and (points[:, 1] <= 0).any():
        raise ValueError(f"history[{name!r}]: a logarithmic axis needs values above 0; draw it with log=False")
    return points  # (steps, 2)


@styled
def loss_curves(
    history: Mapping[str, Sequence[tuple[float, float]]],
    baselines: Mapping[str, float] | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
    log: bool = False,
    title: str = "",
) -> Any:
    """Lines of `history` (name -> list of (step, value)) and a dashed line per entry of `baselines` (name -> value).

    Every line is labelled at its right end with its name and last value, so no legend is needed. Values that are
    not finite leave a gap in their line. Returns a Figure.
    """
    if not history:
        raise ValueError("history is empty: give at least one name -> list of (step, value)")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    lines = {name: _points(name, series, log) for name, series in history.items()}
    baselines = {name: float(value) for name, value in (baselines or {}).items()}
    for name, value in baselines.items():
        if not np.isfinite(value) or (log and value <= 0):
            raise ValueError(f"baselines[{name!r}]: {value} cannot be drawn{' on a logarithmic axis' if log else ''}")

    fig = new_figure(5.8, 3.3)
    ax = plain_axes(fig.add_subplot())
    labels: list[tuple[float, str, str]] = []  # (value at the right end, text, colour)
    for i, (name, points) in enumerate(lines.items()):
        colour = LINES[i % len(LINES)]
        dense = len(points) > 300  # minibatch losses: a thin line, so that the noise does not hide the others
        marker = "o" if len(points) < 2 else None
        width, alpha = (0.8, 0.65) if dense else (1.8, 1.0)
        ax.plot(*points.T, color=colour, linewidth=width, alpha=alpha, marker=marker, markersize=4, zorder=3 - dense)
        last = points[np.isfinite(points[:, 1]), 1][-1]
        labels.append((last, f"{name}\u00a0{format_value(last)}", colour))
    for i, (name, value) in enumerate(baselines.items()):
        ax.axhline(value, color=MUTED, linewidth=1.0, linestyle=DASHES[i % len(DASHES)], zorder=1)
        labels.append((value, f"{name}\u00a0{format_value(value)}", INK))

    ax.margins(x=0)
    if log:
        ax.set_yscale("log")
        low, high = (float(v) for v in ax.get_ylim())
        few = np.log10(high / low) < 2.2  # within two decades or so, label 2 and 5 too
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel(readable_text(xlabel))
    ax.set_ylabel(readable_text(ylabel))
    if title:
        ax.set_title(readable_text(title), loc="left")
    _label_right_ends(ax, labels)
    return fig


def _label_right_ends(ax: Any, labels: list[tuple[float, str, str]]) -> None:
    """Write each label right of the axes at its value, moved up or down where two would overlap."""
    low, high = ax.get_ylim()
    scale = np.log if ax.get_yscale() == "log" else float
    ax.set_ylim(low, high)
    true = [float((scale(value) - scale(low)) / (scale(high) - scale(low))) for value, _, _ in labels]
    # The no-break space keeps a value on the line of its name's last word
    texts = [wrapped(text, 26).replace("\u00a0", " ") for _, text, _ in labels]
    line_height = 0.062  # of the axes' height, at this font size
    heights = [line_height * (text.count("\n") + 1) + 0.015 for text in texts]
    for y, at, text, (_, _, colour) in zip(true, spread(true, heights, -0.05, 1.05), texts, labels):
        ax.plot([1.0, 1.02, 1.03], [y, at, at], transform=ax.transAxes, color=colour, linewidth=0.6, clip_on=False)
        ax.text(
            1.037, at, readable_text(text), transform=ax.transAxes, color=colour, fontsize=SMALL, va="center",
            linespacing=1.05,
        )  # fmt: skip
