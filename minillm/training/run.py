"""A run directory: everything needed to look at a training run, and to use its model again.

config.json          which model, its settings, the data, the seed
metrics.jsonl        a JSON object a line: the rows of the history
weights.safetensors  the parameters
results.json         what the run reached, beside its baselines
report.html          the page to look at
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from .history import History


class RunError(ValueError):
    """A run directory that cannot be read: which file, what is wrong, what to do."""


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: NaN and infinity, which JSON lacks, become null; NumPy numbers are numbers."""

    def plain(v: Any) -> Any:
        if isinstance(v, dict):
            return {str(k): plain(item) for k, item in v.items()}
        if isinstance(v, (list, tuple)):
            return [plain(item) for item in v]
        v = v.item() if isinstance(v, np.generic) else v
        return None if isinstance(v, float) and not math.isfinite(v) else v

    return json.dumps(plain(value), indent=indent, allow_nan=False)


class Run:
    """A directory to write a run into. Files are replaced whole, never half-written."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file; --out needs a directory (it is made if it does not exist)")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the run directory {self.folder} cannot be made: {error.strerror}") from error

    def write_config(self, model: str, config: dict[str, Any], **more: Any) -> None:
        self._write("config.json", to_json({"model": model, "config": config, **more}, indent=2) + "\n")

    def write_history(self, history: History) -> None:
        self._write("metrics.jsonl", "".join(to_json(row) + "\n" for row in history))

    def write_results(self, results: dict[str, Any]) -> None:
        self._write("results.json", to_json(results, indent=2) + "\n")

    def write_weights(self, model: nn.Module) -> None:
        from safetensors.numpy import save

        state = {k: np.array(v, order="C") for k, v in model.state_dict().items()}  # ascontiguousarray would lose 0-d
        self._write("weights.safetensors", save(state))

    def _write(self, name: str, content: str | bytes) -> None:
        """Write beside the target, then rename over it: a reader sees the old file or the new one."""
        target = self.folder / name
        temporary = target.with_name(f".{name}.{os.getpid()}.tmp")
        data = content.encode() if isinstance(content, str) else content
        try:
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, target)
        except OSError as error:
            raise RunError(f"{target} cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a run; RunError in one sentence if it is not one."""
    path = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        why = "it is a file; give the folder that holds it" if Path(folder).exists() else "there is no such folder"
        raise RunError(f"{folder} is not a run directory: {why}. `minillm train gpt --out DIR` makes one")
    if not path.exists():
        raise RunError(f"{folder} is not a run directory: it has no config.json")
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not JSON
        raise RunError(f"{path} is not readable JSON ({error})") from error
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("config"), dict)
        or not isinstance(config.get("model"), str)
    ):
        raise RunError(f'{path} is not a run\'s config: it needs "model", a name, and "config", its settings')
    return config


def load_model(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model of a run, in evaluation mode, and its config.json."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from .. import models

    config = read_config(folder)
    classes = {
        "autoencoder": models.Autoencoder,
        "vae": models.VAE,
        "attention": models.AttentionModel,
        "gpt": models.GPT,
    }
    if config["model"] not in classes:
        raise RunError(f"{folder}: no model {config['model']!r}; this version knows {', '.join(classes)}")
    path = Path(folder) / "weights.safetensors"
    if not path.exists():
        raise RunError(f"{folder} has no weights.safetensors: the run did not get as far as saving")
    try:
        model = classes[config["model"]].from_config(config["config"])  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise RunError(f"{folder}/config.json does not describe a model: {error}") from error
    try:
        state = load_file(path)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not a readable safetensors file ({error})") from error
    try:
        for array in state.values():  # a model trained in float64 stays one
            model.to(array.dtype)
            break
        model.load_state_dict(state)
    except (TypeError, ValueError) as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise RunError(f"{path} does not fit the model of config.json: {problems[0]}{more}") from error
    return model.eval(), config
