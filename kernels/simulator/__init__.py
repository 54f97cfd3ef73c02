"""CUDA kernels, run on the CPU: to prove them right without a GPU, and to watch what they do.

    python -m kernels.simulator attention --rung 2 --trace           # or softmax, layernorm, ..., or a .cu of your own

    with kernels.gpu.numpy_on("simulator", seed=1):                  # NumPy arrays reach the CUDA kernels
        kernels.softmax_forward(x, impl="cuda")
    print(kernels.simulator.report())                                # bytes moved, bank conflicts, barriers, by line

**How it works.** A C++ compiler compiles the kernel's own source against `include/cuda.h`, where every CUDA function is
one for the CPU. Each CUDA thread is a fiber that runs until it must wait for others; blocks run one after the other.
What a warp does together (shuffles, ldmatrix, mma) happens when its last lane has come. A seed draws which threads run
first, and holds whole warps back, so that a missing barrier gives wrong numbers on some seed. What a GPU does on the
side (cp.async, TMA, wgmma) happens as late as the kernel's waits allow, and until then its destination holds NaN.

**What is found.** Always: deadlocks, lanes at different collectives, shared memory past its end in ldmatrix and copies.
With `check=True` (the default of `numpy_on`) every single access is looked at, by calls that the compiler's
-fsanitize=thread inserts and `memory.h` answers, and the error names thread, block, line and address:

    out of bounds      outside of every array of the launch, or of the shared memory it asked for; misaligned; read-only
    uninitialised      shared memory that nothing has written, or whose copy is under way; numpy.empty's arrays, which
                       hold a NaN that the check knows
    race               two threads, at least one writes, and no barrier orders them; or two blocks. Barriers, __syncwarp
                       and mbarriers order memory; shuffles and mma do not. Atomics do not race with each other; between
                       blocks __threadfence and an atomic order what came before with what comes after a later atomic

A race is found in whatever order the threads run. It is one even if both write the same value.

**What it cannot prove.** Speed: bytes, conflicts and instructions are counted, time is not modelled. Weak memory (a
store seen late by another SM), most proxy fences, clusters, and blocks that wait for each other (they run in turn). The
sums inside tensor cores are rounded differently on a GPU. Pointers hidden in structs are out of bounds, unless the
argument has an attribute `arrays`. So: right here, then compute-sanitizer and the same tests on a GPU.

Compiled kernels are kept in ~/.cache/kernels-simulator, or where KERNELS_SIMULATOR_CACHE says.

Read `core.h` (fibers and meetings), then `ampere.h` (what the instructions do), `memory.h` and `order.h` (the checks).
"""

from .build import NoCompiler, SimulatorError, compiler
from .fresh import poisoned_arrays
from .module import SimulatedModule, counters
from .report import Line, Report, record, report, trace

__all__ = [
    "Line", "NoCompiler", "Report", "SimulatedModule", "SimulatorError", "compiler", "counters", "poisoned_arrays",
    "record", "report", "trace",
]  # fmt: skip
