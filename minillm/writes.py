"""In-place writes: a backward pass that still needs the old values fails instead of lying.

Whoever writes into a tensor's memory says so with `mark_written(array)`; Tensor's own in-place methods and the
optimizers do. A write costs a dictionary entry, a recorded call nothing: only nodes older than the last write look.
A write straight into `tensor.data` is not seen here; `detect_anomaly()` sees that too (it compares checksums).
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from kernels.arrays import is_array

from . import errors

clock = itertools.count(1)  # creation order of graph nodes, and the time of writes
last = 0  # when the last write was
_writes: dict[int, tuple[int, Any]] = {}  # id of the memory's owner -> (when, weak reference to it)


def owner_of(array: Any) -> Any:
    """The array that owns the memory: views of one array count as one."""
    while (base := getattr(array, "base", None)) is not None and is_array(base):
        array = base
    return array


def mark_written(*arrays: Any) -> None:
    """Say that these arrays (or memory they share) were written in place just now."""
    global last
    if len(_writes) > 10_000:
        for key in [k for k, (_, ref) in _writes.items() if ref() is None]:
            del _writes[key]
    last = next(clock)
    for array in arrays:
        owner = owner_of(array)
        _writes[id(owner)] = (last, weakref.ref(owner))


def check(node: Any) -> None:
    """Raise if an array that `node` saved was written after it was saved."""
    for name, value in zip((*node.op.needs, *node.op.names), node.saved):
        for a in value if isinstance(value, tuple) else (value,):
            if is_array(a):
                owner = owner_of(a)
                when, ref = _writes.get(id(owner), (0, None))
                if when > node.order and ref is not None and ref() is owner:
                    raise errors.written(node, name, a)
