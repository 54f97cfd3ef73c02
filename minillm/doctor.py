"""`minillm doctor`: what this machine has that matters here, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import NamedTuple

from . import blas


class Fact(NamedTuple):
    what: str
    found: str
    ok: bool
    advice: str = ""


def examine() -> list[Fact]:
    """One fact a line, in the order that a reader wants them."""
    facts = [
        Fact(
            "Python",
            f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            sys.version_info >= (3, 11),
        )
    ]
    facts += [_version(name) for name in ("minillm", "numpy", "numba", "safetensors", "rich", "matplotlib")]
    facts += [_blas(), _threads(), _simd(), _gpu(), _nvrtc(), _compiler(), _kernels()]
    facts += [
        _optional("torch", "bench", "comparisons with PyTorch"),
    ]
    return facts


def render(facts: list[Fact]) -> str:
    """The facts as aligned lines; `!` marks what needs attention."""
    width = max(len(f.what) for f in facts)
    lines = []
    for f in facts:
        lines.append(f"{' ' if f.ok else '!'} {f.what:<{width}}  {f.found}")
        if f.advice:
            lines.append(f"  {'':<{width}}  -> {f.advice}")
    return "\n".join(lines)


def _version(name: str) -> Fact:
    try:
        return Fact(name, importlib.metadata.version(name), True)
    except importlib.metadata.PackageNotFoundError:
        if name == "minillm":
            return Fact(name, "run from its source folder, not installed", True)
        return Fact(name, "not installed", False, f"pip install {name}")


def _optional(name: str, extra: str, purpose: str) -> Fact:
    if importlib.util.find_spec(name) is None:
        advice = f'pip install -e ".[{extra}]" in the project folder'
        return Fact(name, f"not installed (only for {purpose})", True, advice)
    return _version(name)


def _blas() -> Fact:
    import numpy as np

    name = str(np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("name", "unknown"))  # type: ignore[call-overload,index]
    if blas.openblas() is None:
        return Fact("BLAS", name, True)
    text = f"{name}, core type {blas.core_type()}, {blas.threads()} threads (models use `kernels.matmul`)"
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        advice = (
            f"OPENBLAS_CORETYPE={forced} is set: NumPy's products may run at half speed. Unset it before Python starts"
        )
        return Fact("BLAS", text, False, advice)
    return Fact("BLAS", text, True)


def _threads() -> Fact:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    held = {k: v for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS") if (v := os.environ.get(k))}
    text = f"{usable} usable cores" + "".join(f", {k}={v}" for k, v in held.items())
    low = [k for k, v in held.items() if v.isdigit() and int(v) < usable]
    return Fact("threads", text, not low, f"unset {', '.join(low)} to use all cores" if low else "")


def _simd() -> Fact:
    """float32 numbers per vector register, from the CPU features that the JIT compiler sees."""
    if importlib.util.find_spec("llvmlite") is None:
        return Fact("SIMD", "unknown without numba", False, "pip install numba")
    from llvmlite import binding

    has = binding.get_host_cpu_features()
    for feature, lanes, label in (
        ("avx512f", 16, "AVX-512"),
        ("avx2", 8, "AVX2"),
        ("neon", 4, "NEON"),
        ("sse2", 4, "SSE2"),
    ):
        if has.get(feature):
            extra = " and bfloat16 products" if has.get("avx512bf16") else ""
            return Fact("SIMD", f"{lanes} float32 a register ({label}{extra}), {binding.get_host_cpu_name()}", True)
    return Fact("SIMD", binding.get_host_cpu_name(), True)


def _gpu() -> Fact:
    from .cuda import find_cupy, memory
    from .cuda.found import version
    from .errors import DeviceError

    try:
        cupy = find_cupy()
    except DeviceError as error:
        return Fact("GPU", "none in use", True, f"{error}; everything runs on the CPU")
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    text = (
        f"{properties['name'].decode()}, sm_{properties['major']}{properties['minor']}, CuPy {cupy.__version__} for "
        f"CUDA {version(runtime.runtimeGetVersion())}, "
        f"driver for CUDA {version(runtime.driverGetVersion())}; {memory()}"
    )
    return Fact("GPU", text, True)


def _nvrtc() -> Fact:
    """The compiler of CUDA kernels: it needs no GPU, so that kernels can be checked anywhere."""
    advice = 'pip install -e ".[cuda13]" (or .[cuda12]) in the project folder'
    if importlib.util.find_spec("cupy") is None:
        return Fact("NVRTC", "not installed (it comes with CuPy's extra, and compiles CUDA kernels)", True, advice)
    try:
        from cupy.cuda import nvrtc

        major, minor = nvrtc.getVersion()
    except Exception as error:
        return Fact("NVRTC", f"CuPy finds none ({(str(error).splitlines() or ['?'])[0]})", False, advice)
    return Fact("NVRTC", f"{major}.{minor}, compiles CUDA kernels for all GPUs, with one or without", True)


def _compiler() -> Fact:
    """What the simulator of CUDA compiles kernels with."""
    from kernels.simulator import NoCompiler, compiler

    try:
        return Fact("C++ compiler", f"{compiler()}, for the simulator of CUDA kernels", True)
    except NoCompiler as error:
        return Fact("C++ compiler", "none found (only for the simulator of CUDA kernels)", True, str(error))


def _kernels() -> Fact:
    import kernels

    runs = kernels.available()
    kinds = sorted({i for found in runs.values() for i in found})
    ok = "cpu" in kinds
    return Fact(
        "kernels",
        f"{', '.join(runs)}; as {', '.join(kinds)}",
        ok,
        "" if ok else "pip install numba for the fast CPU kernels",
    )
