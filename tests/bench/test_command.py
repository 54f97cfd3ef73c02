"""The command line: errors that say what to do, and one whole run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import command, environment
from bench.case import CommandError
from bench.suites import NAMES, load

ROOT = Path(__file__).parents[2]


def run(*arguments, **environment_):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200,
        env=os.environ | {"KERNELS_QUIET": "1"} | environment_,
    )  # fmt: skip


def test_a_whole_run_writes_json_and_plots(tmp_path):
    done = run("softmax", "limits", "--quick", "--shapes", "3x5", "--only", "forward", "--rivals", "numpy",
               "--seconds", "0.01", "--json", f"{tmp_path}/a/out.json")  # fmt: skip
    assert done.returncode == 2 and "suite limits takes no shapes" in done.stderr
    done = run("softmax", "--quick", "--shapes", "3x5", "--only", "forward", "--rivals", "numpy", "--seconds", "0.01",
               "--json", f"{tmp_path}/a/out.json", "--plot", f"{tmp_path}/plots",
               OPENBLAS_CORETYPE="Haswell")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "a" / "out.json").read_text())
    assert {r["implementation"] for r in result["rows"]} == {"minillm", "numpy"}
    assert {"cpu", "blas_core_type", "threads", "limits", "load_average"} <= set(result["machine"])
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"roofline.png", "ratios_softmax.png"}
    assert "not run" in done.stdout and "forward 3x5" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sofmax"], "no suite 'sofmax'"),
        (["softmax", "--shapes", "3"], "takes rowsxcolumns"),
        (["softmax", "--shapes", "3x0"], "takes rowsxcolumns"),
        (["softmax", "--rivals", "cntk"], "no 'cntk'"),
        (["softmax", "--candidate", "nowhere:f"], "nowhere"),
        (["softmax", "--compare", "/no/such.json"], "/no/such.json"),
        (["ladder", "stairs", "--rivals", "none"], "no ladder 'stairs'"),
    ],
)
def test_errors_say_what_was_expected(arguments, message, monkeypatch, capsys):
    from bench import limits

    monkeypatch.setattr(environment, "prepare", lambda threads, argv: None)
    fast = limits.Limits(1, 1.0, 1.0, [1, 2], {"copy": [1.0, 1.0]})
    monkeypatch.setattr(limits, "measure", lambda *a, **k: fast)
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_threads_beyond_the_cores_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--threads", "4096"])
    assert "--threads 4096" in capsys.readouterr().err


def test_list_names_every_suite(monkeypatch, capsys):
    monkeypatch.setattr(environment, "prepare", lambda threads, argv: None)
    assert command.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in NAMES)


def test_every_suite_says_what_it_is():
    for name in NAMES:
        module = load(name)
        assert module.TITLE and isinstance(module.SHAPE, tuple)
        assert hasattr(module, "cases") != hasattr(module, "rows")


def test_rivals_are_those_asked_for_and_installed():
    assert command._rivals("none") == frozenset()
    assert command._rivals("numpy") == {"numpy"}
    assert "numpy" in command._rivals("all")
    with pytest.raises(CommandError):
        command._rivals("numpy,keras")


def test_only_takes_parts_of_names_and_patterns():
    assert command._wanted("forward 3x5", "3x5") and command._wanted("forward 3x5", "for*5")
    assert command._wanted("anything", "") and not command._wanted("forward 3x5", "backward")


def test_blas_kernels_are_not_held_back(monkeypatch):
    for name in environment.THREADS:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    again = []
    monkeypatch.setattr(os, "execv", lambda *a: again.append(a))
    environment.prepare(environment.usable_cores(), ["softmax"])
    assert "OPENBLAS_CORETYPE" not in os.environ
    assert again[0][1][1:] == ["-m", "bench", "softmax"]  # NumPy is imported here: a new process


def test_rivals_get_the_default_of_openmp_and_all_of_blas(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = environment.of_worker()
    assert found["OMP_NUM_THREADS"] == "2"
    assert not {"GOMP_SPINCOUNT", "OPENBLAS_CORETYPE"} & set(found)
