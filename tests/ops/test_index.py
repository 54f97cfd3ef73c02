"""Behaviour of indexing; values and gradients of single calls are in minillm/testing/cases/index.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from minillm import Tensor
from minillm import functional as F
from minillm.ops import index as index_module
from minillm.ops.scatter import add_at, add_rows, add_without_atomics

quick = settings(max_examples=150, deadline=None)


class AsCupy:
    """NumPy under CuPy's name: its branches run without a GPU."""

    __name__ = "cupy"

    def __getattr__(self, name):
        return getattr(np, name)


def scattered(shape: tuple[int, ...], index: object, v: np.ndarray) -> np.ndarray:
    """The gradient of x[index] for the cotangent v, by counting: each element of x sums the v that came from it."""
    places = np.arange(int(np.prod(shape))).reshape(shape)[index]
    return np.bincount(np.ravel(places), np.ravel(v), minlength=int(np.prod(shape))).reshape(shape)


@st.composite
def indices(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple:
    """Any mixture of ints, slices, None, one Ellipsis, integer arrays that broadcast, and boolean masks."""
    common = draw(array_shapes(min_dims=1, max_dims=2, max_side=3))
    parts: list = []
    axis = 0
    ellipsis = draw(st.integers(0, len(shape))) if draw(st.booleans()) else None
    while axis < len(shape):
        if ellipsis == axis:
            parts.append(Ellipsis)
            axis += draw(st.integers(0, len(shape) - axis))
            ellipsis = None
            continue
        n = shape[axis]
        kind = draw(st.sampled_from(["int", "slice", "array", "array", "mask", "none"]))
        if kind == "none":
            parts.append(None)
        elif kind == "mask":
            parts.append(np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool))
            axis += 1
        elif kind == "slice" or n == 0:
            parts.append(draw(st.slices(n)))
            axis += 1
        elif kind == "int":
            parts.append(draw(st.integers(-n, n - 1)))
            axis += 1
        else:
            kept = common[draw(st.integers(0, len(common) - 1)) :]
            size = int(np.prod(kept))
            numbers = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            parts.append(np.array(numbers, np.int64).reshape(kept))
            axis += 1
    if len(parts) == 1 and draw(st.booleans()):
        return parts[0]
    return tuple(parts)


@quick
@given(st.data())
def test_getitem_is_numpys_and_its_gradient_a_scatter(data):
    shape = data.draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    index = data.draw(indices(shape))
    array = np.random.default_rng(0).standard_normal(shape)
    array = np.asarray(array)
    try:
        expected = array[index]
    except IndexError:  # masks of different counts, or a mask that does not broadcast with an array
        with pytest.raises(IndexError):
            Tensor(array)[index]
        return
    x = Tensor(array, requires_grad=True)
    y = x[index]
    assert y.shape == np.shape(expected) and np.array_equal(y.data, expected)
    v = np.asarray(np.random.default_rng(1).standard_normal(y.shape))
    y.backward(Tensor(v))
    assert np.allclose(x.grad.data, scattered(shape, index, v), atol=1e-12)


def test_indices_may_be_tensors_lists_and_ranges():
    x = Tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
    rows = Tensor(np.array([2, 0, 2]))
    for index in (rows, [2, 0, 2], (rows, slice(None)), ([2, 0, 2], ...)):
        x.grad = None
        y = x[index]
        assert np.array_equal(y.data, x.data[[2, 0, 2]])
        y.sum().backward()
        assert np.array_equal(x.grad.data[:, 0], [1, 0, 2])
    assert x[[]].shape == (0, 4)
    assert F.getitem(x.data, [1]).tolist() == [[4, 5, 6, 7]]
    assert F.getitem(x.data, range(2)).shape == (2, 4)


def test_getitem_keeps_float32_and_follows_numpy_where_pytorch_differs():
    x = Tensor(np.zeros((2, 3, 4), np.float32), requires_grad=True)
    y = x[0, :, [1, 1]]
    assert y.shape == (2, 3)
    y.sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.data[0, 0].tolist() == [0, 2, 0, 0]


def test_a_slice_is_a_view():
    x = Tensor(np.zeros((3, 4)))
    assert np.shares_memory(x[1:, ::2].data, x.data)
    assert not np.shares_memory(x[[0]].data, x.data)


# ------------------------------------------------------------------------------------------------ scatter


