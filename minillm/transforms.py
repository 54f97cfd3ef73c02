"""Functions of functions: gradients, products with Jacobians, Hessians, of any order, by composing them.

    grad(f)(x)              df/dx for scalar f                       reverse mode
    value_and_grad(f)(x)    f(x) and df/dx
    vjp(f, x)               f(x) and  u -> u^T J                     one backward pass a call
    jvp(f, x, v)            f(x) and  J v                            two backward passes
    hvp(f, x, v)            f(x) and  H v                            no Hessian is built
    jacobian(f)(x)          J, shape (*out.shape, *x.shape)          one backward pass an output element
    hessian(f)(x)           H, shape (*x.shape, *x.shape)

Arguments may be Tensors, arrays, numbers, or (nested) lists, tuples and dicts of them; gradients have the same
structure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import engine, ops
from .creation import zeros_like
from .errors import GraphError
from .recording import enable_grad
from .tensor import Tensor

__all__ = ["grad", "gradients", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]


class _Running(threading.local):
    depth = 0  # how many transforms are running: inside another one, gradients are recorded themselves


_now = _Running()


def gradients(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """d(outputs)/d(inputs) of a graph that is already recorded; `.grad` is not touched (PyTorch's
    `torch.autograd.grad`).

    outputs, inputs  a Tensor or a sequence of them; several outputs are summed
    grad_outputs     cotangents of the outputs' shapes; may be left out for scalars
    allow_unused     give None for inputs that the outputs do not depend on, instead of an error
    Returns a Tensor, or a tuple like `inputs`.
    """
    from .tensor import _cotangent

    outs, ins = _as_list(outputs), _as_list(inputs)
    seeds = _as_list(grad_outputs) if grad_outputs is not None else [None] * len(outs)
    if len(seeds) != len(outs):
        raise ValueError(f"gradients: {len(outs)} outputs but {len(seeds)} grad_outputs")
    for i, t in enumerate(ins):
        if t.node is None:
            raise GraphError(f"gradients: input {i} does not require grad")
    pairs = [(o.node, _cotangent(o, s, create_graph)) for o, s in zip(outs, seeds) if o.node is not None]
    keep = create_graph if retain_graph is None else retain_graph
    found = engine.gradients(
        [n for n, _ in pairs],
        [s for _, s in pairs],
        {t.node for t in ins},
        retain_graph=keep,
        create_graph=create_graph,
    )
    results = []
    for i, t in enumerate(ins):
        g = found.get(t.node)
        if g is None and not allow_unused:
            raise GraphError(
                f"gradients: the outputs do not depend on input {i}; pass allow_unused=True to get None for it"
            )
        results.append(g if g is None or isinstance(g, Tensor) else Tensor(g))
    return results[0] if isinstance(inputs, Tensor) else tuple(results)


def value_and_grad(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """A function that returns (function(*args), gradient with respect to args[argnums]).

    function must return a scalar; with has_aux a pair (scalar, anything).

    >>> value_and_grad(lambda x: (x * x).sum())(Tensor([1.0, 2.0]))
    (tensor(5.), tensor([2., 4.]))
    """

    _check_function("grad", function, argnums)

    def wrapped(*args: Any, **settings: Any) -> Any:
        wanted = [_place(i, args) for i in ((argnums,) if isinstance(argnums, int) else argnums)]
        with _running() as create_graph:
            inputs = {i: _map(_own_node, args[i]) for i in wanted}
            result = function(*[inputs.get(i, a) for i, a in enumerate(args)], **settings)
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, Tensor) or value.data.size != 1:
                what = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"grad: the function must return a scalar Tensor; it returned {what}. Use jacobian for more"
                )
            leaves = [t for i in wanted for t in _leaves(inputs[i])]
            got = _gradients_or_zeros([value], [None], leaves, create_graph)
        pieces = iter(got)
        grads = tuple(_map(lambda _: next(pieces), inputs[i]) for i in wanted)
        value = value if create_graph else value.detach()
        out = (value, aux) if has_aux else value
        return out, grads[0] if isinstance(argnums, int) else grads

    return wrapped


def grad(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """The gradient of a scalar function, as a function of the same arguments; grad(grad(f)) is the second derivative.

    >>> grad(grad(lambda x: x ** 3))(2.0)
    tensor(12.)
    """
    both = value_and_grad(function, argnums, has_aux)

    def wrapped(*args: Any, **settings: Any) -> Any:
        value, g = both(*args, **settings)
        return (g, value[1]) if has_aux else g

    return wrapped


def vjp(function: Callable, *primals: Any) -> tuple[Any, Callable]:
    """(function(*primals), pull) where pull(cotangent) gives one gradient per primal: u^T J."""
    with _running():
        inputs = [_own_node(p) for p in primals]
        out = function(*inputs)
    outs = list(out) if isinstance(out, tuple) else [out]

    def pull(*cotangents: Any) -> Any:
        seeds = list(cotangents) or [None] * len(outs)
        if len(seeds) != len(outs):
            raise ValueError(f"vjp: the function has {len(outs)} outputs but {len(seeds)} cotangents were given")
        with _running() as create_graph:
            got = _gradients_or_zeros(outs, seeds, inputs, create_graph, retain_graph=True)
        return got[0] if len(inputs) == 1 else tuple(got)

    return out, pull


def jvp(function: Callable, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """(f(primals), J tangents): how the outputs move when the inputs move along `tangents`.

    By two reverse passes: u -> u^T J is linear in u, and its own transpose is J.
    """
    ps, ts = _as_list(primals), [_tensor(t) for t in _as_list(tangents)]
    if [_tensor(p).shape for p in ps] != [t.shape for t in ts]:
        raise ValueError(f"jvp: primals have shapes {[_tensor(p).shape for p in ps]}, tangents {[t.shape for t in ts]}")
    with _running() as create_graph:
        inputs = [_own_node(p) for p in ps]
        out = function(*inputs)
        outs = list(out) if isinstance(out, tuple) else [out]
        dummies = [_own_node(zeros_like(o)) for o in outs]
        rows = _gradients_or_zeros(outs, dummies, inputs, create_graph=True)
        tangent_outs = _gradients_or_zeros(rows, ts, dummies, create_graph)
    if not create_graph:
        outs, tangent_outs = [o.detach() for o in outs], [t.detach() for t in tangent_outs]
    return (tuple(outs), tuple(tangent_outs)) if isinstance(out, tuple) else (outs[0], tangent_outs[0])


def hvp(function: Callable, primals: Any, vectors: Any) -> tuple[Any, Any]:
    """(f(primals), H vectors) for scalar f, by a gradient of a gradient; H is never built."""
    ps, vs = _as_list(primals), [_tensor(v) for v in _as_list(vectors)]
    with _running() as create_graph:
        inputs = [_own_node(p) for p in ps]
        value = function(*inputs)
        first = _gradients_or_zeros([value], [None], inputs, create_graph=True)
        products = _gradients_or_zeros(first, vs, inputs, create_graph)
    products = products if create_graph else [p.detach() for p in products]
    value = value if create_graph else value.detach()
    return value, products if isinstance(primals, (tuple, list)) else products[0]


def jacobian(function: Callable, argnums: int = 0) -> Callable:
    """The Jacobian of function with respect to args[argnums]: shape (*out.shape, *arg.shape).

    >>> jacobian(lambda x: x * x)(Tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """

    _check_function("jacobian", function, argnums)

    def wrapped(*args: Any, **settings: Any) -> Tensor:
        with _running() as create_graph:
            place = _place(argnums, args)
            x = _own_node(args[place])
            out = function(*[x if i == place else a for i, a in enumerate(args)], **settings)
            rows = []
            for i in range(out.numel()):
                unit = np.zeros(out.shape, out.dtype)
                unit.flat[i] = 1
                seed = Tensor(unit).to(out.device)
                rows += _gradients_or_zeros([out], [seed], [x], create_graph, retain_graph=True)
            stacked = ops.stack(rows, 0) if rows else Tensor(np.zeros((0, *x.shape), x.dtype)).to(x.device)
            result = ops.reshape(stacked, (*out.shape, *x.shape))
        return result if create_graph else result.detach()

    return wrapped


def hessian(function: Callable, argnums: int = 0) -> Callable:
    """The second derivatives of a scalar function: shape (*arg.shape, *arg.shape)."""
    return jacobian(grad(function, argnums), argnums)


# ---------------------------------------------------------------------------------------------- helpers


def _place(argnum: int, args: tuple) -> int:
    """Which argument is meant, counted from the front."""
    if not -len(args) <= argnum < len(args):
        raise ValueError(f"argnums names argument {argnum}, but the call has {len(args)} positional ones")
    return argnum % len(args)


def _check_function(name: str, function: Any, argnums: Any) -> None:
    numbers = [argnums] if isinstance(argnums, int) else argnums
    if not callable(function) or not isinstance(numbers, Sequence) or not all(isinstance(i, int) for i in numbers):
        raise TypeError(
            f"{name} takes a function and gives a function: minillm.{name}(f)(x). For a graph that is already recorded "
            "use minillm.gradients(outputs, inputs), which is PyTorch's torch.autograd.grad"
        )


class _running:
    """A transform is running. Gives create_graph: whether it runs inside another one, which will differentiate it."""

    def __enter__(self) -> bool:
        _now.depth += 1
        self.recording = enable_grad()
        self.recording.__enter__()
        return _now.depth > 1

    def __exit__(self, *error: Any) -> None:
        _now.depth -= 1
        self.recording.__exit__(*error)


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _own_node(x: Any) -> Tensor:
    """x with a node of its own, tied to whatever x came from: f(x, x) has two inputs."""
    x = _tensor(x)
    return engine.identity(x) if x.node is not None else Tensor(x.data, requires_grad=True)


def _gradients_or_zeros(
    outs: list, seeds: list, inputs: list, create_graph: bool, retain_graph: bool | None = None
) -> list[Tensor]:
    """One gradient per input; zeros where the outputs do not depend on it."""
    pairs = [(o, s) for o, s in zip(outs, seeds) if isinstance(o, Tensor) and o.node is not None]
    got: Any = [None] * len(inputs)
    if pairs:
        seeds = [s for _, s in pairs]
        kept = seeds if any(s is not None for s in seeds) else None
        got = gradients([o for o, _ in pairs], inputs, kept, retain_graph, create_graph, allow_unused=True)
    return [zeros_like(t) if g is None else g for t, g in zip(inputs, got)]


def _as_list(x: Any) -> list:
    return list(x) if isinstance(x, (tuple, list)) else [x]


def _map(function: Callable, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _map(function, v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [_map(function, v) for v in tree]
        return (
            type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
        )  # a named tuple takes them one by one
    return function(tree)


def _leaves(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(found.append, tree)
    return found
