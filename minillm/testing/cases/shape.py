"""Cases of ops/views.py and ops/shape.py."""

from __future__ import annotations

from typing import Any

from minillm import functional as F

from .case import Case, case, normal


def _same(op: str, shape: tuple[int, ...], *settings: Any, label: str = "", **named: Any) -> Case:
    """An op of one input that PyTorch has as a method of the same name, with the same settings."""
    return case(
        op,
        lambda x: getattr(F, op)(x, *settings, **named),
        normal(*shape),
        torch=lambda torch, x: getattr(x, op)(*settings, **named),
        label=label,
    )


def _pad(shape: tuple[int, ...], pairs: tuple[int, ...], label: str = "", **named: Any) -> Case:
    return case(
        "pad",
        lambda x: F.pad(x, pairs, **named),
        normal(*shape),
        torch=lambda torch, x: torch.nn.functional.pad(x, pairs, **named),
        label=label,
    )


def _joined(op: str, *shapes: tuple[int, ...], dim: int = 0, label: str = "") -> Case:
    """The first input stands twice in the list: its two gradients add up."""
    return case(
        op,
        lambda *xs: getattr(F, op)([*xs, xs[0]], dim),
        *[normal(*shape) for shape in shapes],
        torch=lambda torch, *xs: getattr(torch, op)([*xs, xs[0]], dim),
        label=label,
    )


CASES: list[Case] = [
    _same("reshape", (2, 6), (3, -1)),
    _same("reshape", (), (1, 1), label="0-d"),
    _same("view", (2, 2), (4,)),
    _same("flatten", (2, 3, 2)),
    _same("flatten", (2, 3, 2, 2), 1, -2, label="part"),
    _same("flatten", (), label="0-d"),
    _same("squeeze", (1, 3, 1)),
    _same("squeeze", (1, 3, 1), -1, label="dim=-1"),
    _same("squeeze", (1, 3, 1), (0, 1), label="dims"),
    _same("unsqueeze", (2, 3), 1),
    _same("unsqueeze", (2, 3), -1, label="dim=-1"),
    _same("transpose", (2, 3, 4), 0, -1),
    _same("swapaxes", (2, 3, 4), 0, 1),
    _same("permute", (2, 3, 4), (2, 0, 1)),
    _same("permute", (2, 3, 4), (-1, 0, -2), label="negative"),
    _same("movedim", (2, 3, 4), 0, -1),
    _same("movedim", (2, 3, 4), (0, 2), (1, 0), label="two"),
    _same("expand", (2, 1), (4, 2, 3)),
    _same("expand", (3, 1), (2, 3, -1), label="-1"),
    _same("expand", (), (2, 2), label="0-d"),
    _same("broadcast_to", (3,), (2, 3)),
    _joined("cat", (2, 3), (2, 1), dim=1),
    _joined("cat", (2, 3), (1, 3), dim=-2, label="dim=-2"),
    _joined("stack", (2, 3), (2, 3)),
    _joined("stack", (2, 3), (2, 3), dim=-1, label="dim=-1"),
    _joined("stack", (), (), label="0-d"),
    _same("split", (5, 2), 2),
    _same("split", (2, 4), [1, 2, 1], -1, label="sizes"),
    _same("split", (2, 2), 9, label="one piece"),
    case(
        "split",
        lambda x: F.split(x, [1, 3, 2])[1],
        normal(6),
        torch=lambda torch, x: x.split([1, 3, 2])[1],
        label="one used",
    ),
    _same("chunk", (2, 6), 3, -1),
    _same("chunk", (5, 2), 4, label="fewer"),
    _same("repeat", (2, 2), (2, 3)),
    _same("repeat", (3,), (2, 1, 2), label="new dims"),
    _same("flip", (2, 3, 2), (0, -1)),
    _same("roll", (2, 3), 2),
    _same("roll", (3, 4), (1, -2), (0, 1), label="dims"),
    _same("tril", (3, 3)),
    _same("tril", (2, 3, 4), -1, label="batch"),
    _same("triu", (4, 3), 1, label="diagonal=1"),
    _same("diagonal", (3, 4)),
    _same("diagonal", (3, 2, 3), 1, -1, 0, label="offset, dims"),
    _same("diagonal", (3, 2), -1, label="offset=-1"),
    _pad((2, 3), (1, 2)),
    _pad((2, 3), (1, 0, 0, 2), value=3.0, label="value"),
    _pad((2, 3), (-1, 2), label="negative"),
    _pad((2, 3), (2, 1), mode="reflect", label="reflect"),
    _pad((2, 3), (3, 1), mode="replicate", label="replicate"),
    _pad((2, 3), (2, 3), mode="circular", label="circular"),
    _pad((1, 2, 3, 2), (1, 1, 2, 0), mode="reflect", label="reflect two dims"),
]
