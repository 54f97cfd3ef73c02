"""`minillm train gpt`: every setting reaches the training, presets give way to flags, and what cannot be is refused."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import pytest

import kernels
from minillm import cli
from minillm.models.presets import PRESETS
from minillm.recipes import gpt
from minillm.recipes.gpt_settings import Settings
from minillm.recipes.presets import preset
from minillm.training import RunError, load_model

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from tiny_runs import TINY, common, train, write_text

BASE = {**TINY, "layers": 2, "heads": 2, "lr": 0.01, "schedule": "linear", "warmup": 2}
CHANGES: dict[str, dict] = {
    "layers": {"layers": 1}, "heads": {"heads": 1}, "width": {"width": 12}, "context": {"context": 7},
    "dropout": {"dropout": 0.3}, "position": {"position": "none"}, "norm": {"norm": "rms"}, "mlp": {"mlp": "relu2"},
    "mlp_width": {"mlp_width": 9}, "kv_heads": {"kv_heads": 1}, "window": {"window": 2}, "qk_norm": {"qk_norm": True},
    "softcap": {"softcap": 0.5}, "bias": {"bias": False}, "tie": {"tie": False}, "zero_init": {"zero_init": True},
    "experts": {"experts": 2}, "tokenizer": {"tokenizer": "bytes"}, "batch_size": {"batch_size": 4},
    "accumulation": {"accumulation": 2}, "optimizer": {"optimizer": "muon"}, "lr": {"lr": 0.02},
    "schedule": {"schedule": "cosine"}, "warmup": {"warmup": 1}, "final_lr": {"final_lr": 0.9},
    "weight_decay": {"weight_decay": 5.0}, "beta1": {"beta1": 0.5}, "beta2": {"beta2": 0.5},
    "clip_norm": {"clip_norm": 0.05}, "ema": {"ema": 0.9}, "label_smoothing": {"label_smoothing": 0.3},
    "z_loss": {"z_loss": 0.5}, "stochastic_depth": {"stochastic_depth": 0.9}, "steps": {"steps": 5},
    "eval_windows": {"eval_windows": 9}, "lora_rank": {"lora_rank": 2}, "precision": {"precision": "bf16"},
}  # fmt: skip
BESIDE = {  # settings that matter beside another one
    "muon_lr": ({"optimizer": "muon"}, {"muon_lr": 0.5}),
    "muon_momentum": ({"optimizer": "muon"}, {"muon_momentum": 0.5}),
    "stable": ({"schedule": "stable", "final_lr": 0.0}, {"stable": 0.9}),
    "experts_per_token": ({"experts": 3}, {"experts_per_token": 1}),
    "balance_loss": ({"experts": 3}, {"balance_loss": 5.0}),
    "vocab_size": ({"tokenizer": "bpe", "vocab_size": 260}, {"vocab_size": 264}),
}
ELSEWHERE = {  # tested where they are at home
    "preset", "init", "prompt", "minutes", "checkpoint_blocks", "non_finite", "patience", "every", "save_every",
    "sample",
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def losses(text, **settings):
    outcome = gpt.train(Settings.of({**BASE, **settings}), common(text, None))
    return [row.get("validation_loss") for row in outcome.history]


@pytest.fixture(scope="module")
def plain(text):
    return losses(text)


def test_all_settings_are_listed_here():
    assert {f.name for f in fields(Settings)} == {*CHANGES, *BESIDE, *ELSEWHERE}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_matters(text, plain, name):
    if name == "precision" and not kernels.has_bf16():
        pytest.skip("no bfloat16 products on this machine")
    changed = losses(text, **CHANGES[name])
    assert changed != plain and changed[-1] != plain[-1]


@pytest.mark.parametrize("name", BESIDE)
def test_each_setting_matters_beside_another(text, name):
    if name == "vocab_size":
        pytest.importorskip("tokenizers")
    base, change = BESIDE[name]
    assert losses(text, **base)[-1] != losses(text, **{**base, **change})[-1]


def test_checkpointed_blocks(text, plain):
    outcome = gpt.train(Settings.of({**BASE, "checkpoint_blocks": True}), common(text, None))
    assert outcome.model.checkpoint_blocks
    assert [row["validation_loss"] for row in outcome.history] == plain


def test_samples(text):
    outcome = gpt.train(Settings.of({**BASE, "sample": 4, "prompt": "abc"}), common(text, None))
    assert [len(row["sample"]) for row in outcome.history] == [4, 4, 4, 4]
    outcome = gpt.train(Settings.of({**BASE, "sample": 0}), common(text, None))
    assert not any("sample" in row for row in outcome.history)


# ----------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset(name):
    values = {f.name: f.default for f in fields(Settings)}
    settings = Settings.of({**values, "preset": name}, given={"preset"})
    expected = preset(name)
    assert {k: getattr(settings, k) for k in expected} == expected
    config = PRESETS[name]
    made = settings.model_settings()
    assert all(made[k] == v for k, v in config.items() if k != "vocab_size")


def test_flags_win_over_the_preset():
    values = {f.name: f.default for f in fields(Settings)}
    settings = Settings.of(
        {**values, "preset": "nanogpt-cpu", "lr": 0.5, "layers": 4}, given={"preset", "lr", "layers"}
    )
    assert (settings.lr, settings.layers, settings.bias, settings.steps) == (0.5, 4, False, 2000)
    with pytest.raises(ValueError, match="no preset 'nanogpt'.*Did you mean"):
        Settings.of({**values, "preset": "nanogpt"}, given={"preset"})


def test_minutes_take_the_place_of_steps():
    values = {f.name: f.default for f in fields(Settings)}
    of = Settings.of
    assert of({**values, "minutes": 2.0}, given={"minutes"}).steps is None
    assert of({**values, "minutes": 2.0, "steps": 9}, given={"minutes", "steps"}).steps == 9
    assert of({**values, "minutes": 2.0, "preset": "tiny"}, given={"minutes", "preset"}).steps is None
    assert of(values, given={"layers"}).steps == 1500


def test_without_a_word_on_model_or_optimizer_what_learns_best_on_a_laptop():
    values = {f.name: f.default for f in fields(Settings)}
    laptop = Settings.of({**values, "steps": 9, "prompt": "a"}, given={"steps", "prompt"})
    assert laptop.steps == 9 and laptop.position == "rotary" and laptop.optimizer == "muon"
    for name in ("layers", "qk_norm", "lr", "optimizer", "lora_rank", "init"):
        plain = Settings.of(values, given={name})
        assert plain.preset == "" and plain.position == "learned" and plain.optimizer == "adamw", name


def test_the_command_tells_flags_from_defaults(tmp_path, text, capsys):
    flags = ["--preset", "shakespeare-fast", "--layers", "1", "--heads", "2", "--width", "8", "--context", "8"]
    flags += ["--steps", "2", "--eval-windows", "2", "--sample", "1", "--no-qk-norm", "--quiet", "--json"]
    assert cli.main(["train", "gpt", *flags, "--data", text, "--out", str(tmp_path / "run")]) == 0
    model, config = load_model(tmp_path / "run")
    assert config["settings"]["optimizer"] == "muon" and config["settings"]["steps"] == 2
    c = model.config
    assert (c.layers, c.position, c.qk_norm, c.softcap, c.tie) == (1, "rotary", False, 15.0, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ema": 1.0}, "ema must be from 0 to below 1"),
        ({"beta2": 1.0}, "beta2 must be"),
        ({"minutes": 0.0}, "minutes must be above 0"),
        ({"lora_rank": 2, "optimizer": "muon"}, "lora-rank goes with the optimizer adamw"),
        ({"init": "runs/x", "layers": 3}, "come from init: leave out layers"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings.of(wrong)


# --------------------------------------------------------------------------------------------------- start from


def test_start_from_a_run(tmp_path, text):
    train(text, tmp_path / "first", steps=20, lr=0.02)
    first, _ = load_model(tmp_path / "first")
    start = {k: v for k, v in TINY.items() if k not in ("layers", "heads", "width")}
    settings = Settings.of({**start, "init": str(tmp_path / "first"), "steps": 2, "lr": 1e-6}, given={"init"})
    outcome = gpt.train(settings, common(text, None))
    for (name, a), (_, b) in zip(first.named_parameters(), outcome.model.named_parameters()):
        assert abs(a.numpy() - b.numpy()).max() < 1e-5, name
    scratch = gpt.train(Settings.of({**TINY, "steps": 2}), common(text, None))
    assert outcome.history.rows[0]["validation_loss"] < scratch.history.rows[0]["validation_loss"] - 0.01


def test_adapters_leave_other_weights_as_they_were(tmp_path, text):
    train(text, tmp_path / "first", steps=2)
    first, _ = load_model(tmp_path / "first")
    start = {k: v for k, v in TINY.items() if k not in ("layers", "heads", "width")}
    settings = Settings.of(
        {**start, "init": str(tmp_path / "first"), "lora_rank": 2, "lr": 0.05}, given={"init", "lora_rank", "lr"}
    )
    outcome = gpt.train(settings, common(text, None))
    changed = {
        name for (name, a), (_, b) in zip(first.named_parameters(), outcome.model.named_parameters())
        if not (a.numpy() == b.numpy()).all()
    }  # fmt: skip
    assert changed == {"blocks.0.attention.in_proj_weight", "blocks.0.attention.out_proj.weight"}
    assert outcome.model.num_parameters() == first.num_parameters()


def test_start_from_what_is_no_language_model(tmp_path, text):
    with pytest.raises(RunError, match="no such folder"):
        gpt.train(Settings.of({"init": str(tmp_path / "nowhere")}), common(text, None))
