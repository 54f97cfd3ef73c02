"""Folders in Hugging Face's form without Hugging Face's libraries: out and in again, to the bit."""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
import tracemalloc

import numpy as np
import pytest
from hub_folders import GPT2, LLAMA, contents, edit_json, header_of, ids_for, made, write_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm.models import GPT
from minillm.models.huggingface import HubError, gpt2, llama, load_pretrained, save_pretrained
from minillm.models.huggingface.weights import bfloat16_to_float32, find_tensors
from minillm.text import CharTokenizer
from minillm.training.lora import LoRA


def state_equal(a: GPT, b: GPT) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)


@st.composite
def configs(draw):
    heads = draw(st.sampled_from([1, 2, 4]))
    common = {
        "vocab_size": draw(st.integers(1, 20)), "context": draw(st.integers(1, 12)), "layers": draw(st.integers(1, 3)),
        "heads": heads, "width": 4 * heads, "norm_eps": draw(st.sampled_from([1e-6, 1e-5])), "tie": draw(st.booleans()),
        "mlp_width": draw(st.sampled_from([None, 5, 24])),
    }  # fmt: skip
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["gelu", "gelu_tanh", "relu2"]))
        return {**common, "mlp": kind, "dropout": draw(st.sampled_from([0.0, 0.1]))}
    scaling = draw(st.sampled_from([None, (8.0, 1.0, 4.0, 6), (2.0, *llama.SLOW_ALL, common["context"])]))
    return {
        **common, "position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": draw(st.booleans()),
        "kv_heads": draw(st.sampled_from([None, 1, heads])), "head_dim": draw(st.sampled_from([None, 2, 6])),
        "rotary_base": draw(st.sampled_from([100.0, 10000.0, 5e5])), "rotary_scaling": scaling,
    }  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(configs(), st.sampled_from([1, 700, 10**9]))
def test_every_model_comes_back_to_the_bit(tmp_path_factory, config, shard_bytes):
    folder, model = tmp_path_factory.mktemp("model"), made(**config)
    save_pretrained(model, folder, shard_bytes=shard_bytes)
    again, tokenizer = load_pretrained(folder)
    assert tokenizer is None and not again.training
    assert state_equal(again, model)
    ids = ids_for(model)
    np.testing.assert_array_equal(again(ids).numpy(), model(ids).numpy())
    for name in ("context", "heads", "tie", "mlp", "position", "rotary_scaling", "rotary_base", "dropout", "norm_eps"):
        assert getattr(again.config, name) == getattr(model.config, name)
    before = contents(folder)
    save_pretrained(again, folder, shard_bytes=shard_bytes)
    first, second = json.loads(before.pop("config.json")), json.loads(contents(folder).pop("config.json"))
    assert before == {k: v for k, v in contents(folder).items() if k != "config.json"}
    assert {k: v for k, v in first.items() if v is not None}.items() <= second.items()


def test_biases_that_gpt2_has_and_the_model_lacks(tmp_path):
    model = made(**GPT2, bias=False)
    save_pretrained(model, tmp_path)
    again, _ = load_pretrained(tmp_path)
    assert again.config.bias and not again.blocks[0].attention.in_proj_bias.numpy().any()
    ids = ids_for(model)
    np.testing.assert_allclose(again(ids).numpy(), model(ids).numpy(), rtol=1e-5, atol=1e-6)


def test_gpt2_matrices_are_stored_the_other_way_round(tmp_path):
    model = made(**GPT2)
    save_pretrained(model, tmp_path)
    header, data = header_of(tmp_path / "model.safetensors")
    assert header["transformer.h.1.attn.c_attn.weight"]["shape"] == [24, 72]
    first, end = header["transformer.h.1.attn.c_attn.weight"]["data_offsets"]
    stored = np.frombuffer(data[first:end], "<f4").reshape(24, 72)
    np.testing.assert_array_equal(stored, model.blocks[1].attention.in_proj_weight.numpy().T)


def test_names_without_the_prefix_and_with_masks_beside_them(tmp_path):
    """So OpenAI's own files are; other old files keep the rotary angles."""
    for kind, more in ((GPT2, "h.0.attn.bias"), (LLAMA | {"tie": True}, "layers.0.self_attn.rotary_emb.inv_freq")):
        model = made(**kind)
        save_pretrained(model, tmp_path)
        header, data = header_of(tmp_path / "model.safetensors")
        renamed = {k.removeprefix("transformer.").removeprefix("model."): v for k, v in header.items()}
        renamed[more] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
        write_tensors(tmp_path / "model.safetensors", renamed, data + b"\0" * 4)
        assert state_equal(load_pretrained(tmp_path)[0], model)


