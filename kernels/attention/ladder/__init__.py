"""The way from the formula of attention to the kernel that ships, in six rungs.

Each file has one function, attention(q, k, v, causal) -> out for float32 arrays q (B, H, T, D), k and v (B, H, S, D) in
C order, and says at the top what it changes, why that is faster, and what it reached. Read them in order;
`python -m bench ladder attention` runs them.

The same way on a GPU begins at cuda_1_scalar.cu and goes by the numbers; `kernels.attention.cuda.RUNGS` lists it.

Shares of the limit are for (1, 8, 1024, 64) on one core of AMD Zen 4 with AVX-512, which multiplies and adds 116
GFLOP/s of float32; causal is counted as half the work.
"""

from __future__ import annotations

RUNGS = (  # module, what it adds
    ("rung1_formula", "the formula in NumPy: the scores are an array"),
    ("rung2_online", "one pass over the keys: the scores are never stored"),
    ("rung3_blocks", "blocks of keys: vectors, and exp on all lanes"),
    ("rung4_tiles", "queries too in blocks: products from register tiles"),
    ("rung5_causal", "no work for what causal hides"),
    ("rung6_shipped", "keys turned in registers, blocks for L2, balanced tasks: what ships"),
)
