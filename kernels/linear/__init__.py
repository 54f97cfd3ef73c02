"""Linear layer: product, bias and activation in one kernel, and all its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import array_module
from ..checks import check_arrays, check_shape
from ..dispatch import implementation

ACTIVATIONS = (None, "relu", "relu2", "gelu", "gelu_tanh", "silu")


def linear_forward(
    x: Any,
    weight: Any,
    bias: Any | None = None,
    *,
    activation: str | None = None,
    keep_pre: bool = True,
    bf16: bool = False,
    impl: str | None = None,
) -> tuple[Any, Any | None]:
    """out = f(x W^T + bias), f one of None, "relu", "relu2", "gelu" (exact), "gelu_tanh", "silu"; returns (out, pre).

    x (..., in), weight (out, in), bias (out,) or None, of one floating dtype and any strides; out (..., out).
    pre = x W^T + bias (..., out) is what the backward pass needs: None where it does not need it (f None or "relu"),
    or is not to come (keep_pre=False).

    bf16=True rounds x and weight, float32, to bfloat16 and sums in float32; see `matmul_bf16`.
    TypeError for dtypes that differ, ValueError for shapes that do not fit and for another activation.
    """
    _check("linear_forward", x, weight, activation, bf16, bias=bias)
    run = implementation("linear", impl, x).linear_forward
    return run(x, weight, bias, activation, bf16, keep_pre)


def linear_backward(
    dout: Any,
    x: Any,
    weight: Any,
    pre: Any | None = None,
    out: Any | None = None,
    *,
    activation: str | None = None,
    needs: tuple[bool, bool, bool] = (True, True, True),
    dweight: Any | None = None,
    dbias: Any | None = None,
    bf16: bool = False,
    impl: str | None = None,
) -> tuple[Any, Any, Any]:
    """Gradients of `linear_forward` from its pre or, for "relu", its out; with dpre = dout * f'(pre):

        dx      = dpre W                    (..., in)
        dweight = dpre^T x                  (out, in)
        dbias   = sum over rows of dpre     (out,)

    needs says which of the three are wanted; the others are None. An array given as dweight or dbias is added into, and
    returned. relu'(0) = 0. bf16=True rounds dpre, weight and x to bfloat16 for both products; dbias is exact.
    Bitwise the same for any number of threads.
    TypeError for dtypes that differ, ValueError for shapes that do not fit and for a missing pre or out.
    """
    _check("linear_backward", x, weight, activation, bf16, dout=dout, pre=pre, out=out, dweight=dweight, dbias=dbias)
    needed, name = (out, "out") if activation == "relu" else (pre, "pre")
    if activation is not None and needed is None:
        raise ValueError(f"linear_backward: activation {activation!r} needs {name}, which linear_forward returned")
    for name, held in (("dweight", dweight), ("dbias", dbias)):
        if isinstance(held, np.ndarray) and not held.flags.writeable:
            raise ValueError(f"linear_backward: {name} is read-only, and would be added into; give a writable array")
        if held is not None and any(array_module(x).may_share_memory(held, y) for y in (dout, x, weight)):
            raise ValueError(f"linear_backward: {name} is added into, and shares memory with dout, x or weight")
    run = implementation("linear", impl, x).linear_backward
    return run(dout, x, weight, pre, out, activation, tuple(needs), dweight, dbias, bf16)


def _check(kernel: str, x: Any, weight: Any, activation: str | None, bf16: bool, **others: Any) -> None:
    check_arrays(kernel, x=x, weight=weight, **others)
    if activation not in ACTIVATIONS:
        raise ValueError(f"{kernel}: activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{kernel}: x {x.shape} and weight {weight.shape} do not fit, expected (..., in), (out, in)")
    if bf16 and x.dtype != np.float32:
        raise TypeError(f"{kernel}: bf16=True takes float32, got {x.dtype}; convert it with .astype")
    for name, array in others.items():
        if array is not None:
            shape = (*x.shape[:-1], weight.shape[0])
            if name.endswith("bias"):
                shape = weight.shape[:1]
            elif name == "dweight":
                shape = weight.shape
            if array.shape != shape:
                check_shape(kernel, name, array, shape, f"as x is {x.shape} and weight {weight.shape}")
