"""Products of matrices: the gradient of one factor is the output's gradient times the other factor, transposed."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

import kernels

from ..arguments import composed
from ..device import array_module
from ..dtypes import promote
from ..engine import op
from ..precision import in_bf16
from ..recording import is_grad_enabled
from ..summation import unbroadcast
from .activation import gelu, relu, relu_squared, silu
from .arrays import array_of, by_kernel
from .contract import contract, parse, sizes_of
from .shape import diagonal
from .views import reshape, transpose

__all__ = ["matmul", "linear", "bilinear", "einsum", "mT", "dot", "mv", "mm", "bmm", "outer"]


def mT(x: Any) -> Any:
    """The matrices in the last two dims, each transposed: (..., M, N) -> (..., N, M)."""
    return transpose(x, -2, -1)


def rows(x: Any) -> Any:
    """All leading dims folded into one: (..., K) -> (rows, K)."""
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


@op
def matmul(x: Any, y: Any) -> Any:
    """Matrix product with PyTorch's shapes; batch dims broadcast.

    (K)         @ (K)          -> ()           inner product
    (..., M, K) @ (K)          -> (..., M)     matrices times a vector
    (K)         @ (..., K, N)  -> (..., N)     a vector times matrices
    (..., M, K) @ (..., K, N)  -> (..., M, N)

    A ValueError names the two sizes that differ.
    """
    _check(x, y)
    if x.dtype != y.dtype:
        x, y = promote([x, y])
    if type(x) is np.ndarray and x.dtype.kind == "f" and x.ndim > 1 and y.ndim > 1:
        return kernels.matmul(x, y)
    if by_kernel("matmul", x):
        return _by_cublas(x, y)
    if y.ndim == 2 and x.ndim > 2:  # one large product instead of a loop over the batch
        return (rows(x) @ y).reshape((*x.shape[:-1], y.shape[1]))
    return array_module(x, y).matmul(x, y)


def _by_cublas(x: Any, y: Any) -> Any:
    """On a GPU: a vector is a matrix of one row, or of one column; `cupy.matmul` is slow in 16 bits."""
    X, Y = (x if x.ndim > 1 else x[None]), (y if y.ndim > 1 else y[:, None])
    out = kernels.matmul(X, Y)  # (..., M, N)
    out = out if x.ndim > 1 else out[..., 0, :]
    return out if y.ndim > 1 else out[..., 0]


@matmul.vjp
def _(dout, x, y, needs_grad):
    M = x.shape[-2:-1] or (1,)  # vectors are matrices of one row, or of one column
    N = y.shape[-1:] if y.ndim > 1 else (1,)
    batch = dout.shape[: dout.ndim - (x.ndim > 1) - (y.ndim > 1)]
    X = x if x.ndim > 1 else reshape(x, (1, *x.shape))  # (..., M, K)
    Y = y if y.ndim > 1 else reshape(y, (*y.shape, 1))  # (..., K, N)
    D = reshape(dout, batch + M + N)
    dx = dy = None
    if needs_grad[0]:
        dx = matmul(D, mT(Y))  # (..., M, K)
        dx = reshape(unbroadcast(dx, X.shape), x.shape)
    if needs_grad[1]:
        dy = matmul(mT(rows(X)), rows(D)) if Y.ndim == 2 else matmul(mT(X), D)  # (..., K, N)
        dy = reshape(unbroadcast(dy, Y.shape), y.shape)
    return dx, dy


def _check(x: Any, y: Any) -> None:
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"shapes {x.shape} @ {y.shape}: both need at least one dim; multiply by a scalar with *")
    side = -2 if y.ndim > 1 else -1
    if x.shape[-1] != y.shape[side]:
        raise ValueError(
            f"shapes {x.shape} @ {y.shape}: dim -1 of the first ({x.shape[-1]}) must equal dim {side} of the second "
            f"({y.shape[side]})"
        )
    for i, j in zip(x.shape[-3::-1], y.shape[-3::-1]):
        if i != j and 1 not in (i, j):
            raise ValueError(
                f"shapes {x.shape} @ {y.shape}: the batch dims {x.shape[:-2]} and {y.shape[:-2]} do not broadcast: "
                f"aligned from the right, {i} and {j} must be equal or 1"
            )


ACTIVATIONS = {
    None: None, "relu": relu, "relu2": relu_squared, "gelu": gelu, "gelu_tanh": lambda x: gelu(x, "tanh"), "silu": silu,
}  # fmt: skip


@composed
def linear(x: Any, weight: Any, bias: Any = None, activation: str | None = None) -> Any:
    """f(x W^T + b) as one op: x (..., in), weight (out, in), bias (out,) or None -> (..., out).

    activation  f: None, "relu", "relu2", "gelu", "gelu_tanh" or "silu"; applied where the product is still at hand

        dz = dout * f'(z), z = x W^T + b        dx = dz W     dW = dz^T x     db = sum of dz over all rows
    """
    array = array_of(x)
    ours = (type(array) is np.ndarray and array.dtype.kind == "f") or by_kernel("linear", array)
    if not ours or weight.dtype != array.dtype or (bias is not None and bias.dtype != array.dtype):
        return linear_composite(x, weight, bias, activation)
    return _linear(x, weight, bias, activation)


def linear_composite(x, weight, bias=None, activation=None):
    """`linear` as its formula."""
    _check_linear(x, weight, bias, activation)
    z = matmul(x, mT(weight))  # (..., out)
    z = z if bias is None else z + bias
    return z if activation is None else ACTIVATIONS[activation](z)


@op(composite=linear_composite)
def _linear(x, weight, bias, activation):
    _check_linear(x, weight, bias, activation)
    bf16 = in_bf16(x)
    out, pre = kernels.linear_forward(x, weight, bias, activation=activation, bf16=bf16, keep_pre=is_grad_enabled())
    return out, {"pre": pre, "result": out if activation == "relu" else None, "bf16": bf16}


_linear.__name__ = "linear"  # what errors and pictures of the graph show


@_linear.vjp
def _(dout, x, weight, pre, result, activation, bf16, needs_grad, into=None):
    needs = tuple([node is not None for node in needs_grad[:3]])
    _, dweight, dbias, _ = into or (None,) * 4  # where the gradients of parameters are added up
    return kernels.linear_backward(
        dout, x, weight, pre, result, activation=activation, needs=needs, dweight=dweight, dbias=dbias, bf16=bf16
    )


def _check_linear(x, weight, bias, activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"linear: activation is one of {', '.join(map(repr, ACTIVATIONS))}; got {activation!r}")
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x {x.shape} and weight {weight.shape}: weight must be (out, in), and in the last dim of x")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {bias.shape} must be {weight.shape[:1]}, one per row of weight {weight.shape}")


@composed
def bilinear(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Any:
    """out_o = x1^T W_o x2 + b_o: x1 (..., in1), x2 (..., in2), weight (out, in1, in2), bias (out,) -> (..., out)."""
    if weight.ndim != 3 or x1.shape[:-1] != x2.shape[:-1] or (x1.shape[-1:] + x2.shape[-1:]) != weight.shape[1:]:
        raise ValueError(
            f"bilinear: x1 {x1.shape} and x2 {x2.shape} must be (..., in1) and (..., in2), "
            f"weight {weight.shape} (out, in1, in2)"
        )
    out = einsum("...i,oij,...j->...o", x1, weight, x2)
    return out if bias is None else out + bias


# --------------------------------------------------------------------------------------------------- einsum


def einsum(equation: str, *operands: Any) -> Any:
    """Sum over products of elements, with axes named by letters: "bij,bjk->bik" is a batched matrix product.

    Labels that the output lacks are summed; a label twice in one operand is its diagonal; `...` stands for any axes,
    which broadcast; without "->" the output has the labels that stand once, sorted. Products go from left to right.

    >>> import numpy as np
    >>> einsum("ij,ij->i", np.array([[1, 2], [3, 4]]), np.array([[1, 1], [1, 1]])).tolist()
    [3, 7]
    """
    inputs, output = parse(equation, [x.shape for x in operands])
    sizes = sizes_of(equation, inputs, [x.shape for x in operands])
    xs = list(operands)
    for k, labels in enumerate(inputs):
        for c in [c for c, n in Counter(labels).items() if n > 1]:
            while labels.count(c) > 1:
                i, j = labels.index(c), labels.rindex(c)
                xs[k], labels = diagonal(xs[k], 0, i, j), labels[:i] + labels[i + 1 : j] + labels[j + 1 :] + c
        if any(n != sizes[c] for c, n in zip(labels, xs[k].shape)):  # size 1 against more: the axis says nothing
            labels = "".join([c for c, n in zip(labels, xs[k].shape) if n == sizes[c]])
            xs[k] = reshape(xs[k], [sizes[c] for c in labels])
        inputs[k] = labels
    counts = Counter("".join(inputs))
    for k, labels in enumerate(inputs):
        alone = tuple([i for i, c in enumerate(labels) if counts[c] == 1 and c not in output])
        if alone:
            xs[k] = xs[k].sum(axis=alone)
            inputs[k] = "".join([c for i, c in enumerate(labels) if i not in alone])
    return _einsum(*xs, inputs=inputs, output=output)


@op
def _einsum(*operands: Any, inputs: list[str], output: str) -> Any:
    """Each label stands in the output or in two operands, once in each: so every gradient is an einsum, too."""
    first, *others = promote(list(operands))
    labels = inputs[0]
    for k, y in enumerate(others, start=1):
        first, labels = contract(first, labels, y, inputs[k], keep=set(output).union(*inputs[k + 1 :]))
    return first.transpose(tuple([labels.index(c) for c in output]))


_einsum.__name__ = "einsum"  # what errors and pictures of the graph show


@_einsum.vjp
def _(dout, operands, inputs, output, needs_grad):
    def gradient(k: int) -> Any:  # the output changes places with operand k
        rest, labels = operands[:k] + operands[k + 1 :], inputs[:k] + inputs[k + 1 :]
        return _einsum(dout, *rest, inputs=[output, *labels], output=inputs[k])

    return [gradient(k) if need else None for k, need in enumerate(needs_grad)]


# ------------------------------------------------------------------- matmul under the names of its special cases


def _product(name: str, x: Any, y: Any, x_ndim: int, y_ndim: int) -> Any:
    if (x.ndim, y.ndim) != (x_ndim, y_ndim):
        raise ValueError(f"{name} takes {x_ndim}-D and {y_ndim}-D; got shapes {x.shape} and {y.shape}: use matmul")
    return matmul(x, y)


@composed
def dot(x: Any, y: Any) -> Any:
    """(K), (K) -> (): the sum of x * y."""
    return _product("dot", x, y, 1, 1)


@composed
def mv(x: Any, vec: Any) -> Any:
    """(M, K), (K) -> (M): a matrix times a vector."""
    return _product("mv", x, vec, 2, 1)


@composed
def mm(x: Any, mat2: Any) -> Any:
    """(M, K), (K, N) -> (M, N): one product of two matrices."""
    return _product("mm", x, mat2, 2, 2)


@composed
def bmm(x: Any, mat2: Any) -> Any:
    """(B, M, K), (B, K, N) -> (B, M, N): a product for each matrix of the batch; B does not broadcast."""
    if x.shape[:1] != mat2.shape[:1]:
        raise ValueError(f"bmm: shapes {x.shape} and {mat2.shape}: the first dims must be equal")
    return _product("bmm", x, mat2, 3, 3)


@composed
def outer(x: Any, vec2: Any) -> Any:
    """(M), (N) -> (M, N): out[i, j] = x[i] * vec2[j]."""
    if (x.ndim, vec2.ndim) != (1, 1):
        raise ValueError(f"outer takes two vectors; got shapes {x.shape} and {vec2.shape}")
    return matmul(reshape(x, (-1, 1)), reshape(vec2, (1, -1)))
