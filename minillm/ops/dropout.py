"""Dropout: zeros at random while training."""

from __future__ import annotations

import math
from typing import Any

import kernels

from .. import random
from ..engine import op

__all__ = ["dropout"]


@op
def dropout_at(x, p, key):
    """x / (1 - p) where a uniform number is >= p, else 0. The numbers are functions of `key`: no mask is stored."""
    return kernels.dropout_forward(x, p, *key)


dropout_at.__name__ = "dropout"  # what errors and pictures of the graph show


@dropout_at.vjp
def _(dout, p, key):
    return dropout_at(dout, p, key)  # linear in x: its gradient is the same mask, made again from the key


def dropout(x: Any, p: float = 0.5, training: bool = True, generator: random.Generator | None = None) -> Any:
    """Each element is zeroed with probability p, the others are divided by 1 - p: the expectation stays x.

    training   False (evaluation), and p = 0: x itself
    generator  a `minillm.random.Generator`; None is the default one, which `manual_seed` seeds. Every call takes new
               numbers; the gradient uses those of its forward pass.

    Source: Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 15.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is the probability of a zero, from 0 to 1; got {p}")
    if not training or p == 0:
        return x
    generator = random.default_generator if generator is None else generator
    return dropout_at(x, p, generator.reserve(math.prod(x.shape)))
