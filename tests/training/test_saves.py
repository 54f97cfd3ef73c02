"""Saves: whole or not there, whatever moment the process ends at, and whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from tiny_runs import Crash, CrashAt, resume, rows, train, weights, write_text

from minillm.training import RunError, load_model
from minillm.training.run import newest_save
from minillm.training.saves import Saves, pack, unpack


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


STATE = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "step": 3, "rows": [{"loss": 0.1}, {"loss": None}]}


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(map(str, a)) == list(b) and all(same(v, b[str(k)]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


arrays = st_np.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int8, np.bool_]), st_np.array_shapes(min_dims=0)
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
trees = st.recursive(plain | arrays, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text("abc"), t, max_size=3))


@given(st.dictionaries(st.text("ab."), trees, max_size=4))
def test_what_is_packed_comes_back(state):
    found: dict = {}
    try:
        tree = pack(state, found)
    except ValueError as error:  # {"a": {"b": array}, "a.b": array}
        assert "two arrays of the name" in str(error)
        return
    assert same(state, unpack(json.loads(json.dumps(tree, allow_nan=False)), found))


def test_what_cannot_be_packed():
    with pytest.raises(TypeError, match=r"'a.0' is a set"):
        pack({"a": [{1}]}, {})


def test_the_newest_and_the_best_are_kept(tmp_path):
    saves = Saves(tmp_path / "saves")
    assert saves.names() == [] and saves.newest() is None
    for step, best in ((0, True), (10, True), (20, False), (30, False)):
        saves.write(step, {**STATE, "step": step}, best)
    assert saves.names() == ["0002-step-10", "0004-step-30"]
    again = Saves(tmp_path / "saves")
    name, state = again.newest()
    assert name == "0004-step-30" and same({**STATE, "step": 30}, state) and again.best == "0002-step-10"
    again.write(40, STATE)
    assert again.names() == ["0002-step-10", "0005-step-40"]
    again.write(40, STATE, is_best=True)  # the same step again: another save, not a change of the old one
    assert again.names() == ["0006-step-40"]
    assert sorted(os.listdir(tmp_path / "saves")) == ["0006-step-40"]


def test_checksums_are_those_of_sha256sum(tmp_path):
    folder = tmp_path / Saves(tmp_path).write(1, STATE)
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert check.returncode == 0 and check.stdout == "state.json: OK\nstate.safetensors: OK\n"


@pytest.mark.parametrize("file", ["state.json", "state.safetensors", "SHA256SUMS"])
def test_every_flipped_bit_is_noticed(tmp_path, file):
    saves = Saves(tmp_path)
    name = saves.write(1, STATE)
    path = tmp_path / name / file
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(RunError, match=f"{name} is damaged: "):
            saves.read(name)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="is damaged"):
            saves.read(name)
    path.unlink()
    with pytest.raises(RunError, match=f"it has no {file}"):
        saves.read(name)
    path.mkdir()
    with pytest.raises(RunError, match=f"{file} is not a file"):
        saves.read(name)
    path.rmdir()
    path.write_bytes(whole)
    assert same(STATE, saves.read(name))


def test_the_one_beside_a_damaged_save_is_named(tmp_path):
    saves = Saves(tmp_path)
    saves.write(1, STATE, is_best=True)
    name = saves.write(2, STATE)
    (tmp_path / name / "state.json").write_text("{}")
    with pytest.raises(RunError, match="0001-step-1 beside it can be used once this folder is removed"):
        saves.newest()


def test_other_names_are_no_saves(tmp_path):
    saves = Saves(tmp_path)
    saves.write(1, STATE)
    for name in ("notes", "step-9", "0009-step-x", "0009-step-9.bak", ".new-77"):
        (tmp_path / name).mkdir()
    assert saves.names() == ["0001-step-1"]
    saves.write(2, STATE)
    assert sorted(os.listdir(tmp_path)) == ["0002-step-2", "0009-step-9.bak", "0009-step-x", "notes", "step-9"]


def test_links_lead_to_nothing_removed(tmp_path):
    """A save that is a link to a folder elsewhere: the link may go, the folder stays."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state.json").write_text("mine")
    saves = Saves(tmp_path / "saves")
    (tmp_path / "saves").mkdir()
    (tmp_path / "saves" / "0001-step-1").symlink_to(elsewhere, target_is_directory=True)
    saves.write(2, STATE)
    saves.write(3, STATE)
    assert (elsewhere / "state.json").read_text() == "mine"
    assert saves.names() == ["0003-step-3"]


