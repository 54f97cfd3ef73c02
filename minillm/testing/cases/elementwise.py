"""Cases: arithmetic, elementary functions, choices."""

from __future__ import annotations

import numpy as np

from minillm import functional as F

from .case import Case, case, distinct, given, normal, positive

MASK = np.array([[True, False, True], [False, False, True]])


def _where_nan(x):
    """The branch not taken is nan, and so is its slope."""
    return F.where(x > 0, F.log(F.where(x > 0, x, 1.0)), x * 0.5)


CASES: list[Case] = [
    # arithmetic
    case("add", F.add, normal(2, 3), normal(2, 3), torch=lambda torch, x, y: x + y),
    case("add", F.add, normal(2, 1, 3), normal(4, 1), label="broadcast both", torch=lambda torch, x, y: x + y),
    case("add", F.add, given(0.7), normal(2), label="0-d", torch=lambda torch, x, y: x + y),
    case("add", lambda x: 2 + x, normal(3), label="number", torch=lambda torch, x: 2 + x),
    case("sub", F.sub, normal(2, 3), normal(3), label="broadcast", torch=lambda torch, x, y: x - y),
    case("sub", lambda x: 1.5 - x, normal(3), label="number first", torch=lambda torch, x: 1.5 - x),
    case("mul", F.mul, normal(2, 3), normal(2, 3), torch=lambda torch, x, y: x * y),
    case("mul", F.mul, normal(2, 1), normal(3), label="broadcast both", torch=lambda torch, x, y: x * y),
    case("mul", lambda x: x * x, normal(3), label="same tensor twice", torch=lambda torch, x: x * x),
    case("div", F.div, normal(2, 3), positive(2, 3), torch=lambda torch, x, y: x / y),
    case("div", F.div, normal(3), positive(2, 1), label="broadcast both", torch=lambda torch, x, y: x / y),
    case("div", lambda y: 2 / y, positive(3), label="number first", torch=lambda torch, y: 2 / y),
    case("neg", F.neg, normal(2, 3), torch=lambda torch, x: -x),
    case("pow", F.pow, positive(2, 3), normal(3), label="broadcast", torch=lambda torch, x, y: x**y),
    case("pow", lambda x: x**3, normal(4), label="integer exponent", torch=lambda torch, x: x**3),
    case("pow", lambda x: x**0.5, positive(4), label="root", torch=lambda torch, x: x**0.5),
    case("pow", lambda x: x**-2, positive(4), label="negative exponent", torch=lambda torch, x: x**-2),
    case("pow", lambda x: x**2, given([0.0, -1.0, 2.0]), label="base 0", torch=lambda torch, x: x**2),
    case("pow", lambda x: x**0, given([0.0, -1.0, 2.0]), label="exponent 0", torch=lambda torch, x: x**0),
    case("pow", lambda y: 2.0**y, normal(3), label="number as base", torch=lambda torch, y: 2.0**y),
    case("remainder", F.remainder, given([5.3, -5.3, 1.2]), given([2.0, 2.0, -0.7]),
         torch=lambda torch, x, y: torch.remainder(x, y)),
    case("square", F.square, normal(2, 3), torch=lambda torch, x: torch.square(x)),
    case("reciprocal", F.reciprocal, positive(3), torch=lambda torch, x: torch.reciprocal(x)),
    # functions
    case("sqrt", F.sqrt, positive(2, 3), torch=lambda torch, x: torch.sqrt(x)),
    case("rsqrt", F.rsqrt, positive(2, 3), torch=lambda torch, x: torch.rsqrt(x)),
    case("exp", F.exp, normal(2, 3), torch=lambda torch, x: torch.exp(x)),
    case("exp", F.exp, given(0.7), label="0-d", torch=lambda torch, x: torch.exp(x)),
    case("expm1", F.expm1, normal(2, 3), torch=lambda torch, x: torch.expm1(x)),
    case("log", F.log, positive(2, 3), torch=lambda torch, x: torch.log(x)),
    case("log1p", F.log1p, positive(2, 3), torch=lambda torch, x: torch.log1p(x)),
    case("sin", F.sin, normal(2, 3), torch=lambda torch, x: torch.sin(x)),
    case("cos", F.cos, normal(2, 3), torch=lambda torch, x: torch.cos(x)),
    case("tanh", F.tanh, normal(2, 3), torch=lambda torch, x: torch.tanh(x)),
    case("sigmoid", F.sigmoid, normal(2, 3, scale=3.0), torch=lambda torch, x: torch.sigmoid(x)),
    case("erf", F.erf, normal(2, 3), torch=lambda torch, x: torch.erf(x)),
    # choices
    case("abs", F.abs, distinct(2, 3), torch=lambda torch, x: torch.abs(x)),
    case("sign", F.sign, distinct(2, 3), torch=lambda torch, x: torch.sign(x)),
    case("floor", F.floor, given([-1.5, 0.3, 2.7]), torch=lambda torch, x: torch.floor(x)),
    case("ceil", F.ceil, given([-1.5, 0.3, 2.7]), torch=lambda torch, x: torch.ceil(x)),
    case("round", F.round, given([-1.4, 0.3, 2.7]), torch=lambda torch, x: torch.round(x)),
    case("maximum", F.maximum, distinct(2, 3), given([[0.02], [-0.11]]), torch=lambda torch, x, y: torch.maximum(x, y)),
    case("minimum", F.minimum, distinct(2, 3), given([[0.02], [-0.11]]), torch=lambda torch, x, y: torch.minimum(x, y)),
    case("clamp", lambda x: F.clamp(x, -0.2, 0.2), distinct(2, 4), torch=lambda torch, x: torch.clamp(x, -0.2, 0.2)),
    case("clamp", lambda x: F.clamp(x, min=0.1), distinct(2, 4), label="min",
         torch=lambda torch, x: torch.clamp(x, min=0.1)),
    case("clamp", lambda x: F.clamp(x, max=0.1), distinct(2, 4), label="max",
         torch=lambda torch, x: torch.clamp(x, max=0.1)),
    case("where", lambda x, y: F.where(MASK, x, y), normal(2, 3), normal(3), label="broadcast",
         torch=lambda torch, x, y: torch.where(torch.tensor(MASK), x, y)),
    case("where", lambda x: F.where(MASK, x, 0.0), normal(2, 3), label="number",
         torch=lambda torch, x: torch.where(torch.tensor(MASK), x, 0.0)),
    case("where", _where_nan, given([-1.0, 0.5, 2.0]), label="log of the positive ones"),
    case("masked_fill", lambda x: F.masked_fill(x, MASK, -2.0), normal(2, 3),
         torch=lambda torch, x: x.masked_fill(torch.tensor(MASK), -2.0)),
    case("masked_fill", lambda x: F.masked_fill(x, MASK, -2.0), normal(2, 2, 3), label="broadcast mask",
         torch=lambda torch, x: x.masked_fill(torch.tensor(MASK), -2.0)),
    case("to_dtype", lambda x: F.to_dtype(x, np.float64) * 2, normal(3),
         torch=lambda torch, x: x.to(torch.float64) * 2),
]  # fmt: skip
