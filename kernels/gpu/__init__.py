"""What the CUDA kernels share: loading and launching (`launch.py`), and the headers that every `.cu` file may include.

    common.cuh       storage types float, bf16, f16 and their conversions, 16-byte packs, sums over warps and blocks
    ptx.cuh          instructions that CUDA C++ has no name for, each behind a small function: cp.async, ldmatrix, mma
    hopper.cuh       the same for Hopper: mbarrier, TMA, wgmma

A kernel's `cuda.py` only loads and launches:

    run = kernel(SOURCE, "softmax_forward", x, TYPE=type_name(x.dtype))
    run((blocks,), (threads,), (x, out, np.int32(n)))

`x` is a CuPy array (NVRTC compiles the source, CuPy launches it), or a NumPy array inside `numpy_on("simulator")`: then
g++ compiles the same source and `kernels.simulator` runs it. So every kernel can be proven on a machine without a GPU.
"""

from .launch import Kernel, bfloat16, compute_capability, dtype_of, kernel, numpy_on, type_name

__all__ = ["Kernel", "bfloat16", "compute_capability", "dtype_of", "kernel", "numpy_on", "type_name"]
