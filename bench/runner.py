"""One case: check everything, time what is right, check again. The result is a row per implementation."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kernels

from . import equal, rivals, timing
from .case import Case, CommandError, Make, Options, plain
from .limits import Limits
from .machine import Load
from .prepared import Local, Outputs
from .remote import Remote, RemoteError, Worker, library

OURS = "minillm"
Row = dict[str, Any]


@dataclass
class Session:
    options: Options
    budget: timing.Budget
    limits: dict[int, Limits]  # by number of threads
    candidates: list[Candidate] = field(default_factory=list)
    flush: Callable[[], None] | None = None  # with it, caches are emptied before every repeat
    workers: dict[str, Worker] = field(default_factory=dict)  # by library; those without one run in this process
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    failed: bool = False  # one of ours or a candidate is wrong

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass
class Candidate:
    """A user's function, and the kernel that it stands for."""

    name: str  # in the report
    kernel: str
    function: Callable[..., Any]
    joined: int = 0  # cases


def load_candidate(spec: str) -> Candidate:
    """ "module:function" or "module:function=kernel"."""
    name, _, kernel = spec.partition("=")
    module, _, function = name.partition(":")
    if not module or not function:
        raise CommandError(f"--candidate takes module:function or module:function=kernel, got {spec!r}")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CommandError(f"--candidate {spec}: {error}") from error
    if not callable(found):
        raise CommandError(f"--candidate {spec}: {function} is {type(found).__name__}, not a function")
    kernel = kernel or function
    if not callable(getattr(kernels, kernel, None)):
        raise CommandError(
            f"--candidate {spec}: there is no kernels.{kernel}; say which kernel it stands for: {name}=softmax_forward"
        )
    return Candidate(name, kernel, found)


def implementations(case: Case, session: Session) -> dict[str, Make]:
    found: dict[str, Make] = {}
    if case.kernel is not None:
        function = getattr(kernels, case.kernel, None)
        if function is None:
            session.note(f"{case.suite}: kernels.{case.kernel} does not exist; its cases are left out")
        else:
            found[OURS] = plain(function, **case.settings)
        for candidate in session.candidates:
            if candidate.kernel == case.kernel:
                found[candidate.name] = plain(candidate.function, **case.settings)
                candidate.joined += 1
    found |= case.ours
    if found:
        allowed = session.options.rivals | ({"scipy"} if "numpy" in session.options.rivals else set())
        found |= {name: make for name, make in case.rivals.items() if name in allowed}
    return found


def run_case(case: Case, session: Session) -> list[Row]:
    """Rows of the case, appended to the session's."""
    makes = implementations(case, session)
    if not makes:
        return []
    with rivals.threads(case.threads):
        rows = _run(case, makes, session)
    session.rows += rows
    return rows


def _run(case: Case, makes: dict[str, Make], session: Session) -> list[Row]:
    oracle = _oracle(case, any(name.endswith(".bf16") for name in makes))
    before = _checksums(case.inputs)
    rows: dict[str, Row] = {}
    runs: dict[str, Local | Remote] = {}
    for name, make in makes.items():
        trusted = name in case.rivals  # a rival is timed, and marked, even where it is less exact than the bound
        try:
            run = _prepare(case, name, make, session)
            verdict = _verdict(case, name, run.outputs(), oracle)
        except Exception as error:
            if trusted:
                _failed(case, name, error, session)
                continue
            verdict = equal.Verdict(False, np.inf, f"{type(error).__name__}: {error}")
        if verdict.equal and _checksums(case.inputs) != before:
            verdict = equal.Verdict(False, verdict.max_error, "an input was written to")
        rows[name] = _row(case, name, verdict, session)
        if verdict.equal or (trusted and np.isfinite(verdict.max_error)):
            runs[name] = run
        else:
            _refuse(case, name, verdict, session, before)
    load = Load.start(tuple(w.pid for w in session.workers.values() if w.pid is not None))
    measured = timing.measure(runs, session.budget)
    busy = load.stop()
    for name, times in measured.items():
        try:
            if times.error is not None:
                raise times.error
            verdict = _verdict(case, name, runs[name].outputs_again(), oracle)
        except Exception as error:
            if name in case.rivals:
                _failed(case, name, error, session)
                del rows[name]
                continue
            verdict = equal.Verdict(False, np.inf, f"{type(error).__name__}: {error}")
        if times.samples:
            _fill(rows[name], times)
        rows[name]["load"] = None if np.isnan(busy) else round(busy, 3)
        if rows[name]["equal"] and not verdict.equal:
            rows[name] |= {"equal": False, "problem": f"after timing: {verdict.problem}"}
            if name not in case.rivals:
                _refuse(case, name, verdict, session, before, " after timing")
    if case.in_place is False and _checksums(case.inputs) != before:
        session.note(f"{case.suite} {case.name}: an input changed while it was timed")
    _ratios(rows)
    return list(rows.values())


