"""The display of a training: what it says is so, it fits, and nothing that happens to it reaches the training."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_checks import run_in_terminal

from minillm import nn, optim
from minillm.training import display as module
from minillm.training.display import Display, packed, readable, sparkline
from minillm.training.loop import Loop
from minillm.training.pace import Pace, Smoothed, duration

INFO = {
    "title": "gpt", "step": 0, "steps": 200, "minutes": None, "parameters": 1234567, "tokens_per_step": 1000,
    "rows": [],
}  # fmt: skip


def step(n: int, seconds: float, **more) -> dict:
    made = {"step": n, "steps": 200, "loss": 2.0, "lr": 1e-3, "grad_norm": 0.5, "tokens": 1000, "seconds": seconds}
    return {**made, "progress": n / 200, "skipped": False, **more}


def row(n: int, seconds: float, **more) -> dict:
    return {"step": n, "seconds": seconds, **more}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "FRAMES", math.inf)  # each step is drawn
    return Terminal()


def a_run(display: Display) -> None:
    display.on_start(INFO)
    display.on_row(row(0, 0.5, validation_loss=4.25, sample="qwx zzk"))
    for n in range(1, 5):
        display.on_step(step(n, 1.0 + n))
    display.on_row(row(4, 6.0, loss=2.0, validation_loss=2.125, sample="What light\nis this?"))
    display.on_step(step(5, 7.0, loss=1.0))
    display.on_end({"step": 5, "reason": "interrupted"})


def text_of(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


# -------------------------------------------------------------------------------------- without a terminal


def test_a_line_for_each_row():
    file = io.StringIO()
    a_run(Display(["a model of the test"], flops_per_token=1e6, peak=lambda: 2e9, file=file))
    assert file.getvalue().splitlines() == [
        "gpt: a model of the test",
        "gpt: step 0/200  held out 4.250",
        "gpt: step 4/200  loss 2.000  held out 2.125  lr 1.0e-03  gradient 0.500  1,000 tokens/s  50 % of peak  "
        "4:21 left",
        "gpt: stopped by Ctrl-C at step 5",
    ]  # fmt: skip


def test_a_line_where_rows_are_far_apart(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    display = Display(file=file, interval=30.0)
    display.on_start(INFO)
    for n in range(1, 101):
        now[0] += 1.0
        display.on_step(step(n, now[0], steps=None))
    lines = file.getvalue().splitlines()
    assert lines[0] == "gpt: 1,234,567 parameters, 1,000 tokens a step"
    assert [line.split("  ")[0] for line in lines[1:]] == [f"gpt: step {n}/200" for n in (30, 60, 90)]


def test_a_run_that_goes_on_knows_its_best():
    file = io.StringIO()
    display = Display(file=file)
    rows = [row(0, 0.1, validation_loss=4.0), row(10, 5.0, loss=2.5, validation_loss=1.5)]
    display.on_start({**INFO, "step": 10, "steps": None, "rows": rows})
    display.on_step(step(11, 6.0))
    display.on_row(row(11, 7.0, validation_loss=1.75))
    assert file.getvalue().splitlines()[1] == "gpt: goes on from step 10"
    assert "gpt: step 11  loss 2.000  held out 1.750, best 1.500  lr" in file.getvalue()


def test_quiet(capsys):
    def not_asked():
        raise AssertionError("nobody needs the peak")

    a_run(Display(flops_per_token=1.0, peak=not_asked, enabled=False))
    assert capsys.readouterr() == ("", "")


def test_stderr_is_where_it_goes(capsys):
    a_run(Display())
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 4


def test_no_peak_no_share():
    def broken():
        raise RuntimeError("no such machine")

    for display in (Display(file=io.StringIO()), Display(file=io.StringIO(), flops_per_token=1e6, peak=broken)):
        a_run(display)
        assert "tokens/s" in display.file.getvalue()
        assert "peak" not in display.file.getvalue()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_shown_and_not_averaged(bad):
    file = io.StringIO()
    display = Display(file=file)
    display.on_start(INFO)
    display.on_step(step(1, 1.0, loss=2.0))
    display.on_step(step(2, 2.0, loss=bad, grad_norm=bad, skipped=True))
    display.on_row(row(2, 3.0, loss=2.0, validation_loss=math.nan))
    display.on_step(step(3, 4.0, loss=2.0, skipped=True))
    display.on_row(row(3, 5.0))
    _, first, second = file.getvalue().splitlines()
    assert f"loss {bad}" in first and f"gradient {bad}" in first and first.count("steps were skipped") == 1
    assert "loss 2.000" in second and "gradient 0.500" in second


# ------------------------------------------------------------------------------------------ in a terminal


def test_the_last_frame_stays(terminal):
    a_run(Display(["about it"], flops_per_token=1e6, peak=lambda: 2e9, file=terminal))
    shown = terminal.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor comes back
    plain = text_of(shown)
    assert plain.startswith("gpt: about it\n")
    last = plain[plain.rindex("gpt  step") :].splitlines()
    assert [line.rstrip() for line in last] == [
        "gpt  step 5 / 200  stopped by Ctrl-C",
        "━" + "─" * 39,
        "loss 1.779  held out 2.125  lr 1.0e-03  gradient 0.500  1,000 tokens/s",
        "50 % of peak",
        "at step 4 it writes:",
        "What light",
        "is this?",
    ]
    before = plain[: plain.rindex("gpt  step")]
    assert "gpt  step 4 / 200  2 %" in before and "qwx zzk" in before and " left" in before


def test_the_losses_become_a_picture(terminal):
    display = Display(file=terminal)
    display.on_start(INFO)
    for n in range(1, 6):
        display.on_row(row(n, float(n), loss=6.0 - n))
    display.on_end({"step": 5, "reason": "done"})
    assert "█▆▅▃▁" in terminal.getvalue()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(1, 130), height=st.integers(1, 40), sample=st.text(max_size=300), encoding=st.sampled_from(
        ["utf-8", "ascii", "latin-1"]), values=st.lists(st.floats(), min_size=4, max_size=4),
    steps=st.one_of(st.none(), st.integers(1, 10**9)), progress=st.floats(),
)  # fmt: skip
def test_it_fits_any_terminal(width, height, sample, encoding, values, steps, progress, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    file = Terminal()
    file.encoding = encoding
    display = Display(["x" * 100], flops_per_token=1.0, peak=lambda: 1.0, file=file)
    loss, lr, norm, held_out = values
    display.on_start({**INFO, "steps": steps, "title": "a long title of it"})
    for n in range(1, 4):
        display.on_step(step(n, float(n), loss=loss, lr=lr, grad_norm=norm, progress=progress))
        display.on_row(row(n, n + 0.5, loss=loss, validation_loss=held_out, sample=sample))
    assert display.enabled, file.getvalue()
    options = display.console.options
    lines = [line for part in display.frame() for line in display.console.render_lines(part, options, pad=False)]
    assert 1 <= len(lines) <= max(1, height - 1)
    for line in lines:
        assert sum(segment.cell_length for segment in line) <= width
    display.on_end({"step": 3, "reason": "done"})
    file.getvalue().encode(encoding)
    assert display.enabled


def test_what_a_model_writes_cannot_steer_the_terminal(terminal):
    display = Display(file=terminal)
    display.on_start(INFO)
    display.on_row(row(0, 1.0, sample="a\x1b[2J\x07b[bold]c\x9b31m"))
    display.on_end({"step": 0, "reason": "done"})
    assert "\x1b[2J" not in terminal.getvalue() and "\x07" not in terminal.getvalue()
    assert "a?[2J?b[bold]c?31m" in text_of(terminal.getvalue())


def test_no_colour(terminal, monkeypatch):
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    a_run(Display(file=terminal))
    assert coloured.search(terminal.getvalue())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    a_run(Display(file=plain))
    assert not coloured.search(plain.getvalue())


def test_a_dumb_terminal_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    a_run(Display(file=terminal))
    assert "\x1b" not in terminal.getvalue() and terminal.getvalue().count("\n") == 4


def test_no_more_frames_than_eyes_can_follow(terminal, monkeypatch):
    monkeypatch.setattr(module, "FRAMES", 10)
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    display = Display(file=terminal)
    display.on_start(INFO)
    drawn = []
    monkeypatch.setattr(display, "_draw", lambda: (drawn.append(now[0]), setattr(display, "drawn", now[0])))
    for n in range(1, 1001):
        now[0] += 0.001
        display.on_step(step(n, now[0]))
    assert 8 <= len(drawn) <= 10


SCRIPT = """
import sys
from minillm.training.display import Display
d = Display(flops_per_token=1e6, peak=lambda: 2e9)
d.on_start({"title": "gpt", "step": 0, "steps": 8, "minutes": None, "parameters": 9, "tokens_per_step": 10, "rows": []})
for n in range(1, 9):
    d.on_step({"step": n, "steps": 8, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0, "tokens": 10, "seconds": float(n),
               "progress": n / 8, "skipped": False})
    if n == 4:
        print("a warning of someone", file=sys.stderr)
        print("a result")
    if n == 6 and sys.argv[1] == "fails":
        d.on_end({"step": n, "reason": "failed"})
        raise SystemExit(3)
