"""Dropout, its generator started afresh on each call so that the mask stays."""

from __future__ import annotations

from ... import functional as F
from ... import random
from .case import Case, case, normal


def _mask(torch, x, p):
    return torch.tensor(random.Generator(3).uniform(tuple(x.shape))) >= p


CASES: list[Case] = [
    case(
        "dropout", lambda x: F.dropout(x, 0.3, generator=random.Generator(3)), normal(4, 5),
        torch=lambda torch, x: x * _mask(torch, x, 0.3) / 0.7,
    ),
    case("dropout", lambda x: F.dropout(x * 2, p=0), normal(4), torch=lambda torch, x: x * 2, label="p=0"),
    case("dropout", lambda x: F.dropout(x, 1.0), normal(4), torch=lambda torch, x: x * 0, label="p=1"),
    case("dropout", lambda x: F.dropout(x * 2, 0.5, False), normal(4), torch=lambda torch, x: x * 2, label="off"),
]  # fmt: skip
