"""16 bits on a GPU: whole models in bfloat16 and float16 from float32 masters, and autocast's products."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_stand_in import hidden, kernels_on_strict, watched

import minillm
from minillm import functional as F
from minillm import optim
from minillm.models import GPT
from minillm.training import GradScaler, mixed_precision

GPTS = {
    "GPT-2": {},
    "Llama": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "softcap": 5.0, "tie": False},
    "dropout": {"dropout": 0.2, "qk_norm": True, "position": "alibi", "window": 4},
}


@pytest.fixture(autouse=True)
def made(monkeypatch):
    return kernels_on_strict(monkeypatch)


def train(device, precision, settings, steps=4):
    minillm.manual_seed(0)
    model = GPT(11, context=8, layers=2, heads=2, width=16, **settings).to(device)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    scaler = GradScaler(init_scale=2.0**10, enabled=precision == "float16")
    ids, losses = minillm.tensor(np.random.default_rng(0).integers(0, 11, (4, 9))).to(device), []
    for _ in range(steps):
        optimizer.zero_grad()
        with mixed_precision(model, precision):
            loss = model.loss(ids[:, :-1], ids[:, 1:])
            scaler.scale(loss).backward()
        assert loss.dtype == np.float32
        assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {np.dtype("f4")}
        scaler.step(optimizer, clip_norm=1.0)
        scaler.update()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", GPTS)
def test_a_model_learns_as_in_float32(name, precision):
    full, low = train("cpu", "float32", GPTS[name]), train("strict", precision, GPTS[name])
    assert low[-1] < low[0] - 0.05
    error = abs(np.array(low) - full)
    assert 0 < error.max() < (0.05 if precision == "bfloat16" else 0.02)


def watching(function, name, seen):
    def call(*arrays, **settings):
        seen[name] = {a.dtype.name for a in arrays if hasattr(a, "dtype") and a.dtype.kind in "fV"}
        return function(*arrays, **settings)

    return call


def test_activations_and_kernels_are_in_16_bits(made, monkeypatch):
    import kernels

    seen = {}
    names = "linear_forward", "attention_forward", "layernorm_forward", "linear_cross_entropy", "embedding_forward"
    for name in names:
        monkeypatch.setattr(kernels, name, watching(getattr(kernels, name), name, seen))
    train("strict", "bfloat16", {}, steps=1)
    assert len(seen) == 5 and all(dtypes == {"bfloat16"} for dtypes in seen.values())


def test_a_step_in_bfloat16_waits_for_nothing():
    minillm.manual_seed(0)
    model = GPT(11, context=8, layers=1, heads=2, width=8).to("strict")
    optimizer = optim.AdamW(model.parameters())
    ids = minillm.randint(0, 11, (3, 9), device="strict")
    with watched() as syncs, mixed_precision(model, "bfloat16"):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    assert hidden(syncs) == {}


# -------------------------------------------------------------------------------------------------- autocast


def gradients(function, arrays, enabled, monkeypatch):
    xs = [minillm.tensor(x).to("strict").requires_grad_() for x in arrays]
    monkeypatch.setattr("minillm.precision.in_use", lambda name: name == "cuda")  # also on a CPU without bfloat16
    with minillm.autocast(enabled=enabled):
        out = function(*xs)
    (out * out).sum().backward()  # outside: the rule remembers
    assert out.dtype == np.float32
    return [out.numpy(), *[x.grad.numpy() for x in xs]]


@pytest.mark.parametrize("name", ["linear", "attention", "self_attention"])
def test_autocast_rounds_the_factors_only(name, monkeypatch):
    rng = np.random.default_rng(0)
    if name == "linear":
        arrays = [rng.normal(size=s).astype("f4") for s in ((5, 12), (7, 12), (7,))]
        function = lambda x, w, b: F.linear(x, w, b, activation="gelu")  # noqa: E731
    elif name == "attention":
        arrays = [rng.normal(size=(2, 2, 6, 4)).astype("f4") for _ in range(3)]
        function = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
    else:
        arrays = [rng.normal(size=(2, 6, 24)).astype("f4")]
        mask = rng.normal(size=(6, 6)).astype("f4")
        function = lambda x: F.self_attention(x, 2, attn_mask=minillm.tensor(mask).to("strict"))  # noqa: E731
    low, full = (gradients(function, arrays, enabled, monkeypatch) for enabled in (True, False))
    for a, b in zip(low, full):
        assert a.dtype == np.float32
        if a.shape == b.shape == (7,):
            continue  # the bias's gradient is a sum, not a product
        assert 1e-4 < np.linalg.norm(a - b) / np.linalg.norm(b) < 2e-2


def test_autocast_without_bfloat16_anywhere(monkeypatch):
    import kernels

    monkeypatch.setattr(kernels, "has_bf16", lambda: False)
    with pytest.raises(RuntimeError, match="AVX512_BF16"), minillm.autocast():
        pass
