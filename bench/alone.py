"""Do rivals run at their best in the harness? `python -m bench.alone` holds torch against itself.

A handful of torch calls, each timed twice: in a process that imports nothing but torch and loops, and as a rival of a
suite, in blocks between those of NumPy and of our kernels, whose thread pools were busy a moment ago.
"""

from __future__ import annotations

import subprocess
import sys

from . import environment

CALLS = {  # (suite, shape, case): what to call
    ("activations", (65536,), "gelu forward 65536"):
        "x = torch.randn(65536); f = lambda: torch.nn.functional.gelu(x)",
    ("matmul", (1024, 1024, 1024), "forward 1024x1024x1024"):
        "x, w = torch.randn(1024, 1024), torch.randn(1024, 1024); f = lambda: x @ w.T",
    ("attention", (8, 6, 256, 64), "forward (8,6,256,64) full"):
        "q = torch.randn(8, 6, 256, 64); f = lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)",
    ("linear", (768, 128, 512), "forward+backward 768x128->512"):
        "x, w, b = (torch.randn(*s).requires_grad_() for s in ((768, 128), (512, 128), (512,)))\n"
        "d = torch.ones(768, 512)\n"
        "f = lambda: torch.autograd.grad(torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b)), (x, w, b), d)",
}  # fmt: skip
ALONE = """
import statistics, time, torch
torch.set_num_threads({threads})
{setup}
for _ in range(20): f()
times = []
end = time.perf_counter() + 1.0
while time.perf_counter() < end:
    start = time.perf_counter(); f(); times.append(time.perf_counter() - start)
print(statistics.median(times))
"""


def main() -> None:
    threads = environment.usable_cores()
    environment.prepare(threads, [])
    for (suite, shape, case), setup in CALLS.items():
        here = _in_harness(threads, suite, shape, case)
        code = ALONE.format(threads=threads, setup=setup)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment.of_worker(), stdout=subprocess.PIPE, text=True, check=True
        )
        alone = float(done.stdout)
        print(f"{case:30} alone {alone * 1e6:9.1f} µs   here {here * 1e6:9.1f} µs   here / alone {here / alone:.2f}")


def _in_harness(threads: int, suite: str, shape: tuple[int, ...], name: str) -> float:
    from . import limits, remote
    from .case import Options
    from .runner import Session, run_case
    from .suites import load
    from .timing import Budget

    options = Options(threads=threads, shapes=[shape], rivals=frozenset({"numpy", "torch"}))
    unit = limits.Limits(threads, 1.0, 1.0, [1, 2], {"copy": [1.0, 1.0]})  # nobody asks for shares here
    with remote.workers(options) as workers:
        session = Session(options, Budget(1.0, 5), {1: unit, threads: unit}, workers=workers)
        (case,) = (case for case in load(suite).cases(options) if case.name == name)
        rows = {row["implementation"]: row for row in run_case(case, session)}
    return rows["torch"]["median_s"]


if __name__ == "__main__":
    main()
