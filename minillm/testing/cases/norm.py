"""LayerNorm and RMSNorm."""

from __future__ import annotations

from ... import functional as F
from .case import Case, case, normal

CASES: list[Case] = [
    case(
        "layer_norm", lambda x, w, b: F.layer_norm(x, (5,), w, b), normal(3, 5), normal(5), normal(5),
        torch=lambda torch, x, w, b: torch.nn.functional.layer_norm(x, (5,), w, b),
    ),
    case(
        "layer_norm", lambda x: F.layer_norm(x, 4), normal(2, 3, 4),
        torch=lambda torch, x: torch.nn.functional.layer_norm(x, (4,)), label="no weight",
    ),
    case(
        "layer_norm", lambda x, w: F.layer_norm(x, 4, w, eps=0.1), normal(3, 4), normal(4),
        torch=lambda torch, x, w: torch.nn.functional.layer_norm(x, (4,), w, eps=0.1), label="no bias, large eps",
    ),
    case(
        "layer_norm", lambda x, b: F.layer_norm(x, 4, bias=b), normal(3, 4), normal(4),
        torch=lambda torch, x, b: torch.nn.functional.layer_norm(x, (4,), None, b), label="no weight but bias",
    ),
    case(
        "layer_norm", lambda x, w, b: F.layer_norm(x, (3, 2), w, b), normal(2, 3, 2), normal(3, 2), normal(3, 2),
        torch=lambda torch, x, w, b: torch.nn.functional.layer_norm(x, (3, 2), w, b), label="two axes",
    ),
    case(
        "layer_norm", lambda x: F.layer_norm(x, 6), normal(6),
        torch=lambda torch, x: torch.nn.functional.layer_norm(x, (6,)), label="one row",
    ),
    case(
        "rms_norm", lambda x, w: F.rms_norm(x, 5, w), normal(3, 5), normal(5),
        torch=lambda torch, x, w: torch.nn.functional.rms_norm(x, (5,), w),
    ),
    case(
        "rms_norm", lambda x: F.rms_norm(x, (3, 2), eps=0.1), normal(2, 3, 2),
        torch=lambda torch, x: torch.nn.functional.rms_norm(x, (3, 2), None, 0.1), label="two axes, no weight",
    ),
    case(
        "rms_norm", lambda x, w: F.rms_norm(x, (3, 2), w), normal(2, 2, 3, 2), normal(3, 2),
        torch=lambda torch, x, w: torch.nn.functional.rms_norm(x, (3, 2), w), label="two axes, two leading",
    ),
    case(
        "add_layer_norm", lambda x, r, w, b: F.add_layer_norm(x, r, 5, w, b), normal(3, 5), normal(3, 5), normal(5),
        normal(5),
        torch=lambda torch, x, r, w, b: (torch.nn.functional.layer_norm(x + r, (5,), w, b), x + r),
    ),
    case(
        "add_layer_norm", lambda x: F.add_layer_norm(x, x, (2, 2))[0], normal(3, 2, 2),
        torch=lambda torch, x: torch.nn.functional.layer_norm(x + x, (2, 2)), label="norm alone, residual x itself",
    ),
    case(
        "add_layer_norm", lambda x, r: F.add_layer_norm(x, r, 3)[1], normal(2, 3), normal(2, 3),
        torch=lambda torch, x, r: x + r, label="sum alone",
    ),
    case(
        "add_rms_norm", lambda x, r, w: F.add_rms_norm(x, r, 5, w), normal(3, 5), normal(3, 5), normal(5),
        torch=lambda torch, x, r, w: (torch.nn.functional.rms_norm(x + r, (5,), w), x + r),
    ),
    case(
        "add_rms_norm", lambda x, r, w: F.add_rms_norm(x, r, (2, 3), w, 0.1), normal(2, 2, 3), normal(2, 2, 3),
        normal(2, 3), torch=lambda torch, x, r, w: (torch.nn.functional.rms_norm(x + r, (2, 3), w, 0.1), x + r),
        label="two axes",
    ),
]  # fmt: skip
