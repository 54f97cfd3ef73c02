"""layernorm and rmsnorm, forward and backward, and with the residual addition in the same pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import kernels

from ..case import Case, Options
from ..rivals import jax_backward, jax_family, numpy, torch_backward, torch_family, with_inputs

TITLE = "layernorm and rmsnorm, forward and backward, in and out of cache"
SHAPE = ("rows", "width")
SHAPES = [(768, 128), (4096, 384), (16384, 1024)]
QUICK = [(768, 128), (16384, 1024)]
EPS = 1e-5


def cases(options: Options) -> Iterator[Case]:
    for rows, n in options.pick(SHAPES, QUICK):
        size = f"{rows}x{n}"
        x, residual, dout = options.normal(3, rows, n)
        weight, bias = options.normal(n), options.normal(1, n)[0]
        one = x.nbytes
        yield Case(
            "norms", f"layernorm forward {size}", (x, weight, bias, EPS), "layernorm_forward", flops=8 * x.size,
            bytes=2 * one, rivals=numpy(_numpy_layernorm) | torch_family(_torch_layernorm) | jax_family(_jax_layernorm),
        )  # fmt: skip
        if hasattr(kernels, "rmsnorm_forward"):  # as old as the fused residual
            yield Case(
                "norms", f"layernorm residual {size}", (x, residual, weight, bias), flops=9 * x.size, bytes=4 * one,
                ours={"minillm": lambda x, r, w, b: lambda: _residual(x, r, w, b)},
                reference=lambda x, r, w, b: _residual(x, r, w, b, impl="reference"),
                rivals=torch_family(lambda torch, x, r, w, b: (s := x + r, _torch_layernorm(torch, s, w, b, EPS)),
                                    compiled=True)
                | jax_family(lambda jax, x, r, w, b: (s := x + r, _jax_layernorm(jax, s, w, b, EPS))),
            )  # fmt: skip
        _, mean, rstd = kernels.layernorm_forward(x, weight, bias, EPS)
        family = torch_backward(lambda torch, x, w, b: _torch_layernorm(torch, x, w, b, EPS))
        family |= jax_backward(lambda jax, x, w, b: _jax_layernorm(jax, x, w, b, EPS))
        yield Case(
            "norms", f"layernorm backward {size}", (dout, x, weight, mean, rstd), "layernorm_backward", backward=True,
            flops=12 * x.size, bytes=3 * one,
            rivals=with_inputs(lambda dout, x, w, mean, rstd: (dout, x, w, np.zeros_like(w)), family),
        )  # fmt: skip
        yield Case(
            "norms", f"rmsnorm forward {size}", (x, weight, EPS), "rmsnorm_forward", flops=4 * x.size, bytes=2 * one,
            rivals=numpy(_numpy_rmsnorm) | torch_family(_torch_rmsnorm, compiled=True) | jax_family(_jax_rmsnorm),
        )  # fmt: skip
        rms = 1 / np.sqrt((x.astype(np.float64) ** 2).mean(-1) + EPS)
        family = torch_backward(lambda torch, x, w: _torch_rmsnorm(torch, x, w, EPS))
        family |= jax_backward(lambda jax, x, w: _jax_rmsnorm(jax, x, w, EPS))
        yield Case(
            "norms", f"rmsnorm backward {size}", (dout, x, weight, rms.astype(np.float32)), "rmsnorm_backward",
            backward=True, flops=8 * x.size, bytes=3 * one,
            rivals=with_inputs(lambda dout, x, w, rstd: (dout, x, w), family),
        )  # fmt: skip


def _residual(x, residual, weight, bias, impl=None):
    out, _, _, total = kernels.layernorm_forward(x, weight, bias, EPS, residual=residual, impl=impl)
    return total, out


def _numpy_layernorm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(eps)) * weight + bias


def _torch_layernorm(torch, x, weight, bias, eps):
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def _jax_layernorm(jax, x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def _numpy_rmsnorm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight


def _torch_rmsnorm(torch, x, weight, eps):
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def _jax_rmsnorm(jax, x, weight, eps):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps) * weight
