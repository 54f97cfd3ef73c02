"""Folders in Hugging Face's form that are damaged, or made to do harm: one sentence, little memory, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from minillm.cli import main
from minillm.data import DataError
from minillm.models import GPT
from minillm.models.huggingface import load_pretrained, save_pretrained
from minillm.text import SubwordTokenizer
from minillm.training import RunError

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.timeout(60)
MEMORY = 32 * 2**20  # bytes that a refusal may take; the models have some 100,000
INDEX, FILE = "model.safetensors.index.json", "model.safetensors"
SIZES = {"vocab_size": 300, "context": 16, "layers": 2, "heads": 4, "width": 16}
LLAMA = {
    "position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "kv_heads": 2, "tie": False,
    "rotary_scaling": (8.0, 1.0, 4.0, 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four folders that can be read: both families, in one file and in several."""
    tokenizer = SubwordTokenizer.train("the cat sat on the mat; " * 20, 300)
    folders = {}
    for family, settings in (("gpt2", {}), ("llama", LLAMA)):
        for form, shard_bytes in (("file", 2**30), ("shards", 6000)):
            folder = tmp_path_factory.mktemp(f"{family}-{form}")
            save_pretrained(GPT(**{**SIZES, **settings}), folder, tokenizer, shard_bytes)
            assert load_pretrained(folder)[1].vocab_size <= 300
            folders[family, form] = folder
    return folders


@pytest.fixture
def copy(whole, tmp_path):
    def make(family="gpt2", form="file"):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(whole[family, form], folder)

    return make


@contextmanager
def harmless(folder):
    """Inside, little memory is taken, and no file changes."""
    before = {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()}
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak:,} bytes"
    assert {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()} == before


def refused(folder, what="") -> str:
    """The sentence with which the folder is refused."""
    with harmless(folder):
        try:
            load_pretrained(folder)
        except (DataError, RunError) as error:
            sentence = str(error)
        else:
            raise AssertionError(f"{what}: it was read")
    assert 20 < len(sentence) < 1000 and "\n" not in sentence, (what, sentence)
    return sentence


# --------------------------------------------------------------------------------------------------- config.json

SIZE, NUMBER, FLAG, WORD, OBJECT = "size", "number", "flag", "word", "object"
WRONG = {
    SIZE: ["16", -1, 0, 16.5, True, [16], {"a": 1}, 10**12, 10**30, float("nan")],
    NUMBER: ["1", -1.0, 0, True, [1.0], float("nan"), float("inf"), 10**400],
    FLAG: ["true", 0, 1, "", [True]],
    WORD: ["tanh", 3, True, ["silu"], {}, "__class__"],
    OBJECT: ["default", 3, [1], True],
}
FIELDS = {
    "gpt2": {
        "vocab_size": SIZE, "n_positions": SIZE, "n_embd": SIZE, "n_layer": SIZE, "n_head": SIZE, "n_inner": SIZE,
        "layer_norm_epsilon": NUMBER, "tie_word_embeddings": FLAG, "activation_function": WORD, "model_type": WORD,
        "scale_attn_weights": FLAG,
    },
    "llama": {
        "vocab_size": SIZE, "max_position_embeddings": SIZE, "hidden_size": SIZE, "num_hidden_layers": SIZE,
        "num_attention_heads": SIZE, "num_key_value_heads": SIZE, "head_dim": SIZE, "intermediate_size": SIZE,
        "rms_norm_eps": NUMBER, "rope_theta": NUMBER, "tie_word_embeddings": FLAG, "attention_bias": FLAG,
        "mlp_bias": FLAG, "hidden_act": WORD, "model_type": WORD, "rope_scaling": OBJECT,
    },
}  # fmt: skip


def edit(path, change):
    value = json.loads(path.read_text())
    value = change(value) or value
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(("family", "name"), [(f, name) for f, names in FIELDS.items() for name in names])
def test_values_of_a_wrong_kind(copy, family, name):
    folder = copy(family)
    text = (folder / "config.json").read_text()
    for value in WRONG[FIELDS[family][name]]:
        (folder / "config.json").write_text(text)
        edit(folder / "config.json", lambda c, value=value: c.update({name: value}))
        refused(folder, f"{name}={value!r}")


