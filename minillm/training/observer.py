"""Who watches a training: a display, a test, a notebook. All methods may do nothing."""

from __future__ import annotations

from typing import Any, Protocol

from .progress import Progress


class Observer(Protocol):
    """Called by the loop, in this order; the dicts are copies, and keys may be added in time.

    on_start  {"title", "step", "steps" or None, "minutes" or None, "parameters", "tokens_per_step", "rows"}: step and
              rows (of the history) are those of the save, in a run that goes on
    on_step   {"step", "steps", "loss", "lr", "grad_norm", "tokens", "seconds", "progress"}: after every step. loss and
              grad_norm are those of the step, progress goes from 0 to 1, seconds from the start, pauses left out
    on_row    a row of the history: {"step", "seconds", "loss", "validation_loss", "sample", ...}
    on_end    {"step", "reason"}: "done", "minutes", "interrupted", "no better" (early stopping) or "failed"
    """

    def on_start(self, info: dict[str, Any]) -> None: ...

    def on_step(self, step: dict[str, Any]) -> None: ...

    def on_row(self, row: dict[str, Any]) -> None: ...

    def on_end(self, end: dict[str, Any]) -> None: ...


class Silent:
    """Watches and says nothing."""

    def on_start(self, info: dict[str, Any]) -> None: ...

    def on_step(self, step: dict[str, Any]) -> None: ...

    def on_row(self, row: dict[str, Any]) -> None: ...

    def on_end(self, end: dict[str, Any]) -> None: ...


class Lines:
    """A live line in a terminal, a plain line for each row anywhere else: see `Progress`."""

    def on_start(self, info: dict[str, Any]) -> None:
        self.steps, self.done = info["steps"], 0.0
        self.bar = Progress(info["title"], 1000)  # thousandths: a run may be cut by steps or by minutes
        self.bar.__enter__()
        self._advance(info["step"] / self.steps if self.steps else 0.0)

    def on_step(self, step: dict[str, Any]) -> None:
        self._advance(step["progress"])

    def on_row(self, row: dict[str, Any]) -> None:
        shown = {k: v for k, v in row.items() if isinstance(v, (int, float)) and k.endswith("loss")}
        self.bar.show({"step": f"{row['step']}/{self.steps}" if self.steps else row["step"], **shown})

    def on_end(self, end: dict[str, Any]) -> None:
        self.bar.__exit__()

    def _advance(self, progress: float) -> None:
        while self.done < min(progress, 1.0) - 1e-9:
            self.bar.advance()
            self.done += 1e-3
