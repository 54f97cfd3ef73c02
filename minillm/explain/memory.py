"""What a training step keeps in memory, as stacked bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minillm.explain.style import (
    INK,
    MUTED,
    PALETTE,
    SMALL,
    TINY,
    new_figure,
    plain_axes,
    readable_text,
    styled,
    wrapped,
)

LETTER = 0.065  # inches that a letter of size TINY is wide, on average


@styled
def memory_bars(bars: Mapping[str, Mapping[str, float]]) -> Any:
    """A bar for each entry of `bars` (name -> {part: bytes}), cut into its parts, with the total. Returns a Figure.

    A part has one colour in all bars, and its size is written into it where there is room; a name says how its figures
    were found, for instance "this run, computed". Parts of 0 bytes are left out.
    """
    cleaned = {name: {part: float(size) for part, size in parts.items() if size} for name, parts in bars.items()}
    sizes = [size for parts in cleaned.values() for size in parts.values()]
    if not sizes or not np.isfinite(sizes).all() or min(sizes) < 0:
        raise ValueError(f"memory_bars: expected name -> {{part: bytes of 0 or more}}, and some above 0; got {bars!r}")
    unit, divisor = unit_of(max(sum(parts.values()) for parts in cleaned.values()))
    names = list(dict.fromkeys(part for parts in cleaned.values() for part in parts))
    colours = {part: PALETTE[i % len(PALETTE)] for i, part in enumerate(names)}

    labels = [wrapped(readable_text(name), 24) for name in cleaned]
    fig = new_figure(height=1.15 + 0.42 * len(cleaned) + 0.14 * sum(label.count("\n") for label in labels))
    ax = plain_axes(fig.add_subplot())
    largest = max(sum(parts.values()) for parts in cleaned.values())
    across = 4.4  # inches that the longest bar is wide, about
    for place, parts in enumerate(cleaned.values()):
        start = 0.0
        for part, size in parts.items():
            ax.barh(place, size / divisor, left=start / divisor, height=0.66, color=colours[part], edgecolor="white")
            text = amount(size, divisor)
            if size / largest * across > LETTER * len(text) + 0.06:
                ax.text((start + size / 2) / divisor, place, text, ha="center", va="center", fontsize=TINY,
                        color=on(colours[part]))  # fmt: skip
            start += size
        ax.text(start / divisor, place, f" {amount(start, divisor)} {unit}", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=SMALL, colors=INK, length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, 1.16 * largest / divisor)
    ax.set_xlabel(f"memory, {unit}", color=MUTED)
    from matplotlib.patches import Patch

    handles = [Patch(color=colours[part], label=readable_text(part)) for part in names]
    fig.legend(
        handles=handles, loc="outside upper left", ncols=min(len(handles), 5), frameon=False, fontsize=TINY,
        handlelength=1.0, columnspacing=1.2,
    )  # fmt: skip
    return fig


def on(colour: str) -> str:
    """A colour for text that stands on "#rrggbb": dark on light and white on dark, by luminance (ITU-R BT.709)."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return INK if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.4 else "white"


def unit_of(size: float) -> tuple[str, float]:
    """The unit in which a figure of so many bytes is read best, and its bytes.

    >>> unit_of(3_500_000), unit_of(12)
    (('MB', 1000000.0), ('bytes', 1.0))
    """
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= divisor:
            return unit, divisor
    return "bytes", 1.0


def amount(size: float, divisor: float) -> str:
    """
    >>> amount(3_250_000, 1e6), amount(123_400_000, 1e6), amount(12_000, 1e6)
    ('3.2', '123', '0.0')
    """
    value = size / divisor
    return f"{value:,.0f}" if value >= 100 or divisor == 1 else f"{value:.1f}"
