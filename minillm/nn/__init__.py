"""Layers, losses and containers, under PyTorch's names: a state dict fits in both.

>>> from minillm import nn, randn
>>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
>>> model(randn(5, 4)).shape
(5, 2)
"""

from . import init
from .activation import (
    ELU,
    GELU,
    Flatten,
    Identity,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    ReLU,
    ReLUSquared,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .attention import AdditiveAttention, DotProductAttention, MultiheadAttention, ScaledDotProductAttention
from .containers import ModuleList, Sequential
from .dropout import Dropout
from .embedding import Embedding
from .functional_call import functional_call
from .linear import Bilinear, Linear
from .loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
)
from .module import Module
from .norm import LayerNorm, RMSNorm
from .parameter import Parameter
from .stochastic_depth import StochasticDepth
from .summary import summary
from .transformer import TransformerBlock

__all__ = [
    "AdditiveAttention",
    "BCELoss",
    "BCEWithLogitsLoss",
    "Bilinear",
    "CrossEntropyLoss",
    "DotProductAttention",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GELU",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleList",
    "MultiheadAttention",
    "NLLLoss",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "ReLUSquared",
    "ScaledDotProductAttention",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "StochasticDepth",
    "Tanh",
    "TransformerBlock",
    "functional_call",
    "init",
    "summary",
]
