"""The guard stops what reads or writes too far, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from minillm.testing import guarded

SUM = """
import numpy as np
from numpy.lib.stride_tricks import as_strided
from minillm.testing import guarded, guarded_allocations

x = guarded(np.arange(5, dtype=np.float32), before={before})
assert x.sum() == 10                                # inside is fine
with guarded_allocations():
    out = np.empty(3)
    out[...] = 1
{line}
print("alive")
"""


def run(line, before=False):
    code = SUM.format(line=line, before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_inside_is_fine():
    assert run("pass").stdout == "alive\n"


@pytest.mark.parametrize(
    "line, before",
    [
        ("as_strided(x, (6,), (4,)).sum()", False),
        ("as_strided(x[::-1], (6,), (-4,)).sum()", True),
        ("as_strided(out, (4,), (8,))[3] = 1", False),
    ],
    ids=["read after", "read before", "write after an allocation"],
)
def test_too_far_is_a_segmentation_fault(line, before):
    result = run(line, before)
    assert result.returncode < 0 and "alive" not in result.stdout


@pytest.mark.parametrize("before", [False, True])
def test_a_copy_of_the_values(before):
    x = np.arange(6, dtype=np.int32).reshape(2, 3).T
    copy = guarded(x, before)
    np.testing.assert_array_equal(copy, x)
    assert copy.flags.carray and copy.dtype == x.dtype
    assert guarded(np.zeros((0, 3))).shape == (0, 3)
