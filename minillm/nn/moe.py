"""A mixture of experts: many feed-forward networks, of which each token uses a few, chosen by a router.

    p = softmax(router(x))                                       (N, E)
    y = sum over the k largest p_e of  p_e / (their sum) * expert_e(x)

Weights grow with the number of experts, work with k only. Left alone a router sends all tokens to few experts; the
balance loss, E sum_e f_e P_e, with f_e the share of choices that fell on e and P_e the mean of p_e, is smallest (1)
where all are chosen alike. Sources: Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, Switch Transformers,
arXiv:2101.03961 (balance loss, capacity); Jiang et al. 2024, Mixtral, arXiv:2401.04088 (weights among the chosen).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..device import array_module, to_device, to_numpy
from ..ops.index import right_indices
from .containers import ModuleList
from .linear import Linear
from .module import Module


class MixtureOfExperts(Module):
    """x (..., width) -> the same shape, through the `top_k` experts that the router likes best for each token.

    make_expert      () -> a module (N, width) -> (N, width)
    capacity_factor  c: an expert takes at most ceil(c * top_k * N / experts) tokens, the first that come; what is left
                     over gets nothing from it (the residual stream carries the token on). In training mode only. None:
                     all that come
    balance          after a forward pass in training mode: the balance loss, a scalar Tensor; else None
    """

    def __init__(
        self,
        width: int,
        experts: int,
        top_k: int,
        make_expert: Callable[[], Module],
        capacity_factor: float | None = None,
    ):
        if not 1 <= top_k <= experts:
            raise ValueError(f"MixtureOfExperts: top_k must be from 1 to experts={experts}, got {top_k}")
        if capacity_factor is not None and not capacity_factor > 0:
            raise ValueError(f"MixtureOfExperts: capacity_factor must be above 0, or None; got {capacity_factor}")
        self.top_k, self.capacity_factor = top_k, capacity_factor
        self.router = Linear(width, experts, bias=False)
        self.experts = ModuleList([make_expert() for _ in range(experts)])
        self.balance: Any = None

    def forward(self, x: Any) -> Any:
        tokens = F.reshape(x, (-1, x.shape[-1]))  # (N, width)
        p = F.softmax(self.router(tokens), dim=-1)  # (N, E)
        chosen = np.argsort(-to_numpy(p.detach().data), axis=-1, kind="stable")[:, : self.top_k]  # (N, k)
        with right_indices():
            y, parts = self._mixed(tokens, p, chosen)
        self.balance = self._balance(p, chosen) if self.training and parts else None
        return F.reshape(y, x.shape)

    def _mixed(self, tokens: Any, p: Any, chosen: Any) -> tuple[Any, list]:
        """(y (N, width), the experts' results); chosen (N, k), in main memory."""
        kept = F.gather(p, 1, to_device(chosen, tokens.device))  # (N, k)
        weights = kept / F.sum(kept, -1, True)
        whose, parts, room = [], [], self._room(len(chosen))
        for e, expert in enumerate(self.experts):
            token, place = (index[:room] for index in np.nonzero(chosen == e))  # in the order of the tokens
            if len(token):
                token, place = to_device(token, tokens.device), to_device(place, tokens.device)
                whose.append(token)
                parts.append(expert(F.index_select(tokens, 0, token)) * F.unsqueeze(weights[token, place], -1))
        xp = array_module(tokens.data)
        zeros = xp.zeros(tokens.shape, tokens.dtype)
        return F.index_add(zeros, 0, xp.concatenate(whose), F.cat(parts, 0)) if parts else tokens, parts

    def _room(self, tokens: int) -> int | None:
        if self.capacity_factor is None or not self.training:  # in use a text must not depend on what else is read
            return None
        return math.ceil(self.capacity_factor * self.top_k * tokens / len(self.experts))

    def _balance(self, p: Any, chosen: Any) -> Any:
        share = np.bincount(chosen.reshape(-1), minlength=len(self.experts)) / chosen.size  # (E,)
        return F.sum(F.mean(p, 0) * to_device(share.astype(p.dtype), p.device)) * len(self.experts)

    def extra_repr(self) -> str:
        return f"experts={len(self.experts)}, top_k={self.top_k}, capacity_factor={self.capacity_factor}"
