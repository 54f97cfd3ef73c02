"""The head of a language model and its loss in one: cross-entropy of logits = x @ weight.T that never exist as a whole.

With V classes and N tokens the logits are N V numbers, and often the largest array of a training step. Here the tokens
are taken in chunks: logits of a chunk, loss, gradient in their place, and two products with it.

Soft-cap: Gemma 2, 2024, https://arxiv.org/abs/2408.00118, section 2. z-loss: PaLM, Chowdhery et al. 2022,
https://arxiv.org/abs/2204.02311, section 5. Chunks: Wijmans et al. 2024, https://arxiv.org/abs/2411.09009.
"""

from __future__ import annotations

from typing import Any

from ..arrays import is_array
from ..checks import check_arrays, check_shape, check_wide
from ..cross_entropy.targets import checked_targets
from ..dispatch import implementation


def linear_cross_entropy(
    x: Any,
    weight: Any,
    targets: Any,
    factor: Any = 1.0,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    needs_grad: bool = True,
    dweight: Any | None = None,
    impl: str | None = None,
) -> tuple[Any, Any, Any]:
    """(loss, dx, dweight): the loss of each token, and the gradients of sum_n factor_n * loss_n, in one pass.

        u      = x @ weight.T                         x (N, D), weight (V, D), V >= 1, one floating dtype
        z      = softcap * tanh(u / softcap)          (N, V); z = u where softcap is None
        lse_n  = log sum_c exp(z_nc)
        loss_n = (1 - s) * (lse_n - z_ny) + s / V * sum_c (lse_n - z_nc) + z_loss * lse_n^2

    targets       y (N,), class numbers of an integer dtype; rows whose target is ignore_index have loss 0, no gradient
    factor        d(what is minimised) / d loss_n, known beforehand: a number (1 / N for a mean), also as a 0-d array
                  (on a GPU: not waited for), or (N,)
    label_smoothing, softcap, z_loss     s in [0, 1]; a number > 0, or None for none; a number >= 0
    needs_grad    False: dx and dweight are None, and no time goes into them
    dweight       an array (V, D) to add the gradient of weight into, which is then returned; None makes a new one

    Returns loss (N,), dx (N, D), dweight (V, D), in the dtype of x, but loss float32 beside 16 bits. Bitwise the same
    for any number of threads.
    IndexError for a target outside 0 .. V-1 (CuPy arrays: NaN, as in cross_entropy), ValueError for shapes and settings
    that do not fit, TypeError for dtypes.
    """
    kernel = "linear_cross_entropy"
    check_arrays(kernel, x=x, weight=weight, dweight=dweight)
    check_wide(kernel, "x", x, factor=factor if is_array(factor) else None)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or weight.shape[0] == 0:
        raise ValueError(
            f"{kernel}: x {x.shape} and weight {weight.shape} do not fit, expected (N, D) and (V, D) with V >= 1"
        )
    (N, _), V = x.shape, weight.shape[0]
    check_shape(kernel, "dweight", dweight, weight.shape, "as weight")
    check_shape(kernel, "factor", factor if is_array(factor) and factor.ndim else None, (N,), f"as x is {x.shape}")
    targets = checked_targets(kernel, targets, x, N, V, ignore_index)
    _check_settings(kernel, label_smoothing, softcap, z_loss)
    module = implementation("linear_cross_entropy", impl, x)
    cap = 0.0 if softcap is None else float(softcap)
    return module.linear_cross_entropy(
        x, weight, targets, factor, ignore_index, float(label_smoothing), cap, float(z_loss), needs_grad, dweight
    )


def _check_settings(kernel: str, label_smoothing: float, softcap: float | None, z_loss: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{kernel}: label_smoothing is {label_smoothing}, expected a number from 0 to 1")
    if softcap is not None and not 0 < softcap < float("inf"):
        raise ValueError(f"{kernel}: softcap is {softcap}, expected a number above 0, or None for no cap")
    if not 0 <= z_loss < float("inf"):
        raise ValueError(f"{kernel}: z_loss is {z_loss}, expected a number of at least 0")
