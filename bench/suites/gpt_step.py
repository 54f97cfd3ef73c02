"""A training step of a GPT, float32 and bfloat16: same weights, same batch; equal if the first losses are the same.

Forward, backward, clip to norm 1, AdamW. The two sizes are nanoGPT's recipe for a CPU and its "baby GPT".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import minillm
from minillm.models import GPT

from ..case import Case, Options
from ..models import gpt, step

TITLE = "training step of a GPT (layers, heads, width, context, batch)"
SHAPE = ("layers", "heads", "width", "context", "batch")
SHAPES = [(4, 4, 128, 64, 12), (6, 6, 384, 256, 16)]
VOCABULARY = 65


def cases(options: Options) -> Iterator[Case]:
    for layers, heads, width, context, batch in options.pick(SHAPES, SHAPES[:1]):
        sizes = {"layers": layers, "heads": heads, "width": width, "context": context}
        ids = options.integers(VOCABULARY, batch, context + 1)
        inputs = (ids[:, :-1].copy(), ids[:, 1:].copy())
        calls = 3 if width <= 128 else 2  # the reference's second step of the larger takes long
        weights = _model(sizes).state_dict()

        def ours(*arrays: np.ndarray, sizes: dict = sizes, bf16: bool = False) -> Any:
            return step.minillm_step(_model(sizes), arrays, bf16)

        def torch(name: str, *arrays: np.ndarray, sizes: dict = sizes, weights: Any = weights) -> Any:
            return step.torch_step(gpt.loss_torch, (sizes["layers"], sizes["heads"]), name, weights, arrays)

        def jax(*arrays: np.ndarray, sizes: dict = sizes, weights: Any = weights) -> Any:
            return step.jax_step(gpt.loss_jax, (sizes["layers"], sizes["heads"]), weights, arrays)

        count = sum(w.size for w in weights.values())
        yield Case(
            "gpt_step", f"({layers},{heads},{width},{context},{batch})", inputs, in_place=True, calls=calls,
            tolerance=1e-4, flops=gpt.flops(**sizes, batch=batch, vocabulary=VOCABULARY), bytes=40.0 * count,
            reference=lambda *arrays, sizes=sizes, calls=calls: step.reference_losses(_model(sizes), arrays, calls),
            ours={"minillm": ours} | ({"minillm.bf16": partial(ours, bf16=True)} if step.has_bf16() else {}),
            rivals={name: partial(torch, name) for name in ("torch", "torch.compile", "torch.bf16")} | {"jax": jax},
        )  # fmt: skip


def _model(sizes: dict[str, int]) -> GPT:
    minillm.manual_seed(0)
    return GPT(VOCABULARY, **sizes)
