"""What a GPT costs: parameters, FLOPs, and the memory of a training step, worked out from its settings.

Activations are the arrays that the forward pass leaves for the gradient. For each token, C the width, F that of the
mlp, H heads and G shared ones (kv_heads) of D numbers:

| a block keeps | numbers a token |
|---|---|
| the stream before each of two norms, what they return, their means and deviations | 4 C + 4 (RMSNorm: + 2) |
| queries, keys, values; the heads' means, and the logarithm of each head's sum | (2 H + 2 G) D + H |
| what the attention adds to the stream | C |
| the mlp's wide layer before and after its activation (swiglu: gate, up and their product) | 2 F (3 F) |
| rotary: queries and keys, turned; qk_norm: and normed | (H + G) D each, and another H D for the means |
| experts, k for a token: their mlps' layers, what they read, what they return | k (2 F + 2 C) (3 F) |

A block of GPT-2, with H D = C and F = 4 C, keeps 17 C. The attention kernel never holds the T x T weights, and the
head's loss never all logits: it makes its gradients in the forward pass, C a token and the head's V C numbers. The
way back begins in the last mlp, whose wide layer has its gradient then: F. With checkpoint_blocks the blocks' inputs
are kept, and the rest of one block at a time. Measured steps agree within 8 % (tests/models/test_gpt_summary.py).
Source: the same account for another library, Korthikanti et al. 2022, arXiv:2205.05198, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..nn.summary import aligned
from .gpt import GPT, GPTConfig, head_dim


class Part(NamedTuple):
    """A part of a model, like blocks as one: flops of a training step, for each token; activations, bytes of a step."""

    name: str
    parameters: int
    flops: float
    activations: float


def gpt_parts(model: GPT, batch: int = 1, context: int | None = None) -> list[Part]:
    """From bottom to top, for a training step of `batch` windows of `context` tokens (None: the model's)."""
    c = model.config
    T = c.context if context is None else context
    if batch < 1 or not 1 <= T <= c.context:
        raise ValueError(f"gpt_parts: batch={batch}, context={T}; expected at least 1, and 1 to {c.context}")
    own, flops = _parameters(model), _flops(model, T)
    attention, mlp = block_numbers(c)
    head = 3 * c.width + _of_norm(c) + _mlp_width(c)  # the stream, its norm, that one's gradient; the last mlp's
    blocks = 1 if model.checkpoint_blocks else c.layers
    inputs = (c.layers - 1) * c.width if model.checkpoint_blocks else 0
    each = model.token.weight.data.dtype.itemsize
    kept = {
        "embedding": inputs * T * batch,
        "attention": blocks * attention * T * batch,
        "mlp": blocks * mlp * T * batch,
        "head": head * T * batch + c.vocab_size * c.width,
    }
    names = {"embedding": "embedding", "attention": f"{c.layers} x attention", "mlp": f"{c.layers} x mlp",
             "head": "norm, head, loss"}  # fmt: skip
    return [Part(name, own[key], flops[key], each * kept[key]) for key, name in names.items()]


def block_numbers(c: GPTConfig) -> tuple[float, float]:
    """Numbers a token that the attention and the mlp of a block keep for their gradients, each with its norm."""
    C, D, H = c.width, head_dim(c), c.heads
    G = H if c.kv_heads is None else c.kv_heads
    skipped = C * (1 - 1 / c.layers) if c.stochastic_depth else 0  # the branch before it was scaled; not in block 0
    extra = (c.position == "rotary") + c.qk_norm
    turned = extra * (H + G) * D + (H * D if extra else 0)
    attention = 2 * C + _of_norm(c) + (2 * H + 2 * G) * D + H + turned + C + skipped
    F = _mlp_width(c)
    wide = (3 if c.mlp == "swiglu" else 2) * F
    if c.experts:
        wide = c.experts_per_token * (wide + 2 * C)
    return attention, 2 * C + _of_norm(c) + wide + skipped


def step_memory(
    model: GPT, batch: int, context: int | None = None, optimizer: Any = None, more: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Bytes of a training step, by what holds them: weights, gradients, optimizer state, activations.

    optimizer  its state is counted where there is one already; before the first step, and for None, AdamW's: two
               numbers a weight. Gradients are those of the parameters that it has.
    more       more of them, for instance {"averaged weights": bytes}
    """
    trained = list(model.parameters())
    if optimizer is not None:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = sum(p.data.nbytes for p in trained)
    state = 0 if optimizer is None else optimizer_bytes(optimizer)
    return {
        "weights": sum(p.data.nbytes for p in model.parameters()), "gradients": gradients,
        "optimizer state": state or 2 * gradients, **(more or {}),
        "activations": sum(part.activations for part in gpt_parts(model, batch, context)),
    }  # fmt: skip


def optimizer_bytes(optimizer: Any) -> int:
    """Bytes of the arrays in an optimizer's state, or in that of each of several."""
    several = getattr(optimizer, "optimizers", None) or [optimizer]
    arrays = [v for o in several for values in o.state.values() for v in values.values()]
    return sum(v.nbytes for v in arrays if getattr(v, "ndim", 0))


def gpt_summary(model: GPT, batch: int = 1, context: int | None = None) -> str:
    """Parameters, FLOPs and activations of each part, as text.

    >>> print(gpt_summary(GPT(vocab_size=65, context=64, layers=4, heads=4, width=128), batch=12))
    part              parameters  MFLOPs a token  activations
    ---------------------------------------------------------
    embedding             16,512            0.00       0.0 MB
    4 x attention        265,216            1.77      11.1 MB
    4 x mlp              527,872            3.15      15.8 MB
    norm, head, loss         256            0.05       2.8 MB
    ---------------------------------------------------------
    total                809,856            4.97      29.6 MB
    """
    rows, totals = summary_rows(model, batch, context)
    return aligned(HEADER, [tuple(row) for row in rows], [tuple(totals)])


HEADER = ("part", "parameters", "MFLOPs a token", "activations")


def summary_rows(model: GPT, batch: int = 1, context: int | None = None) -> tuple[list[list[str]], list[str]]:
    """(rows, the row of totals) under HEADER, as text."""
    found = gpt_parts(model, batch, context)
    sums = [sum(numbers) for numbers in zip(*(part[1:] for part in found))]
    total = Part("total", int(sums[0]), *sums[1:])
    texts = [[p.name, f"{p.parameters:,}", f"{p.flops / 1e6:,.2f}", megabytes(p.activations)] for p in [*found, total]]
    return texts[:-1], texts[-1]


def opening_lines(model: GPT, batch: int, context: int | None = None, optimizer: Any = None) -> list[str]:
    """Two lines for the start of a training: the model, and what a step of it takes."""
    c, T = model.config, model.config.context if context is None else context
    heads = f"{c.heads} heads" if c.kv_heads in (None, c.heads) else f"{c.heads} heads on {c.kv_heads} of keys"
    flops, memory = model.flops_per_token(T), step_memory(model, batch, T, optimizer)
    flops *= batch * T
    work = f"{flops / 1e9:.3g} GFLOPs" if flops >= 1e8 else f"{flops / 1e6:.3g} MFLOPs"
    parts = ", ".join(f"{name} {megabytes(size)}" for name, size in memory.items())
    shape = f"{c.layers} layers of width {c.width}, {heads}, {c.vocab_size:,} tokens"
    return [
        f"{model.num_parameters():,} parameters: {shape}",
        f"a batch of {batch} x {T} tokens: {work}; {parts}",
    ]


def megabytes(size: float) -> str:
    """
    >>> megabytes(3_250_000), megabytes(1.5e9)
    ('3.2 MB', '1,500.0 MB')
    """
    return f"{size / 1e6:,.1f} MB"


def _of_norm(c: GPTConfig) -> int:
    """Numbers a token that a norm keeps beside its input: 1 / deviation, LayerNorm the mean too."""
    return 2 if c.norm == "layer" else 1


def _mlp_width(c: GPTConfig) -> int:
    if c.mlp_width is not None:
        return c.mlp_width
    return -(-8 * c.width // 24) * 8 if c.mlp == "swiglu" else 4 * c.width


def _place(name: str) -> str:
    """The part that a parameter belongs to."""
    if name.startswith("blocks."):
        return "attention" if name.split(".")[2] in ("norm1", "attention") else "mlp"
    return "embedding" if name.split(".")[0] in ("token", "position") else "head"


def _parameters(model: GPT) -> dict[str, int]:
    counts = dict.fromkeys(("embedding", "attention", "mlp", "head"), 0)
    for name, p in model.named_parameters():
        counts[_place(name)] += p.numel()
    return counts


def _flops(model: GPT, T: int) -> dict[str, float]:
    """The terms of `GPT.flops_per_token`: the products with weights, and what is left, the attention's scores."""
    c = model.config
    flops = {"embedding": 0.0, "attention": 0.0, "mlp": 0.0, "head": 6.0 * model.head_weight.numel()}
    for name, p in model.blocks.named_parameters("blocks"):
        if p.ndim == 2:
            flops[_place(name)] += 6.0 * p.numel() * (c.experts_per_token / c.experts if ".experts." in name else 1)
    flops["attention"] += model.flops_per_token(T) - sum(flops.values())
    return flops
