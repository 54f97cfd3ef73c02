"""A worker whose library is NumPy and whose suite is made of right, wrong, failing and dying functions. Not a test."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import numpy as np
from bench_checks import doubling

from bench.case import Case, plain
from bench.worker import serve


def right(x):
    print("chatter on stdout")
    return 2 * x


def wrong(x):
    out = 2 * x
    out[3] += 0.01
    return out


def fails(x):
    raise ValueError("not today")


def dies(x):
    os._exit(3)


def late(x, calls=[]):  # noqa: B006
    """Fails while it is timed: the first check calls it once."""
    calls.append(1)
    if len(calls) > 2:
        raise ValueError("tired")
    return 2 * x


def sleeps(x):
    time.sleep(1e-3)
    return 2 * x


FUNCTIONS = {f.__name__: f for f in (right, wrong, fails, dies, late, sleeps)}


def cases(options):
    """One case per function that the main process has as well, where "torch" is never called."""
    ours = {"minillm": plain(lambda x: 2 * x)}
    for name, function in FUNCTIONS.items():
        case = doubling(ours=ours, rivals={"torch": plain(function)})
        case.name = name
        yield case
    x = np.ones(3, np.float32)
    yield Case("toy", "in place", (x,), in_place=True, reference=lambda x: 2 * x, ours={"minillm": _once},
               rivals={"torch": _once})  # fmt: skip
    yield Case("toy", "one thread", (x,), threads=1, reference=lambda x: x * options.shapes[0][1], ours=ours,
               rivals={"torch": plain(lambda x: x * np.float32(options.shapes[0][1]))})  # fmt: skip


def _once(x):
    first = x.copy()

    def run():
        np.multiply(first, 2, out=x)

    return run


if __name__ == "__main__":
    serve(lambda suite: SimpleNamespace(cases=cases))
