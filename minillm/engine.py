"""All of autograd: an op and its gradient rule, the graph that calls record, the walk back through it.

An op is a function on arrays with its vector-Jacobian product beside it:

    @op(broadcasting=True)
    def mul(x, y):
        return x * y

    @mul.vjp
    def _(dout, x, y):
        return dout * y, dout * x

The rule's argument names say what the graph keeps alive: inputs, `out`, settings, extras that the forward returned
(`return out, dict(mean=mean)`), or `needs_grad` (per argument, something true if it needs one). Nothing else is kept.

A rule runs on raw arrays in an ordinary backward pass, and on Tensors under `create_graph=True`: the same source
gives derivatives of any order. A fused op names a `composite`, its readable twin, differentiated in its place there.

The graph: `Node` -> `Node`, one a call; a Tensor points to the node that made it, a leaf to a node of its own. Creation
order is a topological order, so the walk is a heap of nodes, newest first: no recursion, each node once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from heapq import heappop, heappush, heappushpop
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.arrays import is_array

from . import errors, writes
from .arguments import Arguments, parameters, split, unwrap
from .dtypes import promote
from .recording import enable_grad, state
from .summation import unbroadcast

if TYPE_CHECKING:
    from .tensor import Tensor
else:
    Tensor = type(None)  # tensor.py puts the class here: ops need only this file

generic, ndarray, new = np.generic, np.ndarray, object.__new__  # looked up on every call
monitor: Any = None  # anomaly.py puts its watcher here


class Node:
    """One recorded call, or a leaf (op None). Shape and dtype are those of its output and so of its gradient."""

    __slots__ = ("dtype", "home", "hooks", "leaf", "op", "order", "parents", "saved", "shape", "where")
    hooks: Any  # {key: hook} on its gradient
    home: Any  # of a leaf: where an optimizer keeps its gradient (optim/flat.py)
    leaf: Any  # weak reference to the leaf tensor: a tensor and its node must not keep each other alive

    def __init__(self, op: Any, saved: Any, parents: Sequence[Node | None], shape: tuple, dtype: Any):
        self.op, self.saved, self.parents, self.shape, self.dtype = op, saved, parents, shape, dtype
        self.order = next(writes.clock)
        self.hooks = self.leaf = self.home = self.where = None  # where: file:line of the call, in anomaly mode


# ------------------------------------------------------------------------------------------------ ops


def op(
    forward: Callable | None = None,
    *,
    broadcasting: bool = False,
    composite: Callable | None = None,
    outputs: int = 1,
    differentiable: bool = True,
) -> Any:
    """Make a function on arrays an op on Tensors (arrays in, array out still holds: rules call ops on both).

    broadcasting   inputs follow NumPy's broadcasting; the engine sums their gradients over the broadcast axes
    composite      the same function written with other ops: differentiated in place of the rule under create_graph
    outputs        more than one: forward returns a tuple of arrays, the rule gets a tuple of gradients (None: unused)
    differentiable False: results are constants (comparisons, argmax)

    >>> import minillm
    >>> @minillm.op
    ... def cube(x):
    ...     return x * x * x
    >>> @cube.vjp
    ... def _(dout, x):
    ...     return 3 * x * x * dout
    >>> x = minillm.tensor([1.0, 2.0], requires_grad=True)
    >>> cube(x).sum().backward(); x.grad
    tensor([ 3., 12.])
    """
    if forward is None:
        kind: dict[str, Any] = {"broadcasting": broadcasting, "outputs": outputs, "differentiable": differentiable}
        return partial(op, composite=composite, **kind)
    signature = Arguments(forward)
    names, variadic = signature.names, signature.variadic
    count = -1 if variadic else len(names)  # -1: always through bind
    pick: Callable | None = None  # takes what the rule needs out of (*arrays, out, needs_grad), where that suffices

    def run(*args: Any, **settings: Any) -> Any:
        if settings or len(args) != count:
            args, settings = signature.bind(args, settings)
        arrays: Any
        parents: Any
        if count == 1 and isinstance(args[0], Tensor):  # the commonest calls, told apart without a loop
            arrays, parents, mixed = (args[0].data,), (args[0].node,), False
        elif count == 2 and isinstance(args[0], Tensor) and isinstance(args[1], Tensor):
            x, y = args
            arrays, parents, mixed = (x.data, y.data), (x.node, y.node), x.data.dtype is not y.data.dtype
        elif count == 2 and isinstance(args[0], Tensor) and type(args[1]) is float:
            arrays, parents, mixed = (args[0].data, args[1]), (args[0].node, None), False
        else:
            arrays, parents, mixed = unwrap(args, broadcasting)
            if parents is None:
                return split(forward(*args, **settings), outputs)[0]
        extras: dict[str, Any] | None = None
        try:
            if mixed and broadcasting:
                arrays = promote(arrays)
            out = forward(*arrays, **settings) if settings else forward(*arrays)
        except Exception as error:
            raise errors.explain(call, args, settings, error) from error
        if type(out) is not ndarray:
            if type(out) is tuple:
                out, extras = split(out, outputs)
            if isinstance(out, generic):
                out = np.asarray(out)
        node = None
        if state.recording and differentiable and any(parents):
            saved = pick((*arrays, out, parents)) if pick else save(arrays, settings, out, extras, parents)
            like = out if outputs == 1 else out[0]
            node = Node(call, saved, parents, like.shape, like.dtype)
        if monitor is not None:
            monitor.forward(call, arrays, out, node)
        if outputs == 1:
            return wrap(out, node)
        return tuple([wrap(o, Node(part, i, (node,), o.shape, o.dtype) if node else None) for i, o in enumerate(out)])

    def save(arrays: Sequence, settings: dict, out: Any, extras: dict | None, parents: Sequence) -> tuple:
        if call.needs is None:
            raise errors.no_rule(call)
        named = {"out": out, "needs_grad": parents, **settings, **(extras or {})}
        named.update({variadic: tuple(arrays)} if variadic else zip(names, arrays))
        if not named.keys() >= set(call.needs):
            raise errors.unknown_needs(call, named)
        kept = tuple([named[n] for n in call.needs])
        return kept if composite is None else (*kept, *arrays)

    def vjp(rule: Callable) -> Callable:
        """Register `rule(dout, *what it needs)`: a gradient for each input in order, or one array for one input."""
        nonlocal pick
        given = list(parameters(rule)[0])[1:]
        call.rule, call.needs, call.fills = rule, [n for n in given if n != "into"], "into" in given
        call.keep = None if composite is None else len(call.needs)
        places = {name: i for i, name in enumerate([*names, "out", "needs_grad"])}
        if variadic is None and composite is None and all(n in places for n in call.needs):
            wanted = [places[n] for n in call.needs]
            pick = itemgetter(*wanted) if len(wanted) > 1 else lambda values: tuple([values[i] for i in wanted])
        return rule

    call: Any = wraps(forward)(run)
    call.vjp, call.rule, call.needs, call.fills = vjp, None, None, False
    call.names, call.variadic, call.composite = names, variadic, composite
    call.broadcasting, call.outputs, call.forward = broadcasting, outputs, forward
    return call


def wrap(array: Any, node: Node | None) -> Tensor:
    """A Tensor around an array that an op just made."""
    tensor: Any = new(Tensor)
    tensor.data, tensor.grad, tensor.node = array, None, node
    return tensor


@op
def identity(x):
    """x itself, as a node of its own."""
    return x


@identity.vjp
def _(dout):
    return dout


@op
def part(x):
    """One output of an op that has several; the walk gathers their gradients in the op's own node."""
    return x