@pytest.mark.parametrize("width", [(), (3,), (2, 100)])
@pytest.mark.parametrize("rows", ["random", "one", "all different", "negative", "none", "uint8"])
@pytest.mark.parametrize("function", [add_rows, lambda *a: add_without_atomics(np, *a)], ids=["sorted", "doubling"])
def test_adding_rows_equals_numpys_add_at(function, rows, width):
    rng = np.random.default_rng(0)
    index = {
        "random": rng.integers(0, 7, (5, 9)),
        "one": np.full(33, 3),
        "all different": rng.permutation(7),
        "negative": rng.integers(-7, 7, 40),
        "none": np.zeros((0,), np.int64),
        "uint8": rng.integers(0, 7, 40).astype(np.uint8),
    }[rows]
    values = rng.standard_normal((*index.shape, *width))
    start = rng.standard_normal((7, *width))
    got, want, kept = start.copy(), start.copy(), values.copy()
    function(got, index, values)
    np.add.at(want, index, values)
    assert np.allclose(got, want, atol=1e-12) and np.array_equal(values, kept)


@quick
@given(st.data())
def test_the_gpu_path_adds_at_any_index(data):
    shape = data.draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    index = data.draw(indices(shape))
    index = index if isinstance(index, tuple) else (index,)
    try:
        values = np.random.default_rng(0).standard_normal(np.shape(np.zeros(shape)[index]))
    except IndexError:
        return
    target = np.ones(shape)
    if any(isinstance(i, np.ndarray) and i.dtype.kind == "i" for i in index):
        add_at(AsCupy(), target, index, np.asarray(values))
        assert np.allclose(target, 1 + scattered(shape, index, values), atol=1e-12)


@pytest.mark.parametrize("index", [(np.array([3]),), (..., np.array([0, -5])), (None, 0, slice(None), np.array([[4]]))])
def test_indices_out_of_range_are_found_where_cupy_would_wrap_them(index):
    with pytest.raises(IndexError, match="out of range"):
        index_module._check_parts(index, (3, 3, 4))


def test_indices_in_range_pass_that_check():
    index_module._check_parts((np.array([2, -3]), None, ..., np.array([3, -4])), (3, 3, 4))
    index_module._check_parts((np.zeros((3, 3), bool), np.array([3])), (3, 3, 4))


def test_the_gradient_of_a_lookup_repeats_bit_for_bit():
    rng = np.random.default_rng(0)
    ids, v = rng.integers(0, 50, 3000), Tensor(rng.standard_normal((3000, 130)).astype(np.float32))
    grads = []
    for _ in range(2):
        x = Tensor(np.zeros((50, 130), np.float32), requires_grad=True)
        x[ids].backward(v)
        grads.append(x.grad.data)
    assert np.array_equal(*grads)
    exact = np.zeros((50, 130))
    np.add.at(exact, ids, v.data.astype(np.float64))
    assert np.abs(grads[0] - exact).max() < 1e-5 * np.abs(exact).max() + 1e-5


# ---------------------------------------------------------------------------------- gather, index_select, sort


@quick
@given(st.data())
def test_gather_and_scatter_add_are_transposes(data):
    shape = data.draw(array_shapes(max_dims=3, max_side=4))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[dim]
    small = [data.draw(st.integers(0, m)) for m in shape]
    small[dim] = data.draw(st.integers(0, 5))
    rng = np.random.default_rng(0)
    index = rng.integers(0, n, small)
    x, v = rng.standard_normal(shape), rng.standard_normal(small)
    out = F.gather(x, dim, index)
    assert out.shape == index.shape
    for at in np.ndindex(*small):
        place = list(at)
        place[dim] = index[at]
        assert out[at] == x[tuple(place)]
    assert np.isclose((out * v).sum(), (x * F.scatter_add(np.zeros(shape), dim, index, v)).sum())


def test_argsort_and_gather_work_together():
    x = Tensor(np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]), requires_grad=True)
    order = F.argsort(x, dim=1)
    assert np.array_equal(F.take_along_dim(x, order, 1).data, F.sort(x, 1).values.data)
    assert order.dtype == np.int64 and not order.requires_grad


@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_and_nan_is_largest(descending):
    values, order = F.sort(np.array([2.0, np.nan, 1.0, 2.0, 1.0]), descending=descending)
    assert order.tolist() == ([1, 0, 3, 2, 4] if descending else [2, 4, 0, 3, 1])
    assert np.isnan(values[0 if descending else -1])


