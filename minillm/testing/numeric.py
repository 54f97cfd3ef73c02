"""Derivatives by differences, in float64, with an estimate of their own error.

    D(h) = (f(t + h) - f(t - h)) / 2h = f'(t) + c2 h^2 + c4 h^4 + ...

Three steps h, h/2, h/4 remove the h^2 and the h^4 term (Richardson 1911), so that h can be large and rounding small:
about 1e-12 of the value for a smooth function. What the last extrapolation changed is the estimate of the error.

A kink shows where the slope from the right and the slope from the left do not approach each other as h shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STEP = 4e-3  # the largest h, relative to the size of the input
_SHRINK = 64.0  # a difference that did not converge is tried again with h / 64: the kink may then be outside
_TRIES = 3
_EPS = float(np.finfo(np.float64).eps)


class Slope(NamedTuple):
    """The derivative at t = 0 of M numbers that depend on t."""

    value: np.ndarray  # (M,)
    error: np.ndarray  # (M,), estimated
    kink: np.ndarray  # (M,), bool: left and right slopes differ, or nothing converged
    step: float


def slope(phi: Callable[[float], np.ndarray], step: float = STEP, middle: np.ndarray | None = None) -> Slope:
    """d phi / dt at 0, for phi(t) -> (M,), middle = phi(0). 6 evaluations where phi is smooth, 18 at a kink."""
    middle = phi(0.0) if middle is None else middle
    tiny = 4e-11 * _largest(middle) / step  # a derivative that changes no output by more than 1e-8 of the largest
    best = _differences(phi, middle, step)
    for _ in range(_TRIES - 1):
        open_ = best.kink | ~(best.error <= 1e-7 * (np.abs(best.value) + _largest(best.value)) + tiny)
        if not open_.any():
            break
        step /= _SHRINK
        new = _differences(phi, middle, step)
        better = open_ & ~(new.error > best.error) | (best.kink & ~new.kink)
        value, error, kink = (np.where(better, n, b) for n, b in zip(new[:3], best[:3]))
        best = Slope(value, error, kink, step)
    lost = ~(best.error <= 1e-3 * (np.abs(best.value) + _largest(best.value)) + 100 * tiny)
    return best._replace(kink=best.kink | lost)


def _differences(phi: Callable[[float], np.ndarray], middle: np.ndarray, step: float) -> Slope:
    steps = (step, step / 2, step / 4)
    right, left = [phi(h) for h in steps], [phi(-h) for h in steps]
    with np.errstate(invalid="ignore", over="ignore"):
        central = [_minus(r, m) / (2 * h) for r, m, h in zip(right, left, steps)]
        first, second = (4 * central[1] - central[0]) / 3, (4 * central[2] - central[1]) / 3
        value = (16 * second - first) / 15
        rounding = (
            4 * _EPS * _largest(middle) / steps[2]
        )  # of the largest output: a small one may be what is left of large terms
        error = np.abs(second - first) + rounding + 1e-12 * np.abs(value)
        jumps = [np.abs(_minus(r, middle) - _minus(middle, m)) / h for r, m, h in zip(right, left, steps)]
        rest = 1e-3 * np.abs(value) + 1e-3 * jumps[0] + 16 * rounding
        kink = (jumps[2] > 0.6 * jumps[0]) & (jumps[2] > rest)
    error = np.where(np.isfinite(value), error, np.inf)
    return Slope(np.where(np.isfinite(value), value, np.nan), error, kink, step)


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b, and 0 where both are the same infinity: a constant."""
    return np.where(a == b, 0.0, a - b)


def _largest(x: np.ndarray) -> float:
    finite = np.abs(x[np.isfinite(x)])
    return float(finite.max()) if finite.size else 0.0


def element_step(x: float, step: float = STEP) -> float:
    """h for one element: relative to its size, and not below a tenth of `step`."""
    return step * max(abs(x), 0.1)


def taylor_slope(
    function: Callable[[float], float], derivative: float, steps: tuple[float, ...] = (1e-1, 5e-2, 2.5e-2, 1.25e-2)
) -> float:
    """How fast |function(h) - function(0) - h derivative| shrinks with h: 2 for a right derivative, 1 for a wrong one.

    There is no tolerance to argue about. A function that is exactly linear has no remainder: inf.

    >>> round(taylor_slope(np.exp, 1.0), 1), round(taylor_slope(np.exp, 2.0), 1)
    (2.0, 1.0)
    """
    start = function(0.0)
    rest = np.array([abs(function(h) - start - h * derivative) for h in steps])
    if (rest <= 64 * _EPS * max(abs(start), 1e-300)).all():
        return float("inf")
    return float(np.polyfit(np.log(steps), np.log(np.maximum(rest, 1e-300)), 1)[0])
