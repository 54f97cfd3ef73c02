"""Language models under a name: `GPT.preset("gpt2")`.

| name | what it is |
|---|---|
| tiny | trains in seconds, for a first look |
| nanogpt-cpu | nanoGPT's recipe for a laptop (Karpathy 2022) |
| nanogpt-baby | nanoGPT's character model for a GPU |
| gpt2 | GPT-2 of 124 million parameters (Radford et al. 2019) |
| llama-tiny | Llama's parts in small (Touvron et al. 2023, arXiv:2302.13971) |
| laptop | what `minillm train gpt` trains without flags: the parts of shakespeare-fast |
| shakespeare-fast, shakespeare-best | what learns fastest on a megabyte of characters and two cores |
"""

from __future__ import annotations

from typing import Any

from ..errors import nearest

# rotary positions, norms without biases, squared ReLU, normed queries and keys: Jordan et al. 2024, modded-nanogpt
_MODERN: dict[str, Any] = {
    "vocab_size": 65, "position": "rotary", "norm": "rms", "mlp": "relu2", "qk_norm": True, "bias": False,
    "softcap": 15.0, "tie": False, "zero_init": True,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"vocab_size": 256, "context": 64, "layers": 2, "heads": 2, "width": 64},
    "nanogpt-cpu": {"vocab_size": 65, "context": 64, "layers": 4, "heads": 4, "width": 128, "bias": False},
    "nanogpt-baby": {
        "vocab_size": 65, "context": 256, "layers": 6, "heads": 6, "width": 384, "bias": False, "dropout": 0.2,
    },
    "gpt2": {"vocab_size": 50257, "context": 1024, "layers": 12, "heads": 12, "width": 768, "mlp": "gelu_tanh"},
    "llama-tiny": {
        "vocab_size": 256, "context": 256, "layers": 4, "heads": 4, "kv_heads": 2, "width": 128, "bias": False,
        "position": "rotary", "norm": "rms", "mlp": "swiglu", "tie": False,
    },
    "laptop": {**_MODERN, "context": 256, "layers": 4, "heads": 4, "width": 128},
    "shakespeare-fast": {**_MODERN, "context": 256, "layers": 4, "heads": 4, "width": 128},
    "shakespeare-best": {**_MODERN, "context": 192, "layers": 5, "heads": 5, "width": 160},
}  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    """The settings of GPTConfig under that name; ValueError for another."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}.{nearest(name, PRESETS)}")
    return dict(PRESETS[name])
