"""The `minillm` command: help, suggestions, one sentence for wrong input, JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import kernels
from minillm import cli
from minillm.training import load_model

FILES = {"config.json", "metrics.jsonl", "weights.safetensors", "results.json", "report.html"}
TINY = {
    "autoencoder": ["--epochs", "1", "--encoding-dim", "4", "--output-dim", "6"],
    "vae": ["--epochs", "1", "--hidden", "8", "--latent-dim", "2"],
    "attention": ["--epochs", "1", "--width", "8", "--heads", "2", "--batch-size", "128"],
    "gpt": ["--steps", "4", "--every", "2", "--context", "8", "--layers", "1", "--heads", "2", "--width", "8"],
}
COMMANDS = [
    [], ["demo"], ["train"], ["generate"], ["chat"], ["gradcheck"], ["data"], ["doctor"],
    *(["train", name] for name in TINY),
]  # fmt: skip


@pytest.fixture(autouse=True)
def default_kernels():
    """--kernels holds for the rest of the process: here, until the end of the test."""
    yield
    kernels.set_default(None)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text of 9 different characters, long enough to train on."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(rng.choice(list("abcdefg \n"), 3000)))
    return str(path)


@pytest.fixture(scope="module")
def gpt_run(tmp_path_factory, text):
    """The folder of a tiny trained gpt."""
    folder = tmp_path_factory.mktemp("gpt") / "run"
    assert cli.main(["train", "gpt", *TINY["gpt"], "--data", text, "--out", str(folder), "--quiet", "--json"]) == 0
    return str(folder)


def run(*argv: str) -> int:
    """The exit code, from a return or from argparse's SystemExit."""
    try:
        return cli.main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def refused(capsys, *argv: str) -> str:
    """The one sentence of a command that must exit with 2 and print nothing on standard output."""
    capsys.readouterr()
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("minillm"), err
    assert "Traceback" not in err
    return lines[0]


# ------------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(capsys, command):
    assert run(*command, "--help") == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("usage: minillm")
    assert "None" not in out and "==SUPPRESS==" not in out and "(default: )" not in out and "False" not in out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_flag_has_a_help_text(command):
    parser = cli._parser([*command])
    for word in command:
        commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = commands.choices[word]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)
        else:
            assert action.help, action.option_strings


def test_every_setting_is_a_flag(capsys):
    assert run("train", "vae", "--help") == 0
    out = capsys.readouterr().out
    for flag in ("--epochs", "--hidden", "--latent-dim", "--std", "--seed", "--kernels", "--data"):
        assert flag in out
    assert "default: 256)" in out


def test_no_command_prints_help_and_version(capsys):
    assert run() == 0
    assert "minillm demo" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("minillm 0.")


# ------------------------------------------------------------------------------------------- mistyped command lines


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("train vae --epohcs 3", "there is no flag --epohcs. Did you mean '--epochs'?"),
        ("train vae --epohcs=3", "there is no flag --epohcs. Did you mean '--epochs'?"),
        ("train vae --epoch 3", "Did you mean '--epochs'?"),  # no abbreviations
        ("generate RUN --promt hi", "Did you mean '--prompt'?"),
        ("--jsno data", "Did you mean '--json'?"),
        ("train vae --likelihood gausian", "'gausian' is none of bernoulli, gaussian. Did you mean 'gaussian'?"),
        ("train vae --device gpu", "'gpu' is none of auto, cpu, cuda"),
        ("train vea", "Did you mean 'vae'?"),
        ("trian vae", "Did you mean 'train'?"),
        ("train", "required: MODEL"),
        ("generate", "required: RUN"),
        ("data extra", "did not expect 'extra'"),
        ("train vae --epochs 2.5", "whole number"),
        ("train vae --epochs -1", "whole number"),
        ("train vae --epochs", "expected one argument"),
        ("train vae --lr -1", "at least 0, got '-1'"),
        ("train vae --lr nan", "at least 0, got 'nan'"),
        ("train vae --lr=-1e-3", "at least 0, got '-1e-3'"),
        ("train vae --hidden 4,x", "got 'x'"),
        ("train vae --hidden ,", "whole number"),
        ("train vae --seed -1", "2**64"),
        ("generate RUN --tokens 0", "at least 1"),
        ("generate RUN --temperature hot", "at least 0"),
        ("generate RUN --top-p 1.5", "at most 1"),
        ("generate RUN --min-p 0", "above 0"),
        ("generate RUN --repetition-penalty 0", "above 0"),
        ("generate RUN --stop=", "expected a text"),
        ("chat", "required: RUN"),
        ("chat RUN --tokens 0", "at least 1"),
        ("gradcheck", "name some ops"),
        ("gradcheck softmx", "Did you mean 'softmax'?"),
        ("gradcheck softmax --plant sofmax", "Did you mean 'softmax'?"),
        ("gradcheck softmax --plant softmax:sing", "Did you mean 'sign'?"),
        ("gradcheck softmax --order 3", "choose from 1, 2"),
    ],
)
def test_mistyped(capsys, argv, message):
    assert message in refused(capsys, *argv.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("train gpt --heads 3", "width=128 must be a multiple of heads=3"),
        ("train gpt --heads 0", "--heads: expected a whole number of at least 1"),
        ("train gpt --context 0", "--context: expected a whole number of at least 1"),
        ("train gpt --layers 0", "--layers: expected a whole number of at least 1"),
        ("train gpt --steps 0", "at least 1"),
        ("train gpt --every 0", "at least 1"),
        ("train gpt --dropout 2", "probability"),
        ("train gpt --prompt \u4e2d", "not among"),
        ("train vae --epochs 0", "epochs"),
        ("train vae --batch-size 0", "--batch-size: expected a whole number of at least 1"),
        ("train vae --latent-dim 0", "--latent-dim: expected a whole number of at least 1"),
        ("train vae --std 0", "std must be above 0"),
        ("train vae --activation rellu", "Did you mean 'relu'?"),
        ("train vae --lr 1e30 --epochs 1", "the loss is"),
        ("train attention --heads 5", "multiple of heads=5"),
        ("train autoencoder --decoder 3", "must reproduce input_dim=64"),
        ("train autoencoder --encoding-dim 0", "--encoding-dim: expected a whole number of at least 1"),
        ("train vae --kernels cuda --device cpu", "--device cuda"),
    ],
)
def test_values_that_a_model_refuses(capsys, tmp_path, argv, message):
    assert message in refused(capsys, *argv.split(), "--out", tmp_path / "run", "--quiet")


