"""One look for every picture: sizes, colours, fonts, and the few helpers that all figures share.

Matplotlib is imported inside functions, so that `import minillm` stays quick, and only its object API is used:
a `matplotlib.figure.Figure` that belongs to the caller, never pyplot's global list of figures.
"""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

WIDTH = 7.2  # inches: the width of the report's text column at 96 CSS pixels per inch
TEXT, SMALL, TINY = 10.0, 9.0, 8.0  # font sizes in points
INK, MUTED, FAINT = "#1f2328", "#57606a", "#d0d7de"  # text and lines, axis labels, rules and tile borders

# Ten colours chosen to stay apart under colour-vision deficiency (M. Petroff, arXiv:2107.02270, 2021).
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
LINES = ("#1f6fb5", "#c2570c", "#6f2da8", "#2f7d4f", "#8a5a44")  # darker: thin lines and labels on white
WRONG = "#bd1f01"

RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same glyphs on every machine
    "font.size": TEXT,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.facecolor": "white",
    "axes.titlesize": TEXT,
    "axes.labelsize": SMALL,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "minillm",  # the same figure gives the same bytes
}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Run a drawing function under `RC`, whatever the user's own matplotlibrc says, and restore it afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float = WIDTH, height: float = 3.4, layout: Any = "constrained") -> Any:
    """An empty white Figure, `width` x `height` inches, whose layout makes room for labels.

    layout: "compressed" for several axes of fixed aspect, which are then moved close together.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def plain_axes(ax: Any, *, frame: bool = True) -> Any:
    """Axes with only a left and a bottom line (`frame=True`), or with no lines and no tick marks at all."""
    for side, spine in ax.spines.items():
        spine.set_visible(frame and side in ("left", "bottom"))
    ax.tick_params(labelsize=SMALL, colors=MUTED, length=3 if frame else 0, width=0.8)
    return ax


def array_of(name: str, value: Any, shape: str, *, dtypes: str = "biuf", finite: bool = False) -> np.ndarray:
    """`value` as a NumPy array with as many axes as `shape` names, e.g. "(N, h, w)"; else ValueError or TypeError.

    finite: also refuse NaN and infinity, for pictures that would be wrong or empty with them.
    """
    array = np.asarray(value)
    if array.dtype.kind not in dtypes:
        raise TypeError(
            f"{name}: expected a numeric NumPy array of shape {shape}, got {type(value).__name__} of dtype "
            f"{array.dtype}; pass a Tensor's `.data`, and copy GPU arrays to the host first"
        )
    wanted = 0 if shape == "()" else shape.count(",") + (not shape.endswith(",)"))
    if array.ndim != wanted:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name}: {int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite")
    return array


def format_value(value: float) -> str:
    """A figure as people read it: four significant digits, thousands separated, no exponent where avoidable.

    >>> format_value(0.0123456), format_value(97.25), format_value(1234567.8), format_value(3)
    ('0.01235', '97.25', '1,234,568', '3')
    """
    value = float(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    text = f"{value:,.0f}" if 1000 <= size < 1e12 else f"{value:.4g}"
    return text.replace("-", "−") if text.startswith("-") else text


def literal(text: Any) -> str:
    """Text that matplotlib draws as it stands: a pair of dollar signs would otherwise start a formula."""
    return str(text).replace("$", r"\$")


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())


WHITESPACE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def readable_token(token: Any, *, longest: int = 14) -> str:
    """A token as an axis label: spaces and line ends visible, characters without a glyph as their code point.

    `bytes` are decoded as UTF-8, bad bytes as `\\xNN`; more than `longest` characters end in an ellipsis.

    >>> readable_token(" the"), readable_token("\\n"), readable_token(b"\\xff")
    ('␣the', '↵', '\\\\xff')
    """
    text = token.decode("utf-8", errors="backslashreplace") if isinstance(token, bytes) else str(token)
    known = _glyphs()
    shown = [WHITESPACE.get(c, c) for c in text]
    shown = [c if ord(c) in known and c.isprintable() else f"U+{ord(c):04X}" for c in shown]
    label = "".join(shown)
    if len(label) > longest:
        label = label[: longest - 1] + "…"
    return literal(label) or "∅"


def readable_text(text: Any) -> str:
    """A caption or name that matplotlib can draw: no formulas, no characters without a glyph; line ends are kept."""
    known = _glyphs()
    return literal(
        "".join(c if c == "\n" or (ord(c) in known and c.isprintable()) else f"U+{ord(c):04X}" for c in str(text))
    )


def wrapped(text: str, width: int) -> str:
    """`text` broken into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=True)) or text


def spread(positions: Sequence[float], sizes: Sequence[float], low: float = 0.0, high: float = 1.0) -> list[float]:
    """Move labels of the given `sizes`, centred at `positions`, as little as is simple so that none overlap.

    >>> spread([0.5, 0.5], [0.1, 0.1])
    [0.45, 0.55]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    y = [min(max(positions[i], low + sizes[i] / 2), high - sizes[i] / 2) for i in order]
    gaps = [(sizes[a] + sizes[b]) / 2 for a, b in itertools.pairwise(order)]
    for _ in range(200):  # push overlapping neighbours apart by equal parts, inside the bounds, until they settle
        worst = 0.0
        if y:
            first, last = sizes[order[0]] / 2, sizes[order[-1]] / 2
            y[0], y[-1] = max(y[0], low + first), min(y[-1], high - last)
        for i, gap in enumerate(gaps):
            overlap = gap - (y[i + 1] - y[i])
            if overlap > 1e-6:
                y[i], y[i + 1] = y[i] - overlap / 2, y[i + 1] + overlap / 2
                worst = max(worst, overlap)
        if worst == 0.0:
            break
    placed = [0.0] * len(y)
    for rank, i in enumerate(order):
        placed[i] = round(y[rank], 6)
    return placed


def finite_range(arrays: Iterable[np.ndarray]) -> tuple[float, float]:
    """Smallest and largest finite value of all arrays, widened if they are equal: limits for a grey scale."""
    values = [a[np.isfinite(a)] for a in arrays]
    values = [v for v in values if v.size]
    if not values:
        raise ValueError("nothing to draw: no finite value in the images")
    low, high = float(min(v.min() for v in values)), float(max(v.max() for v in values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)
