"""What the GPU kernels set out to reach, held against a run as bench/targets.py does it."""

from __future__ import annotations

from dataclasses import replace

from ..targets import Result, Target, each, evaluate, faster_than, share, time_of
from .lab import Row

TORCH = ("torch.flash", "torch.cudnn")
LONG = r",(4096|8192|16384),"
teraflops = each(lambda row: row["flops"] / row["median_s"] / 1e12)
COPY, FASTER = "% of copying", "x the faster of torch's"

MEMORY = {
    "norms": "^(layer|rms)norm", "softmax": "^softmax", "cross-entropy": "^cross_entropy",
    "activations": "^(gelu|silu|swiglu)", "adamw": "^adamw",
}  # fmt: skip
TARGETS = [
    Target("attention forward, head dim 128, 4k-16k, full", "attention", rf"^forward .*{LONG}128\) full",
           faster_than(*TORCH), ">=", 1.0, FASTER),
    Target("attention forward, head dim 128, 4k-16k, causal", "attention", rf"^forward .*{LONG}128\) causal",
           faster_than(*TORCH), ">=", 1.0, FASTER),
    Target("attention forward, head dim 64, 16k, full", "attention", r"^forward .*,16384,64\) full", teraflops, ">=",
           500, "TFLOP/s"),
    *(Target(f"attention backward, head dim {D}", "attention", rf"^backward .*,{D}\)", faster_than(*TORCH), ">=", 1.0,
             FASTER) for D in (64, 128)),
    *(Target(work, "memory", cases, share, ">=", 85, COPY) for work, cases in MEMORY.items()),
    *(Target(work, "memory", cases, faster_than("torch"), ">=", 1.5, "x torch eager")
      for work, cases in MEMORY.items()),
    Target("GPT-2 124M training step", "gpt", "", time_of("torch.compile"), "<=", 0.8, "x torch.compile's time"),
]  # fmt: skip


def results(rows: list[Row], dry: bool) -> list[Result]:
    """The figures; dry ones meet and miss nothing, and a case for which no time was left is open."""
    ran = [row for row in rows if not row["problem"].startswith("no time left")]
    found = evaluate(ran, TARGETS)
    return [replace(result, met=None) for result in found] if dry else found
