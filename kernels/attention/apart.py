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
    """body: an @njit function of pointers and more that returns nothing; signature(number, word): its arguments' types.

    number is the floating dtype of its pointers; word is int32 where there are pointers to int32 too, else number.
    """

    def __init__(self, body: Any, signature: Callable[[Any, Any], tuple[types.Type, ...]]):
        self.body, self.signature = body, signature
        self.call = self._make_call()

    def link(self, number: types.Type, word: types.Type) -> None:
        """Compile the body for these, or take it from the cache, and register its symbol."""
        signature = self.signature(number, word)
        self.body.compile(signature)
        result = self.body.overloads[signature]
        address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
        llvm.add_symbol(self._symbol(number, word), address)

    def _symbol(self, number: types.Type, word: types.Type) -> str:
        return f"{self.body.py_func.__module__}.{self.body.py_func.__name__}.{number}.{word}"

    def _make_call(self) -> Any:
        """call((argument, ...)), inside @njit functions"""

        @intrinsic
        def call(typingctx, arguments):
            pointed = [t.dtype for t in arguments if isinstance(t, Pointer)]
            number = next(t for t in pointed if isinstance(t, types.Float))
            word = types.int32 if types.int32 in pointed else number
            wanted = self.signature(number, word)

            def generate(context, builder, sig, args):
                values = cgutils.unpack_tuple(builder, args[0])
                pairs = zip(values, arguments, wanted, strict=True)
                values = [context.cast(builder, value, given, t) for value, given, t in pairs]
                t = ir.FunctionType(context.get_value_type(types.none), [v.type for v in values])
                symbol = self._symbol(number, word)
                builder.call(cgutils.get_or_insert_function(builder.module, t, symbol), values)
                return context.get_dummy_value()

            return types.void(arguments), generate

        return call
