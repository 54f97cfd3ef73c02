"""What changed between two runs, beyond noise.

A change counts if the interquartile ranges do not overlap and the medians differ by more than `LEAST`: quartiles that
overlap are what the same code gives twice on a machine with neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LEAST = 0.03  # the machine's drift between minutes


@dataclass
class Change:
    suite: str
    case: str
    implementation: str
    before: float | None
    after: float | None
    verdict: str  # "faster", "slower", "same", "new", "gone", "now wrong", "now right"

    @property
    def ratio(self) -> float | None:
        """after / before: below 1 is faster."""
        return self.after / self.before if self.before and self.after else None


def changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[Change]:
    """One Change for each row of either run, those of the new run first."""
    before, after = ({_key(row): row for row in rows} for rows in (old, new))
    suites = {row["suite"] for row in new}
    found = [_change(key, before.get(key), row) for key, row in after.items()]
    return found + [_change(k, row, None) for k, row in before.items() if k not in after and row["suite"] in suites]


def _key(row: dict[str, Any]) -> tuple:
    return row["suite"], row["case"], row["implementation"], row["threads"], row.get("cold", False)


def _change(key: tuple, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Change:
    before, after = (row and row.get("median_s") for row in (old, new))
    if old is None or new is None:
        verdict = "new" if old is None else "gone"
    elif old["equal"] != new["equal"]:
        verdict = "now right" if new["equal"] else "now wrong"
    elif not before or not after:
        verdict = "same" if before == after else "gone" if before else "new"
    elif new["q3_s"] < old["q1_s"] and after < before * (1 - LEAST):
        verdict = "faster"
    elif new["q1_s"] > old["q3_s"] and after > before * (1 + LEAST):
        verdict = "slower"
    else:
        verdict = "same"
    return Change(key[0], key[1], key[2], before, after, verdict)
