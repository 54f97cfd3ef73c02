"""The way from the formula of a matrix product to the kernel that ships, in seven rungs.

Each file has one function, matmul(a, b) for float32 matrices (M, K) and (K, N) in C order, and says at the top what it
changes, why that is faster, and what it reached. Read them in order; `python -m bench ladder matmul` runs them.

Shares of the limit are of 1024 x 1024 x 1024 on 2 cores of AMD Zen 4, which multiply and add 2 x 116 GFLOP/s: one core
for rungs 1 to 5, two for 6 and 7; the best of many runs.
"""

from __future__ import annotations

RUNGS = (  # module, what it adds
    ("rung1_formula", "the formula: three loops"),
    ("rung2_order", "another order: rows of B, one after the other"),
    ("rung3_registers", "a block of C in registers"),
    ("rung4_blocks", "blocks that fit into the cache"),
    ("rung5_packing", "blocks copied into the order in which they are read"),
    ("rung6_threads", "all cores"),
    ("rung7_shipped", "any strides, any size, batches: what ships"),
)
