"""What a gradient check found, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class GradcheckError(AssertionError):
    """A gradient is wrong, or the check compared nothing. The message is the report."""


@dataclass
class InputReport:
    """One input: the worst of the compared derivatives."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    ok: bool = True
    compared: int = 0  # derivatives compared
    wrong: int = 0
    how: str = ""  # "every element" or "along directions"
    index: tuple[int, ...] | None = None  # worst element
    output: tuple[int, ...] | None = None  # of this output; None: of the cotangent-weighted sum of all
    analytic: float = 0.0
    numerical: float = 0.0
    numerical_error: float = 0.0  # estimated
    step: float = 0.0
    largest: float = 0.0  # largest numerical derivative of this input
    cause: str = ""
    kinks: list[tuple[int, ...]] = field(default_factory=list)  # skipped

    @property
    def absolute_error(self) -> float:
        return abs(self.analytic - self.numerical)

    @property
    def relative_error(self) -> float:
        scale = max(abs(self.analytic), abs(self.numerical))
        return self.absolute_error / scale if scale else 0.0

    @property
    def ulp_error(self) -> float:
        """In units of the last place of the numerical value, in the input's dtype."""
        kind = np.dtype(self.dtype).type
        if not np.isfinite(self.numerical):
            return float("inf")
        return self.absolute_error / float(np.spacing(np.abs(kind(self.numerical))) or np.finfo(kind).tiny)

    def __str__(self) -> str:
        head = f"  {self.name}, {self.dtype} {self.shape}: "
        skipped = ""
        if self.kinks:
            shown = ", ".join(str(k) for k in self.kinks[:3]) + (
                f" and {len(self.kinks) - 3} more" if len(self.kinks) > 3 else ""
            )
            skipped = f"\n    kink at index {shown}: skipped"
        if self.index is None and not self.how:
            return head + "nothing compared" + skipped
        state = f"{self.compared} derivatives compared {self.how}, "
        state += f"{self.wrong} wrong" if self.wrong else "all right"
        place = "" if self.index is None else f" at index {self.index}"
        place += "" if self.output is None else f", of output {self.output}"
        lines = [
            head + state,
            f"worst{place}: analytic {self.analytic:.10g}, numerical {self.numerical:.10g}",
            f"error: absolute {self.absolute_error:.2e}, relative {self.relative_error:.2e}, {self.ulp_error:.3g} ulp",
            f"numerical side: step {self.step:.1e}, extrapolated; its own error is about {self.numerical_error:.1e}",
        ]
        if self.cause:
            lines.append(f"suspected cause: {self.cause}")
        return "\n    ".join(lines) + skipped


@dataclass
class GradcheckReport:
    """bool(report) says whether the gradients are right; str(report) says why not."""

    name: str
    order: int
    inputs: list[InputReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # other than wrong numbers
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and all(i.ok for i in self.inputs)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def compared(self) -> int:
        """Derivatives compared, over all inputs."""
        return sum(i.compared for i in self.inputs)

    @property
    def worst(self) -> InputReport | None:
        """The input with the largest error relative to its largest derivative; None if nothing was compared."""
        with_numbers = [i for i in self.inputs if i.compared]
        return max(
            with_numbers, key=lambda i: (not i.ok, _nan_last(i.absolute_error / (i.largest or 1.0))), default=None
        )

    @property
    def worst_error(self) -> float:
        """Its error, relative to the largest derivative of that input (absolute where that is zero)."""
        worst = self.worst
        if worst is None:
            return float("nan")
        return worst.absolute_error / (worst.largest if worst.largest > 100 * worst.numerical_error else 1.0)

    @property
    def causes(self) -> list[str]:
        return [i.cause for i in self.inputs if i.cause]

    def __str__(self) -> str:
        order = "" if self.order == 1 else f", derivative of order {self.order}"
        lines = [f"gradcheck {'passed' if self.ok else 'FAILED'}: {self.name}{order}"]
        lines += [f"  problem: {p}" for p in self.problems]
        lines += [str(i) for i in self.inputs]
        lines += [f"  note: {n}" for n in self.notes]
        lines += [f"  warning: {w}" for w in self.warnings]
        return "\n".join(lines)


def _nan_last(x: float) -> Any:
    return float("inf") if np.isnan(x) else x
