"""The device "strict": main memory that refuses what CuPy refuses. Device mistakes show on a machine without a GPU.

    strict.install()
    x = minillm.tensor([1.0, 2.0]).to("strict")      # ops, layers and models run on it as they would on "cuda"

What it does as CuPy 14 does:

- np.asarray(x) raises TypeError: .get() is the way back; float(x), int(x), bool(x), x.item() work (and wait for a GPU)
- operators and functions refuse numpy.ndarray beside it; Python and NumPy scalars are fine. As indices, lists and NumPy
  arrays are fine (CuPy copies them to the device); as values to assign, only 0-d ones
- every result is an array: x.sum() is 0-d, never a NumPy scalar
- functions take arrays, not lists of numbers (`xp.prod(shape)` fails); creation functions and lists of arrays in
  concatenate and stack are fine
- functions that CuPy lacks are missing, and so are arguments that it lacks (initial=, where= in reductions; errstate)
- an index array that is out of bounds wraps around, without an error

Where it is stricter: numpy.exp(x) is refused, although CuPy would answer (through __array_ufunc__): code that runs on
both asks for `array_module(x).exp`. A module such as xp.linalg or xp.random is not there.

What it cannot show: other last bits, atomics in a random order, streams, speed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from ..device import register

# In NumPy, but not in CuPy 14.2.
_LACKING = frozenset([
    "asmatrix", "block", "bmat", "busday_count", "busday_offset", "busdaycalendar", "bytes_", "character",
    "clongdouble", "complex256", "datetime64", "datetime_as_string", "datetime_data", "einsum_path",
    "errstate", "flexible", "float128", "frompyfunc", "fromregex", "geomspace", "get_include",
    "getbufsize", "geterr", "geterrcall", "histogram_bin_edges", "info", "insert", "is_busday", "isnat",
    "longdouble", "matrix", "matvec", "memmap", "nanpercentile", "nanquantile", "ndenumerate", "nditer",
    "nested_iters", "object_", "polyder", "polydiv", "polyint", "recarray", "record", "setbufsize",
    "seterr", "seterrcall", "show_runtime", "spacing", "str_", "test", "timedelta64", "unstack", "vecdot",
    "vecmat", "void",
])  # fmt: skip
_TAKES_ANYTHING = frozenset([  # host data is copied over
    "array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "full", "full_like",
])  # fmt: skip
_TAKES_LISTS = frozenset([  # of arrays
    "concatenate", "concat", "stack", "vstack", "hstack", "dstack", "column_stack", "row_stack",
    "broadcast_arrays", "meshgrid", "ix_", "einsum", "select", "choose", "piecewise", "lexsort", "append",
])  # fmt: skip
_NO_ARRAYS = frozenset([  # about shapes and dtypes: no data
    "zeros", "ones", "empty", "eye", "identity", "arange", "linspace", "logspace", "tri", "indices",
    "broadcast_shapes", "result_type", "promote_types", "can_cast", "issubdtype", "isdtype", "dtype",
    "finfo", "iinfo", "isscalar", "ndindex", "tril_indices", "triu_indices", "unravel_index",
    "mask_indices", "r_", "c_", "s_", "isfortran", "may_share_memory", "shares_memory", "shape", "ndim",
    "size",
])  # fmt: skip
_SETTINGS_LACKING = {"initial", "where", "subok", "mean", "correction", "stable"}  # arguments that only NumPy has
_REDUCTIONS = frozenset([
    "sum", "mean", "var", "std", "prod", "max", "min", "amax", "amin", "any", "all", "argmax", "argmin",
    "cumsum", "cumprod", "sort", "argsort", "ptp",
])  # fmt: skip


class StrictArray:
    """A NumPy array that behaves like an array on another device."""

    __slots__ = ("__weakref__", "_array", "_base")
    __array_ufunc__ = None
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any, base: Any = None, memptr: _Pointer | None = None):
        """Of an array; or as CuPy's (shape, dtype, memptr): memory that is there, as an array of its own."""
        if memptr is None:
            self._array, self._base = array, base
        else:
            self._array, self._base = memptr.array(array, np.dtype(base)), None

    # ------------------------------------------------------------------------- the way back to main memory

    def get(self) -> np.ndarray:
        """A copy in main memory."""
        return self._array.copy()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion of a device array to a NumPy array is not allowed: call .get()")

    def __array_function__(self, function: Callable, *_: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} on a device array: use the function of array_module(x)")

    def item(self, *index: Any) -> Any:
        return self._array.item(*index)

    def tolist(self) -> Any:
        return self._array.tolist()

    def tobytes(self) -> bytes:
        return self._array.tobytes()

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __bool__(self) -> bool:
        return bool(self._array)

    def __complex__(self) -> complex:
        return complex(self._array)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[StrictArray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self._array)

    def __format__(self, spec: str) -> str:
        return format(self._array, spec)

    # ------------------------------------------------------------------------------------- what it is

    shape = property(lambda self: self._array.shape)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    dtype = property(lambda self: self._array.dtype)
    strides = property(lambda self: self._array.strides)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    flags = property(lambda self: self._array.flags)
    T = property(lambda self: _wrap(self._array.T, self))
    mT = property(lambda self: _wrap(self._array.mT, self))
    real = property(lambda self: _wrap(self._array.real, self))
    imag = property(lambda self: _wrap(self._array.imag, self))

    @property
    def data(self) -> _Pointer:
        """Where the memory begins."""
        return _Pointer(self._array, self._array.ctypes.data)

    @property
    def base(self) -> StrictArray | None:
        """The array whose memory this is a view of."""
        return self._base

    # ---------------------------------------------------------------------------------------- indexing

    def __getitem__(self, index: Any) -> StrictArray:
        return _wrap(self._array[self._index(index)], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError(
                "cannot assign a NumPy array to part of a device array: bring it over with xp.asarray first"
            )
        if isinstance(value, (list, tuple)):
            raise TypeError(f"cannot assign a {type(value).__name__} to part of a device array: xp.asarray(value)")
        self._array[self._index(index)] = _unwrap(value)

    def _index(self, index: Any) -> Any:
        """The index as NumPy's, integer arrays wrapped around."""
        entries = index if isinstance(index, tuple) else (index,)
        entries = tuple([self._entry(e) for e in entries])
        used = sum(
            0 if e is None or e is Ellipsis else e.ndim if getattr(e, "dtype", None) == np.bool_ else 1 for e in entries
        )
        axis, result = 0, []
        for e in entries:
            if e is Ellipsis:
                axis += self.ndim - used
            elif isinstance(e, np.ndarray) and e.dtype == np.bool_:
                axis += e.ndim
            elif e is not None:
                if isinstance(e, np.ndarray) and e.dtype.kind in "iu" and axis < self.ndim and self.shape[axis]:
                    e = e % self.shape[axis]
                axis += 1
            result.append(e)
        return tuple(result)

    @staticmethod
    def _entry(e: Any) -> Any:
        if isinstance(e, StrictArray):
            return e._array
        if isinstance(e, (list, tuple)):
            return np.asarray([_unwrap(v) for v in e], dtype=None if len(e) else np.int32)
        return e

    # ----------------------------------------------------------------------------------------- methods

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> StrictArray:
        new = self._array.astype(dtype, order=order, copy=copy)  # type: ignore[call-overload]
        return self if new is self._array else _wrap(new, None)

    def copy(self, order: str = "C") -> StrictArray:
        return StrictArray(self._array.copy(order=order))  # type: ignore[arg-type]

    def fill(self, value: Any) -> None:
        self._array.fill(_unwrap(value))

    def set(self, array: np.ndarray) -> None:
        """Copy from main memory."""
        self._array[...] = array

    def __copy__(self) -> StrictArray:
        return self.copy()

    def __deepcopy__(self, _: Any) -> StrictArray:
        return self.copy()


class _Pointer:
    """As cupy.cuda.MemoryPointer: `ptr` bytes from the beginning of memory; p + n is n bytes on."""

    def __init__(self, owner: np.ndarray, ptr: int):
        self._owner, self.ptr = owner, ptr

    def __add__(self, offset: int) -> _Pointer:
        return _Pointer(self._owner, self.ptr + offset)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        offset, count = self.ptr - self._owner.ctypes.data, int(np.prod(shape))
        return np.frombuffer(self._owner.data.cast("B"), dtype, count, offset).reshape(shape)


def _method(name: str) -> Callable:
    original = getattr(np.ndarray, name)

    def method(self: StrictArray, *args: Any, **settings: Any) -> Any:
        _refuse_settings(name, settings)
        out = settings.get("out")
        result = original(
            self._array, *[_argument(name, a) for a in args], **{k: _argument(name, v) for k, v in settings.items()}
        )
        return out if out is not None else _wrap(result, self)

    method.__name__ = name
    return method


def _operator(name: str) -> Callable:
    original = getattr(np.ndarray, name)
    in_place = name.startswith("__i") and name not in ("__invert__", "__index__")

    def operator(self: StrictArray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray):
                raise TypeError(f"unsupported: {name} of a device array and a numpy.ndarray; bring one of them over")
            if not isinstance(other, (StrictArray, int, float, complex, bool, np.generic)):
                return NotImplemented
        result = original(self._array, *[_unwrap(o) for o in others])
        if result is NotImplemented:
            return result
        return self if in_place else _wrap(result, None)

    operator.__name__ = name
    return operator


for _name in [
    "all", "any", "argmax", "argmin", "argsort", "argpartition", "clip", "compress", "conj", "conjugate",
    "cumprod", "cumsum", "diagonal", "dot", "flatten", "max", "mean", "min", "nonzero", "partition", "prod",
    "put", "ravel", "repeat", "reshape", "round", "searchsorted", "sort", "squeeze", "std", "sum", "swapaxes",
    "take", "trace", "transpose", "var", "view",
]:  # fmt: skip
    setattr(StrictArray, _name, _method(_name))
for _name in [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift",
    "rshift", "radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul", "rand", "ror",
    "rxor", "rlshift", "rrshift", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand",
    "ior", "ixor", "lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert",
]:  # fmt: skip
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))


