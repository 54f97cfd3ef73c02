"""Llama (Touvron et al. 2023, arXiv:2302.13971; Dubey et al. 2024, arXiv:2407.21783) in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..gpt import GPTConfig, head_dim
from ..saved import MOST_TOKENS
from .entry import Entry
from .errors import HubError
from .fields import Fields

PREFIX = "model."  # of the names, all but the head's
IGNORED = (".rotary_emb.inv_freq",)  # angles that older files keep beside the weights
KINDS = ("default", "linear", "llama3")  # of scaled rotary positions
SLOW_ALL = (1e9, 2e9)  # turns within the context that no wave has: so Llama 3's scaling slows down all of them


def read_config(f: Fields) -> GPTConfig:
    """The settings that a config.json of Llama describes; HubError for those that GPT does not have."""
    f.choice("hidden_act", "silu", {"silu": None, "swish": None})
    f.only("attention_dropout", 0.0, "dropout of attention weights alone is not possible here; write 0.0")
    bias = f.flag("attention_bias", False)
    if bias != f.flag("mlp_bias", False):
        raise HubError(
            f"{f.where}: attention_bias and mlp_bias must be equal: here all linear layers have biases or none"
        )
    width, heads = f.integer("hidden_size", 4096), f.integer("num_attention_heads", 32)
    context = f.integer("max_position_embeddings", 2048, most=MOST_TOKENS)
    base, scaling = _rotary(f, context)
    if "head_dim" not in f.values and width % heads:
        raise HubError(f"{f.where}: hidden_size {width} must be a multiple of num_attention_heads {heads}")
    return GPTConfig(
        vocab_size=f.integer("vocab_size", 32000),
        context=context,
        layers=f.integer("num_hidden_layers", 32),
        heads=heads,
        width=width,
        bias=bias,
        kv_heads=f.integer("num_key_value_heads", heads),
        head_dim=f.integer("head_dim", max(1, width // heads)),
        position="rotary",
        rotary_base=base,
        rotary_scaling=scaling,
        norm="rms",
        norm_eps=f.number("rms_norm_eps", 1e-6, most=1),
        mlp="swiglu",
        mlp_width=f.integer("intermediate_size", 11008),
        tie=f.flag("tie_word_embeddings", False),
    )


def _rotary(f: Fields, context: int) -> tuple[float, tuple[float, float, float, int] | None]:
    """(base, scaling): from rope_parameters, or from rope_theta and rope_scaling of older files."""
    new, old = f.inner("rope_parameters"), f.inner("rope_scaling")
    r = new if new.values else old
    base = (r if "rope_theta" in r.values else f).number("rope_theta", 10000.0)
    r.only("partial_rotary_factor", 1.0, "all of a head is turned here")
    kind = r.choice("rope_type" if "rope_type" in r.values else "type", "default", {k: k for k in KINDS})
    if kind == "default":
        return base, None
    factor = r.number("factor")
    if kind == "linear":
        return base, (factor, *SLOW_ALL, context)
    low, high = r.number("low_freq_factor"), r.number("high_freq_factor")
    if not low < high:
        raise r.wrong("high_freq_factor", f"above low_freq_factor, {low:g}", high)
    return base, (factor, low, high, r.integer("original_max_position_embeddings", most=MOST_TOKENS))


def lacks(c: GPTConfig) -> list[str]:
    """The settings of c that Llama does not have."""
    wanted = {"position": c.position == "rotary", "norm": c.norm == "rms", "mlp": c.mlp == "swiglu"}
    return [f"{name}={getattr(c, name)!r}" for name, fine in wanted.items() if not fine]


def write_config(c: GPTConfig) -> dict[str, Any]:
    """config.json of a GPT for which `lacks` is empty. It has no dropout."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.heads if c.kv_heads is None else c.kv_heads,
        "head_dim": head_dim(c),
        "hidden_size": c.width,
        "intermediate_size": _hidden(c),
        "hidden_act": "silu",
        "attention_bias": c.bias,
        "mlp_bias": c.bias,
        "attention_dropout": 0.0,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rotary_base,
        "rope_scaling": _scaling(c),
        "tie_word_embeddings": c.tie,
    }


def _scaling(c: GPTConfig) -> dict[str, Any] | None:
    if c.rotary_scaling is None:
        return None
    factor, low, high, original = c.rotary_scaling
    if (low, high) == SLOW_ALL:
        return {"rope_type": "linear", "factor": factor}
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }  # fmt: skip


def entries(c: GPTConfig, prefix: str = PREFIX) -> Iterator[Entry]:
    """Every weight."""
    C, F, D = c.width, _hidden(c), head_dim(c)
    Q, KV = c.heads * D, (c.heads if c.kv_heads is None else c.kv_heads) * D
    rows = {"q_proj": (0, Q), "k_proj": (Q, Q + KV), "v_proj": (Q + KV, Q + 2 * KV)}
    yield Entry("token.weight", None, f"{prefix}embed_tokens.weight", (c.vocab_size, C))
    for i in range(c.layers):
        ours, theirs = f"blocks.{i}.", f"{prefix}layers.{i}."
        yield Entry(ours + "norm1.weight", None, theirs + "input_layernorm.weight", (C,))
        for name, (first, end) in rows.items():
            at = ours + "attention.in_proj_", theirs + f"self_attn.{name}."
            yield Entry(at[0] + "weight", (first, end), at[1] + "weight", (end - first, C))
            if c.bias:
                yield Entry(at[0] + "bias", (first, end), at[1] + "bias", (end - first,))
        yield from _linear(ours + "attention.out_proj", theirs + "self_attn.o_proj", C, Q, c.bias)
        yield Entry(ours + "norm2.weight", None, theirs + "post_attention_layernorm.weight", (C,))
        for name, out, into in (("gate", F, C), ("up", F, C), ("down", C, F)):
            yield from _linear(f"{ours}mlp.{name}", f"{theirs}mlp.{name}_proj", out, into, c.bias)
    yield Entry("norm.weight", None, f"{prefix}norm.weight", (C,))
    if not c.tie:
        yield Entry("head.weight", None, "lm_head.weight", (c.vocab_size, C))


def _linear(ours: str, theirs: str, out: int, into: int, bias: bool) -> Iterator[Entry]:
    yield Entry(f"{ours}.weight", None, f"{theirs}.weight", (out, into))
    if bias:
        yield Entry(f"{ours}.bias", None, f"{theirs}.bias", (out,))


def _hidden(c: GPTConfig) -> int:
    return -(-8 * c.width // 24) * 8 if c.mlp_width is None else c.mlp_width  # as nn/feed_forward.py
