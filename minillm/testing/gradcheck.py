"""gradcheck: are the gradients of a function of Tensors right, of any order?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import engine, random, transforms
from ..device import to_numpy
from ..recording import enable_grad, no_grad
from ..tensor import Tensor
from .check import check_vjp
from .numeric import STEP
from .report import GradcheckError, GradcheckReport


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    *,
    order: int = 1,
    rtol: float | None = None,
    atol: float = 1e-9,
    step: float = STEP,
    directions: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    cotangents: Sequence[Any] | None = None,
    allow_empty: bool = False,
    name: str | None = None,
    raise_exception: bool = True,
) -> GradcheckReport:
    """Compare the gradients of `function` (Tensors -> a Tensor or a tuple of them) with differences in float64.

    inputs   Tensors, arrays or numbers: floating ones are converted to float64 and checked, others handed through
    order    1: backward(). 2: the gradient of <gradient, u> by create_graph=True, against differences of what
             backward() gives; 3: one more
    The other arguments are those of `check_vjp`. Random numbers (dropout) are the same at every evaluation. Raises
    GradcheckError with the report as its text, unless raise_exception is False; bool(report) is the verdict.

    >>> from minillm import functional as F
    >>> bool(gradcheck(F.softmax, [np.random.default_rng(0).standard_normal((2, 3))]))
    True
    """
    if order < 1:
        raise ValueError(f"gradcheck: order counts derivatives, from 1; got {order}")
    inputs = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    arrays = [to_numpy(x.data) if isinstance(x, Tensor) else x for x in inputs]
    state = random.get_rng_state()
    name = name or getattr(function, "__name__", "function")

    def level(k: int) -> tuple[Callable, list[Any]]:
        """The function whose first derivatives are the k-th of `function`, and its inputs."""
        if k == 1:
            return function, arrays
        below, at = level(k - 1)
        wrt = _floating(at)
        shapes = [
            o.shape
            for o in _tensors(
                _values(below, [np.asarray(a, np.float64) if i in wrt else a for i, a in enumerate(at)], state)
            )
        ]
        rng = np.random.default_rng(seed + k)
        cots = [rng.uniform(0.5, 1.5, s) * rng.choice([-1.0, 1.0], s) for s in shapes]
        return _Gradient(below, len(at), wrt), [*at, *cots]

    target, at = level(order)
    wrt = _floating(at)

    def forward(*xs: Any) -> Any:
        return _unwrapped(_values(target, xs, state))

    def vjp(cotangent: Any, *xs: Any) -> list[Any]:
        random.set_rng_state(state)
        tensors = [Tensor(x, requires_grad=True) if i in wrt else _constant(x) for i, x in enumerate(xs)]
        with enable_grad():
            outs = target.recorded(*tensors) if isinstance(target, _Gradient) else target(*tensors)
        leaves = [tensors[i] for i in wrt]
        outs, cots = _tensors(outs), list(cotangent) if isinstance(cotangent, tuple) else [cotangent]
        pairs = [(o, Tensor(c)) for o, c in zip(outs, cots) if o.node is not None]
        if not pairs:
            return [None] * len(xs)
        if len(pairs) == 1:
            pairs[0][0].backward(pairs[0][1])
            got = [t.grad for t in leaves]
        else:
            got = transforms.gradients([o for o, _ in pairs], leaves, [c for _, c in pairs], allow_unused=True)
        grads: list[Any] = [None] * len(xs)
        for i, g in zip(wrt, got):
            grads[i] = None if g is None else g.data
        return grads

    # Second derivatives cost a backward pass each: weighted sums of them, not the whole Jacobian, unless asked for.
    limit = (2000 if order == 1 else 400) if limit is None else limit
    directions = (6 if order == 1 else 4) if directions is None else directions
    try:
        report = check_vjp(
            forward, vjp, at, cotangents=cotangents, rtol=rtol, atol=atol, step=step, directions=directions,
            limit=limit, seed=seed, allow_empty=allow_empty, name=name, raise_exception=False,
        )  # fmt: skip
    finally:
        random.set_rng_state(state)
    report.order = order
    for entry in report.inputs[len(_floating(arrays)) :]:
        entry.name = f"the cotangent ({entry.name})"
    if order > 1:  # linear functions have no second derivative: nothing to warn of
        report.warnings = [w for w in report.warnings if "is 0 everywhere" not in w]
    if raise_exception and not report.ok:
        raise GradcheckError(str(report))
    return report


class _Gradient:
    """(x1, ..., u1, ...) -> gradients of <function(x), u>: recorded for differentiating, or plain for differences."""

    def __init__(self, function: Any, count: int, wrt: list[int]):
        self.function, self.count, self.wrt = function, count, wrt

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self._gradients(tensors, create_graph=False)

    def recorded(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self._gradients(tensors, create_graph=True)

    def _gradients(self, tensors: Sequence[Any], create_graph: bool) -> tuple[Tensor, ...]:
        with enable_grad():
            xs = [self._node(t) if i in self.wrt else t for i, t in enumerate(tensors[: self.count])]
            inner = self.function.recorded if isinstance(self.function, _Gradient) else self.function
            pairs = [(o, u) for o, u in zip(_tensors(inner(*xs)), tensors[self.count :]) if o.node is not None]
            leaves = [xs[i] for i in self.wrt]
            got = [None] * len(leaves)
            if pairs:
                got = transforms.gradients(
                    [o for o, _ in pairs], leaves, [u for _, u in pairs], create_graph=create_graph, allow_unused=True
                )
            return tuple([Tensor(np.zeros(x.shape, x.dtype)) if g is None else g for x, g in zip(leaves, got)])

    @staticmethod
    def _node(t: Tensor) -> Tensor:
        return t if t.node is not None else Tensor(t.data, requires_grad=True)


def _values(function: Callable, arrays: Sequence[Any], state: Any) -> Any:
    """function on constants, with the random numbers of `state`."""
    random.set_rng_state(state)
    with no_grad():
        return function(*[_constant(a) for a in arrays])


def _constant(a: Any) -> Any:
    return engine.wrap(a, None) if isinstance(a, np.ndarray) else a


def _floating(arrays: Sequence[Any]) -> list[int]:
    return [
        i
        for i, a in enumerate(arrays)
        if isinstance(a, (float, np.floating)) or (isinstance(a, np.ndarray) and a.dtype.kind == "f")
    ]


def _tensors(result: Any) -> list[Tensor]:
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    for r in results:
        if not isinstance(r, Tensor):
            raise TypeError(
                f"gradcheck: the function must return a Tensor or a tuple of them; it returned {type(r).__name__}"
            )
    return results


def _unwrapped(result: Any) -> Any:
    tensors = _tensors(result)
    return (
        tuple([np.asarray(t.data) for t in tensors])
        if isinstance(result, (tuple, list))
        else np.asarray(tensors[0].data)
    )
