"""Compiles the simulator's runtime and kernels with a C++ compiler, into a cache on disk."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_BOTH = ("-std=c++20", "-shared", "-fPIC", "-w", "-fno-strict-aliasing", "-ffp-contract=off")
RUNTIME_FLAGS = (*_BOTH, "-O2")
KERNEL_FLAGS = (*_BOTH, "-O1", "-g1", "-gdwarf-4", "-fvisibility=hidden", "-fno-exceptions", "-nostdlib")
CHECK_FLAGS = ("-fsanitize=thread", "-fno-tree-sra")  # calls before accesses, 16 bytes stay one access


class SimulatorError(RuntimeError):
    """What a kernel did wrong: a deadlock, a race, an address outside its memory. The text says which thread, where."""


class NoCompiler(RuntimeError):
    """There is no C++ compiler for the simulator to use."""


def compiler() -> str:
    """The C++ compiler: $CXX, g++ or clang++. NoCompiler says what to do where there is none."""
    if sys.platform != "linux":
        raise NoCompiler(f"the CUDA simulator runs on Linux (x86-64 and arm64), not on {sys.platform}")
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise NoCompiler(
        "the CUDA simulator compiles kernels with a C++ compiler and finds neither g++ nor clang++: "
        "install one (Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++) or set CXX"
    )


@cache
def _version(name: str) -> str:
    return subprocess.run([name, "--version"], capture_output=True, text=True).stdout.splitlines()[0]


@cache
def _cache_folder() -> Path:
    folder = Path(os.environ.get("KERNELS_SIMULATOR_CACHE") or Path.home() / ".cache" / "kernels-simulator")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="kernels-simulator-"))


@cache
def _headers() -> str:
    files = [*HERE.glob("*.h"), *HERE.glob("*.cpp"), *HERE.glob("include/*.h")]
    return "".join(path.name + path.read_text() for path in sorted(files))


def _compiled(text: str, flags: tuple[str, ...], libraries: tuple[str, ...] = ()) -> Path:
    """The library made of `text`. Built in a folder of its own and then renamed: two processes may do so at once."""
    name = compiler()
    key = hashlib.sha256(repr((text, flags, libraries, _headers(), name, _version(name))).encode()).hexdigest()[:24]
    path = _cache_folder() / f"{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as scratch:
            source, built = Path(scratch) / "source.cpp", Path(scratch) / "built.so"
            source.write_text(text)
            done = subprocess.run(
                [name, *flags, str(source), "-o", str(built), *libraries], capture_output=True, text=True
            )
            if done.returncode:
                raise SimulatorError(f"the C++ compiler refuses the kernel:\n{done.stderr[:4000]}")
            os.replace(built, path)
    return path


def runtime_path() -> Path:
    """The compiled runtime. Compiling it takes some seconds, once."""
    return _compiled('#include "runtime.cpp"\n', (*RUNTIME_FLAGS, f"-I{HERE}"))


@cache
def runtime() -> ctypes.CDLL:
    """The runtime, loaded so that kernels find its functions."""
    library = ctypes.CDLL(str(runtime_path()), mode=ctypes.RTLD_GLOBAL)
    library.sim_report.restype = library.sim_trace.restype = ctypes.c_char_p
    return library


@cache
def kernel_library(text: str, check: bool) -> tuple[ctypes.CDLL, Path]:
    """A kernel's source, compiled once for each text, also across processes."""
    runtime()
    flags: tuple[str, ...] = (*KERNEL_FLAGS, f"-I{HERE / 'include'}")
    if check:
        flags += CHECK_FLAGS
        version = _version(compiler())
        number = re.search(r" (\d+)\.", version)
        if "clang" in version:
            flags += ("-mllvm", "-tsan-instrument-func-entry-exit=0")
        elif number and int(number[1]) >= 12:
            flags += ("--param=tsan-instrument-func-entry-exit=0",)
    path = _compiled(text, flags, ("-lgcc",) if "clang" not in _version(compiler()) else ())
    return ctypes.CDLL(str(path)), path


# ---- places in a compiled kernel -------------------------------------------------------------------------------------
_found: dict[tuple[Path, int], list[tuple[str, str]]] = {}


def find_places(path: Path, places: Iterable[int]) -> None:
    """Looks up, in one go: of each place (function, "file:line"), then of the functions that it is inlined into."""
    wanted = sorted({place for place in places if (path, place) not in _found})
    for tool in ("addr2line", "llvm-addr2line", "llvm-symbolizer"):
        if not wanted or not shutil.which(tool):
            continue
        style = ["--output-style=GNU"] if tool == "llvm-symbolizer" else []
        addresses = [hex(place - 1) for place in wanted]  # of the call; a place is where it returns to
        command = [tool, *style, "-a", "-f", "-i", "-C", "-e", str(path), *addresses]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        starts = [i for i, line in enumerate(lines) if re.fullmatch("0x[0-9a-f]+", line)]
        for place, start, stop in zip(wanted, starts, [*starts[1:], len(lines)]):
            pairs = zip(lines[start + 1 : stop : 2], lines[start + 2 : stop : 2])
            known = [(function, Path(line.split(" ")[0]).name) for function, line in pairs]
            _found[path, place] = [x for x in known if x[1][:1] != "?" and not x[1].endswith((":?", ":0"))]
        return


# Here a function is one line around an instruction: the line that called it counts.
_WRAPPERS = ("cuda.h", "hopper.h", "ptx.cuh", "hopper.cuh")


def describe_place(path: Path, place: int) -> str:
    """Where in the source: "softmax.cu:41", or "common.cuh:88 (block_sum), called at softmax.cu:41"."""
    find_places(path, [place])
    lines = _found.get((path, place), [])
    lines = [x for x in lines if x[1].partition(":")[0] not in _WRAPPERS] or lines
    if not lines:
        return f"offset {place:#x} of {path.name}"
    (function, line), (_, outer) = lines[0], lines[-1]
    if line == outer or line.partition(":")[0] == outer.partition(":")[0]:
        return line
    return f"{line} ({function.partition('(')[0].split(' ')[-1].split('<')[0]}), called at {outer}"


def describe_shared(path: Path, offset: int) -> str:
    """The static shared variable at this offset of the image: "scratch + 12"."""
    if shutil.which("nm"):
        listing = subprocess.run(["nm", "-C", "-S", "--defined-only", str(path)], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            parts = line.split(maxsplit=3)
            if len(parts) == 4 and int(parts[0], 16) <= offset < int(parts[0], 16) + int(parts[1], 16):
                return f" {parts[3].split('::')[-1]} + {offset - int(parts[0], 16)}"
    return ""


def with_places(path: Path, text: str) -> str:
    """The runtime's message with its "@{1a2b}" and "${3c}" replaced by lines of the source and names of variables."""
    find_places(path, [int(place, 16) for place in re.findall(r"@\{([0-9a-f]+)\}", text)])
    text = re.sub(r"@\{([0-9a-f]+)\}", lambda m: f" at {describe_place(path, int(m[1], 16))}", text)
    return re.sub(r"\$\{([0-9a-f]+)\}", lambda m: describe_shared(path, int(m[1], 16)), text)
