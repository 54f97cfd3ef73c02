"""What the CPU that code is compiled for can do.

| CPU | bytes a vector | float32 lanes | vector registers |
|---|---|---|---|
| x86-64 with AVX-512 | 64 | 16 | 32 |
| x86-64 with AVX2 | 32 | 8 | 16 |
| others: SSE, NEON | 16 | 4 | 16, 32 |

NUMBA_CPU_NAME=haswell compiles for an older CPU; KERNELS_SIMD_LANES=4 asks for narrower vectors on this one.
"""

from __future__ import annotations

import os
import platform

import llvmlite.binding as llvm
from numba.core import config

_AVX512 = ("skylake-avx512", "cascadelake", "cooperlake", "icelake", "tigerlake", "rocketlake", "sapphirerapids",
           "emeraldrapids", "graniterapids", "znver4", "znver5", "x86-64-v4")  # fmt: skip
_AVX2 = ("haswell", "broadwell", "skylake", "alderlake", "raptorlake", "znver1", "znver2", "znver3", "x86-64-v3")
_BF16 = ("cooperlake", "sapphirerapids", "emeraldrapids", "graniterapids", "znver4", "znver5")


def features() -> set[str]:
    """The instruction sets that count here: of this CPU, or of the one that NUMBA_CPU_NAME names."""
    name = getattr(config, "CPU_NAME", None)
    if name in (None, "", "host"):
        return {feature for feature, there in llvm.get_host_cpu_features().items() if there}
    if name in _AVX512:
        return {"avx512f", "avx512vl", "avx2", "fma"} | ({"avx512bf16"} if name in _BF16 else set())
    return {"avx2", "fma"} if name in _AVX2 else set()


_features = features()
X86 = platform.machine().lower() in ("x86_64", "amd64")
HAS_FMA = "fma" in _features or not X86

_widest = 16 if "avx512f" in _features else 8 if "avx2" in _features else 4
LANES32 = min(_widest, int(os.environ.get("KERNELS_SIMD_LANES", _widest)))  # float32 numbers in a vector
LANES64 = LANES32 // 2
if LANES32 not in (4, 8, 16):
    raise ValueError(f"KERNELS_SIMD_LANES={LANES32}: a vector has 4, 8 or 16 float32 lanes")

HAS_AVX512 = LANES32 == 16
HAS_BF16 = HAS_AVX512 and "avx512bf16" in _features

# The register tile: rows x vectors accumulators stay in registers, with room for a row of B and a number of A.
TILE_ROWS, TILE_VECTORS = (8, 3) if HAS_AVX512 or not X86 else (4, 3)