def test_a_tied_head_may_be_stored_as_well(tmp_path):
    model = made(**GPT2)
    save_pretrained(model, tmp_path)
    header, data = header_of(tmp_path / "model.safetensors")
    first, end = header["transformer.wte.weight"]["data_offsets"]
    twice = header | {
        "lm_head.weight": {"dtype": "F32", "shape": [37, 24], "data_offsets": [len(data), len(data) + end - first]}
    }
    write_tensors(tmp_path / "model.safetensors", twice, data + data[first:end])
    assert state_equal(load_pretrained(tmp_path)[0], model)
    write_tensors(tmp_path / "model.safetensors", twice, data + data[first : end - 1] + b"\1")
    with pytest.raises(HubError, match=r"one \(tie_word_embeddings\)"):
        load_pretrained(tmp_path)


def test_a_part_of_the_context(tmp_path):
    for kind in (GPT2, LLAMA):
        model = made(**kind)
        save_pretrained(model, tmp_path)
        short, _ = load_pretrained(tmp_path, context=7)
        assert short.config.context == 7 and short.new_cache().capacity == 7
        ids = ids_for(model)[:, :7]
        np.testing.assert_array_equal(short(ids).numpy(), model(ids).numpy())
        for context in (0, 25):
            with pytest.raises(HubError, match="expected 1 to 24"):
                load_pretrained(tmp_path, context=context)


# ------------------------------------------------------------------------------------- kinds of numbers


def bfloat16(x: np.ndarray) -> np.ndarray:
    """uint16 bits, the nearest, ties to even."""
    wide = x.astype(np.float32).view(np.uint32)
    return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("kind", ["F16", "BF16", "F64"])
