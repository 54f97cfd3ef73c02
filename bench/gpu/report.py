"""report.md: what ran, the targets, a table per suite, and what failed."""

from __future__ import annotations

from typing import Any

from ..report import duration
from .lab import DRY_LABEL, Row
from .targets import results

MET = {True: "met", False: "not met", None: "not run"}
ORDER = ("ceilings", "attention", "ladder", "memory", "gpt", "decode")


def markdown(result: dict[str, Any]) -> str:
    machine, rows = result["machine"], result["rows"]
    dry = bool(machine.get("dry"))
    lines = [f"# {machine.get('gpu', 'GPU')}", ""]
    if dry:
        lines += [f"**{DRY_LABEL}.** This run shows that every line of the script runs, and nothing else.", ""]
    known = {key: machine[key] for key in ("arch", "cupy", "driver", "cuda", "seconds") if key in machine}
    lines += [f"- {key}: {value}" for key, value in known.items()]
    lines += [f"- {line}" for line in machine.get("nvidia_smi", [])]
    lines += ["", "## Targets", "", "| work | target | figure | worst case | |", "|---|---|---|---|---|"]
    for r in results(rows, dry):
        verdict = "dry run" if dry and r.figure != "-" else MET[r.met]
        lines.append(f"| {r.work} | {r.target} | {r.figure} | {r.worst} | {verdict} |")
    for suite in ORDER:
        lines += _suite(suite, [row for row in rows if row["suite"] == suite])
    checked = [row for row in rows if row["suite"] in ("correct", "compile", "sanitize")]
    lines += ["", "## Checks", ""]
    for suite in ("compile", "correct", "sanitize"):
        mine = [row for row in checked if row["suite"] == suite]
        lines.append(f"- {suite}: {sum(row['equal'] for row in mine)} of {len(mine)} passed")
    failed = [row for row in rows if not row["equal"]]
    if failed:
        lines += ["", "## What failed, and why", ""]
        lines += [f"- {row['suite']}, {row['case']}, {row['implementation']}: {row['problem']}" for row in failed]
    lines += [f"- note: {note}" for note in result["notes"]]
    return "\n".join(lines) + "\n"


def _suite(suite: str, rows: list[Row]) -> list[str]:
    """A table: a case a line, an implementation a column."""
    rows = [row for row in rows if row["median_s"]]
    if not rows:
        return []
    columns = list(dict.fromkeys(row["implementation"] for row in rows))
    cells = {(row["case"], row["implementation"]): row for row in rows}
    lines = ["", f"## {suite}", "", "| case | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for case in dict.fromkeys(row["case"] for row in rows):
        lines.append(f"| {case} | " + " | ".join(_cell(cells.get((case, c))) for c in columns) + " |")
    return lines


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    parts = [duration(row["median_s"])]
    if row["flops"]:
        parts.append(f"{row['flops'] / row['median_s'] / 1e12:.4g} TFLOP/s")
    elif row["bytes"]:
        parts.append(f"{row['bytes'] / row['median_s'] / 1e9:.4g} GB/s")
    if row["share_of_limit"]:
        parts.append(f"{row['share_of_limit']:.0%}")
    if row.get("tokens_a_second"):
        parts.append(f"{row['tokens_a_second']:.4g} tokens/s")
    return ", ".join(parts) + ("" if row["equal"] else " (WRONG)")
