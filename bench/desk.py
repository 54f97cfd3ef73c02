"""What a worker does when asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import rivals, timing
from .case import Case, Options
from .flush import flusher
from .prepared import Local


class Desk:
    """Holds the case at hand and what was made ready of it."""

    def __init__(self, load: Callable[[str], Any], begin: dict[str, Any]):
        chosen = begin["options"]  # JSON knows neither tuples nor sets
        shapes = [tuple(shape) for shape in chosen["shapes"]]
        self.options = Options(**chosen | {"shapes": shapes, "rivals": frozenset(chosen["rivals"])})
        self.folder, self.load, self.files = begin["folder"], load, 0
        self.flush = flusher() if begin["cold"] else None
        self.suite = ""
        self.cases: Iterator[Case] = iter(())
        self.case: Case | None = None
        self.ready: dict[str, Local] = {}  # by implementation

    def ask(self, do: str, suite: str, case: str, name: str, **arguments: Any) -> Any:
        if self.case is None or (self.suite, self.case.name) != (suite, case):
            self.case, self.ready = None, {}
            self.case = self._find(suite, case)
        with rivals.threads(self.case.threads):
            if do == "make":
                self.ready.pop(name, None)
                self.ready[name] = Local(self.case, self.case.rivals[name], self.flush)
                return None
            if name not in self.ready:
                raise LookupError(f"{name} is not ready: its process had to be started again")
            result = getattr(self.ready[name], do)(**arguments)
        if do.startswith("outputs"):
            return [self._write(array) for array in result]
        timing.settle()  # the next block is another process's
        return result

    def _find(self, suite: str, name: str) -> Case:
        """Walk on to that case; once from the start if it does not come."""
        if suite != self.suite:
            self.cases = iter(())
        self.suite = suite
        for _ in range(2):
            for case in self.cases:
                if case.name == name:
                    return case
            self.cases = iter(self.load(suite).cases(self.options))
        raise LookupError(f"suite {suite} has no case {name!r} in this process")

    def _write(self, array: np.ndarray | None) -> str | None:
        if array is None:
            return None
        self.files += 1
        name = f"{self.files}.npy"
        np.save(os.path.join(self.folder, name), array, allow_pickle=False)
        return name
