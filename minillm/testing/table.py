"""gradcheck over the table of cases: what `minillm gradcheck` prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from .cases import all_cases, cases_for
from .cases.case import Case
from .faults import planted
from .gradcheck import gradcheck
from .report import GradcheckReport


@dataclass(frozen=True)
class Row:
    """One case at one order of derivative."""

    name: str  # "softmax[dim=0]"
    order: int
    ok: bool
    worst_error: float  # relative to the largest derivative of that input; nan where nothing was compared
    seconds: float
    report: GradcheckReport


def check_case(case: Case, order: int = 1) -> GradcheckReport:
    """The report of one row of the table."""
    return gradcheck(
        case.function,
        case.inputs(),
        order=order,
        seed=case.seed,
        name=case.name,
        allow_empty=True,
        raise_exception=False,
    )


def run_table(
    names: Iterable[str] | None = None,
    orders: Iterable[int] = (1, 2),
    plant: str | None = None,
    progress: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Check the cases of these ops (None: all) at these orders, as far as a case has them.

    plant     "softmax" or "softmax:sign": with a wrong rule in that op (see `planted`), to see the check fail
    progress  called with each row as it is done
    """
    rows = []
    orders = tuple(orders)
    with _planted(plant) if plant else nullcontext():
        for case in cases_for(names) if names is not None else all_cases():
            for order in [o for o in case.orders if o in orders]:
                start = time.perf_counter()
                report = check_case(case, order)
                rows.append(Row(case.name, order, report.ok, report.worst_error, time.perf_counter() - start, report))
                if progress is not None:
                    progress(rows[-1])
    return rows


def _planted(plant: str):  # type: ignore[no-untyped-def]
    op, _, kind = plant.partition(":")
    return planted(op, kind or "sign")
