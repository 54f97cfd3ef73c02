"""The training of a language model: batches, schedule, accumulation, clipping, averaging, measuring, saving.

Each technique is a file of its own; here they meet. A step:

    lr    = its base * schedule(step, total)
    loss  = mean over `accumulation` batches, and its gradient
    norm  = |gradient|                                          not finite: the step is not taken
    step    with the gradient * min(1, clip_norm / norm)
    mean  = decay * mean + (1 - decay) * weights                ema

All that decides the next step is in `state_dict()`: a loop that loads it goes on with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from ..nn.modes import evaluation
from ..nn.module import Module
from ..optim.clip import total_norm
from ..random import default_generator
from ..tensor import Tensor
from .accumulation import accumulate
from .batches import Batches
from .clock import Clock
from .history import History
from .interrupt import asked_to_stop
from .loop_state import restore, state_of
from .mixed_precision import mixed_precision
from .non_finite import NonFiniteLoss, Policy, first_non_finite
from .observer import Observer, Silent


class Loop:
    """Loop(model, optimizer, batches, loss, steps=1000).run() -> History, a row at every measurement.

    optimizer     with param_groups (the base learning rates), step(clip_norm), zero_grad, state_dict
    batches       next() -> what loss(...) takes, a Tensor of one number; and its place, as state_dict
    steps         to take in all; None: until the time is over
    minutes       that the training may take, measurements and saves included; it stops in time
    schedule      (step, total) -> factor of the learning rates; where minutes decide, total is what they will allow
    accumulation  batches a step              clip_norm  largest norm of the gradient
    ema           an EMA of the model: measurements see the average
    early         an EarlyStopping, asked with each validation loss
    measure       step -> more columns of a row, of which "validation_loss" decides what is best; in evaluation mode
    every         steps between measurements; there is one before the first step, and one after the last
    save          (step, state_dict, is_best) -> None, called after measurements; with save_every, after so many
                  steps instead, and where the validation loss is the best; and at the end
    non_finite    "stop" or "skip", see `Policy`: no weight becomes NaN, and none is saved
    Ctrl-C ends the training after the step at hand; history.interrupted says so. The model is left in evaluation mode.
    """

    def __init__(
        self, model: Module, optimizer: Any, batches: Batches, loss: Callable[..., Tensor], *, steps: int | None,
        minutes: float | None = None, schedule: Callable[[float, float], float] | None = None, accumulation: int = 1,
        clip_norm: float | None = None, precision: str = "float32", ema: Any = None, early: Any = None,
        measure: Callable[[int], dict[str, Any]] | None = None, every: int = 250,
        save: Callable[[int, dict[str, Any], bool], Any] | None = None, save_every: int | None = None,
        non_finite: str = "stop", observer: Observer | None = None, title: str = "training",
    ):  # fmt: skip
        if min(every, accumulation, 1 if save_every is None else save_every) < 1:
            raise ValueError(
                f"Loop: every={every}, accumulation={accumulation}, save_every={save_every}: each at least 1"
            )
        self.clock, self.policy = Clock(steps, minutes), Policy(non_finite)
        self.model, self.optimizer, self.batches, self.loss = model, optimizer, batches, loss
        self.schedule, self.accumulation, self.clip_norm, self.precision = schedule, accumulation, clip_norm, precision
        self.ema, self.early, self.measure, self.every = ema, early, measure, every
        self.save, self.save_every, self.title = save, save_every, title
        self.observer: Observer = Silent() if observer is None else observer
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.history, self.step, self.enough, self.is_best = History(), 0, False, False
        self.best = math.inf  # validation loss
        self.recent: list[float] = []  # losses since the last row

    def run(self) -> History:
        reason = "failed"
        self.clock.start()
        self.model.train()
        self.observer.on_start(self.info())
        try:
            with asked_to_stop() as asked, np.errstate(all="ignore"):  # the policy looks at what is not finite
                reason = self.until_end(asked)
        except KeyboardInterrupt:  # inside a step, whose weights may be half-written: not saved
            reason = "interrupted"
        finally:
            self.history.interrupted = reason == "interrupted"
            self.observer.on_end({"step": self.step, "reason": reason})
            self.model.eval()
        return self.history

    def until_end(self, asked: Callable[[], bool]) -> str:
        """Steps, measurements and saves, until there is a reason to end."""
        if not len(self.history):
            self.record()
        reason = self.clock.over(self.step)
        while not reason:
            self.one_step()
            reason = self.clock.over(self.step)
            if asked() and not reason:
                self.keep()  # before the row: what goes on from here knows nothing of it
                self.add_row({})
                reason = "interrupted"
            elif reason or self.step % self.every == 0:
                reason = self.record(last=bool(reason)) or reason
            elif self.save_every and self.step % self.save_every == 0:
                self.keep()
        return reason

    def one_step(self) -> None:
        began, step, before = time.perf_counter(), self.step + 1, default_generator.get_state()
        factor = 1.0 if self.schedule is None else self.schedule(step, self.clock.total(step))
        for group, base in zip(self.optimizer.param_groups, self.base):
            group["lr"] = base * factor
        parts = [self.batches.next() for _ in range(self.accumulation)]
        self.optimizer.zero_grad()
        with mixed_precision(self.model, self.precision):
            value = accumulate(lambda part: self.loss(*part), parts, [1.0] * len(parts))
        norm = float(total_norm(self.params))
        if not self.policy.accepts(value, norm):

            def again() -> Tensor:
                default_generator.set_state(before)  # the same dropout
                return self.loss(*parts[0])

            with mixed_precision(self.model, self.precision):
                self.policy.refuse(step, value, norm, self.model, again)
        else:
            clip = self.clip_norm is not None and norm > self.clip_norm
            self.optimizer.step(self.clip_norm if clip else None)
            if self.ema is not None:
                self.ema.update()
            self.recent.append(value)
        self.step, self.clock.step_seconds = step, time.perf_counter() - began
        self.history.trace.add(step=step, loss=value, lr=self.optimizer.param_groups[0]["lr"], grad_norm=norm)
        self.observer.on_step({
            "step": step, "steps": self.clock.steps, "loss": value, "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": norm, "tokens": self.batches.tokens * self.accumulation, "seconds": self.clock.seconds(),
            "progress": self.clock.progress(step), "skipped": self.policy.skipped > 0,
        })  # fmt: skip

    def record(self, last: bool = False) -> str:
        """Measure, add a row, save. Answers "no better" if early stopping has seen enough."""
        began = time.perf_counter()
        measured: dict[str, Any] = {}
        if self.measure is not None:
            with evaluation(self.model), nullcontext() if self.ema is None else self.ema.swapped():
                measured = self.measure(self.step)
        self.add_row(measured)
        value, enough = measured.get("validation_loss"), False
        is_best = value is not None and value < self.best
        if value is not None:
            self.best = value if is_best else self.best
            enough = self.early is not None and self.early.update(value)
        if last or enough or is_best or not self.save_every or self.step % self.save_every == 0:
            self.keep(is_best)
        self.clock.reserve = time.perf_counter() - began
        return "no better" if enough else ""

    def add_row(self, measured: dict[str, Any]) -> None:
        loss = {"loss": sum(self.recent) / len(self.recent)} if self.recent else {}
        self.recent.clear()
        self.history.append(step=self.step, seconds=self.clock.seconds(), **loss, **measured)
        self.observer.on_row(dict(self.history.rows[-1]))

    def keep(self, is_best: bool = False) -> None:
        """Save, unless the weights are broken."""
        if self.save is not None:
            bad = first_non_finite(self.model) or ""
            if bad.startswith("the parameter"):
                raise NonFiniteLoss(f"{bad} is not finite after step {self.step}: not saved. Lower the learning rate")
            self.save(self.step, self.state_dict(), is_best)

    def info(self) -> dict[str, Any]:
        return {
            "title": self.title, "step": self.step, "steps": self.clock.steps, "minutes": self.clock.minutes,
            "parameters": self.model.num_parameters(), "tokens_per_step": self.batches.tokens * self.accumulation,
            "rows": [dict(row) for row in self.history],
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All that decides what comes next, and the history so far: see loop_state.py."""
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. ValueError, KeyError or TypeError where it is not that of such a loop."""
        restore(self, state)
