"""Cases: rotary position embedding."""

from __future__ import annotations

from typing import Any

from ... import functional as F
from ...device import to_device
from ...ops.rotary import rotary_tables
from .case import Case, case, normal


def _rotary(x: Any) -> Any:
    return F.rotary(x, *[to_device(t, x.device) for t in rotary_tables(x.shape[2], x.shape[3], dtype=x.dtype)])


def _theirs(torch: Any, x: Any) -> Any:
    """As multiplication of complex numbers."""
    half = x.shape[3] // 2
    f = 10000.0 ** (-torch.arange(half, dtype=torch.float64) * 2 / x.shape[3])
    angles = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * f
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles).to(
        torch.complex64 if x.dtype == torch.float32 else torch.complex128
    )
    return torch.cat([turned.real, turned.imag], -1)


CASES: list[Case] = [
    case("rotary", _rotary, normal(2, 3, 4, 6), torch=_theirs),
    case("rotary", _rotary, normal(1, 1, 1, 2), torch=_theirs, label="one position"),
]
