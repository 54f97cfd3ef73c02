"""Functions that are compiled once and called by address.

Numba compiles a function again inside everything that calls it, and the body of a `prange` loop three times over. For
the blocks of the attention kernels, with all their unrolled tiles, that is seconds each time. What `Apart` makes of
such a function compiles to the call of a symbol. `link` compiles the function and says where the symbol is; that has to
come before the caller is compiled or loaded from the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..vector.types import Pointer


class Apart:
    """body: an @njit function of pointers and numbers that returns nothing; signature(dtype): the types of these."""

    def __init__(self, body: Any, signature: Callable[[types.Type], tuple[types.Type, ...]]):
        self.body, self.signature = body, signature
        self.call = self._make_call()

    def link(self, dtype: types.Type) -> None:
        """Compile the body for pointers to `dtype`, or take it from the cache, and register its symbol."""
        self.body.compile(self.signature(dtype))
        result = self.body.overloads[self.signature(dtype)]
        address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
        llvm.add_symbol(self._symbol(dtype), address)

    def _symbol(self, dtype: types.Type) -> str:
        return f"{self.body.py_func.__module__}.{self.body.py_func.__name__}.{dtype}"

    def _make_call(self) -> Any:
        """call((argument, ...)), inside @njit functions"""

        @intrinsic
        def call(typingctx, arguments):
            dtype = next(t.dtype for t in arguments if isinstance(t, Pointer))
            wanted = self.signature(dtype)

            def generate(context, builder, sig, args):
                values = cgutils.unpack_tuple(builder, args[0])
                pairs = zip(values, arguments, wanted, strict=True)
                values = [context.cast(builder, value, given, t) for value, given, t in pairs]
                t = ir.FunctionType(context.get_value_type(types.none), [v.type for v in values])
                builder.call(cgutils.get_or_insert_function(builder.module, t, self._symbol(dtype)), values)
                return context.get_dummy_value()

            return types.void(arguments), generate

        return call
