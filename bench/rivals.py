"""The other libraries, each if it is installed, imported when a case first needs it: in a worker (remote.py).

A suite gives the formula once per library, as a function whose first argument is the library:

    torch_family(lambda torch, x: torch.softmax(x, -1))        rivals "torch", "torch.bf16" ...
    jax_family(lambda jax, x: jax.nn.softmax(x, -1))           rival "jax", under jit
    torch_backward(...), jax_backward(...)                     their gradients; the first input is then dout

What is timed is the call on arrays of the library's own: conversion and compilation come before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .case import Make

NAMES = ("numpy", "torch", "torch.compile", "torch.bf16", "jax")


def installed() -> frozenset[str]:
    found = {"numpy"}
    if importlib.util.find_spec("torch"):
        found |= {"torch", "torch.compile", "torch.bf16"}
    if importlib.util.find_spec("jax"):
        found.add("jax")
    return frozenset(found)


@cache
def torch() -> Any:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return torch


@cache
def jax() -> Any:
    import jax

    return jax


def numpy(function: Callable[..., Any]) -> dict[str, Make]:
    return {"numpy": lambda *inputs: lambda: function(*inputs)}


def tensors(inputs: tuple) -> list[Any]:
    """torch's view of the same memory; other things as they are."""
    return [torch().from_numpy(x) if isinstance(x, np.ndarray) else x for x in inputs]


def autocast(on: bool) -> Any:
    return torch().autocast("cpu", torch().bfloat16) if on else contextlib.nullcontext()


def _make_torch(function: Callable[..., Any], compile_: bool = False, bf16: bool = False) -> Make:
    def make(*inputs: Any) -> Any:
        lib, args = torch(), tensors(inputs)

        def call(*args: Any) -> Any:
            return function(lib, *args)

        if compile_:
            lib._dynamo.reset()  # each case gets a compilation for its own shapes
            call = lib.compile(call, dynamic=False)

        def run() -> Any:
            with lib.no_grad(), autocast(bf16):
                return call(*args)

        return run

    return make


def torch_family(function: Callable[..., Any], bf16: bool = False, compiled: bool = False) -> dict[str, Make]:
    """compiled: where there is something to fuse. Compiling takes seconds, and one op is one kernel already."""
    family = {"torch": _make_torch(function)}
    if compiled:
        family["torch.compile"] = _make_torch(function, compile_=True)
    if bf16:
        family["torch.bf16"] = _make_torch(function, bf16=True)
    return family


def _make_torch_backward(function: Callable[..., Any], bf16: bool = False) -> Make:
    def make(dout: Any, *inputs: Any) -> Any:
        lib = torch()
        leaves = [t.requires_grad_() if hasattr(t, "is_floating_point") and t.is_floating_point() else t
                  for t in tensors(tuple(x.copy() if isinstance(x, np.ndarray) else x for x in inputs))]  # fmt: skip
        wanted = [t for t in leaves if getattr(t, "requires_grad", False)]

        with autocast(bf16):
            out = function(lib, *leaves)
        dout = tensors((dout,))[0].to(out.dtype)
        return lambda: lib.autograd.grad(out, wanted, dout, retain_graph=True)

    return make


def torch_backward(function: Callable[..., Any], bf16: bool = False) -> dict[str, Make]:
    """Gradients by all floating inputs; the forward pass ran before, its graph is kept."""
    family = {"torch": _make_torch_backward(function)}
    if bf16:
        family["torch.bf16"] = _make_torch_backward(function, bf16=True)
    return family


def jax_family(function: Callable[..., Any], static: tuple[int, ...] = ()) -> dict[str, Make]:
    """static: positions of inputs that are no arrays and that shapes depend on."""

    def make(*inputs: Any) -> Any:
        lib = jax()
        call = lib.jit(lambda *args: function(lib, *args), static_argnums=static)
        args = _jax_arrays(inputs)
        return lambda: lib.block_until_ready(call(*args))

    return {"jax": make}


def jax_backward(function: Callable[..., Any]) -> dict[str, Make]:
    """The vjp by all floating inputs, under jit; the forward pass ran before, what it saved is an argument."""

    def make(dout: Any, *inputs: Any) -> Any:
        lib = jax()
        args = _jax_arrays(inputs)
        at = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]

        def of_floats(*floats: Any) -> Any:
            full = list(args)
            for i, x in zip(at, floats):
                full[i] = x
            return function(lib, *full)

        _, vjp = lib.jit(lambda *floats: lib.vjp(of_floats, *floats))(*[args[i] for i in at])
        pull = lib.jit(lambda vjp, d: vjp(d))
        dout = lib.numpy.asarray(dout)
        return lambda: lib.block_until_ready(pull(vjp, dout))

    return {"jax": make}


def _jax_arrays(inputs: tuple) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # int64 becomes int32
        return [jax().numpy.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]


def with_inputs(adapt: Callable[..., tuple], family: dict[str, Make]) -> dict[str, Make]:
    """The family on adapt(*inputs): for rivals that take less than the kernel, or in another order."""
    return {name: _adapted(adapt, make) for name, make in family.items()}


def _adapted(adapt: Callable[..., tuple], make: Make) -> Make:
    return lambda *inputs: make(*adapt(*inputs))


@contextlib.contextmanager
def threads(n: int | None) -> Any:
    """n threads in the libraries of this process that can change it while they run: Numba, OpenBLAS, torch.

    None: as they are.
    """
    if n is None:
        yield
        return
    import numba

    from minillm import blas

    set_blas = blas._function("set_num_threads", None)
    before = numba.get_num_threads(), blas.threads()
    numba.set_num_threads(min(n, before[0]))
    if set_blas:
        set_blas(n)
    torch_before = None
    if "torch" in sys.modules:
        torch_before = torch().get_num_threads()
        torch().set_num_threads(n)
    try:
        yield
    finally:
        numba.set_num_threads(before[0])
        if set_blas:
            set_blas(before[1])
        if torch_before is not None:
            torch().set_num_threads(torch_before)
