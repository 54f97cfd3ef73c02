"""The kernel pairs themselves, each implementation that this machine runs on NumPy arrays: forward against backward.

First derivatives only: a kernel's backward is raw array code; second ones go through the op's composite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels
from kernels.arrays import array_module

from ...engine import op
from .case import Case, Draw, case, normal

_WEIGHT = np.array([0.5, 1.0, 2.0])
_TARGETS = np.array([2, 0, -100, 1])
_GREYS = np.array([[0.0, 1.0, 0.3], [0.8, 1.0, 0.0]])
_IDS = np.array([[2, 0, 2], [2, 3, 0]])
_ANGLES = np.array([[0.0, 0.3], [1.0, 0.4], [2.0, 0.5]])
_MASK = np.array([[True, True, False, True], [False, True, True, False], [True, False, True, True]])


def _pair(kernel: str, label: str, build: Callable[[str], tuple[Callable, Callable]], *draws: Draw) -> list[Case]:
    """A row per implementation. build(impl) gives forward(*inputs) and backward(dout, *inputs), both on arrays."""
    rows = []
    for impl in kernels.available()[kernel]:
        if impl == "cuda":
            continue
        forward, backward = build(impl)
        rows.append(
            case(
                f"kernels.{kernel}",
                _as_op(forward, backward),
                *draws,
                label=", ".join(filter(None, [impl, label])),
                orders=(1,),
            )
        )
    return rows


def _as_op(forward: Callable, backward: Callable) -> Callable:
    @op
    def kernel(*inputs: Any) -> Any:
        return forward(*inputs)

    @kernel.vjp
    def _(dout: Any, inputs: tuple) -> list:
        got = backward(dout, *inputs)
        return list(got) if isinstance(got, tuple) else [got]

    return kernel


def _beside(x: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, their arrays on x's device and their floats in its dtype."""
    xp = array_module(x)
    arrays = {
        k: v.astype(x.dtype) if v.dtype.kind == "f" else v for k, v in settings.items() if isinstance(v, np.ndarray)
    }
    return {**settings, **{k: xp.asarray(v) for k, v in arrays.items()}}


def _attention(**settings: Any) -> Callable:
    def build(impl: str) -> tuple[Callable, Callable]:
        def forward(q, k, v):
            return kernels.attention_forward(q, k, v, impl=impl, **_beside(q, settings))[0]

        def backward(dout, q, k, v):
            given = _beside(q, settings)
            out, lse = kernels.attention_forward(q, k, v, impl=impl, **given)
            return kernels.attention_backward(dout, q, k, v, out, lse, impl=impl, **given)

        return forward, backward

    return build


def _layernorm(impl: str) -> tuple[Callable, Callable]:
    def backward(dout, x, w, b):
        _, mean, rstd = kernels.layernorm_forward(x, w, b, impl=impl)
        return kernels.layernorm_backward(dout, x, w, mean, rstd, impl=impl)

    return lambda x, w, b: kernels.layernorm_forward(x, w, b, impl=impl)[0], backward


def _layernorm_residual(impl: str) -> tuple[Callable, Callable]:
    def forward(x, r, w, b):
        out, _, _, total = kernels.layernorm_forward(x, w, b, residual=r, impl=impl)
        return out + 0.5 * total

    def backward(dout, x, r, w, b):
        _, mean, rstd, total = kernels.layernorm_forward(x, w, b, residual=r, impl=impl)
        dx, dw, db = kernels.layernorm_backward(dout, total, w, mean, rstd, dresidual=0.5 * dout, impl=impl)
        return dx, dx.copy(), dw, db

    return forward, backward


def _rmsnorm(impl: str) -> tuple[Callable, Callable]:
    def forward(x, r, w):
        out, _, total = kernels.rmsnorm_forward(x, w, 1e-5, residual=r, impl=impl)
        return out + 0.5 * total

    def backward(dout, x, r, w):
        _, rstd, total = kernels.rmsnorm_forward(x, w, 1e-5, residual=r, impl=impl)
        dx, dw = kernels.rmsnorm_backward(dout, total, w, rstd, dresidual=0.5 * dout, impl=impl)
        return dx, dx.copy(), dw

    return forward, backward


def _softmax(impl: str) -> tuple[Callable, Callable]:
    def backward(dout, x):
        return kernels.softmax_backward(dout, kernels.softmax_forward(x, impl=impl), impl=impl)

    return lambda x: kernels.softmax_forward(x, impl=impl), backward


def _log_softmax(impl: str) -> tuple[Callable, Callable]:
    def backward(dout, x):
        return kernels.log_softmax_backward(dout, kernels.log_softmax_forward(x, impl=impl), impl=impl)

    return lambda x: kernels.log_softmax_forward(x, impl=impl), backward


def _linear_cross_entropy(**settings: Any) -> Callable:
    def build(impl: str) -> tuple[Callable, Callable]:
        def run(factor, x, w):
            given = _beside(x, {"targets": _TARGETS, **settings})
            return kernels.linear_cross_entropy(x, w, factor=factor, impl=impl, **given)

        return lambda x, w: run(1.0, x, w)[0], lambda dloss, x, w: run(dloss, x, w)[1:]

    return build


