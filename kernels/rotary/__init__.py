"""Rotary position embedding (Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864), in the halves layout."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def rotary_forward(x: Any, cos: Any, sin: Any, *, impl: str | None = None) -> Any:
    """Turns the pairs (x[..., j], x[..., j + D/2]) by the angles of their position and j.

        out1 = x1 cos - x2 sin                   x1, x2: the first and the second half of the last axis of x
        out2 = x2 cos + x1 sin

    x (B, H, T, D) of any strides, D even; cos, sin (T, D/2), for example of angle t / 10000^(2 j / D); one dtype. The
    scalar product of a query and a key that are turned so depends on the distance of their positions only.
    """
    _check("rotary_forward", "x", x, cos, sin)
    return implementation("rotary", impl, x).rotary_forward(x, cos, sin)


def rotary_backward(dout: Any, cos: Any, sin: Any, *, impl: str | None = None) -> Any:
    """dx (B, H, T, D): dout turned back, by the angles negated."""
    _check("rotary_backward", "dout", dout, cos, sin)
    return implementation("rotary", impl, dout).rotary_backward(dout, cos, sin)


def _check(kernel: str, name: str, x: Any, cos: Any, sin: Any) -> None:
    check_arrays(kernel, **{name: x}, cos=cos, sin=sin)
    if x.ndim != 4 or x.shape[3] % 2:
        raise ValueError(f"{kernel}: {name} has shape {x.shape}, expected (B, H, T, D) with an even D: two halves")
    half = (x.shape[2], x.shape[3] // 2)
    check_shape(kernel, "cos", cos, half, "(T, D/2)")
    check_shape(kernel, "sin", sin, half, "(T, D/2)")
