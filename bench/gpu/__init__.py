"""python -m bench gpu: everything that can only be known on a GPU, in one call of under 8 minutes.

    python -m bench gpu --out DIR                      on the GPU
    python -m bench gpu --out DIR --device simulator   every line of it on a CPU, tiny shapes: the times mean nothing

The parts, in the order in which they run:

    compile      the kernels for this GPU, in parallel: nothing later waits for the compiler
    ceilings     copying, and a product of 8192^3 bfloat16 numbers: what every share below is a share of
    correct      every kernel and every rung of the attention ladder against float64, small ragged shapes and large ones
    attention    forward and backward, head dims 64 and 128, full and causal, 512 to 16384 tokens, beside torch's FLASH
                 and cuDNN backends; the rungs beside each other
    memory       the kernels that memory bounds, beside torch eager and torch.compile
    gpt          a training step of GPT-2 (124M) in bfloat16, beside a plain torch implementation, eager and compiled
    decode       tokens a second, batch 1
    sanitize     compute-sanitizer's memcheck and racecheck on small calls

A part runs in a process of its own (worker.py), has a budget of seconds, and tells its rows as it goes: a kernel that
crashes or hangs costs its own case, which says so in its row, and the next case begins in a new process. DIR gets
after every part

    results.json    {"machine": ..., "rows": [...], "notes": [...]} with the rows of the benchmark (bench/runner.py)
    report.md       the tables, and the targets with this run's figure: met, not met, not run

How times are taken: timing.py. Where torch is missing, its rows say so and ours are measured all the same.
"""

from __future__ import annotations

PARTS = {  # name: its share of the time
    "compile": 0.07, "ceilings": 0.04, "correct": 0.15, "attention": 0.20, "memory": 0.20, "gpt": 0.18, "decode": 0.06,
    "sanitize": 0.10,
}  # fmt: skip
