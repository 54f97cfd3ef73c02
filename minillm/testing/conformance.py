"""Does a fast implementation compute what the plain one does? For kernels: forward and backward, on any layout.

The bound is one that means something. The oracle is the reference in float64, on inputs already rounded to the kernel's
dtype; the plain version is the reference in that dtype. A kernel passes if

    |kernel - oracle| <= factor * max |plain - oracle| + c * eps * scale         scale = largest |oracle|

with the floor because the plain version can be exact. This is how FlashAttention's tests compare (factor 2 forward, 3
backward). A NaN where the oracle has a number, or the other way round, is a failure, never a wildcard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .check import as_arrays


class ConformanceError(AssertionError):
    """A kernel disagrees with its reference. The message is the report."""


@dataclass
class ConformanceReport:
    """bool(report) is the verdict, str(report) the reasons."""

    name: str
    problems: list[str] = field(default_factory=list)
    compared: int = 0  # numbers compared
    worst: float = 0.0  # largest error over its bound; above 1 is a failure
    ulp: dict[int, float] = field(default_factory=dict)  # percentile -> error in units in the last place

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"kernel {self.name}: {'conforms' if self else 'FAILED'}, {self.compared} numbers compared"]
        lines.append(
            f"  largest error {self.worst:.3g} of its bound; ulp "
            + ", ".join(f"p{p} {u:.3g}" for p, u in self.ulp.items())
        )
        return "\n".join(lines + [f"  problem: {p}" for p in self.problems])


def layouts(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same values in other memory: a kernel that assumes contiguity reads these wrong.

    >>> [name for name, _ in layouts(np.zeros((2, 3)))]
    ['C', 'Fortran', 'reversed', 'stepped', 'offset', 'read-only', 'transposed']
    """
    yield "C", np.ascontiguousarray(x).reshape(x.shape)
    if x.ndim == 0 or x.size == 0:
        return
    yield "Fortran", np.asfortranarray(x)
    yield "reversed", np.ascontiguousarray(np.flip(x))[tuple([slice(None, None, -1)] * x.ndim)]
    wide = np.full([2 * n for n in x.shape], 77, x.dtype)
    wide[tuple([slice(None, None, 2)] * x.ndim)] = x
    yield "stepped", wide[tuple([slice(None, None, 2)] * x.ndim)]
    padded = np.full([n + 1 for n in x.shape], 77, x.dtype)
    padded[tuple([slice(1, None)] * x.ndim)] = x
    yield "offset", padded[tuple([slice(1, None)] * x.ndim)]
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    if x.ndim > 1:
        yield "transposed", np.ascontiguousarray(np.swapaxes(x, 0, -1)).swapaxes(0, -1)


def check_kernel(
    candidate: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    dtype: Any = np.float32,
    factor: float = 2.0,
    c: float = 8.0,
    repeat: int = 2,
    alignments: bool = True,
    name: str | None = None,
    raise_exception: bool = True,
) -> ConformanceReport:
    """Compare candidate(*inputs) with reference(*inputs): arrays, or tuples of arrays (None stays None).

    inputs      floating arrays are rounded to dtype, everything else is handed through
    factor, c   of the bound above; take factor 3 for backward passes
    repeat      how often the candidate runs: the bits must be the same every time
    alignments  run it on every layout of every array, too
    Raises ConformanceError, unless raise_exception is False.

    >>> bool(check_kernel(np.square, lambda x: x * x, [np.linspace(-1, 1, 7)]))
    True
    """
    dtype = np.dtype(dtype)
    inputs = [np.asarray(x).astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in inputs]
    wide = [x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in inputs]
    report = ConformanceReport(name or str(getattr(candidate, "__name__", "kernel")))
    with np.errstate(all="ignore"):
        oracle, plain = _outputs(reference(*wide)), _outputs(reference(*inputs))
    if len(oracle) != len(plain):
        raise ValueError("check_kernel: the reference returns different numbers of arrays for two dtypes")
    bounds = [
        None if o is None else _bound(o, np.asarray(p), factor, c * float(np.finfo(dtype).eps))
        for o, p in zip(oracle, plain)
    ]
    kept = [x.copy() if isinstance(x, np.ndarray) else x for x in inputs]
    first = _outputs(candidate(*inputs))
    _compare(report, "", first, oracle, bounds, dtype)
    for i, (x, before) in enumerate(zip(inputs, kept)):
        if isinstance(x, np.ndarray):
            if x.tobytes() != before.tobytes():
                report.problems.append(f"input {i} was written to")
            report.problems += [
                f"output {k} shares memory with input {i}"
                for k, o in enumerate(first)
                if o is not None and np.shares_memory(o, x)
            ]
    for n in range(1, repeat):
        again = _outputs(candidate(*inputs))
        if any(a is not None and a.tobytes() != np.asarray(b).tobytes() for a, b in zip(first, again)):
            report.problems.append(f"run {n + 1} gave other bits than the first")
    if alignments:
        for i, x in enumerate(inputs):
            for layout, view in layouts(x) if isinstance(x, np.ndarray) else ():
                got = _outputs(candidate(*inputs[:i], view, *inputs[i + 1 :]))
                _compare(report, f" with input {i} {layout}", got, oracle, bounds, dtype)
    if report.compared == 0:
        report.problems.append("nothing was compared")
    if raise_exception and not report:
        raise ConformanceError(str(report))
    return report


