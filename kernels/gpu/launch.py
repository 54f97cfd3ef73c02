"""Loads CUDA sources and launches their kernels, on a GPU through CuPy or on the CPU through the simulator.

A source is one text: local includes are put in its place (`flatten`), so that CuPy's and the simulator's caches notice
an edit in any header. Variants of a source are macros: `kernel(path, name, x, TYPE="bf16", HEAD_DIM=64)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..arrays import array_module

HEADERS = Path(__file__).parent
_TYPES = {"float32": "float", "float16": "f16", "bfloat16": "bf16"}


class Kernel(Protocol):
    """A compiled kernel: kernel(grid, block, arguments, shared_mem=bytes).

    Arguments: contiguous arrays, None (a null pointer), NumPy scalars, structs (NumPy structured arrays of size 1) and
    whatever has `kernel_argument(simulated)`, which returns one of these (a tensor map).
    """

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_mem: int = 0
    ) -> None: ...


class Simulated(NamedTuple):
    """How `numpy_on("simulator")` runs kernels; see `kernels.simulator`."""

    seed: int = 0
    late: int = 0
    check: bool = False
    arch: str = "sm_90a"


_numpy: Simulated | str | None = None  # where kernels that get NumPy arrays run; None: nowhere
numpy_runs = False  # as `_numpy is not None`: the dispatcher reads it on every call


@contextmanager
def numpy_on(
    where: str, *, seed: int = 0, late: int = 3, check: bool = True, arch: str = "sm_90a"
) -> Iterator[None]:
    """Inside the block CUDA kernels take NumPy arrays and run them on the "simulator", or on a real "device".

    seed: draws the order in which blocks, warps and threads run. late: 0, asynchronous copies and products happen
    when they are issued; 1, copies (cp.async, TMA) as late as the waits allow; 2, wgmma too; 3, both. check: compile
    with memory checking, and let numpy.empty give NaN. arch: the GPU that the simulator is taken for. "device" copies
    every array there and back at each launch: for tests.
    """
    global _numpy, numpy_runs
    if where not in ("simulator", "device"):
        raise ValueError(f'numpy_on: kernels run on the "simulator" or on a "device", got {where!r}')
    before, _numpy = _numpy, Simulated(seed, late, check, arch) if where == "simulator" else "device"
    numpy_runs = True
    try:
        with _poisoned() if check and simulated() else nullcontext():
            yield
    finally:
        _numpy = before
        numpy_runs = before is not None


def _poisoned() -> AbstractContextManager[None]:
    """numpy.empty gives NaN that the simulator knows: reading what nothing has written is found."""
    from ..simulator import poisoned_arrays

    return poisoned_arrays()


def simulated() -> bool:
    """True inside `numpy_on("simulator")`."""
    return isinstance(_numpy, Simulated)


def type_name(dtype: Any) -> str:
    """The name in CUDA sources of a storage type.

    >>> type_name(np.dtype("float16"))
    'f16'
    """
    name = np.dtype(dtype).name
    if name not in _TYPES:
        raise TypeError(f"CUDA kernels store float32, float16 or bfloat16; got {name}")
    return _TYPES[name]


@cache
def bfloat16() -> np.dtype:
    """The dtype of bfloat16 arrays, as CuPy has it; the package ml_dtypes comes with CuPy."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def dtype_of(name: str) -> np.dtype:
    """The dtype of that name, "bfloat16" among them."""
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def compute_capability(x: Any) -> tuple[int, int]:
    """(major, minor) of the GPU that would run a kernel on x: (9, 0) for sm_90."""
    if array_module(x) is np and isinstance(_numpy, Simulated):
        digits = re.sub(r"\D", "", _numpy.arch)
        return int(digits[:-1]), int(digits[-1])
    return _device_capability(_device_id(x))


def _device_id(x: Any) -> int:
    import cupy

    return int(x.device.id) if array_module(x) is cupy else int(cupy.cuda.Device().id)


@cache
def _device_capability(device: int) -> tuple[int, int]:
    import cupy

    digits = cupy.cuda.Device(device).compute_capability
    return int(digits[:-1]), int(digits[-1])


