"""Behaviour of the shape ops; values and gradients of single calls are in minillm/testing/cases/shape.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from minillm import Tensor
from minillm import functional as F

SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
quick = settings(max_examples=60, deadline=None)


def numbers(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def leaf(shape: tuple[int, ...], dtype: type = np.float32) -> Tensor:
    return Tensor(numbers(shape, dtype), requires_grad=True)


def pulled_back(y: Tensor, x: Tensor) -> np.ndarray:
    """The gradient of x for a cotangent that numbers y's elements."""
    x.grad = None
    y.backward(Tensor(numbers(y.shape, y.dtype)), retain_graph=True)
    assert x.grad is not None and x.grad.dtype == x.dtype and x.grad.shape == x.shape
    return x.grad.data


# ------------------------------------------------------------------------------------------- round trips


@quick
@given(st.data())
def test_permute_matches_numpy_and_its_gradient_permutes_back(data):
    x = leaf(data.draw(SHAPES))
    dims = data.draw(st.permutations(range(x.ndim)))
    signed = tuple(d - x.ndim if data.draw(st.booleans()) else d for d in dims)
    y = F.permute(x, signed)
    assert np.array_equal(y.data, np.transpose(x.data, dims))
    assert np.array_equal(np.transpose(pulled_back(y, x), dims), numbers(y.shape))


@quick
@given(st.data())
def test_reshape_keeps_row_major_order_there_and_back(data):
    x = leaf(data.draw(SHAPES))
    factors = data.draw(st.permutations(x.shape))
    y = F.reshape(F.permute(F.reshape(x, tuple(factors)), tuple(range(x.ndim))[::-1]), (-1,) if x.data.size else (0, 5))
    assert np.array_equal(y.data.ravel(), x.data.reshape(factors).T.ravel())
    back = pulled_back(y, x)
    assert np.array_equal(back.reshape(factors).T.ravel(), numbers(y.shape).ravel())


@quick
@given(st.data())
def test_split_then_cat_is_the_identity(data):
    x = leaf(data.draw(array_shapes(max_dims=3, min_side=0, max_side=5)))
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    size = data.draw(st.integers(1, 6))
    pieces = F.split(x, size, dim)
    y = F.cat(pieces, dim)
    assert np.array_equal(y.data, x.data)
    assert np.array_equal(pulled_back(y, x), numbers(x.shape))
    assert all(piece.shape[dim] == size for piece in pieces[:-1]) and 0 <= pieces[-1].shape[dim] <= size


@quick
@given(st.data())
def test_expand_adds_the_gradients_of_its_copies(data):
    x = leaf(data.draw(array_shapes(min_dims=0, max_dims=3, max_side=3)))
    lead = data.draw(st.lists(st.integers(0, 3), max_size=2))
    size = [data.draw(st.sampled_from([-1, n] if n != 1 else [-1, 1, 4])) for n in x.shape]
    y = F.expand(x, (*lead, *size))
    full = (*lead, *[n if m == -1 else m for n, m in zip(x.shape, size)])
    assert np.array_equal(y.data, np.broadcast_to(x.data, full))
    v = numbers(full).astype(np.float64)
    owner = np.broadcast_to(np.arange(x.data.size).reshape(x.shape), full)  # which element each copy came from
    expected = np.bincount(owner.ravel(), v.ravel(), minlength=x.data.size).reshape(x.shape)
    assert np.allclose(pulled_back(y, x), expected)


# ----------------------------------------------------------------------------------------- views and memory


def test_views_share_memory():
    x = leaf((2, 3, 4))
    for y in (
        F.reshape(x, (6, 4)), F.permute(x, (2, 0, 1)), F.transpose(x, 0, 1), F.unsqueeze(x, 1), F.squeeze(x),
        F.flatten(x), F.expand(x, (5, 2, 3, 4)), F.narrow(x, 1, 0, 2), F.split(x, 2, 2)[1], F.diagonal(x), F.flip(x, 0),
    ):  # fmt: skip
        assert np.shares_memory(y.data, x.data)


def test_gradients_do_not_share_memory():
    x, y = leaf((2, 2)), leaf((2, 2))
    F.cat([F.reshape(x, (4,)), F.flatten(y)]).backward(Tensor(numbers((8,))))
    assert not np.shares_memory(x.grad.data, y.grad.data)
    z = leaf((3, 1))
    F.expand(F.expand(z, (3, 2)), (4, 3, 2)).sum().backward()
    assert z.grad.data.flags.owndata and z.grad.data.strides == (4, 4)
    z.grad.data += 1  # a broadcast view could not be written to
    assert np.array_equal(z.grad.data, np.full((3, 1), 9.0))


