"""The kernels that memory bounds, in bfloat16, as a share of the copying bandwidth, beside torch eager and compiled.

Bytes: every input read once, every output written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels

from .lab import Lab, Row
from .parts import Cases, beside_torch, gradients

TITLE = "kernels that memory bounds, beside torch eager and torch.compile"
Forward = Callable[[Any], Callable[..., Any]]  # torch -> a function of tensors


def cases(lab: Lab) -> Cases:
    rows, n = lab.pick((16384, 4096), (4, 32))
    tokens, vocabulary = lab.pick((8192, 50304), (4, 40))
    flat = lab.pick(1 << 26, 1 << 8)
    for name, run in (
        ("layernorm", _layernorm), ("rmsnorm", _rmsnorm), ("softmax", _softmax), ("gelu", _gelu), ("silu", _silu),
        ("swiglu", _swiglu), ("dropout", _dropout),
    ):  # fmt: skip
        yield f"{name} forward", lambda run=run: run(lab, False, rows, n)
        yield f"{name} backward", lambda run=run: run(lab, True, rows, n)
    yield "cross_entropy", lambda: _cross_entropy(lab, tokens, vocabulary)
    yield "adamw", lambda: _adamw(lab, flat)
    yield "global_norm", lambda: _global_norm(lab, flat)
    yield "embedding forward", lambda: _embedding(lab, False, lab.pick(16384, 8), lab.pick(50304, 12))
    yield "embedding backward", lambda: _embedding(lab, True, lab.pick(16384, 8), lab.pick(50304, 12))
    yield "rotary", lambda: _rotary(lab)


def _compare(
    lab: Lab, case: str, inputs: Callable[[int], tuple], ours: Callable[..., Any], torchs: Forward, nbytes: float,
    backward: bool = False, **others: Any,
) -> list[Row]:  # fmt: skip
    """torchs(torch): the forward pass. backward: inputs are dout and what the forward pass takes."""

    def eager(torch: Any) -> Callable[..., Any]:
        return gradients(torch, torchs(torch)) if backward else torchs(torch)

    def compiled(torch: Any) -> Callable[..., Any]:
        function = lab.compile(torchs(torch))
        return gradients(torch, function) if backward else function

    rivals = {"torch": eager, "torch.compile": compiled}
    return beside_torch(lab, "memory", case, inputs, ours, rivals, nbytes=nbytes, seconds=0.15, **others)


def _size(lab: Lab, rows: int, n: int) -> float:
    return 2.0 * rows * n  # bfloat16


def _layernorm(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    size, case = _size(lab, rows, n), f"layernorm {'backward' if backward else 'forward'} {rows}x{n}"
    w, b = lab.normal(n, seed=1), lab.normal(n, seed=2)

    def forward(torch: Any) -> Callable[..., Any]:
        return lambda x, w, b: torch.nn.functional.layer_norm(x, (n,), w, b)

    if not backward:
        return _compare(lab, case, lambda i: (lab.normal(rows, n, seed=i + 3), w, b),
                        lambda x, w, b: kernels.layernorm_forward(x, w, b, impl="cuda"), forward, 2 * size)  # fmt: skip

    def prepare(dout: Any, x: Any, w: Any, b: Any) -> tuple:
        return dout, x, w, *kernels.layernorm_forward(x, w, b, impl="cuda")[1:]

    def ours(*arrays: Any) -> Any:
        return kernels.layernorm_backward(*arrays, impl="cuda")

    def inputs(i: int) -> tuple:
        return lab.normal(rows, n, seed=2 * i + 3), lab.normal(rows, n, seed=2 * i + 4), w, b

    return _compare(lab, case, inputs, ours, forward, 3 * size, True, prepare=prepare)


def _rmsnorm(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    size, case = _size(lab, rows, n), f"rmsnorm {'backward' if backward else 'forward'} {rows}x{n}"
    w = lab.normal(n, seed=1)

    def forward(torch: Any) -> Callable[..., Any]:
        return lambda x, w: torch.nn.functional.rms_norm(x, (n,), w, 1e-5)

    if not backward:
        return _compare(lab, case, lambda i: (lab.normal(rows, n, seed=i + 3), w),
                        lambda x, w: kernels.rmsnorm_forward(x, w, 1e-5, impl="cuda"), forward, 2 * size)  # fmt: skip

    def prepare(dout: Any, x: Any, w: Any) -> tuple:
        return dout, x, w, kernels.rmsnorm_forward(x, w, 1e-5, impl="cuda")[1]

    def ours(*arrays: Any) -> Any:
        return kernels.rmsnorm_backward(*arrays, impl="cuda")

    def inputs(i: int) -> tuple:
        return lab.normal(rows, n, seed=2 * i + 3), lab.normal(rows, n, seed=2 * i + 4), w

    return _compare(lab, case, inputs, ours, forward, 3 * size, True, prepare=prepare)


def _elementwise(
    lab: Lab, name: str, backward: bool, rows: int, n: int, ours: Callable[..., Any], torchs: Forward, count: int = 1,
    outputs: int = 1,
) -> list[Row]:  # fmt: skip
    """A function of `count` arrays: forward it reads them and writes one, backward it reads dout, too, and writes
    `count` gradients."""
    size, case = _size(lab, rows, n), f"{name} {'backward' if backward else 'forward'} {rows}x{n}"
    arrays = count + backward
    moved = (count + 1) if not backward else (arrays + outputs)

    def inputs(i: int) -> tuple:
        return tuple(lab.normal(rows, n, seed=arrays * i + j) for j in range(arrays))

    return _compare(lab, case, inputs, ours, torchs, moved * size, backward)


def _gelu(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    def ours(*x: Any) -> Any:
        return (kernels.gelu_backward if backward else kernels.gelu_forward)(*x, "tanh", impl="cuda")

    return _elementwise(lab, "gelu", backward, rows, n, ours,
                        lambda torch: lambda x: torch.nn.functional.gelu(x, approximate="tanh"))  # fmt: skip


def _silu(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    def ours(*x: Any) -> Any:
        return (kernels.silu_backward if backward else kernels.silu_forward)(*x, impl="cuda")

    return _elementwise(lab, "silu", backward, rows, n, ours,
                        lambda torch: torch.nn.functional.silu)  # fmt: skip


def _swiglu(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    def ours(*x: Any) -> Any:
        return (kernels.swiglu_backward if backward else kernels.swiglu_forward)(*x, impl="cuda")

    return _elementwise(lab, "swiglu", backward, rows, n, ours,
                        lambda torch: lambda gate, up: torch.nn.functional.silu(gate) * up, 2, 2)  # fmt: skip


def _softmax(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    size, case = _size(lab, rows, n), f"softmax {'backward' if backward else 'forward'} {rows}x{n}"
    if not backward:
        return _compare(lab, case, lambda i: (lab.normal(rows, n, seed=i, scale=3),),
                        lambda x: kernels.softmax_forward(x, impl="cuda"),
                        lambda torch: lambda x: torch.softmax(x, -1), 2 * size)  # fmt: skip

    def inputs(i: int) -> tuple:
        x = lab.normal(rows, n, seed=2 * i, scale=3).astype(np.float32)
        out = lab.xp.exp(x - x.max(-1, keepdims=True))
        out /= out.sum(-1, keepdims=True)
        return lab.normal(rows, n, seed=2 * i + 1), out.astype(lab.dtype("bfloat16"))

    # torch's own backward pass, given the output: autograd would take the input
    return _compare(lab, case, inputs, lambda dout, out: kernels.softmax_backward(dout, out, impl="cuda"),
                    lambda torch: lambda dout, out: torch._softmax_backward_data(dout, out, -1, out.dtype),
                    3 * size)  # fmt: skip


def _dropout(lab: Lab, backward: bool, rows: int, n: int) -> list[Row]:
    """torch draws other bits (not compared) and keeps a mask; ours draws them again."""
    size, case = _size(lab, rows, n), f"dropout {'backward' if backward else 'forward'} {rows}x{n}"
    count = 2 if backward else 1

    def inputs(i: int) -> tuple:
        return tuple(lab.normal(rows, n, seed=count * i + j) for j in range(count))

    def forward(torch: Any) -> Callable[..., Any]:
        return lambda x: torch.nn.functional.dropout(x, 0.1, True)

    def ours(*arrays: Any) -> Any:
        return (kernels.dropout_backward if backward else kernels.dropout_forward)(arrays[0], 0.1, 1, impl="cuda")

    return _compare(lab, case, inputs, ours, forward, 2 * size, backward, tolerance=None)


def _cross_entropy(lab: Lab, tokens: int, vocabulary: int) -> list[Row]:
    """Loss and gradient of the logits in one pass: they are read once and the gradient is written."""

    def inputs(i: int) -> tuple:
        return lab.normal(tokens, vocabulary, seed=i, scale=3), lab.integers(vocabulary, tokens, seed=i)

    def ours(logits: Any, targets: Any) -> Any:
        return kernels.cross_entropy_with_grad(logits, targets, 1.0, impl="cuda")

    def loss(torch: Any) -> Callable[..., Any]:
        return lambda logits, targets: torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    def both(torch: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(logits: Any, targets: Any) -> Any:
            leaf = logits.detach().requires_grad_()
            losses = function(leaf, targets)
            return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]

        return call

    rivals = {"torch": lambda torch: both(torch, loss(torch)),
              "torch.compile": lambda torch: both(torch, lab.compile(loss(torch)))}  # fmt: skip
    case = f"cross_entropy loss and gradient {tokens}x{vocabulary}"
    return beside_torch(lab, "memory", case, inputs, ours, rivals, nbytes=2 * _size(lab, tokens, vocabulary),
                        seconds=0.15)  # fmt: skip


def _adamw(lab: Lab, n: int) -> list[Row]:
    """float32 parameters: four arrays read, three written: 28 bytes a parameter."""

    def inputs(i: int) -> tuple:
        p, g, m = (lab.normal(n, dtype="float32", seed=3 * i + j) for j in range(3))
        return p, g, m * np.float32(0.1), m * m

    def ours(p: Any, g: Any, m: Any, v: Any) -> Any:
        kernels.adamw_flat(p, g, m, v, lr=1e-4, step=3, weight_decay=0.1, impl="cuda")
        return p

    def fused(torch: Any) -> Callable[..., Any]:
        """torch's fused kernel; its counter of steps is an array."""

        def call(p: Any, g: Any, m: Any, v: Any) -> Any:
            step = steps.setdefault(p.data_ptr(), torch.tensor(3.0, device=p.device))
            torch._fused_adamw_([p], [g], [m], [v], [], [step], lr=1e-4, beta1=0.9, beta2=0.999, weight_decay=0.1,
                                eps=1e-8, amsgrad=False, maximize=False)  # fmt: skip
            return p

        steps: dict[int, Any] = {}
        return call

    return beside_torch(lab, "memory", f"adamw {n}", inputs, ours, {"torch": fused}, nbytes=28.0 * n, tolerance=None,
                        seconds=0.15)  # fmt: skip


