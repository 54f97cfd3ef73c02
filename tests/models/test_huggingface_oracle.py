"""Hugging Face's format beside transformers: the same logits, whoever wrote the files."""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
import pytest

import minillm
from minillm.models import GPT, GPTConfig
from minillm.models.huggingface import load_pretrained, save_pretrained
from minillm.text import ByteTokenizer, CharTokenizer, SubwordTokenizer

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the library warns of its own affairs

TOLERANCE = 1e-5  # of the largest logit; float32
TEXT = "It was the best of times, it was the worst of times; naïve 🙂🙂 café.\n\n" * 20


@pytest.fixture(autouse=True, scope="module")
def quiet():
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(level)
    transformers.logging.enable_progress_bar()


def theirs(cls: str, config: str, seed: int = 0, **settings):
    """A model of transformers in which no weight is 0 or 1, so that none can be forgotten or exchanged unseen."""
    torch.manual_seed(seed)
    model = getattr(transformers, cls)(getattr(transformers, config)(**settings)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if p.ndim == 1 and "weight" in name else 0.0, 0.15)
    return model


def gpt2(cls="GPT2LMHeadModel", **changes):
    sizes = {"vocab_size": 61, "n_positions": 48, "n_embd": 32, "n_layer": 3, "n_head": 4}
    return theirs(cls, "GPT2Config", **{**sizes, **changes})


def llama(cls="LlamaForCausalLM", **changes):
    sizes = {
        "vocab_size": 61, "max_position_embeddings": 160, "hidden_size": 32, "intermediate_size": 56,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    return theirs(cls, "LlamaConfig", **{**sizes, **changes})


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
CASES = {
    "gpt2": lambda: gpt2(),
    "gpt2 wide": lambda: gpt2(n_embd=60, n_head=5, n_inner=100, n_layer=1),
    "gpt2 exact gelu": lambda: gpt2(activation_function="gelu"),
    "gpt2 untied": lambda: gpt2(tie_word_embeddings=False),
    "gpt2 eps": lambda: gpt2(layer_norm_epsilon=0.1),
    "llama": lambda: llama(),
    "llama all heads": lambda: llama(num_key_value_heads=4),
    "llama one kv head": lambda: llama(num_key_value_heads=1, num_attention_heads=8),
    "llama head_dim": lambda: llama(head_dim=20, num_attention_heads=8),
    "llama tied": lambda: llama(tie_word_embeddings=True),
    "llama biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama eps": lambda: llama(rms_norm_eps=0.1),
    "llama theta": lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "llama 3": lambda: llama(rope_parameters=LLAMA3),
}


def their_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.float().numpy()


def our_logits(model, ids):
    with minillm.no_grad():
        return model(ids).numpy()


def some_ids(vocab_size=61, length=48):
    return np.random.default_rng(0).integers(0, vocab_size, (2, length))


def distance(a, b):
    assert a.shape == b.shape and np.isfinite(a).all() and np.abs(a).max() > 0.5
    return np.abs(a - b).max() / np.abs(a).max()


@pytest.mark.parametrize("case", CASES)
def test_their_model_here(case, tmp_path):
    model = CASES[case]()
    model.save_pretrained(tmp_path)
    ours, tokenizer = load_pretrained(tmp_path)
    ids = some_ids(length=min(ours.config.context, 128))
    assert tokenizer is None and not ours.training
    assert distance(their_logits(model, ids), our_logits(ours, ids)) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, tmp_path):
    """Theirs, loaded and saved here, is theirs again: bit for bit."""
    model = CASES[case]()
    model.save_pretrained(tmp_path / "a")
    save_pretrained(load_pretrained(tmp_path / "a")[0], tmp_path / "b", shard_bytes=9000)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 1
    again = read_back(tmp_path / "b")
    state, old = again.state_dict(), model.state_dict()
    assert set(state) == set(old) and all(torch.equal(state[k], old[k]) for k in old)
    ids = some_ids()
    assert np.array_equal(their_logits(model, ids), their_logits(again, ids))


def read_back(folder):
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, dtype=torch.float32
    )
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    return model.eval()


