"""From Tensors to the arrays inside them, for what an op treats as a constant."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def array_of(x: Any) -> Any:
    """The array inside a Tensor; an array itself."""
    return x.data if hasattr(x, "node") else x


def constant(function: str, name: str, x: Any) -> Any:
    """The array of an argument that gets no gradient; an error if it asks for one."""
    if getattr(x, "requires_grad", False):
        raise ValueError(f"{function}: {name} is a constant here and gets no gradient; pass {name}.detach()")
    return array_of(x)
