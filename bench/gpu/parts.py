"""What a part is, and what the parts share: cases that are compared with torch.

A part is a module with `TITLE` and `cases(lab) -> iterator of (name, run)`; run() returns rows. Listing the cases is
cheap; arrays are made when a case runs, and freed with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from . import PARTS
from .candidates import joined
from .lab import Lab, Row, sentence
from .timing import Work, rows

Cases = Iterator[tuple[str, Callable[[], list[Row]]]]
NO_TORCH = "torch is not installed, or sees no GPU"


def load(name: str) -> ModuleType:
    """The part of that name; or any module, for the tests."""
    return importlib.import_module(f"{__package__}.part_{name}" if name in PARTS else name)


def beside_torch(
    lab: Lab, suite: str, case: str, inputs: Callable[[int], tuple], ours: Callable[..., Any],
    rivals: dict[str, Callable[[Any], Callable[..., Any]]], *, flops: float = 0.0, nbytes: float = 0.0,
    tolerance: float | None = 0.02, seconds: float = 0.25, graph: bool = True,
    prepare: Callable[..., tuple] | None = None,
) -> list[Row]:  # fmt: skip
    """Ours and torch's, on the same numbers, checked against each other and timed in turns.

    inputs(i): the arrays of set i. ours(*arrays); rivals[name](torch) gives a function of tensors. What they return
    first is compared (relative error in the norm, at most `tolerance`; None: not compared). prepare(*arrays): what
    ours is called with instead, made before the timing (what a forward pass leaves to the backward pass).
    """
    sets = [inputs(0)]
    count = lab.sets(sum(x.nbytes for x in sets[0] if hasattr(x, "nbytes")))
    sets += [inputs(i) for i in range(1, count)]
    works, missing = {}, {}
    try:
        works["minillm"] = Work([_bind(ours, _prepared(prepare, s)) for s in sets], "cupy", graph)
        for name, function in joined(lab.candidates, ours, _prepared(prepare, sets[0])).items():
            works[name] = Work([_bind(function, _prepared(prepare, s)) for s in sets], "cupy", graph)
    except Exception as error:
        missing["minillm"] = sentence(error)
    if lab.torch is None:
        missing |= dict.fromkeys(rivals, NO_TORCH)
    else:
        tensors = [tuple(lab.tensor(x) if hasattr(x, "dtype") else x for x in s) for s in sets]
        for name, make in rivals.items():
            try:
                function = make(lab.torch)  # one for all sets: it is compiled once
                calls = [_bind(function, t) for t in tensors]
                calls[0]()  # what cannot run says so here
                works[name] = Work(calls, "torch", graph)
            except Exception as error:
                missing[name] = sentence(error)
    problems = {} if tolerance is None else _compare(lab, works, tolerance, list(rivals))
    return rows(lab, suite, case, works, seconds=seconds, flops=flops, bytes=nbytes, missing=missing, problems=problems)


def _prepared(prepare: Callable[..., tuple] | None, arrays: tuple) -> tuple:
    return prepare(*arrays) if prepare else arrays


def _bind(function: Callable[..., Any], arguments: tuple) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _compare(lab: Lab, works: dict[str, Work], tolerance: float, rivals: list[str]) -> dict[str, str]:
    """All against the first rival, or where none runs against ours; ours alone, whether all numbers are finite."""
    firsts = {}
    for name, work in works.items():
        try:
            firsts[name] = first(lab, work.calls[0]())
        except Exception:  # timing meets it again, and says so
            continue
    if not firsts:
        return {}
    judge = next((name for name in rivals if name in firsts), "minillm" if "minillm" in firsts else min(firsts))
    if judge not in rivals and not np.isfinite(firsts[judge]).all():
        return {judge: "numbers that are not finite"}
    return {name: f"differs from {judge} by {error:.2g} of its norm" for name, got in firsts.items()
            if not (error := relative(got, firsts[judge])) <= tolerance}  # fmt: skip


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """||got - wanted|| / ||wanted||; infinite where shapes differ."""
    if got.shape != wanted.shape:
        return np.inf
    norm = float(np.linalg.norm(wanted.reshape(-1)))
    return float(np.linalg.norm((got - wanted).reshape(-1))) / (norm or 1.0)


def first(lab: Lab, result: Any) -> np.ndarray:
    """The first array of a result, at most a million numbers of it, as float64."""
    while isinstance(result, Sequence):
        result = result[0]
    if lab.torch is not None and isinstance(result, lab.torch.Tensor):
        return result.detach().reshape(-1)[: 1 << 20].double().cpu().numpy()
    return lab.wide(result.reshape(-1)[: 1 << 20])


def gradients(torch: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A function (dout, *tensors) of the gradients alone.

    The forward pass runs in the first call with those tensors, on the stream of that call, where autograd will then
    run the backward pass.
    """
    states: dict[tuple[int, ...], tuple] = {}

    def call(dout: Any, *tensors: Any) -> Any:
        key, stream = tuple(map(id, tensors)), torch.cuda.current_stream() if dout.is_cuda else None
        if key not in states or states[key][0] != stream:
            leaves = [t.detach().requires_grad_() for t in tensors]
            states[key] = (stream, forward(*leaves), leaves)
        _, out, leaves = states[key]
        return torch.autograd.grad(out, leaves, dout, retain_graph=True)

    return call
