"""The closing table of a command, in the terminal (rich)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minillm.explain.markup import cell_text, is_number
from minillm.explain.metric import MARKS, Metric

METRIC_HEADER = ("", "measure", "value")


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


def metric_rows(metrics: Iterable[Metric]) -> list[list[Any]]:
    """Metrics as rows under `METRIC_HEADER`, narrow enough for a terminal of 80 columns.

    The model's figure, marked for better or worse than the baseline; below it the baseline (to beat) and the floor (to
    reach).
    """
    goals = {"baseline": "to beat", "floor": "to reach"}
    rows: list[list[Any]] = []
    for m in metrics:
        unit = f", {m.unit}" if m.unit else ""
        rows.append([MARKS[m.outcome], f"{m.name}{unit} ({m.better} is better)", m.value])
        rows += [["", f"  {goals[kind]}: {name}", value] for kind, name, value in m.bars() if kind in goals]
    return rows
