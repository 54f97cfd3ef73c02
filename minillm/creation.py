"""New tensors: from values, filled, or random. float32 unless said otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import random
from .device import array_module, array_module_of, is_array
from .dtypes import DEFAULT
from .tensor import Tensor, _sizes

__all__ = [
    "arange", "as_tensor", "empty_like", "eye", "from_dlpack", "full", "full_like", "linspace", "ones", "ones_like",
    "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "tensor", "zeros", "zeros_like",
]  # fmt: skip


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of `data` (numbers, nested lists, an array).

    >>> tensor([[1, 2], [3, 4]]).dtype
    dtype('int64')
    """
    shared = is_array(data) or isinstance(data, Tensor)
    if dtype is not None and not shared:
        data = np.asarray(data, dtype)  # not by way of float32
    t = Tensor(data).to(device=device, dtype=dtype)
    return Tensor(t.data.copy() if shared else t.data, requires_grad=requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: str | None = None) -> Tensor:
    """A tensor that shares `data`'s memory where it can."""
    if not isinstance(data, Tensor) and not is_array(data):
        return tensor(data, dtype, device)
    return (data if isinstance(data, Tensor) else Tensor(data)).to(device=device, dtype=dtype)


def from_dlpack(x: Any) -> Tensor:
    """A tensor of the memory of another library's array (NumPy, PyTorch, JAX, CuPy), without a copy, on its device.

    What one of the two writes the other reads; JAX's arrays cannot be written to. The way back is the other library's
    from_dlpack. TypeError for a dtype that NumPy lacks (bfloat16) and for what cannot be shared.
    Source: the DLPack protocol, https://data-apis.org/array-api/latest/design_topics/data_interchange.html
    """
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: expected an array with __dlpack__, got {type(x).__name__}; use tensor(values)")
    try:
        on_gpu = x.__dlpack_device__()[0] in (2, 13)  # kDLCUDA, kDLCUDAManaged
        return Tensor(array_module_of("cuda" if on_gpu else "cpu").from_dlpack(x))
    except (BufferError, RuntimeError, ValueError) as error:  # a gradient, or a dtype
        raise TypeError(
            f"from_dlpack: this {type(x).__name__} of {getattr(x, 'dtype', 'unknown dtype')} cannot be shared ({error})"
        ) from error


def _filled(name: str) -> Any:
    def create(*size: Any, dtype: Any = DEFAULT, device: str = "cpu", requires_grad: bool = False) -> Tensor:
        return Tensor(getattr(array_module_of(device), name)(_sizes(size), dtype=dtype), requires_grad=requires_grad)

    create.__name__, create.__doc__ = name, f"A tensor of {name}; the size as arguments or as one tuple."
    return create


zeros, ones = _filled("zeros"), _filled("ones")


def full(size: Any, fill_value: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor filled with one number."""
    dtype = dtype or Tensor(_plain(fill_value)).dtype
    return Tensor(array_module_of(device).full(tuple(size), fill_value, dtype=dtype), requires_grad=requires_grad)


def _plain(value: Any) -> Any:
    """A Python number: of a NumPy scalar, a 0-d array or a Tensor its value."""
    return value.item() if hasattr(value, "item") else value


def zeros_like(x: Any) -> Tensor:
    """Zeros of x's shape, dtype and device."""
    return full_like(x, 0)


def ones_like(x: Any) -> Tensor:
    """Ones of x's shape, dtype and device."""
    return full_like(x, 1)


def full_like(x: Any, fill_value: Any) -> Tensor:
    """One number in x's shape, dtype and device."""
    data = x.data if isinstance(x, Tensor) else x
    return Tensor(array_module(data).full(data.shape, fill_value, dtype=data.dtype))


empty_like = zeros_like


def arange(start: Any, end: Any = None, step: Any = 1, dtype: Any = None, device: str = "cpu") -> Tensor:
    """start, start + step, ... below end."""
    start, end = (0, start) if end is None else (start, end)
    start, end, step = _plain(start), _plain(end), _plain(step)
    dtype = dtype or (DEFAULT if any(isinstance(v, float) for v in (start, end, step)) else np.int64)
    return Tensor(array_module_of(device).arange(start, end, step, dtype=dtype))


def linspace(start: float, end: float, steps: int, dtype: Any = DEFAULT, device: str = "cpu") -> Tensor:
    """`steps` numbers from start to end, both included."""
    return Tensor(array_module_of(device).linspace(start, end, steps, dtype=dtype))


def eye(n: int, m: int | None = None, dtype: Any = DEFAULT, device: str = "cpu") -> Tensor:
    """The identity matrix."""
    return Tensor(array_module_of(device).eye(n, m, dtype=dtype))


def _generator(generator: random.Generator | None) -> random.Generator:
    return random.default_generator if generator is None else generator


def randn(
    *size: Any,
    dtype: Any = DEFAULT,
    device: str = "cpu",
    requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:
    """Standard normal numbers: the same on every device for the same seed."""
    return Tensor(_generator(generator).normal(_sizes(size), dtype=dtype, device=device), requires_grad=requires_grad)


def rand(
    *size: Any,
    dtype: Any = DEFAULT,
    device: str = "cpu",
    requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return Tensor(_generator(generator).uniform(_sizes(size), dtype=dtype, device=device), requires_grad=requires_grad)


def randint(low: int, high: int, size: Any, device: str = "cpu", generator: random.Generator | None = None) -> Tensor:
    """Uniform int64 numbers, low <= n < high."""
    return Tensor(_generator(generator).integers(low, high, tuple(size), device=device))


def randperm(n: int, device: str = "cpu", generator: random.Generator | None = None) -> Tensor:
    """0 .. n-1 in random order."""
    return Tensor(_generator(generator).permutation(n, device=device))


def rand_like(x: Any, generator: random.Generator | None = None) -> Tensor:
    """Uniform numbers in [0, 1) in x's shape, dtype and device."""
    x = as_tensor(x)
    return rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def randn_like(x: Any, generator: random.Generator | None = None) -> Tensor:
    """Standard normal numbers in x's shape, dtype and device."""
    x = as_tensor(x)
    return randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
