"""Files that were damaged or made to do harm: one sentence, no hang, no great memory, nothing executed or overwritten.

Each case is a command on a copy of a run in which one thing is wrong. It must refuse with code 2 and one line, and
leave every file as it was; only where the damage does not matter (a config's number that nothing needs) may it succeed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import Crash, CrashAt, train, write_text

from minillm import cli
from minillm.training.saves import sums_of

MEMORY = 3 * 2**30  # that a command may take, in bytes of addresses


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, one that was cut off, and their text."""
    folder = tmp_path_factory.mktemp("runs")
    text = write_text(folder)
    train(text, folder / "done", steps=2)
    with pytest.raises(Crash):
        train(text, folder / "cut", observer=CrashAt(5))
    # compile what the commands below need, before memory is counted
    shutil.copytree(folder / "cut", folder / "warm")
    assert cli.main(["train", "gpt", "--resume", str(folder / "warm"), "--quiet", "--json"]) == 0
    assert cli.main(["generate", str(folder / "warm"), "--tokens", "3"]) == 0
    return folder


@pytest.fixture(autouse=True)
def bounded():
    """A command that asks for more memory than MEMORY fails; one that takes a minute is a hang (pytest-timeout)."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else None
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def tree(folder: Path) -> dict:
    """What is in a folder: digests of files, and the targets of links."""
    return {
        p.relative_to(folder): os.readlink(p) if p.is_symlink() else hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_symlink() or (p.is_file() and p.name != ".lock" and p.stat().st_size < 2**28)
    }


def command(capsys, *argv) -> tuple[int, str]:
    """(exit code, standard error) of a command; whatever escapes it as an exception fails the test."""
    capsys.readouterr()
    try:
        code = cli.main([*map(str, argv), "--json"])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    if code == 2:
        assert out == "" and len(err.splitlines()) == 1 and len(err) < 1500, (out, err)
    assert "Traceback" not in err
    return code, err


def refused(capsys, folder: Path, *argv) -> str:
    before = tree(folder)
    code, err = command(capsys, *argv)
    assert code == 2, f"{argv} went on"
    assert tree(folder) == before
    return err


def newest(run: Path) -> Path:
    return sorted(p for p in (run / "saves").iterdir() if p.name[0] != ".")[-1]


def sealed(save: Path) -> None:
    """Make the checksums fit what the files hold now: damage that no checksum shows."""
    digests = [hashlib.sha256((save / f).read_bytes()).hexdigest() for f in ("state.json", "state.safetensors")]
    (save / "SHA256SUMS").write_text(sums_of(*digests))


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.randrange(1, 5000)))


def insert(path: Path, rng: random.Random) -> None:
    data, place = path.read_bytes(), rng.randrange(path.stat().st_size)
    path.write_bytes(data[:place] + rng.randbytes(rng.randrange(1, 50)) + data[place:])


DAMAGE = {"flip": flip, "cut": cut, "noise": noise, "insert": insert}


# ------------------------------------------------------------------------------------------- damaged at random


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["state.json", "state.safetensors", "SHA256SUMS"])
def test_a_damaged_save(capsys, tmp_path, runs, file, damage, seed):
    shutil.copytree(runs / "cut", tmp_path / "run")
    save = newest(tmp_path / "run")
    DAMAGE[damage](save / file, random.Random(f"{file} {damage} {seed}"))
    for argv in (["train", "gpt", "--resume", tmp_path / "run"], ["generate", tmp_path / "run", "--tokens", 3]):
        assert f"{save} is damaged" in refused(capsys, tmp_path, *argv)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights(capsys, tmp_path, runs, damage, seed):
    shutil.copytree(runs / "done", tmp_path / "run")
    path = tmp_path / "run" / "weights.safetensors"
    DAMAGE[damage](path, random.Random(f"{damage} {seed}"))
    assert "weights.safetensors" in refused(capsys, tmp_path, "generate", tmp_path / "run", "--tokens", 3)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_config(capsys, tmp_path, runs, damage, seed):
    """Some damage leaves a config that says something else, or the same: then the command may work, or say so."""
    shutil.copytree(runs / "done", tmp_path / "run")
    DAMAGE[damage](tmp_path / "run" / "config.json", random.Random(f"{damage} {seed}"))
    before = tree(tmp_path)
    code, _ = command(capsys, "generate", tmp_path / "run", "--tokens", 3)
    assert code in (0, 2) and tree(tmp_path) == before
    code, _ = command(capsys, "train", "gpt", "--resume", tmp_path / "run", "--quiet")
    assert code == 2 and tree(tmp_path) == before  # it has done its steps, if it can be read


# --------------------------------------------------------------------------------------------- made to do harm


def config_with(**changes):
    """Damage of config.json: settings of the model, or (with a "_") entries beside them; None as the string "del"."""

    def damage(run):
        path = run / "config.json"
        config = json.loads(path.read_text())
        for name, value in changes.items():
            place = config if name.startswith("_") else config["config"]
            place[name.removeprefix("_")] = value
        path.write_text(json.dumps(config))

    return damage


def raw_config(text):
    return lambda run: (run / "config.json").write_text(text)


HUGE = 10**15
CONFIGS = {
    "huge width": config_with(width=HUGE, heads=1),
    "huge vocabulary": config_with(vocab_size=HUGE),
    "huge context": config_with(context=HUGE),
    "huge context, rotary": config_with(context=HUGE, position="rotary", heads=1),
    "huge layers": config_with(layers=HUGE),
    "huge experts": config_with(experts=HUGE),
    "huge mlp": config_with(mlp_width=HUGE),
    "huge heads": config_with(heads=HUGE, head_dim=2),
    "huge kv heads": config_with(heads=2, kv_heads=HUGE),
    "huge head_dim": config_with(head_dim=HUGE),
    "long number": raw_config('{"model": "gpt", "config": {"width": ' + "9" * 5000 + "}}"),
    "deep nesting": raw_config("[" * 200_000),
    "text for a number": config_with(width="8"),
    "list for a number": config_with(width=[8]),
    "float for a number": config_with(width=8.0),
    "true for a number": config_with(layers=True),
    "null for a number": config_with(width=None),
    "number for text": config_with(position=3),
    "dict for text": config_with(norm={"a": 1}),
    "text for true": config_with(bias="yes"),
    "text for a float": config_with(norm_eps="tiny"),
    "NaN": config_with(softcap=float("nan")),
    "infinity": config_with(rotary_base=float("inf")),
    "negative": config_with(width=-8),
    "zero heads": config_with(heads=0),
    "short list": config_with(position="rotary", rotary_scaling=[1.0, 2.0], heads=1),
    "list of text": config_with(position="rotary", rotary_scaling=["a"] * 4, heads=1),
    "unknown setting": config_with(**{"os.system": "touch harm"}),
    "model as a path": config_with(_model="../../etc/passwd"),
    "model as code": config_with(_model="__import__('os').system('touch harm')"),
    "config as a list": config_with(_config=[]),
    "tokenizer as a list": config_with(_tokenizer=[1]),
    "tokenizer as text": config_with(_tokenizer="characters"),
    "tokenizer of no kind": config_with(_tokenizer={}),
    "tokenizer unsorted": config_with(_tokenizer={"type": "characters", "vocabulary": "ba", "unknown": "error"}),
    "vocabulary of numbers": config_with(_tokenizer={"type": "characters", "vocabulary": [1], "unknown": "error"}),
    "subwords of nothing": config_with(_tokenizer={"type": "subword"}),
    "subwords as a list": config_with(_tokenizer={"type": "subword", "tokenizer": [], "json": [], "text": []}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_harmful_config(capsys, tmp_path, runs, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "done", tmp_path / "run")
    CONFIGS[name](tmp_path / "run")
    message = refused(capsys, tmp_path, "generate", tmp_path / "run", "--tokens", 3)
    assert message.startswith("minillm generate: ") and not (tmp_path / "harm").exists()


def state_with(change):
    """Damage of the newest save's state.json, its checksums made anew."""

    def damage(run):
        save = newest(run)
        about = json.loads((save / "state.json").read_text())
        change(about)
        (save / "state.json").write_text(json.dumps(about))
        sealed(save)

    return damage


