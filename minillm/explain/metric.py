"""One measured figure beside what it must beat and what it cannot beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

from minillm.explain.markup import escape
from minillm.explain.style import format_value


@dataclass(frozen=True)
class Metric:
    """A figure of a model, its trivial baseline and its floor.

    baseline: what a method without learning reaches (the mean image, guessing the commonest class).
    floor: the best that any model could reach (the entropy of the data, 100 % accuracy), or an estimate of it.
    Either may be None where there is none.
    """

    name: str
    value: float
    unit: str = ""
    baseline: float | None = None
    baseline_name: str = "baseline"
    floor: float | None = None
    floor_name: str = "floor"
    better: str = "lower"  # or "higher"
    floor_is_bound: bool = True  # False: a strong simple method (PCA, counts), which a good model may well pass

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"Metric {self.name!r}: better is {self.better!r}, expected 'lower' or 'higher'")

    def gain(self, over: float) -> float:
        """How far the value is on the better side of `over`, in the metric's own unit."""
        return over - self.value if self.better == "lower" else self.value - over

    @property
    def outcome(self) -> str:
        """One of "better", "worse", "same" (than the baseline), "none" (no baseline), "broken" (not finite)."""
        if not math.isfinite(self.value):
            return "broken"
        if self.baseline is None:
            return "none"
        gain = self.gain(self.baseline)
        return "better" if gain > 0 else "worse" if gain < 0 else "same"

    @property
    def verdict(self) -> str:
        """The outcome as a sentence."""
        if self.outcome == "broken":
            return "Not a finite number: the run diverged."
        parts = []
        if self.baseline is not None:
            if self.outcome == "same":
                parts.append(f"No better than {self.baseline_name}")
            else:
                by = format_value(abs(self.gain(self.baseline)))
                unit = "points" if self.unit == "%" else self.unit
                parts.append(f"{self.outcome.capitalize()} than {self.baseline_name} by {by} {unit}".rstrip())
        if self.floor is not None and math.isfinite(self.floor):
            if self.gain(self.floor) > 0:
                if self.floor_is_bound:
                    parts.append(f"past {self.floor_name}: that floor is only an estimate, or the evaluation is wrong")
                else:
                    parts.append(f"better than {self.floor_name}, too")
            elif self.baseline is not None and self.outcome == "better":
                way = self.gain(self.baseline) / abs(self.floor - self.baseline)
                parts.append(f"{100 * way:.0f} % of the way to {self.floor_name}")
        text = "; ".join(parts)
        return text[:1].upper() + text[1:] + "." if text else ""

    def bars(self) -> list[tuple[str, str, float]]:
        """(kind, name, value) for every figure there is; kind is "value", "baseline" or "floor"."""
        bars = [("value", "this model", self.value)]
        if self.baseline is not None:
            bars.append(("baseline", self.baseline_name, self.baseline))
        if self.floor is not None:
            bars.append(("floor", self.floor_name, self.floor))
        return bars


MARKS = {"better": "✓", "worse": "✗", "same": "=", "none": "", "broken": "✗"}


def card(metric: Metric) -> str:
    """The metric as an HTML list item: the figure, the verdict, and bars drawn from zero on one scale."""
    unit = f' <span class="unit">{escape(metric.unit)}</span>' if metric.unit else ""
    bars = metric.bars()
    finite = [value for _, _, value in bars if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    span = (high - low) or 1.0
    lines = []
    for kind, name, value in bars:
        start, width = 0.0, 0.0
        if math.isfinite(value):
            start, width = 100 * (min(value, 0.0) - low) / span, 100 * abs(value) / span
        lines.append(
            f'<div class="bar {kind}"><dt>{escape(name)}</dt><dd><span>{escape(format_value(value))}</span>'
            f'<span class="track" aria-hidden="true"><span style="margin-left:{start:.2f}%;width:{width:.2f}%">'
            "</span></span></dd></div>"
        )
    mark = MARKS[metric.outcome]
    sign = f'<span class="mark" aria-hidden="true">{mark}</span> ' if mark else ""
    verdict = f'<p class="verdict">{sign}{escape(metric.verdict)}</p>' if metric.verdict else ""
    return (
        f'<li class="metric {metric.outcome}"><p class="metric-name">{escape(metric.name)} '
        f'<span class="direction">{metric.better} is better</span></p>'
        f'<p class="metric-value">{escape(format_value(metric.value))}{unit}</p>{verdict}'
        f'<dl class="bars">{"".join(lines)}</dl></li>'
    )
