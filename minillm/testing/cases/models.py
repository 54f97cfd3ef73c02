"""Whole models: the loss as a function of every parameter, and of the input where that is not a list of ids."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ... import models, nn
from .case import Case, Draw, case, normal, positive

_IDS = np.array([[1, 4, 0, 2], [3, 3, 1, 0]])
_NEXT = np.array([[4, 0, 2, 3], [3, 1, 0, -100]])


def _loss(name: str, build: Callable[[], Any], loss: Callable[..., Any], *draws: Draw, label: str = "") -> Case:
    """loss(model, *inputs) as a function of (*inputs, *parameters)."""

    @cache
    def made() -> tuple[Any, list[str]]:
        model = build().double()
        return model, [n for n, _ in model.named_parameters()]

    def function(*tensors: Any) -> Any:
        model, names = made()
        inputs, weights = tensors[: len(draws)], tensors[len(draws) :]
        return nn.functional_call(_Loss(model, loss), {f"model.{n}": w for n, w in zip(names, weights)}, *inputs)

    def weight(index: int) -> Draw:
        def draw(rng: np.random.Generator) -> np.ndarray:
            model, names = made()
            shape = dict(model.named_parameters())[names[index]].shape
            return 0.5 * rng.standard_normal(shape)

        return draw

    return case(name, function, *draws, *[weight(i) for i in range(len(made()[1]))], label=label)


class _Loss(nn.Module):
    """The model's loss as a forward, for functional_call."""

    def __init__(self, model: Any, loss: Callable[..., Any]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *inputs: Any) -> Any:
        return self.loss(self.model, *inputs)


def _attention_model(**settings: Any) -> Callable[[], Any]:
    return lambda: models.AttentionModel(2, 3, width=4, heads=2, blocks=0, **settings)


CASES: list[Case] = [
    _loss(
        "Autoencoder", lambda: models.Autoencoder(4, 3, 2, activation="tanh"), lambda m, x: m.loss(x),
        positive(2, 4, low=0.1, high=0.9),
    ),
    _loss(
        "VAE", lambda: models.VAE(4, (3,), 2, activation="tanh"), lambda m, x, noise: m.loss(x, noise),
        positive(2, 4, low=0.1, high=0.9), normal(2, 2),
    ),
    _loss(
        "VAE", lambda: models.VAE(3, (3,), 2, activation="silu", likelihood="gaussian", std=0.5, beta=2.0),
        lambda m, x, noise: m.loss(x, noise), normal(2, 3), normal(2, 2), label="gaussian",
    ),
    _loss("AttentionModel", _attention_model(classes=3), lambda m, x: m.loss(x, np.array([2, 0])), normal(2, 3, 2)),
    _loss(
        "AttentionModel", _attention_model(classes=0, score="scaled_dot"), lambda m, x: m.loss(x), normal(2, 3, 2),
        label="scaled_dot, reconstruction",
    ),
    _loss(
        "GPT", lambda: models.GPT(5, context=4, layers=1, heads=2, width=4), lambda m: m.loss(_IDS, _NEXT),
    ),
    _loss(
        "GPT",
        lambda: models.GPT(
            5, context=4, layers=1, heads=2, kv_heads=1, width=4, position="rotary", norm="rms", mlp="swiglu",
            mlp_width=3, bias=False, tie=False, qk_norm=True, softcap=4.0, window=3,
        ),
        lambda m: m.loss(_IDS, _NEXT, z_loss=0.1, label_smoothing=0.1), label="rotary, grouped, SwiGLU",
    ),
    _loss(
        "GPT",
        lambda: models.GPT(
            5, context=4, layers=1, heads=2, width=4, position="alibi", experts=2, experts_per_token=1, mlp_width=3,
            balance_loss=0.5,
        ),
        lambda m: m.loss(_IDS, _NEXT, documents=np.array([[0, 0, 1, 1]] * 2)), label="ALiBi, experts, documents",
    ),
]  # fmt: skip
