"""What the recipes share: settings that become command-line flags, and what a finished training hands to the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from .. import explain, nn
from ..data import DataError, Dataset, load
from ..explain import Metric, Report
from ..training import History


def setting(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field with the text that `--help` shows for its flag."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Common:
    """Where and how: the same for every recipe."""

    data: str | None = None  # a path or the name of an embedded set
    seed: int = 0
    device: str = "cpu"
    progress: bool = True
    out: str | None = None  # the run directory, for a recipe that saves itself while it trains
    resume: bool = False  # go on from what is there
    observer: Any = None  # who watches, see training/observer.py; None: lines, if progress


@dataclass
class Outcome:
    """A trained model and everything to say about it."""

    name: str  # "vae"
    title: str  # "Variational autoencoder"
    model: nn.Module
    history: History
    data: str  # one line about the data
    metrics: list[Metric]
    draw: Callable[[Report], None]  # adds its pictures to a section of the report
    extras: dict[str, Any] = field(default_factory=dict)  # more for config.json: the tokenizer

    @property
    def config(self) -> dict[str, Any]:
        return asdict(self.model.config)  # type: ignore[call-overload]

    def results(self) -> dict[str, Any]:
        """Figures for programs (`--json`)."""
        return {
            "model": self.name,
            "parameters": self.model.num_parameters(),
            "interrupted": self.history.interrupted,
            "seconds": self.history.last("seconds"),
            "metrics": [asdict(m) for m in self.metrics],
        }


def describe(name: str, model_config: Any, common: Common, settings: Any, extras: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a run."""
    kept = {"data": common.data, "seed": common.seed, "settings": dict(vars(settings))}
    return {"model": name, "config": asdict(model_config), **kept, **extras}


def image_data(source: str | None) -> tuple[Dataset, Dataset]:
    """Training and test images; a table is split 80/20 and scaled to [0, 1] by the training rows."""
    data = load(source)
    if data.kind == "images":
        return data, load(source, split="test")
    if data.kind == "table":
        if len(data.inputs) < 2:
            raise DataError(f"{source!r} has one row: a table needs at least two, to train on and to test")
        order = np.random.default_rng(0).permutation(len(data.inputs))
        cut = max(1, len(order) * 4 // 5)
        parts = [order[:cut], order[cut:]]
        low, high = data.inputs[parts[0]].min(0), data.inputs[parts[0]].max(0)
        scaled = np.clip((data.inputs - low) / np.maximum(high - low, 1e-12), 0, 1).astype(np.float32)
        train, test = (_rows(data, scaled, p) for p in parts)
        return train, test
    raise DataError(
        f"{source!r} is text; this model needs images (an MNIST folder, 'digits') or a table of numbers (CSV, TSV)"
    )


def _rows(data: Dataset, inputs: Any, rows: Any) -> Dataset:
    return replace(data, inputs=inputs[rows], labels=None if data.labels is None else data.labels[rows])


def words(data: Dataset) -> tuple[str, str]:
    """What to call an example, in the plural, and one of its numbers."""
    return ("images", "pixel") if data.kind == "images" else ("rows", "column")


def draw_losses(
    report: Report, curves: dict, caption: str, alt: str, baselines: dict | None = None, **labels: str
) -> None:
    """The loss curves that have a point: a training that was stopped early may have none."""
    drawn = {name: points for name, points in curves.items() if any(np.isfinite(y) for _, y in points)}
    if drawn:
        report.figure(explain.loss_curves(drawn, baselines, **labels), caption, alt)


def in_batches(function: Callable[[Any], Any], x: Any, size: int = 1000) -> np.ndarray:
    """function over slices of x, results joined: bounded memory for large test sets."""
    return np.concatenate([function(x[i : i + size]) for i in range(0, len(x), size)])
