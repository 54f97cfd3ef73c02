"""The language model: causality to the bit, the tied head, its initial weights, its loss, and what it writes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm import Generator
from minillm.models import GPT

rng = np.random.default_rng(0)


def small(**settings) -> GPT:
    minillm.manual_seed(0)
    return GPT(11, **{"context": 8, "layers": 2, "heads": 2, "width": 16, **settings})


ids = rng.integers(0, 11, (3, 8))


def test_shapes_and_dtype():
    model = small()
    assert model(ids).shape == (3, 8, 11) and model(ids).dtype == np.float32
    assert model(ids[:, :1]).shape == (3, 1, 11)
    assert model.hidden(ids).shape == (3, 8, 16)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_a_later_token_leaves_earlier_logits_the_same_bits(impl):
    import kernels

    model = small().eval()
    with kernels.use(impl):
        before = model(ids).numpy()
        for t in range(1, 8):
            changed = ids.copy()
            changed[:, t] = (changed[:, t] + 1) % 11
            after = model(changed).numpy()
            np.testing.assert_array_equal(after[:, :t], before[:, :t])
            assert not np.array_equal(after[:, t], before[:, t])


def test_the_head_is_the_embedding():
    model = small()
    names = [n for n, _ in model.named_parameters()]
    assert names.count("token.weight") == 1 and not any("head" in n and "attention" not in n for n in names)
    np.testing.assert_allclose(
        model(ids).numpy(), model.hidden(ids).numpy() @ model.token.weight.numpy().T, rtol=1e-4, atol=1e-6
    )
    per_layer = 12 * 16 * 16 + 13 * 16
    assert model.num_parameters() == 11 * 16 + 8 * 16 + 2 * per_layer + 2 * 16
    model.loss(ids, ids).backward()
    unused = np.setdiff1d(np.arange(11), ids)
    assert model.token.weight.grad.numpy()[unused].any() or not len(unused)  # reached through the head


def test_without_biases():
    model = small(bias=False)
    assert not any(n.endswith("bias") for n, _ in model.named_parameters())
    assert model(ids).shape == (3, 8, 11)


def test_initial_weights_follow_the_table():
    minillm.manual_seed(0)
    model = GPT(300, context=64, layers=8, heads=4, width=128)
    for name, p in model.named_parameters():
        values = p.numpy()
        if name.endswith(("out_proj.weight", "mlp.2.weight")):
            assert values.std() == pytest.approx(0.02 / math.sqrt(2 * 8), rel=0.05), name
        elif p.ndim >= 2:
            assert values.std() == pytest.approx(0.02, rel=0.05), name
            assert abs(values.mean()) < 1e-3
        elif name.endswith("bias"):
            assert not values.any(), name
        else:
            assert (values == 1).all(), name


def test_an_untrained_model_guesses():
    assert small().loss(ids, rng.integers(0, 11, (3, 8))).item() == pytest.approx(math.log(11), abs=0.05)


def test_loss_is_the_mean_cross_entropy_and_ignores_minus_100():
    model = small().double()
    targets = rng.integers(0, 11, (3, 8))
    logits = model(ids).numpy()
    each = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]  # (3, 8)
    assert model.loss(ids, targets).item() == pytest.approx(each.mean(), rel=1e-12)
    masked = targets.copy()
    masked[:, :3] = -100
    assert model.loss(ids, masked).item() == pytest.approx(each[:, 3:].mean(), rel=1e-12)


def test_attention_maps():
    model = small(dropout=0.5)
    maps = model.attention_maps(ids[0, :6])
    assert maps.shape == (2, 2, 6, 6)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert not np.triu(maps, 1).any()
    np.testing.assert_array_equal(maps, model.attention_maps(ids[0, :6]))  # no dropout
    assert model.training
    with pytest.raises(ValueError, match="1 to 8 tokens"):
        model.attention_maps(np.zeros(9, np.int64))


@pytest.mark.parametrize("shape", [(8,), (1, 9), (1, 0), (1, 2, 3)])
def test_ids_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match="expected ids of shape"):
        small()(np.zeros(shape, np.int64))


def test_ids_outside_the_vocabulary():
    with pytest.raises(IndexError):
        small()(np.full((1, 3), 11))


# ------------------------------------------------------------------------------------------------- generate


def test_generate_goes_on_from_the_prompt():
    out = small().generate([1, 2, 3], 5)
    assert out.shape == (8,) and out.dtype == np.int64
    np.testing.assert_array_equal(out[:3], [1, 2, 3])
    assert ((out >= 0) & (out < 11)).all()
    np.testing.assert_array_equal(small().generate([1, 2], 0), [1, 2])


def test_temperature_0_takes_the_likeliest():
    model = small(dropout=0.5)
    out = model.generate([1, 2, 3], 5, temperature=0)
    assert model.training
    model.eval()
    for t in range(3, 8):
        assert out[t] == model(out[None, :t]).numpy()[0, -1].argmax()
    np.testing.assert_array_equal(out, model.generate([1, 2, 3], 5, temperature=0.0, generator=Generator(5)))
    np.testing.assert_array_equal(out, model.generate([1, 2, 3], 5, temperature=1e-300))  # the limit
    np.testing.assert_array_equal(out, model.generate([1, 2, 3], 5, top_k=1))


def test_seeds():
    model = small()
    a, b, c = (model.generate([1], 30, generator=Generator(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    minillm.manual_seed(4)
    first = model.generate([1], 30)
    assert not np.array_equal(first, model.generate([1], 30))
    minillm.manual_seed(4)
    np.testing.assert_array_equal(first, model.generate([1], 30))


def test_samples_follow_the_probabilities_and_top_k():
    model = small()
    model.token.weight.data *= 30  # away from uniform
    logits = model(np.array([[1]])).numpy()[0, -1].astype(np.float64)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    generator = Generator(0)
    draws = np.array([model.generate([1], 1, generator=generator)[-1] for _ in range(1500)])
    np.testing.assert_allclose(np.bincount(draws, minlength=11) / 1500, p, atol=0.05)
    best = set(np.argsort(-p)[:3])
    draws = {int(model.generate([1], 1, temperature=50.0, top_k=3, generator=generator)[-1]) for _ in range(100)}
    assert draws == {int(b) for b in best}
    assert model.generate([1], 1, top_k=100).shape == (2,)  # more than there are: all


class Fixed:
    """A generator whose only number is known."""

    def __init__(self, u):
        self.u = u

    def uniform(self):
        return np.float32(self.u)


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-24])
def test_the_ends_of_the_unit_interval_stay_within_top_k(u):
    model = small()
    model.token.weight.data *= 30
    best = np.argsort(-model(np.array([[1]])).numpy()[0, -1])[:2]
    assert model.generate([1], 1, top_k=2, generator=Fixed(u))[-1] in best


def test_equal_logits_do_not_widen_top_k():
    model = small()
    model.token.weight.data[...] = 0  # all tokens are equally likely
    generator = Generator(0)
    assert len({int(model.generate([1], 1, top_k=2, generator=generator)[-1]) for _ in range(100)}) == 2


def test_a_prompt_longer_than_the_context():
    model = small()
    long = rng.integers(0, 11, 20)
    out = model.generate(long, 4, temperature=0)
    np.testing.assert_array_equal(out[:20], long)
    np.testing.assert_array_equal(out[20:], model.generate(long[-8:], 4, temperature=0)[8:])


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ([], {}, "prompt is empty"), ([1], {"temperature": -1}, "temperature"),
        ([1], {"temperature": math.nan}, "temperature"),
        ([1], {"top_k": 0}, "top_k"), ([1], {"max_new_tokens": -1}, "max_new_tokens"), ([0.5], {}, "integer|prompt"),
        ([11], {}, "11"),
    ],
)  # fmt: skip
def test_what_generate_refuses(prompt, settings, message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        small().generate(prompt, **{"max_new_tokens": 3, **settings})
