"""Losses as modules: each is the function of the same name in `minillm.functional`, with its settings.

reduction: "mean", "sum" or "none", as in PyTorch.
"""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .module import Module


class _Loss(Module):
    def __init__(self, reduction: str = "mean"):
        allowed = ("none", "mean", "sum", *(("batchmean",) if isinstance(self, KLDivLoss) else ()))
        if reduction not in allowed:
            raise ValueError(f"{type(self).__name__}: reduction is one of {', '.join(allowed)}; got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if isinstance(v, (bool, int, float, str)) and k != "training"}
        return ", ".join(f"{k}={v!r}" for k, v in settings.items())


class CrossEntropyLoss(_Loss):
    """-log softmax(logits)[target], the mean over the targets that count (weighted, if `weight` is given).

    logits (N, C) or (N, C, ...), target (N) or (N, ...) of class numbers, or probabilities in the shape of the logits
    weight          (C,): of each class, or None
    ignore_index    targets with this value count for nothing
    label_smoothing 0 <= s < 1: the target is (1 - s) * one-hot + s / C     (Szegedy et al. 2015, arXiv:1512.00567)
    """

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, logits: Any, target: Any) -> Any:
        return F.cross_entropy(
            logits, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class NLLLoss(_Loss):
    """-log_probs[target]: cross-entropy from log-probabilities (N, C) or (N, C, ...) and class numbers."""

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, log_probs: Any, target: Any) -> Any:
        return F.nll_loss(
            log_probs, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class MSELoss(_Loss):
    """(prediction - target)^2."""

    def forward(self, prediction: Any, target: Any) -> Any:
        return F.mse_loss(prediction, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|prediction - target|."""

    def forward(self, prediction: Any, target: Any) -> Any:
        return F.l1_loss(prediction, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """0.5 d^2 for |d| <= delta, delta * (|d| - 0.5 delta) beyond; d = prediction - target. Source: Huber 1964."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction)
        self.delta = delta

    def forward(self, prediction: Any, target: Any) -> Any:
        return F.huber_loss(prediction, target, reduction=self.reduction, delta=self.delta)


class BCELoss(_Loss):
    """-(t log p + (1 - t) log(1 - p)) for probabilities p; BCEWithLogitsLoss is more exact where logits are known."""

    def __init__(self, weight: Any = None, reduction: str = "mean"):
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def forward(self, probability: Any, target: Any) -> Any:
        return F.binary_cross_entropy(probability, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """BCELoss of sigmoid(logits), computed without overflow; pos_weight multiplies the loss of positive targets."""

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, logits: Any, target: Any) -> Any:
        return F.binary_cross_entropy_with_logits(
            logits, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(_Loss):
    """target * (log target - log_probs), pointwise: KL(target || model), summed or averaged.

    log_probs of the model; target probabilities (or their logarithms, log_target=True). reduction "batchmean" divides
    the sum by the batch size: the KL divergence itself. "mean" divides by the number of elements, as PyTorch's does.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, log_probs: Any, target: Any) -> Any:
        return F.kl_div(log_probs, target, reduction=self.reduction, log_target=self.log_target)
