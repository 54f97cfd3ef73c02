"""Is a result right? The rule is that of minillm/testing/conformance.py: see there.

    error <= factor * (error of the plain formula in the same precision) + 8 eps * (largest number of the oracle)

The oracle is the reference in float64 on inputs of float32. The plain version is the reference in float32; for
implementations that compute in bfloat16, the reference on inputs rounded to bfloat16, its outputs rounded as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EPS = {"float32": float(np.finfo(np.float32).eps), "bfloat16": 2.0**-8}


@dataclass
class Verdict:
    equal: bool
    max_error: float
    problem: str = ""
    ulp: float | None = None


@dataclass
class Oracle:
    """float64 outputs of the reference, and the error that is allowed in each of them, by precision."""

    exact: list[np.ndarray | None]
    bounds: dict[str, list[float]] = field(default_factory=dict)

    def check(self, outputs: list[np.ndarray | None], precision: str, all_of_them: bool) -> Verdict:
        """all_of_them: as many outputs as the reference; otherwise a prefix of them."""
        if not outputs or len(outputs) > len(self.exact) or (all_of_them and len(outputs) != len(self.exact)):
            return Verdict(False, np.inf, f"{len(outputs)} outputs, the reference has {len(self.exact)}")
        worst, problems = 0.0, []
        for k, (got, exact, bound) in enumerate(zip(outputs, self.exact, self.bounds[precision])):
            error, problem = compare(got, exact, bound)
            worst = max(worst, error)
            problems += [f"output {k}: {problem}"] if problem else []
        return Verdict(not problems, worst, "; ".join(problems))


def max_ulp(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in spacings of float32 numbers at the exact value, subnormal ones not finer."""
    spacing = np.spacing(np.maximum(np.abs(exact), np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)
    return float((np.abs(got.astype(np.float64) - exact) / spacing).max(initial=0.0))


def compare(got: np.ndarray | None, exact: np.ndarray | None, bound: float) -> tuple[float, str]:
    """Largest error, and what is wrong, "" if nothing. NaN and infinity must be where the oracle has them."""
    if got is None or exact is None:
        return 0.0, "" if got is exact else ("None, expected an array" if got is None else "an array, expected None")
    if got.shape != exact.shape:
        return np.inf, f"shape {got.shape}, expected {exact.shape}"
    got, exact = got.astype(np.float64, copy=False), exact.astype(np.float64, copy=False)
    if not got.size:
        return 0.0, ""
    with np.errstate(invalid="ignore"):
        error = np.abs(got - exact)
    odd = ~np.isfinite(got) | ~np.isfinite(exact)
    if odd.any():
        same = (got == exact) | (np.isnan(got) & np.isnan(exact))
        error = np.where(odd, np.where(same, 0.0, np.inf), error)
    at = np.unravel_index(int(np.argmax(error)), error.shape)
    if error[at] <= bound:
        return float(error[at]), ""
    index = tuple(int(i) for i in at)
    wrong = int((error > bound).sum())
    return float(error[at]), (
        f"{wrong} of {got.size} numbers wrong; worst at {index}: {got[at]:.7g}, not {exact[at]:.7g} "
        f"(allowed error {bound:.2g})"
    )


def oracle(
    reference: Callable[..., Any], inputs: tuple, backward: bool, tolerance: float | None, with_bf16: bool
) -> Oracle:
    wide = tuple(_cast(x, np.float64) for x in inputs)
    with np.errstate(all="ignore"):
        exact = as_arrays(reference(*wide))
        scales = [0.0 if e is None else float(np.abs(e[np.isfinite(e)]).max(initial=0.0)) for e in exact]
        if tolerance is not None:
            bounds = [tolerance * s for s in scales]
            return Oracle(exact, {"float32": bounds, "bfloat16": [b * 100 for b in bounds]})
        plains = {"float32": as_arrays(reference(*inputs))}
        if with_bf16:
            rounded = tuple(to_bf16(x) if _floating(x) else x for x in inputs)
            plains["bfloat16"] = [None if p is None else to_bf16(p) for p in as_arrays(reference(*rounded))]
    factor = 3.0 if backward else 2.0
    bounds = {}
    for precision, plain in plains.items():
        errors = [0.0 if e is None or p is None else _error(p, e) for p, e in zip(plain, exact)]
        bounds[precision] = [factor * error + 8 * EPS[precision] * s for error, s in zip(errors, scales)]
    return Oracle(exact, bounds)


def _error(plain: np.ndarray, exact: np.ndarray) -> float:
    finite = np.isfinite(plain) & np.isfinite(exact)
    return float(np.abs(plain[finite].astype(np.float64) - exact[finite]).max(initial=0.0))


def _floating(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if _floating(x) else x


def to_bf16(x: np.ndarray) -> np.ndarray:
    """float32 numbers rounded to the nearest bfloat16, ties to even; still float32."""
    if not _floating(x):
        return x
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x).astype(np.float32)


def as_arrays(result: Any) -> list[np.ndarray | None]:
    """Results of any library as a flat list of NumPy arrays; bfloat16 becomes float32."""
    if isinstance(result, (tuple, list)):
        return [a for r in result for a in as_arrays(r)]
    if result is None:
        return [None]
    if hasattr(result, "detach"):  # torch
        result = result.detach()
        return [(result.float() if result.is_floating_point() and result.element_size() < 4 else result).numpy()]
    array = np.asarray(result)
    return [array.astype(np.float32) if array.dtype.name == "bfloat16" else array]
