"""AdamW over all parameters in one pass, and the norm of a gradient."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import kernels

from ..case import Case, Options
from ..rivals import jax, jax_family, numpy, tensors, torch, torch_family

TITLE = "AdamW step over one flat buffer; global norm"
SHAPE = ("parameters",)
SHAPES = [(100_000,), (20_000_000,)]
LR, BETA1, BETA2, EPS, DECAY = 1e-3, 0.9, 0.99, 1e-8, 0.1


def cases(options: Options) -> Iterator[Case]:
    for (n,) in options.pick(SHAPES, SHAPES):
        param, grad, m, v = options.normal(4, n)
        v = v * v
        kernel = "adamw_flat" if hasattr(kernels, "adamw_flat") else "adamw_step"
        settings = {"lr": LR, "beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": DECAY, "step": 1}
        yield Case(
            "adamw", f"step {n}", (param, grad, m, v), kernel, settings, in_place=True, bytes=7 * param.nbytes,
            flops=14 * n, rivals=numpy(_numpy) | {"torch": _torch, "jax": _jax}, reference=_reference(settings),
        )  # fmt: skip
        yield Case(
            "adamw", f"global norm {n}", (grad,), "global_norm", bytes=grad.nbytes, flops=2 * n, reference=_norm,
            rivals=numpy(lambda g: np.sqrt(np.dot(g, g)))
            | torch_family(lambda torch, g: torch.linalg.vector_norm(g))
            | jax_family(lambda jax, g: jax.numpy.sqrt(jax.numpy.sum(g * g))),
        )  # fmt: skip


def _norm(g):
    return np.sqrt(np.square(g, dtype=np.float64).sum()).astype(g.dtype)


def _reference(settings: dict[str, Any]):
    def reference(*inputs):
        copies = tuple(x.copy() for x in inputs)
        kernels.adamw_step(*copies, **settings, impl="reference")
        return copies

    return reference


def _numpy(param, grad, m, v):
    f = param.dtype.type
    m *= f(BETA1)
    m += f(1 - BETA1) * grad
    v *= f(BETA2)
    v += f(1 - BETA2) * grad * grad
    param *= f(1 - LR * DECAY)
    param -= f(LR / (1 - BETA1)) * m / (np.sqrt(v / f(1 - BETA2)) + f(EPS))
    return param, grad, m, v


def _torch(param, grad, m, v):
    """The fused optimizer: torch's fastest."""
    lib = torch()
    p, g, m, v = tensors((param, grad, m, v))
    p.grad = g
    optimizer = lib.optim.AdamW([p], lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, fused=True)
    step = lib.tensor(0.0)
    optimizer.state[p] = {"step": step, "exp_avg": m, "exp_avg_sq": v}

    def run():
        step.zero_()
        optimizer.step()
        return p, g, m, v

    return run


def _jax(param, grad, m, v):
    lib = jax()
    jnp = lib.numpy

    @functools.partial(lib.jit, donate_argnums=(0, 2, 3))
    def step(p, g, m, v):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        p = p * (1 - LR * DECAY) - LR * (m / (1 - BETA1)) / (jnp.sqrt(v / (1 - BETA2)) + EPS)
        return p, m, v

    state = [jnp.array(x, copy=True) for x in (param, m, v)]
    g = jnp.asarray(grad)

    def run():
        state[:] = lib.block_until_ready(step(state[0], g, state[1], state[2]))
        return state[0], g, state[1], state[2]

    return run
