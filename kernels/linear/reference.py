"""Linear layer with bias and activation, the specification: NumPy or CuPy, in float64, rounded once at the end.

    pre = x W^T + bias                  dpre = dout * f'(pre)
    out = f(pre)                        dx = dpre W        dweight = dpre^T x        dbias = sum over rows of dpre

    relu        max(z, 0)                               (z > 0)
    relu2       max(z, 0)^2                             2 max(z, 0)
    gelu        z Phi(z)                                Phi(z) + z Phi'(z)
    gelu_tanh   z (1 + t) / 2,  t = tanh(u(z))          (1 + t) / 2 + z (1 - t^2) / 2 u'(z)
    silu        z s,            s = 1 / (1 + e^-z)      s + z s (1 - s)

with Phi(z) = erfc(-z / sqrt 2) / 2 and u(z) = sqrt(2 / pi) (z + 0.044715 z^3).
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import array_module
from ..gelu.erf import erfc
from ..matmul.reference import round_to_bf16


def linear_forward(
    x: Any, weight: Any, bias: Any | None, activation: str | None, bf16: bool, keep_pre: bool
) -> tuple[Any, Any]:
    xp = array_module(x)
    pre = _wide(x, bf16) @ _wide(weight, bf16).T + (0 if bias is None else bias)  # (..., out)
    out, _ = _apply(pre, activation)
    keep_pre = keep_pre and activation not in (None, "relu")
    return xp.asarray(out, dtype=x.dtype), xp.asarray(pre, dtype=x.dtype) if keep_pre else None


def linear_backward(
    dout: Any, x: Any, weight: Any, pre: Any | None, out: Any | None, activation: str | None,
    needs: tuple[bool, bool, bool], dweight: Any | None, dbias: Any | None, bf16: bool,
) -> tuple[Any, Any, Any]:  # fmt: skip
    xp = array_module(x)
    z = {None: dout, "relu": out}.get(activation, pre)
    dpre = _wide(dout) * _apply(_wide(z), activation)[1]  # (..., out)
    sums = dpre.sum(axis=tuple(range(dpre.ndim - 1)))  # (out,)
    if bf16:
        dpre = _wide(xp.asarray(dpre, dtype=x.dtype), bf16)
    dx = dpre @ _wide(weight, bf16)
    rows = math.prod(x.shape[:-1])
    product = dpre.reshape(rows, weight.shape[0]).T @ _wide(x, bf16).reshape(rows, weight.shape[1])
    return (
        xp.asarray(dx, dtype=x.dtype) if needs[0] else None,
        _add(product, dweight, x.dtype) if needs[1] else None,
        _add(sums, dbias, x.dtype) if needs[2] else None,
    )


def _apply(z: Any, activation: str | None) -> tuple[Any, Any]:
    """f(z) and f'(z), z float64. Beyond `far` f is 0 or z: clipped there, nothing overflows and no inf meets a 0."""
    xp = array_module(z)
    if activation is None:
        return z, 1.0
    if activation == "relu":
        return xp.where(z <= 0, 0, z), xp.where(z <= 0, 0, 1)  # NaN stays NaN
    if activation == "relu2":
        positive = xp.where(z <= 0, 0, z)
        return positive * positive, 2 * positive
    far = 750.0 if activation == "silu" else 40.0
    near = xp.clip(z, -far, far)
    if activation == "silu":
        e = xp.exp(-abs(near))
        factor = xp.where(near < 0, e, 1.0) / (1 + e)
        slope = factor + near * factor * (1 - factor)
    elif activation == "gelu":
        factor = erfc(near * -math.sqrt(0.5)) / 2
        slope = factor + near * xp.exp(near * near / -2) / math.sqrt(2 * math.pi)
    else:
        c = math.sqrt(2 / math.pi)
        t = xp.tanh(c * (near + 0.044715 * near**3))
        factor = (1 + t) / 2
        slope = factor + near * (1 - t * t) / 2 * c * (1 + 3 * 0.044715 * near**2)
    return xp.maximum(z, -far) * factor, slope


def _wide(x: Any, bf16: bool = False) -> Any:
    xp = array_module(x)
    return (round_to_bf16(x) if bf16 else x).astype(xp.result_type(x.dtype, xp.float64))


def _add(value: Any, held: Any | None, dtype: Any) -> Any:
    if held is None:
        return array_module(value).asarray(value, dtype=dtype)
    held[...] = held + value
    return held
