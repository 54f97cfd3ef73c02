"""GradScaler: the loss multiplied by a large number, so that small gradients survive float16; then divided out again.

    loss * scale       -> backward ->   float16 gradients, scale times as large
    grad = grad / scale                 in float32
    finite?   step the optimizer        after growth_interval such steps in a row:  scale = growth_factor * scale
    inf, NaN? no step                   scale = backoff_factor * scale

The scale thus stays just below where gradients overflow (65504), where the fewest of them underflow.

Source: Micikevicius et al. 2017, arXiv:1710.03740, section 3.2; names, defaults and state as torch.amp.GradScaler's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..device import array_module
from ..dtypes import float16, float32
from ..optim.flat import whole_grads
from ..tensor import Tensor
from ..writes import mark_written

SMALLEST_SCALE = 2.0**-24  # gradients that overflow even then are not large, they are wrong


class GradScaler:
    """scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()

    enabled=False makes scale() and unscale_() do nothing and step() an ordinary step: one loop for all precisions.
    ValueError for factors that would not grow or shrink the scale.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        if not (0 < init_scale < math.inf and growth_factor > 1 and 0 < backoff_factor < 1 and growth_interval >= 1):
            raise ValueError(
                "GradScaler: expected init_scale > 0, growth_factor > 1, 0 < backoff_factor < 1 and growth_interval >= "
                f"1; got {init_scale}, {growth_factor}, {backoff_factor} and {growth_interval}"
            )
        self._enabled = enabled
        self._scale = float(init_scale)
        self._growth_factor, self._backoff_factor = float(growth_factor), float(backoff_factor)
        self._growth_interval = int(growth_interval)
        self._growth_tracker = 0  # steps in a row without an overflow
        self._found: dict[int, bool] = {}  # id of an optimizer -> whether its gradients overflowed, since update()
        self._stepped: set[int] = set()

    def is_enabled(self) -> bool:
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1 if not enabled."""
        return self._scale if self._enabled else 1.0

    def scale(self, outputs: Any) -> Any:
        """outputs * scale: a loss, or a list or tuple of them; float16 becomes float32, where there is room for it."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, (list, tuple)):
            return type(outputs)([self.scale(x) for x in outputs])
        if not isinstance(outputs, Tensor):
            raise TypeError(f"GradScaler.scale: expected a Tensor or a list of them, got {type(outputs).__name__}")
        return (outputs.to(float32) if outputs.dtype == float16 else outputs) * self._scale

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, in place: before looking at or clipping
        them. step() does it where this was not called.

        RuntimeError when called twice before update(); ValueError for float16 gradients: the parameters are no masters.
        """
        if not self._enabled:
            return
        if id(optimizer) in self._found:
            done = "step()" if id(optimizer) in self._stepped else "unscale_()"
            raise RuntimeError(f"GradScaler.unscale_: {done} was called for this optimizer since the last update()")
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(p.grad.dtype == float16 for p in params):
            raise ValueError(
                "GradScaler.unscale_: gradients are float16, where what the scale saved would be lost again: train "
                "float32 parameters (model.float()), and compute in mixed_precision(model)"
            )
        finite: Any = True
        for g in whole_grads(params):
            finite = finite & array_module(g).isfinite(g).all()  # on a GPU: asked once, below
            with np.errstate(over="ignore", invalid="ignore"):
                g *= g.dtype.type(1 / self._scale)
        for p in params:
            mark_written(p.grad.data)
        self._found[id(optimizer)] = not bool(finite)

    def step(self, optimizer: Any, *args: Any, **settings: Any) -> bool:
        """optimizer.step(*args, **settings) with the unscaled gradients, unless one is inf or NaN.

        Returns whether the step was taken. Give clip_norm here, or call unscale_() before clip_grad_norm_.
        RuntimeError when called twice before update().
        """
        if not self._enabled:
            optimizer.step(*args, **settings)
            return True
        if id(optimizer) in self._stepped:
            raise RuntimeError("GradScaler.step: it was called for this optimizer already; call update() between steps")
        if id(optimizer) not in self._found:
            self.unscale_(optimizer)
        self._stepped.add(id(optimizer))
        if self._found[id(optimizer)]:
            return False
        optimizer.step(*args, **settings)
        return True

    def update(self, new_scale: float | None = None) -> None:
        """Once after the step of every optimizer: shrink the scale after an overflow, grow it after many steps without.

        new_scale: take this one instead. FloatingPointError where gradients are inf or NaN down to the smallest scale.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            if not 0 < new_scale < math.inf:
                raise ValueError(f"GradScaler.update: a scale is a number above 0, got {new_scale}")
            self._scale = float(new_scale)
        elif not self._found:
            raise RuntimeError("GradScaler.update: call step() or unscale_() first, there are no gradients to judge by")
        elif any(self._found.values()):
            self._scale *= self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker >= self._growth_interval:
                larger = self._scale * self._growth_factor
                self._scale = larger if larger <= np.finfo(np.float32).max else self._scale
                self._growth_tracker = 0
        self._found, self._stepped = {}, set()
        if self._scale < SMALLEST_SCALE:
            raise FloatingPointError(
                f"GradScaler: gradients are inf or NaN even with the loss scaled by {self._scale:.1e}: that is no "
                "overflow of float16. Look at the loss, with minillm.detect_anomaly() for where it began"
            )

    def state_dict(self) -> dict[str, Any]:
        """Numbers only, under PyTorch's names; empty if not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. ValueError, and nothing changed, where it is not one."""
        if not self._enabled:
            return
        names = list(self.state_dict())
        if sorted(state_dict) != sorted(names):
            hint = " (an empty one is that of a scaler that was not enabled)" if not state_dict else ""
            raise ValueError(f"GradScaler.load_state_dict: expected {names}, got {list(state_dict)}{hint}")
        values = [state_dict[name] for name in names]
        GradScaler(*values[:4])  # says what is wrong with them
        self._scale, self._growth_factor, self._backoff_factor = map(float, values[:3])
        self._growth_interval, self._growth_tracker = map(int, values[3:])
