"""Grids of small grey images: data, reconstructions, latent traversals, and weights drawn as images.

A grid is one mosaic array drawn once, with white space between the tiles: quick however many images there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minillm.explain.style import (
    INK,
    SMALL,
    TINY,
    WIDTH,
    array_of,
    finite_range,
    new_figure,
    plain_axes,
    readable_text,
    styled,
    wrapped,
)

LARGEST_TILE = 0.8  # inches


def mosaic(images: np.ndarray, gap_y: int, gap_x: int) -> np.ndarray:
    """(rows, cols, h, w) -> (rows * (h + gap_y) - gap_y, cols * (w + gap_x) - gap_x), NaN between the tiles."""
    rows, cols, h, w = images.shape
    canvas = np.full((rows, h + gap_y, cols, w + gap_x), np.nan, dtype=np.float64)
    canvas[:, :h, :, :w] = images.transpose(0, 2, 1, 3)  # (rows, h, cols, w)
    canvas = canvas.reshape(rows * (h + gap_y), cols * (w + gap_x))
    return canvas[: canvas.shape[0] - gap_y, : canvas.shape[1] - gap_x]


def _draw_tiles(
    images: np.ndarray,
    value_range: tuple[float, float],
    *,
    row_labels: Sequence[str] | None = None,
    col_labels: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    cmap: str = "gray",
) -> Any:
    """(rows, cols, h, w) as one Figure; `titles` (at most rows * cols) stand above the tiles."""
    import matplotlib

    rows, cols, h, w = images.shape
    margin = 0.1 if row_labels is None else 0.1 + 0.072 * max(len(line) for s in row_labels for line in s.split("\n"))
    tile = min(LARGEST_TILE, (WIDTH - margin) / cols * w / (w + max(1, round(0.08 * w))))  # inches
    per_pixel = tile / w
    gap_x = max(1, round(0.08 * w))
    title_lines = 0 if titles is None else max(t.count("\n") + 1 for t in titles)
    gap_y = gap_x if titles is None else max(gap_x, int(np.ceil((0.06 + 0.135 * title_lines) / per_pixel)))
    canvas = mosaic(images, gap_y, gap_x)

    height = canvas.shape[0] * per_pixel + (0.35 if col_labels is not None else 0.15) + (titles is not None) * 0.2
    fig = new_figure(canvas.shape[1] * per_pixel + margin, height)
    ax = plain_axes(fig.add_subplot(), frame=False)
    low, high = value_range
    colours = matplotlib.colormaps[cmap].with_extremes(bad="white")
    ax.imshow(canvas, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    centres_x = np.arange(cols) * (w + gap_x) + (w - 1) / 2
    centres_y = np.arange(rows) * (h + gap_y) + (h - 1) / 2
    ax.set_xticks(centres_x if col_labels is not None else [], [readable_text(s) for s in col_labels or []])
    ax.set_yticks(centres_y if row_labels is not None else [], [readable_text(s) for s in row_labels or []])
    ax.tick_params(labelsize=SMALL, colors=INK, top=False, labeltop=True, bottom=False, labelbottom=False, pad=2)
    for i, title in enumerate(titles or []):
        x, y = centres_x[i % cols], (i // cols) * (h + gap_y) - 0.5
        ax.text(x, y - 0.03 / per_pixel, readable_text(title), ha="center", va="bottom", fontsize=TINY, linespacing=1.0)
    return fig


def _in_rows(images: np.ndarray, columns: int) -> np.ndarray:
    """(N, h, w) -> (rows, columns, h, w), the last row filled with NaN, which is drawn white."""
    n, h, w = images.shape
    rows = -(-n // columns)
    padded = np.full((rows * columns, h, w), np.nan)
    padded[:n] = images
    return padded.reshape(rows, columns, h, w)


@styled
def image_grid(
    images: Any,
    columns: int = 10,
    titles: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
) -> Any:
    """Images (N, h, w) in rows of `columns`, low values black and high values white. Returns a Figure.

    titles: N short labels above the images. value_range: the values drawn black and white; default: the smallest
    and the largest of all images together, so that brightness can be compared.
    """
    images = array_of("images", images, "(N, h, w)").astype(np.float64)
    if images.size == 0 or columns < 1:
        raise ValueError(f"image_grid: nothing to draw: images {images.shape}, columns {columns}")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"image_grid: {len(images)} images but {len(titles)} titles")
    limits = value_range or finite_range([images])
    texts = None if titles is None else [str(title) for title in titles]
    return _draw_tiles(_in_rows(images, min(columns, len(images))), limits, titles=texts)


@styled
def reconstructions(
    originals: Any,
    reconstructions: Any,
    image_shape: tuple[int, int],
    n: int = 12,
    extra: Mapping[str, Any] | None = None,
    *,
    names: tuple[str, str] = ("original", "model"),
    value_range: tuple[float, float] | None = None,
) -> Any:
    """The first `n` originals above their reconstructions, one labelled row each. Returns a Figure.

    originals, reconstructions: (N, h*w) or (N, h, w). extra: more rows of the same shapes, label -> images, such as
    {"PCA": ...}. All rows share one grey scale, the originals' own, so that a washed-out reconstruction shows.
    """
    h, w = image_shape
    named = {names[0]: originals, names[1]: reconstructions, **(extra or {})}
    rows = []
    for label, images in named.items():
        images = np.asarray(images)
        flat = array_of(label, images.reshape(len(images), -1) if images.ndim == 3 else images, "(N, h*w)")
        if flat.shape[1] != h * w or len(flat) != len(originals):
            raise ValueError(
                f"reconstructions: row {label!r} has shape {images.shape}, expected ({len(originals)}, {h * w})"
            )
        rows.append(flat[:n].reshape(-1, h, w).astype(np.float64))
    limits = value_range or finite_range(rows[:1])
    return _draw_tiles(np.stack(rows), limits, row_labels=[wrapped(label, 16) for label in named])


@styled
def traversals(
    images: Any,
    row_labels: Sequence[str] | None = None,
    col_labels: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
) -> Any:
    """Decoded images (rows, cols, h, w): one latent per row, its value changing from left to right."""
    images = array_of("images", images, "(rows, cols, h, w)").astype(np.float64)
    for name, labels, count in (("row", row_labels, images.shape[0]), ("col", col_labels, images.shape[1])):
        if labels is not None and len(labels) != count:
            raise ValueError(f"traversals: {count} {name}s of images but {len(labels)} {name}_labels")
    rows = None if row_labels is None else [wrapped(str(s), 16) for s in row_labels]
    cols = None if col_labels is None else [str(s) for s in col_labels]
    return _draw_tiles(images, value_range or finite_range([images]), row_labels=rows, col_labels=cols)


@styled
def weights_as_images(weights: Any, image_shape: tuple[int, int], columns: int = 8) -> Any:
    """The weights (units, h*w) of a layer that looks at images, one tile per unit: blue < 0, white = 0, red > 0.

    Every unit is divided by its own largest absolute weight, so tiles show patterns and not sizes.
    """
    weights = array_of("weights", weights, "(units, h*w)").astype(np.float64)
    h, w = image_shape
    if weights.shape[1] != h * w or not len(weights):
        raise ValueError(f"weights_as_images: weights {weights.shape} do not fit images of {h} x {w}")
    largest = np.abs(weights).max(axis=1, keepdims=True)
    tiles = (weights / np.where(largest > 0, largest, 1.0)).reshape(-1, h, w)
    return _draw_tiles(_in_rows(tiles, min(columns, len(tiles))), (-1.0, 1.0), cmap="RdBu_r")
