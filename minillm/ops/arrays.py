"""From Tensors to the arrays inside them, for what an op treats as a constant; and whether a kernel takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import is_array
from kernels.dispatch import implementation

__all__: list[str] = []


def array_of(x: Any) -> Any:
    """The array inside a Tensor; an array itself."""
    return x.data if hasattr(x, "node") else x


def by_kernel(kernel: str, x: Any) -> bool:
    """Whether a kernel of ours is faster than array code on arrays such as x: on NumPy's floating ones, and on a GPU's
    where there is a CUDA kernel. False for a Tensor: a rule on Tensors uses its formula."""
    if type(x) is np.ndarray:
        return x.dtype.kind == "f"
    return is_array(x) and x.dtype.kind in "fV" and implementation(kernel, None, x).__name__.endswith(".cuda")


def constant(function: str, name: str, x: Any) -> Any:
    """The array of an argument that gets no gradient; an error if it asks for one."""
    if getattr(x, "requires_grad", False):
        raise ValueError(f"{function}: {name} is a constant here and gets no gradient; pass {name}.detach()")
    return array_of(x)
