"""Stand-ins for what bench/gpu/timing.py uses of CuPy and of torch.cuda: a stream that does things at once.

They hold the script to the interface: capture before launch, one capture at a time, events on the stream, memory from
the pool that was set. `clock` goes on by a second at every call that work makes (see tick).
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace


class Cuda:
    """The state behind the stand-ins."""

    def __init__(self, refuses=False):
        self.clock, self.capturing, self.recorded, self.log = 0.0, False, [], []
        self.refuses = refuses  # work that cannot be captured

    def tick(self, seconds):
        """A call of this length; while capturing it is recorded instead."""
        if self.capturing:
            if self.refuses:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.recorded.append(seconds)
        else:
            self.clock += seconds

    def begin(self):
        assert not self.capturing
        self.capturing, self.recorded = True, []

    def end(self):
        assert self.capturing
        self.capturing = False
        return list(self.recorded)

    def replay(self, calls):
        assert not self.capturing
        self.log.append("replay")
        self.clock += sum(calls)


def cupy(state):
    class Stream(contextlib.AbstractContextManager):
        def __init__(self, non_blocking):
            assert non_blocking

        def __exit__(self, *_):
            return None

        def synchronize(self):
            assert not state.capturing

        def begin_capture(self):
            state.begin()

        def end_capture(self):
            calls = state.end()
            return SimpleNamespace(upload=lambda stream: None, launch=lambda stream: state.replay(calls))

    class Event:
        def record(self, stream):
            assert isinstance(stream, Stream)
            self.time = state.clock

        def synchronize(self):
            pass

    cuda = SimpleNamespace(
        Stream=Stream, Event=Event, MemoryPool=lambda: SimpleNamespace(malloc=len),
        using_allocator=lambda malloc: contextlib.nullcontext(),
        Device=lambda: SimpleNamespace(synchronize=lambda: None),
        get_elapsed_time=lambda start, stop: (stop.time - start.time) * 1e3,
    )  # fmt: skip
    return SimpleNamespace(cuda=cuda)


def torch(state):
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            self.time = state.clock

        def synchronize(self):
            pass

        def elapsed_time(self, other):
            return (other.time - self.time) * 1e3

    class CUDAGraph:
        def replay(self):
            state.replay(self.calls)

    @contextlib.contextmanager
    def graph(held, stream):
        state.begin()
        try:
            yield
        finally:
            held.calls = state.end()

    cuda = SimpleNamespace(
        Stream=lambda: SimpleNamespace(synchronize=lambda: None), stream=lambda s: contextlib.nullcontext(),
        synchronize=lambda: None, Event=Event, CUDAGraph=CUDAGraph, graph=graph,
    )  # fmt: skip
    return SimpleNamespace(cuda=cuda)
