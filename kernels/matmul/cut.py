"""How a product is cut into parts for the threads.

Where a product is cut changes no bit of it: each number of C is summed by one thread, in an order that depends on the
depth alone.
"""

from __future__ import annotations

from ..numba_setup import njit
from .sizes import ROWS

SERIAL = 500_000  # multiply-adds that one thread does in 9 us: starting the others costs 3 to 5
PACK_B, PACK_A = 8, 16  # packing a number of B costs as much as 8 rows of C; one of A as 16 columns (measured)


@njit
def workers_for(rows, columns, depth, matrices, threads):
    """How many threads are worth their while."""
    return 1 if matrices * rows * columns * depth <= SERIAL else threads


@njit
def cut(rows, columns, matrices, workers, lanes):
    """(parts along the rows, parts along the columns) of each matrix; all parts together a multiple of `workers`.

    Of the ways to cut, the one whose largest part costs least, packing included. Columns are cut at whole vectors
    (512 = 256 + 256 of 16 lanes, and not 288 + 224): panels of two vectors are nearly as fast as those of three.
    """
    if matrices % workers == 0 or matrices >= 8 * workers:
        return 1, 1
    best, best_cost = (1, workers), 0
    for row_parts in range(1, workers + 1):
        if workers % row_parts == 0:
            m = part(rows, row_parts, ROWS)
            n = part(columns, workers // row_parts, lanes)
            cost = m * n + PACK_B * n + PACK_A * m
            if row_parts == 1 or cost < best_cost:
                best, best_cost = (row_parts, workers // row_parts), cost
    return best


@njit
def part(total, parts, multiple):
    """The size of one of `parts` parts, a multiple of `multiple`; the last may be smaller, or empty."""
    return (total + parts * multiple - 1) // (parts * multiple) * multiple
