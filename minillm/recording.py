"""Whether calls are recorded: `no_grad` and `enable_grad`, as blocks or as decorators, each thread its own."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any


class _State(threading.local):
    recording = True


state = _State()


class _Recording(ContextDecorator):
    def __init__(self, on: bool):
        self.on = on
        self.before: list[bool] = []  # a stack: the same object may be entered again inside itself

    def __enter__(self) -> None:
        self.before.append(state.recording)
        state.recording = self.on

    def __exit__(self, *_: Any) -> None:
        state.recording = self.before.pop()

    def _recreate_cm(self) -> Any:
        return type(self)()  # type: ignore[call-arg]  # a decorated function: a block of its own for each call and thread


class no_grad(_Recording):
    """Inside the block (or the function decorated with it) no graph is recorded: results have requires_grad False."""

    def __new__(cls, function: Any = None) -> Any:  # @no_grad without parentheses, too
        return cls()(function) if callable(function) else super().__new__(cls)

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_Recording):
    """Record again, inside a no_grad block."""

    def __init__(self) -> None:
        super().__init__(True)


def is_grad_enabled() -> bool:
    """True where calls are recorded."""
    return state.recording
