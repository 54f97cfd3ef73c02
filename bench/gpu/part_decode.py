"""Tokens a second of GPT-2 (124M), batch 1: `generate` from end to end, Python included, beside torch.

Bound by memory: a token reads every weight once. torch keeps a cache of fixed length and is run eager, and compiled
with its CUDA graphs. Ours takes each step as one recorded launch; "minillm.eager" does not. All take the likeliest
token.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .lab import Lab, Row
from .part_gpt import model, sizes
from .parts import NO_TORCH, Cases

TITLE = "decoding"


def cases(lab: Lab) -> Cases:
    for name in ("minillm", "minillm.eager", "minillm.float32", "torch", "torch.compile"):
        yield name, lambda name=name: [_decode(lab, name)]


def _decode(lab: Lab, name: str) -> Row:
    s, count = sizes(lab), lab.pick(256, 3)
    prompt = np.arange(lab.pick(16, 2)) % s["vocab_size"]
    case = f"GPT-2, {count} tokens behind {prompt.size}, batch 1"
    weights = 12 * s["layers"] * s["width"] ** 2 + s["vocab_size"] * s["width"]
    width = 4 if name.endswith("float32") else 2
    if name.startswith("torch") and lab.torch is None:
        return lab.failed("decode", case, NO_TORCH, name)
    run = (_torch if name.startswith("torch") else _minillm)(lab, name, prompt, count)
    tokens = [int(t) for t in run()]  # the first run compiles
    samples = []
    for _ in range(lab.pick(3, 1)):
        start = time.perf_counter()
        again = [int(t) for t in run()]
        samples.append((time.perf_counter() - start) / count)
    median = float(np.median(samples))
    row = lab.row("decode", case, name, median_s=median, q1_s=min(samples), q3_s=max(samples), samples=len(samples),
                  bytes=float(width * weights), tokens_a_second=1 / median, first_tokens=tokens[:8])  # fmt: skip
    if lab.limits.get("copy"):
        row["limit_s"] = row["bytes"] / lab.limits["copy"]
        row["share_of_limit"] = row["limit_s"] / median
    if again != tokens or len(tokens) != count:
        row |= {"equal": False, "problem": "two runs gave different tokens"}
    return row


def _minillm(lab: Lab, name: str, prompt: np.ndarray, count: int) -> Any:
    from minillm.generation import Sampling, generate

    net = model(lab).eval()
    if not lab.dry:
        net.to("cuda")
        if name != "minillm.float32":
            net.to(dtype=lab.dtype("bfloat16"))
    settings, recorded = Sampling(temperature=0.0), name != "minillm.eager" and not lab.dry

    def run() -> Any:
        return generate(net, [prompt], settings, max_new_tokens=count, recorded=recorded)[0][prompt.size :]

    return run


def _torch(lab: Lab, name: str, prompt: np.ndarray, count: int) -> Any:
    from .torch_gpt import TorchGPT, decode

    torch = lab.torch
    net = TorchGPT(**sizes(lab)).load(model(lab).state_dict()).to(lab.torch_device, torch.bfloat16).eval()
    ids = torch.from_numpy(prompt)[None].to(lab.torch_device)
    run = decode(net, ids, count, name == "torch.compile", "eager" if lab.dry else "inductor")
    return lambda: run()[0].tolist()
