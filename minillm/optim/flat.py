"""Parameters side by side in one array, and their gradients and their optimizer's state likewise.

An update that works element by element cannot tell one long parameter from fifty short ones: one call of a kernel does
for all of them, and so it does for the norm that clips their gradients.

    data   | weight . . . . . | bias . |-| weight . . . |-|     p.data are views of it        (- fills up to 64 bytes)
    grad   | weight . . . . . | bias . |-| weight . . . |-|     p.grad.data are views of it, once there is a gradient
    state  | ...                                                a row for each of the state's names

Nothing of this shows: p.data, p.grad and state_dict() are as without. A parameter whose array someone else holds stays
where it is, and one that was given another array (p.data = x, module.to) or another gradient since takes its steps
alone. A row of gradients is never used again: the next backward pass has a new one, so that a gradient that was kept
stays what it was.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..device import array_module
from ..tensor import Tensor

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Flat:
    """Parameters of one dtype, moved into one array when this is made."""

    def __init__(self, params: Sequence[Tensor]):
        self.params, self.dtype = list(params), params[0].dtype
        self.starts, self.size = [], 0
        for p in self.params:
            self.starts.append(self.size)
            step = ALIGNMENT // self.dtype.itemsize
            self.size += -(-p.numel() // step) * step
        self.xp, self.kind = array_module(params[0].data), type(params[0].data)
        self.data = self.xp.zeros(self.size, self.dtype)
        self.views = []  # weak: a reference would look like someone who holds the parameter's array
        for i, p in enumerate(self.params):
            view = self.view(self.data, i)
            view[...] = p.data
            p.data = _moved[id(view)] = view
            self.views.append(weakref.ref(view))
        self.grad: Any = None  # the row of gradients that the latest backward pass writes
        self.grads: list[Any] = []  # its views, as far as they were taken
        self.state: dict[str, Any] = {}
        self.states: dict[str, list[Any]] = {}  # their views
        self.attach()

    def view(self, row: Any, i: int) -> Any:
        """Parameter i's part of a row, in its shape.

        To NumPy an array over a memoryview is an array of its own, to CuPy one over a pointer: an in-place write to one
        parameter is then no write to the others.
        """
        shape, start = self.params[i].shape, self.starts[i]
        if self.xp is not np:
            return self.xp.ndarray(shape, self.dtype, row.data + start * self.dtype.itemsize)
        return np.frombuffer(memoryview(row)[start : start + math.prod(shape)], self.dtype).reshape(shape)

    def part(self, row: Any, run: range) -> Any:
        """What belongs to a run of neighbouring parameters, and the filling between them: 1-D."""
        return row[self.starts[run.start] : self.starts[run.stop] if run.stop < len(self.starts) else self.size]

    # --------------------------------------------------------------------------------------- gradients

    def attach(self) -> None:
        """Let the graph's leaves know where their gradients go."""
        for i, p in enumerate(self.params):
            if p.node is not None and p.node.home is None and p.data is self.views[i]():
                p.node.home = Home(self, i)

    def take_grad(self, i: int) -> Any:
        """Zeros for the gradient of parameter i. Where it was taken before, a new row begins."""
        if self.grad is None or self.grads[i] is not None:
            self.grad = self.xp.zeros(self.size, self.dtype)
            self.grads = [None] * len(self.params)
        self.grads[i] = self.view(self.grad, i)
        return self.grads[i]

    def forget_grad(self) -> None:
        """Start a new row with the next gradient; the old one lives as long as someone holds a part of it."""
        self.grad, self.grads = None, []

    def has_grad(self, i: int) -> bool:
        """Whether p.grad is this row's part."""
        p = self.params[i]
        return bool(self.grads) and p.grad is not None and p.grad.data is self.grads[i]

    def whole_grad(self) -> Any:
        """The row, if it holds the gradients of all its parameters that have one; else None."""
        if self.grad is None:
            return None
        current = all(self.has_grad(i) or (p.grad is None and self.grads[i] is None) for i, p in enumerate(self.params))
        return self.grad if current else None

    # ------------------------------------------------------------------------------------------- steps

    def runs(self, state: dict[Tensor, dict[str, Any]]) -> list[range]:
        """Neighbours whose step is one update: array, gradient and state in their rows, numbers in the state equal."""
        runs: list[range] = []
        shared: dict[str, Any] = {}  # the state of the run at hand, without its arrays
        for i, p in enumerate(self.params):
            if not self.has_grad(i) or p.data is not self.views[i]():
                continue
            numbers, moved = {}, True
            for k, v in state.get(p, {}).items():
                array = type(v) is self.kind
                numbers[k] = None if array else v
                moved = moved and (not array or (k in self.states and v is self.states[k][i]))
            if not moved:
                continue
            if runs and runs[-1].stop == i and numbers == shared:
                runs[-1] = range(runs[-1].start, i + 1)
            else:
                runs.append(range(i, i + 1))
                shared = numbers
        return runs

    def run_state(self, run: range, state: dict[Tensor, dict[str, Any]]) -> dict[str, Any]:
        """The state of a run, as of one parameter: parts of the rows, and the numbers."""
        own = state.get(self.params[run.start], {})
        return {k: self.part(self.state[k], run) if k in self.states else v for k, v in own.items()}

    def keep_state(self, run: range, new: dict[str, Any], state: dict[Tensor, dict[str, Any]]) -> None:
        """After a step: what the update left in the state of the run becomes the state of its parameters."""
        numbers = {k: v for k, v in new.items() if not (type(v) is self.kind and v.ndim)}
        rows = {k: v for k, v in new.items() if k not in numbers}
        for name, row in rows.items():
            self._row(name)
            kept = self.part(self.state[name], run)
            if _address(kept) != _address(row):  # made by the update: the first step
                kept[...] = row
        for i in run:
            own = state.setdefault(self.params[i], {})
            own.update(numbers)
            for name in rows:
                own[name] = self.states[name][i]

    def adopt_state(self, state: dict[Tensor, dict[str, Any]]) -> None:
        """Move arrays of the state that are as large as their parameters into rows: after they were loaded."""
        for i, p in enumerate(self.params):
            for name, value in state.get(p, {}).items():
                if type(value) is self.kind and value.shape == p.shape and value.dtype == self.dtype:
                    self._row(name)
                    self.states[name][i][...] = value
                    state[p][name] = self.states[name][i]

    def _row(self, name: str) -> None:
        if name not in self.state:
            self.state[name] = self.xp.zeros(self.size, self.dtype)
            self.states[name] = [self.view(self.state[name], i) for i in range(len(self.params))]


