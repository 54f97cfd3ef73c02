"""A module as a function of its parameters: for gradients, Jacobians and Hessians with respect to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import nearest
from .module import Module


def functional_call(module: Module, parameters: Mapping[str, Any], *args: Any, **settings: Any) -> Any:
    """module(*args, **settings) with the tensors in `parameters` (dotted names) in place of its own.

    Those not named stay, and the module itself is not changed. A tied weight is replaced under all its names.
    KeyError for an unknown name, ValueError for another shape.

    >>> from minillm import nn, tensor
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> functional_call(layer, {"weight": tensor([[1.0, 2.0]])}, tensor([10.0, 1.0]))
    tensor([12.])
    """
    own: dict[str, Any] = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    new: dict[int, Any] = {}
    for name, value in parameters.items():
        if name not in own:
            raise KeyError(f"functional_call: {type(module).__name__} has no parameter {name!r}.{nearest(name, own)}")
        if value.shape != own[name].shape:
            raise ValueError(f"functional_call: {name} has shape {own[name].shape}, given {value.shape}")
        new[id(own[name])] = value
    places = [(m, n, v) for m in module.modules() for n, v in vars(m).items() if id(v) in new]
    try:
        for holder, name, value in places:
            vars(holder)[name] = new[id(value)]
        return module(*args, **settings)
    finally:
        for holder, name, value in places:
            vars(holder)[name] = value
