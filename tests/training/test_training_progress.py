"""What training prints: plain lines into a file, one live line in a terminal, nothing when asked to be quiet."""

from __future__ import annotations

import re

import pytest
from training_checks import run_in_terminal

from minillm.training.progress import Progress

SCRIPT = """
from minillm.training.progress import Progress
with Progress("autoencoder", 4) as bar:
    for i in range(1, 5):
        bar.advance()
        bar.show({"epoch": f"{96 + i}/100", "loss": 0.123456, "validation_loss": 0.34567})
"""


def show(enabled: bool) -> None:
    with Progress("vae", 2, enabled) as bar:
        bar.advance()
        bar.show({"epoch": "1/2", "loss": 37.0612, "validation_loss": None})
        bar.advance()
        bar.show({"epoch": "2/2", "loss": 0.00001234, "validation_loss": 31.2})


def test_lines_where_there_is_no_terminal(capsys):
    show(True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "vae: epoch 1/2  loss 37.06\nvae: epoch 2/2  loss 1.234e-05  validation 31.2\n"


def test_quiet(capsys):
    show(False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("fails", [False, True])
def test_a_live_line_in_a_terminal(fails):
    script = SCRIPT + "\nraise SystemExit(3)" if fails else SCRIPT
    code, out, shown = run_in_terminal(script)
    assert code == (3 if fails else 0) and out == b""
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor comes back
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    last = [line for line in re.split(r"[\r\n]+", plain) if line.strip()][-1]
    assert last.startswith("autoencoder ") and "epoch 100/100  loss 0.1235  validation 0.3457" in last
    assert "…" not in plain and "Traceback" not in plain
    assert len(last.rstrip()) <= 80
    assert plain.rstrip("\r\n").count("\n") == 0  # one line, drawn over and over
