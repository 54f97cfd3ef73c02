"""Attention, by the fused kernel and by its composite: both must keep the same promises about masks."""

import math

import numpy as np
import pytest

from minillm import Generator, get_rng_state, tensor
from minillm import functional as F

attend = F.scaled_dot_product_attention


def _inputs(T=5, S=7, D=4, dtype=np.float64, heads=2, wide=0):
    """q, k, v with gradients; wide > 0: values of another head dim, which the kernel does not take."""
    rng = np.random.default_rng(T * 100 + S)
    shapes = (2, heads, T, D), (2, heads, S, D), (2, heads, S, D + wide)
    return [tensor(rng.standard_normal(s).astype(dtype), requires_grad=True) for s in shapes]


def _run(q, k, v, *args, **settings):
    """Output and gradients as arrays, for a fixed, uneven cotangent."""
    for x in (q, k, v):
        x.grad = None
    out = attend(q, k, v, *args, **settings)
    out.backward(tensor(np.random.default_rng(9).standard_normal(out.shape)))
    return [out.data, q.grad.data, k.grad.data, v.grad.data]


both_paths = pytest.mark.parametrize("wide", [0, 1], ids=["fused", "composite"])


@pytest.mark.parametrize("T, S, D", [(1, 1, 1), (1, 9, 3), (63, 65, 2), (64, 64, 4), (97, 33, 59), (3, 5, 111)])
@pytest.mark.parametrize("settings", [{}, {"is_causal": True}, {"is_causal": True, "offset": 2, "window": 3}], ids=str)
def test_the_kernel_and_its_composite_agree(T, S, D, settings):
    q, k, v = _inputs(T, S, D)
    fused = _run(q, k, v, **settings)
    wider = tensor(np.concatenate([v.data, v.data[..., :1]], axis=-1), requires_grad=True)
    out = attend(q, k, wider, **settings)
    np.testing.assert_allclose(out.data[..., :-1], fused[0], rtol=1e-9, atol=1e-11)
    q.grad = k.grad = v.grad = None
    cotangent = np.random.default_rng(9).standard_normal(fused[0].shape)
    out.backward(tensor(np.concatenate([cotangent, 0 * cotangent[..., :1]], axis=-1)))
    for got, expected in zip((q.grad.data, k.grad.data, wider.grad.data[..., :-1]), fused[1:]):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


def test_create_graph_gives_the_kernels_gradient():
    q, k, v = _inputs(dtype=np.float32)
    mask = np.random.default_rng(0).random((5, 7)) > 0.3
    plain = _run(q, k, v, mask)[1:]
    q.grad = k.grad = v.grad = None
    cotangent = np.random.default_rng(9).standard_normal(q.shape)
    attend(q, k, v, mask).backward(tensor(cotangent.astype(np.float32)), create_graph=True)
    for x, g in zip((q, k, v), plain):
        assert x.grad.dtype == g.dtype == np.float32
        np.testing.assert_allclose(x.grad.data, g, rtol=1e-4, atol=1e-5)


@both_paths
@pytest.mark.parametrize("kind", ["bool", "float", "offset", "window"])
def test_a_query_that_sees_nothing_gives_zeros(kind, wide):
    q, k, v = _inputs(wide=wide)
    seen = np.ones((5, 7), bool)
    seen[2] = False
    settings = {
        "bool": {"attn_mask": seen},
        "float": {"attn_mask": np.where(seen, 0.5, -np.inf)},
        "offset": {"is_causal": True, "offset": -3},  # rows 0, 1, 2
        "window": {"attn_mask": seen, "window": 2, "offset": 1},
    }[kind]
    out, dq, dk, dv = _run(q, k, v, **settings)
    assert not out[:, :, 2].any() and not dq[:, :, 2].any()
    assert out[:, :, 3].all() and all(np.isfinite(g).all() for g in (dq, dk, dv))


@both_paths
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("float_mask", [False, True])
def test_what_a_query_does_not_see_has_no_part(poison, float_mask, wide):
    q, k, v = _inputs(T=4, S=6, wide=wide)
    seen = np.ones((4, 6), bool)
    seen[:, 2] = False  # hidden from all
    seen[:2, 5] = False  # hidden from queries 0 and 1
    mask = np.where(seen, 0.0, -np.inf) if float_mask else seen
    clean = _run(q, k, v, mask)
    for x in (k, v):
        x.data[:, :, 2] = poison
    got = _run(q, k, v, mask)
    for a, b in zip(clean, got):
        np.testing.assert_array_equal(a, b)
    assert not got[2][:, :, 2].any() and not got[3][:, :, 2].any()
    for x in (k, v):
        x.data[:, :, 5] = poison
    out = attend(q.detach(), k.detach(), v.detach(), mask)
    np.testing.assert_array_equal(out.data[:, :, :2], clean[0][:, :, :2])
    if math.isnan(poison):
        assert np.isnan(out.data[:, :, 2:]).all()  # seen, so not hidden either


