"""An average of the weights over the steps: smoother than the last ones, and often better.

    average_t = d_t average_(t-1) + (1 - d_t) weights_t        d_t = min(decay, (1 + t) / (10 + t))

The first steps weigh the start down (d_1 = 0.18), so that a decay of 0.999 does not keep random weights for a thousand
steps. Sources: Polyak and Juditsky 1992; the warm-up of the decay: TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..device import array_module, to_device, to_numpy
from ..nn.module import Module
from ..recording import no_grad
from ..writes import mark_written


class EMA:
    """EMA(model, decay): `update()` after each step of the optimizer; inside `swapped()` the model has the averages.

    Averages are kept in the parameters' dtype (float32 for float16, where 1 + 0.0005 is 1) and on their device; frozen
    parameters (requires_grad False) have none. ValueError where all are frozen.
    """

    def __init__(self, model: Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must be from 0 up to, but not, 1; got {decay}")
        self.decay, self.steps = decay, 0
        self.params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.params:
            raise ValueError(f"EMA: no parameter of this {type(model).__name__} is trained: nothing to average")
        self.averages = {name: p.data.astype(_wide(p)) for name, p in self.params.items()}
        self.inside = False  # a swapped() block

    def update(self) -> None:
        """Take the weights as they are now into the averages. RuntimeError inside swapped(): those are the averages."""
        self._check_outside("update")
        self.steps += 1
        rest = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, p in self.params.items():
            average = self.averages[name]
            average += (p.data - average) * average.dtype.type(rest)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """A block in which the model has the averages; after it, its own weights again, to the bit."""
        self._check_outside("swapped")
        own = {name: p.data.copy() for name, p in self.params.items()}
        self.inside = True
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(own)
            self.inside = False

    def _write(self, values: Mapping[str, Any]) -> None:
        with no_grad():
            for name, p in self.params.items():
                p.data[...] = values[name]
                mark_written(p.data)

    def _check_outside(self, method: str) -> None:
        if self.inside:
            raise RuntimeError(f"EMA.{method}: inside swapped() the model's weights are the averages; do it outside")

    def state_dict(self) -> dict[str, Any]:
        """{"steps": number, "averages": {name: NumPy array, a copy}}"""
        return {"steps": self.steps, "averages": {name: to_numpy(a).copy() for name, a in self.averages.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; ValueError, and nothing changed, for other names or shapes."""
        given = state_dict["averages"]
        for name in sorted(set(given) ^ set(self.averages)):
            raise ValueError(f"EMA: {name!r} is {'not in the model' if name in given else 'missing in the state'}")
        for name, average in self.averages.items():
            if np.shape(given[name]) != average.shape:
                raise ValueError(f"EMA: {name!r} has shape {np.shape(given[name])}, the model's {average.shape}")
        self.steps = int(state_dict["steps"])
        for name, p in self.params.items():
            self.averages[name] = to_device(array_module(given[name]).array(given[name], dtype=_wide(p)), p.device)


def _wide(p: Any) -> Any:
    return np.dtype(np.float32) if p.dtype == np.float16 else p.dtype
