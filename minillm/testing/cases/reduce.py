"""Cases: reductions, and running sums and products."""

from __future__ import annotations

import math

from minillm import functional as F

from .case import Case, case, distinct, given, normal

ONE_ZERO = given([[2.0, 0.0, -1.5], [0.5, 1.2, -0.7]])
TWO_ZEROS = given([[0.0, 0.0, -1.5, 2.0], [0.5, 0.0, -0.7, 3.0]])

CASES: list[Case] = [
    # sums and moments
    case("sum", F.sum, normal(2, 3), torch=lambda torch, x: x.sum()),
    case("sum", lambda x: F.sum(x, dim=0), normal(2, 3), label="dim=0", torch=lambda torch, x: x.sum(0)),
    case("sum", lambda x: F.sum(x, dim=(0, -1), keepdim=True), normal(2, 3, 2), label="dim=(0, -1), keepdim",
         torch=lambda torch, x: x.sum((0, -1), keepdim=True)),
    case("sum", F.sum, given(0.7), label="0-d", torch=lambda torch, x: x.sum()),
    case("sum", lambda x: F.sum(x, dim=1), normal(3, 1), label="size 1", torch=lambda torch, x: x.sum(1)),
    case("mean", F.mean, normal(2, 3), torch=lambda torch, x: x.mean()),
    case("mean", lambda x: F.mean(x, dim=-1, keepdim=True), normal(2, 3), label="dim=-1, keepdim",
         torch=lambda torch, x: x.mean(-1, keepdim=True)),
    case("mean", lambda x: F.mean(x, dim=(0, 2)), normal(2, 3, 2), label="dim=(0, 2)",
         torch=lambda torch, x: x.mean((0, 2))),
    case("var", F.var, normal(2, 3), torch=lambda torch, x: x.var()),
    case("var", lambda x: F.var(x) ** 2, normal(3), label="squared",
         torch=lambda torch, x: x.var() ** 2, orders=(1, 2, 3)),
    case("var", lambda x: F.var(x, dim=1, correction=0), normal(2, 3), label="dim=1, correction=0",
         torch=lambda torch, x: x.var(1, correction=0)),
    case("var", lambda x: F.var(x, dim=(0, 1), keepdim=True), normal(2, 3, 2), label="dim=(0, 1), keepdim",
         torch=lambda torch, x: x.var((0, 1), keepdim=True)),
    case("std", F.std, normal(2, 3), torch=lambda torch, x: x.std()),
    case("std", lambda x: F.std(x, dim=0, correction=0, keepdim=True), normal(3, 2),
         label="dim=0, correction=0, keepdim", torch=lambda torch, x: x.std(0, correction=0, keepdim=True)),
    # products and scans
    case("prod", F.prod, normal(2, 3), torch=lambda torch, x: x.prod()),
    case("prod", lambda x: F.prod(x, dim=1), normal(2, 5), label="dim=1", torch=lambda torch, x: x.prod(1)),
    case("prod", lambda x: F.prod(x, dim=-1, keepdim=True), ONE_ZERO, label="one 0",
         torch=lambda torch, x: x.prod(-1, keepdim=True)),
    case("prod", lambda x: F.prod(x, dim=1), TWO_ZEROS, label="two 0s", torch=lambda torch, x: x.prod(1)),
    case("prod", lambda x: F.prod(x, dim=(0, 2)), normal(2, 2, 3), label="dim=(0, 2)",
         torch=lambda torch, x: x.prod(2).prod(0)),
    case("prod", F.prod, given(0.7), label="0-d", torch=lambda torch, x: x.prod()),
    case("cumsum", lambda x: F.cumsum(x, dim=0), normal(3, 2), label="dim=0", torch=lambda torch, x: x.cumsum(0)),
    case("cumsum", lambda x: F.cumsum(x, -1), normal(2, 4), label="dim=-1", torch=lambda torch, x: x.cumsum(-1)),
    case("cumprod", lambda x: F.cumprod(x, dim=0), normal(5, 2), label="dim=0", torch=lambda torch, x: x.cumprod(0)),
    case("cumprod", lambda x: F.cumprod(x, -1), ONE_ZERO, label="one 0", torch=lambda torch, x: x.cumprod(-1)),
    case("cumprod", lambda x: F.cumprod(x, -1), TWO_ZEROS, label="two 0s", torch=lambda torch, x: x.cumprod(-1)),
    # extremes
    case("amax", lambda x: F.amax(x, 0), given([[3.0, -1.0], [1.0, 2.0]]), label="dim=0",
         torch=lambda torch, x: x.amax(0)),
    case("amin", lambda x: F.amin(x, 0), given([[1.0, 2.0], [3.0, -1.0]]), label="dim=0",
         torch=lambda torch, x: x.amin(0)),
    case("amax", lambda x: F.amax(x, dim=(0, 2)), distinct(2, 3, 2), label="dim=(0, 2)",
         torch=lambda torch, x: x.amax((0, 2))),
    case("amin", lambda x: F.amin(x, dim=-1, keepdim=True), distinct(2, 3), label="dim=-1, keepdim",
         torch=lambda torch, x: x.amin(-1, keepdim=True)),
    case("max", F.max, distinct(2, 3), torch=lambda torch, x: x.max()),
    case("max", lambda x: F.max(x, dim=1).values, distinct(2, 3), label="dim=1",
         torch=lambda torch, x: x.max(1).values),
    case("max", F.max, distinct(2, 3), given([0.01, -0.12, 0.07]), label="two tensors",
         torch=lambda torch, x, y: torch.max(x, y)),
    case("min", F.min, distinct(2, 3), torch=lambda torch, x: x.min()),
    case("min", lambda x: F.min(x, 0, True).values, distinct(2, 3), label="dim=0, keepdim",
         torch=lambda torch, x: x.min(0, keepdim=True).values),
    case("min", F.min, distinct(2, 3), given([0.01, -0.12, 0.07]), label="two tensors",
         torch=lambda torch, x, y: torch.min(x, y)),
    # logsumexp and norms
    case("logsumexp", lambda x: F.logsumexp(x, dim=-1), normal(2, 3, scale=3.0), label="dim=-1",
         torch=lambda torch, x: x.logsumexp(-1)),
    case("logsumexp", lambda x: F.logsumexp(x, dim=(0, 1), keepdim=True), normal(2, 3), label="dim=(0, 1), keepdim",
         torch=lambda torch, x: x.logsumexp((0, 1), keepdim=True)),
    case("logsumexp", F.logsumexp, normal(4), label="dim=None", torch=lambda torch, x: x.logsumexp(0)),
    case("norm", F.norm, normal(2, 3), torch=lambda torch, x: x.norm()),
    case("norm", lambda x: F.norm(x, dim=1, keepdim=True), given([[1.0, 0.0, -2.0], [0.3, 0.0, 0.0]]),
         label="p=2, with 0s", torch=lambda torch, x: torch.linalg.vector_norm(x, 2, 1, keepdim=True)),
    case("norm", lambda x: F.norm(x, p=1, dim=0), distinct(2, 3), label="p=1", torch=lambda torch, x: x.norm(1, 0)),
    case("norm", lambda x: F.norm(x, p=math.inf, dim=1), given([[1.0, -3.0, 2.0], [-0.5, 0.3, 0.1]]), label="p=inf",
         torch=lambda torch, x: torch.linalg.vector_norm(x, math.inf, 1)),
    case("norm", lambda x: F.norm(x, p=3, dim=(0, 1)), distinct(2, 3), label="p=3",
         torch=lambda torch, x: torch.linalg.vector_norm(x, 3, (0, 1))),
    case("norm", lambda x: F.norm(x, p=0.5, dim=-1), distinct(2, 3), label="p=0.5",
         torch=lambda torch, x: torch.linalg.vector_norm(x, 0.5, -1)),
]  # fmt: skip
