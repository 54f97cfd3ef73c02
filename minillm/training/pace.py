"""Figures of a training as it runs: the smoothed loss, tokens a second, the time that is left."""

from __future__ import annotations

import math
from collections import deque
from typing import Any


class Smoothed:
    """Mean of the values so far, each with `decay` of the weight of the next: about the latest 1 / (1 - decay).

        m = decay m + (1 - decay) x          value = m / (1 - decay^t): the first values count in full

    Values that are not finite are left out; `value` is NaN before the first that is.

    >>> mean = Smoothed(0.5)
    >>> [mean.update(x) for x in (4.0, 1.0, float("nan"))]
    [4.0, 2.0, 2.0]
    """

    def __init__(self, decay: float = 0.95):
        self.decay, self.mean, self.weight = decay, 0.0, 0.0

    def update(self, x: float) -> float:
        if math.isfinite(x):
            self.mean = self.decay * self.mean + (1 - self.decay) * x
            self.weight = self.decay * self.weight + (1 - self.decay)
        return self.value

    @property
    def value(self) -> float:
        return self.mean / self.weight if self.weight else math.nan


class Pace:
    """Fed with the loop's steps and rows, see training/observer.py.

    tokens_per_second  over the latest steps; those behind a measurement or a save are left out, as it is the pace of
                       training that is meant, unless there are no others. None: not known yet
    seconds_left       at this run's pace, measurements included. None: not known yet
    """

    def __init__(self, latest: int = 50):
        self.steps: deque[tuple[float, float]] = deque(maxlen=latest)  # (tokens, seconds)
        self.disturbed: tuple[float, float] | None = None  # the latest step that held a measurement
        self.seconds: float | None = None  # at the end of the latest step or measurement
        self.after_row = True
        self.start: tuple[float, float] | None = None  # (seconds, progress) after the first step of this run
        self.progress = 0.0

    def step(self, step: dict[str, Any]) -> None:
        now, progress = float(step["seconds"]), float(step["progress"])
        if self.seconds is not None and now > self.seconds:
            took = float(step["tokens"]), now - self.seconds
            if self.after_row:
                self.disturbed = took
            else:
                self.steps.append(took)
        self.after_row, self.seconds, self.progress = False, now, progress
        if self.start is None:
            self.start = now, progress

    def row(self, row: dict[str, Any]) -> None:
        self.after_row, self.seconds = True, float(row["seconds"])

    @property
    def tokens_per_second(self) -> float | None:
        steps = self.steps or ([self.disturbed] if self.disturbed else [])
        seconds = sum(s for _, s in steps)
        return sum(t for t, _ in steps) / seconds if seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        if self.progress >= 1:
            return 0.0
        if self.start is None or self.seconds is None:
            return None
        seconds, progress = self.seconds - self.start[0], self.progress - self.start[1]
        return (1 - self.progress) * seconds / progress if progress > 0 else None


def duration(seconds: float) -> str:
    """As people say it.

    >>> [duration(s) for s in (0.2, 59.6, 185, 3725, 200000, float("nan"))]
    ['0:00', '1:00', '3:05', '1:02:05', '2 d 7 h', '?']
    """
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole >= 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