def test_other_floating_numbers_come_in_exactly(tmp_path, kind):
    model = made(**LLAMA)
    save_pretrained(model, tmp_path)
    header, data = header_of(tmp_path / "model.safetensors")
    new, parts, at = {}, [], 0
    for name, about in header.items():
        if name == "__metadata__":
            continue
        first, end = about["data_offsets"]
        x = np.frombuffer(data[first:end], "<f4")
        x = bfloat16(x) if kind == "BF16" else x.astype({"F16": "<f2", "F64": "<f8"}[kind])
        parts.append(x.tobytes())
        new[name] = {"dtype": kind, "shape": about["shape"], "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    write_tensors(tmp_path / "model.safetensors", new, b"".join(parts))
    again, _ = load_pretrained(tmp_path)
    for name, p in again.named_parameters():
        want = dict(model.named_parameters())[name].numpy()
        if kind == "BF16":
            want = (bfloat16(want).astype(np.uint32) << 16).view(np.float32)
        elif kind == "F16":
            want = want.astype(np.float16).astype(np.float32)
        assert p.dtype == (np.float64 if kind == "F64" else np.float32)
        np.testing.assert_array_equal(p.numpy(), want)


def test_bfloat16_numbers():
    bits = np.arange(2**16, dtype=np.uint16)
    x = bfloat16_to_float32(bits)
    assert x.dtype == np.float32 and x[0x3F80] == 1 and x[0xFF80] == -np.inf and np.isnan(x[0x7FC0])
    assert np.array_equal(x.view(np.uint32), bits.astype(np.uint32) * 2**16)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_model_of_other_numbers_is_saved_as_it_is(tmp_path, dtype):
    model = made(**LLAMA).to(dtype)
    save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == np.dtype(dtype).name
    again, _ = load_pretrained(tmp_path)
    assert again.token.weight.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert state_equal(again, made(**LLAMA).to(dtype))


def test_float64_whatever_the_memory_holds_before(tmp_path, monkeypatch):
    model, make = made(**GPT2).double(), GPT.from_config
    save_pretrained(model, tmp_path)

    def of_signalling_nans(config):
        new = make(config)
        for p in new.parameters():
            p.data.view(np.uint32)[...] = 0x7F800001  # converting it is an invalid operation
        return new

    monkeypatch.setattr(GPT, "from_config", of_signalling_nans)
    assert state_equal(load_pretrained(tmp_path)[0], model)


def test_no_more_memory_than_the_model_and_a_tensor(tmp_path):
    model = made(**LLAMA | {"width": 96, "layers": 12, "mlp_width": 256, "vocab_size": 800})
    save_pretrained(model.to(np.float16), tmp_path)
    size = 4 * model.num_parameters()
    largest = 4 * 800 * 96
    load_pretrained(tmp_path)  # whatever is imported or compiled once
    tracemalloc.start()
    try:
        again, _ = load_pretrained(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 10 * largest and 4 * again.num_parameters() == size
    assert peak < size + 2 * largest + 10**6  # the tensor as it is read and as it becomes; 1 MB: objects


def test_loading_draws_no_random_numbers(tmp_path):
    """Those of initial weights would take longer than the file, and change what a seed gives afterwards."""
    save_pretrained(made(**LLAMA), tmp_path)
    before = minillm.get_rng_state()
    load_pretrained(tmp_path)
    assert np.array_equal(minillm.get_rng_state(), before)


# -------------------------------------------------------------------------------------------- tokenizers


def test_tokenizers_of_all_kinds(tmp_path):
    pytest.importorskip("tokenizers")
    from minillm.text import ByteTokenizer, CharTokenizer, SubwordTokenizer

    text = "the cat sat on the mat, "
    for tokenizer in (
        ByteTokenizer(),
        CharTokenizer.train(text),
        SubwordTokenizer.train(text * 9, 270, ["<|endoftext|>"]),
    ):
        model = made(**GPT2 | {"vocab_size": 280})
        save_pretrained(model, tmp_path, tokenizer)
        _, again = load_pretrained(tmp_path)
        assert (
            again.encode(text).tolist() == tokenizer.encode(text).tolist() and again.vocab_size == tokenizer.vocab_size
        )
        end = json.loads((tmp_path / "config.json").read_text())["eos_token_id"]
        assert end == (0 if isinstance(tokenizer, SubwordTokenizer) else None)
    with pytest.raises(HubError, match="expected the tokenizer that the model was trained with"):
        save_pretrained(made(**GPT2), tmp_path, tokenizer)
    with pytest.raises(HubError, match="tokenizer.json"):
        save_pretrained(made(**GPT2), tmp_path, object())
    edit_json(tmp_path / "tokenizer_config.json", chat_template="mine")
    save_pretrained(model, tmp_path, tokenizer)
    assert "mine" in (tmp_path / "tokenizer_config.json").read_text()


def test_generate_reads_such_a_folder(tmp_path):
    pytest.importorskip("tokenizers")
    from minillm.generation.loading import load_writer
    from minillm.text import SubwordTokenizer

    tokenizer = SubwordTokenizer.train("a b c", 257, ["<|endoftext|>"])
    save_pretrained(made(**LLAMA | {"vocab_size": 300}), tmp_path, tokenizer)
    writer = load_writer(tmp_path)
    assert writer.end == (0,) and writer.first.tolist() == [0] and writer.tokenizer.decode([0]) == "<|endoftext|>"


# ------------------------------------------------------------------------------------------------ saving


@pytest.mark.parametrize(("change", "named"), [
    ({"window": 4}, "window"), ({"qk_norm": True}, "qk_norm"), ({"softcap": 15.0}, "softcap"),
    ({"experts": 2}, "experts"), ({"position": "alibi"}, "position='alibi'"), ({"norm": "rms"}, "norm='rms'"),
    ({"mlp": "swiglu"}, "mlp='swiglu'"), ({"position": "rotary"}, "position='rotary'"),
    ({"kv_heads": 1}, "kv_heads=1"), ({"head_dim": 6}, "head_dim=6"),
])  # fmt: skip
def test_models_that_the_formats_lack(tmp_path, change, named):
    with pytest.raises(HubError, match=named):
        save_pretrained(GPT(**GPT2 | change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_a_gpt_without_additions(tmp_path):
    with pytest.raises(HubError, match="expected a GPT, got Linear"):
        save_pretrained(minillm.nn.Linear(2, 2), tmp_path / "out")
    with pytest.raises(HubError, match="shard_bytes=0"):
        save_pretrained(GPT(**GPT2), tmp_path / "out", shard_bytes=0)
    model = GPT(**GPT2)
    model.extra = minillm.nn.Linear(2, 2)
    with pytest.raises(HubError, match=r"no place for the parameter 'extra.bias'"):
        save_pretrained(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merged_adapters_are_saved_as_weights(tmp_path):
    model = made(**LLAMA)
    lora = LoRA(model, ["blocks.0.attention.in_proj_weight"], 2, 4.0)
    for adapter in lora.adapters.values():
        for p in adapter.parameters():
            p.data[...] = 0.1
    ids = ids_for(model)
    adapted = model(ids).numpy()
    lora.merge()
    with pytest.raises(HubError, match=r"no place for the parameter .*lora"):
        save_pretrained(model, tmp_path)
    lora.remove()
    save_pretrained(model, tmp_path)
    np.testing.assert_allclose(load_pretrained(tmp_path)[0](ids).numpy(), adapted, rtol=1e-4, atol=1e-5)


def test_weights_that_were_there_before_are_gone(tmp_path):
    model = made(**GPT2)
    save_pretrained(made(1, **GPT2), tmp_path, shard_bytes=5000)
    (tmp_path / "README.md").write_text("mine")
    assert len(list(tmp_path.glob("model-*"))) > 3
    save_pretrained(model, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert state_equal(load_pretrained(tmp_path)[0], model)
    save_pretrained(model, tmp_path, shard_bytes=5000)
    assert not (tmp_path / "model.safetensors").exists()
    assert state_equal(load_pretrained(tmp_path)[0], model)


def test_shards_hold_at_most_so_many_bytes(tmp_path):
    save_pretrained(made(**LLAMA), tmp_path, shard_bytes=8000)
    tensors = find_tensors(tmp_path)
    files = sorted({t.path.name for t in tensors.values()})
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(4 * int(np.prod(t.shape)) for t in tensors.values())
    assert all(len(header_of(tmp_path / f)[1]) <= 8000 for f in files)


def test_another_config_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "gpt"}')
    with pytest.raises(HubError, match="would be lost"):
        save_pretrained(made(**GPT2), tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(HubError, match="is a file"):
        save_pretrained(made(**GPT2), tmp_path / "file")
    assert contents(tmp_path) == {"config.json": b'{"model": "gpt"}', "file": b"x"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, call):
    save_pretrained(made(1, **GPT2), tmp_path)
    before = contents(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as m:
        m.setattr(os, call, full)
        with pytest.raises(HubError, match="cannot be written: No space left"):
            save_pretrained(made(2, **GPT2), tmp_path, shard_bytes=5000)
    assert contents(tmp_path) == before


def test_nothing_takes_its_place_before_all_is_on_the_disk(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (order.append("sync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    save_pretrained(made(**GPT2), tmp_path, shard_bytes=10_000)
    count = order.count("replace")
    assert count == len(contents(tmp_path)) > 3
    assert order[:count] == ["sync"] * count and order[-2:] == ["replace", "sync"]


def test_all_files_may_be_read_by_whom_the_folder_belongs_to(tmp_path):
    save_pretrained(made(**GPT2), tmp_path)
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1


def test_neither_torch_nor_transformers_is_imported(tmp_path, monkeypatch):
    real = builtins.__import__

    def guarded(name, *args, **kwargs):
        assert name.split(".")[0] not in ("torch", "transformers", "huggingface_hub")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    save_pretrained(made(**GPT2), tmp_path)
    load_pretrained(tmp_path)


def test_each_entry_is_a_parameter_and_each_parameter_an_entry():
    for family, kind in ((gpt2, GPT2), (llama, LLAMA), (llama, LLAMA | {"bias": True, "tie": True})):
        model = GPT(**kind)
        rows: dict[str, int] = {}
        for e in family.entries(model.config):
            rows[e.ours] = rows.get(e.ours, 0) + (e.shape[1] if e.transposed else e.shape[0])
        assert rows == {name: p.shape[0] for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("how", ["terabyte", "endless"])
def test_files_that_do_not_fit_into_memory_are_not_read(tmp_path, name, how):
    pytest.importorskip("tokenizers")
    save_pretrained(made(**GPT2), tmp_path, CharTokenizer("ab"), 5000 if name.endswith("index.json") else 10**9)
    if how == "terabyte":
        os.truncate(tmp_path / name, 10**12)  # all of it a hole
    else:
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("/dev/zero")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(HubError, match=name.replace(".", r"\.")):
        load_pretrained(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KB


def test_links_are_followed(tmp_path):
    """In the Hub's cache a model's folder is made of links to files elsewhere."""
    model = made(**LLAMA)
    save_pretrained(model, tmp_path / "blobs", shard_bytes=5000)
    (tmp_path / "snapshot").mkdir()
    for p in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / p.name).symlink_to(p)
    assert state_equal(load_pretrained(tmp_path / "snapshot")[0], model)


def test_saving_over_links_leaves_their_targets(tmp_path):
    save_pretrained(made(1, **GPT2), tmp_path / "blobs")
    before = contents(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for p in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / p.name).symlink_to(p)
    save_pretrained(made(2, **GPT2), tmp_path / "snapshot")
    assert contents(tmp_path / "blobs") == before
    assert state_equal(load_pretrained(tmp_path / "snapshot")[0], made(2, **GPT2))
