"""A session that measures in milliseconds, for tests of the harness; no test looks at a time."""

from __future__ import annotations

import numpy as np

from bench.case import Case, Options
from bench.limits import Limits
from bench.runner import Session
from bench.timing import Budget

LIMITS = {n: Limits(n, 1e11 * n, 2e11 * n, [1 << 14, 1 << 28], {"copy": [1e11, 1e10]}) for n in (1, 2)}


def session(*candidates, **options) -> Session:
    return Session(Options(threads=2, **options), Budget(1e-4, 2), LIMITS, list(candidates))


def doubling(**settings) -> Case:
    """out = 2 x, from a reference; implementations by the test."""
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    settings = {"reference": lambda x: 2 * x, "flops": 7.0, "bytes": 56.0} | settings
    return Case("toy", "doubling 7", (x,), **settings)


def row(**entries) -> dict:
    """A row as the harness makes them, for what reads rows."""
    base = {
        "suite": "matmul", "case": "forward 4096x384x384", "implementation": "minillm", "label": "", "median_s": 1e-3,
        "q1_s": 0.9e-3, "q3_s": 1.1e-3, "samples": 10, "flops": 1e8, "bytes": 1e6, "elements": 0, "limit_s": 5e-4,
        "share_of_limit": 0.5, "compute_bound": True, "max_error": 1e-6, "equal": True, "problem": "", "threads": 2,
        "cold": False, "ratios": {}, "load": 0.0,
    }  # fmt: skip
    return base | entries
