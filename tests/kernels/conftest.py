"""`cuda_on_cpu`: a CUDA source file, compiled by g++ and run on the CPU by cuda_on_cpu.h, one fiber per CUDA thread."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHIM = Path(__file__).with_name("cuda_on_cpu.h")


def _as_argument(x: Any) -> Any:
    """What CuPy would pass to a kernel for x: a pointer for an array, the value of a struct or a scalar."""
    if isinstance(x, np.ndarray) and x.dtype.names is None:
        return ctypes.c_void_p(x.ctypes.data)
    x = np.asarray(x)
    return np.ctypeslib.as_ctypes_type(x.dtype).from_buffer_copy(x.tobytes())


class SimulatedModule:
    """As cupy.RawModule: get_function(name) returns kernel(grid, block, arguments)."""

    def __init__(self, source: str, folder: Path, defines: dict[str, int], order: int) -> None:
        kernels = re.findall(r"__global__ void (\w+)", source)
        pointers = "".join(f"auto run_{name} = &sim::launch<{name}>::run;\n" for name in kernels)
        (folder / "kernel.cpp").write_text(f'#include "{SHIM}"\n{source}\nextern "C" {{\n{pointers}}}\n')
        flags = ["-std=c++20", "-O1", "-shared", "-fPIC", *(f"-D{name}={n}" for name, n in defines.items())]
        subprocess.run(["g++", *flags, "kernel.cpp", "-o", "kernel.so"], cwd=folder, check=True)
        self._library, self._order = ctypes.CDLL(str(folder / "kernel.so")), order

    def get_function(self, name: str) -> Callable[..., None]:
        address = ctypes.c_void_p.in_dll(self._library, f"run_{name}").value

        def kernel(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            values = [ctypes.c_int(n) for n in (*grid, *block, self._order)] + [_as_argument(x) for x in arguments]
            ctypes.CFUNCTYPE(None, *(type(x) for x in values))(address)(*values)

        return kernel


@pytest.fixture(scope="session")
def cuda_on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SimulatedModule]:
    """compile(source, order=0, **defines) -> SimulatedModule; each source and set of defines is compiled once."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the CUDA kernel for the CPU")
    modules: dict[Any, SimulatedModule] = {}

    def compile(source: str, order: int = 0, **defines: int) -> SimulatedModule:
        key = (source, order, *defines.items())
        if key not in modules:
            modules[key] = SimulatedModule(source, tmp_path_factory.mktemp("cuda"), defines, order)
        return modules[key]

    return compile
