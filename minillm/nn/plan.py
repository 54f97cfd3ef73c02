"""Where the tokens of a decoder's pass stand and what they see: worked out once, used by every block.

    documents    0 0 0 1 1        token t sees tokens of its own document only; positions restart: 0 1 2 0 1
    ALiBi        score(i, j) - slope_h (i - j)        nearer keys count more, by a slope for each head
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Plan(NamedTuple):
    """offset   tokens that stand before these, in a cache; None: only the device knows, and the mask says all
    rotary   (cos, sin), (T, D/2) each, of these tokens' positions; None: no rotary embedding
    mask     broadcastable to (B, H, T, offset + T), as attention's attn_mask, beside causality; None: nothing more
    """

    offset: int | None = 0
    rotary: tuple[Any, Any] | None = None
    mask: Any = None


def alibi_slopes(heads: int) -> np.ndarray:
    """(heads,) slopes 2^(-8 h / heads), h = 1 .. heads; for another number than a power of two those of the power below
    and then every other one of the power above. Source: Press et al. 2021, Train Short, Test Long, arXiv:2108.12409.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    more = 2.0 ** (-8 * np.arange(1, 2 * power + 1, 2) / (2 * power))
    return np.concatenate([slopes, more[: heads - power]])


def alibi_bias(heads: int, queries: int, offset: int, dtype: Any) -> np.ndarray:
    """-slope_h (i + offset - j) for query i and key j: (1, heads, queries, offset + queries)."""
    distance = np.arange(offset, offset + queries)[:, None] - np.arange(offset + queries)  # (T, S)
    return (-alibi_slopes(heads)[:, None, None] * distance).astype(dtype)[None]


def document_mask(documents: np.ndarray) -> np.ndarray:
    """documents (B, T), an id for each token -> (B, 1, T, T) bool: of one document."""
    return (documents[:, :, None] == documents[:, None, :])[:, None]


def document_positions(documents: np.ndarray) -> np.ndarray:
    """documents (B, T) -> (B, T): how many tokens stand before each in its document, whose tokens are neighbours.

    >>> document_positions(np.array([[7, 7, 7, 2, 2]])).tolist()
    [[0, 1, 2, 0, 1]]
    """
    places = np.arange(documents.shape[1])
    begins = np.ones(documents.shape, bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)


def either(mask: Any, bias: Any) -> Any:
    """A bool mask and a float bias as one attn_mask; one of them may be None."""
    if mask is None or bias is None:
        return bias if mask is None else mask
    return np.where(mask, bias, bias.dtype.type(-np.inf))
