"""Behaviour of the products; values and gradients of single calls are in minillm/testing/cases/linalg.py."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import Tensor
from minillm import functional as F
from minillm.ops import linalg

quick = settings(max_examples=80, deadline=None)
sizes = st.integers(0, 4)


def normal(*shape: int, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def check_gradients(function, arrays: list[np.ndarray]) -> None:
    """Derivatives along random directions against central differences, for every input on its own.

    The functions here are linear in each input, so the differences have no error but rounding, whatever the step.
    """
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    out = function(*xs)
    v = normal(*out.shape, seed=1)
    out.backward(Tensor(v))
    for i, a in enumerate(arrays):
        for seed in (2, 3):
            d = normal(*a.shape, seed=seed)
            ends = [function(*[Tensor(b + s * d if i == j else b) for j, b in enumerate(arrays)]).data for s in (1, -1)]
            assert np.isclose((xs[i].grad.data * d).sum(), ((ends[0] - ends[1]) * v).sum() / 2, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------- matmul


@st.composite
def matmul_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes that multiply: vectors, matrices, and batches of each that broadcast."""
    M, K, N = draw(sizes), draw(sizes), draw(sizes)
    batch = draw(st.lists(sizes, max_size=2))

    def some(batch: list[int]) -> list[int]:
        kept = batch[draw(st.integers(0, len(batch))) :]
        return [1 if draw(st.booleans()) else n for n in kept]

    x = [K] if draw(st.booleans()) else [*some(batch), M, K]
    y = [K] if draw(st.booleans()) else [*some(batch), K, N]
    return tuple(x), tuple(y)


@quick
@given(matmul_shapes())
def test_matmul_is_numpys_with_the_right_gradients(shapes):
    x, y = normal(*shapes[0]), normal(*shapes[1], seed=7)
    out = F.matmul(Tensor(x), Tensor(y))
    assert out.shape == np.shape(x @ y) and np.allclose(out.data, x @ y, rtol=1e-12, atol=1e-12)
    check_gradients(F.matmul, [x, y])


@pytest.mark.parametrize("layout", ["fortran", "reversed", "broadcast"])
def test_matmul_of_any_strides(layout):
    strided = {
        "fortran": np.asfortranarray,
        "reversed": lambda a: a[..., ::-1],
        "broadcast": lambda a: np.broadcast_to(a[..., :1], a.shape),
    }
    x, y = strided[layout](normal(2, 3, 4)), strided[layout](normal(4, 5))
    assert np.allclose(F.matmul(x, y), np.einsum("btk,kn->btn", x, y))
    check_gradients(F.matmul, [x, y])


def test_gradients_that_nobody_needs_are_not_computed(monkeypatch):
    calls = []
    monkeypatch.setattr(linalg, "matmul", lambda *a: calls.append(1) or F.matmul(*a))
    x, w = Tensor(normal(2, 3, 4)), Tensor(normal(4, 5), requires_grad=True)
    F.matmul(x, w).sum().backward()
    assert len(calls) == 1 and w.grad.shape == (4, 5)


def test_a_batch_times_a_matrix_is_one_product(monkeypatch):
    """(B, T, K) @ (K, N): the weight's gradient is one product of 2-D arrays over all B * T rows, not B of them."""
    shapes = []
    monkeypatch.setattr(linalg, "matmul", lambda x, y: shapes.append((x.shape, y.shape)) or F.matmul(x, y))
    w = Tensor(normal(4, 5), requires_grad=True)
    F.matmul(Tensor(normal(2, 3, 4)), w).sum().backward()
    assert shapes == [((4, 6), (6, 5))]


@pytest.mark.parametrize("shapes", [((2, 3, 4), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (2, 4, 5)), ((4,), (4,))])
def test_matmul_keeps_float32(shapes):
    x, y = (Tensor(normal(*s, dtype=np.float32), requires_grad=True) for s in shapes)
    out = x @ y
    out.sum().backward()
    assert out.dtype == x.grad.dtype == y.grad.dtype == np.float32


