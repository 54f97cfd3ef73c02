"""What a model reads of texts that grow token by token: a batch, padded on the left, with a KV cache.

    text 0    . . t o   b e        the columns of the cache; a dot is padding
    text 1    w h e r e f o r e

A text is read to the last token once; from then on a step costs one token a text. When the context is full the cache
is dropped, and the last half of the context is read again: positions and states of the model then begin there. What a
text's logits depend on is so its own tokens alone, whatever stands in the batch beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..creation import as_tensor
from ..device import to_numpy
from ..recording import no_grad

if TYPE_CHECKING:
    from ..models import GPT
    from ..nn.kv_cache import KVCache


class Reader:
    """Logits after each of some texts: `first()`, and then `step(tokens)` for each further token of every text.

    texts       id arrays, each with at least one token
    room        the most tokens that a text will have: the cache is made no larger than needed. None: the context
    vocab_size  V, where that is less than the model's: logits of further ids are left out. None: the model's
    recorded    a GPU takes each step as one recorded launch, see recorded.py
    """

    def __init__(
        self,
        model: GPT,
        texts: Sequence[Any],
        room: int | None = None,
        vocab_size: int | None = None,
        recorded: bool = False,
    ):
        self.model, self.texts, self.vocab_size = model, [[int(i) for i in text] for text in texts], vocab_size
        self.context = model.config.context
        self.capacity = self.context if room is None else min(self.context, room)
        self.seen = [min(len(text), self.context) for text in self.texts]  # of each text, its last so many tokens
        self.cache: KVCache | None = None
        self.recorded = recorded
        self._step: Any = None  # once it is recorded

    def first(self) -> np.ndarray:
        """(B, V) float64 in main memory: logits of the token after each text."""
        for b, seen in enumerate(self.seen):
            if seen > self.context:
                self.seen[b] = max(1, self.context // 2)
        length = max(self.seen)
        starts = [length - seen for seen in self.seen]
        ids = np.zeros((len(self.texts), length), np.int64)
        for b, text in enumerate(self.texts):
            ids[b, starts[b] :] = text[-self.seen[b] :]
        self._step = None
        self.cache = self.model.new_cache(len(ids), max(length, self.capacity), starts if any(starts) else None)
        return self._read(ids)

    def step(self, tokens: Any) -> np.ndarray:
        """As `first`, after one more token for each text: tokens (B,)."""
        for b, token in enumerate(tokens):
            self.texts[b].append(int(token))
            self.seen[b] += 1
        if self.cache is None or self.cache.length == self.cache.capacity:
            return self.first()
        if self.recorded:
            if self._step is None:
                from .recorded import RecordedStep

                self._step = RecordedStep(self.model, self.cache)
            return self._checked(self._step(tokens))
        return self._read(np.array(tokens, np.int64)[:, None])

    def select(self, rows: Sequence[int]) -> None:
        """Text b becomes a copy of text rows[b]; to leave some out, or, in a beam search, to go on from the best."""
        self.texts = [list(self.texts[r]) for r in rows]
        self.seen = [self.seen[r] for r in rows]
        if self.cache is not None:
            if self._step is not None:  # of another number of rows, or of other memory
                self.cache.steady(False)
                self._step = None
            self.cache.reorder(rows)

    @no_grad()
    def _read(self, ids: np.ndarray) -> np.ndarray:
        device = self.model.token.weight.device
        hidden = self.model.hidden(as_tensor(ids).to(device), self.cache)  # (B, T, width)
        return self._checked(self.model.logits(hidden[:, -1]).data)

    def _checked(self, on_device: Any) -> np.ndarray:
        """Logits (B, V) in main memory, or an error that they are broken."""
        logits = to_numpy(on_device)[:, : self.vocab_size].astype(np.float64)
        if np.isnan(logits).any() or np.isposinf(logits).any() or np.isneginf(logits).all(-1).any():
            raise ValueError(
                "generate: the model's logits are NaN or infinite; its weights are broken (a training that diverged?)"
            )
        return logits