def test_ties_in_topk_go_to_the_first_and_take_the_whole_gradient():
    x = Tensor(np.array([1.0, 3.0, 3.0, 3.0], np.float32), requires_grad=True)
    top = x.topk(2)
    assert top.indices.tolist() == [1, 2] and top.values.tolist() == [3.0, 3.0]
    top.values.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0] and x.grad.dtype == np.float32
    assert F.topk(x, 0).values.shape == (0,)
    assert F.topk(x, 2, largest=False).indices.tolist() == [0, 1]


def test_one_hot():
    assert F.one_hot(np.array([[1], [0]])).tolist() == [[[0, 1]], [[1, 0]]]
    assert F.one_hot(Tensor(np.array(2)), 4).tolist() == [0, 0, 1, 0]
    assert F.one_hot(np.zeros(0, np.int64), 3).shape == (0, 3)
    assert F.one_hot(np.array([1])).dtype == np.int64


def test_inputs_stay_as_they_are():
    x, source = np.zeros((3, 2), np.float32), np.ones((2, 2), np.float32)
    F.index_add(x, 0, np.array([0, 0]), source)
    F.scatter_add(x, 0, np.array([[0, 0]]), source)
    assert not x.any() and (source == 1).all()


def test_index_add_promises_float32_with_alpha():
    x, s = (Tensor(np.ones((3, 2), np.float32), requires_grad=True) for _ in range(2))
    y = F.index_add(x, 0, np.array([1, 1, 0]), s, alpha=0.5)
    assert y.dtype == np.float32 and y.tolist() == [[1.5, 1.5], [2, 2], [1, 1]]
    y.sum().backward()
    assert s.grad.dtype == np.float32 and (s.grad.data == 0.5).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: x[3], IndexError, r"getitem: .*3(.|\n)*float32 \(3, 4\)"),
        (lambda x: x[[0, 3]], IndexError, "index 3 is out of bounds"),
        (lambda x: x[np.array([0.0])], IndexError, "integer"),
        (lambda x: x[0, 0, 0], IndexError, "too many indices"),
        (lambda x: F.gather(x, 0, np.array([[3]])), IndexError, "gather: index 3 is out of range: .* from 0 to 2"),
        (lambda x: F.gather(x, 1, np.array([[-1]])), IndexError, "index -1 is out of range"),
        (lambda x: F.gather(x, 1, np.array([[0.5]])), TypeError, "integer Tensor or array; got a float64 array"),
        (lambda x: F.gather(x, 1, [[0]]), TypeError, "got a list"),
        (lambda x: F.gather(x, 1, np.array([0])), ValueError, r"index \(1,\) must have 2 dims"),
        (lambda x: F.gather(x, 1, np.zeros((4, 1), np.int64)), ValueError, r"no size above the input's \(3, 4\)"),
        (lambda x: F.scatter_add(x, 0, np.zeros((2, 2), int), x[:1]), ValueError, r"src \(1, 4\) must be at least"),
        (lambda x: F.index_select(x, 1, np.array([4])), IndexError, "index 4 is out of range: it must be from 0 to 3"),
        (lambda x: F.index_select(x, 1, np.array([[1]])), ValueError, "must be 1-D"),
        (lambda x: F.index_add(x, 0, np.array([0]), x), ValueError, r"source \(3, 4\) .* but 1 in dim 0"),
        (lambda x: F.take_along_dim(x, np.array([0]), 0), ValueError, "of 2 dims"),
        (lambda x: F.narrow(x, 0, 2, 2), IndexError, "start 2 and length 2 do not fit in dim 0"),
        (lambda x: F.topk(x, 5), ValueError, "k = 5 must be from 0 to 4"),
        (lambda x: F.sort(x, 2), IndexError, "dim 2 is out of range"),
        (lambda x: F.one_hot(Tensor(np.array([3])), 3), IndexError, "index 3 is out of range"),
        (lambda x: F.one_hot(Tensor(np.array([-1]))), IndexError, "index -1 is out of range"),
        (lambda x: F.one_hot(x), TypeError, "float32 array"),
        (lambda x: F.one_hot(Tensor(np.zeros(0, np.int64))), ValueError, "give num_classes"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call(Tensor(np.zeros((3, 4), np.float32), requires_grad=True))
