"""What is measured: a case, its implementations, and what a run may choose."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Run = Callable[[], Any]  # one call of what is timed; returns its results
Make = Callable[..., Run]  # make(*inputs) prepares: converts arrays, compiles


def plain(function: Callable[..., Any], **settings: Any) -> Make:
    """The Make of a function on NumPy arrays."""
    return lambda *inputs: lambda: function(*inputs, **settings)


@dataclass
class Case:
    """One thing to compute, in several ways.

    `kernel` names a function of the package `kernels`: it is ours, its impl="reference" is the reference, and a
    candidate is called as it is, with inputs and settings. A case without a kernel has `ours` and `reference`.
    """

    suite: str
    name: str
    inputs: tuple[Any, ...]  # NumPy arrays; others are handed through
    kernel: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the kernel
    rivals: dict[str, Make] = field(default_factory=dict)
    ours: dict[str, Make] = field(default_factory=dict)  # more of ours than the kernel, for instance "minillm.bf16"
    reference: Callable[..., Any] | None = None  # (*inputs) -> arrays, in the dtype of the inputs or wider
    flops: float = 0.0  # that the formula needs
    bytes: float = 0.0  # that must move: every input read once, every output written once
    elements: int = 0  # where a time per element says more than a rate
    backward: bool = False  # error bound 3 instead of 2 times the plain version's
    in_place: bool = False  # calls write to their inputs: checks get copies
    calls: int = 1  # checks call so often and stack the results: the losses of a few steps
    tolerance: float | None = None  # relative, instead of the conformance rule
    threads: int | None = None  # other than the run's: 1 where one thread is the question
    select: Callable[[list], list] | None = None  # the part of the outputs that the reference computes
    labels: dict[str, str] = field(default_factory=dict)  # implementation -> what to call it: rungs of a ladder
    ulp: bool = False  # rows get the largest error in units in the last place
    stream: str = "copy"  # the kind of traffic that bounds it: "read" where next to nothing is written
    cached: bool = True  # the working set stays in cache between calls if it fits: the limit is that cache's


@dataclass
class Options:
    """What the command line chose, for suites."""

    quick: bool = False
    threads: int = 1
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    rivals: frozenset[str] = frozenset()  # names; those that are installed
    only: str = ""
    names: list[str] = field(default_factory=list)  # words after a suite's name: `ladder attention`

    def pick(self, shapes: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
        """The shapes asked for, else the suite's: few with --quick."""
        return list(self.shapes or (quick if self.quick else shapes))

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """float32 N(0, scale^2); the same for the same shape in every run."""
        rng = np.random.default_rng(zlib.crc32(repr(shape).encode()))
        return (rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)

    def integers(self, high: int, *shape: int) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(repr((high, shape)).encode()))
        return rng.integers(0, high, shape)


class CommandError(Exception):
    """The command line asks for what is not there; the message says what is."""
