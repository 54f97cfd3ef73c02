"""A module `cupy` for machines without a GPU: arrays of the device "strict", and a driver that says what it is told."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from contextlib import contextmanager

from minillm import device
from minillm.testing import strict


class CUDARuntimeError(RuntimeError):
    """As cupy_backends'."""


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory's."""

    def __init__(self, size, total, limit=0):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")
        self._size, self._total, self._limit = size, total, limit


OutOfMemoryError.__module__ = "cupy.cuda.memory"
H200 = {"name": b"NVIDIA H200", "major": 9, "minor": 0, "totalGlobalMem": 139 << 30}


class Runtime:
    def __init__(self, driver=13020, runtime=13020, devices=1, error=None, properties=H200):
        self.driver, self.runtime, self.devices, self.error, self.properties = (
            driver,
            runtime,
            devices,
            error,
            properties,
        )

    def getDeviceCount(self):
        if self.error:
            raise CUDARuntimeError(self.error)
        return self.devices

    def driverGetVersion(self):
        return self.driver

    def runtimeGetVersion(self):
        return self.runtime

    def getDevice(self):
        return 0

    def getDeviceProperties(self, _):
        return self.properties

    def memGetInfo(self):
        return 20 << 30, 139 << 30


class Pool:
    def __init__(self, used=100 << 30, held=119 << 30):
        self.used, self.held, self.freed = used, held, 0

    def malloc(self, size):
        raise AssertionError("strict arrays live elsewhere")

    def used_bytes(self):
        return self.used

    def total_bytes(self):
        return self.held

    def free_all_blocks(self):
        self.freed += 1


class Graph:
    """What end_capture gives: launch() does what the test has put there."""

    def __init__(self, log):
        self.log, self.replay = log, lambda: None

    def launch(self, stream=None):
        self.log.append("launch")
        self.replay()


class Stream:
    log: list = []  # noqa: RUF012  # of all streams
    current: list = []  # noqa: RUF012
    graphs: list = []  # noqa: RUF012
    break_capture = False

    def __init__(self, name="side", non_blocking=False):
        self.name = name

    def record(self):
        self.log.append(f"{self.name} records")
        return self.name

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")

    def begin_capture(self, mode=None):
        assert self.current[-1] is self
        self.log.append("begin")

    def end_capture(self):
        self.log.append("end")
        self.graphs.append(Graph(self.log))
        return self.graphs[-1]

    def __enter__(self):
        self.current.append(self)
        return self

    def __exit__(self, *_):
        self.current.pop()


@contextmanager
def installed(monkeypatch, nvrtc="13.0", **runtime):
    """`import cupy` gives the fake: its runtime answers as the settings say. Yields the module."""
    strict.install()
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    cupy.__version__ = "14.2.0"
    cupy.ndarray, cupy.asarray = strict.StrictArray, strict.xp.asarray
    cupy.asnumpy = lambda a: a.get()
    cupy.__getattr__ = lambda name: getattr(strict.xp, name)
    pool = Pool()
    cupy.get_default_memory_pool = lambda: pool
    cuda = cupy.cuda = types.ModuleType("cupy.cuda")
    cuda.runtime = Runtime(**runtime)
    cuda.memory = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    cuda.Stream, cuda.MemoryPool = Stream, Pool
    Stream.log, Stream.graphs, Stream.current = [], [], [Stream("main")]
    cuda.get_current_stream = lambda: Stream.current[-1]
    capability = f"{cuda.runtime.properties['major']}{cuda.runtime.properties['minor']}"
    cuda.Device = lambda *_: types.SimpleNamespace(
        synchronize=lambda: Stream.log.append("synchronize"), compute_capability=capability
    )

    @contextmanager
    def using_allocator(allocator):
        Stream.log.append("own pool")
        yield

    cuda.using_allocator = using_allocator
    cuda.nvrtc = types.ModuleType("cupy.cuda.nvrtc")
    if nvrtc:
        cuda.nvrtc.getVersion = lambda: tuple(map(int, nvrtc.split(".")))
    for name, module in (("cupy", cupy), ("cupy.cuda", cuda), ("cupy.cuda.nvrtc", cuda.nvrtc)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(device._devices, "cuda", raising=False)
    yield cupy
    device._devices.pop("cuda", None)
