"""What a GPT is said to cost is what it costs: parameters and FLOPs exactly, memory within 8 % of what is measured."""

from __future__ import annotations

import numpy as np
import pytest

import minillm
from minillm import optim
from minillm.models import GPT
from minillm.models.gpt_summary import (
    gpt_parts,
    gpt_summary,
    megabytes,
    opening_lines,
    optimizer_bytes,
    step_memory,
    summary_rows,
)  # fmt: skip
from minillm.training import peak_activation_memory

LLAMA = {"position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "kv_heads": 2}
VARIANTS = {
    "gpt2": {},
    "dropout": {"dropout": 0.1},
    "depth": {"stochastic_depth": 0.2},
    "relu2": {"mlp": "relu2", "bias": False},
    "wide": {"mlp_width": 600},
    "llama": LLAMA,
    "normed": {"position": "rotary", "qk_norm": True},
    "narrow heads": {"head_dim": 8},
    "experts": {"experts": 4},
    "window": {"window": 8, "softcap": 15.0},
    "alibi": {"position": "alibi"},
    "untied": {"tie": False, "vocab_size": 500},
}
IDS = np.random.default_rng(0).integers(0, 64, (16, 64))


def measured(model, ids=IDS):
    def step():
        model.loss(ids, ids).backward()

    step()  # compiles kernels
    model.zero_grad()
    return peak_activation_memory(step)


def activations(model, batch=16, context=64):
    return sum(part.activations for part in gpt_parts(model, batch, context))


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_activations_of_a_step(variant, again):
    if again and variant == "experts":
        pytest.skip("GPT refuses checkpoint_blocks with a balance loss")
    minillm.manual_seed(0)
    model = GPT(**{"vocab_size": 64, "context": 64, "layers": 4, "heads": 4, "width": 64, **VARIANTS[variant]})
    model.checkpoint_blocks = again
    # the gradients of the weights come while activations go: what is left of them at the end is less than those were
    assert measured(model) == pytest.approx(activations(model), rel=0.08)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "normed"])
def test_each_further_layer(variant):
    """The slope over layers is the formula of a block alone."""
    minillm.manual_seed(0)
    two, six = (GPT(64, context=64, layers=n, heads=4, width=64, **VARIANTS[variant]) for n in (2, 6))
    assert measured(six) - measured(two) == pytest.approx(activations(six) - activations(two), rel=0.025)


def test_batches_and_shorter_windows():
    model = GPT(64, context=64, layers=3, heads=2, width=48)
    for batch, context in ((24, 32), (6, 64)):
        ids = np.zeros((batch, context), np.int64)
        assert measured(model, ids) == pytest.approx(activations(model, batch, context), rel=0.08)
    for wrong in ((0, 64), (1, 65), (1, 0)):
        with pytest.raises(ValueError, match="expected at least 1, and 1 to 64"):
            gpt_parts(model, *wrong)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_add_up_to_the_model(variant):
    model = GPT(**{"vocab_size": 64, "context": 64, "layers": 3, "heads": 4, "width": 64, **VARIANTS[variant]})
    for context in (64, 16):
        parts = gpt_parts(model, 2, context)
        assert sum(p.parameters for p in parts) == model.num_parameters()
        assert sum(p.flops for p in parts) == pytest.approx(model.flops_per_token(context))
    by_name = {p.name: p for p in gpt_parts(model)}
    assert by_name["3 x mlp"].parameters == sum(
        p.numel() for b in model.blocks for m in (b.norm2, b.mlp) for p in m.parameters()
    )
    assert by_name["norm, head, loss"].flops == 6 * model.head_weight.numel()
    assert all(p.flops >= 0 and p.activations >= 0 for p in by_name.values())


def test_memory_of_a_step_with_its_optimizer():
    model = GPT(64, context=16, layers=2, heads=2, width=32)
    size = 4 * model.num_parameters()
    before = step_memory(model, 4, 16)
    assert (before["weights"], before["gradients"], before["optimizer state"]) == (size, size, 2 * size)
    assert before["activations"] == activations(model, 4, 16)
    assert list(step_memory(model, 4, 16, more={"averaged weights": 5}))[-2:] == ["averaged weights", "activations"]

    matrices, others = optim.muon_groups(model)
    muon, adamw = optim.Muon(matrices), optim.AdamW(others)
    both = optim.Optimizers([muon, adamw])
    assert step_memory(model, 4, 16, both)["optimizer state"] == 2 * size  # as long as there is none
    model.loss(IDS[:4, :16], IDS[:4, :16]).backward()
    both.step()
    counted = optimizer_bytes(both)
    numbers = lambda o: sum(p.numel() for g in o.param_groups for p in g["params"])  # noqa: E731
    assert counted == 4 * (numbers(muon) + 2 * numbers(adamw))  # a momentum; two moments
    assert step_memory(model, 4, 16, both)["optimizer state"] == counted

    half = optim.SGD(list(model.parameters())[:1])
    assert step_memory(model, 4, 16, half)["gradients"] == model.token.weight.data.nbytes


def test_the_table_and_the_lines():
    model = GPT(64, context=16, layers=2, heads=4, width=32, kv_heads=2)
    text = gpt_summary(model, 4)
    rows, total = summary_rows(model, 4)
    assert [row[0] for row in rows] == ["embedding", "2 x attention", "2 x mlp", "norm, head, loss"]
    assert total[1] == f"{model.num_parameters():,}" and all(cell in text for row in [*rows, total] for cell in row)
    assert len({len(line) for line in text.splitlines()}) == 1
    first, second = opening_lines(model, 4)
    assert "2 layers of width 32, 4 heads on 2 of keys, 64 tokens" in first
    assert second.startswith("a batch of 4 x 16 tokens: ")
    assert f"activations {megabytes(activations(model, 4, 16))}" in second