class Home:
    """Where the gradient of a leaf goes: the place of one parameter in a row, as long as the optimizer exists."""

    __slots__ = ("_flat", "i")

    def __init__(self, flat: Flat, i: int):
        self._flat, self.i = weakref.ref(flat), i

    @property
    def flat(self) -> Flat | None:
        return self._flat()

    def offer(self, node: Any) -> Any:
        """Zeros to add the leaf's gradient straight into; None where there is one already, or a hook that wants it."""
        flat, leaf = self._flat(), node.leaf()
        if flat is None or leaf is None or leaf.grad is not None or node.hooks:
            return None
        return flat.take_grad(self.i)

    def put(self, gradient: Any) -> Any:
        """The gradient, moved to its place."""
        flat, i = self._flat(), self.i
        if flat is None or (flat.grads and gradient is flat.grads[i]):  # the latter: it was added up there
            return gradient
        place = flat.take_grad(i)
        place[...] = gradient
        return place


def flatten(params: Sequence[Tensor]) -> list[Flat]:
    """Move parameters into flat arrays, one for each device and dtype: those whose arrays nobody else holds."""
    by_dtype: dict[Any, list[Tensor]] = {}
    for p in params:
        if _is_alone(p):
            by_dtype.setdefault((type(p.data), p.dtype), []).append(p)
    return [Flat(ps) for ps in by_dtype.values() if len(ps) > 1]


def whole_grads(params: Sequence[Tensor]) -> list[Any]:
    """The arrays of the parameters' gradients; one array for many where they make up a whole row."""
    chosen = {id(p) for p in params}
    homes = [p.node.home for p in params if p.node is not None and p.node.home is not None]
    flats = {id(flat): flat for home in homes if (flat := home.flat) is not None}
    rows: list[Any] = []
    covered: set[int] = set()
    for flat in flats.values():
        if chosen.issuperset(map(id, flat.params)) and (row := flat.whole_grad()) is not None:
            rows.append(row)
            covered.update(map(id, flat.params))
    return rows + [p.grad.data for p in params if p.grad is not None and id(p) not in covered]


_moved: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # the views that are parameters' arrays


def _is_alone(p: Tensor) -> bool:
    """Whether the memory of the parameter's array is held by the parameter only: then it can move."""
    if not p.data.size or _references(p) > _ALONE:
        return False
    base = p.data.base
    if base is None:
        return True
    if type(p.data) is not np.ndarray:  # a view on a GPU
        return False
    owns = type(base) is np.ndarray and (base.base is None or _moved.get(id(p.data)) is p.data)
    del base
    return owns and _base_references(p) <= _BASE_ALONE


def _address(x: Any) -> int:
    return int(x.ctypes.data if type(x) is np.ndarray else x.data.ptr)


def _references(p: Tensor) -> int:
    return sys.getrefcount(p.data)


def _base_references(p: Tensor) -> int:
    return sys.getrefcount(p.data.base)


_ALONE = _references(Tensor(np.empty(1, np.float32)))
_BASE_ALONE = _base_references(Tensor(np.empty((1, 1), np.float32).reshape(1)))
