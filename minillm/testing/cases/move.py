"""Copies."""

from __future__ import annotations

from ... import functional as F
from .case import Case, case, normal

CASES: list[Case] = [
    case("clone", F.clone, normal(2, 3), torch=lambda torch, x: x.clone()),
    case(
        "move",
        lambda x: F.move(x, x.device) * 2,
        normal(2, 3),
        torch=lambda torch, x: x.to("cpu") * 2,
        label="to where it is",
    ),
]
