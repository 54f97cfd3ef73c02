"""Which dtype a result has: casts, and operands where PyTorch's promotion differs from NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import array_module, is_array

from ..arguments import composed
from ..dtypes import DEFAULT, is_floating
from ..engine import op

__all__ = ["to_dtype"]


def floating(x: Any) -> Any:
    """The array as floating point: integers and bools become float32, everything else stays as it is."""
    if getattr(x, "dtype", DEFAULT) is DEFAULT:  # by far the most: not worth a look at the array's kind
        return x
    return x.astype(DEFAULT) if is_array(x) and x.dtype.kind in "iub" else x


def operands(x: Any, y: Any) -> tuple[Any, Any]:
    """Integers that meet a Python float become float32; NumPy alone would make float64 of them."""
    if type(y) is float:
        return floating(x), y
    if type(x) is float:
        return x, floating(y)
    return x, y


@op
def _cast(x, dtype):
    return array_module(x).asarray(x).astype(dtype)


@_cast.vjp
def _(dout):
    return dout  # the engine brings a gradient to its input's dtype


@op(differentiable=False)
def _cast_constant(x, dtype):
    return array_module(x).asarray(x).astype(dtype)


@composed
def to_dtype(x: Any, dtype: Any) -> Any:
    """A copy of x in another dtype ("float64", np.int64); the gradient comes back in x's, none through integers."""
    return _cast(x, dtype) if is_floating(np.dtype(dtype)) else _cast_constant(x, dtype)
