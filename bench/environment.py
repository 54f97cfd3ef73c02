"""What must be set before NumPy, Numba, torch and JAX are imported, because they read it once. Standard library only.

- `OPENBLAS_CORETYPE` is removed: some machines export "Haswell", which holds NumPy's products at half their speed.
- Every library gets the same number of threads; fewer than there are cores by pinning the process to that many cores,
  which is what JAX, having no setting, counts.
- `GOMP_SPINCOUNT`, how long OpenMP's idle threads spin: the kernels set 1000 for themselves (kernels/numba_setup.py),
  because they live beside OpenBLAS's threads. In one process Numba and torch share one OpenMP and its threads,
  whichever was imported first; so here both get OpenMP's own default, with which torch runs when it is alone. Our
  kernels start 2 us sooner with it than with 1000. A value that the user set stays.
"""

from __future__ import annotations

import os
import sys

OPENMP_DEFAULT = "300000"  # rounds of GNU OpenMP where there are no more threads than cores
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(threads: int, argv: list[str]) -> None:
    """Set the environment for `threads` threads; starts the process anew where NumPy is there already."""
    if "OPENBLAS_CORETYPE" in os.environ:
        del os.environ["OPENBLAS_CORETYPE"]
        if "numpy" in sys.modules:
            os.execv(sys.executable, [sys.executable, "-m", "bench", *argv])
    for name in THREADS:
        os.environ[name] = str(threads)
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_DEFAULT)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads < usable_cores() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _one_per_core()[:threads])


def _one_per_core() -> list[int]:
    """The usable CPUs, the first of every core before the second ones (hyper-threads)."""
    cpus = sorted(os.sched_getaffinity(0))

    def rank(cpu: int) -> int:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
                return int(file.read().replace("-", ",").split(",")[0] != str(cpu))
        except OSError:
            return 0

    return sorted(cpus, key=lambda cpu: (rank(cpu), cpu))
