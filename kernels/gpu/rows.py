"""How kernels on rows (`rows.cuh`) are cut: threads and registers for a row of n numbers, blocks for the rows.

It depends on the shape and the dtype alone, so that sums are added in the same order on every run and every GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import array_module

WARPS = 4  # of a block, where a warp or a part of it does a row
MOST_OF_1024 = 7  # packs of a thread in a block of 1024: each has 64 registers, and 8 packs would take 32
LARGEST_ROW, LARGEST_GRID = 2**30, 2**31 - 1


class Cut(NamedTuple):
    """A row is the work of `team` threads that hold `packs` packs of 16 bytes each; a longer one comes in chunks."""

    team: int
    packs: int

    @property
    def macros(self) -> dict[str, int]:
        return {"TEAM": self.team, "PACKS": self.packs}

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.team if self.team > 32 else 32 * WARPS

    def grid(self, kernel: str, rows: int) -> int:
        """Blocks that have a team for each row; ValueError where a launch does not hold them."""
        blocks = -(-rows * self.team // self.threads)
        if blocks > LARGEST_GRID:
            raise ValueError(f"{kernel}: {rows} rows are too many for one launch; split them")
        return blocks


def cut(kernel: str, n: int, itemsize: int, arrays: int = 1) -> Cut:
    """For rows of n numbers, `arrays` of which a kernel holds at once: a thread has 32 registers for them.

    >>> cut("softmax", 257, 4), cut("softmax", 4096, 2), cut("softmax", 50_257, 4)
    (Cut(team=32, packs=4), Cut(team=256, packs=2), Cut(team=1024, packs=7))
    """
    check_length(kernel, n)
    needed, most = packs_of(n, itemsize), 8 // arrays
    if needed <= 16:
        return Cut(8, 1 if needed <= 8 else 2)
    for team in (32, 256, 1024):
        packs = 1 if team < 1024 else most // 2
        while packs < most and team * packs < needed:
            packs *= 2
        if team * packs >= needed:
            break
    return Cut(team, min(packs, MOST_OF_1024) if team == 1024 else packs)


def packs_of(n: int, itemsize: int) -> int:
    """Packs of 16 bytes that a row of n numbers touches, wherever it begins among rows of n numbers."""
    whole, rest = divmod(n * itemsize, 16)
    return whole + 2 if rest else whole


def check_length(kernel: str, n: int) -> None:
    if n > LARGEST_ROW:
        raise ValueError(f"{kernel}: rows of {n} numbers are too long for the CUDA kernel, which counts to 2^30")


def check_writeable(kernel: str, name: str, x: Any | None) -> None:
    """A kernel writes through pointers, which no flag stops."""
    if x is not None and not getattr(x.flags, "writeable", True):
        raise ValueError(f"{kernel}: {name} is read-only; give an array that can be written to")


def rows_of(x: Any) -> tuple[int, int]:
    """(rows, n) of x (..., n); a 0-d x is one row of one."""
    n = int(x.shape[-1]) if x.ndim else 1
    return x.size // max(n, 1), n


def flat(x: Any) -> Any:
    """The numbers of x in C order, 1-d: x itself, seen so, or a copy; None stays None."""
    return None if x is None else array_module(x).ascontiguousarray(x).reshape(-1)


# --------------------------------------------------------------------------------- sums over rows: columns.cuh

RESIDENT = 1024 * 132  # threads of all blocks together: 1024 on each multiprocessor of an H200
BACKWARD_WARPS = 8


class ColumnCut(NamedTuple):
    """As `Cut`, for a kernel that also sums over the rows: a block takes `rows_of_block` of them."""

    team: int
    packs: int
    rows_of_block: int
    blocks: int

    @property
    def macros(self) -> dict[str, int]:
        return {"TEAM": self.team, "PACKS": self.packs, "WARPS": BACKWARD_WARPS}

    @property
    def threads(self) -> int:
        return self.team if self.team > 32 else 32 * BACKWARD_WARPS


def column_cut(kernel: str, rows: int, n: int, itemsize: int) -> ColumnCut:
    """For (rows, n) numbers: a warp or less for a row where it can hold one, so that its threads can own columns."""
    check_length(kernel, n)
    needed = -(-n * itemsize // 16)
    shapes = ((8, 1), (8, 2), (32, 1), (32, 2), (128, 1), (256, 1), (256, 2), (512, 2))
    team, packs = next((s for s in shapes if s[0] * s[1] >= needed), shapes[-1])
    teams = 32 * BACKWARD_WARPS // team if team <= 32 else 1
    most = RESIDENT // (team * teams)
    per_block = -(-max(-(-rows // most), teams) // teams) * teams
    return ColumnCut(team, packs, per_block, -(-rows // per_block))


def add_parts(kernel: str, run: Any, part: Any, given: Any | None, n: int, dtype: Any) -> Any:
    """The sum of part (blocks, n) over its blocks, by the kernel `run`: new, or added into `given` (n,); returned."""
    check_writeable(kernel, "the array to add a gradient into", given)
    xp = array_module(part)
    direct = given is not None and given.flags.c_contiguous
    out = given if direct else xp.empty(n, dtype) if given is None else xp.ascontiguousarray(given)
    run((-(-n // 32),), (1024,), (part, out, np.int32(part.shape[0]), np.int32(n), np.int32(given is not None)))
    if given is None or direct:
        return out
    given[...] = out
    return given
