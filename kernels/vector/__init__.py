"""What `kernels.simd` is made of; its docstring is the lesson. Read in this order:

| file | what |
|---|---|
| `cpu.py` | how many lanes this CPU's vectors have |
| `types.py` | the Numba types: a vector, a mask, a pointer |
| `memory.py` | load, store, tails |
| `arithmetic.py` | operators, comparisons, sums of lanes |
| `functions.py` | exp, log, tanh, erf: formulas, written with the operators |
| `tile.py` | the register tile that products are made of |
| `bfloat16.py` | products of pairs of bfloat16 numbers |

Each function is a Numba intrinsic: a type rule, and a few lines that emit LLVM instructions.
"""
