"""Linear layer and cross-entropy in one: against the formula in extended precision, differences and PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import linear_cross_entropy
from kernels.linear_cross_entropy import cpu

SETTINGS = pytest.mark.parametrize(
    "kw",
    [
        {},
        {"label_smoothing": 0.1},
        {"softcap": 3.0},
        {"z_loss": 0.01},
        {"label_smoothing": 0.3, "softcap": 15.0, "z_loss": 0.1},
        {"label_smoothing": 1.0},
    ],
    ids=lambda kw: ", ".join(kw) or "plain",
)


def example(N, D, V, dtype, seed=0, ignored=True):
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(size=(N, D)).astype(dtype), (2 * rng.normal(size=(V, D)) / np.sqrt(D)).astype(dtype)
    targets = rng.integers(0, V, N)
    if ignored:
        targets[::3] = -100
    return x, weight, targets, rng.normal(size=N).astype(dtype)


def oracle(x, weight, targets, factor, precision, label_smoothing=0.0, softcap=None, z_loss=0.0):
    """(loss, dx, dweight): with q, the smoothed target distribution, and the chain rule factor by factor."""
    N, V = x.shape[0], weight.shape[0]
    x, weight, factor = (a.astype(precision) for a in (x, weight, factor))
    u = np.einsum("nd,vd->nv", x, weight)
    z = u if softcap is None else precision(softcap) * np.tanh(u / precision(softcap))
    kept = targets != -100
    q = np.full((N, V), label_smoothing / V).astype(precision)
    q[kept, targets[kept]] += precision(1 - label_smoothing)
    lse = np.log(np.exp(z).sum(axis=1, keepdims=True))
    loss = (q * (lse - z)).sum(axis=1) + precision(z_loss) * lse[:, 0] ** 2
    p = np.exp(z - lse)
    dlse = 1 + 2 * precision(z_loss) * lse  # of q's sum, 1, and of the square
    du = factor[:, None] * (dlse * p - q)
    if softcap is not None:
        du = du / np.cosh(u / precision(softcap)) ** 2
    loss[~kept], du[~kept] = 0, 0
    return loss, np.einsum("nv,vd->nd", du, weight), np.einsum("nv,nd->vd", du, x)


def check_example(N, D, V, dtype, seed, kw, impl):
    x, weight, targets, factor = example(N, D, V, dtype, seed)
    got = linear_cross_entropy(x, weight, targets, factor, impl=impl, **kw)
    exact, plain = (oracle(x, weight, targets, factor, p, **kw) for p in (np.longdouble, np.dtype(dtype).type))
    size = 1 + kw.get("z_loss", 0) * 50
    for g, e, p, bound, more in zip(got, exact, plain, (20, 5, 5), (2, 3, 3), strict=True):
        check.accurate(g, e, p, bound=bound * size, factor=more)


@SETTINGS
@pytest.mark.parametrize("shape", [(21, 9, 257), (1, 1, 1), (0, 4, 5), (3, 1, 65), (5, 0, 3), (40, 33, 17)], ids=str)
def test_matches_the_formula(shape, dtype, kw, impl):
    check_example(*shape, dtype, 0, kw, impl)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 20), st.integers(1, 20), st.integers(1, 70), st.floats(0, 1), st.booleans(), st.integers(0, 999))
def test_matches_the_formula_for_any_shape(N, D, V, smoothing, capped, seed):
    kw = {"label_smoothing": smoothing, "softcap": 5.0 if capped else None, "z_loss": 0.01}
    for impl in ("reference", "cpu"):
        check_example(N, D, V, np.float32, seed, kw, impl)


@SETTINGS
def test_many_chunks_are_as_good_as_one(kw, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 1)
    assert cpu.chunk_tokens(300, 17, 4) < 300
    check_example(300, 5, 17, np.float32, 0, kw, "cpu")


@pytest.mark.parametrize(("N", "V"), [(0, 5), (1, 50_257), (127, 65), (4096, 65), (5000, 50_257), (10**6, 3)])
def test_chunks_cover_the_tokens_evenly(N, V):
    chunk = cpu.chunk_tokens(N, V, 4)
    chunks = -(-N // chunk)
    assert chunk >= 1
    assert chunk * V * 4 <= max(cpu.CHUNK_BYTES, cpu.LEAST * V * 4)
    assert 0 <= chunks * chunk - N < max(chunks, 1)


def test_any_strides(layout, dtype, impl):
    arrays = example(9, 6, 13, dtype)
    kw = {"label_smoothing": 0.1, "softcap": 9.0, "impl": impl}
    expected = linear_cross_entropy(*arrays, **kw)
    got = check.pure(lambda *a: linear_cross_entropy(*a, **kw), *map(layout, arrays))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=20 * np.finfo(dtype).eps)


def test_dweight_is_added_into(layout, dtype, impl):
    arrays = example(9, 6, 13, dtype)
    _, dx, dweight = linear_cross_entropy(*arrays, impl=impl)
    before = np.random.default_rng(1).normal(size=(13, 6)).astype(dtype)
    into = layout(before.copy())
    if into.flags.writeable:
        got = linear_cross_entropy(*arrays, dweight=into, impl=impl)
        assert got[2] is into
        np.testing.assert_array_equal(got[1], dx)
        np.testing.assert_allclose(into, before + dweight, rtol=0, atol=20 * np.finfo(dtype).eps)


@SETTINGS
def test_gradients_against_finite_differences(kw, impl):
    x, weight, targets, factor = example(4, 3, 5, np.float64)
    _, dx, dweight = linear_cross_entropy(x, weight, targets, factor, impl=impl, **kw)

    def total(x, weight):
        loss, *none = linear_cross_entropy(x, weight, targets, factor, needs_grad=False, impl=impl, **kw)
        assert none == [None, None]
        return float((factor * loss).sum())

    np.testing.assert_allclose(dx, check.central_difference(lambda a: total(a, weight), x), atol=1e-8)
    np.testing.assert_allclose(dweight, check.central_difference(lambda a: total(x, a), weight), atol=1e-8)


def test_without_gradients_the_losses_are_the_same(dtype, impl):
    arrays = example(8, 5, 70, dtype)
    for kw in ({}, {"softcap": 4.0, "z_loss": 0.1, "label_smoothing": 0.2}):
        loss, dx, dweight = linear_cross_entropy(*arrays, needs_grad=False, impl=impl, **kw)
        assert dx is None and dweight is None
        expected = linear_cross_entropy(*arrays, impl=impl, **kw)[0]
        np.testing.assert_allclose(loss, expected, rtol=8 * np.finfo(dtype).eps)


def test_same_bits_for_any_number_of_threads(monkeypatch):
    arrays = example(400, 32, 65, np.float32)
    check.same_for_any_threads(lambda: linear_cross_entropy(*arrays, softcap=9.0, impl="cpu"))
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 1)
    check.same_for_any_threads(lambda: linear_cross_entropy(*arrays, label_smoothing=0.1, impl="cpu"))


def test_ignored_tokens_count_for_nothing_whatever_they_hold(dtype, impl):
    x, weight, targets, factor = example(8, 5, 7, dtype)
    clean = linear_cross_entropy(x, weight, targets, factor, impl=impl)
    x[0], x[3], factor[6] = np.nan, np.inf, np.nan
    got = linear_cross_entropy(x, weight, targets, factor, impl=impl)
    for a, b in zip(got, clean, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not got[0][::3].any() and not got[1][::3].any() and got[1][1].any()
    loss, dx, dweight = linear_cross_entropy(x, weight, np.full(8, 2), 1.0, ignore_index=2, impl=impl)
    assert not loss.any() and not dx.any() and not dweight.any()


def test_large_logits(dtype, impl):
    x, weight = np.array([[1e4], [-1e4], [1e4]], dtype), np.array([[1], [-1], [0]], dtype)
    targets = np.array([0, 1, 2])
    loss, dx, dweight = linear_cross_entropy(x, weight, targets, 1.0, impl=impl)
    np.testing.assert_array_equal(loss, [0, 0, 1e4])
    np.testing.assert_array_equal(dx, [[0], [0], [1]])
    np.testing.assert_array_equal(dweight, [[1e4], [0], [-1e4]])
    loss, dx, _ = linear_cross_entropy(x, weight, targets, 1.0, softcap=2.0, impl=impl)
    np.testing.assert_allclose(loss, np.log(1 + np.exp(-2) + np.exp(-4)) + [0, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(dx, 0, atol=1e-6)


def test_one_factor_for_all_tokens_and_one_for_each(dtype, impl):
    x, weight, targets, _ = example(7, 4, 5, dtype)
    got = linear_cross_entropy(x, weight, targets, 0.25, impl=impl)
    expected = linear_cross_entropy(x, weight, targets, np.full(7, 0.25, dtype), impl=impl)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": np.array([0, 3])}, IndexError, r"target 3 in row 1 is outside 0 \.\. 2 \(3 classes\)"),
        ({"targets": np.array([0.0, 1.0])}, TypeError, "integer dtype, class numbers; got float64"),
        ({"targets": np.array([0])}, ValueError, r"targets has shape \(1,\), expected \(2,\)"),
        ({"weight": np.ones((3, 5), np.float32)}, ValueError, r"x \(2, 4\) and weight \(3, 5\) do not fit"),
        ({"weight": np.ones((0, 4), np.float32)}, ValueError, "V >= 1"),
        ({"weight": np.ones((3, 4))}, TypeError, "weight is float64 but x is float32"),
        ({"factor": np.ones(3, np.float32)}, ValueError, r"factor has shape \(3,\), expected \(2,\)"),
        ({"dweight": np.ones((4, 3), np.float32)}, ValueError, r"dweight has shape \(4, 3\), expected \(3, 4\)"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
        ({"softcap": 0.0}, ValueError, r"softcap is 0.0, expected a number above 0"),
        ({"z_loss": -1.0}, ValueError, "z_loss is -1.0"),
    ],
)
def test_errors_say_what_was_given(change, error, message):
    given = {"x": np.ones((2, 4), np.float32), "weight": np.ones((3, 4), np.float32), "targets": np.array([0, 1])}
    with pytest.raises(error, match=message):
        linear_cross_entropy(**(given | change))


@pytest.mark.oracle
@SETTINGS
def test_agrees_with_pytorch(dtype, impl, kw):
    torch = pytest.importorskip("torch")
    x, weight, targets, factor = example(30, 16, 17, dtype)
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, weight))
    z = tx @ tw.T
    if "softcap" in kw:
        z = kw["softcap"] * torch.tanh(z / kw["softcap"])
    y = torch.tensor(targets)
    expected = torch.nn.functional.cross_entropy(
        z, y, reduction="none", label_smoothing=kw.get("label_smoothing", 0.0)
    )
    expected = expected + kw.get("z_loss", 0.0) * torch.logsumexp(z, 1) ** 2 * (y != -100)
    grads = torch.autograd.grad(expected, (tx, tw), torch.tensor(factor))
    got = linear_cross_entropy(x, weight, targets, factor, impl=impl, **kw)
    for a, b in zip(got, (expected.detach(), *grads), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=100 * np.finfo(dtype).eps)
