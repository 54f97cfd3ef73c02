"""LoRA adapters on disk: a folder of two small files, to be put on the same base model anywhere.

adapter.json          {"format": "minillm-lora", "rank": r, "alpha": alpha, "weights": [names of the adapted weights]}
adapter.safetensors   NAME.A (r, in) and NAME.B (out, r) of each
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..device import to_numpy
from ..nn.loading import fit
from ..nn.module import Module
from ..recording import no_grad
from .lora import LoRA
from .run import Run, RunError, to_json

FORMAT = "minillm-lora"


def save_lora(lora: LoRA, folder: str | Path) -> None:
    """Write the adapters, without the base model, into `folder` (made if it does not exist)."""
    from safetensors.numpy import save

    state = {
        f"{name}.{part}": np.array(to_numpy(p.data), order="C")
        for name, adapter in lora.adapters.items()
        for part, p in adapter.named_parameters()
    }
    settings = {"format": FORMAT, "rank": lora.rank, "alpha": lora.alpha, "weights": list(lora.adapters)}
    run = Run(folder)
    run._write("adapter.safetensors", save(state))
    run._write("adapter.json", to_json(settings, indent=2) + "\n")


def load_lora(model: Module, folder: str | Path) -> LoRA:
    """Put saved adapters on `model`, the base they were trained on. RunError, and the model unchanged, where a file
    cannot be read or does not fit the model."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    settings, path = _settings(Path(folder)), Path(folder) / "adapter.safetensors"
    try:
        state = load_file(path)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not a readable safetensors file ({error})") from error
    names = settings["weights"]
    expected = {f"{name}.{part}" for name in names for part in "AB"}
    if expected != set(state):
        odd = sorted(expected ^ set(state))[0]
        raise RunError(f"{path} and adapter.json do not belong together: {odd!r} is in only one of them")
    here = {n for n, p in model.named_parameters() if p.ndim == 2}
    if lost := [n for n in names if n not in here]:
        raise RunError(
            f"{folder} does not fit this {type(model).__name__}: it has no matrix {lost[0]!r}; load the base model "
            "that the adapters were trained on"
        )
    lora = LoRA(model, names, settings["rank"], settings["alpha"])
    problems, writes = [], []
    for name, adapter in lora.adapters.items():
        for part, p in adapter.named_parameters():
            array, problem = fit(state[f"{name}.{part}"], p)
            problems += [f"{name}.{part}: {problem}"] if problem else []
            writes.append((p, array))
    if problems:
        lora.remove()
        raise RunError(f"{path} does not fit this {type(model).__name__}: {problems[0]}")
    with no_grad():
        for p, array in writes:
            p.copy_(type(p)(array).to(p.device))
    return lora


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "adapter.json"
    if not path.exists():
        raise RunError(f"{folder} holds no adapters: there is no {path.name} in it. save_lora(lora, folder) writes one")
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise RunError(f'{path} does not describe adapters: expected "format": "{FORMAT}", as save_lora writes it')
    rank, alpha, weights = [settings.get(k) for k in ("rank", "alpha", "weights")]
    if not isinstance(rank, int) or rank < 1:
        raise RunError(f"{path}: expected rank, an integer from 1; got {rank!r}")
    if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise RunError(f"{path}: expected alpha, a number above 0; got {alpha!r}")
    if not isinstance(weights, list) or not weights or not all(isinstance(n, str) for n in weights):
        raise RunError(f"{path}: expected weights, a list of names; got {str(weights)[:60]}")
    return settings
