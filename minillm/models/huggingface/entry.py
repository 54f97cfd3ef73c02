"""The same weight in both worlds."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A parameter of the GPT, or some rows of it, beside the tensor of the file that holds the same numbers.

    ours        the parameter's name
    rows        (first, end) of them that the tensor is; None: all
    theirs      the tensor's name
    shape       the tensor's
    transposed  the file has the matrix the other way round
    """

    ours: str
    rows: tuple[int, int] | None
    theirs: str
    shape: tuple[int, ...]
    transposed: bool = False
