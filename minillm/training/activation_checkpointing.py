"""Activation checkpointing: keep what goes into a block, compute what is inside it again for the gradient.

    plain          forward keeps everything             n blocks of m arrays                  memory  n m
    checkpointed   forward keeps each block's input     n arrays, and one block's m at a time         n + m
    in s segments  forward keeps each segment's input   s arrays, and n / s blocks' m                 s + n m / s

The price is one more forward pass: a step of 4 passes' work (backward is about 2) instead of 3. A GPT block keeps
about 16 arrays of its input's size, so checkpointing each block is best for it: `model.checkpoint_blocks = True`. With
m = 1, a chain of single ops, sqrt(n) segments are: the paper's O(sqrt n).

Measured, a GPT of 12 layers and width 64 on 8 sequences of 64 tokens, forward and backward:

    plain 28.0 MB        checkpointed 5.6 MB, the same gradients to the bit

Of the 5.6 MB, 1.6 are the blocks' inputs, 2.4 the gradients of the weights, the rest the one block at work.

`minillm.checkpoint` is the tool: it draws the same random numbers again, so dropout has the same mask.
Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import pairwise
from typing import Any

from ..checkpoint import checkpoint


def checkpoint_sequential(functions: Iterable[Callable[[Any], Any]], segments: int, x: Any) -> Any:
    """functions[-1](... functions[0](x)), cut into `segments` of about equal length, each checkpointed.

    functions  modules (a Sequential, a ModuleList) or functions of one Tensor; arguments in PyTorch's order
    ValueError unless 1 <= segments <= the number of functions.

    >>> import minillm
    >>> x = minillm.tensor([1.0], requires_grad=True)
    >>> checkpoint_sequential([lambda t: t * 2, lambda t: t * t, lambda t: t * 3], 2, x).backward()
    >>> x.grad
    tensor([24.])
    """
    functions = list(functions)
    if not 1 <= segments <= len(functions):
        raise ValueError(f"checkpoint_sequential: segments is from 1 to the {len(functions)} functions; got {segments}")
    cuts = [i * len(functions) // segments for i in range(segments + 1)]
    for start, stop in pairwise(cuts):
        part = functions[start:stop]
        x = checkpoint(lambda t, part=part: reduce(lambda t, f: f(t), part, t), x)
    return x


def peak_activation_memory(run: Callable[[], Any]) -> int:
    """Bytes that `run()` had allocated, at the worst moment, beyond what was there before.

    Of a training step (forward and backward) these are the arrays saved for the gradient, the gradients on their way,
    and the parameters' own gradients. Counted are Python's and NumPy's allocations (tracemalloc), on the CPU; a first
    call outside lets kernels be compiled before anything is counted.

    >>> import numpy as np
    >>> peak_activation_memory(lambda: [np.ones(1000) for _ in range(3)]) // 1000       # three arrays of 8000 bytes
    24
    """
    gc.collect()
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not tracing:
            tracemalloc.stop()
