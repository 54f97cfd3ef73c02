"""Every recipe from the first line to its report, on a device that refuses what CuPy refuses: the CPU's figures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from gpu_stand_in import kernels_on_strict

from minillm.demo import add_section, save
from minillm.explain import Report
from minillm.recipes import recipe
from minillm.recipes.base import Common

SETTINGS = {
    "autoencoder": {"epochs": 1, "batch_size": 256},
    "vae": {"epochs": 1, "batch_size": 256},
    "attention": {"epochs": 1, "batch_size": 256},
    "gpt": {
        "steps": 4, "every": 2, "context": 8, "layers": 1, "heads": 2, "width": 8, "batch_size": 3, "eval_windows": 4,
        "sample": 5, "ema": 0.9, "accumulation": 2, "optimizer": "muon", "dropout": 0.1, "lr": 0.01,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def device(monkeypatch):
    kernels_on_strict(monkeypatch)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(np.random.default_rng(0).choice(["abc", "ab d", "ef\n", "g"], 1000)))
    return str(path)


def run(name, device, folder, text, page=True, **more):
    module = recipe(name)
    make = getattr(module.Settings, "of", lambda given: module.Settings(**given))
    settings = make({**SETTINGS[name], **more})
    data = text if name == "gpt" else None
    common = Common(data, 3, device, False, str(folder) if name == "gpt" else None)
    outcome = module.train(settings, common)
    save(outcome, folder, common, settings)
    if page:
        report = Report("title", "about")
        add_section(report, outcome)
        report.write(folder / "report.html")
    return outcome


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_reaches_the_same(name, tmp_path, text):
    there, here = (run(name, device, tmp_path / device, text) for device in ("strict", "cpu"))
    assert all(p.device == "strict" for p in there.model.parameters())
    a, b = (json.loads((tmp_path / d / "results.json").read_text())["metrics"] for d in ("strict", "cpu"))
    for mine, other in zip(a, b, strict=True):
        assert mine["name"] == other["name"]
        assert mine["value"] == pytest.approx(other["value"], rel=2e-2, abs=2e-2), mine["name"]
    for key, value in here.model.state_dict().items():
        np.testing.assert_allclose(there.model.state_dict()[key], value, rtol=0.05, atol=0.02, err_msg=key)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_with_the_same_bits(optimizer, tmp_path, text):
    """Stopped and resumed on the device, and begun on the CPU and resumed on the device."""
    gpt, how = recipe("gpt"), {"optimizer": optimizer, "schedule": "constant", "warmup": 0}
    whole = run("gpt", "strict", tmp_path / "whole", text, page=False, steps=6, **how).model.state_dict()
    for first, close in (("strict", 0.0), ("cpu", 1e-2)):
        folder = tmp_path / f"{optimizer} {first}"
        run("gpt", first, folder, text, page=False, steps=4, **how)
        settings, common = gpt.go_on(str(folder), {"steps": 6}, Common(text, None, "strict", False))
        assert common.device == "strict"
        resumed = gpt.train(settings, replace(common, out=str(folder))).model
        assert all(p.device == "strict" for p in resumed.parameters())
        for key, value in resumed.state_dict().items():
            np.testing.assert_allclose(value, whole[key], rtol=close, atol=close, err_msg=key)
