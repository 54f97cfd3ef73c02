"""Gradient clipping: no step longer than intended."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

import kernels

from ..device import array_module
from ..tensor import Tensor
from ..writes import mark_written
from .flat import whole_grads


def clip_grad_norm_(
    parameters: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients in place so that their norm, taken as one long vector, is at most max_norm; return the norm.

        norm  = (sum |g|^norm_type)^(1/norm_type), or max |g| for norm_type=inf
        grads = grads * min(1, max_norm / (norm + 1e-6))

    The norm before clipping comes back as a 0-d Tensor of the gradients' dtype on their device (no wait for a
    GPU); it is accumulated in float64. Parameters without a gradient are passed over. A norm that is NaN or infinite
    makes gradients NaN or 0, or raises with error_if_nonfinite. Source: Pascanu et al. 2013, arXiv:1211.5063.
    """
    if not max_norm >= 0 or not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: needs max_norm >= 0 and norm_type > 0; got {max_norm} and {norm_type}")
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = whole_grads(parameters)
    if not any(g.size for g in grads):
        return Tensor(0.0)
    xp = array_module(grads[0])
    norm = _norm(grads, norm_type)
    if error_if_nonfinite and not xp.isfinite(norm):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {float(norm)}; nothing was clipped")
    scale = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    if xp is not np or scale != 1:  # on a GPU the question would wait for the answer
        for g in grads:
            g *= scale.astype(g.dtype)
        for p in parameters:
            if p.grad is not None:
                mark_written(p.grad.data)
    return Tensor(xp.asarray(norm, dtype=grads[0].dtype))


def total_norm(parameters: Iterable[Tensor], norm_type: float = 2.0) -> Any:
    """The norm of all gradients as one long vector, a float64 number; 0 if there is none."""
    grads = whole_grads(list(parameters))
    return _norm(grads, norm_type) if any(g.size for g in grads) else 0.0


def _norm(grads: list[Any], norm_type: float) -> Any:
    xp = array_module(grads[0])
    if norm_type == 2 and xp is np:
        norms = [kernels.global_norm(g) for g in grads]
        return np.sqrt(np.float64(sum([n * n for n in norms]))) if len(norms) > 1 else np.float64(norms[0])
    if norm_type == 2:
        dtypes = dict.fromkeys(g.dtype for g in grads)
        return xp.sqrt(sum(kernels.sum_of_squares([g for g in grads if g.dtype == dtype]) for dtype in dtypes))
    if norm_type == math.inf:
        return xp.stack([abs(g).max().astype(xp.float64) for g in grads if g.size]).max()
    return xp.stack([(abs(g.astype(xp.float64)) ** norm_type).sum() for g in grads]).sum() ** (1 / norm_type)


def clip_grad_value_(parameters: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Clip every element of every gradient to -clip_value .. clip_value, in place."""
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: needs clip_value >= 0; got {clip_value}")
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        if p.grad is not None:
            g = p.grad.data
            array_module(g).clip(g, -clip_value, clip_value, out=g)
            mark_written(g)
