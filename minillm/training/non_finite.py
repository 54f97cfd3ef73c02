"""Which number was the first that is NaN or infinite: the question after a training that broke."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..anomaly import AnomalyError, detect_anomaly
from ..device import array_module
from ..nn.module import Module
from ..tensor import Tensor


class NonFiniteLoss(ArithmeticError):
    """The loss or a gradient became NaN or infinite; training stopped before that step was taken."""


def first_non_finite(model: Module) -> str | None:
    """As "the parameter x.weight" or "the gradient of x.weight", parameters first, in the model's order, or None."""
    for name, p in model.named_parameters():
        if not _finite(p.data):
            return f"the parameter {name}"
    for name, p in model.named_parameters():
        if p.grad is not None and not _finite(p.grad.data):
            return f"the gradient of {name}"
    return None


def explain_non_finite(model: Module, compute: Callable[[], Tensor]) -> str:
    """The first bad number of a step that gave one: compute() is run again, each op and gradient rule watched.

    Give the generators the states that they had before the step: then dropout drops the same.
    """
    bad = first_non_finite(model)
    if bad is not None and bad.startswith("the parameter"):
        return f"{bad} is not finite: the step before it was too large"
    try:
        with detect_anomaly(check_inf=True):
            compute().backward()
    except AnomalyError as error:
        return " ".join(str(error).split())
    return f"{bad} is not finite" if bad else "run again in watch mode the step was finite"


class Policy:
    """What a step does whose loss or gradient is not finite: it is not taken, and

    kind  "stop": NonFiniteLoss, which names the first bad number
          "skip": nothing more, unless the last `most` steps were all skipped: then as "stop"
    """

    KINDS = ("stop", "skip")

    def __init__(self, kind: str = "stop", most: int = 20):
        if kind not in self.KINDS:
            raise ValueError(f"non_finite={kind!r} is none of {', '.join(self.KINDS)}")
        self.kind, self.most, self.skipped = kind, most, 0

    def accepts(self, loss: float, norm: float) -> bool:
        """Whether the step is to be taken."""
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped = 0
            return True
        self.skipped += 1
        return False

    def refuse(self, step: int, loss: float, norm: float, model: Module, compute: Callable[[], Tensor]) -> None:
        """After a step that was not accepted. compute() gives its loss again."""
        if self.kind == "skip" and self.skipped < self.most:
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
        many = f" ({self.skipped} such steps one after another)" if self.skipped > 1 else ""
        why = explain_non_finite(model, compute)
        raise NonFiniteLoss(f"step {step}: {what}{many}; {why}. Lower the learning rate, or clip the gradient's norm")


def _finite(array: Any) -> bool:
    return bool(array_module(array).isfinite(array).all())
