"""Folders in Hugging Face's form: what `minillm generate` writes with them, beside what transformers does."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minillm
from minillm import cli
from minillm.generation import Sampling, beam_search, generate, generate_text
from minillm.generation.loading import load_writer
from minillm.models import GPT
from minillm.models.huggingface import save_pretrained
from minillm.text import SubwordTokenizer

TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps — naïve 中文 " * 20
TOKENIZER_SIZE = 300


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("tokenizers")
    return SubwordTokenizer.train(TEXT, TOKENIZER_SIZE, ["<|endoftext|>"])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tokenizer, tmp_path_factory):
    """A model that transformers made and saved; its vocabulary is larger than the tokenizer's."""
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if request.param == "gpt2":
        config = hf.GPT2Config(vocab_size=320, n_positions=64, n_embd=32, n_layer=2, n_head=4, **ids)
        model = hf.GPT2LMHeadModel(config)
    else:
        config = hf.LlamaConfig(
            vocab_size=320, max_position_embeddings=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, **ids,
        )  # fmt: skip
        model = hf.LlamaForCausalLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    tokenizer.save(path / "tokenizer.json")
    return path


@pytest.mark.oracle
def test_transformers_writes_the_same(folder):
    """Greedy, a batch padded on the left, with the end token."""
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = load_writer(folder).model
    prompts = [np.random.default_rng(i).integers(1, 300, n) for i, n in enumerate((3, 9, 1, 20))]
    for prompt, got in zip(prompts, generate(ours, prompts, Sampling(0), max_new_tokens=30, stop=[0])):
        ids = torch.tensor(prompt)[None]
        settings = {"do_sample": False, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
        want = theirs.generate(ids, max_new_tokens=30, eos_token_id=0, **settings)[0]
        np.testing.assert_array_equal(got, want.numpy())
        penalized = theirs.generate(ids, max_new_tokens=30, eos_token_id=0, repetition_penalty=1.3, **settings)[0]
        got = generate(ours, [prompt], Sampling(0, repetition_penalty=1.3), max_new_tokens=30, stop=[0])[0]
        np.testing.assert_array_equal(got, penalized.numpy())


@pytest.mark.oracle
def test_transformers_beams_are_ours(folder):
    """Texts of one length, where its length penalty and this one only scale the scores."""
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = np.array([5, 80, 7])
    ids = torch.tensor(prompt)[None]
    want = theirs.generate(
        ids, max_new_tokens=8, num_beams=4, num_return_sequences=4, do_sample=False, eos_token_id=None, pad_token_id=0,
        length_penalty=0.0, attention_mask=torch.ones_like(ids), output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    got = beam_search(load_writer(folder).model, prompt, max_new_tokens=8, beams=4)
    np.testing.assert_array_equal(np.stack([h.ids for h in got]), want.sequences.numpy())
    np.testing.assert_allclose([h.log_probability for h in got], want.sequences_scores.numpy(), rtol=1e-4)


def run(capsys, *argv) -> str:
    assert cli.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


@pytest.fixture
def ours(tmp_path, tokenizer):
    """A model that this program saved in that form."""
    minillm.manual_seed(0)
    model = GPT(300, context=32, layers=1, heads=2, width=16, mlp="gelu_tanh").eval()
    for i, p in enumerate(model.parameters()):
        p.data[...] += 0.2 * np.random.default_rng(i).normal(size=p.shape).astype(p.dtype)
    save_pretrained(model, tmp_path / "model", tokenizer)
    return model, tmp_path / "model"


def test_the_command(capsys, ours, tokenizer):
    model, folder = ours
    prompts = ["the naïve ", "中文"]
    want = generate_text(
        model, tokenizer, prompts, Sampling(0.8), max_new_tokens=60, seed=3, stop_tokens=[0], stop=["zz"]
    )
    flags = ["--tokens", 60, "--seed", 3, "--stop", "zz"]
    got = json.loads(run(capsys, "generate", folder, "--prompt", prompts[0], "--prompt", prompts[1], *flags, "--json"))
    assert [g["text"] for g in got] == want
    assert run(capsys, "generate", folder, "--prompt", prompts[0], *flags) == prompts[0] + want[0] + "\n"


def test_an_end_token_outside_the_vocabulary_is_none(ours):
    _, folder = ours
    config = json.loads((folder / "config.json").read_text())
    assert load_writer(folder).end == (0,)
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": [50256, 7, True]}))
    assert load_writer(folder).end == (7,)


def test_a_damaged_folder(capsys, ours):
    _, folder = ours
    (folder / "model.safetensors").unlink()
    assert cli.main(["generate", str(folder), "--prompt", "a"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("minillm generate: ") and len(err.splitlines()) == 1
