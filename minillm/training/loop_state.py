"""All that decides what a training does next, as one dict: what a save holds of a Loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..random import default_generator

if TYPE_CHECKING:
    from .loop import Loop

PARTS = ("model", "optimizer", "batches", "ema", "early")  # each with a state_dict of its own


def state_of(loop: Loop) -> dict[str, Any]:
    """The state, and the history so far; copies. Schedules are functions of the step and the seconds."""
    return {
        "parts": {name: part.state_dict() for name, part in _parts(loop).items()},
        "generator": list(default_generator.get_state()),  # of dropout, stochastic depth and whatever draws in a model
        "step": loop.step,
        "skipped": loop.policy.skipped,
        "seconds": loop.clock.seconds(),
        "reserve": loop.clock.reserve,
        "best": loop.best,
        "recent": list(loop.recent),
        "rows": [dict(row) for row in loop.history],
        "trace": loop.history.trace.state_dict(),
    }


def restore(loop: Loop, state: Mapping[str, Any]) -> None:
    """Put the loop into that state. ValueError, KeyError or TypeError where it is not that of such a loop."""
    given, parts = state["parts"], _parts(loop)
    if set(given) != set(parts):
        raise ValueError(f"it holds the states of {', '.join(given)}; expected those of {', '.join(parts)}")
    for name, part in parts.items():
        part.load_state_dict(given[name])
    loop.step, loop.policy.skipped = int(state["step"]), int(state["skipped"])
    loop.clock.before, loop.clock.reserve = float(state["seconds"]), float(state["reserve"])
    loop.best, loop.recent = float(state["best"]), [float(v) for v in state["recent"]]
    loop.history.rows = [dict(row) for row in state["rows"]]
    loop.history.trace.load_state_dict(state["trace"])
    default_generator.set_state(state["generator"])


def restore_weights(loop: Loop, state: Mapping[str, Any]) -> None:
    """Only those of the model, and their average."""
    for name in {"model", "ema"} & set(_parts(loop)):
        _parts(loop)[name].load_state_dict(state["parts"][name])


def _parts(loop: Loop) -> dict[str, Any]:
    return {name: part for name in PARTS if (part := getattr(loop, name)) is not None}
