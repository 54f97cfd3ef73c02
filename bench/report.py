"""What the terminal shows: a table per suite, notes, changes, targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from .compare import Change
from .limits import Limits
from .runner import OURS, Row
from .targets import Result


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 1000 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def rate(row: Row) -> str:
    """FLOP/s where computing is the limit, bytes/s where moving is; ns an element where the suite counts elements."""
    if not row["median_s"]:
        return "-"
    if row["elements"]:
        return f"{row['median_s'] / row['elements'] * 1e9:.3g} ns/el"
    if row.get("compute_bound") or (row["flops"] and not row["bytes"]):
        return f"{row['flops'] / row['median_s'] / 1e9:.4g} GFLOP/s"
    return f"{row['bytes'] / row['median_s'] / 1e9:.4g} GB/s" if row["bytes"] else "-"


class Printer:
    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        if not self.console.is_terminal:
            self.console = Console(width=max(self.console.width, 150))  # a file: lines are not to break

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", highlight=False, markup=False)

    def note(self, text: str) -> None:
        style = "bold red" if text.startswith("REFUSED") else "yellow"
        self.console.print(f"note: {text}", style=style, highlight=False, markup=False)

    def machine(self, facts: dict[str, Any], limits: Limits) -> None:
        packages = ", ".join(f"{k} {v}" for k, v in facts["packages"].items())
        load = ", ".join(f"{x:.2f}" for x in facts["load_average"])
        bf16 = f", bfloat16 {limits.peak_bf16 / 1e9:.0f}" if limits.peak_bf16 else ""
        self.say(
            f"{facts['cpu']}, {facts['threads']} of {facts['cores']} cores, {facts['simd_lanes']} float32 lanes\n"
            f"{packages}\nBLAS {facts['blas']}, core type {facts['blas_core_type'] or 'unknown'}; "
            f"Numba threads: {facts['threading_layer']}; load average {load}\n"
            f"limits on {limits.threads} threads: {limits.peak / 1e9:.0f} GFLOP/s float32{bf16}; copying "
            f"{limits.bandwidth['copy'][-1] / 1e9:.1f} GB/s in memory, {limits.bandwidth['copy'][0] / 1e9:.0f} in L1"
        )

    @contextmanager
    def suite(self, name: str, title: str) -> Iterator[Callable[[str], None]]:
        self.console.rule(f"[bold]{name}[/]: {title}", align="left", style="dim")
        with self.console.status(name) as status:
            yield lambda case: status.update(f"{name}: {case}")

    def rows(self, rows: list[Row]) -> None:
        if not rows:
            self.say("nothing ran")
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("case")
        table.add_column("implementation")
        for title in ("median", "quartiles", "rate", "of limit", "ours is", "max error", "load"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("")
        last = None
        for row in rows:
            first = row["case"] != last
            if first and last is not None:
                table.add_section()
            last = row["case"]
            ours = row["implementation"] == OURS
            table.add_row(
                row["case"] if first else "", row["implementation"], duration(row["median_s"]),
                "-" if row["q1_s"] is None else f"{duration(row['q1_s'])} .. {duration(row['q3_s'])}", rate(row),
                "-" if not row["share_of_limit"] else f"{row['share_of_limit']:.0%}", _against(row),
                _error(row), "-" if row["load"] is None else f"{row['load']:.0%}",
                _verdict(row),
                style="bold" if ours else None,
            )  # fmt: skip
        self.console.print(table)

    def changes(self, changes: list[Change]) -> None:
        """Those beyond noise, one a line."""
        table = Table(title="changes beyond noise", title_justify="left", box=None, pad_edge=False)
        for title in ("suite", "case", "implementation", "before", "after", "after / before", ""):
            table.add_column(title)
        shown = [c for c in changes if c.verdict != "same"]
        styles = {"faster": "green", "slower": "red", "now wrong": "bold red"}
        for c in shown:
            ratio = f"{c.ratio:.2f}" if c.ratio else "-"
            table.add_row(c.suite, c.case, c.implementation, duration(c.before), duration(c.after), ratio, c.verdict,
                          style=styles.get(c.verdict))  # fmt: skip
        if shown:
            self.console.print(table)
        self.say(f"{len(changes) - len(shown)} of {len(changes)} rows the same within noise")

    def targets(self, results: list[Result]) -> None:
        table = Table(title="targets", title_justify="left", box=None, pad_edge=False, header_style="dim")
        for title in ("work", "target", "figure", "worst case", ""):
            table.add_column(title, no_wrap=title in ("target", "figure"))
        words = {True: "[green]met[/]", False: "[red]not met[/]", None: "[dim]not run[/]"}
        for r in results:
            table.add_row(r.work, r.target, r.figure, r.worst, words[r.met])
        self.console.print(table)


def _verdict(row: Row) -> str:
    if row["equal"]:
        return "[green]equal[/]"
    return "[red]inexact[/]" if row["median_s"] else "[bold red]WRONG[/]"


def _against(row: Row) -> str:
    """How many times as fast ours is as this implementation."""
    ratio = row["ratios"].get(OURS)
    return "" if ratio is None else f"{1 / ratio:.2f}x"


def _error(row: Row) -> str:
    if "max_ulp" in row:
        return f"{row['max_ulp']:.2f} ulp"
    return "-" if row["max_error"] is None else f"{row['max_error']:.1e}"
