"""The peak is that of work that is done: the loop computes what it says, and is counted in full."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest

import bench.limits
from kernels import peak as module
from kernels import simd
from kernels.peak import best_of, fmas, fmas_in_parallel, peak
from minillm import machine


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_the_loop_does_all_rounds_on_all_twelve_sums(rounds):
    start = np.arange(12 * simd.LANES32, dtype=np.float32)
    x = start.copy()
    for _ in range(rounds):
        x = 0.5 * x + 0.5
    assert fmas(rounds, start) == pytest.approx(float(x.sum()), rel=1e-6)
    sums = np.zeros(3, np.float32)
    fmas_in_parallel(rounds, start, sums)
    assert sums == pytest.approx([float(x.sum())] * 3, rel=1e-6)


def test_peak_counts_the_operations_of_a_call(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "fmas_in_parallel", lambda n, start, sums: asked.append((n, start.size, sums.size)))
    monkeypatch.setattr(module, "best_of", lambda run, repeats, seconds: (run(), 0.25)[1])
    reached = peak(2)
    ((n, lanes, threads),) = asked
    assert reached == n * lanes * threads * 2 / 0.25  # a multiply and an add for each lane, in each round


def test_the_best_of_at_least_so_many(monkeypatch):
    times = itertools.chain([0.0, 1, 4, 5, 5.5, 6, 8], itertools.repeat(100.0))  # calls of 3, 0.5 and 2 seconds
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    runs = []
    assert best_of(lambda: runs.append(1), repeats=3, seconds=0.0) == 0.5
    assert len(runs) == 4  # the first is not counted


def test_threads_that_there_are_not():
    before = numba.get_num_threads()
    for threads in (0, 100_000):
        with pytest.raises(ValueError, match="between 1 and"):
            machine.peak_flops(threads)
    assert peak(1, repeats=1, seconds=0.0) > 1e6
    assert numba.get_num_threads() == before


def test_the_machine_is_measured_once_a_process(monkeypatch):
    calls = []
    monkeypatch.setattr("kernels.peak.peak", lambda threads, repeats, seconds: calls.append(seconds) or 7.0)
    machine.peak_flops.cache_clear()
    try:
        assert machine.peak_flops() == machine.peak_flops() == 7.0
    finally:
        machine.peak_flops.cache_clear()
    assert calls == [0.1]
    assert bench.limits.peak is peak  # the benchmark and the training speak of the same peak
