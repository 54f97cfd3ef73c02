"""An op's arguments: by position or by name, under PyTorch's names or NumPy's.

`axis` stands for `dim`, `keepdims` for `keepdim`; PyTorch's `input` and `other` for x and y.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from kernels.arrays import is_array

from . import errors

ALIASES = {"axis": "dim", "keepdims": "keepdim", "input": "x", "other": "y"}  # NumPy's and PyTorch's words -> ours
_SETTINGS = {int, float, bool, str, tuple, type(None)}  # types that are surely no Tensor and no array
_MISSING: Any = type("missing", (), {})()  # the default of an argument that has none
F = TypeVar("F", bound=Callable)


def parameters(function: Callable) -> tuple[dict[str, Any], str | None]:
    """({name: default}, name of the variadic one or None), off the code object: two hundred ops, and
    inspect.signature takes 30 us each."""
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    variadic = code.co_varnames[len(names)] if code.co_flags & inspect.CO_VARARGS else None
    defaults = dict.fromkeys(names, _MISSING)
    defaults.update(zip(reversed(positional), reversed(function.__defaults__ or ())))
    defaults.update(function.__kwdefaults__ or {})
    return defaults, variadic


class Arguments:
    """The parameters of `function`: `names` in order without the variadic one (`*tensors`), which stands in
    `variadic`."""

    def __init__(self, function: Callable):
        self.function = function.__name__
        self.defaults, self.variadic = parameters(function)
        self.names = list(self.defaults)

    def bind(self, args: tuple, settings: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """All arguments, defaults filled in: positional, except that settings beside a variadic argument stay named."""
        if not self.variadic and len(args) > len(self.names):
            raise TypeError(
                f"{self.function}() takes at most {len(self.names)} arguments ({', '.join(self.names)}); got "
                f"{len(args)}"
            )
        given = {} if self.variadic else dict(zip(self.names, args))
        for key, value in settings.items():
            name = ALIASES.get(key, key) if key not in self.defaults else key
            if name not in self.defaults or name in given:
                raise errors.bad_argument(self.function, key, self.names, name in given)
            given[name] = value
        full = {n: given.get(n, default) for n, default in self.defaults.items()}
        missing = [n for n, v in full.items() if v is _MISSING]
        if missing:
            raise TypeError(
                f"{self.function}() needs {', '.join(missing)}; its arguments are ({', '.join(self.names)})"
            )
        return (args, full) if self.variadic else (tuple(full.values()), {})


def unwrap(args: tuple, broadcasting: bool) -> tuple[list[Any], list[Any] | None, bool]:
    """What an op works on: (arrays and settings, the nodes they came from, whether the dtypes may differ).

    The nodes are None if none of the arguments is a Tensor.
    """
    arrays, nodes = [], []
    tensors = mixed = False
    dtype = None
    for a in args:
        node = None
        if type(a) in _SETTINGS:
            pass
        elif (given := getattr(a, "node", _MISSING)) is not _MISSING:  # a Tensor
            tensors, node, a = True, given, a.data
            if dtype is not a.dtype:
                mixed, dtype = mixed or dtype is not None, a.dtype
        elif isinstance(a, np.generic):  # a NumPy scalar is a strong float64 and would promote float32
            a = a.item()
        elif broadcasting and is_array(a):
            mixed = True
        arrays.append(a)
        nodes.append(node)
    return arrays, nodes if tensors else None, mixed


def split(result: Any, outputs: int) -> tuple[Any, dict]:
    """What a forward returned, as (array or tuple of arrays, extras)."""
    if type(result) is not tuple:
        return result, {}
    if isinstance(result[-1], dict):
        return (result[0] if outputs == 1 else result[:-1]), result[-1]
    return result, {}


def composed(function: F) -> F:
    """For a function written with ops: its arguments get the same aliases that an op's have.

    >>> @composed
    ... def total(x, dim=None, keepdim=False):
    ...     return dim, keepdim
    >>> total([1, 2], axis=0, keepdims=True)
    (0, True)
    """
    arguments = Arguments(function)

    @wraps(function)
    def call(*args: Any, **settings: Any) -> Any:
        if settings:
            args, settings = arguments.bind(args, settings)
        return function(*args, **settings)

    return call  # type: ignore[return-value]
