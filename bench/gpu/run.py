"""Runs the parts one after another, each in a process that may crash or hang, and writes what there is after each."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import PARTS
from .lab import DRY_LABEL, Row
from .part_ceilings import limits
from .part_gpt import ratios
from .worker import BROKEN

STALL = 75.0  # seconds without a word after which a case hangs
START = 60.0  # until a process has loaded what it needs
RESTARTS = 12  # of a part's process
NO_TIME = "no time left"
ROOT = Path(__file__).parents[2]


@dataclass
class Run:
    device: str  # "gpu" or "simulator"
    out: Path
    seconds: float
    only: str = ""
    candidates: list[str] = field(default_factory=list)
    with_shares: bool = False  # other parts need all ceilings, whatever `only` says
    stall: float = STALL
    say: Callable[[str], None] = print
    machine: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def parts(self, names: list[str]) -> None:
        """All of them. What one part leaves of its time, the next ones have."""
        start, share = time.monotonic(), sum(PARTS[name] for name in names)
        due, self.with_shares = start, len(names) > 1
        for name in names:
            due += self.seconds * PARTS[name] / share
            began, before = time.monotonic(), len(self.rows)
            self.say(f"{name}: up to {max(0.0, due - began):.0f} s")
            try:
                self.part(name, due)
            except Exception as error:  # of this file: the other parts are worth having all the same
                self.notes.append(f"{name}: {type(error).__name__}: {error}")
            ratios(self.rows)
            wrong = [row for row in self.rows[before:] if not row["equal"]]
            self.say(f"{name}: {len(self.rows) - before} rows, {len(wrong)} of them failed, "
                     f"{time.monotonic() - began:.0f} s")  # fmt: skip
            self.machine.setdefault("seconds", {})[name] = round(time.monotonic() - began, 1)
            self.write()

    def part(self, name: str, due: float) -> None:
        """One part, until it is done or `due` (time.monotonic())."""
        done, names = 0, None
        for _ in range(RESTARTS):
            only = "" if name == "ceilings" and self.with_shares else self.only
            asked = {"limits": limits(self.rows), "skip": done, "only": only, "candidates": self.candidates}
            worker = _Worker(name, self.device, asked)
            ended = 0
            started: str | None = None
            problem, patience = "", max(self.stall, START)
            while True:
                now = time.monotonic()
                message = worker.next(min(patience, due - now))
                if message is None:
                    late = time.monotonic() >= due
                    problem = NO_TIME if late else f"nothing heard for {patience:.0f} s: it hangs"
                    break
                patience = self.stall if "machine" not in message else patience
                if "status" in message:
                    if message["status"] not in (0, BROKEN):
                        problem = f"the process ended with status {message['status']}: {worker.last_words()}"
                    break
                names = message.get("cases", names)
                if "machine" in message:
                    self.machine = message["machine"] | {k: v for k, v in self.machine.items() if k == "seconds"}
                elif "row" in message:
                    self.rows.append(message["row"])
                elif "start" in message:
                    started = message["start"]
                elif "end" in message:
                    started, ended = None, ended + 1
            worker.end()
            done += ended
            if problem:
                self.rows.append(_row(name, started or "start of the part", problem, self.device))
                done += 1 if started is not None else 0
                if problem == NO_TIME or names is None:
                    break
            if names is None or done >= len(names):
                break
        for rest in (names or [])[done:]:
            self.rows.append(_row(name, rest, NO_TIME, self.device))

    def write(self) -> None:
        from .report import markdown

        self.out.mkdir(parents=True, exist_ok=True)
        result = {"machine": self.machine, "rows": self.rows, "notes": self.notes}
        for file, text in (("results.json", json.dumps(result, indent=1)), ("report.md", markdown(result))):
            path = self.out / file
            path.with_suffix(".tmp").write_text(text)
            os.replace(path.with_suffix(".tmp"), path)


def _row(part: str, case: str, problem: str, device: str) -> Row:
    """For a case whose process could not tell."""
    from .lab import Lab

    row = Lab(device == "simulator", None, "", "").row(part, case, equal=False, problem=problem)
    return row | {"label": DRY_LABEL if device == "simulator" else ""}


class _Worker:
    """The process, its lines in a queue."""

    def __init__(self, part: str, device: str, asked: dict[str, Any]):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu.worker", part, device], cwd=ROOT, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.words: list[str] = []
        self.listeners = [threading.Thread(target=f, daemon=True) for f in (self._listen, self._overhear)]
        for thread in self.listeners:
            thread.start()
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()

    def next(self, seconds: float) -> dict[str, Any] | None:
        """The next message, {"status": of the process} at its end; None if it says nothing for so long."""
        try:
            return self.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def last_words(self) -> str:
        self.listeners[1].join(timeout=2)
        return " | ".join(line.strip() for line in self.words[-2:] if line.strip())[:400]

    def end(self) -> None:
        """The process and what it started, if they still run; a group of their own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for thread in self.listeners:
            thread.join(timeout=2)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.lines.put(json.loads(line))
        self.lines.put({"status": self.process.wait()})

    def _overhear(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.words = [*self.words[-50:], line]