def test_only_shapes_are_kept_for_the_gradient():
    """A later in-place write to the input is no error: no rule here needs the values."""
    x = leaf((2, 4))
    a = x * 1
    outs = [
        F.reshape(a, (8,)), F.repeat(a, (2, 1)), F.diagonal(a), F.pad(a, (1, 1)), F.cat([a, a]), F.stack([a, a]),
        *F.split(a, 2, 1), F.narrow(a, 0, 0, 1), F.gather(a, 1, np.array([[0], [3]])),
        F.index_select(a, 0, np.array([1])),
    ]  # fmt: skip
    a.detach().zero_()
    total = sum((o.sum() for o in outs[1:]), outs[0].sum())
    total.backward()
    assert np.isfinite(x.grad.data).all() and x.grad.data.any()


@pytest.mark.parametrize("layout", ["transposed", "reversed", "stepped", "broadcast"])
def test_any_strides(layout):
    base = numbers((4, 6))
    array = {
        "transposed": base.T,
        "reversed": base[::-1, ::-1],
        "stepped": base[::2, ::3],
        "broadcast": np.broadcast_to(base[0], (4, 6)),
    }[layout]
    for function in (
        lambda x: F.reshape(x, (-1, 2)),
        lambda x: F.pad(x, (1, -1)),
        lambda x: F.roll(x, 3),
        lambda x: F.repeat(x, (1, 2)),
    ):
        x, plain = Tensor(array, requires_grad=True), Tensor(array.copy(), requires_grad=True)
        y, z = function(x), function(plain)
        assert np.array_equal(y.data, z.data)
        assert np.array_equal(pulled_back(y, x), pulled_back(z, plain))


# ------------------------------------------------------------------------------------------------ conventions


def test_arrays_without_elements():
    """Every op takes them, and their gradients have their shapes."""
    for function in (
        lambda x: F.reshape(x, (4, 0)),
        lambda x: F.expand(F.unsqueeze(x, 0), (2, 0, 3)),
        lambda x: F.flatten(x),
        lambda x: F.repeat(x, (2, 1)),
        lambda x: F.flip(x, 0),
        lambda x: F.roll(x, 1),
        lambda x: F.tril(x),
        lambda x: F.diagonal(x),
        lambda x: F.pad(x, (1, 1, 2, 0)),
        lambda x: F.stack([x, x], 1),
        lambda x: F.cat(F.split(x, [0, 2, 0, 1], 1), -1),
        lambda x: F.cat([x, np.ones((2, 3), np.float32)]),
        lambda x: x[:0, [1, 1]],
        lambda x: x[np.zeros((0, 3), bool)],
    ):
        x = leaf((0, 3))
        assert pulled_back(function(x), x).shape == (0, 3)


def test_empty_pieces_and_parts():
    x, nothing = leaf((2, 4)), leaf((0, 4))
    one, none, rest = F.split(x, [1, 0, 3], 1)
    assert (one.shape, none.shape, rest.shape) == ((2, 1), (2, 0), (2, 3))
    (F.cat([nothing, x]) * 2).sum().backward()
    assert nothing.grad.shape == (0, 4) and (x.grad.data == 2).all()


def test_unused_pieces_of_a_split_get_zero_gradient():
    x = leaf((6,))
    _, middle, _ = F.split(x, [1, 3, 2])
    (middle * middle).sum().backward()
    assert x.grad.tolist() == [0, 2, 4, 6, 0, 0]


def test_chunk_rounds_up_and_may_give_fewer():
    assert [c.shape[0] for c in F.chunk(leaf((5,)), 4)] == [2, 2, 1]
    assert [c.shape[0] for c in F.chunk(leaf((0,)), 3)] == [0, 0, 0]


def test_cat_and_stack_promote_as_arithmetic_does():
    f32, f64, i64 = np.ones(2, np.float32), np.ones(2), np.ones(2, np.int64)
    assert F.cat([f32, i64]).dtype == np.float32
    assert F.stack([f32, f64]).dtype == np.float64
    a, b = Tensor(f32, requires_grad=True), Tensor(f64, requires_grad=True)
    F.cat([a, b]).sum().backward()
    assert a.grad.dtype == np.float32 and b.grad.dtype == np.float64


def test_squeeze_leaves_dims_of_other_sizes():
    assert F.squeeze(leaf((1, 3)), 1).shape == (1, 3)
    assert F.squeeze(leaf((1, 3, 1)), (0, 1)).shape == (3, 1)


