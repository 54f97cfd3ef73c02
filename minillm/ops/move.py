"""Copies: to other memory, to another device. Gradients take the same way back."""

from __future__ import annotations

from ..device import device_of, to_device
from ..engine import op

__all__ = ["clone", "move"]


@op
def clone(x):
    """A copy of x in memory of its own."""
    return x.copy()


@clone.vjp
def _(dout):
    return dout


@op
def move(x, device):
    """x on another device ("cpu", "cuda"); x itself where it is there already."""
    return to_device(x, device), {"source": device_of(x)}


@move.vjp
def _(dout, source):
    return move(dout, source)
