"""The latent space as a map: one point per example, one colour per class."""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.explain.style import (
    FAINT,
    INK,
    PALETTE,
    TEXT,
    array_of,
    new_figure,
    plain_axes,
    readable_text,
    styled,
)

MARKERS = "os^Dv"  # past ten classes the colours repeat with another marker


def project_to_plane(points: Any) -> tuple[np.ndarray, np.ndarray]:
    """PCA to two dimensions: points (N, d) -> (coordinates (N, 2), shares (2,)).

    The coordinates are along the two orthogonal directions of largest variance, from the mean; `shares` are the
    parts of the total variance that they keep (they add up to at most 1). The sign of a direction is arbitrary;
    here its largest component is positive, so that the same points always give the same map.
    """
    points = array_of("points", points, "(N, d)", finite=True).astype(np.float64)
    if points.shape[0] < 2 or points.shape[1] < 2:
        raise ValueError(f"project_to_plane: needs at least 2 points and 2 dimensions, got {points.shape}")
    centred = points - points.mean(axis=0)  # (N, d)
    variances, directions = np.linalg.eigh(centred.T @ centred)  # (d,), (d, d): ascending
    plane = directions[:, [-1, -2]]  # (d, 2)
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    total = variances.sum()
    shares = variances[[-1, -2]] / total if total > 0 else np.zeros(2)
    return centred @ plane, np.clip(shares, 0.0, 1.0)


@styled
def latent_map(points: Any, labels: Any, names: Any = None, title: str = "") -> Any:
    """Scatter of points (N, d) coloured by labels (N,), each class named at its centre. Returns a Figure.

    d = 2 is drawn as it is; d > 2 is projected by `project_to_plane`, and the axes say so. `names`: class -> name,
    as a dict or a sequence; default: the label itself.
    """
    points = array_of("points", points, "(N, d)", finite=True).astype(np.float64)
    labels = array_of("labels", labels, "(N,)", dtypes="biufUS")
    if len(labels) != len(points):
        raise ValueError(f"latent_map: {len(points)} points but {len(labels)} labels")
    axes_names: tuple[str, ...] = ("latent 1", "latent 2")
    if points.shape[1] != 2:
        dimensions = points.shape[1]
        points, shares = project_to_plane(points)
        axes_names = tuple(
            f"principal direction {i + 1} of {dimensions} latents ({share:.0%} of variance)"
            for i, share in enumerate(shares)
        )

    fig = new_figure(5.6, 4.9)
    ax = plain_axes(fig.add_subplot())
    classes = np.unique(labels)
    size = float(np.clip(6000 / max(len(points), 1), 4, 26))
    colours = [PALETTE[i % len(PALETTE)] for i in range(len(classes))]
    for i, label in enumerate(classes):
        here = points[labels == label]
        marker = MARKERS[i // len(PALETTE) % len(MARKERS)]
        ax.scatter(*here.T, s=size, color=colours[i], marker=marker, alpha=0.75, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_xlabel(axes_names[0])
    ax.set_ylabel(axes_names[1])
    if title:
        ax.set_title(readable_text(title), loc="left")
    centres = np.array([np.median(points[labels == label], axis=0) for label in classes])
    width = float(np.ptp(points, axis=0).max()) or 1.0
    shown = [str(names[label] if names is not None else label) for label in classes]
    room = np.array([[0.035 + 0.022 * len(name), 0.062] for name in shown]) * width  # (classes, 2): a label's size
    for i, (x, y) in enumerate(_apart(centres, room)):
        box = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": colours[i], "linewidth": 1.8}
        ax.text(
            x, y, readable_text(shown[i]), ha="center", va="center", fontsize=TEXT, fontweight="bold", color=INK,
            bbox=box,
        )  # fmt: skip
    return fig


def _apart(places: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Move places (n, 2) until boxes of size `room` (n, 2) around them no longer overlap, a little at a time."""
    places = places.copy()
    for _ in range(300):
        moved = False
        for i, j in zip(*np.triu_indices(len(places), 1)):
            offset = places[i] - places[j]  # (2,)
            overlap = (room[i] + room[j]) / 2 - np.abs(offset)  # (2,)
            if (overlap > 1e-9 * room[i]).all():
                axis = int(np.argmin(overlap))  # the shorter way out
                push = (overlap[axis] / 2) * (1.0 if offset[axis] >= 0 else -1.0)
                places[i, axis] += push
                places[j, axis] -= push
                moved = True
        if not moved:
            break
    return places
