"""What a training shows while it runs: in a terminal a few lines that change in place, elsewhere a line now and then.

    gpt  step 1,240 / 2,000  62 %  1:10 left
    ━━━━━━━━━━━━━━━━━━━━━━━━━───────────────
    loss 1.513  held out 1.731, best 1.722  lr 8.1e-04  gradient 0.41  42,100 tokens/s  38 % of peak
    ▇▆▅▄▄▃▃▂▂▂▁▁
    at step 1,000 it writes:
    What light is this, and who shall come to-night?

It watches and has no part in the training: whatever goes wrong here ends the display only.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from itertools import pairwise
from typing import Any

from ..machine import peak_flops
from .pace import Pace, Smoothed, duration

FRAMES = 10  # a second, at most
SAMPLE_LINES = 6
BLOCKS = "▁▂▃▄▅▆▇█"
REASONS = {
    "done": "done", "minutes": "done, the time is over", "interrupted": "stopped by Ctrl-C",
    "no better": "stopped early: the held-out loss grows no better", "failed": "failed",
}  # fmt: skip


def _guarded(method: Callable[[Any, dict], None]) -> Callable[[Any, dict], None]:
    """What goes wrong in the display is said once; the training goes on without it."""

    @wraps(method)
    def run(self: Display, data: dict[str, Any]) -> None:
        if not self.enabled:
            return
        try:
            method(self, data)
        except Exception as error:
            self.enabled = False
            self._stop()
            with suppress(Exception):  # nobody may be there to read it
                kind = type(error).__name__
                print(f"display: {kind}: {error}; the training goes on without it", file=self.file or sys.stderr)
        except BaseException:  # Ctrl-C while something is drawn: the cursor has to come back
            self._stop()
            raise

    return run


class Display:
    """An Observer (see observer.py) for `Loop`.

    about            lines for the start: the model, in words
    flops_per_token  of a training step; with it the share of `peak` is shown, as model FLOPs utilisation (PaLM,
                     arXiv:2204.02311, appendix B)
    peak             () -> FLOP/s of the machine; the default measures float32 on the kernels' threads, in 0.1 s
    interval         where there is no terminal: seconds after which a line is due, beside one for each row
    enabled          False: nothing is shown at all
    file             None: stderr
    """

    def __init__(
        self,
        about: Sequence[str] = (),
        flops_per_token: float | None = None,
        peak: Callable[[], float] = peak_flops,
        interval: float = 30.0,
        enabled: bool = True,
        file: Any = None,
    ):
        self.about, self.flops_per_token, self.measure_peak = list(about), flops_per_token, peak
        self.interval, self.enabled, self.file = interval, enabled, file
        self.console: Any = None
        self.live: Any = None  # in a terminal
        self.drawn = -math.inf  # when the latest frame, or line, was shown

    # ------------------------------------------------------------------------------------- what it is told

    @_guarded
    def on_start(self, info: dict[str, Any]) -> None:
        self.title, self.step, self.steps, self.reason = info["title"], info["step"], info["steps"], ""
        self.pace, self.loss, self.newest = Pace(), Smoothed(), math.nan
        self.lr = self.grad_norm = math.nan
        self.skipped = False
        self.losses: list[float] = []  # for the picture: of each row
        self.held_out = self.best = math.nan
        self.sample: tuple[int, str] | None = None
        for row in info["rows"]:
            self._take(row)
        self.peak = 0.0
        if self.flops_per_token:
            with suppress(Exception):  # then there is no share to show
                self.peak = self.measure_peak()
        self._open()
        about = self.about or [f"{info['parameters']:,} parameters, {info['tokens_per_step']:,} tokens a step"]
        for line in [*about, *([f"goes on from step {self.step:,}"] if self.step else [])]:
            self._print(f"{self.title}: {line}")
        if self.live is not None:
            self.live.start()
        self.drawn = time.monotonic()

    @_guarded
    def on_step(self, step: dict[str, Any]) -> None:
        self.pace.step(step)
        self.step, self.newest, self.lr, self.grad_norm = step["step"], step["loss"], step["lr"], step["grad_norm"]
        self.skipped = bool(step.get("skipped"))
        self.loss.update(self.newest)
        now = time.monotonic()
        if self.live is not None:
            if now - self.drawn >= 1 / FRAMES:
                self._draw()
        elif now - self.drawn >= self.interval:
            self._line()

    @_guarded
    def on_row(self, row: dict[str, Any]) -> None:
        self.pace.row(row)
        self.step = row["step"]
        self._take(row)
        if self.live is not None:
            self._draw()
        else:
            self._line()

    @_guarded
    def on_end(self, end: dict[str, Any]) -> None:
        self.step, self.reason = end["step"], REASONS.get(end["reason"], str(end["reason"]))
        if self.live is not None:
            self._draw()
            self._stop()
        else:
            self._print(f"{self.title}: {self.reason} at step {self.step:,}")

    def _take(self, row: dict[str, Any]) -> None:
        """What a row of the history says."""
        if isinstance(row.get("loss"), int | float) and math.isfinite(row["loss"]):
            self.losses.append(row["loss"])
        if row.get("validation_loss") is not None:
            self.held_out = float(row["validation_loss"])
            self.best = min(self.held_out, self.best if math.isfinite(self.best) else math.inf)
        if isinstance(row.get("sample"), str):
            self.sample = row["step"], row["sample"]

    # ------------------------------------------------------------------------------------ what it says

    def fields(self) -> list[str]:
        """The figures, each as a piece of text; those that are not known are left out."""
        fields = []
        loss = self.newest if math.isfinite(self.loss.value) and not math.isfinite(self.newest) else self.loss.value
        if self.pace.start is not None:  # there was a step
            fields.append(f"loss {figure(loss)}")
        if not math.isnan(self.held_out):
            better = math.isfinite(self.best) and self.best < self.held_out
            fields.append(f"held out {figure(self.held_out)}" + (f", best {figure(self.best)}" if better else ""))
        if self.pace.start is not None:
            fields += [f"lr {self.lr:.1e}", f"gradient {figure(self.grad_norm)}"]
        rate = self.pace.tokens_per_second
        if rate is not None:
            fields.append(f"{rate:,.0f} tokens/s")
            if self.flops_per_token and self.peak > 0:
                fields.append(f"{100 * rate * self.flops_per_token / self.peak:.0f} % of peak")
        if self.skipped:
            fields.append("steps were skipped")
        return fields

    def headline(self) -> list[str]:
        of = f" / {self.steps:,}" if self.steps else ""
        fields = [self.title, f"step {self.step:,}{of}"]
        if self.reason:
            return [*fields, self.reason]
        left = self.pace.seconds_left
        return [*fields, f"{100 * self.pace.progress:.0f} %", *([] if left is None else [f"{duration(left)} left"])]

    def _line(self) -> None:
        """Where there is no terminal: all that is known, on one line."""
        left = self.pace.seconds_left
        of = f"/{self.steps}" if self.steps else ""
        time_left = [f"{duration(left)} left"] if left else []
        self._print(f"{self.title}: " + "  ".join([f"step {self.step}{of}", *self.fields(), *time_left]))
        self.drawn = time.monotonic()

    def _print(self, line: str) -> None:
        if self.live is None:
            print(line, file=self.file or sys.stderr, flush=True)
        else:
            self.console.print(line, markup=False, highlight=False)

    # ------------------------------------------------------------------------------------- the live lines

    def _open(self) -> None:
        """The terminal, if there is one that can move its cursor."""
        file = self.file or sys.stderr
        if not (hasattr(file, "isatty") and file.isatty()):
            return
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=file)
        if self.console.is_dumb_terminal:
            return
        own_output = bool(sys.stdout and sys.stdout.isatty())  # what is piped elsewhere stays as it is
        self.live = Live(console=self.console, auto_refresh=False, redirect_stdout=own_output)  # no thread of its own

    def _draw(self) -> None:
        from rich.console import Group

        self.live.update(Group(*self.frame()), refresh=True)
        self.drawn = time.monotonic()

    def frame(self) -> list[Any]:
        """The lines of a frame, none wider than the terminal, and no more than it has."""
        from rich.text import Text

        width, height = max(1, self.console.width), self.console.height
        ascii_only = self.console.options.ascii_only
        made: dict[str, Any] = {"no_wrap": True, "overflow": "crop" if ascii_only else "ellipsis"}
        parts: list[Any] = [Text(line, style="bold", **made) for line in packed(self.headline(), width)]
        parts.append(Text(bar(self.pace.progress, min(width, 40), "=-" if ascii_only else "━─"), style="cyan", **made))
        parts += [Text(line, **made) for line in packed(self.fields(), width)]
        if len(self.losses) > 1 and not ascii_only:
            parts.append(Text(sparkline(self.losses, min(width, 40)), style="cyan", **made))
        room = min(SAMPLE_LINES, height - len(parts) - 2)
        if self.sample is not None and room > 0:
            step, text = self.sample
            text = readable(text, self.console.encoding)
            parts.append(Text(f"at step {step:,} it writes:", style="dim", **made))
            lines = [row for line in text.splitlines() for row in Text(line, overflow="fold").wrap(self.console, width)]
            parts += [Text(line.plain, style="italic", **made) for line in lines[:room]]
        return parts[: max(1, height - 1)]

    def _stop(self) -> None:
        """The terminal as it was, the last frame left standing."""
        live, self.live = self.live, None
        with suppress(Exception):
            if live is not None:
                live.stop()


def figure(x: float) -> str:
    """A loss or a norm, of a width that changes little.

    >>> figure(1.51349), figure(0.000123), figure(12345.6), figure(float("nan"))
    ('1.513', '0.000123', '1.23e+04', 'nan')
    """
    return f"{x:.3f}" if 0.1 <= abs(x) < 1000 else f"{x:.3g}"


def packed(fields: Iterable[str], width: int, gap: str = "  ") -> list[str]:
    """Fields side by side, as many on a line as fit.

    >>> packed(["loss 1.5", "lr 1e-3", "gradient 0.4"], 20)
    ['loss 1.5  lr 1e-3', 'gradient 0.4']
    """
    lines: list[str] = []
    for field in fields:
        if lines and len(lines[-1]) + len(gap) + len(field) <= width:
            lines[-1] += gap + field
        else:
            lines.append(field)
    return lines


def bar(part: float, width: int, letters: str) -> str:
    """How much is done, in two letters.

    >>> bar(0.5, 6, "=-")
    '===---'
    """
    done = round(width * min(1.0, max(0.0, part))) if math.isfinite(part) else 0
    return letters[0] * done + letters[1] * (width - done)


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a row of bars, from the smallest to the largest; means of neighbours where there are more.

    >>> sparkline([4, 3, 2, 1], 10), sparkline([1, 1], 10), sparkline(range(8), 4)
    ('█▆▃▁', '▁▁', '▁▃▆█')
    """
    n = min(len(values), max(1, width))
    cuts = [i * len(values) // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((m - low) * scale)] for m in means)


def readable(text: str, encoding: str) -> str:
    """What a model wrote, harmless in a terminal: no control characters, none that the encoding lacks.

    >>> readable("a\\x1b[2Jb\\tc", "ascii")
    'a?[2Jb c'
    """
    shown = "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "?" for c in text)
    return shown.encode(encoding, "replace").decode(encoding)
