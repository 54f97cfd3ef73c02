"""What every step said, in little memory: means over equal stretches of steps, for curves of a long training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NAMES = ("step", "loss", "lr", "grad_norm")
MOST = 256  # points, an even number


class Trace:
    """Points are means over `stride` steps; when there are `MOST` of them, neighbours become one.

    >>> trace = Trace()
    >>> for step in range(1, 1001):
    ...     trace.add(step=step, loss=1 / step, lr=0.1, grad_norm=2.0)
    >>> len(trace.curve("loss")), trace.stride, trace.curve("lr")[0]
    (250, 4, (2.5, 0.1))
    """

    def __init__(self) -> None:
        self.stride = 1
        self.points: list[list[float]] = []
        self.begun: list[list[float]] = []  # the steps of the next point

    def add(self, **step: float) -> None:
        """The figures NAMES of a step; one that is not finite leaves the step out."""
        values = [float(step[name]) for name in NAMES]
        if not all(map(math.isfinite, values)):
            return
        self.begun.append(values)
        if len(self.begun) == self.stride:
            self.points.append(_mean(self.begun))
            self.begun = []
        if len(self.points) == MOST:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, MOST, 2)]
            self.stride *= 2

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of each point; what is left over at the end is one, too."""
        at = NAMES.index(name)
        return [(point[0], point[at]) for point in [*self.points, *([_mean(self.begun)] if self.begun else [])]]

    def state_dict(self) -> dict[str, Any]:
        return {"stride": self.stride, "points": [*map(list, self.points)], "begun": [*map(list, self.begun)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.stride = int(state["stride"])
        self.points, self.begun = ([[float(v) for v in row] for row in state[k]] for k in ("points", "begun"))


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows)]
