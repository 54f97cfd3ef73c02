"""SiLU (Elfwing et al. 2017, https://arxiv.org/abs/1702.03118) and SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

sigmoid(x) = 1 / (1 + exp(-x))              silu(x) = x sigmoid(x)              swiglu(gate, up) = silu(gate) up
"""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def silu_forward(x: Any, *, impl: str | None = None) -> Any:
    """x * sigmoid(x), also called swish; x of any shape and a floating dtype. 0 at -inf and inf at inf."""
    check_arrays("silu_forward", x=x)
    return implementation("silu", impl, x).silu_forward(x)


def silu_backward(dout: Any, x: Any, *, impl: str | None = None) -> Any:
    """dx = dout * s * (1 + x * (1 - s)) with s = sigmoid(x); the derivative is 0 at -inf and 1 at inf."""
    _check("silu_backward", "x", x, dout=dout)
    return implementation("silu", impl, x).silu_backward(dout, x)


def swiglu_forward(gate: Any, up: Any, *, impl: str | None = None) -> Any:
    """silu(gate) * up; both of one shape (any) and one floating dtype, the result the same."""
    _check("swiglu_forward", "gate", gate, up=up)
    return implementation("silu", impl, gate).swiglu_forward(gate, up)


def swiglu_backward(dout: Any, gate: Any, up: Any, *, impl: str | None = None) -> tuple[Any, Any]:
    """(dgate, dup): dgate = dout * up * silu'(gate), dup = dout * silu(gate)."""
    _check("swiglu_backward", "gate", gate, up=up, dout=dout)
    return implementation("silu", impl, gate).swiglu_backward(dout, gate, up)


def _check(kernel: str, name: str, x: Any, **others: Any) -> None:
    check_arrays(kernel, **{name: x}, **others)
    for other, array in others.items():
        check_shape(kernel, other, array, x.shape, f"that of {name}")
