"""What this project set out to reach, as data; `evaluate` holds a run's rows against it.

A target looks at the rows of our implementation in one suite whose case matches `cases` (a regular expression), takes
one number from each, and the worst of them must meet the bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Measure = Callable[[Row], float | None]  # None: the row says nothing about it

NUMPY_TORCH_JAX = ("numpy", "torch", "jax")


def faster_than(*rivals: str) -> Measure:
    """How many times as fast ours is as the fastest of the rivals."""

    def measure(row: Row) -> float | None:
        found = [row["ratios"][r] for r in rivals if r in row["ratios"]]
        return min(found) if found else None

    return measure


def time_of(*rivals: str) -> Measure:
    """Our time as a fraction of the fastest rival's."""

    def measure(row: Row) -> float | None:
        ratio = faster_than(*rivals)(row)
        return None if ratio is None else 1 / ratio

    return measure


def share(row: Row) -> float | None:
    return row["share_of_limit"]


def ns_per_element(row: Row) -> float | None:
    return row["median_s"] / row["elements"] * 1e9 if row["elements"] else None


def ulp(row: Row) -> float | None:
    return row.get("max_ulp")


@dataclass
class Target:
    work: str
    suite: str
    cases: str  # regular expression, searched for in the case's name
    measure: Measure
    sense: str  # ">=" or "<="
    bound: float
    unit: str  # "%", "x", or a word
    implementation: str = "minillm"
    total: bool = False  # over the sum of times, not the worst case; measure is time_of(...)


@dataclass
class Result:
    work: str
    target: str
    figure: str
    worst: str
    met: bool | None  # None: not run


STEP = ("torch", "torch.compile", "jax")

TARGETS: list[Target] = [
    Target("attention forward against torch", "attention", r"heads 8 |full|causal", faster_than("torch"), ">=", 2.0, "x"),
    Target("attention forward, full, T >= 1024", "attention", r"[(,](1024|4096),\d+\) full", share, ">=", 75, "% of peak"),
    Target("attention forward, causal, T >= 1024", "attention", r"[(,](1024|4096),\d+\) causal", share, ">=", 65,
           "% of peak"),
    Target("attention backward against torch", "attention_backward", "", faster_than("torch"), ">=", 2.5, "x"),
    Target("attention backward, full, T >= 1024", "attention_backward", r"[(,](1024|4096),\d+\) full", share, ">=", 65,
           "% of peak"),
]  # fmt: skip


def evaluate(rows: list[Row], targets: list[Target] | None = None) -> list[Result]:
    return [_evaluate(t, rows) for t in (TARGETS if targets is None else targets)]


def _evaluate(target: Target, rows: list[Row]) -> Result:
    text = f"{target.sense} {_show(target.bound, target.unit)}"
    mine = [r for r in rows if r["suite"] == target.suite and re.search(target.cases, r["case"])
            and r["implementation"] == target.implementation]  # fmt: skip
    if any(not r["equal"] for r in mine):
        wrong = next(r["case"] for r in mine if not r["equal"])
        return Result(target.work, text, "wrong", wrong, False)
    return Result(target.work, text, "-", "", None)


def _show(number: float, unit: str) -> str:
    return f"{number:.3g}{'' if unit[:1] in '%x' else ' '}{unit}"
