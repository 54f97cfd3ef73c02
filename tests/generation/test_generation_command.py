"""`minillm generate` and `minillm chat`, on a model that never trained: what they print is what the library says."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
import types
from dataclasses import asdict

import numpy as np
import pytest

import minillm
from minillm import cli
from minillm.generation import Sampling, beam_search, generate_text
from minillm.models import GPT
from minillm.text import ByteTokenizer, CharTokenizer
from minillm.training import Run

ALPHABET = "\nabcdefg"
TOKENIZER = CharTokenizer(ALPHABET)


def made(vocab_size: int) -> GPT:
    minillm.manual_seed(0)
    model = GPT(vocab_size, context=16, layers=1, heads=2, width=8).eval()
    for p in model.parameters():
        p.data[...] += 0.3 * np.random.default_rng(p.numel()).normal(size=p.shape).astype(p.dtype)
    return model


MODEL = made(len(ALPHABET))


def saved(folder, model, tokenizer) -> str:
    run = Run(folder)
    run.write_config("gpt", asdict(model.config), tokenizer=tokenizer.to_dict())
    run.write_weights(model)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), MODEL, TOKENIZER)


@pytest.fixture(scope="module")
def bytes_folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("bytes"), made(256), ByteTokenizer())


@pytest.fixture
def say(capsys, monkeypatch):
    """Run a command line, with a text on standard input; gives what it prints. Its exit code has to be as told."""

    def run(*argv, stdin: str = "", code: int = 0):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        assert cli.main([str(a) for a in argv]) == code
        out, run.err = capsys.readouterr()
        return out

    return run


def refused(say, *argv, **more) -> str:
    assert say(*argv, code=2, **more) == ""
    assert len(say.err.strip().splitlines()) == 1 and "Traceback" not in say.err
    return say.err


def texts(prompts, sampling=None, tokens=20, **more):
    return generate_text(MODEL, TOKENIZER, prompts, sampling or Sampling(0.8), max_new_tokens=tokens, **more)


# ------------------------------------------------------------------------------------------------- generate


def test_one_text(say, folder):
    (want,) = texts(["abc"], seed=3)
    assert len(want) == 20
    assert say("generate", folder, "--prompt", "abc", "--tokens", 20, "--seed", 3) == f"abc{want}\n"
    answer = json.loads(say("generate", folder, "--prompt", "abc", "--tokens", 20, "--seed", 3, "--json"))
    assert answer == {"prompt": "abc", "text": want}


def test_a_batch_gives_each_prompt_what_it_gets_alone(say, folder):
    flags = ["--tokens", 30, "--seed", 1, "--json"]
    both = json.loads(say("generate", folder, "--prompt", "abcdefga", "--prompt", "g", *flags))
    for prompt, got in zip(["abcdefga", "g"], both):
        assert got == json.loads(say("generate", folder, "--prompt", prompt, *flags))
    out = say("generate", folder, "--prompt", "abcdefga", "--prompt", "g", *flags[:-1])
    assert out == "--- 1 of 2\nabcdefga{}\n--- 2 of 2\ng{}\n".format(*(b["text"] for b in both))


def test_samples_differ(say, folder):
    got = json.loads(say("generate", folder, "--prompt", "a", "--samples", 3, "--tokens", 20, "--json"))
    assert [g["text"] for g in got] == texts(["a"] * 3) and len({g["text"] for g in got}) == 3


@pytest.mark.parametrize(
    "given", [{"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.3}, {"min_p": 0.8}, {"repetition_penalty": 3.0}], ids=str
)
def test_every_filter_has_its_flag(say, folder, given):
    ((name, value),) = given.items()
    flag = "--" + name.replace("_", "-")
    got = json.loads(say("generate", folder, "--prompt", "ab", "--tokens", 40, flag, value, "--json"))["text"]
    assert [got] == texts(["ab"], Sampling(**{"temperature": 0.8, **given}), 40) != texts(["ab"], tokens=40)


def test_all_filters_together(say, folder):
    flags = ["--temperature", 1.7, "--top-k", 6, "--top-p", 0.9, "--min-p", 0.2, "--repetition-penalty", 1.2]
    got = json.loads(say("generate", folder, "--prompt", "ab", "--tokens", 40, *flags, "--json"))["text"]
    assert [got] == texts(["ab"], Sampling(1.7, 6, 0.9, 0.2, 1.2), 40)


def test_standard_input(say, folder):
    (want,) = texts(["ab\ncd\n"])
    assert say("generate", folder, "--prompt", "-", "--tokens", 20, stdin="ab\ncd\n") == f"ab\ncd\n{want}\n"
    assert "give it once" in refused(say, "generate", folder, "--prompt", "-", "--prompt", "-")


def test_stop_texts(say, folder):
    (want,) = texts(["abc"], Sampling(1.5), tokens=300)
    cut = min(i for i in (want.find("b"), want.find("\n")) if i >= 0)
    flags = ["--prompt", "abc", "--temperature", 1.5, "--tokens", 300]
    assert say("generate", folder, *flags, "--stop", "b", "--stop", r"\n") == f"abc{want[:cut]}\n"
    assert cut < 100
    ends = texts(["abc", "b"], Sampling(1.5), tokens=300, stop=["cd", "\n"])
    got = json.loads(say("generate", folder, *flags, "--prompt", "b", "--stop", "cd", "--stop", r"\n", "--json"))
    assert [g["text"] for g in got] == ends and not any(s in t for t in ends for s in ("cd", "\n"))


def test_text_is_written_as_it_comes(say, folder, monkeypatch):
    from minillm.generation import command

    pieces, write = [], command.write
    monkeypatch.setattr(command, "write", lambda piece: pieces.append(piece) or write(piece))
    out = say("generate", folder, "--prompt", "abc", "--tokens", 20)
    assert "".join(pieces) == out and len(pieces) == 21  # a piece a character, and the line end


def test_beams(say, folder):
    best = beam_search(MODEL, TOKENIZER.encode("abc"), max_new_tokens=6, beams=5)[0]
    text = TOKENIZER.decode(best.ids[3:])
    assert say("generate", folder, "--prompt", "abc", "--tokens", 6, "--beams", 5) == f"abc{text}\n"
    answer = json.loads(say("generate", folder, "--prompt", "abc", "--tokens", 6, "--beams", 5, "--json"))
    assert answer["text"] == text and answer["log_probability"] == pytest.approx(best.log_probability)
    got = say("generate", folder, "--prompt", "abc", "--tokens", 6, "--beams", 5, "--stop", text[2])
    assert got == f"abc{text[: text.index(text[2])]}\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--beams 2 --top-k 3 --temperature 0", "leave out --temperature, --top-k"),
        ("--beams 2 --samples 2", "leave out --samples"), ("--length-penalty 1", "for --beams"),
        ("--prompt xyz", "the model never saw 'x', 'y', 'z'"),
    ],
)  # fmt: skip
def test_what_generate_refuses(say, folder, flags, message):
    assert message in refused(say, "generate", folder, *flags.split())


def test_a_prompt_that_is_no_text(say, bytes_folder):
    assert "not UTF-8" in refused(say, "generate", bytes_folder, "--prompt", "caf\udce9")


def test_standard_input_that_is_no_text(bytes_folder):
    for command in (["generate", bytes_folder, "--prompt", "-"], ["chat", bytes_folder]):
        env = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
        argv = [sys.executable, "-m", "minillm", *command]
        done = subprocess.run(argv, input=b"caf\xe9\n", capture_output=True, env=env)
        assert done.returncode == 2 and done.stdout == b"" and b"not utf-8 text" in done.stderr


def test_broken_weights(say, tmp_path):
    model = made(len(ALPHABET))
    model.norm.bias.data[0] = np.nan
    message = refused(say, "generate", saved(tmp_path, model, TOKENIZER), "--prompt", "a")
    assert message.startswith("minillm generate: the model's logits are NaN")


def test_ctrl_c_while_it_writes(say, folder, monkeypatch):
    from minillm.generation import chat, command

    def stop(piece, write=command.write):
        if piece != "\n":
            write(piece)
            raise KeyboardInterrupt
        write(piece)

    monkeypatch.setattr(command, "write", stop)
    monkeypatch.setattr(chat, "write", stop)
    out = say("generate", folder, "--prompt", "abc", "--stop", "zzz", code=130)
    assert out.startswith("abc") and out.endswith("\n") and say.err == "stopped\n"
    out = say("chat", folder, "--stop", "zzz", stdin="abc\n", code=130)
    assert len(out) == 2 and out.endswith("\n") and say.err == "stopped\n"


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_ctrl_c_leaves_no_half_json(say, folder, monkeypatch, command):
    from minillm.generation import stream

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream.TextStream, "push", stop)
    assert say(command, folder, "--json", stdin="abc\n", code=130) == "" and say.err == "stopped\n"


# ------------------------------------------------------------------------------- folders in another's format


class Words:
    """A tokenizer of another make: no `vocabulary`."""

    def encode(self, text):
        return [ALPHABET.index(c) for c in text]

    def decode(self, ids):
        return "".join(ALPHABET[i] for i in ids)


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """A folder with "model_type", whose loader is told what to give."""

    def make(config, tokenizer, more=None):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **config}))
        if more is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(more))
        module = types.ModuleType("minillm.models.huggingface")
        module.load_pretrained = lambda path: (MODEL, tokenizer)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("config", "more", "ends"),
    [({}, None, ""), ({"eos_token_id": 3}, None, "c"), ({"eos_token_id": 3}, {"eos_token_id": [2, 5]}, "be")],
)
def test_end_tokens_of_a_pretrained_model(say, pretrained, config, more, ends):
    folder = pretrained(config, Words(), more)
    (free,) = texts(["abc"], Sampling(1.5), tokens=200)
    cut = min([free.index(e) for e in ends], default=200)
    flags = ["--prompt", "abc", "--tokens", 200, "--temperature", 1.5]
    assert say("generate", folder, *flags) == f"abc{free[:cut]}\n"
    out = say("generate", folder, "--prompt", "abc", "--tokens", 30, "--beams", 2)
    assert not set(ends) & set(out[3:])


@pytest.mark.parametrize(
    ("config", "first"), [({"bos_token_id": 2, "eos_token_id": 7}, 2), ({"eos_token_id": 7}, 7), ({}, 0)]
)
def test_an_empty_prompt_of_a_pretrained_model(say, pretrained, config, first):
    out = say("generate", pretrained(config, Words()), "--tokens", 9)
    (want,) = texts([np.array([first])], tokens=9, stop_tokens=[7] if "eos_token_id" in config else [])
    assert out == want + "\n"


def subwords(bos: bool):
    """Ids of ALPHABET, and then the names that other makes use; <s> before a text, if bos."""
    lib = pytest.importorskip("tokenizers")
    from minillm.text import SubwordTokenizer

    t = lib.Tokenizer(lib.models.WordLevel({c: i for i, c in enumerate(ALPHABET)} | {"<s>": 8, "</s>": 9}))
    t.pre_tokenizer, t.decoder = lib.pre_tokenizers.Split(lib.Regex(r"[\s\S]"), "isolated"), lib.decoders.Fuse()
    if bos:
        t.post_processor = lib.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 8)])
    return SubwordTokenizer(t)


@pytest.mark.parametrize("bos", [True, False])
def test_the_token_that_begins_a_text(say, tmp_path, bos):
    """It stands before the text, and is not shown; the token that is called an end ends the text of a run."""
    model, tokenizer = made(12), subwords(bos)
    prompt = np.array([8] * bos + TOKENIZER.encode("ab").tolist())
    (want,) = generate_text(model, tokenizer, [prompt], Sampling(1.5), max_new_tokens=90, stop_tokens=[9])
    flags = ["--tokens", 90, "--temperature", 1.5]
    assert say("generate", saved(tmp_path, model, tokenizer), "--prompt", "ab", *flags) == f"ab{want}\n"
    assert len(want) < 90 and "</s>" not in want


@pytest.mark.parametrize("bos", [True, False])
def test_a_conversation_begins_once(say, tmp_path, monkeypatch, bos):
    module, starts = sys.modules["minillm.generation.generate"], []
    generate = module.generate
    monkeypatch.setattr(module, "generate", lambda m, p, *a, **k: starts.extend(p) or generate(m, p, *a, **k))
    folder = saved(tmp_path, made(12), subwords(bos))
    say("chat", folder, "--tokens", 3, "--temperature", 0, stdin="ab\nc\nd\n")
    assert len(starts) == 3
    for start in starts:
        assert start[: 3 + bos].tolist() == [8] * bos + [1, 2, 0] and (start == 8).sum() == bos


def test_ids_that_the_tokenizer_lacks_are_never_chosen(say, tmp_path):
    """Models of others have a vocabulary filled up to a round number."""
    model, tokenizer = made(16), subwords(False)  # ids 0 to 9
    folder = saved(tmp_path, model, tokenizer)
    ids = minillm.generation.generate(model, [[1]] * 20, Sampling(2.0), max_new_tokens=20)
    assert max(map(max, ids)) > 9  # the model would
    say("generate", folder, "--prompt", "a", "--samples", 20, "--tokens", 20, "--temperature", 2)
    say("chat", folder, "--tokens", 100, "--temperature", 2, stdin="a\nb\n")
    say("generate", folder, "--prompt", "a", "--tokens", 8, "--beams", 4)


def test_the_text_begins_after_a_line_end(say, bytes_folder):
    (want,) = generate_text(made(256), ByteTokenizer(), ["\n"], Sampling(0.8), max_new_tokens=12)
    assert say("generate", bytes_folder, "--tokens", 12) == want + "\n"


def test_a_pretrained_model_without_a_tokenizer(say, pretrained):
    assert "no tokenizer" in refused(say, "generate", pretrained({}, None), "--prompt", "a")


# ----------------------------------------------------------------------------------------------------- chat


def test_a_conversation(say, folder):
    """Line, answer, line, answer: each answer follows from the whole of it, of which the model sees its context."""
    (first,) = texts(["ab\n"], stop=["\n\n"])
    (second,) = texts(["ab\n" + first + "\n\n" + "cd\n"], stop=["\n\n"])
    assert say("chat", folder, "--tokens", 20, stdin="ab\ncd\n") == f"{first}\n{second}\n"
    rows = say("chat", folder, "--tokens", 20, "--json", stdin="ab\r\ncd").splitlines()
    assert [json.loads(r) for r in rows] == [{"prompt": "ab", "text": first}, {"prompt": "cd", "text": second}]


def test_a_conversation_in_its_own_words(say, folder):
    flags = ["--tokens", 50, "--before", "f", "--after", r"g\n", "--between", "e", "--stop", "b", "--temperature", 1.5]
    (first,) = texts(["fag\n"], Sampling(1.5), 50, stop=["b"])
    (second,) = texts([f"fag\n{first}efcg\n"], Sampling(1.5), 50, stop=["b"])
    assert say("chat", folder, *flags, stdin="a\nc\n") == f"{first}\n{second}\n"
    assert "b" not in first + second and len(first) < 50


def test_an_empty_line_lets_it_go_on(say, folder):
    (first,) = texts(["ab\n"], stop=["\n\n"], tokens=5)
    (second,) = texts(["ab\n" + first], stop=["\n\n"], tokens=5)
    assert say("chat", folder, "--tokens", 5, stdin="\nab\n\n") == f"{first}\n{second}\n"


def test_a_line_that_the_model_cannot_read(say, folder):
    (want,) = texts(["ab\n"], stop=["\n\n"], tokens=5)
    assert say("chat", folder, "--tokens", 5, stdin="Ab!\nab\n") == f"{want}\n"
    assert say.err == "minillm chat: the model never saw '!', 'A': write the prompt without\n"


def test_a_vocabulary_without_line_ends(say, tmp_path):
    tokenizer = CharTokenizer("abcdefgh")
    path = saved(tmp_path, made(8), tokenizer)
    out = say("chat", path, "--tokens", 7, stdin="ab\ncd\n").splitlines()
    (first,) = generate_text(made(8), tokenizer, ["ab"], Sampling(0.8), max_new_tokens=7)
    (second,) = generate_text(made(8), tokenizer, [f"ab{first}cd"], Sampling(0.8), max_new_tokens=7)
    assert out == [first, second]


def test_end_tokens_are_not_part_of_the_conversation(say, pretrained):
    folder = pretrained({"eos_token_id": 3}, Words())
    flags = ["--tokens", 90, "--temperature", 1.5, "--stop", "zzz"]
    c = {"stop_tokens": [3]}
    (first,) = texts(["ab\n"], Sampling(1.5), 90, **c)
    (second,) = texts([f"ab\n{first}\n\ncd\n"], Sampling(1.5), 90, **c)
    assert say("chat", folder, *flags, stdin="ab\ncd\n") == f"{first}\n{second}\n" and len(first) < 90


def test_nothing_said(say, folder):
    assert say("chat", folder) == "" and say.err == ""


def start(*argv, **streams):
    return subprocess.Popen([sys.executable, "-m", "minillm", *argv], **streams)


def test_a_program_talks_to_it(folder):
    """Through pipes: the answer comes before the next line is asked for."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = start("chat", folder, "--tokens", "5", "--json", text=True, **pipes)
    for line in ("ab", "cd"):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["prompt"] == line
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("", "", 0)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
@pytest.mark.parametrize("end", ["ctrl-d", "ctrl-c"])
def test_on_a_terminal(folder, end):
    master, slave = os.openpty()
    process = start("chat", folder, "--tokens", "5", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen, begun = "", time.monotonic()

    def until(what, count, seconds=60):
        nonlocal seen
        deadline = time.monotonic() + seconds
        while seen.count(what) < count and time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    seen += os.read(master, 4096).decode()
                except OSError:  # the other side is gone
                    return

    try:
        until("> ", 1)
        os.write(master, b"ab\n")
        until("> ", 2)
        while process.poll() is None and "stopped" not in seen and time.monotonic() < begun + 60:
            if end == "ctrl-d":
                os.write(master, b"\x04")
            else:
                process.send_signal(signal.SIGINT)  # again where it came just before the terminal was asked
            until("stopped" if end == "ctrl-c" else "never", 1, 1)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "Ctrl-D ends it" in seen and "Traceback" not in seen
    (want,) = texts(["ab\n"], stop=["\n\n"], tokens=5)
    assert want.replace("\n", "\r\n") in seen
    assert (code, "stopped" in seen) == ((0, False) if end == "ctrl-d" else (130, True))
