"""Every CUDA kernel compiled for every GPU, on a machine that need not have one.

NVRTC, NVIDIA's compiler as a library, makes a cubin (the machine code of one GPU) from a .cu file without a driver.
`compile` does that for a file and tells what the assembler says of each kernel in it: registers, spills, stack, shared
memory. `violations` holds that against what this project asks of its kernels. All of them at once, with a table:

    python -m kernels.gpu.nvrtc                          every file for every target, some of its variants
    python -m kernels.gpu.nvrtc --all                    every variant for every target
    python -m kernels.gpu.nvrtc attention --arch sm_90a  the files whose path contains the word, one target
    python -m kernels.gpu.nvrtc mine.cu -D TYPE=bf16     a file of your own

The exit status is 1 if a kernel does not compile or violates something, 2 if there is no NVRTC.

What is compiled is the list VARIANTS of every module kernels/*/cuda*.py:

    VARIANTS = [(path, {"TYPE": "bf16", "HEAD_DIM": 64}, "sm_80"), ...]

with the lowest target last; "sm_90a" means this one target, since code for Hopper's own instructions runs nowhere
else. A fourth entry, where there is one, is the dynamic shared memory in bytes that the launch asks for.

What a kernel does not show in registers, its machine code shows: an instruction of Volta and later is 16 bytes, of
which the low 9 bits say what it does. `instructions` counts those that this project cares about. The numbers are in no
manual; they were read off kernels that contain the instruction and nothing else of the kind, which the tests repeat.
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import json
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .launch import flatten

KERNELS = Path(__file__).parents[1]
TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")

STATIC_SHARED = 48 << 10  # more has to be asked for at launch, and is then dynamic
SHARED = {  # bytes that one block may have, static and dynamic together
    "sm_75": 64 << 10, "sm_80": 163 << 10, "sm_86": 99 << 10, "sm_89": 99 << 10, "sm_90a": 227 << 10,
    "sm_100": 227 << 10, "sm_120": 99 << 10,
}  # fmt: skip

OPCODES = {  # the low 9 bits of an instruction
    0x03C: "HMMA",  # mma.sync on bf16 or f16
    0x1F0: "HGMMA",  # wgmma.mma_async
    0x03B: "LDSM",  # ldmatrix
    0x1AE: "LDGSTS",  # cp.async
    0x1B4: "UTMALDG",  # TMA: a tile from global to shared memory
    0x183: "LDL",  # a load from local memory: a spill, or an array with a computed index
    0x187: "STL",
}

# (what "path:kernel" matches, lowest target, the instructions that each such kernel must contain)
EXPECTED: list[tuple[str, str, tuple[str, ...]]] = [
    (r"attention/ladder/cuda_(2|3)_\w+\.cu:attention_forward$", "sm_80", ("HMMA", "LDSM", "LDGSTS")),
    (r"attention/ladder/cuda_2b_\w+\.cu:attention_backward_(q|kv)$", "sm_80", ("HMMA", "LDSM", "LDGSTS")),
    (r"attention/ladder/cuda_[4-9]_\w+\.cu:attention_forward$", "sm_90a", ("HGMMA", "UTMALDG")),
    (r"attention/ladder/cuda_[4-9]b_\w+\.cu:attention_backward$", "sm_90a", ("HGMMA", "UTMALDG")),
]
# (what "path:kernel" matches, what the target matches, bytes of spills that are tolerated, why)
ALLOWED_SPILLS: list[tuple[str, str, int, str]] = [
    (r"^cross_entropy/.*:cross_entropy$", r"sm_(75|80)", 24, "numbers of a row, outside of its loops"),
]


class NoCompiler(RuntimeError):
    """CuPy or NVRTC is not installed; the message says what to do."""


class CompileError(RuntimeError):
    """The compiler refused the source; the message is its log."""


@dataclass(frozen=True)
class Kernel:
    """One `__global__` function of a compiled file. Bytes are those of a thread, shared those of a block."""

    name: str
    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int  # static
    instructions: dict[str, int] = field(default_factory=dict)  # of OPCODES, how often each stands in the code

    @property
    def spills(self) -> int:
        return self.spill_stores + self.spill_loads


@dataclass(frozen=True)
class Compiled:
    """A .cu file compiled for one target. `dynamic_shared` is what the launch adds, as far as VARIANTS says."""

    path: Path
    arch: str
    defines: dict[str, Any]
    cubin: bytes
    kernels: dict[str, Kernel]
    warnings: tuple[str, ...]
    log: str
    dynamic_shared: int = 0


@functools.cache
def _nvrtc() -> Any:
    """CuPy's thin layer over NVRTC: it needs no driver."""
    advice = 'In the project folder: pip install -e ".[cuda13]"'
    try:
        from cupy.cuda import nvrtc
    except ImportError as error:
        raise NoCompiler(f"compiling CUDA needs CuPy, which does not import ({error}). {advice}") from error
    try:
        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        raise NoCompiler(f"CuPy finds no NVRTC (the package nvidia-cuda-nvrtc): {error}. {advice}") from error
    return nvrtc


