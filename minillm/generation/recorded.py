"""A token's step, recorded: on a GPU a small model computes faster than Python can ask it to.

A step of a GPT-2 is some 150 launches, of a few microseconds each. As a CUDA graph (minillm/cuda/graphs.py) it is one.
For that each step must be the same: the token is written at a place that the device counts, and attention goes over the
whole cache with a mask. Worth its recording, about three tokens' time, from a few dozen tokens on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cuda.graphs import graph
from ..device import array_module
from ..recording import no_grad
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..models import GPT
    from ..nn.kv_cache import KVCache


class RecordedStep:
    """RecordedStep(model, cache)(tokens) -> logits (B, V), an array on the device, of the token after each text.

    cache    holds the texts so far, and is made steady; tokens (B,) ids of one more token each
    record   how the step is recorded: minillm.cuda.graph
    What it returns is written again by the next call. ValueError for a full cache; GraphError for what cannot be
    recorded (a mixture of experts asks the CPU where its tokens go).
    """

    def __init__(self, model: GPT, cache: KVCache, record: Callable[..., Any] = graph):
        self.cache = cache
        cache.check(cache.batch, 1)
        cache.steady()
        xp = array_module(cache.place)
        first = Tensor(xp.zeros((cache.batch, 1), np.int64))

        @no_grad()
        def step(ids: Tensor) -> Tensor:
            return model.logits(model.hidden(ids, cache)[:, -1])

        self._run = record(step, first)

    def __call__(self, tokens: Any) -> Any:
        cache = self.cache
        cache.check(cache.batch, 1)
        logits = self._run(np.asarray(tokens, np.int64)[:, None])
        cache.advance(1)
        return logits.data
