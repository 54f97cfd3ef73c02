"""Compile ahead, on all cores: `prepare()`, for programs that will use most of the kernels.

Kernels are compiled when they are first called, one after the other: for a training run some 50 seconds in all. Here
each core gets a share of them in a process of its own, and what they compile is kept on disk, from where the program
itself loads it. A second run finds a mark there and starts at once.

    python -c "import kernels; kernels.prepare()"
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def prepare(say: Callable[[str], Any] | None = None) -> float:
    """Compile the float32 kernels of training, unless that is done; returns the seconds it took, 0.0 for nothing to do.

    say: gets a line before the work starts (None: it goes to stderr). Where no folder can be written to, nothing
    happens: kernels are then compiled when they are called.
    """
    mark = _mark()
    if mark is None or mark.exists():
        return 0.0
    workers = os.cpu_count() or 1
    line = f"kernels: compiling for this CPU on {workers} cores; takes half a minute, once: the result is kept on disk"
    say(line) if say else print(line, file=sys.stderr)
    started = time.perf_counter()
    folder = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "KERNELS_QUIET": "1", "PYTHONPATH": paths}
    work = "from kernels.ahead import work; work({}, {})"
    command = [sys.executable, "-c"]
    shares = [subprocess.Popen([*command, work.format(workers, i)], env=environment) for i in range(workers)]
    failed = [share for share in shares if share.wait() != 0]
    if not failed:
        mark.touch()
    return time.perf_counter() - started


def _mark() -> Path | None:
    """A file beside the compiled code that says that all of this version is there; None without a folder for it."""
    from . import numba_setup

    @numba_setup.njit
    def probe(x):
        return x

    cache = getattr(probe, "_cache", None)
    folder = getattr(cache, "cache_path", None)
    if folder is None:
        return None
    digest = hashlib.sha256(numba_setup.environment().encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return Path(folder) / f"prepared-{digest.hexdigest()[:16]}"


def calls() -> list[tuple[float, Callable[[], Any]]]:
    """(seconds it takes to compile, a call that makes it happen) of each kernel; small and large where that differs."""
    import kernels as k

    from .peak import peak

    F = np.float32
    x, wide = np.ones((3, 5), F), np.ones((300, 70), F)  # the latter enough for all threads
    w, b, ids, y = np.ones((7, 5), F), np.ones(7, F), np.zeros((2, 3), np.int64), np.zeros(300, np.int64)
    q = np.ones((1, 2, 6, 16), F)
    flat = [np.ones(40_000, F) for _ in range(4)]

    def linear(activation: str | None) -> None:
        out, pre = k.linear_forward(x, w, b, activation=activation)
        k.linear_backward(out, x, w, pre, out, activation=activation)

    def attention() -> None:
        out, lse = k.attention_forward(q, q, q, causal=True)
        k.attention_backward(out, q, q, q, out, lse, causal=True)

    def layernorm(z: Any) -> None:
        weight = z[0].copy()
        out, mean, rstd, _ = k.layernorm_forward(z, weight, weight, residual=z)
        k.layernorm_forward(z, weight, weight)
        k.layernorm_backward(out, z, weight, mean, rstd, dresidual=z)

    def embedding() -> None:
        for i in (ids, np.zeros((40, 50), np.int64)):
            k.embedding_backward(k.embedding_forward(i, wide), i, 300)

    def reparameterize(z: Any) -> None:
        k.reparameterize_backward(z, z[:, 0].copy(), z, z, k.reparameterize_forward(z, z, z)[0])

    def bce(z: Any) -> None:
        k.bce_backward(k.bce_forward(z, z * 0, rows=True), z, z * 0)

    def cross_entropy() -> None:
        for z in (x, wide):
            k.cross_entropy_with_grad(z, y[: len(z)], 1.0)
            k.cross_entropy_forward(z, y[: len(z)])

    def adamw() -> None:
        k.adamw_flat(*flat, lr=0.1, step=1)
        k.global_norm(flat[0])

    def random() -> None:
        k.philox_normal((40_000,), 1)
        k.philox_uniform((40_000,), 1)
        k.philox_bits(40_000, 1)

    def dropout() -> None:
        k.dropout_backward(k.dropout_forward(wide, 0.5, 1, 0), 0.5, 1, 0)

    def each(function: Callable[[Any], Any], values: Sequence[Any] = (x, wide)) -> Callable[[], Any]:
        return lambda: [function(value) for value in values]  # type: ignore[func-returns-value]

    return [
        (16.0, attention),
        (9.0, each(linear, (None, "relu", "gelu", "silu"))),
        (4.0, embedding),
        (4.0, each(layernorm)),
        (3.5, random),
        (3.0, lambda: k.linear_cross_entropy(wide, wide[:65], y, 1.0)),
        (2.5, each(lambda z: k.softmax_backward(z, k.softmax_forward(z)))),
        (2.5, each(reparameterize)),
        (2.0, adamw),
        (2.0, each(bce)),
        (1.5, cross_entropy),
        (1.5, dropout),
        (1.0, each(lambda z: k.gelu_backward(z, k.gelu_forward(z)))),
        (1.0, lambda: peak(1, repeats=1, seconds=0.0)),
    ]


def share(workers: int, index: int) -> list[Callable[[], Any]]:
    """The calls of one worker: the longest first, each to whom has least so far."""
    loads, mine = [0.0] * workers, []
    for seconds, call in sorted(calls(), key=lambda pair: -pair[0]):
        least = loads.index(min(loads))
        loads[least] += seconds
        if least == index:
            mine.append(call)
    return mine


def work(workers: int, index: int) -> None:
    """Compile a share: what a process of `prepare` does."""
    for compile_one in share(workers, index):
        compile_one()