def version() -> tuple[int, int]:
    """NVRTC's, for instance (13, 0). Raises NoCompiler."""
    return _nvrtc().getVersion()


def compile(path: str | Path, arch: str, dynamic_shared: int = 0, **defines: Any) -> Compiled:
    """Compile the .cu file for the GPU `arch` ("sm_80") with -DNAME=value for each define.

    Raises NoCompiler without NVRTC, CompileError with the log if the source does not compile. Several threads may call
    it: NVRTC lets go of Python's lock.
    """
    nvrtc, path = _nvrtc(), Path(path)
    options = (f"-arch={arch}", "--std=c++17", "--ptxas-options=-v", *(f"-D{k}={v}" for k, v in defines.items()))
    program = nvrtc.createProgram(flatten(path), path.name, (), ())
    try:
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program).strip()
            raise CompileError(f"{path.name} for {arch} with {defines}: {error}\n{log}") from error
        log, cubin = nvrtc.getProgramLog(program), nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)
    return Compiled(path, arch, defines, cubin, read_log(log, cubin), warnings(log), log, dynamic_shared)


def warnings(log: str) -> tuple[str, ...]:
    """Lines of the log that complain: warnings, and the assembler's C75xx (wgmma made to wait, setmaxnreg ignored)."""
    lines = (line.strip() for line in log.splitlines() if not line.startswith("Remark:"))
    return tuple(line for line in lines if re.search(r"warning|\bC75\d\d\b|Potential Perf", line))


def read_log(log: str, cubin: bytes = b"") -> dict[str, Kernel]:
    """What --ptxas-options=-v says of each kernel."""
    code = instructions(cubin) if cubin else {}
    found = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'([^']+)'", part)[1]  # type: ignore[index]
        # Other functions, called and not inlined, may stand in between; properties of ours come last, before "Used".
        own = part[part.rfind(f"Function properties for {name}") :]
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", own)
        stack, stores, loads = map(int, frame.groups()) if frame else (0, 0, 0)
        used = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        found[name] = Kernel(name, int(used[1]) if used else 0, stores, loads, stack, int(shared[1]) if shared else 0,
                             code.get(name, {}))  # fmt: skip
    return found


def instructions(cubin: bytes) -> dict[str, dict[str, int]]:
    """{kernel: {instruction of OPCODES: how often it stands in the code}}, from the ELF file that a cubin is."""
    cubin = cubin + bytes(64)  # CuPy leaves out the last byte
    start = struct.unpack_from("<Q", cubin, 0x28)[0]
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, start + i * size) for i in range(count)]
    strings = headers[names][4]
    found = {}
    for at, _, _, _, offset, length in headers:
        name = cubin[strings + at : cubin.index(b"\0", strings + at)].decode()
        if name.startswith(".text."):
            words = struct.unpack_from(f"<{length // 8}Q", cubin, offset)[::2]
            counts = collections.Counter(OPCODES.get(word & 0x1FF) for word in words)
            found[name.removeprefix(".text.")] = {op: n for op, n in counts.items() if op}
    return found


