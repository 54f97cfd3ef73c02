"""The learning-rate range test: a short training whose rate grows until it diverges shows which rates would do.

    lr_i = start (stop / start)^(i / (steps - 1))          a batch and a step for each i

The loss falls slowly where the rate is too small, fast in a range, and rises where it is too large. Where it falls
fastest, against log lr, is a good largest rate of a schedule. Afterwards model, optimizer, random numbers and batches
are what they were before, to the bit.

Source: Smith 2015, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn.module import Module
from ..optim.clip import total_norm
from ..random import all_states, set_all_states
from ..recording import no_grad
from ..tensor import Tensor
from ..writes import mark_written

SMOOTHING = 0.9  # of the average that decides whether the loss diverges


@dataclass(frozen=True)
class RangeTest:
    """lrs and losses (n,): the loss of each step's batch, before that step. diverged: whether it ended early."""

    lrs: np.ndarray
    losses: np.ndarray
    diverged: bool
    steps: int  # that it would have taken

    @property
    def slopes(self) -> np.ndarray:
        """d loss / d log lr at each step (n,), by least squares over its neighbours; NaN where those are too few."""
        reach, n = self._reach(), len(self.losses)
        if n <= 2 * reach:
            return np.full(n, np.nan)
        step = math.log(self.lrs[1] / self.lrs[0])
        k = np.arange(-reach, reach + 1)
        inner = np.correlate(self.losses, k / (step * (k * k).sum()), mode="valid")
        return np.pad(inner, reach, constant_values=np.nan)

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest, of those before its lowest point: the suggestion.

        ValueError where it fell nowhere: rates too large from the start, or too small to the end.
        """
        reach = self._reach()
        if len(self.losses) > 2 * reach:
            lowest = int(np.argmin(_means(self.losses, reach)))
            slopes = self.slopes[reach : lowest + 1]
            if (slopes < 0).any():
                return float(self.lrs[reach + int(np.nanargmin(slopes))])
        tried = f"from {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}" if self.losses.size else "that was tried"
        raise ValueError(
            f"the loss fell at no learning rate {tried}: "
            + ("start at a smaller one" if self.diverged else "go on to a larger one, or take more steps")
        )

    def _reach(self) -> int:
        return max(2, self.steps // 20)


def find_lr(
    model: Module,
    optimizer: Any,
    batches: Any,
    loss: Callable[..., Tensor],
    *,
    start: float = 1e-6,
    stop: float = 1.0,
    steps: int = 100,
    clip_norm: float | None = None,
) -> RangeTest:
    """Train for up to `steps` steps with rates from `start` to `stop`; then put everything back.

    optimizer  as a training has it; where groups have different rates, the first one's goes from start to stop, and
               the others keep their ratio to it
    batches    next() -> what loss(...) takes, and its place as state_dict(), as `Loop` has it; or an iterable of such
               tuples, gone through again where it ends

    It ends early where a running mean of the loss has risen from its least value by as much as the first loss was, or
    where a loss or a gradient is not finite. The model is in training mode meanwhile. What is put back, also after an
    error: parameters and buffers, .grad, the optimizer's state and settings, minillm's generators, the modules' modes,
    and the place of batches that have one.

    >>> from minillm import nn, optim, tensor
    >>> import numpy as np
    >>> x, net = tensor(np.eye(4, dtype=np.float32)), nn.Linear(4, 4)
    >>> test = find_lr(net, optim.SGD(net.parameters()), [(x,)], lambda x: (net(x) - x).square().sum(), stop=10.0)
    >>> test.diverged and 0.001 < test.steepest < 0.5
    True
    """
    if not 0 < start < stop < math.inf or steps < 10:
        raise ValueError(
            f"find_lr: expected 0 < start < stop and steps >= 10; got start={start}, stop={stop} and steps={steps}"
        )
    first = optimizer.param_groups[0]["lr"]
    if not first > 0:
        raise ValueError(f"find_lr: the first group has lr={first}: others keep their ratio to it, so set one above 0")
    ratios = [group["lr"] / first for group in optimizer.param_groups]
    lrs = start * (stop / start) ** (np.arange(steps) / (steps - 1))
    losses: list[float] = []
    diverges = _Divergence()
    with put_back(model, optimizer, batches):
        model.train()
        stream = _stream(batches)
        for lr in lrs:
            for group, ratio in zip(optimizer.param_groups, ratios):
                group["lr"] = float(lr) * ratio
            optimizer.zero_grad()
            value = loss(*next(stream))
            if diverges.at(value.item()):
                break
            losses.append(value.item())
            value.backward()
            if diverges.at_norm(float(total_norm(model.parameters()))):
                break
            optimizer.step(clip_norm)
    return RangeTest(lrs[: len(losses)], np.array(losses), diverges.happened, steps)


class _Divergence:
    """Whether a loss diverges: its running mean is above its least value by more than the first loss's size."""

    def __init__(self) -> None:
        self.count, self.sum, self.least, self.size, self.happened = 0, 0.0, math.inf, 0.0, False

    def at(self, loss: float) -> bool:
        self.count += 1
        self.size = self.size if self.count > 1 else abs(loss)
        self.sum = SMOOTHING * self.sum + (1 - SMOOTHING) * loss
        mean = self.sum / (1 - SMOOTHING**self.count)
        self.least = min(self.least, mean)
        self.happened = not math.isfinite(loss) or mean > self.least + self.size
        return self.happened

    def at_norm(self, norm: float) -> bool:
        self.happened = not math.isfinite(norm)
        return self.happened


def _stream(batches: Any) -> Iterator[Any]:
    """Batches without end."""
    while hasattr(batches, "next"):
        yield batches.next()
    while True:
        count = 0
        for batch in batches:
            count += 1
            yield batch if isinstance(batch, (tuple, list)) else (batch,)
        if not count:
            raise ValueError("find_lr: the batches have come to an end: give a list of them, or an object with next()")


@contextmanager
def put_back(model: Module, optimizer: Any, batches: Any = None) -> Iterator[None]:
    """A block after which all that a training changes is as it was before, to the bit. See `find_lr`."""
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    params = list({id(p): p for p in [*model.parameters(), *owned]}.values())
    values = [(t, t.data.copy()) for t in [*params, *model.buffers()]]
    grads = [p.grad for p in params]
    state, generators = optimizer.state_dict(), all_states()
    modes = [(module, module.training) for module in model.modules()]
    place = batches.state_dict() if hasattr(batches, "state_dict") else None
    for p in params:
        p.grad = None  # the next backward pass would add to what is kept
    try:
        yield
    finally:
        with no_grad():
            for t, value in values:
                t.data[...] = value
                mark_written(t.data)
        optimizer.zero_grad()
        for p, grad in zip(params, grads):
            p.grad = grad
        optimizer.load_state_dict(state)
        set_all_states(generators)
        for module, mode in modes:
            module.training = mode
        if place is not None:
            batches.load_state_dict(place)


def _means(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of each value and its neighbours, of as many as there are at both ends."""
    ones = np.ones(2 * reach + 1)
    return np.convolve(values, ones, mode="same") / np.convolve(np.ones(len(values)), ones, mode="same")
