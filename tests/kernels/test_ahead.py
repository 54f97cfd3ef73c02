"""Compiling ahead: every worker gets a share, all calls run, another CPU or another source needs another mark."""

from __future__ import annotations

import pytest

from kernels import numba_setup, prepare
from kernels.ahead import _mark, calls, share


def test_every_call_runs_and_every_call_has_a_worker():
    for workers in (1, 2, 5, 40):
        assert sum(len(share(workers, i)) for i in range(workers)) == len(calls())
    for _, call in calls():
        call()


def test_shares_of_two_workers_are_even():
    seconds = sorted((s for s, _ in calls()), reverse=True)
    loads = [0.0, 0.0]
    for s in seconds:
        loads[loads.index(min(loads))] += s
    assert max(loads) < 1.2 * min(loads)


def test_nothing_to_do_where_a_mark_is(tmp_path, monkeypatch):
    (tmp_path / "mark").touch()
    monkeypatch.setattr("kernels.ahead._mark", lambda: tmp_path / "mark")
    said = []
    assert prepare(said.append) == 0.0 and not said
    monkeypatch.setattr("kernels.ahead._mark", lambda: None)  # no folder to keep anything in
    assert prepare(said.append) == 0.0 and not said


def test_the_mark_depends_on_the_environment(monkeypatch):
    mark = _mark()
    if mark is None:
        pytest.skip("no folder for compiled code")
    monkeypatch.setattr(numba_setup, "environment", lambda: "another CPU")
    assert _mark() != mark
