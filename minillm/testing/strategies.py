"""Hypothesis strategies for array code: shapes, values, memory layouts, operands that broadcast. Needs `hypothesis`.

@given(arrays(dtype=np.float32))
def test_my_kernel(x): ...
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .conformance import layouts as _layouts

__all__ = ["arrays", "broadcastable", "dims", "finite", "shapes"]


def shapes(
    min_dims: int = 0, max_dims: int = 4, min_side: int = 1, max_side: int = 5
) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes; min_side=0 for empty arrays, too."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def finite(bound: float = 10.0, dtype: Any = np.float64) -> st.SearchStrategy[float]:
    """Numbers in [-bound, bound] without denormals, 0 and whole numbers often among them."""
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(-bound, bound, allow_nan=False, allow_subnormal=False, width=width)  # type: ignore[arg-type]
    return st.one_of(numbers, st.integers(-3, 3).map(float))


@st.composite
def arrays(
    draw: Any, shape: Any = None, dtype: Any = np.float64, bound: float = 10.0, layouts: bool = True
) -> np.ndarray:
    """An array of finite numbers; layouts: in any memory order (Fortran, reversed, stepped, offset, read-only)."""
    shape = draw(shapes() if shape is None else shape) if shape is None or hasattr(shape, "example") else shape
    count = int(np.prod(shape))
    values = draw(st.lists(finite(bound, dtype), min_size=count, max_size=count))
    x = np.array(values, dtype).reshape(shape)
    if not layouts:
        return x
    versions = [view for name, view in _layouts(x) if name != "read-only"]
    return versions[draw(st.integers(0, len(versions) - 1))]


@st.composite
def broadcastable(draw: Any, count: int = 2, max_dims: int = 3, max_side: int = 4) -> list[tuple[int, ...]]:
    """`count` shapes that broadcast with each other: dims dropped on the left, or set to 1."""
    full = draw(shapes(0, max_dims, 1, max_side))
    result = []
    for _ in range(count):
        kept = full[draw(st.integers(0, len(full))) :]
        result.append(tuple(n if draw(st.booleans()) else 1 for n in kept))
    return result


def dims(ndim: int) -> st.SearchStrategy[Any]:
    """A `dim` argument for arrays of ndim axes: None, an int from either end, or a tuple of different ones."""
    if ndim == 0:
        return st.none()
    some = st.sets(st.integers(0, ndim - 1), min_size=1).map(
        lambda s: tuple(d - ndim if d % 2 else d for d in sorted(s))
    )
    return st.one_of(st.none(), st.integers(-ndim, ndim - 1), some)
