"""Where every Numba kernel gets `njit` and `prange`: `from ..numba_setup import njit, prange`.

What this `njit` adds to Numba's:

- Compiled code is kept on disk, and is stale as soon as *any* file it was made from changes. Numba looks at the file of
  the function alone; here the files that it imports from this package count too. Each width of vectors has its own.
- A folder that cannot be written is no error: Numba takes the user's cache folder, and where there is none either, the
  code is compiled anew in each process.
- The first compilation says so on stderr, once, because it takes seconds. KERNELS_QUIET=1 says nothing.

GNU OpenMP, which runs Numba's threads, lets idle threads spin for a long time before they sleep. OpenBLAS has threads
of its own that spin too, and on a few cores the two starve each other. Measured on two cores (AMD Zen 4), in ms:

    spin count                                    1000    4000    10000   300000 (the default)
    NumPy's product (0.50), then a kernel (0.08)  0.62    0.69     1.16     8.0
    a training step of a small GPT                29.2    27.5     27.6    27.6

So 4000. The variable is read when the threads start, so it has to be set before Numba is imported; a value that the
user chose stays.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "4000")

import hashlib
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import prange
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

__all__ = ["njit", "prange"]

_PACKAGE = Path(__file__).parent
_IMPORT = re.compile(r"^\s*from (\.+)([\w.]*) import (\([^)]*\)|[^\n(]+)", re.MULTILINE)


def njit(function: Callable | None = None, **options: Any) -> Any:
    """numba.njit with the cache described above; for options see Numba."""
    if function is None:
        return lambda f: njit(f, **options)
    cached = options.pop("cache", True)
    compiled = numba.njit(**options)(function)
    if cached:
        with suppress(RuntimeError):  # no folder can be written
            compiled._cache = _Cache(function)
    return compiled


class _Cache(FunctionCache):
    """Numba's cache on disk, with a stamp of all the sources."""

    def __init__(self, function: Callable):
        super().__init__(function)
        sources = b"".join(_digest(path) for path in sorted(_sources(Path(function.__code__.co_filename))))
        lanes = os.environ.get("KERNELS_SIMD_LANES", "")
        name = f"{self._impl.filename_base}-{lanes}" if lanes else self._impl.filename_base  # each its own files
        self._cache_file = IndexDataCacheFile(self._cache_path, name, hashlib.sha256(sources).hexdigest())


def environment() -> str:
    """What compiled code depends on beside its sources: the compiler, the CPU, the width of vectors."""
    import llvmlite.binding as llvm

    cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    return f"{numba.__version__} {sys.version_info[:2]} {cpu} {os.environ.get('KERNELS_SIMD_LANES', '')}"


@cache
def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _sources(path: Path) -> set[Path]:
    """The file and all files of this package that it imports from, and those that they do."""
    found: set[Path] = set()
    waiting = {path.resolve()}
    while waiting:
        one = waiting.pop()
        found.add(one)
        if _PACKAGE in one.parents:
            waiting |= _imports(one) - found
    return found


@cache
def _imports(path: Path) -> frozenset[Path]:
    """The files of `from .module import name` and `from . import module` statements."""
    files = set()
    for dots, module, names in _IMPORT.findall(path.read_text()):
        folder = path.parents[len(dots) - 1].joinpath(*filter(None, module.split(".")))
        for name in re.findall(r"\w+", re.sub(r"#.*|\bas \w+", "", names)):
            of_module = folder / f"{name}.py", folder / name / "__init__.py"
            for file in (*of_module, folder.with_suffix(".py"), folder / "__init__.py"):
                if file.exists():
                    files.add(file)
                    break
    return frozenset(files)


class _Announce(event.Listener):
    """One line on stderr before the first of our functions is compiled; nothing for those that the cache has."""

    said = False

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if not self.said and str(dispatcher.py_func.__module__).startswith("kernels."):  # None for one made by exec
            _Announce.said = True
            print("kernels: compiling for this CPU; takes seconds, once: the result is kept on disk", file=sys.stderr)

    def on_end(self, event: Any) -> None:
        pass


if "KERNELS_QUIET" not in os.environ:
    event.register("numba:compile", _Announce())
