"""What this project set out to reach, as data; `evaluate` holds a run's rows against it.

A target takes the rows of one implementation in one suite whose case matches a regular expression, computes figures
from them, and the worst figure must meet the bound. Rows that did not run leave a target open: "not run".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Figures = Callable[[list[Row]], list[tuple[float, str]]]  # rows -> (figure, the case it comes from)


@dataclass
class Target:
    work: str
    suite: str
    cases: str  # regular expression, searched for in the case's name
    figures: Figures
    sense: str  # ">=" or "<="
    bound: float
    unit: str  # "%", "x", or a word
    implementation: str = "minillm"


@dataclass
class Result:
    work: str
    target: str
    figure: str
    worst: str
    met: bool | None  # None: not run


def each(measure: Callable[[Row], float | None]) -> Figures:
    return lambda rows: [(f, row["case"]) for row in rows if (f := measure(row)) is not None]


def faster_than(*rivals: str) -> Figures:
    """How many times as fast ours is as the fastest of the rivals."""
    return each(lambda row: min([row["ratios"][r] for r in rivals if r in row["ratios"]], default=None))


def time_of(*rivals: str) -> Figures:
    """Our time as a fraction of the fastest rival's."""
    return lambda rows: [(1 / f, case) for f, case in faster_than(*rivals)(rows)]


def sum_of_times(*rivals: str) -> Figures:
    """The sum of our times as a fraction of the best rival's sum: each rival over all cases."""

    def figures(rows: list[Row]) -> list[tuple[float, str]]:
        own = sum(row["median_s"] for row in rows)
        sums = {
            r: sum(row["median_s"] * row["ratios"][r] for row in rows)
            for r in rivals
            if rows and all(r in row["ratios"] for row in rows)
        }
        best = min(sums, key=lambda r: sums[r], default=None)
        return [] if best is None else [(own / sums[best], f"sum over {len(rows)} products; best: {best}")]

    return figures


def heads_2_to_8(rows: list[Row]) -> list[tuple[float, str]]:
    """FLOP/s with two heads as a percentage of those with eight."""
    speed = {row["case"]: row["flops"] / row["median_s"] for row in rows}
    eight = {case: case.replace("(1,2,", "(1,8,") for case in speed if "(1,2," in case}
    return [(100 * speed[case] / speed[other], case) for case, other in eight.items() if other in speed]


share = each(lambda row: row["share_of_limit"] and 100 * row["share_of_limit"])
ns_an_element = each(lambda row: row["median_s"] / row["elements"] * 1e9 if row["elements"] else None)
ulp = each(lambda row: row.get("max_ulp"))

FIVE = r"^(?!.*\(1,2,)"  # the shapes but that with two heads
LONG = FIVE + r".*(1024|4096),\d+\) "
GPT = r"(4096x(1152|384|1536)x(384|1152|1536)|1024x1024x1024)$"
SMALL = r" 768x(128|384|512)x(128|512)$"
MEMORY = "% of copying"
STEP = ("torch", "torch.compile", "jax")
MATMUL = ("numpy", "torch", "jax")

