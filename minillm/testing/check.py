"""Is this vector-Jacobian product right? For plain functions on NumPy arrays: kernels, rules, other people's code.

Against each input's derivative by differences (numeric.py):

- random cotangents, no two alike in size: with all ones, softmax passes with a gradient of zero
- small inputs: every element, and every output element on its own (the whole Jacobian); large ones: random directions
- run twice, the gradients are the same bits; nothing that was passed in changed; no two arrays share memory
- a check that compared nothing, a None, a NaN: each is a failure
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .causes import suspect
from .numeric import STEP, Slope, element_step, slope
from .report import GradcheckError, GradcheckReport, InputReport

RTOL = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 2e-4, np.dtype(np.float16): 2e-2}
# float64: the differences are good to 1e-10, the rest is for functions that cancel. Lower precisions: about 1,000 eps,
# for sums of a few hundred terms; pass your own rtol where you know better.


def check_vjp(
    forward: Callable[..., Any],
    vjp: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    cotangents: Sequence[Any] | None = None,
    rtol: float | None = None,
    atol: float = 1e-9,
    step: float = STEP,
    directions: int = 6,
    limit: int = 2000,
    seed: int = 0,
    dtype: Any = np.float64,
    alias: bool = False,
    allow_empty: bool = False,
    name: str | None = None,
    raise_exception: bool = True,
) -> GradcheckReport:
    """Compare vjp(cotangent, *inputs) with differences of forward(*inputs).

    forward     arrays -> an array, or a tuple of arrays
    vjp         (cotangent, *inputs) -> a gradient per input (None for those without), or one array for one input. The
                cotangent is a tuple where forward returns one
    inputs      floating arrays are checked, others (integers, bools, None, settings) handed through
    cotangents  one per output; random ones if left out
    rtol, atol  |analytic - numerical| <= rtol * larger + atol * largest of that input + 10 * estimated numerical error;
                rtol None: by dtype, 1e-6 for float64
    step        largest step of the differences, relative to the input
    directions  how many, for inputs too large for every element
    limit       inputs times outputs up to which the whole Jacobian is compared
    dtype       the precision that vjp runs in; differences are always float64, of inputs rounded to dtype
    alias       True: a gradient may be the cotangent itself (a kernel that returns what it was given)
    allow_empty True: arrays without elements pass if shapes and dtypes are right; otherwise comparing nothing fails
    Raises GradcheckError with the report as its text, unless raise_exception is False.

    >>> x = np.array([0.5, 2.0])
    >>> bool(check_vjp(lambda x: x**3, lambda dout, x: 3 * x**2 * dout, [x]))
    True
    >>> report = check_vjp(lambda x: x**3, lambda dout, x: -3 * x**2 * dout, [x], raise_exception=False)
    >>> report.inputs[0].cause
    'the sign is flipped'
    """
    run = _Check(
        forward, vjp, inputs, rtol, atol, step, directions, limit, seed, np.dtype(dtype), alias, allow_empty, name
    )
    with np.errstate(all="ignore"):
        run.all(cotangents)
    if raise_exception and not run.report.ok:
        raise GradcheckError(str(run.report))
    return run.report


def random_cotangent(shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = np.float64) -> np.ndarray:
    """Sizes between 1/2 and 3/2, random signs: nothing weighs almost nothing, no two are alike."""
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)


def as_arrays(result: Any) -> list[np.ndarray]:
    """What a forward returned, as a list of arrays."""
    return [np.asarray(r) for r in result] if isinstance(result, (tuple, list)) else [np.asarray(result)]


@dataclass
class _Check:
    """One run. Outputs are seen as one flat vector of M numbers."""

    forward: Callable
    vjp: Callable
    given: Sequence[Any]
    rtol: float | None
    atol: float
    step: float
    directions: int
    limit: int
    seed: int
    dtype: np.dtype
    alias: bool
    allow_empty: bool
    name: str | None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self._jacobian_rows: list | None = None
        self.report = GradcheckReport(self.name or str(getattr(self.forward, "__name__", "function")), 1)
        self.rtol = RTOL.get(self.dtype, 1e-6) if self.rtol is None else self.rtol
        self.inputs = [self._rounded(x) for x in self.given]
        self.wrt = [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
        low = sorted(
            {str(x.dtype) for x in self.given if hasattr(x, "dtype") and str(x.dtype) in ("float32", "float16")}
        )
        if low and self.dtype == np.float64:
            self.report.warnings.append(
                f"{', '.join(low)} inputs were converted to float64: finite differences taken in float32 are "
                "2 to 23 % wrong"
            )

    def _rounded(self, x: Any) -> Any:
        if isinstance(x, (float, np.floating)):
            x = np.asarray(x)
        if not isinstance(x, np.ndarray):
            return x
        if x.dtype.kind == "c":
            raise TypeError(
                "gradcheck: complex inputs are not supported; check the real and the imaginary part as two inputs"
            )
        return np.array(x.astype(self.dtype) if x.dtype.kind == "f" else x)

    # --------------------------------------------------------------------------------------------- steps

    def all(self, cotangents: Sequence[Any] | None) -> None:
        report = self.report
        if not self.wrt:
            report.problems.append("no floating-point input: nothing to differentiate")
            return
        wide = [x.astype(np.float64) if i in self.wrt else x for i, x in enumerate(self.inputs)]
        outs = as_arrays(self.forward(*wide))
        self.single = not isinstance(self.forward(*wide), (tuple, list))
        self.shapes, self.wide = [o.shape for o in outs], wide
        start = self.start = self._flat(wide)
        if not np.array_equal(start, self._flat(wide), equal_nan=True):
            report.problems.append(
                "two calls gave different outputs: fix the random numbers (a seed, or pass the noise in)"
            )
            return
        if np.isnan(start).any():
            report.problems.append(
                f"the output holds {int(np.isnan(start).sum())} NaN: a comparison with it would mean nothing"
            )
            return
        if start.size == 0 and not self.allow_empty:
            report.problems.append("the output has no elements: nothing to compare")
            return
        self.cotangents = self._cotangents(cotangents)
        self.weights = np.concatenate([c.astype(np.float64).reshape(-1) for c in self.cotangents])
        gradients = self._gradients()
        if gradients is None:
            return
        self._compare(gradients)
        empty = self.allow_empty and (start.size == 0 or not any(self.inputs[i].size for i in self.wrt))
        if empty:
            report.notes.append("empty arrays: only shapes and dtypes were compared")
        elif not report.compared and not report.problems:
            report.problems.append("nothing was compared: everything lay on a kink, or no input has elements")

    def _flat(self, arrays: Sequence[Any]) -> np.ndarray:
        return np.concatenate([o.astype(np.float64).reshape(-1) for o in as_arrays(self.forward(*arrays))])

    def _cotangents(self, given: Sequence[Any] | None) -> list[np.ndarray]:
        if given is None:
            return [random_cotangent(s, self.rng, self.dtype) for s in self.shapes]
        cots = [np.asarray(c).astype(self.dtype) for c in (given if isinstance(given, (tuple, list)) else [given])]
        if [c.shape for c in cots] != self.shapes:
            raise ValueError(f"gradcheck: cotangents have shapes {[c.shape for c in cots]}, the outputs {self.shapes}")
        if all(c.size > 1 and (c == c.flat[0]).all() for c in cots):
            self.report.warnings.append(
                "uniform cotangents: what they sum up can hide (all-ones sees no gradient of softmax)"
            )
        return cots

    def _pull(self, cotangents: Sequence[np.ndarray], inputs: Sequence[Any]) -> list[Any]:
        result = self.vjp(cotangents[0] if self.single else tuple(cotangents), *inputs)
        result = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(result) == len(self.wrt) < len(inputs):  # gradients of the floating inputs only
            spread: list[Any] = [None] * len(inputs)
            for i, g in zip(self.wrt, result):
                spread[i] = g
            return spread
        return result + [None] * (len(inputs) - len(result))

    def _gradients(self) -> list[Any] | None:
        """One set of gradients, looked at for everything but its numbers."""
        problems = self.report.problems
        inputs = [x.copy() if isinstance(x, np.ndarray) else x for x in self.inputs]
        cots = [c.copy() for c in self.cotangents]
        first = self._pull(cots, inputs)
        if len(first) > len(inputs):
            problems.append(f"{len(first)} gradients for {len(inputs)} inputs")
            return None
        for what, now, before in (("input", inputs, self.inputs), ("cotangent", cots, self.cotangents)):
            for i, (a, b) in enumerate(zip(now, before)):
                if isinstance(a, np.ndarray) and a.tobytes() != b.tobytes():
                    problems.append(f"{what} {i} was written to: a gradient rule must leave what it is given as it is")
        held = [(f"input {i}", x) for i, x in enumerate(inputs) if isinstance(x, np.ndarray)]
        held += [] if self.alias else [(f"cotangent {i}", c) for i, c in enumerate(cots)]
        for i in self.wrt:
            g = first[i]
            if g is None:
                continue
            g = first[i] = np.asarray(g)
            if g.shape != self.inputs[i].shape:
                hint = (
                    ": a missing sum over broadcast dims"
                    if g.ndim >= self.inputs[i].ndim and g.shape in self.shapes
                    else ""
                )
                problems.append(
                    f"the gradient of input {i} has shape {g.shape}, the input {self.inputs[i].shape}{hint}"
                )
                return None
            if g.dtype != self.inputs[i].dtype:
                problems.append(f"the gradient of input {i} is {g.dtype}, the input {self.inputs[i].dtype}")
            if g.size and any(s == 0 and n > 1 for s, n in zip(g.strides, g.shape)):
                problems.append(
                    f"the gradient of input {i} is a broadcast view: several elements share one number in memory"
                )
            problems += [f"the gradient of input {i} shares memory with {n}" for n, a in held if _share(g, a)]
            held.append((f"the gradient of input {i}", g))
        first = [None if g is None else np.array(g) for g in first]
        again = self._pull(
            [c.copy() for c in self.cotangents], [x.copy() if isinstance(x, np.ndarray) else x for x in self.inputs]
        )
        for i in self.wrt:
            a, b = first[i], again[i]
            if (a is None) != (b is None) or (a is not None and a.tobytes() != np.asarray(b).tobytes()):
                problems.append(
                    f"the gradient of input {i} came out different the second time: it must be the same bits"
                )
        return first

    # --------------------------------------------------------------------------------------- the numbers

    def _compare(self, gradients: list[Any]) -> None:
        M = self.weights.size
        numerical: dict[int, np.ndarray] = {}
        pending = []
        for i in self.wrt:
            x, g = self.inputs[i], gradients[i]
            entry = InputReport(f"input {i}", x.shape, str(x.dtype))
            self.report.inputs.append(entry)
            if x.size == 0:
                self.report.notes.append(f"input {i} has no elements")
                continue
            a = np.zeros(x.shape) if g is None else g.astype(np.float64)
            if np.isnan(a).any():
                self.report.problems.append(f"the gradient of input {i} holds {int(np.isnan(a).sum())} NaN")
            if (
                x.size * M <= self.limit and x.size <= 40
            ) or x.size <= 12:  # 6 evaluations an element, 36 for directions
                J = self._jacobian(i)
                numerical[i] = (self.weights @ np.where(J.kink, np.nan, J.value)).reshape(x.shape)
                self._elements(entry, i, a, J)
                pending.append((entry, i, a, J))
            else:
                self._directions(entry, i, a)
            if g is None:
                if entry.wrong:
                    self.report.problems.append(f"the gradient of input {i} is None, but its derivative is not 0")
                else:
                    self.report.notes.append(f"input {i}: no gradient (None), and the numerical derivative is 0 too")
            elif entry.compared and M and entry.largest <= 10 * entry.numerical_error:
                self.report.warnings.append(
                    f"the derivative in input {i} is 0 everywhere: a gradient of zeros passes here"
                )
        for entry, i, a, J in pending:
            if entry.wrong:
                others = [np.nan_to_num(n) for k, n in numerical.items() if k != i]
                shape = self.shapes[0] if len(self.shapes) == 1 else ()
                values = np.where(J.kink, 0.0, J.value)
                entry.cause = suspect(a, np.nan_to_num(numerical[i]), others, values, self.weights, shape)

    def _jacobian(self, i: int) -> Slope:
        """All derivatives in input i: (M, N)."""
        columns = []
        for at in range(self.inputs[i].size):
            direction = np.zeros(self.inputs[i].size)
            direction[at] = 1.0
            columns.append(self._along(i, direction, element_step(float(self.wide[i].reshape(-1)[at]), self.step)))
        value, error, kink = (np.stack([c[k] for c in columns], axis=1) for k in range(3))  # type: ignore[call-overload]
        return Slope(value, error, kink, columns[0].step)

    def _along(self, i: int, direction: np.ndarray, h: float) -> Slope:
        x = self.wide[i]
        direction = direction.reshape(x.shape)

        def phi(t: float) -> np.ndarray:
            return self._flat([*self.wide[:i], np.asarray(x + t * direction), *self.wide[i + 1 :]])

        return slope(phi, h, self.start)

    def _elements(self, entry: InputReport, i: int, a: np.ndarray, J: Slope) -> None:
        """Every element: the weighted sum of outputs, and each output on its own where there are not too many."""
        M, N = J.value.shape
        entry.how = "at every element"
        entry.step = J.step
        skipped = J.kink.any(axis=0)
        entry.kinks = [tuple(int(k) for k in np.unravel_index(j, a.shape)) for j in np.flatnonzero(skipped)]
        weighted = np.where(J.kink, np.nan, J.value)
        n, error = self.weights @ weighted, np.abs(self.weights) @ np.where(J.kink, 0.0, J.error)
        entry.largest = max(np.nanmax(np.abs(n), initial=0.0), np.nanmax(np.abs(weighted), initial=0.0))
        for at in np.flatnonzero(~skipped):
            self._one(entry, np.unravel_index(at, a.shape), None, a.reshape(-1)[at], n[at], error[at])
        if not 1 < M <= 64 or self.limit < M * N:
            return
        for out, rows in self._rows():
            row = rows[i]
            row = np.zeros(N) if row is None else np.asarray(row).astype(np.float64).reshape(-1)
            m = out[0]
            for at in np.flatnonzero(~skipped):
                self._one(entry, np.unravel_index(at, a.shape), out[1], row[at], J.value[m, at], J.error[m, at])

    def _rows(self) -> list[tuple[tuple[int, tuple], list[Any]]]:
        """The Jacobian's rows, a backward pass each: ((number, index) of an output element, its gradients)."""
        if self._jacobian_rows is None:
            self._jacobian_rows = [
                (out, self._pull(unit, [x.copy() if isinstance(x, np.ndarray) else x for x in self.inputs]))
                for out, unit in self._units()
            ]
        return self._jacobian_rows

    def _units(self) -> Iterator[tuple[tuple[int, tuple], list[np.ndarray]]]:
        """Cotangents with a single 1: rows of the Jacobian."""
        m = 0
        for k, shape in enumerate(self.shapes):
            for index in np.ndindex(shape):
                unit = [np.zeros(s, self.dtype) for s in self.shapes]
                unit[k][index] = 1
                yield (m, index if self.single else (k, *index)), unit
                m += 1

    def _directions(self, entry: InputReport, i: int, a: np.ndarray) -> None:
        """Random directions: one wrong element of any size is far above the error of the differences."""
        entry.how = "along random directions"
        x = self.wide[i].reshape(-1)
        scale = np.maximum(np.abs(x), 0.1 * max(1e-3, float(np.abs(x).mean())))
        for _ in range(self.directions):
            d = random_cotangent(x.shape, self.rng) * scale
            n, error = self._projected(entry, i, d)
            if n is None:
                continue
            reach = float(np.sqrt(((a.reshape(-1) * d) ** 2).sum()))
            entry.largest = max(entry.largest, abs(n), reach if np.isfinite(reach) else 0.0)
            if self._one(entry, None, None, float((a.reshape(-1) * d).sum()), n, error):
                continue
            self._search(entry, i, a, d)
            break

    def _projected(self, entry: InputReport, i: int, d: np.ndarray) -> tuple[float | None, float]:
        s = self._along(i, d, self.step)
        entry.step = s.step
        if s.kink.any():
            entry.kinks.append(("direction",))  # type: ignore[arg-type]
            return None, 0.0
        return float(self.weights @ s.value), float(np.abs(self.weights) @ s.error)

    def _search(self, entry: InputReport, i: int, a: np.ndarray, d: np.ndarray) -> None:
        """Halve the direction, towards the half that is more wrong, down to one element."""
        at = np.arange(d.size)
        while at.size > 1:
            halves = []
            for half in (at[: at.size // 2], at[at.size // 2 :]):
                part = np.zeros_like(d)
                part[half] = d[half]
                n, _ = self._projected(entry, i, part)
                halves.append((-1.0 if n is None else abs(n - float(a.reshape(-1)[half] @ d[half])), half))
            at = max(halves, key=lambda pair: pair[0])[1]
        unit = np.zeros(d.size)
        unit[at] = 1.0
        s = self._along(i, unit, element_step(float(self.wide[i].reshape(-1)[at[0]]), self.step))
        entry.index = tuple(int(k) for k in np.unravel_index(at[0], a.shape))
        entry.analytic, entry.numerical = float(a.reshape(-1)[at[0]]), float(self.weights @ s.value)
        entry.numerical_error = float(np.abs(self.weights) @ s.error)
        entry.cause = self._cause_along(i, a, d)

    def _cause_along(self, i: int, a: np.ndarray, d: np.ndarray) -> str:
        """The gradient of the first and last elements, looked at for a cause."""
        some = np.unique(np.concatenate([np.arange(min(8, d.size)), np.arange(max(0, d.size - 8), d.size)]))
        values = []
        for at in some:
            unit = np.zeros(d.size)
            unit[at] = 1.0
            values.append(
                float(
                    self.weights
                    @ self._along(i, unit, element_step(float(self.wide[i].reshape(-1)[at]), self.step)).value
                )
            )
        shape = self.shapes[0] if len(self.shapes) == 1 else ()
        return suspect(a.reshape(-1)[some], np.array(values), out_shape=shape)

    def _one(self, entry: InputReport, index: Any, out: Any, a: float, n: float, error: float) -> bool:
        """Compare two numbers; keep the worst."""
        entry.compared += 1
        allowed = self.rtol * max(abs(a), abs(n)) + self.atol * entry.largest + 10 * error  # type: ignore[operator]
        good = bool(abs(a - n) <= allowed)  # a NaN is never within
        excess = abs(a - n) / allowed if allowed else (0.0 if a == n else np.inf)
        excess = np.inf if np.isnan(excess) else excess
        if excess >= getattr(entry, "_excess", -1.0):
            entry._excess = excess  # type: ignore[attr-defined]
            entry.index = None if index is None else tuple(int(k) for k in index)
            entry.output = out
            entry.analytic, entry.numerical, entry.numerical_error = float(a), float(n), float(error)
        entry.wrong += not good
        entry.ok = entry.ok and good
        return good


def _share(a: np.ndarray, b: np.ndarray) -> bool:
    return a.size > 0 and b.size > 0 and np.may_share_memory(a, b) and np.shares_memory(a, b)
