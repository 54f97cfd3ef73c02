"""Softmax and its logarithm over the last axis: scores to probabilities."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def softmax_forward(x: Any, *, impl: str | None = None) -> Any:
    """p_i = exp(x_i) / sum_j exp(x_j) over the last axis. x (..., N) -> (..., N), in the dtype of x.

    The largest x is subtracted first: it cancels, and exp never overflows. An entry of -inf gets 0; a row of nothing
    but -inf, a row with +inf and a row with NaN give NaN. A 0-d x counts as a row of one.
    TypeError unless x is an array of a floating dtype.
    """
    check_arrays("softmax_forward", x=x)
    return implementation("softmax", impl, x).softmax_forward(x)


def softmax_backward(dout: Any, out: Any, *, impl: str | None = None) -> Any:
    """dx_i = p_i * (dout_i - sum_j dout_j p_j), from out = p, the result of `softmax_forward`. All (..., N)."""
    _check("softmax_backward", dout, out)
    return implementation("softmax", impl, out).softmax_backward(dout, out)


def log_softmax_forward(x: Any, *, impl: str | None = None) -> Any:
    """log p_i = x_i - log sum_j exp(x_j) over the last axis: right where p itself would round to 0 or to 1.

    x (..., N) -> (..., N). An entry of -inf stays -inf; otherwise as `softmax_forward`.
    """
    check_arrays("log_softmax_forward", x=x)
    return implementation("softmax", impl, x).log_softmax_forward(x)


def log_softmax_backward(dout: Any, out: Any, *, impl: str | None = None) -> Any:
    """dx_i = dout_i - exp(out_i) * sum_j dout_j, from out, the result of `log_softmax_forward`. All (..., N)."""
    _check("log_softmax_backward", dout, out)
    return implementation("softmax", impl, out).log_softmax_backward(dout, out)


def _check(kernel: str, dout: Any, out: Any) -> None:
    check_arrays(kernel, out=out, dout=dout)
    check_shape(kernel, "dout", dout, out.shape, "the shape of out")