def _cross_entropy(**settings: Any) -> Callable:
    def build(impl: str) -> tuple[Callable, Callable]:
        def forward(z):
            given = _beside(z, {"targets": _TARGETS, **settings})
            return kernels.cross_entropy_forward(z, impl=impl, **given)[0]

        def backward(dloss, z):
            given = _beside(z, {"targets": _TARGETS, **settings})
            _, lse = kernels.cross_entropy_forward(z, impl=impl, **given)
            return kernels.cross_entropy_backward(dloss, z, lse=lse, impl=impl, **given)

        return forward, backward

    return build


def _reparameterize(part: int) -> Callable:
    return lambda impl: (
        lambda mean, logvar: kernels.reparameterize_forward(mean, logvar, mean * 0 + 0.7, impl=impl)[part],
        lambda d, mean, logvar: kernels.reparameterize_backward(
            None if part else d, d if part else None, mean, logvar, mean * 0 + 0.7, impl=impl
        ),
    )


def _elementwise(name: str, *settings: Any, uses_inputs: bool = True) -> Callable:
    """kernels.<name>_forward(*inputs, *settings) with kernels.<name>_backward(dout, *inputs, *settings)."""
    forward, backward = getattr(kernels, f"{name}_forward"), getattr(kernels, f"{name}_backward")
    return lambda impl: (
        lambda *inputs: forward(*inputs, *settings, impl=impl),
        lambda dout, *inputs: backward(dout, *inputs[: len(inputs) * uses_inputs], *settings, impl=impl),
    )


def _bce(rows: bool) -> Callable:
    def build(impl: str) -> tuple[Callable, Callable]:
        def forward(x):
            return kernels.bce_forward(x, _beside(x, {"y": _GREYS})["y"], rows=rows, impl=impl)

        def backward(dloss, x):
            return kernels.bce_backward(dloss, x, _beside(x, {"y": _GREYS})["y"], impl=impl)

        return forward, backward

    return build


def _embedding(impl: str) -> tuple[Callable, Callable]:
    def ids(w):
        return _beside(w, {"ids": _IDS})["ids"]

    return (
        lambda w: kernels.embedding_forward(ids(w), w, impl=impl),
        lambda dout, w: kernels.embedding_backward(dout, ids(w), w.shape[0], impl=impl),
    )


def _rotary(impl: str) -> tuple[Callable, Callable]:
    def angles(x):
        given = _beside(x, {"cos": np.cos(_ANGLES), "sin": np.sin(_ANGLES)})
        return given["cos"], given["sin"]

    return (
        lambda x: kernels.rotary_forward(x, *angles(x), impl=impl),
        lambda dout, x: kernels.rotary_backward(dout, *angles(x), impl=impl),
    )


_Q, _K, _V = normal(1, 2, 3, 2), normal(1, 1, 4, 2), normal(1, 1, 4, 2)

CASES: list[Case] = [
    *_pair("attention", "grouped heads", _attention(), _Q, _K, _V),
    *_pair("attention", "causal, offset, window", _attention(causal=True, offset=1, window=2), _Q, _K, _V),
    *_pair("attention", "mask, scale", _attention(bias=_MASK, scale=0.9), _Q, _K, _V),
    *_pair("layernorm", "", _layernorm, normal(3, 5), normal(5), normal(5)),
    *_pair("cross_entropy", "", _cross_entropy(), normal(4, 3)),
    *_pair("cross_entropy", "smoothing, weight", _cross_entropy(label_smoothing=0.2, weight=_WEIGHT), normal(4, 3)),
    *_pair("layernorm", "residual", _layernorm_residual, normal(3, 5), normal(3, 5), normal(5), normal(5)),
    *_pair("rmsnorm", "residual", _rmsnorm, normal(3, 5), normal(3, 5), normal(5)),
    *_pair("softmax", "", _softmax, normal(3, 5)),
    *_pair("softmax", "log", _log_softmax, normal(3, 5)),
    *_pair("linear_cross_entropy", "", _linear_cross_entropy(), normal(4, 2), normal(3, 2)),
    *_pair(
        "linear_cross_entropy", "smoothing, soft-cap, z-loss",
        _linear_cross_entropy(label_smoothing=0.2, softcap=3.0, z_loss=0.1), normal(4, 2), normal(3, 2),
    ),
    *_pair("gelu", "", _elementwise("gelu", "none"), normal(3, 4)),
    *_pair("gelu", "tanh", _elementwise("gelu", "tanh"), normal(3, 4)),
    *_pair("silu", "", _elementwise("silu"), normal(3, 7)),
    *_pair("silu", "swiglu", _elementwise("swiglu"), normal(3, 7), normal(3, 7)),
    *_pair("rotary", "", _rotary, normal(2, 2, 3, 4)),
    *_pair("embedding", "repeated ids", _embedding, normal(4, 3)),
    *_pair("dropout", "", _elementwise("dropout", 0.4, 7, 3, uses_inputs=False), normal(4, 5)),
    *_pair("binary_cross_entropy", "", _bce(False), normal(2, 3)),
    *_pair("binary_cross_entropy", "rows", _bce(True), normal(2, 3)),
    *_pair("reparameterize", "sample", _reparameterize(0), normal(3, 2), normal(3, 2)),
    *_pair("reparameterize", "KL", _reparameterize(1), normal(3, 2), normal(3, 2)),
]  # fmt: skip
