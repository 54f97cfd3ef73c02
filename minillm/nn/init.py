"""Initialisers: fill a tensor in place, from minillm's counter-based generator, and return it.

The same seed gives the same weights on every device. Bounds and gains are PyTorch's; fan_in and fan_out are those of a
weight (out, in, ...): fan_in = in * receptive field, fan_out = out * receptive field.

    xavier     U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out))     Glorot and Bengio 2010
    kaiming    U(-a, a), a = gain * sqrt(3 / fan)                    He et al. 2015, arXiv:1502.01852

A layer's own default is stated in its docstring. `kaiming_uniform_(w, a=sqrt(5))` is Linear's: a = 1 / sqrt(fan_in).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import random
from ..recording import no_grad
from ..tensor import Tensor


class _State(threading.local):
    skipping = False


_state = _State()


@contextmanager
def skipped() -> Iterator[None]:
    """Inside the block initialisers draw nothing and write nothing: for a model whose weights are all set next.

    Numbers of a new parameter are then whatever the memory held. The memory itself is taken only when it is written.
    """
    before, _state.skipping = _state.skipping, True
    try:
        yield
    finally:
        _state.skipping = before


GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """U(a, b)."""
    if _state.skipping:
        return tensor
    draw = (generator or random.default_generator).uniform
    return _fill(tensor, draw(tensor.shape, a, b, dtype=tensor.dtype, device=tensor.device))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """N(mean, std^2)."""
    if _state.skipping:
        return tensor
    draw = (generator or random.default_generator).normal
    return _fill(tensor, draw(tensor.shape, mean, std, dtype=tensor.dtype, device=tensor.device))


def constant_(tensor: Tensor, value: float) -> Tensor:
    """One number everywhere."""
    return _fill(tensor, value)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return _fill(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return _fill(tensor, 1)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """N(0, std^2), std = gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:
    """U(-b, b), b = gain * sqrt(3 / fan); `a` is leaky_relu's slope, mode "fan_in" or "fan_out"."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:
    """N(0, std^2), std = gain / sqrt(fan)."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def calculate_gain(nonlinearity: str, slope: float | None = None) -> float:
    """What keeps the variance of activations through a nonlinearity: sqrt(2) for relu, 5/3 for tanh, 1 for linear."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if slope is None else slope) ** 2))
    if nonlinearity not in GAINS:
        raise ValueError(f"no gain for {nonlinearity!r}: choose one of {', '.join(sorted({*GAINS, 'leaky_relu'}))}")
    return GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, ...)."""
    if tensor.ndim < 2:
        raise ValueError(f"fan_in and fan_out need a weight of shape (out, in, ...); this one has shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode is "fan_in" or "fan_out"; got {mode!r}')
    return max(1, fans(tensor)[mode == "fan_out"])


def _fill(tensor: Tensor, values: Any) -> Tensor:
    if _state.skipping:
        return tensor
    with no_grad():
        return tensor.copy_(values)
