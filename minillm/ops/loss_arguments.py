"""What the losses share: reductions by name, and the check that shapes are equal."""

from __future__ import annotations

from typing import Any

from ..errors import nearest
from .reduce import mean, sum

__all__: list[str] = []
REDUCTIONS = ("mean", "sum", "none")


def check_reduction(loss: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    if reduction not in allowed:
        hint = nearest(str(reduction), allowed)
        raise ValueError(f"{loss}: reduction is one of {', '.join(allowed)}; got {reduction!r}.{hint}")


def reduce(loss: Any, reduction: str) -> Any:
    """The mean over all elements, their sum, or the loss as it is."""
    return mean(loss) if reduction == "mean" else sum(loss) if reduction == "sum" else loss


def same_shape(loss: str, **arrays: Any) -> None:
    """Losses do not broadcast: (N, 1) against (N,) would quietly become (N, N)."""
    for name, x in arrays.items():
        if not hasattr(x, "dtype"):
            raise TypeError(f"{loss}: {name} must be a tensor or an array; got {type(x).__name__}")
    (first, a), *others = arrays.items()
    for name, b in others:
        if a.shape != b.shape:
            raise ValueError(
                f"{loss}: {first} has shape {tuple(a.shape)} but {name} {tuple(b.shape)}; make them equal (reshape one)"
            )