def test_mixed_dtypes_promote_and_gradients_keep_their_own():
    x = Tensor(normal(2, 3, dtype=np.float32), requires_grad=True)
    assert (x @ np.ones((3, 2), np.int64)).dtype == np.float32
    y = Tensor(normal(3, 2), requires_grad=True)
    out = x @ y
    out.sum().backward()
    assert (out.dtype, x.grad.dtype, y.grad.dtype) == (np.float64, np.float32, np.float64)


def test_numpy_on_the_left():
    x = Tensor(normal(3, 2), requires_grad=True)
    out = normal(2, 3) @ x
    assert isinstance(out, Tensor) and np.allclose(out.data, normal(2, 3) @ x.data)


# ------------------------------------------------------------------------------------------------- linear


@quick
@given(st.lists(sizes, max_size=2), sizes, sizes, st.booleans())
def test_linear_is_a_product_and_a_sum(lead, fan_in, fan_out, with_bias):
    arrays = [normal(*lead, fan_in), normal(fan_out, fan_in, seed=1), normal(fan_out, seed=2)][: 2 + with_bias]
    out = F.linear(*[Tensor(a) for a in arrays])
    expected = arrays[0] @ arrays[1].T + (arrays[2] if with_bias else 0)
    assert out.shape == expected.shape and np.allclose(out.data, expected, rtol=1e-12, atol=1e-12)
    check_gradients(F.linear, arrays)


def test_linear_keeps_float32_and_its_inputs():
    arrays = [normal(2, 3, dtype=np.float32), normal(4, 3, dtype=np.float32), normal(4, dtype=np.float32)]
    kept = [a.copy() for a in arrays]
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    F.linear(*xs).sum().backward()
    assert all(x.grad.dtype == np.float32 for x in xs)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept))


def test_frozen_weight_of_linear_gets_no_gradient():
    x, w, b = Tensor(normal(2, 3), requires_grad=True), Tensor(normal(4, 3)), Tensor(normal(4), requires_grad=True)
    F.linear(x, w, b).sum().backward()
    assert w.grad is None and np.allclose(x.grad.data, np.ones((2, 4)) @ w.data) and b.grad.tolist() == [2, 2, 2, 2]


# ------------------------------------------------------------------------------------------------- einsum


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """One to three operands over four letters: repeated labels, size-1 labels, `...`, implicit and explicit outputs."""
    size = {c: draw(st.integers(1, 3)) for c in "ijkB"}
    rest = [draw(st.integers(1, 3)) for _ in range(draw(st.integers(0, 2)))]
    inputs, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        labels = draw(st.text("ijkB", max_size=3))
        one = {c: draw(st.integers(0, 4)) == 0 for c in labels}  # this operand's size of the label is 1
        shape = [1 if one[c] else size[c] for c in labels]
        if rest and draw(st.booleans()):
            at = draw(st.integers(0, len(labels)))
            n = draw(st.integers(0, len(rest)))
            shape[at:at] = [1 if draw(st.integers(0, 4)) == 0 else m for m in rest[len(rest) - n :]]
            labels = labels[:at] + "..." + labels[at:]
        inputs.append(labels)
        shapes.append(tuple(shape))
    equation = ",".join(inputs)
    if draw(st.booleans()):
        present = sorted(set("".join(inputs)) - {"."})
        output = "".join(draw(st.permutations(present))[: draw(st.integers(0, len(present)))])
        at = draw(st.integers(0, len(output)))
        equation += "->" + (output[:at] + "..." + output[at:] if "..." in equation else output)
    return equation, shapes


@settings(max_examples=200, deadline=None)
@given(equations())
def test_einsum_is_numpys_with_the_right_gradients(case):
    equation, shapes = case
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    expected = np.einsum(equation, *arrays)
    out = F.einsum(equation, *[Tensor(a) for a in arrays])
    assert out.shape == np.shape(expected) and np.allclose(out.data, expected, rtol=1e-10, atol=1e-10)
    check_gradients(partial(F.einsum, equation), arrays)


