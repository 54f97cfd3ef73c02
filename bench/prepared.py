"""One implementation of one case, made ready: what it computes, and how long it takes.

    outputs()                 the arrays of a call, or of the first `case.calls` calls, stacked
    outputs_again()           the same after timing, when nothing that was computed before may count
    estimate()                seconds a call
    block(count, inner, s)    `count` samples of `inner` calls, seconds a call; s is the estimate

`Local` runs in this process; `Remote` (remote.py) has the same methods and runs in a worker.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import equal, timing
from .case import Case, Make

Outputs = list[np.ndarray | None]


class Local:
    def __init__(self, case: Case, make: Make, flush: Callable[[], None] | None = None):
        """flush: empties the caches, called before each sample."""
        self.case, self.make, self.flush = case, make, flush
        self.inputs = tuple(x.copy() if case.in_place and isinstance(x, np.ndarray) else x for x in case.inputs)
        self.run = make(*self.inputs)

    def outputs(self) -> Outputs:
        """Of a run that writes to its inputs and returns nothing, they are the results."""
        results = []
        for _ in range(self.case.calls):
            result = self.run()
            results.append(equal.as_arrays(self.inputs if result is None and self.case.in_place else result))
        return results[0] if len(results) == 1 else [np.stack([r[0] for r in results])]  # type: ignore[misc]

    def outputs_again(self) -> Outputs:
        """What the last call returned is overwritten with NaN: kept results are not computed ones.

        In place, it is a fresh start: the inputs have changed.
        """
        if self.case.in_place:
            return Local(self.case, self.make).outputs()
        for array in equal.as_arrays(self.run()):
            if array is not None and array.dtype.kind == "f" and array.flags.writeable:
                array.fill(np.nan)
        return self.outputs()

    def estimate(self) -> float:
        return timing.estimate(self.run)

    def block(self, count: int, inner: int, seconds: float) -> list[float]:
        return timing.block(self.run, count, inner, seconds, self.flush)
