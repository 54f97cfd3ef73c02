"""Softmax and log-softmax."""

from __future__ import annotations

from ... import functional as F
from .case import Case, case, normal

CASES: list[Case] = [
    case("softmax", F.softmax, normal(3, 4), torch=lambda torch, x: torch.softmax(x, -1)),
    case("softmax", lambda x: F.softmax(x, dim=0), normal(3, 4), torch=lambda torch, x: x.softmax(0), label="dim=0"),
    case("softmax", lambda x: F.softmax(x, -2), normal(2, 3, 2), torch=lambda torch, x: x.softmax(-2), label="dim=-2"),
    case("softmax", F.softmax, normal(3, 1), torch=lambda torch, x: torch.softmax(x, -1), label="one class"),
    case("softmax", F.softmax, normal(), torch=lambda torch, x: torch.softmax(x, -1), label="0-d"),
    case(
        "softmax", lambda x: F.softmax(x + 1e4, -1), normal(2, 3),
        torch=lambda torch, x: torch.softmax(x + 1e4, -1), label="logits of 1e4",
    ),
    case("log_softmax", F.log_softmax, normal(3, 4), torch=lambda torch, x: torch.log_softmax(x, -1)),
    case(
        "log_softmax", lambda x: F.log_softmax(x, dim=0), normal(3, 4),
        torch=lambda torch, x: torch.log_softmax(x, 0), label="dim=0",
    ),
    case("log_softmax", F.log_softmax, normal(), torch=lambda torch, x: torch.log_softmax(x, -1), label="0-d"),
]  # fmt: skip
