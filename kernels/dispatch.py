"""Which implementation of a kernel runs.

A kernel is a folder; in it, modules of the same functions:

    reference.py   the specification: shortest correct array code, NumPy or CuPy
    cpu.py         Numba, parallel, NumPy arrays
    cuda.py        CUDA C: CuPy arrays, or NumPy arrays where `kernels.gpu.numpy_on` says what runs them

`implementation("layernorm", None, x)` picks by what was asked (`impl=`, else `use(...)`), then by array type and dtype.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from .arrays import array_module
from .gpu import launch

_FOLDER = os.path.dirname(__file__)
IMPLEMENTATIONS = ("reference", "cpu", "cuda")
_default: str | None = None


def _check(impl: str | None) -> str | None:
    if impl is not None and impl not in IMPLEMENTATIONS:
        raise ValueError(f"no kernel implementation {impl!r}: choose one of {', '.join(IMPLEMENTATIONS)}, or None")
    return impl


@contextmanager
def use(impl: str | None) -> Iterator[None]:
    """Inside the block, kernels called with impl=None run as `impl`: "reference", "cpu", "cuda"; None: by array."""
    global _default
    before, _default = _default, _check(impl)
    try:
        yield
    finally:
        _default = before


def set_default(impl: str | None) -> None:
    """As `use`, for the rest of the process."""
    global _default
    _default = _check(impl)


def kernel_names() -> tuple[str, ...]:
    """The kernels that exist: the folders beside this file that hold a reference.py."""
    return tuple(sorted(name for name in os.listdir(_FOLDER) if _has(name, "reference")))


@cache  # asked on every call; a look at the disk takes 9 us
def _has(kernel: str, impl: str) -> bool:
    return os.path.exists(os.path.join(_FOLDER, kernel, f"{impl}.py"))


@cache
def _numba_found() -> bool:
    return importlib.util.find_spec("numba") is not None


@cache
def _cuda_found() -> bool:
    """CuPy imports, and a driver with at least one device answers."""
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except Exception:
        return False


def available() -> dict[str, tuple[str, ...]]:
    """What this machine can run: {kernel: its implementations}.

    >>> "reference" in available()["attention"]
    True
    """
    runs = {"reference": True, "cpu": _numba_found(), "cuda": _cuda_found()}
    return {k: tuple(i for i in IMPLEMENTATIONS if runs[i] and _has(k, i)) for k in kernel_names()}


@cache
def _load(kernel: str, impl: str) -> ModuleType:
    return importlib.import_module(f"kernels.{kernel}.{impl}")


def implementation(kernel: str, impl: str | None, x: Any) -> ModuleType:
    """The module that runs `kernel` on arrays like `x`.

    impl=None takes the default set by `use`, and where that does not fit the array (the CUDA kernel and a NumPy
    array, a dtype that only the reference knows) the best that does. An `impl` asked for by name that cannot run is
    an error.
    """
    key = (kernel, impl, _default, type(x), x.dtype, launch.numpy_runs)
    module = _chosen.get(key)  # the search takes 2 us, more than some kernels
    if module is None:
        module = _chosen[key] = _choose(kernel, impl, x)
    return module


_chosen: dict[tuple[Any, ...], ModuleType] = {}


def _choose(kernel: str, impl: str | None, x: Any) -> ModuleType:
    xp = array_module(x)
    fits = {"reference": True, "cpu": xp is np and x.dtype in (np.float32, np.float64) and _numba_found()}
    stored = x.dtype.name in ("float32", "float16", "bfloat16")
    # NumPy arrays go to the simulator by name only
    by_name = "cuda" in (impl, _default) and launch.numpy_runs
    fits["cuda"] = stored and (xp.__name__ == "cupy" or (xp is np and by_name))
    if _check(impl) is not None:
        if not _has(kernel, impl):  # type: ignore[arg-type]
            has = ", ".join(i for i in IMPLEMENTATIONS if _has(kernel, i))
            raise ValueError(f"kernel {kernel!r} has no {impl!r} implementation; it has {has}")
        if not fits[impl]:  # type: ignore[index]
            needs = {
                "cpu": "NumPy arrays of float32 or float64, and numba",
                "cuda": "CuPy arrays of float32, float16 or bfloat16",
            }
            got = f"{type(x).__module__}.{type(x).__name__} of {x.dtype}"
            raise TypeError(f"{kernel} with impl={impl!r} needs {needs[impl]}; got {got}")  # type: ignore[index]
        return _load(kernel, impl)  # type: ignore[arg-type]
    order = (_default, "cuda", "cpu", "reference") if _default else ("cuda", "cpu", "reference")
    for name in order:
        if name and fits[name] and _has(kernel, name):
            return _load(kernel, name)
    raise AssertionError("unreachable: every kernel has a reference")
