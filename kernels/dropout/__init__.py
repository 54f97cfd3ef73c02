"""Dropout (Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 15)."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays
from ..dispatch import implementation
from ..random import check_key


def dropout_forward(x: Any, p: float, seed: int, position: int = 0, *, impl: str | None = None) -> Any:
    """x / (1 - p) where a uniform number is >= p, else 0: the expectation stays x. x of any shape and floating dtype.

    The numbers are `philox_uniform(x.shape, seed, position)` in float32 and p is rounded to float32 too, so the same
    elements survive on every device, for any number of threads and for any strides. They take (size + 3) // 4 counters.
    p = 0 keeps all (the result is a copy), p = 1 none. What is dropped is 0 whatever it was, NaN too.

    ValueError for p outside 0 .. 1, and for a seed or position outside 0 .. 2^64 - 1.
    """
    _check("dropout_forward", x, p, seed, position)
    return implementation("dropout", impl, x).dropout_forward(x, float(p), seed, position)


def dropout_backward(dout: Any, p: float, seed: int, position: int = 0, *, impl: str | None = None) -> Any:
    """The gradient of `dropout_forward` with the same p, seed and position: the same numbers, made again, decide.

    dx = dout / (1 - p) where the element was kept, else 0.
    """
    _check("dropout_backward", dout, p, seed, position)
    return implementation("dropout", impl, dout).dropout_backward(dout, float(p), seed, position)


def _check(kernel: str, x: Any, p: float, seed: int, position: int) -> None:
    check_arrays(kernel, x=x)
    if not 0 <= p <= 1:
        raise ValueError(f"{kernel}: p is the probability of a zero, from 0 to 1; got {p}")
    check_key(kernel, seed, position)
