"""Mixed precision: the passes in 16 bits, the weights in 32.

    w16  = round(w32)                      a copy in 16 bits for the passes; the float32 master is what is trained
    loss = f(w16), in float32
    g16  = d(scale * loss) / d w16         small gradients, times scale, are above float16's smallest number
    w32  = w32 - lr * g32                  g32 = float32(g16) / scale

    format    bits of precision   smallest      largest         here
    float32   24                  1.4e-45       3.4e+38
    float16   11                  6.0e-8        65504           weights, activations and their gradients; needs scaling
    bfloat16  8                   9.2e-41       3.4e+38         on a GPU likewise, and nothing to scale; on the CPU
                                                                factors of products only (minillm.autocast)

Why the master copy: float16 has no number between 1 and 1 + 2^-10, so a weight of 1 whose steps are 2^-12 never moves.
Why the scale: a gradient below 2^-25 would become 0, and many are (grad_scaler.py).

    scaler = GradScaler()
    for x, y in batches:
        optimizer.zero_grad()
        with mixed_precision(model, "float16"):
            scaler.scale(model.loss(x, y)).backward()
        scaler.step(optimizer, clip_norm=1.0)
        scaler.update()

On a GPU both halve the bytes that every kernel moves, and products run on the tensor cores with sums in float32; norms,
softmax and losses compute in float32 inside their kernels. bfloat16 (sm_80 and newer) needs no scaler; float16 does.
On the CPU float16 is for study and for testing: no kernel multiplies it, so each op is computed in float64 and rounded.
There bfloat16 is the one that saves time.

Source: Micikevicius et al. 2017, Mixed Precision Training, arXiv:1710.03740.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kernels.gpu import bfloat16

from ..dtypes import float16, is_floating
from ..errors import nearest
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..precision import autocast

PRECISIONS = ("float32", "bfloat16", "float16")


@contextmanager
def mixed_precision(model: Module, dtype: Any = "float16") -> Iterator[None]:
    """Inside the block `model` computes in that precision, from float32 masters: run forward and backward in it.

    dtype  "float16": every floating parameter and buffer of the model is replaced by a float16 copy, tied to the
           graph: the gradient of the copy arrives, in float32, in the .grad of the parameter. Floating inputs are yours
           to convert (x.half()). Losses of language models (linear_cross_entropy) are computed in float32; give others
           float32 yourself: F.cross_entropy(model(x).float(), y).
           "bfloat16": on a GPU copies, too; on the CPU `minillm.autocast`. "float32": nothing.

    In a block with copies the model has no parameters: make the optimizer, zero, clip, step and save outside of it.
    ValueError for another dtype, and for a model that is not float32.
    """
    name = str(np.dtype(dtype)) if not isinstance(dtype, str) else dtype
    if name not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"mixed_precision: dtype {name!r} is none of {known}.{nearest(name, PRECISIONS)}")
    if name == "float32":
        yield
    elif name == "bfloat16" and on_cpu(model):
        with autocast():
            yield
    else:
        copies = copies_of_weights(model, bfloat16() if name == "bfloat16" else float16)
        with copies, np.errstate(over="ignore", invalid="ignore"):  # the scaler looks for infinities
            yield


def on_cpu(model: Module) -> bool:
    """Whether the model's parameters are in main memory."""
    return all(p.device == "cpu" for p in model.parameters())


@contextmanager
def copies_of_weights(model: Module, dtype: Any) -> Iterator[None]:
    """Inside the block each floating parameter and buffer of the model stands there in that dtype."""
    places = [(m, n, v) for m in model.modules() for n, v in [*m._own(Parameter), *m._own_buffers()]]
    places = [place for place in places if is_floating(place[2].dtype)]
    if not places:
        raise ValueError(
            f"mixed_precision: {type(model).__name__} has no parameters to copy: it has none at all, or this is a "
            "block inside another one"
        )
    for holder, name, value in places:
        if value.dtype != np.float32:
            raise ValueError(
                f"mixed_precision: {name!r} of a {type(holder).__name__} is {value.dtype}; the weights that are "
                "trained must be float32: model.float() first"
            )
    copies = {id(v): v.to(dtype) for _, _, v in places}  # tied weights have one copy
    try:
        for holder, name, value in places:
            vars(holder)[name] = copies[id(value)]
        yield
    finally:
        for holder, name, value in places:
            vars(holder)[name] = value
