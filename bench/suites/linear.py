"""A linear layer with bias and exact GELU: forward, and forward with backward, float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import kernels

from ..case import Case, Options, plain
from ..rivals import jax_family, numpy, tensors, torch, torch_family

TITLE = "linear + bias + exact GELU, rows x in -> out"
SHAPE = ("rows", "in", "out")
SHAPES = [(4096, 384, 1536), (768, 128, 512)]


def cases(options: Options) -> Iterator[Case]:
    for M, K, N in options.pick(SHAPES, SHAPES[:1]):
        x, weight, bias = options.normal(M, K), options.normal(N, K, scale=K**-0.5), options.normal(N)
        dout = options.normal(M, N)
        moved = 4 * (M * K + N * K + N + M * N)
        yield Case(
            "linear", f"forward {M}x{K}->{N}", (x, weight, bias), "linear_forward", {"activation": "gelu"},
            flops=2 * M * N * K, bytes=moved + 4 * M * N, select=lambda out: out[:1], reference=_reference_forward,
            ours={"minillm.bf16": _forward(bf16=True)} if _exists() else {},
            rivals=numpy(_numpy) | torch_family(_torch, bf16=True, compiled=True) | jax_family(_jax),
        )  # fmt: skip
        yield Case(
            "linear", f"forward+backward {M}x{K}->{N}", (dout, x, weight, bias), backward=True,
            flops=6 * M * N * K, bytes=2 * moved + 8 * M * N, reference=_both(impl="reference"),
            ours={"minillm": plain(_both()), "minillm.bf16": plain(_both(bf16=True))} if _exists() else {},
            rivals={name: _torch_both(name) for name in ("torch", "torch.compile", "torch.bf16")}
            | jax_family(_jax_both),
        )  # fmt: skip


def _exists() -> bool:
    return hasattr(kernels, "linear_forward")


def _reference_forward(x, weight, bias):
    return kernels.linear_forward(x, weight, bias, activation="gelu", impl="reference")[0]


def _forward(**how: Any):
    return plain(lambda *inputs: kernels.linear_forward(*inputs, activation="gelu", **how))


def _both(**how: Any) -> Callable[..., Any]:
    """(dout, x, weight, bias) -> out, dx, dweight, dbias"""

    def both(dout, x, weight, bias):
        out, pre = kernels.linear_forward(x, weight, bias, activation="gelu", **how)
        return out, *kernels.linear_backward(dout, x, weight, pre, out, activation="gelu", **how)

    return both


def _numpy(x, weight, bias):
    from scipy.special import erf

    z = x @ weight.T + bias
    return 0.5 * z * (1 + erf(z * z.dtype.type(0.5**0.5)))


def _torch(torch, x, weight, bias):
    return torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))


def _torch_both(name: str):
    """Forward and backward in one call, the graph built anew each time, as in training."""

    def make(dout, x, weight, bias):
        from ..rivals import autocast

        leaves = [t.clone().requires_grad_() for t in tensors((x, weight, bias))]
        (dout,) = tensors((dout,))
        call = torch().compile(lambda *a: _torch(torch(), *a)) if name == "torch.compile" else None
        bf16 = name == "torch.bf16"
        if bf16:
            dout = dout.bfloat16()

        def run():
            with autocast(bf16):
                out = call(*leaves) if call else _torch(torch(), *leaves)
            return out, *torch().autograd.grad(out, leaves, dout)

        return run

    return make


def _jax(jax, x, weight, bias):
    return jax.nn.gelu(x @ weight.T + bias, approximate=False)


def _jax_both(jax, dout, x, weight, bias):
    out, vjp = jax.vjp(lambda *a: _jax(jax, *a), x, weight, bias)
    return out, *vjp(dout)
