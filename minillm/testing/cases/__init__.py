"""The table of everything that has a gradient: the CASES of every module in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from ...errors import nearest
from .case import Case, case, distinct, given, normal, positive

__all__ = ["Case", "all_cases", "case", "cases_for", "distinct", "given", "normal", "positive"]


@cache
def all_cases() -> tuple[Case, ...]:
    """Every row, in the order of the modules' names."""
    rows: list[Case] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        if module != "case":
            rows += importlib.import_module(f"{__name__}.{module}").CASES
    return tuple(rows)


def cases_for(names: Iterable[str]) -> list[Case]:
    """The rows of these ops ("softmax"), or rows by full name ("softmax[dim=0]"). ValueError for others."""
    rows: list[Case] = []
    known = {c.op for c in all_cases()} | {c.name for c in all_cases()}
    for name in names:
        if name not in known:
            raise ValueError(f"no case for {name!r}: nothing with a gradient has that name.{nearest(name, known)}")
        rows += [c for c in all_cases() if name in (c.op, c.name)]
    return rows
