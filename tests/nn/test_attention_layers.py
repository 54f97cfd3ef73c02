"""Attention layers: against PyTorch's module, against loops, and what weights and masks have to be."""

import math

import numpy as np
import pytest

from minillm import Tensor, manual_seed, nn, randn
from minillm.nn.attention import masked_softmax


@pytest.mark.oracle
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_multihead_attention_is_pytorchs_with_its_state_dict(is_causal, cross, bias):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, dtype=torch.float64)
    ours = nn.MultiheadAttention(12, 3, bias=bias).double()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    shapes = [(2, 5, 12), (2, 7, 12), (2, 7, 12)] if cross else [(2, 5, 12)]
    arrays = [rng.standard_normal(s) for s in shapes]
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    inputs_ = [torch.tensor(a, requires_grad=True) for a in arrays]
    T, S = 5, 7 if cross else 5
    forbidden = torch.ones(T, S, dtype=torch.bool).triu(1) if is_causal else None
    y, w = ours(*inputs, is_causal=is_causal, need_weights=True)
    q, k, v = inputs_ * 3 if not cross else inputs_
    y_, w_ = theirs(q, k, v, attn_mask=forbidden, average_attn_weights=False)
    np.testing.assert_allclose(y.numpy(), y_.detach().numpy(), atol=1e-13)
    np.testing.assert_allclose(w.numpy(), w_.detach().numpy(), atol=1e-13)
    cy, cw = rng.standard_normal(y.shape), rng.standard_normal(w.shape)
    ((y * cy).sum() + (w * cw).sum()).backward()
    ((y_ * torch.tensor(cy)).sum() + (w_ * torch.tensor(cw)).sum()).backward()
    for a, b in zip(inputs, inputs_):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12)
    gradients = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), gradients[name].grad.numpy(), atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_weights_are_those_the_output_is_made_of(kv_heads):
    """y is the weights times the values of each head, projected; the fused kernel never stores those weights."""
    manual_seed(1)
    attention = nn.MultiheadAttention(8, 4, num_kv_heads=kv_heads).double()
    x = randn(2, 6, 8).double()
    y, weights = attention(x, is_causal=True, need_weights=True)
    value = x.numpy() @ attention.in_proj_weight.numpy()[8 + 2 * kv_heads :].T  # (B, S, H_kv * D)
    value = value.reshape(2, 6, kv_heads, 2).transpose(0, 2, 1, 3).repeat(4 // kv_heads, axis=1)  # (B, H, S, D)
    heads = weights.numpy() @ value  # (B, H, T, D)
    want = heads.transpose(0, 2, 1, 3).reshape(2, 6, 8) @ attention.out_proj.weight.numpy().T
    np.testing.assert_allclose(y.numpy(), want, atol=1e-13)
    plain, none = attention(x, is_causal=True)
    assert none is None
    assert np.array_equal(plain.numpy(), y.numpy())


def test_weights_sum_to_one_over_the_keys_and_differ():
    manual_seed(2)
    x, other = randn(2, 5, 8), randn(2, 7, 8)
    maps = [nn.MultiheadAttention(8, 2)(x, other, need_weights=True)[1]]
    for layer in (nn.AdditiveAttention(8, 8, 6), nn.DotProductAttention(), nn.ScaledDotProductAttention()):
        context, weights = layer(x, other, randn(2, 7, 3))
        assert context.shape == (2, 5, 3)
        maps.append(weights)
    for weights in maps:
        assert weights.shape[-2:] == (5, 7)
        w = weights.numpy()
        np.testing.assert_allclose(w.sum(-1), 1, atol=1e-6)
        assert not np.allclose(w.sum(-2), 1, atol=1e-3)  # over the queries they do not: the axis is right
        assert w.std(-1).min() > 1e-3
        assert w.std(-2).min() > 1e-4


def test_no_position_of_a_block_sees_the_future():
    manual_seed(3)
    block = nn.TransformerBlock(16, 4)
    x = randn(1, 9, 16).numpy()
    y, weights = block(Tensor(x), need_weights=True)
    changed = x.copy()
    changed[:, 5:] = 1e3
    later, _ = block(Tensor(changed), need_weights=True)
    assert np.array_equal(y.numpy()[:, :5], later.numpy()[:, :5])
    assert not np.allclose(y.numpy()[:, 5:], later.numpy()[:, 5:])
    assert weights.shape == (1, 4, 9, 9)
    assert not np.triu(weights.numpy(), 1).any()
    assert np.array_equal(block(Tensor(x)).numpy(), y.numpy())


def test_a_block_in_training_drops_and_in_evaluation_repeats():
    manual_seed(4)
    block = nn.TransformerBlock(8, 2, dropout=0.3)
    x = randn(2, 4, 8)
    assert not np.array_equal(block(x).numpy(), block(x).numpy())
    block.eval()
    assert np.array_equal(block(x).numpy(), block(x).numpy())
    assert all(p.grad is None for p in block.parameters())
    block(x).sum().backward()
    assert all(p.grad.shape == p.shape for p in block.parameters())


def test_additive_attention_is_the_loop_of_the_paper():
    manual_seed(5)
    layer = nn.AdditiveAttention(3, 4, 6).double()
    rng = np.random.default_rng(5)
    query, key, value = rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 5, 2))
    context, weights = layer(Tensor(query), Tensor(key), Tensor(value))
    W, U, v = layer.query_layer.weight.numpy(), layer.key_layer.weight.numpy(), layer.score_layer.weight.numpy()[0]
    for b in range(2):
        for i in range(3):
            energies = []
            for j in range(5):
                energy = 0.0
                for h in range(6):
                    q = sum(W[h, d] * query[b, i, d] for d in range(3))
                    k = sum(U[h, d] * key[b, j, d] for d in range(4))
                    energy += v[h] * math.tanh(q + k)
                energies.append(energy)
            total = sum(math.exp(e) for e in energies)
            alpha = [math.exp(e) / total for e in energies]
            np.testing.assert_allclose(weights.numpy()[b, i], alpha, atol=1e-14)
            expected = [sum(alpha[j] * value[b, j, d] for j in range(5)) for d in range(2)]
            np.testing.assert_allclose(context.numpy()[b, i], expected, atol=1e-14)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_take_keys_out_and_a_query_that_sees_nothing_gets_zeros(kind):
    seen = np.ones((2, 3, 4), bool)
    seen[:, :, 3] = False
    seen[1, 2] = False
    mask = seen if kind == "bool" else np.where(seen, 0.5, -np.inf)
    scores = randn(2, 3, 4, requires_grad=True)
    weights = masked_softmax(scores, mask)
    w = weights.numpy()
    assert (w[~seen] == 0).all()
    np.testing.assert_allclose(w.sum(-1), [[1, 1, 1], [1, 1, 0]], atol=1e-6)
    e = np.exp(scores.numpy()[0, :, :3])
    np.testing.assert_allclose(w[0, :, :3], e / e.sum(-1, keepdims=True), atol=1e-6)
    (weights * randn(2, 3, 4)).sum().backward()
    assert np.isfinite(scores.grad.numpy()).all()
    assert (scores.grad.numpy()[~seen] == 0).all()
    assert weights.dtype == np.float32


