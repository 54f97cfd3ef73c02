"""The operands of products as float32 (or float64) numbers, or as pairs of bfloat16 (see vector/bfloat16.py).

A tile for bfloat16 takes words of two numbers that are neighbours along k, the axis that is summed over. What was
packed is rounded into words in one of two ways, depending on how k runs through it:

    as_rows     k runs along the rows: the A operands q, dout, p, ds        word (x[r, 2k], x[r, 2k + 1])
    as_pairs    k runs down the columns: all B operands, and P^T, dS^T      word (x[2k, c], x[2k + 1, c])

`words` says which: a pointer to int32 is room for them, with any other type nothing is done, and x itself returned.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from .. import simd


def along(k: Any, words: Any) -> Any:
    """How many words hold k numbers that are neighbours along k."""


def as_rows(x: Any, n: int, row: int, width: int, words: Any) -> Any:
    """n rows of `width` numbers, `row` apart, and so are the words. 16 numbers more are readable after the last."""


def as_pairs(x: Any, n: int, row: int, width: int, words: Any) -> Any:
    """n rows, `row` numbers apart, two by two into one of as many words. If n is odd, row n has to be zeros."""


def either(x: Any, words: Any) -> Any:
    """What as_rows and as_pairs return, where they have been called before."""


@overload(either)
def _(x, words):
    return (lambda x, words: words) if words.dtype == types.int32 else (lambda x, words: x)


@overload(along)
def _(k, words):
    return (lambda k, words: (k + 1) // 2) if words.dtype == types.int32 else (lambda k, words: k)


@overload(as_rows)
def _(x, n, row, width, words):
    if words.dtype != types.int32:
        return lambda x, n, row, width, words: x

    def convert(x, n, row, width, words):
        lanes = simd.lanes(x)
        for r in range(n):
            for c in range(0, width, 2 * lanes):
                both = simd.pack_row(simd.load(x, r * row + c), simd.load(x, r * row + c + lanes))
                simd.store(words, r * row + c // 2, both)
        return words

    return convert


@overload(as_pairs)
def _(x, n, row, width, words):
    if words.dtype != types.int32:
        return lambda x, n, row, width, words: x

    def convert(x, n, row, width, words):
        for r in range(0, n, 2):
            for c in range(0, width, simd.lanes(x)):
                both = simd.pack_pairs(simd.load(x, r * row + c), simd.load(x, (r + 1) * row + c))
                simd.store(words, r // 2 * row + c, both)
        return words

    return convert
