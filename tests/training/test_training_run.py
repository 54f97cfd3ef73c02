"""The run directory: what is written can be read again, nothing is half-written, and every error is a sentence."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import numpy as np
import pytest

import minillm
from minillm.models import GPT, VAE, AttentionModel, Autoencoder
from minillm.training import History, Run, RunError, load_model, read_config, to_json

MODELS = {
    "autoencoder": lambda: Autoencoder(6, 4, 3),
    "vae": lambda: VAE(6, (5, 4), 2, likelihood="gaussian"),
    "attention": lambda: AttentionModel(3, 2, 4, width=8, heads=2),
    "gpt": lambda: GPT(11, context=6, layers=1, heads=2, width=8),
}


def output(name, model):
    if name == "gpt":
        return model(np.arange(6)[None]).numpy()
    x = minillm.tensor(np.random.default_rng(0).random((4, 6), dtype=np.float32))
    return (
        model.encode(x)[0].numpy()
        if name == "vae"
        else model(x.reshape(4, 2, 3)).output.numpy()
        if name == "attention"
        else model(x).numpy()
    )


def saved(folder, name="gpt", **more):
    minillm.manual_seed(1)
    model = MODELS[name]()
    run = Run(folder)
    run.write_config(name, asdict(model.config), **more)
    run.write_weights(model)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_weights_come_back_to_the_bit(tmp_path, name):
    model = saved(tmp_path / "run", name, tokenizer={"type": "bytes"})
    minillm.manual_seed(2)
    loaded, config = load_model(tmp_path / "run")
    np.testing.assert_array_equal(output(name, loaded), output(name, model))
    assert not loaded.training
    assert config["model"] == name and config["tokenizer"] == {"type": "bytes"}
    assert loaded.config == model.config
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "weights.safetensors"]


def test_a_model_of_doubles_stays_one(tmp_path):
    model = MODELS["vae"]().double()
    run = Run(tmp_path)
    run.write_config("vae", asdict(model.config))
    run.write_weights(model)
    loaded, _ = load_model(tmp_path)
    for (_, a), (_, b) in zip(model.named_parameters(), loaded.named_parameters()):
        assert b.dtype == np.float64
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_history_and_results(tmp_path):
    history = History()
    history.append(step=1, loss=np.float32(0.5), validation_loss=float("nan"))
    history.append(step=np.int64(2), loss=0.25)
    run = Run(tmp_path / "a" / "b")
    run.write_history(history)
    run.write_results({"value": float("inf"), "name": "é"})
    lines = (tmp_path / "a/b/metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5, "validation_loss": None},
        {"step": 2, "loss": 0.25},
    ]
    assert json.loads((tmp_path / "a/b/results.json").read_text("utf-8")) == {"value": None, "name": "é"}
    assert to_json({"a": (1, np.float64(2.0), [float("-inf")])}) == '{"a": [1, 2.0, [null]]}'


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.write_results({"old": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(RunError, match=r"results.json cannot be written: No space left"):
                run.write_results({"new": 2})
        assert json.loads((tmp_path / "results.json").read_text()) == {"old": 1}
        assert os.listdir(tmp_path) == ["results.json"]


def test_a_file_where_the_folder_should_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match="is a file"):
        Run(file)
    with pytest.raises(RunError, match=r"cannot be made|is a file"):
        Run(file / "below")
    with pytest.raises(RunError, match="it is a file"):
        load_model(file)


def broken_config(text):
    def damage(folder):
        (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def truncated(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_weights(folder):
    Run(folder).write_weights(VAE(6, (5,), 2))


def other_size(folder):
    Run(folder).write_weights(GPT(12, context=6, layers=1, heads=2, width=8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (broken_config("{"), "not readable JSON"),
        (broken_config(b"\xff\xfe"), "not readable JSON"),
        (broken_config("[]"), 'needs "model"'),
        (broken_config('{"model": "gpt"}'), 'needs "model"'),
        (broken_config('{"model": ["gpt"], "config": {}}'), 'needs "model"'),
        (broken_config('{"model": "gtp", "config": {}}'), "no model 'gtp'; this version knows"),
        (
            broken_config('{"model": "gpt", "config": {"widht": 8}}'),
            "does not describe a model: .*Did you mean 'width'",
        ),
        (broken_config('{"model": "gpt", "config": {"width": "8"}}'), "does not describe a model: .*whole number"),
        (broken_config('{"model": "gpt", "config": {"heads": 0}}'), "does not describe a model"),
        (broken_config('{"model": "gpt", "config": {"dropout": "much"}}'), "does not describe a model"),
        (lambda f: (f / "weights.safetensors").unlink(), "has no weights.safetensors"),
        (truncated, "not a readable safetensors file"),
        (lambda f: (f / "weights.safetensors").write_bytes(b""), "not a readable safetensors file"),
        (other_weights, "does not fit the model of config.json: .* more"),
        (
            other_size,
            "does not fit the model of config.json: token.weight: given shape \\(12, 8\\), expected \\(11, 8\\)",
        ),
    ],
)
def test_damage_is_told_in_a_sentence(tmp_path, damage, message):
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError, match=message) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    for read in (read_config, load_model):
        with pytest.raises(RunError, match="there is no such folder"):
            read(tmp_path / "nowhere")
