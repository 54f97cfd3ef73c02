"""How far a training is, when steps, minutes or both bound it."""

from __future__ import annotations

import math
import time


class Clock:
    """steps and minutes: None where there is no such bound. Pauses between runs that go on do not count."""

    def __init__(self, steps: int | None, minutes: float | None):
        bounds = [bound for bound in (steps, minutes) if bound is not None]
        if not bounds or min(bounds) <= 0 or max(bounds) == math.inf:
            raise ValueError(f"give steps of at least 1, or minutes above 0, or both; got {steps} and {minutes}")
        self.steps, self.minutes = steps, minutes
        self.before = 0.0  # seconds of earlier runs
        self.reserve = 0.0  # seconds that the end takes: those of the latest measurement and save
        self.step_seconds = 0.0  # of the latest step
        self.started = time.perf_counter()

    def start(self) -> None:
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def progress(self, step: int) -> float:
        """max(step / steps, seconds / those there are), at most 1: for schedules, 1 at the last step."""
        progress = step / self.steps if self.steps else 0.0
        if self.minutes:
            there_are = max(1e-9, 60 * self.minutes - self.reserve)
            progress = max(progress, (self.seconds() + self.step_seconds) / there_are)
        return min(1.0, progress)

    def total(self, step: int) -> float:
        """The steps there will be in all, at the pace so far; progress(step) = step / total."""
        progress = self.progress(step)
        return max(step, step / max(progress, 1e-9))

    def over(self, step: int) -> str:
        """Why there is no step after this one; "" if there is one."""
        if self.steps and step >= self.steps:
            return "done"
        if self.minutes and self.seconds() + self.step_seconds + self.reserve > 60 * self.minutes:
            return "minutes"
        return ""