def test_a_save_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Files are synced, then the folder that lists them, then the rename, then the folder that lists it."""
    done = []
    fsync, rename = os.fsync, os.rename
    name = {"0001-step-1": "SAVE", f".new-{os.getpid()}": "NEW"}

    def note_sync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        done.append("sync " + name.get(os.path.basename(path), os.path.basename(path)))
        fsync(descriptor)

    def note_rename(a, b):
        done.append(f"rename {name[os.path.basename(a)]} {name[os.path.basename(b)]}")
        rename(a, b)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc to look into")
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    Saves(tmp_path / "saves").write(1, STATE)
    syncs = ["sync state.safetensors", "sync state.json", "sync SHA256SUMS", "sync NEW"]
    assert done == [*syncs, "rename NEW SAVE", "sync saves"]


# ------------------------------------------------------------------------------------------------- full disks


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_full_disk(tmp_path, monkeypatch, call):
    saves = Saves(tmp_path / "saves")
    saves.write(1, STATE, is_best=True)
    saves.write(2, STATE)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RunError, match="0003-step-3 cannot be written: No space left.*0002-step-2, is whole"):
            saves.write(3, STATE)
    assert sorted(os.listdir(tmp_path / "saves")) == ["0001-step-1", "0002-step-2"]
    assert same(STATE, saves.newest()[1]) and saves.best == "0001-step-1"
    saves.write(3, STATE)  # there is space again


def test_a_disk_that_fills_up_while_training(tmp_path, text, monkeypatch):
    train(text, tmp_path / "whole")
    fsync, calls = os.fsync, []

    def filling(descriptor):
        calls.append(1)
        return full() if len(calls) > 14 else fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        with pytest.raises(RunError, match="cannot be written: No space left"):
            train(text, tmp_path / "run")
    assert Saves(tmp_path / "run" / "saves").names()
    load_model(tmp_path / "run")
    resume(tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_files_that_may_not_grow(tmp_path, text):
    """A process whose files are limited in size, as a quota does: the sentence, and the save before stays."""
    with pytest.raises(Crash):
        train(text, tmp_path / "run", observer=CrashAt(3), width=64)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    code = """
import resource, sys
import kernels
from minillm.cli import main
prepare = kernels.prepare
def limited(**settings):  # kernels are compiled before that
    prepare(**settings)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
kernels.prepare = limited
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "train", "gpt", "--resume", str(tmp_path / "run"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written: File too large" in done.stderr and len(done.stderr.splitlines()) == 1
    assert {p: p.read_bytes() for p in before} == before


# --------------------------------------------------------------------------------------- a kill at every moment


class Killed(BaseException):
    """No except clause of the program sees a kill; this one is seen by those of the tests only."""


class KillAt:
    """Every call that changes the disk counts; from call `number` on none is done, nor anything after it."""

    CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open")

    def __init__(self, monkeypatch, number: float):
        self.count, self.number = 0, number
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, call):
        def counting(*args, **kwargs):
            self.count += 1
            if self.count >= self.number:
                raise Killed
            return call(*args, **kwargs)

        return counting


def half_written(monkeypatch):
    """Files get their bytes in two pieces, with a moment to be killed at in between."""
    from minillm import durable
    from minillm.training import saves

    def write(path, data):
        with open(path, "wb") as f:
            f.write(data[: len(data) // 2])
            f.flush()
            os.fsync(f.fileno())
            f.write(data[len(data) // 2 :])
            f.flush()
            os.fsync(f.fileno())

    monkeypatch.setattr(durable, "write_synced", write)
    monkeypatch.setattr(saves, "write_synced", write)


def killed(number, work, monkeypatch) -> bool:
    """Whether the work was cut off at that call."""
    with monkeypatch.context() as patch:
        half_written(patch)
        KillAt(patch, number)
        try:
            work()
        except Killed:
            return True
    return False


def test_a_kill_at_every_call_that_writes(tmp_path, text, monkeypatch):
    settings = {"steps": 4, "dropout": 0.2, "sample": 0}
    train(text, tmp_path / "whole", **settings)
    number, begun, seen = 0, False, -1
    while True:
        number += 1
        out = tmp_path / str(number)
        if not killed(number, lambda out=out: train(text, out, **settings), monkeypatch):
            break
        names = Saves(out / "saves").names()
        begun = begun or bool(names)
        if not begun:
            continue  # before the first save there is nothing to read
        load_model(out)
        step = int(names[-1].split("-")[-1])
        assert step >= seen, "an earlier kill left a later save"
        seen = step
        if number % 3 == 0 or step == 4:
            if not (out / "weights.safetensors").exists():
                resume(out)
            assert weights(out) == weights(tmp_path / "whole")
            if (out / "metrics.jsonl").exists():
                assert rows(out) == rows(tmp_path / "whole")
    assert number > 60 and seen == 4


def test_a_kill_while_one_run_replaces_another(tmp_path, text, monkeypatch):
    """At every moment the folder is the old run or the new one, and can be read as that."""
    old, new = {"steps": 2, "sample": 0}, {"steps": 2, "sample": 0, "width": 4}
    train(text, tmp_path / "old", **old)
    train(text, tmp_path / "new", **new)
    number, found = 0, []
    while True:
        number += 1
        out = tmp_path / str(number)
        train(text, out, **old)
        cut = killed(number, lambda out=out: train(text, out, **new), monkeypatch)
        model, _ = load_model(out)
        found.append(model.config.width)
        assert newest_save(out)[0]["config"]["width"] == model.config.width  # it could go on, too
        if not cut:
            break
        if model.config.width == 4 and not (out / "weights.safetensors").exists():
            resume(out)
            assert weights(out) == weights(tmp_path / "new")
        elif (out / "weights.safetensors").exists():
            assert weights(out) == weights(tmp_path / ("old" if model.config.width == 8 else "new"))
    assert found == sorted(found, reverse=True) and found[0] == 8 and found[-1] == 4  # first the old one, then the new
    assert number > 40
