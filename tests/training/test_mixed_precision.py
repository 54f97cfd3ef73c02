"""float16 passes from float32 masters: small steps are not lost, the same loss is reached, the model is as before."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
import minillm
from minillm import functional as F
from minillm import nn, optim, tensor
from minillm.models import GPT
from minillm.training.grad_scaler import GradScaler
from minillm.training.mixed_precision import mixed_precision

rng = np.random.default_rng(0)
IDS = rng.integers(0, 9, (4, 17)).cumsum(1) % 11
X, Y = IDS[:, :-1], IDS[:, 1:]


def gpt(**settings):
    minillm.manual_seed(0)
    return GPT(**{"vocab_size": 11, "context": 16, "layers": 2, "heads": 2, "width": 32, **settings})


def gradients(model, precision, scale=1.0):
    model.zero_grad()
    with mixed_precision(model, precision):
        (model.loss(X, Y) * scale).backward()
    return {n: p.grad.numpy() / scale for n, p in model.named_parameters()}


def test_steps_below_a_weights_last_bit_add_up_in_the_masters():
    def trained(dtype):
        layer = nn.Linear(1, 1, bias=False).to(dtype)
        layer.weight.data[...] = 1
        optimizer = optim.SGD(layer.parameters(), lr=2.0**-12)
        for _ in range(16):
            optimizer.zero_grad()
            if dtype == np.float16:
                layer(tensor([[-1.0]], dtype=np.float16)).sum().backward()
            else:
                with mixed_precision(layer):
                    layer(tensor([[-1.0]], dtype=np.float16)).sum().backward()
            optimizer.step()
        return layer.weight.item()

    assert trained(np.float16) == 1.0  # what the masters are for
    assert trained(np.float32) == 1 + 16 * 2.0**-12


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "qk_norm": True, "softcap": 5.0},
        {"position": "alibi", "mlp": "relu2", "window": 8, "tie": False},
    ],
    ids=["gpt2", "llama", "alibi"],
)
def test_gradients_of_a_model_in_float16(settings):
    model = gpt(**settings)
    low, full = gradients(model, "float16", 2.0**10), gradients(model, "float32")
    for name, g in low.items():
        assert g.dtype == np.float32
        error = np.linalg.norm(g - full[name]) / np.linalg.norm(full[name])
        assert error < 0.03, name  # 2^-11 for each rounding, some tens of them in a row
    assert max(np.abs(low[n] - full[n]).max() for n in full) > 0


def test_everything_between_embedding_and_loss_is_float16():
    model, seen = gpt(), []
    plain = F.linear
    block = model.blocks[0]
    forward = block.forward
    block.forward = lambda x, *rest: (seen.append(x.dtype), forward(x, *rest))[1]
    with mixed_precision(model):
        assert model.token.weight.dtype == np.float16 and model.head_weight is model.token.weight
        assert plain(tensor(np.ones((1, 32)), dtype=np.float16), model.token.weight).dtype == np.float16
        assert model.loss(X, Y).dtype == np.float32
    assert seen == [np.dtype(np.float16)]


def test_the_loss_of_a_language_model_is_scaled_before_it_is_rounded():
    N, C = 512, 64
    x16 = (0.01 * rng.standard_normal((N, 8))).astype(np.float16)
    w16 = (0.001 * rng.standard_normal((C, 8))).astype(np.float16)
    targets = rng.integers(0, C, N)
    x, exact = tensor(x16, requires_grad=True), tensor(x16.astype(np.float64), requires_grad=True)
    F.linear_cross_entropy(exact, tensor(w16.astype(np.float64)), tensor(targets)).backward()
    assert np.abs(exact.grad.numpy()).max() < 2.0**-16 and np.abs(exact.grad.numpy()).min() < 2.0**-25
    GradScaler().scale(F.linear_cross_entropy(x, tensor(w16), tensor(targets))).backward()
    got = x.grad.numpy().astype(np.float64) / 2.0**16
    np.testing.assert_allclose(got, exact.grad.numpy(), rtol=2.0**-10, atol=2.0**-40)


def train(precision, steps=30, **scaler):
    model = gpt()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    scaler = GradScaler(**scaler, enabled=precision == "float16")
    curve, scales, taken = [], [], []
    for _ in range(steps):
        optimizer.zero_grad()
        with mixed_precision(model, precision):
            loss = model.loss(X, Y)
            scaler.scale(loss).backward()
        before = {n: p.numpy().copy() for n, p in model.named_parameters()}
        taken.append(scaler.step(optimizer, clip_norm=1.0))
        if not taken[-1]:
            assert all((p.numpy() == before[n]).all() for n, p in model.named_parameters())
        scaler.update()
        curve.append(loss.item())
        scales.append(scaler.get_scale())
    return np.array(curve), scales, taken


def test_an_overflow_is_skipped_and_training_reaches_the_loss_of_float32():
    full, _, _ = train("float32")
    low, scales, taken = train("float16", steps=40, init_scale=2.0**26, growth_interval=1000)
    skipped = taken.index(True)
    assert 3 <= skipped <= 12 and not any(taken[:skipped])
    assert scales[: skipped + 1] == [2.0 ** (26 - min(i + 1, skipped)) for i in range(skipped + 1)]
    reached = low[[i for i, t in enumerate(taken) if t]][: len(full)]
    n = len(reached)
    assert full[-1] < full[0] - 0.5
    apart = np.abs(reached - full[:n])
    assert 0 < apart[:10].max() < 2e-3 and apart.max() < 0.06  # rounding, which each step makes larger


@pytest.mark.skipif(not kernels.has_bf16(), reason="this CPU has no bfloat16 products")
def test_bfloat16_is_autocast():
    model = gpt()
    low, full = gradients(model, "bfloat16"), gradients(model, "float32")
    with minillm.autocast():
        model.zero_grad()
        model.loss(X, Y).backward()
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.grad.numpy(), low[name])
    assert any((low[n] != full[n]).any() for n in full)


def test_float32_is_as_without():
    model = gpt()
    a = gradients(model, np.float32)
    model.zero_grad()
    model.loss(X, Y).backward()
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.grad.numpy(), a[name])


def test_the_parameters_are_back_after_the_block_and_after_an_error():
    model = gpt()
    before = dict(model.named_parameters())
    with pytest.raises(KeyError), mixed_precision(model):
        assert not list(model.parameters())
        raise KeyError
    after = dict(model.named_parameters())
    assert list(after) == list(before) and all(after[n] is before[n] for n in before)


def test_buffers_are_copied_too():
    class Shift(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter([1.0])
            self.register_buffer("by", np.ones(1, np.float32))
            self.register_buffer("places", np.arange(3))

        def forward(self, x):
            return x * self.weight + self.by

    model = Shift()
    with mixed_precision(model):
        assert model(tensor([1.0], dtype=np.float16)).dtype == np.float16
        assert model.places.dtype == np.int64
    assert model.by.dtype == np.float32


def test_with_recomputed_blocks_the_gradients_are_the_same_bits():
    model = gpt(dropout=0.1)
    minillm.manual_seed(5)
    plain = gradients(model, "float16", 256.0)
    model.checkpoint_blocks = True
    minillm.manual_seed(5)
    again = gradients(model, "float16", 256.0)
    for name in plain:
        np.testing.assert_array_equal(plain[name], again[name])


def test_errors():
    model = gpt()

    def enter(model, dtype="float16"):
        with mixed_precision(model, dtype):
            pass

    with pytest.raises(ValueError, match="none of float32, bfloat16, float16. Did you mean 'float16'"):
        enter(model, "flaot16")
    with mixed_precision(model), pytest.raises(ValueError, match="block inside another"):
        enter(model)
    with pytest.raises(ValueError, match="float64; the weights that are trained must be float32"):
        enter(gpt().double())
