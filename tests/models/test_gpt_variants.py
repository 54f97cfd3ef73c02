"""Every variant of the decoder: its cache, padding, documents, window and experts, to the bit or nearly."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm import functional as F
from minillm.models import GPT
from minillm.models.presets import PRESETS, preset
from minillm.nn.plan import alibi_slopes, document_positions
from minillm.ops.rotary import rotary_tables

VARIANTS = {
    "gpt2": {},
    "rotary": {"position": "rotary"},
    "alibi": {"position": "alibi"},
    "no positions": {"position": "none"},
    "llama": {
        "position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "tie": False, "kv_heads": 2,
    },
    "window": {"window": 3},
    "modern": {"position": "rotary", "window": 5, "qk_norm": True, "softcap": 5.0, "mlp": "relu2", "norm": "rms"},
    "alibi, one kv head": {"position": "alibi", "kv_heads": 1, "window": 4},
    "wide heads": {"head_dim": 6, "position": "rotary", "mlp": "gelu_tanh"},
    "llama 3 angles": {"position": "rotary", "rotary_base": 500.0, "rotary_scaling": (8.0, 1.0, 4.0, 8)},
    "experts": {"experts": 4, "capacity_factor": 1.0},
}  # fmt: skip
every = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
rng = np.random.default_rng(0)
IDS = rng.integers(0, 11, (3, 12))


def made(settings: dict, dtype: str = "float64", **more: object) -> GPT:
    minillm.manual_seed(0)
    model = GPT(11, **{"context": 12, "layers": 2, "heads": 4, "width": 16, **settings, **more}).eval()
    for p in model.parameters():  # far from the start, where all branches matter
        p.data[...] += 0.3 * np.random.default_rng(p.numel()).normal(size=p.shape).astype(p.dtype)
    return model.to(dtype)


@every
@pytest.mark.parametrize("cuts", [[12], [5, 1, 6], [1] * 12])
def test_the_cache_gives_the_logits_of_the_whole(settings, cuts):
    model = made(settings)
    whole, cache, start = model(IDS).numpy(), model.new_cache(3), 0
    for n in cuts:
        part = model(IDS[:, start : start + n], cache).numpy()
        np.testing.assert_allclose(part, whole[:, start : start + n], rtol=1e-10, atol=1e-12)
        start += n
        assert cache.length == start


@every
def test_a_later_token_changes_nothing_before_it(settings):
    model = made(settings, "float32")
    changed = IDS.copy()
    changed[:, 7] = (changed[:, 7] + 1) % 11
    a, b = model(IDS).numpy(), model(changed).numpy()
    np.testing.assert_array_equal(a[:, :7], b[:, :7])
    assert (a[:, 7] != b[:, 7]).any()


@every
def test_padding_on_the_left_is_not_seen(settings):
    model = made(settings)
    lengths = [3, 8, 6]
    padded = np.zeros((3, 8), np.int64)
    for row, n in enumerate(lengths):
        padded[row, 8 - n :] = IDS[row, :n]
    cache = model.new_cache(3, start=[8 - n for n in lengths])
    first, second = model(padded, cache).numpy(), model(IDS[:, 10:11], cache).numpy()
    for row, n in enumerate(lengths):
        alone = model(np.concatenate([IDS[row, :n], IDS[row, 10:11]])[None]).numpy()[0]
        np.testing.assert_allclose(first[row, 8 - n :], alone[:n], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(second[row, 0], alone[n], rtol=1e-9, atol=1e-11)


@every
def test_documents_do_not_see_each_other(settings):
    model = made(settings)
    documents = np.array([[4] * 5 + [9] * 7] * 3)
    packed = model(IDS, documents=documents).numpy()
    np.testing.assert_allclose(packed[:, :5], model(IDS[:, :5]).numpy(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(packed[:, 5:], model(IDS[:, 5:]).numpy(), rtol=1e-9, atol=1e-11)
    changed = IDS.copy()
    changed[:, :5] = 0
    np.testing.assert_array_equal(model(changed, documents=documents).numpy()[:, 5:], packed[:, 5:])  # no leak at all


@every
def test_checkpointed_blocks_give_the_same_gradients(settings):
    gradients = []
    for again in (False, True):
        model = made(settings, "float32", dropout=0.2, stochastic_depth=0.3).train()
        model.checkpoint_blocks = again
        minillm.manual_seed(5)
        if model.config.experts:
            model.eval()  # the balance loss is not part of what is computed again
        model.loss(IDS[:, :-1], IDS[:, 1:]).backward()
        gradients.append([0 if p.grad is None else p.grad.numpy() for p in model.parameters()])  # an expert may rest
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)


@every
def test_the_loss_is_the_cross_entropy_of_the_logits(settings):
    model = made(settings)
    logits, targets = model(IDS), np.where(IDS == 3, -100, IDS)
    want = F.cross_entropy(F.reshape(logits, (-1, 11)), targets.reshape(-1), label_smoothing=0.1).item()
    assert model.loss(IDS, targets, label_smoothing=0.1).item() == pytest.approx(want, rel=1e-12)
    assert model.loss(IDS, targets, z_loss=0.5).item() > model.loss(IDS, targets).item()


@every
def test_attention_maps_are_those_of_the_pass(settings):
    model = made(settings)
    maps = model.attention_maps(IDS[0])
    assert maps.shape == (2, 4, 12, 12) and not np.triu(maps, 1).any()
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-6)
    if settings.get("window"):
        assert not np.tril(maps, -settings["window"]).any()


def test_a_window_forgets():
    model = made({"window": 3, "position": "none"}, layers=1)
    a, changed = model(IDS).numpy(), IDS.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    b = model(changed).numpy()
    np.testing.assert_array_equal(a[:, 7:], b[:, 7:])
    assert (a[:, 6] != b[:, 6]).any()


def test_rotary_sees_distances_only():
    cos, sin = rotary_tables(9, 6, dtype=np.float64)
    q, k = rng.normal(size=(2, 1, 1, 1, 6))
    turned = [np.sum(F.rotary(q, cos[i : i + 1], sin[i : i + 1]) * F.rotary(k, cos[j : j + 1], sin[j : j + 1]))
              for i, j in ((2, 0), (5, 3), (8, 6), (3, 0))]  # fmt: skip
    np.testing.assert_allclose(turned[:3], turned[0], rtol=1e-12)
    assert abs(turned[3] - turned[0]) > 1e-3


def test_alibi_slopes_of_the_paper():
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(alibi_slopes(6), [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])


def test_positions_restart_with_each_document():
    assert document_positions(np.array([[1, 1, 0, 1, 1, 1]])).tolist() == [[0, 1, 0, 0, 1, 2]]


def test_logits_stay_below_the_cap():
    model = made({"softcap": 2.0})
    for p in model.parameters():
        p.data[...] *= 20
    logits = model(IDS).numpy()
    assert 1.9 < abs(logits).max() <= 2.0


def test_zero_init_begins_with_the_identity():
    minillm.manual_seed(0)
    model = GPT(11, context=12, layers=3, heads=2, width=8, zero_init=True, position="none")
    np.testing.assert_array_equal(model.hidden(IDS).numpy(), model.norm(model.token(IDS)).numpy())


def test_flops_count_the_products():
    c = made({}).config
    model = made({})
    products = c.layers * 12 * c.width**2 + 11 * c.width
    keys = (c.context + 1) / 2
    assert model.flops_per_token() == 6 * products + 12 * c.layers * c.width * keys
    assert made({"experts": 4}).flops_per_token() > model.flops_per_token()
    assert made({"window": 2}).flops_per_token() < model.flops_per_token()


def test_presets_are_models():
    sizes = {"nanogpt-cpu": 0.80e6, "nanogpt-baby": 10.75e6}
    for name in PRESETS:
        if name != "gpt2":  # 124 million numbers, drawn in seconds
            model = GPT.preset(name, dropout=0.0)
            assert model(np.zeros((1, 4), np.int64)).shape == (1, 4, model.config.vocab_size)
            if name in sizes:
                assert model.num_parameters() == pytest.approx(sizes[name], rel=0.01)
    assert 12 * preset("gpt2")["layers"] * preset("gpt2")["width"] ** 2 + 50257 * 768 + 1024 * 768 == 124318464
    with pytest.raises(ValueError, match="nanogpt-cpu"):
        GPT.preset("nanogpt_cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position": "relative"}, "position"), ({"norm": "batch"}, "norm"), ({"mlp": "selu"}, "mlp"),
        ({"kv_heads": 3}, "multiple of kv_heads"), ({"head_dim": 5, "position": "rotary"}, "even"),
        ({"window": 0}, "window"), ({"softcap": -1.0}, "softcap"), ({"experts": 2, "experts_per_token": 3}, "top_k"),
        ({"rotary_scaling": (1, 2)}, "rotary_scaling"), ({"width": 15}, "multiple of heads"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        GPT(11, **{"context": 8, "layers": 1, "heads": 4, "width": 16, **settings})


# --------------------------------------------------------------------------------------------- the cache


def test_a_full_cache_says_so():
    model = made({})
    cache = model.new_cache(3)
    model(IDS, cache)
    with pytest.raises(ValueError, match="do not fit"):
        model(IDS[:, :1], cache)
    with pytest.raises(ValueError, match="learned positions"):
        model.new_cache(1, 13)
    with pytest.raises(ValueError, match="made for 3"):
        model(IDS[:1], cache)
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(13)


def test_truncate_and_reorder():
    model = made({"position": "rotary"})
    cache = model.new_cache(3)
    model(IDS[:, :8], cache)
    cache.truncate(4)
    cache.reorder([2, 2, 0, 1])
    got = model(IDS[[0, 1, 2, 0], 4:7], cache).numpy()
    for row, (source, own) in enumerate([(2, 0), (2, 1), (0, 2), (1, 0)]):
        alone = model(np.concatenate([IDS[source, :4], IDS[own, 4:7]])[None]).numpy()[0, 4:]
        np.testing.assert_allclose(got[row], alone, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="indices of its 4 rows"):
        cache.reorder([4])


@pytest.mark.parametrize(("dtype", "heads"), [("float16", 4), ("float32", 1)])
def test_the_cache_where_the_fused_kernel_does_not_go(dtype, heads):
    """float16, and heads wider than the kernel's 256: attention is then its formula, with the cache too."""
    model = made({"position": "rotary", "qk_norm": True}, dtype, heads=heads, width=64 if heads > 1 else 264)
    whole, cache = model(IDS).numpy(), model.new_cache(3)
    parts = [model(IDS[:, :5], cache).numpy(), model(IDS[:, 5:], cache).numpy()]
    tolerance = 0.05 if dtype == "float16" else 1e-4  # logits of size 10: three digits of float16
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=tolerance)


