"""Waits for the GPU are counted, with the line that waits; afterwards everything is as before."""

from __future__ import annotations

import inspect

import fake_cupy
import numpy as np
import pytest

from minillm.cuda import count_syncs
from minillm.testing import strict


@pytest.fixture
def cupy(monkeypatch):
    with fake_cupy.installed(monkeypatch) as module:
        yield module


def line():
    return inspect.currentframe().f_back.f_lineno


def test_every_way_to_python_is_counted_once(cupy):
    x = cupy.asarray(np.ones(()))
    ways = {
        "get": lambda: x.get(), "item": lambda: x.item(), "tolist": lambda: x.tolist(), "tobytes": lambda: x.tobytes(),
        "float": lambda: float(x), "int": lambda: int(x), "bool": lambda: bool(x), "complex": lambda: complex(x),
        "asnumpy": lambda: cupy.asnumpy(x),
    }  # fmt: skip
    for name, way in ways.items():
        with count_syncs() as syncs:
            x + 1
            assert syncs.count == 0
            way()
        assert syncs.count == 1 and next(iter(syncs.places)).startswith(f"{name} at cuda/test_cuda_syncs.py:"), name


def test_the_places_are_named(cupy):
    x = cupy.asarray(np.ones(3))
    with count_syncs() as syncs:
        for _ in range(3):
            if x.sum() > 2:  # a bool
                first = line() - 1
    assert syncs.count == 3 and str(syncs).startswith("3 waits for the GPU: 3 bool at")
    assert syncs.places[f"bool at cuda/test_cuda_syncs.py:{first}"] == 3
    with count_syncs() as syncs:
        x.get()
        second = line() - 1
        float(x[0])
    places = [f"1 {what} at cuda/test_cuda_syncs.py:{line}" for what, line in (("get", second), ("float", second + 2))]
    assert str(syncs) == "2 waits for the GPU: " + ", ".join(places)


def test_nothing_stays_wrapped(cupy):
    before = {name: getattr(strict.StrictArray, name) for name in ("get", "item", "__bool__", "tolist")}
    asnumpy = cupy.asnumpy
    with pytest.raises(KeyError), count_syncs():
        raise KeyError
    assert all(getattr(strict.StrictArray, name) is value for name, value in before.items())
    assert cupy.asnumpy is asnumpy

    class Inherits(strict.StrictArray):
        __slots__ = ()

    cupy.ndarray = Inherits
    with count_syncs() as syncs:
        Inherits(np.ones(1)).get()
    assert syncs.count == 1 and "get" not in vars(Inherits)


def test_a_real_cupy_can_be_counted():
    """Its array class takes other methods and gives them back: no GPU is needed to see that."""
    cupy = pytest.importorskip("cupy")
    before = dict(vars(cupy.ndarray))
    with count_syncs(cupy):
        assert cupy.ndarray.get is not before.get("get")
    assert dict(vars(cupy.ndarray)) == before


def test_one_wait_inside_another_counts_once(cupy):
    class Nested(strict.StrictArray):
        __slots__ = ()

        def item(self, *index):
            return self.get().item(*index)

    cupy.ndarray = Nested
    with count_syncs() as syncs:
        assert Nested(np.ones(1)).item() == 1
    assert syncs.count == 1
