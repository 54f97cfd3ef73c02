"""Results without a slope: comparisons, tests, logic, rounding.

Comparisons and tests are constants of the graph. Rounding and sign have slope 0 and pass zeros on, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

from kernels.arrays import array_module

from ..arguments import composed
from ..engine import op

__all__ = [
    "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "logical_not", "logical_and", "logical_or",
    "bitwise_not", "bitwise_and", "bitwise_or", "bitwise_xor", "allclose",
    "sign", "floor", "ceil", "round", "floor_divide",
]  # fmt: skip


@op(broadcasting=True, differentiable=False)
def eq(x, y):
    """x == y, bool."""
    return x == y


@op(broadcasting=True, differentiable=False)
def ne(x, y):
    """x != y, bool."""
    return x != y


@op(broadcasting=True, differentiable=False)
def lt(x, y):
    """x < y, bool."""
    return x < y


@op(broadcasting=True, differentiable=False)
def le(x, y):
    """x <= y, bool."""
    return x <= y


@op(broadcasting=True, differentiable=False)
def gt(x, y):
    """x > y, bool."""
    return x > y


@op(broadcasting=True, differentiable=False)
def ge(x, y):
    """x >= y, bool."""
    return x >= y


@op(differentiable=False)
def isnan(x):
    """True where x is not a number."""
    return array_module(x).isnan(x)


@op(differentiable=False)
def isinf(x):
    """True where x is inf or -inf."""
    return array_module(x).isinf(x)


@op(differentiable=False)
def isfinite(x):
    """True where x is neither infinite nor nan."""
    return array_module(x).isfinite(x)


@op(differentiable=False)
def logical_not(x):
    """True where x is 0 or False."""
    return array_module(x).logical_not(x)


@op(broadcasting=True, differentiable=False)
def logical_and(x, y):
    """True where both are nonzero."""
    return array_module(x, y).logical_and(x, y)


@op(broadcasting=True, differentiable=False)
def logical_or(x, y):
    """True where one of them is nonzero."""
    return array_module(x, y).logical_or(x, y)


# -------------------------------------------------------------------------------- steps: slope 0


@op(differentiable=False)
def zeros_like(x):
    """Zeros of x's shape and dtype."""
    return array_module(x).zeros_like(x)


@op
def sign(x):
    """-1, 0 or 1."""
    return array_module(x).sign(x)


@op
def floor(x):
    """The integer at or below x, in x's dtype."""
    return array_module(x).floor(x)


@op
def ceil(x):
    """The integer at or above x, in x's dtype."""
    return array_module(x).ceil(x)


@op
def round(x):
    """The nearest integer, halves to the even one, in x's dtype."""
    return array_module(x).rint(x)


for step in (sign, floor, ceil, round):
    step.vjp(lambda dout: zeros_like(dout))


@op(broadcasting=True, differentiable=False)
def floor_divide(x, y):
    """floor(x / y)."""
    return x // y


@op(differentiable=False)
def bitwise_not(x):
    """~x: of bools the negation, of integers every bit turned."""
    return ~x


@op(broadcasting=True, differentiable=False)
def bitwise_and(x, y):
    """x & y, of bools or of integers bit by bit."""
    return x & y


@op(broadcasting=True, differentiable=False)
def bitwise_or(x, y):
    """x | y, of bools or of integers bit by bit."""
    return x | y


@op(broadcasting=True, differentiable=False)
def bitwise_xor(x, y):
    """x ^ y, of bools or of integers bit by bit."""
    return x ^ y


@op(differentiable=False)
def _allclose(x, y, rtol, atol, equal_nan):
    return array_module(x).allclose(x, y, rtol, atol, equal_nan)


@composed
def allclose(x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |x - y| <= atol + rtol |y| everywhere: one Python bool."""
    return bool(_allclose(x, y, rtol, atol, equal_nan))
