"""erf and erfc from +, *, / and exp alone, for array libraries that have neither.

    erf(x) = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x          erfc(x) = 1 - erf(x)

W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969), 631-637:
with y = |x|, and a quotient of polynomials R_k fitted to each range,

    y <= 0.46875         erf(x)  = x * R_1(y^2)
    0.46875 < y <= 4     erfc(y) = exp(-y^2) * R_2(y)
    4 < y                erfc(y) = exp(-y^2) / y * (1 / sqrt(pi) - R_3(1 / y^2) / y^2)

Measured relative errors: below 4e-16 for erf, and below 7e-16 for erfc for as long as it is a normal number (x < 26.5).
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import array_module

# Numerator and denominator of each R_k, highest power first.
R_1 = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
R_2 = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
R_3 = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3),
)  # fmt: skip


def erf(x: Any) -> Any:
    """The error function, elementwise: x of any shape and a floating dtype, the result the same. erf(+-inf) = +-1."""
    xp = array_module(x)
    near, far = _near_and_far(x)
    return xp.asarray(xp.where(abs(x) <= 0.46875, near, xp.where(x < 0, far - 1, 1 - far)), dtype=x.dtype)


def erfc(x: Any) -> Any:
    """1 - erf(x), elementwise, with full relative accuracy where erf(x) is close to 1."""
    xp = array_module(x)
    near, far = _near_and_far(x)
    return xp.asarray(xp.where(abs(x) <= 0.46875, 1 - near, xp.where(x < 0, 2 - far, far)), dtype=x.dtype)


def _near_and_far(x: Any) -> tuple[Any, Any]:
    """float64: erf(x), right where |x| <= 0.46875, and erfc(|x|), right where |x| > 0.46875."""
    xp = array_module(x)
    x = x.astype(xp.float64)
    y = xp.minimum(abs(x), 30.0)  # erfc(30) is 0 in float64; no square overflows
    small, middle, large = xp.minimum(y, 0.46875), xp.clip(y, 0.46875, 4.0), xp.maximum(y, 4.0)
    near = xp.clip(x, -0.46875, 0.46875) * _quotient(small * small, R_1)
    t = 1 / (large * large)
    far = xp.where(y <= 4, _quotient(middle, R_2), (1 / math.sqrt(math.pi) - t * _quotient(t, R_3)) / large)
    head = xp.trunc(16 * y) / 16  # head * head is exact, so exp loses nothing to the rounding of y * y
    return near, xp.exp(-head * head) * xp.exp(-(y - head) * (y + head)) * far


def _quotient(t: Any, polynomials: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    numerator, denominator = (_horner(t, coefficients) for coefficients in polynomials)
    return numerator / denominator


def _horner(t: Any, coefficients: tuple[float, ...]) -> Any:
    value = 0 * t + coefficients[0]
    for c in coefficients[1:]:
        value = value * t + c
    return value
