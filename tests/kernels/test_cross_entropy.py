"""Cross-entropy: against probabilities written out row by row, finite differences, and PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import cross_entropy_backward, cross_entropy_forward, cross_entropy_with_grad

SETTINGS = pytest.mark.parametrize(
    ("smoothing", "weighted"), [(0.0, False), (0.1, False), (0.0, True), (0.3, True), (1.0, True)]
)


def example(N, V, dtype, seed=0, ignored=True):
    rng = np.random.default_rng(seed)
    logits, dloss = (3 * rng.normal(size=(N, V))).astype(dtype), rng.normal(size=N).astype(dtype)
    targets = rng.integers(0, V, N)
    if ignored:
        targets[::3] = -100
    return logits, targets, dloss, rng.uniform(0.5, 2, V).astype(dtype)


def oracle(logits, targets, smoothing, weight, precision):
    """(loss, dloss/dlogits) as minus sum_c q_c w_c log p_c: q, the smoothed target distribution, is written out."""
    N, V = logits.shape
    q = np.full((N, V), smoothing / V).astype(precision)
    rows = np.flatnonzero(targets != -100)
    q[rows, targets[rows]] += precision(1 - smoothing)
    q[targets == -100] = 0
    q = q * (np.ones(V) if weight is None else weight).astype(precision)  # (N, V)
    z = logits.astype(precision) - logits.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -(q * log_p).sum(axis=1), p * q.sum(axis=1, keepdims=True) - q


def check_example(N, V, dtype, seed, smoothing, weighted, impl):
    logits, targets, dloss, weight = example(N, V, dtype, seed)
    kw = {"label_smoothing": smoothing, "weight": weight if weighted else None, "impl": impl}
    loss, lse = cross_entropy_forward(logits, targets, **kw)
    dlogits = cross_entropy_backward(dloss, logits, targets, lse, **kw)
    exact, plain = (oracle(logits, targets, smoothing, kw["weight"], p) for p in (np.longdouble, logits.dtype.type))
    check.accurate(loss, exact[0], plain[0], bound=20)
    check.accurate(dlogits, dloss[:, None] * exact[1], dloss[:, None] * plain[1], bound=5, factor=3)
    kept = targets != -100
    wide = logits.astype(np.float64)
    np.testing.assert_allclose(lse[kept], np.log(np.exp(wide).sum(axis=1))[kept], atol=20 * np.finfo(dtype).eps)


@SETTINGS
@pytest.mark.parametrize("shape", [(21, 257), (1, 1), (0, 5), (4, 2)], ids=str)
def test_matches_the_formula(shape, dtype, smoothing, weighted, impl):
    check_example(*shape, dtype, 0, smoothing, weighted, impl)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.integers(1, 70), st.floats(0, 1), st.booleans(), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(N, V, smoothing, weighted, seed):
    for impl in ("reference", "cpu"):
        check_example(N, V, np.dtype(np.float32), seed, smoothing, weighted, impl)


def test_any_strides(layout, dtype, impl):
    logits, targets, dloss, weight = example(9, 13, dtype)
    kw = {"label_smoothing": 0.1, "impl": impl}
    expected = cross_entropy_forward(logits, targets, weight=weight, **kw)
    moved = [layout(a) for a in (logits, targets, weight)]
    got = check.pure(lambda z, y, w: cross_entropy_forward(z, y, weight=w, **kw), *moved)
    atol = 20 * np.finfo(dtype).eps  # NumPy sums in memory order, so not bitwise
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    saved = dloss, logits, targets, expected[1], weight
    (got,) = check.pure(lambda d, z, y, s, w: cross_entropy_backward(d, z, y, s, weight=w, **kw), *map(layout, saved))
    np.testing.assert_allclose(got, cross_entropy_backward(*saved[:4], weight=weight, **kw), rtol=0, atol=atol)


@SETTINGS
def test_gradient_against_finite_differences(smoothing, weighted, impl):
    logits, targets, dloss, weight = example(4, 5, np.float64)
    kw = {"label_smoothing": smoothing, "weight": weight if weighted else None, "impl": impl}
    _, lse = cross_entropy_forward(logits, targets, **kw)
    got = cross_entropy_backward(dloss, logits, targets, lse, **kw)
    total = lambda z: float((dloss * cross_entropy_forward(z, targets, **kw)[0]).sum())  # noqa: E731
    numerical = check.central_difference(total, logits)
    np.testing.assert_allclose(got, numerical, atol=1e-8)


def test_same_bits_for_any_number_of_threads():
    logits, targets, dloss, weight = example(301, 65, np.float32)
    kw = {"label_smoothing": 0.1, "weight": weight, "impl": "cpu"}
    _, lse = cross_entropy_forward(logits, targets, **kw)
    check.same_for_any_threads(lambda: cross_entropy_forward(logits, targets, **kw))
    check.same_for_any_threads(lambda: cross_entropy_backward(dloss, logits, targets, lse, **kw))


def test_equal_logits_cost_the_log_of_the_number_of_classes(dtype, impl):
    loss, lse = cross_entropy_forward(np.zeros((2, 8), dtype), np.array([0, 7]), impl=impl)
    np.testing.assert_allclose(loss, np.log(8), rtol=1e-6)
    np.testing.assert_allclose(lse, np.log(8), rtol=1e-6)


def test_ignored_rows_count_for_nothing(dtype, impl):
    logits, targets, dloss, _ = example(6, 4, dtype)
    logits[0], logits[3] = np.nan, -np.inf  # targets 0 and 3 are ignored
    loss, lse = cross_entropy_forward(logits, targets, impl=impl)
    dlogits = cross_entropy_backward(dloss, logits, targets, lse, impl=impl)
    kept = targets != -100
    assert (loss[~kept] == 0).all() and (lse[~kept] == 0).all() and (dlogits[~kept] == 0).all()
    assert (loss[kept] > 0).all() and (dlogits[kept] != 0).all()


def test_all_rows_ignored_and_another_ignore_index(impl):
    logits, _, dloss, _ = example(5, 3, np.float32)
    targets = np.full(5, 2)
    loss, lse = cross_entropy_forward(logits, targets, ignore_index=2, label_smoothing=0.1, impl=impl)
    dlogits = cross_entropy_backward(dloss, logits, targets, lse, ignore_index=2, label_smoothing=0.1, impl=impl)
    assert not loss.any() and not dlogits.any()


def test_large_logits(dtype, impl):
    logits, targets, dloss, _ = example(20, 11, dtype, ignored=False)
    shift = np.where(np.arange(20) % 2, 1e4, -1e4).astype(dtype)[:, None]
    logits = logits + shift  # rounded here; the oracle sees the same numbers
    loss, lse = cross_entropy_forward(logits, targets, impl=impl)
    dlogits = cross_entropy_backward(dloss, logits, targets, lse, impl=impl)
    exact = oracle(logits, targets, 0.0, None, np.longdouble)
    np.testing.assert_allclose(loss, exact[0], rtol=0, atol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(dlogits, dloss[:, None] * exact[1], rtol=0, atol=20 * np.finfo(dtype).eps)


def test_far_apart_logits(dtype, impl):
    logits = np.array([[1e4, -1e4, 0.0]], dtype)
    for target, expected in ((0, 0), (1, 2e4), (2, 1e4)):
        loss, lse = cross_entropy_forward(logits, np.array([target]), impl=impl)
        assert loss == expected
        dlogits = cross_entropy_backward(np.ones(1, dtype), logits, np.array([target]), lse, impl=impl)
        np.testing.assert_array_equal(dlogits[0], np.array([1, 0, 0]) - np.eye(3)[target])


def test_masked_classes(dtype, impl):
    logits = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 3.0]], dtype)
    targets, dloss = np.array([0, 2]), np.array([2.0, 1.0], dtype)
    loss, lse = cross_entropy_forward(logits, targets, impl=impl)
    np.testing.assert_allclose(loss, [np.log(1 + np.e), 0], rtol=1e-6)
    p = 1 / (1 + np.e)
    dlogits = cross_entropy_backward(dloss, logits, targets, lse, impl=impl)
    np.testing.assert_allclose(dlogits, [[2 * (p - 1), 0, 2 * (1 - p)], [0, 0, 0]], rtol=1e-6)
    assert cross_entropy_forward(logits[:1], np.array([1]), impl=impl)[0] == np.inf


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": np.array([0, 3])}, IndexError, r"target 3 in row 1 is outside 0 \.\. 2 \(3 classes\)"),
        ({"targets": np.array([-1, 0])}, IndexError, "target -1 in row 0 is outside"),
        ({"targets": np.array([0.0, 1.0])}, TypeError, "integer dtype, class numbers; got float64"),
        ({"targets": [0, 1]}, TypeError, "integer dtype, class numbers; got list"),
        ({"targets": np.array([0])}, ValueError, r"targets has shape \(1,\), expected \(2,\)"),
        ({"logits": np.zeros((2, 0))}, ValueError, r"shape \(2, 0\), expected \(N, V\) with V >= 1"),
        ({"logits": np.zeros((1, 2, 3))}, ValueError, r"shape \(1, 2, 3\), expected \(N, V\)"),
        ({"weight": np.ones(2, np.float32)}, ValueError, r"weight has shape \(2,\), expected \(3,\)"),
        ({"weight": np.ones(3)}, TypeError, "weight is float64 but logits is float32"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
    ],
)
def test_errors_say_what_was_given(change, error, message):
    with pytest.raises(error, match=message):
        cross_entropy_forward(**({"logits": np.zeros((2, 3), np.float32), "targets": np.array([0, 1])} | change))


@pytest.mark.parametrize("integer", ["uint8", "int16", "int64"])
def test_any_integer_dtype(integer, impl):
    logits, targets, *_ = example(6, 5, np.float32, ignored=False)
    got = cross_entropy_forward(logits, targets.astype(integer), impl=impl)
    np.testing.assert_array_equal(got[0], cross_entropy_forward(logits, targets, impl=impl)[0])


@SETTINGS
@pytest.mark.parametrize("shape", [(21, 257), (1, 1), (0, 5), (4, 2), (40, 3)], ids=str)
def test_loss_and_gradient_in_one_pass(shape, dtype, smoothing, weighted, impl):
    logits, targets, factor, weight = example(*shape, dtype)
    kw = {"label_smoothing": smoothing, "weight": weight if weighted else None}
    loss, lse, dlogits = check.pure(
        lambda z, y, f: cross_entropy_with_grad(z, y, f, impl=impl, **kw), logits, targets, factor
    )
    exact, plain = (oracle(logits, targets, smoothing, kw["weight"], p) for p in (np.longdouble, logits.dtype.type))
    check.accurate(loss, exact[0], plain[0], bound=20)
    check.accurate(dlogits, factor[:, None] * exact[1], factor[:, None] * plain[1], bound=5, factor=3)
    same_lse = cross_entropy_forward(logits, targets, impl=impl, **kw)[1]
    np.testing.assert_allclose(lse, same_lse, rtol=0, atol=20 * np.finfo(dtype).eps)
    assert dlogits.dtype == lse.dtype == dtype


def test_the_gradient_in_place_of_the_logits(dtype, impl, layout):
    logits, targets, factor, weight = example(12, 37, dtype)
    kw = {"label_smoothing": 0.1, "weight": weight, "impl": impl}
    expected = cross_entropy_with_grad(logits, targets, factor, **kw)
    place = layout(logits.copy())
    if not place.flags.writeable:
        place = np.array(place)
    got = cross_entropy_with_grad(place, targets, factor, out=place, **kw)
    assert got[2] is place
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=20 * np.finfo(dtype).eps)


def test_an_out_that_overlaps_the_logits(dtype, impl):
    logits, targets, factor, _ = example(12, 37, dtype)
    expected = cross_entropy_with_grad(logits, targets, factor, impl=impl)
    memory = np.concatenate([logits, logits[:1]])
    got = cross_entropy_with_grad(memory[:-1], targets, factor, out=memory[1:], impl=impl)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=20 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(memory[0], logits[0])


def test_one_factor_for_all_rows_and_one_for_each(dtype, impl):
    logits, targets, factor, _ = example(7, 5, dtype)
    loss, _, dlogits = cross_entropy_with_grad(logits, targets, 1 / 7, impl=impl)
    each = cross_entropy_with_grad(logits, targets, np.full(7, 1 / 7, dtype), impl=impl)
    np.testing.assert_array_equal(loss, each[0])
    np.testing.assert_allclose(dlogits, each[2], rtol=4 * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match=r"factor has shape \(3,\), expected \(7,\)"):
        cross_entropy_with_grad(logits, targets, factor[:3], impl=impl)
    with pytest.raises(ValueError, match=r"out has shape \(5,\), expected \(7, 5\)"):
        cross_entropy_with_grad(logits, targets, factor, out=logits[0].copy(), impl=impl)


def test_one_pass_ignores_masks_and_keeps_range(dtype, impl):
    logits = np.array([[np.nan, 0, 0], [1e4, -1e4, 0], [0, -np.inf, 1]], dtype)
    loss, lse, dlogits = cross_entropy_with_grad(logits, np.array([-100, 0, 2]), 1.0, impl=impl)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(loss, [0, 0, np.log1p(np.exp(-1))], rtol=1e-6)
    np.testing.assert_allclose(lse, [0, 1e4, np.log(1 + np.e)], rtol=1e-6)
    np.testing.assert_allclose(dlogits, [[0, 0, 0], [0, 0, 0], [p, 0, -p]], rtol=1e-5)


def test_one_pass_has_the_same_bits_for_any_number_of_threads():
    logits, targets, factor, weight = example(301, 65, np.float32)
    kw = {"label_smoothing": 0.1, "weight": weight, "impl": "cpu"}
    check.same_for_any_threads(lambda: cross_entropy_with_grad(logits, targets, factor, **kw))


def test_a_row_alone_gives_the_bits_that_it_gives_among_others():
    logits, targets, factor, _ = example(9, 70, np.float32, ignored=False)
    around = np.full((11, 70), np.nan, np.float32)
    around[1:-1] = logits
    whole = cross_entropy_with_grad(logits, targets, factor, impl="cpu")
    for i in range(9):
        row = slice(i, i + 1)
        alone = cross_entropy_with_grad(around[i + 1 : i + 2], targets[row], factor[row], impl="cpu")
        for a, b in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(a, b[row])


@pytest.mark.oracle
@SETTINGS
def test_agrees_with_pytorch(dtype, smoothing, weighted, impl):
    torch = pytest.importorskip("torch")
    logits, targets, dloss, weight = example(30, 17, dtype)
    z = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        z, torch.tensor(targets), torch.tensor(weight) if weighted else None,
        reduction="none", label_smoothing=smoothing,
    )  # fmt: skip
    (grad,) = torch.autograd.grad(expected, z, torch.tensor(dloss))
    kw = {"label_smoothing": smoothing, "weight": weight if weighted else None, "impl": impl}
    loss, lse = cross_entropy_forward(logits, targets, **kw)
    atol = 50 * np.finfo(dtype).eps  # losses up to 20, sums of 17 terms
    np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=0, atol=atol)
    np.testing.assert_allclose(
        cross_entropy_backward(dloss, logits, targets, lse, **kw), grad.numpy(), rtol=0, atol=atol
    )
