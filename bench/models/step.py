"""A training step around a loss: forward, backward, clip to norm 1, AdamW; in minillm, torch and JAX.

Each function takes initial weights {name: array} and gives a Run that makes one step and returns the loss before it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import kernels
import minillm
from minillm import optim

from ..case import Run
from ..rivals import autocast, jax, tensors, torch

LR, BETAS, EPS, DECAY, CLIP = 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0
Weights = dict[str, np.ndarray]


def has_bf16() -> bool:
    """The CPU multiplies bfloat16 numbers: products in them, weights in float32."""
    return bool(kernels.has_bf16())


def minillm_step(model: Any, batch: tuple, bf16: bool = False) -> Run:
    optimizer = optim.AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    batch = tuple(minillm.as_tensor(x) for x in batch)  # shared: who changes the array changes the batch

    def run() -> Any:
        optimizer.zero_grad()
        with minillm.autocast(enabled=bf16):
            loss = model.loss(*batch)
        loss.backward()
        optimizer.step(clip_norm=CLIP)
        return loss.detach().numpy()

    return run


def reference_losses(model: Any, batch: tuple, steps: int) -> np.ndarray:
    """The losses of the first steps in float64, by the reference kernels."""
    model = model.double()
    with kernels.use("reference"):
        wide = tuple(x.astype(np.float64) if x.dtype.kind == "f" else x for x in batch)
        run = minillm_step(model, wide)
        return np.array([float(run()) for _ in range(steps)])


@cache
def _compiled(loss: Callable[..., Any], settings: tuple, name: str) -> Callable[..., Any]:
    """Compiled once for a model: dynamo looks at the loss as one graph."""

    def call(p: dict[str, Any], *batch: Any) -> Any:
        return loss(p, *batch, *settings)

    return torch().compile(call, dynamic=False) if name == "torch.compile" else call


def torch_step(loss: Callable[..., Any], settings: tuple, name: str, weights: Weights, batch: tuple) -> Run:
    """name: "torch", "torch.compile" or "torch.bf16", which is autocast around the compiled or eager loss."""
    lib = torch()
    p = {k: lib.tensor(v).requires_grad_() for k, v in weights.items()}
    parameters = list(p.values())
    optimizer = lib.optim.AdamW(parameters, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)
    call, args = _compiled(loss, settings, name), tensors(batch)

    def run() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with autocast(name == "torch.bf16"):
            out = call(p, *args)
        out.backward()
        lib.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return out.detach()

    return run


@cache
def _jitted(loss: Callable[..., Any], settings: tuple) -> Callable[..., Any]:
    lib = jax()
    jnp, tree = lib.numpy, lib.tree_util

    @functools.partial(lib.jit, donate_argnums=(0, 1, 2))
    def step(p: Any, m: Any, v: Any, t: Any, batch: tuple) -> Any:
        value, g = lib.value_and_grad(lambda p: loss(p, *batch, *settings))(p)
        norm = jnp.sqrt(sum(jnp.sum(x * x) for x in tree.tree_leaves(g)))
        scale = jnp.minimum(CLIP / (norm + 1e-6), 1.0)
        b1, b2 = BETAS
        m = tree.tree_map(lambda m, g: b1 * m + (1 - b1) * g * scale, m, g)
        v = tree.tree_map(lambda v, g: b2 * v + (1 - b2) * (g * scale) ** 2, v, g)
        c1, c2 = 1 - b1**t, 1 - b2**t
        p = tree.tree_map(lambda p, m, v: p * (1 - LR * DECAY) - LR * (m / c1) / (jnp.sqrt(v / c2) + EPS), p, m, v)
        return p, m, v, t + 1, value

    return step


def jax_step(loss: Callable[..., Any], settings: tuple, weights: Weights, batch: tuple) -> Run:
    lib = jax()
    step = _jitted(loss, settings)
    p = {k: lib.numpy.array(x, copy=True) for k, x in weights.items()}
    m, v = ({k: lib.numpy.zeros_like(x) for k, x in p.items()} for _ in range(2))
    state = [p, m, v, lib.numpy.float32(1.0)]
    args = tuple(lib.numpy.asarray(x.astype(np.int32) if x.dtype.kind == "i" else x) for x in batch)

    def run() -> Any:
        *state[:], value = lib.block_until_ready(step(*state, args))
        return value

    return run
