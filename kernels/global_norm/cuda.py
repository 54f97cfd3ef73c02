"""The norm of a vector on a GPU: loads and launches global_norm.cu, once for each array and once for their sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import THREADS, contiguous, packs, whole

SOURCE = Path(__file__).with_name("global_norm.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]

MOST = 1024  # sums of blocks for one array


def global_norm(x: Any) -> float:
    return math.sqrt(float(sum_of_squares([x])))


def sum_of_squares(arrays: Sequence[Any]) -> Any:
    xp, dtype = array_module(arrays[0]), arrays[0].dtype
    ends = np.cumsum([min(MOST, -(-packs(x.size, x) // THREADS)) for x in arrays]).tolist()
    sums, out = xp.empty(ends[-1], xp.float64), xp.empty((), xp.float64)
    run = kernel(SOURCE, "sums_of_blocks", sums, TYPE=type_name(dtype))
    for x, start, end in zip(contiguous(*arrays), [0, *ends], ends):
        if x.size:
            run((end - start,), (THREADS,), (x, np.uint64(x.size), whole(x), sums[start:end]))
    add = kernel(SOURCE, "sum_of_sums", sums, TYPE=type_name(dtype))
    add((1,), (THREADS,), (sums, out, np.int32(ends[-1])))
    return out