class _Ufunc:
    """An element-wise function with the methods that CuPy's have."""

    def __init__(self, name: str, ufunc: np.ufunc):
        self.__name__, self._ufunc = name, ufunc

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str | None = None) -> Any:
        settings = {k: v for k, v in (("dtype", dtype), ("casting", casting)) if v is not None}
        raw = self._ufunc(*[_argument(self.__name__, a) for a in args], out=_unwrap(out), **settings)
        if out is not None:
            return out
        return tuple([_wrap(r, None) for r in raw]) if isinstance(raw, tuple) else _wrap(raw, None)

    def at(self, a: StrictArray, indices: Any, b: Any = None) -> None:
        if self.__name__ not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"CuPy has no {self.__name__}.at")
        if isinstance(b, np.ndarray) and b.ndim:
            raise TypeError(f"{self.__name__}.at: values are a numpy.ndarray; bring them over with xp.asarray")
        self._ufunc.at(a._array, a._index(indices), _unwrap(b))

    def outer(self, a: Any, b: Any) -> Any:
        return _wrap(self._ufunc.outer(_argument(self.__name__, a), _argument(self.__name__, b)), None)

    def reduce(self, a: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"CuPy has no {self.__name__}.reduce")
        return _wrap(
            self._ufunc.reduce(
                _argument(self.__name__, a), axis=axis, dtype=dtype, out=_unwrap(out), keepdims=keepdims
            ),
            None,
        )

    def accumulate(self, a: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"CuPy has no {self.__name__}.accumulate")
        return _wrap(self._ufunc.accumulate(_argument(self.__name__, a), axis, dtype, _unwrap(out)), None)


