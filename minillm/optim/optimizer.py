"""What all optimizers share: parameter groups, state, the walk over parameters that have a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import kernels

from .. import capture
from ..device import array_module, is_array, to_device, to_numpy
from ..errors import nearest
from ..memory import keep_freed_memory
from ..tensor import Tensor
from ..writes import mark_written
from .clip import total_norm
from .flat import Flat, flatten


class Optimizer:
    """Base class: a subclass gives `defaults` and writes `update(param, grad, state, group)`.

    params    Parameters, or dicts {"params": Parameters, setting: value, ...}: groups with settings of their own
    defaults  {setting: value}, for what a group does not say

    elementwise (of the class): update() does the same to each element, so it may be handed many parameters as one long
    one; then the parameters of a group are moved into flat arrays (flat.py).

    `param_groups` is the list of groups, each a dict with "params" and every setting; a schedule changes "lr" there.
    ValueError for no parameters, for one that is given twice, for a tensor that an op made.
    """

    elementwise = False

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        keep_freed_memory()
        if isinstance(params, (Tensor, dict)):
            raise TypeError(f"params must be a list of Parameters or of groups; got one {type(params).__name__}: [it]")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._flats: list[list[Flat]] = []  # of each group
        groups = list(params)
        if not groups:
            raise ValueError("no parameters to optimize: the list is empty (a generator can be used only once)")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add {"params": Parameters, setting: value, ...}; "name" is free for a name."""
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ValueError(f"group {len(self.param_groups)} has no parameters (a generator can be used only once)")
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                hint = ": pass parameters(), not named_parameters()" if isinstance(p, tuple) else ""
                raise TypeError(f"parameter {i} is a {type(p).__name__}, expected a Parameter{hint}")
            if not p.is_leaf:
                raise ValueError(f"parameter {i} (shape {p.shape}) was made by an op: only leaves can be optimized")
            if id(p) in known:
                raise ValueError(f"parameter {i} (shape {p.shape}) is given twice: its steps would be taken twice")
            known.add(id(p))
        for key in group:
            if key not in self.defaults and key not in ("params", "name"):
                allowed = f"{type(self).__name__} has {', '.join(self.defaults)}"
                raise ValueError(f"no setting {key!r}; {allowed}.{nearest(key, self.defaults)}")
        full = {**self.defaults, **group, "params": params}
        self.check(full)
        self.param_groups.append(full)
        self._flats.append(flatten(params) if self.elementwise else [])

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for settings that cannot be."""
        for key in ("lr", "eps", "weight_decay", "momentum"):
            if key in group and not group[key] >= 0:
                raise ValueError(f"{type(self).__name__}: {key} must be 0 or more; got {group[key]}")

    def update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write the step into the array `param`. `state` starts empty and is this parameter's own."""
        raise NotImplementedError(f"{type(self).__name__} has no update(): write one, it is the formula")

    def step(self, clip_norm: float | None = None) -> None:
        """One step for every parameter that has a gradient.

        clip_norm: as if clip_grad_norm_(parameters, clip_norm) had run before, in the same pass: .grad stays as it is.
        """
        if capture.recorded:
            capture.refuse("an optimizer's step has a learning rate and a step count", "call step() after the graph")
        scale = 1.0
        if clip_norm is not None:
            scale = kernels.clip_factor(float(total_norm(self._parameters())), clip_norm)
        self.step_scaled(scale)

    def step_scaled(self, scale: float) -> None:
        """One step of gradients * scale."""
        for group, flats in zip(self.param_groups, self._flats):
            done: set[int] = set()
            for flat in flats if group.get("eps", 1) > 0 else ():  # eps 0 would be 0 / 0 in what fills up the rows
                done.update(self._flat_step(flat, group, scale))
            for p in group["params"]:
                if p.grad is None or id(p) in done:
                    continue
                if p.grad.shape != p.shape:
                    raise ValueError(f"{type(self).__name__}: a parameter of shape {p.shape} has grad {p.grad.shape}")
                self.update_scaled(p.data, p.grad.data, scale, self.state.setdefault(p, {}), group)
                mark_written(p.data)

    def update_scaled(self, param: Any, grad: Any, scale: float, state: dict[str, Any], group: dict[str, Any]) -> None:
        """update() with grad * scale."""
        self.update(param, grad if scale == 1 else grad * grad.dtype.type(scale), state, group)

    def _flat_step(self, flat: Flat, group: dict[str, Any], scale: float) -> list[int]:
        """Update the parameters that lie side by side, as one; the ids of those."""
        flat.attach()
        done: list[int] = []
        for run in flat.runs(self.state):
            state = flat.run_state(run, self.state)
            self.update_scaled(flat.part(flat.data, run), flat.part(flat.grad, run), scale, state, group)
            flat.keep_state(run, state, self.state)
            params = flat.params[run.start : run.stop]
            mark_written(*[p.data for p in params])
            done += map(id, params)
        return done

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients (or fill them with zeros)."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None if set_to_none or p.grad is None else p.grad.detach().zero_()
        if set_to_none:
            for flat in self._all_flats():
                flat.forget_grad()

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {name: NumPy array or number}}, "param_groups": [{"params": indices, setting: value}]}.

        Parameters are numbered in the order of the groups, as in PyTorch. Arrays are copies in main memory.
        """
        index = {id(p): i for i, p in enumerate(self._parameters())}
        state = {
            index[id(p)]: {k: to_numpy(v).copy() if is_array(v) else v for k, v in values.items()}
            for p, values in self.state.items()
        }
        groups = [{**g, "params": [index[id(p)] for p in g["params"]]} for g in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`: state and settings. ValueError, and nothing changed, where it does not fit."""
        groups, parameters = state_dict["param_groups"], self._parameters()
        sizes = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes[0] != sizes[1]:
            raise ValueError(f"load_state_dict: given groups of {sizes[0]} parameters, this optimizer has {sizes[1]}")
        for given in groups:
            if not set(given) >= set(self.defaults):
                raise ValueError(
                    f"load_state_dict: it is the state of another optimizer: {type(self).__name__} has the settings "
                    f"{sorted(self.defaults)}, given are {sorted(given)}"
                )
        ours = dict(zip((i for g in groups for i in g["params"]), parameters))
        state = {}
        for key, values in state_dict["state"].items():
            p = ours[int(key)]  # JSON makes strings of the indices
            for name, value in values.items():
                if is_array(value) and value.ndim and value.shape != p.shape:
                    raise ValueError(
                        f"load_state_dict: {name!r} of parameter {key} has shape {value.shape}, the parameter {p.shape}"
                    )
            state[p] = {name: _like(value, p) for name, value in values.items()}
        self.state = state
        for flat in self._all_flats():
            flat.adopt_state(state)
        for ours_, given in zip(self.param_groups, groups):
            settings = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k != "params"}
            ours_.update(settings)

    def _parameters(self) -> list[Tensor]:
        return [p for g in self.param_groups for p in g["params"]]

    def _all_flats(self) -> list[Flat]:
        return [flat for flats in self._flats for flat in flats]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for i, group in enumerate(self.param_groups):
            settings = ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
            lines.append(f"  group {i}: {len(group['params'])} parameters, {settings}")
        return "\n".join([*lines, ")"])


def zeros_like(param: Any) -> Any:
    """Zeros in the array's shape, dtype and device: how most state starts."""
    return array_module(param).zeros(param.shape, param.dtype)


def _like(value: Any, p: Tensor) -> Any:
    """A copy of an array in the parameter's dtype and on its device; anything else as it is."""
    if not is_array(value):
        return value.item() if isinstance(value, np.generic) else value
    return to_device(to_numpy(value).astype(p.dtype, copy=True), p.device)
