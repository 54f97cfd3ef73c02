"""What the kernel tests share: implementations, dtypes, odd strides, and the checks that every kernel passes.

A test file imports `pytest_generate_tests`; arguments named impl, dtype and layout then run over the tables below.
For impl there is more where the kernel has a cuda.py: "cuda", which the CPU simulates (conftest.py), and "gpu", that
on a real device, with the marker gpu. Both have float32 of the two dtypes.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pytest

import kernels


def _frozen(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {  # functions that return an array of the same values, laid out in memory in another way
    "contiguous": lambda x: x,
    "transposed": lambda x: np.array(x.T, order="C").T,
    "negative strides": lambda x: np.array(np.flip(x), order="C")[(slice(None, None, -1),) * x.ndim],
    "stepped": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "read-only": _frozen,
}
PARAMETERS = {
    "impl": {"reference": "reference", "cpu": "cpu"},
    "dtype": {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)},
    "layout": LAYOUTS,
}


def pytest_generate_tests(metafunc):
    name = getattr(metafunc.module, "KERNEL", metafunc.module.__name__.rpartition("test_")[2])
    folder = Path(kernels.__file__).parent / name
    on_cuda = (folder / "cuda.py").exists()
    for name, values in PARAMETERS.items():
        if name in metafunc.fixturenames:
            cases = [pytest.param(value, id=key) for key, value in values.items()]
            if name == "impl" and on_cuda:
                cases += [
                    pytest.param("cuda", id="cuda", marks=pytest.mark.on_cuda("simulator")),
                    pytest.param("cuda", id="gpu", marks=[pytest.mark.on_cuda("device"), pytest.mark.gpu]),
                ]
            metafunc.parametrize(name, cases)


def accurate(got, exact, plain, bound=1.0, factor=2):
    """err <= factor * error of the plain formula in got's precision + 8 eps * bound; exact is of more precision.

    The floor is there because the plain formula can be right by luck; `bound` is the size of the terms summed.
    """
    assert got.shape == exact.shape
    assert got.dtype == plain.dtype
    if got.size:
        allowed = factor * np.max(abs(plain - exact)) + 8 * np.finfo(got.dtype).eps * bound
        worst = np.max(abs(got - exact))
        assert worst <= allowed, f"error {worst:.3e}, allowed {allowed:.3e}"


def central_difference(f, x, h=1e-5):
    """The gradient of the scalar f at x, float64; good to about 1e-9 for functions of size 1."""
    assert x.dtype == np.float64
    grad = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        grad[i] = (f(up) - f(down)) / (up[i] - down[i])
    return grad


def pure(f, *arrays):
    """f(*arrays) leaves its arguments alone, shares no memory with them, and gives the same bits again."""
    before = [a.copy() for a in arrays]
    first, again = _tuple(f(*arrays)), _tuple(f(*arrays))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    for out, same in zip(first, again, strict=True):
        assert out.tobytes() == same.tobytes()
        assert not any(np.may_share_memory(out, other) for other in (*arrays, same))
    assert not any(np.may_share_memory(a, b) for i, a in enumerate(first) for b in first[:i])
    return first


def in_nan(x):
    """The same values as x, in C order, with NaN (integers: the lowest) before and behind them."""
    odd = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    frame = np.full(x.size + 128, odd, x.dtype)
    frame[64 : 64 + x.size] = x.reshape(-1)
    return frame[64 : 64 + x.size].reshape(x.shape)


def ignores_surroundings(f, *arrays):
    """f gives the same bits when its arguments have NaN around them."""
    plain, framed = _tuple(f(*arrays)), _tuple(f(*map(in_nan, arrays)))
    for a, b in zip(plain, framed, strict=True):
        assert a.tobytes() == b.tobytes()


def same_for_any_threads(f):
    """f() gives the same bits on one thread and on all."""
    most = numba.config.NUMBA_NUM_THREADS
    try:
        numba.set_num_threads(1)
        one = _tuple(f())
    finally:
        numba.set_num_threads(most)
    for a, b in zip(one, _tuple(f()), strict=True):
        assert a.size
        assert a.tobytes() == b.tobytes()


def _tuple(out):
    return out if isinstance(out, tuple) else (out,)