def target(capability: tuple[int, int]) -> str:
    """What NVRTC calls a GPU: sm_90a has the instructions (wgmma) that plain sm_90 refuses.

    >>> target((9, 0)), target((8, 6))
    ('sm_90a', 'sm_86')
    """
    major, minor = capability
    return f"sm_{major}{minor}" + ("a" if capability == (9, 0) else "")


def flatten(path: Path) -> str:
    """The source with its local headers in place, once each, and #line directives: messages keep file and line."""
    seen: set[Path] = set()

    def expand(file: Path) -> str:
        seen.add(file)
        lines = [f'#line 1 "{file.name}"']
        for number, line in enumerate(file.read_text().splitlines(), 1):
            include = re.match(r'\s*#include "([\w./]+)"', line)
            if not include:
                lines.append("" if line.strip() == "#pragma once" else line)
                continue
            here, shared = file.parent / include[1], HEADERS / include[1]
            header = (here if here.exists() else shared).resolve()
            if not header.exists():
                raise FileNotFoundError(f"{file}, line {number}: no header {include[1]} beside it or in {HEADERS}")
            lines.append("" if header in seen else expand(header) + f'\n#line {number + 1} "{file.name}"')
        return "\n".join(lines)

    return expand(Path(path).resolve()) + "\n"


def kernel(path: Path, name: str, like: Any, **defines: object) -> Kernel:
    """The kernel `name` of the source at `path`, compiled with -Dkey=value, for arrays such as `like`. Cached."""
    chosen = tuple(defines.items())
    if array_module(like) is not np:
        return _on_device(path, name, target(compute_capability(like)), chosen)
    if _numpy == "device":
        return _with_copies(_on_device(path, name, target(compute_capability(like)), chosen))
    if isinstance(_numpy, Simulated):
        return _on_simulator(path, name, chosen, _numpy)
    raise TypeError(
        f"{name} is a CUDA kernel and got a NumPy array: move it to the GPU, or run it inside "
        'kernels.gpu.numpy_on("simulator")'
    )


@cache
def _module(path: Path, arch: str, defines: tuple[tuple[str, object], ...]) -> Any:
    import cupy

    options = (f"-arch={arch}", "--std=c++17", *(f"-D{key}={value}" for key, value in defines))
    return cupy.RawModule(code=flatten(path), options=options)


@cache
def _on_device(path: Path, name: str, arch: str, defines: tuple[tuple[str, object], ...]) -> Kernel:
    function = _module(path, arch, defines).get_function(name)
    allowed = 48 << 10  # more has to be asked for, once

    def run(
        grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_mem: int = 0
    ) -> None:
        nonlocal allowed
        if shared_mem > allowed:
            function.max_dynamic_shared_size_bytes = allowed = shared_mem
        function(grid, block, tuple(_device_argument(x) for x in arguments), shared_mem=shared_mem)

    return run


def _device_argument(x: Any) -> Any:
    if x is None:
        return np.uint64(0)
    return x.kernel_argument(False) if hasattr(x, "kernel_argument") else x


def _with_copies(run: Kernel) -> Kernel:
    """The kernel for NumPy arrays on a real GPU: arrays travel there and, where they can be written, back."""
    import cupy

    def copying(
        grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_mem: int = 0
    ) -> None:
        arrays = [getattr(x, "array", x) for x in arguments]  # of a tensor map: the array it is of
        is_array = [isinstance(x, np.ndarray) and x.dtype.names is None for x in arrays]
        there = {id(x): cupy.asarray(x) for x, yes in zip(arrays, is_array) if yes}
        moved = [there[id(x)] if yes else x for x, yes in zip(arrays, is_array)]
        run(grid, block, [a.of(x) if hasattr(a, "of") else x for a, x in zip(arguments, moved)], shared_mem)
        for x, yes in zip(arrays, is_array):
            if yes and x.flags.writeable:
                x[...] = cupy.asnumpy(there[id(x)])

    return copying


@cache
def _on_simulator(path: Path, name: str, defines: tuple[tuple[str, object], ...], how: Simulated) -> Kernel:
    from ..simulator import SimulatedModule

    return SimulatedModule(path, dict(defines), arch=how.arch, check=how.check).get_function(
        name, seed=how.seed, late=how.late
    )
