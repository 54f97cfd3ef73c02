"""N-grams of characters or tokens with Witten-Bell smoothing: what counting alone reaches on a text.

I. Witten and T. Bell, The zero-frequency problem, IEEE Trans. Information Theory 37 (1991), method C; in the form that
S. Chen and J. Goodman give it, An empirical study of smoothing techniques for language modeling, TR-10-98 (1998):

    p(w | h) = (c(h, w) + T(h) p(w | h')) / (c(h) + T(h))

c(h, w) counts history h followed by w, c(h) = sum_w c(h, w), T(h) is the number of different symbols seen after h, and
h' is h without its oldest symbol. Below the empty history stands the uniform distribution 1 / V. An unseen history has
c = T = 0 and leaves p(w | h').
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


class NGram:
    """A model of ids in 0 .. V - 1 that looks back on order - 1 of them.

    The counts are a trie, kept level by level in sorted arrays. Level k has a node for each different k-gram; its key
    is parent * V + w, with `parent` the node of its first k - 1 symbols on level k - 1. A node is thus found by one
    binary search, and no key exceeds (length of the text) * V: no order and no alphabet overflows 64 bits.

        >>> import numpy as np
        >>> model = NGram(order=2).fit(np.array([0, 1, 0, 1, 0]), vocab_size=2)
        >>> round(float(np.exp(model.log_probabilities(np.array([0, 1]))[1])), 4)     # (2 + 1 * (2 + 2 * 0.5) / 7) / 3
        0.8095
    """

    def __init__(self, order: int):
        if order < 1:
            raise ValueError(f"order={order}: expected 1 or more, 1 for frequencies without history")
        self.order = order

    def fit(self, ids: Any, vocab_size: int) -> NGram:
        """Count the n-grams of ids, integers (T,) from 0 to vocab_size - 1, up to the model's order."""
        self.vocab_size = vocab_size
        ids = self._checked(ids)
        self._keys: list[Any] = []  # per level k = 1 .. order: sorted keys of the nodes
        self._counts: list[Any] = []  # c(h, w) of each node
        self._totals: list[Any] = []  # c(h) of each parent h
        self._types: list[Any] = []  # T(h) of each parent h
        node, nodes = np.zeros(len(ids) + 1, np.int64), 1  # node[i]: the (k-1)-gram that ends before position i
        for k in range(min(self.order, len(ids))):
            keys, node, counts = np.unique(node[:-1] * vocab_size + ids[k:], return_inverse=True, return_counts=True)
            parents = keys // vocab_size
            self._keys.append(keys)
            self._counts.append(counts)
            self._totals.append(np.bincount(parents, counts, minlength=nodes))
            self._types.append(np.bincount(parents, minlength=nodes))
            nodes = len(keys)
        return self

    def log_probabilities(self, ids: Any) -> Any:
        """log p of each of ids (T,) given those before it in ids, nats, float64 (T,). The first has no history."""
        return list(self._by_order(ids))[-1]

    def cross_entropy(self, ids: Any) -> float:
        """Mean of -log p over ids (T,), nats per symbol."""
        return self.cross_entropies(ids)[-1]

    def cross_entropies(self, ids: Any) -> list[float]:
        """That of every order from 1 to the model's, in one pass: an order's p is a step on the way to the next one's.

        >>> [round(h, 3) for h in NGram(3).fit(np.arange(300) % 3, 3).cross_entropies(np.arange(300) % 3)]
        [1.099, 0.01, 0.004]
        """
        reached = [float(-p.mean()) for p in self._by_order(ids)]
        return reached + reached[-1:] * (self.order - len(reached))  # a text shorter than the order has no such n-gram

    def _by_order(self, ids: Any) -> Iterator[Any]:
        """log p (T,) of ids by histories of no symbol, of one, of two, ..."""
        if not hasattr(self, "vocab_size"):
            raise ValueError("this NGram has seen no text: call fit(ids, vocab_size) first")
        ids = self._checked(ids)
        p = np.full(len(ids), 1 / self.vocab_size)
        node = np.zeros(len(ids), np.int64)  # the history h of each position, as a node; -1 where it was never seen
        for keys, counts, totals, types in zip(self._keys, self._counts, self._totals, self._types):
            place, found = _find(keys, node * self.vocab_size + ids)  # a history of -1 gives a negative key: not found
            c = np.where(found, counts[place], 0)
            history = node.clip(min=0)
            total = np.where(node >= 0, totals[history], 0)
            # an unseen history, and one seen only where the text ends, has no types: it keeps the shorter one's p
            t = np.where(node >= 0, types[history], 0)
            p = np.where(t > 0, (c + t * p) / np.maximum(total + t, 1), p)
            node = np.r_[-1, np.where(found, place, -1)[:-1]]  # the k-gram that ends at i is the history of i + 1
            yield np.log(p)

    def _checked(self, ids: Any) -> Any:
        ids = np.asarray(ids)
        if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu":
            raise ValueError(f"ids {ids.dtype} {ids.shape}: expected integers of shape (T,), T >= 1")
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"ids from {ids.min()} to {ids.max()}: expected 0 to {self.vocab_size - 1}")
        return ids.astype(np.int64)


def _find(keys: Any, wanted: Any) -> tuple[Any, Any]:
    """Place of each wanted value in sorted keys, and whether it is there."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return place, keys[place] == wanted