d.on_end({"step": 8, "reason": "done"})
"""


@pytest.mark.parametrize("how", ["works", "fails"])
def test_in_a_terminal_of_its_own(how):
    code, out, text = run_in_terminal(SCRIPT, how)
    assert code == (3 if how == "fails" else 0) and out == b"a result\n"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    plain = text_of(text)
    assert "Traceback" not in plain and "a warning of someone" in plain
    assert ("gpt  step 8 / 8  done" if how == "works" else "gpt  step 6 / 8  failed") in plain


# ------------------------------------------------------------------- nothing of it reaches the training


class Broken(Terminal):
    """Somebody closed the window."""

    def write(self, text):
        raise OSError("gone")

    def flush(self):
        raise OSError("gone")


class Halves:
    tokens = 4

    def next(self):
        return (np.ones((4, 3), np.float32),)

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


def train(observer):
    model = nn.Linear(3, 1)
    model.weight.data[...], model.bias.data[...] = 1.0, 0.0
    loop = Loop(
        model, optim.SGD(model.parameters(), lr=0.1), Halves(), lambda x: (model(x) ** 2).mean(), steps=7, every=2,
        measure=lambda n: {"validation_loss": 1.0 / (n + 1), "sample": "words"}, observer=observer,
    )  # fmt: skip
    history = loop.run()
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history], model.weight.data.tobytes()


def test_a_training_with_it_is_the_same(terminal, capsys):
    expected = train(None)
    for file in (terminal, io.StringIO(), Broken()):
        assert train(Display(file=file)) == expected
    assert "gpt" not in capsys.readouterr().err
    assert "training  step 7 / 7  done" in text_of(terminal.getvalue())


@pytest.mark.parametrize("method", ["on_start", "on_step", "on_row", "on_end"])
def test_an_error_of_its_own_is_said_once(method, terminal):
    display = Display(file=terminal)
    if method != "on_start":
        display.on_start(INFO)
    for _ in range(3):
        getattr(display, method)({"nothing": "that it knows"})
    plain = text_of(terminal.getvalue())
    assert plain.count("the training goes on without it") == 1 and "display: KeyError" in plain
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")


def test_ctrl_c_while_it_draws_gives_the_cursor_back(terminal, monkeypatch):
    display = Display(file=terminal)
    display.on_start(INFO)

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(display, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        display.on_row(row(0, 1.0))
    assert terminal.getvalue().count("\x1b[?25h") == 1


# ------------------------------------------------------------------------------------------------ figures


def test_pace_is_that_of_training():
    """100 tokens a second between measurements, which take 9 seconds each."""
    pace = Pace()
    assert pace.tokens_per_second is None and pace.seconds_left is None
    now = 0.0
    for n in range(1, 9):
        now += 1.0
        pace.step({"seconds": now, "tokens": 100, "progress": n / 16})
        if n % 4 == 0:
            pace.row({"seconds": now + 8.0})
            now += 9.0  # a save takes a second more
    assert pace.tokens_per_second == pytest.approx(100)
    # 7 steps of 16 in 7 seconds of training, a measurement of 9 and the row at the end, 8
    assert pace.seconds_left == pytest.approx(8 * (7 + 9 + 8) / 7)


def test_pace_with_a_row_at_every_step():
    pace = Pace()
    for n in range(1, 4):
        pace.step({"seconds": 2.0 * n, "tokens": 100, "progress": n / 4})
        pace.row({"seconds": 2.0 * n + 1})
    assert pace.tokens_per_second == pytest.approx(100)


def test_pace_goes_by_the_latest_steps():
    pace = Pace(latest=5)
    for n in range(1, 21):
        pace.step({"seconds": n * 1.0 if n < 10 else 9 + (n - 9) * 0.5, "tokens": 100, "progress": 0.0})
    assert pace.tokens_per_second == pytest.approx(200)
    assert pace.seconds_left is None  # there is no progress


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.0, 0.99))
def test_smoothed_is_the_weighted_mean(values, decay):
    mean = Smoothed(decay)
    assert math.isnan(mean.value)
    for v in values:
        mean.update(v)
    weights = decay ** np.arange(len(values) - 1, -1, -1.0)
    assert mean.value == pytest.approx(np.dot(weights, values) / weights.sum(), rel=1e-9, abs=1e-6)
    for bad in (math.nan, math.inf, -math.inf):
        assert mean.update(bad) == mean.value


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.integers(1, 60))
def test_sparkline(values, width):
    line = sparkline(values, width)
    assert len(line) == min(len(values), width) and set(line) <= set(module.BLOCKS)


@given(st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=30), max_size=12), st.integers(1, 100))
def test_packed_loses_nothing(fields, width):
    lines = packed(fields, width)
    assert "  ".join(lines) == "  ".join(fields)
    assert all(len(line) <= width or line in fields for line in lines)


def test_words():
    assert duration(3599.6) == "1:00:00" and duration(-1) == "0:00" and duration(math.inf) == "?"
    assert readable("ä\tb\r\n\x00", "latin-1") == "ä b \n?"