def _global_norm(lab: Lab, n: int) -> list[Row]:
    def ours(x: Any) -> Any:
        return kernels.sum_of_squares([x], impl="cuda")

    def torchs(torch: Any) -> Callable[..., Any]:
        return lambda x: torch.linalg.vector_norm(x) ** 2

    return _compare(lab, f"global_norm {n}", lambda i: (lab.normal(n, dtype="float32", seed=i),), ours, torchs, 4.0 * n,
                    tolerance=None)  # fmt: skip


def _embedding(lab: Lab, backward: bool, tokens: int, vocabulary: int) -> list[Row]:
    """Backward torch adds with atomics; ours sorts, and gives the same bits on every run."""
    width = lab.pick(768, 16)
    size = _size(lab, tokens, width)

    def ids(i: int) -> Any:
        return lab.integers(vocabulary, tokens, seed=i)

    case = f"embedding {'backward' if backward else 'forward'} {tokens} of {vocabulary}x{width}"
    if not backward:
        weight = lab.normal(vocabulary, width)
        return _compare(lab, case, lambda i: (ids(i), weight),
                        lambda ids, weight: kernels.embedding_forward(ids, weight, impl="cuda"),
                        lambda torch: torch.nn.functional.embedding, 2 * size)  # fmt: skip

    def inputs(i: int) -> tuple:
        return lab.normal(tokens, width, seed=i), ids(i)

    return _compare(lab, case, inputs,
                    lambda dout, ids: kernels.embedding_backward(dout, ids, vocabulary, impl="cuda"),
                    lambda torch: lambda dout, ids: torch.ops.aten.embedding_dense_backward(
                        dout, ids, vocabulary, -1, False),
                    size + _size(lab, vocabulary, width))  # fmt: skip


def _rotary(lab: Lab) -> list[Row]:
    B, H, T, D = lab.pick((8, 32, 4096, 128), (1, 1, 4, 8))
    cos, sin = lab.normal(T, D // 2, seed=1), lab.normal(T, D // 2, seed=2)

    def ours(x: Any, cos: Any, sin: Any) -> Any:
        return kernels.rotary_forward(x, cos, sin, impl="cuda")

    def torchs(torch: Any) -> Callable[..., Any]:
        def rotate(x: Any, cos: Any, sin: Any) -> Any:
            a, b = x[..., : D // 2], x[..., D // 2 :]
            return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

        return rotate

    return _compare(lab, f"rotary ({B},{H},{T},{D})", lambda i: (lab.normal(B, H, T, D, seed=i + 3), cos, sin), ours,
                    torchs, 2.0 * 2 * B * H * T * D)  # fmt: skip
