"""Anomaly mode: name the call that made the first NaN, and notice writes that nobody announced.

    with minillm.detect_anomaly():
        loss = model(x)
        loss.backward()

An op whose output holds a NaN (or an infinity, with check_inf) that none of its inputs held raises at once; so does a
gradient rule, and the error names the line of the forward call. Checksums of the arrays that the graph saves are
compared again in backward. All of this reads every array once more: for debugging, not for training.
"""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any

from . import engine, errors
from .device import array_module, is_array, to_numpy
from .errors import describe

_PACKAGES = tuple(os.path.dirname(f.__code__.co_filename) for f in (engine.wrap, is_array))


class AnomalyError(ArithmeticError):
    """A NaN appeared: the message names the op, its arguments and the line that called it."""


class detect_anomaly:
    """Context manager: stop at the first NaN. check_inf stops at infinities too."""

    def __init__(self, check_inf: bool = False):
        self.check_inf = check_inf
        self.checksums: dict[int, list[int]] = {}  # order of a node -> checksums of what it saved

    def __enter__(self) -> detect_anomaly:
        self.before, engine.monitor = engine.monitor, self
        return self

    def __exit__(self, *_: Any) -> None:
        engine.monitor = self.before

    def forward(self, op: Any, arrays: list, out: Any, node: Any) -> None:
        """After each call."""
        where = _calling_line()
        if node is not None:
            node.where = where
            self.checksums[node.order] = [_checksum(a) for a in node.saved]
        outs = out if isinstance(out, tuple) else (out,)
        bad = next((b for o in outs if (b := self._bad(o))), None)
        if bad and not any(self._bad(a) for a in arrays):
            names = op.names if op.variadic is None else [f"{op.variadic}[{i}]" for i in range(len(arrays))]
            listing = "".join(f"\n  {n}: {describe(a)}{_span(a)}" for n, a in zip(names, arrays))
            raise AnomalyError(f"{op.__name__} made the first {bad}, called at {where}, from{listing}")

    def backward_starts(self, node: Any) -> None:
        """Before each rule."""
        kept = self.checksums.get(node.order)
        if kept is not None:
            for name, old, a in zip((*node.op.needs, *node.op.names), kept, node.saved):
                if _checksum(a) != old:
                    raise errors.written(node, name, a)

    def backward(self, node: Any, grads: Any) -> None:
        """After each rule."""
        for i, g in enumerate(grads):
            g = getattr(g, "data", None) if not is_array(g) else g
            if bad := self._bad(g):
                names = node.op.names or [node.op.variadic or "input"]
                name = names[i] if i < len(names) else str(i)
                raise AnomalyError(
                    f"the gradient rule of {node.op.__name__} made the first {bad}, for its {name!r} ({describe(g)}); "
                    "the forward "
                    f"was called at {node.where or 'a line before detect_anomaly()'}"
                )

    def _bad(self, a: Any) -> str | None:
        if not is_array(a) or a.dtype.kind not in "fc":
            return None
        xp = array_module(a)
        if bool(xp.isnan(a).any()):
            return "NaN"
        return "infinity" if self.check_inf and bool(xp.isinf(a).any()) else None


def _calling_line() -> str:
    """file:line of the nearest caller outside the two packages."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGES):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _span(a: Any) -> str:
    if not is_array(a) or a.size == 0 or a.dtype.kind not in "fc":
        return ""
    return f", values from {float(a.min()):.4g} to {float(a.max()):.4g}"


def _checksum(a: Any) -> int:
    if isinstance(a, tuple):  # the inputs of a variadic op
        return hash(tuple([_checksum(b) for b in a]))
    return zlib.crc32(to_numpy(a).tobytes()) if is_array(a) else 0


__all__ = ["AnomalyError", "detect_anomaly"]
