"""A run that was stopped and goes on has the same bits as one that never stopped: weights, history, everything."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY, Crash, CrashAt, common, resume, rows, train, weights, write_text

import kernels
from minillm.data import DataError
from minillm.random import default_generator
from minillm.recipes import gpt
from minillm.training import RunError, load_model
from minillm.training.saves import Saves


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


VARIANTS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "stochastic depth": {"layers": 2, "stochastic_depth": 0.5},
    "accumulation": {"accumulation": 2, "dropout": 0.2},
    "average": {"ema": 0.9, "clip_norm": 0.05},
    "muon": {"optimizer": "muon", "layers": 2, "schedule": "stable"},
    "modern": {"position": "rotary", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "qk_norm": True, "bias": False,
               "tie": False, "softcap": 15.0, "zero_init": True},
    "experts": {"experts": 3, "dropout": 0.1},
    "losses": {"label_smoothing": 0.1, "z_loss": 1e-3, "checkpoint_blocks": True, "dropout": 0.2},
    "bytes": {"tokenizer": "bytes", "schedule": "linear", "warmup": 3},
    "adapters": {"lora_rank": 2},
    "adapters, averaged": {"lora_rank": 2, "ema": 0.9, "dropout": 0.2},
    "patience": {"patience": 2, "lr": 0.05, "steps": 12},
    "bf16": {"precision": "bf16", "dropout": 0.1},
    "saves between rows": {"every": 3, "save_every": 1, "dropout": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_bits(tmp_path, text, name):
    if name == "bf16" and not kernels.has_bf16():
        pytest.skip("no bfloat16 products on this machine")
    settings = VARIANTS[name]
    train(text, tmp_path / "whole", **settings)
    for out, step in (("early", 1), ("middle", 3), ("late", 5)):
        with pytest.raises(Crash):
            train(text, tmp_path / out, observer=CrashAt(step), **settings)
        assert not (tmp_path / out / "weights.safetensors").exists()
        default_generator.manual_seed(12345)  # another process would not have our numbers
        resume(tmp_path / out)
        assert weights(tmp_path / out) == weights(tmp_path / "whole")
        assert rows(tmp_path / out) == rows(tmp_path / "whole")


def test_the_variants_are_different(tmp_path, text):
    """Else the test above would compare less than it says."""
    seen = {}
    for name, settings in VARIANTS.items():
        if name == "bf16" and not kernels.has_bf16():
            continue
        outcome = train(text, tmp_path / name, **settings)
        losses = tuple(row["validation_loss"] for row in outcome.history)
        assert losses not in seen, (name, seen[losses])
        seen[losses] = name


@pytest.mark.parametrize("part", ["optimizer", "batches", "generator", "ema", "recent"])
def test_every_part_of_the_state_matters(tmp_path, text, part):
    """A part that is not restored shows: the bits differ."""
    settings = {"dropout": 0.3, "ema": 0.9, "every": 3, "save_every": 1}
    train(text, tmp_path / "whole", **settings)
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(text, out, observer=CrashAt(3), **settings)  # the newest save is of step 2, between rows
    saves = Saves(out / "saves")
    name, state = saves.newest()
    loop, first = state["loop"], np.float32
    assert loop["step"] == 2
    if part == "optimizer":
        loop["parts"]["optimizer"]["state"] = {}
    elif part == "batches":
        loop["parts"]["batches"]["generator"][1] += 1
    elif part == "generator":
        loop["generator"][1] += 1
    elif part == "ema":
        averages = loop["parts"]["ema"]["averages"]
        averages["token.weight"] = averages["token.weight"] * first(3)
    else:
        loop["recent"] = [0.0]
    saves.write(2, state)
    resume(out)
    assert (weights(out) == weights(tmp_path / "whole")) == (part == "recent")
    assert rows(out) != rows(tmp_path / "whole")


def test_many_crashes(tmp_path, text):
    train(text, tmp_path / "whole", dropout=0.2, steps=10)
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(text, out, observer=CrashAt(1), dropout=0.2, steps=10)
    for step in (1, 3, 4, 5, 7, 9, 10):
        with pytest.raises(Crash):
            resume(out, observer=CrashAt(step))
        load_model(out)
    resume(out)
    assert weights(out) == weights(tmp_path / "whole")
    assert rows(out) == rows(tmp_path / "whole")


def test_more_steps(tmp_path, text):
    """A constant rate does not depend on the steps in all: then more steps are the run of so many."""
    settings = {"schedule": "constant", "warmup": 0, "dropout": 0.2}
    train(text, tmp_path / "whole", steps=10, **settings)
    train(text, tmp_path / "run", steps=6, **settings)
    with pytest.raises(RunError, match="has done its 6 steps: .*--steps"):
        resume(tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").exists()
    outcome = resume(tmp_path / "run", steps=10)
    assert [row["step"] for row in outcome.history] == [0, 2, 4, 6, 8, 10]
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["steps"] == 10


def test_ctrl_c_then_on(tmp_path, text):
    """Ctrl-C lets the step at hand end, saves, and what goes on from there is the run that never stopped."""

    class Press(CrashAt):
        def on_step(self, step):
            if step["step"] == self.step:
                os.kill(os.getpid(), signal.SIGINT)

    train(text, tmp_path / "whole", dropout=0.2)
    press = Press(3)
    outcome = train(text, tmp_path / "run", observer=press, dropout=0.2)
    assert outcome.history.interrupted and press.reason == "interrupted" and outcome.history.last("step") == 3
    assert Saves(tmp_path / "run" / "saves").names()[-1].endswith("-step-3")
    assert weights(tmp_path / "run") != weights(tmp_path / "whole")
    resume(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_best_is_kept_beside_the_newest(tmp_path, text):
    outcome = train(text, tmp_path / "run", lr=0.3, warmup=0, steps=12, clip_norm=0.0)
    losses = [row["validation_loss"] for row in outcome.history]
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1, losses  # a rate so high that it does not get better for long
    saves = Saves(tmp_path / "run" / "saves")
    assert [int(name.split("-")[-1]) for name in saves.names()] == [2 * best, 12]
    assert saves.newest() and saves.best == saves.names()[0]
    assert saves.read(saves.best)["loop"]["best"] == losses[best]


def test_the_best_stays_the_best(tmp_path, text):
    settings = {"lr": 3.0, "warmup": 0, "steps": 12, "clip_norm": 0.0}  # worse after the first steps
    train(text, tmp_path / "whole", **settings)
    whole = [name.split("-")[-1] for name in Saves(tmp_path / "whole" / "saves").names()]
    assert int(whole[0]) < 9
    with pytest.raises(Crash):
        train(text, tmp_path / "run", observer=CrashAt(9), **settings)
    resume(tmp_path / "run")
    assert [name.split("-")[-1] for name in Saves(tmp_path / "run" / "saves").names()] == whole


def test_patience_ends_with_the_best_weights(tmp_path, text):
    settings = {"lr": 0.3, "warmup": 0, "steps": 60, "clip_norm": 0.0, "patience": 3}
    outcome = train(text, tmp_path / "run", **settings)
    losses = [row["validation_loss"] for row in outcome.history]
    best = int(np.argmin(losses))
    assert outcome.history.last("step") < 60 and best == len(losses) - 4
    model, _ = load_model(tmp_path / "run")
    kept = Saves(tmp_path / "run" / "saves").read(Saves(tmp_path / "run" / "saves").names()[0])["loop"]
    assert kept["step"] == 2 * best
    np.testing.assert_array_equal(model.state_dict()["token.weight"], kept["parts"]["model"]["token.weight"])
    without_folder = gpt.train(gpt.Settings.of({**TINY, **settings}), common(text, None)).model
    np.testing.assert_array_equal(model.state_dict()["token.weight"], without_folder.state_dict()["token.weight"])


def test_a_run_that_is_not_over_can_be_read(tmp_path, text):
    """Its model is that of the newest save: averaged and merged, as the end of the run would leave it."""
    for name, settings in {"plain": {}, "average": {"ema": 0.5}, "adapters": {"lora_rank": 2, "lr": 0.1}}.items():
        out = tmp_path / name
        with pytest.raises(Crash):
            train(text, out, observer=CrashAt(5), **settings)
        model, config = load_model(out)
        assert config["model"] == "gpt" and not model.training
        state = Saves(out / "saves").newest()[1]["loop"]
        assert state["step"] == 4
        expected = state["parts"]["model"]["blocks.0.attention.in_proj_weight"]
        if name == "average":
            expected = state["parts"]["ema"]["averages"]["blocks.0.attention.in_proj_weight"]
        found = model.state_dict()["blocks.0.attention.in_proj_weight"]
        assert (found == expected).all() == (name != "adapters")
        assert not any("lora" in key for key in model.state_dict())


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def cut_off(tmp_path, text):
    with pytest.raises(Crash):
        train(text, tmp_path / "run", observer=CrashAt(5))
    return tmp_path / "run"


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_the_text_changed(tmp_path, text, cut_off):
    before = tree(cut_off)
    other = tmp_path / "other.txt"
    other.write_text(Path(text).read_text()[::-1])
    with pytest.raises(DataError, match="has changed since"):
        resume(cut_off, text=str(other))
    other.write_text(Path(text).read_text())
    assert tree(cut_off) == before
    resume(cut_off, text=str(other))  # elsewhere, and the same


def test_other_settings_are_refused(cut_off):
    before = tree(cut_off)
    with pytest.raises(RunError, match="leave out --batch-size, --lr;"):
        resume(cut_off, lr=1.0, batch_size=2)
    assert tree(cut_off) == before


def test_a_new_run_does_not_remove_what_was_cut_off(text, cut_off):
    before = tree(cut_off)
    with pytest.raises(RunError, match="cut off at step 4: `minillm train gpt --resume"):
        train(text, cut_off)
    assert tree(cut_off) == before


def test_a_finished_run_may_be_replaced(tmp_path, text):
    train(text, tmp_path, steps=8)
    outcome = train(text, tmp_path, steps=4, width=4)
    assert [name.split("-")[-1] for name in Saves(tmp_path / "saves").names()] == ["4"]
    assert load_model(tmp_path)[0].config == outcome.model.config


def test_the_saves_of_another_run(tmp_path, text):
    train(text, tmp_path / "a")
    train(text, tmp_path / "b", width=4)
    shutil.rmtree(tmp_path / "a" / "saves")
    shutil.copytree(tmp_path / "b" / "saves", tmp_path / "a" / "saves")
    before = tree(tmp_path / "a")
    with pytest.raises(RunError, match="saves of another run"):
        resume(tmp_path / "a", steps=20)
    assert tree(tmp_path / "a") == before
    load_model(tmp_path / "a")


def test_two_at_once(cut_off):
    with Saves(cut_off / "saves").lock(), pytest.raises(RunError, match="by another process"):
        resume(cut_off)
    resume(cut_off)


def test_without_saves(tmp_path, text):
    train(text, tmp_path)
    shutil.rmtree(tmp_path / "saves")
    with pytest.raises(RunError, match="no saves to go on from"):
        resume(tmp_path)
    with pytest.raises(RunError, match="there is no such folder"):
        resume(tmp_path / "nowhere")
