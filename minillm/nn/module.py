"""Module: a function with parameters, built of smaller ones.

A Module has no registry. Its parameters are those of its attributes that are Parameters, its sub-modules those that are
Modules, in the order in which they were set; buffers (tensors that belong to it but are not trained) are named by
`register_buffer`. Names are dotted paths, as in PyTorch: "blocks.0.attention.in_proj_weight".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ..device import to_device, to_numpy
from ..dtypes import is_floating
from ..errors import nearest
from ..recording import no_grad
from ..tensor import Tensor
from .loading import IncompatibleKeys, fit
from .parameter import Parameter

M = TypeVar("M", bound="Module")


class Module:
    """Base class of layers and models: set Parameters and Modules as attributes, write `forward`.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.factor = Parameter([2.0])
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    training = True  # train() and eval() set it on the instance

    def forward(self, *args: Any, **settings: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward(): write one, it is what a call runs")

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self.forward(*args, **settings)

    # ------------------------------------------------------------------------------------ attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, list) and any(isinstance(v, (Module, Parameter)) for v in value):
            raise TypeError(
                f"{type(self).__name__}.{name}: parameters inside a plain list would not be found: use ModuleList for "
                "modules (a tuple holds modules that are not to be trained with this one)"
            )
        old = vars(self).get(name)
        if isinstance(old, Parameter) and value is not None and not isinstance(value, Parameter):
            raise TypeError(
                f"{type(self).__name__}.{name} is a Parameter; a {type(value).__name__} in its place is not trained. "
                "Assign a Parameter, or write its values: with no_grad(): module.weight.copy_(values)"
            )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # only called when there is no such attribute
        hint = "" if name.startswith("__") else nearest(name, dir(self))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.{hint}", name=name, obj=self)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Set `tensor` (Tensor, array or None) as an attribute that moves with the module; saved if persistent."""
        vars(self).setdefault("_buffers", {})[name] = persistent
        setattr(self, name, tensor if tensor is None or isinstance(tensor, Tensor) else Tensor(tensor))

    def _own_buffers(self, persistent: bool = False) -> Iterator[tuple[str, Tensor]]:
        for name, kept in vars(self).get("_buffers", {}).items():
            if isinstance(vars(self).get(name), Tensor) and (kept or not persistent):
                yield name, vars(self)[name]

    def _own(self, kind: type) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in vars(self).items() if isinstance(value, kind)]

    # --------------------------------------------------------------------------------- walking the tree

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) for this module (named `prefix`) and all below, parents first, each once."""
        seen: set[int] = set()

        def walk(name: str, module: Module) -> Iterator[tuple[str, Module]]:
            if not (remove_duplicate and id(module) in seen):
                seen.add(id(module))
                yield name, module
                for child, below in module._own(Module):
                    yield from walk(_join(name, child), below)

        return walk(prefix, self)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) one level down."""
        return iter(self._own(Module))

    def children(self) -> Iterator[Module]:
        """The modules one level down."""
        return (m for _, m in self._own(Module))

    def named_parameters(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter). A Parameter under two names (tied weights) comes once, under the first."""
        return self._named(lambda m: m._own(Parameter), prefix, remove_duplicate)

    def parameters(self) -> Iterator[Parameter]:
        """Every Parameter once: what an optimizer is given."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer), each once."""
        return self._named(Module._own_buffers, prefix, remove_duplicate)

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer once."""
        return (b for _, b in self.named_buffers())

    def _named(self, own: Callable[[Module], Any], prefix: str, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, remove_duplicate):
            for name, tensor in own(module):
                if not (remove_duplicate and id(tensor) in seen):
                    seen.add(id(tensor))
                    yield _join(path, name), tensor

    def num_parameters(self, trainable_only: bool = False) -> int:
        """Number of numbers in the parameters, tied ones counted once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable_only)

    # ------------------------------------------------------------------------------------ saving, loading

    def state_dict(self) -> dict[str, np.ndarray]:
        """{dotted name: NumPy array} of the parameters and persistent buffers: copies in main memory.

        The arrays share nothing with the model or with one another, so they can be saved (safetensors refuses shared
        memory) while training goes on. A tied weight is stored once, under its first name.
        """
        return {name: to_numpy(tensor.data).copy() for name, (tensor, _) in self._saved().items()}

    def _saved(self) -> dict[str, tuple[Tensor, list[str]]]:
        """{first name: (tensor, all its names)} of everything that is saved."""
        saved: dict[int, tuple[Tensor, list[str]]] = {}
        for kind in (lambda m: m._own(Parameter), lambda m: m._own_buffers(persistent=True)):
            for name, tensor in self._named(kind, "", remove_duplicate=False):
                saved.setdefault(id(tensor), (tensor, []))[1].append(name)
        return {names[0]: (tensor, names) for tensor, names in saved.values()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays (or Tensors) into the parameters and buffers of the same names, in place.

        Everything is checked first: on an error nothing has been written. ValueError lists every problem: a missing or
        an unexpected name (only if strict), a wrong shape, a wrong kind of number. Floats are rounded to the
        parameter's dtype; a value that would become infinite, or an integer for a float, is an error. A tied weight may
        be given under any of its names. Returns the names that were missing and unexpected (with strict=False).
        """
        problems, missing, used = [], [], set()
        writes: list[tuple[Tensor, Any]] = []
        saved = self._saved()
        for first, (tensor, names) in saved.items():
            given = [n for n in names if n in state]
            used.update(given)
            if not given:
                missing.append(first)
            arrays: list[Any] = []
            for name in given:
                array, problem = fit(state[name], tensor)
                arrays.append(array)
                problems += [f"{name}: {problem}"] if problem else []
            if not problems and any(not np.array_equal(arrays[0], a, equal_nan=True) for a in arrays[1:]):
                problems.append(f"{' and '.join(given)}: one tied weight here, but the values differ; give one of them")
            writes += [(tensor, arrays[0])] if given else []
        unexpected = [name for name in state if name not in used]
        if strict:
            known = [n for _, names in saved.values() for n in names]
            problems += [f"{n}: missing.{nearest(n, unexpected)}" for n in missing]
            problems += [f"{n}: unexpected, there is no such name here.{nearest(n, known)}" for n in unexpected]
        if problems:
            listing = "\n  ".join(["", *problems])
            raise ValueError(f"load_state_dict: nothing was loaded into {type(self).__name__}:{listing}")
        with no_grad():
            for tensor, array in writes:
                tensor.copy_(to_device(array, tensor.device))  # marks the write: an older graph notices
        return IncompatibleKeys(missing, unexpected)

    # ------------------------------------------------------------------------------------ states, moves

    def train(self: M, mode: bool = True) -> M:
        """Set `training` here and below: dropout drops only then."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """train(False)."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients (or fill them with zeros)."""
        for p in self.parameters():
            p.grad = None if set_to_none or p.grad is None else p.grad.detach().zero_()

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze all parameters."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def to(self: M, *where: Any, device: str | None = None, dtype: Any = None) -> M:
        """Move to a device and/or convert what is floating to a dtype, in place: to("cuda"), to(np.float64).

        Parameters stay the same objects, and gradients move along. An optimizer's state does not: make it afterwards.
        """

        def moved(x: Tensor) -> Tensor:
            y = x.detach().to(*where, device=device, dtype=dtype)
            return y if is_floating(x.dtype) else x.detach().to(device=y.device)

        for p in [*self.parameters(), *self.buffers()]:
            data = moved(p).data
            if is_floating(p.dtype) and not is_floating(data.dtype):
                raise TypeError(f"{type(self).__name__}.to: parameters are floating numbers; {data.dtype} is not")
            if data is not p.data:
                requires_grad, hooks = p.requires_grad, getattr(p.node, "hooks", None)
                p.requires_grad = False
                p.data = data
                p.requires_grad = requires_grad  # a new leaf: the graph knows a leaf's dtype
                if p.node is not None:
                    p.node.hooks = hooks
            if p.grad is not None:
                p.grad = moved(p.grad)
        return self

    def cpu(self: M) -> M:
        return self.to("cpu")

    def cuda(self: M) -> M:
        return self.to("cuda")

    def float(self: M) -> M:
        return self.to(np.float32)

    def double(self: M) -> M:
        return self.to(np.float64)

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call function(module) on every module, children first; to initialise, for one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # ---------------------------------------------------------------------------------------- printing

    def extra_repr(self) -> str:
        """What stands in the brackets of a layer: "in_features=3, out_features=4"."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}(", *([extra] if extra else []), *lines]) + "\n)"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
