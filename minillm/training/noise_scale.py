"""The gradient's noise scale: from which batch size on more examples a step no longer pay.

A gradient over B examples is the true one plus noise, whose square shrinks with B:

    E|G_B|^2 = |G|^2 + S / B              G the gradient of the whole data, S the trace of one example's covariance

Two batch sizes give two equations, so the norms of a small and of a large batch give both unknowns:

    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)
    S     = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)
    scale = S / |G|^2

The best step with batches of B lowers the loss by 1 / (1 + scale / B) of what it would without noise: at B = scale half
as much. Smaller batches waste no examples, larger ones save hardly any steps. The scale grows during a training.

Both estimates are unbiased, their quotient is not: they are averaged over many steps before they are divided.

    noise = NoiseScale(small=8, large=32)
    noise.update(*squared_norms(lambda part: model.loss(*part), parts, model.parameters()))      # 4 parts of 8
    noise.value

Source: McCandlish et al. 2018, An Empirical Model of Large-Batch Training, arXiv:1812.06162, appendix A.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..optim.clip import total_norm
from ..tensor import Tensor


class NoiseScale:
    """NoiseScale(small, large): update(squared norms) each time both are measured, `value` the estimate so far.

    small, large  the batch sizes, in examples (or in tokens: then so is the answer)
    decay         of the averages over updates, which start without bias: 0 is the latest only
    """

    def __init__(self, small: float, large: float, decay: float = 0.99):
        if not 0 < small < large < math.inf or not 0 <= decay < 1:
            raise ValueError(
                f"NoiseScale: expected 0 < small < large and 0 <= decay < 1; got {small}, {large} and decay={decay}"
            )
        self.small, self.large, self.decay = small, large, decay
        self.updates = 0
        self._signal = self._noise = 0.0  # sums with weights decay^age

    def update(self, small: float, large: float) -> None:
        """Take in |G_b|^2 and |G_B|^2. ValueError, and nothing changed, where they are not finite."""
        if not (math.isfinite(small) and math.isfinite(large)):
            raise ValueError(f"NoiseScale.update: expected two finite squared norms; got {small} and {large}")
        signal = (self.large * large - self.small * small) / (self.large - self.small)
        noise = (small - large) / (1 / self.small - 1 / self.large)
        self._signal = self.decay * self._signal + (1 - self.decay) * signal
        self._noise = self.decay * self._noise + (1 - self.decay) * noise
        self.updates += 1

    @property
    def signal(self) -> float:
        """|G|^2, averaged."""
        return self._signal / self._weight()

    @property
    def noise(self) -> float:
        """S, averaged."""
        return self._noise / self._weight()

    @property
    def value(self) -> float:
        """S / |G|^2, a batch size; inf where the noise hides the gradient: at a minimum, or after too few updates."""
        return max(self.noise, 0.0) / self.signal if self.signal > 0 else math.inf

    def efficiency(self, batch: float) -> float:
        """1 / (1 + value / batch): a step's progress as a share of a noiseless one's."""
        if not batch > 0:
            raise ValueError(f"NoiseScale.efficiency: a batch has more than 0 examples; got {batch}")
        return 1 / (1 + self.value / batch)

    def _weight(self) -> float:
        if not self.updates:
            raise ValueError("NoiseScale: nothing was measured yet; call update(small, large) first")
        return 1 - self.decay**self.updates

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "signal": self._signal, "noise": self._noise}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.updates = int(state_dict["updates"])
        self._signal, self._noise = float(state_dict["signal"]), float(state_dict["noise"])


def squared_norms(
    loss_of: Callable[[Any], Tensor], parts: Sequence[Any], parameters: Iterable[Tensor]
) -> tuple[float, float]:
    """(|G_b|^2, |G_B|^2): the mean over `parts`, each a batch of b examples, and that of all of them together.

    One backward pass a part, no more than the step of accumulated gradients needs. The parameters' .grad is afterwards
    what it was before. ValueError for fewer than two parts, or where no parameter gets a gradient.
    """
    parameters = list(parameters)
    if len(parts) < 2:
        raise ValueError(f"squared_norms: expected at least two parts, to see how they differ; got {len(parts)}")
    kept = [p.grad for p in parameters]
    sums: list[Any] = [None] * len(parameters)
    small = 0.0
    try:
        for part in parts:
            for p in parameters:
                p.grad = None
            loss_of(part).backward()
            small += float(total_norm(parameters)) ** 2 / len(parts)
            for i, p in enumerate(parameters):
                if p.grad is not None:
                    sums[i] = p.grad.data / len(parts) if sums[i] is None else sums[i] + p.grad.data / len(parts)
    finally:
        for p, grad in zip(parameters, kept):
            p.grad = grad
    means = [mean for mean in sums if mean is not None]
    if not means:
        raise ValueError("squared_norms: no parameter has a gradient: give those that the loss depends on")
    return small, sum(float((mean * mean).sum(dtype=np.float64)) for mean in means)
