"""A live line while training in a terminal; one plain line per record anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """Progress("VAE", total=100) as a context manager; `advance` each step, `show` what was measured.

    enabled False prints nothing at all.
    """

    def __init__(self, title: str, total: int, enabled: bool = True):
        self.title, self.total, self.enabled = title, total, enabled
        self.live: Any = None  # the bar, in a terminal
        self.printed = time.monotonic()  # the last line, elsewhere

    def __enter__(self) -> Progress:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = [
                TextColumn("{task.description}"),
                BarColumn(8),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
            ]
            self.live = Bar(*columns, TextColumn("left"), console=Console(stderr=True))  # fits in 80 columns
            self.live.start()
            self.task = self.live.add_task(self.title, total=self.total, values="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live is not None:
            self.live.stop()

    def advance(self) -> None:
        if self.live is not None:
            self.live.advance(self.task)

    def show(self, values: dict[str, Any], milestone: bool = True) -> None:
        """The newest figures: beside the bar, or as a line of their own at milestones and after five quiet seconds."""
        now = time.monotonic()
        if not self.enabled or (self.live is None and not milestone and now - self.printed < 5):
            return
        self.printed = now
        text = "  ".join(f"{k.removesuffix('_loss')} {_figure(v)}" for k, v in values.items() if v is not None)
        if self.live is not None:
            self.live.update(self.task, values=text)
        else:
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)


def _figure(v: Any) -> str:
    return f"{v:.4g}" if isinstance(v, float) else str(v)
