"""How the named models of models/presets.py are trained: `minillm train gpt --preset NAME`. Flags that are given win.

| name | source |
|---|---|
| nanogpt-cpu, nanogpt-baby | nanoGPT's recipes for Shakespeare's characters (Karpathy 2022) |
| laptop, shakespeare-fast, -best | Muon and the parts of modded-nanogpt (Jordan et al. 2024) |
"""

from __future__ import annotations

from typing import Any

from ..models.presets import preset as model_preset

# Muon for the blocks' matrices, AdamW for embedding and head; constant for a third of the time, then down to zero
_MUON: dict[str, Any] = {
    "optimizer": "muon", "muon_lr": 0.02, "muon_momentum": 0.9, "lr": 0.015, "beta1": 0.9, "beta2": 0.95,
    "weight_decay": 0.0, "schedule": "stable", "stable": 0.35, "warmup": 20, "final_lr": 0.0, "clip_norm": 0.0,
    "precision": "auto",
}  # fmt: skip

TRAINING: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 500, "batch_size": 12, "lr": 2e-3, "warmup": 50},
    "nanogpt-cpu": {
        "steps": 2000, "batch_size": 12, "lr": 1e-3, "final_lr": 0.1, "schedule": "cosine", "warmup": 100,
        "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "clip_norm": 1.0, "precision": "auto",
    },
    "nanogpt-baby": {
        "steps": 5000, "batch_size": 64, "lr": 1e-3, "final_lr": 0.1, "schedule": "cosine", "warmup": 100,
        "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "clip_norm": 1.0,
    },
    "gpt2": {"batch_size": 4, "accumulation": 8, "lr": 6e-4, "beta2": 0.95, "checkpoint_blocks": True},
    "llama-tiny": {"steps": 2000, "batch_size": 16, "lr": 1e-3, "beta2": 0.95, "warmup": 100},
    "laptop": {**_MUON, "steps": 600, "batch_size": 8, "every": 150, "eval_windows": 60},
    "shakespeare-fast": {**_MUON, "steps": None, "minutes": 1.3, "batch_size": 8, "every": 400, "eval_windows": 60},
    "shakespeare-best": {  # decay keeps four passes over the text from learning it by heart: 1.495 without
        **_MUON, "weight_decay": 0.1, "steps": None, "minutes": 4.85, "batch_size": 8, "every": 500, "eval_windows": 60,
    },
}  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    """Settings of model and training under that name, all but the vocabulary; ValueError for another name."""
    model = model_preset(name)
    model.pop("vocab_size", None)
    return {**model, **TRAINING.get(name, {})}
