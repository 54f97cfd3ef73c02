"""What the engine costs for an op: 1,000 chained products and sums on 16 floats, forward and backward, one thread.

The control does the same arithmetic in NumPy with no graph, and forward only: what is left is the engine's. Times per
element are times per op.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import minillm

from ..case import Case, Options
from ..rivals import tensors, torch

TITLE = "time of an op on 16 floats, forward and backward, with a control that has no graph"
SHAPE = ("ops", "floats")


def cases(options: Options) -> Iterator[Case]:
    for ops, n in options.pick([(1000, 16)], [(1000, 16)]):
        x, weight, bias, dout = options.normal(4, n)
        weight = 1 + np.float32(0.01) * weight
        yield Case(
            "engine", f"{ops} ops on {n} floats", (x, weight, bias, dout), elements=ops, threads=1, backward=True,
            reference=lambda *inputs, ops=ops: _reference(ops, *inputs),
            ours={"minillm": lambda *inputs, ops=ops: _ours(ops, *inputs)},
            rivals={"torch": lambda *inputs, ops=ops: _torch(ops, *inputs),
                    "numpy": lambda *inputs, ops=ops: lambda: _chain(ops, *inputs[:3])},
        )  # fmt: skip


def _chain(ops, x, weight, bias):
    for _ in range(ops // 2):
        x = x * weight
        x = x + bias
    return x


def _reference(ops, x, weight, bias, dout):
    """Output and the gradients of x, weight and bias."""
    dx, dweight, dbias, values = dout, np.zeros_like(x), np.zeros_like(x), [x]
    for _ in range(ops // 2):
        values.append(values[-1] * weight + bias)
    for value in reversed(values[:-1]):
        dbias = dbias + dx
        dweight = dweight + dx * value
        dx = dx * weight
    return values[-1], dx, dweight, dbias


def _ours(ops, x, weight, bias, dout):
    leaves = [minillm.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    dout = minillm.tensor(dout)

    def run():
        for leaf in leaves:
            leaf.grad = None
        out = _chain(ops, *leaves)
        out.backward(dout)
        return [t.numpy() for t in (out.detach(), *(leaf.grad for leaf in leaves))]

    return run


def _torch(ops, x, weight, bias, dout):
    torch()
    leaves = [t.clone().requires_grad_() for t in tensors((x, weight, bias))]
    (dout,) = tensors((dout,))

    def run():
        for leaf in leaves:
            leaf.grad = None
        out = _chain(ops, *leaves)
        out.backward(dout)
        return [out.detach(), *(leaf.grad for leaf in leaves)]

    return run
