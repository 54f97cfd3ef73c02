"""Packing: many short documents in rows of one length, instead of a row each that is mostly padding.

    documents   a b c   d e   f g h i j k          context 5, no separator

    ids         f g h i j     a b c d e      k, left over, has no target: it was j's
    targets     g h i j k     b c . e .      . = -100: nothing follows in the document
    documents   2 2 2 2 2     0 0 0 1 1      tokens see their own document only, and positions begin anew with it

A document's loss in a packed row is what it would be alone: `model.loss(ids, targets, documents=documents)`.
Documents longer than the context are cut, and each piece is then a document of its own.

Rows are filled longest piece first, each into the fullest row that has room for it (best fit decreasing: at most about
11/9 of the fewest rows possible, Johnson et al. 1974). Source: Krell et al. 2021, Efficient Sequence Packing without
Cross-contamination, arXiv:2107.02027.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..data.errors import DataError

NO_TARGET = -100  # what F.cross_entropy ignores
PADDING = -1  # in Packed.documents


class Packed(NamedTuple):
    """Three int64 arrays (rows, context): the tokens, the token that follows each (-100: none), and a number for each
    piece of a document, in the documents' order (-1: padding)."""

    ids: Any
    targets: Any
    documents: Any


def pack(documents: Iterable[Any], context: int, separator: int | None = None) -> Packed:
    """Documents, each a sequence of ids, in rows of `context` tokens.

    separator  an id that is put behind each document: its end is then predicted, too
    Every two tokens that follow one another in a document are a token and its target once; a document without such a
    pair (empty, or of one token without a separator) takes no place. Padding is the separator, or id 0. The rows come
    longest piece first: draw batches from them at random.
    DataError for documents that are not sequences of ids, and where there is nothing to predict.

    >>> ids, targets, documents = pack([[1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11]], 5)
    >>> ids.tolist()
    [[6, 7, 8, 9, 10], [1, 2, 3, 4, 5]]
    >>> targets.tolist()
    [[7, 8, 9, 10, 11], [2, 3, -100, 5, -100]]
    >>> documents.tolist()
    [[2, 2, 2, 2, 2], [0, 0, 0, 1, 1]]
    """
    if context < 1:
        raise DataError(f"pack: context={context}; expected 1 or more, the tokens of a row")
    if separator is not None and separator < 0:
        raise DataError(f"pack: separator={separator}; expected an id, 0 or more, or None")
    pieces = [piece for i, d in enumerate(documents) for piece in _pieces(_ids(i, d, separator), context)]
    if not pieces:
        raise DataError(
            "pack: no document has two tokens that follow one another, so there is nothing to predict; "
            "give longer documents, or a separator"
        )
    rows = best_fit([len(x) for x, _ in pieces], context)
    ids = np.full((len(rows), context), 0 if separator is None else separator, np.int64)
    targets, owners = np.full_like(ids, NO_TARGET), np.full_like(ids, PADDING)
    for r, row in enumerate(rows):
        start = 0
        for number in row:
            x, y = pieces[number]
            place = slice(start, start + len(x))
            ids[r, place], targets[r, place], owners[r, place] = x, y, number
            start += len(x)
    return Packed(ids, targets, owners)


def best_fit(lengths: list[int], room: int) -> list[list[int]]:
    """The numbers of the pieces in each row: each piece, longest first, goes to the row that it leaves least room in.

    >>> best_fit([2, 7, 5, 3, 1], 10)
    [[1, 3], [2, 0, 4]]
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # room left -> rows with so much, the first opened last
    sizes: list[int] = []  # the keys of open_rows, ascending
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(sizes, lengths[number])
        if at == len(sizes):
            left, row = room, len(rows)
            rows.append([])
        else:
            left = sizes[at]
            row = open_rows[left].pop()
            if not open_rows[left]:
                del open_rows[left], sizes[at]
        rows[row].append(number)
        left -= lengths[number]
        if left not in open_rows:
            open_rows[left] = []
            insort(sizes, left)
        open_rows[left].append(row)
    return rows


def _pieces(tokens: Any, context: int) -> list[tuple[Any, Any]]:
    """(ids, targets) of at most `context` tokens each; none without a target."""
    follows = np.append(tokens[1:], NO_TARGET)
    starts = range(0, len(tokens) - 1, context)
    return [(tokens[s : s + context], follows[s : s + context]) for s in starts]


def _ids(index: int, document: Any, separator: int | None) -> Any:
    """The document as an int64 array (T,), the separator behind it."""
    if isinstance(document, (str, bytes)):
        raise DataError(f"pack: document {index} is text; expected its ids: tokenizer.encode(text)")
    ids = np.asarray(document)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise DataError(f"pack: document {index} is {ids.dtype} {ids.shape}; expected integers of shape (T,)")
    ids = ids.astype(np.int64)
    if ids.size and ids.min() < 0:
        raise DataError(f"pack: document {index} holds the id {ids.min()}; expected 0 or more")
    return ids if separator is None else np.append(ids, separator)
