"""compute-sanitizer on small calls: memcheck (addresses out of bounds) and racecheck (barriers that are missing).

The tool comes with the CUDA toolkit; where it is not on the PATH, the row says so. Each call of calls.py, on its small
shapes, and each rung run once under it: `python -m bench.gpu.part_sanitize DEVICE`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time

import kernels

from .lab import Lab, Row
from .parts import Cases

TITLE = "compute-sanitizer"
TOOLS = {"memcheck": "memcheck", "racecheck": "racecheck", "synccheck": "synccheck"}
FAILED = 99  # the exit status for findings
SECONDS = 40


def cases(lab: Lab) -> Cases:
    for tool in TOOLS:
        yield tool, lambda tool=tool: [_run(lab, tool)]


def _run(lab: Lab, tool: str) -> Row:
    program = shutil.which("compute-sanitizer")
    if program is None:
        return lab.failed("sanitize", tool, "compute-sanitizer is not on the PATH (it comes with the CUDA toolkit)")
    command = [program, "--tool", tool, "--error-exitcode", str(FAILED), sys.executable, "-m",
               "bench.gpu.part_sanitize", "simulator" if lab.dry else "gpu"]  # fmt: skip
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        text = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        text = b"".join(filter(None, (error.stdout, error.stderr))).decode(errors="replace")
        done = None
    row = lab.row("sanitize", tool, seconds=time.perf_counter() - start, ran=re.findall(r"^ran (.*)$", text, re.M))
    found = [line.strip("= ") for line in text.splitlines() if re.match(r"=+ (?!COMPUTE-SANITIZER)\S", line)]
    if done is None:
        problem = f"stopped after {SECONDS} s, with {len(row['ran'])} calls done"
    elif done.returncode == FAILED:
        problem = "; ".join(found[:3]) or "findings"
    elif done.returncode:
        problem = f"exit status {done.returncode}: {(text.strip().splitlines() or ['no output'])[-1][:200]}"
    else:
        problem = ""
    return row | {"equal": not problem, "problem": problem, "output": found[:40]}


def small_calls(device: str) -> None:
    """What runs under the tool; says what it ran. A call that raises is another part's business."""
    from .calls import CALLS, Side
    from .rungs import rungs

    lab = Lab.simulator() if device == "simulator" else Lab.gpu()
    with lab.on():
        q, k, v, dout = (lab.normal(1, 1, lab.pick(200, 8), 64, seed=i) for i in range(4))
        for rung in lab.pick(rungs(lab), rungs(lab)[:1]):
            arrays: tuple = (q, k, v)
            if rung.backward:
                arrays = (dout, *arrays, *kernels.attention_forward(*arrays, causal=True, impl="cuda"))
            _try(f"rung {rung.name}", lambda rung=rung, arrays=arrays: rung.run(*arrays, causal=True))
        for name in lab.pick(list(CALLS), ["softmax"]):
            _try(name, lambda name=name: CALLS[name](Side(lab, "cuda", "bfloat16"), True))
    if not lab.dry:
        lab.xp.cuda.Device().synchronize()


def _try(name: str, call: object) -> None:
    try:
        call()  # type: ignore[operator]
        print(f"ran {name}", flush=True)
    except Exception as error:
        print(f"raised {name}: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    small_calls(sys.argv[1])