class _Module:
    """NumPy's functions for StrictArray: those that CuPy has, too."""

    __name__ = "strict"
    ndarray = StrictArray

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._made:
            if name in _LACKING or not hasattr(np, name):
                raise AttributeError(f"strict: CuPy has no function {name!r}")
            self._made[name] = _lift(name, getattr(np, name))
        return self._made[name]


def _lift(name: str, original: Any) -> Any:
    if isinstance(original, np.ufunc):
        return _Ufunc(name, original)
    if isinstance(original, type) or not callable(original):  # dtypes, constants
        if inspect.ismodule(original):
            raise AttributeError(f"strict: the module {name!r} is not part of the stand-in")
        return original

    @wraps(original)
    def function(*args: Any, **settings: Any) -> Any:
        _refuse_settings(name, settings)
        out = settings.get("out")
        convert = (
            _host if name in _TAKES_ANYTHING else (lambda a: a) if name in _NO_ARRAYS else lambda a: _argument(name, a)
        )
        if name in _NO_ARRAYS:
            args, settings = tuple(_deep(a) for a in args), {k: _deep(v) for k, v in settings.items()}
        elif name not in _TAKES_ANYTHING and name not in _TAKES_LISTS and args and isinstance(args[0], (list, tuple)):
            raise TypeError(f"{name} takes an array; got a {type(args[0]).__name__} (CuPy does not convert it)")
        raw = original(*[convert(a) for a in args], **{k: convert(v) for k, v in settings.items()})
        if name == "where" and any(getattr(a, "dtype", np.dtype(bool)).name == "bfloat16" for a in args):
            raw = raw.astype(np.float32)  # CuPy has no loop for bfloat16 there, and takes float32's
        if out is not None:
            return out
        if name in ("asarray", "ascontiguousarray", "asanyarray", "asfortranarray") and isinstance(
            args[0], StrictArray
        ):
            return args[0] if raw is args[0]._array else _wrap(raw, args[0])
        if isinstance(raw, np.ndarray) and args and raw is args[0]:
            raw = raw.copy()  # host memory is never shared
        parent = next((a for a in args if isinstance(a, StrictArray)), None)
        return _wrap(raw, parent)

    return function


