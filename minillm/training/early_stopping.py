"""Early stopping: end a training that no longer gets better on held-out data.

Source: Prechelt 1998, Early Stopping - But When?
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class EarlyStopping:
    """update(value) with each validation loss; True once `patience` of them in a row were no better than the best.

    min_delta  how much smaller than the best a value must be to count as better. A NaN is never better.

    >>> stop = EarlyStopping(patience=2)
    >>> [stop.update(loss) for loss in (3.0, 2.0, 2.5, 2.1)]
    [False, False, False, True]
    """

    def __init__(self, patience: int, min_delta: float = 0.0):
        if patience < 1 or not min_delta >= 0:
            raise ValueError(
                f"EarlyStopping: patience must be 1 or more and min_delta 0 or more; got {patience}, {min_delta}"
            )
        self.patience, self.min_delta = patience, min_delta
        self.best, self.worse = math.inf, 0

    def update(self, value: float) -> bool:
        if value < self.best - self.min_delta:
            self.best, self.worse = value, 0
        else:
            self.worse += 1
        return self.worse >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "worse": self.worse}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.best, self.worse = float(state_dict["best"]), int(state_dict["worse"])