def test_beyond_the_context_where_positions_allow_it():
    model = made({"position": "alibi"})
    cache = model.new_cache(1, 40)
    for _ in range(3):
        model(IDS[:1], cache)
    assert cache.length == 36


# ------------------------------------------------------------------------------------------------ experts


def test_experts_weigh_what_the_router_chose():
    from minillm.nn import Linear
    from minillm.nn.moe import MixtureOfExperts

    minillm.manual_seed(1)
    layer = MixtureOfExperts(5, 4, 2, lambda: Linear(5, 5)).double().eval()
    x = rng.normal(size=(7, 5))
    scores = x @ layer.router.weight.numpy().T
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    outputs = np.stack([expert(minillm.tensor(x)).numpy() for expert in layer.experts])  # (E, N, 5)
    for n in range(7):
        best = np.argsort(-p[n])[:2]
        want = sum(p[n, e] / p[n, best].sum() * outputs[e, n] for e in best)
        np.testing.assert_allclose(layer(minillm.tensor(x)).numpy()[n], want, rtol=1e-12)


def test_capacity_drops_the_last_comers_while_training():
    from minillm.nn import Linear
    from minillm.nn.moe import MixtureOfExperts

    minillm.manual_seed(1)
    layer = MixtureOfExperts(5, 2, 1, lambda: Linear(5, 5), capacity_factor=1.0)
    layer.router.weight.data[...] = [[1] * 5, [-1] * 5]  # all to the first
    x = minillm.tensor(abs(rng.normal(size=(8, 5))).astype(np.float32))
    y = layer.train()(x).numpy()
    assert (y[:4] != 0).all() and not y[4:].any()
    assert (layer.eval()(x).numpy() != 0).all()


