"""Whether a saved array fits a parameter: shape, kind of number, range."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..device import is_array, to_numpy
from ..dtypes import is_floating
from ..tensor import Tensor


class IncompatibleKeys(NamedTuple):
    """What load_state_dict(strict=False) left alone."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def fit(value: Any, tensor: Tensor) -> tuple[np.ndarray | None, str]:
    """(NumPy array of the tensor's shape and dtype, "") or (None, what is wrong)."""
    value = value.data if isinstance(value, Tensor) else value
    if not is_array(value):
        return None, f"given {type(value).__name__}, expected an array or a Tensor"
    value = to_numpy(value)
    if value.shape != tensor.shape:
        hint = " (is it transposed?)" if value.ndim > 1 and value.shape[::-1] == tensor.shape else ""
        return None, f"given shape {value.shape}, expected {tensor.shape}{hint}"
    if value.dtype == tensor.dtype:
        return value, ""
    if is_floating(value.dtype) != is_floating(tensor.dtype) or (value.dtype.kind == "c") != (tensor.dtype.kind == "c"):
        return None, f"given {value.dtype}, expected {tensor.dtype}: convert it first if that is meant"
    with np.errstate(over="ignore"):
        cast = value.astype(tensor.dtype)
    if is_floating(tensor.dtype):
        lost = (~np.isfinite(cast) & np.isfinite(value)).any()
    else:
        lost = (cast.astype(value.dtype) != value).any()
    return (None, f"given {value.dtype} with values that {tensor.dtype} cannot hold") if lost else (cast, "")
