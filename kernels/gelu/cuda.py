"""GELU on a GPU: loads and launches gelu.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import contiguous, launch

SOURCE = Path(__file__).with_name("gelu.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]


def gelu_forward(x: Any, approximate: str) -> Any:
    (x_,), out = contiguous(x), array_module(x).empty(x.shape, x.dtype)
    run = kernel(SOURCE, "gelu_forward", x, TYPE=type_name(x.dtype))
    launch(run, (x_, out), np.int32(approximate == "tanh"))
    return out


def gelu_backward(dout: Any, x: Any, approximate: str) -> Any:
    arrays, dx = contiguous(dout, x), array_module(x).empty(x.shape, x.dtype)
    run = kernel(SOURCE, "gelu_backward", x, TYPE=type_name(x.dtype))
    launch(run, (*arrays, dx), np.int32(approximate == "tanh"))
    return dx
