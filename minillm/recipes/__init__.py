"""What `minillm train` and `minillm demo` run, a file per model: data, model, training, baselines, pictures."""

from __future__ import annotations

import importlib
from typing import Any

NAMES = ("autoencoder", "vae", "attention", "gpt")


def recipe(name: str) -> Any:
    """The module of a recipe: its `Settings` and its `train(settings, common) -> Outcome`."""
    return importlib.import_module(f"{__name__}.{name}")
