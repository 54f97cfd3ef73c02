"""What every model's file uses: activations by name, a config from a dictionary, checks of its values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from .. import nn
from ..errors import nearest

_ACTIVATIONS = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "identity": nn.Identity,
}  # fmt: skip

C = TypeVar("C")


def activation_layer(name: str) -> nn.Module:
    """The activation module of that name; "identity" for none."""
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"no activation {name!r}: choose one of {', '.join(_ACTIVATIONS)}.{nearest(name, _ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]()


def from_dict(cls: type[C], config: C | dict[str, Any]) -> C:
    """A config dataclass from a dictionary (as read from config.json); ValueError for names it does not have."""
    if isinstance(config, cls):
        return config
    if not isinstance(config, dict):
        raise ValueError(f"{cls.__name__}: expected a dictionary of settings, got {type(config).__name__}")
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in config:
        if key not in names:
            raise ValueError(f"{cls.__name__} has no setting {key!r}; it has {', '.join(names)}.{nearest(key, names)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})


def check_sizes(config: Any, *names: str, least: int = 1) -> None:
    """Raise ValueError unless these settings are whole numbers (or tuples of them) of at least `least`."""
    for name in names:
        value = getattr(config, name)
        for n in value if isinstance(value, tuple) else (value,):
            if isinstance(n, bool) or not hasattr(n, "__index__") or n < least:
                model = type(config).__name__.removesuffix("Config")
                raise ValueError(f"{model}: {name} must be a whole number of at least {least}, got {n!r}")
