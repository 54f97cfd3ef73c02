"""nanoGPT's recipe for a laptop, end to end: `python -m bench.nanogpt --data input.txt`.

In PyTorch, eager, as its train.py does it, and by `minillm train gpt --preset nanogpt-cpu`, a process each that has the
machine to itself: wall time from start to end, compiled kernels apart, and the loss on the last tenth.

The recipe (Karpathy 2022, github.com/karpathy/nanoGPT): 4 layers, 4 heads, width 128, context 64, batch 12, no dropout,
no biases; 2000 steps of AdamW (betas 0.9 and 0.99, decay 0.1), 1e-3 to 1e-4 by a cosine after 100 steps of warm-up,
gradients clipped at 1; every 250 steps the loss on 20 batches of each part of the text.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nanogpt", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="FILE", help="a text, such as tiny shakespeare")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--torch-alone", action="store_true", help=argparse.SUPPRESS)  # the process of PyTorch
    arguments = parser.parse_args(argv)
    if arguments.torch_alone:
        print(json.dumps(train_torch(arguments.data, arguments.steps, arguments.threads)))
        return
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    flags = ["--data", arguments.data, "--steps", str(arguments.steps)]
    theirs = ["-m", "bench.nanogpt", "--torch-alone", *flags, "--threads", str(arguments.threads)]
    torch_seconds, out = _timed([sys.executable, *theirs], environment)
    torch_loss = json.loads(out.splitlines()[-1])["validation_loss"]
    print(f"PyTorch, eager   {torch_seconds:6.1f} s   {torch_loss:.4f} nats a character on the last tenth")
    with tempfile.TemporaryDirectory() as folder:
        seconds, out = _timed(
            [sys.executable, "-m", "minillm", "train", "gpt", "--preset", "nanogpt-cpu", *flags, "--out", folder,
             "--quiet", "--json"], environment,
        )  # fmt: skip
    metrics = json.loads(out)["results"][0]["metrics"]
    ratio = seconds / torch_seconds
    print(f"minillm          {seconds:6.1f} s   {metrics[0]['value']:.4f}   {ratio:.2f}x PyTorch's time")


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return time.perf_counter() - start, done.stdout


def train_torch(path: str, steps: int, threads: int) -> dict[str, float]:
    """nanoGPT's train.py for a CPU, its model written with functions (models/gpt.py)."""
    import torch

    from .models.gpt import loss_torch

    torch.set_num_threads(threads)
    torch.manual_seed(1337)
    text = Path(path).read_text("utf-8")
    names = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = torch.tensor([names[c] for c in text])
    parts = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    p = _weights(torch, len(names))
    groups = [{"params": [w for w in p.values() if w.ndim >= 2], "weight_decay": 0.1},
              {"params": [w for w in p.values() if w.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def batch(part: Any) -> tuple[Any, Any]:
        starts = torch.randint(len(part) - CONTEXT, (BATCH,))
        return (torch.stack([part[s : s + CONTEXT] for s in starts]),
                torch.stack([part[s + 1 : s + 1 + CONTEXT] for s in starts]))  # fmt: skip

    for step in range(steps + 1):
        if step % 250 == 0:
            with torch.no_grad():
                for part in parts:
                    for _ in range(20):
                        loss_torch(p, *batch(part), LAYERS, HEADS)
        if step == steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        loss = loss_torch(p, *batch(parts[0]), LAYERS, HEADS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"validation_loss": _whole(torch, p, parts[1], loss_torch)}


def _weights(torch: Any, vocabulary: int) -> dict[str, Any]:
    def normal(*shape: int, std: float = 0.02) -> Any:
        return (torch.randn(*shape) * std).requires_grad_()

    p = {"token.weight": normal(vocabulary, WIDTH), "position.weight": normal(CONTEXT, WIDTH)}
    for i in range(LAYERS):
        b, residual = f"blocks.{i}.", 0.02 / math.sqrt(2 * LAYERS)
        p |= {b + "norm1.weight": torch.ones(WIDTH, requires_grad=True),
              b + "attention.in_proj_weight": normal(3 * WIDTH, WIDTH),
              b + "attention.out_proj.weight": normal(WIDTH, WIDTH, std=residual),
              b + "norm2.weight": torch.ones(WIDTH, requires_grad=True),
              b + "mlp.0.weight": normal(4 * WIDTH, WIDTH),
              b + "mlp.2.weight": normal(WIDTH, 4 * WIDTH, std=residual)}  # fmt: skip
    return p | {"norm.weight": torch.ones(WIDTH, requires_grad=True)}


def _rate(step: int, steps: int) -> float:
    warm_up = min(100, steps // 5)
    if step < warm_up:
        return 1e-3 * (step + 1) / (warm_up + 1)
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) * 9e-4


def _whole(torch: Any, p: dict[str, Any], ids: Any, loss: Any) -> float:
    """The mean over the whole of the held-out part, in windows side by side."""
    count = (len(ids) - 1) // CONTEXT
    x, y = ids[: count * CONTEXT].view(count, CONTEXT), ids[1 : count * CONTEXT + 1].view(count, CONTEXT)
    with torch.no_grad():
        sums = [loss(p, x[i : i + 64], y[i : i + 64], LAYERS, HEADS).item() * len(x[i : i + 64])
                for i in range(0, count, 64)]  # fmt: skip
    return float(np.sum(sums) / count)


if __name__ == "__main__":
    main()
