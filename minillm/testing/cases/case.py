"""One line per thing to check: a function, its inputs, and the same in PyTorch.

The table serves `minillm gradcheck`, the tests of values and gradients against PyTorch, and the strict device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Draw = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A differentiable function with float64 inputs, and what is known about it."""

    op: str  # the name users look for: "softmax"
    label: str  # what is special here: "dim=0", "" for the plain case
    function: Callable[..., Any]  # function(*inputs) -> Tensor, or tuple of Tensors
    draws: tuple[Draw, ...]  # one per differentiable input
    torch: Callable[..., Any] | None = None  # torch(torch_module, *inputs): the same with PyTorch
    orders: tuple[int, ...] = (1, 2)  # derivatives to check
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.op}[{self.label}]" if self.label else self.op

    def inputs(self) -> list[np.ndarray]:
        """The inputs: float64 arrays, the same on every call."""
        rng = np.random.default_rng(self.seed)
        return [draw(rng) for draw in self.draws]


def case(
    op: str,
    function: Callable[..., Any],
    *draws: Draw,
    torch: Callable[..., Any] | None = None,
    label: str = "",
    orders: Sequence[int] = (1, 2),
    seed: int = 0,
) -> Case:
    """A row of the table: case("exp", F.exp, normal(2, 3), torch=lambda torch, x: torch.exp(x))."""
    return Case(op, label, function, draws, torch, tuple(orders), seed)


def normal(*shape: int, scale: float = 1.0) -> Draw:
    """Standard normal numbers."""
    return lambda rng: scale * rng.standard_normal(shape)


def positive(*shape: int, low: float = 0.5, high: float = 2.0) -> Draw:
    """Uniform numbers in [low, high): for log, sqrt, pow."""
    return lambda rng: rng.uniform(low, high, shape)


def distinct(*shape: int, step: float = 0.1) -> Draw:
    """Numbers at least `step` apart and at least step/2 from 0, shuffled: away from the kinks of relu, abs, max,
    sort."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        n = int(np.prod(shape))
        return (step * (rng.permutation(n) - n // 2 + 0.5)).reshape(shape)

    return draw


def given(values: Any) -> Draw:
    """These values."""
    return lambda rng: np.array(values, dtype=np.float64)
