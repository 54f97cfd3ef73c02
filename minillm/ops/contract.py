"""Reading einsum equations, and the product of two arrays with named axes, which is a matrix product in disguise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

import kernels

from ..device import array_module
from .arrays import by_kernel


def parse(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """The labels of each operand and of the output, one character an axis; `...` becomes digits.

    >>> parse("...ij,jk", [(2, 3, 4, 5), (5, 6)])
    (['10ij', 'jk'], '10ik')
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(shapes):
        raise ValueError(f"einsum {equation!r} has {len(inputs)} operands; got {len(shapes)}, of shapes {list(shapes)}")
    for labels in (*inputs, output):
        if not all(c.isascii() and c.isalpha() for c in labels.replace("...", "", 1)):
            raise ValueError(f"einsum {equation!r}: {labels!r} must be letters, one an axis, with at most one '...'")
    free = [len(shape) - len(labels.replace("...", "")) for labels, shape in zip(inputs, shapes)]
    for labels, shape, n in zip(inputs, shapes, free):
        if n < 0 or (n > 0 and "..." not in labels):
            raise ValueError(f"einsum {equation!r}: {labels!r} does not fit an operand of shape {shape}")
    rest = "".join([chr(ord("0") + i) for i in range(max(free))])[::-1]
    inputs = [labels.replace("...", rest[len(rest) - n :]) for labels, n in zip(inputs, free)]
    if not arrow:
        counts = Counter("".join(inputs))
        output = rest + "".join(sorted(c for c, n in counts.items() if n == 1 and c.isalpha()))
    output = output.replace("...", rest)
    if len(set(output)) < len(output) or not set(output) <= set("".join(inputs)):
        raise ValueError(f"einsum {equation!r}: the output {output!r} must name labels of the operands, each once")
    return inputs, output


def sizes_of(equation: str, inputs: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """{label: size}: size 1 in one operand goes with any size in another."""
    sizes: dict[str, int] = {}
    for labels, shape in zip(inputs, shapes):
        own = dict(zip(labels, shape))
        for label, n in zip(labels, shape):
            if n != own[label] or (n != sizes.get(label, n) and 1 not in (n, sizes[label])):
                other = own[label] if n != own[label] else sizes[label]
                raise ValueError(f"einsum {equation!r}: label {label!r} has size {n} in {shape}, elsewhere {other}")
            if sizes.get(label, 1) == 1:
                sizes[label] = n
    return sizes


def contract(x: Any, x_labels: str, y: Any, y_labels: str, keep: set[str]) -> tuple[Any, str]:
    """The product of x and y, summed over the labels that both have and that are not in `keep`; with its labels.

    Axes in four groups turn it into a (batched) matrix product: (batch, M, K) @ (batch, K, N).
    """
    batch = [c for c in x_labels if c in y_labels and c in keep]
    K = [c for c in x_labels if c in y_labels and c not in keep]
    M = [c for c in x_labels if c not in y_labels]
    N = [c for c in y_labels if c not in x_labels]
    size = {**dict(zip(x_labels, x.shape)), **dict(zip(y_labels, y.shape))}

    def arranged(a: Any, labels: str, *groups: list[str]) -> Any:
        a = a.transpose(tuple([labels.index(c) for c in [*batch, *groups[0], *groups[1]]]))
        return a.reshape((*[size[c] for c in batch], *[prod([size[c] for c in group]) for group in groups]))

    X, Y = arranged(x, x_labels, M, K), arranged(y, y_labels, K, N)
    if not K:
        out = X * Y  # (batch, M, 1) * (batch, 1, N)
    else:
        ours = (type(X) is np.ndarray and X.dtype.kind == "f") or by_kernel("matmul", X)
        out = kernels.matmul(X, Y) if ours else array_module(x).matmul(X, Y)
    labels = "".join([*batch, *M, *N])
    return out.reshape(tuple([size[c] for c in labels])), labels
