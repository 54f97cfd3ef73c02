"""Mixed precision: `autocast`, a block in which products are made of bfloat16 numbers.

    with autocast():                        # forward pass and loss
        loss = model.loss(x, y)
    loss.backward()                         # each op's gradient in the precision of its forward pass

Inside, the float32 operands of linear layers and of attention are rounded to bfloat16 (8 bits of precision instead of
24) as they are packed for the product, and sums stay in float32: twice the multiplications a second where the CPU has
AVX512_BF16 instructions. On a GPU they become arrays of bfloat16, which the tensor cores of cuBLAS and of the attention
kernel multiply at sixteen times the rate of float32. Parameters, activations, gradients, norms and losses are float32
throughout, so there is nothing to scale and no second copy of the weights: bfloat16 has float32's range.

Source: Micikevicius et al. 2017, Mixed Precision Training, arXiv:1710.03740; Kalamkar et al. 2019, A Study of BFLOAT16
for Deep Learning Training, arXiv:1905.12322.

On a GPU memory is the other half: there `minillm.training.mixed_precision(model, "bfloat16")` lets all activations and
their gradients be bfloat16, too, from float32 masters.
"""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any

import numpy as np

from .device import in_use


class _State(threading.local):
    bf16 = False


state = _State()


class autocast(ContextDecorator):
    """Linear layers and attention in bfloat16, inside the block; a block with enabled=False inside it undoes that.

    RuntimeError where neither the CPU multiplies bfloat16 (`kernels.has_bf16()`) nor a GPU is in use; ValueError for
    another dtype.
    Second derivatives (create_graph=True) are taken in float32.
    """

    def __init__(self, dtype: Any = "bfloat16", enabled: bool = True):
        if str(dtype) != "bfloat16":
            raise ValueError(f'autocast: dtype is "bfloat16", the only one that saves time on a CPU; got {dtype!r}')
        self.enabled = enabled
        self._before: list[bool] = []  # a stack: the same object may be entered again inside itself

    def __enter__(self) -> autocast:
        import kernels

        if self.enabled and not kernels.has_bf16() and not in_use("cuda"):
            raise RuntimeError(
                "autocast: this CPU has no bfloat16 products (AVX512_BF16), and without them they are slower than "
                "float32: leave autocast out, or pass enabled=kernels.has_bf16()"
            )
        self._before.append(state.bf16)
        state.bf16 = self.enabled
        return self

    def __exit__(self, *_: Any) -> None:
        state.bf16 = self._before.pop()

    def _recreate_cm(self) -> Any:  # a decorated function: a block of its own for each call and thread
        return type(self)(enabled=self.enabled)


def in_bf16(x: Any) -> bool:
    """Whether a product with the array x is one of bfloat16 numbers now: in `autocast`, for float32 arrays."""
    return state.bf16 and x.dtype == np.float32
