"""SiLU and SwiGLU on a GPU: loads and launches silu.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import contiguous, launch

SOURCE = Path(__file__).with_name("silu.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]


def silu_forward(x: Any) -> Any:
    return _run("silu_forward", x)[0]


def silu_backward(dout: Any, x: Any) -> Any:
    return _run("silu_backward", dout, x)[0]


def swiglu_forward(gate: Any, up: Any) -> Any:
    return _run("swiglu_forward", gate, up)[0]


def swiglu_backward(dout: Any, gate: Any, up: Any) -> tuple[Any, Any]:
    dgate, dup = _run("swiglu_backward", dout, gate, up, results=2)
    return dgate, dup


def _run(name: str, *arrays: Any, results: int = 1) -> tuple[Any, ...]:
    """The kernel on these arrays and its results, which look like the first one."""
    like = arrays[0]
    made = tuple(array_module(like).empty(like.shape, like.dtype) for _ in range(results))
    launch(kernel(SOURCE, name, like, TYPE=type_name(like.dtype)), (*contiguous(*arrays), *made))
    return made
