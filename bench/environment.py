"""What must be set before NumPy, Numba, torch and JAX are imported, because they read it once. Standard library only.

- `OPENBLAS_CORETYPE` is removed: some machines export "Haswell", which holds NumPy's products at half their speed.
- Every library gets the same number of threads; fewer than there are cores by pinning the process to that many cores,
  which is what JAX, having no setting, counts.
- `GOMP_SPINCOUNT`, how long OpenMP's idle threads spin: ours run with what the kernels set for themselves
  (kernels/numba_setup.py), as they do for every user; rivals, in their own processes, with OpenMP's own default.
"""

from __future__ import annotations

import os
import sys

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
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if threads < usable_cores() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _one_per_core()[:threads])


def of_worker() -> dict[str, str]:
    """The environment of a process that runs a rival; it inherits the cores."""
    without = ("GOMP_SPINCOUNT", "OPENBLAS_CORETYPE")
    return {name: value for name, value in os.environ.items() if name not in without}


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
