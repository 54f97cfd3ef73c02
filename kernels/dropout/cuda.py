"""Dropout on a GPU: loads and launches dropout.cu."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import contiguous, launch

SOURCE = Path(__file__).with_name("dropout.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]


def dropout_forward(x: Any, p: float, seed: int, position: int) -> Any:
    (x,), out = contiguous(x), array_module(x).empty(x.shape, x.dtype)
    threshold = np.uint32(math.ceil(float(np.float32(p)) * 2**24))  # the same elements as on the CPU
    scale = np.float32(1 / (1 - p) if p < 1 else 1)
    run = kernel(SOURCE, "dropout", x, TYPE=type_name(x.dtype))
    launch(run, (x, out), threshold, scale, np.uint64(seed), np.uint64(position))
    return out


def dropout_backward(dout: Any, p: float, seed: int, position: int) -> Any:
    return dropout_forward(dout, p, seed, position)
