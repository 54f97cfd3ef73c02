"""The length of all gradients as one long vector, which clipping compares with its limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import check_arrays
from ..dispatch import implementation


def global_norm(x: Any, *, impl: str | None = None) -> float:
    """sqrt(sum of x^2), the length of x as one vector; x of any shape. Accumulated in float64; 0.0 for an empty x.

    The same bits on every run and for any number of threads. inf where x holds inf, NaN where it holds NaN.
    """
    check_arrays("global_norm", x=x)
    return implementation("global_norm", impl, x).global_norm(x)


def sum_of_squares(arrays: Sequence[Any], *, impl: str | None = None) -> Any:
    """The sum of x^2 over all elements of all arrays: a float64 array () where they lie, so nobody waits for a GPU.

    arrays: at least one, of any shapes and one floating dtype. Accumulated in float64 in an order that their shapes
    decide: the same bits on every run. The squares of float64 numbers beyond 1e154 overflow; `global_norm` does not.
    """
    if not arrays:
        raise ValueError("sum_of_squares: got no arrays, and so no device for the result; give at least one")
    check_arrays("sum_of_squares", **{f"arrays[{i}]": x for i, x in enumerate(arrays)})
    return implementation("global_norm", impl, arrays[0]).sum_of_squares(arrays)
