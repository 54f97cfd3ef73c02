"""The comparison with the oracle: it must be able to say no."""

from __future__ import annotations

import numpy as np
import pytest

from bench.equal import as_arrays, compare, max_ulp, oracle, to_bf16


def test_an_error_above_the_bound_is_named_with_its_place():
    exact = np.zeros((2, 3))
    got = exact.copy()
    got[1, 2] = 0.5
    error, problem = compare(got, exact, 0.1)
    assert error == 0.5
    assert "(1, 2)" in problem and "1 of 6" in problem
    assert compare(got, exact, 0.6) == (0.5, "")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_no_wildcards(bad):
    exact = np.ones(3)
    got = exact.copy()
    got[1] = bad
    assert compare(got, exact, 1e9)[1]
    assert compare(exact, got, 1e9)[1]
    assert compare(got, got.copy(), 0.0) == (0.0, "")


def test_shape_and_absence_count():
    assert "shape" in compare(np.zeros(3), np.zeros((3, 1)), 1.0)[1]
    assert compare(None, np.zeros(3), 1.0)[1]
    assert compare(np.zeros(3), None, 1.0)[1]
    assert compare(None, None, 1.0) == (0.0, "")


def test_the_bound_is_that_of_the_plain_version():
    x = np.linspace(0, 1, 101, dtype=np.float32)
    found = oracle(lambda x: np.sqrt(x) * 3, (x,), False, None, True)
    good, bad = np.sqrt(x) * 3, np.sqrt(x) * 3 + np.float32(1e-4)
    assert found.check([good], "float32", True).equal
    assert not found.check([bad], "float32", True).equal
    assert found.check([to_bf16(good)], "bfloat16", True).equal
    assert not found.check([to_bf16(good)], "float32", True).equal
    assert not found.check([good * 1.2], "bfloat16", True).equal


def test_all_outputs_are_wanted_of_ours_and_a_prefix_of_rivals():
    x = np.ones(3, np.float32)
    found = oracle(lambda x: (x, 2 * x), (x,), False, None, False)
    assert not found.check([x], "float32", True).equal
    assert found.check([x], "float32", False).equal
    assert not found.check([], "float32", False).equal
    assert not found.check([x, 2 * x, x], "float32", False).equal


def test_bfloat16_rounds_to_nearest_even():
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, np.inf, -np.inf], np.float32)
    assert to_bf16(x).tolist() == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, np.inf, -np.inf]
    assert np.isnan(to_bf16(np.array([np.nan], np.float32))).all()
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert np.array_equal(to_bf16(x), torch.from_numpy(x).bfloat16().float().numpy())


def test_ulp_counts_spacings_of_float32():
    exact = np.array([1.0, 4.0])
    got = exact + np.array([0, 3 * np.spacing(np.float32(4.0))])
    assert max_ulp(got, exact) == pytest.approx(3)


def test_results_are_flattened():
    flat = as_arrays((np.ones(2), None, [np.zeros(1), (3.0,)]))
    assert [None if a is None else a.shape for a in flat] == [(2,), None, (1,), ()]
