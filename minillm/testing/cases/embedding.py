"""Embedding."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from .case import Case, case, normal

_IDS = np.array([[1, 4, 1], [0, 1, 3]])


def _torch(ids, **settings):
    return lambda torch, w: torch.nn.functional.embedding(torch.tensor(ids), w, **settings)


CASES: list[Case] = [
    case("embedding", lambda w: F.embedding(_IDS, w), normal(5, 3), torch=_torch(_IDS), label="repeated ids"),
    case("embedding", lambda w: F.embedding(np.array(1), w), normal(5, 3), torch=_torch(1), label="0-d"),
    case(
        "embedding", lambda w: F.embedding(_IDS[:, ::-2], w), normal(5, 1),
        torch=_torch([[1, 1], [3, 0]]), label="strided ids",
    ),
    case(
        "embedding", lambda w: F.embedding(_IDS, w, padding_idx=2), normal(5, 3),
        torch=_torch(_IDS, padding_idx=2), label="padding_idx",  # does not occur: no gradient there anyway
    ),
]  # fmt: skip
