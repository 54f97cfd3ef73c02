"""Attention forward and backward beside the two that torch has here: FLASH (FlashAttention 2) and cuDNN.

16384 tokens and a width of 2048 in all, as in the FlashAttention papers: batch 16384 / T, 2048 / D heads. Work counted:
4 B H T^2 D forward, half of it with causal, 2.5 times as much backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kernels

from .lab import Lab, Row
from .parts import Cases, beside_torch, gradients
from .rungs import Rung, rungs
from .timing import Work, rows

TITLE = "attention beside torch's FLASH and cuDNN"
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
BACKENDS = {"torch.flash": "FLASH_ATTENTION", "torch.cudnn": "CUDNN_ATTENTION"}


def cases(lab: Lab) -> Cases:
    for T in reversed(lab.pick(LENGTHS, (32,))):  # the targets ask about the long ones: they come first
        for D in lab.pick((128, 64), (64,)):
            for causal in (False, True):
                words = f"({_batch(lab, T)},{_heads(lab, D)},{T},{D}) {'causal' if causal else 'full'}"
                yield f"forward {words}", lambda T=T, D=D, c=causal, w=words: _forward(lab, T, D, c, w)
                yield f"backward {words}", lambda T=T, D=D, c=causal, w=words: _backward(lab, T, D, c, w)
    T = lab.pick(4096, 32)
    for backward in (False, True):
        for D in lab.pick((64, 128), (64,)):
            for causal in (False, True):
                kind = "backward" if backward else "forward"
                words = f"{kind} ({_batch(lab, T)},{_heads(lab, D)},{T},{D}) {'causal' if causal else 'full'}"
                yield f"rungs {words}", lambda b=backward, D=D, c=causal, w=words: _rungs(lab, b, T, D, c, w)


def _batch(lab: Lab, T: int) -> int:
    return lab.pick(max(1, 16384 // T), 1)


def _heads(lab: Lab, D: int) -> int:
    return lab.pick(2048 // D, 1)


def flops(lab: Lab, T: int, D: int, causal: bool) -> float:
    return 4.0 * _batch(lab, T) * _heads(lab, D) * T * T * D * (0.5 if causal else 1.0)


def _arrays(lab: Lab, T: int, D: int, count: int, i: int) -> tuple:
    shape = (_batch(lab, T), _heads(lab, D), T, D)
    return tuple(lab.normal(*shape, seed=count * i + n) for n in range(count))


def backend(torch: Any, name: str, causal: bool) -> Callable[..., Any]:
    """torch's attention with one backend alone; an error where that cannot run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attention(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(getattr(SDPBackend, BACKENDS[name])):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return attention


def _forward(lab: Lab, T: int, D: int, causal: bool, words: str) -> list[Row]:
    rivals = {name: (lambda torch, name=name: backend(torch, name, causal)) for name in BACKENDS}

    def ours(q: Any, k: Any, v: Any) -> Any:
        return kernels.attention_forward(q, k, v, causal=causal, impl="cuda")

    return beside_torch(
        lab, "attention", f"forward {words}", lambda i: _arrays(lab, T, D, 3, i), ours, rivals,
        flops=flops(lab, T, D, causal), seconds=0.12,
    )  # fmt: skip


def _backward(lab: Lab, T: int, D: int, causal: bool, words: str) -> list[Row]:
    def prepare(dout: Any, q: Any, k: Any, v: Any) -> tuple:
        return dout, q, k, v, *kernels.attention_forward(q, k, v, causal=causal, impl="cuda")

    def ours(dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any) -> Any:
        return kernels.attention_backward(dout, q, k, v, out, lse, causal=causal, impl="cuda")

    rivals = {name: (lambda torch, name=name: gradients(torch, backend(torch, name, causal))) for name in BACKENDS}
    return beside_torch(
        lab, "attention", f"backward {words}", lambda i: _arrays(lab, T, D, 4, i), ours, rivals, prepare=prepare,
        flops=2.5 * flops(lab, T, D, causal), seconds=0.12, tolerance=0.03,
    )  # fmt: skip


def _rungs(lab: Lab, backward: bool, T: int, D: int, causal: bool, words: str) -> list[Row]:
    """The ladder: what each rung gained."""
    dout, q, k, v = _arrays(lab, T, D, 4, 0)
    arrays: tuple = (q, k, v)
    if backward:
        arrays = (dout, q, k, v, *kernels.attention_forward(q, k, v, causal=causal, impl="cuda"))

    def call(rung: Rung) -> Callable[[], Any]:
        return lambda: rung.run(*arrays, causal=causal)

    works = {}
    for rung in rungs(lab):
        if rung.backward == backward and (not lab.dry or rung.name == "1"):
            works[f"rung {rung.name}"] = Work([call(rung)])
    count = flops(lab, T, D, causal) * (2.5 if backward else 1)
    return rows(lab, "ladder", words, works, seconds=0.12, flops=count)
