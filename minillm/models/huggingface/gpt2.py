"""GPT-2 (Radford et al. 2019) in Hugging Face's form.

Its matrices are those of a `Conv1D`, y = x W + b: (in, out), the transpose of a Linear's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..gpt import GPTConfig
from .entry import Entry
from .errors import HubError
from .fields import Fields

PREFIX = "transformer."  # of the names, all but the head's; files of the model without a head lack it
IGNORED = (".attn.bias", ".attn.masked_bias")  # masks that older files keep beside the weights
ACTIVATIONS = {  # three names of the same formula come first
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu": "gelu",
    "relu2": "relu2",
}  # fmt: skip


def read_config(f: Fields) -> GPTConfig:
    """The settings that a config.json of GPT-2 describes; HubError for those that GPT does not have."""
    f.only("scale_attn_weights", True, "scores are always scaled here")
    f.only("scale_attn_by_inverse_layer_idx", False, "scores are not scaled by layer here")
    f.only("add_cross_attention", False, "there is no encoder here")
    drops = {name: f.share(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(set(drops.values())) > 1:
        given = ", ".join(f"{name} {value:g}" for name, value in drops.items())
        raise HubError(f"{f.where}: one dropout is possible here, for all three: got {given}; write one number for all")
    return GPTConfig(
        vocab_size=f.integer("vocab_size", 50257),
        context=f.integer("n_positions", 1024),
        layers=f.integer("n_layer", 12),
        heads=f.integer("n_head", 12),
        width=f.integer("n_embd", 768),
        mlp_width=f.integer("n_inner", 4 * f.integer("n_embd", 768)),
        dropout=drops["resid_pdrop"],
        norm_eps=f.number("layer_norm_epsilon", 1e-5, most=1),
        mlp=f.choice("activation_function", "gelu_new", ACTIVATIONS),
        tie=f.flag("tie_word_embeddings", True),
    )


def lacks(c: GPTConfig) -> list[str]:
    """The settings of c that GPT-2 does not have."""
    wanted = {
        "position": c.position == "learned", "norm": c.norm == "layer", "mlp": c.mlp in ACTIVATIONS.values(),
        "kv_heads": c.kv_heads in (None, c.heads), "head_dim": c.head_dim in (None, c.width // c.heads),
    }  # fmt: skip
    return [f"{name}={getattr(c, name)!r}" for name, fine in wanted.items() if not fine]


def write_config(c: GPTConfig) -> dict[str, Any]:
    """config.json of a GPT for which `lacks` is empty."""
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": c.vocab_size,
        "n_positions": c.context,
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.mlp_width,
        "activation_function": names[c.mlp],
        "resid_pdrop": c.dropout,
        "embd_pdrop": c.dropout,
        "attn_pdrop": c.dropout,
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": c.tie,
    }


def entries(c: GPTConfig, prefix: str = PREFIX) -> Iterator[Entry]:
    """Every weight. GPT-2 has all biases."""
    C, F = c.width, 4 * c.width if c.mlp_width is None else c.mlp_width
    yield Entry("token.weight", None, f"{prefix}wte.weight", (c.vocab_size, C))
    yield Entry("position.weight", None, f"{prefix}wpe.weight", (c.context, C))
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.", f"{prefix}h.{i}."
        yield from _pair(ours + "norm1", theirs + "ln_1", C)
        yield from _pair(ours + "attention.in_proj", theirs + "attn.c_attn", 3 * C, C, "_")
        yield from _pair(ours + "attention.out_proj", theirs + "attn.c_proj", C, C)
        yield from _pair(ours + "norm2", theirs + "ln_2", C)
        yield from _pair(ours + "mlp.0", theirs + "mlp.c_fc", F, C)
        yield from _pair(ours + "mlp.2", theirs + "mlp.c_proj", C, F)
    yield from _pair("norm", f"{prefix}ln_f", C)
    if not c.tie:
        yield Entry("head.weight", None, "lm_head.weight", (c.vocab_size, C))


def _pair(ours: str, theirs: str, out: int, into: int | None = None, dot: str = ".") -> Iterator[Entry]:
    """Weight and bias of a linear layer (out, into), or of a norm (out,)."""
    shape = (out,) if into is None else (into, out)
    yield Entry(f"{ours}{dot}weight", None, f"{theirs}.weight", shape, into is not None)
    yield Entry(f"{ours}{dot}bias", None, f"{theirs}.bias", (out,))
