"""What a wrong gradient looks like: the usual mistakes, tried on one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

_CLOSE = 1e-4


def suspect(
    analytic: np.ndarray,
    numerical: np.ndarray,
    others: Sequence[np.ndarray] = (),
    jacobian: np.ndarray | None = None,
    cotangent: np.ndarray | None = None,
    out_shape: tuple[int, ...] = (),
) -> str:
    """A guess at why `analytic` is not `numerical` (both of the input's shape).

    others     numerical gradients of the other inputs: were two swapped?
    jacobian   (outputs, elements) and cotangent (outputs,), where they are known
    out_shape  the output's shape, for factors 1/N and forgotten sums
    """
    a, n = analytic, numerical
    if not np.isfinite(a).all():
        return f"{int((~np.isfinite(a)).sum())} of {a.size} elements are not finite"
    size = _norm(n)
    if _norm(a) <= 1e-12 * size:
        return "the gradient is zero everywhere: a branch that returns nothing, or a detach"
    if size == 0:
        return "the function does not depend on this input, but the rule says it does"
    if _same(a, -n):
        return "the sign is flipped"
    if _same(a, 2 * n):
        return "twice too large: a factor 2, or one path counted twice"
    if _same(a, n / 2):
        return "half of what it should be: a factor 2 is missing"
    if why := _scale(a, n, out_shape):
        return why
    if why := _moved(a, n):
        return why
    for i, other in enumerate(others):
        if other.shape == a.shape and _norm(other) and _same(a, other):
            return f"this is the gradient of another input (number {i} of the others): two were swapped"
    if jacobian is not None and cotangent is not None:
        if _same(a, jacobian.sum(0).reshape(a.shape)):
            return "the rule does not multiply by the incoming gradient"
        if why := _forgotten_sum(a, jacobian, cotangent, out_shape):
            return why
    wrong = np.abs(a - n) > _CLOSE * (np.abs(n) + 1e-3 * size / max(1, n.size) ** 0.5)
    if 0 < wrong.sum() <= max(1, a.size // 4):
        return f"only {int(wrong.sum())} of {a.size} elements are wrong: an edge, an index, a block boundary"
    return "no usual mistake fits"


def _norm(x: np.ndarray) -> float:
    return float(np.sqrt((x * x).sum()))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return _norm(a - b) <= _CLOSE * _norm(b)


def _scale(a: np.ndarray, n: np.ndarray, out_shape: tuple[int, ...]) -> str:
    ratio = float((a * n).sum() / (n * n).sum())
    if ratio == 0 or not _same(a, ratio * n):
        return ""
    sizes = {a.size: "the number of elements", int(np.prod(out_shape)): "the number of outputs"}
    sizes |= {s: f"a dim of size {s}" for s in (*out_shape, *a.shape)} | sizes
    for s, what in sizes.items():
        if s > 1 and abs(ratio / s - 1) < _CLOSE:
            return f"{s} times too large: a factor 1/N is missing, N = {what}"
        if s > 1 and abs(ratio * s - 1) < _CLOSE:
            return f"{s} times too small: a factor N too few, N = {what}"
    return f"off by the constant factor {ratio:.6g}"


def _moved(a: np.ndarray, n: np.ndarray) -> str:
    if a.size < 2:
        return ""
    for axes in permutations(range(a.ndim)) if 2 <= a.ndim <= 4 else ():
        turned = n.transpose(axes)
        if (
            axes != tuple(range(a.ndim))
            and _same(a.reshape(-1), turned.reshape(-1))
            and not _same(turned.reshape(a.shape), n)
        ):
            return f"transposed: the elements stand in the order of axes {axes}"
    for axis in range(a.ndim):
        if a.shape[axis] > 1 and _same(a, np.flip(n, axis)):
            return f"reversed along dim {axis}"
    if _same(a.reshape(-1), n.reshape(-1)[::-1]):
        return "reversed"
    return "permuted: the right values in the wrong places" if _same(np.sort(a, None), np.sort(n, None)) else ""


def _forgotten_sum(a: np.ndarray, jacobian: np.ndarray, cotangent: np.ndarray, out_shape: tuple[int, ...]) -> str:
    if int(np.prod(out_shape)) != len(cotangent):
        return ""
    pieces = (jacobian * cotangent[:, None]).reshape(*out_shape, -1)
    for axis, length in enumerate(out_shape):
        for at in (0, length - 1) if length > 1 else ():
            if _same(a, pieces.take([at], axis).reshape(-1, a.size).sum(0).reshape(a.shape)):
                return f"a missing sum over the broadcast dim {axis}: only its element {at} was taken"
    return ""
