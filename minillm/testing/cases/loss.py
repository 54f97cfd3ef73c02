"""Losses, each under every reduction and with every option that changes its formula."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from .case import Case, case, distinct, given, normal, positive

_IDS = np.array([2, 0, -100, 3])  # the third row is ignored
_WEIGHT = np.array([0.5, 1.0, 2.0, 3.0])
_EVERY = ("mean", "sum", "none")


def _like(x, array):
    """A constant in x's dtype, so that a float32 run stays float32."""
    return array.astype(x.dtype)


def _cross_entropy(label, ids, draw, weight=None, **settings):
    def ours(x):
        return F.cross_entropy(x, ids, weight=None if weight is None else _like(x, weight), **settings)

    def theirs(torch, x):
        w = None if weight is None else torch.tensor(weight).to(x.dtype)
        return torch.nn.functional.cross_entropy(x, torch.tensor(ids), weight=w, **settings)

    return case("cross_entropy", ours, draw, torch=theirs, label=label)


def _head(label, draw, weight, softcap=None, z_loss=0.0, **settings):
    """Tokens against class vectors; ids for as many tokens as there are."""

    def ours(x, w):
        ids = np.resize(_IDS, x.shape[:-1])
        return F.linear_cross_entropy(x, w, ids, softcap=softcap, z_loss=z_loss, **settings)

    def theirs(torch, x, w):
        ids = torch.tensor(np.resize(_IDS, tuple(x.shape[:-1]))).reshape(-1)
        z = (x @ w.T).reshape(len(ids), -1)
        z = z if softcap is None else softcap * torch.tanh(z / softcap)
        rows = torch.nn.functional.cross_entropy(z, ids, **{**settings, "reduction": "none"})
        rows = rows + z_loss * torch.where(ids == -100, 0, torch.logsumexp(z, 1) ** 2)
        reduction = settings.get("reduction", "mean")
        if reduction == "none":
            return rows.reshape(x.shape[:-1])
        return rows.sum() / ((ids != -100).sum() if reduction == "mean" else 1)

    return case("linear_cross_entropy", ours, draw, weight, torch=theirs, label=label)


def _nll(label, ids, draw, weight=None, **settings):
    def ours(x):
        return F.nll_loss(x, ids, weight=None if weight is None else _like(x, weight), **settings)

    def theirs(torch, x):
        w = None if weight is None else torch.tensor(weight).to(x.dtype)
        return torch.nn.functional.nll_loss(x, torch.tensor(ids), weight=w, **settings)

    return case("nll_loss", ours, draw, torch=theirs, label=label)


def _pairs(name, *draws, label="", **settings):
    """A loss of input and target, the same call in PyTorch."""
    return case(
        name, lambda x, y: getattr(F, name)(x, y, **settings), *draws,
        torch=lambda torch, x, y: getattr(torch.nn.functional, name)(x, y, **settings),
        label=label or ", ".join(f"{k}={v}" for k, v in settings.items()),
    )  # fmt: skip


def _bce(name, draw, factors, **settings):
    """Binary cross-entropy with constant factors (weight, pos_weight)."""

    def ours(x, y):
        return getattr(F, name)(x, y, **{k: _like(x, f) for k, f in factors.items()}, **settings)

    def theirs(torch, x, y):
        tensors = {k: torch.tensor(f).to(x.dtype) for k, f in factors.items()}
        return getattr(torch.nn.functional, name)(x, y, **tensors, **settings)

    return case(name, ours, draw, positive(3, 4, low=0.1, high=0.9), torch=theirs, label=", ".join(factors))


_PROBABILITIES = positive(3, 4, low=0.1, high=0.9)
_LOGITS_BCE = "binary_cross_entropy_with_logits"
_ZERO = np.zeros((3, 4))
_GREYS = np.linspace(0, 1, 24).reshape(2, 3, 4)

