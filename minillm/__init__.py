"""minillm: a deep-learning stack small enough to read.

>>> import minillm
>>> x = minillm.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> loss = (x ** 2).sum()
>>> loss.backward()
>>> x.grad
tensor([2., 4., 6.])

Where to read: engine.py (all of autograd), ops/ (each op with its gradient), nn/, models/, and the package `kernels`
beside this one.
"""

import importlib
from typing import Any

import kernels as _kernels

if getattr(_kernels, "PACKAGE", None) != "minillm-kernels":
    raise ImportError(
        "minillm needs its own package 'kernels', but Python found another one at "
        f"{getattr(_kernels, '__file__', '?')}. "
        "Uninstall that one (pip uninstall kernels) or use a fresh virtual environment, then install minillm again."
    )

from . import functional
from .anomaly import AnomalyError, detect_anomaly
from .checkpoint import checkpoint
from .creation import *
from .dtypes import float16, float32, float64, int32, int64, uint8
from .engine import op
from .errors import DeviceError, GraphError, nearest
from .functional import *
from .precision import autocast
from .random import Generator, get_rng_state, manual_seed, set_rng_state
from .recording import enable_grad, is_grad_enabled, no_grad
from .tensor import Tensor
from .transforms import grad, gradients, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from .writes import mark_written

__version__ = "0.1.0"

_LATER = (
    "baselines", "cuda", "data", "explain", "generation", "models", "nn", "optim", "recipes", "testing", "text",
    "training",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """minillm.nn, minillm.optim and the like load when first used, so that `import minillm` stays quick."""
    if name in _LATER:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'minillm' has no attribute {name!r}.{nearest(name, [*globals(), *_LATER])}")