def _refuse_settings(name: str, settings: dict[str, Any]) -> None:
    for key in settings:
        if name in _REDUCTIONS and key in _SETTINGS_LACKING:
            raise TypeError(f"CuPy's {name} has no argument {key!r}")


def _argument(name: str, a: Any) -> Any:
    """What NumPy's function is given; NumPy arrays are refused."""
    if isinstance(a, np.ndarray):
        raise TypeError(f"{name} got a numpy.ndarray of shape {a.shape} for a device: bring it over with xp.asarray")
    return _deep(a, name)


def _deep(a: Any, name: str = "") -> Any:
    if isinstance(a, StrictArray):
        return a._array
    if isinstance(a, (list, tuple)):
        return type(a)([_argument(name, v) if name else _deep(v) for v in a])
    return a


def _host(a: Any) -> Any:
    """asarray(NumPy array): a copy to the device."""
    return a.copy() if isinstance(a, np.ndarray) else _deep(a)


def _unwrap(a: Any) -> Any:
    return a._array if isinstance(a, StrictArray) else a


def _wrap(raw: Any, parent: StrictArray | None) -> Any:
    """A result on the device: 0-d stays an array; views know whose memory they are."""
    if isinstance(raw, np.generic):
        return StrictArray(np.asarray(raw))
    if isinstance(raw, np.ndarray):
        view = parent is not None and raw.base is not None and np.may_share_memory(raw, parent._array)
        if not view:
            return StrictArray(raw)
        return StrictArray(raw, parent if parent._base is None else parent._base)  # type: ignore[union-attr]
    if isinstance(raw, (tuple, list)):
        parts = [_wrap(r, parent) for r in raw]
        return type(raw)(*parts) if hasattr(raw, "_fields") else type(raw)(parts)
    return raw


xp = _Module()


def install() -> None:
    """Register the device "strict"."""
    register("strict", xp, StrictArray, lambda a: StrictArray(np.array(a)), lambda a: a.get())


__all__ = ["StrictArray", "install", "xp"]