CASES: list[Case] = [
    *[_cross_entropy(f"reduction={r}", _IDS, normal(4, 4), reduction=r) for r in _EVERY],
    *[_cross_entropy(f"weight, {r}", _IDS, normal(4, 4), _WEIGHT, reduction=r) for r in _EVERY],
    *[_cross_entropy(f"smoothing, {r}", _IDS, normal(4, 4), reduction=r, label_smoothing=0.2) for r in _EVERY],
    _cross_entropy("weight, smoothing", _IDS, normal(4, 4), _WEIGHT, label_smoothing=0.3),
    _cross_entropy("ignore_index=0", _IDS.clip(0), normal(4, 4), ignore_index=0),
    _cross_entropy("(C,)", np.array(1), normal(3)),
    _cross_entropy(
        "(N, C, d1, d2)", np.array([[[0, 1]], [[2, -100]]]), normal(2, 3, 1, 2), _WEIGHT[:3], label_smoothing=0.1
    ),
    _cross_entropy("(N, C, d1), none", np.array([[0, 1], [2, -100]]), normal(2, 3, 2), reduction="none"),
    *[_pairs("cross_entropy", normal(3, 4), _PROBABILITIES, reduction=r, label_smoothing=0.2) for r in _EVERY],
    _pairs("cross_entropy", normal(2, 3, 2), positive(2, 3, 2), label="probabilities, (N, C, d1)"),
    *[_head(f"reduction={r}", normal(4, 3), normal(4, 3), reduction=r) for r in _EVERY],
    *[_head(f"all, {r}", normal(2, 3, 2), normal(4, 2), 2.0, 0.1, label_smoothing=0.2, reduction=r) for r in _EVERY],
    *[_nll(f"reduction={r}", _IDS, normal(4, 4), reduction=r) for r in _EVERY],
    _nll("weight", _IDS, normal(4, 4), _WEIGHT),
    _nll("(C,)", np.array(1), normal(3)),
    _nll("(N, C, d1)", np.array([[0, 1], [2, -100]]), normal(2, 3, 2), _WEIGHT[:3], reduction="none"),
    *[_pairs("mse_loss", normal(3, 4), normal(3, 4), reduction=r) for r in _EVERY],
    _pairs("mse_loss", normal(), normal(), label="0-d"),
    *[_pairs("l1_loss", distinct(3, 4), given(_ZERO), reduction=r) for r in _EVERY],
    *[_pairs("huber_loss", distinct(3, 4, step=0.3), given(_ZERO), reduction=r, delta=0.7) for r in _EVERY],
    _pairs("huber_loss", distinct(3, 4, step=0.3), given(_ZERO)),
    _pairs("smooth_l1_loss", distinct(3, 4, step=0.3), given(_ZERO), beta=0.7),
    _pairs("smooth_l1_loss", distinct(3, 4), given(_ZERO), beta=0.0),
    *[_pairs("binary_cross_entropy", _PROBABILITIES, _PROBABILITIES, reduction=r) for r in _EVERY],
    _bce("binary_cross_entropy", _PROBABILITIES, {"weight": _WEIGHT}),
    *[_pairs(_LOGITS_BCE, normal(3, 4, scale=3.0), _PROBABILITIES, reduction=r) for r in _EVERY],
    _bce(_LOGITS_BCE, normal(3, 4), {"pos_weight": _WEIGHT}),
    _bce(_LOGITS_BCE, normal(3, 4), {"weight": _WEIGHT[:3, None], "pos_weight": _WEIGHT}),
    case(
        "bernoulli_nll", lambda x: F.bernoulli_nll(x, _like(x, _GREYS)), normal(2, 3, 4, scale=3.0),
        torch=lambda torch, x: torch.nn.functional.binary_cross_entropy_with_logits(
            x, torch.tensor(_GREYS).to(x.dtype), reduction="none").sum(-1),
    ),
    *[
        case(
            _LOGITS_BCE, lambda x, r=r: F.binary_cross_entropy_with_logits(x, _like(x, _GREYS), reduction=r),
            normal(2, 3, 4, scale=3.0), label=f"constant targets, {r}",
            torch=lambda torch, x, r=r: torch.nn.functional.binary_cross_entropy_with_logits(
                x, torch.tensor(_GREYS).to(x.dtype), reduction=r),
        )
        for r in _EVERY
    ],
    *[_pairs("kl_div", normal(3, 4), positive(3, 4), reduction=r) for r in ("sum", "none", "batchmean")],
    *[_pairs("kl_div", normal(3, 4), normal(3, 4), reduction=r, log_target=True) for r in ("sum", "none", "batchmean")],
]  # fmt: skip
