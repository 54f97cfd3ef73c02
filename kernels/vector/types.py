"""The Numba types: a vector of numbers, a mask of booleans, a typed address.

A vector is one LLVM value, `<16 x float>`, so that it lives in a register; it can be a local variable, an argument of
an @njit function and its result. It cannot leave compiled code: load it from an array, store it into one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import models, register_model

from .cpu import LANES32

I32, I64 = ir.IntType(32), ir.IntType(64)
_IR = {
    types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int32: I32, types.int64: I64,
    types.uint32: I32, types.uint64: I64, types.int8: ir.IntType(8), types.uint8: ir.IntType(8),
    types.int16: ir.IntType(16), types.uint16: ir.IntType(16), types.boolean: ir.IntType(8),
}  # fmt: skip


class Vector(types.Type):
    """`lanes` numbers of `dtype`: 64 bytes with AVX-512, 32 with AVX2, 16 elsewhere."""

    def __init__(self, dtype: types.Type):
        self.dtype, self.lanes = dtype, lanes_of(dtype)
        super().__init__(name=f"Vector({dtype} x {self.lanes})")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(_IR[self.dtype], self.lanes)

    @property
    def floating(self) -> bool:
        return isinstance(self.dtype, types.Float)


class Mask(types.Type):
    """A boolean for each lane: what comparing two vectors gives."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(name=f"Mask({lanes})")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(1), self.lanes)


class Pointer(types.Type):
    """The address of an element of `dtype`; p + n is the address n elements further."""

    def __init__(self, dtype: types.Type):
        self.dtype = dtype
        super().__init__(name=f"Pointer({dtype})")


@register_model(Vector)
@register_model(Mask)
class _OneValue(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, fe_type.ir)


@register_model(Pointer)
class _Address(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, element(fe_type.dtype).as_pointer())


def element(dtype: types.Type) -> ir.Type:
    """The LLVM type of one number in memory."""
    return _IR[dtype]


def lanes_of(dtype: types.Type) -> int:
    """How many numbers of 4 or 8 bytes one vector holds."""
    if dtype in (types.float32, types.int32, types.uint32):
        return LANES32
    if dtype in (types.float64, types.int64, types.uint64):
        return LANES32 // 2
    raise TypingError(f"a vector holds float32, float64, or integers of 32 or 64 bits; got {dtype}")


def dtype_like(like: Any) -> types.Type:
    """The dtype that an argument called `like` stands for: an array, a pointer, a vector, or a number."""
    if isinstance(like, (types.Array, Pointer, Vector)):
        return like.dtype
    if isinstance(like, types.Number):
        return types.unliteral(like)
    raise TypingError(f"expected an array, a pointer, a vector or a number, got {like}")
