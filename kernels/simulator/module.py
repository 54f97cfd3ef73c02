"""A CUDA source compiled for the simulator, and its kernels, called as CuPy's are."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..gpu.launch import flatten
from . import report as reports
from .build import SimulatorError, kernel_library, with_places

COUNTERS = ("bank_conflicts", "ldmatrix", "mma", "cp_async", "wgmma", "tma", "barriers")


class _Launch(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("late", ctypes.c_uint32),
        ("check", ctypes.c_uint32),
        ("trace", ctypes.c_uint32),
        ("trace_warp", ctypes.c_uint32),
        ("shared_limit", ctypes.c_uint32),
        ("trace_steps", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("buffers", ctypes.c_uint64),
        ("buffer_count", ctypes.c_uint64),
        ("counters", ctypes.c_uint64),
    ]


_BUFFER = np.dtype(
    [("address", np.uint64), ("bytes", np.uint64), ("argument", np.uint32), ("read_only", np.uint32)]
    + [("format", np.uint32), ("unused", np.uint32)]
)
_SHARED_KB = {"750": 64, "800": 163, "860": 99, "890": 99, "900": 227, "1000": 227, "1200": 99}  # of a block at most
_FORMATS = {"bfloat16": 1, "float16": 2, "float32": 3, "int32": 4}

_one_at_a_time = threading.Lock()
counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)  # of the last launch


class SimulatedModule:
    """A source, compiled for the simulator: as cupy.RawModule, get_function(name) returns something to launch."""

    def __init__(
        self,
        source: Path | str,
        defines: dict[str, object] | None = None,
        *,
        arch: str = "sm_90a",
        check: bool = False,
    ) -> None:
        """source: the path of a .cu file, or its text. defines: its macros. arch: what __CUDA_ARCH__ stands for.

        check: every access to memory is checked, see `kernels.simulator`.
        """
        text = flatten(source) if isinstance(source, Path) else source
        names = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*(?:\([^)]*\))?[^)]*\)\s*)?(\w+)\s*\(", text)
        exports = "".join(
            f'__attribute__((visibility("default"))) const char* run_{name}(void* sim_l, void** sim_a) '
            f"{{ return sim::run_kernel<{name}>::run(sim_l, sim_a); }}\n"
            for name in names
        )
        macros = {"__CUDA_ARCH__": re.sub(r"\D", "", arch) + "0", **(defines or {})}
        head = "".join(f"#define {key} {value}\n" for key, value in macros.items())
        if not text.startswith("#line"):
            text = '#line 1 "kernel.cu"\n' + text
        text = f'#include "cuda.h"\n{head}{text}\n#line 1 "exports"\nextern "C" {{\n{exports}}}\n'
        self._library, self._path = kernel_library(text, check)
        self.names, self._check = names, check
        self._shared_limit = _SHARED_KB.get(str(macros["__CUDA_ARCH__"]), 227) << 10

    def get_function(self, name: str, *, seed: int = 0, late: int = 3) -> Callable[..., None]:
        """A kernel, called as run((blocks,), (threads,), arguments, shared_mem=bytes). It raises SimulatorError."""
        if name not in self.names:
            raise ValueError(f"no kernel {name!r} in this source; it has {', '.join(self.names)}")
        function = getattr(self._library, f"run_{name}")
        function.restype = ctypes.c_char_p

        def run(grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_mem: int = 0) -> None:
            values = [_value(x) for x in arguments]
            buffers = np.array([b for i, x in enumerate(arguments) for b in _buffers(i, x)], _BUFFER)
            pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
            counts = np.zeros(len(COUNTERS), np.uint64)
            launch = _Launch(_three(grid), _three(block), shared_mem, late, self._check)
            launch.shared_limit = self._shared_limit
            launch.trace, launch.trace_warp, launch.trace_steps = reports.tracing()
            launch.seed, launch.buffers, launch.buffer_count = seed, buffers.ctypes.data, len(buffers)
            launch.counters = counts.ctypes.data
            with _one_at_a_time:
                error = function(ctypes.byref(launch), pointers).decode()
            counters.update(zip(COUNTERS, counts.tolist()))
            sizes = tuple(launch.grid), tuple(launch.block), shared_mem
            reports.launched(name, self._path, *sizes, self._check, counters)
            if error:
                raise SimulatorError(f"{name}: {_with_arrays(with_places(self._path, error), arguments)}")

        return run


def _arrays(x: Any) -> list[np.ndarray]:
    """Those that a kernel reaches through an argument: it is one, or has some (`array`, `arrays`: a tensor map)."""
    if isinstance(x, np.ndarray):
        return [x] if x.dtype.names is None else []
    found = getattr(x, "arrays", None) or [getattr(x, "array", None)]
    return [a for a in found if isinstance(a, np.ndarray)]


def _with_arrays(text: str, arguments: Sequence[Any]) -> str:
    """The message, with what "argument 1" is."""
    for i in sorted({int(n) for n in re.findall(r"\bargument (\d+)", text)}):
        text += f"; argument {i}: " + ", ".join(f"{x.dtype} {x.shape}" for x in _arrays(arguments[i]))
    return text


def _three(sizes: tuple[int, ...]) -> Any:
    return (ctypes.c_uint32 * 3)(*(int(n) for n in (*sizes, 1, 1)[:3]))


def _buffers(number: int, x: Any) -> list[tuple[int, ...]]:
    """The global memory that comes with an argument, as _BUFFER."""
    return [
        (a.ctypes.data, a.nbytes, number, not a.flags.writeable, _FORMATS.get(a.dtype.name, 0), 0) for a in _arrays(x)
    ]


def _value(x: Any) -> np.ndarray:
    """The bytes of an argument, at an address that is a multiple of 64: a pointer for an array, else its value."""
    if hasattr(x, "kernel_argument"):
        x = x.kernel_argument(True)
    if x is None:
        x = np.uint64(0)
    elif isinstance(x, np.ndarray) and x.dtype.names is None:
        if not x.flags.c_contiguous:
            raise ValueError(f"a CUDA kernel takes contiguous arrays; got strides {x.strides} for shape {x.shape}")
        x = np.uint64(x.ctypes.data)
    raw = np.frombuffer(np.asarray(x).tobytes(), np.uint8)
    room = np.zeros(raw.size + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + raw.size] = raw
    return room[start : start + raw.size]