def _outputs(result: Any) -> list[np.ndarray | None]:
    if not isinstance(result, (tuple, list)):
        return as_arrays(result)  # type: ignore[return-value]
    return [None if r is None else np.asarray(r) for r in result]


def _bound(oracle: np.ndarray, plain: np.ndarray, factor: float, floor: float) -> float:
    finite = np.isfinite(oracle) & np.isfinite(plain)
    wide = oracle[finite].astype(np.float64)
    error = np.abs(plain[finite].astype(np.float64) - wide).max(initial=0.0)
    return float(factor * error + floor * np.abs(wide).max(initial=0.0))


def _compare(report: ConformanceReport, where: str, got: list, oracle: list, bounds: list, dtype: np.dtype) -> None:
    if len(got) != len(oracle):
        report.problems.append(f"{len(got)} outputs{where}, the reference has {len(oracle)}")
        return
    for k, (g, o, bound) in enumerate(zip(got, oracle, bounds)):
        if g is None or o is None:
            if (g is None) != (o is None):
                report.problems.append(
                    f"output {k}{where} is {'None' if g is None else 'an array'}, the reference's is not"
                )
            continue
        if g.shape != o.shape:
            report.problems.append(f"output {k}{where} has shape {g.shape}, the reference {o.shape}")
            continue
        if o.dtype.kind == "f" and g.dtype != dtype:
            report.problems.append(f"output {k}{where} is {g.dtype}; {dtype} went in")
        g, o = g.astype(np.float64), o.astype(np.float64)
        odd = ~np.isfinite(o) | ~np.isfinite(g)
        wrong = odd & ~((g == o) | (np.isnan(g) & np.isnan(o)))
        error = np.where(odd, 0.0, np.abs(np.where(odd, 0.0, g) - np.where(odd, 0.0, o)))
        wrong |= error > bound
        report.compared += g.size
        if g.size and bound:
            report.worst = max(report.worst, float(error.max()) / bound)
        if not where and g.size and o.dtype.kind == "f":
            ulp = error / np.spacing(
                np.maximum(np.abs(np.where(odd, 1.0, o)), np.finfo(dtype).tiny).astype(dtype)
            ).astype(np.float64)
            report.ulp = {p: max(report.ulp.get(p, 0.0), float(np.percentile(ulp, p))) for p in (50, 99, 100)}
        if wrong.any():
            at = np.unravel_index(int(np.argmax(np.where(odd & wrong, np.inf, np.where(wrong, error, -1.0)))), g.shape)
            index = tuple(int(a) for a in at)
            report.problems.append(
                f"output {k}{where}: {int(wrong.sum())} of {g.size} numbers wrong; worst at {index}: "
                f"{g[at]:.9g}, not {o[at]:.9g} (allowed error {bound:.2g})"
            )
