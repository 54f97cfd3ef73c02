"""What a figure was measured on: CPU, threads, libraries, load."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "torch", "jax", "jaxlib")


def describe(threads: int) -> dict[str, Any]:
    """The `machine` object of the JSON."""
    from kernels import simd
    from minillm import blas

    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "blas": str(np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("name", "unknown")),  # type: ignore
        "blas_core_type": blas.core_type(),
        "simd_lanes": simd.LANES32,
        "avx512_bf16": bool(simd.HAS_BF16),
        "caches": caches(),
        "threading_layer": _threading_layer(),
        "environment": {k: v for k in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "NUMBA_CPU_NAME", "KERNELS_SIMD_LANES")
                        if (v := os.environ.get(k))},
        "load_average": load_average(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }  # fmt: skip


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        info = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
        info = {k.strip(): v.strip() for k, v in info.items()}
        if "model name" in info:
            return f"{info['model name']} (family {info.get('cpu family')}, model {info.get('model')})"
    return platform.processor() or platform.machine()


def _threading_layer() -> str:
    import numba

    with contextlib.suppress(ValueError):  # nothing ran in parallel yet
        return str(numba.threading_layer())
    return ""


def caches() -> dict[str, int]:
    """Bytes of {"L1": a core's, "L2": a core's, "L3": shared}; empty where the system does not tell."""
    found: dict[str, int] = {}
    base = "/sys/devices/system/cpu/cpu0/cache"
    for entry in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        with contextlib.suppress(OSError, ValueError):
            kind, level, size = (_read(f"{base}/{entry}/{f}") for f in ("type", "level", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = int(size.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 1)
    return found


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


@dataclass
class Load:
    """How busy others kept the cores between `start` and `stop`: 0 idle, 1 all cores taken. NaN where unknown."""

    began: tuple[float, float, float] = (0.0, 0.0, 0.0)
    workers: tuple[int, ...] = ()  # processes that are ours

    @classmethod
    def start(cls, workers: tuple[int, ...] = ()) -> Load:
        return cls(_busy(workers), workers)

    def stop(self) -> float:
        clock, busy, own = (b - a for a, b in zip(self.began, _busy(self.workers)))
        cores = os.cpu_count() or 1
        return float(np.clip((busy - own) / (clock * cores), 0.0, 1.0)) if clock > 0.2 else float("nan")


def _busy(workers: tuple[int, ...]) -> tuple[float, float, float]:
    """Clock, busy CPU seconds of the machine (others' guests on this host count: steal), those that are ours."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system + sum(map(_seconds, workers))
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return time.perf_counter(), float("nan"), own
    return time.perf_counter(), (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), own


def _seconds(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended; of one that has ended itself, 0: ours by now."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            ticks = file.read().rpartition(")")[2].split()[11:15]
    except OSError:
        return 0.0
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def load_average() -> list[float]:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else []
