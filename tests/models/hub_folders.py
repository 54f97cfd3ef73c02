"""Small models with no weight at its initial value, folders of them, and the bytes of a folder."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from minillm.models import GPT

GPT2 = {"vocab_size": 37, "context": 24, "layers": 2, "heads": 3, "width": 24, "mlp": "gelu_tanh"}
LLAMA = {
    "vocab_size": 37, "context": 24, "layers": 2, "heads": 6, "kv_heads": 2, "head_dim": 4, "width": 24, "bias": False,
    "position": "rotary", "norm": "rms", "mlp": "swiglu", "mlp_width": 40, "tie": False,
}  # fmt: skip


def made(seed: int = 0, **settings) -> GPT:
    rng, model = np.random.default_rng(seed), GPT(**settings)
    for name, p in model.named_parameters():
        p.data[...] = 0.2 * rng.normal(size=p.shape) + (p.ndim == 1 and name.endswith("weight"))  # norms: about 1
    return model.eval()


def ids_for(model: GPT, seed: int = 0, rows: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (rows, model.config.context))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def edit_json(path: Path, **values) -> None:
    """Change fields of a JSON file; a field with the value `...` is removed."""
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not ...}))


def header_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_tensors(path: Path, header: dict | bytes, data: bytes, length: int | None = None) -> None:
    """A safetensors file as it is told to be, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
