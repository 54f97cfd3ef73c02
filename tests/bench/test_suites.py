"""Every suite, on small shapes: ours is right, and so are the rivals, so that what is compared computes the same."""

from __future__ import annotations

import pytest
from bench_checks import LIMITS, row, session

from bench.runner import run_case
from bench.suites import load

SHAPES = {
    "matmul": (33, 20, 17), "linear": (9, 17, 20), "attention": (1, 2, 33, 16), "attention_backward": (1, 2, 33, 16),
    "decode": (1, 2, 40, 16), "norms": (5, 33), "softmax": (5, 33), "cross_entropy": (6, 33), "activations": (100,),
    "embedding": (20, 7, 9), "adamw": (1000,), "engine": (10, 4), "gpt_step": (1, 2, 16, 8, 2),
    "vae_step": (20, 10, 3, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_ours_is_right_and_so_is_numpy(name):
    s = session(shapes=[SHAPES[name]], rivals=frozenset({"numpy"}))
    for case in load(name).cases(s.options):
        run_case(case, s)
    assert s.rows and not s.failed, s.notes
    assert any(r["implementation"] == "minillm" for r in s.rows)
    wrong = [(r["case"], r["implementation"], r["problem"]) for r in s.rows if not r["equal"]]
    assert [w for w in wrong if "global norm" not in w[0]] == []  # NumPy's is in float32


@pytest.mark.oracle
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rival", ["torch", *(pytest.param(r, marks=pytest.mark.slow) for r in ("torch.bf16", "jax"))])
def test_rivals_compute_the_same(name, rival):
    pytest.importorskip(rival.split(".")[0])
    s = session(shapes=[SHAPES[name]], rivals=frozenset({rival}))
    for case in load(name).cases(s.options):
        run_case(case, s)
    assert not s.failed and not [n for n in s.notes if "failed" in n], s.notes
    wrong = [(r["case"], r["problem"]) for r in s.rows if not r["equal"]]
    assert [w for w in wrong if "global norm" not in w[0]] == []


def test_the_same_input_in_every_run():
    options = session().options
    assert (options.normal(3, 4) == options.normal(3, 4)).all()
    assert options.normal(3, 4).dtype == "float32" and options.normal(3, 4).std() > 0.1
    assert options.integers(5, 100).max() == 4


def test_plots_are_drawn_of_what_there_is(tmp_path):
    from bench.plots import draw

    machine = {"threads": 2, "cpu": "a CPU", "limits": {"2": vars(LIMITS[2])}}
    rows = [
        row(ratios={"numpy": 1.5, "torch": 0.5, "mine:f": 3.0, "minillm.bf16": 0.6}),
        row(implementation="torch"), row(implementation="numpy"), row(implementation="mine:f"),
        row(implementation="minillm.bf16"), row(suite="softmax", case="alone"), row(median_s=None, equal=False),
        row(suite="ladder", case="matmul 8x8x8, one thread", implementation="rung1_x", label="loops"),
        row(suite="ladder", case="matmul 8x8x8, one thread", implementation="numpy"),
        row(suite="limits", case="copy 16 KB, 1 thread", threads=1),
    ]  # fmt: skip
    names = {p.name for p in draw({"machine": machine, "rows": rows}, tmp_path)}
    assert names == {"roofline.png", "ratios_matmul.png", "ladder_matmul.png", "bandwidth.png"}
    assert draw({"machine": machine, "rows": []}, tmp_path) == []


def test_a_limit_is_the_slower_of_computing_and_moving():
    limits = LIMITS[1]
    assert limits.seconds(1e11, 1.0, 1.0) == pytest.approx(1.0)
    assert limits.seconds(1e11, 1.0, 1.0, bf16=True) == pytest.approx(0.5)
    assert limits.seconds(1.0, 1e10, 1 << 28) == pytest.approx(1.0)
    assert limits.seconds(1.0, 1e10, 1 << 14) == pytest.approx(0.1)
    assert limits.bandwidth_at(1 << 14) > limits.bandwidth_at(1 << 20) > limits.bandwidth_at(1 << 30)
