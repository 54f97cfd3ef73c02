"""Optimizers and gradient clipping, under PyTorch's names.

>>> from minillm import nn, optim, tensor
>>> x = nn.Parameter([1.0, -2.0])
>>> sgd = optim.SGD([x], lr=0.1)
>>> (x * x).sum().backward(); sgd.step(); x.detach()
tensor([ 0.8, -1.6])
"""

from .adam import Adam, AdamW
from .clip import clip_grad_norm_, clip_grad_value_
from .groups import decay_groups, muon_groups
from .muon import Muon
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .schedule import warmup_cosine, warmup_linear, warmup_stable_decay
from .several import Optimizers
from .sgd import SGD

__all__ = [
    "SGD", "Adam", "AdamW", "Muon", "Optimizer", "Optimizers", "RMSprop", "clip_grad_norm_", "clip_grad_value_",
    "decay_groups", "muon_groups", "warmup_cosine", "warmup_linear", "warmup_stable_decay",
]  # fmt: skip
