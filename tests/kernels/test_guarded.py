"""No kernel touches memory beside its arrays: all of them, on arrays with forbidden pages at either side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from guarded_calls import CALLS

import kernels

FREE = {"PACKAGE", "available", "clip_factor", "erf", "erfc", "has_bf16", "prepare", "set_default", "use"}  # NumPy


def test_every_kernel_beside_forbidden_memory():
    command = [sys.executable, str(Path(__file__).with_name("guarded_calls.py"))]
    environment = {**os.environ, "PYTHONPATH": str(Path(kernels.__file__).parents[1])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    last = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, f"{last}\n{result.stderr[-3000:]}"
    assert len(result.stdout.splitlines()) == 2 * len(CALLS)


def test_no_kernel_is_left_out():
    called = {word for name in CALLS for word in name.replace(",", " ").split()}
    missing = set(kernels.__all__) - called - FREE
    assert missing - ({"matmul_bf16"} if not kernels.has_bf16() else set()) == set()