# -------------------------------------------------------------------------------------- the walk back


def gradients(
    outputs: Iterable[Node],
    cotangents: Iterable[Any],
    targets: set[Node] | None = None,
    *,
    stop: bool = False,
    retain_graph: bool = False,
    create_graph: bool = False,
    fill: bool = False,
) -> dict[Node, Any]:
    """{node: gradient} for every leaf below `outputs`, or for the nodes in `targets` (stop: go no deeper than those).

    fill: the caller sets .grad to what it gets, so rules may add a leaf's gradient straight into the leaf's home.
    Gradients are arrays; Tensors tied to the graph under create_graph. No two of the returned ones share memory.
    """
    if create_graph and not state.recording:
        with enable_grad():
            return gradients(outputs, cotangents, targets, stop=stop, retain_graph=retain_graph, create_graph=True)
    grads: dict[Node, Any] = {}  # of the nodes that wait for their turn
    owned: set[Node] = set()  # their gradient is an array that this walk made: safe to add into
    heap: list[tuple[int, Node]] = []
    coming: Node | None = None  # one more that waits: along a chain it is the next, and the heap stays empty
    found: dict[Node, Any] = {}
    oldest = min((n.order for n in targets), default=0) if targets is not None else 0

    def add(node: Node, g: Any, fresh: bool) -> None:
        if node not in grads:
            if not fresh and (node in targets if targets is not None else node.op is None):
                g, fresh = g.clone() if create_graph else g.copy(), True
            if fresh:
                owned.add(node)
            grads[node] = g
            heappush(heap, (-node.order, node))
        elif node in owned and not create_graph:
            grads[node] += g
        else:
            grads[node] = grads[node] + g
            owned.add(node)

    for node, g in zip(outputs, cotangents):
        add(node, g, fresh=False)
    while heap or coming is not None:
        if coming is None:
            node = heappop(heap)[1]
        else:
            node = heappushpop(heap, (-coming.order, coming))[1] if heap else coming
            coming = None
        g = grads.pop(node)
        op = node.op
        if isinstance(g, generic):  # what NumPy makes of 0-d arrays
            g = np.asarray(g)
        if node.hooks and not (stop and targets and node in targets):  # there the outer walk runs the hooks
            g = _run_hooks(node, g, create_graph)
        if op is None or (targets is not None and node in targets):
            if targets is None or node in targets:
                found[node] = g
            if op is None or stop or node.order == oldest:
                continue
        if op is part:  # one output of several: wait in the op's node for the others
            owner: Any = node.parents[0]
            if owner not in grads:
                grads[owner] = [None] * owner.op.outputs
                heappush(heap, (-owner.order, owner))
            grads[owner][node.saved] = g
            continue
        saved = node.saved
        if saved is None:
            raise errors.freed(node)
        if node.order < writes.last:
            writes.check(node)
        if monitor is not None:
            monitor.backward_starts(node)
        into: list = []
        if create_graph:
            rule_grads = _lifted_rule(node, g)
        elif fill and op.fills:
            into = [p.home.offer(p) if p and p.home and p not in grads else None for p in node.parents]
            rule_grads = op.rule(g, *saved[: op.keep], into=into)
        else:
            rule_grads = op.rule(g, *saved[: op.keep])
        if type(rule_grads) is not tuple and type(rule_grads) is not list:
            rule_grads = (rule_grads,)
        if len(rule_grads) < len(node.parents) and any(node.parents[len(rule_grads) :]):
            raise errors.too_few_gradients(node, rule_grads)
        if monitor is not None:
            monitor.backward(node, rule_grads)
        for parent, pg in zip(node.parents, rule_grads):
            if parent is None or pg is None or parent.order < oldest:
                continue
            if pg.shape != parent.shape:
                if not op.broadcasting:
                    raise errors.wrong_gradient_shape(node, parent, pg)
                pg = unbroadcast(pg, parent.shape)
            if pg.dtype is not parent.dtype and pg.dtype != parent.dtype:
                pg = pg.astype(parent.dtype)
            if parent in grads:
                add(parent, pg, fresh=True)
            elif targets is not None or parent.op is None:
                add(parent, pg, _is_fresh(pg, g, saved, rule_grads, into))
            else:
                grads[parent] = pg
                if coming is None:
                    coming = parent
                else:
                    heappush(heap, (-parent.order, parent))
        if not retain_graph and not create_graph:
            node.saved = None
    return found


