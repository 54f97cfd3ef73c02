"""`python -m bench gpu`, dry: every part at tiny shapes, and what it does when kernels crash, hang or are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fake_cuda
import numpy as np
import pytest

import kernels
from bench.gpu import PARTS, calls, command, part_correct, part_gpt, timing
from bench.gpu.lab import DRY_LABEL, Lab, NoDevice, sentence
from bench.gpu.part_ceilings import limits
from bench.gpu.parts import beside_torch, gradients, load, relative
from bench.gpu.report import markdown
from bench.gpu.run import Run
from bench.gpu.targets import TARGETS, results
from bench.gpu.timing import Work, measure
from bench.suites.attention import pairs

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


@pytest.fixture
def lab():
    from kernels.simulator import compiler

    compiler()
    return Lab.simulator()


def run_case(lab, part, name):
    (run,) = [run for case, run in load(part).cases(lab) if case == name]
    with lab.on():
        return list(run())


def test_shares_of_the_time_make_a_whole():
    assert sum(PARTS.values()) == pytest.approx(1)
    assert command.MINUTES < 8


def test_without_a_gpu_one_sentence(monkeypatch, capsys, tmp_path):
    def none():
        raise NoDevice("no NVIDIA driver answers (cudaErrorInsufficientDriver)")

    monkeypatch.setattr("bench.gpu.lab.find_gpu", none)
    assert command.main(["--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "no NVIDIA driver answers" in err and "--device simulator" in err
    assert not list(tmp_path.iterdir())


def test_find_gpu_says_what_is_missing(monkeypatch):
    from bench.gpu.lab import find_gpu

    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(NoDevice, match="CuPy is not installed"):
        find_gpu()


# ------------------------------------------------------------------------------------------ parts, in this process


def test_every_part_lists_cases(lab):
    for name in PARTS:
        names = [case for case, _ in load(name).cases(lab)]
        assert names and len(set(names)) == len(names), name
    real = Lab(False, np, "H200", "sm_90a")
    assert len(list(load("attention").cases(real))) >= 6 * 2 * 2 * 2
    assert len(list(load("correct").cases(real))) > len(calls.CALLS) * 6


def test_ceilings(lab):
    rows = run_case(lab, "ceilings", "copy") + run_case(lab, "ceilings", "product")
    ours = {row["case"]: row for row in rows if row["implementation"] == "minillm"}
    assert all(row["label"] == DRY_LABEL for row in rows) and all(row["equal"] for row in ours.values())
    assert lab.torch is None or all(row["equal"] for row in rows)
    found = limits(rows)
    assert found["copy"] >= ours["copy"]["bytes"] / ours["copy"]["median_s"]
    assert found["product"] > 0


@pytest.mark.parametrize("name", ["gelu forward", "gelu backward", "cross_entropy", "adamw"])
def test_memory_bound_kernels_beside_torch(name, lab):
    lab.limits = {"copy": 1e9, "product": 1e12}
    rows = {row["implementation"]: row for row in run_case(lab, "memory", name)}
    assert rows["minillm"]["equal"], rows["minillm"]["problem"]
    assert rows["minillm"]["share_of_limit"] == rows["minillm"]["limit_s"] / rows["minillm"]["median_s"]
    if lab.torch is not None:
        assert {"minillm", "torch"} <= set(rows) and all(row["equal"] for row in rows.values())
        assert rows["minillm"]["ratios"]["torch"] == rows["torch"]["median_s"] / rows["minillm"]["median_s"]


def test_where_torch_is_missing_its_rows_say_so(lab):
    lab._torch = None
    rows = run_case(lab, "memory", "gelu forward")
    assert [row["implementation"] for row in rows] == ["minillm", "torch", "torch.compile"]
    assert [bool(row["median_s"]) for row in rows] == [True, False, False]
    assert all("torch is not installed" in row["problem"] for row in rows[1:])
    assert "torch is not installed" in run_case(lab, "gpt", "torch")[0]["problem"]


@pytest.mark.oracle
def test_training_steps_agree(lab, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(part_gpt, "_losses", [])
    rows = [row for name in ("minillm", "torch") for row in run_case(lab, "gpt", name)]
    assert [row["equal"] for row in rows] == [True, True], rows
    assert len(rows[0]["losses"]) == 3 and rows[0]["max_error"] == 0 and rows[1]["max_error"] < 0.01
    part_gpt.ratios(rows)
    assert rows[0]["ratios"]["torch"] * rows[1]["ratios"]["minillm"] == pytest.approx(1)


@pytest.mark.oracle
def test_the_torch_model_decodes_as_it_trains(lab):
    """One token at a time with a cache gives the tokens that whole passes give."""
    torch = pytest.importorskip("torch")
    from bench.gpu.torch_gpt import TorchGPT, decode

    net = TorchGPT(**part_gpt.sizes(lab)).load(part_gpt.model(lab).state_dict()).eval()
    prompt = torch.tensor([[3, 1]])
    got = decode(net, prompt, 4, False, "eager")()
    ids = prompt
    with torch.no_grad():
        for _ in range(4):
            x = net.token(ids) + net.position.weight[: ids.shape[1]]
            for block in net.blocks:
                x = block(x)
            ids = torch.cat((ids, net.logits(x)[:, -1:].argmax(-1)), 1)
    assert got.tolist() == ids[:, 2:].tolist()


def test_decoding(lab):
    (row,) = run_case(lab, "decode", "minillm")
    assert row["equal"] and row["tokens_a_second"] == 1 / row["median_s"]


def test_correct_finds_a_wrong_kernel(lab, monkeypatch):
    (row,) = run_case(lab, "correct", "gelu bfloat16 small")
    assert row["equal"] and row["max_error"] < part_correct.BOUNDS["bfloat16"]
    true = kernels.gelu_forward

    def off(x, approximate="none", impl=None):
        out = true(x, approximate, impl=impl).copy()
        if impl == "cuda":
            out[-1, -8:] = 0  # a tail that was not written
        return out

    monkeypatch.setattr(kernels, "gelu_forward", off)
    (row,) = run_case(lab, "correct", "gelu bfloat16 small")
    assert not row["equal"] and "output 0 is off by" in row["problem"]


def test_the_calls_run_on_the_reference_too(lab):
    """Every entry is a valid call of its kernel, on small shapes: both sides are the reference here."""
    for name, call in calls.CALLS.items():
        wanted = call(calls.Side(lab, "reference", "float32"), True)
        assert all(np.isfinite(lab.wide(x)).all() for x in wanted if x is not None), name


@pytest.mark.parametrize("got", [[1.0, np.nan], [1.0, 2.5], [1.0]])
def test_what_is_not_near_is_a_problem(got, lab):
    wanted = (np.array([1.0, 2.0]),)
    error, problem = part_correct.verdict(lab, (np.array(got),), wanted, "bfloat16")
    assert problem and not error <= 0.012
    assert part_correct.verdict(lab, wanted, wanted, "float32") == (0.0, "")
    assert "2 outputs" in part_correct.verdict(lab, wanted * 2, wanted, "float32")[1]


def test_results_that_differ_from_torchs_are_marked(lab):
    if lab.torch is None:
        pytest.skip("torch is not installed")
    rivals = {"torch": lambda torch: lambda x: x + 1, "torch.broken": lambda torch: lambda x: torch.nothing(x)}
    rows = beside_torch(lab, "s", "c", lambda i: (lab.normal(5, seed=i),), lambda x: x, rivals)
    assert [row["implementation"] for row in rows] == ["minillm", "torch", "torch.broken"]
    assert [row["equal"] for row in rows] == [False, True, False]
    assert "differs from torch" in rows[0]["problem"] and "nothing" in rows[2]["problem"]


def test_ours_that_fails_leaves_the_rivals(lab):
    if lab.torch is None:
        pytest.skip("torch is not installed")
    rows = beside_torch(
        lab, "s", "c", lambda i: (lab.normal(5),), lambda x: x, {"torch": lambda torch: torch.abs},
        prepare=lambda x: 1 / 0,
    )  # fmt: skip
    assert {row["implementation"]: row["equal"] for row in rows} == {"torch": True, "minillm": False}


@pytest.mark.oracle
def test_gradients_alone():
    torch = pytest.importorskip("torch")
    passes = []

    def forward(x, w):
        passes.append(1)
        return x * w

    call = gradients(torch, forward)
    x, w, dout = (torch.tensor([v]) for v in (2.0, 3.0, 10.0))
    for _ in range(3):
        assert [g.item() for g in call(dout, x, w)] == [30.0, 20.0]
    assert len(passes) == 1


def test_norm_relative():
    assert relative(np.ones(4), np.ones(4)) == 0
    assert relative(np.ones(3), np.ones(4)) == np.inf
    assert np.isnan(relative(np.array([np.nan]), np.ones(1)))


def test_attention_counts_the_work_of_the_papers():
    from bench.gpu.part_attention import flops

    real = Lab(False, np, "H200", "sm_90a")
    assert flops(real, 16384, 128, False) == 4 * 16 * 128 * pairs(16384, False)
    assert flops(real, 4096, 64, True) == 0.5 * 4 * 4 * 32 * 64 * pairs(4096, False)


# ------------------------------------------------------------------------------------------------------ sanitizer


def sanitizer(tmp_path, monkeypatch, script):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_without_the_sanitizer_the_row_says_so(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (row,) = run_case(lab, "sanitize", "memcheck")
    assert not row["equal"] and "not on the PATH" in row["problem"]


def test_the_sanitizer_runs_small_calls(lab, monkeypatch, tmp_path):
    sanitizer(tmp_path, monkeypatch, 'shift 4; echo "========= COMPUTE-SANITIZER"; exec "$@"')
    monkeypatch.chdir(ROOT)
    (row,) = run_case(lab, "sanitize", "memcheck")
    assert row["equal"], row["problem"]
    assert "softmax" in row["ran"]


def test_findings_and_failures_of_the_sanitizer(lab, monkeypatch, tmp_path):
    sanitizer(tmp_path, monkeypatch, 'echo "========= Invalid __global__ write of size 4 bytes"; exit 99')
    (row,) = run_case(lab, "sanitize", "racecheck")
    assert "Invalid __global__ write" in row["problem"] and not row["equal"]
    sanitizer(tmp_path, monkeypatch, "echo Device not supported; exit 1")
    (row,) = run_case(lab, "sanitize", "racecheck")
    assert "exit status 1: Device not supported" in row["problem"]
    sanitizer(tmp_path, monkeypatch, "echo ran softmax; exec sleep 60")
    monkeypatch.setattr("bench.gpu.part_sanitize.SECONDS", 0.5)
    (row,) = run_case(lab, "sanitize", "racecheck")
    assert "stopped after 0.5 s, with 1 calls done" in row["problem"]


# --------------------------------------------------------------------------------------------------------- timing


@pytest.mark.parametrize("library", ["cupy", "torch"])
@pytest.mark.parametrize("refuses", [False, True])
def test_times_are_those_of_a_call(library, refuses, monkeypatch):
    """Graphs of three calls of 2 ms each, or, where they cannot be captured, the calls themselves."""
    state = fake_cuda.Cuda(refuses)
    monkeypatch.setitem(sys.modules, library, getattr(fake_cuda, library)(state))
    lab = Lab(False, np, "H200", "sm_90a")
    work = Work([lambda: state.tick(2e-3)] * 3, library)
    (times,) = measure(lab, {"minillm": work}).values()
    assert times.error is None and times.graph is not refuses
    assert len(times.samples) == timing.ROUNDS
    assert np.allclose(times.samples, 2e-3)
    assert bool(state.log) is not refuses


def test_implementations_take_turns_and_failures_stay_alone(monkeypatch):
    state, order = fake_cuda.Cuda(), []
    monkeypatch.setitem(sys.modules, "cupy", fake_cuda.cupy(state))
    lab = Lab(False, np, "H200", "sm_90a", limits={"copy": 1e6, "product": 1e9})

    def call(name, seconds):
        order.append(name)
        state.tick(seconds)

    def broken():
        raise RuntimeError("no kernel image\nfor this device")

    works = {
        name: Work([lambda n=name, s=s: call(n, s)], graph=False) for name, s in (("minillm", 0.1), ("torch", 0.3))
    }
    works["bad"] = Work([broken])
    rows = {row["implementation"]: row for row in timing.rows(lab, "s", "c", works, bytes=5e4)}
    turns = "".join(name[0] for name in order[-2 * timing.ROUNDS :])
    assert turns.startswith("mttmmttm")  # rounds begin with another one each
    assert rows["minillm"]["median_s"] == pytest.approx(0.1)
    assert rows["minillm"]["share_of_limit"] == pytest.approx(0.5)
    assert rows["minillm"]["ratios"] == {"torch": pytest.approx(3)}
    assert not rows["bad"]["equal"] and "no kernel image for this device" in rows["bad"]["problem"]


def test_buffers_turn_through_twice_the_cache():
    lab = Lab(False, np, "H200", "sm_90a", l2=60 << 20)
    assert [lab.sets(n) for n in (1 << 30, 60 << 20, 10 << 20, 1)] == [1, 2, 12, 32]


# ------------------------------------------------------------------------------------- processes that crash and hang


def toy(tmp_path, monkeypatch, only, seconds, stall=60.0):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    run = Run("simulator", tmp_path, 60, only, stall=stall, say=lambda text: None)
    run.part("toy_gpu_part", time.monotonic() + seconds)
    return run


def test_crashes_and_hangs_cost_their_own_case(tmp_path, monkeypatch):
    run = toy(tmp_path, monkeypatch, "fault:*", seconds=100, stall=4)
    problems = {row["case"]: row["problem"] for row in run.rows}
    fine = ["works", "before it dies", "between", "last"]
    assert [case for case, problem in problems.items() if not problem] == fine
    assert list(problems) == [fine[0], "fault: raises", fine[1], "fault: dies", fine[2], "fault: hangs", fine[3]]
    assert "ZeroDivisionError" in problems["fault: raises"]
    assert "status 9" in problems["fault: dies"] and "illegal address" in problems["fault: dies"]
    assert "hangs" in problems["fault: hangs"]
    assert run.machine["dry"] is True
    run.write()
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == len(run.rows)


def test_a_part_ends_when_its_time_is_up(tmp_path, monkeypatch):
    start = time.monotonic()
    run = toy(tmp_path, monkeypatch, "time:*", seconds=8)
    assert time.monotonic() - start < 20
    assert run.rows[0]["case"] == "part 0"  # what it told before
    assert [(row["case"], row["problem"]) for row in run.rows[-2:]] == [
        ("time: long", "no time left"), ("time: none left", "no time left"),
    ]  # fmt: skip


def test_a_part_that_does_not_load_is_a_row(tmp_path):
    run = Run("simulator", tmp_path, 60, say=lambda text: None)
    run.part("no_such_part", time.monotonic() + 60)
    (row,) = run.rows
    assert "status 1" in row["problem"] and "no_such_part" in row["problem"]


def test_a_whole_run_of_a_part(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench", "gpu", "--out", f"{tmp_path}/out", "--device", "simulator", "--parts",
         "ceilings", "--only", "prod*", "--minutes", "2"],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["case"] for row in result["rows"]} == {"product 16x16x16 bfloat16"}
    assert result["machine"]["dry"] and DRY_LABEL in (tmp_path / "out" / "report.md").read_text()
    assert DRY_LABEL in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_dry_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench", "gpu", "--out", str(tmp_path), "--device", "simulator", "--minutes", "14"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["suite"] for row in rows} == {*PARTS, "ladder"}
    assert done.returncode == 0, [row["problem"] for row in rows if row["suite"] == "correct"]


# ------------------------------------------------------------------------------------------------ targets and report


def made_row(suite, case, implementation="minillm", **others):
    return Lab(False, np, "H200", "sm_90a").row(suite, case, implementation, **others)


def verdicts(rows, dry=False):
    return {result.work + " " + result.target: result for result in results(rows, dry)}


def test_targets_are_met_or_not():
    ratios = {"torch.flash": 1.5, "torch.cudnn": 1.1}
    rows = [
        made_row("attention", f"forward (1,16,{T},128) full", median_s=1.0, ratios=ratios) for T in (4096, 8192, 16384)
    ]
    rows.append(made_row("attention", "forward (1,16,512,128) full", median_s=1.0, ratios={"torch.flash": 0.1}))
    rows.append(made_row("attention", "forward (1,32,16384,64) full", median_s=1.0, flops=490e12))
    rows.append(made_row("memory", "adamw 100", median_s=1.0, share_of_limit=0.9, ratios={"torch": 1.2}))
    rows.append(made_row("memory", "gelu forward 3x4", equal=False, problem="no time left"))
    rows.append(made_row("memory", "softmax forward 3x4", equal=False, problem="differs from torch"))
    rows.append(made_row("gpt", "GPT-2 step", median_s=1.0, ratios={"torch.compile": 1.6, "torch": 3.0}))
    met = {words: result.met for words, result in verdicts(rows).items()}
    assert met["attention forward, head dim 128, 4k-16k, full >= 1x the faster of torch's"] is True
    assert met["attention forward, head dim 128, 4k-16k, causal >= 1x the faster of torch's"] is None
    assert met["attention forward, head dim 64, 16k, full >= 500 TFLOP/s"] is False
    assert met["adamw >= 85% of copying"] is True and met["adamw >= 1.5x torch eager"] is False
    assert met["activations >= 85% of copying"] is None
    assert met["softmax >= 85% of copying"] is False
    assert met["GPT-2 124M training step <= 0.8x torch.compile's time"] is True
    assert all(result.met is None for result in verdicts(rows, dry=True).values())
    assert len(met) == len(TARGETS)


def test_the_report_has_tables_targets_and_what_failed():
    rows = [
        made_row("attention", "forward (1,16,4096,128) full", median_s=2e-3, flops=1e12, ratios={"torch.flash": 1.2}),
        made_row("attention", "forward (1,16,4096,128) full", "torch.flash", median_s=2.4e-3, flops=1e12),
        made_row("memory", "gelu forward 3x4", median_s=1e-3, bytes=4e9, share_of_limit=0.91),
        made_row("correct", "softmax float32 small", equal=False, problem="output 0 is off by 0.1 of its norm"),
    ]
    text = markdown({"machine": {"gpu": "NVIDIA H200", "dry": False}, "rows": rows, "notes": ["a note"]})
    assert "| forward (1,16,4096,128) full | 2 ms, 500 TFLOP/s | 2.4 ms, 416.7 TFLOP/s |" in text
    assert "1 ms, 4000 GB/s, 91%" in text
    assert "| >= 1x the faster of torch's | 1.2x the faster of torch's |" in text and "| met |" in text
    assert "correct: 0 of 1 passed" in text and "off by 0.1 of its norm" in text and "a note" in text
    assert DRY_LABEL not in text


def test_errors_become_one_sentence():
    assert sentence(ValueError("one\n\n  two\n")) == "ValueError: one two"
    assert sentence("as it is") == "as it is"


# --------------------------------------------------------------------------------------------------------- compile


def test_what_the_parts_will_ask_for_is_known_before(lab):
    from bench.gpu.part_compile import asked_for, recording
    from bench.gpu.rungs import rungs
    from kernels.gpu import launch

    before = launch._on_device, launch._on_simulator
    found = asked_for(lab)
    assert (launch._on_device, launch._on_simulator) == before
    asked = {(path.name, dict(defines).get("TYPE")) for path, defines in found}
    assert {("softmax.cu", "float"), ("softmax.cu", "bf16"), ("gelu.cu", "f16"), ("adamw.cu", "float")} <= asked
    assert {path.stem for path, _ in found} >= {rung.source for rung in rungs(lab)}
    x = np.ones((2, 5), np.float32)
    with lab.on(), recording():
        kernels.gelu_forward(x, impl="cuda")
    with lab.on():
        assert kernels.gelu_forward(x, impl="cuda")[0, 0] == pytest.approx(0.8413447)  # the real one again


def test_the_compile_part(lab):
    from kernels.gpu import nvrtc

    nvrtc.version()
    rows = run_case(lab, "compile", "CuPy's cache") + run_case(lab, "compile", "what the assembler says")
    assert all(row["equal"] for row in rows), rows
    assert rows[0]["case"] == "CuPy's cache: 2 modules" and rows[-1]["registers"] > 0


def mine(x):
    """A softmax: of NumPy arrays in the dry run, of CuPy arrays on a GPU."""
    x = x.astype(np.float32)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def not_a_softmax(x):
    return x.astype(np.float32)


def test_a_candidate_joins_the_cases_of_its_kernel(lab):
    lab.candidates = [f"{__name__}:mine=softmax_forward", f"{__name__}:not_a_softmax=softmax_forward"]
    rows = {row["implementation"]: row for row in run_case(lab, "memory", "softmax forward")}
    assert rows[f"{__name__}:mine"]["equal"] and rows[f"{__name__}:mine"]["median_s"] > 0
    assert "differs from" in rows[f"{__name__}:not_a_softmax"]["problem"]
    assert not any(__name__ in row["implementation"] for row in run_case(lab, "memory", "gelu forward"))
    assert kernels.softmax_forward.__module__ == "kernels.softmax"  # in its place again


def test_a_candidate_that_cannot_be_found(capsys, tmp_path):
    assert command.main(["--out", str(tmp_path), "--device", "simulator", "--candidate", "nowhere:softmax"]) == 2
    assert "nowhere" in capsys.readouterr().err
