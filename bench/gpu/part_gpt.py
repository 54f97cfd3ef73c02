"""A training step of GPT-2 (124M parameters, 1024 tokens, batch 16) in bfloat16: forward, backward, clip, AdamW.

The rivals are plain torch (torch_gpt.py) under autocast with its fused AdamW, eager and under torch.compile. Ours runs
from float32 masters with everything else in bfloat16 (minillm.training.mixed_precision), as a CUDA graph
(minillm.cuda.graph) where the passes can be recorded; "minillm.eager" does without the graph, "minillm.autocast" with
bfloat16 in products alone. The vocabulary is padded to 50304, as everyone does who measures this. Equal: the losses of
the first steps.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from .lab import Lab, Row, sentence
from .parts import NO_TORCH, Cases, relative
from .timing import Work, rows

TITLE = "training step of GPT-2"


def sizes(lab: Lab) -> dict[str, int]:
    real = {"vocab_size": 50304, "context": 1024, "layers": 12, "heads": 12, "width": 768}
    return lab.pick(real, {"vocab_size": 32, "context": 8, "layers": 1, "heads": 2, "width": 16})


def model(lab: Lab) -> Any:
    import minillm
    from minillm.models import GPT

    minillm.manual_seed(0)
    return GPT(**sizes(lab), mlp="gelu_tanh")


def cases(lab: Lab) -> Cases:
    batch = lab.pick(16, 2)
    for name in ("minillm.eager", "minillm", "minillm.autocast", "torch", "torch.compile"):
        yield f"{name}", lambda name=name: _step(lab, name, batch)


_losses: list[float] = []  # of the first steps, by the first implementation that ran in this process


def _step(lab: Lab, name: str, batch: int) -> list[Row]:
    """Each implementation is a case of its own: four models with their states side by side would fill a smaller GPU,
    and one that breaks leaves the others alone. They take no turns; a step is long enough for clocks to settle."""
    s = sizes(lab)
    case = f"GPT-2 step ({s['layers']},{s['heads']},{s['width']},{s['context']},{batch}) bfloat16"
    ids = lab.integers(s["vocab_size"], batch, s["context"] + 1)
    arrays = ids[:, :-1].copy(), ids[:, 1:].copy()
    label = ""
    if name.startswith("torch"):
        if lab.torch is None:
            return [lab.failed("gpt", case, NO_TORCH, name)]
        call = _torch(lab, name, arrays)
    else:
        call, label = _minillm(lab, arrays, name)
    losses = [float(call()) for _ in range(3)]
    if not _losses:
        _losses[:] = losses
    error = relative(np.array(losses), np.array(_losses))
    flops = 6.0 * batch * s["context"] * (12 * s["layers"] * s["width"] ** 2 + s["vocab_size"] * s["width"])
    flops += 3.5 * 4.0 * batch * s["layers"] * s["context"] ** 2 * s["width"] * 0.5
    found = rows(lab, "gpt", case, {name: Work([call], name.split(".")[0].replace("minillm", "cupy"), graph=False)},
                 seconds=2.0, flops=flops)  # fmt: skip
    for row in found:
        row["losses"], row["max_error"] = losses, error if np.isfinite(error) else None
        row["tokens_a_second"] = batch * s["context"] / row["median_s"] if row["median_s"] else None
        row["label"] = "; ".join(filter(None, (row["label"], label)))
        if not error <= 0.01:
            row |= {"equal": False, "problem": f"losses {losses}, of the first implementation {_losses}"}
    return found


def _minillm(lab: Lab, arrays: tuple, name: str) -> tuple[Any, str]:
    """(a step, what to say of it)."""
    import minillm
    from minillm import optim

    net = model(lab)
    if not lab.dry:
        net.to("cuda")
    optimizer = optim.AdamW(net.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1)
    batch = tuple(minillm.as_tensor(x) for x in arrays)

    def passes(ids: Any, targets: Any) -> Any:
        with _bfloat16(lab, net, name):
            loss = net.loss(ids, targets)
            loss.backward()
        return loss.detach()

    if name != "minillm.eager" and not lab.dry:
        try:
            run = minillm.cuda.graph(passes, *batch, parameters=net.parameters())
        except Exception as error:
            return _eager(optimizer, passes, batch), f"no graph: {sentence(error)}"

        def step() -> Any:
            loss = run(*batch)
            optimizer.step(clip_norm=1.0)
            return loss

        return _value(step), "CUDA graph"
    return _eager(optimizer, passes, batch), ""


def _eager(optimizer: Any, passes: Any, batch: tuple) -> Any:
    def step() -> Any:
        optimizer.zero_grad()
        loss = passes(*batch)
        optimizer.step(clip_norm=1.0)
        return loss

    return _value(step)


def _value(step: Any) -> Any:
    """The step, its loss left where it is: float() of it waits, a timing does not."""
    return lambda: step().data


def _bfloat16(lab: Lab, net: Any, name: str) -> Any:
    import kernels
    import minillm
    from minillm.training import mixed_precision

    if lab.dry and not kernels.has_bf16():
        return contextlib.nullcontext()
    return minillm.autocast() if name == "minillm.autocast" else mixed_precision(net, "bfloat16")


def _torch(lab: Lab, name: str, arrays: tuple) -> Any:
    from .torch_gpt import TorchGPT, training_step

    weights = model(lab).state_dict()
    net = TorchGPT(**sizes(lab)).load(weights).to(lab.torch_device)
    step = training_step(net, lab.torch_device, name == "torch.compile", "eager" if lab.dry else "inductor")
    tensors = [lab.tensor(x) for x in arrays]
    return lambda: step(*tensors)


def ratios(found: list[Row]) -> None:
    """Between rows of one case that were measured one after another; run.py calls it when all are there."""
    timed = {row["implementation"]: row["median_s"] for row in found if row["suite"] == "gpt" and row["median_s"]}
    for row in found:
        if row["suite"] == "gpt" and row["median_s"]:
            others = {name: t / row["median_s"] for name, t in timed.items() if name != row["implementation"]}
            row["ratios"] = others
