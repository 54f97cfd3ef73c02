"""Softmax and log-softmax on a GPU: loads and launches softmax.cu and softmax_backward.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.rows import cut, flat, rows_of

FORWARD = Path(__file__).with_name("softmax.cu")
BACKWARD = Path(__file__).with_name("softmax_backward.cu")
VARIANTS = [
    (FORWARD, {"TYPE": "float", "TEAM": 1024, "PACKS": 7}, "sm_75"),
    (FORWARD, {"TYPE": "bf16", "TEAM": 256, "PACKS": 4}, "sm_75"),
    (BACKWARD, {"TYPE": "float", "TEAM": 1024, "PACKS": 4}, "sm_75"),
    (BACKWARD, {"TYPE": "f16", "TEAM": 8, "PACKS": 2}, "sm_75"),
]


def softmax_forward(x: Any) -> Any:
    return _run(FORWARD, "softmax_forward", x)


def softmax_backward(dout: Any, out: Any) -> Any:
    return _run(BACKWARD, "softmax_backward", dout, out)


def log_softmax_forward(x: Any) -> Any:
    return _run(FORWARD, "log_softmax_forward", x)


def log_softmax_backward(dout: Any, out: Any) -> Any:
    return _run(BACKWARD, "log_softmax_backward", dout, out)


def _run(source: Path, name: str, *arrays: Any) -> Any:
    x = arrays[-1]
    result = array_module(x).empty(x.shape, x.dtype)
    if x.size:
        (rows, n), how = rows_of(x), cut(name, rows_of(x)[1], x.itemsize, len(arrays))
        run = kernel(source, name, x, TYPE=type_name(x.dtype), **how.macros)
        given = [flat(a) for a in arrays]
        run((how.grid(name, rows),), (how.threads,), (*given, result, np.int64(rows), np.int32(n)))
    return result
