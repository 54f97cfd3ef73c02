"""The GPU beside the arrays: what is there, its memory, streams, recorded steps, and a look for hidden waits.

    minillm.cuda.memory()              bytes that arrays use, that the pool holds, that are free
    minillm.cuda.graph(step, x, y)     a step recorded once (a CUDA graph) and launched as a whole
    minillm.cuda.count_syncs()         how often, and where, Python waited for the GPU
    minillm.cuda.tensor_float32()      float32 products in TF32, inside a block
    minillm.cuda.side_stream()         a stream beside the current one

CuPy is imported when one of them is called; `minillm doctor` says what is missing. Arrays reach the GPU by
`tensor.to("cuda")`, `module.to("cuda")` or `device="cuda"`, and kernels that are given them run there.
"""

from kernels.matmul.cuda import tensor_float32

from .found import find_cupy, has_bf16
from .graphs import Graph, graph
from .pool import Memory, free_memory, memory
from .streams import side_stream, synchronize
from .syncs import Syncs, count_syncs

__all__ = [
    "Graph", "Memory", "Syncs", "count_syncs", "find_cupy", "free_memory", "graph", "has_bf16", "memory", "side_stream",
    "synchronize", "tensor_float32",
]  # fmt: skip
