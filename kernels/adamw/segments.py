"""Parts of a flat buffer with settings of their own: (start, stop, value) in rising order, the rest is 0."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

Segment = tuple[int, int, float]


class Cover(NamedTuple):
    """A buffer without gaps: elements bounds[s] .. bounds[s + 1] - 1 have values[s]."""

    bounds: np.ndarray  # (S + 1,) int64, from 0 to the size
    values: np.ndarray  # (S,) float64


@lru_cache(maxsize=64)  # an optimizer gives the same segments at every step
def cover(segments: tuple[Segment, ...], size: int) -> Cover:
    """The segments and the gaps between them, which get 0. ValueError where they overlap or leave 0 .. size.

    >>> cover(((2, 5, 0.1),), 8)
    Cover(bounds=array([0, 2, 5, 8]), values=array([0. , 0.1, 0. ]))
    """
    bounds, values = [0], []
    for segment in segments:
        if len(segment) != 3:
            raise ValueError(f"adamw_flat: a weight_decay segment is (start, stop, decay), got {segment}")
        start, stop, value = segment
        if not bounds[-1] <= start <= stop <= size:
            raise ValueError(
                f"adamw_flat: weight_decay segment {segment} must lie within {bounds[-1]} .. {size}: segments come in "
                f"rising order, do not overlap, and end with the {size} elements of the buffer"
            )
        for end, decay in ((start, 0.0), (stop, value)):
            if end > bounds[-1]:
                bounds.append(int(end))
                values.append(float(decay))
    if size > bounds[-1]:
        bounds.append(size)
        values.append(0.0)
    return Cover(np.array(bounds, np.int64), np.array(values, np.float64))
