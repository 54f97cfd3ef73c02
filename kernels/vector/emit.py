"""Short words for the LLVM instructions that the intrinsics emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .cpu import HAS_FMA
from .types import I32

_NAMES = {"float": "f32", "double": "f64", "i32": "i32", "i64": "i64"}


def suffix(t: ir.VectorType) -> str:
    """<16 x float> -> "v16f32": how LLVM names its functions."""
    return f"v{t.count}{_NAMES[str(t.element)]}"


def call(b: Any, name: str, result: ir.Type, *args: Any, fastmath: Sequence[str] = ()) -> Any:
    """result = name(*args), an LLVM intrinsic."""
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args, fastmath=fastmath)


def constant(t: ir.VectorType, value: Any) -> ir.Constant:
    """The same value in every lane, or a value for each."""
    values = list(value) if isinstance(value, (tuple, list)) else [value] * t.count
    return ir.Constant(t, values)


def splat(b: Any, scalar: Any, t: ir.VectorType) -> Any:
    """A scalar in every lane."""
    one = b.insert_element(ir.Constant(t, ir.Undefined), scalar, I32(0))
    return b.shuffle_vector(one, ir.Constant(t, ir.Undefined), constant(ir.VectorType(I32, t.count), 0))


def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once where the CPU can (elsewhere a function call for each lane would do it)."""
    return call(b, f"llvm.{'fma' if HAS_FMA else 'fmuladd'}.{suffix(x.type)}", x.type, x, y, z)


def load(b: Any, address: Any, t: ir.Type, align: int) -> Any:
    value = b.load(b.bitcast(address, t.as_pointer()))
    value.align = align
    return value


def store(b: Any, value: Any, address: Any, align: int) -> None:
    b.store(value, b.bitcast(address, value.type.as_pointer())).align = align


def prefetch(b: Any, address: Any, write: bool) -> None:
    """Ask for a cache line; never faults, whatever the address."""
    bytes_ = b.bitcast(address, ir.IntType(8).as_pointer())
    call(b, "llvm.prefetch.p0", ir.VoidType(), bytes_, I32(int(write)), I32(3), I32(1))
