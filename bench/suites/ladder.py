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
from .attention import numpy_attention, pairs, torch_attention

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
        for case in [_matmul(options)] if name == "matmul" else [_attention(options, c) for c in (False, True)]:
            yield from _climb(name, case, rungs, options.threads)


def _climb(name: str, case: Case, rungs: tuple[tuple[str, str], ...], threads: int) -> Iterator[Case]:
    case.labels = dict(rungs)
    ours = {module: plain(_function(name, module), **case.settings) for module, _ in rungs}
    yield replace(case, name=f"{case.name}, one thread", threads=1, ours=ours)
    if threads > 1:
        last = rungs[-1][0]
        yield replace(case, name=f"{case.name}, {threads} threads", ours={last: ours[last]})


def _function(name: str, module: str) -> Callable[..., Any]:
    found = importlib.import_module(f"kernels.{name}.ladder.{module}")
    if not hasattr(found, name):
        raise CommandError(f"kernels/{name}/ladder/{module}.py has no function {name}")
    return getattr(found, name)


def _matmul(options: Options) -> Case:
    n = 512 if options.quick else 1024
    a, b = options.normal(2, n, n)
    return Case(
        "ladder", f"matmul {n}x{n}x{n}", (a, b), flops=2 * n**3, bytes=3 * a.nbytes, reference=lambda a, b: a @ b,
        rivals=numpy(lambda a, b: a @ b) | torch_family(lambda torch, a, b: a @ b),
    )  # fmt: skip


def _attention(options: Options, causal: bool) -> Case:
    B, H, T, D = (1, 2, 512, 64) if options.quick else (1, 8, 1024, 64)
    q, k, v = options.normal(3, B, H, T, D)
    return Case(
        "ladder", f"attention {'causal' if causal else 'full'} ({B},{H},{T},{D})", (q, k, v),
        settings={"causal": causal}, flops=4 * B * H * D * pairs(T, causal), bytes=4 * q.nbytes,
        reference=lambda *qkv: kernels.attention_forward(*qkv, causal=causal, impl="reference")[0],
        select=lambda outputs: outputs[:1],
        rivals=numpy(numpy_attention(causal)) | torch_family(torch_attention(causal)),
    )  # fmt: skip
