"""Language models that train in a fraction of a second, for the tests of what happens to their runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from minillm.demo import save
from minillm.recipes import gpt
from minillm.recipes.base import Common

TINY = {
    "steps": 6, "every": 2, "context": 8, "layers": 1, "heads": 2, "width": 8, "batch_size": 3, "eval_windows": 4,
    "sample": 5,
}  # fmt: skip


class Crash(Exception):
    """The process ends here, as far as the run is concerned."""


class CrashAt:
    """An observer that ends the run after a step, before anything is measured or saved there."""

    def __init__(self, step: int):
        self.step = step

    def on_start(self, info):
        pass

    def on_row(self, row):
        pass

    def on_end(self, end):
        self.reason = end["reason"]

    def on_step(self, step):
        if step["step"] == self.step:
            raise Crash


def write_text(folder: Path) -> str:
    """A text of 9 different characters, in which some follow others more often."""
    rng = np.random.default_rng(0)
    path = folder / "text.txt"
    path.write_text("".join(rng.choice(["abc", "ab d", "ef\n", "g"], 1000)))
    return str(path)


def common(text: str, out: Path | None, **more) -> Common:
    return Common(text, seed=3, progress=False, out=None if out is None else str(out), **more)


def train(text: str, out: Path, observer=None, **settings):
    """As `minillm train gpt`, without the report."""
    chosen = gpt.Settings.of({**TINY, **settings})
    return run(chosen, common(text, out, observer=observer))


def resume(out: Path, text: str | None = None, observer=None, **given):
    settings, base = gpt.go_on(str(out), given, common(text, None))
    return run(settings, Common(**{**vars(base), "observer": observer}))


def run(settings, base):
    outcome = gpt.train(settings, base)
    save(outcome, base.out, base, settings)
    return outcome


def weights(out: Path) -> bytes:
    return (out / "weights.safetensors").read_bytes()


def rows(out: Path) -> list[dict]:
    """The history, without what depends on the machine's speed."""
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
