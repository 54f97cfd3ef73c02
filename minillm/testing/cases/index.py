"""Cases of ops/index.py. Indices name an element twice wherever they can: its gradients add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minillm import functional as F
from minillm.tensor import Tensor

from .case import Case, Draw, case, distinct, normal

ROWS = [2, 0, 2]
GRID = [[0, 2], [1, 1], [2, 0]]
MASK = [[True, False, True], [False, False, True]]


def _getitem(label: str, shape: tuple[int, ...], *parts: Any) -> Case:
    """x[parts]: lists stand for index arrays and masks."""

    def index(constant: Callable) -> tuple:
        return tuple([constant(part) if isinstance(part, list) else part for part in parts])

    return case(
        "getitem",
        lambda x: x[index(lambda values: Tensor(np.array(values)).to(x.device))],
        normal(*shape),
        torch=lambda torch, x: x[index(torch.tensor)],
        label=label,
    )


def _indexed(op: str, index: list, *draws: Draw, dim: int | None = 0, label: str = "", **named: Any) -> Case:
    """op(x, dim, index) or op(x, dim, index, y) with a constant index."""
    last = op == "take_along_dim"  # op(x, index, dim)

    def call(function: Callable, i: Any, x: Any, *y: Any) -> Any:
        return function(x, i, dim) if last else function(x, dim, i, *y, **named)

    return case(
        op,
        lambda x, *y: call(getattr(F, op), Tensor(np.array(index)).to(x.device), x, *y),
        *draws,
        torch=lambda torch, *xs: call(getattr(torch, op), torch.tensor(index), *xs),
        label=label,
    )


def _values(op: str, shape: tuple[int, ...], *settings: Any, label: str = "", **named: Any) -> Case:
    """The values of sort and topk."""
    return case(
        op,
        lambda x: getattr(F, op)(x, *settings, **named).values,
        distinct(*shape),
        torch=lambda torch, x: getattr(torch, op)(x, *settings, **named).values,
        label=label,
    )


CASES: list[Case] = [
    _getitem("int", (3, 2), 1),
    _getitem("element", (3, 2), -1, 0),
    _getitem("slices", (3, 4), slice(1, None), slice(None, None, 2)),
    _getitem("None, ...", (2, 3), None, ..., 1, None),
    _getitem("0-d", ()),
    _getitem("rows", (3, 2), ROWS),
    _getitem("rows (3, 2)", (3, 2), GRID),
    _getitem("pairs", (3, 2), ROWS, [1, 0, 1]),
    _getitem("columns", (3, 2), slice(None), [-1, 0, -1]),
    _getitem("apart", (3, 2, 2), ROWS, slice(None), [[0], [1]]),
    _getitem("mixed", (2, 3, 2), slice(1, None), ROWS),
    _getitem("int and rows", (2, 3, 2), 1, ROWS),
    _getitem("mask", (2, 3), MASK),
    _getitem("row mask", (3, 2), [True, False, True]),
    _getitem("mask and int", (3, 2), [True, False, True], 0),
    case(
        "getitem",
        lambda x: x[::-1, 2::-2],
        normal(3, 4),
        torch=lambda torch, x: x.flip(0)[:, [2, 0]],
        label="negative steps",
    ),
    case("narrow", lambda x: F.narrow(x, -1, 1, 2), normal(2, 4), torch=lambda torch, x: x.narrow(-1, 1, 2)),
    case("unbind", lambda x: F.unbind(x, 1), normal(2, 3), torch=lambda torch, x: x.unbind(1)),
    _indexed("gather", GRID, normal(3, 3), dim=1),
    _indexed("gather", [[0, 2], [0, 1]], normal(3, 4), dim=-2, label="smaller"),
    _indexed("take_along_dim", [[1], [0]], normal(2, 3), dim=1),
    _indexed("take_along_dim", [[1, 0, 1]], normal(2, 3), dim=-1, label="broadcast"),
    _indexed("take_along_dim", [5, 0, 5], normal(2, 3), dim=None, label="flat"),
    _indexed("scatter_add", GRID, normal(3, 3), normal(3, 2), dim=1),
    case(  # PyTorch has no gradient here
        "scatter_add",
        lambda x, src: F.scatter_add(x, 0, Tensor(np.array(GRID)).to(x.device), src),
        *[normal(3, 3), normal(4, 3)],
        label="larger src",
    ),
    _indexed("index_select", ROWS, normal(3, 2)),
    _indexed("index_select", ROWS, normal(2, 3), dim=-1, label="dim=-1"),
    _indexed("index_add", ROWS, normal(3, 2), normal(3, 2)),
    _indexed("index_add", ROWS, normal(2, 4), normal(2, 3), dim=1, alpha=-0.5, label="alpha"),
    _values("sort", (2, 5)),
    _values("sort", (4, 2), 0, descending=True, label="descending"),
    _values("topk", (2, 5), 2),
    _values("topk", (4, 2), 3, 0, largest=False, label="smallest"),
]
