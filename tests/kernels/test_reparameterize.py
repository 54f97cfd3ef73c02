"""The reparameterized sample and its KL divergence: closed forms, Monte Carlo, finite differences, PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import reparameterize_backward, reparameterize_forward


def example(B, L, dtype, seed=0):
    rng = np.random.default_rng(seed)
    mean, logvar, noise, dz = (rng.normal(size=(B, L)).astype(dtype) for _ in range(4))
    return mean, logvar, noise, dz, rng.normal(size=B).astype(dtype)


def oracle(mean, logvar, noise, precision):
    mean, logvar, noise = (a.astype(precision) for a in (mean, logvar, noise))
    variance = np.exp(logvar)
    return mean + np.sqrt(variance) * noise, ((variance + mean**2 - 1 - np.log(variance)) / 2).sum(axis=1)


def oracle_backward(dz, dkl, mean, logvar, noise, precision):
    dz, dkl, mean, logvar, noise = (a.astype(precision) for a in (dz, dkl, mean, logvar, noise))
    std = np.exp(logvar / 2)
    return dz + dkl[:, None] * mean, (dz * noise * std + dkl[:, None] * (std**2 - 1)) / 2


def check_example(B, L, dtype, seed, impl):
    mean, logvar, noise, dz, dkl = example(B, L, dtype, seed)
    got = reparameterize_forward(mean, logvar, noise, impl=impl)
    exact, plain = (oracle(mean, logvar, noise, p) for p in (np.longdouble, mean.dtype.type))
    for g, e, p, bound in zip(got, exact, plain, (10, 2 * L), strict=True):
        check.accurate(g, e, p, bound=bound)
    got = reparameterize_backward(dz, dkl, mean, logvar, noise, impl=impl)
    exact, plain = (oracle_backward(dz, dkl, mean, logvar, noise, p) for p in (np.longdouble, mean.dtype.type))
    for g, e, p in zip(got, exact, plain, strict=True):
        check.accurate(g, e, p, bound=10, factor=3)


@pytest.mark.parametrize("shape", [(21, 257), (1, 1), (0, 5), (5, 0), (128, 20)], ids=str)
def test_matches_the_formula(shape, dtype, impl):
    check_example(*shape, dtype, 0, impl)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(B, L, seed):
    for impl in ("reference", "cpu"):
        check_example(B, L, np.dtype(np.float32), seed, impl)


def test_any_strides(layout, dtype, impl):
    mean, logvar, noise, dz, dkl = example(9, 13, dtype)
    atol = 50 * np.finfo(dtype).eps  # NumPy sums in memory order, so not bitwise
    expected = reparameterize_forward(mean, logvar, noise, impl=impl)
    got = check.pure(lambda *a: reparameterize_forward(*a, impl=impl), *map(layout, (mean, logvar, noise)))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    expected = reparameterize_backward(dz, dkl, mean, logvar, noise, impl=impl)
    got = check.pure(lambda *a: reparameterize_backward(*a, impl=impl), *map(layout, (dz, dkl, mean, logvar, noise)))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_gradients_against_finite_differences(impl):
    mean, logvar, noise, dz, dkl = example(3, 4, np.float64)

    def loss(mean, logvar):
        z, kl = reparameterize_forward(mean, logvar, noise, impl=impl)
        return float((dz * z).sum() + (dkl * kl).sum())

    dmean, dlogvar = reparameterize_backward(dz, dkl, mean, logvar, noise, impl=impl)
    np.testing.assert_allclose(dmean, check.central_difference(lambda a: loss(a, logvar), mean), atol=1e-8)
    np.testing.assert_allclose(dlogvar, check.central_difference(lambda a: loss(mean, a), logvar), atol=1e-8)


def test_an_unused_output_has_gradient_zero(dtype, impl):
    mean, logvar, noise, dz, dkl = example(5, 3, dtype)
    for given_dz, given_dkl in ((dz, None), (None, dkl)):
        zero_dz = np.zeros_like(dz) if given_dz is None else dz
        zero_dkl = np.zeros_like(dkl) if given_dkl is None else dkl
        expected = reparameterize_backward(zero_dz, zero_dkl, mean, logvar, noise, impl=impl)
        got = reparameterize_backward(given_dz, given_dkl, mean, logvar, noise, impl=impl)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.may_share_memory(got[0], dz)
    with pytest.raises(ValueError, match="dz and dkl are both None"):
        reparameterize_backward(None, None, mean, logvar, noise, impl=impl)


def test_same_bits_for_any_number_of_threads():
    mean, logvar, noise, dz, dkl = example(301, 20, np.float32)
    check.same_for_any_threads(lambda: reparameterize_forward(mean, logvar, noise, impl="cpu"))
    check.same_for_any_threads(lambda: reparameterize_backward(dz, dkl, mean, logvar, noise, impl="cpu"))


def test_the_kl_of_the_standard_normal_is_zero_and_so_is_its_gradient(dtype, impl):
    zeros = np.zeros((4, 3), dtype)
    noise = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    z, kl = reparameterize_forward(zeros, zeros, noise, impl=impl)
    np.testing.assert_array_equal(kl, 0)
    np.testing.assert_array_equal(z, noise)
    for grad in reparameterize_backward(None, np.ones(4, dtype), zeros, zeros, noise, impl=impl):
        np.testing.assert_array_equal(grad, 0)


def test_the_kl_is_positive_and_exact_near_zero(dtype, impl):
    rng = np.random.default_rng(0)
    logvar = (rng.normal(size=(200, 1)) * 10.0 ** rng.uniform(-3, 0.5, (200, 1))).astype(dtype)
    _, kl = reparameterize_forward(np.zeros_like(logvar), logvar, np.zeros_like(logvar), impl=impl)
    assert (kl > 0).all()
    series = (logvar.astype(np.float64) ** 2 / 4)[:, 0]  # exp(v) - 1 - v = v^2 / 2 + v^3 / 6 + ...
    small = abs(logvar[:, 0]) < 1e-2
    assert small.sum() > 20
    np.testing.assert_allclose(kl[small], series[small], rtol=4e-3)


def test_the_kl_is_a_sum_over_latents(dtype, impl):
    mean, logvar, noise, *_ = example(5, 4, dtype)
    _, kl = reparameterize_forward(mean, logvar, noise, impl=impl)
    _, twice = reparameterize_forward(*(np.concatenate([a, a], axis=1) for a in (mean, logvar, noise)), impl=impl)
    np.testing.assert_allclose(twice, 2 * kl, rtol=1e-6)


def test_the_kl_agrees_with_a_monte_carlo_estimate(impl):
    n = 200_000
    noise = np.random.default_rng(0).normal(size=(n, 2))
    mean, logvar = np.broadcast_to([0.7, -0.3], (n, 2)), np.broadcast_to([0.4, -1.1], (n, 2))
    z, kl = reparameterize_forward(mean, logvar, noise, impl=impl)
    log_q = -0.5 * (logvar + noise**2).sum(axis=1)
    samples = log_q + 0.5 * (z**2).sum(axis=1)  # log q(z) - log p(z)
    assert abs(samples.mean() - kl[0]) < 5 * samples.std() / np.sqrt(n)


def test_samples_have_the_standard_deviation_exp_of_half_logvar(impl):
    noise = np.random.default_rng(0).normal(size=(100_000, 1)).astype(np.float32)
    mean, logvar = np.full_like(noise, 3), np.full_like(noise, 2 * np.log(5))
    z, _ = reparameterize_forward(mean, logvar, noise, impl=impl)
    assert abs(z.mean(dtype=np.float64) - 3) < 5 * 5 / np.sqrt(100_000)
    assert abs(z.std(dtype=np.float64) - 5) < 5 * 5 / np.sqrt(2 * 100_000)


def test_tiny_and_large_variances(impl):
    logvar = np.array([[-200.0, 80.0]], np.float32)
    ones = np.ones_like(logvar)
    z, _ = reparameterize_forward(ones, logvar, ones, impl=impl)
    np.testing.assert_allclose(z, [[1, np.exp(40)]], rtol=1e-6)
    _, dlogvar = reparameterize_backward(ones, None, ones, logvar, ones, impl=impl)
    np.testing.assert_allclose(dlogvar, [[0, np.exp(40) / 2]], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mean": np.ones(3)}, ValueError, r"mean has shape \(3,\), expected \(B, L\)"),
        ({"noise": np.ones((2, 4))}, ValueError, r"noise has shape \(2, 4\), expected \(2, 3\)"),
        ({"logvar": np.ones((2, 3), np.float32)}, TypeError, "logvar is float32 but mean is float64"),
    ],
)
def test_errors_say_what_was_given(change, error, message):
    arguments = {"mean": np.ones((2, 3)), "logvar": np.ones((2, 3)), "noise": np.ones((2, 3))} | change
    with pytest.raises(error, match=message):
        reparameterize_forward(**arguments)


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    mean, logvar, noise, dz, dkl = example(7, 5, dtype)
    m, lv = (torch.tensor(a, requires_grad=True) for a in (mean, logvar))
    posterior = torch.distributions.Normal(m, torch.exp(lv / 2))
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    z = m + torch.exp(lv / 2) * torch.tensor(noise)
    expected = torch.autograd.grad([z, divergence], [m, lv], [torch.tensor(dz), torch.tensor(dkl)])
    got = (*reparameterize_forward(mean, logvar, noise, impl=impl),
           *reparameterize_backward(dz, dkl, mean, logvar, noise, impl=impl))  # fmt: skip
    for a, b in zip(got, (z.detach(), divergence.detach(), *expected), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=100 * np.finfo(dtype).eps)  # terms up to about 10