def arrays_with(data):
    """Other bytes as the newest save's arrays, with all that says so made anew."""

    def damage(run):
        save = newest(run)
        content = data(save / "state.safetensors") if callable(data) else data
        (save / "state.safetensors").write_bytes(content)
        about = json.loads((save / "state.json").read_text())
        about["arrays_bytes"] = len(content)
        (save / "state.json").write_text(json.dumps(about))
        sealed(save)

    return damage


def header(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def put(*path, value):
    """A change of state.json: the value at that path."""

    def change(about):
        for key in path[:-1]:
            about = about[key]
        about[path[-1]] = value

    return state_with(change)


def other_arrays(change):
    def data(path):
        from safetensors.numpy import load_file, save

        arrays = load_file(path)
        change(arrays)
        return save(arrays)

    return arrays_with(data)


LOOP, CONFIG = ("state", "loop"), ("state", "config")
MODEL = (*LOOP, "parts", "model")
STATES = {
    "a list": state_with(lambda a: a.update(state=[])),
    "another format": put("format", value="pickle"),
    "no loop": state_with(lambda a: a["state"].pop("loop")),
    "no config": state_with(lambda a: a["state"].pop("config")),
    "no parts": state_with(lambda a: a["state"]["loop"].pop("parts")),
    "parts as text": put(*LOOP, "parts", value="all"),
    "parts missing": put(*LOOP, "parts", value={}),
    "model as a number": put(*MODEL, value=3),
    "an array that is not there": put(*MODEL, "token.weight", value={"$array": "nothing"}),
    "an array of another place": put(*MODEL, "token.weight", value={"$array": "loop.parts.model.norm.bias"}),
    "an array by a list": put(*MODEL, "token.weight", value={"$array": [1]}),
    "a number for an array": put(*MODEL, "token.weight", value=1.0),
    "an array by a path": put(*MODEL, "token.weight", value={"$array": "/etc/passwd"}),
    "a float of text": put(*LOOP, "best", value={"$float": "exec"}),
    "step as text": put(*LOOP, "step", value="many"),
    "step as null": put(*LOOP, "step", value=None),
    "rows as numbers": put(*LOOP, "rows", value=[1, 2]),
    "recent as text": put(*LOOP, "recent", value="abc"),
    "generator too short": put(*LOOP, "generator", value=[1]),
    "generator as text": put(*LOOP, "generator", value="ab"),
    "optimizer empty": put(*LOOP, "parts", "optimizer", value={}),
    "optimizer's groups empty": put(*LOOP, "parts", "optimizer", "param_groups", value=[]),
    "optimizer's state elsewhere": put(*LOOP, "parts", "optimizer", "state", value={"999": {"step": 1}}),
    "optimizer's state as a list": put(*LOOP, "parts", "optimizer", "state", value=[1]),
    "huge width": put(*CONFIG, "config", "width", value=HUGE),
    "huge context": put(*CONFIG, "config", "context", value=HUGE),
    "settings missing": state_with(lambda a: a["state"]["config"].pop("settings")),
    "settings as a list": put(*CONFIG, "settings", value=[]),
    "settings of text": put(*CONFIG, "settings", "steps", value="many"),
    "settings unknown": put(*CONFIG, "settings", "__init__", value=1),
    "settings of a wrong kind": put(*CONFIG, "settings", "optimizer", value="sgd"),
    "seed as text": put(*CONFIG, "seed", value="lucky"),
    "seed negative": put(*CONFIG, "seed", value=-1),
    "data as a list": put(*CONFIG, "data", value=["a"]),
    "data a device": put(*CONFIG, "data", value="/dev/zero"),
    "data a folder": put(*CONFIG, "data", value="/"),
    "data with a NUL": put(*CONFIG, "data", value="a\0b"),
    "tokenizer missing": state_with(lambda a: a["state"]["config"].pop("tokenizer")),
    "tokenizer of another text": put(
        *CONFIG, "tokenizer", value={"type": "characters", "vocabulary": "xyz", "unknown": "error"}
    ),
    "checksum of the text missing": state_with(lambda a: a["state"]["config"].pop("text_sha256")),
    "no arrays": arrays_with(b""),
    "arrays of another format": arrays_with(b"\x80\x04\x95cos\nsystem\n(S'touch harm'\ntR."),
    "a huge header": arrays_with(struct.pack("<Q", 2**63) + b"{}"),
    "a huge array": arrays_with(header(a={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]})),
    "overlapping arrays": arrays_with(
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
               b={"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}) + bytes(6)
    ),
    "negative offsets": arrays_with(header(a={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}) + bytes(4)),
    "an unknown dtype": arrays_with(header(a={"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}) + bytes(8)),
    "another shape": other_arrays(lambda a: a.update({"loop.parts.model.token.weight": np.zeros((3, 3), np.float32)})),
    "another dtype": other_arrays(lambda a: a.update({"loop.parts.model.token.weight": np.zeros((9, 8), np.int64)})),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_harmful_save(capsys, tmp_path, runs, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "cut", tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()  # so that the save's own config is what is read
    STATES[name](tmp_path / "run")
    message = refused(capsys, tmp_path, "train", "gpt", "--resume", tmp_path / "run", "--quiet")
    assert message.startswith("minillm train gpt: ") and not (tmp_path / "harm").exists()


def test_a_link_for_a_save(capsys, tmp_path, runs):
    """To a device that never ends, to a folder elsewhere, to itself."""
    for target in ("/dev/zero", str(tmp_path), "state.safetensors"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(runs / "cut", tmp_path / "run")
        path = newest(tmp_path / "run") / "state.safetensors"
        path.unlink()
        path.symlink_to(target)
        assert "state.safetensors" in refused(capsys, tmp_path, "train", "gpt", "--resume", tmp_path / "run")


def test_files_much_larger_than_written(capsys, tmp_path, runs):
    """Sparse files of a terabyte: their size alone is looked at."""
    for file in ("state.safetensors", "state.json", "SHA256SUMS"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(runs / "cut", tmp_path / "run")
        os.truncate(newest(tmp_path / "run") / file, 2**40)
        assert "bytes" in refused(capsys, tmp_path, "train", "gpt", "--resume", tmp_path / "run")
    shutil.copytree(runs / "done", tmp_path / "done")
    os.truncate(tmp_path / "done" / "config.json", 2**40)
    assert "config.json" in refused(capsys, tmp_path, "generate", tmp_path / "done")
    (tmp_path / "text.txt").touch()
    os.truncate(tmp_path / "text.txt", 2**40)
    argv = ["train", "gpt", "--data", tmp_path / "text.txt", "--out", tmp_path / "out", "--quiet"]
    assert "not enough memory" in refused(capsys, tmp_path / "run", *argv)


def test_a_save_by_an_odd_name(capsys, tmp_path, runs):
    """Names that lead elsewhere are no saves; a number that no integer holds is one, and nothing breaks."""
    shutil.copytree(runs / "cut", tmp_path / "run")
    saves = tmp_path / "run" / "saves"
    for odd in ("9999-step-1\n", "0009-step-..", "0009-step-9 ", "-step-", "9" * 13 + "-step-1"):
        (saves / odd).mkdir()
    assert command(capsys, "train", "gpt", "--resume", tmp_path / "run", "--quiet")[0] == 0


# -------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_data(capsys, tmp_path, runs, damage, seed):
    """A run goes on with its own text only; whatever became of the file, it says so."""
    shutil.copytree(runs / "cut", tmp_path / "run")
    shutil.copy(runs / "text.txt", tmp_path / "text.txt")
    DAMAGE[damage](tmp_path / "text.txt", random.Random(f"{damage} {seed}"))
    argv = ["train", "gpt", "--resume", tmp_path / "run", "--data", tmp_path / "text.txt", "--quiet"]
    message = refused(capsys, tmp_path, *argv)
    assert any(word in message for word in ("changed since", "UTF-8", "NUL", "not among", "is empty", "needs at least"))


@pytest.mark.parametrize("model", ["vae", "attention"])
def test_images_that_declare_too_much(capsys, tmp_path, model):
    """idx files whose header promises more images than there are bytes, or than there could be."""
    for count, rows, columns in ((2**31 - 1, 28, 28), (10, 2**31 - 1, 2**31 - 1), (2**32 - 1, 2**32 - 1, 2**32 - 1)):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, rows, columns) + bytes(100))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + bytes(10))
        refused(capsys, tmp_path, "train", model, "--data", tmp_path, "--out", tmp_path / "out", "--quiet")
