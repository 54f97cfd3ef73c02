"""Is there a GPU that can be used? CuPy, or one sentence that says what is missing and what to do."""

from __future__ import annotations

import importlib.util
from typing import Any

from ..errors import DeviceError

OLDEST = (7, 5)  # compute capability: Turing. CUDA 13 compiles for nothing older


def find_cupy() -> Any:
    """The module cupy, once a GPU answers through it. DeviceError, one sentence, where none does."""
    if importlib.util.find_spec("cupy") is None:
        raise DeviceError(
            'device "cuda" needs CuPy, which is not installed. In the project folder: pip install -e ".[cuda13]" '
            "(or .[cuda12]); or leave --device out, and everything runs on the CPU"
        )
    try:
        import cupy

        runtime = cupy.cuda.runtime
    except ImportError as error:
        raise DeviceError(
            f'device "cuda": CuPy is installed but does not load ({_first_line(error)}). Install it again: '
            'pip install -e ".[cuda13]" in the project folder, and no second package of CuPy beside it'
        ) from error
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        raise DeviceError(f'device "cuda": {_no_driver(runtime, error)}') from error
    if count == 0:
        raise DeviceError(f'device "cuda": {_NO_GPU}')
    properties = runtime.getDeviceProperties(runtime.getDevice())
    has = properties["major"], properties["minor"]
    if has < OLDEST:
        raise DeviceError(
            f'device "cuda": the {_name(properties)} is of compute capability {has[0]}.{has[1]}, and the oldest that '
            f"works here is {OLDEST[0]}.{OLDEST[1]} (Turing, 2018); leave --device out, and everything runs on the CPU"
        )
    missing = _no_compiler()
    if missing:
        raise DeviceError(f'device "cuda": {missing}')
    return cupy


_NO_GPU = "the NVIDIA driver reports no GPU; does nvidia-smi list one, and is CUDA_VISIBLE_DEVICES empty or unset?"


def _no_driver(runtime: Any, error: Exception) -> str:
    """Why CuPy cannot count the GPUs."""
    try:
        driver, built_for = int(runtime.driverGetVersion()), int(runtime.runtimeGetVersion())
    except Exception:
        driver, built_for = -1, 0
    if driver == 0:
        return (
            "CuPy is installed, but no NVIDIA driver answers; install the driver of your GPU (nvidia-smi then lists "
            "it), and start a container with its GPUs (docker run --gpus all)"
        )
    if 0 < driver // 1000 < built_for // 1000:
        return (
            f"the NVIDIA driver is made for CUDA {version(driver)} and the installed CuPy for CUDA "
            f"{version(built_for)}; update the driver, or install the CuPy that fits it: "
            f'pip uninstall cupy-cuda{built_for // 1000}x, then pip install -e ".[cuda{driver // 1000}]"'
        )
    if "cudaErrorNoDevice" in str(error):
        return _NO_GPU
    return f"CuPy is installed, but the NVIDIA driver does not answer ({_first_line(error)})"


def _no_compiler() -> str:
    """What is missing of NVRTC, which compiles every kernel; "" if nothing is."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:
        return (
            f"CuPy finds no NVRTC, the compiler of its kernels ({_first_line(error)}). In the project folder: "
            'pip install -e ".[cuda13]" (or .[cuda12]) brings it'
        )
    return ""


def has_bf16() -> bool:
    """Whether the GPU's tensor cores multiply bfloat16 numbers: from compute capability 8.0 (Ampere) on."""
    return int(find_cupy().cuda.Device().compute_capability) >= 80


def version(number: int) -> str:
    """A CUDA version as people write it.

    >>> version(13020)
    '13.2'
    """
    return f"{number // 1000}.{number % 1000 // 10}"


def _name(properties: Any) -> str:
    name = properties["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
