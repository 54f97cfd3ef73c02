"""SIMD values inside Numba functions. Placeholder docstring."""

from __future__ import annotations

from .vector.arithmetic import (
    absolute, all_lanes, any_lane, bits, copysign, floor, fma, from_bits, hmax, hmin, hsum, hsum_wide, iota, lanes,
    maximum, minimum, round_even, select, splat, sqrt, to_float, zeros,
)  # fmt: skip
from .vector.bfloat16 import make_tile_bf16, pack_pairs, pack_row
from .vector.cpu import HAS_AVX512, HAS_BF16, HAS_FMA, LANES32, LANES64, TILE_ROWS, TILE_VECTORS
from .vector.functions import erf, exp, expm1, log, log1p, sigmoid, tanh
from .vector.memory import (
    first, keep_alive, load, load_tail, pointer, prefetch, prefetch_write, store, store_tail, transpose,
)  # fmt: skip
from .vector.tile import make_tile
from .vector.types import Mask, Pointer, Vector
