"""Evaluation mode for a while: what was in training mode before is so again afterwards, module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .module import Module


@contextmanager
def evaluation(model: Module) -> Iterator[None]:
    """Inside the block the model is in evaluation mode (no dropout); afterwards each module is in the mode it was
    in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
