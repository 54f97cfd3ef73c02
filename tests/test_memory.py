"""Freed memory stays with the process: a training step does not fault its pages in again."""

import subprocess
import sys

import pytest

from minillm.memory import keep_freed_memory

COUNT = """
import resource, sys
import numpy as np
from minillm import memory
kept = memory.keep_freed_memory() if sys.argv[1] == "keep" else False
def step():
    arrays = [np.ones(1_000_000, np.float32) for _ in range(4)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(int(kept), (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="glibc's malloc has these settings, this C library's has not")
def test_page_faults_of_a_step():
    def run(mode):
        out = subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, check=True).stdout
        return [int(n) for n in out.split()]

    assert run("keep")[1] < 50 and run("keep")[0] == 1
    assert run("leave")[1] > 100  # 4 MB each, in pages of 4 KB or a few huge ones