def test_cuda_where_there_is_none(capsys, tmp_path):
    from minillm.device import is_available

    if is_available("cuda"):
        pytest.skip("this machine has a GPU")
    assert 'device "cuda"' in refused(capsys, "train", "vae", "--device", "cuda", "--out", tmp_path)


# ------------------------------------------------------------------------------------------------------ data


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3,x\n")
    (tmp_path / "table.csv").write_text("a,b,c\n" + "".join(f"{i},{i * i},5\n" for i in range(30)))
    (tmp_path / "short.txt").write_text("to be or not")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9" * 1000)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("vae", "nowhere", "cannot be opened"), ("vae", "empty", "MNIST"), ("autoencoder", "one.csv", "has one row"),
        ("autoencoder", "bad.csv", "line 3"), ("vae", "short.txt", "is text; this model needs images"),
        ("attention", "table.csv", "needs their classes"), ("gpt", "short.txt", "12 characters"),
        ("gpt", "latin.txt", "UTF-8"), ("gpt", "empty", "folder"), ("gpt", "nowhere", "cannot be opened"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit(capsys, files, model, data, message):
    assert message in refused(capsys, "train", model, "--data", files / data, "--out", files / "run")


@pytest.mark.parametrize("model", ["autoencoder", "vae"])
def test_a_table(capsys, files, model):
    settings = [*TINY[model], "--data", files / "table.csv", "--out", files / "run", "--quiet", "--json"]
    assert run("train", model, *settings) == 0
    names = [m["name"] for m in json.loads(capsys.readouterr().out)["results"][0]["metrics"]]
    assert any("unseen rows" in n for n in names) and not any("image" in n for n in names)
    assert "images" not in (files / "run" / "report.html").read_text("utf-8")


def test_out_is_a_file(capsys, files):
    assert "is a file" in refused(capsys, "train", "vae", "--out", files / "short.txt")


def test_out_cannot_be_written_into(capsys, files):
    (files / "run" / "config.json").mkdir(parents=True)
    message = refused(capsys, "train", "vae", *TINY["vae"], "--out", files / "run", "--quiet")
    assert "config.json cannot be written" in message


# ------------------------------------------------------------------------------------------------------ train


class Page(HTMLParser):
    """Counts pictures and collects text."""

    def __init__(self, html: str):
        super().__init__()
        self.figures, self.text = 0, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.figures += tag == "figure"

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("model", TINY)
def test_train_writes_a_whole_run(capsys, tmp_path, text, model):
    data = ["--data", text] if model == "gpt" else []
    assert run("train", model, *TINY[model], *data, "--out", tmp_path / "run", "--json") == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)  # standard output is JSON and nothing else
    assert err.startswith(f"{model}: ") and ("held out" if model == "gpt" else "validation") in err
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES | ({"saves"} if model == "gpt" else set())
    (result,) = printed["results"]
    assert result["model"] == model and result["interrupted"] is False
    assert result["parameters"] > 0 and all(np.isfinite(m["value"]) for m in result["metrics"])
    assert printed["report"] == str(tmp_path / "run" / "report.html")
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == result
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_loss"] > 0 and rows[-1]["step"] > 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["seed"] == 0 and config["settings"]["lr"] > 0
    loaded, _ = load_model(tmp_path / "run")
    assert loaded.num_parameters() == result["parameters"]
    page = Page((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert page.figures >= 2
    assert f"{result['parameters']:,} parameters" in page.text


def test_the_closing_table_fits_in_80_columns(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for model in ("autoencoder", "vae", "attention"):
        assert run("train", model, *TINY[model], "--out", tmp_path / model, "--quiet") == 0
        out, err = capsys.readouterr()
        assert err == ""  # --quiet
        *table, closing = out.rstrip("\n").splitlines()
        assert all(len(line.rstrip()) <= 80 for line in table)
        starts = [line for line in table[2:] if not line.startswith(("   ", " ✓", " ✗", " ="))]
        assert starts == []
        wrapped = [line for line in table[2:] if not line.rstrip()[-1].isdigit()]
        assert wrapped == []  # every line ends in its figure
        assert closing.endswith(f"Open this page: {tmp_path / model / 'report.html'}")


def test_the_same_seed_gives_the_same_model(capsys, tmp_path):
    weights = []
    for i, seed in enumerate((1, 1, 2)):
        assert run("train", "vae", *TINY["vae"], "--seed", seed, "--out", tmp_path / str(i), "--quiet", "--json") == 0
        weights.append((tmp_path / str(i) / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("model", ["vae", "gpt"])
def test_reference_kernels_agree_with_the_fast_ones(capsys, tmp_path, text, model):
    values = []
    for impl in ("reference", "cpu"):
        data = ["--data", text] if model == "gpt" else []
        assert run("train", model, *TINY[model], *data, "--kernels", impl, "--out", tmp_path, "--quiet", "--json") == 0
        values.append([m["value"] for m in json.loads(capsys.readouterr().out)["results"][0]["metrics"]])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3)


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("steps", [0, 1])
def test_ctrl_c_at_once_still_writes_a_page(capsys, tmp_path, text, monkeypatch, model, steps):
    """Ctrl-C before or after the first step: no curve, or one of a single point."""
    import importlib

    loop = importlib.import_module("minillm.training.loop").Loop
    fit = importlib.import_module("minillm.training.fit")
    place, name = (loop, "one_step") if model == "gpt" else (fit, "train_step")
    taken, train_step = [], getattr(place, name)

    def stop(*args):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(1)
        return train_step(*args)

    monkeypatch.setattr(place, name, stop)
    data = ["--data", text] if model == "gpt" else []
    assert run("train", model, *TINY[model], *data, "--out", tmp_path / "run", "--quiet", "--json") == 130
    result = json.loads(capsys.readouterr().out)["results"][0]
    assert result["interrupted"] is True and all(m["value"] is not None for m in result["metrics"])
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES | ({"saves"} if model == "gpt" else set())
    assert "Stopped by Ctrl-C" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_ctrl_c_in_a_real_process(tmp_path):
    command = [
        sys.executable,
        "-m",
        "minillm",
        "train",
        "vae",
        "--epochs",
        "100000",
        "--hidden",
        "8",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "report.html" in out
    assert {p.name for p in tmp_path.iterdir()} == FILES
    assert json.loads((tmp_path / "results.json").read_text())["interrupted"] is True
    load_model(tmp_path)


def test_the_learning_rate_of_the_language_model():
    from minillm.recipes import gpt

    usual = gpt.Settings(steps=1000, warmup=100, lr=1.0)
    assert [gpt.learning_rate(s, usual) for s in (1, 50, 100)] == [0.01, 0.5, 1.0]
    assert gpt.learning_rate(550, usual) == pytest.approx(0.55) and gpt.learning_rate(1000, usual) == pytest.approx(0.1)
    short = gpt.Settings(steps=50, warmup=100, lr=1.0)  # warm-up leaves time to learn
    assert max(gpt.learning_rate(s, short) for s in range(1, 51)) == 1.0
    assert gpt.learning_rate(1, gpt.Settings(steps=1, lr=1.0)) == pytest.approx(0.1)


# --------------------------------------------------------------------------------------------------- generate


def test_generate(capsys, gpt_run):
    def text(*flags):
        assert run("generate", gpt_run, "--prompt", "abc", "--tokens", "40", *flags) == 0
        return capsys.readouterr().out

    first = text("--seed", "1")
    assert first.startswith("abc") and len(first) == 3 + 40 + 1
    assert first == text("--seed", "1") != text("--seed", "2")
    assert text("--temperature", "0") == text("--temperature", "0", "--seed", "3") == text("--top-k", "1")
    answer = json.loads(text("--seed", "1", "--json"))
    assert answer == {"prompt": "abc", "text": first[3:-1]}


def test_generate_without_a_prompt_and_past_the_context(capsys, gpt_run):
    assert run("generate", gpt_run, "--tokens", "5") == 0
    assert len(capsys.readouterr().out) == 5 + 1
    assert run("generate", gpt_run, "--prompt", "abc" * 20, "--tokens", "5") == 0
    assert capsys.readouterr().out.startswith("abc" * 20)


def test_generate_without_a_prompt_from_a_text_without_line_ends(capsys, tmp_path):
    (tmp_path / "text.txt").write_text("abcd" * 300)
    argv = ["--data", tmp_path / "text.txt", "--out", tmp_path / "run", "--quiet", "--json"]
    assert run("train", "gpt", *TINY["gpt"], *argv) == 0
    assert run("generate", tmp_path / "run", "--tokens", "5") == 0


def test_generate_refuses(capsys, gpt_run, tmp_path):
    assert "the model never saw '!'" in refused(capsys, "generate", gpt_run, "--prompt", "a!")
    assert "no such folder" in refused(capsys, "generate", tmp_path / "nowhere")
    assert "no config.json" in refused(capsys, "generate", tmp_path)
    assert run("train", "vae", *TINY["vae"], "--out", tmp_path / "vae", "--quiet", "--json") == 0
    assert "'vae'" in refused(capsys, "generate", tmp_path / "vae")


# --------------------------------------------------------------------------------------- gradcheck, data, doctor


def test_gradcheck_passes(capsys):
    assert run("gradcheck", "softmax", "exp") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1].endswith("checks, 0 failed")
    assert any(line.startswith("ok   softmax, order 2: worst relative error") for line in out)
    assert run("gradcheck", "exp", "--order", "1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == 0 and answer["checks"] == len(answer["rows"]) > 0
    assert {row["order"] for row in answer["rows"]} == {1} and all(row["worst_error"] < 1e-6 for row in answer["rows"])


def test_gradcheck_fails_where_a_fault_was_planted(capsys):
    assert run("gradcheck", "softmax", "--plant", "softmax:factor2", "--order", "1") == 1
    out = capsys.readouterr().out
    assert "FAIL softmax, order 1" in out and "suspected cause" in out
    assert run("gradcheck", "softmax", "--plant", "softmax", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] > 0 and any(row["report"] for row in answer["rows"])
    assert run("gradcheck", "softmax", "--order", "1") == 0  # and it is whole again


def test_data(capsys):
    assert run("data") == 0
    out = capsys.readouterr().out
    assert "1,797 images" in out and "CC BY 4.0" in out and "--data PATH" in out
    assert run("data", "--json") == 0
    assert {d["name"] for d in json.loads(capsys.readouterr().out)} == {"digits", "docs", "source"}


def test_doctor(capsys):
    assert run("doctor") == 0
    out = capsys.readouterr().out
    for word in ("Python", "numpy", "BLAS", "threads", "SIMD", "GPU", "kernels"):
        assert word in out
    assert run("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert all(set(f) == {"what", "found", "ok", "advice"} for f in facts)


# ------------------------------------------------------------------------------------------------ whole processes


@pytest.mark.parametrize(
    "what", ["import minillm", "import minillm.cli as c; c.main(['--help'])"], ids=["import", "help"]
)
def test_quick_and_silent(what):
    late = ["matplotlib", "numba", "cupy", "rich", "torch", "tokenizers", "safetensors"]
    code = f"import sys\ntry:\n    {what}\nexcept SystemExit: pass\n"
    code += f"print('late:', [m for m in {late} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("late: []\n")
    if what == "import minillm":
        assert done.stdout == "late: []\n"


def test_python_m_minillm():
    done = subprocess.run(
        [sys.executable, "-m", "minillm", "train", "vae", "--epohcs", "3"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "'--epochs'" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves():
    """`minillm data | head -1` ends without a traceback, and does not claim success."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "minillm", "data"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


def test_a_terminal_that_knows_ascii_only():
    command = [sys.executable, "-m", "minillm", "gradcheck", "\u00e9"]
    settings = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=settings)
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    code = "import sys; from minillm.cli import main; main(['--version'][:0]); print('\\u2713')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=settings)
    assert done.returncode == 0 and done.stdout.strip().endswith(b"?")


def test_another_model_does_not_overwrite_a_run(capsys, gpt_run):
    weights = Path(gpt_run) / "weights.safetensors"
    before = weights.read_bytes()
    assert "holds a run of 'gpt'" in refused(capsys, "train", "vae", "--epochs", "1", "--out", gpt_run, "--quiet")
    assert weights.read_bytes() == before