def test_pad_modes():
    x = np.array([1, 2, 3])
    assert F.pad(x, (2, 2), "reflect").tolist() == [3, 2, 1, 2, 3, 2, 1]
    assert F.pad(x, (2, 2), "replicate").tolist() == [1, 1, 1, 2, 3, 3, 3]
    assert F.pad(x, (2, 2), "circular").tolist() == [2, 3, 1, 2, 3, 1, 2]
    assert F.pad(x, (1, 2), value=9).tolist() == [9, 1, 2, 3, 9, 9]
    assert F.pad(np.ones((1, 1)), (1, 0, 0, 2)).tolist() == [[0, 1], [0, 0], [0, 0]]
    assert F.pad(x, (-4, 4), value=7).tolist() == [7, 7, 7]  # all cut off, then padded
    assert F.pad(x, ()).tolist() == [1, 2, 3]


@quick
@given(st.integers(0, 4), st.integers(-4, 4), st.integers(-4, 4))
def test_pad_is_its_own_transpose_with_the_sign_changed(n, before, after):
    x = Tensor(np.random.default_rng(n).standard_normal(n), requires_grad=True)
    if n + before + after < 0:
        with pytest.raises(ValueError, match="takes more off"):
            F.pad(x, (before, after))
        return
    y = F.pad(x, (before, after))
    v = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(Tensor(v))
    assert np.isclose((v * y.data).sum(), (x.grad.data * x.data).sum())
    assert y.shape == (n + before + after,)


def test_repeat_of_nothing_has_zero_gradient():
    x = leaf((2, 3))
    y = F.repeat(x, (0, 2))
    assert y.shape == (0, 6)
    assert not pulled_back(y, x).any()


def test_arrays_in_arrays_out():
    x = numbers((2, 3))
    for y in (F.reshape(x, 6), F.movedim(x, 0, 1), F.pad(x, (1, 1), "reflect"), F.cat([x, x]), *F.split(x, 1)):
        assert type(y) is np.ndarray and y.dtype == np.float32


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: F.reshape(x, (4, 2)), ValueError, r"reshape: .*size 6"),
        (lambda x: F.transpose(x, 0, 2), IndexError, "transpose: dim 2 is out of range: the input has dims -2 to 1"),
        (lambda x: F.permute(x, (0, 0)), ValueError, "name one dim twice"),
        (lambda x: F.permute(x, (0,)), ValueError, r"dims \(0,\) must name each of the 2 dims"),
        (lambda x: F.unsqueeze(x, 3), IndexError, "dim 3"),
        (lambda x: F.expand(x, (3, 3)), ValueError, r"shape \(2, 3\) cannot expand to \(3, 3\)"),
        (lambda x: F.expand(x, (-1, 2, 3)), ValueError, "new dims come first with a size of their own"),
        (lambda x: F.flatten(x, 1, 0), ValueError, "start_dim 1 comes after end_dim 0"),
        (lambda x: F.movedim(x, (0, 1), 0), ValueError, "2 source dims and 1 destination"),
        (lambda x: F.cat([x, F.reshape(x, (3, 2))]), ValueError, r"^cat: .*must match(.|\n)*\[1\]: float32 \(3, 2\)"),
        (lambda x: F.cat([]), ValueError, "need at least one"),
        (lambda x: F.stack([x, F.reshape(x, (3, 2))]), ValueError, r"one shape.*\(2, 3\), \(3, 2\)"),
        (lambda x: F.split(x, [1, 1], 1), ValueError, "must add up to 3"),
        (lambda x: F.split(x, 0), ValueError, "at least 1; got 0"),
        (lambda x: F.chunk(x, 0), ValueError, "at least 1; got 0"),
        (lambda x: F.repeat(x, (2,)), ValueError, "one for each dim"),
        (lambda x: F.flip(x, (0, 0)), ValueError, "twice"),
        (lambda x: F.pad(x, (1,)), ValueError, "must be pairs"),
        (lambda x: F.pad(x, (3, 0), "reflect"), ValueError, "'reflect' can add 0 to 2 elements"),
        (lambda x: F.pad(x, (1, 1), "mirror"), ValueError, "no mode 'mirror'; there are constant, reflect"),
        (lambda x: F.diagonal(x, 0, 0, 0), ValueError, "twice"),
        (lambda x: F.tril(F.reshape(x, (6,))), IndexError, "tril: dim -2 is out of range"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call(leaf((2, 3)))
