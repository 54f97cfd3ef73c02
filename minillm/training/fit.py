"""The training loop: forward, backward, step. `fit` runs over arrays, `fit_batches` over any stream of batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..creation import as_tensor
from ..device import device_of, to_device
from ..dtypes import is_floating
from ..errors import nearest
from ..nn.modes import evaluation
from ..optim import Optimizer
from ..random import Generator
from ..recording import no_grad
from ..tensor import Tensor
from .history import History
from .non_finite import NonFiniteLoss
from .progress import Progress

LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss, "cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
}  # fmt: skip


def fit(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    loss: str | Callable[[Any, Tensor], Tensor] | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 1,
    batch_size: int = 32,
    validation: tuple[Any, Any] | Any = None,
    *,
    seed: int = 0,
    shuffle: bool = True,
    clip_norm: float | None = None,
    progress: bool = True,
    title: str = "training",
    on_epoch: Callable[[int, dict], Any] | None = None,
) -> History:
    """Train `model` on arrays; the history has a row per epoch. The model is left in evaluation mode.

    inputs      (N, ...) array or Tensor; moved to the model's device and floating dtype, and so are the others
    targets     (N, ...); None: the inputs themselves (autoencoders)
    loss        a name from LOSSES, or loss(model(x), target) -> scalar Tensor; None: the model's own loss(x, target)
    optimizer   has to be given: optim.Adam(model.parameters(), lr=1e-3)
    validation  (inputs, targets), or inputs alone; its loss is measured after each epoch, in evaluation mode
    seed        of the shuffling
    clip_norm   largest global norm of the gradient
    on_epoch    called with (epoch, row) after each epoch
    Ctrl-C ends training; history.interrupted says so, and what was learned until then stays in the model.
    Source of the loop: stochastic gradient descent on minibatches, Robbins & Monro 1951.
    """
    batch_loss = _batch_loss(model, loss, targets is not None)
    if optimizer is None:
        raise TypeError("fit: give an optimizer, for instance optim.Adam(model.parameters(), lr=1e-3)")
    x = placed(inputs, model)
    y = x if targets is None else placed(targets, model)
    _check("inputs", x, y)
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"fit: epochs and batch_size must be at least 1, got epochs={epochs}, batch_size={batch_size}")
    held_out = _held_out(validation, targets is not None, model)
    steps = math.ceil(len(x) / batch_size)
    generator = Generator(seed)
    history = History()
    model.train()

    def epoch_of_batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = generator.permutation(len(x)) if shuffle else np.arange(len(x))
        for i in range(steps):
            rows = to_device(order[i * batch_size : (i + 1) * batch_size], device_of(x))
            yield Tensor(x[rows]), Tensor(y[rows])

    started = time.perf_counter()
    with Progress(title, epochs * steps, progress) as bar:
        total, seen, step = 0.0, 0, 0
        try:
            for epoch in range(1, epochs + 1):
                total, seen = 0.0, 0
                for batch, target in epoch_of_batches():
                    value = train_step(model, partial(batch_loss, batch, target), optimizer, clip_norm)
                    total, seen, step = total + value * len(batch), seen + len(batch), step + 1
                    bar.advance()
                row = {"epoch": epoch, "step": step, "loss": total / seen, "seconds": time.perf_counter() - started}
                if held_out is not None:
                    row["validation_loss"] = _mean_loss(model, *held_out, batch_loss)
                history.append(**row)
                tenth = epoch % max(1, epochs // 10) == 0 or epoch in (1, epochs)
                shown = {"epoch": f"{epoch}/{epochs}", "loss": row["loss"], "validation": row.get("validation_loss")}
                bar.show(shown, milestone=tenth)
                if on_epoch is not None:
                    on_epoch(epoch, row)
        except KeyboardInterrupt:
            history.interrupted = True
            if seen and history.last("step") != step:  # the steps of the epoch that was broken off
                history.append(epoch=epoch, step=step, loss=total / seen, seconds=time.perf_counter() - started)
    model.eval()
    return history


def fit_batches(
    model: nn.Module,
    batches: Iterable[tuple],
    loss: Callable[..., Tensor],
    optimizer: Optimizer,
    steps: int,
    *,
    every: int = 100,
    measure: Callable[[int], dict[str, float]] | None = None,
    clip_norm: float | None = None,
    schedule: Callable[[int], float] | None = None,
    progress: bool = True,
    title: str = "training",
) -> History:
    """Train for `steps` batches; the history has a row every `every` steps, and one at the start and the end.

    batches   an iterator of tuples; each is handed to loss(*batch) -> scalar Tensor
    measure   called with the step, model in evaluation mode, before the first step and at every row: more columns
    schedule  step -> learning rate, set on every parameter group before the step
    Ctrl-C ends training; history.interrupted says so. The model is left in evaluation mode.
    """
    if steps < 1 or every < 1:
        raise ValueError(f"fit_batches: steps and every must be at least 1, got steps={steps}, every={every}")
    history = History()
    started = time.perf_counter()
    recent: list[float] = []  # losses since the last row
    source = iter(batches)

    def record(step: int) -> None:
        row: dict[str, Any] = {"step": step, "seconds": time.perf_counter() - started}
        if recent:
            row["loss"] = sum(recent) / len(recent)
        if measure is not None:
            model.eval()
            row |= measure(step)
            model.train()
        history.append(**row)
        recent.clear()
        shown = {k: v for k, v in row.items() if isinstance(v, (int, float)) and k not in ("step", "seconds")}
        bar.show({"step": f"{step}/{steps}", **shown})

    model.train()
    step = 0
    with Progress(title, steps, progress) as bar:
        try:
            record(0)
            for step in range(1, steps + 1):
                if schedule is not None:
                    for group in optimizer.param_groups:
                        group["lr"] = schedule(step)
                batch = next(source, None)
                if batch is None:
                    raise ValueError(
                        f"fit_batches: the batches ended after {step - 1} of {steps} steps; give more, or fewer steps"
                    )
                recent.append(train_step(model, partial(loss, *batch), optimizer, clip_norm))
                bar.advance()
                if step % every == 0 or step == steps:
                    record(step)
        except KeyboardInterrupt:
            history.interrupted = True
            if recent:  # the steps since the last row
                done = (history.last("step") or 0) + len(recent)
                history.append(step=done, seconds=time.perf_counter() - started, loss=sum(recent) / len(recent))
    model.eval()
    return history


def train_step(
    model: nn.Module, compute: Callable[[], Tensor], optimizer: Optimizer, clip_norm: float | None = None
) -> float:
    """One step: compute() gives the loss, its gradient moves the parameters. Returns the loss before the step."""
    optimizer.zero_grad()
    value = compute()
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(
            f"the loss must be one number, a Tensor of one element; got {got}: reduce it with .mean() or .sum()"
        )
    result = value.item()
    if not math.isfinite(result):
        raise NonFiniteLoss(
            f"the loss is {result}. Lower the learning rate, or find the first bad value by running the step under "
            "minillm.detect_anomaly()"
        )
    value.backward()
    optimizer.step(clip_norm)
    return result


def evaluate(
    model: nn.Module, inputs: Any, targets: Any = None, loss: str | Callable | None = None, batch_size: int = 512
) -> float:
    """Mean loss over a data set, in evaluation mode; batches are weighted by their size. Arguments as in `fit`."""
    batch_loss = _batch_loss(model, loss, targets is not None)
    x = placed(inputs, model)
    y = x if targets is None else placed(targets, model)
    _check("inputs", x, y)
    return _mean_loss(model, x, y, batch_loss, batch_size)


@no_grad()
def _mean_loss(model: nn.Module, x: Any, y: Any, batch_loss: Callable, batch_size: int = 512) -> float:
    total = 0.0
    with evaluation(model):
        for i in range(0, len(x), batch_size):
            batch, target = Tensor(x[i : i + batch_size]), Tensor(y[i : i + batch_size])
            total += batch_loss(batch, target).item() * len(batch)
    return total / len(x)


def _batch_loss(
    model: nn.Module, loss: str | Callable | None, targets_given: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """(batch, target) -> scalar loss, from what the user gave as `loss`."""
    if loss is None:
        own = getattr(model, "loss", None)
        if own is None:
            raise ValueError(
                f"fit: {type(model).__name__} has no loss() of its own; give loss=, a function or one of "
                f"{', '.join(LOSSES)}"
            )
        return own if targets_given else lambda batch, _: own(batch)
    if not callable(loss) and loss not in LOSSES:
        raise ValueError(f"no loss {loss!r}: give a function, or one of {', '.join(LOSSES)}.{nearest(loss, LOSSES)}")
    function = loss if callable(loss) else LOSSES[loss]
    return lambda batch, target: function(model(batch), target)


def _held_out(validation: Any, targets_given: bool, model: nn.Module) -> tuple[Any, Any] | None:
    """Arrays (inputs, targets) to measure on, from what the user gave as `validation`."""
    if validation is None:
        return None
    pair = validation if isinstance(validation, tuple) else (validation, validation)
    if len(pair) != 2 or (targets_given and pair is not validation):
        raise ValueError(
            "fit: validation must be a tuple (inputs, targets), or inputs alone where the training has no targets"
        )
    x, y = (placed(v, model) for v in pair)
    _check("validation inputs", x, y)
    return x, y


def placed(values: Any, model: nn.Module) -> Any:
    """The values as an array on the model's device, and in its dtype where they are floating."""
    x, like = as_tensor(values), next(model.parameters(), None)
    if like is None:
        return x.data
    return x.to(like.device, like.dtype if is_floating(x.dtype) else None).data


def _check(name: str, x: Any, y: Any) -> None:
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"fit: {name} are empty; expected an array of one or more examples")
    if y.ndim == 0 or len(x) != len(y):
        count = len(y) if y.ndim else "no"
        raise ValueError(f"fit: {len(x)} {name} but {count} targets; there must be one target per input")
