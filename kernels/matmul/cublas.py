"""Two functions of cuBLAS, called directly: CuPy's wrappers refuse to be recorded in a CUDA graph.

CuPy 14 raises "calling cuBLAS API during stream capture is currently unsupported" where a stream records; the library
itself can be recorded. So its functions are called here by address, on CuPy's handle and CuPy's current stream, with
the arguments of CuPy's wrappers. The library file is the one that CuPy has loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_ONE_MATRIX = [_POINTER, _INT, _INT]  # address, cudaDataType_t, leading dimension
_MATRICES = [*_ONE_MATRIX, _LONG]  # and the distance between matrices
_HEAD = [_POINTER, *[_INT] * 5, _POINTER]  # handle, transa, transb, m, n, k, alpha
_SIGNATURES: dict[str, list[Any]] = {
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasGemmEx": [*_HEAD, *_ONE_MATRIX * 2, _POINTER, *_ONE_MATRIX, _INT, _INT],
    "cublasGemmStridedBatchedEx": [*_HEAD, *_MATRICES * 2, _POINTER, *_MATRICES, _INT, _INT, _INT],
}
_STATUS = {
    1: "not initialized", 3: "allocation failed", 7: "invalid value", 8: "architecture mismatch",
    13: "execution failed", 14: "internal error", 15: "not supported",
}  # fmt: skip


class Cublas:
    """gemmEx and gemmStridedBatchedEx with the arguments of CuPy's functions of those names.

    library   what has the C functions (a ctypes.CDLL)
    stream    gives the address of the stream to run on
    """

    def __init__(self, library: Any, stream: Callable[[], int]) -> None:
        self._functions = {}
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, _INT
            self._functions[name] = function
        self._stream = stream

    def gemmEx(self, handle: int, *arguments: int) -> None:
        self._call("cublasSetStream_v2", handle, self._stream())
        self._call("cublasGemmEx", handle, *arguments)

    def gemmStridedBatchedEx(self, handle: int, *arguments: int) -> None:
        self._call("cublasSetStream_v2", handle, self._stream())
        self._call("cublasGemmStridedBatchedEx", handle, *arguments)

    def _call(self, name: str, *arguments: int) -> None:
        status = self._functions[name](*arguments)
        if status:
            said = _STATUS.get(status, "unknown")
            raise RuntimeError(f"matmul: {name} of cuBLAS failed with status {status} ({said})")


def loaded(maps: Path = Path("/proc/self/maps")) -> str | None:
    """The path of the cuBLAS that this process has loaded; None where that cannot be told."""
    try:
        paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/libcublas.so" in line}
    except OSError:
        return None
    return min(paths) if paths else None
