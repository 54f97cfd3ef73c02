"""Softmax cross-entropy: the loss; loss and dlogits together; and both from hidden states, without whole logits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import kernels

from ..case import Case, Options
from ..rivals import autocast, jax_family, numpy, tensors, torch, torch_family

TITLE = "cross-entropy: loss, loss with gradient, and with the last linear layer in chunks"
SHAPE = ("rows", "vocabulary")
SHAPES = [(768, 65), (4096, 65), (4096, 8192)]
QUICK = [(768, 65), (4096, 8192)]
WIDTH = 384  # of the hidden states


def cases(options: Options) -> Iterator[Case]:
    for N, V in options.pick(SHAPES, QUICK):
        z, y = options.normal(N, V, scale=2), options.integers(V, N)
        yield Case(
            "cross_entropy", f"forward {N}x{V}", (z, y), "cross_entropy_forward", bytes=z.nbytes, flops=4 * z.size,
            select=lambda outputs: outputs[:1], reference=lambda z, y: _loss(z, y)[0],
            rivals=numpy(_numpy) | torch_family(lambda torch, z, y: _torch_cross_entropy(z, y)) | jax_family(_jax_loss),
        )  # fmt: skip
        factor = np.float32(1 / N)
        yield Case(
            "cross_entropy", f"loss+gradient {N}x{V}", (z, y, factor), "cross_entropy_with_grad", backward=True,
            bytes=2 * z.nbytes, flops=8 * z.size, select=lambda outputs: [outputs[0], outputs[-1]],
            reference=lambda z, y, factor: _with_gradient(z, y, factor),
            rivals={"torch": _torch_gradient} | jax_family(_jax_gradient),
        )  # fmt: skip
        x, weight = options.normal(N, WIDTH), options.normal(V, WIDTH, scale=WIDTH**-0.5)
        yield Case(
            "cross_entropy", f"linear+loss+gradient {N}x{WIDTH}->{V}", (x, weight, y, factor), "linear_cross_entropy",
            backward=True, flops=6 * N * V * WIDTH, bytes=2 * (x.nbytes + weight.nbytes), reference=_linear,
            rivals={name: _torch_linear(name) for name in ("torch", "torch.compile", "torch.bf16")}
            | jax_family(_jax_linear),
        )  # fmt: skip


def _loss(z, y):
    return kernels.cross_entropy_forward(z, y, impl="reference")


def _with_gradient(z, y, factor):
    loss, lse = _loss(z, y)
    return loss, kernels.cross_entropy_backward(np.full(len(y), factor, z.dtype), z, y, lse, impl="reference")


def _linear(x, weight, y, factor):
    """(loss, dx, dweight) with the logits as a whole, in the dtype of x."""
    loss, dz = _with_gradient(x @ weight.T, y, factor)
    return loss, dz @ weight, dz.T @ x


def _numpy(z, y):
    z = z - z.max(-1, keepdims=True)
    return np.log(np.exp(z).sum(-1)) - z[np.arange(len(y)), y]


def _torch_cross_entropy(z, y):
    return torch().nn.functional.cross_entropy(z, y, reduction="none")


def _torch_gradient(z, y, factor):
    z, y = tensors((z, y))
    z = z.clone().requires_grad_()
    factors = torch().full((len(y),), float(factor))

    def run():
        out = _torch_cross_entropy(z, y)
        return out, *torch().autograd.grad(out, z, factors)

    return run


def _torch_linear(name: str):
    def make(x, weight, y, factor):
        x, weight, y = tensors((x, weight, y))
        leaves = [t.clone().requires_grad_() for t in (x, weight)]
        factors = torch().full((len(y),), float(factor))

        def loss(x, weight):
            return _torch_cross_entropy(x @ weight.T, y)

        call = torch().compile(loss, dynamic=False) if name == "torch.compile" else loss

        def run():
            with autocast(name == "torch.bf16"):
                out = call(*leaves)
            return out, *torch().autograd.grad(out, leaves, factors)

        return run

    return make


def _jax_loss(jax, z, y):
    return jax.nn.logsumexp(z, -1) - jax.numpy.take_along_axis(z, y[:, None], -1)[:, 0]


def _jax_gradient(jax, z, y, factor):
    loss, vjp = jax.vjp(lambda z: _jax_loss(jax, z, y), z)
    return loss, *vjp(jax.numpy.full(loss.shape, factor, loss.dtype))


def _jax_linear(jax, x, weight, y, factor):
    loss, vjp = jax.vjp(lambda x, w: _jax_loss(jax, x @ w.T, y), x, weight)
    return loss, *vjp(jax.numpy.full(loss.shape, factor, loss.dtype))