def _is_fresh(pg: Any, dout: Any, saved: tuple, siblings: Sequence, into: Sequence = ()) -> bool:
    """No one else holds this array: it is not a view, the cotangent, a saved array or another input's gradient."""
    for place in into:
        if pg is place:  # zeros that it was added into
            return True
    held = [*(dout if type(dout) is list else (dout,)), *saved, *(t for s in saved if type(s) is tuple for t in s)]
    return getattr(pg, "base", pg) is None and not any(pg is h for h in held) and sum(pg is s for s in siblings) <= 1


def _lifted_rule(node: Node, g: Any) -> Sequence[Any]:
    """The rule on Tensors tied back into the graph: what create_graph runs."""
    op, parents = node.op, node.parents
    if op.composite is not None:
        arrays = node.saved[len(op.needs) :]
        # Own nodes for the inputs: attention(x, x, x) has three.
        inputs = [a if p is None else identity(wrap(a, p)) for a, p in zip(arrays, parents)]
        outs = op.composite(*inputs)
        pairs = [(outs.node, g)] if op.outputs == 1 else [(o.node, d) for o, d in zip(outs, g) if d is not None]
        pairs = [(n, d) for n, d in pairs if n is not None]
        nodes = [t.node if p is not None else None for t, p in zip(inputs, parents)]
        targets = {n for n in nodes if n is not None}
        got = gradients([n for n, _ in pairs], [d for _, d in pairs], targets, stop=True, create_graph=True)
        return [None if n is None else got.get(n) for n in nodes]
    made_by = {"out": node, **({op.variadic: parents} if op.variadic else dict(zip(op.names, parents)))}
    lifted = []
    for name, value in zip(op.needs, node.saved):
        source = made_by.get(name)
        if isinstance(source, Node):
            value = wrap(value, source)
        elif name == op.variadic:
            value = tuple([v if p is None else wrap(v, p) for v, p in zip(value, source or ())])
        elif name not in made_by and is_array(value) and value.dtype.kind in "fc":
            raise errors.no_composite(op, name)
        lifted.append(value)
    return op.rule(g, *lifted)


def _run_hooks(node: Node, g: Any, create_graph: bool) -> Any:
    for hook in tuple(node.hooks.values()):
        new = hook(g if isinstance(g, Tensor) else wrap(g, None))
        if new is not None:
            errors.check_hook(node, new)
            g = new if create_graph else new.data.astype(node.dtype)  # a copy: others may hold what the hook returned
    return g
