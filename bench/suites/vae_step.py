"""A training step of a VAE on images of 784 grey values: same weights, batch and noise; equal if the losses are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import minillm
from minillm.models import VAE

from ..case import Case, Options
from ..models import step, vae

TITLE = "training step of a VAE (features, hidden, latents, batch)"
SHAPE = ("features", "hidden", "latents", "batch")
SHAPES = [(784, 400, 20, 128)]


def cases(options: Options) -> Iterator[Case]:
    for features, hidden, latents, batch in options.pick(SHAPES, SHAPES):
        sizes = (features, (hidden,), latents)
        x = np.clip(options.normal(batch, features), 0, 1)
        inputs = (x, options.normal(batch, latents))
        weights = _model(sizes).state_dict()

        def torch(name: str, *arrays: np.ndarray, weights: Any = weights) -> Any:
            return step.torch_step(vae.loss_torch, (), name, weights, arrays)

        def jax(*arrays: np.ndarray, weights: Any = weights) -> Any:
            return step.jax_step(vae.loss_jax, (), weights, arrays)

        count = sum(w.size for w in weights.values())
        yield Case(
            "vae_step", f"{features}-{hidden}-{latents} batch {batch}", inputs, in_place=True, calls=3, tolerance=1e-4,
            flops=vae.flops(features, hidden, latents, batch), bytes=40.0 * count,
            reference=lambda *arrays, sizes=sizes: step.reference_losses(_model(sizes), arrays, 3),
            ours={"minillm": lambda *arrays, sizes=sizes: step.minillm_step(_model(sizes), arrays)},
            rivals={name: partial(torch, name) for name in ("torch", "torch.compile")} | {"jax": jax},
        )  # fmt: skip


def _model(sizes: tuple) -> VAE:
    minillm.manual_seed(0)
    return VAE(*sizes)
