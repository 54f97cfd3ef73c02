"""SIMD values inside Numba functions: a lesson, and the words for it.

A CPU core computes on vectors: one instruction adds 16 pairs of float32 numbers (AVX-512), 8 (AVX2) or 4 (SSE, NEON).
Compilers turn simple loops into such instructions, and give up on others: a call of exp, a maximum with NaN in mind, a
product whose sums should stay in registers. Here the vector is a value of its own, so nothing is left to luck:

    >>> import numpy as np
    >>> from kernels import simd
    >>> from kernels.numba_setup import njit
    >>> @njit
    ... def softplus(x, out):                              # out = log(1 + e^x), any length
    ...     n = simd.lanes(x)                              # 16, 8 or 4; for float64 half of that
    ...     for i in range(0, x.size, n):
    ...         left = x.size - i                          # in the last round there may be fewer than n
    ...         v = simd.load_tail(x, i, left)             # a vector: x[i : i + n], zeros beyond the end
    ...         e = simd.exp(-simd.absolute(v))
    ...         simd.store_tail(out, i, simd.maximum(v, 0.0) + simd.log1p(e), left)
    >>> x = np.linspace(-3, 3, 37, dtype=np.float32)
    >>> out = np.empty_like(x)
    >>> softplus(x, out)
    >>> bool(np.allclose(out, np.log1p(np.exp(x)), rtol=1e-6))
    True

(Faster: whole vectors with `load` and `store` first, and `load_tail` for the rest only.)

What to know:

- **A vector is a value**, a local variable like any number; operators work lane by lane, and a number beside a vector
  is put into every lane: `v * 2.0 + 1.0`. Comparisons give masks, `select(mask, a, b)` chooses. There is no `if` by
  lane.
- **Memory** is an array in C order (`load(x, i)`: i counts elements as they lie in memory) or a pointer, which any
  array has: `p = pointer(x[b, h]); load(p + row * stride, 0)`. Nothing checks bounds. A local array must outlive its
  pointer: end with `keep_alive(x)`.
- **Sums wait for themselves.** An addition takes 3 or 4 cycles, and `total = total + v` cannot start before the last
  one ended. Four totals side by side, added at the end, are four times as fast.
- **fma(a, b, c)** is a * b + c in one instruction with one rounding; the compiler does not make it out of `a * b + c`.
- **Products** of matrices are made of register tiles: `make_tile`.
- Both float32 and float64 go through the same source: `lanes(x)` and the types follow the array.

| words | |
|---|---|
| memory | load store load_tail store_tail number prefetch prefetch_write pointer keep_alive transpose |
| making | splat zeros iota first lanes |
| arithmetic | + - * / fma minimum maximum absolute sqrt floor round_even copysign |
| choice | < <= > >= == != & or ~ select any_lane all_lanes |
| over lanes | hsum hsum_wide hmax hmin |
| functions | exp expm1 log log1p sigmoid tanh erf: at most 2 ulp off, sigmoid 2.5 (float32; float64: the C library) |
| bits | bits from_bits to_float |
| products | make_tile, TILE_ROWS x TILE_VECTORS fits the registers; make_tile_bf16 pack_pairs pack_row where HAS_BF16 |

The parts are in `kernels/vector/`, a file an idea; `tests/kernels/test_simd.py` holds every word to its promise.
"""

from __future__ import annotations

from .vector.arithmetic import (
    absolute,
    all_lanes,
    any_lane,
    bits,
    copysign,
    floor,
    fma,
    from_bits,
    hmax,
    hmin,
    hsum,
    hsum_wide,
    iota,
    lanes,
    maximum,
    minimum,
    round_even,
    select,
    splat,
    sqrt,
    to_float,
    zeros,
)  # fmt: skip
from .vector.bfloat16 import make_tile_bf16, pack_pairs, pack_row
from .vector.cpu import HAS_AVX512, HAS_BF16, HAS_FMA, LANES32, LANES64, TILE_ROWS, TILE_VECTORS
from .vector.functions import erf, exp, expm1, log, log1p, sigmoid, tanh
from .vector.memory import (
    first,
    keep_alive,
    load,
    load_tail,
    number,
    pointer,
    prefetch,
    prefetch_write,
    store,
    store_tail,
    transpose,
)  # fmt: skip
from .vector.tile import make_tile
from .vector.types import Mask, Pointer, Vector

__all__ = [
    "HAS_AVX512", "HAS_BF16", "HAS_FMA", "LANES32", "LANES64", "Mask", "Pointer", "TILE_ROWS", "TILE_VECTORS",
    "Vector", "absolute", "all_lanes", "any_lane", "bits", "copysign", "erf", "exp", "expm1", "first", "floor", "fma",
    "from_bits", "hmax", "hmin", "hsum", "hsum_wide", "iota", "keep_alive", "lanes", "load", "load_tail", "log",
    "log1p", "make_tile", "make_tile_bf16", "maximum", "minimum", "number", "pack_pairs", "pack_row", "pointer",
    "prefetch", "prefetch_write", "round_even", "select", "sigmoid", "splat", "sqrt", "store", "store_tail", "tanh",
    "to_float", "transpose", "zeros",
]  # fmt: skip
