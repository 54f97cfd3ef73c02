"""LoRA: the same model at first, only A and B trained, the base's bits untouched; merged, unmerged, saved, loaded."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import minillm
from minillm import nn, optim, tensor
from minillm.models import GPT
from minillm.testing import gradcheck
from minillm.training import Run, RunError, load_model
from minillm.training.activation_checkpointing import checkpoint_sequential
from minillm.training.lora import LoRA, chosen
from minillm.training.lora_files import load_lora, save_lora
from minillm.training.mixed_precision import mixed_precision

rng = np.random.default_rng(0)
LLAMA = {"position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "kv_heads": 1, "tie": False}
ALL = ("in_proj_weight", "out_proj.weight", "mlp.*.weight", "token.weight")
IDS = rng.integers(0, 11, (2, 8))


def gpt(**settings):
    minillm.manual_seed(0)
    return GPT(**{"vocab_size": 11, "context": 16, "layers": 2, "heads": 2, "width": 16, **settings})


def disturb(lora, seed=1):
    """B away from 0, as after training."""
    draw = np.random.default_rng(seed)
    for adapter in lora.adapters.values():
        adapter.B.data[...] = 0.3 * draw.standard_normal(adapter.B.shape)


@pytest.mark.parametrize(
    "settings", [{}, {"mlp": "gelu_tanh"}, LLAMA, {"experts": 2}], ids=["gelu", "tanh", "llama", "experts"]
)
def test_at_first_the_outputs_are_the_same_bits(settings):
    model = gpt(**settings)
    before = model(IDS).numpy()
    targets = (*ALL, "router.weight") if "experts" in settings else ALL
    lora = LoRA(model, targets, rank=3)
    np.testing.assert_array_equal(model(IDS).numpy(), before)
    disturb(lora)
    assert (model(IDS).numpy() != before).any(-1).all()


def test_the_formula():
    minillm.manual_seed(0)
    layer = nn.Linear(5, 4).double()
    lora = LoRA(layer, "weight", rank=2, alpha=6.0)
    disturb(lora)
    x = rng.standard_normal((3, 5))
    W, A, B = vars(layer)["weight"].numpy(), layer.weight_lora.A.numpy(), layer.weight_lora.B.numpy()
    assert A.shape == (2, 5) and B.shape == (4, 2) and A.dtype == np.float64
    np.testing.assert_allclose(layer(tensor(x)).numpy(), x @ (W + 3 * B @ A).T + layer.bias.numpy(), rtol=1e-13)
    out = layer(tensor(x))
    (out * out).sum().backward()
    dW = 2 * out.numpy().T @ x
    np.testing.assert_allclose(layer.weight_lora.B.grad.numpy(), 3 * dW @ A.T, rtol=1e-12)
    np.testing.assert_allclose(layer.weight_lora.A.grad.numpy(), 3 * B.T @ dW, rtol=1e-12)
    assert vars(layer)["weight"].grad is None and layer.bias.grad is None


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_through_the_sum(order):
    layer = nn.MultiheadAttention(4, 2).double()
    LoRA(layer, "in_proj_weight", rank=2)
    names = ["in_proj_weight", "in_proj_weight_lora.A", "in_proj_weight_lora.B"]
    shapes = [dict(layer.named_parameters())[n].shape for n in names]

    def function(x, *weights):
        return nn.functional_call(layer, dict(zip(names, weights)), x)[0]

    inputs = [rng.standard_normal(s) for s in [(1, 3, 4), *shapes]]
    assert gradcheck(function, inputs, order=order)


def test_only_the_adapters_are_trained_and_the_rest_is_as_it_was_afterwards():
    model = gpt()
    model.position.weight.requires_grad = False
    names = [n for n, _ in model.named_parameters()]
    flags = [p.requires_grad for p in model.parameters()]
    lora = LoRA(model, rank=2)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    adapted = [f"blocks.{i}.attention.{n}" for i in (0, 1) for n in ("in_proj_weight", "out_proj.weight")]
    assert trained == {f"{n}_lora.{part}" for n in adapted for part in "AB"}
    assert [n for n, _ in model.named_parameters() if n not in trained] == names
    assert {id(p) for p in lora.parameters()} == {id(p) for p in model.parameters() if p.requires_grad}
    assert lora.num_parameters() == model.num_parameters(trainable_only=True) == 2 * 2 * (16 + 48 + 16 + 16)
    lora.remove()
    assert [n for n, _ in model.named_parameters()] == names
    assert [p.requires_grad for p in model.parameters()] == flags
    assert type(model.blocks[0].attention.out_proj) is nn.Linear
    with pytest.raises(RuntimeError, match="were removed"):
        lora.merge()


TEXTS = ["the cat sat on the mat. " * 40, "a dog ran in a fog; a hog in a bog! " * 40]


def test_fine_tuning_on_another_text():
    chars = sorted(set("".join(TEXTS)))
    first, other = (np.array([chars.index(c) for c in text]) for text in TEXTS)

    def train(model, ids, parameters, steps, lr):
        optimizer, draw = optim.AdamW(parameters, lr=lr), np.random.default_rng(0)
        for _ in range(steps):
            starts = draw.integers(0, len(ids) - 17, 4)
            windows = ids[starts[:, None] + np.arange(17)]
            optimizer.zero_grad()
            model.loss(windows[:, :-1], windows[:, 1:]).backward()
            optimizer.step()

    def loss(ids):
        return model.loss(ids[:64].reshape(4, 16), ids[1:65].reshape(4, 16)).item()

    model = gpt(vocab_size=len(chars), layers=2, width=64)
    train(model, first, model.parameters(), 60, 3e-3)
    known, unknown = loss(first), loss(other)
    assert known < 1.0 < 2.0 < unknown
    base = model.state_dict()
    lora = LoRA(model, rank=2)
    share = lora.num_parameters() / sum(v.size for v in base.values())
    assert share < 0.04
    train(model, other, list(lora.parameters()), 100, 1e-2)
    assert loss(other) < 0.6 * unknown
    after = model.state_dict()
    for name, value in base.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    lora.remove()
    assert loss(first) == known


@pytest.mark.parametrize("settings", [{}, LLAMA])
def test_merge_and_unmerge(settings):
    model = gpt(**settings)
    base, names = model.state_dict(), ALL
    lora = LoRA(model, names, rank=3)
    disturb(lora)
    adapted = model(IDS).numpy()
    lora.merge()
    lora.merge()  # once is enough
    np.testing.assert_array_equal(model(IDS).numpy(), adapted)
    state = model.state_dict()
    assert all((state[n] != base[n]).any() for n in lora.adapters)
    lora.unmerge()
    np.testing.assert_array_equal(model(IDS).numpy(), adapted)
    for name in base:
        np.testing.assert_array_equal(model.state_dict()[name], base[name])
    lora.merge()
    lora.remove()
    np.testing.assert_array_equal(model(IDS).numpy(), adapted)
    assert list(model.state_dict()) == list(base)
    fresh = gpt(**settings)
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(fresh(IDS).numpy(), adapted)


def test_beside_everything_else_that_modules_do():
    model = gpt(dropout=0.1)
    lora = LoRA(model, ALL, rank=2)
    disturb(lora)
    model.eval()
    out = model(IDS).numpy()
    other = gpt()
    LoRA(other, ALL, rank=2)
    other.load_state_dict(model.state_dict())  # base and adapters together
    np.testing.assert_array_equal(other(IDS).numpy(), out)
    twin = copy.deepcopy(model)
    twin.blocks[0].attention.in_proj_weight_lora.B.data[...] = 0
    assert (twin(IDS).numpy() != out).any() and (model(IDS).numpy() == out).all()
    np.testing.assert_allclose(model.double()(IDS).numpy(), out, rtol=1e-3, atol=1e-5)
    model.float()
    cache = model.new_cache(2)
    states = [model.hidden(IDS[:, t : t + 1], cache).numpy() for t in range(8)]
    np.testing.assert_allclose(np.concatenate(states, 1), model.hidden(IDS).numpy(), rtol=1e-4, atol=1e-5)
    assert "rank=2" in repr(model)


def gradients(model, lora, **how):
    for p in lora.parameters():
        p.grad = None
    with mixed_precision(model, how.get("precision", "float32")):
        (model.loss(IDS, IDS) * 64.0).backward()
    return [p.grad.numpy() / 64 for p in lora.parameters()]


def test_with_recomputed_blocks_and_in_float16():
    model = gpt()
    lora = LoRA(model, rank=2)
    disturb(lora)
    plain = gradients(model, lora)
    model.checkpoint_blocks = True
    for a, b in zip(plain, gradients(model, lora), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(plain, gradients(model, lora, precision="float16"), strict=True):
        assert 0 < np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)
    layers = nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 3))
    LoRA(layers, "weight")
    x = tensor(np.ones((1, 3), np.float32), requires_grad=True)
    checkpoint_sequential(layers, 2, x).sum().backward()
    assert x.grad is not None


def test_on_a_model_from_disk_and_the_adapters_alone_on_disk(tmp_path):
    model = gpt()
    run = Run(tmp_path / "run")
    run.write_config("gpt", vars(model.config))
    run.write_weights(model)
    model, _ = load_model(tmp_path / "run")
    lora = LoRA(model, ("in_proj_weight", "mlp.*.weight"), rank=3, alpha=5)
    disturb(lora)
    out = model(IDS).numpy()
    save_lora(lora, tmp_path / "adapters")
    assert json.loads((tmp_path / "adapters/adapter.json").read_text())["alpha"] == 5
    from safetensors.numpy import load_file

    state = load_file(tmp_path / "adapters/adapter.safetensors")
    assert sum(v.size for v in state.values()) == lora.num_parameters()
    again, _ = load_model(tmp_path / "run")
    loaded = load_lora(again, tmp_path / "adapters")
    np.testing.assert_array_equal(again(IDS).numpy(), out)
    assert (loaded.rank, loaded.alpha, list(loaded.adapters)) == (3, 5.0, list(lora.adapters))
    assert not again.token.weight.requires_grad


def test_adapters_that_do_not_fit_leave_the_model_alone(tmp_path):
    lora = LoRA(gpt(), rank=2)
    save_lora(lora, tmp_path)

    def refuse(model, message):
        names = [n for n, _ in model.named_parameters()]
        with pytest.raises(RunError, match=message):
            load_lora(model, tmp_path)
        assert [n for n, _ in model.named_parameters()] == names
        assert all(p.requires_grad for p in model.parameters())

    refuse(gpt(width=32), r"given shape \(2, 16\), expected \(2, 32\)")
    refuse(nn.Linear(2, 2), "no matrix 'blocks.0.attention.in_proj_weight'; load the base")
    settings = json.loads((tmp_path / "adapter.json").read_text())

    def write(**changes):
        (tmp_path / "adapter.json").write_text(json.dumps({**settings, **changes}))

    for changes, message in (
        ({"rank": 3}, r"expected \(3, 16\)"), ({"rank": "2"}, "rank, an integer"), ({"alpha": -1}, "alpha, a number"),
        ({"weights": []}, "list of names"), ({"weights": ["token.weight"]}, "do not belong together"),
        ({"format": "peft"}, "does not describe adapters"),
    ):  # fmt: skip
        write(**changes)
        refuse(gpt(), message)
    (tmp_path / "adapter.json").write_text("{")
    refuse(gpt(), "not readable JSON")
    write()
    content = (tmp_path / "adapter.safetensors").read_bytes()
    (tmp_path / "adapter.safetensors").write_bytes(content[:100])
    refuse(gpt(), "not a readable safetensors file")
    (tmp_path / "adapter.json").unlink()
    refuse(gpt(), "holds no adapters")


def test_targets():
    names = ["token.weight", "blocks.0.mlp.0.weight", "blocks.1.mlp.0.weight", "head.token.weight"]
    assert chosen(["mlp.0.weight"], names) == names[1:3]
    assert chosen(["blocks.1.*", "token.weight"], names) == [names[0], names[2]]  # a whole name is itself
    assert chosen(["weight"], names) == names
    with pytest.raises(ValueError, match=r"called 'mlp.7.weight'; there are 0.weight, token.weight"):
        chosen(["mlp.7.weight"], names)
    for targets, message in (([], "targets is empty"), ("norm.weight", "no matrix"), ("bias", "no matrix")):
        with pytest.raises(ValueError, match=message):
            LoRA(gpt(), targets)


def test_errors():
    model = gpt()
    for rank, alpha in ((0, 1.0), (2, 0.0), (2, float("inf"))):
        with pytest.raises(ValueError, match="rank >= 1 and alpha > 0"):
            LoRA(model, rank=rank, alpha=alpha)
    LoRA(model)
    with pytest.raises(ValueError, match="has adapters already"):
        LoRA(model, "token.weight")
