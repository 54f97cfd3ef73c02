"""A token of a language model: one new token behind a prompt whose keys and values are cached, batch 1.

Bound by memory: every weight is read once a token. Equal if the logits are those of a whole pass in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import kernels
import minillm
from minillm.models import GPT

from ..case import Case, Options, Run
from ..models import gpt
from ..rivals import tensors, torch

TITLE = "a token of a GPT (layers, heads, width, vocabulary, tokens before it), random weights"
SHAPE = ("layers", "heads", "width", "vocabulary", "before")
SHAPES = [(12, 12, 768, 50257, 64), (4, 4, 128, 65, 64)]


def cases(options: Options) -> Iterator[Case]:
    for layers, heads, width, vocabulary, before in options.pick(SHAPES, SHAPES[1:]):
        sizes = {"vocab_size": vocabulary, "context": before + 1, "layers": layers, "heads": heads, "width": width}
        ids = options.integers(vocabulary, 1, before + 1)
        weights = layers * 12 * width**2 + vocabulary * width
        yield Case(
            "generate", f"({layers},{heads},{width},{vocabulary},{before})", (ids,), tolerance=1e-4, stream="read",
            flops=2.0 * weights, bytes=4.0 * (weights + 2 * layers * before * width),
            reference=partial(_whole, sizes), ours={"minillm": partial(_ours, sizes)},
            rivals={"torch": partial(_torch, sizes, "torch"), "torch.compile": partial(_torch, sizes, "torch.compile")},
        )  # fmt: skip


def _model(sizes: dict[str, int]) -> GPT:
    minillm.manual_seed(0)
    return GPT(**sizes, mlp="gelu_tanh").eval()


def _whole(sizes: dict[str, int], ids: np.ndarray) -> Any:
    with kernels.use("reference"), minillm.no_grad():
        model = _model(sizes).double()
        return model.logits(model.hidden(ids)[:, -1:]).numpy()


def _ours(sizes: dict[str, int], ids: np.ndarray) -> Run:
    model = _model(sizes)
    cache = model.new_cache(1)
    model.hidden(ids[:, :-1], cache)

    def run() -> Any:
        cache.truncate(ids.shape[1] - 1)
        with minillm.no_grad():
            return model(ids[:, -1:], cache).numpy()

    return run


def _torch(sizes: dict[str, int], name: str, ids: np.ndarray) -> Run:
    lib = torch()
    weights = _model(sizes).state_dict()
    p = dict(zip(weights, tensors(tuple(weights.values()))))
    (ids_,) = tensors((ids,))
    layers, heads, width, n = sizes["layers"], sizes["heads"], sizes["width"], ids.shape[1]
    cache = lib.zeros(layers, 2, 1, heads, n, width // heads)
    token = partial(gpt.token_torch, p, layers=layers, heads=heads, cache=cache)
    with lib.inference_mode():
        for t in range(n - 1):
            token(ids_[:, t : t + 1], t)
    call = lib.compile(token, dynamic=False) if name == "torch.compile" else token

    def run() -> Any:
        with lib.inference_mode():
            return call(ids_[:, -1:], n - 1)

    return run
