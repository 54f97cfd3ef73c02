"""Where arrays live: "cpu" (NumPy), "cuda" (CuPy), or a device that a test registers.

CuPy is imported only when somebody asks for "cuda" or hands in a CuPy array. A device is an array module (`xp`), a
way to bring a NumPy array there, and a way back; nothing else in the project knows about devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels.arrays import array_module, is_array
from kernels.arrays import register as _register_arrays

from . import capture
from .errors import DeviceError

__all__ = [
    "array_module",
    "array_module_of",
    "device_of",
    "in_use",
    "is_array",
    "is_available",
    "register",
    "to_device",
    "to_numpy",
]


class _Device(NamedTuple):
    module: Any  # xp
    from_numpy: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray]


_devices: dict[str, _Device] = {"cpu": _Device(np, lambda a: a, lambda a: a)}


def register(name: str, module: Any, array_type: type, from_numpy: Callable, to_numpy: Callable) -> None:
    """Add a device: `module` has NumPy's function names for arrays of `array_type`."""
    _register_arrays(array_type, module)
    _devices[name] = _Device(module, from_numpy, to_numpy)


def _device(name: str) -> _Device:
    name, _, number = str(name).partition(":")
    if number not in ("", "0"):
        raise DeviceError(
            f'device "{name}:{number}": one GPU is used, the first that the driver shows; to make it GPU {number}, '
            f"set CUDA_VISIBLE_DEVICES={number} before Python starts"
        )
    if name == "cuda" and "cuda" not in _devices:
        from .cuda.found import find_cupy

        cupy = find_cupy()
        register("cuda", cupy, cupy.ndarray, cupy.asarray, cupy.asnumpy)
    if name not in _devices:
        raise DeviceError(f"no device {name!r}: this machine knows {', '.join(sorted({*_devices, 'cuda'}))}")
    return _devices[name]


def in_use(name: str) -> bool:
    """True once somebody has asked for that device, and it was there."""
    return name in _devices


def is_available(name: str = "cuda") -> bool:
    """True if arrays can be put there."""
    try:
        _device(name)
    except DeviceError:
        return False
    return True


def array_module_of(name: str) -> Any:
    """The array module of a device: numpy for "cpu", cupy for "cuda"."""
    return _device(name).module


def device_of(x: Any) -> str:
    """The name of the device that holds the array `x`."""
    xp = array_module(x)
    if xp is np:
        return "cpu"
    if xp.__name__ == "cupy":
        return "cuda"
    return next((name for name, d in _devices.items() if d.module is xp), xp.__name__)


def to_device(x: Any, name: str) -> Any:
    """The array on another device; itself if it is there already."""
    target = _device(name)
    if array_module(x) is target.module:
        return x
    if capture.begun:
        capture.refuse("an array is copied between main memory and the GPU", "copy it before, or give it to the graph")
    return target.from_numpy(to_numpy(x))


def to_numpy(x: Any) -> np.ndarray:
    """The array in main memory; a GPU is waited for."""
    name = device_of(x)
    return np.asarray(x) if name == "cpu" else _device(name).to_numpy(x)