SMALL = {"vocab_size": 61, "context": 48, "layers": 2, "heads": 4, "width": 32}
ROTARY = {"position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False}
OURS = {
    "gpt": {},
    "gpt2": {"mlp": "gelu_tanh", "norm_eps": 1e-3},
    "nanogpt": {"bias": False},
    "untied": {"tie": False, "mlp_width": 72},
    "relu2": {"mlp": "relu2"},
    "llama": {**ROTARY, "tie": False},
    "llama grouped": {**ROTARY, "kv_heads": 2, "head_dim": 12, "mlp_width": 40, "rotary_base": 700.0},
    "llama biases": {**ROTARY, "bias": True},
    "llama 3": {**ROTARY, "kv_heads": 1, "rotary_scaling": (4.0, 1.0, 4.0, 24)},
}


def our_model(**settings):
    model, rng = GPT(**{**SMALL, **settings}).eval(), np.random.default_rng(1)
    for name, p in model.named_parameters():
        p.data[...] = rng.normal(1.0 if p.ndim == 1 and "weight" in name else 0.0, 0.15, p.shape)
    return model


@pytest.mark.parametrize("case", OURS)
def test_our_model_there(case, tmp_path):
    model, ids = our_model(**OURS[case]), some_ids()
    save_pretrained(model, tmp_path)
    assert distance(their_logits(read_back(tmp_path), ids), our_logits(model, ids)) < TOLERANCE
    ours, _ = load_pretrained(tmp_path)
    assert np.array_equal(our_logits(ours, ids), our_logits(model, ids))


@pytest.mark.parametrize("make, cls", [(gpt2, "GPT2Model"), (llama, "LlamaModel")])
def test_files_of_a_model_without_a_head(make, cls, tmp_path):
    """Their names lack the prefix; the head is the embedding."""
    model = make(cls)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    ids = some_ids()
    with torch.no_grad():
        states = model(torch.tensor(ids)).last_hidden_state.numpy()
    ours, _ = load_pretrained(tmp_path)
    with minillm.no_grad():
        assert distance(states, ours.hidden(ids).numpy()) < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_half_precision_on_disk(make, dtype, tmp_path):
    make().to(getattr(torch, dtype)).save_pretrained(tmp_path)
    ours, _ = load_pretrained(tmp_path)
    assert all(p.dtype == np.float32 for p in ours.parameters())
    ids = some_ids()
    assert distance(their_logits(read_back(tmp_path), ids), our_logits(ours, ids)) < TOLERANCE


@pytest.mark.parametrize("make", [gpt2, llama])
def test_their_shards(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours, ids = load_pretrained(tmp_path)[0], some_ids()
    assert distance(their_logits(model, ids), our_logits(ours, ids)) < TOLERANCE


@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_scaled_positions_as_older_files_write_them(kind, tmp_path):
    model = llama(rope_parameters={**LLAMA3, "rope_theta": 900.0})
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    scaling = {k: v for k, v in config.pop("rope_parameters").items() if k not in ("rope_theta", "rope_type")}
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "rope_theta": 900.0, "rope_scaling": {**scaling, kind: "llama3"}})
    )
    ours, ids = load_pretrained(tmp_path)[0], some_ids(length=128)
    want = their_logits(model, ids)
    assert distance(want, our_logits(ours, ids)) < TOLERANCE
    for other in ({"rotary_scaling": None}, {"rotary_base": 10000.0}):  # neither is without effect here
        plain = GPT.from_config(GPTConfig(**{**vars(ours.config), **other})).eval()
        plain.load_state_dict(ours.state_dict())
        assert distance(want, our_logits(plain, ids)) > 1e-3


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_shorter_context(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    ours, ids = load_pretrained(tmp_path, context=10)[0], some_ids(length=10)
    assert ours.config.context == 10
    assert distance(their_logits(model, ids), our_logits(ours, ids)) < TOLERANCE


def test_generation_goes_the_same_way(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    ours, prompt = load_pretrained(tmp_path)[0], np.array([5, 9, 2])
    with torch.no_grad():
        want = model.generate(
            torch.tensor(prompt[None]), do_sample=False, max_new_tokens=40, eos_token_id=None, pad_token_id=0
        )
    assert ours.generate(prompt, 40, temperature=0).tolist() == want[0].tolist()


@pytest.mark.parametrize("kind", ["subwords", "characters", "bytes"])
def test_our_tokenizer_there(kind, tmp_path):
    tokenizer = {
        "subwords": lambda: SubwordTokenizer.train(TEXT, 300),
        "characters": lambda: CharTokenizer.train(TEXT),
        "bytes": ByteTokenizer,
    }[kind]()
    save_pretrained(our_model(vocab_size=tokenizer.vocab_size), tmp_path, tokenizer)
    their = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ids = tokenizer.encode(TEXT).tolist()
    assert their(TEXT, add_special_tokens=False)["input_ids"] == ids
    assert their.decode(ids, clean_up_tokenization_spaces=False) == TEXT
    _, ours = load_pretrained(tmp_path)
    assert ours.encode(TEXT).tolist() == ids and ours.decode(ids) == TEXT
