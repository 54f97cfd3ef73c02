"""Cases of ops/linalg.py."""

from __future__ import annotations

from typing import Any

from minillm import functional as F

from .case import Case, case, normal


def _matmul(label: str, left: tuple[int, ...], right: tuple[int, ...]) -> Case:
    return case(
        "matmul", F.matmul, normal(*left), normal(*right), torch=lambda torch, x, y: torch.matmul(x, y), label=label
    )


def _linear(label: str, *shapes: tuple[int, ...]) -> Case:
    draws = [normal(*shape) for shape in shapes]
    return case("linear", F.linear, *draws, torch=lambda torch, *xs: torch.nn.functional.linear(*xs), label=label)


def _activated(name: str) -> Case:
    """linear with an activation in the same op."""

    def theirs(torch: Any, *xs: Any) -> Any:
        z, f = torch.nn.functional.linear(*xs), torch.nn.functional
        if name == "relu2":
            return f.relu(z) ** 2
        return f.gelu(z, approximate="tanh") if name == "gelu_tanh" else getattr(f, name)(z)

    draws = [normal(2, 2, 3), normal(4, 3), normal(4)]
    return case("linear", lambda x, w, b: F.linear(x, w, b, name), *draws, torch=theirs, label=name)


def _einsum(equation: str, *shapes: tuple[int, ...], label: str = "") -> Case:
    return case(
        "einsum",
        lambda *xs: F.einsum(equation, *xs),
        *[normal(*shape) for shape in shapes],
        torch=lambda torch, *xs: torch.einsum(equation, *xs),
        label=label or equation,
    )


CASES: list[Case] = [
    _matmul("", (2, 3), (3, 4)),
    _matmul("inner", (3,), (3,)),
    _matmul("matrix vector", (2, 3), (3,)),
    _matmul("vector matrix", (3,), (3, 4)),
    _matmul("batch vector", (2, 3, 4), (4,)),
    _matmul("vector batch", (3,), (2, 3, 2)),
    _matmul("batch", (2, 3, 4), (2, 4, 2)),
    _matmul("batch matrix", (2, 3, 4), (4, 2)),
    _matmul("matrix batch", (3, 4), (2, 4, 2)),
    _matmul("broadcast batch", (2, 1, 3, 2), (3, 2, 1)),
    _matmul("size 1", (1, 1), (1, 1)),
    case("matmul", lambda x: F.matmul(x, x), normal(3, 3), torch=lambda torch, x: x @ x, label="x @ x"),
    _linear("", (2, 3), (4, 3), (4,)),
    _linear("no bias", (2, 3), (4, 3)),
    *[_activated(name) for name in ("relu", "relu2", "gelu", "gelu_tanh", "silu")],
    _linear("vector", (3,), (4, 3), (4,)),
    _linear("(B, T, in)", (2, 2, 3), (4, 3), (4,)),
    case(
        "bilinear",
        F.bilinear,
        *[normal(2, 3), normal(2, 2), normal(4, 3, 2), normal(4)],
        torch=lambda torch, *xs: torch.nn.functional.bilinear(*xs),
    ),
    case("mT", F.mT, normal(2, 3, 4), torch=lambda torch, x: x.mT),
    case("dot", F.dot, normal(4), normal(4), torch=lambda torch, x, y: torch.dot(x, y)),
    case("mv", F.mv, normal(2, 3), normal(3), torch=lambda torch, x, y: torch.mv(x, y)),
    case("mm", F.mm, normal(2, 3), normal(3, 2), torch=lambda torch, x, y: torch.mm(x, y)),
    case("bmm", F.bmm, normal(2, 2, 3), normal(2, 3, 2), torch=lambda torch, x, y: torch.bmm(x, y)),
    case("outer", F.outer, normal(2), normal(3), torch=lambda torch, x, y: torch.outer(x, y)),
    _einsum("ij,jk->ik", (2, 3), (3, 4)),
    _einsum("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
    _einsum("bhtd,bhsd->bhts", (2, 1, 3, 2), (2, 1, 2, 2)),
    _einsum("ij,kj", (2, 3), (4, 3), label="implicit output"),
    _einsum("ba", (2, 3), label="implicit transpose"),
    _einsum("ij->", (2, 3), label="sum of all"),
    _einsum("ij,k->k", (2, 3), (4,), label="labels summed alone"),
    _einsum("i,i->i", (3,), (3,)),
    _einsum("i,j->ij", (3,), (2,)),
    _einsum("ii->i", (3, 3), label="diagonal"),
    _einsum("ii", (3, 3), label="trace"),
    _einsum("iji,j->i", (2, 3, 2), (3,), label="repeated and contracted"),
    _einsum("iii->i", (2, 2, 2), label="diagonal of a cube"),
    _einsum("ij,jk->ik", (2, 1), (3, 4), label="size 1"),
    _einsum("...ij,jk->...ik", (2, 1, 2, 3), (3, 2), label="..."),
    _einsum("...i,...i", (2, 1, 3), (4, 3), label="... broadcast"),
    _einsum("b...,b...->...", (2, 3), (2, 3), label="... kept"),
    _einsum("bi,oij,bj->bo", (2, 3), (2, 3, 2), (2, 2), label="three operands"),
    _einsum("i,i,i->", (3,), (3,), (3,), label="one label, three operands"),
    _einsum(",ij->ij", (), (2, 2), label="0-d"),
]
