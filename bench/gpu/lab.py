"""Where a part runs: on a GPU with CuPy arrays, or dry, with NumPy arrays in the simulator of CUDA."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels.gpu import dtype_of

Row = dict[str, Any]
BF16_NAME = "bfloat16"
DRY_LABEL = "simulator: the times mean nothing"


class NoDevice(RuntimeError):
    """There is no GPU to measure on; the message says what is missing."""


@dataclass
class Lab:
    """What the parts need to know of the machine. xp is cupy or numpy."""

    dry: bool
    xp: Any
    name: str
    arch: str
    l2: int = 60 << 20  # bytes of the cache that all of the GPU shares
    limits: dict[str, float] = field(default_factory=dict)  # "copy": bytes/s, "product": FLOP/s, once measured
    candidates: list[str] = field(default_factory=list)  # see candidates.py

    @classmethod
    def gpu(cls) -> Lab:
        from kernels.gpu.launch import target

        cupy = find_gpu()
        device = cupy.cuda.Device(0)
        facts = cupy.cuda.runtime.getDeviceProperties(0)
        digits = device.compute_capability
        arch = target((int(digits[:-1]), int(digits[-1])))
        return cls(False, cupy, facts["name"].decode(), arch, int(facts.get("l2CacheSize") or 60 << 20))

    @classmethod
    def simulator(cls, arch: str = "sm_90a") -> Lab:
        return cls(True, np, "simulator", arch, 0)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Inside the block CUDA kernels run where this lab says."""
        from kernels.gpu import numpy_on

        with numpy_on("simulator", arch=self.arch, check=False, late=0) if self.dry else contextlib.nullcontext():
            yield

    # ------------------------------------------------------------------------------------------- arrays

    def pick(self, real: Any, dry: Any) -> Any:
        """Shapes: those that are measured, or such as a CPU simulates in a moment."""
        return dry if self.dry else real

    def dtype(self, name: str) -> np.dtype:
        """float32, float16, bfloat16 or float64."""
        return dtype_of(name)

    def normal(self, *shape: int, dtype: str = BF16_NAME, scale: float = 1.0, seed: int = 0) -> Any:
        """N(0, scale^2), the same for the same shape and seed; beyond four million numbers they repeat."""
        n = int(np.prod(shape))
        rng = np.random.default_rng((zlib.crc32(repr(shape).encode()), seed))
        numbers = rng.standard_normal(min(n, 1 << 22), dtype=np.float32) * np.float32(scale)
        x = self.xp.asarray(numbers)
        if n > x.size:
            x = self.xp.tile(x, -(-n // x.size))[:n]
        return x.reshape(shape).astype(self.dtype(dtype))

    def integers(self, high: int, *shape: int, seed: int = 0) -> Any:
        rng = np.random.default_rng((zlib.crc32(repr((high, shape)).encode()), seed))
        return self.xp.asarray(rng.integers(0, high, shape))

    def wide(self, x: Any) -> np.ndarray:
        """As float64 in main memory."""
        x = x if isinstance(x, np.ndarray) else self.xp.asnumpy(x)
        return x.astype(np.float64)

    def sets(self, nbytes: int) -> int:
        """How many sets of buffers a timing turns through, so that the L2 cache holds none from the last round."""
        return 1 if self.dry else int(np.clip(-(-2 * self.l2 // max(nbytes, 1)), 1, 32))

    # -------------------------------------------------------------------------------------------- torch

    @property
    def torch(self) -> Any:
        """torch, on the GPU or (dry) on the CPU; None where it is missing or sees no GPU."""
        if not hasattr(self, "_torch"):
            self._torch = _import_torch(self.dry)
        return self._torch

    @property
    def torch_device(self) -> str:
        return "cpu" if self.dry else "cuda"

    def tensor(self, x: Any) -> Any:
        """torch's view of the same memory. bfloat16, which DLPack's writers disagree on, travels as 16-bit integers."""
        torch = self.torch
        if x.dtype.name == BF16_NAME:
            return self.tensor(x.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(x) if isinstance(x, np.ndarray) else torch.from_dlpack(x)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """torch.compile; dry without its C++ compiler, which would take minutes."""
        return self.torch.compile(function, dynamic=False, backend="eager" if self.dry else "inductor")

    # ------------------------------------------------------------------------------------------- results

    def row(self, suite: str, case: str, implementation: str = "minillm", **others: Any) -> Row:
        """A row of the benchmark (bench/runner.py); `label` and `machine` say where it comes from."""
        row: Row = {
            "suite": suite, "case": case, "implementation": implementation,
            "label": DRY_LABEL if self.dry else "", "median_s": None, "q1_s": None, "q3_s": None, "samples": 0,
            "flops": 0.0, "bytes": 0.0, "elements": 0, "limit_s": None, "share_of_limit": None, "compute_bound": False,
            "max_error": None, "equal": True, "problem": "", "threads": 1, "cold": True, "ratios": {}, "load": None,
            "machine": self.name,
        }  # fmt: skip
        return row | others

    def failed(self, suite: str, case: str, error: Exception | str, implementation: str = "minillm") -> Row:
        """A row for what did not run."""
        return self.row(suite, case, implementation, equal=False, problem=sentence(error))


def sentence(error: Exception | str) -> str:
    """The first line of what went wrong."""
    if isinstance(error, str):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"[:400]


def find_gpu() -> Any:
    """cupy, if a GPU answers; NoDevice says what is missing."""
    try:
        import cupy
    except ImportError as error:
        raise NoDevice(f"CuPy is not installed ({error})") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise NoDevice(f"no NVIDIA driver answers ({str(error).splitlines()[0]})") from error
    if count == 0:
        raise NoDevice("the NVIDIA driver reports no GPU")
    return cupy


def _import_torch(dry: bool) -> Any:
    try:
        import torch
    except ImportError:
        return None
    if dry:
        torch.set_num_threads(min(2, os.cpu_count() or 1))
    elif not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    with contextlib.suppress(ImportError):
        import torch._functorch.config as functorch

        functorch.donated_buffer = False  # a compiled backward pass is called again and again
    return torch
