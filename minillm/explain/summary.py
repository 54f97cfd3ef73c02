"""The closing table of a command, in the terminal (rich)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minillm.explain.markup import cell_text, is_number
from minillm.explain.metric import MARKS, Metric
from minillm.explain.style import format_value

METRIC_HEADER = ("", "measure", "value", "baseline", "floor")


def terminal_table(rows: Iterable[Sequence[Any]], header: Sequence[str], title: str = "") -> Any:
    """A rich Table of rows under `header`; print it with `rich.print`. Cells are text: markup in them is not obeyed.

    Numbers are written with four digits and their columns aligned right; None is a dash.
    """
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"terminal_table: row {i} has {len(row)} cells, the header has {len(header)}")
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold", box=None)
    for j, name in enumerate(header):
        numeric = bool(rows) and all(is_number(row[j]) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    return table


def metric_rows(metrics: Iterable[Metric]) -> list[list[str]]:
    """Metrics as rows under `METRIC_HEADER`: a mark for better or worse than the baseline, and the three figures."""

    def beside(value: float | None, name: str) -> str:
        return "–" if value is None else f"{format_value(value)} {name}"

    return [
        [
            MARKS[m.outcome],
            f"{m.name} ({m.better} is better)",
            f"{format_value(m.value)} {m.unit}".rstrip(),
            beside(m.baseline, m.baseline_name),
            beside(m.floor, m.floor_name),
        ]
        for m in metrics
    ]
