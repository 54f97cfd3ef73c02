"""Tensor: an array, its gradient, and the node of the graph that made it. Its methods are the ops."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import engine, errors, ops, writes
from .device import array_module, device_of, is_array, to_numpy
from .dtypes import DEFAULT, is_floating
from .engine import Node
from .recording import is_grad_enabled

_hook_ids = itertools.count()


class Handle:
    """What register_hook gives: `remove()` takes the hook away again; a call does the same."""

    def __init__(self, hooks: dict[Any, Any], key: Any):
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        self._hooks.pop(self._key, None)

    __call__ = remove


class Tensor:
    """An n-dimensional array that remembers how it was made.

    data  NumPy or CuPy array (a list or number becomes one: float32, int64 or bool); not a Tensor, as PyTorch's is
    grad  after backward(), a Tensor of the same shape; it adds up until set to None
    node  the call that made it (None: a constant)

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ("__weakref__", "data", "grad", "node")
    __array_ufunc__ = None  # numpy_array * tensor: let Tensor.__rmul__ do it
    __array_priority__ = 1000

    data: Any
    grad: Tensor | None
    node: Node | None

    def __init__(self, data: Any, requires_grad: bool = False):
        if isinstance(data, Tensor):
            data = data.data
        if not is_array(data):
            data = _to_array(data)
        if data.dtype.kind == "c":
            raise TypeError(f"tensors hold real numbers; got {data.dtype}: pass its .real and .imag as two tensors")
        self.data, self.grad, self.node = data, None, None
        if requires_grad:
            self.requires_grad = True

    # ------------------------------------------------------------------------------------ what it is

    shape = property(lambda self: self.data.shape, doc="Sizes of the dimensions, a tuple.")
    ndim = property(lambda self: self.data.ndim, doc="Number of dimensions.")
    dtype = property(lambda self: self.data.dtype, doc="The array's dtype.")
    device = property(lambda self: device_of(self.data), doc='"cpu" or "cuda".')
    is_leaf = property(lambda self: self.node is None or self.node.op is None, doc="Not made by a recorded op.")

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it. Can be set on leaves of floating dtype."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not value:
            if not self.is_leaf:
                raise errors.GraphError(
                    "only a leaf can stop requiring grad: use x.detach() for a constant copy of this one"
                )
            self.node = None
        elif self.node is None:
            if not is_floating(self.dtype):
                raise TypeError(
                    f"only floating tensors can require grad; this one is {self.dtype}: convert with x.float()"
                )
            self.node = Node(None, None, (), self.data.shape, self.data.dtype)
            self.node.leaf = weakref.ref(self)

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Set requires_grad; returns itself."""
        self.requires_grad = value
        return self

    def size(self, dim: int | None = None) -> Any:
        """Sizes of all dimensions, or of one."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return int(self.data.size)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return int(self.shape[0])

    def __repr__(self) -> str:
        text = np.array2string(to_numpy(self.data), precision=4, separator=", ", prefix="tensor(", threshold=200)
        notes = [] if self.dtype in (DEFAULT, np.int64, np.bool_) else [f"dtype={self.dtype}"]
        notes += [f"device={self.device!r}"] if self.device != "cpu" else []
        notes += ["requires_grad=True"] if self.requires_grad else []
        return f"tensor({', '.join([text, *notes])})"

    # ------------------------------------------------------------------------------- out of the Tensor

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array, without a copy on the CPU: writing into it is not noticed by the graph."""
        return to_numpy(self.data)

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor of one element; this one has shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.device != "cpu":
            raise errors.DeviceError(
                f"a tensor on {self.device} does not turn into a NumPy array by itself: call .numpy()"
            )
        return np.array(self.data, dtype=dtype, copy=copy)  # None: only if need be; False: ValueError then

    def __dlpack__(self, **settings: Any) -> Any:
        """Its memory for another library: torch.from_dlpack(x). As with numpy(), no gradient and no graph go along."""
        return self.data.__dlpack__(**settings)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(f"the truth of a tensor of shape {self.shape} is ambiguous: use .any() or .all()")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index; this one is {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    # --------------------------------------------------------------------------------------- autograd

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Add d(self)/d(leaf), times `gradient`, into `.grad` of every leaf that requires grad.

        gradient      same shape as self; may be left out for a scalar (then 1)
        retain_graph  keep what the graph saved, for another backward (default: create_graph)
        create_graph  record the backward pass, so that .grad can be differentiated again
        """
        if self.node is None:
            raise errors.GraphError(
                "backward: this tensor does not depend on anything that requires grad. Set requires_grad=True on an "
                "input, "
                "and check that the forward did not run under no_grad() or through detach()"
            )
        seed = _cotangent(self, gradient, create_graph)
        keep = create_graph if retain_graph is None else retain_graph
        fill = not create_graph
        try:
            found = engine.gradients([self.node], [seed], retain_graph=keep, create_graph=create_graph, fill=fill)
        except MemoryError as error:
            if (full := errors.gpu_is_full(error)) is None:
                raise
            raise full from error
        for node, g in found.items():
            leaf = node.leaf()
            if leaf is None:
                continue
            if leaf.grad is None and node.home is not None and fill:
                leaf.grad = engine.wrap(node.home.put(g), None)
                continue
            g = g if isinstance(g, Tensor) else Tensor(g)
            if leaf.grad is None:
                leaf.grad = Tensor(g.data.copy()) if node.hooks and g.node is None else g  # hooks may have kept theirs
            elif create_graph or leaf.grad.node is not None:
                leaf.grad = leaf.grad + g
            else:
                leaf.grad.data += g.data
                writes.mark_written(leaf.grad.data)

    def detach(self) -> Tensor:
        """The same memory as a constant: no gradient flows through."""
        return engine.wrap(self.data, None)

    def __deepcopy__(self, memo: dict) -> Tensor:
        """A leaf of its own: the same values in new memory, no gradient, no graph."""
        if not self.is_leaf:
            raise errors.GraphError(
                "only leaves can be copied: use x.detach() for the values, or x.clone() to stay in the graph"
            )
        new = memo[id(self)] = type(self)(self.data.copy(), self.requires_grad)
        return new

    def __copy__(self) -> Tensor:
        return type(self)(self.data, self.requires_grad) if self.is_leaf else engine.wrap(self.data, self.node)

    def clone(self) -> Tensor:
        """A copy in memory of its own; gradients flow through."""
        return ops.clone(self)

    def retain_grad(self) -> None:
        """Fill `.grad` of a tensor that is not a leaf, too."""
        if not self.is_leaf:

            def keep(g: Tensor) -> None:
                self.grad = g.clone() if self.grad is None else self.grad + g

            self.register_hook(keep, "retain_grad")

    def register_hook(self, hook: Callable[[Tensor], Any], key: Any = None) -> Handle:
        """Call hook(gradient) when this tensor's gradient is complete; what it returns (unless None) replaces it.

        Returns a handle: handle.remove() takes the hook away. A second hook under the same `key` replaces the first.
        """
        if self.node is None:
            raise errors.GraphError("register_hook: no gradient will come by, this tensor does not require grad")
        if self.node.hooks is None:
            self.node.hooks = {}
        hooks, key = self.node.hooks, next(_hook_ids) if key is None else key
        hooks[key] = hook
        return Handle(hooks, key)

    # ----------------------------------------------------------------------------------- dtype, device

    def to(self, *where: Any, device: str | None = None, dtype: Any = None) -> Tensor:
        """On another device ("cpu", "cuda") and/or in another dtype; gradients flow back through."""
        for w in where:
            if isinstance(w, str) and w.split(":")[0] in ("cpu", "cuda", "strict"):
                device = w
            else:
                dtype = w
        x = self if device is None or device == self.device else ops.move(self, device)
        return x if dtype is None or x.dtype == np.dtype(dtype) else ops.to_dtype(x, np.dtype(dtype))

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """On the GPU; DeviceError where there is none."""
        return self.to("cuda")

    def float(self) -> Tensor:
        """In float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """In float64."""
        return self.to(np.float64)

    def half(self) -> Tensor:
        """In float16."""
        return self.to(np.float16)

    def long(self) -> Tensor:
        """In int64."""
        return self.to(np.int64)

    def bool(self) -> Tensor:
        """True where not zero."""
        return self.to(np.bool_)

    astype = to

    def type_as(self, other: Tensor) -> Tensor:
        """In other's dtype."""
        return self.to(other.dtype)

    # ------------------------------------------------------------------------------------ in-place writes

    def _write(self, name: str) -> None:
        """Before an in-place write: refuse where the graph could not follow it."""
        if self.node is not None and is_grad_enabled():
            raise errors.GraphError(
                f"{name}: an in-place write to a tensor that requires grad is not recorded. Use the out-of-place form "
                "(x = x + 1, where(mask, value, x)), or write under no_grad() if no gradient should follow"
            )

    def __setitem__(self, index: Any, value: Any) -> None:
        self._write("x[index] = value")
        if isinstance(value, Tensor) and value.node is not None and is_grad_enabled():
            raise errors.GraphError(
                "x[index] = value: the gradient would not reach value. Build x with cat, stack or where"
            )
        self.data[_index(index)] = value.data if isinstance(value, Tensor) else value
        writes.mark_written(self.data)

    def copy_(self, other: Any) -> Tensor:
        """Overwrite the values."""
        self._write("copy_")
        self.data[...] = other.data if isinstance(other, Tensor) else other
        writes.mark_written(self.data)
        return self

    fill_ = copy_

    def zero_(self) -> Tensor:
        """Overwrite the values with 0."""
        return self.copy_(0)

    def _in_place(self, name: str, function: Callable, other: Any) -> Tensor:
        self._write(name)
        result = function(self.data, other.data if isinstance(other, Tensor) else other)
        if is_floating(result.dtype) and not is_floating(self.dtype):
            raise TypeError(
                f"{name}: the result is {result.dtype}, and the tensor can only hold {self.dtype}: convert it first "
                "(x.float()) or use the out-of-place form"
            )
        return self.copy_(result)

    def add_(self, other: Any, alpha: Any = 1) -> Tensor:
        """self + alpha * other, written in place."""
        return self._in_place("add_", lambda a, b: a + (b if alpha == 1 else alpha * b), other)

    def sub_(self, other: Any, alpha: Any = 1) -> Tensor:
        """self - alpha * other, written in place."""
        return self._in_place("sub_", lambda a, b: a - (b if alpha == 1 else alpha * b), other)

    def mul_(self, other: Any) -> Tensor:
        """self * other, written in place."""
        return self._in_place("mul_", lambda a, b: a * b, other)

    def div_(self, other: Any) -> Tensor:
        """self / other, written in place."""
        return self._in_place("div_", lambda a, b: a / b, other)

    def _augmented(self, name: str, other: Any, in_place: Callable, out_of_place: Callable) -> Tensor:
        """x += y: in place like PyTorch's, except where a gradient has to flow: then x becomes a new tensor."""
        recording = is_grad_enabled()
        if recording and self.node is not None and self.is_leaf:
            self._write(name)
        if recording and (self.node is not None or (isinstance(other, Tensor) and other.node is not None)):
            return out_of_place(self, other)
        return in_place(self, other)

    def __iadd__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("x += y", other, Tensor.add_, ops.add)

    def __isub__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("x -= y", other, Tensor.sub_, ops.sub)

    def __imul__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("x *= y", other, Tensor.mul_, ops.mul)

    def __itruediv__(self, other: Any) -> Tensor:  # type: ignore[misc]
        return self._augmented("x /= y", other, Tensor.div_, ops.div)

    # ------------------------------------------------------------------------------------------ operators

    __add__ = ops.add
    __sub__ = ops.sub
    __mul__ = ops.mul
    __truediv__ = ops.div
    __pow__ = ops.pow
    __neg__ = ops.neg
    __abs__ = ops.abs
    __matmul__ = ops.matmul
    __lt__ = ops.lt
    __le__ = ops.le
    __gt__ = ops.gt
    __ge__ = ops.ge
    __eq__ = ops.eq  # type: ignore[assignment]
    __ne__ = ops.ne  # type: ignore[assignment]
    __invert__ = ops.bitwise_not
    __and__ = ops.bitwise_and
    __or__ = ops.bitwise_or
    __xor__ = ops.bitwise_xor
    __mod__ = ops.remainder
    __floordiv__ = ops.floor_divide
    __hash__ = object.__hash__

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __getitem__(self, index: Any) -> Tensor:
        """Full NumPy indexing; repeated indices add up in the gradient."""
        return ops.getitem(self, _index(index))

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("a 0-d tensor cannot be iterated over")
        return (self[i] for i in range(len(self)))

    # elementwise
    add, sub, mul, div, pow, neg = ops.add, ops.sub, ops.mul, ops.div, ops.pow, ops.neg
    exp, log, log1p, expm1, sqrt, rsqrt = ops.exp, ops.log, ops.log1p, ops.expm1, ops.sqrt, ops.rsqrt
    abs, sign, clamp, square, reciprocal = ops.abs, ops.sign, ops.clamp, ops.square, ops.reciprocal
    sin, cos, tanh, sigmoid, erf = ops.sin, ops.cos, ops.tanh, ops.sigmoid, ops.erf
    maximum, minimum, masked_fill = ops.maximum, ops.minimum, ops.masked_fill
    eq, ne, lt, le, gt, ge = ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge
    isnan, isinf, isfinite, allclose = ops.isnan, ops.isinf, ops.isfinite, ops.allclose
    floor, ceil, round = ops.floor, ops.ceil, ops.round
    remainder, floor_divide = ops.remainder, ops.floor_divide
    logical_not, logical_and, logical_or = ops.logical_not, ops.logical_and, ops.logical_or
    relu, softmax, log_softmax = ops.relu, ops.softmax, ops.log_softmax

    def where(self, condition: Any, other: Any) -> Tensor:
        """self where the condition holds, other elsewhere."""
        return ops.where(condition, self, other)

    # reductions
    sum, mean, var, std, prod = ops.sum, ops.mean, ops.var, ops.std, ops.prod
    max, min, amax, amin, argmax, argmin = ops.max, ops.min, ops.amax, ops.amin, ops.argmax, ops.argmin
    all, any, logsumexp, norm, cumsum, cumprod = ops.all, ops.any, ops.logsumexp, ops.norm, ops.cumsum, ops.cumprod

    # shapes: sizes as arguments or as one tuple
    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return ops.reshape(self, _sizes(shape))

    view = reshape

    def permute(self, *dims: Any) -> Tensor:
        """Dimensions in another order."""
        return ops.permute(self, _sizes(dims))

    def expand(self, *size: Any) -> Tensor:
        """Dimensions of size 1 repeated to `size`, without a copy; -1 keeps one."""
        return ops.expand(self, _sizes(size))

    def repeat(self, *repeats: Any) -> Tensor:
        """Copies side by side, so many along each dimension."""
        return ops.repeat(self, _sizes(repeats))

    def flip(self, *dims: Any) -> Tensor:
        """These dimensions backwards."""
        return ops.flip(self, _sizes(dims))

    flatten, squeeze, unsqueeze, transpose = ops.flatten, ops.squeeze, ops.unsqueeze, ops.transpose
    broadcast_to, movedim, roll, pad = ops.broadcast_to, ops.movedim, ops.roll, ops.pad
    split, chunk, tril, triu, diagonal = ops.split, ops.chunk, ops.tril, ops.triu, ops.diagonal
    swapaxes, unbind = ops.swapaxes, ops.unbind

    def expand_as(self, other: Tensor) -> Tensor:
        """Expanded to other's shape."""
        return ops.expand(self, other.shape)

    def view_as(self, other: Tensor) -> Tensor:
        """Reshaped to other's shape."""
        return ops.reshape(self, other.shape)

    def contiguous(self) -> Tensor:
        """Itself where its memory is in C order, else a copy that is."""
        return self if self.data.flags.c_contiguous else self.clone()

    def t(self) -> Tensor:
        """The transpose of a matrix; vectors and numbers as they are."""
        if self.ndim > 2:
            raise ValueError(f"t() is for at most two dimensions, this tensor has {self.ndim}: use .mT or transpose")
        return self.T

    @property
    def T(self) -> Tensor:
        """All dimensions reversed."""
        return ops.permute(self, tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The last two dimensions swapped."""
        return ops.transpose(self, -2, -1)

    # indexing
    gather, scatter_add, index_select = ops.gather, ops.scatter_add, ops.index_select
    index_add, take_along_dim, narrow = ops.index_add, ops.take_along_dim, ops.narrow
    sort, argsort, topk = ops.sort, ops.argsort, ops.topk

    # products
    matmul, dot, mv, mm, bmm, outer = ops.matmul, ops.dot, ops.mv, ops.mm, ops.bmm, ops.outer


engine.Tensor = Tensor  # type: ignore[misc]  # the engine makes Tensors, and every op imports the engine


def _to_array(data: Any) -> np.ndarray:
    """Lists and numbers: floats become float32, integers int64, truth values bool."""
    array = np.asarray(data)
    if array.dtype.kind not in "fciub":
        raise TypeError(f"a tensor holds numbers; got {type(data).__name__} that NumPy reads as {array.dtype}")
    if isinstance(data, np.generic):
        return array
    return array.astype(DEFAULT if array.dtype.kind == "f" else array.dtype, copy=False)


def _cotangent(out: Tensor, gradient: Any, create_graph: bool) -> Any:
    """The seed of a backward pass: ones for a scalar, else what was given, checked."""
    xp = array_module(out.data)
    if gradient is None:
        if out.data.size != 1:
            raise ValueError(
                f"backward: the output has shape {out.shape}, not one element: pass gradient= of that shape, or reduce "
                "it first "
                "(out.sum().backward())"
            )
        seed = Tensor(xp.ones(out.shape, out.dtype))
    else:
        seed = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
        if seed.shape != out.shape:
            raise ValueError(f"backward: gradient has shape {seed.shape}, the output {out.shape}; they must be equal")
        if seed.dtype != out.dtype:
            seed = seed.to(out.dtype)
        if seed.device != out.device:
            raise errors.DeviceError(f"backward: gradient is on {seed.device}, the output on {out.device}")
    return seed if create_graph else seed.data


def _index(index: Any) -> Any:
    """An index with its Tensors replaced by their arrays."""
    if isinstance(index, tuple):
        return tuple(_index(i) for i in index)
    if isinstance(index, list):
        return np.asarray(index) if index else np.zeros(0, np.int64)
    return index.data if isinstance(index, Tensor) else index


def _sizes(args: tuple) -> tuple:
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