@both_paths
def test_the_future_does_not_leak_bitwise(wide):
    q, k, v = _inputs(T=70, S=70, dtype=np.float32, wide=wide)
    before = attend(q, k, v, is_causal=True).data
    for x in (k, v):
        x.data[:, :, 40:] = 1e4
    after = attend(q, k, v, is_causal=True).data
    np.testing.assert_array_equal(before[:, :, :40], after[:, :, :40])
    assert (before[:, :, 40:] != after[:, :, 40:]).any()


@both_paths
@pytest.mark.parametrize("slope", [1e4, -1e4])
def test_large_rising_and_falling_scores(slope, wide):
    q, k, v = _inputs(T=3, S=130, D=1, wide=wide)
    q.data[:] = 1
    k.data[..., 0] = slope * np.arange(130)
    out = attend(q, k, v).data
    np.testing.assert_allclose(out, np.broadcast_to(v.data[:, :, [-1 if slope > 0 else 0]], out.shape))


@both_paths
def test_a_cache_sees_what_the_whole_sequence_saw(wide):
    q, k, v = (x.data for x in _inputs(T=9, S=9, wide=wide))
    whole = attend(q, k, v, is_causal=True)
    last = attend(q[:, :, 6:], k, v, is_causal=True, offset=6)
    np.testing.assert_allclose(last, whole[:, :, 6:], rtol=1e-12)


@both_paths
def test_backward_twice_gives_the_same_bits(wide):
    q, k, v = _inputs(T=65, S=65, dtype=np.float32, wide=wide)
    for a, b in zip(_run(q, k, v, is_causal=True), _run(q, k, v, is_causal=True)):
        np.testing.assert_array_equal(a, b)


@both_paths
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4)])
def test_nothing_to_attend_to(shape, wide):
    q = tensor(np.zeros((2, 2, 5, 4)) if shape[2] == 0 else np.zeros(shape), requires_grad=True)
    k, v = tensor(np.zeros(shape)), tensor(np.zeros((*shape[:3], 4 + wide)))
    out = attend(q, k, v)
    out.sum().backward()
    assert out.shape == (*q.shape[:3], 4 + wide) and not out.data.any() and not q.grad.data.any()


def test_head_dims_beyond_the_kernel_take_the_composite():
    q, k, v = _inputs(T=2, S=3, D=300)
    scores = q.data @ np.swapaxes(k.data, -1, -2) / np.sqrt(300)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(attend(q, k, v).data, weights @ v.data, rtol=1e-10)


def test_the_kernel_runs_whenever_it_can():
    q, k, v = _inputs()
    for mask in (None, np.ones((5, 7), bool), tensor(np.zeros((5, 7)))):
        assert attend(q, k, v, mask).node.op.__name__ == "_scaled_dot_product_attention"


def test_a_mask_that_is_learned_gets_its_gradient_at_the_places_it_allows():
    q, k, v = _inputs()
    mask = tensor(np.where(np.tri(5, 7, dtype=bool), 0.3, -np.inf), requires_grad=True)
    attend(q, k, v, mask).backward(tensor(np.random.default_rng(9).standard_normal(q.shape)))
    seen = np.tri(5, 7, dtype=bool)
    assert np.isfinite(mask.grad.data).all() and not mask.grad.data[~seen].any()
    assert mask.grad.data[1:][seen[1:]].all()
    np.testing.assert_allclose(mask.grad.data.sum(axis=-1), 0, atol=1e-12)  # a constant shift of a row does nothing


def test_leading_axes_are_a_batch():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 3, 2, n, 4)) for n in (5, 7, 7))
    for shape in [(5, 7), (2, 5, 7), (3, 1, 1, 7), (2, 1, 2, 5, 7), (2, 3, 1, 5, 1)]:
        mask = rng.random(shape) > 0.4
        full = np.broadcast_to(mask, (2, 3, 2, 5, 7))
        out = attend(q, k, v, mask)
        for index in np.ndindex(2, 3, 2):
            np.testing.assert_allclose(out[index], attend(q[index], k[index], v[index], full[index]), rtol=1e-12)


# ------------------------------------------------------------------------------------------- dropout