def test_the_balance_loss_is_smallest_where_all_are_chosen_alike():
    from minillm.nn import Linear
    from minillm.nn.moe import MixtureOfExperts

    minillm.manual_seed(1)
    layer = MixtureOfExperts(2, 2, 1, lambda: Linear(2, 2))
    layer.router.weight.data[...] = [[5, 0], [0, 5]]
    layer(minillm.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert layer.balance.item() == pytest.approx(1.0)
    layer(minillm.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert layer.balance.item() > 1.9


def test_the_balance_loss_spreads_the_tokens():
    from minillm.nn import Linear
    from minillm.nn.moe import MixtureOfExperts

    minillm.manual_seed(1)
    layer = MixtureOfExperts(5, 4, 1, lambda: Linear(5, 5))
    layer.router.weight.data[0] += 0.5  # one is liked from the start
    x = minillm.tensor(rng.uniform(0.5, 1.5, (64, 5)).astype(np.float32))
    optimizer, seen = minillm.optim.Adam(layer.router.parameters(), lr=0.05), []
    for _ in range(100):
        optimizer.zero_grad()
        layer(x)
        seen.append(layer.balance.item())
        layer.balance.backward()
        optimizer.step()
    assert seen[0] > 1.3 and seen[-1] == pytest.approx(1.0, abs=0.1)


def test_the_model_adds_the_balance_loss_while_training():
    model = made({"experts": 4, "balance_loss": 0.5})
    plain = model.loss(IDS[:, :-1], IDS[:, 1:]).item()
    model.train()
    total = model.loss(IDS[:, :-1], IDS[:, 1:]).item()
    assert total == pytest.approx(plain + sum(0.5 / 2 * b.mlp.balance.item() for b in model.blocks), rel=1e-12)
    model.checkpoint_blocks = True
    with pytest.raises(ValueError, match="checkpoint_blocks"):
        model.loss(IDS[:, :-1], IDS[:, 1:])


def test_an_untrained_model_of_any_variant_guesses():
    for settings in VARIANTS.values():
        minillm.manual_seed(0)
        model = GPT(11, **{"context": 12, "layers": 2, "heads": 4, "width": 16, **settings}).eval()
        assert model.loss(IDS[:, :-1], IDS[:, 1:]).item() == pytest.approx(math.log(11), abs=0.1)
