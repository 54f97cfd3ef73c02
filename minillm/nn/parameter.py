"""Parameter: the tensor that an optimizer changes."""

from __future__ import annotations

from typing import Any

from ..device import array_module
from ..tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor with requires_grad=True. A Module finds its Parameters among its attributes.

    The array is kept as it is where it can be trained in place; a strided or read-only one is copied.

    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data)
        flags = self.data.flags
        if not flags.c_contiguous or not getattr(flags, "writeable", True):
            self.data = array_module(self.data).array(self.data, order="C", copy=True)
        self.requires_grad = requires_grad
