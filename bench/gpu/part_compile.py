"""Every CUDA kernel compiled for this GPU, on all cores: later parts find them in CuPy's cache on disk.

One kernel after another, as the parts ask for them, would take minutes of the eight. So the calls of the other parts
are made here with launching left out, which tells what they will ask for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .calls import CALLS, FLOATS, Side
from .lab import Lab, Row
from .parts import Cases
from .rungs import rungs

TITLE = "the kernels, compiled for this GPU"
Source = tuple[Path, tuple[tuple[str, Any], ...]]  # file, macros


def cases(lab: Lab) -> Cases:
    yield "CuPy's cache", lambda: _fill_cache(lab)
    yield "what the assembler says", lambda: _report(lab)


@contextlib.contextmanager
def recording() -> Iterator[dict[Source, None]]:
    """Inside the block kernels are noted instead of compiled and launched; what they would write stays unwritten."""
    from kernels.gpu import launch

    found: dict[Source, None] = {}

    def note(path: Path, defines: tuple) -> Any:
        found[Path(path), defines] = None
        return lambda *arguments, **settings: None

    before = launch._on_device, launch._on_simulator
    launch._on_device = lambda path, name, arch, defines: note(path, defines)
    launch._on_simulator = lambda path, name, defines, how: note(path, defines)
    try:
        yield found
    finally:
        launch._on_device, launch._on_simulator = before


def asked_for(lab: Lab) -> list[Source]:
    """What the other parts ask for."""
    calls = [lambda c=c, d=d, s=s: c(Side(lab, "cuda", d), s)
             for c in CALLS.values() for d in FLOATS for s in lab.pick((True, False), (True,))]  # fmt: skip
    for dim in (64, 128):
        for dtype in FLOATS[1:]:
            q = lab.normal(1, 1, 128, dim, dtype=dtype)
            lse = lab.xp.zeros((1, 1, 128), np.float32)
            for rung in rungs(lab):
                arrays = (q, q, q, q, q, lse) if rung.backward else (q, q, q)
                calls.append(lambda rung=rung, arrays=arrays: rung.run(*arrays, causal=True))
    with lab.on(), recording() as found, np.errstate(all="ignore"):
        for call in calls:
            with contextlib.suppress(Exception):  # nothing was computed; what asks for numbers gets odd ones
                call()
    return list(found)


def _fill_cache(lab: Lab) -> list[Row]:
    from kernels.gpu import launch, nvrtc

    def load(source: Source) -> Exception | None:
        path, defines = source
        try:
            if lab.dry:
                nvrtc.compile(path, lab.arch, **dict(defines))
            else:
                launch._module(path, lab.arch, defines).compile()
        except Exception as error:
            return error
        return None

    start = time.perf_counter()
    sources = asked_for(lab)
    sources = lab.pick(sources, sources[:2])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [(source, error) for source, error in zip(sources, pool.map(load, sources)) if error]
    rows = [lab.failed("compile", f"CuPy: {path.name} {dict(defines)}", error) for (path, defines), error in failed]
    took = time.perf_counter() - start
    return [*rows, lab.row("compile", f"CuPy's cache: {len(sources)} modules", median_s=took, samples=1)]


def _report(lab: Lab) -> list[Row]:
    """A row a kernel: registers, shared memory, spills; equal is false for violations (kernels/gpu/nvrtc.py)."""
    from kernels.gpu import nvrtc

    rows: list[Row] = []
    listed = [v for v in nvrtc.variants() if nvrtc.runs_on(lab.arch, v.lowest)]
    try:
        for (variant, _), done in nvrtc.compile_all([(v, lab.arch) for v in lab.pick(listed, listed[:2])]):
            case = f"{variant.path.name} {' '.join(f'{k}={v}' for k, v in variant.defines)}"
            if isinstance(done, nvrtc.CompileError):
                rows.append(lab.failed("compile", case, done))
                continue
            wrong = "; ".join(nvrtc.violations(done))
            for kernel in done.kernels.values():
                rows.append(lab.row(
                    "compile", f"{case} {kernel.name}", equal=not wrong, problem=wrong, registers=kernel.registers,
                    shared=kernel.shared, spills=kernel.spills, instructions=kernel.instructions,
                ))  # fmt: skip
    except nvrtc.NoCompiler as error:
        rows.append(lab.failed("compile", "all", error))
    return rows
