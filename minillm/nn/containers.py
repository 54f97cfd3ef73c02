"""Modules that hold modules in order. Their names are their positions: "0", "1", ..."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

from .activation import GELU, ReLU, ReLUSquared, SiLU
from .linear import Linear
from .module import Module


class ModuleList(Module):
    """A list of modules whose parameters are found: blocks[0], len(blocks), for block in blocks. It has no forward."""

    def __init__(self, modules: Iterable[Module] = ()):
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Any:
        """Add one at the end; returns the container."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__} holds Modules; item {len(self)} is a {type(module).__name__}"
                + (" (give the modules as arguments, not as a list)" if isinstance(module, (list, tuple)) else "")
            )
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(self._own(Module))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Any:
        modules = list(self)
        if isinstance(index, slice):
            return self._like(modules[index])
        if not -len(modules) <= index < len(modules):
            raise IndexError(f"index {index} of a {type(self).__name__} of {len(modules)} modules")
        return modules[index]

    def __setitem__(self, index: int, module: Module) -> None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a {type(self).__name__} of {len(self)} modules")
        setattr(self, str(index % len(self)), module)

    def _like(self, modules: list[Module]) -> ModuleList:
        return type(self)(modules)


class Sequential(ModuleList):
    """Modules one after another: the output of each is the input of the next.

    A Linear and the ReLU, GELU or SiLU behind it run as one op (F.linear applies them).

    >>> from minillm import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """

    def __init__(self, *modules: Module):
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        linear: Linear | None = None  # waits for the module behind it
        for module in self:
            if linear is not None:
                activation = _in_linear(module)
                x, linear = linear(x, activation), None
                if activation is not None:
                    continue
            if _calls_linear(module):
                linear = module
            else:
                x = module(x)
        return x if linear is None else linear(x)

    def _like(self, modules: list[Module]) -> Sequential:
        return type(self)(*modules)


def _calls_linear(module: Module) -> TypeGuard[Linear]:
    """Whether a call runs Linear's own forward: no other one on the instance (someone watches it) or in a subclass."""
    return isinstance(module, Linear) and type(module).forward is Linear.forward and "forward" not in vars(module)


def _in_linear(module: Module) -> str | None:
    """The activation's name in F.linear, or None: it has to be called."""
    if "forward" in vars(module):
        return None
    if type(module) is GELU:
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return {ReLU: "relu", ReLUSquared: "relu2", SiLU: "silu"}.get(type(module))
