"""Checks of targets: class numbers, one a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import array_module, is_array
from ..checks import check_shape

_INT64, _UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


def checked_targets(kernel: str, targets: Any, logits: Any, N: int, V: int, ignore_index: int) -> Any:
    """The targets as int64, once they are N class numbers below V, or ignore_index, beside `logits` (or what they are
    made from). On a GPU nobody looks at their values."""
    xp = array_module(logits)
    if not is_array(targets) or targets.dtype.kind not in "iu":
        given = targets.dtype if is_array(targets) else type(targets).__name__
        raise TypeError(f"{kernel}: targets must be an array of an integer dtype, class numbers; got {given}")
    if array_module(targets) is not xp:
        libraries = f"targets belong to {array_module(targets).__name__} but logits to {xp.__name__}"
        raise TypeError(f"{kernel}: {libraries}; move one of them")
    if targets.shape != (N,):
        check_shape(kernel, "targets", targets, (N,), f"one class number a row of {N}")
    if targets.dtype is not _INT64 and targets.dtype != _INT64:
        targets = targets.astype(_INT64)
    if xp.__name__ == "cupy":  # to look would be to wait for the GPU: such a target makes its row's loss NaN
        return targets
    if xp is not np or np.count_nonzero(targets.view(_UINT64) >= V):  # negative numbers are large ones there
        bad = ((targets < 0) | (targets >= V)) & (targets != ignore_index)
        if bool(bad.any()):
            row = int(xp.argmax(bad))
            raise IndexError(
                f"{kernel}: target {int(targets[row])} in row {row} is outside 0 .. {V - 1} ({V} classes) and is not "
                f"ignore_index = {ignore_index}"
            )
    return targets
