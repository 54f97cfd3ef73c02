"""Matrix product, the specification: NumPy or CuPy, in float64, rounded once at the end to the dtype of out.

    out[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]        (+ what out held, when accumulating)
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def matmul(a: Any, b: Any, out: Any, accumulate: bool) -> Any:
    product = _wide(a) @ _wide(b)
    out[...] = product + out if accumulate else product
    return out


def matmul_bf16(a: Any, b: Any, out: Any, accumulate: bool) -> Any:
    return matmul(round_to_bf16(a), round_to_bf16(b), out, accumulate)


def round_to_bf16(x: Any) -> Any:
    """float32 numbers rounded to the nearest that bfloat16 has, ties to the even one; still float32.

    bfloat16 is the upper half of a float32: sign, 8 bits of exponent, 7 of the significand.
    """
    xp = array_module(x)
    bits = xp.ascontiguousarray(x).view(xp.uint32)
    odd = (bits >> xp.uint32(16)) & xp.uint32(1)
    rounded = (bits + xp.uint32(0x7FFF) + odd) & xp.uint32(0xFFFF0000)  # a carry goes into the exponent, as it should
    rounded = rounded.view(xp.float32).reshape(x.shape)
    return xp.where(xp.isnan(x), x, rounded)


def _wide(x: Any) -> Any:
    xp = array_module(x)
    return x.astype(xp.result_type(x.dtype, xp.float64))
