"""Binary cross-entropy of logits: -(y log p + (1 - y) log(1 - p)), p = sigmoid(x), exact where p rounds to 0 or 1."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def bce_forward(logits: Any, targets: Any, *, rows: bool = False, impl: str | None = None) -> Any:
    """The loss of each element, or with rows=True the sum over the last axis: what an autoencoder needs of each image.

        loss = max(x, 0) - x y + log(1 + exp(-|x|))                x = logits, y = targets, of one shape (..., N)

    targets lie in 0 .. 1 (greys count as probabilities) and have the logits' dtype; so does the result, (..., N) or
    (...). Sums are wider inside. No finite logit overflows.
    """
    _check("bce_forward", logits, targets)
    if rows and logits.ndim == 0:
        raise ValueError("bce_forward: logits have shape (), expected (..., N): rows=True sums over the last axis")
    return implementation("binary_cross_entropy", impl, logits).bce_forward(logits, targets, rows)


def bce_backward(dloss: Any, logits: Any, targets: Any, *, impl: str | None = None) -> Any:
    """dlogits = dloss * (sigmoid(logits) - targets), (..., N).

    dloss has the shape of the loss: (..., N), or (...) if it was summed over rows.
    """
    _check("bce_backward", logits, targets, dloss=dloss)
    if dloss.shape != logits.shape and (logits.ndim == 0 or dloss.shape != logits.shape[:-1]):
        raise ValueError(
            f"bce_backward: dloss has shape {dloss.shape}, expected {logits.shape} as the logits, or "
            f"{logits.shape[:-1]} for sums over rows"
        )
    return implementation("binary_cross_entropy", impl, logits).bce_backward(dloss, logits, targets)


def _check(kernel: str, logits: Any, targets: Any, **others: Any) -> None:
    check_arrays(kernel, logits=logits, targets=targets, **others)
    check_shape(kernel, "targets", targets, logits.shape, "that of logits")
