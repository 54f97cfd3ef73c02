"""Layers and losses, as functions of their inputs and parameters, beside PyTorch's modules of the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import nn, random
from .case import Case, Draw, case, distinct, given, normal, positive


def layer(op: str, make: Callable[[Any], Any], *draws: Draw, torch: Any = True, **more: Any) -> Case:
    """The case of make(nn) as a function of its inputs, `draws`, and after them of its parameters.

    more: label and orders as in `case`; all else is a parameter's draw, named as in the module ("__" for a dot).
    torch: True, if make(torch.nn) is the same layer; else a function of (torch, *inputs, *parameters), or None.
    """
    settings = {k: more.pop(k) for k in ("label", "orders") if k in more}
    names = [name.replace("__", ".") for name in more]
    count = len(draws)

    def call(*tensors: Any) -> Any:
        return nn.functional_call(_made(make), dict(zip(names, tensors[count:])), *tensors[:count])

    def same(torch: Any, *tensors: Any) -> Any:
        return torch.func.functional_call(make(torch.nn), dict(zip(names, tensors[count:])), tensors[:count])

    return case(op, call, *draws, *more.values(), torch=same if torch is True else torch, **settings)


def _made(make: Callable[[Any], Any]) -> Any:
    """make(nn), without a trace in the default generator."""
    state = random.get_rng_state()
    try:
        return make(nn)
    finally:
        random.set_rng_state(state)


def loss(name: str, prediction: Draw, target: Any, label: str = "", **settings: Any) -> Case:
    """The case of a loss as a function of its prediction; target and array settings are constants."""

    def constants(convert: Callable, like: Any) -> tuple:
        arrays = {k: convert(np.array(v), like) if isinstance(v, list) else v for k, v in settings.items()}
        return arrays, convert(np.array(target), like)

    def ours(array: np.ndarray, like: Any) -> Any:
        return array.astype(like.dtype) if array.dtype.kind == "f" else array

    def call(x: Any) -> Any:
        arrays, t = constants(ours, x)
        return getattr(nn, name)(**arrays)(x, t)

    def same(torch: Any, x: Any) -> Any:
        arrays, t = constants(lambda a, like: torch.tensor(a).to(like.dtype if a.dtype.kind == "f" else torch.int64), x)
        return getattr(torch.nn, name)(**arrays)(x, t)

    return case(name, call, prediction, torch=same, label=label)


def _dropout(x: Any) -> Any:
    state = random.get_rng_state()
    random.manual_seed(0)
    try:
        return nn.Dropout(0.4)(x)
    finally:
        random.set_rng_state(state)


def _additive(torch: Any, query: Any, key: Any, value: Any, W: Any, U: Any, v: Any) -> Any:
    hidden = torch.tanh((query @ W.T)[:, :, None] + (key @ U.T)[:, None])  # (B, Q, S, hidden)
    weights = torch.softmax((hidden @ v.T)[..., 0], -1)  # (B, Q, S)
    return weights @ value, weights


def _dot(scale: float) -> Callable:
    def same(torch: Any, query: Any, key: Any, value: Any) -> Any:
        weights = torch.softmax(query @ key.mT * scale, -1)
        return weights @ value, weights

    return same


class _SelfAttention(nn.Module):
    """MultiheadAttention with one input and one output."""

    def __init__(self, kv_heads: int | None = None, **settings: Any):
        self.attention, self.settings = nn.MultiheadAttention(4, 2, num_kv_heads=kv_heads), settings

    def forward(self, query: Any, key: Any = None, value: Any = None) -> Any:
        y, weights = self.attention(query, key, value, **self.settings)
        return y if weights is None else (y, weights)


def _torch_attention(is_causal: bool = False, need_weights: bool = False) -> Callable:
    def same(torch: Any, *tensors: Any) -> Any:
        *inputs, weight, bias, out_weight, out_bias = tensors
        query, key, value = inputs * 3 if len(inputs) == 1 else inputs
        allowed = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril()
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        y, weights = torch.nn.functional.multi_head_attention_forward(
            query, key, value, 4, 2, weight, bias, None, None, False, 0.0, out_weight, out_bias,
            attn_mask=~allowed if is_causal else None, average_attn_weights=False,
        )  # fmt: skip
        return (y.transpose(0, 1), weights) if need_weights else y.transpose(0, 1)

    return same


PROJECTIONS = {
    "attention__in_proj_weight": normal(12, 4),
    "attention__in_proj_bias": normal(12),
    "attention__out_proj__weight": normal(4, 4),
    "attention__out_proj__bias": normal(4),
}
BLOCK = {
    "norm1__weight": normal(4), "norm1__bias": normal(4), "norm2__weight": normal(4), "norm2__bias": normal(4),
    **PROJECTIONS,
    "mlp__0__weight": normal(16, 4), "mlp__0__bias": normal(16),
    "mlp__2__weight": normal(4, 16), "mlp__2__bias": normal(4),
}  # fmt: skip


def _torch_block(torch: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any, *rest: Any) -> Any:
    f = torch.nn.functional
    x = x + _torch_attention(is_causal=True)(torch, f.layer_norm(x, (4,), w1, b1), *rest[:4])
    return x + f.linear(f.gelu(f.linear(f.layer_norm(x, (4,), w2, b2), rest[4], rest[5])), rest[6], rest[7])


ATTENTION = (normal(2, 2, 3), normal(2, 4, 3), normal(2, 4, 2))  # query, key, value

CASES: list[Case] = [
    layer("Linear", lambda nn: nn.Linear(3, 2), normal(2, 4, 3), weight=normal(2, 3), bias=normal(2)),
    layer("Linear", lambda nn: nn.Linear(3, 2, bias=False), normal(3), weight=normal(2, 3), label="one row, no bias"),
    layer(
        "Bilinear", lambda nn: nn.Bilinear(3, 2, 4), normal(2, 3), normal(2, 2), weight=normal(4, 3, 2), bias=normal(4)
    ),
    layer("LayerNorm", lambda nn: nn.LayerNorm(5), normal(2, 3, 5), weight=normal(5), bias=normal(5)),
    layer(
        "LayerNorm", lambda nn: nn.LayerNorm((3, 2)), normal(2, 3, 2), weight=normal(3, 2), bias=normal(3, 2),
        label="two dims",
    ),
    layer("LayerNorm", lambda nn: nn.LayerNorm(5, elementwise_affine=False), normal(3, 5), label="no affine"),
    layer("RMSNorm", lambda nn: nn.RMSNorm(5), normal(2, 3, 5), weight=normal(5)),
    layer("RMSNorm", lambda nn: nn.RMSNorm(5, eps=0.1), normal(3, 5), weight=normal(5), label="eps=0.1"),
    case("Dropout", _dropout, normal(3, 4), label="training"),
    layer("Dropout", lambda nn: nn.Dropout(0.5).eval(), normal(3, 4), label="evaluation"),
    layer("ReLU", lambda nn: nn.ReLU(), distinct(2, 3)),
    layer("LeakyReLU", lambda nn: nn.LeakyReLU(0.2), distinct(2, 3)),
    layer("ELU", lambda nn: nn.ELU(0.5), distinct(2, 3)),
    layer("GELU", lambda nn: nn.GELU(), normal(2, 3)),
    layer("GELU", lambda nn: nn.GELU("tanh"), normal(2, 3), label="tanh"),
    layer("SiLU", lambda nn: nn.SiLU(), normal(2, 3)),
    layer("Sigmoid", lambda nn: nn.Sigmoid(), normal(2, 3)),
    layer("Tanh", lambda nn: nn.Tanh(), normal(2, 3)),
    layer("Softplus", lambda nn: nn.Softplus(2.0), normal(2, 3)),
    layer("LogSigmoid", lambda nn: nn.LogSigmoid(), normal(2, 3)),
    layer("Softmax", lambda nn: nn.Softmax(0), normal(3, 2)),
    layer("LogSoftmax", lambda nn: nn.LogSoftmax(-1), normal(2, 3)),
    layer("Flatten", lambda nn: nn.Flatten(), normal(2, 3, 2)),
    layer("Identity", lambda nn: nn.Identity(), normal(2, 3)),
    layer(
        "Sequential", lambda nn: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), normal(2, 3),
        **{"0__weight": normal(4, 3), "0__bias": normal(4), "2__weight": normal(2, 4), "2__bias": normal(2)},
    ),
    case(
        "Embedding",
        lambda weight: nn.functional_call(nn.Embedding(4, 3), {"weight": weight}, np.array([[0, 2], [2, 3]])),
        normal(4, 3),
        torch=lambda torch, weight: torch.nn.functional.embedding(torch.tensor([[0, 2], [2, 3]]), weight),
        label="repeated ids",
    ),
    case(
        "Embedding",
        lambda weight: nn.functional_call(nn.Embedding(4, 3, padding_idx=-1), {"weight": weight}, np.array([3, 1, 3])),
        normal(4, 3),
        torch=lambda torch, weight: torch.nn.functional.embedding(torch.tensor([3, 1, 3]), weight, padding_idx=3),
        label="padding_idx",
        orders=(),  # the padding row's gradient is 0 by definition: not what differences give
    ),
    layer(
        "AdditiveAttention", lambda nn: nn.AdditiveAttention(3, 3, 4), *ATTENTION, torch=_additive,
        query_layer__weight=normal(4, 3), key_layer__weight=normal(4, 3), score_layer__weight=normal(1, 4),
    ),
    layer("DotProductAttention", lambda nn: nn.DotProductAttention(), *ATTENTION, torch=_dot(1.0)),
    layer("ScaledDotProductAttention", lambda nn: nn.ScaledDotProductAttention(), *ATTENTION, torch=_dot(3**-0.5)),
    case(
        "ScaledDotProductAttention",
        lambda q, k, v: nn.ScaledDotProductAttention()(q, k, v, np.array([[[True, False, True, True]], [[False] * 4]])),
        *ATTENTION, label="masked, one sequence fully",
    ),
    layer("MultiheadAttention", lambda _: _SelfAttention(), normal(2, 3, 4), torch=_torch_attention(), **PROJECTIONS),
    layer(
        "MultiheadAttention", lambda _: _SelfAttention(is_causal=True, need_weights=True), normal(2, 3, 4),
        torch=_torch_attention(True, True), label="causal, weights", orders=(1,), **PROJECTIONS,
    ),
    layer(
        "MultiheadAttention", lambda _: _SelfAttention(), normal(2, 2, 4), normal(2, 3, 4), normal(2, 3, 4),
        torch=_torch_attention(), label="cross", orders=(1,), **PROJECTIONS,
    ),
    layer(
        "MultiheadAttention", lambda _: _SelfAttention(kv_heads=1), normal(2, 3, 4), torch=None, label="grouped",
        orders=(1,),
        **{**PROJECTIONS, "attention__in_proj_weight": normal(8, 4), "attention__in_proj_bias": normal(8)},
    ),
    layer(
        "TransformerBlock", lambda nn: nn.TransformerBlock(4, 2), normal(1, 2, 4), torch=_torch_block,
        orders=(1,), **BLOCK,
    ),
    loss("CrossEntropyLoss", normal(4, 3), [0, 2, 1, 1]),
    loss("CrossEntropyLoss", normal(4, 3), [0, -100, 1, 1], label="ignored", label_smoothing=0.1),
    loss(
        "CrossEntropyLoss", normal(2, 3, 2), [[0, 2], [1, 1]], label="weight, sum", weight=[0.5, 1.0, 2.0],
        reduction="sum",
    ),
    loss("CrossEntropyLoss", normal(2, 3), [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], label="probabilities"),
    loss("NLLLoss", normal(4, 3), [0, 2, 1, 1], weight=[0.5, 1.0, 2.0]),
    loss("NLLLoss", normal(4, 3), [0, 2, 1, 1], label="none", reduction="none", ignore_index=1),
    loss("MSELoss", normal(2, 3), [[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]]),
    loss("L1Loss", distinct(2, 3), [[0.0] * 3, [0.0] * 3], reduction="sum"),
    loss("HuberLoss", given([[0.2, 3.0, -4.0]]), [[0.0, 0.0, 1.0]], delta=0.7),
    loss("BCELoss", positive(2, 2, low=0.1, high=0.9), [[0.0, 1.0], [0.3, 0.5]], weight=[0.5, 2.0]),
    loss("BCEWithLogitsLoss", normal(2, 2), [[0.0, 1.0], [0.3, 0.5]], weight=[0.5, 2.0], pos_weight=[3.0, 1.0]),
    loss("KLDivLoss", normal(2, 2), [[0.4, 0.6], [0.0, 1.0]], reduction="batchmean"),
    loss("KLDivLoss", normal(2, 2), [[-0.5, -0.9], [-3.0, 0.0]], label="log_target", log_target=True, reduction="sum"),
]  # fmt: skip
