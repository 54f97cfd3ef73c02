"""Rivals in processes of their own: torch and JAX get a worker each, for the whole run (bench/worker.py).

Every library has threads that it thinks alone on the machine. torch's backward pass, for one, runs on a thread with an
OpenMP pool of its own; beside the pool that Numba uses from the main thread, a training step of 40 ms was measured to
take 260 to 1500 ms. In a process of its own torch has what a user of torch has, OpenMP's default for spinning included,
and a worker that is not asked for anything waits on a pipe, with all its threads asleep.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import environment
from .case import Case, Options
from .prepared import Outputs

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "jax")


class RemoteError(Exception):
    """What went wrong in a worker, as it says itself; or that it is gone."""


def library(implementation: str) -> str:
    """ "torch.bf16" -> "torch" """
    return implementation.partition(".")[0]


class Worker:
    """A process, started when first asked and again if it died; one question, one answer, a line of JSON each."""

    def __init__(self, name: str, options: Options, cold: bool = False, command: list[str] | None = None):
        self.name = name
        self.begin = {"options": asdict(options) | {"rivals": sorted(options.rivals)}, "cold": cold}
        self.command = command or [sys.executable, "-m", "bench.worker", name]
        self.process: subprocess.Popen | None = None
        self.folder = ""

    def ask(self, **question: Any) -> Any:
        if self.process is None:
            self._start()
        answer = self._exchange(question)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["result"]

    def arrays(self, names: list[str | None]) -> Outputs:
        """Outputs that the worker wrote into the folder; they are taken out of it."""
        found: Outputs = []
        for name in names:
            found.append(None if name is None else np.load(Path(self.folder, name), allow_pickle=False))
            if name is not None:
                Path(self.folder, name).unlink()
        return found

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()  # type: ignore[union-attr]
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()  # type: ignore[union-attr]
            shutil.rmtree(self.folder, ignore_errors=True)
            self.process = None

    def _start(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="bench-", dir=_memory())
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment.of_worker() | {"PYTHONPATH": path},
        )  # fmt: skip
        self._exchange(self.begin | {"folder": self.folder})

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        line = ""
        with contextlib.suppress(OSError):  # a broken pipe: it died
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        process = self.process
        self.close()
        raise RemoteError(f"the process of {self.name} died (exit status {process.returncode})")


class Remote:
    """An implementation in a worker; see prepared.py."""

    def __init__(self, worker: Worker, case: Case, name: str):
        self.worker = worker
        self.which = {"suite": case.suite, "case": case.name, "name": name}
        worker.ask(do="make", **self.which)

    def outputs(self) -> Outputs:
        return self.worker.arrays(self.worker.ask(do="outputs", **self.which))

    def outputs_again(self) -> Outputs:
        return self.worker.arrays(self.worker.ask(do="outputs_again", **self.which))

    def estimate(self) -> float:
        return self.worker.ask(do="estimate", **self.which)

    def block(self, count: int, inner: int, seconds: float) -> list[float]:
        return self.worker.ask(do="block", count=count, inner=inner, seconds=seconds, **self.which)


@contextlib.contextmanager
def workers(options: Options, cold: bool = False) -> Any:
    """{library: Worker}; none runs before it is asked, all have ended afterwards."""
    wanted = {library(name) for name in options.rivals} & set(LIBRARIES)
    found = {name: Worker(name, options, cold) for name in sorted(wanted)}
    try:
        yield found
    finally:
        for worker in found.values():
            worker.close()


def _memory() -> str | None:
    """A folder in memory with room for large outputs, or None: the usual one."""
    with contextlib.suppress(OSError):
        if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 2 << 30:
            return "/dev/shm"
    return None
