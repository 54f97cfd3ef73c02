"""NumPy's BLAS library: which one, for which CPU, on how many threads. Of use to the baselines only.

Models multiply with `kernels.matmul`: OpenBLAS's threads and Numba's spin while they wait, and a training step that
alternated between the two took up to 33 times as long as with one of them.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np


def openblas() -> tuple[Any, str, str] | None:
    """NumPy's own OpenBLAS as (library, prefix, suffix of its symbols); None where NumPy came with another BLAS."""
    folder = Path(np.__file__).parent
    for place in (folder.parent / "numpy.libs", folder / ".dylibs", folder / ".libs"):
        for path in sorted(place.glob("*openblas*")) if place.is_dir() else ():
            library = ctypes.CDLL(str(path))
            for prefix, suffix in (("scipy_openblas_", "64_"), ("openblas_", "64_"), ("openblas_", "")):
                if hasattr(library, f"{prefix}get_num_threads{suffix}"):
                    return library, prefix, suffix
    return None


def _function(name: str, result: Any = ctypes.c_int) -> Any:
    found = openblas()
    if found is None:
        return None
    library, prefix, suffix = found
    function = getattr(library, f"{prefix}{name}{suffix}")
    function.restype = result
    return function


def core_type() -> str:
    """The CPU that OpenBLAS chose its kernels for: "SkylakeX" (AVX-512), "Haswell" (AVX2); "" if it is not OpenBLAS."""
    function = _function("get_corename", ctypes.c_char_p)
    return function().decode() if function is not None else ""


def threads() -> int | None:
    """How many threads OpenBLAS uses; None if it is not OpenBLAS."""
    function = _function("get_num_threads")
    return function() if function is not None else None
