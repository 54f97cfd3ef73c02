"""Muon: momentum whose update is made orthogonal, for the matrices inside a network.

    buf    = momentum buf + (1 - momentum) grad
    update = (1 - momentum) grad + momentum buf           with nesterov; else buf
    update = U V^T, where update = U S V^T                 all singular values become about 1
    W      = (1 - lr weight_decay) W - lr sqrt(max(1, rows / columns)) update

A gradient's few large singular values are directions that are learned anyway; orthogonal, the update moves the rare
ones as far. U V^T comes from five steps of Newton and Schulz, products only:

    X = X / |X|;   X = (a I + b A + c A^2) X with A = X X^T        (a, b, c) = (3.4445, -4.7750, 2.0315)

which takes singular values from (0, 1] to about 0.7 .. 1.2. Sources: Jordan et al. 2024, kellerjordan.github.io/posts/
muon; Liu et al. 2025 (weight decay), arXiv:2502.16982.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

import kernels

from ..device import array_module
from ..ops.arrays import by_kernel
from ..writes import mark_written
from .optimizer import Optimizer, zeros_like

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


class Muon(Optimizer):
    """Muon(matrices, lr=0.02). Everything else (embeddings, head, norms, biases) belongs to another optimizer.

    sections  of a group: the rows of several matrices that lie in one parameter, (C, C, C) for the queries', keys' and
              values' weights of attention; each is made orthogonal by itself. None: the parameter is one matrix
    bf16      products of the iteration in bfloat16, which is as good here; None: where the CPU has them, and on a GPU
    Names as torch.optim.Muon's. State: momentum_buffer.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        bf16: bool | None = None,
    ):
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "weight_decay": weight_decay,
            "sections": None,
        }  # fmt: skip
        self.bf16 = bf16
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if not 0 <= group["momentum"] < 1 or group["ns_steps"] < 1:
            raise ValueError(
                f"Muon: needs 0 <= momentum < 1 and ns_steps >= 1; got momentum={group['momentum']}, "
                f"ns_steps={group['ns_steps']}"
            )
        for p in group["params"]:
            if p.ndim != 2:
                raise ValueError(
                    f"Muon: it makes matrices orthogonal, and a parameter has shape {p.shape}: give vectors, "
                    "embeddings and the head to AdamW"
                )
            sections = group["sections"]
            if sections is not None and (sum(sections) != p.shape[0] or min(sections) < 1):
                raise ValueError(f"Muon: sections {sections}, rows of matrices, must add up to the rows of {p.shape}")

    def step_scaled(self, scale: float) -> None:
        """One step of gradients * scale; matrices of one shape and group are stacked and iterated together."""
        for group in self.param_groups:
            stacks: dict[tuple[int, ...], list[tuple[Any, Any]]] = {}  # (rows, columns, dtype) -> (W, update)
            for p in group["params"]:
                if p.grad is None or not p.numel():
                    continue
                if p.grad.shape != p.shape:
                    raise ValueError(f"Muon: a parameter of shape {p.shape} has grad {p.grad.shape}")
                update = self._momentum(p, p.grad.data, scale, group)
                start = 0
                for rows in group["sections"] or (p.shape[0],):
                    w, u = p.data[start : start + rows], update[start : start + rows]
                    shape = (*sorted(u.shape), u.dtype.num)
                    stacks.setdefault(shape, []).append((w, u if u.shape[0] <= u.shape[1] else u.T))
                    start += rows
            for stack in stacks.values():
                self._apply(stack, group)
            for p in group["params"]:
                if p.grad is not None:
                    mark_written(p.data)

    def _momentum(self, p: Any, grad: Any, scale: float, group: dict[str, Any]) -> Any:
        state, m = self.state.setdefault(p, {}), grad.dtype.type(group["momentum"])
        if not state:
            state["momentum_buffer"] = zeros_like(p.data)
        buf, fresh = state["momentum_buffer"], grad * grad.dtype.type(scale * (1 - group["momentum"]))
        buf *= m
        buf += fresh
        return fresh + m * buf if group["nesterov"] else buf

    def _apply(self, stack: list[tuple[Any, Any]], group: dict[str, Any]) -> None:
        xp = array_module(stack[0][0])
        made = orthogonal(xp.stack([u for _, u in stack]), group["ns_steps"], self.bf16)
        lr, decay = group["lr"], 1 - group["lr"] * group["weight_decay"]
        for (w, _), u in zip(stack, made):
            rate = w.dtype.type(lr * math.sqrt(max(1.0, w.shape[0] / w.shape[1])))
            if decay != 1:
                w *= w.dtype.type(decay)
            w -= (u if w.shape[0] <= w.shape[1] else u.T) * rate


def orthogonal(x: Any, steps: int = 5, bf16: bool | None = None) -> Any:
    """About U V^T of each matrix U S V^T of x (n, rows, columns), rows <= columns; zeros of a matrix of zeros."""
    xp, given = array_module(x), x.dtype
    x = x.astype(np.float32) if given == np.float16 else x  # whose squares would overflow
    ours = xp is np or by_kernel("matmul", x)
    here = ours and (xp is not np or kernels.has_bf16())  # a GPU's tensor cores, or this CPU's
    fast = ours and x.dtype == np.float32 and (here if bf16 is None else bf16)
    product = kernels.matmul_bf16 if fast else kernels.matmul if ours else xp.matmul
    a, b, c = (x.dtype.type(k) for k in COEFFICIENTS)
    x = x / (xp.sqrt((x * x).sum((1, 2), keepdims=True)) + x.dtype.type(EPS))
    for _ in range(steps):
        gram = product(x, x.transpose(0, 2, 1))  # A
        polynomial = product(gram, gram)  # a I + b A + c A^2
        polynomial *= c
        gram *= b
        polynomial += gram
        polynomial.reshape(len(x), -1)[:, :: x.shape[1] + 1] += a  # the diagonal
        x = product(polynomial, x)
    return x.astype(given, copy=False)
