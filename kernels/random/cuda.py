"""Random numbers on a GPU: loads and launches random.cu."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..gpu import kernel, type_name
from ..gpu.elements import THREADS, grid, launch

SOURCE = Path(__file__).with_name("random.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]


def philox_bits(count: int, seed: int, position: int, xp: Any) -> Any:
    out = xp.empty(count, xp.uint32)
    launch(kernel(SOURCE, "philox_bits", out), (out,), np.uint64(seed), np.uint64(position))
    return out


def philox_uniform(shape: tuple[int, ...], seed: int, position: int, dtype: Any, xp: Any) -> Any:
    out = xp.empty(shape, dtype)
    run = kernel(SOURCE, "philox_uniform", out, TYPE=type_name(dtype))
    launch(run, (out,), np.uint64(seed), np.uint64(position))
    return out


def philox_normal(
    shape: tuple[int, ...], seed: int, position: int, dtype: Any, mean: float, std: float, xp: Any
) -> Any:
    out, size = xp.empty(shape, dtype), math.prod(shape)
    half = (size + 1) // 2  # pairs, four for each thread
    if half:
        run = kernel(SOURCE, "philox_normal", out, TYPE=type_name(dtype))
        words = (np.uint64(n) for n in (size, half, seed, position))
        run(grid(-(-half // 4)), (THREADS,), (out, *words, np.float64(mean), np.float64(std)))
    return out
