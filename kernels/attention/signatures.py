"""The types that the kernels are compiled for: number = float32 or float64; word = int32 for bfloat16, else number.

Numba would compile a kernel again for each layout of each array. With a signature of arrays of any strides ("A"),
read-only or not, there is one version for each dtype.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ..vector.types import Pointer

RULE = types.Tuple((types.boolean, types.intp, types.intp))  # causal, offset, window
DROP = types.Tuple((types.uint64, types.uint64, types.uint32, types.float64))  # what dropout.drop_options gives

_i, _bool, _scale = types.intp, types.boolean, types.float64
_words = types.Array(types.uint64, 1, "C")


def _array(number: Any, ndim: int) -> Any:
    return types.Array(number, ndim, "C", readonly=True)


def _given(number: Any) -> Any:
    return types.Array(number, 4, "A", readonly=True)


def _made(number: Any) -> Any:
    return types.Array(number, 4, "A")


def block(number: Any, word: Any) -> tuple[Any, ...]:
    """`forward._block`"""
    p = Pointer(number)
    rows = p, _i, p, _i, p, _i
    bias = p, types.UniTuple(_i, 2), _bool
    rooms = DROP, _i, _words, types.Array(number, 1, "C"), p, Pointer(word)
    return *rows, _i, _i, _i, _i, RULE, _scale, *bias, *rooms, p, _i, p


def forward(number: Any, word: Any) -> tuple[Any, ...]:
    """`forward.forward`"""
    rooms = types.Array(types.uint64, 2, "C"), *(types.Array(t, 2, "C") for t in (number, number, word))
    out = _made(number), types.Array(number, 3, "C")
    return *(_given(number),) * 3, _array(number, 4), _bool, RULE, _scale, DROP, *rooms, *out


def pair(number: Any, word: Any) -> tuple[Any, ...]:
    """`backward._pair`"""
    p = Pointer(number)
    rows = p, _i, p, _i, p, _i, p
    bias = p, types.UniTuple(_i, 2), _bool
    rooms = DROP, _i, _words, types.Array(number, 1, "C"), p, Pointer(word)
    return *rows, *bias, RULE, _scale, *rooms, p, *(_i,) * 6, _bool


def part(number: Any, word: Any) -> tuple[Any, ...]:
    """`backward._part`"""
    options = _array(number, 3), _array(number, 4), _bool, RULE, _scale, DROP
    rooms = _words, types.Array(number, 1, "C"), Pointer(number), Pointer(word), types.Array(number, 5, "C")
    return *(_given(number),) * 5, *options, *rooms, *(_made(number),) * 2, _i, _i, _i


def backward(number: Any, word: Any) -> tuple[Any, ...]:
    """`backward.backward`"""
    options = _array(number, 3), _array(number, 4), _bool, RULE, _scale, DROP
    rooms = types.Array(types.uint64, 2, "C"), *(types.Array(t, 2, "C") for t in (number, number, word))
    return *(_given(number),) * 5, *options, *rooms, types.Array(number, 5, "C"), *(_made(number),) * 3


def cut(number: Any, word: Any) -> tuple[Any, ...]:
    """`decode._cut`"""
    rooms = _words, types.Array(number, 1, "C"), Pointer(number), types.Array(number, 5, "C")
    return *(_given(number),) * 3, _array(number, 4), _bool, RULE, _scale, DROP, *rooms, _i, _i, _i


def decode(number: Any, word: Any) -> tuple[Any, ...]:
    """`decode.decode`"""
    before, out = forward(number, word)[:-3], forward(number, word)[-2:]
    return *before, types.Array(number, 5, "C"), *out
