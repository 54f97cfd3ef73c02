"""z-loss: keeps the logarithm of the softmax's sum near 0, so that logits do not drift.

    Z    = sum_c exp(logit_c)
    loss = -log p_y + z log(Z)^2                   p_c = exp(logit_c) / Z
    dlogits = p - [c = y] + 2 z log(Z) p

Cross-entropy does not change when the same number is added to all logits, so nothing holds their common height: over a
long training it drifts. Large logits are coarse, though: in bfloat16 neighbours near 100 are 0.5 apart, and exp makes
of that a factor of 1.6. The penalty pulls along exactly the direction that the loss does not see, and where log Z is 0
the logits are log-probabilities.

F.linear_cross_entropy does this in its one pass, as `z_loss=z`; what stands here is the formula, and what it is tested
against. 1e-4 is the usual weight.

Sources: de Brebisson and Vincent 2016, The Z-loss, arXiv:1604.08859 (the invariance and the name); Chowdhery et al.
2022, PaLM, arXiv:2204.02311, section 5 (this term, with 1e-4).
"""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..device import array_module
from ..ops.arrays import array_of


def log_z(logits: Any) -> Any:
    """log Z: (..., C) -> (...). Watch its mean square during a training: it is what drifts.

    >>> import numpy as np
    >>> log_z(np.log([[0.1, 0.9], [1.0, 1.0]])).round(4).tolist()
    [0.0, 0.6931]
    """
    return F.logsumexp(logits, -1)


def cross_entropy_with_z_loss(logits: Any, target: Any, z_loss: float = 1e-4, ignore_index: int = -100) -> Any:
    """The mean of -log p_y + z log(Z)^2 over the rows that count: logits (N, C), class ids (N,) -> one number.

    Rows whose target is ignore_index count for neither term.
    """
    if logits.ndim != 2 or tuple(target.shape) != tuple(logits.shape[:1]):
        raise ValueError(
            f"cross_entropy_with_z_loss: expected logits (N, C) and class ids (N,); got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    if not z_loss >= 0:
        raise ValueError(f"cross_entropy_with_z_loss: z_loss must be 0 or more; got {z_loss}")
    y = array_of(target)
    kept = array_module(y).flatnonzero(y != ignore_index)
    return F.cross_entropy(logits, target, ignore_index=ignore_index) + z_loss * _mean_square(log_z(logits)[kept])


def _mean_square(rows: Any) -> Any:
    return (rows * rows).sum() / max(1, rows.shape[0])
