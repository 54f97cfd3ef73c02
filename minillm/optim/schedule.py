r"""Learning-rate schedules: (step, total) -> the factor that every group's own rate is multiplied by.

    warmup_cosine           /‾\_        up to 1 in `warmup` steps, then half a cosine down to `final`
    warmup_linear           /\          ... then a straight line down to `final`
    warmup_stable_decay     /‾‾\        ... then 1 until the share `stable` of all steps is over, then a line to `final`

Steps count from 1, so that the first one moves; step may be a float where time decides how far the training is. Where
`warmup` takes more than a fifth of all steps it is cut to that.

>>> [round(warmup_cosine(step, 100, 10), 3) for step in (1, 10, 55, 100, 200)]
[0.1, 1.0, 0.55, 0.1, 0.1]
"""

from __future__ import annotations

import math


def warmup_cosine(step: float, total: float, warmup: float, final: float = 0.1) -> float:
    """final + (1 - final) (1 + cos(pi t)) / 2, with t from 0 at the end of the warm-up to 1.

    Source: Loshchilov and Hutter 2016, SGDR, arXiv:1608.03983; warm-up: Goyal et al. 2017, arXiv:1706.02677.
    """
    rise, t = _warmed(step, total, warmup, final)
    return rise * (final + (1 - final) * (1 + math.cos(math.pi * t)) / 2)


def warmup_linear(step: float, total: float, warmup: float, final: float = 0.0) -> float:
    """1 - (1 - final) t. Source: Devlin et al. 2018, BERT, arXiv:1810.04805.

    >>> warmup_linear(55, 100, 10)
    0.5
    """
    rise, t = _warmed(step, total, warmup, final)
    return rise * (1 - (1 - final) * t)


def warmup_stable_decay(step: float, total: float, warmup: float, stable: float = 0.4, final: float = 0.0) -> float:
    """1 until stable * total, then a straight line to `final`: how long it runs need not be known from the start.

    Source: Hu et al. 2024, MiniCPM, arXiv:2404.06395.

    >>> [warmup_stable_decay(step, 100, 10, stable=0.5) for step in (5, 50, 75, 100)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if not 0 <= stable <= 1:
        raise ValueError(f"warmup_stable_decay: stable is a share of all steps, 0 to 1; got {stable}")
    rise, _ = _warmed(step, total, warmup, final)
    begin = max(stable * total, _length(total, warmup))
    t = 0.0 if total <= begin else min(max((step - begin) / (total - begin), 0.0), 1.0)
    return rise * (1 - (1 - final) * t)


def _warmed(step: float, total: float, warmup: float, final: float) -> tuple[float, float]:
    """(how far the warm-up is, how far what comes after it is), both from 0 to 1."""
    if not (step >= 0 and 0 < total < math.inf and warmup >= 0 and 0 <= final <= 1):
        raise ValueError(
            "a schedule needs step >= 0, total > 0, warmup >= 0, and final, a factor, from 0 to 1; got "
            f"step={step}, total={total}, warmup={warmup} and final={final}"
        )
    length = _length(total, warmup)
    rise = min(step / length, 1.0) if length > 0 else 1.0
    return rise, min(max((step - length) / (total - length), 0.0), 1.0)


def _length(total: float, warmup: float) -> float:
    return min(warmup, total / 5)
