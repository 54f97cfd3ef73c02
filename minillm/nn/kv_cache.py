"""The keys and values of the tokens that a decoder has read: each new token then costs one token's work.

Without it, token t costs a pass over all t tokens before it. Memory: 2 * layers * kv_heads * head_dim numbers a token.
Source: Pope et al. 2022, Efficiently Scaling Transformer Inference, arXiv:2211.05102.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import capture
from ..device import array_module, array_module_of


class KVCache:
    """Room for `capacity` tokens of `batch` sequences, layer by layer.

    length   tokens read so far, the same for all rows
    start    (B,) how many of them, on the left of each row, are padding that nobody sees; None: none
    place    (1,) `length` where the arrays lie, after `steady()`; else None
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        dtype: Any = np.float32,
        device: str = "cpu",
        start: Any = None,
    ):
        shape = (batch, kv_heads, capacity, head_dim)
        xp = array_module_of(device)
        self.keys = [xp.empty(shape, dtype) for _ in range(layers)]
        self.values = [xp.empty(shape, dtype) for _ in range(layers)]
        self.capacity, self.length, self.batch = capacity, 0, batch
        self.start = None if start is None else np.asarray(start, np.int64).reshape(batch)
        self.place: Any = None
        self._starts_there: Any = None

    def append(self, layer: int, k: Any, v: Any) -> tuple[Any, Any]:
        """Put away arrays k, v (B, H_kv, T, D) of the tokens after `length`; returns those of all so far, views."""
        keys, values = self.keys[layer], self.values[layer]
        if self.place is not None:
            keys[:, :, self.place], values[:, :, self.place] = k, v
            return keys, values
        if capture.recorded:
            capture.refuse("a KV cache is written behind the tokens that are in it", "call cache.steady() before")
        stop = self.length + k.shape[2]
        keys[:, :, self.length : stop], values[:, :, self.length : stop] = k, v
        return keys[:, :, :stop], values[:, :, :stop]

    def advance(self, tokens: int) -> None:
        """After the last layer: these tokens count as read."""
        if not capture.recorded:
            self.length += tokens
            if self.place is not None:
                self.place += tokens

    def steady(self, on: bool = True) -> None:
        """From now on tokens come one at a time, and each is written at a place that only the device knows: the step of
        a token is the same for all, so that it can be recorded (generation/recorded.py). Off: as before."""
        xp = array_module(self.keys[0])
        self.place = xp.full(1, self.length, np.int64) if on else None
        for x in [*self.keys, *self.values] if on else ():
            x[:, :, self.length :] = 0  # what is not written yet is multiplied by 0, and must not be NaN

    def seen(self, window: int | None = None) -> Any:
        """Of a steady cache: (B or 1, 1, 1, capacity), which tokens the next one sees, itself included."""
        xp = array_module(self.place)
        j = xp.arange(self.capacity)
        seen = j <= self.place
        seen = seen if window is None else seen & (j > self.place - window)
        return (seen if self._starts() is None else seen & (j >= self._starts()))[..., None, None, :]

    def places(self) -> Any:
        """Of a steady cache: (B or 1, 1), the next token's position, counted behind the padding."""
        return self.place[None] if self._starts() is None else self.place - self._starts()

    def _starts(self) -> Any:
        """start as (B, 1) on the device; copied there once."""
        if self._starts_there is None and self.start is not None and self.start.any():
            self._starts_there = array_module(self.place).asarray(self.start[:, None])
        return self._starts_there

    def check(self, batch: int, tokens: int) -> None:
        """ValueError where `tokens` more of `batch` rows do not fit."""
        if batch != self.batch:
            raise ValueError(f"KVCache: made for {self.batch} sequences, got {batch}: make one with new_cache({batch})")
        if self.length + tokens > self.capacity:
            raise ValueError(
                f"KVCache: {self.length} tokens are in it and {tokens} more do not fit, its capacity is "
                f"{self.capacity}: truncate() it, or begin a new one with the latest tokens"
            )

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"KVCache: truncate({length}), but it holds {self.length} tokens")
        self.length = length
        if self.place is not None:
            self.place[...] = length

    def reorder(self, rows: Any) -> None:
        """Row b becomes a copy of row rows[b]: what a beam search does with its beams. rows (B,) or another number."""
        rows = np.asarray(rows, np.int64)
        if rows.ndim != 1 or rows.size == 0 or rows.min() < 0 or rows.max() >= self.batch:
            raise ValueError(f"KVCache: reorder takes indices of its {self.batch} rows, got {rows.tolist()}")
        self.keys, self.values = [k[rows] for k in self.keys], [v[rows] for v in self.values]
        self.batch = len(rows)
        self.start = None if self.start is None else self.start[rows]
        self._starts_there = None