def _prepare(case: Case, name: str, make: Make, session: Session) -> Local | Remote:
    worker = session.workers.get(library(name)) if name in case.rivals else None
    return Local(case, make, session.flush) if worker is None else Remote(worker, case, name)


def _failed(case: Case, name: str, error: Exception, session: Session) -> None:
    kind = "" if isinstance(error, RemoteError) else f"{type(error).__name__}: "
    session.note(f"{case.suite} {case.name}: {name} failed: {kind}{_first_line(error)}")


def _refuse(case: Case, name: str, verdict: equal.Verdict, session: Session, before: list, when: str = "") -> None:
    session.failed = True
    session.note(f"REFUSED {name} in {case.suite} {case.name}{when}: {verdict.problem}")
    if _checksums(case.inputs) != before:  # the others are to get what was promised
        raise CommandError(f"{name} wrote to its inputs in {case.suite} {case.name}: repair that first")


def _checksums(inputs: tuple) -> list[int]:
    return [zlib.adler32(np.ascontiguousarray(x).data) for x in inputs if isinstance(x, np.ndarray) and x.size]


def _reference(case: Case) -> Callable[..., Any]:
    if case.reference is not None:
        return case.reference
    function = getattr(kernels, str(case.kernel))

    def reference(*inputs: Any) -> Any:
        if case.in_place:
            inputs = tuple(x.copy() if isinstance(x, np.ndarray) else x for x in inputs)
        result = function(*inputs, **case.settings, impl="reference")
        return inputs if result is None else result

    return reference


def _oracle(case: Case, with_bf16: bool) -> equal.Oracle:
    return equal.oracle(_reference(case), case.inputs, case.backward, case.tolerance, with_bf16)


def _verdict(case: Case, name: str, outputs: Outputs, oracle: equal.Oracle) -> equal.Verdict:
    if case.select is not None:
        outputs = case.select(outputs)
    verdict = oracle.check(outputs, "bfloat16" if name.endswith(".bf16") else "float32", name not in case.rivals)
    if case.ulp and verdict.equal:
        verdict.ulp = equal.max_ulp(outputs[0], oracle.exact[0])  # type: ignore[arg-type]
    return verdict


def _row(case: Case, name: str, verdict: equal.Verdict, session: Session) -> Row:
    threads = case.threads or session.options.threads
    limits = session.limits[threads]
    touched = case.bytes if case.cached and not session.budget.cold else np.inf
    limit = limits.seconds(case.flops, case.bytes, touched, name.endswith(".bf16"), case.stream)
    return {
        "suite": case.suite, "case": case.name, "implementation": name, "label": case.labels.get(name, ""),
        "median_s": None, "q1_s": None, "q3_s": None, "samples": 0,
        "flops": case.flops, "bytes": case.bytes, "elements": case.elements,
        "limit_s": limit or None, "share_of_limit": None, "compute_bound": case.flops / limits.peak >= limit * 0.999,
        "max_error": verdict.max_error if np.isfinite(verdict.max_error) else None,
        "equal": verdict.equal, "problem": verdict.problem,
        "threads": threads, "cold": session.budget.cold, "ratios": {}, "load": None,
    } | ({} if verdict.ulp is None else {"max_ulp": verdict.ulp})  # fmt: skip


def _fill(row: Row, times: timing.Times) -> None:
    q1, median, q3 = times.quartiles()
    row |= {"median_s": median, "q1_s": q1, "q3_s": q3, "samples": len(times.samples)}
    if row["limit_s"]:
        row["share_of_limit"] = row["limit_s"] / median


def _ratios(rows: dict[str, Row]) -> None:
    """rows[a]["ratios"][b] = how many times as long as a the implementation b takes."""
    timed = {name: row["median_s"] for name, row in rows.items() if row["median_s"]}
    for name, own in timed.items():
        rows[name]["ratios"] = {other: t / own for other, t in timed.items() if other != name}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
