"""Wrong gradient rules on purpose. A checker that has never failed has not been tested: plant a fault, see it caught.

    with planted("softmax", "sign"):
        gradcheck(F.softmax, [x])        # raises GradcheckError

| kind | what goes wrong |
|---|---|
| sign | every gradient negated |
| factor2 | every gradient doubled |
| drop | zeros |
| none | None, as if no gradient flowed |
| element | one element of each gradient 10 % too large |
| reversed | the elements of each gradient in reverse order |
| transposed | the first two dims longer than 1 swapped, written back in the old shape |
| scale | multiplied by the number of elements: a forgotten 1/N |
| swapped | the gradients of the first two inputs exchanged |
| constant | the incoming gradient replaced by ones |
| nan | one element NaN |
| detached | right gradients, but cut off from the graph: second derivatives vanish |
| mutate | right gradients, but the incoming one is overwritten |
| unrepeatable | the last bits differ from call to call, as with atomics in a random order |
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..device import array_module
from ..errors import nearest
from ..tensor import Tensor


def ops_with_rules() -> dict[str, Any]:
    """{name: op} of every op in minillm.ops that has a gradient rule; private ones keep their underscore."""
    found: dict[str, Any] = {}
    for name in sorted(m for m in sys.modules if m.startswith("minillm.ops.")):
        for value in vars(sys.modules[name]).values():
            if getattr(value, "rule", None) is not None and callable(getattr(value, "vjp", None)):
                found.setdefault(value.__name__, value)
    return found


@contextmanager
def planted(op: str, kind: str = "sign") -> Iterator[None]:
    """Inside the block, the gradient rule of `op` is wrong in this way; afterwards it is what it was.

    ValueError for a kind that does not exist, or an op without a rule of its own (written with other ops: plant
    the fault in one of those).
    """
    if kind not in KINDS:
        raise ValueError(f"no fault {kind!r}: choose one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    ops = ops_with_rules()
    target = ops.get(op) or ops.get(f"_{op}")
    if target is None:
        raise ValueError(
            f"no op {op!r} has a gradient rule to replace; those that do: {', '.join(ops)}.{nearest(op, ops)}"
        )
    rule, composite, fills = target.rule, target.composite, target.fills
    try:
        target.rule, target.fills = _wrong(rule, kind), False  # what it adds into a buffer could not be made wrong
        if composite is not None:  # under create_graph the composite is differentiated, not the rule
            target.composite = _wrong_composite(composite, kind)
        yield
    finally:
        target.rule, target.composite, target.fills = rule, composite, fills


def _wrong(rule: Callable, kind: str) -> Callable:
    fault = KINDS[kind]
    calls = itertools.count()

    def wrong(dout: Any, *saved: Any) -> Any:
        if kind == "constant":
            dout = [None if d is None else _ones(d) for d in dout] if isinstance(dout, (list, tuple)) else _ones(dout)
        if kind == "detached":
            dout, saved = _detached(dout), tuple(_detached(s) for s in saved)
        got = rule(dout, *saved)
        grads = list(got) if isinstance(got, (tuple, list)) else [got]
        if kind == "swapped":
            return grads[1::-1] + grads[2:] if len(grads) > 1 else grads
        if kind == "mutate":
            for d in dout if isinstance(dout, (list, tuple)) else [dout]:
                if d is not None and _raw(d).ndim:
                    grads = [g * 1 if g is not None else None for g in grads]
                    _raw(d)[...] *= 1.5
        if kind == "unrepeatable":
            factor = 1 + 2.0**-50 * (next(calls) % 7)
            return [None if g is None else g * factor for g in grads]
        return [None if g is None else fault(g) for g in grads]

    wrong.__name__ = getattr(rule, "__name__", "rule")
    return wrong


def _wrong_composite(composite: Callable, kind: str) -> Callable:
    """The readable twin, with results whose gradient is wrong in the same way: y + w(x) - constant w(x)."""

    def wrong(*args: Any, **settings: Any) -> Any:
        out = composite(*args, **settings)
        outs = list(out) if isinstance(out, tuple) else [out]
        outs = [_bend(o, kind) if isinstance(o, Tensor) else o for o in outs]
        return tuple(outs) if isinstance(out, tuple) else outs[0]

    return wrong


def _bend(out: Tensor, kind: str) -> Tensor:
    """The same values, another derivative."""
    still = out.detach()
    if kind == "sign":
        return 2 * still - out
    if kind in ("drop", "none", "detached"):
        return still + 0 * out
    return 2 * out - still


def _raw(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def _detached(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(_detached(v) for v in x)
    return x.detach() if isinstance(x, Tensor) else x


def _ones(d: Any) -> Any:
    return d * 0 + 1


def _weights(g: Any, value: float) -> Any:
    """Ones, and `value` in the last place."""
    data = _raw(g)
    weights = array_module(data).ones(data.shape, data.dtype)
    if weights.size:
        weights[tuple(n - 1 for n in weights.shape)] = value
    return weights


def _transposed(g: Any) -> Any:
    long = [i for i, n in enumerate(g.shape) if n > 1]
    if len(long) < 2:
        return _reversed(g)
    axes = list(range(len(g.shape)))
    axes[long[0]], axes[long[1]] = long[1], long[0]
    turned = g.permute(tuple(axes)) if isinstance(g, Tensor) else g.transpose(axes)
    return turned.reshape(g.shape)


def _reversed(g: Any) -> Any:
    return g.reshape((-1,))[::-1].reshape(g.shape)


KINDS: dict[str, Callable[[Any], Any]] = {
    "sign": lambda g: -g,
    "factor2": lambda g: 2 * g,
    "drop": lambda g: g * 0,
    "none": lambda g: None,
    "element": lambda g: g * _weights(g, 1.1),
    "reversed": _reversed,
    "transposed": _transposed,
    "scale": lambda g: g * int(_raw(g).size),
    "swapped": lambda g: g,
    "constant": lambda g: g,
    "nan": lambda g: g * _weights(g, float("nan")),
    "detached": lambda g: g,
    "mutate": lambda g: g,
    "unrepeatable": lambda g: g,
}
