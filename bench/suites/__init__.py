"""The suites: a module each, with

    TITLE      one line for --help and the report
    SHAPE      what the numbers of --shapes mean, or () where there is nothing to choose
    cases(options) -> iterator of Case         or, for `limits`, rows(session)
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "limits", "matmul", "linear", "attention", "attention_backward", "decode", "norms", "softmax", "cross_entropy",
    "activations", "embedding", "adamw", "engine", "gpt_step", "vae_step", "generate",
    "ladder",
)  # fmt: skip


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
