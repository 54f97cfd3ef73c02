"""Several optimizers as one: Muon for the matrices inside a network, AdamW for the rest, one loop for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import kernels

from .. import capture
from .clip import total_norm
from .optimizer import Optimizer


class Optimizers:
    """Optimizers([a, b]): step, zero_grad, param_groups and state_dict of all together.

    step(clip_norm) clips by the norm of all their gradients as one long vector. ValueError for a parameter that two of
    them have.
    """

    def __init__(self, optimizers: Iterable[Optimizer]):
        self.optimizers = list(optimizers)
        for i, optimizer in enumerate(self.optimizers):
            if not isinstance(optimizer, Optimizer):
                raise TypeError(f"Optimizers: expected optimizers; number {i} is a {type(optimizer).__name__}")
        seen: set[int] = set()
        for optimizer in self.optimizers:
            ids = {id(p) for g in optimizer.param_groups for p in g["params"]}
            if seen & ids:
                raise ValueError(f"Optimizers: two of them have {len(seen & ids)} parameters in common: one each")
            seen |= ids
        if not self.optimizers:
            raise ValueError("Optimizers: the list is empty; give one at least")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, clip_norm: float | None = None) -> None:
        if capture.recorded:
            capture.refuse("an optimizer's step has a learning rate and a step count", "call step() after the graph")
        scale = 1.0
        if clip_norm is not None:
            norm = total_norm([p for group in self.param_groups for p in group["params"]])
            scale = kernels.clip_factor(float(norm), clip_norm)
        for optimizer in self.optimizers:
            optimizer.step_scaled(scale)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """{"optimizers": [the state_dict of each]}"""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. ValueError, and nothing changed, where it does not fit."""
        if "optimizers" not in state_dict:
            raise ValueError(
                f"load_state_dict: expected {{'optimizers': [a state of each]}}; got {list(state_dict)}, of one alone"
            )
        given = state_dict["optimizers"]
        if len(given) != len(self.optimizers):
            raise ValueError(f"load_state_dict: given {len(given)} optimizers, these are {len(self.optimizers)}")
        before = [optimizer.state_dict() for optimizer in self.optimizers]
        try:
            for optimizer, state in zip(self.optimizers, given):
                optimizer.load_state_dict(state)
        except BaseException:
            for optimizer, state in zip(self.optimizers, before):
                optimizer.load_state_dict(state)
            raise

    def __repr__(self) -> str:
        return "Optimizers([\n" + ",\n".join(map(repr, self.optimizers)) + "\n])"
