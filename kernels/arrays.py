"""Which library an array belongs to: NumPy, CuPy, or one that a test registers.

Every line of array code in this repository is written against *an* array module `xp`:

    >>> import numpy as np
    >>> x = np.ones(3, np.float32)
    >>> xp = array_module(x)            # numpy here, cupy for an array on a GPU
    >>> xp.exp(x).dtype
    dtype('float32')

so that the same source runs on both. CuPy is looked up only when a CuPy array turns up.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

_MODULES: dict[type, Any] = {np.ndarray: np}


def register(array_type: type, module: ModuleType | Any) -> None:
    """Make `array_module` answer `module` for arrays of `array_type` (a test's stand-in, another array library)."""
    _MODULES[array_type] = module


def array_module(*arrays: Any) -> Any:
    """The array module of the first argument that is an array; NumPy for Python and NumPy scalars."""
    for x in arrays:
        module = _MODULES.get(type(x))
        if module is not None:
            return module
        if type(x).__module__.split(".")[0] == "cupy":
            import cupy

            register(cupy.ndarray, cupy)
            return cupy
        if isinstance(x, np.ndarray):  # a subclass: memory maps, for one
            return np
    return np


def is_array(x: Any) -> bool:
    """True for an array of any registered library; False for Python scalars, NumPy scalars, lists and None."""
    if type(x) in _MODULES:
        return True
    return isinstance(x, np.ndarray) or (type(x).__module__.split(".")[0] == "cupy" and type(x).__name__ == "ndarray")
