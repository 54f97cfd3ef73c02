"""The way from the formula to the kernel that ships, rung by rung: kernels/NAME/ladder/.

A ladder is a package with RUNGS = ((module, what it adds), ...); a rung's module has a function of the ladder's name.
Rungs run on one thread, so that their shares of the limit are comparable; the last runs on all threads once more.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import kernels

from ..case import Case, CommandError, Options, plain
from ..rivals import numpy, torch_family
from .attention import numpy_attention, torch_attention

TITLE = "rungs from the formula to the shipped kernel; `ladder NAME` runs one ladder"
SHAPE = ()
NAMES = ("matmul", "attention")


def cases(options: Options) -> Iterator[Case]:
    for name in options.names or NAMES:
        if name not in NAMES:
            raise CommandError(f"no ladder {name!r}; there are {', '.join(NAMES)}")
        if importlib.util.find_spec(f"kernels.{name}.ladder") is None:
            continue
        rungs = importlib.import_module(f"kernels.{name}.ladder").RUNGS
        case = _matmul(options) if name == "matmul" else _attention(options)
        case.labels = dict(rungs)
        case.ours = {module: plain(_function(name, module)) for module, _ in rungs}
        yield case
        if options.threads > 1:
            last = rungs[-1][0]
            name = case.name.replace("one thread", f"{options.threads} threads")
            yield replace(case, name=name, threads=None, ours={last: case.ours[last]})


def _function(name: str, module: str) -> Callable[..., Any]:
    found = importlib.import_module(f"kernels.{name}.ladder.{module}")
    for function in (name, f"{name}_forward", "forward"):
        if hasattr(found, function):
            return getattr(found, function)
    raise CommandError(f"kernels/{name}/ladder/{module}.py has no function {name}")


def _matmul(options: Options) -> Case:
    n = 512 if options.quick else 1024
    a, b = options.normal(2, n, n)
    return Case(
        "ladder", f"matmul {n}x{n}x{n}, one thread", (a, b), flops=2 * n**3, bytes=3 * a.nbytes, threads=1,
        reference=lambda a, b: a @ b,
        rivals=numpy(lambda a, b: a @ b) | torch_family(lambda torch, a, b: a @ b, compiled=False),
    )  # fmt: skip


def _attention(options: Options) -> Case:
    B, H, T, D = (1, 2, 512, 64) if options.quick else (1, 8, 1024, 64)
    q, k, v = options.normal(3, B, H, T, D)
    return Case(
        "ladder", f"attention ({B},{H},{T},{D}), one thread", (q, k, v), flops=4 * B * H * T * T * D,
        bytes=4 * q.nbytes, threads=1, reference=lambda *qkv: kernels.attention_forward(*qkv, impl="reference")[0],
        select=lambda outputs: outputs[:1],
        rivals=numpy(numpy_attention(False)) | torch_family(torch_attention(False), compiled=False),
    )  # fmt: skip
