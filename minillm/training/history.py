"""What a training run measured: one row (a dict) per record, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .trace import Trace


class History:
    """Rows such as {"step": 10, "loss": 0.7, "validation_loss": 0.8, "seconds": 1.2}.

    >>> h = History(); h.append(step=1, loss=2.0); h.append(step=2, loss=1.5, validation_loss=1.6)
    >>> h.curve("validation_loss"), h.last("loss")
    ([(2, 1.6)], 1.5)
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.trace = Trace()  # of every step, where the training keeps one
        self.interrupted = False  # the user pressed Ctrl-C

    def append(self, **row: Any) -> None:
        self.rows.append(row)

    def curve(self, name: str, x: str = "step") -> list[tuple[float, float]]:
        """(x, value) of every row that has the value."""
        return [(row[x], row[name]) for row in self.rows if row.get(name) is not None]

    def last(self, name: str) -> float | None:
        """The latest value, or None."""
        return next((row[name] for row in reversed(self.rows) if row.get(name) is not None), None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)
