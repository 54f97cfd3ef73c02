"""Look-up and its gradient: against one-hot products, loops in Python, PyTorch; repeated, missing and padding ids."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import embedding_backward, embedding_forward


def example(shape, V, D, dtype, seed=0):
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, V, shape)
    if indices.size > 3:
        indices.reshape(-1)[: indices.size // 2] = indices.flat[0]  # one id has half of the rows
    return indices, rng.normal(size=(V, D)).astype(dtype), rng.normal(size=(*shape, D)).astype(dtype)


def oracle_backward(dout, indices, V, precision, padding=None):
    onehot = (indices.reshape(-1, 1) == np.arange(V)).astype(precision)  # (N, V)
    if padding is not None:
        onehot[:, padding] = 0
    return onehot.T @ dout.reshape(indices.size, dout.shape[-1]).astype(precision)


def check_example(shape, V, D, dtype, seed, padding, impl):
    indices, weight, dout = example(shape, V, D, dtype, seed)
    np.testing.assert_array_equal(embedding_forward(indices, weight, impl=impl), weight[indices])
    got = embedding_backward(dout, indices, V, padding_idx=padding, impl=impl)
    exact, plain = (oracle_backward(dout, indices, V, p, padding) for p in (np.longdouble, dtype.type))
    check.accurate(got, exact, plain, bound=1)


SHAPES = [((3, 7), 11, 5), ((1,), 1, 1), ((0, 5), 3, 4), ((2, 3), 4, 0), ((), 3, 130), ((900,), 40, 257)]


@pytest.mark.parametrize(("shape", "V", "D"), SHAPES)
def test_matches_one_hot_products(shape, V, D, dtype, impl):
    for padding in (None, 0, -1):
        check_example(shape, V, D, dtype, 0, padding, impl)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=3), st.integers(1, 12), st.integers(0, 40), st.integers(0, 2**31))
def test_matches_one_hot_products_for_any_shape(shape, V, D, seed):
    for impl in ("reference", "cpu"):
        check_example(tuple(shape), V, D, np.dtype(np.float32), seed, None, impl)


@pytest.mark.parametrize("integer", ["int8", "uint8", "int32", "uint64"])
def test_any_integers_and_strides(layout, integer, dtype, impl):
    indices, weight, dout = example((4, 6), 20, 33, dtype)
    ids = layout(indices.astype(integer))
    (out,) = check.pure(lambda i, w: embedding_forward(i, w, impl=impl), ids, layout(weight))
    np.testing.assert_array_equal(out, weight[indices])
    (got,) = check.pure(lambda d, i: embedding_backward(d, i, 20, impl=impl), layout(dout), ids)
    np.testing.assert_array_equal(got, embedding_backward(dout, indices, 20, impl=impl))


def test_out_is_added_into(layout, dtype, impl):
    indices, weight, dout = example((50,), 7, 19, dtype)
    fresh = embedding_backward(dout, indices, 7, impl=impl)
    out = np.lib.stride_tricks.as_strided(*(lambda a: (a, a.shape, a.strides))(layout(weight.copy())))
    if not out.flags.writeable:
        with pytest.raises(ValueError, match="out is read-only"):
            embedding_backward(dout, indices, 7, out=out, impl=impl)
        return
    assert embedding_backward(dout, indices, 7, out=out, impl=impl) is out
    np.testing.assert_allclose(out, weight + fresh.astype(np.float64), rtol=0, atol=100 * np.finfo(dtype).eps)


def test_sums_do_not_lose_small_numbers(impl):
    dout = np.full((100_000, 1), 0.1, np.float32)
    got = embedding_backward(dout, np.zeros(100_000, int), 2, impl=impl)
    np.testing.assert_allclose(got, [[100_000 * float(np.float32(0.1))], [0]], rtol=1e-7)  # in float32: 2e-4 off


def test_what_lies_around_the_arrays_does_not_matter(dtype):
    for D in (1, 15, 16, 17, 129):
        indices, weight, dout = example((70,), 9, D, dtype)
        check.ignores_surroundings(lambda i, w: embedding_forward(i, w, impl="cpu"), indices, weight)
        check.ignores_surroundings(lambda d, i: embedding_backward(d, i, 9, impl="cpu"), dout, indices)


def test_same_bits_for_any_number_of_threads():
    for V in (5, 3000):
        indices, weight, dout = example((2001,), V, 300, np.float32)
        check.same_for_any_threads(lambda i=indices, w=weight: embedding_forward(i, w, impl="cpu"))
        check.same_for_any_threads(lambda d=dout, i=indices, V=V: embedding_backward(d, i, V, impl="cpu"))


def test_an_id_outside_the_table_is_named(dtype, impl):
    weight, dout = np.ones((4, 3), dtype), np.ones((3, 3), dtype)
    for wrong in (4, -1, 2**40):
        ids = np.array([0, wrong, 1])
        with pytest.raises(IndexError, match=f"id {wrong} is outside 0 .. 3"):
            embedding_forward(ids, weight, impl=impl)
        with pytest.raises(IndexError, match=f"id {wrong} is outside 0 .. 3"):
            embedding_backward(dout, ids, 4, impl=impl)
    with pytest.raises(IndexError, match="id 7 is outside 0 .. 3"):
        embedding_forward(np.array([7]), np.asfortranarray(weight), impl=impl)
    with pytest.raises(IndexError, match="id 0 is outside 0 .. -1"):
        embedding_forward(np.array([0]), weight[:0], impl=impl)


IDS, ROWS = np.zeros(3, int), np.ones((3, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: embedding_forward(np.ones(3), np.ones((2, 2))), TypeError, "integer dtype, got float64"),
        (lambda: embedding_forward([0], np.ones((2, 2))), TypeError, "integer dtype, got list"),
        (lambda: embedding_forward(IDS, np.ones(2)), ValueError, r"weight has shape \(2,\), expected \(V, D\)"),
        (lambda: embedding_backward(ROWS[:2], IDS, 4), ValueError, r"dout has shape \(2, 2\), expected \(3, 2\)"),
        (lambda: embedding_backward(ROWS, IDS, 4, padding_idx=4), ValueError, "padding_idx 4 is outside"),
        (lambda: embedding_backward(ROWS, IDS, 4, out=ROWS), ValueError, r"out has shape \(3, 2\)"),
    ],
)
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    indices, weight, dout = example((40, 6), 30, 17, dtype)
    tensor = torch.tensor(weight, requires_grad=True)
    expected = torch.nn.functional.embedding(torch.tensor(indices), tensor, padding_idx=3)
    (grad,) = torch.autograd.grad(expected, tensor, torch.tensor(dout))
    np.testing.assert_array_equal(embedding_forward(indices, weight, impl=impl), expected.detach().numpy())
    got = embedding_backward(dout, indices, 30, padding_idx=3, impl=impl)
    np.testing.assert_allclose(got, grad.numpy(), rtol=0, atol=500 * np.finfo(dtype).eps)  # sums of 120 numbers
