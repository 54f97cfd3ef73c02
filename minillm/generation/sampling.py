"""From logits to a token: filters, each a formula on logits (V,), and a draw from what they leave.

| filter | what stays |
|---|---|
| repetition penalty r | all; logits of tokens already in the text are made smaller |
| temperature T | all; logits / T. 0: the likeliest only |
| top-k | the k likeliest |
| top-p | the likeliest that together have probability p |
| min-p | those at least m times as likely as the likeliest |

They run in this order, and each sees the probabilities that those before it left. A token that goes gets -inf.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Logits = Any  # NumPy float64 (V,)


def repetition_penalty(logits: Logits, seen: Iterable[int], penalty: float) -> Logits:
    """x_i / r where x_i > 0, else x_i r, for the ids i in `seen`; r > 1 makes them less likely, 1 changes nothing.

    Source: Keskar et al. 2019, CTRL, arXiv:1909.05858, section 4.1; negative logits are multiplied, as in its code.

    >>> repetition_penalty(np.array([2.0, -2.0, 2.0]), [0, 1], 2.0).tolist()
    [1.0, -4.0, 2.0]
    """
    ids = np.unique(np.asarray(list(seen), np.int64))
    out = logits.copy()
    out[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return out


def temperature(logits: Logits, T: float) -> Logits:
    """(x - max x) / T: below 1 sharper, above 1 flatter. The largest becomes 0, so that nothing overflows upwards.

    >>> temperature(np.array([1.0, 3.0]), 0.5).tolist()
    [-4.0, 0.0]
    """
    with np.errstate(over="ignore"):  # a tiny T: -inf is the limit
        return (logits - logits.max()) / T


def top_k(logits: Logits, k: int) -> Logits:
    """The k largest logits; of equal ones at the border as many as make k. Source: Fan et al. 2018, arXiv:1805.04833.

    >>> top_k(np.array([1.0, 3.0, 2.0]), 2).tolist()
    [-inf, 3.0, 2.0]
    """
    if k >= logits.size:
        return logits
    return _only(logits, np.argpartition(-logits, k - 1)[:k])


def top_p(logits: Logits, p: float) -> Logits:
    """The smallest set of likeliest tokens whose probabilities sum to at least p: the nucleus.

    Token i stays while the sum of those likelier than it is below p, so at least one does. Source: Holtzman et al.
    2019, The Curious Case of Neural Text Degeneration, arXiv:1904.09751.

    >>> top_p(np.log([0.5, 0.3, 0.2]), 0.7).round(2).tolist()
    [-0.69, -1.2, -inf]
    """
    order = np.argsort(-logits, kind="stable")
    sorted_p = _softmax(logits)[order]
    before = np.cumsum(sorted_p) - sorted_p
    before[0] = 0.0
    return _only(logits, order[before < p])


def min_p(logits: Logits, m: float) -> Logits:
    """The tokens with p_i >= m max p: few where the model is sure, many where it is not.

    Source: Nguyen et al. 2024, arXiv:2407.01082.

    >>> min_p(np.log([0.6, 0.3, 0.1]), 0.4).round(2).tolist()
    [-0.51, -1.2, -inf]
    """
    p = _softmax(logits)
    return np.where(p >= m * p.max(), logits, -np.inf)


def draw(logits: Logits, u: float) -> int:
    """The token that u in [0, 1) picks from softmax(logits): the first i with p_0 + ... + p_i > u. Never one of -inf.

    >>> [draw(np.log([0.25, 0.5, 0.25]), u) for u in (0.1, 0.3, 0.7, 0.8)]
    [0, 1, 1, 2]
    """
    total = np.cumsum(np.exp(logits - logits.max()))
    return int(np.searchsorted(total, u * total[-1], side="right"))


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults: from the model's own probabilities."""

    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0  # of tokens that the text holds, the prompt included

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"generate: temperature must be a number of at least 0, got {self.temperature}")
        if self.top_k is not None and (self.top_k < 1 or self.top_k != int(self.top_k)):
            raise ValueError(f"generate: top_k must be a whole number of at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"generate: top_p must be above 0 and at most 1, got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"generate: min_p must be from 0 to 1, got {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"generate: repetition_penalty must be a number above 0, got {self.repetition_penalty}")

    def filtered(self, logits: Logits, seen: Iterable[int] = ()) -> Logits:
        """logits (V,) after the filters; a temperature of 0 leaves the likeliest token alone."""
        logits = np.asarray(logits, np.float64)
        if self.repetition_penalty != 1:
            logits = repetition_penalty(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return _only(logits, np.array([logits.argmax()]))
        logits = temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, int(self.top_k))
        if self.top_p is not None and self.top_p < 1:
            logits = top_p(logits, self.top_p)
        if self.min_p:
            logits = min_p(logits, self.min_p)
        return logits

    def choose(self, logits: Logits, seen: Iterable[int], generator: Any) -> int:
        """The next token: logits (V,) of it, the ids in the text so far, and a Generator, of which one number is used
        (none at temperature 0)."""
        logits = self.filtered(logits, seen)
        return int(logits.argmax()) if self.temperature == 0 else draw(logits, float(generator.uniform()))


def _softmax(logits: Logits) -> Any:
    p = np.exp(logits - logits.max())
    return p / p.sum()


def _only(logits: Logits, kept: Any) -> Logits:
    """-inf everywhere but at the indices `kept`."""
    out = np.full_like(logits, -np.inf)
    out[kept] = logits[kept]
    return out
