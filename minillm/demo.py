"""`minillm demo`: train all four models on the embedded data, and write one page about them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .explain import Report
from .recipes import NAMES, recipe
from .recipes.base import Common, Outcome, describe
from .training import Run

FULL: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "vae": {"likelihood": "gaussian", "std": 0.12, "latent_dim": 10, "epochs": 150},
    "attention": {"epochs": 30},
    "gpt": {"steps": 500, "lr": 2e-3, "every": 125},
}
QUICK: dict[str, dict[str, Any]] = {
    "autoencoder": {"epochs": 20},
    "vae": {"epochs": 15},
    "attention": {"epochs": 12},
    "gpt": {"steps": 100, "every": 50, "layers": 2, "width": 64, "context": 32},
}

INTRO = {
    "autoencoder": "Squeezes its input through a few numbers and restores it. What survives is what they can carry.",
    "vae": "Gives every input a cloud of codes, so that new codes can be drawn and decoded to things never seen.",
    "attention": "Reads an image row by row, decides which rows matter, and names the digit.",
    "gpt": "Reads text and predicts the next character; fed its own predictions, it writes.",
}  # fmt: skip


def run_demo(out: str | Path, quick: bool, common: Common) -> tuple[list[Outcome], Path, float]:
    """Train, save every run in a folder of its own, write report.html. Returns the outcomes, the page, the seconds.

    Ctrl-C ends the training in progress and skips the rest; the page shows what there is.
    """
    started = time.perf_counter()
    folder = Run(out).folder  # before the work: an --out that cannot be written should not cost two minutes
    outcomes: list[Outcome] = []
    for name in NAMES:
        module = recipe(name)
        settings = module.Settings(**(QUICK if quick else FULL)[name])
        outcomes.append(module.train(settings, common))
        save(outcomes[-1], folder / name, common, settings)
        if outcomes[-1].history.interrupted:
            break
    seconds = time.perf_counter() - started
    report = Report(
        "minillm demo", f"{len(outcomes)} models trained from nothing on this machine, in {seconds:.0f} seconds."
    )
    for outcome in outcomes:
        add_section(report, outcome)
    return outcomes, report.write(folder / "report.html"), seconds


def save(outcome: Outcome, folder: str | Path, common: Common, settings: Any) -> Run:
    """Write the run directory, all but its report."""
    run = Run(folder)
    config = describe(outcome.name, outcome.model.config, common, settings, outcome.extras)
    run.write_config(config.pop("model"), config.pop("config"), **config)
    run.write_history(outcome.history)
    run.write_results(outcome.results())
    run.write_weights(outcome.model)
    return run


def add_section(report: Report, outcome: Outcome) -> None:
    """One model: its figures beside their baselines, then its pictures."""
    count = outcome.model.num_parameters()
    seconds = outcome.history.last("seconds") or 0.0
    report.section(outcome.title, INTRO[outcome.name])
    stopped = " Stopped by Ctrl-C before it was done." if outcome.history.interrupted else ""
    report.text(
        f"Data: {outcome.data}. The model has {count:,} parameters and trained for {seconds:.0f} seconds.{stopped}"
    )
    if next(iter(outcome.model.parameters())).device == "cuda":
        from .cuda import memory

        report.text(f"GPU memory when this page was written: {memory()}.")
    report.metrics(outcome.metrics)
    outcome.draw(report)