def violations(done: Compiled) -> list[str]:
    """What is wrong with it, a sentence each; empty if nothing is."""
    where = _where(done.path)
    place = f"{where} {_words(done.defines)}for {done.arch}"
    found = [f"{place}: {line}" for line in done.warnings]
    if not done.kernels:
        found.append(f"{place}: no kernel in it")
    limit = SHARED[done.arch]
    for kernel in done.kernels.values():
        name, allowed = f"{place}: {kernel.name}", _allowed_spills(f"{where}:{kernel.name}", done.arch)
        if kernel.spills > allowed:
            tolerated = f", {allowed} are allowed" if allowed else ""
            found.append(f"{name} spills {kernel.spills} bytes (with {kernel.registers} registers){tolerated}")
        local = kernel.instructions.get("LDL", 0) + kernel.instructions.get("STL", 0)
        if (kernel.stack or local) and not allowed and not kernel.spills:
            found.append(f"{name} uses local memory: {local} loads and stores, a stack of {kernel.stack} bytes")
        if kernel.shared > STATIC_SHARED:
            found.append(f"{name} has {kernel.shared} bytes of static shared memory; {STATIC_SHARED} is the most")
        elif kernel.shared + done.dynamic_shared > limit:
            total = kernel.shared + done.dynamic_shared
            found.append(f"{name} has {total} bytes of shared memory; {done.arch} has {limit} for a block")
        for pattern, lowest, wanted in EXPECTED:
            if runs_on(done.arch, lowest) and re.search(pattern, f"{done.path.as_posix()}:{kernel.name}"):
                found += [f"{name} has no {op} in its code" for op in wanted if op not in kernel.instructions]
    return found


def _allowed_spills(kernel: str, arch: str) -> int:
    return max((n for pattern, target, n, _ in ALLOWED_SPILLS
                if re.search(pattern, kernel) and re.fullmatch(target, arch)), default=0)  # fmt: skip


def _where(path: Path) -> str:
    return path.relative_to(KERNELS).as_posix() if path.is_relative_to(KERNELS) else path.name


def _words(defines: dict[str, Any]) -> str:
    return "".join(f"{name}={value} " for name, value in defines.items())


# ------------------------------------------------------------------------------------------- all kernels


@dataclass(frozen=True)
class Variant:
    """A line of a VARIANTS list."""

    path: Path
    defines: tuple[tuple[str, Any], ...]
    lowest: str
    dynamic_shared: int = 0

    def compile(self, arch: str) -> Compiled:
        return compile(self.path, arch, self.dynamic_shared, **dict(self.defines))


def runs_on(arch: str, lowest: str) -> bool:
    """Code for `lowest` and later can be compiled for `arch`; sm_90a's instructions are in sm_90a alone."""
    return arch == lowest if lowest.endswith("a") else _number(arch) >= _number(lowest)


def _number(arch: str) -> int:
    return int(re.sub(r"\D", "", arch))


def variants() -> list[Variant]:
    """All of kernels/*/cuda*.py, in the order of their paths."""
    found = []
    for file in sorted(KERNELS.glob("*/cuda*.py")):
        module = importlib.import_module(f"kernels.{file.parent.name}.{file.stem}")
        for path, defines, lowest, *shared in getattr(module, "VARIANTS", []):
            lowest = lowest if str(lowest).startswith("sm_") else f"sm_{lowest}"
            variant = Variant(Path(path).resolve(), tuple(defines.items()), lowest, shared[0] if shared else 0)
            if variant not in found:
                found.append(variant)
    return found


Pair = tuple[Variant, str]


def pairs(of: Sequence[Variant]) -> list[Pair]:
    """Every variant for every target that it runs on."""
    return [(variant, arch) for variant in of for arch in TARGETS if runs_on(arch, variant.lowest)]


