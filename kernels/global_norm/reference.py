"""The norm of a vector, the specification: NumPy or CuPy, in float64.

    global_norm = sqrt(sum x^2) = peak * sqrt(sum (x / peak)^2), peak = max |x|: the squares stay in range
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..arrays import array_module


def global_norm(x: Any) -> float:
    xp = array_module(x)
    wide = abs(x.astype(xp.float64))
    peak = float(wide.max()) if x.size else 0.0
    if not 0.0 < peak < math.inf:
        return peak  # 0, inf or NaN
    ratio = wide / peak
    return peak * math.sqrt(float((ratio * ratio).sum()))


def sum_of_squares(arrays: Sequence[Any]) -> Any:
    xp = array_module(arrays[0])
    wide = [x.astype(xp.float64) for x in arrays]
    return xp.stack([(x * x).sum() for x in wide]).sum().reshape(())