CONFIGS = {
    "gpt2": [
        {"n_layer": 1}, {"n_layer": 3}, {"n_layer": 10**9}, {"n_head": 3}, {"n_embd": 32}, {"n_inner": 63},
        {"n_positions": 15}, {"vocab_size": 301}, {"vocab_size": 2**31}, {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True}, {"tie_word_embeddings": False}, {"model_type": "llama"}, {"model_type": "bert"},
        {"model_type": None}, {"quantization_config": {"bits": 4}}, {"resid_pdrop": 1.5}, {"attn_pdrop": "0"},
    ],
    "llama": [
        {"num_hidden_layers": 1}, {"num_hidden_layers": 10**9}, {"num_key_value_heads": 3}, {"head_dim": 3},
        {"head_dim": 8}, {"num_attention_heads": 16}, {"max_position_embeddings": 2**40}, {"hidden_size": 2**30},
        {"tie_word_embeddings": True}, {"attention_bias": True, "mlp_bias": True}, {"intermediate_size": 2**33},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, {"rope_scaling": {"rope_type": "llama3"}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, {"rope_scaling": {"rope_type": ["llama3"]}},
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, {"rope_parameters": {"rope_theta": "1"}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": "8"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", ["file", "shards"])
@pytest.mark.parametrize(("family", "change"), [(f, c) for f, changes in CONFIGS.items() for c in changes], ids=str)
def test_configs_that_do_not_fit_the_weights_or_the_model(copy, family, form, change):
    folder = copy(family, form)
    edit(folder / "config.json", lambda c: c.update(change))
    refused(folder, str(change))


TEXTS = {
    "empty": b"", "cut": b'{"model_type": "gpt2", "n_la', "a list": b"[1, 2]", "a number": b"3", "null": b"null",
    "not UTF-8": b'{"model_type": "\xff\xfe"}', "deep": b"[" * 200_000, "deep object": b'{"a":' * 100_000,
    "zeros": bytes(1000), "a long number": b'{"n_layer": ' + b"9" * 10_000 + b"}", "an empty object": b"{}",
}  # fmt: skip


@pytest.mark.parametrize("file", ["config.json", INDEX, "tokenizer.json", FILE])
@pytest.mark.parametrize("text", TEXTS)
def test_files_of_something_else(copy, file, text):
    folder = copy("llama", "shards" if file == INDEX else "file")
    (folder / file).write_bytes(TEXTS[text])
    assert file in refused(folder, text)


@pytest.mark.parametrize("file", ["config.json", FILE, INDEX, "model-00002", "tokenizer.json"])
@pytest.mark.parametrize("become", ["missing", "folder", "pipe", "dangling link"])
def test_files_that_are_none(copy, file, become):
    folder = copy("gpt2", "shards" if file in (INDEX, "model-00002") else "file")
    path = next(folder.glob(f"{file}*"))
    path.unlink()
    if become == "folder":
        path.mkdir()
    elif become == "pipe":
        os.mkfifo(path)  # reading it would wait for ever
    elif become == "dangling link":
        path.symlink_to(folder / "nowhere")
    if file == "tokenizer.json" and become in ("missing", "dangling link"):
        assert load_pretrained(folder)[1] is None
    else:
        refused(folder, become)


def test_no_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path / "a\0b", __file__):
        with pytest.raises((DataError, RunError)):
            load_pretrained(path)


# ------------------------------------------------------------------------------------------------------- index

PLACES = [
    "../outside.safetensors", "{outside}", "sub/model.safetensors", "..\\outside.safetensors", "./link.safetensors",
    "", ".", "..", "missing.safetensors", "config.json", "model-00002-of-00003.safetensors\0", 3, None, ["a"], {"a": 1},
    "C:x.safetensors", ".hidden.safetensors", "a" * 300 + ".safetensors", "\ud800.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda p: repr(p)[:40])
def test_an_index_that_leads_elsewhere(copy, place):
    """Where it leads, there are weights that would fit: only the path is wrong."""
    folder = copy("gpt2", "shards")
    index = json.loads((folder / INDEX).read_text())
    name, file = next(iter(index["weight_map"].items()))
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / file, outside)
    (folder / "sub").mkdir()
    shutil.copy(folder / file, folder / "sub" / FILE)
    for other in ("link.safetensors", ".hidden.safetensors", "..\\outside.safetensors", "C:x.safetensors"):
        shutil.copy(folder / file, folder / other)
    place = str(outside) if place == "{outside}" else place
    index["weight_map"] = {n: place if f == file else f for n, f in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, str(place)[:40])


@pytest.mark.parametrize("places", [None, [], {}, "x", 3, {"a": "b.safetensors"}], ids=str)
def test_an_index_without_places(copy, places):
    folder = copy("gpt2", "shards")
    edit(folder / INDEX, lambda i: i.update(weight_map=places))
    refused(folder, str(places))


def test_an_index_that_sends_a_tensor_to_the_wrong_file(copy):
    folder = copy("gpt2", "shards")
    last = sorted(json.loads((folder / INDEX).read_text())["weight_map"].values())[-1]
    edit(folder / INDEX, lambda i: i["weight_map"].update({next(iter(i["weight_map"])): last}))
    refused(folder)


# ------------------------------------------------------------------------------------------------- safetensors


def split(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(path, header, numbers, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + numbers)


NAME = "transformer.h.1.mlp.c_fc.weight"  # (16, 64)


def _tensor(**changes):
    def change(header, numbers):
        header[NAME] = {**header[NAME], **changes}

    return change


def _header(change):
    return lambda header, numbers: change(header)


def _all_at_the_same_place(header):
    """A file of a kilobyte, every tensor of which is the same bytes."""
    for about in header.values():
        if "shape" in about:
            about["data_offsets"] = [0, 4 * int(np.prod(about["shape"]))]


HEADERS = {
    "huge shape": _tensor(shape=[10**12, 64]),
    "huge shape, huge offsets": _tensor(shape=[10**6, 10**6], data_offsets=[0, 4 * 10**12]),
    "a shape that overflows": _tensor(shape=[2**62, 2**62]),
    "a negative shape": _tensor(shape=[-16, -64]),
    "a shape of floats": _tensor(shape=[16.0, 64.0]),
    "a shape of text": _tensor(shape="16x64"),
    "no shape": _tensor(shape=[]),
    "transposed": _tensor(shape=[64, 16]),
    "flat": _tensor(shape=[1024]),
    "zero rows": _tensor(shape=[0, 64]),
    "int32": _tensor(dtype="I32"),
    "uint8": _tensor(dtype="U8", shape=[64, 64]),
    "an unknown dtype": _tensor(dtype="F33"),
    "dtype 3": _tensor(dtype=3),
    "half the bytes": _tensor(dtype="F64"),
    "twice the bytes": _tensor(dtype="BF16"),
    "offsets the wrong way round": _tensor(data_offsets=[400, 100]),
    "negative offsets": _tensor(data_offsets=[-4096, 0]),
    "offsets out of the file": _tensor(data_offsets=[10**9, 10**9 + 4096]),
    "one offset": _tensor(data_offsets=[0]),
    "offsets of text": _tensor(data_offsets=["0", "4096"]),
    "null": _header(lambda h: h.update({NAME: None})),
    "a list": _header(lambda h: h.update({NAME: [1, 2]})),
    "no dtype": _header(lambda h: h[NAME].pop("dtype")),
    "a tensor less": _header(lambda h: h.pop(NAME)),
    "another name": _header(lambda h: h.update({NAME + "s": h.pop(NAME)})),
    "an empty tensor more": _header(lambda h: h.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
    "metadata of numbers": _header(lambda h: h.update(__metadata__={"a": 3})),
    "all tensors at one place": _header(_all_at_the_same_place),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_headers(copy, case):
    folder = copy()
    header, numbers = split(folder / FILE)
    HEADERS[case](header, numbers)
    join(folder / FILE, header, numbers)
    assert FILE in refused(folder, case) or case in ("a tensor less", "another name", "an empty tensor more")


@pytest.mark.parametrize("length", [0, 1, 7, 10**8, 2**40, 2**63, 2**64 - 1])
def test_a_length_of_the_header_that_is_wrong(copy, length):
    folder = copy()
    join(folder / FILE, *split(folder / FILE), length=length)
    refused(folder, str(length))


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("form", ["file", "shards"])
def test_a_file_cut_short(copy, form, kept):
    folder = copy(form=form)
    path = sorted(folder.glob("*.safetensors"))[-1]
    size = path.stat().st_size
    os.truncate(path, kept if isinstance(kept, int) else int(size * kept))
    assert path.name in refused(folder, str(kept))


def test_a_file_with_more_behind_its_numbers(copy):
    folder = copy()
    with open(folder / FILE, "ab") as f:
        f.write(b"\0" * 64)
    refused(folder)


# --------------------------------------------------------------------------------------------- tokenizer.json

TOKENIZERS = {
    "another file": lambda t: {"chat_template": "x", "model_max_length": 1024},
    "no model": lambda t: t.pop("model") and None,
    "an unknown model": lambda t: t["model"].update(type="Magic"),
    "ids of text": lambda t: t["model"].update(vocab={"a": "0"}),
    "a negative id": lambda t: t["model"].update(vocab={"a": -1}),
    "an id of a terabyte": lambda t: t["model"].update(vocab={"a": 10**12}),
    "an id of four billion": lambda t: t["model"]["vocab"].update(a=2**32 - 1),
    "more tokens than the model": lambda t: t["model"]["vocab"].update({f"extra{i}": 300 + i for i in range(9)}),
    "no tokens": lambda t: t["model"].update(vocab={}, merges=[]),
    "merges of unknown tokens": lambda t: t["model"].update(merges=[["qqq", "zzz"]]),
    "merges of one": lambda t: t["model"].update(merges=["a"]),
    "another version": lambda t: t.update(version="77"),
    "a broken pattern": lambda t: t.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(["}, "behavior": "Isolated", "invert": False}
    ),
    "an unknown decoder": lambda t: t.update(decoder={"type": "Magic"}),
    "added tokens of numbers": lambda t: t.update(added_tokens=[3]),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers(copy, case):
    folder = copy()
    edit(folder / "tokenizer.json", TOKENIZERS[case])
    assert "tokenizer.json" in refused(folder, case)


# ------------------------------------------------------------------------------------------------ at random

FLIPPED = ["config.json", "tokenizer.json", INDEX, FILE]


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits(copy, seed):
    """Whatever is flipped: either the folder is refused in a sentence, or (numbers have no checksum) it is read."""
    rng = np.random.default_rng(seed)
    file = FLIPPED[seed % 4]
    folder = copy("gpt2" if seed % 8 < 4 else "llama", "shards" if file == INDEX else "file")
    data = (folder / file).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little") if file == FILE else len(data)
    for _ in range(6):
        bad = bytearray(data)
        for bit in rng.integers(0, 8 * end, 1 + seed % 3):
            bad[bit // 8] ^= 1 << (bit % 8)
        (folder / file).write_bytes(bytes(bad))
        with harmless(folder):
            try:
                model, _ = load_pretrained(folder)
            except (DataError, RunError) as error:
                assert "\n" not in str(error)
            else:
                assert model.num_parameters() < 100_000


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_the_command_says_it_in_one_line(copy, capsys, command):
    folder = copy()
    os.truncate(folder / FILE, 5000)
    flags = ["--prompt", "the"] if command == "generate" else []
    assert main([command, str(folder), *flags]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and FILE in err


# --------------------------------------------------------------------------------------------------- writing


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "gpt", "config": {}}')
    with harmless(tmp_path / "config.json"), pytest.raises((DataError, RunError), match=r"config\.json"):
        save_pretrained(GPT(**SIZES), tmp_path)
    with harmless(tmp_path / "config.json"), pytest.raises((DataError, RunError)):
        save_pretrained(GPT(**SIZES), tmp_path / "config.json")


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "alibi"}, {"position": "rotary"}, {"norm": "rms"}, {"mlp": "swiglu"}, {**LLAMA, "window": 4},
        {**LLAMA, "qk_norm": True}, {"softcap": 15.0}, {"experts": 4}, {"kv_heads": 2}, {"head_dim": 8},
        {**LLAMA, "mlp": "relu2"}, {"position": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_format_cannot_hold_is_not_written(tmp_path, settings):
    folder = tmp_path / "new"
    with pytest.raises((DataError, RunError)) as error:
        save_pretrained(GPT(**{**SIZES, **settings}), folder)
    assert any(name in str(error.value) for name in settings) and not folder.exists()


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_that_fails_leaves_a_whole_model_or_none(copy, monkeypatch, call, step):
    """What is read afterwards is the old model or the new one, never some tensors of each."""
    folder = copy("gpt2", "shards")
    old, new = load_pretrained(folder)[0].state_dict(), GPT(**SIZES)
    real, calls = getattr(os, call), []

    def failing(*args, **settings):
        calls.append(args)
        if len(calls) == 1 + step:
            raise OSError(28, "No space left on device")
        return real(*args, **settings)

    monkeypatch.setattr(os, call, failing)
    try:
        save_pretrained(new, folder, shard_bytes=6000)
    except (DataError, RunError) as error:
        assert "No space left" in str(error)
    monkeypatch.undo()
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    try:
        found = load_pretrained(folder)[0].state_dict()
    except (DataError, RunError):
        assert call == "replace"  # before the first file takes its place all is as it was
        return
    wanted = [s for s in (old, new.state_dict()) if all(np.array_equal(s[k], found[k]) for k in s)]
    assert wanted, "a mixture of two models"
