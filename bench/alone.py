"""Do rivals run at their best in the harness? `python -m bench.alone` holds torch against itself.

A handful of torch calls, each timed twice: in a process that imports nothing but torch and loops, and as a rival in a
block of this harness, between blocks of NumPy and of our kernels whose thread pools were busy a moment ago.
"""

from __future__ import annotations

import os
import subprocess
import sys

from . import environment

CALLS = {
    "gelu 65536": "x = torch.randn(65536); f = lambda: torch.nn.functional.gelu(x)",
    "matmul 768x128x512": "x, w = torch.randn(768, 128), torch.randn(128, 512); f = lambda: x @ w",
    "matmul 1024^3": "x, w = torch.randn(1024, 1024), torch.randn(1024, 1024); f = lambda: x @ w",
    "attention (8,6,256,64)": "q = torch.randn(8, 6, 256, 64); "
    "f = lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)",
}
ALONE = """
import statistics, time, torch
torch.set_num_threads({threads}); torch.set_grad_enabled(False)
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
    plain = dict(os.environ)
    environment.prepare(threads, [])
    harness = _in_harness(threads)
    for name, setup in CALLS.items():
        code = ALONE.format(threads=threads, setup=setup)
        alone = float(subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True).stdout)
        here = harness[name]
        print(f"{name:24} alone {alone * 1e6:9.1f} µs   here {here * 1e6:9.1f} µs   here / alone {here / alone:.2f}")


def _in_harness(threads: int) -> dict[str, float]:
    import numpy as np

    import kernels

    from . import rivals, timing

    torch = rivals.torch()
    a = np.ones((768, 512), np.float32)
    found = {}
    for name, setup in CALLS.items():
        scope: dict = {"torch": torch}
        exec(setup, scope)
        runs = {"numpy": lambda: a @ a.T, "torch": scope["f"], "minillm": lambda: kernels.gelu_forward(a)}
        with torch.no_grad():
            found[name] = timing.measure(runs, timing.Budget(1.0, 5))["torch"].quartiles()[1]
    return found


if __name__ == "__main__":
    main()
