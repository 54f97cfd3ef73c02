"""What the harness does with right and with wrong implementations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench_checks import doubling, session

from bench import runner
from bench.case import Case, CommandError, plain
from bench.runner import Candidate, load_candidate, run_case

WANTED = {"suite", "case", "implementation", "median_s", "q1_s", "q3_s", "flops", "bytes", "limit_s", "share_of_limit",
          "max_error", "equal", "threads"}  # fmt: skip


def test_rows_have_what_is_promised_and_are_json():
    s = session(rivals=frozenset({"numpy"}))
    case = doubling(ours={"minillm": plain(lambda x: 2 * x)}, rivals={"numpy": plain(lambda x: x + x)})
    rows = run_case(case, s)
    assert [r["implementation"] for r in rows] == ["minillm", "numpy"]
    for row in json.loads(json.dumps(rows)):
        assert set(row) >= WANTED
        assert 0 < row["q1_s"] <= row["median_s"] <= row["q3_s"]
        assert row["equal"] and row["max_error"] == 0
        assert row["share_of_limit"] == pytest.approx(row["limit_s"] / row["median_s"])
    assert rows[0]["ratios"]["numpy"] == pytest.approx(rows[1]["median_s"] / rows[0]["median_s"])
    assert s.rows == rows and not s.failed and not s.notes


def _wrong(x):
    out = 2 * x
    out[3] += 0.01
    return out


def _late():
    calls = []

    def late(x):  # right while it is looked at, wrong later
        calls.append(1)
        return 2 * x if len(calls) < 3 else 3 * x

    return late


def _kept():
    kept = {}

    def keeps(x):
        return kept.setdefault("out", 2 * x)

    return keeps


def _writes(x):
    out = 2 * x
    x[0] += 1
    return out


def _raises(x):
    raise ValueError("not today")


@pytest.mark.parametrize(
    ("function", "reason"),
    [(_wrong, "(3,)"), (_raises, "not today"), (lambda x: None, "None, expected an array"),
     (lambda x: (2 * x, x), "2 outputs"), (lambda x: 2 * x[:3], "shape"), (lambda x: x * np.nan, "numbers wrong")],
)  # fmt: skip
def test_a_wrong_kernel_is_refused_and_not_timed(function, reason):
    s = session()
    (row,) = run_case(doubling(ours={"minillm": plain(function)}), s)
    assert not row["equal"] and row["median_s"] is None
    assert s.failed and any("REFUSED" in note and reason in note for note in s.notes)
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("make", [_late, _kept])
def test_what_goes_wrong_after_the_first_check_is_found_after_timing(make):
    s = session()
    (row,) = run_case(doubling(ours={"minillm": plain(make())}), s)
    assert not row["equal"] and "after timing" in row["problem"]
    assert s.failed


def test_a_kernel_that_writes_to_its_input_stops_the_run():
    with pytest.raises(CommandError, match="wrote to its inputs"):
        run_case(doubling(ours={"minillm": plain(_writes)}), session())


def test_a_rival_is_timed_and_marked_where_it_is_inexact_and_left_out_where_it_fails():
    s = session(rivals=frozenset({"numpy", "torch"}))
    rivals = {"numpy": plain(_wrong), "torch": plain(_raises)}
    rows = run_case(doubling(ours={"minillm": plain(lambda x: 2 * x)}, rivals=rivals), s)
    assert [(r["implementation"], r["equal"], r["median_s"] is None) for r in rows] == [
        ("minillm", True, False),
        ("numpy", False, False),
    ]
    assert any("torch failed" in note for note in s.notes)


def test_in_place_kernels_are_checked_from_a_fresh_start():
    def double(x):
        np.multiply(x, 2, out=x, where=abs(x) <= 1)  # called again and again, it must not overflow

    s = session()
    case = doubling(ours={"minillm": plain(double)}, in_place=True)
    (row,) = run_case(case, s)
    assert row["equal"] and row["median_s"]
    assert case.inputs[0][0] == -1


def test_the_first_losses_are_compared_one_by_one():
    def make(x):
        state = x.copy()

        def step():
            state[:] = state / 2
            return state.sum()

        return step

    x = np.ones(4, np.float32)
    case = Case("toy", "steps", (x,), in_place=True, calls=3, tolerance=1e-6, ours={"minillm": make},
                reference=lambda x: np.array([2.0, 1.0, 0.5]))  # fmt: skip
    (row,) = run_case(case, session())
    assert row["equal"]
    case.reference = lambda x: np.array([2.0, 1.0, 0.51])
    (row,) = run_case(case, session())
    assert not row["equal"]


def test_a_candidate_joins_the_cases_of_its_kernel():
    from bench.suites import softmax

    def close(x):
        e = np.exp(x)
        return e / e.sum(-1, keepdims=True)

    def wrong(x):
        return close(x) * np.float32(1.001)

    candidates = [Candidate("mine:close", "softmax_forward", close), Candidate("mine:off", "softmax_forward", wrong)]
    s = session(*candidates, shapes=[(5, 9)])
    for case in softmax.cases(s.options):
        run_case(case, s)
    found = {(r["case"], r["implementation"]): r for r in s.rows}
    assert found["forward 5x9", "mine:close"]["equal"] and found["forward 5x9", "mine:close"]["median_s"]
    assert not found["forward 5x9", "mine:off"]["equal"] and found["forward 5x9", "mine:off"]["median_s"] is None
    assert ("backward 5x9", "mine:close") not in found and found["backward 5x9", "minillm"]["equal"]
    assert [c.joined for c in candidates] == [1, 1]
    assert s.failed


def test_a_kernel_that_is_not_there_is_noted():
    s = session()
    assert run_case(doubling(kernel="softmax_sideways"), s) == []
    assert "softmax_sideways" in s.notes[0]


@pytest.mark.parametrize("spec", ["nothing", "no.such.module:f", "bench.runner:nothing", "bench.runner:OURS=matmul",
                                  "bench.runner:run_case", "bench.runner:run_case=no_kernel", ":f"])  # fmt: skip
def test_a_candidate_that_cannot_be_loaded_is_a_clear_error(spec):
    with pytest.raises(CommandError, match="--candidate"):
        load_candidate(spec)


def test_the_example_of_the_package_docstring_works(tmp_path, monkeypatch):
    import textwrap

    import bench
    from bench.suites import softmax

    text = bench.__doc__.split("my_softmax.py:\n")[1].split("\nand run it")[0]
    (tmp_path / "my_softmax.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    s = session(load_candidate("my_softmax:softmax_forward"), shapes=[(6, 37)])
    case = next(iter(softmax.cases(s.options)))
    rows = {r["implementation"]: r for r in run_case(case, s)}
    assert rows["my_softmax:softmax_forward"]["equal"] and rows[runner.OURS]["equal"]
