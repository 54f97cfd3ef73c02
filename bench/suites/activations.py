"""GELU, SiLU and gated SiLU; and exp, log, tanh, erf one by one: in cache, on one thread, with their errors in ulp."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kernels import simd
from kernels.numba_setup import njit

from ..case import Case, Options, plain
from ..rivals import jax_backward, jax_family, numpy, torch_backward, torch_family

TITLE = "gelu, silu, swiglu; exp, log, tanh, erf an element"
SHAPE = ("elements",)
SHAPES = [(1 << 16,), (1 << 24,)]  # in L2, in memory
FUNCTIONS = ("exp", "log", "tanh", "erf")
IN_CACHE = 4096  # elements: 32 KB with the result


def cases(options: Options) -> Iterator[Case]:
    for name in FUNCTIONS:
        x = options.normal(IN_CACHE, scale=3)
        yield _function(name, np.abs(x) if name == "log" else x)
    for (n,) in options.pick(SHAPES, SHAPES):
        x, up, dout = options.normal(3, n, scale=2)
        pair = {"bytes": 2 * x.nbytes, "flops": 5 * n}
        triple = {"bytes": 3 * x.nbytes, "flops": 8 * n, "backward": True}
        gelu = torch_family(lambda torch, x: torch.nn.functional.gelu(x))
        gelu |= numpy(_numpy_gelu) | jax_family(_jax_gelu)
        yield Case("activations", f"gelu forward {n}", (x,), "gelu_forward", rivals=gelu, **pair)
        gelu = torch_backward(lambda torch, x: torch.nn.functional.gelu(x)) | jax_backward(_jax_gelu)
        yield Case("activations", f"gelu backward {n}", (dout, x), "gelu_backward", rivals=gelu, **triple)
        silu = torch_family(lambda torch, x: torch.nn.functional.silu(x))
        silu |= numpy(lambda x: x / (1 + np.exp(-x))) | jax_family(lambda jax, x: jax.nn.silu(x))
        yield Case("activations", f"silu forward {n}", (x,), "silu_forward", rivals=silu, **pair)
        silu = torch_backward(lambda torch, x: torch.nn.functional.silu(x))
        silu |= jax_backward(lambda jax, x: jax.nn.silu(x))
        yield Case("activations", f"silu backward {n}", (dout, x), "silu_backward", rivals=silu, **triple)
        if options.quick:
            continue
        swiglu = torch_family(lambda torch, x, up: torch.nn.functional.silu(x) * up, compiled=True)
        swiglu |= jax_family(lambda jax, x, up: jax.nn.silu(x) * up)
        yield Case("activations", f"swiglu forward {n}", (x, up), "swiglu_forward", rivals=swiglu,
                   **(triple | {"backward": False}))  # fmt: skip
        swiglu = torch_backward(lambda torch, x, up: torch.nn.functional.silu(x) * up)
        swiglu |= jax_backward(lambda jax, x, up: jax.nn.silu(x) * up)
        yield Case("activations", f"swiglu backward {n}", (dout, x, up), "swiglu_backward", rivals=swiglu,
                   **(triple | {"bytes": 5 * x.nbytes}))  # fmt: skip


def _function(name: str, x: np.ndarray) -> Case:
    import scipy.special

    exact = getattr(np, name, None) or getattr(scipy.special, name)
    return Case(
        "activations", f"{name} of {x.size} in cache", (x,), reference=exact, elements=x.size, bytes=2 * x.nbytes,
        threads=1, ulp=True, ours={"minillm": plain(_over(name))},
        rivals=({"numpy": plain(exact)} if hasattr(np, name) else {"scipy": plain(exact)})
        | torch_family(lambda torch, x: getattr(torch, name)(x))
        | jax_family(lambda jax, x: getattr(jax.numpy, name, None)(x) if name != "erf" else jax.scipy.special.erf(x)),
    )  # fmt: skip


def _over(name: str):
    """A function of arrays from one of vectors; sizes are multiples of two vectors."""
    function = getattr(simd, name)

    @njit(cache=False)  # the cache would not tell the four apart
    def loop(x, out):
        n = simd.lanes(x)
        for i in range(0, x.size, 2 * n):
            a, b = function(simd.load(x, i)), function(simd.load(x, i + n))
            simd.store(out, i, a)
            simd.store(out, i + n, b)

    def run(x):
        out = np.empty_like(x)
        loop(x, out)
        return out

    return run


def _numpy_gelu(x):
    from scipy.special import erf

    return 0.5 * x * (1 + erf(x * x.dtype.type(0.5**0.5)))


def _jax_gelu(jax, x):
    return jax.nn.gelu(x, approximate=False)
