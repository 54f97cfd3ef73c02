"""embedding: repeated ids, the padding row, ids that are not there."""

import numpy as np
import pytest

from minillm import functional as F
from minillm import tensor


def _gradient(ids, weight, dout, **settings):
    w = tensor(weight, requires_grad=True)
    F.embedding(ids, w, **settings).backward(tensor(dout))
    return w.grad.data


@pytest.mark.parametrize("ids_dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(500,), (20, 5), (), (0,), (3, 0)])
def test_repeated_ids_add_up(shape, ids_dtype):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 7, shape).astype(ids_dtype)
    ids = ids if isinstance(ids, np.ndarray) else np.array(ids)
    weight, dout = rng.standard_normal((7, 3)), rng.standard_normal((*shape, 3))
    expected = np.zeros((7, 3))
    np.add.at(expected, ids, dout)
    np.testing.assert_allclose(_gradient(ids, weight, dout), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(F.embedding(tensor(ids), weight).data, weight[ids])


def test_float32_and_the_same_bits_twice():
    rng = np.random.default_rng(1)
    ids, weight = rng.integers(0, 5, 3000), rng.standard_normal((5, 4)).astype(np.float32)
    dout = rng.standard_normal((3000, 4)).astype(np.float32)
    first = _gradient(ids, weight, dout)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, _gradient(ids, weight, dout))


@pytest.mark.parametrize("padding_idx", [2, -3])
def test_the_padding_row_has_no_gradient(padding_idx):
    ids, weight = np.array([2, 1, 2, 4]), np.ones((5, 2))
    g = _gradient(ids, weight, np.ones((4, 2)), padding_idx=padding_idx)
    np.testing.assert_array_equal(g[:, 0], [0, 1, 0, 0, 1])


def test_the_padding_row_has_no_second_derivative():
    w = tensor(np.arange(1.0, 7.0).reshape(3, 2), requires_grad=True)
    (F.embedding(np.array([0, 1, 0]), w, padding_idx=1) ** 3).sum().backward(create_graph=True)
    first, w.grad = w.grad, None
    (first * first.data).sum().backward()
    np.testing.assert_allclose(first.data, 3 * w.data**2 * [[2], [0], [0]])
    np.testing.assert_allclose(w.grad.data, first.data * 6 * w.data * [[2], [0], [0]])


@pytest.mark.parametrize("bad", [5, -1, 10**12])
def test_an_id_outside_the_table_is_named(bad):
    with pytest.raises(IndexError, match=rf"id {bad} .*5 rows"):
        F.embedding(np.array([[0, bad]]), tensor(np.ones((5, 2))))


def test_wrong_arguments():
    w = tensor(np.ones((5, 2)))
    with pytest.raises(TypeError, match="integer"):
        F.embedding(w, np.array([1]))  # the order of some other libraries
    with pytest.raises(ValueError, match=r"\(V, D\)"):
        F.embedding(np.array([1]), tensor(np.ones(5)))
    with pytest.raises(ValueError, match="padding_idx"):
        F.embedding(np.array([1]), w, padding_idx=5)
