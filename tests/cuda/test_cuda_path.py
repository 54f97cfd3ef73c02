"""Training and generation as they go on a GPU, where every kernel exists: the CPU's numbers, and hardly a wait."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_stand_in import hidden, kernels_on_strict, watched

import minillm
from minillm import functional as F
from minillm import models, optim
from minillm.generation import Sampling, generate
from minillm.models import GPT
from minillm.training import EMA, GradScaler, mixed_precision


@pytest.fixture(autouse=True)
def made(monkeypatch):
    return kernels_on_strict(monkeypatch)


GPTS = {
    "GPT-2": {},
    "Llama": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "tie": False, "bias": False},
    "all": {"qk_norm": True, "softcap": 10.0, "mlp": "relu2", "window": 3, "dropout": 0.2, "position": "alibi"},
    "experts": {"experts": 3, "stochastic_depth": 0.3},
}


def optimizers(model, kind):
    if kind == "adamw":
        return optim.AdamW(optim.decay_groups(model, 0.1), lr=1e-2)
    matrices, others = optim.muon_groups(model)
    return optim.Optimizers([optim.Muon(matrices, bf16=False), optim.AdamW(others, lr=1e-2)])


def gpt(device, kind="adamw", settings=None):
    minillm.manual_seed(0)
    model = GPT(11, context=8, layers=2, heads=2, width=8, **(settings or {})).to(device)
    return model, optimizers(model, kind), minillm.randint(0, 11, (3, 9), device=device)


def train(device, kind, settings, steps=3):
    model, optimizer, ids = gpt(device, kind, settings)
    ema, losses = EMA(model, 0.9), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step(clip_norm=0.5)
        ema.update()
        losses.append(loss.item())
    return losses, model.state_dict(), ema.state_dict()["averages"]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", GPTS)
def test_language_models_train_as_on_the_cpu(name, kind, made):
    there, here = train("strict", kind, GPTS[name]), train("cpu", kind, GPTS[name])
    np.testing.assert_allclose(there[0], here[0], rtol=1e-4)
    for a, b in zip(there[1:], here[1:]):
        for key in b:
            np.testing.assert_allclose(a[key], b[key], rtol=2e-3, atol=2e-4, err_msg=key)
    assert {"linear", "attention", "linear_cross_entropy", "embedding", "adamw", "global_norm"} <= set(made)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "all"])
def test_a_step_waits_once_for_the_norm_that_clips(name, kind):
    model, optimizer, ids = gpt("strict", kind, GPTS[name])

    def step(clip_norm):
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step(clip_norm=clip_norm)

    step(1.0)
    with watched() as syncs:
        step(None)
    assert hidden(syncs) == {}
    with watched() as syncs:
        step(1.0)
    assert sum(hidden(syncs).values()) == 1 and "float at optim" in next(iter(hidden(syncs)))


def test_clipping_apart_and_averaging_wait_for_nothing():
    model, optimizer, ids = gpt("strict")
    ema = EMA(model, 0.9)
    optimizer.zero_grad()
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    with watched() as syncs:
        norm = optim.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        ema.update()
    assert hidden(syncs) == {}
    grads = np.concatenate([p.grad.numpy().reshape(-1) for p in model.parameters()])
    assert float(norm) > 0.1 and np.linalg.norm(grads) == pytest.approx(0.1, rel=1e-4)


def test_parameters_of_a_device_lie_side_by_side(monkeypatch):
    """One launch of the optimizer for each group."""
    import kernels

    model, optimizer, ids = gpt("strict")
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    calls = []
    monkeypatch.setattr(kernels, "adamw_step", lambda p, *a, **k: calls.append(p.size))
    optimizer.step()
    assert len(calls) == len(optimizer.param_groups) == 2
    assert sum(calls) >= model.num_parameters()


def test_ignored_targets_and_weights_of_the_loss():
    def run(device):
        minillm.manual_seed(1)
        x, w = minillm.randn(6, 4, device=device), minillm.randn(5, 4, device=device)
        x.requires_grad = w.requires_grad = True
        y = minillm.tensor([1, -100, 0, 4, -100, 2]).to(device)
        got = []
        for loss in (
            F.linear_cross_entropy(x, w, y, label_smoothing=0.1, softcap=3.0, z_loss=0.1) * 2,
            F.linear_cross_entropy(x, w, y, reduction="sum"),
            F.linear_cross_entropy(x, w, minillm.full((6,), -100, dtype=np.int64, device=device)),  # nothing counts
            F.cross_entropy(F.linear(x, w), y, label_smoothing=0.1),
        ):
            grads = minillm.gradients(loss, [x, w], allow_unused=True)
            got += [loss.numpy(), *[g.numpy() for g in grads]]
        second = minillm.gradients(F.linear_cross_entropy(x, w, y), [x], create_graph=True)[0]
        return [*got, minillm.gradients((second**2).sum(), [w])[0].numpy()]

    for a, b in zip(run("strict"), run("cpu")):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["VAE", "attention", "autoencoder"])
def test_the_other_models_wait_for_nothing(name):
    minillm.manual_seed(0)
    if name == "VAE":
        model, batch = models.VAE(6, (5,), 2), (minillm.rand(5, 6, device="strict"),)
    elif name == "attention":
        model = models.AttentionModel(2, 4, 3, width=8, heads=2, dropout=0.1)
        batch = minillm.rand(5, 4, 2, device="strict"), minillm.randint(0, 3, (5,), device="strict")
    else:
        model, batch = models.Autoencoder(6, 4, 3), (minillm.rand(5, 6, device="strict"),)
    optimizer = optim.Adam(model.to("strict").parameters())
    with watched() as syncs:
        for _ in range(2):
            optimizer.zero_grad()
            model.loss(*batch).backward()
            optimizer.step()
    assert hidden(syncs) == {}


@pytest.mark.parametrize("name", GPTS)
@pytest.mark.parametrize(
    "settings",
    [Sampling(temperature=0.0), Sampling(0.8, top_k=4, top_p=0.9, min_p=0.01, repetition_penalty=1.2)],
    ids=["greedy", "sampled"],
)
def test_generation_with_a_cache(name, settings):
    def run(device):
        model = gpt(device, settings=GPTS[name])[0].eval()
        return generate(model, [[1, 2, 3], [4], [5, 6]], settings, max_new_tokens=12, stop=[7], seed=3)

    for a, b in zip(run("strict"), run("cpu")):
        assert a.tolist() == b.tolist()


def test_generation_waits_once_a_token():
    model = gpt("strict")[0].eval()
    with watched() as syncs:
        model.generate([1, 2], 5, temperature=0.7)
    assert sum(hidden(syncs).values()) == 5


def test_float16_with_a_scaler():
    def run(device):
        model, optimizer, ids = gpt(device)
        scaler, losses = GradScaler(init_scale=2.0**10), []
        for _ in range(3):
            optimizer.zero_grad()
            with mixed_precision(model, "float16"):
                loss = model.loss(ids[:, :-1], ids[:, 1:])
                scaler.scale(loss).backward()
            scaler.step(optimizer, clip_norm=1.0)
            scaler.update()
            losses.append(loss.item())
        return losses

    np.testing.assert_allclose(run("strict"), run("cpu"), rtol=2e-2)


def test_the_scaler_asks_once():
    model, optimizer, ids = gpt("strict")
    scaler = GradScaler(init_scale=8.0)
    scaler.scale(model.loss(ids[:, :-1], ids[:, 1:])).backward()
    with watched() as syncs:
        scaler.unscale_(optimizer)
    assert sum(hidden(syncs).values()) == 1


def test_accumulation_waits_after_all_parts():
    from minillm.training import accumulate

    model, _, ids = gpt("strict")
    parts, log = [ids[:1], ids[1:2], ids[2:]], []

    def loss(part):
        log.append("part")
        return model.loss(part[:, :-1], part[:, 1:])

    with watched() as syncs:
        accumulate(loss, parts, [1, 1, 1])
    assert sum(hidden(syncs).values()) == 3 and len(log) == 3


# ------------------------------------------------------------------------------------- one seed, everywhere


def test_one_seed_gives_the_same_weights_masks_and_samples():
    def run(device):
        minillm.manual_seed(5)
        model = GPT(11, context=8, layers=1, heads=2, width=8, dropout=0.5, stochastic_depth=0.5).to(device)
        vae = models.VAE(6, (5,), 2).to(device)
        ids = minillm.randint(0, 11, (2, 8), device=device)
        dropped = F.dropout(minillm.ones(64, device=device), 0.3) != 0
        attention = F.scaled_dot_product_attention(
            *[minillm.ones(1, 1, 9, 9, device=device)] * 2, minillm.eye(9, device=device)[None, None], dropout_p=0.5
        )
        exact = [dropped, attention != 0, ids, *model.parameters(), *vae.parameters()]
        close = [model(ids), vae.sample(3), vae(minillm.rand(4, 6, device=device))[0], minillm.randn(33, device=device)]
        return [t.numpy() for t in exact], [t.numpy() for t in close]

    (exact, close), (exact_here, close_here) = run("strict"), run("cpu")
    for a, b in zip(exact, exact_here, strict=True):
        assert a.tobytes() == b.tobytes()
    for a, b in zip(close, close_here, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_nothing_is_random_but_by_counters():
    """No generator but Philox's decides what a model or a training does."""
    import re
    from pathlib import Path

    package = Path(minillm.__file__).parent
    allowed = {"recipes/base.py", "data/digits.py", "data/loader.py"}  # how data sets are cut: on the CPU, fixed seeds
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if name not in allowed and not name.startswith("testing/"):
            code = "".join(line for line in path.read_text().splitlines(True) if ">>>" not in line)
            assert not re.search(r"np\.random|xp\.random|cupy\.random|default_rng", code), name
