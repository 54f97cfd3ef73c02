"""Rivals in a process of their own are checked, timed and noted like those in this one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import toy_worker
from bench_checks import session

from bench.remote import Remote, RemoteError, Worker, workers
from bench.runner import run_case

TOY = Path(toy_worker.__file__)


@pytest.fixture(scope="module")
def found():
    """Rows and notes of a run over the toy suite, by case, and the worker."""
    s = session(rivals=frozenset({"torch"}), shapes=[(1, 2)])
    worker = Worker("torch", s.options, command=[sys.executable, str(TOY)])
    s.workers["torch"] = worker
    for case in toy_worker.cases(s.options):
        run_case(case, s)
    yield {r["case"]: r for r in s.rows if r["implementation"] == "torch"}, s.notes, worker
    worker.close()
    assert worker.process is None and not Path(worker.folder).exists()


@pytest.mark.parametrize("case", ["right", "sleeps", "in place", "one thread"])
def test_a_right_result_is_equal_and_has_times(found, case):
    row = found[0][case]
    assert row["equal"] and row["max_error"] == 0
    assert row["samples"] >= 2 and 0 < row["q1_s"] <= row["median_s"]
    assert case != "sleeps" or row["median_s"] >= 1e-3


def test_a_wrong_result_is_marked(found):
    row = found[0]["wrong"]
    assert not row["equal"] and "(3,)" in row["problem"] and row["median_s"]


@pytest.mark.parametrize(
    ("case", "reason"), [("fails", "ValueError: not today"), ("dies", "died (exit status 3)"), ("late", "tired")]
)
def test_what_fails_is_left_out_and_noted_and_the_others_go_on(found, case, reason):
    rows, notes, _ = found
    assert case not in rows
    assert any(f"toy {case}: torch failed" in note and reason in note for note in notes)


def test_outputs_do_not_pile_up(found):
    assert list(Path(found[2].folder).iterdir()) == []


def test_cases_are_found_in_any_order_and_unknown_ones_are_an_error(found):
    by_name = {case.name: case for case in toy_worker.cases(session(shapes=[(1, 2)]).options)}
    for name in ("sleeps", "right"):
        (out,) = Remote(found[2], by_name[name], "torch").outputs()
        assert (out == 2 * by_name[name].inputs[0]).all()
    by_name["right"].name = "left"
    with pytest.raises(RemoteError, match="no case 'left'"):
        Remote(found[2], by_name["right"], "torch")


def test_a_worker_that_cannot_start_is_an_error():
    worker = Worker("torch", session().options, command=[sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(RemoteError, match="torch died .exit status 5"):
        worker.ask(do="make", suite="toy", case="right", name="torch")
    assert worker.process is None


def test_each_library_has_one_worker_and_numpy_none():
    options = session(rivals=frozenset({"numpy", "torch", "torch.bf16", "jax"})).options
    with workers(options) as found:
        assert sorted(found) == ["jax", "torch"]
        assert all(w.process is None for w in found.values())  # none before it is asked


@pytest.mark.oracle
def test_torch_answers_from_its_own_process():
    pytest.importorskip("torch")
    from bench.suites import load

    s = session(rivals=frozenset({"torch"}), shapes=[(5, 9)])
    with workers(s.options, cold=False) as s.workers:
        for case in load("softmax").cases(s.options):
            run_case(case, s)
    rows = [r for r in s.rows if r["implementation"] == "torch"]
    assert len(rows) == 2 and all(r["equal"] and r["median_s"] for r in rows), s.notes
