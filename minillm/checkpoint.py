"""Activation checkpointing: keep a function's inputs only, compute its inside again when the gradient comes by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import engine, random, writes
from .engine import Node, op
from .errors import GraphError
from .recording import enable_grad, is_grad_enabled
from .tensor import Tensor


@op
def _checkpoint(*boundary, replay=None, nodes=(), arrays=()):
    raise AssertionError("checkpoint() makes this op's node itself")


@_checkpoint.vjp
def _(dout, replay, nodes, arrays):  # arrays: saved only so that an in-place write to them is noticed
    start = next(writes.clock)
    out = replay()
    if set(_older_than(start, out.node)) != set(nodes):
        raise GraphError(
            "checkpoint: run again for the gradient, the function used other tensors than at first. It may use its "
            "arguments and parameters that stay in place until backward(); functional_call takes them away again"
        )
    got = engine.gradients([out.node], [dout], set(nodes), stop=True, create_graph=isinstance(dout, Tensor))
    return [got.get(n) for n in nodes]


def checkpoint(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """function(*args), at the memory of its inputs and the time of one more forward pass.

    Random numbers drawn inside, from any Generator, are drawn again: dropout has the same mask, and the gradients are
    the same bits as without (the order in which a tensor's several gradients are added up may differ). `function` may
    use any tensor around it (parameters): they get their gradients too. It returns one Tensor.
    Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.

    >>> import minillm
    >>> x = minillm.tensor([0.0, 1.0], requires_grad=True)
    >>> minillm.checkpoint(lambda t: (t * t).exp(), x).sum().backward(); x.grad
    tensor([0.    , 5.4366])
    """
    if not is_grad_enabled():
        return function(*args)
    states = random.all_states()
    start = next(writes.clock)

    def replay() -> Tensor:
        now = random.all_states()
        random.set_all_states(states)
        try:
            with enable_grad():
                return function(*args)
        finally:
            random.set_all_states(now)

    out = function(*args)
    if not isinstance(out, Tensor):
        raise TypeError(f"checkpoint: the function must return one Tensor; it returned {type(out).__name__}")
    boundary = _older_than(start, out.node)
    if not boundary:
        return out
    leaves = [n.leaf() for n in boundary if n.leaf is not None]
    arrays = tuple([a.data for a in (*args, *leaves) if isinstance(a, Tensor)])  # written since? then it is an error
    return engine.wrap(
        out.data, Node(_checkpoint, (replay, boundary, arrays), boundary, out.data.shape, out.data.dtype)
    )


def _older_than(start: int, node: Node | None) -> list[Node]:
    """The nodes made before `start` that the graph below `node` leans on: the function's inputs and parameters."""
    boundary, seen, stack = [], set(), [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.order < start:
            boundary.append(node)
        else:
            stack.extend(node.parents)
    return boundary
