"""Kernels of other people, measured beside ours: `python -m bench gpu --candidate mine:softmax=softmax_forward`.

A candidate takes CuPy arrays as `kernels.softmax_forward` does (and NumPy arrays in the dry run). It joins every case
of the parts `memory` and `attention` that calls that kernel: the case runs once more with the candidate in its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import kernels

from ..runner import Candidate, load_candidate


def joined(specs: list[str], ours: Callable[..., Any], arguments: tuple) -> dict[str, Callable[..., Any]]:
    """{candidate's name: ours with the candidate in its kernel's place}, where `ours(*arguments)` calls that kernel."""
    return {c.name: _instead(c, ours) for c in map(load_candidate, specs) if _calls(c, ours, arguments)}


@contextlib.contextmanager
def _replaced(candidate: Candidate, told: Callable[[], None]) -> Iterator[None]:
    def stand_in(*arguments: Any, impl: str | None = None, **settings: Any) -> Any:
        told()
        return candidate.function(*arguments, **settings)

    before = getattr(kernels, candidate.kernel)
    setattr(kernels, candidate.kernel, stand_in)
    try:
        yield
    finally:
        setattr(kernels, candidate.kernel, before)


def _instead(candidate: Candidate, ours: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with _replaced(candidate, lambda: None):
            return ours(*arguments)

    return call


class _Called(Exception):
    pass


def _calls(candidate: Candidate, ours: Callable[..., Any], arguments: tuple) -> bool:
    """Whether `ours` comes to the kernel; the candidate itself is not run."""

    def stop() -> None:
        raise _Called

    try:
        with _replaced(candidate, stop):
            ours(*arguments)
    except _Called:
        return True
    return False