def test_dropout_drops_weights_and_scales_the_others():
    q, k, _ = _inputs(T=40, S=50)
    v = tensor(np.broadcast_to(np.eye(50), (2, 2, 50, 50)).copy())  # the output is the weights
    weights = F.attention_weights(q, k).data
    dropped = attend(q, k, v, dropout_p=0.25, generator=Generator(1)).data
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], weights[kept] / 0.75, rtol=1e-12)
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.1875 / kept.size)


def test_dropout_keeps_the_causal_mask():
    q, k, _ = _inputs(T=6, S=6)
    v = tensor(np.broadcast_to(np.eye(6), (2, 2, 6, 6)).copy())
    out = attend(q, k, v, is_causal=True, dropout_p=0.1, generator=Generator(1)).data
    assert not np.triu(out, 1).any() and np.tril(out).any()


def test_dropout_backward_has_the_same_mask():
    q, k, v = _inputs()
    out = attend(q, k, v, dropout_p=0.5, generator=Generator(3))
    cotangent = np.random.default_rng(0).standard_normal(out.shape)
    out.backward(tensor(cotangent))
    direction = np.random.default_rng(1).standard_normal(v.shape)
    moved = attend(q, k, tensor(v.data + direction), dropout_p=0.5, generator=Generator(3))  # linear in v
    np.testing.assert_allclose((v.grad.data * direction).sum(), ((moved.data - out.data) * cotangent).sum(), rtol=1e-9)


def test_without_dropout_no_random_number_is_drawn():
    before = get_rng_state()
    attend(*_inputs())
    attend(*_inputs(wide=1))
    assert get_rng_state() == before
    attend(*_inputs(), dropout_p=0.1)
    assert get_rng_state() != before


# ------------------------------------------------------------------------------------------- weights


def test_weights_are_probabilities_of_what_is_seen():
    q, k, _ = _inputs(T=4, S=4)
    weights = F.attention_weights(q.data, k.data, is_causal=True, offset=-1)
    np.testing.assert_allclose(weights.sum(axis=-1), [[[0, 1, 1, 1]] * 2] * 2, rtol=1e-12)
    assert not np.triu(weights, 0).any()


# -------------------------------------------------------------------------------------------- errors


def _zeros(*shape, dtype=np.float32):
    return tensor(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "shapes, match",
    [
        (((2, 3, 4), (2, 3, 4), (1, 2, 3, 4)), "same number of axes"),
        (((4,), (4,), (4,)), "two or more"),
        (((2, 3, 4), (2, 3, 5), (2, 3, 5)), "head dim"),
        (((2, 3, 4), (2, 5, 4), (2, 6, 4)), "key and value"),
        (((2, 1, 3, 4), (1, 1, 3, 4), (1, 1, 3, 4)), "batch"),
        (((1, 4, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), "enable_gqa=True"),
    ],
)
def test_shapes_that_do_not_fit(shapes, match):
    with pytest.raises(ValueError, match=match):
        attend(*[_zeros(*s) for s in shapes])


def test_grouped_heads_must_divide():
    with pytest.raises(ValueError, match="multiple"):
        attend(_zeros(1, 3, 2, 4), _zeros(1, 2, 2, 4), _zeros(1, 2, 2, 4), enable_gqa=True)


def test_dtypes_and_masks_that_do_not_fit():
    q = _zeros(1, 2, 3, 4)
    with pytest.raises(TypeError, match="float64"):
        attend(q, q, _zeros(1, 2, 3, 4, dtype=np.float64))
    with pytest.raises(TypeError, match="int64"):
        attend(q, q, q, np.ones((3, 3), np.int64))
    for shape in [(3, 2), (2, 2, 3, 3), (1, 1, 2, 3, 3)]:
        with pytest.raises(ValueError, match="does not broadcast"):
            attend(q, q, q, np.ones(shape, bool))
    for value in (q, _zeros(1, 2, 3, 5)):  # by the kernel, by the composite
        with pytest.raises(ValueError, match="window"):
            attend(q, q, value, window=0)


@pytest.mark.oracle
@both_paths
def test_float64_masks_leave_float32_alone(wide):
    torch = pytest.importorskip("torch")
    q, k, v = _inputs(dtype=np.float32, wide=wide)
    mask = np.random.default_rng(0).standard_normal((5, 7))
    out, *grads = _run(q, k, v, mask)
    assert {out.dtype, *[g.dtype for g in grads]} == {np.dtype(np.float32)}
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *[torch.tensor(x.data) for x in (q, k, v)], torch.tensor(mask, dtype=torch.float32)
    )
    np.testing.assert_allclose(out, theirs.numpy(), rtol=1e-5, atol=1e-6)
