"""Whether a step is being recorded as a CUDA graph (minillm/cuda/graphs.py): what Python decides in it stays decided.

Code whose numbers would be wrong in later runs of the recording asks: `if capture.recorded: capture.refuse(what, do)`.
`recorded` holds for the warm-up, too: most is refused before a recording breaks. `begun` holds for the recording alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import GraphError

recorded = begun = False


@contextmanager
def into_a_graph() -> Iterator[None]:
    """A block whose work is recorded."""
    global recorded
    before, recorded = recorded, True
    try:
        yield
    finally:
        recorded = before


@contextmanager
def begin() -> Iterator[None]:
    """Inside into_a_graph(): from here on the GPU only takes notes."""
    global begun
    begun = True
    try:
        yield
    finally:
        begun = False


def refuse(what: str, instead: str) -> None:
    """GraphError: `what` cannot be recorded."""
    raise GraphError(f"graph: {what}, and a recorded step would do with these in every run; {instead}")