def ordinary(of: Sequence[Variant]) -> list[Pair]:
    """Few of the pairs: every file for every target, every variant for some target.

    A file's variants take turns over the targets. Those whose turn never comes are compiled for the target that most
    people measure on, or else the lowest.
    """
    every: list[Pair] = []
    for path in dict.fromkeys(variant.path for variant in of):
        same = [variant for variant in of if variant.path == path]
        turns, chosen = dict.fromkeys(same, 0), []
        for arch in reversed(TARGETS):  # the last ones have the most variants to choose from
            fits = [variant for variant in same if runs_on(arch, variant.lowest)]
            if fits:
                variant = min(fits, key=lambda v: turns[v])  # the first of those that had the fewest turns
                turns[variant] += 1
                chosen.append((variant, arch))
        for variant in same:
            if not turns[variant]:
                archs = [arch for arch in TARGETS if runs_on(arch, variant.lowest)]
                chosen.append((variant, "sm_90a" if "sm_90a" in archs else archs[0]))
        every += sorted(chosen, key=lambda pair: TARGETS.index(pair[1]))
    return every


def compile_all(of: Iterable[Pair], jobs: int | None = None) -> Iterator[tuple[Pair, Compiled | CompileError]]:
    """Compiles on `jobs` threads (None: one for each core) and yields in the order given."""

    def run(pair: Pair) -> Compiled | CompileError:
        try:
            return pair[0].compile(pair[1])
        except CompileError as error:
            return error

    of = list(of)
    _nvrtc()
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        yield from zip(of, pool.map(run, of))


TITLES = ("file", "kernel", "variant", "target", "registers", "shared", "spills", "instructions")


def rows(done: Compiled) -> list[tuple[str, ...]]:
    """Lines of the table, one a kernel."""
    return [
        (_where(done.path), k.name, _words(done.defines).strip(), done.arch, str(k.registers),
         f"{k.shared}+{done.dynamic_shared}" if done.dynamic_shared else str(k.shared), str(k.spills),
         " ".join(f"{op}:{n}" for op, n in sorted(k.instructions.items())))
        for k in done.kernels.values()
    ]  # fmt: skip


def table(lines: list[tuple[str, ...]]) -> str:
    """Plain text, columns as wide as their longest entry."""
    lines = [TITLES, *lines]
    wide = [max(len(line[i]) for line in lines) for i in range(len(TITLES))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(line, wide)).rstrip() for line in lines)


def _asked_for(words: Sequence[str], defines: Sequence[str]) -> list[Variant]:
    """The variants whose path contains one of the words, all without a word; and files of the user's own."""
    own = [Path(word) for word in words if word.endswith(".cu") and Path(word).is_file()]
    if own:
        macros = tuple((name, value or "1") for name, _, value in (d.partition("=") for d in defines))
        return [Variant(path.resolve(), macros, TARGETS[0]) for path in own]
    return [v for v in variants() if not words or any(word in v.path.as_posix() for word in words)]


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(prog="python -m kernels.gpu.nvrtc", description="Compile every CUDA kernel; no GPU.")
    p.add_argument(
        "words", nargs="*", metavar="WORD", help="only files whose path contains one of these; or .cu files of your own"
    )
    p.add_argument(
        "-D", dest="defines", action="append", default=[], metavar="NAME=VALUE", help="a macro for your own files"
    )
    p.add_argument("--arch", action="append", choices=TARGETS, help="only this target; may be given again")
    p.add_argument("--all", action="store_true", help="every variant for every target")
    p.add_argument("--jobs", type=int, default=None, metavar="N", help="threads; default: one for each core")
    p.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the table's lines as JSON, too")
    arguments = p.parse_args(argv)
    of = _asked_for(arguments.words, arguments.defines)
    chosen = [pair for pair in (pairs if arguments.all else ordinary)(of) if pair[1] in (arguments.arch or TARGETS)]
    if not chosen:
        print("python -m kernels.gpu.nvrtc: no variant of a kernel matches", file=sys.stderr)
        return 1
    lines, wrong = [], []
    try:
        for _, done in compile_all(chosen, arguments.jobs):
            if isinstance(done, CompileError):
                wrong.append(str(done))
            else:
                lines += rows(done)
                wrong += violations(done)
    except NoCompiler as error:
        print(f"python -m kernels.gpu.nvrtc: {error}", file=sys.stderr)
        return 2
    print(table(lines))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([dict(zip(TITLES, line)) for line in lines], indent=1))
    major, minor = version()
    print(f"\nNVRTC {major}.{minor}: {len(chosen)} compilations, {len(lines)} kernels, {len(wrong)} violations")
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
