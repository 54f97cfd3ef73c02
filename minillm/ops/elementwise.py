"""Everything that works element by element: arithmetic, functions, choices, and what has no slope."""

from .arithmetic import add, div, mul, neg, pow, reciprocal, remainder, square, sub
from .choice import abs, clamp, masked_fill, maximum, minimum, where
from .constants import (
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    eq,
    floor,
    floor_divide,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    lt,
    ne,
    round,
    sign,
)  # fmt: skip
from .dtype import to_dtype
from .functions import cos, erf, exp, expm1, log, log1p, rsqrt, sigmoid, sin, sqrt, tanh

__all__ = [
    "add", "sub", "mul", "div", "neg", "pow", "remainder", "square", "reciprocal",
    "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf",
    "where", "masked_fill", "maximum", "minimum", "clamp", "abs",
    "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "logical_not", "logical_and", "logical_or",
    "bitwise_not", "bitwise_and", "bitwise_or", "bitwise_xor", "allclose",
    "sign", "floor", "ceil", "round", "floor_divide", "to_dtype",
]  # fmt: skip
