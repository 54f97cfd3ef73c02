"""grad, value_and_grad, vjp, jvp, hvp, jacobian, hessian: against closed forms and against each other."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings

import minillm
from minillm import functional as F
from minillm import grad, hessian, hvp, jacobian, jvp, tensor, value_and_grad, vjp
from minillm.errors import GraphError
from minillm.testing.strategies import arrays, shapes

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 4))
X, V = RNG.standard_normal(4), RNG.standard_normal(4)


def T(x):
    return minillm.Tensor(np.array(x, np.float64))


def close(a, b, tolerance=1e-11):
    a, b = (x.numpy() if isinstance(x, minillm.Tensor) else np.asarray(x) for x in (a, b))
    assert a.shape == b.shape, (a.shape, b.shape)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def quadratic(x):
    return (x * F.matmul(T(A), x)).sum()


def mixed(x):
    return F.softmax(F.matmul(T(A), F.tanh(x)), 0) * x


# -------------------------------------------------------------------------------------------------- closed forms


def test_a_quadratic_form():
    close(grad(quadratic)(T(X)), (A + A.T) @ X)
    close(hessian(quadratic)(T(X)), A + A.T)
    value, product = hvp(quadratic, T(X), T(V))
    close(value, X @ A @ X)
    close(product, (A + A.T) @ V)
    value, g = value_and_grad(quadratic)(T(X))
    close(value, X @ A @ X)
    assert not value.requires_grad and not g.requires_grad


def test_a_linear_map_is_its_jacobian():
    f = lambda x: F.matmul(T(A), x)  # noqa: E731
    close(jacobian(f)(T(X)), A)
    out, pull = vjp(f, T(X))
    close(out, A @ X)
    close(pull(T(V)), A.T @ V)
    close(pull(T(2 * V)), 2 * A.T @ V)  # as often as one likes
    out, push = jvp(f, T(X), T(V))
    close(out, A @ X)
    close(push, A @ V)


def test_log_sum_exp_has_softmax_and_its_covariance():
    p = np.exp(X) / np.exp(X).sum()
    close(grad(lambda x: F.logsumexp(x, 0))(T(X)), p)
    close(hessian(lambda x: F.logsumexp(x, 0))(T(X)), np.diag(p) - np.outer(p, p))


def test_derivatives_of_sine_of_any_order():
    f, expected = lambda x: F.sin(x), [np.sin, np.cos, lambda t: -np.sin(t), lambda t: -np.cos(t)]
    for n in range(1, 8):
        f = grad(f)
        assert f(T(0.8)).item() == pytest.approx(float(expected[n % 4](0.8)), rel=1e-12)


def test_shapes_of_jacobians():
    f = lambda x: F.sum(x * x, 1)  # noqa: E731
    assert jacobian(f)(T(np.ones((2, 3)))).shape == (2, 2, 3)
    assert hessian(lambda x: (x * x).sum())(T(np.ones((2, 3)))).shape == (2, 3, 2, 3)
    assert jacobian(lambda x: x.sum())(T(np.ones(3))).shape == (3,)
    assert jacobian(lambda x: x[:0])(T(np.ones(3))).shape == (0, 3)
    assert jacobian(lambda x, y: x * y, argnums=1)(T([2.0, 3.0]), T([1.0, 1.0])).numpy().tolist() == [[2, 0], [0, 3]]


# ------------------------------------------------------------------------------------------ against each other


@given(
    arrays((4,), bound=2.0, layouts=False),
    arrays((4,), bound=2.0, layouts=False),
    arrays((4,), bound=2.0, layouts=False),
)
@settings(max_examples=20, deadline=None)
def test_vjp_and_jvp_are_transposes(x, u, v):
    _, pull = vjp(mixed, T(x))
    _, push = jvp(mixed, T(x), T(v))
    J = jacobian(mixed)(T(x)).numpy()
    close(pull(T(u)), u @ J, 1e-9)
    close(push, J @ v, 1e-9)


def test_hvp_is_the_hessian_times_v_and_the_jacobian_of_the_gradient():
    f = lambda x: (mixed(x) ** 2).sum()  # noqa: E731
    H = hessian(f)(T(X)).numpy()
    close(hvp(f, T(X), T(V))[1], H @ V)
    close(jacobian(grad(f))(T(X)), H)
    close(H, H.T)
    close(jvp(grad(f), T(X), T(V))[1], H @ V)


@given(arrays(shapes(0, 2, 1, 3), bound=2.0))
@settings(max_examples=20, deadline=None)
def test_grad_is_backward(x):
    f = lambda t: (F.tanh(t) * t).sum()  # noqa: E731
    leaf = minillm.Tensor(x.copy(), requires_grad=True)
    f(leaf).backward()
    close(grad(f)(minillm.Tensor(x)), leaf.grad)


def test_nesting_does_not_confuse_the_variables():
    """d/dx [x * d/dy (x + y)] = 1: the inner derivative must not be taken with respect to x."""
    inner = lambda x: grad(lambda y: x + y)(T(1.0))  # noqa: E731
    assert grad(lambda x: x * inner(x))(T(3.0)).item() == 1
    # d/dx [ d/dy (x^2 y^3) at y = x ] = d/dx (3 x^4) only if y is tied to x; with y = 2 fixed it is 2 x * 12
    assert grad(lambda x: grad(lambda y: x**2 * y**3)(T(2.0)))(T(5.0)).item() == pytest.approx(2 * 5 * 12)
    tied = grad(lambda x: grad(lambda y: x**2 * y**3)(x))(T(2.0))
    assert tied.item() == pytest.approx(12 * 2.0**3)


def test_grad_through_a_gradient_step():
    """The derivative of the loss after one step of gradient descent with respect to the step size: -|g|^2 here."""
    loss = lambda w: (w * w).sum() * 0.5  # noqa: E731

    def after(lr):
        w = T(X)
        return loss(w - lr * grad(loss)(w))

    lr = 0.1
    assert grad(after)(T(lr)).item() == pytest.approx(-(1 - lr) * (X @ X))


# --------------------------------------------------------------------------------------- arguments and structures


def test_argnums_and_other_arguments():
    f = lambda x, y, power=1: (x * y**power).sum()  # noqa: E731
    gx, gy = grad(f, argnums=(0, 1))(T([1.0, 2.0]), T([3.0, 4.0]), power=2)
    close(gx, [9, 16])
    close(gy, [6, 16])
    close(grad(f, argnums=1)(2.0, T([3.0, 4.0])), [2, 2])
    value, aux = value_and_grad(lambda x: (x.sum(), {"shape": x.shape}), has_aux=True)(T([1.0, 2.0]))[0]
    assert value.item() == 3 and aux == {"shape": (2,)}
    g, aux = grad(lambda x: ((x * x).sum(), "kept"), has_aux=True)(T([1.0, 2.0]))
    close(g, [2, 4])
    assert aux == "kept"


class Pair(NamedTuple):
    w: object
    b: object


def test_gradients_have_the_structure_of_the_parameters():
    parameters = {"layers": [(T(A), T(X)), (T(A), T(V))], "scale": T(2.0)}

    def loss(p):
        h = T(V)
        for w, b in p["layers"]:
            h = F.tanh(F.matmul(w, h) + b)
        return h.sum() * p["scale"]

    g = grad(loss)(parameters)
    assert set(g) == {"layers", "scale"} and isinstance(g["layers"], list) and isinstance(g["layers"][0], tuple)
    assert g["layers"][1][0].shape == (4, 4)
    step = 1e-6
    moved = {**parameters, "scale": T(2.0 + step)}
    assert g["scale"].item() == pytest.approx((loss(moved).item() - loss(parameters).item()) / step, rel=1e-5)
    pair = grad(lambda p: (p.w * p.b).sum())(Pair(T(X), T(V)))
    assert isinstance(pair, Pair)
    close(pair.w, V)


def test_arrays_and_numbers_are_fine_too():
    assert grad(lambda x: x**2)(3.0).item() == 6
    close(grad(lambda x: (x * x).sum())(X), 2 * X)


def test_inputs_that_are_not_used_get_zeros_even_if_they_are_infinite():
    _, gy = grad(lambda x, y: x.sum(), argnums=(0, 1))(T(X), T([np.inf, np.nan]))
    close(gy, [0, 0])
    close(hessian(lambda x: x.sum())(T(X)), np.zeros((4, 4)))
    assert grad(grad(lambda x: 3 * x))(T(1.0)).item() == 0
    close(jvp(lambda x: F.log(x), T([0.5]), T([2.0]))[1], [4.0])
    with np.errstate(divide="ignore"):
        close(jvp(lambda x: F.cat([F.log(x[:1]) * 0 + 1, 1 / x[1:]]), T([1.0, 0.5]), T([1.0, 1.0]))[1], [0, -4])


def test_outputs_that_overflow_do_not_poison_jvp():
    out, push = jvp(lambda x: F.masked_fill(x * 2, np.array([True, False]), -np.inf), T([1.0, 1.0]), T([1.0, 1.0]))
    assert out.numpy()[0] == -np.inf
    close(push, [0, 2])


def test_several_inputs_and_outputs():
    f = lambda x, y: (x * y, x + y)  # noqa: E731
    _, pull = vjp(f, T(X), T(V))
    gx, gy = pull(T(np.ones(4)), T(2 * np.ones(4)))
    close(gx, V + 2)
    close(gy, X + 2)
    outs, tangents = jvp(f, (T(X), T(V)), (T(np.ones(4)), T(np.zeros(4))))
    close(outs[0], X * V)
    close(tangents[0], V)
    close(tangents[1], np.ones(4))


# -------------------------------------------------------------------------------------------- gradients(), errors


def test_gradients_of_a_recorded_graph_touch_no_grad():
    x, y = (minillm.Tensor(v.copy(), requires_grad=True) for v in (X, V))
    z = x * y
    gx, gz = minillm.gradients((z * z).sum(), [x, z], retain_graph=True)
    close(gx, 2 * X * V * V)
    close(gz, 2 * X * V)  # tensors inside the graph, too
    assert x.grad is None and y.grad is None
    assert isinstance(minillm.gradients(z.sum(), x), minillm.Tensor)


def test_gradients_stops_where_nobody_asks():
    """Rules below the inputs asked for do not run: one that would fail is not reached."""

    @minillm.op
    def fragile(x):
        return x * 2

    @fragile.vjp
    def _(dout):
        raise AssertionError("not needed")

    x = minillm.Tensor(X.copy(), requires_grad=True)
    y = fragile(x)
    close(minillm.gradients((y * 3).sum(), y), np.full(4, 3.0))


def test_errors_say_what_to_do():
    x = minillm.Tensor(X.copy(), requires_grad=True)
    with pytest.raises(GraphError, match="input 0 does not require grad"):
        minillm.gradients(x.sum(), [T(X)])
    with pytest.raises(GraphError, match="allow_unused=True"):
        minillm.gradients(x.sum(), [minillm.Tensor(X.copy(), requires_grad=True)])
    with pytest.raises(ValueError, match="2 outputs but 1 grad_outputs"):
        minillm.gradients([x.sum(), x.sum()], [x], [T(1.0)])
    with pytest.raises(ValueError, match="must return a scalar Tensor; it returned shape"):
        grad(lambda t: t * 2)(T(X))
    with pytest.raises(ValueError, match="must return a scalar Tensor; it returned float"):
        grad(lambda t: 3.0)(T(X))
    with pytest.raises(ValueError, match="jvp: primals have shapes"):
        jvp(mixed, T(X), T(V[:2]))
    with pytest.raises(ValueError, match="not one element"):
        vjp(mixed, T(X))[1]()
    with pytest.raises(ValueError, match="1 outputs but 2 cotangents"):
        vjp(mixed, T(X))[1](T(V), T(V))
    close(vjp(quadratic, T(X))[1](), (A + A.T) @ X)  # a scalar needs none


def test_transforms_work_inside_no_grad_and_leave_it_as_it_was():
    with minillm.no_grad():
        close(grad(quadratic)(T(X)), (A + A.T) @ X)
        close(hessian(quadratic)(T(X)), A + A.T)
        assert not minillm.is_grad_enabled()
    with pytest.raises(ZeroDivisionError):
        grad(lambda x: x / (1 // 0))(T(1.0))
    assert not grad(quadratic)(T(X)).requires_grad  # the failed one does not count as running any more


def test_threads_do_not_see_each_others_transforms():
    started, proceed, results = threading.Event(), threading.Event(), []

    def slow(x):
        started.set()
        proceed.wait(10)
        return x * x

    thread = threading.Thread(target=lambda: results.append(grad(slow)(T(2.0))))
    thread.start()
    started.wait(10)
    mine = grad(lambda x: x * x)(T(3.0))
    proceed.set()
    thread.join()
    assert not mine.requires_grad and not results[0].requires_grad
    assert (mine.item(), results[0].item()) == (6, 4)


def test_per_example_gradients_from_a_jacobian():
    w, data = T(X), RNG.standard_normal((3, 4))
    per_example = jacobian(lambda w: F.tanh(F.matmul(T(data), w)))(w)
    for row, d in zip(per_example.numpy(), data):
        close(row, (1 - np.tanh(d @ X) ** 2) * d)


def test_float32_stays_float32():
    x = tensor([0.5, -1.0])
    f = lambda t: (F.tanh(t) ** 2).sum()  # noqa: E731
    for result in (
        grad(f)(x),
        hessian(f)(x),
        hvp(f, x, x)[1],
        jvp(F.tanh, x, x)[1],
        vjp(F.tanh, x)[1](x),
        jacobian(F.tanh)(x),
    ):
        assert result.dtype == np.float32


@pytest.mark.parametrize("transform", [minillm.grad, minillm.value_and_grad, minillm.jacobian, minillm.hessian])
def test_a_transform_of_something_else_than_a_function_says_so(transform):
    x = minillm.tensor([1.0], requires_grad=True)
    with pytest.raises(TypeError, match="takes a function and gives a function.*gradients"):
        transform((x * x).sum(), x)
    with pytest.raises(TypeError, match="takes a function and gives a function"):
        transform(lambda t: t.sum(), x)


def test_arguments_counted_from_the_back():
    a, b = minillm.tensor([1.0, 2.0]), minillm.tensor([3.0, 4.0])
    f = lambda a, b: (a * b * b).sum()  # noqa: E731
    assert minillm.grad(f, argnums=-1)(a, b).tolist() == [6.0, 16.0]
    assert minillm.jacobian(lambda a, b: a * b, argnums=-2)(a, b).tolist() == [[3.0, 0.0], [0.0, 4.0]]
    with pytest.raises(ValueError, match="argument 2"):
        minillm.grad(f, argnums=2)(a, b)