TARGETS = [
    Target("attention forward", "attention", FIVE, faster_than("torch"), ">=", 2.0, "x torch"),
    Target("attention forward, full, T >= 1024", "attention", LONG + "full", share, ">=", 75, "% of peak"),
    Target("attention forward, causal, T >= 1024", "attention", LONG + "causal", share, ">=", 65,
           "% of peak"),
    Target("attention backward", "attention_backward", FIVE, faster_than("torch"), ">=", 2.5, "x torch"),
    Target("attention backward, full, T >= 1024", "attention_backward", LONG + "full", share, ">=", 65,
           "% of peak"),
    Target("attention forward, two heads, T = 4096", "attention", "", heads_2_to_8, ">=", 85, "% of 8 heads' speed"),
    Target("attention backward, two heads, T = 4096", "attention_backward", "", heads_2_to_8, ">=", 85,
           "% of 8 heads' speed"),
    Target("products of a GPT step: forward", "matmul", "^forward .*" + GPT, share, ">=", 90, "% of peak"),
    Target("products of a GPT step: dx", "matmul", "^dx .*" + GPT, share, ">=", 90, "% of peak"),
    Target("products of a GPT step: dweight", "matmul", "^dw .*" + GPT, share, ">=", 85, "% of peak"),
    Target("products of a GPT step: sum of times", "matmul", GPT, sum_of_times(*MATMUL), "<=", 1.0, "x the best rival"),
    Target("products of the CPU recipe", "matmul", SMALL, faster_than(*MATMUL), ">=", 1.0, "x the best rival"),
    Target("linear + bias + GELU", "linear", "^forward 4096", time_of("torch"), "<=", 0.5, "x torch's time"),
    Target("linear + bias + GELU", "linear", "^forward 4096", time_of("jax"), "<=", 0.85, "x JAX's time"),
    Target("linear + bias + GELU in bf16, with backward", "linear", r"^forward\+backward 4096", time_of("torch.bf16"),
           "<=", 1.0, "x torch autocast", "minillm.bf16"),
    Target("norms out of cache", "norms", "16384x1024", share, ">=", 80, MEMORY),
    Target("softmax out of cache", "softmax", "8192x2048", share, ">=", 80, MEMORY),
    Target("gelu out of cache", "activations", "gelu .*16777216", share, ">=", 80, MEMORY),
    Target("cross-entropy out of cache", "cross_entropy", "^(forward|loss).*4096x8192", share, ">=", 80, MEMORY),
    Target("adamw out of cache", "adamw", "step 20000000", share, ">=", 80, MEMORY),
    Target("norms in cache", "norms", "768x128|4096x384", faster_than("torch"), ">=", 2.0, "x torch"),
    Target("softmax in cache", "softmax", "768x128|1024x1024", faster_than("torch"), ">=", 2.0, "x torch"),
    Target("gelu in cache", "activations", "gelu .* 65536", faster_than("torch"), ">=", 2.0, "x torch"),
    Target("cross-entropy in cache", "cross_entropy", "^(forward|loss).*x65$", faster_than("torch"), ">=", 2.0,
           "x torch"),
    Target("adamw in cache", "adamw", "step 100000", faster_than("torch"), ">=", 2.0, "x torch"),
    Target("exp, log, tanh, erf: error", "activations", "in cache", ulp, "<=", 2.0, "ulp"),
    Target("exp, log, tanh in cache, one thread", "activations", "^(exp|log|tanh) .*in cache", time_of("numpy"), "<=",
           1.0, "x NumPy's time"),
    Target("erf in cache, one thread", "activations", "^erf .*in cache", ns_an_element, "<=", 0.4, "ns an element"),
    Target("engine: an op on 16 floats", "engine", "1000 ops", time_of("torch"), "<=", 1.0, "x torch eager"),
    Target("GPT step 4, 4, 128, float32", "gpt_step", r"\(4,4,128,64,12\)", time_of(*STEP), "<=", 0.5,
           "x the best rival"),
    Target("GPT step 6, 6, 384, float32", "gpt_step", r"\(6,6,384,256,16\)", time_of(*STEP), "<=", 0.47,
           "x the best rival"),
    Target("GPT steps in bf16", "gpt_step", "", time_of("torch.bf16"), "<=", 0.8, "x torch autocast", "minillm.bf16"),
    Target("VAE step", "vae_step", "784-400-20", time_of("torch"), "<=", 0.45, "x torch eager"),
    Target("VAE step", "vae_step", "784-400-20", time_of("jax"), "<=", 0.85, "x JAX jit"),
    Target("a token of a GPT-2, batch 1", "generate", r"\(12,12,768,", share, ">=", 80, "% of reading the weights"),
]  # fmt: skip


def evaluate(rows: list[Row], targets: list[Target] | None = None) -> list[Result]:
    return [_evaluate(t, rows) for t in (TARGETS if targets is None else targets)]


def _evaluate(t: Target, rows: list[Row]) -> Result:
    target = f"{t.sense} {_show(t.bound, t.unit)}"
    mine = [r for r in rows if (r["suite"], r["implementation"]) == (t.suite, t.implementation)
            and re.search(t.cases, r["case"])]  # fmt: skip
    wrong = [r["case"] for r in mine if not r["equal"]]
    if wrong:
        return Result(t.work, target, "wrong result", wrong[0], False)
    found = t.figures([r for r in mine if r["median_s"]])
    if not found:
        return Result(t.work, target, "-", "", None)
    figure, case = min(found) if t.sense == ">=" else max(found)
    met = figure >= t.bound if t.sense == ">=" else figure <= t.bound
    worst = f"{case} (worst of {len(found)})" if len(found) > 1 else case
    return Result(t.work, target, _show(figure, t.unit), worst, met)


def _show(number: float, unit: str) -> str:
    return f"{number:.3g}{'' if unit[:1] in '%x' else ' '}{unit}"
