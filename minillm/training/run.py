"""A run directory: everything needed to look at a training run, and to use its model again.

config.json          which model, its settings, the data, the seed
metrics.jsonl        a JSON object a line: the rows of the history
weights.safetensors  the parameters, with a checksum
saves/               while it trains, and after: all that the run needs to go on, see saves.py (language models)
results.json         what the run reached, beside its baselines
report.html          the page to look at
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..durable import replace_file
from .history import History
from .saves import LARGEST, RunError, Saves

SAVES, WEIGHTS = "saves", "weights.safetensors"
FREE = ("steps", "minutes", "save_every")  # settings that may change when a run goes on


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
        self._write(WEIGHTS, save(state, {"sha256": digest(state)}))

    def begin(self, config: dict[str, Any]) -> None:
        """What was here belongs to an earlier run; from here on the folder holds this one, whose first save is there.

        In an order that leaves the one run or the other, if it ends midway.
        """
        try:
            (self.folder / WEIGHTS).unlink(missing_ok=True)
            self._write("config.json", to_json(config, indent=2) + "\n")
            for name in ("results.json", "report.html", "metrics.jsonl"):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder} cannot be written into: {error.strerror or error}") from error

    def _write(self, name: str, content: str | bytes) -> None:
        """A reader sees the old file or the new one."""
        target = self.folder / name
        try:
            replace_file(target, content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise RunError(f"{target} cannot be written: {error.strerror or error}") from error


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a run; RunError in one sentence if it is not one."""
    path = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        why = "it is a file; give the folder that holds it" if Path(folder).exists() else "there is no such folder"
        raise RunError(f"{folder} is not a run directory: {why}. `minillm train gpt --out DIR` makes one")
    if not path.exists():
        raise RunError(f"{folder} is not a run directory: it has no config.json")
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise ValueError("it is no file, or far too long")
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not JSON
        raise RunError(f"{path} is not readable JSON ({error})") from error
    return checked_config(config, path)


def checked_config(config: Any, path: Any) -> dict[str, Any]:
    """A config as it was read, if it has what every run's has."""
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("config"), dict)
        or not isinstance(config.get("model"), str)
    ):
        raise RunError(f'{path} is not a run\'s config: it needs "model", a name, and "config", its settings')
    return config


def same_run(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two configs are of one run: equal but for what may change when it goes on."""

    def fixed(config: dict[str, Any]) -> Any:
        settings = config.get("settings")
        kept = {k: v for k, v in settings.items() if k not in FREE} if isinstance(settings, dict) else settings
        return json.loads(to_json({**config, "settings": kept, "data": None}))

    return fixed(a) == fixed(b)


def newest_save(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(config, state of the loop, name) of a run's newest save. RunError where there is none, or only another run's."""
    saves, there = Saves(Path(folder) / SAVES), None
    names = saves.names()
    if not names or (Path(folder) / "config.json").exists():
        there = read_config(folder)
    if not names:
        raise RunError(f"{folder} has no saves to go on from; `minillm train gpt --out DIR` makes them")
    for name in reversed(names):
        state = saves.read(name)
        config = checked_config(state.get("config"), saves.folder / name)
        parts = loop.get("parts") if isinstance(loop := state.get("loop"), dict) else None
        arrays = parts.get("model") if isinstance(parts, dict) else None
        if not isinstance(arrays, dict) or not all(isinstance(a, np.ndarray) for a in arrays.values()):
            raise RunError(f"{saves.folder / name} is not the save of a language model's training")
        if there is None or same_run(config, there):
            return config, state["loop"], name
    if (Path(folder) / WEIGHTS).exists():
        raise RunError(f"{saves.folder} holds saves of another run than {folder}/config.json: remove one of the two")
    state = saves.read(names[-1])  # a run that was about to replace that of config.json
    return state["config"], state["loop"], names[-1]


def load_model(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained model of a run, in evaluation mode, and its config.json.

    Of a run that is still going on, or was cut off: the model of its newest save.
    """
    path = Path(folder) / WEIGHTS
    if not path.exists() and Saves(Path(folder) / SAVES).names():
        from ..recipes.gpt_model import restored

        config, loop, name = newest_save(folder)
        return restored(config, loop, f"{folder}/{SAVES}/{name}").eval(), config
    config = read_config(folder)
    if not path.exists():
        make_model(config, f"{folder}/config.json", None, "")
        raise RunError(f"{folder} has no {WEIGHTS}: the run did not get as far as saving")
    state = read_weights(path)
    numbers = sum(a.size for a in state.values())
    model = make_model(config, f"{folder}/config.json", numbers, str(path))
    load_weights(model, state, path)
    return model.eval(), config


def make_model(config: dict[str, Any], where: str, numbers: int | None, file: str) -> nn.Module:
    """A new model from a run's config, which `where` says; not one of more than `numbers` numbers, which `file` has."""
    from .. import models
    from ..models.common import from_dict
    from ..models.saved import check_size, check_types

    classes = {
        "autoencoder": (models.Autoencoder, models.AutoencoderConfig),
        "vae": (models.VAE, models.VAEConfig),
        "attention": (models.AttentionModel, models.AttentionModelConfig),
        "gpt": (models.GPT, models.GPTConfig),
    }
    if config["model"] not in classes:
        folder = where.removesuffix("/config.json")
        raise RunError(f"{folder}: no model {config['model']!r}; this version knows {', '.join(classes)}")
    cls, settings = classes[config["model"]]
    try:
        read = from_dict(settings, config["config"])
        check_types(settings, vars(read))
        if numbers is not None:
            check_size(config["model"], read, numbers, file)
        return cls.from_config(read)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RunError(f"{where} does not describe a model: {error}") from error


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file; RunError where it cannot be read, or a checksum in it does not fit."""
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file

    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with safe_open(path, "numpy") as f:
            about = f.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:
        raise RunError(f"{path} is not a readable safetensors file ({error})") from error
    if about.get("sha256", found := digest(state)) != found:
        raise RunError(f"{path} is damaged: its numbers are not those that were written (the checksum does not fit)")
    return state


def load_weights(model: nn.Module, state: dict[str, np.ndarray], path: Any) -> None:
    """Put arrays into the model; RunError where they do not fit."""
    try:
        for array in state.values():  # a model trained in float64 stays one
            model.to(array.dtype)
            break
        model.load_state_dict(state)
    except (TypeError, ValueError) as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise RunError(f"{path} does not fit the model of config.json: {problems[0]}{more}") from error


def digest(state: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and numbers, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        sha.update(f"{name} {array.dtype} {state[name].shape}\n".encode())
        sha.update(array.data if array.size else b"")
    return sha.hexdigest()
