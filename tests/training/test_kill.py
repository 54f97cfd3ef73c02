"""Real processes, killed at random moments: the run stays readable, and ends with the bits of one never stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import TINY, weights, write_text

from minillm.training import load_model
from minillm.training.saves import Saves

# A training whose writes take long, so that many kills strike inside one, between any two of its calls.
CHILD = """
import os, sys, time
import minillm.recipes.gpt
from minillm.cli import main

def slow(call):
    def slower(*args, **kwargs):
        time.sleep(0.01)
        result = call(*args, **kwargs)
        time.sleep(0.01)
        return result
    return slower

for name in ("fsync", "rename", "replace", "unlink"):
    setattr(os, name, slow(getattr(os, name)))
print("ready", flush=True)
sys.exit(main(sys.argv[1:]))
"""
SETTINGS = {**TINY, "steps": 20, "every": 4, "save_every": 2, "dropout": 0.2, "ema": 0.9}
FLAGS = [word for name, v in SETTINGS.items() for word in ("--" + name.replace("_", "-"), str(v))]


def start(*argv) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, "train", "gpt", *map(str, argv), "--quiet", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def to_its_end(*argv) -> None:
    process = start(*argv)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def unfinished_saves(folder) -> int:
    return sum(name.startswith((".new-", ".old-")) for name in os.listdir(folder))


def kill_often(tmp_path, kills: int, seed: int, longest: float) -> None:
    text, rng = write_text(tmp_path), random.Random(seed)
    to_its_end("--data", text, *FLAGS, "--out", tmp_path / "whole")
    expected = weights(tmp_path / "whole")
    struck, inside, runs = 0, 0, 0
    while struck < kills:
        runs += 1
        out, newest = tmp_path / f"run{runs}", -1
        saves = Saves(out / "saves")
        while not (out / "weights.safetensors").exists():
            on = ["--resume", out] if saves.names() else ["--data", text, *FLAGS, "--out", out]
            process = start(*on)
            try:
                process.wait(rng.uniform(0, longest) if struck < kills else 120)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                struck += 1
            out_text, err = process.communicate(timeout=60)
            assert process.returncode in (0, -signal.SIGKILL), err
            if saves.names():
                inside += unfinished_saves(out / "saves")
                load_model(out)  # readable at every moment
                name, state = saves.newest()
                assert state["loop"]["step"] >= newest  # what was saved is not lost
                newest = state["loop"]["step"]
        assert weights(out) == expected
    print(f"{struck} kills in {runs} runs, {inside} inside a save")
    if kills > 10:
        assert inside > 0


def test_three_kills(tmp_path):
    kill_often(tmp_path, 3, seed=1, longest=0.8)


@pytest.mark.slow
def test_thirty_kills(tmp_path):
    started = time.monotonic()
    kill_often(tmp_path, 30, seed=2, longest=1.5)
    print(f"{time.monotonic() - started:.0f} seconds")
