"""Streams: queues of work for the GPU. Work of one stream runs in order; of two, at the same time where there is room.

All of minillm runs on CuPy's current stream. Python only writes into the queue and goes on, so a time that is measured
without `synchronize()` is the time of writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .found import find_cupy


def synchronize() -> None:
    """Wait until the GPU has done all that was asked of it."""
    find_cupy().cuda.Device().synchronize()


@contextmanager
def side_stream() -> Iterator[Any]:
    """A block whose work goes to a stream of its own: it begins after what was asked for before, and what is asked for
    after the block waits for it, on the GPU; Python waits for neither."""
    cupy = find_cupy()
    before, stream = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(before.record())
    try:
        with stream:
            yield stream
    finally:
        before.wait_event(stream.record())
