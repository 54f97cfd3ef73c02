"""Changes beyond noise between two runs, and the targets."""

from __future__ import annotations

import pytest
from bench_checks import row

from bench.compare import changes
from bench.suites import NAMES
from bench.targets import TARGETS, Target, evaluate, faster_than, heads_2_to_8, share, sum_of_times


def timed(median, spread=0.05, **entries):
    return row(median_s=median, q1_s=median * (1 - spread), q3_s=median * (1 + spread), **entries)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (timed(1.0), timed(0.5), "faster"),
        (timed(1.0), timed(2.0), "slower"),
        (timed(1.0), timed(1.05), "same"),  # quartiles overlap
        (timed(1.0, 0.001), timed(1.02, 0.001), "same"),  # apart, but less than a machine drifts
        (timed(1.0), timed(1.0, equal=False), "now wrong"),
        (timed(1.0, equal=False), timed(1.0), "now right"),
        (row(median_s=None, equal=False), row(median_s=None, equal=False), "same"),
    ],
)
def test_verdict(before, after, verdict):
    (change,) = changes([before], [after])
    assert change.verdict == verdict


def test_rows_are_matched_by_what_they_measure():
    found = changes([row(case="a"), row(case="b"), row(suite="norms")], [row(case="a", threads=1), row(case="b")])
    assert [(c.case, c.verdict) for c in found] == [("a", "new"), ("b", "same"), ("a", "gone")]


def test_the_ratio_is_after_over_before():
    (change,) = changes([timed(2.0)], [timed(1.0)])
    assert change.ratio == 0.5


def target(figures, sense=">=", bound=2.0, cases=""):
    return [Target("work", "matmul", cases, figures, sense, bound, "x")]


def test_a_target_takes_the_worst_case():
    rows = [row(case="a", ratios={"torch": 3.0, "jax": 2.5}), row(case="b", ratios={"torch": 1.5})]
    (result,) = evaluate(rows, target(faster_than("torch")))
    assert (result.met, result.figure) == (False, "1.5x")
    assert result.worst.startswith("b")
    (result,) = evaluate(rows, target(faster_than("torch"), cases="^a$"))
    assert result.met is True
    (result,) = evaluate(rows, target(faster_than("torch", "jax"), cases="^a$"))
    assert result.figure == "2.5x"


def test_a_target_that_did_not_run_is_open_and_a_wrong_result_never_meets_it():
    assert evaluate([], target(share))[0].met is None
    assert evaluate([row(suite="norms")], target(share))[0].met is None
    assert evaluate([row(ratios={"torch": 9.0}), row(case="z", equal=False, median_s=None)],
                    target(faster_than("torch")))[0].met is False  # fmt: skip


def test_sums_of_times_are_of_one_rival_over_all_cases():
    rows = [row(case="a", median_s=1.0, ratios={"numpy": 2.0, "jax": 1.0}),
            row(case="b", median_s=3.0, ratios={"numpy": 1.0, "jax": 2.0, "torch": 0.1})]  # fmt: skip
    ((figure, case),) = sum_of_times("numpy", "jax", "torch")(rows)
    assert figure == pytest.approx(4 / 5) and case.endswith("numpy")


def test_two_heads_are_held_against_eight():
    rows = [row(case="forward (1,2,4096,64) full", flops=1.0), row(case="forward (1,8,4096,64) full", flops=5.0)]
    assert heads_2_to_8(rows) == [(pytest.approx(20.0), "forward (1,2,4096,64) full")]
    assert heads_2_to_8(rows[:1]) == []


def test_every_target_names_a_suite_and_shows_itself():
    for t, result in zip(TARGETS, evaluate([]), strict=True):
        assert t.suite in NAMES and t.sense in (">=", "<=")
        assert result.met is None and t.unit.split()[0].strip("%x") in result.target
