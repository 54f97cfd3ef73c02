"""Entropies, in nats: what a cross-entropy cannot go below (Cover & Thomas, Elements of Information Theory, ch. 2)."""

from __future__ import annotations

from typing import Any

import numpy as np


def bernoulli_entropy(x: Any) -> float:
    """H = mean of -x log x - (1 - x) log(1 - x), nats per pixel, for grey pixels x in [0, 1] of any shape.

    The binary cross-entropy BCE(x, y) = H(x) + KL(x || y) is least, H(x), at the perfect reconstruction y = x: a BCE
    says nothing without this floor. It is 0 only for pixels that are all black or white.
    """
    p = checked_pixels(x)
    return float(np.mean(_minus_x_log_x(p) + _minus_x_log_x(1 - p)))


def unigram_entropy(ids: Any) -> float:
    """H = - sum over symbols of f log f, nats per symbol, with f their relative frequencies in ids, integers (T,)."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.size == 0:
        raise ValueError(f"ids of shape {ids.shape}: expected (T,) with T >= 1")
    counts = np.unique(ids, return_counts=True)[1]
    return float(_minus_x_log_x(counts / ids.size).sum())


def checked_pixels(x: Any) -> Any:
    """x as float64, or a ValueError where it is empty or leaves [0, 1]."""
    x = np.asarray(x, np.float64)
    if x.size == 0 or not (x.min() >= 0 and x.max() <= 1):  # NaN compares false
        held = "no values" if x.size == 0 else f"values from {x.min():g} to {x.max():g}"
        raise ValueError(f"pixels of shape {x.shape} hold {held}: expected values in [0, 1]; rescale them")
    return x


def _minus_x_log_x(x: Any) -> Any:
    return -x * np.log(np.where(x > 0, x, 1))  # 0 log 0 = 0
