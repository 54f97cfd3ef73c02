"""What several tests of training share."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import minillm


def run_in_terminal(script: str, *arguments: str) -> tuple[int, bytes, str]:
    """(exit code, what it wrote to standard output, what a terminal of 80 columns saw on standard error)."""
    main, sub = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=sub, env=environment, timeout=60)
    os.close(sub)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other end is closed and all is read
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    return done.returncode, done.stdout, shown.decode()


def with_grad(loss, logits):
    """The value of loss(logits), and its gradient."""
    x = minillm.tensor(logits, requires_grad=True)
    value = loss(x)
    value.backward()
    return value.item(), x.grad.numpy()