def test_einsum_of_the_same_tensor_twice():
    x = Tensor(normal(3), requires_grad=True)
    F.einsum("i,i->", x, x).backward()
    assert np.allclose(x.grad.data, 2 * x.data)


def test_einsum_sums_an_ellipsis_that_the_output_lacks():
    x = normal(2, 3, 4)
    assert np.allclose(F.einsum("...i->i", x), x.sum(axis=(0, 1)))


def test_einsum_keeps_float32_and_promotes_like_arithmetic():
    x, y = normal(2, 3, dtype=np.float32), normal(3, 2, dtype=np.float32)
    assert F.einsum("ij,jk", x, y).dtype == np.float32
    assert F.einsum("ij,jk", x, np.ones((3, 2), np.int64)).dtype == np.float32


@pytest.mark.parametrize("equation", ["ij,jk->ik", "i,i->i", "ij->", "i->i"])
def test_einsum_of_empty_axes(equation):
    arrays = [np.zeros((0,) * len(labels)) for labels in equation.split("->")[0].split(",")]
    out = F.einsum(equation, *arrays)
    assert np.array_equal(out, np.einsum(equation, *arrays))


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t(2, 3) @ t(4, 5), r"^matmul: shapes \(2, 3\) @ \(4, 5\): dim -1 .*3\) must equal dim -2 .*4\)"),
        (lambda t: t(2, 3) @ t(4), r"dim -1 of the first \(3\) must equal dim -1 of the second \(4\)"),
        (lambda t: t() @ t(3), r"shapes \(\) @ \(3,\): both need at least one dim; multiply by a scalar with \*"),
        (lambda t: t(2, 1, 3) @ t(3, 3, 1), r"batch dims \(2,\) and \(3,\) do not broadcast: .* 2 and 3 must be"),
        (lambda t: F.linear(t(2, 3), t(3, 4)), r"linear: x \(2, 3\) and weight \(3, 4\): weight must be \(out, in\)"),
        (lambda t: F.linear(t(2, 3), t(4, 3), t(3)), r"bias \(3,\) must be \(4,\), one per row of weight \(4, 3\)"),
        (lambda t: F.bilinear(t(2, 3), t(3, 4), t(5, 3, 4)), r"x1 \(2, 3\) and x2 \(3, 4\)"),
        (lambda t: F.dot(t(2, 3), t(3)), r"dot takes 1-D and 1-D; got shapes \(2, 3\) and \(3,\)"),
        (lambda t: F.bmm(t(2, 3, 4), t(1, 4, 3)), "first dims must be equal"),
        (lambda t: F.outer(t(2, 3), t(3)), "two vectors"),
        (lambda t: F.mT(t(3)), r"dim -2 is out of range"),
        (lambda t: F.einsum("ij,jk", t(2, 3)), "has 2 operands; got 1"),
        (lambda t: F.einsum("ij,jk", t(2, 3), t(4, 5)), r"label 'j' has size 4 in \(4, 5\), elsewhere 3"),
        (lambda t: F.einsum("ii", t(2, 3)), r"label 'i' has size 2 in \(2, 3\), elsewhere 3"),
        (lambda t: F.einsum("ijk", t(2, 3)), r"'ijk' does not fit an operand of shape \(2, 3\)"),
        (lambda t: F.einsum("i->ij", t(2)), "output 'ij' must name labels of the operands"),
        (lambda t: F.einsum("ij->ii", t(2, 2)), "each once"),
        (lambda t: F.einsum("i;j", t(2, 2)), "must be letters"),
        (lambda t: F.einsum("...i...", t(2, 2)), "at most one"),
    ],
)  # fmt: skip
def test_errors_name_the_shapes_and_what_must_match(call, words):
    with pytest.raises((ValueError, IndexError), match=words):
        call(lambda *shape: Tensor(normal(*shape), requires_grad=True))
