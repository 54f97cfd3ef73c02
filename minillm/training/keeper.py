"""A run directory that a training saves itself into, and goes on from."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from .history import History
from .loop import Loop
from .run import SAVES, WEIGHTS, Run, RunError
from .saves import Saves


class Keeper:
    """Keeper(folder, config): its `save` is for a Loop. Folder None: only the best state is kept, in memory.

    config  of the run, as config.json has it; each save holds it too
    """

    def __init__(self, folder: str | Path | None, config: dict[str, Any]):
        self.config, self.begun = config, False
        self.run = None if folder is None else Run(folder)
        self.saves = None if self.run is None else Saves(self.run.folder / SAVES)
        self.in_memory: Any = None

    def locked(self) -> AbstractContextManager[None]:
        """While no other process may train this run."""
        return nullcontext() if self.saves is None else self.saves.lock()

    def refuse_unfinished(self) -> None:
        """RunError where the folder holds a run that was cut off: a new one would remove what it learned."""
        if self.run is None or self.saves is None or (self.run.folder / WEIGHTS).exists():
            return
        step = max([int(name.rsplit("-", 1)[1]) for name in self.saves.names()], default=0)
        if step:
            raise RunError(
                f"{self.run.folder} holds a run that was cut off at step {step}: `minillm train gpt --resume "
                f"{self.run.folder}` goes on with it; to begin anew give another --out, or remove the folder"
            )

    def save(self, step: int, state: dict[str, Any], is_best: bool) -> None:
        if self.run is None or self.saves is None:
            self.in_memory = state if is_best else self.in_memory
            return
        name = self.saves.write(step, {"config": self.config, "loop": state}, is_best, prune=self.begun)
        history, first = History(), not self.begun
        history.rows = state["rows"]
        self.begin(history)
        if first:  # those of an earlier run, which the folder belonged to until now
            self.saves.remove_others({name, self.saves.best})

    def begin(self, history: History) -> None:
        """From now on the folder is this run's."""
        assert self.run is not None
        if not self.begun:
            self.run.begin(self.config)
            self.begun = True
        self.run.write_history(history)

    def go_on(self, loop: Loop, state: dict[str, Any], name: str) -> None:
        """Put the loop where the save of that name left it."""
        assert self.run is not None and self.saves is not None
        where = self.saves.folder / name
        try:
            loop.load_state_dict(state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            why = " ".join(str(error).split())
            raise RunError(f"{where} does not fit the training of its own config: {why}") from error
        reason = loop.clock.over(loop.step)
        if reason and (self.run.folder / WEIGHTS).exists():
            limit = f"{loop.clock.steps} steps" if reason == "done" else f"{loop.clock.minutes:g} minutes"
            raise RunError(f"{self.run.folder} has done its {limit}: to go on give more, --steps or --minutes in all")
        self.saves.read(name)  # which one is the best
        self.begin(loop.history)

    def best_state(self) -> dict[str, Any] | None:
        """The loop's state where the validation loss was lowest."""
        if self.saves is None:
            return self.in_memory
        return self.saves.read(self.saves.best)["loop"] if self.saves.best else None
