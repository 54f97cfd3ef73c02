"""The dims that a reduction reduces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.arrays import is_array

from .views import axes_of


def reduced(shape: tuple[int, ...], dim: Any) -> tuple[int, ...]:
    """The axes that `dim` stands for, counted from the front."""
    if dim is None:
        return tuple(range(len(shape)))
    return () if not shape and dim in (0, -1) else tuple(axes_of(dim, len(shape)))


def restored(y: Any, shape: tuple[int, ...], dim: Any) -> Any:
    """What a reduction of an input of `shape` gave, with its dims back at size 1: it broadcasts against the input."""
    axes = reduced(shape, dim)
    return y.reshape(tuple([1 if i in axes else n for i, n in enumerate(shape)]))


def count(shape: tuple[int, ...], dim: Any) -> int:
    """How many elements go into one result."""
    return math.prod([shape[a] for a in reduced(shape, dim)])


def array(x: Any) -> Any:
    return x if is_array(x) else np.asarray(x)
