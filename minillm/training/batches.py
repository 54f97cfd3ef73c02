"""A stream of batches whose place can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..creation import as_tensor
from ..random import Generator
from ..tensor import Tensor
from ..text import sample_windows


class Batches(Protocol):
    """What a Loop takes batches from."""

    @property
    def tokens(self) -> int: ...  # in a batch

    def next(self) -> tuple[Any, ...]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class RandomWindows:
    """Batches of windows of a text of ids (T,), from random places: next() -> x, y (batch, context), y one token on.

    The place in the stream is that of its generator: from the same seed, or a saved state, come the same batches.
    """

    def __init__(self, ids: Any, batch: int, context: int, seed: int = 0, device: str = "cpu"):
        self.ids, self.batch, self.context, self.device = ids, batch, context, device
        self.generator = Generator(seed)

    @property
    def tokens(self) -> int:
        """In a batch."""
        return self.batch * self.context

    def next(self) -> tuple[Tensor, Tensor]:
        x, y = sample_windows(self.ids, self.batch, self.context, self.generator)
        return as_tensor(x).to(self.device), as_tensor(y).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": list(self.generator.get_state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])
