"""AdamW and Adam: against Algorithm 2 of Loshchilov and Hutter written out, and the optimizers of PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import adamw_step

HYPER = {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1}


def example(shape, dtype, seed=0, steps=4):
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=shape), dtype), rng.normal(size=(steps, *shape)).astype(dtype)


def run(param, grads, *, impl, **kw):
    """(param, exp_avg, exp_avg_sq) after len(grads) steps."""
    state = param.copy(), np.zeros_like(param), np.zeros_like(param)
    for step, grad in enumerate(grads, 1):
        assert adamw_step(state[0], np.asarray(grad), *state[1:], step=step, impl=impl, **kw) is None
    return state


def oracle(param, grads, precision, decoupled, grad_scale, lr, beta1, beta2, eps, weight_decay):
    p = param.astype(precision)
    m = v = p * 0
    for t, g in enumerate(grads.astype(precision), 1):
        g = g * precision(grad_scale)
        penalty = precision(weight_decay) * p
        if not decoupled:
            g = g + penalty
        m = precision(beta1) * m + precision(1 - beta1) * g
        v = precision(beta2) * v + precision(1 - beta2) * g * g
        m_hat, v_hat = m / precision(1 - beta1**t), v / precision(1 - beta2**t)
        p = p - precision(lr) * (m_hat / (np.sqrt(v_hat) + precision(eps)) + (penalty if decoupled else 0))
    return p, m, v


def check_example(shape, dtype, seed, decoupled, impl):
    param, grads = example(shape, dtype, seed)
    got = run(param, grads, impl=impl, decoupled=decoupled, grad_scale=0.5, **HYPER)
    exact, plain = (oracle(param, grads, p, decoupled, 0.5, **HYPER) for p in (np.longdouble, param.dtype.type))
    for g, e, p in zip(got, exact, plain, strict=True):
        check.accurate(g, e, p, bound=4)


@pytest.mark.parametrize("decoupled", [True, False], ids=["adamw", "adam"])
@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), ()], ids=str)
def test_matches_the_formula(shape, dtype, decoupled, impl):
    check_example(shape, dtype, 0, decoupled, impl)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=3), st.booleans(), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(shape, decoupled, seed):
    for impl in ("reference", "cpu"):
        check_example(tuple(shape), np.dtype(np.float32), seed, decoupled, impl)


def test_the_gradient_may_have_any_strides_and_is_left_alone(layout, dtype, impl):
    param, grads = example((6, 7, 9), dtype, steps=1)
    expected = run(param, grads, impl=impl, **HYPER)
    grad = layout(grads[0])
    for a, b in zip(run(param, [grad], impl=impl, **HYPER), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(grad, grads[0])


def test_same_bits_for_any_number_of_threads():
    param, grads = example((10_007,), np.float32)
    check.same_for_any_threads(lambda: run(param, grads, impl="cpu", **HYPER))


def test_the_first_step_has_size_lr(dtype, impl):
    grads = np.array([[1e-3, -5.0, 70.0]], dtype)  # bias correction makes the first step lr * sign(gradient)
    param, _, _ = run(np.zeros(3, dtype), grads, impl=impl, lr=0.1, eps=0.0)
    np.testing.assert_allclose(param, [-0.1, 0.1, -0.1], rtol=1e-6)


def test_eps_stands_outside_the_root(dtype, impl):
    param, _, _ = run(np.zeros(1, dtype), np.ones((1, 1), dtype), impl=impl, lr=1.0, eps=1.0)
    np.testing.assert_allclose(param, -0.5, rtol=1e-6)  # inside it would be -1 / sqrt(2)


def test_decay_alone_is_multiplicative_and_never_enters_the_moments(dtype, impl):
    state = run(np.full(3, 2, dtype), np.zeros((2, 3), dtype), impl=impl, lr=0.1, weight_decay=0.5)
    np.testing.assert_allclose(state[0], 2 * 0.95**2, rtol=1e-6)
    assert not state[1].any() and not state[2].any()
    coupled = run(np.full(3, 2, dtype), np.zeros((1, 3), dtype), impl=impl, lr=0.1, weight_decay=0.5, decoupled=False)
    np.testing.assert_allclose(coupled[0], 1.9, rtol=1e-6)
    np.testing.assert_allclose(coupled[1], 0.1, rtol=1e-6)


def test_grad_scale_is_a_factor_of_the_gradient(dtype, impl):
    param, grads = example((5,), dtype)
    got = run(param, grads, impl=impl, grad_scale=0.25, decoupled=False, **HYPER)  # a power of two: exact
    for a, b in zip(got, run(param, grads / 4, impl=impl, decoupled=False, **HYPER), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"param": np.zeros((3, 2)).T}, ValueError, r"param of shape \(2, 3\) has strides .* C-contiguous"),
        ({"exp_avg": np.zeros((3, 2)).T}, ValueError, "exp_avg of shape .* C-contiguous"),
        ({"exp_avg_sq": np.broadcast_to(np.zeros(1), (1, 1))}, ValueError, r"exp_avg_sq has shape \(1, 1\)"),
        ({"grad": np.zeros(6)}, ValueError, r"grad has shape \(6,\), expected \(2, 3\)"),
        ({"grad": np.zeros((2, 3), np.float32)}, TypeError, "grad is float32 but param is float64"),
        ({"step": 0}, ValueError, "step is 0"),
    ],
)
def test_errors_say_what_was_given(change, error, message):
    arguments = {name: np.zeros((2, 3)) for name in ("param", "grad", "exp_avg", "exp_avg_sq")}
    with pytest.raises(error, match=message):
        adamw_step(**({"lr": 0.1, "step": 1} | arguments | change))


def test_a_read_only_parameter_is_an_error():
    param = np.zeros(3)
    param.flags.writeable = False
    with pytest.raises(ValueError, match="param is read-only"):
        adamw_step(param, np.ones(3), np.zeros(3), np.zeros(3), lr=0.1, step=1)


@pytest.mark.oracle
@pytest.mark.parametrize("decoupled", [True, False], ids=["adamw", "adam"])
def test_agrees_with_pytorch(dtype, decoupled, impl):
    torch = pytest.importorskip("torch")
    param, grads = example((6, 7), dtype, steps=10)
    tensor = torch.tensor(param, requires_grad=True)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([tensor], lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for grad in grads:
        tensor.grad = torch.tensor(grad)
        optimizer.step()
    got = run(param, grads, impl=impl, decoupled=decoupled, **HYPER)
    saved = optimizer.state[tensor]
    for a, b in zip(got, (tensor.detach(), saved["exp_avg"], saved["exp_avg_sq"]), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=20 * np.finfo(dtype).eps)  # ten roundings near 2