def test_masked_keys_of_any_value_have_no_part_in_multihead_attention():
    manual_seed(6)
    attention = nn.MultiheadAttention(8, 2)
    x, keys = randn(2, 3, 8), randn(2, 5, 8).numpy()
    seen = np.array([[True, True, True, True, False], [True, False, True, True, True]])
    y, weights = attention(x, Tensor(keys), attn_mask=seen[:, None, None, :], need_weights=True)
    keys[~seen] = 1e4
    again, _ = attention(x, Tensor(keys), attn_mask=seen[:, None, None, :])
    assert np.array_equal(y.numpy(), again.numpy())
    assert (weights.numpy().transpose(0, 3, 1, 2)[~seen] == 0).all()


def test_errors_say_which_shape_was_expected():
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(ValueError, match=r"query must be \(batch, length, embed_dim = 8\); got \(2, 3, 6\)"):
        attention(randn(2, 3, 6))
    with pytest.raises(ValueError, match=r"mask\[:, None, None, :\]"):
        attention(randn(2, 3, 8), attn_mask=np.ones((2, 3, 3), bool))
    with pytest.raises(ValueError, match="num_heads 3 must divide embed_dim 8"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ValueError, match="num_kv_heads 3 must divide"):
        nn.MultiheadAttention(8, 4, num_kv_heads=3)
    with pytest.raises(ValueError, match="differ in their last axis"):
        nn.DotProductAttention()(randn(1, 2, 3), randn(1, 2, 4), randn(1, 2, 4))
    with pytest.raises(ValueError, match=r"expected \(B, Q, D\)"):
        nn.DotProductAttention()(randn(2, 3), randn(2, 3), randn(2, 3))
    with pytest.raises(ValueError, match=r"mask\[:, None, :\]"):
        nn.DotProductAttention()(randn(1, 2, 3), randn(1, 2, 3), randn(1, 2, 3), np.ones((1, 2), bool))
