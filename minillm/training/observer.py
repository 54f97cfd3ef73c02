"""Who watches a training: a display, a test, a notebook. All methods may do nothing."""

from __future__ import annotations

from typing import Any, Protocol


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
