"""Does bfloat16 cost anything but digits? `python -m bench.loss_curves DIR` trains twice and draws both losses.

The small GPT of the suite gpt_step on the source text of Python's standard library: same weights, same batches, float32
products in one run and bfloat16 in the other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from . import environment

SIZES = {"layers": 4, "heads": 4, "width": 128, "context": 64}
BATCH = 12


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(prog="python -m bench.loss_curves", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where loss_curves.png and loss_curves.json go")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args(argv)
    environment.prepare(environment.usable_cores(), [])
    from .models.step import has_bf16

    if not has_bf16():
        raise SystemExit("this CPU has no bfloat16 products (AVX512_BF16): nothing to compare")
    losses = {name: train(arguments.steps, bf16) for name, bf16 in (("float32", False), ("bfloat16", True))}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "loss_curves.json").write_text(json.dumps(losses))
    draw(losses, arguments.folder / "loss_curves.png")
    last = max(1, arguments.steps // 10)
    for name, values in losses.items():
        print(f"{name:9} mean loss of the last {last} steps: {np.mean(values[-last:]):.4f} nats a character")
    return losses


def train(steps: int, bf16: bool) -> list[float]:
    """The loss of every step, in nats a character."""
    import minillm
    from minillm.data.text import python_source_text
    from minillm.models import GPT

    from .models.step import minillm_step

    text = np.frombuffer(python_source_text(300_000).encode("ascii", "replace"), np.uint8)
    names, ids = np.unique(text, return_inverse=True)
    minillm.manual_seed(0)
    model = GPT(len(names), **SIZES)
    rng = np.random.default_rng(0)
    x, y = (np.zeros((BATCH, SIZES["context"]), np.int64) for _ in range(2))
    step = minillm_step(model, (x, y), bf16)
    losses = []
    for _ in range(steps):
        starts = rng.integers(0, len(ids) - SIZES["context"] - 1, BATCH)
        windows = np.stack([ids[s : s + SIZES["context"] + 1] for s in starts])
        x[:], y[:] = windows[:, :-1], windows[:, 1:]
        losses.append(float(step()))
    return losses


def draw(losses: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6), layout="constrained", sharex=True, height_ratios=(3, 1))
    for (name, values), colour in zip(losses.items(), ("#1f77b4", "#d62728")):
        above.plot(values, label=name, color=colour, linewidth=1.1, alpha=0.8)
    float32, bf16 = losses.values()
    below.plot(np.subtract(bf16, float32), color="#555555", linewidth=1.0)
    above.set(ylabel="loss, nats a character")
    above.set_title("One GPT, the same weights and batches, products in two precisions", loc="left", fontsize=11)
    above.legend(frameon=False)
    below.set(xlabel="step", ylabel="bfloat16 - float32")
    below.axhline(0, color="#333333", linewidth=0.8)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#e6e6e6", linewidth=0.8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
