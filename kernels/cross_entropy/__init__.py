"""Softmax cross-entropy with integer targets, unreduced, as torch.nn.functional.cross_entropy(reduction="none").

Label smoothing: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015,
https://arxiv.org/abs/1512.00567, section 7.
"""

from __future__ import annotations

from typing import Any

from ..arrays import is_array
from ..checks import check_arrays, check_shape, check_wide
from ..dispatch import implementation
from .targets import checked_targets


def cross_entropy_forward(
    logits: Any,
    targets: Any,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: Any | None = None,
    impl: str | None = None,
) -> tuple[Any, Any]:
    """The loss of each row, and lse, the log-sum-exp of its logits, for the backward pass.

        lse_n  = log sum_c exp(z_nc)                                   logits z (N, V), V >= 1
        loss_n = (1 - s) * w_y * (lse_n - z_ny)                        y = targets[n], (N,), of an integer dtype
                 + s / V * sum_c w_c * (lse_n - z_nc)                  s = label_smoothing in [0, 1]

    weight w (V,): one factor for each class, of the logits' dtype; None is ones.
    Rows whose target is ignore_index have loss 0 and lse 0, whatever their logits hold.
    Logits of -inf (a masked class) are fine in classes that are not the target, while s = 0.

    Returns loss (N,) and lse (N,), in the dtype of logits, or float32 beside logits of 16 bits. IndexError for a target
    outside 0 .. V-1 (CuPy arrays: its loss is NaN, as to look would be to wait for the GPU), ValueError for shapes that
    do not fit, TypeError for dtypes that do not.
    """
    kernel = "cross_entropy_forward"
    targets = _check(kernel, logits, targets, ignore_index, label_smoothing, weight=weight)
    module = implementation("cross_entropy", impl, logits)
    return module.cross_entropy_forward(logits, targets, ignore_index, label_smoothing, weight)


def cross_entropy_backward(
    dloss: Any,
    logits: Any,
    targets: Any,
    lse: Any,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: Any | None = None,
    impl: str | None = None,
) -> Any:
    """dlogits (N, V), the gradient of `cross_entropy_forward`, from its lse; with p = exp(z - lse), the softmax:

        dz_nc = dloss_n * ((1 - s) * w_y * (p_nc - [c = y]) + s / V * (p_nc * sum_k w_k - w_c))

    dloss, lse (N,). Settings as in forward. Ignored rows get zeros. The softmax is computed again, never stored.
    """
    kernel = "cross_entropy_backward"
    targets = _check(kernel, logits, targets, ignore_index, label_smoothing, weight=weight, dloss=dloss, lse=lse)
    module = implementation("cross_entropy", impl, logits)
    return module.cross_entropy_backward(dloss, logits, targets, lse, ignore_index, label_smoothing, weight)


def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    factor: Any,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: Any | None = None,
    out: Any | None = None,
    impl: str | None = None,
) -> tuple[Any, Any, Any]:
    """(loss, lse, dlogits): `cross_entropy_forward` and, in the same pass over the logits, `cross_entropy_backward`.

    factor  d(what is minimised) / d loss_n, where it is known beforehand: a number (1 / N for a mean), also as a 0-d
            array (on a GPU: not waited for), or (N,)
    out     the array that dlogits (N, V) is written to and which is returned: logits itself, if nothing else needs
            it; None makes a new one
    """
    kernel = "cross_entropy_with_grad"
    each = factor if is_array(factor) else None
    targets = _check(kernel, logits, targets, ignore_index, label_smoothing, weight=weight, factor=each, out=out)
    module = implementation("cross_entropy", impl, logits)
    return module.cross_entropy_with_grad(logits, targets, factor, ignore_index, label_smoothing, weight, out)


def _check(kernel: str, logits: Any, targets: Any, ignore_index: int, label_smoothing: float, **others: Any) -> Any:
    """The targets as int64, once everything fits."""
    of_rows = {name: others[name] for name in ("dloss", "lse", "factor") if name in others}
    check_arrays(kernel, logits=logits, **{name: a for name, a in others.items() if name not in of_rows})
    if of_rows:
        check_wide(kernel, "logits", logits, **of_rows)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"{kernel}: logits have shape {logits.shape}, expected (N, V) with V >= 1; reshape them first")
    N, V = logits.shape
    targets = checked_targets(kernel, targets, logits, N, V, ignore_index)
    for name, array in others.items():
        shape = (V,) if name == "weight" else (N, V) if name == "out" else (N,)
        if array is not None and array.shape != shape and (name != "factor" or array.ndim):
            check_shape(kernel, name, array, shape, f"as logits are {logits.shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{kernel}: label_smoothing is {label_smoothing}, expected a number from 0 to 1")
    return targets
